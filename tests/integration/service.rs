//! The daemon under a service manager: it is told what it needs to know, and tells what must be known.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use casd_tests::ctl::Run;
use casd_tests::programs::program;
use casd_tests::wait::LONG;
use casd_tests::{Ctl, Home};
use rustix::process::Signal;

/// Hears what the daemon says until something begins with `word`.
#[track_caller]
fn hear(manager: &UnixDatagram, word: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("waiting for {word}: {error}"));
        let said = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if said.lines().any(|line| line.starts_with(word)) {
            return said;
        }
    }
}

#[test]
fn it_says_when_it_is_ready_reloading_and_stopping() {
    let mut home = Home::new();
    let path = home.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LONG)).unwrap();
    home.set("NOTIFY_SOCKET", &path.display().to_string());
    let daemon = home.launch();
    hear(&manager, "READY=1");
    assert!(daemon.is_ready(), "ready means that it answers");

    home.change(|settings| settings.text("transfer.upload", "1MiB"));
    home.config();
    daemon.signal(Signal::HUP);
    assert!(hear(&manager, "RELOADING=1").contains("MONOTONIC_USEC="));
    hear(&manager, "READY=1");

    // A file that is wrong changes nothing and ends nothing.
    std::fs::write(home.path("casd.toml"), "[transfer]\nuplod = 1\n").unwrap();
    daemon.signal(Signal::HUP);
    hear(&manager, "READY=1");
    let line = daemon.logged("uplod");
    assert!(line.contains(":2:1: key `transfer.uplod`"), "{line}");
    assert!(daemon.is_ready());

    daemon.signal(Signal::TERM);
    hear(&manager, "STOPPING=1");
    assert_eq!(daemon.ended(LONG).code(), Some(0));
}

#[test]
fn it_takes_the_socket_that_it_is_handed() {
    let home = Home::new();
    let handed = home.path("handed.sock");
    let listener = UnixListener::bind(&handed).unwrap();
    // Whoever calls before the daemon runs, waits for it.
    let early = Ctl::new(&handed).run(&["-q", "add", "-"]).input(b"early").start();

    let serve = || {
        let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api; exec \"$0\" --config \"$1\"";
        let socket: OwnedFd = listener.try_clone().unwrap().into();
        Run::new("/bin/sh")
            .arg("-c")
            .arg(script)
            .arg(program("casd"))
            .arg(home.config())
            .stdin(socket)
            .start()
    };
    let first = serve();
    let id = early.done().ok().text();
    assert_eq!(id, casd_tests::corpus::id(b"early"));
    assert!(!home.socket().exists(), "it makes no socket of its own");
    first.signal(Signal::TERM);
    first.done().ok();
    assert!(handed.exists(), "the socket is not the daemon's to remove");

    // In between, callers wait as well.
    let between = Ctl::new(&handed).run(&["cat", &id]).within(LONG + Duration::from_secs(1)).start();
    let second = serve();
    assert_eq!(between.done().ok().stdout, b"early");
    second.signal(Signal::TERM);
    second.done().ok();
}

#[test]
fn lines_have_priorities_and_no_colours_under_a_manager() {
    let home = Home::new();
    let script = "export SYSTEMD_EXEC_PID=$$; exec \"$0\" --config \"$1\"";
    let run = Run::new("/bin/sh").arg("-c").arg(script).arg(program("casd")).arg(home.config()).start();
    let ctl = Ctl::new(&home.socket());
    casd_tests::wait::until("the daemon to answer", LONG, || {
        (home.socket().exists() && ctl.run(&["status"]).done().status.success()).then_some(())
    });
    run.signal(Signal::TERM);
    let done = run.done().ok();
    assert!(!done.stderr.is_empty() && !done.stderr.contains('\u{1b}'));
    assert!(
        done.stderr.lines().all(|line| line.starts_with("<6>") || line.starts_with("<4>")),
        "{}",
        done.stderr
    );
    assert!(done.stderr.lines().count() <= 12, "a start and a stop are a few lines: {}", done.stderr);
}
