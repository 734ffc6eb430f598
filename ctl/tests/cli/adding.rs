//! Adding directories, and looking into them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use casd_proto::Reason;
use casd_proto::v1::{EntryKind, ListedEntry, ListedObject, ObjectKind, RemoveResponse};
use serde_json::{Value, json};

use crate::daemon::{self, ID, Script};
use crate::trees::{self, Node, on_disk};
use crate::{folder, run, words};

/// A directory with everything that there may be.
fn sample(at: &Path) {
    fs::create_dir_all(at.join("sub/deeper")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    for name in ["-rf", " ", "a\u{202e}b", "\u{fc}ber", "e\u{301}", "\u{e9}", "...", "~", &"x".repeat(255)] {
        fs::write(at.join("sub").join(name), name).unwrap();
    }
    fs::write(at.join("none"), "").unwrap();
    for (name, length) in [("mib", 1 << 20), ("more", (1 << 20) + 1), ("long", (3 << 20) + 7), ("4", 4 << 20)]
    {
        let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
        fs::write(at.join("sub/deeper").join(name), bytes).unwrap();
    }
    fs::write(at.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("run"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::write(at.join("data"), "for others to run only").unwrap();
    fs::set_permissions(at.join("data"), fs::Permissions::from_mode(0o655)).unwrap();
    fs::hard_link(at.join("run"), at.join("sub/again")).unwrap();
    symlink("sub/deeper", at.join("inside")).unwrap();
    symlink("/etc/passwd", at.join("outside")).unwrap();
    symlink("inside", at.join("sub/nowhere")).unwrap();
}

#[tokio::test]
async fn a_directory_is_added_whole() {
    let folder = folder();
    let (_, script) = daemon::start(folder.path(), Script::default());
    let tree = folder.path().join("tree");
    sample(&tree);
    let args = ["add", "-r", "tree", "--portable", "--private", "--parity", "2+1"];
    let (code, stdout, stderr) = words(&run(folder.path(), &args).await);
    assert_eq!((code, stdout, stderr.as_str()), (0, format!("dir:{ID}  tree\n"), ""));
    let added = script.trees.added.lock().unwrap().pop().unwrap();
    assert!(added.finished);
    assert_eq!(added.tree, on_disk(&tree));
    assert_eq!(added.tree["outside"], Node::Link("/etc/passwd".into()));
    let options = added.start.options.unwrap();
    assert_eq!((added.start.name.as_str(), added.start.portable, added.start.each), ("tree", true, false));
    assert_eq!((options.private, options.parity.as_deref()), (Some(true), Some("2+1")));
}

#[tokio::test]
async fn small_files_share_messages() {
    let folder = folder();
    let (_, script) = daemon::start(folder.path(), Script::default());
    let tree = folder.path().join("tree");
    for (sub, count, length) in [("a", 2000, 100), ("b", 600, 4096), ("c", 3, 700_000)] {
        fs::create_dir_all(tree.join(sub)).unwrap();
        for number in 0..count {
            fs::write(tree.join(format!("{sub}/{number}")), vec![7; length]).unwrap();
        }
    }
    // Names and targets count as well: a thousand of these are more than a message may have.
    fs::create_dir(tree.join("d")).unwrap();
    for number in 0..1000 {
        symlink("t/".repeat(2000), tree.join(format!("d/{number:0>250}"))).unwrap();
    }
    let (code, _, stderr) = words(&run(folder.path(), &["add", "-r", "tree"]).await);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let added = script.trees.added.lock().unwrap().pop().unwrap();
    assert_eq!(added.tree, on_disk(&tree));
    assert!(added.finished && added.messages < 20, "{} messages", added.messages);
}

#[tokio::test]
async fn a_directory_is_called_as_it_really_is() {
    let folder = folder();
    let (_, script) = daemon::start(folder.path(), Script::default());
    fs::create_dir_all(folder.path().join("tree/below")).unwrap();
    fs::write(folder.path().join("file"), "bytes").unwrap();
    symlink("tree", folder.path().join("link")).unwrap();
    for (args, name) in [
        (&["link"][..], "tree"),
        (&["tree/below/.."], "tree"),
        (&["tree/"], "tree"),
        (&["tree", "--name", "other"], "other"),
    ] {
        let args = [&["add", "-r"], args].concat();
        let (code, stdout, _) = words(&run(folder.path(), &args).await);
        assert_eq!((code, stdout), (0, format!("dir:{ID}  {name}\n")), "{args:?}");
        assert_eq!(script.trees.added.lock().unwrap().pop().unwrap().start.name, name);
    }
    // Where one is in it.
    let below = folder.path().join("tree/below");
    let socket = folder.path().join("casd.sock");
    let args = ["--socket", socket.to_str().unwrap(), "add", "-r", "."];
    assert_eq!(words(&run(&below, &args).await).1, format!("dir:{ID}  below\n"));
    // A file is added as ever, and all are tried.
    let (code, stdout, stderr) =
        words(&run(folder.path(), &["add", "-r", "file", "none", "tree", "file"]).await);
    assert_eq!(stdout, format!("{ID}  file\ndir:{ID}  tree\n{ID}  file\n"));
    assert_eq!((code, stderr.as_str()), (1, "casctl: none: no such file or directory\n"));
    let (code, _, stderr) = words(&run(folder.path(), &["add", "tree"]).await);
    assert!(
        code == 2 && stderr.contains("is a directory, not a file") && stderr.contains("-r adds it"),
        "{stderr}"
    );
}

#[tokio::test]
async fn results_have_three_forms() {
    let folder = folder();
    daemon::start(folder.path(), Script::default());
    fs::create_dir_all(folder.path().join("tree/b")).unwrap();
    for (name, bytes) in [("a\u{202e}", "12"), ("b/c", "345"), ("b/d", ""), ("c", "6"), ("e", "7")] {
        fs::write(folder.path().join("tree").join(name), bytes).unwrap();
    }
    symlink("a", folder.path().join("tree/l")).unwrap();
    let id = |number: usize| format!("{number:064x}");
    let (_, stdout, stderr) = words(&run(folder.path(), &["add", "-r", "--each", "tree"]).await);
    let names = ["a\\u{202e}", "b/c", "b/d", "c", "e"];
    let lines = names.iter().enumerate().map(|(number, name)| format!("{}  tree/{name}\n", id(number)));
    assert_eq!((stdout, stderr.as_str()), (lines.collect::<String>() + &format!("dir:{ID}  tree\n"), ""));

    let (_, stdout, _) = words(&run(folder.path(), &["-q", "add", "-r", "tree"]).await);
    assert_eq!(stdout, format!("dir:{ID}\n"));
    let (_, stdout, _) = words(&run(folder.path(), &["--json", "add", "-r", "--each", "tree"]).await);
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[1], json!({ "id": id(1), "path": "tree/b/c", "size": 3, "created": true }));
    let expected = json!({
        "id": format!("dir:{ID}"), "name": "tree", "size": 7, "files": 5, "directories": 1, "links": 1,
        "created": true,
    });
    assert_eq!(lines[5], expected);
}

/// B33, B36, B37: what cannot be kept refuses the whole directory, and is named.
#[tokio::test]
async fn what_cannot_be_kept_is_named() {
    let fifo = |at: &Path| {
        rustix::fs::mkfifoat(rustix::fs::CWD, at.join("sub/pipe"), rustix::fs::Mode::RUSR).unwrap();
    };
    let socket = |at: &Path| drop(std::os::unix::net::UnixListener::bind(at.join("sub/s")).unwrap());
    let name = |name: &'static [u8]| {
        move |at: &Path| fs::write(at.join("sub").join(OsStr::from_bytes(name)), "").unwrap()
    };
    let deep = |at: &Path| fs::create_dir_all(at.join("d/".repeat(64))).unwrap();
    let target = |at: &Path| symlink(OsStr::from_bytes(b"\xff"), at.join("sub/l")).unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let cases: [(Make<'_>, i32, &str); 10] = [
        (&fifo, 1, "tree/sub/pipe is a FIFO"),
        (&socket, 1, "tree/sub/s is a socket"),
        (&name(b"a\\b"), 2, "tree/sub/a\\b has a name"),
        (&name(b"a\nb"), 2, "tree/sub/a\\nb has a name"),
        (&name(b"a\x1b[2Jb"), 2, "tree/sub/a\\u{1b}[2Jb has a name"),
        (&name(b"a\xc2\x9bb"), 2, "tree/sub/a\\u{9b}b has a name"),
        (&name(b"a\xffb"), 2, "tree/sub/a\\xffb has a name"),
        (&name(b"\xc3"), 2, "tree/sub/\\xc3 has a name"),
        (&deep, 1, "is nested more than 64 deep"),
        (&target, 2, "tree/sub/l points to what is not UTF-8"),
    ];
    for (make, expected, word) in cases {
        let folder = folder();
        let (_, script) = daemon::start(folder.path(), Script::default());
        fs::create_dir_all(folder.path().join("tree/sub")).unwrap();
        fs::write(folder.path().join("tree/before"), "bytes").unwrap();
        fs::write(folder.path().join("file"), "bytes").unwrap();
        make(&folder.path().join("tree"));
        let (code, stdout, stderr) = words(&run(folder.path(), &["add", "-r", "tree", "file"]).await);
        assert_eq!((code, stdout), (expected, format!("{ID}  file\n")), "{stderr}");
        assert!(stderr.contains(word) && stderr.contains("nothing was stored"), "{word}: {stderr}");
        assert!(stderr.lines().count() <= 2, "{stderr}");
        assert!(script.trees.added.lock().unwrap().iter().all(|added| !added.finished));
    }
    // One less is not too deep; and of a long path one sees the beginning and the end.
    let folder = folder();
    let (_, script) = daemon::start(folder.path(), Script::default());
    let long = format!("{}/", "n".repeat(40)).repeat(66);
    fs::create_dir_all(folder.path().join(&long)).unwrap();
    let (code, _, stderr) = words(&run(folder.path(), &["add", "-r", &"n".repeat(40)]).await);
    assert!(code == 1 && stderr.contains("n…n") && stderr.len() < 400, "{stderr}");
    fs::create_dir_all(folder.path().join("d/".repeat(64))).unwrap();
    let (code, _, stderr) = words(&run(folder.path(), &["add", "-r", "d"]).await);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(script.trees.added.lock().unwrap().pop().unwrap().tree.len(), 63);
}

#[tokio::test]
async fn all_that_cannot_be_kept_is_told_at_once() {
    let folder = folder();
    let (_, script) = daemon::start(folder.path(), Script::default());
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    for name in ["a", "b\\c", "sub/d", "sub/e\\", "z"] {
        fs::write(tree.join(name), name).unwrap();
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, tree.join("sub/f"), rustix::fs::Mode::RUSR).unwrap();
    // What the caller wrote ends in a slash; what is shown has one.
    let (code, stdout, stderr) = words(&run(folder.path(), &["add", "-r", "--each", "tree/"]).await);
    assert_eq!(
        (code, stdout.as_str()),
        (2, ""),
        "the worst of them, and nothing is printed that is not stored"
    );
    let told: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("casctl: ")).collect();
    let expected = ["tree/b\\c has a name", "tree/sub/e\\ has a name", "tree/sub/f is a FIFO"];
    assert!(told.iter().zip(expected).all(|(line, begin)| line.starts_with(begin)), "{stderr}");
    assert_eq!(told.len(), 3, "{stderr}");
    assert!(script.trees.added.lock().unwrap().iter().all(|added| !added.finished));
    // Ten are enough.
    for number in 0..20 {
        fs::write(tree.join(format!("{number}\\")), "").unwrap();
    }
    let (_, _, stderr) = words(&run(folder.path(), &["--json", "add", "-r", "tree"]).await);
    assert_eq!(stderr.lines().count(), 10, "{stderr}");
}

#[tokio::test]
async fn what_is_in_a_directory_is_printed_when_it_is_stored() {
    let folder = folder();
    // Files are answered, and then it fails.
    let trees = trees::Script { fail_add: Some(Reason::NoSpace), ..trees::Script::default() };
    daemon::start(folder.path(), Script { trees, ..Script::default() });
    fs::create_dir(folder.path().join("tree")).unwrap();
    fs::write(folder.path().join("tree/a"), "a").unwrap();
    let (code, stdout, stderr) = words(&run(folder.path(), &["add", "-r", "--each", "tree"]).await);
    assert_eq!((code, stdout.as_str()), (6, ""), "{stderr}");
}

#[tokio::test]
async fn a_directory_that_is_refused_early_tells_why() {
    let folder = folder();
    let trees = trees::Script { refuse_add: Some(Reason::Quota), ..trees::Script::default() };
    daemon::start(folder.path(), Script { trees, ..Script::default() });
    fs::create_dir(folder.path().join("tree")).unwrap();
    for number in 0..40 {
        fs::write(folder.path().join(format!("tree/{number}")), vec![5; 1 << 20]).unwrap();
    }
    let (code, stdout, stderr) = words(&run(folder.path(), &["--json", "add", "-r", "tree"]).await);
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, stdout.as_str(), &error["reason"]), (6, "", &json!("QUOTA")), "{stderr}");
    assert!(error["error"].as_str().unwrap().starts_with("tree: "), "{stderr}");
}

fn entry(name: &str, kind: EntryKind, target: &str) -> ListedEntry {
    let id = if kind == EntryKind::Link { String::new() } else { ID.to_owned() };
    ListedEntry { name: name.into(), kind: kind.into(), id, size: 5, target: target.into() }
}

#[tokio::test]
async fn directories_are_listed() {
    let folder = folder();
    let object = ListedObject {
        id: ID.into(),
        name: "tree".into(),
        kind: ObjectKind::Directory.into(),
        complete: true,
        ..ListedObject::default()
    };
    let entries = vec![
        entry("a", EntryKind::File, ""),
        entry("b", EntryKind::Directory, ""),
        entry("c", EntryKind::Link, "/etc/\u{1b}[2J"),
        entry("d", EntryKind::Executable, ""),
    ];
    let trees = trees::Script { entries, ..trees::Script::default() };
    let (_, script) =
        daemon::start(folder.path(), Script { objects: vec![object.clone()], trees, ..Script::default() });
    let expected = format!("{ID}\ndir:{ID}\n{ID}\n");
    for object in [format!("dir:{ID}"), format!("{ID}/sub//path/"), ID.to_owned(), "tree".to_owned()] {
        let (code, stdout, stderr) = words(&run(folder.path(), &["-q", "ls", &object]).await);
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, expected.as_str(), ""), "{object}");
    }
    let directory = format!("dir:{ID}");
    let asked = [directory.clone(), format!("{directory}/sub/path"), directory.clone(), directory.clone()];
    assert_eq!(*script.trees.listed.lock().unwrap(), asked);
    let (_, stdout, _) = words(&run(folder.path(), &["ls", &directory]).await);
    assert!(stdout.contains("c -> /etc/\\u{1b}[2J\n") && !stdout.contains('\u{1b}'), "{stdout}");
    // All, with directories among them, and what is only in one.
    script.listed.lock().unwrap().clear();
    let (_, stdout, _) = words(&run(folder.path(), &["ls"]).await);
    assert!(stdout.starts_with(&format!("dir:{ID}  ")), "{stdout}");
    run(folder.path(), &["ls", "--parts"]).await;
    assert_eq!(*script.listed.lock().unwrap(), [(String::new(), false), (String::new(), true)]);
}

#[tokio::test]
async fn what_a_directory_needs_is_not_removed() {
    for (unpinned, kind, expected) in [
        (false, ObjectKind::File, format!("{ID}  kept, since a directory needs it\n")),
        (true, ObjectKind::Directory, format!("dir:{ID}  unpinned; kept, since a directory needs it\n")),
    ] {
        let folder = folder();
        let (id, kind, in_directory) = (ID.into(), kind.into(), true);
        let removed = RemoveResponse { id, in_directory, unpinned, kind, ..RemoveResponse::default() };
        daemon::start(folder.path(), Script { removed: Some(removed), ..Script::default() });
        let (code, stdout, _) = words(&run(folder.path(), &["rm", ID]).await);
        assert_eq!((code, stdout), (0, expected));
        let (_, stdout, _) = words(&run(folder.path(), &["--json", "rm", ID]).await);
        let json: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&json["in_directory"], &json["unpinned"]), (&json!(true), &json!(unpinned)));
    }
}

#[tokio::test]
async fn what_an_unread_directory_may_need_is_said_to_be_kept_for_it() {
    let (folder, unread) = (folder(), "ab".repeat(32));
    let removed =
        RemoveResponse { id: ID.into(), unread_directory: unread.clone(), ..RemoveResponse::default() };
    daemon::start(folder.path(), Script { removed: Some(removed), ..Script::default() });
    let (code, stdout, _) = words(&run(folder.path(), &["rm", ID]).await);
    assert_eq!((code, stdout.lines().count()), (0, 1));
    assert!(stdout.contains(&format!("dir:{unread}")) && stdout.contains("add or fetch"), "{stdout}");
    let (_, stdout, _) = words(&run(folder.path(), &["--json", "rm", ID]).await);
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["unread_directory"], unread);
}

#[tokio::test]
async fn what_others_have_pinned_goes_only_by_force() {
    let folder = folder();
    daemon::start(folder.path(), Script::default());
    let (code, _, stderr) = words(&run(folder.path(), &["rm", "theirs"]).await);
    assert!(code == 5 && stderr.contains("uid 7"), "{code} {stderr}");
    let (code, stdout, _) = words(&run(folder.path(), &["rm", "--force", "theirs"]).await);
    assert!(code == 0 && stdout.contains("removed"), "{code} {stdout}");
}
