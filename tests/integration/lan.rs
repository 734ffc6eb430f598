//! Machines on one network find each other without being told of each other: default ports, and settings that name
//! nothing but folders.

use std::time::{Duration, Instant};

use casd::peer::PeerId;
use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Run;
use casd_tests::machines::Machines;
use casd_tests::{Daemon, Home, Settings, skip};

/// How long it may take from the start of the second machine's daemon to the end of its fetch.
const SOON: Duration = Duration::from_secs(5);

/// A home for a daemon on a machine. Its settings are those of a new user, but for where it keeps things.
fn home(machines: &Machines, number: usize) -> Home {
    let mut home = Home::new();
    let (state, socket) = (home.state(), home.socket());
    home.change(|_| {
        let settings = Settings::default().text("node.state_dir", &state.display().to_string());
        settings.text("api.socket", &socket.display().to_string())
    });
    home.runs_on(machines.on(number));
    home
}

/// The file is added on one machine and fetched by its id alone on the other.
fn is_found(addresses: [&str; 2]) {
    let Some(machines) = Machines::two(addresses) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    let (giver, mut taker) = (home(&machines, 0), home(&machines, 1));
    let file = giver.path("file");
    let id = corpus::file(&file, 5, 3 * MIB + 5);
    let holder = giver.start();
    assert_eq!(holder.ctl().add(&file), id);

    // Without looking for each other they do not find each other: there is no other way.
    taker.change(|settings| settings.raw("network.lan_discovery", "false"));
    let deaf = taker.start();
    deaf.ctl().run(&["fetch", &id, "-o"]).arg(taker.path("none")).done().refused(&[4, 7], "no peers");
    drop(deaf);

    taker.change(|settings| settings.raw("network.lan_discovery", "true"));
    let fetcher = taker.start();
    let ready = Instant::now();
    let out = taker.path("out");
    fetcher.ctl().run(&["fetch", &id, "-o"]).arg(&out).done().ok();
    let took = ready.elapsed();
    assert_eq!(corpus::id_of_file(&out), id);
    assert!(took < SOON, "it took {took:?}");
    eprintln!("{addresses:?}: fetched {took:?} after the second daemon was ready");

    // What the second adds, the first finds.
    let other = fetcher.ctl().add_bytes(&corpus::bytes(6, 100_000));
    holder.ctl().run(&["fetch", &other, "-o"]).arg(giver.path("other")).done().ok();
    let knows = |one: &Daemon, other: &Daemon| one.ctl().text(&["peers"]).contains(&other.peer_id());
    assert!(knows(&holder, &fetcher) && knows(&fetcher, &holder));
}

#[test]
fn two_machines_find_each_other_over_ipv4() {
    is_found(["10.77.0.1/24", "10.77.0.2/24"]);
}

#[test]
fn two_machines_find_each_other_over_ipv6() {
    is_found(["fd00:77::1/64", "fd00:77::2/64"]);
}

/// A packet of multicast DNS in which somebody says to be at forty ports of a host.
fn boast(host: &str) -> Vec<u8> {
    let name = |words: &[&str]| {
        let label = |word: &&str| [&[u8::try_from(word.len()).unwrap()], word.as_bytes()].concat();
        [words.iter().flat_map(label).collect(), vec![0]].concat()
    };
    let service = name(&["_p2p", "_udp", "local"]);
    let record = |owner: &[u8], kind: u8, data: &[u8]| {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [owner, &[0, kind, 0, 1, 0, 0, 1, 0], &length, data].concat()
    };
    let id = PeerId::random();
    let text = |port: u16| {
        let text = format!("dnsaddr=/ip4/{host}/tcp/{port}/p2p/{id}");
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    let texts: Vec<u8> = (40_000..40_040).flat_map(text).collect();
    let head = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let (owner, answer) = (name(&["x"]), record(&service, 12, &name(&["x"])));
    [&head, &*answer, &record(&owner, 16, &texts)].concat()
}

#[test]
fn whoever_floods_the_network_with_peers_is_not_listened_to() {
    let Some(machines) = Machines::two(["10.79.0.1/24", "10.79.0.2/24"]) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    let (giver, taker) = (home(&machines, 0), home(&machines, 1));
    let (holder, fetcher) = (giver.start(), taker.start());
    let id = holder.ctl().add_bytes(&corpus::bytes(8, 100_000));
    casd_tests::wait::until("the two to find each other", SOON, || {
        (fetcher.ctl().status()["peers"].as_u64()? > 0).then_some(())
    });
    for number in 0..120 {
        std::fs::write(taker.path(&format!("boast-{number}")), boast("10.79.0.1")).unwrap();
    }
    let send = "for boast in boast-*; do cat $boast >/dev/udp/10.79.0.2/5353; done";
    let on = machines.on(0);
    let send = on[1..].iter().fold(Run::new(&on[0]), Run::arg).arg("bash").arg("-c").arg(send);
    send.in_folder(taker.path("x").parent().expect("a folder")).done().ok();
    let said = fetcher.logged("floods the local network");
    assert!(said.contains("for 10 minutes"), "{said}");
    // Those who are known already stay.
    fetcher.ctl().run(&["fetch", &id, "-o"]).arg(taker.path("out")).done().ok();
    let peers = fetcher.ctl().json(&["peers"]);
    assert_eq!(peers.len(), 1, "{peers:?}");
}

#[test]
fn a_machine_whose_network_comes_later_joins_then() {
    let Some(machines) = Machines::two(["10.78.0.1/24", "10.78.0.2/24"]) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    for number in [0, 1] {
        machines.ip(number, &["link", "set", "dev", "eth0", "down"]);
    }
    let (giver, taker) = (home(&machines, 0), home(&machines, 1));
    let (holder, fetcher) = (giver.start(), taker.start());
    let id = holder.ctl().add_bytes(&corpus::bytes(7, 100_000));
    for number in [0, 1] {
        machines.ip(number, &["link", "set", "dev", "eth0", "up"]);
    }
    let come = Instant::now();
    casd_tests::wait::until("the two to find each other", SOON, || {
        (fetcher.ctl().status()["peers"].as_u64()? > 0).then_some(())
    });
    fetcher.ctl().run(&["fetch", &id, "-o"]).arg(taker.path("out")).done().ok();
    eprintln!("fetched {:?} after the network came", come.elapsed());
}

#[test]
fn a_client_that_listens_nowhere_finds_its_network() {
    let Some(machines) = Machines::two(["10.80.0.1/24", "10.80.0.2/24"]) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    let (giver, mut taker) = (home(&machines, 0), home(&machines, 1));
    taker.change(|settings| settings.text("network.mode", "client"));
    let holder = giver.start();
    let id = holder.ctl().add_bytes(&corpus::bytes(9, 100_000));
    let client = taker.start();
    assert_eq!(client.ctl().status()["listen"], serde_json::json!({ "chunk": [], "dht": [] }));
    let out = taker.path("out");
    client.ctl().run(&["fetch", &id, "-o"]).arg(&out).done().ok();
    assert_eq!(corpus::id_of_file(&out), id);
}

#[test]
fn who_finds_only_a_client_of_the_dht_joins_its_network_by_it() {
    let addresses = [1, 2, 3].map(|number| format!("10.81.0.{number}/24"));
    let Some(machines) = Machines::many(&addresses) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    // It keeps records, and is not found on the local network.
    let mut far = home(&machines, 0);
    far.change(|settings| settings.raw("network.lan_discovery", "false"));
    let server = far.start();
    let id = server.ctl().add_bytes(&corpus::bytes(10, 100_000));
    let entrance: Vec<String> =
        server.dht_addresses().into_iter().filter(|at| at.contains("/10.81.0.1/")).collect();
    assert!(!entrance.is_empty(), "{:?}", server.dht_addresses());
    let mut near = home(&machines, 1);
    near.change(|settings| settings.text("network.dht", "client").texts("network.bootstrap", &entrance));
    let neighbour = near.start();
    let knows = |daemon: &Daemon, count: u64| {
        casd_tests::wait::until(format!("{count} to be known"), casd_tests::wait::LONG, || {
            (daemon.ctl().status()["known_peers"].as_u64()? >= count).then_some(())
        });
    };
    knows(&neighbour, 1);

    let taker = home(&machines, 2);
    let fetcher = taker.start();
    knows(&fetcher, 2);
    let out = taker.path("out");
    fetcher.ctl().run(&["fetch", &id, "-o"]).arg(&out).done().ok();
    assert_eq!(corpus::id_of_file(&out), id);
    assert_eq!(fetcher.ctl().status()["unserved"], false);
}
