//! Ending a busy daemon, gently and not, and what is there afterwards.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use casd_tests::corpus::{self, MIB};
use casd_tests::wait::{self, LONG};
use casd_tests::{Daemon, Home};
use rustix::process::Signal;

/// What people wait for `systemctl stop` without wondering; the issue's own figure.
const STOP: Duration = Duration::from_secs(5);

/// Objects that must be acknowledged before the daemon is ended: it is then in the middle of others.
const ENOUGH: usize = 12;

/// Keeps a daemon busy with adds and reads until it ends, and gives what it acknowledged: ids and their seeds.
/// `end` is called once enough has been acknowledged, while the work goes on.
fn busy(daemon: Daemon, end: impl FnOnce(Daemon)) -> BTreeMap<String, u64> {
    let acknowledged = Mutex::new(BTreeMap::new());
    let over = AtomicBool::new(false);
    let ctl = daemon.ctl().clone();
    std::thread::scope(|scope| {
        for worker in 0..3u64 {
            let (ctl, acknowledged, over) = (&ctl, &acknowledged, &over);
            scope.spawn(move || {
                for round in 0.. {
                    let seed = worker * 1_000_000 + round;
                    let bytes = corpus::bytes(seed, length(seed));
                    let done = ctl.run(&["-q", "add", "-"]).input(&bytes).done();
                    if done.status.success() {
                        let id = done.text();
                        assert_eq!(id, corpus::id(&bytes));
                        acknowledged.lock().unwrap().insert(id.clone(), seed);
                        let _ = ctl.run(&["cat", &id]).done();
                    } else if over.load(Ordering::SeqCst) {
                        return;
                    } else {
                        // Whether it says so before it ends depends on the moment; that it ends does not.
                        assert!([1, 3, 7].contains(&done.status.code().unwrap_or(-1)), "{}", done.stderr);
                        wait::until("the end that made an add fail", LONG, || {
                            over.load(Ordering::SeqCst).then_some(())
                        });
                        return;
                    }
                }
            });
        }
        wait::until("enough to be acknowledged", 5 * LONG, || {
            (acknowledged.lock().unwrap().len() >= ENOUGH).then_some(())
        });
        end(daemon);
        over.store(true, Ordering::SeqCst);
    });
    acknowledged.into_inner().unwrap()
}

/// From nothing much to a few chunks.
fn length(seed: u64) -> usize {
    usize::try_from(seed % 7 * 700_000 + seed % 1000 + 1).unwrap()
}

#[track_caller]
fn serves_all(daemon: &Daemon, acknowledged: &BTreeMap<String, u64>) {
    for (id, seed) in acknowledged {
        assert!(daemon.ctl().cat(id) == corpus::bytes(*seed, length(*seed)), "object {id} of seed {seed}");
    }
}

#[test]
fn sigterm_ends_a_busy_daemon_in_time_and_loses_nothing() {
    let home = Home::new();
    let acknowledged = busy(home.start(), |daemon| {
        assert_eq!(daemon.stop(STOP).code(), Some(0));
    });
    assert!(!home.socket().exists(), "whoever connects learns at once that nobody is there");
    let daemon = home.start();
    serves_all(&daemon, &acknowledged);
    // What was cut off is not listed: only whole objects are.
    assert!(daemon.ctl().json(&["ls"]).len() >= acknowledged.len());
    assert_eq!(daemon.stop(STOP).code(), Some(0));
}

#[test]
fn sigkill_loses_nothing_that_was_acknowledged() {
    let home = Home::new();
    let mut acknowledged = BTreeMap::new();
    for _ in 0..2 {
        let daemon = home.start();
        serves_all(&daemon, &acknowledged);
        acknowledged.append(&mut busy(daemon, Daemon::kill));
    }
    serves_all(&home.start(), &acknowledged);
}

#[test]
fn a_caller_that_never_finishes_does_not_hold_up_the_end() {
    let home = Home::new();
    let daemon = home.start();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let caller = daemon.ctl().run(&["add", "-"]).stdin(reader).start();
    std::io::Write::write_all(&mut writer, &corpus::bytes(1, 2 << 20)).unwrap();
    wait::until("some of it to arrive", LONG, || {
        (corpus::disk_usage(&home.state()).ok()? > MIB).then_some(())
    });
    assert_eq!(daemon.stop(STOP).code(), Some(0));
    drop(writer);
    let done = caller.done();
    assert!(!done.status.success() && done.stdout.is_empty(), "{}", done.stderr);
    assert!(home.start().ctl().json(&["ls"]).is_empty());
}

#[test]
fn the_second_signal_ends_at_once() {
    let home = Home::new();
    let daemon = home.start();
    let id = daemon.ctl().add_bytes(b"kept");
    daemon.signal(Signal::TERM);
    // The first may have been enough by now.
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap(),
        Signal::TERM,
    );
    let code = daemon.ended(STOP).code();
    assert!([Some(0), Some(143)].contains(&code), "{code:?}");
    assert_eq!(home.start().ctl().cat(&id), b"kept");
}
