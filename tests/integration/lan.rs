//! Machines on one network find each other without being told of each other: default ports, and settings that name
//! nothing but folders.

use std::time::{Duration, Instant};

use casd_tests::corpus::{self, MIB};
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
