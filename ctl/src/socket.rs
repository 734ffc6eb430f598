//! Finding the daemon: which socket, who may listen there, and what to say when none answers.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use casd_proto::client;
use tokio::net::UnixStream;
use tonic::transport::Channel;

use crate::error::{Exit, Failure, plain};

/// Where the system's daemon listens.
const SYSTEM: &str = "/run/casd/casd.sock";

/// Connects to the daemon: to `given` only, or else to the first place of [`places`] where one answers. Gives that
/// place as well.
///
/// # Errors
/// When none does, saying what was tried.
pub(crate) async fn connect(given: Option<&Path>) -> Result<(Channel, PathBuf), Failure> {
    // An empty path, as in `CASD_SOCKET= casctl …`, names nothing.
    let places = match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => vec![path.to_owned()],
        None => places(|key| std::env::var_os(key)),
    };
    let mut tried = Vec::new();
    for path in &places {
        is_spoken_to(path).await?;
        match client::connect(path).await {
            Ok(channel) => return Ok((channel, path.clone())),
            // Where nothing is, or nobody listens any more, the next place may do.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                tried.push((path, error));
            }
            Err(error) => return Err(refused(path, &error)),
        }
    }
    Err(nobody(&tried))
}

/// Where a daemon may listen, best first: the user's own daemon, then the system's.
fn places(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |key, below: &str| {
        // As the XDG specification has it, a relative path counts as not set.
        variable(key).map(PathBuf::from).filter(|path| path.is_absolute()).map(|path| path.join(below))
    };
    let own = [
        folder("XDG_RUNTIME_DIR", "casd/casd.sock"),
        folder("XDG_STATE_HOME", "casd/casd.sock"),
        folder("HOME", ".local/state/casd/casd.sock"),
    ];
    let mut places: Vec<PathBuf> = own.into_iter().flatten().collect();
    places.push(PathBuf::from(SYSTEM));
    places
}

/// Refuses to speak to somebody who may have put a socket in the daemon's place: what is added would be theirs, and
/// what is fetched their word. Where everybody may put one, root, the caller, and whom the folder belongs to are
/// spoken to. That nobody is there is for others to say.
async fn is_spoken_to(path: &Path) -> Result<(), Failure> {
    let Ok(listener) = UnixStream::connect(path).await.and_then(|stream| stream.peer_cred()) else {
        return Ok(());
    };
    if may_listen(path, listener.uid()) {
        return Ok(());
    }
    let (shown, uid) = (path.display(), listener.uid());
    let message = format!("{shown}: user {uid} listens there, where anybody may put a socket");
    Err(Failure::local(Exit::NotPermitted, "NOT_PERMITTED", message)
        .hint("have the daemon listen in a folder that not everybody may write to (`api.socket`)"))
}

/// Whether it is the business of this user to listen at `path`, as far as can be told.
pub(crate) fn may_listen(path: &Path, uid: u32) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(folder) = folder.metadata() else { return true };
    let caller = rustix::process::geteuid().as_raw();
    folder.mode() & 0o002 == 0 || [0, caller, folder.uid()].contains(&uid)
}

/// There is a socket, but not for this caller, or it is none.
fn refused(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        let message = format!("{shown}: not permitted to connect to the daemon");
        let way_in = match path.metadata().map(|metadata| metadata.permissions().mode()) {
            Ok(mode) if mode & 0o020 != 0 => {
                "ask to be made a member of the socket's group (`ls -l` shows it)".to_owned()
            }
            Ok(mode) => {
                format!("its mode {:04o} is for its owner alone: run casctl as that user", mode & 0o7777)
            }
            Err(_) => "its folder is not for you: run casctl as the user that casd runs as".to_owned(),
        };
        return Failure::local(Exit::NotPermitted, "NOT_PERMITTED", message)
            .hint(format!("{way_in}, or run a daemon of your own: `casd`"));
    }
    Failure::local(
        Exit::NoDaemon,
        "NO_DAEMON",
        format!("{shown}: cannot connect to a daemon: {}", plain(error)),
    )
}

/// Nobody listens anywhere.
fn nobody(tried: &[(&PathBuf, io::Error)]) -> Failure {
    let list: Vec<String> = tried
        .iter()
        .map(|(path, error)| {
            let why =
                if error.kind() == io::ErrorKind::NotFound { "nothing there" } else { "nobody listens" };
            format!("{} ({why})", path.display())
        })
        .collect();
    Failure::local(Exit::NoDaemon, "NO_DAEMON", format!("no daemon answers; tried {}", list.join(", "))).hint(
        "start it with `systemctl start casd`, or as yourself with `casd`; --socket names another place",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_daemon_comes_first() {
        let set = |key: &str| match key {
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            "XDG_STATE_HOME" => Some("relative".into()),
            "HOME" => Some("/home/u".into()),
            _ => None,
        };
        let expected =
            ["/run/user/7/casd/casd.sock", "/home/u/.local/state/casd/casd.sock", "/run/casd/casd.sock"];
        assert_eq!(places(set), expected.map(PathBuf::from));
        assert_eq!(places(|_| None), [PathBuf::from(SYSTEM)]);
    }

    #[test]
    fn whoever_may_not_connect_is_told_who_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("casd.sock");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let hint = || refused(&path, &denied).words().1.to_owned();
        assert!(hint().contains("its folder"), "{}", hint());
        for (mode, word) in [(0o660, "the socket's group"), (0o640, "mode 0640"), (0o600, "mode 0600")] {
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(hint().contains(word) && hint().ends_with("`casd`"), "{}", hint());
        }
    }

    #[tokio::test]
    async fn what_was_tried_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.sock");
        let failure = connect(Some(&path)).await.unwrap_err();
        assert_eq!(failure.exit, Exit::NoDaemon);
        assert!(failure.to_string().contains("none.sock (nothing there)"), "{failure}");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let failure = connect(Some(&path)).await.unwrap_err();
        assert!(failure.to_string().contains("nobody listens"), "{failure}");

        let long = folder.path().join("x".repeat(120));
        assert_eq!(connect(Some(&long)).await.unwrap_err().exit, Exit::NoDaemon);
    }
}
