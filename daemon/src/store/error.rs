//! Why the store could not do something.

use std::io;

use super::shortage::Shortage;
use crate::content;

/// What went wrong, to what, and what helps. Cheap to clone: one failed write answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The state folder is missing, or this user may not use it.
    #[error("the state folder {folder} cannot be used: {why}; create it and make it writable for this user")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        why: String,
    },
    /// Another process has the store open.
    #[error("the state folder {folder} is in use by another casd; stop that one, or set another state_dir")]
    Locked {
        /// The folder.
        folder: String,
    },
    /// A newer casd wrote this.
    #[error("{what} has version {found}, this casd knows version {known}; install a newer casd")]
    TooNew {
        /// The file or record.
        what: &'static str,
        /// The version that it has.
        found: u32,
        /// The newest version that this build knows.
        known: u32,
    },
    /// Something that cannot be made anew is damaged.
    #[error("{what} is damaged: {why}; restore it from a backup")]
    Damaged {
        /// The file.
        what: &'static str,
        /// How it is damaged.
        why: &'static str,
    },
    /// The quota does not allow it.
    #[error("{}", .0.of_quota())]
    Quota(Box<Shortage>),
    /// The file system has no room, or what it has is kept in reserve.
    #[error("not enough space on the file system: {}; remove or unpin some, or free some space", .0.of_disk())]
    DiskFull(Box<Shortage>),
    /// A write failed earlier. What is stored can still be read.
    #[error("the store is read-only since {why}; check the disk, then restart casd")]
    ReadOnly {
        /// The failure.
        why: String,
    },
    /// The disk failed to read or write.
    #[error("could not {what}: {why}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        why: String,
        /// Its kind.
        kind: io::ErrorKind,
    },
    /// The system is short of descriptors or memory. Nothing was changed.
    #[error("could not {what} for now: {why}; try again")]
    Busy {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        why: String,
    },
    /// The index failed. It is rebuilt when casd starts again.
    #[error("the store's index failed: {0}; restart casd, and the index is rebuilt")]
    Index(String),
    /// An object is to be private that is here and is not, or the other way round.
    #[error(
        "this object is stored here already and is {}; remove it first to add it as {}",
        if *.private { "private" } else { "public" },
        if *.private { "public" } else { "private" }
    )]
    Privacy {
        /// What it is.
        private: bool,
    },
    /// The request makes no sense; nothing was changed.
    #[error("{0}")]
    Invalid(&'static str),
    /// Stored bytes were of the right form and yet not what they were stored as.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// An error of the disk while doing `what`.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| match is_scarce(&error) {
            true => Self::Busy { what, why: error.to_string() },
            false => Self::Io { what, why: error.to_string(), kind: error.kind() },
        }
    }

    /// Whether there was no room for what was asked: quota or file system.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Quota(_) | Self::DiskFull(_) => true,
            Self::Io { kind, .. } => is_full_kind(*kind),
            _ => false,
        }
    }
}

/// Whether an error of the disk says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    is_full_kind(error.kind())
}

/// Whether an error of a call that makes something says that it may do so later: there is no room now, or the system
/// is short of descriptors or memory.
pub(super) fn is_passing(error: &io::Error) -> bool {
    is_full(error) || is_scarce(error)
}

fn is_scarce(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM].iter().any(|scarce| errno == Some(scarce.raw_os_error()))
}

/// Whether an error of a read says that what is there cannot be had, and not that this is no time to ask.
pub(super) fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn is_full_kind(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
