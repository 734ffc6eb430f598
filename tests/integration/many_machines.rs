//! Machines of a network, each with an address and a daemon of its own, who join by one of them: what is added anywhere
//! is fetched everywhere, also when a third of them, and among these the one by which all joined, have gone without a
//! word. `CASD_MACHINES` says how many there are.

use std::thread;
use std::time::{Duration, Instant};

use casd_tests::corpus;
use casd_tests::machines::Machines;
use casd_tests::wait::{self, LONG};
use casd_tests::{Daemon, Home, Settings, skip};

/// How many machines there are in CI.
const FEW: usize = 8;
/// How many others a node knows when its network has formed, if there are as many: it looks up those around it.
const AROUND: usize = 20;
/// Bytes of an object.
const SIZE: u64 = 100_000;

/// A machine's daemon, and the object that was added there.
struct Host {
    daemon: Daemon,
    home: Home,
    object: String,
}

/// A home on a machine. Its settings are those of a new user, but for where it keeps things and whom it joins by.
fn home(machines: &Machines, number: usize, bootstrap: &[String]) -> Home {
    let mut home = Home::new();
    let (state, socket) = (home.state(), home.socket());
    home.change(|_| {
        let settings = Settings::default().text("node.state_dir", &state.display().to_string());
        let settings = settings.text("api.socket", &socket.display().to_string());
        let settings = settings.raw("network.lan_discovery", "false").text("store.reserve", "0");
        settings.texts("network.bootstrap", bootstrap)
    });
    home.runs_on(machines.on(number));
    home
}

/// Does `work` for each of `items` at once, and gives what came of it, in order.
fn all<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let each = items.iter().enumerate();
        let begun: Vec<_> = each.map(|(number, one)| scope.spawn(move || work(number, one))).collect();
        begun.into_iter().map(|one| one.join().expect("it went well")).collect()
    })
}

/// Each host fetches what the one `ahead` of it has added; the longest that one took.
fn each_fetches(hosts: &[Host], ahead: usize) -> Duration {
    let took = all(hosts, |number, host| {
        let (begun, object) = (Instant::now(), &hosts[(number + ahead) % hosts.len()].object);
        let out = host.home.path(&format!("out-{ahead}-{number}"));
        host.daemon.ctl().run(&["fetch", object, "-o"]).arg(&out).within(3 * LONG).done().ok();
        assert_eq!(corpus::id_of_file(&out), *object);
        begun.elapsed()
    });
    took.into_iter().max().unwrap_or_default()
}

/// Runs all of it on machines with the addresses that `address` makes of their numbers.
fn are_one_network(address: impl Fn(usize) -> String) {
    let count = std::env::var("CASD_MACHINES").map_or(FEW, |count| count.parse().expect("a number"));
    let addresses: Vec<String> = (0..count).map(|number| address(number + 1)).collect();
    let Some(machines) = Machines::many(&addresses) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    let first = home(&machines, 0, &[]);
    let daemon = first.start();
    let at = addresses[0].split('/').next().expect("an address");
    let is_there = |one: &String| one.contains(&format!("/{at}/"));
    let entrance: Vec<String> = daemon.dht_addresses().into_iter().filter(is_there).collect();
    assert!(!entrance.is_empty(), "{:?}", daemon.dht_addresses());
    let homes: Vec<Home> = (1..count).map(|number| home(&machines, number, &entrance)).collect();
    let daemons = all(&homes, |_, home| home.start());
    let begun = Instant::now();
    let mut hosts: Vec<Host> = std::iter::once((daemon, first))
        .chain(daemons.into_iter().zip(homes))
        .map(|(daemon, home)| Host { daemon, home, object: String::new() })
        .collect();
    // The network has formed: what is announced earlier may be known to few, and all of these may go.
    let others = (count - 1).min(AROUND) as u64;
    all(&hosts, |_, host| {
        wait::until(format!("{} to know {others} others", host.daemon), LONG, || {
            (host.daemon.ctl().status()["peers"].as_u64()? >= others).then_some(())
        });
    });
    let joined = begun.elapsed();
    let objects = all(&hosts, |number, host| {
        let file = host.home.path("file");
        let id = corpus::file(&file, 100 + number as u64, SIZE);
        host.daemon.ctl().run(&["-q", "add", "--wait-announced"]).arg(&file).within(3 * LONG).done().ok();
        id
    });
    hosts.iter_mut().zip(objects).for_each(|(host, object)| host.object = object);
    let whole = each_fetches(&hosts, 1);

    // A third goes, and with it the one by which all have joined.
    let (gone, mut left): (Vec<_>, Vec<_>) =
        hosts.into_iter().enumerate().partition(|(number, _)| number % 3 == 0);
    let _folders: Vec<Home> = gone
        .into_iter()
        .map(|(_, host)| {
            host.daemon.kill();
            host.home
        })
        .collect();
    let left: Vec<Host> = left.drain(..).map(|(_, host)| host).collect();
    let after = each_fetches(&left, 2);
    let late = left[0].daemon.ctl().add_bytes(&corpus::bytes(99, 100_000));
    all(&left[1..], |_, host| {
        host.daemon
            .ctl()
            .run(&["fetch", &late, "-o"])
            .arg(host.home.path("late"))
            .within(3 * LONG)
            .done()
            .ok();
    });
    eprintln!(
        "{count} machines like {}: all know others after {joined:.1?}, slowest fetch {whole:.1?}, {after:.1?} when a \
         third had gone",
        addresses[0]
    );
}

#[test]
fn machines_are_one_network_over_ipv4() {
    are_one_network(|number| format!("10.80.0.{number}/24"));
}

#[test]
fn machines_are_one_network_over_ipv6() {
    are_one_network(|number| format!("fd00:80::{number:x}/64"));
}
