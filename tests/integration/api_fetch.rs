//! Callers of Fetch and Cat that go away, and daemons that end in the middle of a transfer.

use std::time::Duration;

use casd_proto::client;
use casd_proto::v1::FetchRequest;
use casd_proto::v1::fetch_response::Event;
use casd_tests::corpus::{self, MIB};
use casd_tests::stranger::block_on;
use casd_tests::wait::{self, LONG};
use casd_tests::{Node, nodes};

/// In what time everything that a vanished caller held is back.
const BACK: Duration = Duration::from_secs(5);

/// What people wait for `systemctl stop` without wondering.
const STOP: Duration = Duration::from_secs(5);

/// A holder that gives slowly, somebody who fetches, and what there is.
fn slow_giver(size: u64, upload: &str) -> (Node, Node, String) {
    let nodes = nodes::network(2, |number, settings| match number {
        0 => settings.text("transfer.upload", upload).text("store.parity", "none"),
        _ => settings,
    });
    let file = nodes[0].home.path("file");
    let id = corpus::file(&file, 21, size);
    nodes[0].ctl().run(&["-q", "add", "--wait-announced"]).arg(&file).done().ok();
    let [giver, taker] = <[Node; 2]>::try_from(nodes).unwrap();
    (giver, taker, id)
}

/// Begins `count` fetches over one connection, takes a piece of each, and is gone.
fn vanish(node: &Node, id: &str, count: usize) {
    block_on(async {
        let channel = client::connect(node.ctl().socket()).await.unwrap();
        let mut calls = Vec::new();
        for _ in 0..count {
            let request = FetchRequest { id: id.to_owned(), ..FetchRequest::default() };
            calls.push(client::objects(channel.clone()).fetch(request).await.unwrap().into_inner());
        }
        for call in &mut calls {
            while !matches!(call.message().await.unwrap().unwrap().event, Some(Event::Data(_))) {}
        }
    });
}

/// Bytes that a node has got from its peers.
fn received(node: &Node) -> u64 {
    node.ctl().json(&["peers"]).iter().filter_map(|peer| peer["received_bytes"].as_u64()).sum()
}

/// Memory of a daemon in MiB.
fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn what_a_vanished_fetch_held_comes_back() {
    let size = 400 * MIB;
    let (_giver, taker, id) = slow_giver(size, "30MiB");
    vanish(&taker, &id, 1);
    let before = memory(&taker);
    for _ in 0..3 {
        vanish(&taker, &id, 4);
    }
    // Nothing more comes, and the memory is as it was.
    let mut last = received(&taker);
    wait::until("the transfer to end", BACK, || {
        std::thread::sleep(Duration::from_millis(300));
        let now = received(&taker);
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    assert!(last < size / 2, "it went on by itself: {last} of {size}");
    wait::until("the memory to come back", BACK, || (memory(&taker) < before + 48).then_some(()));
    eprintln!("memory: {before} MiB, after 12 vanished fetches {} MiB", memory(&taker));
}

#[test]
fn sigterm_in_the_middle_of_transfers_ends_both_ends_in_time() {
    let (giver, taker, id) = slow_giver(64 * MIB, "8MiB");
    let out = taker.home.path("out");
    let fetch = taker.ctl().run(&["fetch", &id, "-o"]).arg(&out).within(2 * LONG).start();
    let some = |node: &Node, bytes| {
        wait::until("some of it to come", LONG, || {
            (corpus::disk_usage(&node.home.state()).ok()? > bytes).then_some(())
        });
    };
    // 4 MiB of it is ballast.
    some(&taker, 12 * MIB);
    // First who gives, in the middle of it; the fetch waits for somebody to come.
    let Node { daemon, home } = giver;
    assert_eq!(daemon.stop(STOP).code(), Some(0));
    // Then who takes, while it waits and its caller listens.
    let Node { daemon, home: taken } = taker;
    assert_eq!(daemon.stop(STOP).code(), Some(0));
    let done = fetch.done();
    assert!(!done.status.success() && done.stderr.contains("stopping"), "{}", done.stderr);
    assert!(!out.exists(), "nothing half is left");
    // Both again: the rest is fetched.
    let giver = Node { daemon: home.start(), home };
    let taker = Node { daemon: taken.start(), home: taken };
    let at = giver.daemon.chunk_address();
    let run = taker.ctl().run(&["--json", "fetch", &id, "--peer", &at, "-o"]).arg(&out).within(2 * LONG);
    let result = run.done().ok().json().pop().unwrap();
    assert!(result["local_bytes"].as_u64() >= Some(6 * MIB), "{result}");
    assert_eq!(corpus::id_of_file(&out), id);
    assert!(!giver.daemon.log().contains("panicked") && !taker.daemon.log().contains("panicked"));
}

#[test]
fn a_fetch_that_cannot_fit_is_refused_before_anything_comes() {
    let nodes = nodes::network(2, |number, settings| match number {
        0 => settings.text("store.parity", "none"),
        _ => settings.text("store.quota", "24MiB"),
    });
    let small = nodes[1].ctl().add_bytes(&corpus::bytes(61, 5 << 20));
    nodes[1].ctl().run(&["unpin", &small]).done().ok();
    let file = nodes[0].home.path("file");
    let id = corpus::file(&file, 62, 64 * MIB);
    nodes[0].ctl().add(&file);
    let at = nodes[0].daemon.chunk_address();
    let out = nodes[1].home.path("out");
    let run = nodes[1].ctl().run(&["fetch", &id, "--peer", &at, "-o"]).arg(&out);
    run.done().refused(&[6], "quota");
    // What would have had to go for nothing is there.
    assert_eq!(corpus::id(&nodes[1].ctl().cat(&small)), small);
}
