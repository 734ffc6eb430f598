//! File systems of a chosen size, for as long as a test runs. Only root can make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::corpus::MIB;

/// A file system that is mounted. Dropped, it is gone: whatever uses it must be gone before.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    /// What `mount` was told.
    how: Vec<String>,
}

impl Mounted {
    /// One in memory, of so many MiB. `None`: this user, or this machine, cannot.
    #[must_use]
    pub fn tmpfs(folder: &Path, mib: u64) -> Option<Self> {
        Self::mount(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"], folder)
    }

    /// An ext4 in the file `image`, which turns read-only at an error.
    #[must_use]
    pub fn ext4(folder: &Path, image: &Path, mib: u64) -> Option<Self> {
        std::fs::File::create(image).unwrap().set_len(mib * MIB).unwrap();
        // No blocks are kept for root, as whom the daemon runs here.
        let made = Command::new("mkfs.ext4").args(["-q", "-m", "0", "-e", "remount-ro"]).arg(image).status();
        let image = image.to_str().expect("the image's path is text");
        made.is_ok_and(|made| made.success()).then(|| Self::mount(&["-o", "loop", image], folder)).flatten()
    }

    fn mount(args: &[&str], folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let done = Command::new("mount").args(args).arg(folder).output();
        let how = args.iter().map(|arg| (*arg).to_owned()).collect();
        done.is_ok_and(|done| done.status.success()).then(|| Self { folder: folder.to_owned(), how })
    }

    /// Lets an ext4 meet an error of its own. Whether this machine can.
    #[must_use]
    pub fn fail(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let of = |line: &str| {
            let mut words = line.split(' ');
            let device = words.next()?.strip_prefix("/dev/")?;
            (Path::new(words.next()?) == self.folder).then(|| device.to_owned())
        };
        let device = mounts.lines().find_map(of).expect("it is mounted");
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").is_ok()
    }

    /// Mounts it anew, mended. Nothing may use it.
    #[track_caller]
    pub fn again(&mut self) {
        let run = |program: &str, args: &[&str]| {
            let done = Command::new(program).args(args).output().unwrap();
            // e2fsck: 1 says that it mended something.
            assert!(matches!(done.status.code(), Some(0 | 1)), "{program}: {done:?}");
        };
        let folder = self.folder.to_str().expect("the folder's path is text");
        run("umount", &[folder]);
        let how: Vec<&str> = self.how.iter().map(String::as_str).collect();
        run("e2fsck", &["-fy", how.last().expect("the image is last")]);
        run("mount", &[&how[..], &[folder]].concat());
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
