//! Directories between real nodes: what comes back is what was added, nothing else is kept for it, and what a stranger
//! calls a directory does no harm.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Run;
use casd_tests::nodes::network;
use casd_tests::trees::{self, INSIDE, OUTSIDE, Says, everything, list, sample, snapshot};
use casd_tests::wait::{self, LONG};
use casd_tests::{Ctl, Home, Node};
use serde_json::Value;

/// A debug build on a loaded machine takes its time for two thousand files.
const SLOW: Duration = Duration::from_secs(300);

fn stored(ctl: &Ctl) -> u64 {
    ctl.status()["stored_bytes"].as_u64().expect("status has stored_bytes")
}

/// Adds a directory and gives what is printed of it.
#[track_caller]
fn add(ctl: &Ctl, path: &Path) -> Value {
    ctl.run(&["--json", "add", "-r"]).arg(path).within(SLOW).done().ok().json().remove(0)
}

/// Restores a directory with its links and gives what is printed of it; casctl is to end with `code`.
#[track_caller]
fn restore(node: &Node, source: &str, to: &Path, code: i32) -> Value {
    let run = node.ctl().run(&["--json", "fetch", source, "--symlinks", "-o"]).arg(to);
    run.within(SLOW).done().code(code).json().remove(0)
}

#[test]
fn a_directory_comes_back_as_it_was_and_goes_whole() {
    let mut nodes = network(2, |_, settings| settings);
    let (giver, taker) = (&nodes[0], &nodes[1]);
    let tree = giver.home.path("tree");
    sample(&tree, 7);
    let mut expected = snapshot(&tree);
    let before = stored(giver.ctl());

    let added = add(giver.ctl(), &tree);
    let id = added["id"].as_str().unwrap().to_owned();
    let count = |kind: &str| expected.values().filter(|words| words.starts_with(kind)).count();
    for (key, kind) in [("files", "file"), ("directories", "directory"), ("links", "link")] {
        assert_eq!(added[key], count(kind), "{key}");
    }
    assert_eq!(add(giver.ctl(), &tree)["created"], false);

    // From the other node, all of it but the links that could lead out.
    expected.retain(|path, _| !OUTSIDE.iter().any(|(name, _)| path == name));
    let out = taker.home.path("out");
    let fetched = restore(taker, &id, &out, 1);
    assert_eq!(snapshot(&out), expected);
    assert_eq!((&fetched["links"], &fetched["left_out"]), (&INSIDE.len().into(), &OUTSIDE.len().into()));
    assert!(fetched["peers"][giver.id()].as_u64().unwrap() > 0, "{fetched}");
    let hole = out.join("sub/a/b/hole").metadata().unwrap();
    assert!(hole.blocks() * 512 < 4 * MIB, "the hole is one");

    // One path inside, as a file, to standard output, and as a directory.
    let long = fs::read(tree.join("sub/a/3145735")).unwrap();
    let path = format!("{id}/sub/a/3145735");
    assert!(taker.ctl().run(&["fetch", &path, "-o", "-"]).done().ok().stdout == long);
    let inside = taker.home.path("inside");
    restore(taker, &format!("{id}/sub/a"), &inside, 1);
    let below = |path: &str| expected.get(&format!("sub/a/{path}")).cloned();
    for (path, words) in snapshot(&inside) {
        assert_eq!(below(&path), Some(words), "{path}");
    }
    taker.ctl().run(&["fetch", &format!("{id}/nowhere/x")]).done().refused(&[4], "nowhere");

    // A bare id, a name, or a path lists what is in it.
    let names = |object: &str| -> Vec<String> {
        let entries = giver.ctl().json(&["ls", object]);
        entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let top = ["down", "empty", "for others", "many", "nowhere", "only mine", "out", "run", "sub"];
    for object in [&*id, &id["dir:".len()..], "tree"] {
        assert_eq!(names(object), top, "{object}");
    }
    assert_eq!(names(&format!("{id}/sub/a")).len(), 7);
    assert_eq!(giver.ctl().json(&["ls"]).len(), 1, "what is only in a directory is not listed");
    assert!(giver.ctl().json(&["ls", "--parts"]).len() > 2000);

    // Started again, both give the same.
    let taker = nodes.pop().unwrap().restart(|_| ());
    let giver = nodes.pop().unwrap().restart(|_| ());
    assert_eq!(add(giver.ctl(), &tree)["created"], false);
    let again = taker.home.path("again");
    assert_eq!(restore(&taker, &id, &again, 1)["peers"], serde_json::json!({}), "all of it is here");
    assert_eq!(snapshot(&again), expected);

    // A file that is in it cannot go alone; with it everything goes.
    let run = giver.ctl().text(&["-q", "stat", &format!("{id}/run")]);
    assert_eq!(giver.ctl().json(&["rm", &run])[0]["in_directory"], true);
    assert_eq!(giver.ctl().json(&["rm", &id])[0]["removed"], true);
    assert!(giver.ctl().json(&["ls", "--parts"]).is_empty());
    wait::until("the room to be given back", LONG, || (stored(giver.ctl()) <= before + MIB).then_some(()));
    assert_eq!(snapshot(&again), expected);
}

/// Lists that break a rule each, and which one. What they speak of is stored.
fn harmful(stranger: &Ctl) -> Vec<(String, Vec<u8>)> {
    let file = Says::File(b"pwned");
    stranger.add_bytes(b"pwned");
    let inner = list(&[(b"x", file.clone())]);
    stranger.add_bytes(&inner);
    let mut lists = Vec::new();
    let names: [&[u8]; 15] = [
        b"",
        b".",
        b"..",
        b"../x",
        b"a/../../x",
        b"/abs",
        b"sub/x",
        b"C:\\x",
        b"a\0b",
        b"a\nb",
        b"a\x1b[2Jb",
        b"\x7f",
        b"a\xc2\x9bb",
        b"a\xffb",
        b"x/",
    ];
    for name in names {
        for says in [file.clone(), Says::Directory(&inner), Says::Link(b"x")] {
            lists.push((name.escape_ascii().to_string(), list(&[(b"!", file.clone()), (name, says)])));
        }
    }
    lists.push(("twice".to_owned(), list(&[(b"a", file.clone()), (b"a", file.clone())])));
    lists.push(("a link and a file".to_owned(), list(&[(b"a", Says::Link(b"/etc")), (b"a", file.clone())])));
    lists.push(("not in order".to_owned(), list(&[(b"b", file.clone()), (b"a", file.clone())])));
    lists.push(("a link to nothing".to_owned(), list(&[(b"a", Says::Link(b""))])));
    lists.push(("no list".to_owned(), b"not a list at all".to_vec()));
    let good = list(&[(b"a", file.clone())]);
    lists.push(("half of one".to_owned(), good[..good.len() - 1].to_vec()));
    lists.push(("one and more".to_owned(), [&good[..], b"\0"].concat()));
    let mut many = good.clone();
    many[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    lists.push(("four thousand million".to_owned(), many));
    let mut device = good.clone();
    device[13] = 5;
    lists.push(("a kind of its own".to_owned(), device));
    let mut huge = good;
    huge[16..24].copy_from_slice(&(1u64 << 60).to_le_bytes());
    lists.push(("a file of 1 EiB".to_owned(), huge));
    // 65 directories, each in the one before.
    let mut deep = list(&[]);
    stranger.add_bytes(&deep);
    for _ in 0..64 {
        deep = list(&[(b"d", Says::Directory(&deep))]);
        stranger.add_bytes(&deep);
    }
    lists.push(("65 deep".to_owned(), deep));
    lists
}

/// B33-B37: bytes that a stranger calls a directory. Whoever fetches them gets an error, and nothing around the target
/// has changed.
#[test]
fn what_a_stranger_calls_a_directory_does_no_harm() {
    let nodes = network(2, |_, settings| settings);
    let (stranger, taker) = (nodes[0].ctl(), &nodes[1]);
    let around = taker.home.path("around");
    for folder in ["work/sub", "etc"] {
        fs::create_dir_all(around.join(folder)).unwrap();
        fs::write(around.join(folder).join("passwd"), "kept").unwrap();
        fs::write(around.join(folder).join("x"), "kept").unwrap();
    }
    symlink("..", around.join("work/around")).unwrap();
    let work = around.join("work");

    let file = Says::File(b"pwned");
    for (about, list) in harmful(stranger) {
        let ids = [&list, &trees::list(&[(b"good", file.clone()), (b"sub", Says::Directory(&list))])];
        for (id, depth) in ids.map(|list| stranger.add_bytes(list)).iter().zip(["", "in one: "]) {
            let watched = || {
                let mut all = everything(&around);
                // Its times change when something is made beside the target and removed again.
                all.remove("work");
                all
            };
            let before = watched();
            let fetch = ["fetch", &format!("dir:{id}"), "--symlinks", "-o", "target"];
            let done = taker.ctl().run(&fetch).in_folder(&work).done();
            assert_eq!(done.status.code(), Some(1), "{depth}{about}: {}", done.stderr);
            assert!(
                done.stdout.is_empty() && done.stderr.lines().count() <= 2,
                "{depth}{about}: {}",
                done.stderr
            );
            assert!(!done.stderr.contains(|c: char| c.is_control() && c != '\n'), "{depth}{about}");
            assert!(!done.stderr.contains("this is a bug"), "{depth}{about}: {}", done.stderr);
            assert_eq!(watched(), before, "{depth}{about}");
        }
    }
    assert!(taker.ctl().status()["ready"].as_bool().unwrap());
}

#[test]
fn what_is_in_a_directory_is_read_like_any_object() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let tree = home.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    let id_of_file = corpus::file(&tree.join("sub/file"), 3, 2 * MIB + 5);
    let id = add(ctl, &tree)["id"].as_str().unwrap().to_owned();
    let path = format!("{id}/sub/file");
    assert_eq!(corpus::id(&ctl.cat(&path)), id_of_file);
    assert_eq!(ctl.json(&["stat", &path])[0]["id"], *id_of_file);
    let stat = ctl.json(&["stat", &id]).remove(0);
    assert_eq!((&stat["id"], &stat["kind"]), (&Value::from(&*id), &Value::from("directory")));
    assert_eq!(ctl.json(&["unpin", &id])[0]["changed"], true);
    assert_eq!(ctl.json(&["pin", &id])[0]["changed"], true);
    assert!(ctl.text(&["link", &id]).starts_with(&format!("casd:{id},name=tree,")));
    assert!(ctl.text(&["link", &path]).starts_with(&format!("casd:{id_of_file},name=file,")));
    assert!(ctl.text(&["link", "tree/sub"]).contains(",name=sub,"));
    assert_eq!(ctl.json(&["verify", &id]).pop().unwrap()["bad"], 0);
    ctl.run(&["cat", &id]).done().refused(&[2], "is a directory");
    ctl.run(&["ls", &path]).done().refused(&[2], "not a directory");
    ctl.run(&["ls", &format!("{id}/none")]).done().refused(&[4], "none");
    // Each file's id is printed where that is wanted, and what was added alone stays alone.
    let each = ctl.run(&["add", "-r", "--each"]).arg(&tree).done().ok().text();
    assert_eq!(each, format!("{id_of_file}  tree/sub/file\n{id}  tree"));
    assert_eq!(ctl.add(&tree.join("sub/file")), id_of_file);
    ctl.text(&["rm", &id]);
    assert_eq!(corpus::id(&ctl.cat(&id_of_file)), id_of_file);
    // Names that not every file system can hold.
    fs::write(tree.join("A"), "").unwrap();
    fs::write(tree.join("a"), "").unwrap();
    ctl.run(&["add", "-r", "--portable"]).arg(&tree).done().refused(&[2], "one name on some file systems");
    add(ctl, &tree);
}

#[test]
fn a_file_of_a_directory_elsewhere_is_read_and_what_cannot_be_looked_into_says_what_to_do() {
    let nodes = network(2, |_, settings| settings);
    let (giver, taker) = (&nodes[0], &nodes[1]);
    let tree = giver.home.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/short"), "0123456789").unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    let id_of_long = corpus::file(&tree.join("long"), 5, 3 * MIB + 5);
    let id = add(giver.ctl(), &tree)["id"].as_str().unwrap().to_owned();
    let path = |rest: &str| format!("{id}/{rest}");
    for args in [["ls", &id], ["ls", &path("sub")], ["stat", &path("long")], ["link", &path("long")]] {
        taker.ctl().run(&args).done().refused(&[4], "casctl fetch dir:ID/PATH");
    }
    let long = fs::read(tree.join("long")).unwrap();
    let part = ["--offset", "1048570", "--length", "20"];
    let part = part.iter().fold(taker.ctl().run(&["cat", &path("long")]), Run::arg).done().ok();
    assert!(part.stdout == long[1_048_570..1_048_590]);
    assert_eq!(taker.ctl().cat(&path("sub/short")), b"0123456789");
    assert_eq!(taker.ctl().run(&["cat", &path("sub/short"), "--offset", "7"]).done().ok().stdout, b"789");
    assert_eq!(taker.ctl().cat(&path("empty")), b"");
    assert_eq!(corpus::id(&taker.ctl().cat(&path("long"))), id_of_long);
    taker.ctl().run(&["cat", &path("sub")]).done().refused(&[2], "is a directory");
    taker.ctl().run(&["cat", &path("none")]).done().refused(&[4], "there is no \"none\"");
}

/// By its id alone it is not told apart from a file before it comes.
#[test]
fn a_directory_is_refused_where_a_file_is_wanted_also_when_nothing_of_it_is_here() {
    let nodes = network(2, |_, settings| settings);
    let (giver, taker) = (&nodes[0], &nodes[1]);
    let tree = giver.home.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f9"), "nine").unwrap();
    let id = add(giver.ctl(), &tree)["id"].as_str().unwrap().to_owned();
    let bare = &id["dir:".len()..];
    let out = taker.home.path("out");
    let is_refused = || {
        let hint = format!("casctl fetch {id}");
        taker.ctl().run(&["fetch", bare, "-o"]).arg(&out).done().refused(&[2], &hint);
        assert!(!out.exists());
        taker.ctl().run(&["fetch", bare, "-o", "-"]).done().refused(&[2], "is a directory");
        for object in [bare, &id] {
            taker.ctl().run(&["cat", object]).done().refused(&[2], "is a directory");
        }
    };
    is_refused();
    taker.ctl().run(&["fetch", &format!("{id}/f9"), "-o", "-"]).done().ok();
    is_refused();

    // Who does not wait cannot be told: the job brings what is in it as well.
    taker.ctl().run(&["fetch", "--detach", bare]).done().ok();
    let job = wait::until("the job to be done", LONG, || {
        taker.ctl().json(&["jobs"]).pop().filter(|job| job["state"] == "done")
    });
    assert_eq!(job["id"], *id);
    is_refused();
    taker.ctl().run(&["fetch", "--detach", bare]).done().refused(&[2], "is a directory");
    let restored = taker.home.path("restored");
    assert_eq!(restore(taker, &id, &restored, 0)["peers"], serde_json::json!({}), "all of it is here");
    assert_eq!(fs::read(restored.join("f9")).unwrap(), b"nine");
    // Nor is a list poured that is stored as a file.
    let stored = taker.ctl().add_bytes(&list(&[(b"x", Says::File(b"x"))]));
    taker.ctl().run(&["cat", &format!("dir:{stored}")]).done().refused(&[2], "is a directory");
}

#[test]
fn a_reader_that_has_seen_enough_does_not_stop_an_add() {
    let home = Home::new();
    let daemon = home.start();
    let tree = home.path("tree");
    fs::create_dir(&tree).unwrap();
    // More than fits into what is read ahead and what the pipe holds.
    for number in 0..12_000 {
        fs::write(tree.join(number.to_string()), number.to_string()).unwrap();
    }
    let script = "\"$0\" --socket \"$1\" add -r --each \"$2\" | head -1; echo \"${PIPESTATUS[0]}\" >&2";
    let casctl = casd_tests::programs::program("casctl");
    let run = Run::new("/bin/bash").arg("-c").arg(script).arg(casctl).arg(home.socket()).arg(&tree);
    let head = run.within(SLOW).done().ok();
    assert_eq!((head.text().lines().count(), head.stderr.as_str()), (1, "0\n"));
    let listed = daemon.ctl().json(&["ls"]);
    assert_eq!((listed.len(), &listed[0]["name"]), (1, &Value::from("tree")));
}
