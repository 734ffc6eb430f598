//! A folder of a real file system, on Linux.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::Errno;

use super::{Around, Disk, Error, File, Table};
use crate::store::table;

/// Files are for their owner only: their content is.
const MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// What nobody else is to read. sled makes its files as it likes; they are behind the folder's mode.
const PRIVATE: [&str; 6] = ["node.key", "FORMAT", "journal", "journal/journal", "segments", "cache"];

/// Types of file systems, by what statfs(2) says.
const SYSTEMS: [(u32, &str); 19] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x00c3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0x4d44, "vfat"),
    (0x2011_bab0, "exfat"),
    (0x7366_746e, "ntfs"),
    (0xf15f, "ecryptfs"),
];

fn system(path: &Path) -> io::Result<String> {
    let number = u32::try_from(rustix::fs::statfs(path)?.f_type & 0xffff_ffff).unwrap_or(0);
    let known = SYSTEMS.iter().find(|(known, _)| *known == number);
    Ok(known.map_or_else(|| format!("{number:#x}"), |(_, name)| (*name).to_owned()))
}

/// The folder of sled's files.
const INDEX: &str = "index";

/// A state folder on a real file system.
#[derive(Clone, Debug)]
pub struct Real {
    /// The state folder.
    root: PathBuf,
}

impl Real {
    /// The disk under `root`, which is created when it is missing.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

/// An open file of it.
struct RealFile {
    file: fs::File,
    syncs: Syncs,
}

/// The syncs of one open file. The kernel tells a descriptor of a write that failed behind its back once, so whoever
/// shares the file and syncs next would take what is lost for durable: after one has failed, all do.
#[derive(Default)]
struct Syncs(Mutex<Option<io::ErrorKind>>);

impl Syncs {
    /// One at a time: none answers while another learns of a failure.
    fn run(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *failed {
            Some(kind) => Err(io::Error::new(kind, "an earlier sync of this file has failed")),
            None => sync().inspect_err(|error| *failed = Some(error.kind())),
        }
    }
}

impl Disk for Real {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).mode(MODE).open(self.root.join(path))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(self.root.join(path))?;
        Ok(Arc::new(RealFile { file, syncs: Syncs::default() }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(MODE).open(self.root.join(path))?;
        Ok(Arc::new(RealFile { file, syncs: Syncs::default() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(self.root.join(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(self.root.join(path))?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.root.join(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(self.root.join(path))?;
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn around(&self) -> io::Result<Around> {
        let folder = fs::metadata(&self.root)?;
        let is_open = |name: &&str| {
            fs::metadata(self.root.join(name)).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
        };
        Ok(Around {
            owner: folder.uid(),
            user: rustix::process::geteuid().as_raw(),
            mode: folder.permissions().mode() & 0o7777,
            open: PRIVATE.iter().filter(|name| is_open(name)).map(|name| (*name).to_owned()).collect(),
            system: system(&self.root)?,
        })
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn table(&self, cache: u64) -> Result<Box<dyn Table>, Error> {
        table::open_lasting(&self.root.join(INDEX), cache)
    }

    /// Keeps one bad index for whoever wants to know why.
    fn discard_table(&self) -> io::Result<()> {
        let aside = self.root.join("index.bad");
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(self.root.join(INDEX), &aside)
    }
}

impl File for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_once(&self, offset: u64, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.file, spare_capacity(into), offset)?)
    }

    fn write_once(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // rustix leaves parts for the next call where there are more than the system takes at once.
        Ok(rustix::io::pwritev(&self.file, parts, offset)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.run(|| self.file.sync_data())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, offset, length)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            done => Ok(done?),
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            // A file system that knows no holes: all is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(&self.file, SeekFrom::Hole(offset)) {
            Ok(at) => Ok(at),
            Err(Errno::NXIO) => Ok(offset),
            // A file system that knows no holes has none.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(u64::MAX),
            Err(error) => Err(error.into()),
        }
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_sync_that_failed_none_of_the_file_succeeds() {
        let syncs = Syncs::default();
        assert!(syncs.run(|| Ok(())).is_ok());
        let failed = syncs.run(|| Err(Errno::IO.into())).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(Errno::IO.raw_os_error()));
        let again = syncs.run(|| unreachable!("what is lost is not tried again")).unwrap_err();
        assert_eq!(again.kind(), failed.kind());
    }
}
