//! Fetching directories, and what is in them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use casd_proto::Reason;
use casd_proto::v1::{FetchTreeResponse, ObjectKind, TreePart, TreeStarted};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::daemon::{self, ID, Script};
use crate::trees::{self, Event, Node, begin, bytes, end, enter, everything, file, finished, honest, leave};
use crate::trees::{link, on_disk, parts, program, started, zeros};
use crate::{BOUND, casctl, files, folder, run, words};

/// A folder with a daemon in it that will answer a fetch so.
fn with(events: Vec<Event>) -> (TempDir, std::sync::Arc<Script>) {
    let folder = folder();
    let trees = trees::Script { fetch: events.into(), ..trees::Script::default() };
    let (_, script) = daemon::start(folder.path(), Script { trees, ..Script::default() });
    (folder, script)
}

fn directory() -> String {
    format!("dir:{ID}")
}

fn sample() -> Vec<TreePart> {
    vec![
        file("-rf", b"one"),
        enter("sub"),
        program("run", b"#!"),
        enter("empty"),
        leave(),
        begin("long", Some((5 << 20) + 3)),
        bytes(&vec![1; 1 << 20]),
        zeros(3 << 20),
        bytes(&vec![2; 1 << 20]),
        zeros(3),
        end((5 << 20) + 3),
        link("up", "../-rf"),
        leave(),
        file("none", b""),
        begin("nothing", None),
        end(0),
        link("down", "sub/up"),
        file(&"\u{fc}".repeat(127), b"odd"),
    ]
}

fn expected() -> trees::Tree {
    let long = [&vec![1; 1 << 20][..], &vec![0; 3 << 20], &vec![2; 1 << 20], &[0; 3]].concat();
    [
        ("-rf".into(), Node::File(b"one".to_vec(), false)),
        ("sub".into(), Node::Directory),
        ("sub/run".into(), Node::File(b"#!".to_vec(), true)),
        ("sub/empty".into(), Node::Directory),
        ("sub/long".into(), Node::File(long, false)),
        ("sub/up".into(), Node::Link("../-rf".into())),
        ("none".into(), Node::File(Vec::new(), false)),
        ("nothing".into(), Node::File(Vec::new(), false)),
        ("down".into(), Node::Link("sub/up".into())),
        ("\u{fc}".repeat(127), Node::File(b"odd".to_vec(), false)),
    ]
    .into()
}

#[tokio::test]
async fn a_directory_is_restored_as_it_was() {
    let (folder, script) = with(honest(".my\u{1b}tree", &sample()));
    let args =
        ["--json", "fetch", &directory(), "--symlinks", "--sync", "--pin", "--peer", "p", "--stall", "2s"];
    let (code, stdout, stderr) = words(&run(folder.path(), &args).await);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let out = folder.path().join("_my_tree");
    assert_eq!(on_disk(&out), expected());
    assert_eq!(files(folder.path()), ["_my_tree"]);
    let long = out.join("sub/long").metadata().unwrap();
    assert!(long.blocks() * 512 < 3 << 20, "the hole is one");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    for (key, value) in [
        ("id", Value::from(directory())),
        ("path", "_my_tree".into()),
        ("files", 6.into()),
        ("directories", 2.into()),
        ("links", 2.into()),
        ("left_out", 0.into()),
        ("size", ((5 << 20) + 3 + 8).into()),
    ] {
        assert_eq!(result[key], value, "{key}");
    }
    let asked = script.trees.fetched.lock().unwrap()[0].clone();
    assert_eq!(
        (asked.object, asked.peers, asked.stall_timeout_ms),
        (directory(), vec!["p".to_owned()], 2000)
    );
    assert!(asked.pin && asked.accept_zeros);
}

#[tokio::test]
async fn modes_are_those_of_new_files() {
    for (umask, directory_mode, file_mode, program_mode) in
        [("022", 0o755, 0o644, 0o755), ("077", 0o700, 0o600, 0o700)]
    {
        let (folder, _) = with(honest("tree", &sample()));
        let script = format!("umask {umask}; exec \"$0\" fetch dir:{ID}");
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_casctl")).current_dir(folder.path());
        shell.env("CASD_SOCKET", folder.path().join("casd.sock")).stdin(Stdio::null());
        assert!(timeout(BOUND, shell.output()).await.unwrap().unwrap().status.success());
        let mode = |path: &str| folder.path().join(path).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (mode("tree"), mode("tree/sub"), mode("tree/sub/empty")),
            (directory_mode, directory_mode, directory_mode)
        );
        assert_eq!(
            (mode("tree/-rf"), mode("tree/sub/long"), mode("tree/sub/run")),
            (file_mode, file_mode, program_mode)
        );
    }
}

/// B35: links are left out unless they are wanted, and those that could lead out even then.
#[tokio::test]
async fn links_are_restored_only_when_they_are_wanted_and_stay_inside() {
    let (folder, _) = with(honest("tree", &sample()));
    let (code, stdout, stderr) = words(&run(folder.path(), &["fetch", &directory()]).await);
    assert_eq!((code, stdout.starts_with("tree: 5.0 MiB in 0.2 s")), (0, true), "{stdout}");
    assert_eq!(stderr, "tree: 2 symbolic links left out; --symlinks restores those that stay inside\n");
    let mut without = expected();
    without.retain(|_, node| !matches!(node, Node::Link(_)));
    assert_eq!(on_disk(&folder.path().join("tree")), without);

    let hostile = [
        ("a", "/etc/passwd"),
        ("b", ".."),
        ("c", "../x"),
        ("d", "sub/../../x"),
        ("e", "sub//x"),
        ("f", "sub/"),
        ("g", "/"),
        ("h\u{202e}", "\u{1b}[2J/.."),
    ];
    let mut all = sample();
    all.extend(hostile.map(|(name, target)| link(name, target)));
    let (folder, _) = with(honest("tree", &all));
    let (code, stdout, stderr) =
        words(&run(folder.path(), &["--json", "fetch", &directory(), "--symlinks"]).await);
    let (result, error): (Value, Value) =
        (serde_json::from_str(&stdout).unwrap(), serde_json::from_str(&stderr).unwrap());
    assert_eq!((code, &result["left_out"], &result["links"]), (1, &8.into(), &2.into()));
    assert_eq!(error["reason"], "LINKS_LEFT_OUT");
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .ends_with("a -> /etc/passwd, b -> .., c -> ../x, d -> sub/../../x, e -> sub//x, and 3 more"),
        "{error}"
    );
    assert_eq!(on_disk(&folder.path().join("tree")), expected());
}

#[tokio::test]
async fn nothing_is_replaced_unless_forced_and_nothing_outside_is_touched() {
    // What may be in the way: a directory with links out of it, a file, a link to a directory.
    type Make = fn(&Path, &Path);
    let ways: [Make; 4] = [
        |way, outside| {
            fs::create_dir_all(way.join("a/b/c")).unwrap();
            fs::write(way.join("a/file"), "old").unwrap();
            symlink(outside, way.join("a/b/out")).unwrap();
            symlink(outside.join("kept"), way.join("-rf")).unwrap();
        },
        |way, _| fs::write(way, "old").unwrap(),
        |way, outside| symlink(outside, way).unwrap(),
        // Deeper than one name may lead.
        |way, _| {
            fs::create_dir_all(way.join("d/".repeat(300))).unwrap();
            fs::rename(way.join("d"), way.join("e")).unwrap();
            fs::create_dir_all(way.join("d/".repeat(300))).unwrap();
        },
    ];
    for make in ways {
        let (folder, script) = with(honest("tree", &sample()));
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let way = folder.path().join("way");
        make(&way, &outside);
        let before = everything(folder.path());
        let fetch = ["fetch", &directory(), "-o", "way"];
        let (code, _, stderr) = words(&run(folder.path(), &fetch).await);
        assert!(code == 1 && stderr.contains("way exists"), "{stderr}");
        assert!(script.trees.fetched.lock().unwrap().is_empty(), "nothing is fetched in vain");
        assert_eq!(everything(folder.path()), before);

        let outside_before = everything(&outside);
        let (code, _, stderr) =
            words(&run(folder.path(), &[&fetch[..], &["--force", "--symlinks"]].concat()).await);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(on_disk(&way), expected());
        assert_eq!(everything(&outside), outside_before);
        assert_eq!(files(folder.path()), ["outside", "way"]);
    }
    // A device, a FIFO or a socket is not replaced, whatever is said.
    let (folder, _) = with(honest("tree", &sample()));
    let (code, _, stderr) =
        words(&run(folder.path(), &["fetch", &directory(), "-o", "casd.sock", "--force"]).await);
    assert!(code == 1 && stderr.contains("it is not replaced"), "{stderr}");
}

/// In a mount namespace of its own, as its root: another file system, and another part of the same one.
#[tokio::test]
async fn a_directory_in_which_something_is_mounted_is_not_replaced() {
    for mount in ["mount --bind outside way/a/in", "mount -t tmpfs none way/a/in && echo kept >way/a/in/kept"]
    {
        let (folder, _) = with(honest("tree", &sample()));
        for made in ["way/a/in", "outside"] {
            fs::create_dir_all(folder.path().join(made)).unwrap();
        }
        fs::write(folder.path().join("outside/kept"), "kept").unwrap();
        fs::write(folder.path().join("way/old"), "old").unwrap();
        let script =
            format!("{mount} && {{ \"$@\"; code=$?; }} && cat way/a/in/kept way/old >&2; exit $code");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_casctl"));
        command.args(["fetch", &directory(), "-o", "way", "--force"]);
        command.current_dir(folder.path()).env("CASD_SOCKET", folder.path().join("casd.sock"));
        let output = timeout(BOUND, command.output()).await.expect("it ends").unwrap();
        let (code, _, stderr) = words(&output);
        if stderr.starts_with("unshare:") || stderr.starts_with("mount:") {
            assert!(std::env::var_os("CI").is_none(), "{stderr}");
            eprintln!("skipped, as nothing can be mounted here: {stderr}");
            return;
        }
        assert!(code == 1 && stderr.contains("way is not replaced: way/a/in is a mount point"), "{stderr}");
        assert!(stderr.contains("unmount it first"), "{stderr}");
        assert!(stderr.replace('\n', "").ends_with("keptold"), "{stderr}");
        assert_eq!(fs::read(folder.path().join("outside/kept")).unwrap(), b"kept");
        assert_eq!(files(folder.path()), ["outside", "way"]);
    }
}

#[tokio::test]
async fn it_is_called_as_the_caller_says_or_as_it_is_known() {
    for (source, output, known, name) in [
        (directory(), Some("out/"), "known", "out"),
        (directory(), Some("sub/out"), "known", "sub/out"),
        (directory(), None, "known", "known"),
        (directory(), None, "", ID),
        (format!("casd:{},name=linked", directory()), None, "known", "linked"),
        (format!("casd:{},name=..%2F..,peer=a%40b:1", directory()), None, "/abs/known", "known"),
        (format!("{ID}/some/.path"), None, "known", "_path"),
    ] {
        let (folder, script) = with(honest(known, &sample()));
        fs::create_dir(folder.path().join("sub")).unwrap();
        let mut args = vec!["-q", "fetch", &source];
        args.extend(output.map(|path| ["-o", path]).into_iter().flatten());
        let (code, stdout, stderr) = words(&run(folder.path(), &args).await);
        assert_eq!((code, stdout, stderr.as_str()), (0, format!("{name}\n"), ""), "{source}");
        assert!(folder.path().join(name).is_dir(), "{source}");
        let asked = script.trees.fetched.lock().unwrap()[0].clone();
        assert!(asked.object.starts_with(&directory()), "{}", asked.object);
    }
}

/// A fetch in which a path names a file.
fn of_file(name: &str, size: u64, all: &[TreePart]) -> Vec<Event> {
    let kind = ObjectKind::File.into();
    let file = TreeStarted { id: ID.into(), kind, name: name.into(), size, entries: 0 };
    vec![Ok(FetchTreeResponse { started: Some(file), ..Default::default() }), parts(all), finished(size)]
}

#[tokio::test]
async fn a_file_in_a_directory_is_written_as_any_file() {
    let source = format!("dir:{ID}/sub/the file");
    let pieces = [begin("the file", Some(9)), bytes(b"abc"), zeros(3), bytes(b"ghi"), end(9)];
    let (folder, _) = with(of_file("the file", 9, &pieces));
    let (code, stdout, stderr) = words(&run(folder.path(), &["--json", "fetch", &source, "--sync"]).await);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&result["id"], &result["path"]), (&Value::from(ID), &Value::from("the file")));
    assert_eq!(on_disk(folder.path())["the file"], Node::File(b"abc\0\0\0ghi".to_vec(), false));

    // One in a whole, which may be executed, over one that is there.
    let (folder, _) = with(of_file("run", 2, &[program("run", b"#!")]));
    fs::write(folder.path().join("out"), "old").unwrap();
    let (code, _, _) = words(&run(folder.path(), &["fetch", &source, "-o", "out", "--force"]).await);
    assert_eq!((code, &on_disk(folder.path())["out"]), (0, &Node::File(b"#!".to_vec(), true)));

    // Not over a directory, and not as one.
    for (output, word, expected) in [("sub", "is a directory", 1), ("new/", "it is a file", 2)] {
        let (folder, _) = with(of_file("run", 2, &[program("run", b"#!")]));
        fs::create_dir(folder.path().join("sub")).unwrap();
        let (code, _, stderr) =
            words(&run(folder.path(), &["fetch", &source, "-o", output, "--force"]).await);
        assert!(code == expected && stderr.contains(word), "{code} {stderr}");
        assert_eq!(files(folder.path()), ["sub"]);
    }

    // To standard output, without zeros that are told by their number.
    let (folder, script) = with(of_file("x", 6, &[begin("x", None), bytes(b"abc"), bytes(b"def"), end(6)]));
    let (code, stdout, stderr) = words(&run(folder.path(), &["--json", "fetch", &source, "-o", "-"]).await);
    assert_eq!((code, stdout.as_str()), (0, "abcdef"));
    assert_eq!(serde_json::from_str::<Value>(&stderr).unwrap()["size"], 6);
    assert!(!script.trees.fetched.lock().unwrap()[0].accept_zeros);
    let (folder, _) = with(honest("tree", &sample()));
    let (code, stdout, stderr) = words(&run(folder.path(), &["fetch", &source, "-o", "-"]).await);
    assert!(code == 2 && stdout.is_empty() && stderr.contains("standard output"), "{stderr}");
}

#[tokio::test]
async fn there_must_be_room_before_anything_is_made() {
    for (size, entries) in [(u64::MAX, 1), (1 << 60, 1), (0, u64::MAX)] {
        let (folder, _) = with(vec![started("tree", size, entries), parts(&[file("a", b"")])]);
        let stat = rustix::fs::statvfs(folder.path()).unwrap();
        if size == 0 && stat.f_files == 0 {
            eprintln!("skipped: this file system does not say how many files it can hold");
            assert!(std::env::var_os("CI").is_none());
            continue;
        }
        let before = fs::metadata(folder.path()).unwrap();
        let (code, _, stderr) = words(&run(folder.path(), &["fetch", &directory()]).await);
        assert!(code == 6 && stderr.starts_with("casctl: tree: "), "{code} {stderr}");
        assert!(stderr.contains("to be restored"), "{stderr}");
        let after = fs::metadata(folder.path()).unwrap();
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    }
}

#[tokio::test]
async fn a_fetch_that_fails_midway_leaves_nothing() {
    for (events, expected, word) in [
        (
            vec![started("tree", 9, 3), parts(&[file("a", b"x"), enter("b")]), Err(Reason::Stalled)],
            7,
            "no more",
        ),
        (vec![started("tree", 9, 3), parts(&[file("a", b"x")])], 1, "early"),
        (vec![started("tree", 9, 3), parts(&[file("a", b"x")]), finished(1)], 1, "another number"),
        (vec![started("tree", 9, 3), parts(&[file("a", b"x")]), finished(9)], 1, "less than it says"),
        (vec![parts(&[file("a", b"x")])], 1, "does not say"),
        (vec![], 1, "early"),
        (vec![Err(Reason::NoSuchPath)], 4, "no more"),
        (vec![Err(Reason::BadTree)], 1, "no more"),
    ] {
        let (folder, _) = with(events);
        let (code, stdout, stderr) = words(&run(folder.path(), &["fetch", &directory(), "-o", "out"]).await);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{stderr}");
        assert!(stderr.contains(word) && stderr.lines().count() <= 2, "{word}: {stderr}");
        assert!(files(folder.path()).is_empty(), "{word}");
    }
}

#[tokio::test]
async fn signals_remove_what_is_half_restored() {
    use rustix::process::{Pid, Signal, kill_process};
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let folder = folder();
        let mut all = vec![enter("a"), enter("b"), file("last", b"x"), begin("long", None)];
        all.extend((0..20).map(|_| bytes(&vec![1; 1 << 20])));
        let mut events = honest("tree", &all);
        events.pop();
        let trees = trees::Script { fetch: events.into(), ..trees::Script::default() };
        daemon::start(folder.path(), Script { trees, hang: true, ..Script::default() });
        let child = casctl(folder.path(), &["fetch", &directory()]).spawn().unwrap();
        let begun = async {
            while !on_disk(folder.path()).keys().any(|path| path.ends_with("a/b/last")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(BOUND, begun).await.expect("the fetch begins");
        assert!(files(folder.path())[0].contains(".casd-"));
        let mode = folder.path().join(&files(folder.path())[0]).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "nobody else may look");
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let output = timeout(BOUND, child.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(expected));
        assert!(files(folder.path()).is_empty());
    }
}

#[tokio::test]
async fn a_directory_that_is_fetched_as_a_file_says_how() {
    let folder = folder();
    let fetch = vec![Err(Reason::IsDirectory)].into();
    daemon::start(folder.path(), Script { fetch, ..Script::default() });
    let (code, _, stderr) = words(&run(folder.path(), &["fetch", ID]).await);
    assert!(code == 2 && stderr.contains(&format!("fetch dir:{ID}")), "{stderr}");
    assert!(files(folder.path()).is_empty());
}
