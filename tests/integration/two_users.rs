//! Two users of one daemon: each removes what is its own, and only an administrator what is others'.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use casd_tests::ctl::Run;
use casd_tests::programs::program;
use casd_tests::{Daemon, Home, skip};

/// What casctl ends with when it is refused.
const REFUSED: i32 = 5;

/// A user that is not root, by id.
const OTHER: u32 = 65_534;

/// casctl as another user sees it: in a folder that everyone may enter, as the one that it was built in may not be.
struct Other {
    casctl: PathBuf,
    socket: PathBuf,
}

impl Other {
    fn of(home: &Home, daemon: &Daemon) -> Self {
        let casctl = home.path("casctl");
        std::fs::copy(program("casctl"), &casctl).unwrap();
        let open =
            |path: PathBuf, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        open(home.path(""), 0o711);
        open(casctl.clone(), 0o755);
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
