//! A peer that lies again and again is not spoken to any more.

use casd::dht::{Dht, Mode, Options};
use casd::support::task::Tasks;
use casd_tests::stranger::{Liar, Reply};
use casd_tests::wait::{self, LONG};
use casd_tests::{Node, nodes};

/// What a daemon's `casctl peers` says of a peer.
fn banned_until(node: &Node, peer: &str) -> u64 {
    let peers = node.ctl().json(&["peers"]);
    let line = peers.iter().find(|line| line["peer_id"] == peer);
    line.and_then(|line| line["banned_until"].as_u64()).unwrap_or(0)
}

/// Fetches something that the liar says it has.
fn fetch(node: &Node, liar: &Liar, number: u8) {
    let id = blake3::hash(&[number]).to_hex();
    let run = node.ctl().run(&["fetch", &id, "--stall", "2s", "--peer", &liar.address, "-o"]);
    run.arg(node.home.path("out")).done().refused(&[4, 7], "");
}

#[test]
fn a_liar_is_banned_on_both_planes_and_over_a_restart() {
    let node = nodes::network(1, |_, settings| settings).pop().unwrap();
    let name = node.ctl().status()["network"].as_str().unwrap().to_owned();
    // Whatever it is asked for, it answers with what is no frame.
    let liar = Liar::new(&name, |_, _| Reply::Say(vec![0xff; 64]));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let tasks = Tasks::new();
    let dht = runtime.block_on(async {
        let options = Options {
            network: name,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            mode: Mode::Client,
            ..Options::default()
        };
        Dht::start(options, liar.keypair.clone(), &tasks).await.unwrap()
    });
    let connects = |node: &Node| {
        let at = node.daemon.dht_addresses().remove(0).parse().unwrap();
        runtime.block_on(dht.connect(at)).is_ok()
    };
    assert!(connects(&node));
    for number in 0..3 {
        assert_eq!(banned_until(&node, &liar.id), 0, "{number}");
        fetch(&node, &liar, number);
    }
    wait::until("the liar to be banned", LONG, || (banned_until(&node, &liar.id) > 0).then_some(()));
    let log = node.daemon.log();
    let said: Vec<_> = log.lines().filter(|line| line.contains("a peer is banned")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    wait::until("the connection of the DHT to end", LONG, || {
        let peers = node.ctl().json(&["peers"]);
        peers.iter().all(|line| line["dht_connected"] == false).then_some(())
    });
    let sessions = liar.sessions();
    fetch(&node, &liar, 3);
    assert!(!connects(&node) && liar.sessions() == sessions, "it is spoken to on neither plane");
    // A ban is written down at once: it survives a kill.
    wait::until("the ban to be written down", LONG, || {
        node.home.state().join("cache/conduct").exists().then_some(())
    });
    let Node { daemon, home } = node;
    daemon.kill();
    let node = Node { daemon: home.start(), home };
    assert!(banned_until(&node, &liar.id) > 0);
    fetch(&node, &liar, 4);
    assert!(!connects(&node) && liar.sessions() == sessions);
    // An administrator may think otherwise.
    node.ctl().run(&["connect", &liar.address]).done().ok();
    assert_eq!(banned_until(&node, &liar.id), 0);
    assert!(connects(&node) && liar.sessions() > sessions);
    runtime.block_on(tasks.drain(LONG));
}
