//! Segment files: opened when needed, read under a guard that punching waits for.
//!
//! Owns: which segments there are and which are open. Refuses: knowing what is in them (headers and the index do).
//! Survives a crash: the files; this is made from the folder's listing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::disk::{Disk, File};

/// Segment files kept open: 128 descriptors serve 128 GiB without opening anything.
const OPEN: usize = 128;

/// The folder of the segments.
pub(super) const FOLDER: &str = "segments";

/// A segment file.
pub(super) struct Segment {
    /// Its number; files are made in rising order.
    pub(super) number: u32,
    /// Held shared by readers, alone by whoever punches.
    guard: RwLock<()>,
    /// The open file, while it is one of the [`OPEN`].
    file: Mutex<Option<Arc<dyn File>>>,
}

impl Segment {
    /// While this is held nothing in the segment is punched.
    pub(super) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.guard.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for readers; while this is held none begins.
    pub(super) fn punching(&self) -> RwLockWriteGuard<'_, ()> {
        self.guard.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All segments of a store.
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    /// By number.
    known: Mutex<BTreeMap<u32, Arc<Segment>>>,
    /// Open ones, the longest open first.
    open: Mutex<VecDeque<Arc<Segment>>>,
}

/// The file of segment `number`.
fn path(number: u32) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("{number:08}.seg"))
}

impl Segments {
    /// Lists the folder. Files of other names are left alone.
    pub(super) fn list(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let names = disk.list(FOLDER.as_ref())?;
        let numbers = names.iter().filter_map(|name| name.strip_suffix(".seg")?.parse().ok());
        let segments = Self { disk, known: Mutex::default(), open: Mutex::default() };
        for number in numbers {
            segments.add(number, None);
        }
        Ok(segments)
    }

    fn add(&self, number: u32, file: Option<Arc<dyn File>>) -> Arc<Segment> {
        let segment = Arc::new(Segment { number, guard: RwLock::new(()), file: Mutex::new(file) });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(number, Arc::clone(&segment));
        segment
    }

    /// Numbers in use, rising.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The segment of this number.
    pub(super) fn get(&self, number: u32) -> Option<Arc<Segment>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// The open file of a segment.
    pub(super) fn file(&self, segment: &Arc<Segment>) -> io::Result<Arc<dyn File>> {
        let mut slot = segment.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&path(segment.number))?;
        *slot = Some(Arc::clone(&file));
        drop(slot);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::clone(segment));
        let oldest = if open.len() > OPEN { open.pop_front() } else { None };
        drop(open);
        if let Some(oldest) = oldest {
            *oldest.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(file)
    }

    /// Makes segment `number`, durably, so that records synced into it are there after a crash.
    pub(super) fn create(&self, number: u32) -> io::Result<(Arc<Segment>, Arc<dyn File>)> {
        let file = self.disk.create(&path(number))?;
        if let Err(error) = self.sync() {
            // So that it can be tried again.
            let _ = self.disk.unlink(&path(number));
            return Err(error);
        }
        Ok((self.add(number, None), file))
    }

    /// Unlinks a segment that nothing is in. Readers that have it open read on.
    pub(super) fn unlink(&self, number: u32) -> io::Result<()> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|segment| segment.number != number);
        drop(open);
        self.disk.unlink(&path(number))
    }

    /// Makes durable which segments there are.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(FOLDER.as_ref())
    }
}
