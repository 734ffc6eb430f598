//! How many bytes are in use, promised and allowed.
//!
//! Owns: the quota, the reserve, and which segments have anything in them. Refuses: bytes that the quota or the file
//! system has no room for, before they are accepted. Survives a crash: nothing; it is counted at the start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::disk::Disk;
use super::index::Entry;
use super::record::{BLOCK, Key, Kind, footprint};
use super::shortage::Shortage;
use crate::content::CHUNK_LEN;

/// What an entry costs in the index: sled was measured at 277 bytes.
const INDEX_ENTRY: u64 = 288;

/// What a record of `length` bytes costs against the quota.
pub(super) fn cost(length: u32, zero: bool) -> u64 {
    footprint(length, zero) + INDEX_ENTRY
}

/// What records of `freed` bytes cost at least: their entries come on top.
pub(super) fn cost_of_freed(freed: u64) -> u64 {
    freed.saturating_add(freed.div_ceil(CHUNK_LEN + BLOCK).saturating_mul(INDEX_ENTRY))
}

/// What `bytes` of an object's data cost at most: a header, padding and an entry a chunk.
pub(super) fn cost_of_data(bytes: u64) -> u64 {
    bytes.saturating_add(bytes.div_ceil(CHUNK_LEN).saturating_mul(2 * BLOCK + INDEX_ENTRY))
}

/// The account of a store.
pub(super) struct Space {
    disk: Arc<dyn Disk>,
    /// Bytes that may be used; 0 is no limit.
    quota: u64,
    /// Bytes of the file system that are to stay free.
    reserve: u64,
    counts: Mutex<Counts>,
}

/// Bytes of records by what they hold: payloads with their headers and padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Chunks of objects.
    pub data: u64,
    /// Parity chunks.
    pub parity: u64,
    /// Manifests: tops and pages.
    pub manifests: u64,
    /// Parity parts and their pages.
    pub parity_parts: u64,
}

impl Kinds {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Data => &mut self.data,
            Kind::Parity => &mut self.parity,
            // Trees are stored as objects, and a footer is never counted.
            Kind::Top | Kind::Page | Kind::Tree | Kind::Footer => &mut self.manifests,
            Kind::ParityPart | Kind::ParityPage => &mut self.parity_parts,
        }
    }

    fn sum(&self) -> u64 {
        self.data + self.parity + self.manifests + self.parity_parts
    }
}

/// What is counted, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// Bytes of records by kind.
    pub(super) kinds: Kinds,
    /// Bytes of records.
    pub(super) stored: u64,
    /// Bytes that the index is charged with.
    pub(super) index: u64,
    /// Bytes on disk that may be records, which cannot be read.
    pub(super) unknown: u64,
    /// Bytes promised and not yet used.
    pub(super) promised: u64,
}

/// Records counted one by one.
#[derive(Default)]
pub(super) struct Tally {
    kinds: Kinds,
    records: u64,
    live: BTreeMap<u32, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, key: &Key, entry: &Entry) {
        *self.kinds.of(key.kind) += entry.footprint();
        self.records += 1;
        *self.live.entry(entry.spot.segment).or_default() += entry.footprint();
    }
}

#[derive(Default)]
struct Counts {
    /// Bytes of records in segments, by what they hold.
    kinds: Kinds,
    /// Number of records.
    records: u64,
    /// Bytes on disk that may be records, which cannot be read.
    unknown: u64,
    /// Bytes promised and not yet used.
    promised: u64,
    /// Bytes of records by segment.
    live: BTreeMap<u32, u64>,
}

impl Counts {
    fn used(&self) -> u64 {
        self.kinds.sum() + self.records * INDEX_ENTRY + self.unknown
    }
}

impl Space {
    pub(super) fn new(disk: Arc<dyn Disk>, quota: u64, reserve: u64) -> Arc<Self> {
        Arc::new(Self { disk, quota, reserve, counts: Mutex::default() })
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record is there now.
    pub(super) fn add(&self, key: &Key, entry: &Entry) {
        let mut counts = self.counts();
        *counts.kinds.of(key.kind) += entry.footprint();
        counts.records += 1;
        *counts.live.entry(entry.spot.segment).or_default() += entry.footprint();
    }

    /// A record is gone.
    pub(super) fn subtract(&self, key: &Key, entry: &Entry) {
        let mut counts = self.counts();
        let bytes = counts.kinds.of(key.kind);
        *bytes = bytes.saturating_sub(entry.footprint());
        counts.records = counts.records.saturating_sub(1);
        let live = counts.live.entry(entry.spot.segment).or_default();
        *live = live.saturating_sub(entry.footprint());
        if *live == 0 {
            counts.live.remove(&entry.spot.segment);
        }
    }

    /// Where something cannot be read, so many bytes may be records.
    pub(super) fn add_unknown(&self, bytes: u64) {
        self.counts().unknown += bytes;
    }

    /// Forgets what [`Space::add_unknown`] counted: all is looked at anew.
    pub(super) fn clear_unknown(&self) {
        self.counts().unknown = 0;
    }

    /// Whether nothing is left in a segment when so many bytes of records go.
    pub(super) fn would_empty(&self, segment: u32, bytes: u64) -> bool {
        self.counts().live.get(&segment).is_none_or(|live| *live <= bytes)
    }

    /// Counts anew: these records are there, and no others.
    pub(super) fn recount(&self, tally: Tally) {
        let mut counts = self.counts();
        (counts.kinds, counts.records, counts.live) = (tally.kinds, tally.records, tally.live);
    }

    /// What is counted now.
    pub(super) fn account(&self) -> Account {
        let counts = self.counts();
        Account {
            kinds: counts.kinds,
            stored: counts.kinds.sum(),
            index: counts.records * INDEX_ENTRY,
            unknown: counts.unknown,
            promised: counts.promised,
        }
    }

    /// The quota, 0 for none, and what is to stay free.
    pub(super) fn limits(&self) -> (u64, u64) {
        (self.quota, self.reserve)
    }

    fn shortage(&self, needed: u64, used: u64, free: u64) -> Shortage {
        Shortage { needed, used, quota: self.quota, reserve: self.reserve, free, pins: Vec::new() }
    }

    /// What is to be said when the disk itself had no room for so many bytes.
    pub(super) fn disk_full(&self, needed: u64) -> Error {
        let counts = self.counts();
        let used = counts.used().saturating_add(counts.promised);
        drop(counts);
        Error::DiskFull(Box::new(self.shortage(needed, used, self.disk.free().unwrap_or(0))))
    }

    /// Bytes that would have to be freed before `cost` more could be promised.
    pub(super) fn missing(&self, cost: u64) -> u64 {
        let free = self.disk.free().unwrap_or(0);
        let counts = self.counts();
        let taken = cost.saturating_add(counts.promised);
        let of_quota = match self.quota {
            0 => 0,
            quota => taken.saturating_add(counts.used()).saturating_sub(quota),
        };
        of_quota.max(taken.saturating_add(self.reserve).saturating_sub(free))
    }

    /// Promises `cost` bytes until they are used or the promise is dropped.
    pub(super) fn promise(self: &Arc<Self>, cost: u64) -> Result<Promise, Error> {
        let free = self.disk.free().map_err(Error::io("ask for the free space"))?;
        let mut counts = self.counts();
        let used = counts.used().saturating_add(counts.promised);
        if self.quota != 0 && used.saturating_add(cost) > self.quota {
            return Err(Error::Quota(Box::new(self.shortage(cost, used, free))));
        }
        let spoken_for = counts.promised.saturating_add(self.reserve);
        if spoken_for.saturating_add(cost) > free {
            return Err(Error::DiskFull(Box::new(self.shortage(cost, used, free))));
        }
        counts.promised += cost;
        Ok(Promise { space: Arc::clone(self), left: cost })
    }
}

/// Room that was promised. Given back when dropped.
pub(super) struct Promise {
    space: Arc<Space>,
    left: u64,
}

impl Promise {
    /// A promise of nothing, to be merged into.
    pub(super) fn none(space: Arc<Space>) -> Self {
        Self { space, left: 0 }
    }

    /// Splits off up to `cost` bytes.
    pub(super) fn take(&mut self, cost: u64) -> Self {
        let taken = cost.min(self.left);
        self.left -= taken;
        Self { space: Arc::clone(&self.space), left: taken }
    }

    /// Adds another's room to this one's.
    pub(super) fn merge(&mut self, mut other: Self) {
        self.left += std::mem::take(&mut other.left);
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut counts = self.space.counts();
        counts.promised = counts.promised.saturating_sub(self.left);
    }
}
