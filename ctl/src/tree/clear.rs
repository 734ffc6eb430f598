//! Removing a directory with everything in it, and nothing that is only mounted there.
//!
//! Owns: walking down by descriptors, without a `/` in any name. Refuses: following a link, and entering another file
//! system, or another part of the same one, that is mounted on a directory on the way. Survives a crash: what had not
//! been removed.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, ResolveFlags, fstat, openat, openat2, unlinkat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::list::{Kind, Listed, entries};
use super::place::DIRECTORY;

/// The first mount point that is found in a directory, as a path from there. What cannot be looked into is left out.
///
/// # Errors
/// When the directory itself cannot be read.
pub(crate) fn mount_point(directory: &OwnedFd) -> Result<Option<PathBuf>, Errno> {
    let mut open = vec![(CString::default(), fcntl_dupfd_cloexec(directory, 0)?, listed(directory)?)];
    while let Some((_, directory, left)) = open.last_mut() {
        let Some(Listed { name, kind }) = left.pop() else {
            open.pop();
            continue;
        };
        let inner = match kind {
            Kind::Directory => enter(directory, &name),
            _ => continue,
        };
        match inner.and_then(|inner| Ok((listed(&inner)?, inner))) {
            Ok((left, inner)) => open.push((name, inner, left)),
            Err(Errno::XDEV) => {
                let names = open.iter().map(|(name, ..)| name).chain([&name]);
                return Ok(Some(names.map(|name| Path::new(OsStr::from_bytes(name.to_bytes()))).collect()));
            }
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Removes everything in a directory. Links are removed, not followed; a name that has gone already is as good.
///
/// # Errors
/// What the operating system says; XDEV at a mount point.
pub(crate) fn remove_all(directory: &OwnedFd) -> Result<(), Errno> {
    let mut open = vec![(None, fcntl_dupfd_cloexec(directory, 0)?, listed(directory)?)];
    while let Some((_, directory, left)) = open.last_mut() {
        match left.pop() {
            Some(Listed { name, kind: Kind::Directory }) => {
                let inner = enter(directory, &name)?;
                let left = listed(&inner)?;
                open.push((Some(name), inner, left));
            }
            Some(Listed { name, .. }) => gone(unlinkat(&*directory, &name, AtFlags::empty()))?,
            None => {
                let emptied = open.pop().and_then(|(name, ..)| name);
                if let (Some(name), Some((_, around, _))) = (emptied, open.last()) {
                    gone(unlinkat(around, &name, AtFlags::REMOVEDIR))?;
                }
            }
        }
    }
    Ok(())
}

/// What has gone already is as good.
pub(crate) fn gone(outcome: Result<(), Errno>) -> Result<(), Errno> {
    match outcome {
        Err(Errno::NOENT) => Ok(()),
        outcome => outcome,
    }
}

/// Opens a directory in another; XDEV when something is mounted on it.
fn enter(around: &OwnedFd, name: &CString) -> Result<OwnedFd, Errno> {
    match openat2(around, name, DIRECTORY, Mode::empty(), ResolveFlags::NO_XDEV) {
        // Older kernels do not know it, and some sandboxes refuse it. Then another file system is told by its number.
        Err(Errno::NOSYS | Errno::PERM) => {
            let inner = openat(around, name, DIRECTORY, Mode::empty())?;
            if fstat(&inner)?.st_dev == fstat(around)?.st_dev { Ok(inner) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}

fn listed(directory: &OwnedFd) -> Result<Vec<Listed>, Errno> {
    entries(directory, usize::MAX)
}
