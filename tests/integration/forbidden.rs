//! What strangers tell does not make a daemon knock at doors that are no nodes': ten thousand records, and as many
//! answers, name addresses of its own host, of private networks and of services; strace shows what it sends, and where.
//! Without the rule (`unfiltered`), the same look shows that it would.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use casd_tests::machines::Machines;
use casd_tests::programs::program;
use casd_tests::strace::Strace;
use casd_tests::wait::{self, LONG};
use casd_tests::{Daemon, Home, Settings, skip};

/// Records that are placed at the daemon.
const RECORDS: usize = 10_000;
/// As many as two peers place: more would be in each other's way, where they are dialled.
const FEW: usize = 500;
/// Made-up keys that are looked for: three hundred made-up holders are named for each.
const MADE_UP: usize = 20;
/// Where the daemon is, and the one who lies to it. Both are of a network that counts as public.
const DAEMON: &str = "198.51.100.1";
const LIAR: &str = "198.51.100.2";

/// Ports by which it shows how an address was learnt: see `poisoner/addresses.rs`.
const WAYS: [(u16, &str); 6] = [
    (20_001, "as a provider's"),
    (20_002, "as a nearer node's"),
    (20_003, "with a record"),
    (20_004, "when asked for holders"),
    (20_005, "by identify"),
    (20_006, "as a chunk port"),
];

/// A daemon under strace, and a liar beside it.
struct Scene {
    daemon: Daemon,
    liar: Child,
    home: Home,
    /// What strace writes.
    trace: PathBuf,
    /// Where the daemon itself listens.
    own: BTreeSet<SocketAddr>,
    _machines: Machines,
}

impl Scene {
    /// `None` where there can be none here.
    fn set(daemon: &'static str, records: usize) -> Option<Self> {
        let machines = Machines::two([&format!("{DAEMON}/24"), &format!("{LIAR}/24")])?;
        for (number, own) in [(0, "2001:db8:1::1/64"), (1, "2001:db8:1::2/64")] {
            machines.ip(number, &["address", "add", own, "dev", "eth0", "nodad"]);
        }
        let name = format!("test-{:016x}", rand::random::<u64>());
        let mut home = Home::new();
        let (state, socket) = (home.state(), home.socket());
        home.change(|_| {
            let settings = Settings::default().text("node.state_dir", &state.display().to_string());
            let settings = settings.text("api.socket", &socket.display().to_string());
            settings.text("network.name", &name).raw("network.lan_discovery", "false")
        });
        let trace = home.path("trace");
        let strace = ["strace", "-D", "-f", "-s", "0", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"];
        let strace = strace.iter().map(ToString::to_string).chain([trace.display().to_string()]);
        home.runs_on(machines.on(0).into_iter().chain(strace).collect());
        home.runs(daemon);
        let daemon = home.start();
        let status = daemon.ctl().status();
        let chunk = status["listen"]["chunk"].as_array().expect("chunk ports").iter();
        let chunk = chunk.filter_map(|at| at.as_str()?.parse::<SocketAddr>().ok());
        let port = chunk.clone().find(SocketAddr::is_ipv4).expect("a chunk port").port();
        let dht = daemon.dht_addresses();
        let target = dht.iter().find(|at| at.starts_with(&format!("/ip4/{DAEMON}/udp")));
        let target = target.expect("it listens on the cable").clone();
        let own = dht.iter().filter_map(|at| {
            let mut parts = at.split('/').skip(2);
            let (ip, port) = (parts.next()?, parts.nth(1)?);
            Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
        });
        let ips = [DAEMON, "2001:db8:1::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let own = own.chain(ips.map(|ip| SocketAddr::new(ip, port))).collect();
        let on = machines.on(1);
        let liar = Command::new(&on[0])
            .args(&on[1..])
            .arg(program("poisoner"))
            .args([&name, &format!("/ip4/{LIAR}/udp/8468/quic-v1"), &target])
            .args([format!("{DAEMON}:{port}"), records.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut scene = Self { daemon, liar, home, trace, own, _machines: machines };
        let mut ready = String::new();
        BufReader::new(scene.liar.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready "), "the liar ended: {ready:?}");
        Some(scene)
    }

    /// Looks for a record's key, or for another one.
    fn look_for(&self, number: usize) -> casd_tests::ctl::Running {
        self.daemon.ctl().run(&["providers", &key(number).to_hex()]).within(3 * LONG).start()
    }

    /// Where something was sent to, or connected to, that no stranger may have it sent to.
    fn sent(&self) -> BTreeSet<SocketAddr> {
        let ends = ends(&std::fs::read_to_string(&self.trace).unwrap_or_default());
        ends.into_iter()
            .filter(|at| is_forbidden(at.ip()) || is_service(*at) || self.own.contains(at))
            .collect()
    }
}

/// Keys of records are hashes of their numbers.
fn key(number: usize) -> blake3::Hash {
    blake3::hash(&number.to_le_bytes())
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.liar.kill();
        let _ = self.liar.wait();
    }
}

/// Whether no stranger may have anything sent there.
fn is_forbidden(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let unrouted = matches!((a, b, c), (198, 18 | 19, _) | (192, 0, 0));
            let local = v4.is_loopback() || v4.is_link_local() || v4.is_private() || shared || unrouted;
            local || a == 0 || a >= 224
        }
        IpAddr::V6(v6) => v6.segments()[0] >> 13 != 1,
    }
}

fn is_service(at: SocketAddr) -> bool {
    at.port() < 1024 && at.port() != 443
}

/// The addresses in what strace wrote, of IPv4 and IPv6.
fn ends(trace: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for part in trace.split("{sa_family=AF_INET").skip(1) {
        let port = part.split_once("_port=htons(").and_then(|(_, rest)| rest.split_once(')'));
        let quoted = part.split('"').nth(1);
        let Some((port, ip)) =
            port.zip(quoted).and_then(|((port, _), ip)| port.parse().ok().zip(ip.parse().ok()))
        else {
            continue;
        };
        found.push(SocketAddr::new(IpAddr::to_canonical(&ip), port));
    }
    found
}

#[test]
fn ten_thousand_records_of_forbidden_addresses_make_it_send_nothing_there() {
    if !Strace::is_there() {
        return skip("strace is not there, or may not trace");
    }
    let Some(scene) = Scene::set("casd", RECORDS) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    // A key of each who announced some, keys that nobody announced, and what the liar itself is said to hold: its
    // chunk ports are in its hello.
    let keys = (0..RECORDS).step_by(250).chain(RECORDS..RECORDS + MADE_UP);
    let looks: Vec<_> = keys.map(|number| scene.look_for(number)).collect();
    let found: usize = looks.into_iter().map(|look| look.done().text().lines().count()).sum();
    assert!(found > 0, "the liar answers, and is found");
    fetch(&scene).done().refused(&[4, 7], "");
    let all = ends(&std::fs::read_to_string(&scene.trace).unwrap());
    assert!(
        all.iter().any(|at| at.ip() == LIAR.parse::<IpAddr>().unwrap()),
        "strace sees what is sent: {all:?}"
    );
    assert_eq!(scene.sent(), BTreeSet::new());
    eprintln!("{} calls to others than that, {found} answers", all.len());
}

/// The first byte of a key decides what the liar answers to questions for it: see `poisoner/main.rs`.
fn first_of(number: usize) -> u8 {
    key(number).as_bytes()[0]
}

/// Waits until something is sent to addresses that were told in these ways.
#[track_caller]
fn is_sent(scene: &Scene, ways: &[(u16, &str)]) {
    for (port, way) in ways {
        let is_sent = || scene.sent().iter().any(|at| at.port() == *port).then_some(());
        wait::until(format!("something to be sent where no node is, told {way}"), 3 * LONG, is_sent);
    }
}

/// Begins to fetch what the liar says to hold.
fn fetch(scene: &Scene) -> casd_tests::ctl::Running {
    let held = (2 * RECORDS..).find(|number| (64..128).contains(&first_of(*number))).expect("one in four");
    let id = key(held).to_hex().to_string();
    let run = scene.daemon.ctl().run(&["fetch", &id, "--stall", "3s", "-o"]).arg(scene.home.path("out"));
    run.within(3 * LONG).start()
}

#[test]
fn without_the_rule_the_same_look_sees_it_send_there() {
    if !Strace::is_there() {
        return skip("strace is not there, or may not trace");
    }
    let Some(scene) = Scene::set("unfiltered", FEW) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    // Of each kind one after the other: a record, of a key for which Kademlia names nobody; a holder whose chunk ports
    // are lies; holders that are made up.
    let _first = scene.look_for((0..FEW / 2).find(|number| first_of(*number) < 64).expect("one in four"));
    is_sent(&scene, &WAYS[2..4]);
    let _second = fetch(&scene);
    is_sent(&scene, &WAYS[5..]);
    assert!(scene.sent().iter().any(|at| scene.own.contains(at)), "it does not talk to itself");
    let _third = scene.look_for((RECORDS..).find(|number| first_of(*number) >= 128).expect("one in two"));
    is_sent(&scene, &WAYS);
    for (kind, is) in KINDS {
        wait::until(format!("something to be sent to {kind}"), 3 * LONG, || {
            scene.sent().iter().any(|at| is(*at)).then_some(())
        });
    }
}

/// A kind of forbidden address, and how it is told.
type Forbidden = (&'static str, fn(SocketAddr) -> bool);

/// Kinds of addresses.
const KINDS: [Forbidden; 5] = [
    ("loopback", |at| at.ip().is_loopback()),
    ("private addresses of IPv4", |at| matches!(at.ip(), IpAddr::V4(v4) if v4.is_private())),
    ("link-local addresses", |at| matches!(at.ip(), IpAddr::V4(v4) if v4.is_link_local())),
    (
        "private addresses of IPv6",
        |at| matches!(at.ip(), IpAddr::V6(v6) if v6.segments()[0] & 0xfe00 == 0xfc00),
    ),
    ("services of others", |at| is_service(at) && !is_forbidden(at.ip())),
];
