//! What a directory has in it, read through its descriptor.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, RawDir, statat};
use rustix::io::{Errno, Result};

/// Room for some hundred entries a call.
const BUFFER: usize = 32 << 10;

/// An entry, as it was when the list was read.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    /// What it is called, whatever the rules say.
    pub(crate) name: CString,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, a socket, a device, or what a later kernel may have; in words.
    Other(&'static str),
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            FileType::Fifo => Self::Other("a FIFO"),
            FileType::Socket => Self::Other("a socket"),
            FileType::CharacterDevice | FileType::BlockDevice => Self::Other("a device"),
            FileType::Unknown => Self::Other("nothing that casctl knows"),
        }
    }
}

/// The entries of a directory without `.` and `..`, in no order; one more than `limit` at most.
///
/// # Errors
/// What the operating system says.
pub(crate) fn entries(directory: impl AsFd, limit: usize) -> Result<Vec<Listed>> {
    let directory = directory.as_fd();
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut listed = Vec::new();
    let mut raw = RawDir::new(directory, &mut buffer);
    while listed.len() <= limit {
        let Some(entry) = raw.next() else { break };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems keep the kind elsewhere.
            FileType::Unknown => match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                // It has gone meanwhile.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            },
            kind => kind,
        };
        listed.push(Listed { name: name.to_owned(), kind: kind.into() });
    }
    Ok(listed)
}
