//! File systems of a chosen size, for as long as a test runs. Only root can make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::corpus::MIB;

/// A file system that is mounted. Dropped, it is gone: whatever uses it must be gone before.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    /// One in memory, of so many MiB. `None`: this user, or this machine, cannot.
    #[must_use]
    pub fn tmpfs(folder: &Path, mib: u64) -> Option<Self> {
        Self::mount(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"], folder)
    }

    /// An ext4 in the file `image`.
    #[must_use]
    pub fn ext4(folder: &Path, image: &Path, mib: u64) -> Option<Self> {
        std::fs::File::create(image).unwrap().set_len(mib * MIB).unwrap();
        // No blocks are kept for root, as whom the daemon runs here.
        let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image).status();
        let image = image.to_str().expect("the image's path is text");
        made.is_ok_and(|made| made.success()).then(|| Self::mount(&["-o", "loop", image], folder)).flatten()
    }

    fn mount(args: &[&str], folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let done = Command::new("mount").args(args).arg(folder).output();
        done.is_ok_and(|done| done.status.success()).then(|| Self { folder: folder.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.folder).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still be in it.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
