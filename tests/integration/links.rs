//! What becomes of whoever begins with a link or an address: the network is joined where that can be, and where it
//! cannot it is told what is wrong with which.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use casd::peer::Keypair;
use casd_tests::ctl::{Done, Run};
use casd_tests::machines::Machines;
use casd_tests::programs::program;
use casd_tests::wait::{self, LONG};
use casd_tests::{Daemon, Home, Node, Settings, nodes, skip};
use serde_json::Value;

/// A node, and another of the same network that knows nobody.
fn strangers() -> (Node, Node) {
    let giver = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = giver.ctl().status()["network"].as_str().unwrap().to_owned();
    let home = Home::with(|settings| settings.text("network.name", &network));
    (giver, Node { daemon: home.start(), home })
}

/// Fetches what nobody gives: it would take ten minutes.
fn fails(taker: &Node, link: &str) -> Done {
    taker.ctl().run(&["fetch", link, "--stall", "600s", "-o"]).arg(taker.home.path("none")).done()
}

/// What the doctor says of whether a node is alone.
fn company(daemon: &Daemon) -> Value {
    let checks = daemon.ctl().run(&["--json", "doctor"]).done().json();
    checks.into_iter().find(|check| check["check"] == "peers").expect("the doctor looks at that")
}

/// A port that was free a moment ago.
fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn somebody() -> String {
    Keypair::generate_ed25519().public().to_peer_id().to_string()
}

#[test]
fn whoever_begins_with_a_link_becomes_part_of_the_network() {
    let (giver, taker) = strangers();
    let id = giver.ctl().add_bytes(b"for a friend");
    let link = giver.ctl().text(&["link", &id]);
    let chunk = giver.daemon.chunk_address().replace('@', "%40");
    assert!(link.contains(&format!(",peer={chunk},peer=/ip4/127.0.0.1/")), "both kinds: {link}");
    assert_eq!(taker.ctl().status()["alone"], true);
    assert_eq!(taker.ctl().run(&["fetch", &link, "-o", "-"]).done().ok().stdout, b"for a friend");
    wait::until("the one with the link to have joined", LONG, || {
        (taker.ctl().status()["alone"] == false).then_some(())
    });
    wait::until("what was fetched to be announced", LONG, || {
        let found = giver.ctl().run(&["--json", "providers", &id]).done();
        found.json().iter().any(|holder| holder["peer_id"] == taker.id()).then_some(())
    });
    // By its id alone now, and in the other direction.
    let add = taker.ctl().run(&["-q", "add", "--wait-announced", "-"]);
    let other = add.input(b"in return").done().ok().text();
    assert_eq!(giver.ctl().run(&["fetch", &other, "-o", "-"]).done().ok().stdout, b"in return");
}

#[test]
fn who_joins_by_an_address_that_was_given_says_so_though_the_node_is_configured() {
    let giver = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = giver.ctl().status()["network"].as_str().unwrap().to_owned();
    let closed = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", nobody().rsplit_once(':').unwrap().1, giver.id());
    let home =
        Home::with(|settings| settings.text("network.name", &network).texts("network.bootstrap", &[&closed]));
    let daemon = home.start();
    daemon.ctl().run(&["connect", &giver.daemon.dht_addresses()[0]]).done().ok();
    let line = daemon.logged("joined the network by");
    assert!(line.contains("at an address that was given"), "{line}");
}

#[test]
fn whoever_knows_only_one_that_keeps_no_records_joins_by_a_link() {
    let giver = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = giver.ctl().status()["network"].as_str().unwrap().to_owned();
    let of_it = |settings: Settings| settings.text("network.name", &network);
    let home = Home::with(|settings| of_it(settings).text("network.dht", "client"));
    let client = Node { daemon: home.start(), home };
    let beside = client.daemon.dht_addresses().remove(0);
    let home = Home::with(|settings| of_it(settings).texts("network.bootstrap", &[&beside]));
    let taker = Node { daemon: home.start(), home };
    let is_unserved = |so: bool| {
        wait::until(format!("unserved to be {so}"), LONG, || {
            (taker.ctl().status()["unserved"] == so).then_some(())
        });
    };
    is_unserved(true);
    let id = giver.ctl().add_bytes(b"for one beside a client");
    let link = giver.ctl().text(&["link", &id]);
    let fetched = taker.ctl().run(&["fetch", &link, "-o", "-"]).done().ok().stdout;
    assert_eq!(fetched, b"for one beside a client");
    is_unserved(false);
    assert_eq!(company(&taker.daemon)["level"], "ok");
}

#[test]
fn who_is_connected_to_a_chunk_port_only_is_told_so_and_how_to_join() {
    let (giver, taker) = strangers();
    let at = giver.daemon.chunk_address();
    let connected = taker.ctl().run(&["connect", &at]).done().ok();
    assert!(connected.stderr.contains("chunk port only"), "{}", connected.stderr);
    assert!(connected.stderr.contains("`dht at`"), "{}", connected.stderr);
    assert_eq!(taker.ctl().json(&["connect", &at])[0]["chunk_only"], true);
    // Status and doctor agree.
    assert_eq!(taker.ctl().status()["alone"], true);
    let said = company(&taker.daemon);
    assert!(said["level"] == "warn" && said["advice"].as_str().unwrap().contains("`dht at`"), "{said}");
    assert!(said["what"].as_str().unwrap().contains("chunk ports only"), "{said}");
    // As it was told to.
    let dht = giver.daemon.dht_addresses().remove(0);
    let connected = taker.ctl().run(&["connect", &dht]).done().ok();
    assert!(connected.stderr.is_empty(), "{}", connected.stderr);
    assert_eq!(taker.ctl().json(&["connect", &at])[0]["chunk_only"], false);
    assert_eq!(taker.ctl().status()["alone"], false);
    assert_eq!(company(&taker.daemon)["level"], "ok");
}

#[test]
fn a_name_that_leads_nowhere_is_said_to() {
    let home = Home::new();
    let daemon = home.start();
    let nowhere = format!("{}@no.such.host.invalid:9000", somebody());
    let words = "the name no.such.host.invalid cannot be resolved";
    daemon.ctl().run(&["connect", &nowhere]).done().refused(&[1], words);
}

/// A home on a machine for one that listens at the usual ports and looks for nobody.
fn usual_home(machines: &Machines, number: usize) -> Home {
    let mut home = Home::new();
    let (state, socket) = (home.state(), home.socket());
    home.change(|_| {
        let settings = Settings::default().text("node.state_dir", &state.display().to_string());
        let settings = settings.text("api.socket", &socket.display().to_string());
        settings.raw("network.lan_discovery", "false")
    });
    home.runs_on(machines.on(number));
    home
}

/// Two machines that do not look for each other, with the usual ports, and a caller of both; the first is at 10.83.0.1.
fn usual_ports(test: impl FnOnce(&Daemon, &Daemon)) {
    let Some(machines) = Machines::two(["10.83.0.1/24", "10.83.0.2/24"]) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    let (giver, taker) = (usual_home(&machines, 0), usual_home(&machines, 1));
    test(&giver.start(), &taker.start());
}

#[test]
fn beside_a_chunk_port_the_usual_port_of_the_dht_is_tried() {
    usual_ports(|holder, fetcher| {
        let id = holder.ctl().add_bytes(b"by its id alone");
        let at = format!("{}@10.83.0.1:9000", holder.peer_id());
        assert_eq!(fetcher.ctl().json(&["connect", &at])[0]["chunk_only"], false);
        assert_eq!(fetcher.ctl().status()["alone"], false);
        assert_eq!(fetcher.ctl().run(&["fetch", &id, "-o", "-"]).done().ok().stdout, b"by its id alone");
    });
}

#[test]
fn whoever_fetches_from_a_chunk_port_joins_where_the_dht_is_at_its_usual_port() {
    usual_ports(|holder, fetcher| {
        let id = holder.ctl().add_bytes(b"from a port");
        let link = format!("casd:{id},peer={}@10.83.0.1:9000", holder.peer_id());
        assert_eq!(fetcher.ctl().run(&["fetch", &link, "-o", "-"]).done().ok().stdout, b"from a port");
        wait::until("the one with the link to have joined", LONG, || {
            (fetcher.ctl().status()["alone"] == false).then_some(())
        });
    });
}

#[test]
fn without_a_network_a_link_names_no_address() {
    let Some(machines) = Machines::two(["10.84.0.1/24", "10.84.0.2/24"]) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    let address = |verb| machines.ip(0, &["address", verb, "10.84.0.1/24", "dev", "eth0"]);
    address("del");
    let home = usual_home(&machines, 0);
    let daemon = home.start();
    let id = daemon.ctl().add_bytes(b"before the network comes");
    let link = daemon.ctl().run(&["link", &id]).done().ok();
    assert!(link.stderr.contains("no address that others could use"), "{}", link.stderr);
    assert!(!link.text().contains("peer="), "{}", link.text());
    address("add");
    wait::until("the link to say where it is", LONG, || {
        let link = daemon.ctl().run(&["link", &id]).done().ok();
        (link.text().contains("%4010.84.0.1:9000") && link.stderr.is_empty()).then_some(())
    });
}

#[test]
fn an_address_that_nobody_can_connect_to_is_not_shown() {
    let Some(machines) = Machines::two(["10.85.0.1/24", "10.85.0.2/24"]) else {
        return skip("only root can make network namespaces, with iproute2");
    };
    machines.ip(0, &["address", "add", "fe80::5/64", "dev", "eth0", "nodad"]);
    let home = usual_home(&machines, 0);
    let daemon = home.start();
    let _ = daemon.logged("/ip6/fe80::5/tcp/");
    let shown = wait::until("its addresses to be shown", LONG, || {
        Some(daemon.dht_addresses()).filter(|all| all.iter().any(|at| at.contains("/10.85.0.1/")))
    });
    assert!(!shown.iter().any(|at| at.contains("fe80")), "{shown:?}");
}

#[test]
fn a_link_that_leads_nowhere_ends_soon_and_says_what_is_wrong_with_it() {
    let (giver, taker) = strangers();
    let id = giver.ctl().add_bytes(b"somewhere");
    let chunk = giver.daemon.chunk_address();
    let (who, at) = chunk.split_once('@').unwrap();
    let link = |peer: String| format!("casd:{id},peer={peer}");
    let closed = nobody();
    let cases = [
        (link(format!("{who}@{closed}")), "refused"),
        (link(format!("{}@{at}", somebody())), who),
        (link(format!("{who}@no.such.host.invalid:9000")), "cannot be resolved"),
    ];
    for (link, word) in &cases {
        fails(&taker, link).refused(&[4], word);
    }
    // The right one beside a wrong one.
    let both = format!("{},peer={chunk}", cases[0].0);
    assert_eq!(taker.ctl().run(&["fetch", &both, "-o", "-"]).done().ok().stdout, b"somewhere");

    let private = giver.ctl().run(&["-q", "add", "--private", "-"]).input(b"for me").done().ok().text();
    let useless = fails(&taker, &format!("casd:{private},peer={chunk}"));
    useless.refused(&[4], "does not have it or gives it to nobody");
}

#[test]
fn a_holder_in_a_private_network_is_told_to_be_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, Run::new(program("casd")).arg("--gen-key").done().ok().stdout).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let with_key = |settings: Settings| settings.text("network.key_file", &key.display().to_string());
    let giver = nodes::network(1, |_, settings| with_key(settings)).pop().unwrap();
    let network = giver.ctl().status()["network"].as_str().unwrap().to_owned();
    let home = Home::with(|settings| settings.text("network.name", &network));
    let taker = Node { daemon: home.start(), home };
    let id = giver.ctl().add_bytes(b"for members");
    let link = format!("casd:{id},peer={}", giver.daemon.chunk_address());
    fails(&taker, &link).refused(&[1], "network key");
}

#[test]
fn a_link_with_the_dht_address_only_of_a_node_with_another_key_ends_at_once_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| {
        let key = folder.path().join(name);
        std::fs::write(&key, Run::new(program("casd")).arg("--gen-key").done().ok().stdout).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        key.display().to_string()
    });
    let giver = nodes::network(1, |_, settings| settings.text("network.key_file", &theirs)).pop().unwrap();
    let network = giver.ctl().status()["network"].as_str().unwrap().to_owned();
    let of_it = |settings: Settings| settings.text("network.name", &network);
    let id = giver.ctl().add_bytes(b"for others");
    let link = format!("casd:{id},peer={}", giver.daemon.dht_addresses()[0]);
    let home = Home::with(|settings| of_it(settings).text("network.key_file", &ours));
    let taker = Node { daemon: home.start(), home };
    let fetch = taker.ctl().run(&["--json", "fetch", &link, "--stall", "600s", "-o"]);
    let failed = fetch.arg(taker.home.path("none")).done().code(1).stderr;
    let said: Value = serde_json::from_str(failed.trim_end()).unwrap();
    assert!(said["reason"] == "OTHER_NETWORK" && said["retryable"] == false, "{said}");
}

#[test]
fn a_link_to_a_node_of_another_network_ends_at_once_and_says_so() {
    let home = Home::new();
    let giver = Node { daemon: home.start(), home };
    let id = giver.ctl().add_bytes(b"elsewhere");
    let link = giver.ctl().text(&["link", &id]);
    let dht = format!("casd:{id},peer={}", giver.daemon.dht_addresses()[0]);
    // One that knows nobody, and one with a network of its own, where it asks as well.
    for count in [1, 2] {
        let nodes = nodes::network(count, |_, settings| settings);
        let taker = nodes.last().unwrap();
        for link in [&link, &dht] {
            let fetch = taker.ctl().run(&["--json", "fetch", link, "--stall", "600s", "-o"]);
            let failed = fetch.arg(taker.home.path("none")).done().code(1).stderr;
            let said: Value = serde_json::from_str(failed.trim_end()).unwrap();
            assert!(said["reason"] == "OTHER_NETWORK" && said["retryable"] == false, "{said}");
            assert!(said["error"].as_str().unwrap().contains("network.name"), "{said}");
        }
    }
}

#[test]
fn who_cannot_join_waits_for_that_as_long_as_other_verbs_do() {
    let gone = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", nobody().rsplit_once(':').unwrap().1, somebody());
    let home = Home::with(|settings| settings.texts("network.bootstrap", &[&gone]));
    let taker = Node { daemon: home.start(), home };
    let id = "ab".repeat(32);
    fails(&taker, &format!("casd:{id},peer={}@{}", somebody(), nobody())).refused(&[4], "refused");
    fails(&taker, &id).refused(&[4], "the one node that is known, or configured to join by, does not answer");
    for verb in ["providers", "search"] {
        let said = taker.ctl().run(&[verb, &id]).done().code(4).stderr;
        assert!(said.contains("casctl doctor") && !said.contains("network.bootstrap"), "{said}");
    }
}

#[test]
fn the_only_holder_is_told_that_it_is_one() {
    let home = Home::new();
    let daemon = home.start();
    let id = daemon.ctl().add_bytes(b"only here");
    let alone = daemon.ctl().run(&["providers", &id]).done();
    alone.refused(&[4], "this node holds it");
    assert!(alone.stderr.contains("casctl connect") && !alone.stderr.contains("--peer"), "{}", alone.stderr);
    let json = daemon.ctl().run(&["--json", "providers", &id]).done().code(4).stderr;
    let said: Value = serde_json::from_str(json.trim_end()).unwrap();
    assert!(said["reason"] == "NO_PEERS" && said["retryable"] == true, "{said}");
    assert!(said["hint"].as_str().unwrap().contains("casctl connect"), "{said}");
    assert!(!said["error"].as_str().unwrap().contains("casctl connect"), "{said}");

    let nodes = nodes::network(2, |_, settings| settings);
    let added = nodes[0].ctl().run(&["-q", "add", "--private", "-"]).input(b"mine").done().ok().text();
    nodes[0].ctl().run(&["providers", &added]).done().refused(&[4], "this node holds it");
    let elsewhere = nodes[1].ctl().run(&["providers", &added]).done();
    elsewhere.refused(&[4], "nobody else");
    assert!(!elsewhere.stderr.contains("this node holds it"), "{}", elsewhere.stderr);
}

#[test]
fn a_link_that_was_cut_is_told_as_one() {
    let home = Home::new();
    let daemon = home.start();
    let id = daemon.ctl().add_bytes(b"whole");
    let link = daemon.ctl().text(&["link", &id]);
    let peer = link.find("peer=").unwrap();
    let out = home.path("out");
    for (end, said) in [(peer + 13, "in the link, which looks cut"), (peer + 3, "where the link was cut")] {
        daemon.ctl().run(&["fetch", &link[..end], "-o"]).arg(&out).done().refused(&[2], said);
    }
    let cut = daemon.ctl().run(&["fetch", "--detach", &link[..peer + 13]]).done();
    cut.refused(&[2], &format!("casd:{id} alone would do"));
    daemon.ctl().run(&["fetch", &format!("casd:{id}"), "-o"]).arg(&out).done().ok();
}

#[test]
fn what_is_fetched_by_a_link_has_its_name_here_unless_it_has_one() {
    let (giver, taker) = strangers();
    let (file, tree) = (giver.home.path("film.bin"), giver.home.path("album"));
    std::fs::write(&file, b"a film").unwrap();
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("a"), b"a").unwrap();
    let file = giver.ctl().add(&file);
    let tree = giver.ctl().run(&["-q", "add", "-r"]).arg(&tree).done().ok().text();
    for (id, name) in [(&file, "film.bin"), (&tree, "album")] {
        let link = giver.ctl().text(&["link", id]);
        taker.ctl().run(&["fetch", &link, "-o"]).arg(taker.home.path(name)).done().ok();
        assert_eq!(taker.ctl().json(&["stat", id])[0]["name"], name);
        let other = format!("casd:{id},name=other");
        taker.ctl().run(&["fetch", &other, "-o"]).arg(taker.home.path(&format!("{name}.2"))).done().ok();
        assert_eq!(taker.ctl().json(&["stat", id])[0]["name"], name, "it has one");
    }
}
