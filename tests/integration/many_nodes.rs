//! Several daemons at once: a file comes from all who hold it, whatever becomes of some of them.

use std::path::Path;
use std::time::Duration;

use casd_tests::corpus::{self, MIB};
use casd_tests::wait::{self, LONG};
use casd_tests::{Node, Settings, nodes, segments};
use serde_json::Value;

/// Long enough that each of four holders has its share, and that a fetch can be met half-way.
const SIZE: u64 = 96 * MIB + 12_345;

/// How fast a holder gives, so that no one of them could give it all before the others begin.
const UPLOAD: &str = "24MiB";

/// Six nodes; the four in the middle hold the same file, whose path and id are given.
fn four_of_six() -> (Vec<Node>, String) {
    four_with("0")
}

/// As [`four_of_six`]; the two in the middle of the holders take in so many bytes a second.
fn four_with(download: &str) -> (Vec<Node>, String) {
    let nodes = nodes::network(6, |number, settings| {
        let holder =
            |settings: Settings| settings.text("transfer.upload", UPLOAD).text("store.parity", "none");
        match number {
            2 | 3 => holder(settings).text("transfer.download", download),
            1 | 4 => holder(settings),
            _ => settings,
        }
    });
    let file = nodes[0].home.path("file");
    let id = corpus::file(&file, 1, SIZE);
    for holder in &nodes[1..5] {
        let added = holder.ctl().run(&["-q", "add", "--wait-announced"]).arg(&file).done().ok();
        assert_eq!(added.text(), id);
    }
    (nodes, id)
}

/// Begins to fetch `id` at a node.
fn begin(node: &Node, id: &str, to: &Path) -> casd_tests::ctl::Running {
    node.ctl().run(&["--json", "fetch", id, "-o"]).arg(to).within(3 * LONG).start()
}

/// Waits until so many bytes have come to a node.
fn has_come(node: &Node, bytes: u64) {
    wait::until(format!("{bytes} bytes to come"), LONG, || {
        (corpus::disk_usage(&node.home.state()).ok()? > bytes).then_some(())
    });
}

/// Bytes by peer, as the result of a fetch tells.
fn by_peer(result: &Value) -> Vec<(String, u64)> {
    let peers = result["peers"].as_object().expect("bytes by peer");
    peers.iter().map(|(peer, bytes)| (peer.clone(), bytes.as_u64().unwrap())).collect()
}

#[test]
fn a_fetch_takes_from_four_holders_at_once() {
    let (nodes, id) = four_of_six();
    let out = nodes[5].home.path("out");
    let result = begin(&nodes[5], &id, &out).done().ok().json().pop().expect("a result");
    assert_eq!(corpus::id_of_file(&out), id);
    let given = by_peer(&result);
    assert_eq!(given.iter().map(|(_, bytes)| bytes).sum::<u64>(), SIZE, "{given:?}");
    for holder in &nodes[1..5] {
        let share = given.iter().find(|(peer, _)| *peer == holder.id());
        assert!(share.is_some_and(|(_, bytes)| *bytes > SIZE / 16), "{} gave little: {given:?}", holder.id());
    }
    // Who gave knows whom.
    let asked = nodes[1].ctl().json(&["peers"]);
    let asked = asked.iter().find(|peer| peer["peer_id"] == nodes[5].id().as_str()).expect("the fetcher");
    assert!(asked["sent_bytes"].as_u64() > Some(SIZE / 16), "{asked}");
    // It is a holder now itself.
    let fetcher = nodes[5].id();
    wait::until("the fetcher to be found as a holder", LONG, || {
        let found = nodes[0].ctl().json(&["providers", &id]);
        found.iter().any(|holder| holder["peer_id"] == fetcher.as_str()).then_some(())
    });
}

#[test]
fn a_holder_that_is_killed_and_one_that_rots_change_only_the_time() {
    // What rots at a holder it asks of the others by itself: it gets too little to be of use again in this test.
    let (mut nodes, id) = four_with("1KiB");
    // Of one everything rots, of another the chunks and not what describes them.
    let rotten = [nodes[2].id(), nodes[3].id()];
    let count = segments::rot(&nodes[2].home.state(), |_| true);
    assert!(count as u64 > SIZE / MIB, "{count} records rot");
    let count = segments::rot(&nodes[3].home.state(), |record| record.kind == segments::DATA);
    assert!(count as u64 > SIZE / MIB, "{count} chunks rot");
    let out = nodes[5].home.path("out");
    let fetch = begin(&nodes[5], &id, &out);
    has_come(&nodes[5], SIZE / 4);
    let killed = nodes.remove(1);
    let who = killed.id();
    killed.daemon.kill();
    let result = fetch.done().ok().json().pop().expect("a result");
    assert_eq!(corpus::id_of_file(&out), id);
    let given = by_peer(&result);
    assert!(given.iter().all(|(peer, _)| !rotten.contains(peer)), "nothing of it was any good: {given:?}");
    assert!(
        given.iter().any(|(peer, bytes)| *peer == who && *bytes > 0),
        "it was killed too early: {given:?}"
    );
    // The fetcher says once of each what went wrong, and the one with the bad disk says so.
    let fetcher = &nodes[4].daemon;
    for peer in rotten.iter().chain([&who]) {
        let log = fetcher.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(peer.as_str())).collect();
        assert_eq!(lines.len(), 1, "one line about {peer}: {lines:#?}");
    }
    for rotten in &nodes[1..3] {
        let _ = rotten.daemon.logged("damaged");
    }
}

#[test]
fn parity_stands_in_for_four_chunks_a_stripe_and_not_for_five() {
    let mut nodes = nodes::network(3, |_, settings| settings.text("store.parity", "16+4"));
    let size = 40 * MIB + 77;
    let file = nodes[0].home.path("file");
    let id = corpus::file(&file, 2, size);
    assert_eq!(nodes[1].ctl().add(&file), id);
    std::fs::remove_file(&file).unwrap();
    let chunks = nodes[1].ctl().data_chunks(&id);
    assert_eq!(chunks.len(), 41);
    // 41 chunks in stripes of 16 at most, as even as can be behind the first: 16, 13, 12.
    let pick = |indexes: &[usize]| indexes.iter().map(|at| chunks[*at].clone()).collect::<Vec<_>>();
    let lost = pick(&[0, 5, 6, 15, 16, 20, 21, 28, 29, 33, 39, 40]);
    let holder = nodes.remove(1);
    let holder = holder.restart(|home| assert_eq!(segments::remove(&home.state(), &lost), lost.len()));
    holder.joins();
    let from = holder.daemon.chunk_address();
    let fetch = |node: &Node, out: &str| {
        let run = node.ctl().run(&["--json", "fetch", &id, "--stall", "3s", "--peer", &from, "-o"]);
        run.arg(node.home.path(out)).within(2 * LONG).done()
    };
    let done = fetch(&nodes[1], "out").ok();
    assert_eq!(corpus::id_of_file(&nodes[1].home.path("out")), id);
    let given: u64 = by_peer(&done.json()[0]).iter().map(|(_, bytes)| bytes).sum();
    assert!(given >= size, "{given} of {size}: parity counts among what was given");
    // Five of the first stripe: what was asked for in vain the holder may have mended by now. Whoever has fetched it
    // must not help.
    let [first, third] = <[Node; 2]>::try_from(nodes).unwrap();
    assert_eq!(third.daemon.stop(LONG).code(), Some(0));
    let five = pick(&[0, 5, 6, 9, 15]);
    let holder = holder.restart(|home| assert!(segments::remove(&home.state(), &five) >= 1));
    let from = holder.daemon.chunk_address();
    let run = first.ctl().run(&["fetch", &id, "--stall", "3s", "--peer", &from, "-o"]);
    let done = run.arg(first.home.path("out")).done().code(7);
    for index in ["0", "5", "6", "9", "15"] {
        assert!(
            done.stderr.contains(&format!("{index},")) || done.stderr.contains(&format!("{index} (")),
            "{}",
            done.stderr
        );
    }
    assert!(!first.home.path("out").exists());
}

#[test]
fn a_holder_that_takes_longer_for_a_chunk_than_one_would_wait_is_not_given_up() {
    let nodes = nodes::network(2, |number, settings| match number {
        1 => settings.text("transfer.upload", "32KiB"),
        _ => settings,
    });
    let [taker, holder] = <[Node; 2]>::try_from(nodes).unwrap();
    let (size, from) = (192 << 10, holder.daemon.chunk_address());
    let fetch = |id: &str, out: &str| {
        let run = taker.ctl().run(&["--json", "fetch", id, "--stall", "3s", "--peer", &from, "-o"]);
        run.arg(taker.home.path(out)).within(2 * LONG).done().ok()
    };
    let file = holder.home.path("file");
    let id = corpus::file(&file, 6, size);
    assert_eq!(holder.ctl().add(&file), id);
    fetch(&id, "out");
    assert_eq!(corpus::id_of_file(&taker.home.path("out")), id);
    // The same of a file in a directory.
    let folder = holder.home.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let id = corpus::file(&folder.join("file"), 7, size);
    let root = holder.ctl().run(&["-q", "add", "-r"]).arg(&folder).done().ok().text();
    fetch(&root, "folder");
    assert_eq!(corpus::id_of_file(&taker.home.path("folder").join("file")), id);
}

#[test]
fn a_fetch_that_is_interrupted_goes_on_where_it_was() {
    let nodes = nodes::network(2, |number, settings| match number {
        0 => settings.text("transfer.upload", "16MiB").text("store.parity", "none"),
        _ => settings,
    });
    let size = 48 * MIB;
    let file = nodes[0].home.path("file");
    let id = corpus::file(&file, 3, size);
    nodes[0].ctl().run(&["-q", "add", "--wait-announced"]).arg(&file).done().ok();
    let out = nodes[1].home.path("out");
    // Ctrl-C at a third.
    let fetch = begin(&nodes[1], &id, &out);
    has_come(&nodes[1], size / 3);
    fetch.signal(rustix::process::Signal::INT);
    assert_eq!(fetch.done().status.code(), Some(130));
    assert!(!out.exists(), "nothing half is left");
    let left: Vec<_> = std::fs::read_dir(nodes[1].home.path(".")).unwrap().filter_map(Result::ok).collect();
    assert!(!left.iter().any(|entry| entry.file_name().to_string_lossy().contains("casctl")), "{left:?}");
    // SIGKILL of the daemon at two thirds.
    let fetch = begin(&nodes[1], &id, &out);
    has_come(&nodes[1], size * 2 / 3);
    let [giver, taker] = <[Node; 2]>::try_from(nodes).unwrap();
    let Node { home, daemon } = taker;
    daemon.kill();
    let broken = fetch.done();
    assert!([1, 3].contains(&broken.status.code().unwrap_or(-1)), "{}", broken.stderr);
    assert!(!out.exists(), "nothing half is left");
    let taker = Node { daemon: home.start(), home };
    taker.joins();
    let done = begin(&taker, &id, &out).done().ok().json().pop().expect("a result");
    assert_eq!(corpus::id_of_file(&out), id);
    let here = done["local_bytes"].as_u64().unwrap();
    let came: u64 = by_peer(&done).iter().map(|(_, bytes)| bytes).sum();
    assert!(here >= size / 2, "{here} of {size} were here");
    assert_eq!(here + came, size, "only the rest moved");
    drop(giver);
}

#[test]
fn a_fetch_right_after_a_start_waits_until_the_network_is_joined() {
    let first = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = first.ctl().status()["network"].as_str().unwrap().to_owned();
    let id = first.ctl().add_bytes(b"early");
    let second = casd_tests::Home::with(|settings| {
        let settings = settings.text("network.name", &network);
        settings.texts("network.bootstrap", &first.daemon.dht_addresses())
    });
    let second = second.start();
    assert_eq!(second.ctl().run(&["fetch", &id, "-o", "-"]).done().ok().stdout, b"early");
}

#[test]
fn a_node_of_another_network_is_no_peer() {
    let ours = nodes::network(1, |_, settings| settings).pop().unwrap();
    let theirs = nodes::network(1, |_, settings| settings).pop().unwrap();
    let id = theirs.ctl().add_bytes(b"not for you");
    let at = theirs.daemon.dht_addresses().remove(0);
    ours.ctl().run(&["connect", &at]).done().refused(&[1], "network");
    let at = theirs.daemon.chunk_address();
    ours.ctl().run(&["connect", &at]).done().refused(&[1], "network");
    let run = ours.ctl().run(&["fetch", &id, "--stall", "2s", "--peer", &at]).in_folder(&ours.home.path("."));
    run.within(Duration::from_secs(30)).done().refused(&[1], "of another network");
}
