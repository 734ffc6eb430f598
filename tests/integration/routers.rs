//! Nodes behind routers that let nothing in, each at home on a network of its own, and one that all can reach: those at
//! home are found, connect by both dialling at once, and give each other what they have. Real daemons with default
//! ports; what they are told is the address of the third. And private networks with a router between them, on which a
//! holder that others tell of is reached where the network has a key.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Run;
use casd_tests::machines::{Between, Machines};
use casd_tests::wait::{self, LONG};
use casd_tests::{Daemon, Home, Settings, skip};
use serde_json::Value;

/// The machine that all can reach.
const PUBLIC: usize = 2;

/// What is fetched: more than a relay carries.
const FILE: u64 = 12 * MIB;

/// A home for a daemon on a machine, whose settings are those of a new user but for where it keeps things, and for a
/// network of its own name, with a key or without.
fn home(machines: &Machines, number: usize, bootstrap: &[String], key: Option<[u8; 32]>) -> Home {
    let mut home = Home::new();
    let (state, socket) = (home.state(), home.socket());
    home.change(|_| {
        let settings = Settings::default().text("node.state_dir", &state.display().to_string());
        let settings = settings.text("api.socket", &socket.display().to_string());
        settings.texts("network.bootstrap", bootstrap).text("network.name", "routers")
    });
    if let Some(key) = key {
        let file = home.path("network.key");
        std::fs::write(&file, format!("{}\n", hex::encode(key))).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        home.change(|settings| settings.text("network.key_file", &file.display().to_string()));
    }
    home.runs_on(machines.on(number));
    home
}

/// Bytes that have come to the public machine and gone from it.
fn carried(machines: &Machines) -> u64 {
    let on = machines.on(PUBLIC);
    let show = on[1..].iter().fold(Run::new(&on[0]), Run::arg);
    let shown =
        ["ip", "-s", "-j", "link", "show", "dev", "eth0"].iter().fold(show, Run::arg).done().ok().json();
    let stats = &shown[0][0]["stats64"];
    stats["rx"]["bytes"].as_u64().unwrap() + stats["tx"]["bytes"].as_u64().unwrap()
}

/// What the doctor says of whether others reach a node.
fn reach(daemon: &Daemon) -> Value {
    let checks = daemon.ctl().run(&["--json", "doctor"]).done().json();
    checks.into_iter().find(|check| check["check"] == "reach").expect("the doctor looks at that")
}

fn is_reachable(daemon: &Daemon, expected: &str) {
    wait::until(format!("a node to know that it is reached: {expected}"), LONG, || {
        (daemon.ctl().status()["reachable"] == expected).then_some(())
    });
}

/// A file is added at one home and fetched by its id alone at the other.
fn is_fetched(between: Between, is_private: bool) {
    let Some(machines) = Machines::behind_routers(between) else {
        return skip("only root can make network namespaces and routers, with iproute2 and nftables");
    };
    let public = if between == Between::Firewalls { "/ip6/2001:db8::2" } else { "/ip4/192.0.2.2" };
    let key = is_private.then(rand::random);
    let open = home(&machines, PUBLIC, &[], key);
    let middle = open.start();
    let at = ["udp/8468/quic-v1", "tcp/8468"];
    let bootstrap = at.map(|at| format!("{public}/{at}/p2p/{}", middle.peer_id()));
    let [giver, taker] = [0, 1].map(|number| home(&machines, number, &bootstrap, key));
    let holder = giver.start();
    let file = giver.path("file");
    let id = corpus::file(&file, 5, FILE);
    holder.ctl().run(&["add", "--wait-announced"]).arg(&file).done().ok();
    wait::until("a relay to be found", LONG, || (reach(&holder)["numbers"]["relays"] == 1).then_some(()));
    assert_eq!(holder.ctl().json(&["link", &id])[0]["unreached"], false, "others ask for it at the relay");
    if between != Between::Firewalls {
        // Whoever is at the same home needs no relay.
        let link = holder.ctl().text(&["link", &id]);
        assert!(link.contains("%40192.168.0.2:9000") && link.contains("/ip4/192.168.0.2/"), "{link}");
    }

    let fetcher = taker.start();
    let (out, before, begun) = (taker.path("out"), carried(&machines), Instant::now());
    fetcher.ctl().run(&["fetch", &id, "-o"]).arg(&out).done().ok();
    let took = begun.elapsed();
    assert_eq!(corpus::id_of_file(&out), id);
    let carried = carried(&machines) - before;
    eprintln!("{between:?}: fetched in {took:?}; {carried} bytes went by the node in the middle");
    assert!(carried < MIB, "{carried} bytes went by the node in the middle");

    // What happened is told.
    let said = reach(&fetcher);
    assert_eq!(said["numbers"]["punched"], 1, "{said}");
    assert!(said["what"].as_str().unwrap().contains("both ends dialling at once"), "{said}");
    is_reachable(&middle, "yes");
    let said = reach(&middle);
    assert!(said["level"] == "ok" && said["what"].as_str().unwrap().contains(public), "{said}");
    for inside in [&holder, &fetcher] {
        is_reachable(inside, "no");
        let said = reach(inside);
        assert!(
            said["level"] == "warn" && said["what"].as_str().unwrap().contains(&middle.peer_id()),
            "{said}"
        );
        assert!(said["advice"].as_str().unwrap().contains("listen.dht"), "{said}");
    }
}

#[test]
fn two_behind_routers_fetch_from_each_other() {
    is_fetched(Between::Nat, false);
}

#[test]
fn two_behind_routers_fetch_from_each_other_without_udp() {
    is_fetched(Between::NatWithoutUdp, false);
}

#[test]
fn two_behind_firewalls_fetch_from_each_other_over_ipv6() {
    is_fetched(Between::Firewalls, false);
}

#[test]
fn two_behind_routers_fetch_from_each_other_in_a_private_network() {
    is_fetched(Between::Nat, true);
}

/// A holder on another private network, of which a node in the middle tells: whether it is reached.
fn is_reached_beyond(is_private: bool) {
    let Some(machines) = Machines::two_subnets() else {
        return skip("only root can make network namespaces, with iproute2");
    };
    let key = is_private.then(rand::random);
    let first = home(&machines, 0, &[], key);
    let middle = first.start();
    let bootstrap = [format!("/ip4/10.77.1.1/udp/8468/quic-v1/p2p/{}", middle.peer_id())];
    let [beyond, near] = [2, 1].map(|number| home(&machines, number, &bootstrap, key));
    let holder = beyond.start();
    let file = beyond.path("file");
    let id = corpus::file(&file, 5, MIB + 1);
    holder.ctl().run(&["add", "--wait-announced"]).arg(&file).done().ok();

    let fetcher = near.start();
    wait::until("it to join", LONG, || (fetcher.ctl().status()["peers"].as_u64()? > 0).then_some(()));
    let out = near.path("out");
    let fetch = fetcher.ctl().run(&["fetch", &id, "--stall", "30s", "-o"]).arg(&out).done();
    if is_private {
        fetch.ok();
        assert_eq!(corpus::id_of_file(&out), id);
        let holders = fetcher.ctl().json(&["providers", &id]);
        assert!(holders.iter().any(|one| one["peer_id"] == holder.peer_id()), "{holders:?}");
    } else {
        assert!(!fetch.status.success(), "what anybody may tell was dialled");
        let said = &fetch.stderr;
        let place = "it is on another private network (10.77.2.3)";
        assert!(said.contains(&format!("{}: {place}", holder.peer_id())), "{said}");
        assert!(
            said.contains("casctl connect ID@HOST:PORT") && said.contains("--peer ID@HOST:PORT"),
            "{said}"
        );
        // Where a relay has led to it, it has answered; else it is told of as by the fetch.
        let providers = fetcher.ctl().run(&["providers", &id]).done();
        let told = providers.text() + &providers.stderr;
        assert!(told.contains(&holder.peer_id()), "{told}");
        assert!(providers.status.success() || told.contains(place), "{told}");
        let is_relayed = providers.text().contains("/p2p-circuit");
        assert!(!is_relayed || providers.stderr.contains("through a relay"), "{told}");
        // Who is given it, by a link or an address, reaches it all the same.
        let at = format!("{}@10.77.2.3:9000", holder.peer_id());
        fetcher.ctl().run(&["fetch", &id, "--peer", &at, "-o"]).arg(&out).done().ok();
        assert_eq!(corpus::id_of_file(&out), id);
    }
}

#[test]
fn with_a_key_a_holder_on_another_private_network_is_reached() {
    is_reached_beyond(true);
}

#[test]
fn without_a_key_a_holder_on_another_private_network_is_dialled_only_where_it_is_given() {
    is_reached_beyond(false);
}

#[test]
fn an_address_that_is_gone_is_told_to_nobody() {
    let Some(machines) = Machines::two_subnets() else {
        return skip("only root can make network namespaces, with iproute2");
    };
    let there = home(&machines, 2, &[], None);
    let holder = there.start();
    let id = holder.ctl().add_bytes(b"on a host that moves");
    let bootstrap = [format!("/ip4/10.77.2.3/tcp/8468/p2p/{}", holder.peer_id())];
    let near = home(&machines, 0, &bootstrap, None);
    let _other = near.start();
    // Somebody from beyond its subnet has come in.
    is_reachable(&holder, "yes");
    assert!(holder.ctl().text(&["link", &id]).contains("10.77.2.3"));
    machines.ip(2, &["address", "del", "10.77.2.3/24", "dev", "eth0"]);
    machines.ip(2, &["address", "add", "10.77.2.22/24", "dev", "eth0"]);
    wait::until("the link to name the new address only", LONG, || {
        let link = holder.ctl().text(&["link", &id]);
        (link.contains("10.77.2.22") && !link.contains("10.77.2.3")).then_some(())
    });
}
