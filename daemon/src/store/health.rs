//! Whether the store may write, and whether it has.
//!
//! Owns: the CLEAN marker, what the journal lost since, and the failure that made the store read-only. A failed write
//! or sync is never retried and trusted: what the kernel still holds in memory may not be what the disk has.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Error;
use super::disk::Disk;
use super::error::is_full;
use super::index::Sum;

const CLEAN: &str = "CLEAN";

/// What the marker says: how a run that ended in order left the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// The index's sum.
    pub(super) sum: Sum,
    /// Bytes of the journal; `None` in the marker of an older version.
    pub(super) journal: Option<u64>,
}

impl Closed {
    const SIZE: usize = Sum::SIZE + 8;

    /// As the marker has it (`docs/storage-format.md`, "CLEAN").
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.sum.encode().to_vec();
        out.extend(self.journal.map(u64::to_le_bytes).into_iter().flatten());
        out
    }

    /// Reads what [`Closed::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sum, journal) = bytes.split_at_checked(Sum::SIZE)?;
        let journal = match journal {
            [] => None,
            length => Some(u64::from_le_bytes(length.try_into().ok()?)),
        };
        Some(Self { sum: Sum::decode(sum)?, journal })
    }
}

/// What of the journal was found to be lost at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JournalLoss {
    /// Where it ended when the last run ended in order, and where what can be read of it ends now, which is before.
    pub(super) cut: Option<(u64, u64)>,
    /// Entries in its midst that could not be read, or more.
    pub(super) entries: u64,
}

/// Shared by all that write.
pub(super) struct Health {
    /// Where the marker is.
    disk: Arc<dyn Disk>,
    /// The first failed write, in words, and when in Unix seconds; set once.
    failed: OnceLock<(String, u64)>,
    /// Whether the marker is on disk.
    clean: Mutex<bool>,
    /// What the marker says.
    closed: Option<Closed>,
    /// What of the journal is lost.
    journal: JournalLoss,
    /// The lock on the folder: held until all that write are gone.
    _lock: Box<dyn Send + Sync>,
}

impl Health {
    /// Reads the marker: whether the last run ended in order.
    pub(super) fn open(disk: Arc<dyn Disk>, lock: Box<dyn Send + Sync>) -> Self {
        let marker = disk.open(Path::new(CLEAN)).ok();
        let closed =
            marker.as_ref().and_then(|file| Closed::decode(&file.read_at(0, Closed::SIZE + 1).ok()?));
        let clean = Mutex::new(marker.is_some());
        let journal = JournalLoss::default();
        Self { disk, failed: OnceLock::new(), clean, closed, journal, _lock: lock }
    }

    /// What can be read of the journal ends at `end`, and so many entries before that cannot. A journal that is shorter
    /// than the last run left it is no end in order.
    pub(super) fn journal_read(&mut self, end: u64, entries: u64) {
        self.journal.entries = entries;
        let Some(left) = self.closed.and_then(|closed| closed.journal).filter(|left| end < *left) else {
            return;
        };
        tracing::error!(
            left,
            found = end,
            "the journal is shorter than the last run left it: what it said behind that of objects and pins is lost; \
             add what is missing again, or put back a copy of the state folder"
        );
        (self.journal.cut, self.closed) = (Some((left, end)), None);
    }

    /// What of the journal was found to be lost.
    pub(super) fn journal_loss(&self) -> JournalLoss {
        self.journal
    }

    /// The index's sum when the last run ended in order: what is on disk is what it left. `None` after a crash.
    pub(super) fn closed(&self) -> Option<Sum> {
        self.closed.map(|closed| closed.sum)
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

    /// Writes the marker, with the index's sum and the journal's length, when nothing failed. The last thing that a run
    /// does.
    pub(super) fn close(&self, sum: Sum, journal: u64) -> Result<(), Error> {
        let closed = Closed { sum, journal: Some(journal) };
        let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.get().is_some() || (*clean && self.closed == Some(closed)) {
            return Ok(());
        }
        match self.write(closed) {
            Ok(()) => *clean = true,
            // The next start looks further back; that is all.
            Err(error) if is_full(&error) => drop(self.disk.unlink(Path::new(CLEAN))),
            Err(error) => return Err(Error::io("write the CLEAN marker")(error)),
        }
        Ok(())
    }

    fn write(&self, closed: Closed) -> io::Result<()> {
        match self.disk.unlink(Path::new(CLEAN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(Path::new(CLEAN))?;
        file.write_at(0, &mut [IoSlice::new(&closed.encode())])?;
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
