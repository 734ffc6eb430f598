//! A node that is alone, and one whose objects others cannot fetch, as their users meet them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use casd::peer::Keypair;
use casd_tests::ctl::Run;
use casd_tests::programs::program;
use casd_tests::wait::{self, LONG};
use casd_tests::{Daemon, Home, Node, Settings, corpus, nodes};
use serde_json::Value;

/// What the doctor says of whether a node is alone.
fn company(daemon: &Daemon) -> Value {
    let checks = daemon.ctl().run(&["--json", "doctor"]).done().json();
    checks.into_iter().find(|check| check["check"] == "peers").expect("the doctor looks at that")
}

#[test]
fn who_reaches_nobody_is_told_so_and_why_and_when_it_is_tried_again() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", Keypair::generate_ed25519().public().to_peer_id());
    let home = Home::with(|settings| settings.texts("network.bootstrap", &[&gone]));
    let daemon = home.start();
    let said = wait::until("the bootstrap node to be missed", LONG, || {
        let said = company(&daemon);
        (said["numbers"]["failed"] == 1).then_some(said)
    });
    let what = said["what"].as_str().unwrap();
    assert!(said["level"] == "warn" && what.starts_with("this node knows nobody"), "{said}");
    assert!(what.contains(&gone) && what.contains("refused") && what.contains("next try in"), "{said}");
    let status = daemon.ctl().status();
    assert_eq!((&status["alone"], &status["known_peers"]), (&true.into(), &0.into()));
    assert!(status["next_try_ms"].as_u64().unwrap() <= 30_000, "{status}");
    let text = daemon.ctl().text(&["status"]);
    assert!(text.contains("0 connected, 0 known") && text.contains("1 node in the configuration"), "{text}");
    let line = daemon.logged("cannot reach the bootstrap node");
    assert_eq!(line.matches("refused").count(), 1, "a reason is said once: {line}");
    daemon.ctl().run(&["connect", &daemon.dht_addresses()[0]]).done().refused(&[1], "is this node itself");
}

#[test]
fn who_has_come_back_with_another_key_is_told_so_and_not_to_look_at_the_firewall() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, other] = ["ours", "other"].map(|name| {
        let key = folder.path().join(name);
        std::fs::write(&key, Run::new(program("casd")).arg("--gen-key").done().ok().stdout).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        key.display().to_string()
    });
    let mut nodes = nodes::network(2, |_, settings| settings.text("network.key_file", &ours));
    wait::until("the other to be remembered", LONG, || {
        (nodes[1].ctl().status()["known_peers"] == 1).then_some(())
    });
    let none: [&str; 0] = [];
    let changed =
        |settings: Settings| settings.text("network.key_file", &other).texts("network.bootstrap", &none);
    let second = nodes.pop().unwrap().restart(|home| home.change(changed));
    let first = nodes.pop().unwrap();
    let said = wait::until("it to be refused", LONG, || {
        let said = company(&second.daemon);
        said["what"].as_str().unwrap().contains("another key").then_some(said)
    });
    assert!(said["what"].as_str().unwrap().contains(&first.id()), "{said}");
    let advice = said["advice"].as_str().unwrap();
    assert!(advice.contains("network.key_file") && !advice.contains("firewall"), "{said}");
}

#[test]
fn an_add_that_nobody_can_be_told_of_fails_and_keeps_what_was_added() {
    let home = Home::new();
    let daemon = home.start();
    let peers = daemon.ctl().run(&["peers"]).done().ok();
    assert!(peers.stdout.is_empty() && peers.stderr.contains("no peers are known"), "{}", peers.stderr);
    // A reader can name nobody.
    let cat = daemon.ctl().run(&["cat", &corpus::id(b"elsewhere")]).done();
    cat.refused(&[4], "`casctl fetch --peer ID@HOST:PORT`");
    let added = daemon.ctl().run(&["-q", "add", "--wait-announced", "-"]).input(b"alone").done().code(9);
    assert!(added.stderr.contains("no other node has been told"), "{}", added.stderr);
    assert_eq!(added.text(), corpus::id(b"alone"), "what was added is told all the same");
    assert_eq!(daemon.ctl().cat(&added.text()), b"alone");
    let failed = daemon.ctl().run(&["--json", "add", "--wait-announced", "-"]).input(b"alone").done().code(9);
    assert!(failed.stderr.contains("\"reason\":\"NOT_ANNOUNCED\""), "{}", failed.stderr);
}

#[test]
fn who_has_nobody_to_tell_is_told_how_to_find_somebody_and_a_client_that_it_tells_nothing() {
    let home = Home::new();
    let daemon = home.start();
    let _ = daemon.ctl().add_bytes(b"for all");
    let said = wait::until("it to wait for somebody", LONG, || {
        let done = daemon.ctl().run(&["announce"]).done().ok();
        let is_so =
            done.text().contains("0 of 1 announced, 1 waiting") && done.stderr.contains("nobody to tell");
        is_so.then_some(done.stderr)
    });
    assert!(said.contains("casctl connect ADDR"), "{said}");

    let home = Home::with(|settings| settings.text("network.mode", "client"));
    let client = home.start();
    let _ = client.ctl().add_bytes(b"for me");
    let done = client.ctl().run(&["announce"]).done().ok();
    assert!(done.text().contains("is a client") && done.stderr.is_empty(), "{} {}", done.text(), done.stderr);
    assert_eq!(client.ctl().json(&["announce"])[0]["client"], true);
}

#[test]
fn a_server_beside_clients_of_the_dht_alone_finds_what_they_hold_and_they_what_it_holds() {
    let nodes = nodes::network(3, |number, settings| {
        settings.text("network.dht", if number == 0 { "server" } else { "client" })
    });
    let add = |node: &Node, bytes: &[u8]| {
        node.ctl().run(&["-q", "add", "--wait-announced", "-"]).input(bytes).done().ok().text()
    };
    let [server, one, other] = [0, 1, 2].map(|number| &nodes[number]);
    wait::until("both to be there", LONG, || (server.ctl().status()["peers"] == 2).then_some(()));
    let ids = [add(server, b"of the server"), add(one, b"of a client")];
    for (node, of) in [(one, 0), (other, 0), (server, 1), (other, 1)] {
        let expected: [&[u8]; 2] = [b"of the server", b"of a client"];
        let fetched = node.ctl().run(&["fetch", &ids[of], "-o", "-"]).done().ok().stdout;
        assert_eq!(fetched, expected[of]);
    }
    let said = company(&server.daemon);
    assert_eq!(said["level"], "ok", "{said}");
    wait::until("it to wait for nobody else", LONG, || {
        server.ctl().text(&["announce"]).contains(" 0 waiting").then_some(())
    });
}

#[test]
fn a_network_by_another_name_begins_anew_and_raises_no_alarm() {
    let mut home = Home::new();
    let daemon = home.start();
    let kept = home.state().join("cache/keys");
    wait::until("something to be kept", LONG, || kept.exists().then_some(()));
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    home.change(|settings| settings.text("network.name", "renamed"));
    let daemon = home.start();
    let line = daemon.logged("what the DHT had kept is of another network");
    assert!(line.contains("network.name has changed"), "{line}");
    assert!(!daemon.log().contains("cannot be read"), "{}", daemon.log());
}

#[test]
fn a_link_says_where_this_node_is_and_warns_where_it_leads_to_nothing() {
    let home = Home::new();
    let daemon = home.start();
    let link = |id: &str| daemon.ctl().run(&["link", id]).done().ok();
    let public = link(&daemon.ctl().add_bytes(b"for all"));
    assert!(public.stderr.is_empty(), "{}", public.stderr);
    let (chunk, dht) = (daemon.chunk_address().replace('@', "%40"), daemon.dht_addresses());
    let peers = format!(",peer={chunk},peer={}", dht[0]);
    assert!(public.text().ends_with(&peers), "{} does not end in {peers}", public.text());
    let added = daemon.ctl().run(&["-q", "add", "--private", "-"]).input(b"for me").done().ok();
    let private = link(&added.text());
    assert!(private.text().starts_with("casd:") && private.stderr.contains("private"), "{}", private.stderr);

    let home = Home::with(|settings| settings.text("network.mode", "client"));
    let client = home.start();
    let id = client.ctl().add_bytes(b"mine");
    let link = client.ctl().run(&["link", &id]).done().ok();
    assert!(link.stderr.contains("the daemon is a client"), "{}", link.stderr);
}

#[test]
fn who_is_connected_only_to_nodes_that_keep_no_records_is_told_so_soon_and_not_that_nobody_is_there() {
    let nodes = nodes::network(2, |_, settings| settings.text("network.dht", "client"));
    let ctl = nodes[1].ctl();
    wait::until("it to be unserved", LONG, || (ctl.status()["unserved"] == true).then_some(()));
    let id = corpus::id(b"nobody has this");
    for verb in [&["providers", &id][..], &["stat", &id], &["fetch", &id, "-o", "-"]] {
        let begun = Instant::now();
        let done = ctl.run(verb).done();
        done.refused(&[4], "the one node that is connected keeps no records for others");
        assert!(done.stderr.contains("connect to a node that keeps records"), "{}", done.stderr);
        // It would wait for 10 to 30 s for one to come.
        assert!(begun.elapsed() < Duration::from_secs(8), "{verb:?} took {:?}", begun.elapsed());
    }
}
