//! Where the daemon listens: the API's socket, the one beside it for files, and the chunk ports.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::Error;
use crate::api;
use crate::config::{self, Config};
use crate::support::task::Tasks;
use crate::wire::{Listener, Wire};

/// The API's socket: the one that systemd handed over, or our own, which only this user may open.
pub(super) fn api_socket(
    config: &Config,
    given: Option<std::os::unix::net::UnixListener>,
) -> Result<UnixListener, Error> {
    let at = &config.api.socket;
    let refused =
        |error: std::io::Error| Error::Listen { at: at.display().to_string(), why: error.to_string() };
    let Some(given) = given else { return bind_socket(at).map_err(refused) };
    given.set_nonblocking(true).map_err(refused)?;
    UnixListener::from_std(given).map_err(refused)
}

/// The socket on which callers pass files, and where it is: beside the API's, for the same users. `None`: there can be
/// none, and callers have bytes sent to them.
pub(super) fn files_socket(first: &UnixListener) -> Option<(UnixListener, PathBuf)> {
    let beside = first.local_addr().ok()?.as_pathname()?.to_owned();
    let at = api::socket_beside(&beside);
    match bind_socket(&at).and_then(|listener| like(&beside, &at).map(|()| listener)) {
        Ok(listener) => Some((listener, at)),
        Err(error) => {
            tracing::info!(%error, socket = %at.display(), "files cannot be passed; bytes are sent to callers");
            None
        }
    }
}

/// Gives a socket of ours the group and the mode of another. Where the group cannot be given it stays ours alone.
fn like(other: &Path, ours: &Path) -> std::io::Result<()> {
    let wanted = std::fs::metadata(other)?;
    if std::fs::metadata(ours)?.gid() != wanted.gid() && chown(ours, None, Some(wanted.gid())).is_err() {
        return Ok(());
    }
    std::fs::set_permissions(ours, std::fs::Permissions::from_mode(wanted.mode() & 0o777))
}

/// Binds a socket of mode 0600. What is there already is removed when it is a socket that nobody listens on.
fn bind_socket(at: &Path) -> std::io::Result<UnixListener> {
    if let Some(folder) = at.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let is_socket = std::fs::symlink_metadata(at).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(at).is_err() {
        std::fs::remove_file(at)?;
    }
    let listener = UnixListener::bind(at)?;
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Binds the chunk ports. A configured one that is in use is an error; for a default one a free port is taken, and a
/// default address of a family that the machine lacks is left out.
pub(super) fn chunk_ports(config: &Config, wire: &Wire, tasks: &Tasks) -> Result<Vec<Listener>, Error> {
    if config.network.mode == config::Mode::Client {
        return Ok(Vec::new());
    }
    let (mut listeners, mut taken) = (Vec::new(), Vec::new());
    for at in &config.listen.chunk.list {
        match wire.listen(*at, tasks) {
            Ok(listener) => listeners.push(listener),
            Err(error) if config.listen.chunk.configured => return Err(error.into()),
            Err(error) => {
                taken.push(error.to_string());
                listeners.extend(wire.listen(SocketAddr::new(at.ip(), 0), tasks).ok());
            }
        }
    }
    if !taken.is_empty() {
        let taken = taken.join(", ");
        tracing::warn!(
            "default chunk ports cannot be had ({taken}); free ones are taken, which `casctl status` shows; set \
             listen.chunk to choose"
        );
    }
    Ok(listeners)
}
