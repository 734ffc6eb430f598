//! Bad input at the command line: a clear error of one or two lines, the right code, and nothing changed.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Run;
use casd_tests::programs::program;
use casd_tests::wait::{self, LONG};
use casd_tests::{Ctl, Home};
use rustix::process::Signal;

const ID: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

#[test]
fn ids_of_the_wrong_length_case_or_alphabet() {
    // No daemon: bad usage is found before one is looked for.
    let folder = tempfile::tempdir().unwrap();
    let ctl = Ctl::new(&folder.path().join("none.sock"));
    let upper = ID.to_uppercase();
    let wrong = [
        &ID[..63],
        &format!("{ID}0"),
        &upper,
        &ID.replace('a', "g"),
        "",
        "casd:",
        "casd:xyz,name=a",
        &format!(" {ID}"),
    ];
    for verb in ["fetch", "providers"] {
        for id in wrong {
            let done = ctl.run(&[verb, id]).in_folder(folder.path()).done();
            assert_eq!(done.status.code(), Some(2), "{verb} {id:?}: {}", done.stderr);
            assert!(done.stdout.is_empty() && !done.stderr.is_empty());
        }
    }
    // What is repeated of it cannot drive a terminal.
    let done = ctl.run(&["fetch", "casd:zz\u{1b}]0;x\u{7}"]).in_folder(folder.path()).done().code(2);
    assert!(!done.stderr.contains(['\u{1b}', '\u{7}']), "{:?}", done.stderr);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn no_daemon_is_3_and_says_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let ctl = Ctl::new(&socket);
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let path = socket.display().to_string();
    for args in
        [vec!["status"], vec!["ls"], vec!["cat", ID], vec!["fetch", ID], vec!["add", file.to_str().unwrap()]]
    {
        ctl.run(&args).in_folder(folder.path()).done().refused(&[3], &path);
    }
    // A socket that nobody listens to is no daemon either.
    drop(UnixListener::bind(&socket).unwrap());
    ctl.run(&["status"]).done().refused(&[3], &path);
    let done = ctl.run(&["--json", "status"]).done().code(3);
    let error: serde_json::Value = serde_json::from_str(&done.stderr).unwrap();
    for key in ["error", "code", "reason", "retryable", "hint"] {
        assert!(!error[key].is_null(), "{key} is missing: {error}");
    }
}

#[test]
fn what_cannot_be_added_is_named() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let add = |path: &Path| ctl.run(&["add"]).arg(path).done();
    add(&home.path("missing")).refused(&[1], "missing");
    let folder = home.path("folder");
    std::fs::create_dir(&folder).unwrap();
    add(&folder).refused(&[1, 2], "folder");
    let fifo = home.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    add(&fifo).refused(&[1], "fifo");
    add(Path::new("/dev/zero")).refused(&[1], "/dev/zero");
    add(&home.socket()).refused(&[1], "casd.sock");
    let dangling = home.path("dangling");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    add(&dangling).refused(&[1], "dangling");
    let secret = home.path("secret");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&secret).is_err() {
        add(&secret).refused(&[1], "secret");
    } else {
        // Root reads everything, unless it gives that up.
        let run =
            Run::new("setpriv").arg("--bounding-set=-dac_override,-dac_read_search").arg(program("casctl"));
        run.arg("--socket").arg(ctl.socket()).arg("add").arg(&secret).done().refused(&[1], "secret");
    }
    for parity in ["16", "0+4", "16+0", "129+1", "1+65", "128+65", "none+1", "-1+2"] {
        let done = ctl.run(&["add", "--parity", parity, "-"]).input(b"x").done();
        assert!([1, 2].contains(&done.status.code().unwrap_or(-1)), "{parity}: {}", done.stderr);
    }
    assert!(ctl.json(&["ls"]).is_empty(), "nothing was stored");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let home = Home::new();
    let daemon = home.start();
    let path = home.path("growing");
    corpus::sparse(&path, 4096 * MIB, &[(0, b"x")]);
    let running = daemon.ctl().run(&["add"]).arg(&path).within(5 * LONG).start();
    // Stopped in the middle of it, so that the change falls there on any machine.
    let io = format!("/proc/{}/io", running.pid());
    wait::until("casctl to have read some of it", LONG, || {
        let io = std::fs::read_to_string(&io).ok()?;
        let read: u64 = io.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()?;
        (read > 16 * MIB).then_some(())
    });
    running.signal(Signal::STOP);
    std::fs::File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    running.signal(Signal::CONT);
    running.done().refused(&[1], "changed");
    assert!(daemon.ctl().json(&["ls"]).is_empty(), "nothing was stored");
}

#[test]
fn an_interrupted_add_stores_nothing() {
    let home = Home::new();
    let daemon = home.start();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        // Standard input stays open: the stream is never finished.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let running = daemon.ctl().run(&["add", "-"]).stdin(reader).start();
        writer.write_all(&corpus::bytes(u64::try_from(code).unwrap(), 3 << 20)).unwrap();
        running.signal(signal);
        let done = running.done();
        assert_eq!(done.status.code(), Some(code), "{}", done.stderr);
        assert!(done.stdout.is_empty());
    }
    assert!(daemon.ctl().json(&["ls"]).is_empty());
}

#[test]
fn an_existing_target_is_not_overwritten() {
    let home = Home::new();
    let daemon = home.start();
    let ctl = daemon.ctl();
    let id = ctl.add_bytes(b"new contents");
    let target = home.path("target");
    std::fs::write(&target, "precious").unwrap();
    ctl.run(&["fetch", &id, "-o"]).arg(&target).done().refused(&[1], "target");
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    ctl.run(&["fetch", &id, "--force", "-o"]).arg(&target).done().ok();
    assert_eq!(std::fs::read(&target).unwrap(), b"new contents");
    let nowhere = home.path("no/such/folder/target");
    ctl.run(&["fetch", &id, "-o"]).arg(&nowhere).done().refused(&[1], "no/such/folder");
    assert_eq!(ctl.run(&["fetch", &id, "-o", "-"]).done().ok().stdout, b"new contents");
}

#[test]
fn what_nobody_has_is_not_found_and_a_lonely_node_says_why() {
    let home = Home::new();
    let daemon = home.start();
    let missing = "0123456789abcdef".repeat(4);
    for verb in ["stat", "rm", "pin", "link"] {
        daemon.ctl().run(&[verb, &missing]).done().refused(&[4], &missing[..8]);
    }
    // A node that knows no peers says so, with the cure.
    let run = daemon.ctl().run(&["fetch", &missing, "--stall", "5s"]).in_folder(&home.path("."));
    let done = run.done().code(4);
    assert!(done.stderr.contains("peer"), "{}", done.stderr);
    assert!(!home.path(&missing).exists());
}
