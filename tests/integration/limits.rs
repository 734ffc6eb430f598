//! How much may move: changed while it moves, by class, and whose turn it is.

use std::time::{Duration, Instant};

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Running;
use casd_tests::wait::{self, LONG};
use casd_tests::{Home, Node, nodes};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Two nodes, of which the first has a file of so many bytes, and its id.
fn holder_and_taker(seed: u64, size: u64) -> (Node, Node, String) {
    let nodes = nodes::network(2, |_, settings| settings.text("store.parity", "none"));
    let file = nodes[0].home.path("file");
    let id = corpus::file(&file, seed, size);
    nodes[0].ctl().add(&file);
    let [holder, taker] = <[Node; 2]>::try_from(nodes).unwrap();
    (holder, taker, id)
}

/// Begins to fetch from a node.
fn begin(taker: &Node, from: &Node, id: &str) -> Running {
    let at = from.daemon.chunk_address();
    let run = taker.ctl().run(&["--json", "fetch", id, "--peer", &at, "-o"]).arg(taker.home.path("out"));
    run.within(3 * LONG).start()
}

/// Bytes that a node has moved, by what `casctl peers` says, and when that was.
fn moved(node: &Node, which: &str) -> (u64, Instant) {
    let (before, peers) = (Instant::now(), node.ctl().json(&["peers"]));
    let bytes = peers.iter().filter_map(|peer| peer[which].as_u64()).sum();
    (bytes, before + before.elapsed() / 2)
}

/// Waits until so many more bytes have moved than there were.
#[track_caller]
fn after(node: &Node, which: &str, bytes: u64) -> (u64, Instant) {
    let (begun, _) = moved(node, which);
    wait::until(format!("{bytes} bytes more of {which}"), LONG, || {
        Some(moved(node, which)).filter(|(now, _)| *now >= begun + bytes)
    })
}

/// Changes limits and gives what they are.
#[track_caller]
fn limits(node: &Node, changes: &[&str]) -> Value {
    let args: Vec<&str> = ["limits"].iter().chain(changes).copied().collect();
    node.ctl().json(&args).pop().expect("one object")
}

/// The rate at which bytes move, measured over so many of them.
#[track_caller]
fn rate(node: &Node, which: &str, over: u64) -> u64 {
    // What was asked for, or sent, before the limit changed comes first.
    let (begun, since) = after(node, which, 3 * MIB);
    let (ended, until) = after(node, which, over);
    let micros = u64::try_from(until.duration_since(since).as_micros()).unwrap();
    (ended - begun) * 1_000_000 / micros
}

#[track_caller]
fn is_about(rate: u64, limit: u64) {
    assert!(rate.abs_diff(limit) <= limit / 10, "{rate} bytes a second where {limit} are allowed");
    eprintln!("{rate} bytes a second of {limit}");
}

#[test]
fn a_limit_holds_for_what_is_under_way_and_is_lifted_for_it() {
    let size = 96 * MIB;
    let (holder, taker, id) = holder_and_taker(71, size);
    limits(&holder, &["upload=1MiB"]);
    let fetch = begin(&taker, &holder, &id);
    after(&holder, "sent_bytes", 1);
    let now = limits(&holder, &["upload=4MiB"]);
    assert_eq!((&now["upload"], &now["configured"]["upload"]), (&json!(4 * MIB), &json!(0)));
    is_about(rate(&holder, "sent_bytes", 24 * MIB), 4 * MIB);
    // To each, and of this class: the least of them counts.
    limits(&holder, &["upload=0", "serve=8MiB", "upload_per_peer=3MiB"]);
    is_about(rate(&holder, "sent_bytes", 16 * MIB), 3 * MIB);
    limits(&holder, &["serve=0", "upload_per_peer=0"]);
    let done = fetch.done().ok().json().pop().unwrap();
    assert_eq!((&done["size"], corpus::id_of_file(&taker.home.path("out"))), (&json!(size), id));
}

#[test]
fn who_fetches_takes_no_more_than_its_own_limit() {
    let (holder, taker, id) = holder_and_taker(72, 64 * MIB);
    limits(&taker, &["fetch=4MiB", "repair=1"]);
    let fetch = begin(&taker, &holder, &id);
    after(&taker, "received_bytes", MIB);
    is_about(rate(&taker, "received_bytes", 32 * MIB), 4 * MIB);
    limits(&taker, &["fetch=0"]);
    fetch.done().ok();
    assert_eq!(corpus::id_of_file(&taker.home.path("out")), id);
}

#[test]
fn two_who_fetch_have_turns_at_one_place_and_both_end() {
    // Alone it takes longer than a turn; nobody gets anything from another who fetches.
    let nodes = nodes::network(3, |number, settings| match number {
        0 => settings
            .text("transfer.upload", "2MiB")
            .raw("transfer.upload_slots", "1")
            .text("store.parity", "none"),
        _ => settings.text("network.mode", "client"),
    });
    let [holder, one, two] = <[Node; 3]>::try_from(nodes).unwrap();
    let file = holder.home.path("file");
    let id = corpus::file(&file, 73, 24 * MIB);
    holder.ctl().add(&file);
    let mut first = begin(&one, &holder, &id);
    after(&one, "received_bytes", 2 * MIB);
    let mut second = begin(&two, &holder, &id);
    let (had, _) = moved(&two, "received_bytes");
    // Its turn comes before the first is done, and then that of the first comes again.
    wait::until("the turn of the second", LONG, || {
        (moved(&two, "received_bytes").0 > had + MIB).then_some(())
    });
    assert!(!first.has_ended() && !second.has_ended());
    first.done().ok();
    second.done().ok();
    for taker in [&one, &two] {
        assert_eq!(corpus::id_of_file(&taker.home.path("out")), id);
    }
}

#[test]
fn what_is_changed_by_hand_ends_with_a_reload_or_a_restart() {
    let home = Home::with(|settings| settings.text("transfer.upload", "3MiB"));
    let mut node = Node { daemon: home.start(), home };
    let before = limits(&node, &[]);
    assert_eq!((&before["upload"], &before["upload_slots"]), (&json!(3 * MIB), &json!(32)));
    let changed = limits(&node, &["upload=1MiB", "upload_slots=5", "yielding=true"]);
    assert_eq!((&changed["upload"], &changed["upload_slots"]), (&json!(MIB), &json!(5)));
    assert_eq!((&changed["yielding"], &changed["configured"]), (&json!(true), &before["configured"]));
    let said = node.ctl().run(&["limits"]).done().ok();
    assert!(said.text().contains("(in the settings: 3.0 MiB/s)"), "{}", said.text());
    assert!(said.stderr.contains("until casd is restarted"), "{}", said.stderr);
    node.ctl().run(&["limits", "uplod=1"]).done().refused(&[2], "upload_per_peer");

    node.home.change(|settings| settings.text("transfer.upload", "2MiB"));
    node.home.config();
    node.daemon.signal(Signal::HUP);
    let now = wait::until("the settings to be read again", LONG, || {
        Some(limits(&node, &[])).filter(|now| now["upload"] == 2 * MIB)
    });
    assert_eq!((&now["upload_slots"], &now["yielding"]), (&json!(32), &json!(false)));
    limits(&node, &["download=1MiB"]);
    let node = node.restart(|_| ());
    assert_eq!(limits(&node, &[]), now);
}

#[test]
fn what_a_peer_gave_is_known_and_still_after_a_restart() {
    let (holder, taker, id) = holder_and_taker(74, 8 * MIB);
    begin(&taker, &holder, &id).done().ok();
    let line = |taker: &Node| {
        let peers = taker.ctl().json(&["peers", "--all"]);
        peers.into_iter().find(|peer| peer["peer_id"] == holder.id()).expect("it is remembered")
    };
    let before = wait::until("what it gave to be reckoned", LONG, || {
        Some(line(&taker)).filter(|peer| peer["delivered_bytes"] == 8 * MIB)
    });
    assert!(before["rate"].as_u64() > Some(0), "{before}");
    assert!(["failures", "strikes", "banned_until"].iter().all(|key| before[key] == 0), "{before}");
    let taker = taker.restart(|_| ());
    let again = line(&taker);
    assert_eq!((&again["rate"], &again["delivered_bytes"]), (&before["rate"], &json!(8 * MIB)));
}

#[test]
fn uploads_that_yield_go_as_fast_where_nothing_is_in_their_way() {
    let (holder, taker, id) = holder_and_taker(75, 64 * MIB);
    limits(&holder, &["yielding=true"]);
    let begun = Instant::now();
    begin(&taker, &holder, &id).done().ok();
    // At the slowest that it yields to this would take half an hour.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(corpus::id_of_file(&taker.home.path("out")), id);
}
