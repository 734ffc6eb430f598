//! What the process is told from outside about where things belong, and the default paths that follow.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Error;

/// The part of the process environment that default settings depend on. Passed in, so that tests need not
/// change their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `$STATE_DIRECTORY`: given by systemd for `StateDirectory=`; the first of several counts.
    pub state_directory: Option<OsString>,
    /// `$RUNTIME_DIRECTORY`: given by systemd for `RuntimeDirectory=`; the first of several counts.
    pub runtime_directory: Option<OsString>,
    /// `$XDG_STATE_HOME`
    pub xdg_state_home: Option<OsString>,
    /// `$XDG_RUNTIME_DIR`
    pub xdg_runtime_dir: Option<OsString>,
    /// `$HOME`
    pub home: Option<OsString>,
    /// The host's name.
    pub host_name: Option<String>,
}

impl Environment {
    /// What this process was started with.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            state_directory: std::env::var_os("STATE_DIRECTORY"),
            runtime_directory: std::env::var_os("RUNTIME_DIRECTORY"),
            xdg_state_home: std::env::var_os("XDG_STATE_HOME"),
            xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            home: std::env::var_os("HOME"),
            host_name: rustix::system::uname().nodename().to_str().ok().map(str::to_owned),
        }
    }

    /// Where the state is kept when the file does not say.
    pub(super) fn state_dir(&self) -> Result<PathBuf, Error> {
        first_of(self.state_directory.as_ref())
            .or_else(|| absolute(self.xdg_state_home.as_ref()).map(|base| base.join("casd")))
            .or_else(|| absolute(self.home.as_ref()).map(|home| home.join(".local/state/casd")))
            .ok_or(Error::NoStateFolder)
    }

    /// Where the socket is when the file does not say.
    pub(super) fn socket(&self, state_dir: &Path) -> PathBuf {
        first_of(self.runtime_directory.as_ref())
            .or_else(|| absolute(self.xdg_runtime_dir.as_ref()).map(|base| base.join("casd")))
            .unwrap_or_else(|| state_dir.to_owned())
            .join("casd.sock")
    }

    /// What the node is called when the file does not say: the host's name where it is fit to be shown.
    pub(super) fn node_name(&self) -> String {
        let fit = |name: &&String| !name.is_empty() && super::value::node_name(name).is_ok();
        self.host_name.as_ref().filter(fit).map_or("casd", String::as_str).to_owned()
    }
}

/// A folder that systemd made: of a list with colons, the first.
fn first_of(value: Option<&OsString>) -> Option<PathBuf> {
    let list = std::env::split_paths(value?).next()?;
    list.is_absolute().then_some(list)
}

/// The XDG specification says to ignore a relative path.
fn absolute(value: Option<&OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}
