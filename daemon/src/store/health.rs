//! Whether the store may write, and whether it has.
//!
//! Owns: the CLEAN marker and the failure that made the store read-only. A failed write or sync is never
//! retried and trusted: what the kernel still holds in memory may not be what the disk has.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Error;
use super::disk::Disk;
use super::error::is_full;
use super::index::Sum;

const CLEAN: &str = "CLEAN";

/// Shared by all that write.
pub(super) struct Health {
    /// Where the marker is.
    disk: Arc<dyn Disk>,
    /// The first failed write, in words, and when in Unix seconds; set once.
    failed: OnceLock<(String, u64)>,
    /// Whether the marker is on disk.
    clean: Mutex<bool>,
    /// What the marker says.
    closed: Option<Sum>,
    /// The lock on the folder: held until all that write are gone.
    _lock: Box<dyn Send + Sync>,
}

impl Health {
    /// Reads the marker: whether the last run ended in order.
    pub(super) fn open(disk: Arc<dyn Disk>, lock: Box<dyn Send + Sync>) -> Self {
        let marker = disk.open(Path::new(CLEAN)).ok();
        let closed = marker.as_ref().and_then(|file| Sum::decode(&file.read_at(0, Sum::SIZE + 1).ok()?));
        let clean = Mutex::new(marker.is_some());
        Self { disk, failed: OnceLock::new(), clean, closed, _lock: lock }
    }

    /// The index's sum when the last run ended in order: what is on disk is what it left. `None` after a crash.
    pub(super) fn closed(&self) -> Option<Sum> {
        self.closed
    }

    /// Must be called before any write: removes the marker, durably. Blocks the first time.
    pub(super) fn before_write(&self) -> Result<(), Error> {
        self.check()?;
        let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
        if *clean {
            let removed = self.disk.unlink(Path::new(CLEAN)).and_then(|()| self.disk.sync_dir(Path::new("")));
            removed.map_err(|error| self.fail("remove the CLEAN marker", &error))?;
            *clean = false;
        }
        Ok(())
    }

    /// Writes the marker, with the index's sum, when nothing failed. The last thing that a run does.
    pub(super) fn close(&self, sum: Sum) -> Result<(), Error> {
        let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.get().is_some() || (*clean && self.closed == Some(sum)) {
            return Ok(());
        }
        match self.write(sum) {
            Ok(()) => *clean = true,
            // The next start looks further back; that is all.
            Err(error) if is_full(&error) => drop(self.disk.unlink(Path::new(CLEAN))),
            Err(error) => return Err(Error::io("write the CLEAN marker")(error)),
        }
        Ok(())
    }

    fn write(&self, sum: Sum) -> io::Result<()> {
        match self.disk.unlink(Path::new(CLEAN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(Path::new(CLEAN))?;
        file.write_at(0, &mut [IoSlice::new(&sum.encode())])?;
        file.sync()?;
        self.disk.sync_dir(Path::new(""))
    }

    /// Makes the store read-only, and gives the error to answer with.
    pub(super) fn fail(&self, what: &str, error: &io::Error) -> Error {
        let (why, _) = self.failed.get_or_init(|| {
            tracing::error!(%error, "could not {what}; the store is read-only until casd is restarted");
            (format!("it could not {what}: {error}"), super::now())
        });
        Error::ReadOnly { why: why.clone() }
    }

    /// Whether the store may write.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.failed.get().map_or(Ok(()), |(why, _)| Err(Error::ReadOnly { why: why.clone() }))
    }

    /// What made the store read-only, and when in Unix seconds.
    pub(super) fn failed(&self) -> Option<&(String, u64)> {
        self.failed.get()
    }
}
