//! The one way to a disk.
//!
//! Owns: what the store asks of a file system, and nothing more. Two implementers: [`Real`], and for tests a
//! forgetful one that loses what was not synced. The index goes past it (sled opens its own files), which is
//! sound because nothing is believed because the index says so.
//!
//! All paths are relative to the state folder. All calls block.

mod real;

#[cfg(test)]
pub(crate) mod forgetful;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use real::Real;

/// A folder on a file system.
pub trait Disk: Send + Sync {
    /// What to call the folder in messages.
    fn name(&self) -> String;

    /// Takes the lock on file `path` until the value is dropped. [`io::ErrorKind::WouldBlock`] when it is taken.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Creates a file that must not exist, readable by its owner only. Durable after [`Disk::sync_dir`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Creates a folder; one that is there is good.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes entries of a folder durable: created, renamed and unlinked ones.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file over what may be there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file; open ones can be read on.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Names in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Bytes free for this user.
    fn free(&self) -> io::Result<u64>;

    /// Where the index may keep its files. `None`: nowhere that lasts.
    fn index_dir(&self) -> Option<PathBuf>;
}

/// An open file. Calls at offsets only, so that any number of threads can use it.
pub trait File: Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Reads up to `length` bytes: fewer only at the end of the file.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes>;

    /// Writes all of `parts`, one behind the other. After an error any part of them may have been written.
    fn write_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes all that was written durable (fdatasync). After an error nothing may be assumed, ever.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Gives the blocks of a range back: it reads as zeros from now on.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Where the next bytes that are not a hole begin, from `offset` on. `None`: only a hole follows.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// Forgets cached pages, so that reads show what the disk has.
    fn drop_cache(&self) -> io::Result<()>;
}
