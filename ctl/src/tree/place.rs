//! Where a directory is restored: in a temporary folder beside the target, until all of it is there.
//!
//! Owns: the temporary folder `.NAME.casd-XXXX`, which only its owner may enter, and the directory in it; giving that
//! its name; and removing what is in the way or left over. Refuses: replacing anything that it was not told to, or a
//! directory in which something is mounted, and following a link: everything is reached from descriptors by names
//! without a `/`. Survives a crash: SIGKILL leaves the temporary folder, and of a directory that is being replaced what
//! has not been removed yet, in it.
//!
//! The directory is made inside the temporary folder, not as it, so that it has from its beginning the mode that the
//! umask and the folder's default ACL give to any new directory, and yet nobody sees it half restored.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use casd_proto::Reason;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, fstatvfs, fsync, mkdirat, openat, renameat, renameat_with,
    statat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::clear::{gone, mount_point, remove_all};
use crate::download::{Coming, check_free, exists, lock, with_temporary_name};
use crate::error::{Exit, Failure};
use crate::output::text::size;

/// What the directory is called until it has its own name.
const RESTORED: &CStr = c"restored";

/// How a directory is opened: itself, whatever is put in its place.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is being restored. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder of the target.
    folder: OwnedFd,
    /// The temporary folder, and what it is called in there.
    around: OwnedFd,
    temporary: OsString,
}

impl Place {
    /// Makes an empty directory that is to get a name in `folder`, something like `name`, and opens it. There must be
    /// room for so many bytes and entries.
    ///
    /// # Errors
    /// When there is too little room, with nothing made; when the folder cannot be written.
    pub(crate) fn create(
        folder: &Path,
        name: &OsStr,
        bytes: u64,
        entries: u64,
    ) -> Result<(Self, OwnedFd), Failure> {
        let failed = |error: io::Error| {
            Failure::io("UNWRITABLE", format!("cannot write to the folder {}", folder.display()), &error)
        };
        let path = folder.join(name);
        let shown = path.strip_prefix(".").unwrap_or(&path).display().to_string();
        let open = |parent: &OwnedFd, name: &CStr| openat(parent, name, DIRECTORY, Mode::empty());
        let folder = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        check_room(&folder, &shown, bytes, entries)?;
        let make = |temporary: &OsStr| Ok(mkdirat(&folder, temporary, Mode::RWXU)?);
        let (temporary, ()) = with_temporary_name(name, make).map_err(failed)?;
        let around = openat(&folder, &temporary, DIRECTORY, Mode::empty()).map_err(|error| {
            let _ = unlinkat(&folder, &temporary, AtFlags::REMOVEDIR);
            failed(error.into())
        })?;
        lock(&around);
        let this = Self { folder, around, temporary };
        let restored = mkdirat(&this.around, RESTORED, Mode::from_raw_mode(0o777))
            .and_then(|()| open(&this.around, RESTORED))
            .map_err(|error| failed(error.into()))?;
        Ok((this, restored))
    }

    /// Gives the directory its name, the last component of `path`. With `force` in place of what is there, which is
    /// then removed. With `sync` only when all of it is on disk, and returns when its name is.
    ///
    /// # Errors
    /// When `path` exists and `force` is not set, also when it has come into being meanwhile. What was replaced and
    /// could not be removed is an error as well; the directory has its name then.
    pub(crate) fn finish(self, path: &Path, force: bool, sync: bool) -> Result<(), Failure> {
        let failed = |error: Errno| Failure::io("UNWRITABLE", path.display(), &error.into());
        let name = path.file_name().unwrap_or_default();
        if sync {
            // One call for all files and directories: they are on one file system.
            syncfs(&self.around).map_err(failed)?;
        }
        if force {
            check_free(path, true, Coming::Directory)?;
            self.check_mounts(path)?;
        }
        let named = if force { self.replace(name) } else { self.put(name) };
        named.map_err(|error| match error {
            Errno::EXIST if force => {
                let message =
                    format!("{} exists, and this file system cannot replace it at once", path.display());
                Failure::local(Exit::Failed, "EXISTS", message).hint("remove it first")
            }
            Errno::EXIST => exists(path),
            _ => failed(error),
        })?;
        if sync {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(&self.folder, c".", flags, Mode::empty()).and_then(fsync).map_err(failed)?;
        }
        self.remove().map_err(|error| {
            let (shown, left) = (path.display(), self.temporary.display());
            let message = format!("{shown} is there, but what it replaced could not be removed");
            Failure::io("UNWRITABLE", message, &error.into())
                .hint(format!("what is left of it is in {left} beside it"))
        })
    }

    /// Refuses to replace a directory in which something is mounted: with the directory its files would go.
    fn check_mounts(&self, path: &Path) -> Result<(), Failure> {
        let name = path.file_name().unwrap_or_default();
        // There may be nothing, or no directory; or nobody may look into it, and then nobody can empty it.
        let Ok(replaced) = openat(&self.folder, name, DIRECTORY, Mode::empty()) else { return Ok(()) };
        let Ok(Some(mounted)) = mount_point(&replaced) else { return Ok(()) };
        let mounted = path.join(mounted);
        let message = format!("{} is not replaced: {} is a mount point", path.display(), mounted.display());
        Err(Failure::local(Exit::Failed, "EXISTS", message).hint("unmount it first"))
    }

    /// Gives the directory its name, replacing nothing.
    fn put(&self, name: &OsStr) -> Result<(), Errno> {
        match renameat_with(&self.around, RESTORED, &self.folder, name, RenameFlags::NOREPLACE) {
            // Some file systems cannot promise it. There a rename replaces an empty directory at most, and that only
            // when one is made right now.
            Err(Errno::INVAL | Errno::NOSYS) => match statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => renameat(&self.around, RESTORED, &self.folder, name),
                Ok(_) => Err(Errno::EXIST),
                Err(error) => Err(error),
            },
            outcome => outcome,
        }
    }

    /// Gives the directory its name; what had it is in the temporary folder afterwards.
    fn replace(&self, name: &OsStr) -> Result<(), Errno> {
        match renameat_with(&self.around, RESTORED, &self.folder, name, RenameFlags::EXCHANGE) {
            // Nothing is there; or the file system cannot do it, and then what is there stays.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => self.put(name),
            outcome => outcome,
        }
    }

    /// Removes the temporary folder with everything in it.
    fn remove(&self) -> Result<(), Errno> {
        remove_all(&self.around)?;
        gone(unlinkat(&self.folder, &self.temporary, AtFlags::REMOVEDIR))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Makes sure that the file system has room, as far as it tells.
fn check_room(folder: &OwnedFd, shown: &str, bytes: u64, entries: u64) -> Result<(), Failure> {
    let Ok(stat) = fstatvfs(folder) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let full = |message| Err(Failure::known(Reason::NoSpace, message));
    if free < bytes {
        let (bytes, free) = (size(bytes), size(free));
        return full(format!("{shown}: {bytes} are to be restored, and {free} are free there"));
    }
    // No total: it makes entries as they are needed.
    if stat.f_files > 0 && stat.f_favail < entries {
        let free = stat.f_favail;
        let entries = entry_count(entries);
        return full(format!("{shown}: {entries} are to be restored, and there is room for {free}"));
    }
    Ok(())
}

fn entry_count(entries: u64) -> String {
    if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::left_over;

    #[test]
    fn what_is_being_restored_is_not_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let (place, _restored) = Place::create(folder.path(), "out".as_ref(), 0, 0).unwrap();
        assert!(folder.path().join(&place.temporary).is_dir());
        assert!(left_over(folder.path(), "out".as_ref()).is_empty());
    }
}
