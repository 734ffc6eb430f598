//! Two users of one daemon: each removes what is its own, and only an administrator what is others'; each reads and
//! writes the files that it may, whatever the daemon may.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use casd_tests::ctl::Run;
use casd_tests::programs;
use casd_tests::wait::{self, LONG};
use casd_tests::{Daemon, Home, skip};

/// What casctl ends with when it is refused.
const REFUSED: i32 = 5;

/// A user that is not root, by id.
const OTHER: u32 = 65_534;

/// A third.
const ROGUE: u32 = 61_234;

/// casctl as another user sees it: in a folder that everyone may enter, as the one that it was built in may not be.
struct Other {
    casctl: PathBuf,
    socket: PathBuf,
}

impl Other {
    fn of(home: &Home, daemon: &Daemon) -> Self {
        let casctl = home.path("casctl");
        programs::copy("casctl", &casctl);
        let open =
            |path: PathBuf, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        open(home.path(""), 0o711);
        open(daemon.ctl().socket().to_owned(), 0o666);
        Self { casctl, socket: daemon.ctl().socket().to_owned() }
    }

    fn run(&self, args: &[&str]) -> Run {
        let run = Run::new(&self.casctl).user(OTHER).arg("--socket").arg(&self.socket);
        args.iter().fold(run, Run::arg)
    }
}

#[test]
fn each_removes_its_own_and_only_an_administrator_what_is_others() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be two users");
    }
    let home = Home::new();
    let daemon = home.start();
    let (root, other) = (daemon.ctl(), Other::of(&home, &daemon));

    // Both want it: the first who does not any more lets go of it only.
    let both = root.add_bytes(b"of both");
    assert_eq!(other.run(&["-q", "add", "-"]).input(b"of both").done().ok().text(), both);
    assert!(other.run(&["rm", &both]).done().ok().text().contains("kept for others"));
    assert_eq!(root.cat(&both), b"of both");
    other.run(&["rm", &both]).done().refused(&[REFUSED], "uid 0");
    other.run(&["rm", "--force", &both]).done().refused(&[REFUSED], "administrator");
    assert_eq!(root.cat(&both), b"of both");

    // The other's alone: not even an administrator removes it in passing.
    let theirs = other.run(&["-q", "add", "-"]).input(b"of the other").done().ok().text();
    root.run(&["rm", &theirs]).done().refused(&[REFUSED], "--force");
    assert_eq!(other.run(&["cat", &theirs]).done().ok().stdout, b"of the other");
    assert!(root.text(&["rm", "--force", &theirs]).contains("removed"));
    other.run(&["stat", &theirs]).done().refused(&[4], "no object");
    assert_eq!(root.cat(&both), b"of both");

    // After another start as well: whose a pin is, is kept.
    drop(daemon);
    let daemon = home.start();
    let other = Other::of(&home, &daemon);
    other.run(&["rm", &both]).done().refused(&[REFUSED], "uid 0");
    assert!(daemon.ctl().text(&["rm", &both]).contains("removed"));
}

#[test]
fn each_has_jobs_of_its_own_and_only_an_administrator_those_of_others() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be two users");
    }
    let home = Home::new();
    let daemon = home.start();
    let (root, other) = (daemon.ctl(), Other::of(&home, &daemon));
    let id = "ab".repeat(32);
    let number = |run: Run| run.done().ok().text();
    assert_eq!(number(root.run(&["-q", "fetch", "--detach", &id])), "1");
    assert_eq!(number(other.run(&["-q", "fetch", "--detach", &id])), "2");
    // Each sees and changes its own.
    assert_eq!(number(other.run(&["-q", "jobs"])), "2");
    other.run(&["jobs", "--cancel", "1"]).done().refused(&[REFUSED], "another user's");
    other.run(&["jobs", "1", "--priority", "high"]).done().refused(&[REFUSED], "another user's");
    other.run(&["jobs", "1"]).done().refused(&[4], "no job 1");
    let explained = other.run(&["--json", "explain", &id]).done().ok().json().pop().unwrap();
    assert_eq!(explained["bringing"].as_array().map(Vec::len), Some(1), "{explained}");
    // An administrator sees all; by the id it means its own first.
    assert_eq!(
        root.json(&["jobs"]).iter().map(|job| job["uid"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(u64::from(OTHER))]
    );
    assert_eq!(root.text(&["-q", "jobs", "--cancel", &id]), "1");
    assert_eq!(root.text(&["-q", "jobs", "--cancel", &id]), "2");
    other.run(&["jobs", "--cancel", &id]).done().refused(&[4], "no job");
}

#[test]
fn limits_are_for_all_to_see_and_for_administrators_to_change() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be two users");
    }
    let home = Home::new();
    let daemon = home.start();
    let other = Other::of(&home, &daemon);
    other.run(&["limits", "upload=1MiB"]).done().refused(&[REFUSED], "administrator");
    let shown = other.run(&["-q", "limits"]).done().ok().text();
    assert!(shown.starts_with("upload=0\n"), "{shown}");
    assert!(daemon.ctl().text(&["-q", "limits", "upload=1MiB"]).starts_with("upload=1048576\n"));
}

/// The daemon is root's here, and could read and write everything.
#[test]
fn files_are_read_and_written_with_the_callers_rights() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be two users");
    }
    let home = Home::new();
    let daemon = home.start();
    let other = Other::of(&home, &daemon);
    let secret = home.path("secret");
    std::fs::write(&secret, b"root's alone").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let key = home.state().join("node.key");
    assert!(key.exists());
    for path in [&secret, &key] {
        let done = other.run(&["add"]).arg(path).done();
        done.refused(&[1], "denied");
    }
    assert!(daemon.ctl().json(&["ls"]).is_empty());

    // A folder and a file that are for the other user alone.
    let own = home.path("own");
    std::fs::create_dir(&own).unwrap();
    let file = own.join("file");
    std::fs::write(&file, b"the other's alone").unwrap();
    for (path, mode) in [(&file, 0o600), (&own, 0o700)] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(path, Some(OTHER), Some(OTHER)).unwrap();
    }
    let id = other.run(&["-q", "add"]).arg(&file).done().ok().text();
    assert_eq!(daemon.ctl().cat(&id), b"the other's alone");

    // Where the other may not write, nothing is written for it, and nothing through a link of its own.
    other.run(&["fetch", &id, "-o"]).arg(home.path("out")).done().refused(&[1], "denied");
    assert!(!home.path("out").exists());
    std::os::unix::fs::symlink(&secret, own.join("link")).unwrap();
    let forced = other.run(&["fetch", &id, "--force", "-o"]).arg(own.join("link")).done();
    assert_eq!(std::fs::read(&secret).unwrap(), b"root's alone", "{}", forced.stderr);
    let back = own.join("back");
    other.run(&["fetch", &id, "-o"]).arg(&back).done().ok();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&back.metadata().unwrap()), OTHER);
}

/// Anybody may put a socket where everybody may put files.
#[test]
fn who_listens_where_it_has_no_business_is_not_spoken_to() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be two users");
    }
    let home = Home::new();
    let daemon = home.start();
    let other = Other::of(&home, &daemon);
    let shared = home.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
    let socket = shared.join("casd.sock");
    let listens = "import socket, sys, time\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\n\
                   import os\nos.chmod(sys.argv[1], 0o666)\ntime.sleep(600)";
    let mut rogue = std::process::Command::new("python3");
    let rogue = rogue.args(["-c", listens]).arg(&socket).uid(ROGUE).gid(ROGUE);
    let mut rogue = Rogue(rogue.spawn().unwrap());
    wait::until("somebody to listen", LONG, || {
        assert!(rogue.0.try_wait().unwrap().is_none(), "it has ended");
        let mode = socket.metadata().ok()?.permissions().mode();
        (mode & 0o777 == 0o666).then_some(())
    });
    let casctl = || Run::new(&other.casctl).arg("--socket").arg(&socket).arg("status");
    casctl().user(OTHER).done().refused(&[REFUSED], &ROGUE.to_string());
    casctl().done().refused(&[REFUSED], &ROGUE.to_string());
    assert_eq!(other.run(&["status"]).done().ok().status.code(), Some(0), "root's daemon is");
}

/// Who listens in another's place; ended when it is dropped.
struct Rogue(std::process::Child);

impl Drop for Rogue {
    fn drop(&mut self) {
        // Both do nothing when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
