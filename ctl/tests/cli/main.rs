//! casctl as a process, against a daemon that does as a test tells it.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's own daemon"
)]

mod adding;
mod daemon;
mod hostile;
mod restoring;
mod trees;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use casd_proto::Reason;
use daemon::{ID, Script, data, finished, started, zeros};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// More than any of these can take, so that a hang ends.
const BOUND: Duration = Duration::from_secs(60);

fn casctl(folder: &Path, words: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casctl"));
    command.args(words).current_dir(folder).env_clear().env("CASD_SOCKET", folder.join("casd.sock"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(folder: &Path, words: &[impl AsRef<OsStr>]) -> Output {
    timeout(BOUND, casctl(folder, words).output()).await.expect("casctl ends").unwrap()
}

fn words(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A folder with a daemon in it, and what else is in the folder.
fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "casd.sock").collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_and_standard_input_are_added_whole() {
    let folder = folder();
    let (_, script) = daemon::start(folder.path(), Script::default());
    let big = vec![5; (3 << 20) + 7];
    std::fs::write(folder.path().join("big"), &big).unwrap();
    std::fs::write(folder.path().join("empty"), "").unwrap();
    let mut child =
        casctl(folder.path(), &["add", "big", "none", "-", "empty"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe").await.unwrap();
    let output = timeout(BOUND, child.wait_with_output()).await.unwrap().unwrap();
    let (code, stdout, stderr) = words(&output);
    assert_eq!(stdout, format!("{ID}  big\n{ID}  -\n{ID}  empty\n"));
    assert_eq!((code, stderr.as_str()), (1, "casctl: none: no such file or directory\n"));
    let mut added = script.added.lock().unwrap().clone();
    added.sort();
    let expected = [("", 11, true), ("big", big.len(), true), ("empty", 0, true)];
    assert_eq!(added, expected.map(|(name, length, whole)| (name.to_owned(), length, whole)));
}

#[tokio::test]
async fn an_add_that_is_refused_early_tells_why() {
    let folder = folder();
    daemon::start(folder.path(), Script { refuse_add: Some(Reason::Quota), ..Script::default() });
    std::fs::write(folder.path().join("big"), vec![5; 64 << 20]).unwrap();
    let (code, stdout, stderr) = words(&run(folder.path(), &["--json", "add", "big"]).await);
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, stdout.as_str(), &error["reason"]), (6, "", &Value::from("QUOTA")), "{stderr}");
}

#[tokio::test]
async fn a_fetch_writes_each_piece_at_its_place() {
    let folder = folder();
    let events = vec![started(9, ".na\u{1b}me"), data(6, b"ghi"), zeros(3, 3), data(0, b"abc"), finished(9)];
    let (_, script) = daemon::start(folder.path(), Script { fetch: events.into(), ..Script::default() });
    let link = format!("casd:{ID},peer=a%40b:1");
    let output =
        run(folder.path(), &["--json", "fetch", &link, "--peer", "c", "--stall", "500ms", "--sync"]).await;
    let (code, stdout, stderr) = words(&output);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&result["path"], &result["peers"]["12D3Koo"]), (&Value::from("_na_me"), &Value::from(9)));
    assert_eq!(std::fs::read(folder.path().join("_na_me")).unwrap(), b"abc\0\0\0ghi");
    assert_eq!(files(folder.path()), ["_na_me"]);
    let asked = script.fetched.lock().unwrap()[0].clone();
    assert_eq!((asked.peers, asked.stall_timeout_ms), (vec!["c".to_owned(), "a@b:1".to_owned()], 500));
}

#[tokio::test]
async fn a_fetch_that_fails_leaves_nothing() {
    for (events, expected, word) in [
        (vec![started(9, "n"), data(0, b"abc"), Err(Reason::Stalled)], 7, "chunks 3 and 5"),
        (vec![started(9, "n"), data(0, b"abc")], 1, "early"),
        (vec![started(9, "n"), data(0, b"abc"), finished(9)], 1, "another number"),
        (vec![started(2, "n"), data(0, b"abc"), finished(3)], 1, "do not belong"),
        (vec![data(0, b"abc"), started(3, "n"), finished(3)], 1, "do not belong"),
        (vec![started(u64::MAX, "n")], 1, ""),
    ] {
        let folder = folder();
        daemon::start(folder.path(), Script { fetch: events.into(), ..Script::default() });
        let (code, stdout, stderr) = words(&run(folder.path(), &["fetch", ID, "-o", "out"]).await);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{stderr}");
        assert!(stderr.contains(word) && stderr.lines().count() <= 2, "{stderr}");
        assert!(files(folder.path()).is_empty(), "{word}");
    }
}

#[tokio::test]
async fn nothing_is_fetched_in_vain() {
    let folder = folder();
    let (_, script) = daemon::start(folder.path(), Script::default());
    std::fs::write(folder.path().join("out"), "mine").unwrap();
    for (words_, expected) in [
        (&["fetch", ID, "-o", "out"][..], 1),
        (&["fetch", ID, "-o", "none/out"], 1),
        (&["fetch", ID, "-o", "."], 2),
        (&["fetch", &ID[1..]], 2),
        (&["fetch", &ID.to_uppercase()], 2),
        (&["fetch", ID, "--wait", "--stall", "1s"], 2),
        (&["fetch", ID, "--detach", "-o", "new"], 2),
        (&["fetch", ID, "--priority", "high"], 2),
        (&["fetch", &format!("dir:{ID}/x"), "--detach"], 2),
        (&["jobs", "--priority", "high"], 2),
        (&["jobs", "--cancel", "0"], 2),
        (&["add", "--each", "out"], 2),
        (&["add", "."], 2),
        (&["fetch", &format!("dir:{ID}"), "-o", "-"], 2),
        (&["fetch", &format!("dir:{ID}/../x")], 2),
        (&["fetch", &format!("dir:{ID}"), "-o", "out"], 1),
        (&["fetch", &format!("dir:{ID}"), "-o", "none/out"], 1),
        (&["ls", &format!("dir:{ID}0")], 2),
        (&["fetch", "tree"], 2),
        (&["fetsh", ID], 2),
    ] {
        let (code, _, stderr) = words(&run(folder.path(), words_).await);
        assert_eq!(code, expected, "{words_:?}: {stderr}");
    }
    assert!(script.fetched.lock().unwrap().is_empty());
    assert!(script.trees.fetched.lock().unwrap().is_empty());
    assert_eq!(files(folder.path()), ["out"]);
}

/// Starts a fetch that never ends, and waits until its first bytes are in a temporary file.
async fn endless_fetch(folder: &Path) -> Child {
    let events = vec![started(9, "n"), data(0, b"abc")];
    daemon::start(folder, Script { fetch: events.into(), hang: true, ..Script::default() });
    let child = casctl(folder, &["fetch", ID]).spawn().unwrap();
    let begun = async {
        while !files(folder)
            .iter()
            .any(|name| std::fs::read(folder.join(name)).is_ok_and(|b| b.starts_with(b"abc")))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, begun).await.expect("the fetch begins");
    child
}

#[tokio::test]
async fn signals_end_it_cleanly() {
    use rustix::process::{Pid, Signal, kill_process};
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let folder = folder();
        let child = endless_fetch(folder.path()).await;
        assert!(files(folder.path())[0].contains(".casd-"));
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let output = timeout(BOUND, child.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(expected));
        assert!(files(folder.path()).is_empty());
    }
}

#[tokio::test]
async fn what_a_killed_fetch_has_left_is_named_by_the_next() {
    let folder = folder();
    let mut child = endless_fetch(folder.path()).await;
    let left = files(folder.path());
    child.kill().await.unwrap();
    assert_eq!(files(folder.path()), left);
    std::fs::remove_file(folder.path().join("casd.sock")).unwrap();
    let events = vec![started(3, ""), data(0, b"abc"), finished(3)];
    daemon::start(folder.path(), Script { fetch: events.into(), ..Script::default() });
    let (code, _, stderr) = words(&run(folder.path(), &["fetch", ID]).await);
    assert_eq!(
        (code, stderr),
        (0, format!("{} is left of a fetch that was killed; it can be removed\n", left[0]))
    );
    assert_eq!(files(folder.path()), [left[0].as_str(), ID]);
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    daemon::start(folder.path(), Script::default());
    let mut child = casctl(folder.path(), &["cat", "x"]).spawn().unwrap();
    let mut some = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut some).await.unwrap();
    assert_eq!(some, [7; 1000]);
    let output = timeout(BOUND, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[tokio::test]
async fn standard_output_carries_only_the_bytes() {
    let folder = folder();
    let events = vec![started(6, "n"), data(0, b"abc"), data(3, b"def"), finished(6)];
    let (_, script) = daemon::start(folder.path(), Script { fetch: events.into(), ..Script::default() });
    let (code, stdout, stderr) = words(&run(folder.path(), &["--json", "fetch", ID, "-o", "-"]).await);
    assert_eq!((code, stdout.as_str()), (0, "abcdef"));
    assert_eq!(serde_json::from_str::<Value>(&stderr).unwrap()["size"], 6);
    assert!(script.fetched.lock().unwrap()[0].in_order);
}

#[tokio::test]
async fn the_highest_code_wins_and_names_are_safe() {
    let folder = folder();
    daemon::start(folder.path(), Script::default());
    let (code, stdout, stderr) =
        words(&run(folder.path(), &["-q", "rm", "a", "damaged", "unknown", "b"]).await);
    assert_eq!((code, stdout.as_str()), (8, "a\nb\n"));
    let expected = "casctl: damaged: chunk 3 is damaged\ncasctl: unknown: nothing here is called so\n";
    assert_eq!(stderr, expected);
    let (code, stdout, _) = words(&run(folder.path(), &["ls"]).await);
    assert!(code == 0 && stdout.contains("x\\u{1b}[2J"), "{stdout}");
    let (code, _, stderr) = words(&run(folder.path(), &["stat", "x"]).await);
    assert!(code == 1 && stderr.contains("does not know this call"), "{stderr}");
}

#[tokio::test]
async fn no_daemon_says_what_was_tried() {
    let folder = folder();
    let (code, _, stderr) = words(&run(folder.path(), &["fetch", &format!("dir:{ID}/x"), "--detach"]).await);
    assert!(code == 2 && stderr.contains("later version"), "{stderr}");
    let (code, _, stderr) = words(&run(folder.path(), &["--json", "status"]).await);
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, &error["reason"]), (3, &Value::from("NO_DAEMON")));
    assert!(error["error"].as_str().unwrap().contains("casd.sock (nothing there)"));
    let (code, _, stderr) = words(&run(folder.path(), &["--json", "status", "--what"]).await);
    assert_eq!(
        (code, &serde_json::from_str::<Value>(&stderr).unwrap()["reason"]),
        (2, &Value::from("USAGE"))
    );
}
