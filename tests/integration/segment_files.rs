//! Segments that are not what they seem: copies of them inside a user's file, files that were lost, renamed or copied,
//! and the room that removals give back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use casd_tests::corpus;
use casd_tests::wait::{self, LONG};
use casd_tests::{Ctl, Daemon, Home, segments};
use serde_json::Value;

/// What a store has: its objects, its bytes by kind and how many records are proved, none of them bad.
#[derive(Debug, PartialEq)]
struct Held {
    objects: BTreeMap<String, Value>,
    bytes: Vec<Value>,
    records: Value,
}

fn held(ctl: &Ctl) -> Held {
    wait::until("the index to be whole", LONG, || {
        ctl.status()["store"]["recovering"].is_null().then_some(())
    });
    let objects = ctl.json(&["ls"]).into_iter();
    let objects = objects.map(|object| (object["id"].as_str().unwrap().to_owned(), object["size"].clone()));
    let store = ctl.status()["store"].clone();
    let kinds = ["data_bytes", "parity_bytes", "manifest_bytes", "parity_part_bytes"];
    let sum = ctl.run(&["verify", "--json"]).within(2 * LONG).done().ok().json().pop().unwrap();
    assert_eq!(sum["bad"], 0, "{sum}");
    Held {
        objects: objects.collect(),
        bytes: kinds.map(|kind| store[kind].clone()).into(),
        records: sum["records"].clone(),
    }
}

fn quiet() -> Home {
    Home::with(|settings| settings.text("store.scrub", "0"))
}

fn segment(home: &Home, number: u32) -> PathBuf {
    home.state().join(format!("segments/{number:08}.seg"))
}

fn index(home: &Home) -> PathBuf {
    home.state().join("index")
}

/// Ends a daemon, in order or not, spoils what `spoil` does, and starts the next.
fn again(home: &Home, daemon: Daemon, in_order: bool, spoil: impl Fn(&Home)) -> Daemon {
    if in_order {
        assert_eq!(daemon.stop(LONG).code(), Some(0));
    } else {
        daemon.kill();
    }
    spoil(home);
    home.start()
}

/// Objects of every shape: within a block, of blocks, of many chunks with parity, with zeros in it.
fn add_all(ctl: &Ctl) -> Vec<(String, Vec<u8>)> {
    let mut sparse = corpus::bytes(5, 3 << 20);
    sparse[1 << 20..2 << 20].fill(0);
    let all = [
        corpus::bytes(1, 100),
        corpus::bytes(2, 3585),
        corpus::bytes(3, 700_000),
        corpus::bytes(4, 5 << 20),
        sparse,
    ];
    all.into_iter().map(|bytes| (ctl.add_bytes(&bytes), bytes)).collect()
}

#[test]
fn copies_of_the_store_s_own_segments_are_nothing_but_bytes() {
    let home = quiet();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let mut all = add_all(ctl);
    let removed = ctl.add_bytes(&corpus::bytes(6, 200_000));
    let copy = std::fs::read(segment(&home, 1)).unwrap();
    assert!(copy.windows(8).filter(|bytes| bytes == b"casd-rec").count() > 15, "there is something to copy");
    ctl.run(&["rm", &removed]).done().ok();
    // Headers at the beginning of blocks, as in a segment, also where chunks of 1 MiB begin elsewhere; and not.
    for prefix in [0, 4096, 1 << 20, 1, 512, 4095] {
        let bytes = [vec![7; prefix], copy.clone()].concat();
        all.push((ctl.add_bytes(&bytes), bytes));
    }
    // In a single chunk, and once more what the store has become.
    for prefix in [0, 1, 512] {
        let bytes = [&vec![8; prefix], &copy[..900_000]].concat();
        all.push((ctl.add_bytes(&bytes), bytes));
    }
    let whole = std::fs::read(segment(&home, 1)).unwrap();
    all.push((ctl.add_bytes(&whole), whole));
    let expected = held(ctl);
    let ids: BTreeSet<_> = all.iter().map(|(id, _)| id).collect();
    assert!(expected.objects.keys().eq(ids));
    let no_index = |home: &Home| std::fs::remove_dir_all(index(home)).unwrap();
    let nothing = |_: &Home| {};
    let mut daemon = daemon;
    for (in_order, spoil) in
        [(true, &no_index as &dyn Fn(&Home)), (false, &no_index), (false, &nothing), (true, &nothing)]
    {
        daemon = again(&home, daemon, in_order, spoil);
        assert_eq!(held(daemon.ctl()), expected, "in order: {in_order}");
        daemon.ctl().run(&["stat", &removed]).done().refused(&[4], &removed[..8]);
        for (id, bytes) in &all {
            assert!(&daemon.ctl().cat(id) == bytes);
            assert_eq!(id, &corpus::id(bytes));
        }
    }
    // Where the copies were there is a hole, and again nothing that nobody put.
    for (id, _) in all.drain(5..) {
        daemon.ctl().run(&["rm", &id]).done().ok();
    }
    let expected = held(daemon.ctl());
    let daemon = again(&home, daemon, false, no_index);
    assert_eq!(held(daemon.ctl()), expected);
}

#[test]
fn a_header_that_is_back_at_its_own_place_is_not_seen_behind_another() {
    let home = quiet();
    let daemon = home.start();
    let first = daemon.ctl().add_bytes(&corpus::bytes(1, 100));
    let filler = daemon.ctl().add_bytes(&corpus::bytes(2, 100));
    let old = daemon.ctl().add_bytes(&corpus::bytes(3, 100));
    // Its header, good for this store, this segment and this place; then it is removed, and the place is the end.
    let at = 8192;
    let header = std::fs::read(segment(&home, 1)).unwrap()[at..at + 4096].to_vec();
    assert!(header.starts_with(b"casd-rec"));
    for id in [&filler, &old] {
        daemon.ctl().run(&["rm", id]).done().ok();
    }
    let no_index = |home: &Home| std::fs::remove_dir_all(index(home)).unwrap();
    let daemon = again(&home, daemon, false, no_index);
    let length = || std::fs::metadata(segment(&home, 1)).unwrap().len();
    assert_eq!(length(), 12_288, "without an index no place is used again");
    let cut = |home: &Home| {
        no_index(home);
        std::fs::OpenOptions::new().write(true).open(segment(home, 1)).unwrap().set_len(4096).unwrap();
    };
    let daemon = again(&home, daemon, false, cut);
    assert_eq!(length(), 4096);
    // The next record begins a block before, so that its payload puts the header where it was.
    let forged = [header, corpus::bytes(4, 5000)].concat();
    let id = daemon.ctl().add_bytes(&forged);
    let image = std::fs::read(segment(&home, 1)).unwrap();
    assert!(image[at..].starts_with(&forged[..4096]), "it is not where it was");
    let expected = held(daemon.ctl());
    assert_eq!((expected.objects.len(), &expected.records), (2, &Value::from(2)));
    let daemon = again(&home, daemon, false, no_index);
    assert_eq!(held(daemon.ctl()), expected);
    assert!(daemon.ctl().cat(&id) == forged && daemon.ctl().cat(&first) == corpus::bytes(1, 100));
    daemon.ctl().run(&["stat", &old]).done().refused(&[4], &old[..8]);
}

/// Bytes that the segments take on disk.
fn taken(home: &Home) -> u64 {
    corpus::disk_usage(&home.state().join("segments")).unwrap()
}

#[test]
fn what_is_removed_gives_its_blocks_back() {
    let home = Home::with(|settings| settings.text("store.scrub", "0").text("store.parity", "none"));
    let daemon = home.start();
    let ctl = daemon.ctl();
    let lengths = [
        1,
        100,
        3584,
        3585,
        4096,
        4097,
        8192,
        50_000,
        65_536,
        1 << 19,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        3 << 20,
    ];
    let add = |seed: u64, length| {
        let before = taken(&home);
        let id = ctl.add_bytes(&corpus::bytes(seed, length));
        // A chunk a MiB; a manifest has a top and a page.
        let records = if length > 1 << 20 { length.div_ceil(1 << 20) as u64 + 2 } else { 1 };
        let took = taken(&home) - before;
        let least = length as u64 + if length <= 3584 { 512 } else { 4096 };
        assert!((least..least + records * 8192).contains(&took), "{took} for {length} bytes");
        (id, took, records)
    };
    // One of each stays, so that each that goes leaves a hole.
    let mut rows = Vec::new();
    for (seed, length) in (0..).zip(lengths) {
        rows.push((length, add(2 * seed, length), add(2 * seed + 1, length).0));
    }
    let mut last = taken(&home);
    for (length, (id, took, records), _) in &rows {
        ctl.run(&["rm", id]).done().ok();
        let now = taken(&home);
        assert!(
            (last - now).abs_diff(*took) <= records * 4096,
            "{took} bytes of {length} were taken, {} came back",
            last - now
        );
        last = now;
    }
    for (seed, (length, _, kept)) in (0..).zip(&rows) {
        assert!(ctl.cat(kept) == corpus::bytes(2 * seed + 1, *length), "{length}");
        ctl.run(&["rm", kept]).done().ok();
    }
    assert!(taken(&home) <= 16 * 4096, "{} bytes are taken by nothing", taken(&home));
    let stored = ctl.status()["store"]["data_bytes"].clone();
    assert_eq!(stored, 0);
}

#[test]
fn a_segment_that_is_lost_renamed_or_copied_costs_what_is_in_it_and_no_more() {
    let home = quiet();
    let daemon = home.start();
    let all = [(1, 100), (4, 2 << 20)].map(|(seed, length)| {
        let bytes = corpus::bytes(seed, length);
        (daemon.ctl().add_bytes(&bytes), bytes)
    });
    let (original, elsewhere) = (segment(&home, 1), home.path("elsewhere"));
    let is_given_or_lost = |daemon: &Daemon| {
        for (id, bytes) in &all {
            let done = daemon.ctl().run(&["cat", id]).within(2 * LONG).done();
            let given = done.status.success() && &done.stdout == bytes;
            assert!(
                given || [4, 7, 8].contains(&done.status.code().unwrap()),
                "{id}: {} {}",
                done.status,
                done.stderr
            );
        }
        assert!(!daemon.log().contains("panicked"));
    };
    let rename = |from: &Path, to: &Path| std::fs::rename(from, to).unwrap();
    // Under the running daemon.
    rename(&original, &elsewhere);
    is_given_or_lost(&daemon);
    let late = daemon.ctl().run(&["-q", "add", "-"]).input(b"after the loss").done();
    assert!([0, 1].contains(&late.status.code().unwrap()), "{}", late.stderr);
    // Without it nothing is there, and every object says so.
    let daemon = again(&home, daemon, false, |_| {});
    is_given_or_lost(&daemon);
    let done = daemon.ctl().run(&["verify"]).within(2 * LONG).done().code(8);
    assert!(!done.text().is_empty());
    assert!(daemon.ctl().json(&["ls"]).len() >= all.len(), "the journal knows what there should be");
    // Under another number its records are none.
    let daemon = again(&home, daemon, true, |home| {
        std::fs::copy(&elsewhere, segment(home, 41)).unwrap();
        std::fs::remove_dir_all(index(home)).unwrap();
    });
    is_given_or_lost(&daemon);
    // Under its own it is what it was, beside the copy; the index was told that it is gone.
    let daemon = again(&home, daemon, true, |home| {
        rename(&elsewhere, &segment(home, 1));
        std::fs::remove_dir_all(index(home)).unwrap();
    });
    let again_whole = |daemon: &Daemon| {
        for (id, bytes) in &all {
            assert!(&daemon.ctl().cat(id) == bytes);
        }
    };
    again_whole(&daemon);
    let daemon = again(&home, daemon, false, |home| std::fs::remove_dir_all(index(home)).unwrap());
    again_whole(&daemon);
    assert!(!daemon.log().contains("panicked"));
}

#[test]
fn what_follows_the_last_record_is_cut_off_and_damage_before_it_costs_one_record() {
    let home = Home::with(|settings| settings.text("store.scrub", "0").text("store.parity", "none"));
    let daemon = home.start();
    let ids: Vec<String> = (0..6).map(|seed| daemon.ctl().add_bytes(&corpus::bytes(seed, 20_000))).collect();
    let whole = held(daemon.ctl());
    let length = std::fs::metadata(segment(&home, 1)).unwrap().len();
    for seed in 0..4 {
        segments::tear(&home.state(), seed);
    }
    let daemon = again(&home, daemon, false, |home| segments::tear(&home.state(), 7777));
    assert_eq!(held(daemon.ctl()), whole);
    assert_eq!(std::fs::metadata(segment(&home, 1)).unwrap().len(), length);
    // A header in the middle is lost: the scan goes on behind it.
    let rotten = |home: &Home| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(segment(home, 1)).unwrap();
        file.write_all_at(b"casd-wreck", 2 * (length / 6)).unwrap();
        std::fs::remove_dir_all(index(home)).unwrap();
    };
    let daemon = again(&home, daemon, true, rotten);
    let ctl = daemon.ctl();
    ctl.run(&["cat", &ids[2]]).within(2 * LONG).done().code(8);
    for (seed, id) in (0..).zip(&ids).filter(|(seed, _)| *seed != 2) {
        assert!(ctl.cat(id) == corpus::bytes(seed, 20_000));
    }
    assert_eq!(ctl.add_bytes(&corpus::bytes(2, 20_000)), ids[2], "it is mended by adding it");
    assert_eq!(held(ctl).objects, whole.objects);
}
