//! When objects were last read, to the hour: what decides which cached object gives way first.
//!
//! Owns: `cache/used`. Refuses: being exact, and failing anything: a file that is missing, damaged or another store's
//! says that nothing has been read. Survives a crash: what was saved last; the file is replaced in one step.
//!
//! Format: `docs/storage-format.md`, "When objects were read".

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Store;
use super::disk::Disk;
use super::handle::Inner;
use super::object::ObjectInfo;
use super::record::StoreKey;
use crate::content::ObjectId;

const FOLDER: &str = "cache";
const FILE: &str = "cache/used";
/// Where it is written before it takes the old one's place.
pub(super) const TEMPORARY: &str = "cache/used.tmp";

const MAGIC: &[u8; 8] = b"casdused";
const ENTRY: usize = 40;
const SUM: usize = 32;

/// An object's time is noted once in so many seconds.
const COARSE: u64 = 3600;

/// Objects whose time is known at most: 10 MiB of file. The quarter that was read longest ago makes room.
const MOST: usize = 1 << 18;

/// See the module.
pub(super) struct Used {
    key: StoreKey,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    by_id: BTreeMap<ObjectId, u64>,
    /// Something is not in the file yet.
    changed: bool,
}

impl Used {
    /// What the file says.
    pub(super) fn open(disk: &dyn Disk, key: StoreKey) -> Self {
        let by_id = read(disk, &key).unwrap_or_else(|error| {
            tracing::warn!(%error, "when objects were read cannot be read; it counts from now on");
            BTreeMap::new()
        });
        Self { key, times: Mutex::new(Times { by_id, changed: false }) }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the object was last read, in Unix seconds.
    pub(super) fn get(&self, id: &ObjectId) -> Option<u64> {
        self.times().by_id.get(id).copied()
    }

    /// Whether the time known for an object is an old one, or from a clock that was ahead.
    fn is_due(&self, id: &ObjectId, now: u64) -> bool {
        self.get(id).is_none_or(|at| at.abs_diff(now) >= COARSE)
    }

    fn set(&self, id: ObjectId, now: u64) {
        let mut times = self.times();
        if times.by_id.len() >= MOST && !times.by_id.contains_key(&id) {
            let mut all: Vec<u64> = times.by_id.values().copied().collect();
            let (_, oldest, _) = all.select_nth_unstable(MOST / 4);
            let oldest = *oldest;
            let mut over = MOST / 4;
            times.by_id.retain(|_, at| {
                let goes = *at <= oldest && over > 0;
                over -= usize::from(goes);
                !goes
            });
        }
        times.by_id.insert(id, now);
        times.changed = true;
    }

    /// Writes down what has changed, of objects that are there. Blocks.
    fn save(&self, disk: &dyn Disk, is_there: impl Fn(&ObjectId) -> bool) -> io::Result<()> {
        let mut times = self.times();
        if !times.changed {
            return Ok(());
        }
        times.by_id.retain(|id, _| is_there(id));
        let mut bytes = Vec::with_capacity(MAGIC.len() + times.by_id.len() * ENTRY + SUM);
        bytes.extend_from_slice(MAGIC);
        for (id, at) in &times.by_id {
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(&at.to_le_bytes());
        }
        times.changed = false;
        drop(times);
        bytes.extend_from_slice(blake3::keyed_hash(&self.key, &bytes).as_bytes());
        let written = write(disk, &bytes);
        if written.is_err() {
            let _ = disk.unlink(Path::new(TEMPORARY));
            self.times().changed = true;
        }
        written
    }
}

fn read(disk: &dyn Disk, key: &StoreKey) -> io::Result<BTreeMap<ObjectId, u64>> {
    let file = match disk.open(Path::new(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        file => file?,
    };
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let size = usize::try_from(file.length()?).map_err(|_| damaged())?;
    if size > MAGIC.len() + MOST * ENTRY + SUM {
        return Err(damaged());
    }
    let bytes = file.read_at(0, size)?;
    let (said, sum) = bytes.split_last_chunk::<SUM>().ok_or_else(damaged)?;
    let entries = said.strip_prefix(MAGIC).filter(|_| blake3::keyed_hash(key, said) == *sum);
    let (entries, []) = entries.ok_or_else(damaged)?.as_chunks::<ENTRY>() else { return Err(damaged()) };
    let entry = |entry: &[u8; ENTRY]| {
        let (id, at) = entry.split_last_chunk::<8>()?;
        Some((ObjectId::from_bytes(id.try_into().ok()?), u64::from_le_bytes(*at)))
    };
    entries.iter().map(entry).collect::<Option<_>>().ok_or_else(damaged)
}

fn write(disk: &dyn Disk, bytes: &[u8]) -> io::Result<()> {
    disk.create_dir(Path::new(FOLDER))?;
    disk.replace(Path::new(FOLDER), Path::new(TEMPORARY), Path::new(FILE), bytes)
}

impl Store {
    /// Notes that an object is read: fetched, printed, or given to a peer. It is in memory until [`Store::save_used`]
    /// or [`Store::close`]. To the hour; an object that is not here is passed over.
    pub fn touch(&self, id: &ObjectId) {
        let now = super::now();
        if self.inner.used.is_due(id, now) && self.inner.ledger.contains(id) {
            self.inner.used.set(*id, now);
        }
    }

    /// When an object was last read, in Unix seconds, to the hour. `None`: never since it came, as far as is known.
    #[must_use]
    pub fn used(&self, id: &ObjectId) -> Option<u64> {
        self.inner.used.get(id)
    }

    /// Writes down when objects were read. That it cannot be is logged: it decides about nothing but what goes first.
    pub async fn save_used(&self) {
        self.blocking(Inner::save_used).await;
    }

    /// Sets when an object was read.
    #[cfg(test)]
    pub(crate) fn used_at(&self, id: &ObjectId, at: u64) {
        self.inner.used.set(*id, at);
    }
}

impl Inner {
    /// See [`Store::save_used`]. A disk that failed is left alone.
    pub(super) fn save_used(&self) {
        if self.health.check().is_ok()
            && let Err(error) = self.used.save(self.disk.as_ref(), |id| self.ledger.contains(id))
        {
            tracing::debug!(%error, "when objects were read could not be saved");
        }
    }

    /// When an object was last of use to someone: it was read, or it came.
    pub(super) fn last_used(&self, info: &ObjectInfo) -> u64 {
        self.used.get(&info.id).map_or(info.added, |at| at.max(info.added))
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::forgetful::Forgetful;
    use super::*;
    use crate::golden;

    #[test]
    fn the_file_is_as_it_was_first_written() {
        let (disk, key, id) = (Forgetful::default(), [3; 32], |id| ObjectId::from_bytes([id; 32]));
        let used = Used::open(&disk, key);
        used.set(id(2), 1_700_000_002);
        used.set(id(1), 1_700_000_001);
        used.set(id(9), 5);
        used.save(&disk, |there| *there != id(9)).unwrap();
        let file = disk.open(Path::new(FILE)).unwrap();
        let written = file.read_at(0, 1000).unwrap();
        let golden = golden::is("used", &written);
        file.write_at(0, &mut [io::IoSlice::new(&golden)]).unwrap();
        let read = read(&disk, &key).unwrap();
        assert_eq!(read, BTreeMap::from([(id(1), 1_700_000_001), (id(2), 1_700_000_002)]));
        // Another store's, a damaged one and a cut one say nothing.
        assert!(super::read(&disk, &[4; 32]).is_err());
        file.write_at(20, &mut [io::IoSlice::new(b"x")]).unwrap();
        assert!(super::read(&disk, &key).is_err());
        file.truncate(40).unwrap();
        assert!(super::read(&disk, &key).is_err());
    }
}
