//! One daemon and casctl: add, cat, ls, stat, rm, and the promise that an id is what `b3sum` prints.

use std::process::{Command, Stdio};
use std::time::Duration;

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Run;
use casd_tests::{Ctl, Home};
use serde_json::Value;

/// Around each border: empty, BLAKE3's chunk of 1,024 bytes, ours of 1 MiB, and a stripe of 16.
const LENGTHS: [u64; 11] = [0, 1, 1023, 1024, 1025, MIB - 1, MIB, MIB + 1, 2 * MIB, 16 * MIB + 7, 17 * MIB];

/// The files whose ids are checked: with a debug build on a loaded machine each takes a moment.
const SLOW: Duration = Duration::from_secs(300);

fn stored(ctl: &Ctl) -> u64 {
    ctl.status()["stored_bytes"].as_u64().expect("status has stored_bytes")
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[track_caller]
fn has_keys(value: &Value, wanted: &[&str]) {
    let keys = keys(value);
    assert!(wanted.iter().all(|key| keys.contains(key)), "{keys:?} lacks some of {wanted:?}");
}

#[test]
fn ids_are_what_b3sum_prints() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    for length in LENGTHS {
        let name = format!("file-{length}");
        let path = home.path(&name);
        let id = corpus::file(&path, length, length);
        let added = ctl.run(&["add", &name]).in_folder(&home.path("")).done().ok();
        assert_eq!(added.text(), format!("{id}  {name}"), "{length} bytes");
        assert_eq!(corpus::id(&ctl.cat(&id)), id, "{length} bytes come back");

        // From a stream, where the length is not known beforehand, it is the same.
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(ctl.add_bytes(&bytes), id, "{length} bytes from a stream");
    }
    // The empty object is a constant: it is there without being stored.
    let objects = ctl.json(&["ls"]);
    let ids: Vec<_> = objects.iter().filter_map(|object| object["id"].as_str()).collect();
    for length in LENGTHS.iter().filter(|length| **length > 0) {
        assert!(ids.contains(&&*corpus::id(&corpus::bytes(*length, usize::try_from(*length).unwrap()))));
    }
}

#[test]
fn adding_again_stores_nothing_twice_and_says_so() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let path = home.path("twice");
    let id = corpus::file(&path, 1, 20 * MIB + 3);
    let add = || ctl.json(&["add".as_ref(), path.as_os_str()]).pop().unwrap();
    let first = add();
    has_keys(&first, &["id", "name", "size", "created"]);
    assert_eq!((&first["id"], &first["created"]), (&Value::from(&*id), &Value::from(true)));
    assert_eq!((&first["name"], &first["size"]), (&Value::from("twice"), &Value::from(20 * MIB + 3)));
    let before = stored(ctl);
    assert!(before >= 20 * MIB + 3, "{before} bytes are stored");

    assert_eq!(add()["created"], false);
    let after = stored(ctl);
    assert!(after < before + MIB, "{before} bytes became {after}");
    assert_eq!(ctl.json(&["ls"]).len(), 1);

    // A longer object that begins with the same bytes shares its whole chunks.
    let longer = home.path("longer");
    std::fs::write(&longer, [std::fs::read(&path).unwrap(), corpus::bytes(2, 10)].concat()).unwrap();
    ctl.text(&["add".as_ref(), "--parity".as_ref(), "none".as_ref(), longer.as_os_str()]);
    assert!(stored(ctl) < after + 2 * MIB, "equal chunks at equal offsets are stored once");
}

#[test]
fn holes_take_no_space() {
    // The file is far longer than what there is room for; its data fits.
    let home = Home::with(|settings| settings.text("store.quota", "64MiB"));
    let daemon = home.start();
    let ctl = daemon.ctl();
    let path = home.path("sparse");
    let (one, two) = (corpus::bytes(1, 1 << 20), corpus::bytes(2, 100_000));
    // Its beginning, a chunk border far inside, and its last byte.
    let parts: [(u64, &[u8]); 3] = [(5, &one), (2048 * MIB - 50_000, &two), (3072 * MIB - 1, b"!")];
    let id = corpus::sparse(&path, 3072 * MIB, &parts);
    let added = ctl.run(&["-q", "add"]).arg(&path).within(SLOW).done().ok().text();
    assert_eq!(added, id);
    let on_disk = corpus::disk_usage(&home.state()).unwrap();
    // Five chunks have data, in three stripes of four parity chunks each.
    assert!(stored(ctl) < 32 * MIB, "{} bytes are stored", stored(ctl));
    assert!(on_disk < 64 * MIB, "{on_disk} bytes are taken on disk");

    let inside = ctl.run(&["cat", &id, "--offset", &(2048 * MIB - 50_001).to_string(), "--length", "100002"]);
    let inside = inside.done().ok().stdout;
    assert_eq!(inside, [&[0], &two[..], &[0]].concat());
    let stat = ctl.json(&["stat", &id]).pop().unwrap();
    assert_eq!((&stat["chunks"], &stat["local_chunks"]), (&Value::from(3072), &Value::from(3072)));
    // Without holes it is refused before it is sent, also when it has some.
    let dense = home.path("dense");
    corpus::sparse(&dense, 256 * MIB, &[(0, &corpus::bytes(3, 100 << 20))]);
    let sent = ctl.run(&["add"]).arg(&dense).within(SLOW).done();
    sent.refused(&[6], "quota");
    assert!(sent.stderr.contains("it needs 126.0 MiB, which is more than"), "{}", sent.stderr);
}

#[test]
fn tar_into_add_is_tar_into_b3sum() {
    let home = Home::new();
    let daemon = home.start();
    let folder = home.path("folder");
    std::fs::create_dir_all(folder.join("below")).unwrap();
    for (name, length) in [("a", 10), ("below/b", 3 * MIB), ("below/c", 0)] {
        corpus::file(&folder.join(name), length, length);
    }
    let tar = || {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--directory"]).arg(&folder).arg(".");
        tar
    };
    let id = corpus::id(&tar().output().expect("tar is there").stdout);
    let mut running = tar().stdout(Stdio::piped()).spawn().unwrap();
    let added = daemon.ctl().run(&["-q", "add", "-"]).stdin(running.stdout.take().unwrap()).done().ok();
    assert!(running.wait().unwrap().success());
    assert_eq!(added.text(), id);
}

#[test]
fn what_is_stored_is_listed_described_and_removed() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    assert!(ctl.json(&["ls"]).is_empty());
    let path = home.path("report.pdf");
    let id = corpus::file(&path, 3, 17 * MIB);
    assert_eq!(ctl.add(&path), id);

    let listed = ctl.json(&["ls"]).pop().unwrap();
    has_keys(&listed, &["id", "name", "size", "pinned"]);
    assert_eq!((&listed["id"], &listed["name"]), (&Value::from(&*id), &Value::from("report.pdf")));
    assert_eq!((&listed["size"], &listed["pinned"]), (&Value::from(17 * MIB), &Value::from(true)));

    let stat = ctl.json(&["stat", &id]).pop().unwrap();
    has_keys(&stat, &["id", "kind", "size", "chunks", "parity", "local_chunks", "pinned"]);
    assert_eq!((&stat["kind"], &stat["size"]), (&Value::from("file"), &Value::from(17 * MIB)));
    assert_eq!((&stat["chunks"], &stat["parity"]), (&Value::from(17), &Value::from("16+4")));
    assert_eq!(stat["local_chunks"], 17);

    // 17 chunks at 16+4 are two stripes, each with four parity chunks.
    let chunks = ctl.json(&["stat", "--chunks", &id]);
    assert!(
        chunks.iter().all(|chunk| ["index", "id", "size", "parity"].iter().all(|key| !chunk[*key].is_null()))
    );
    assert_eq!(chunks.iter().filter(|chunk| chunk["parity"] == true).count(), 8);
    assert_eq!(chunks.iter().filter(|chunk| chunk["parity"] == false).count(), 17);

    ctl.text(&["rm", &id]);
    assert!(ctl.json(&["ls"]).is_empty());
    ctl.run(&["stat", &id]).done().refused(&[4], &id[..8]);
    ctl.run(&["rm", &id]).done().refused(&[4], &id[..8]);
    assert!(stored(ctl) < 2 * MIB, "{} bytes are left", stored(ctl));
    assert_eq!(ctl.add(&path), id, "it can be added again");
    assert_eq!(corpus::id(&ctl.cat(&id)), id);
}

#[test]
fn a_name_or_a_prefix_serves_where_it_is_unique() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let (one, two) = (ctl.add_bytes(b"one"), home.path("two.txt"));
    std::fs::write(&two, "two").unwrap();
    let two = ctl.add(&two);
    assert_eq!(ctl.cat(&one[..8]), b"one");
    assert_eq!(ctl.cat("two.txt"), b"two");
    assert_eq!(ctl.json(&["stat", &two[..63]])[0]["id"], Value::from(&*two));
    assert_eq!(ctl.json(&["ls", "two.txt"])[0]["id"], Value::from(&*two));

    ctl.run(&["--json", "-q", "add", "--name", "two.txt", "-"]).input(b"another two").done().ok();
    let done = ctl.run(&["cat", "two.txt"]).done();
    done.refused(&[2], "two.txt");
    ctl.text(&["rm", &two[..12]]);
    assert_eq!(ctl.cat("two.txt"), b"another two", "the other one is left");
}

#[test]
fn cat_gives_any_range() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let bytes = corpus::bytes(9, 2_500_000);
    let id = ctl.add_bytes(&bytes);
    for (offset, length) in
        [(0, 1), (0, 2_500_000), (1_048_575, 2), (1_048_576, 1_048_576), (2_499_999, 99), (7, 0)]
    {
        let range = ["cat", &id, "--offset", &offset.to_string(), "--length", &length.to_string()];
        let end = (offset + length).min(bytes.len());
        assert!(ctl.run(&range).done().ok().stdout == bytes[offset..end], "{length} bytes from {offset}");
    }
    assert!(ctl.run(&["cat", &id, "--offset", "1000000"]).done().ok().stdout == bytes[1_000_000..]);
    ctl.run(&["cat", &id, "--offset", "2500001"]).done().refused(&[1, 2], "2500001");
    // A reader that has seen enough ends casctl without a complaint.
    let script = format!("{}; echo \"$?\" >&2", "\"$0\" --socket \"$1\" cat \"$2\" | head -c 10");
    let casctl = casd_tests::programs::program("casctl");
    let head = Run::new("/bin/sh").arg("-c").arg(script).arg(casctl).arg(home.socket()).arg(&id).done().ok();
    assert!(head.stdout == bytes[..10] && head.stderr == "0\n", "{}", head.stderr);
}

#[test]
fn several_paths_are_all_tried_and_the_highest_code_wins() {
    let home = Home::new();
    let daemon = home.start();
    let (first, second) = (home.path("first"), home.path("second"));
    let ids = [corpus::file(&first, 1, 10), corpus::file(&second, 2, 10)];
    let run = daemon.ctl().run(&["-q", "add"]).arg(&first).arg(home.path("missing")).arg(&second);
    let done = run.done().code(1);
    assert_eq!(done.text().lines().collect::<Vec<_>>(), ids);
    assert!(done.stderr.contains("missing") && done.stderr.lines().count() <= 2, "{}", done.stderr);
    let done = daemon.ctl().run(&["rm", &ids[0], &"0".repeat(64), &ids[1]]).done().code(4);
    assert!(done.stderr.contains("00000000"), "{}", done.stderr);
    assert!(daemon.ctl().json(&["ls"]).is_empty());
}

#[test]
fn pins_keep_and_collection_says_what_it_would_drop() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let id = ctl.add_bytes(b"kept");
    assert_eq!(ctl.json(&["pin", &id])[0]["changed"], false, "what is added is pinned");
    assert_eq!(ctl.json(&["unpin", &id])[0]["changed"], true);
    assert_eq!(ctl.json(&["stat", &id])[0]["pinned"], false);
    // Younger than an hour: it stays.
    let collected = ctl.json(&["gc", "--dry-run"]).pop().unwrap();
    assert_eq!((&collected["dry_run"], &collected["objects"]), (&Value::from(true), &Value::from(0)));
    assert_eq!(ctl.json(&["gc"])[0]["objects"], 0);
    assert_eq!(ctl.cat(&id), b"kept");
    assert_eq!(ctl.json(&["pin", &id])[0]["changed"], true);
}
