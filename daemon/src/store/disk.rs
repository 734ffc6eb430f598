//! The one way to a disk.
//!
//! Owns: what the store asks of a file system, and nothing more. Two implementers: [`Real`], and for tests a
//! forgetful one that loses what was not synced. What the index is made of goes past it (sled opens its own files),
//! which is sound because nothing is believed because the index says so.
//!
//! All paths are relative to the state folder. All calls block.

mod real;

#[cfg(test)]
pub(crate) mod forgetful;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::Error;
use super::table::Table;

pub use real::Real;

/// What a folder is, and what it is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Whom it belongs to.
    pub owner: u32,
    /// Whom this process runs as.
    pub user: u32,
    /// Its mode, without its type.
    pub mode: u32,
    /// Names in it that others than the owner may read or write.
    pub open: Vec<String>,
    /// The file system's type, such as `ext4`; a hexadecimal number where it has no name here.
    pub system: String,
}

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

    /// Replaces a small file in `folder`, durably: written beside it under the name `temporary`, synced, renamed, and
    /// the folder synced.
    fn replace(&self, folder: &Path, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // One that a crash left.
        let _ = self.unlink(temporary);
        let file = self.create(temporary)?;
        file.write_at(0, &mut [IoSlice::new(bytes)])?;
        file.sync()?;
        self.rename(temporary, path)?;
        self.sync_dir(folder)
    }

    /// Unlinks a file; open ones can be read on.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Names in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// What the folder is.
    fn around(&self) -> io::Result<Around>;

    /// Bytes free for this user.
    fn free(&self) -> io::Result<u64>;

    /// Opens the table for the index, with so many bytes of cache; one that is not there is made.
    ///
    /// # Errors
    /// [`Error::Index`] for whatever is wrong with it.
    fn table(&self, cache: u64) -> Result<Box<dyn Table>, Error>;

    /// Puts a table aside that cannot be used, so that the next one is new.
    fn discard_table(&self) -> io::Result<()>;
}

/// An open file. Calls at offsets only, so that any number of threads can use it.
pub trait File: Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Reads once behind what is in `into`, at most `into`'s spare capacity. Gives how much; 0 at the end of the file.
    fn read_once(&self, offset: u64, into: &mut Vec<u8>) -> io::Result<usize>;

    /// Writes once, some of `parts` from their beginning on. Gives how much.
    fn write_once(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Reads up to `length` bytes: fewer only at the end of the file.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            match self.read_once(offset + bytes.len() as u64, &mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // The allocator may have given more than was asked for.
        bytes.truncate(length);
        Ok(bytes.into())
    }

    /// Writes all of `parts`, one behind the other. After an error any part of them may have been written.
    fn write_at(&self, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Those that are empty at the beginning.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.write_once(offset, parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut parts, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes all that was written durable (fdatasync). After an error nothing may be assumed, ever.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or lengthens it by a hole.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Gives the blocks of a range back: it reads as zeros from now on. [`io::ErrorKind::Unsupported`] where the file
    /// system cannot.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Where the next bytes that are not a hole begin, from `offset` on. `None`: only a hole follows.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// Where the next hole begins, from `offset` on: at the end of the file at the latest.
    fn next_hole(&self, offset: u64) -> io::Result<u64>;

    /// Forgets cached pages, so that reads show what the disk has.
    fn drop_cache(&self) -> io::Result<()>;
}
