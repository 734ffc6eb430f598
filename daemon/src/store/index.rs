//! The index: where each record is. A cache of what the segments say.
//!
//! It holds nothing that exists nowhere else and may be deleted whenever casd is stopped: a checkpoint, written in
//! one batch with the entries, says up to where it knows the segments, and the start scans on from there.
//!
//! The table below it may lose, keep, invent or reorder anything over a crash. So it carries a sum over all its entries
//! and the checkpoint, changed in the same batch as they are: a table whose sum does not hold is not what was written,
//! and then all segments are scanned. The checkpoint is sealed with the store's key: only one that was once written
//! passes. And every use proves the record on disk.
//!
//! A table that fails is given up: one in memory takes its place, and is filled from the segments while reads are
//! served.
//!
//! Entries: key = kind (1), id (32); value = version 1 (1), flags (1: zero, 2: root), segment (4), offset (4),
//! length (4), place (8), little endian.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::Error;
use super::disk::Disk;
use super::progress::Gauge;
use super::record::{BLOCK, Key, Kind, StoreKey, footprint, payload_at};
use super::table::{Change, Memory, Table};
use crate::content::Place;

const VERSION: u8 = 1;
const FLAG_ZERO: u8 = 1;
const FLAG_ROOT: u8 = 2;
const VALUE: usize = 22;

/// Keys of the index about itself; no kind has number 0.
const CHECKPOINT: &[u8] = b"\0checkpoint";
const OWNER: &[u8] = b"\0owner";
const SUM: &[u8] = b"\0sum";

/// New values by key; `None` removes.
type Pairs = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Keys with the values that they had.
type Olds = Vec<(Vec<u8>, Vec<u8>)>;

/// A place in the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Spot {
    /// The segment's number.
    pub(super) segment: u32,
    /// Bytes from its beginning.
    pub(super) offset: u32,
}

/// What is known of a record without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where its header is.
    pub(super) spot: Spot,
    /// Bytes of its payload.
    pub(super) length: u32,
    /// How a chunk's id is computed.
    pub(super) place: Place,
    /// Its payload is zeros and not stored.
    pub(super) zero: bool,
}

impl Entry {
    /// Bytes that it takes in its segment.
    pub(super) fn footprint(&self) -> u64 {
        footprint(self.length, self.zero)
    }

    /// Bytes from its header's start to its payload's end.
    pub(super) fn payload_end(&self) -> u64 {
        if self.zero { BLOCK } else { payload_at(self.length) + u64::from(self.length) }
    }

    fn encode(&self) -> [u8; VALUE] {
        let root = self.place == Place::Root;
        let mut out = [0; VALUE];
        out[0] = VERSION;
        out[1] = u8::from(self.zero) * FLAG_ZERO + u8::from(root) * FLAG_ROOT;
        out[2..6].copy_from_slice(&self.spot.segment.to_le_bytes());
        out[6..10].copy_from_slice(&self.spot.offset.to_le_bytes());
        out[10..14].copy_from_slice(&self.length.to_le_bytes());
        out[14..].copy_from_slice(&self.place.offset().to_le_bytes());
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let value: &[u8; VALUE] = value.try_into().ok().filter(|value: &&[u8; VALUE]| value[0] == VERSION)?;
        let (segment, offset) = (word(&value[2..6])?, word(&value[6..10])?);
        let at = u64::from_le_bytes(value[14..].try_into().ok()?);
        let root = value[1] & FLAG_ROOT != 0;
        let length = word(&value[10..14])?;
        Some(Self {
            spot: Spot { segment, offset },
            length,
            place: if root { Place::Root } else { Place::At(at) },
            zero: value[1] & FLAG_ZERO != 0,
        })
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn encode_key(key: &Key) -> [u8; 33] {
    let mut out = [0; 33];
    out[0] = key.kind as u8;
    out[1..].copy_from_slice(&key.id);
    out
}

fn decode_key(bytes: &[u8]) -> Option<Key> {
    let (kind, id) = bytes.split_first()?;
    Some(Key { kind: Kind::from_number(*kind)?, id: id.try_into().ok()? })
}

/// A sum over pairs of key and value, in whatever order: how many, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pairs: u64,
    hashes: u128,
}

impl Sum {
    /// Its size when written.
    pub(super) const SIZE: usize = 24;

    fn hash(key: &[u8], value: &[u8]) -> u128 {
        let digest = blake3::Hasher::new().update(key).update(value).finalize();
        let (first, _) = digest.as_bytes().split_first_chunk().unwrap_or((&[0; 16], &[]));
        u128::from_le_bytes(*first)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_add(1);
        self.hashes = self.hashes.wrapping_add(Self::hash(key, value));
    }

    fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_sub(1);
        self.hashes = self.hashes.wrapping_sub(Self::hash(key, value));
    }

    pub(super) fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..8].copy_from_slice(&self.pairs.to_le_bytes());
        out[8..].copy_from_slice(&self.hashes.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (pairs, hashes) = bytes.split_at_checked(8)?;
        let hashes = u128::from_le_bytes(hashes.try_into().ok()?);
        Some(Self { pairs: u64::from_le_bytes(pairs.try_into().ok()?), hashes })
    }
}

/// The open index. Calls block for a moment, and for a read of a page when it is not in memory.
pub(super) struct Index {
    table: RwLock<Arc<dyn Table>>,
    /// The table is not on disk.
    in_memory: AtomicBool,
    /// Told when the table fails.
    gauge: Arc<Gauge>,
    /// Seals checkpoints.
    key: StoreKey,
    /// The sum over what is in the table; held while the table is changed.
    sum: Mutex<Sum>,
    /// The sum as it was found.
    found: Sum,
}

impl Index {
    /// Opens the index that `disk` has. One that cannot be opened, or that belongs to another store, is put aside and a
    /// new one made: it has no checkpoint, so that all is scanned.
    pub(super) fn open(disk: &dyn Disk, cache: u64, store: &StoreKey, gauge: Arc<Gauge>) -> Self {
        let owner = blake3::derive_key("casd 2026 index owner 1", store);
        let claim = |table: Result<Box<dyn Table>, Error>| table.and_then(|table| Self::claim(table, &owner));
        let opened = claim(disk.table(cache)).or_else(|error| {
            tracing::warn!(%error, "the index cannot be used; it is put aside and made anew");
            disk.discard_table().map_err(Error::io("put the index aside"))?;
            claim(disk.table(cache))
        });
        let in_memory = AtomicBool::new(opened.is_err());
        let (table, found) = opened.unwrap_or_else(|error| {
            tracing::warn!(%error, "the index cannot be kept on disk; it is in memory until the next start");
            let table: Arc<dyn Table> = Arc::new(Memory::default());
            (table, Sum::default())
        });
        Self { table: RwLock::new(table), in_memory, gauge, key: *store, sum: Mutex::new(found), found }
    }

    /// Marks a new table as this store's; refuses another's. Gives the sum that is written in it.
    fn claim(table: Box<dyn Table>, owner: &[u8; 32]) -> Result<(Arc<dyn Table>, Sum), Error> {
        match table.get(OWNER)? {
            Some(found) if found == owner => {}
            Some(_) => return Err(Error::Index("it belongs to another store".to_owned())),
            None => {
                let mut is_empty = true;
                table.each(&mut |_, _| {
                    is_empty = false;
                    false
                })?;
                if !is_empty {
                    return Err(Error::Index("it does not say whose it is".to_owned()));
                }
                table.apply(&[(OWNER.to_vec(), Some(owner.to_vec()))])?;
            }
        }
        let found = table.get(SUM)?.and_then(|sum| Sum::decode(&sum)).unwrap_or_default();
        Ok((table.into(), found))
    }

    fn table(&self) -> Arc<dyn Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses the table; one that fails is given up, and the call done with the new one.
    fn with<T>(&self, call: impl Fn(&dyn Table) -> Result<T, Error>) -> Result<T, Error> {
        let table = self.table();
        match call(table.as_ref()) {
            Err(error) => call(self.give_up(&table, &error).as_ref()),
            done => done,
        }
    }

    /// Puts a table in memory in the place of one that fails, and wishes for it to be filled.
    fn give_up(&self, failing: &Arc<dyn Table>, error: &Error) -> Arc<dyn Table> {
        let mut slot = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&slot, failing) {
            tracing::error!(%error, "the index fails; it is made anew in memory, and on disk by the next start");
            // First this, so that nobody takes what the new one does not name for missing.
            self.gauge.break_down();
            *slot = Arc::new(Memory::default());
            self.in_memory.store(true, Ordering::Release);
        }
        Arc::clone(&slot)
    }

    /// Whether the disk refused it, so that it is in memory until the next start.
    pub(super) fn is_in_memory(&self) -> bool {
        self.in_memory.load(Ordering::Acquire)
    }

    fn sums(&self) -> MutexGuard<'_, Sum> {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a record. One that cannot be read as an entry is none.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let key = encode_key(key);
        Ok(self.with(|table| table.get(&key))?.and_then(|value| Entry::decode(&value)))
    }

    /// Enters records, and in the same batch up to where the segments are known. Of two with one key the later one
    /// counts. Gives those whose place was taken.
    pub(super) fn enter(
        &self,
        entries: &[(Key, Entry)],
        checkpoint: Option<Spot>,
    ) -> Result<Vec<(Key, Entry)>, Error> {
        let mut sum = self.sums();
        let mut last = BTreeMap::new();
        let mut replaced = Vec::new();
        for (key, entry) in entries {
            let old = last.insert(*key, *entry);
            replaced.extend(old.filter(|old| old.spot != entry.spot).map(|old| (*key, old)));
        }
        let pairs = last.iter().map(|(key, entry)| (encode_key(key).to_vec(), Some(entry.encode().to_vec())));
        let mut pairs: BTreeMap<_, _> = pairs.collect();
        if let Some(spot) = checkpoint {
            pairs.insert(CHECKPOINT.to_vec(), Some(self.seal(spot)));
        }
        for (key, old) in self.change(pairs, &mut sum)? {
            let (Some(key), Some(old)) = (decode_key(&key), Entry::decode(&old)) else { continue };
            if last.get(&key).is_some_and(|new| new.spot != old.spot) {
                replaced.push((key, old));
            }
        }
        Ok(replaced)
    }

    /// Takes entries out, those that are still these.
    pub(super) fn forget(&self, entries: &[(Key, Entry)]) -> Result<(), Error> {
        let mut sum = self.sums();
        let mut gone = BTreeMap::new();
        for (key, entry) in entries {
            if self.get(key)? == Some(*entry) {
                gone.insert(encode_key(key).to_vec(), None);
            }
        }
        self.change(gone, &mut sum).map(|_| ())
    }

    /// Changes the table and its sum in one batch. Gives the values that were there before.
    fn change(&self, pairs: Pairs, sum: &mut Sum) -> Result<Olds, Error> {
        let (mut after, mut before) = (*sum, Vec::new());
        if pairs.is_empty() {
            return Ok(before);
        }
        for (key, value) in &pairs {
            if let Some(old) = self.with(|table| table.get(key))? {
                after.subtract(key, &old);
                before.push((key.clone(), old));
            }
            if let Some(value) = value {
                after.add(key, value);
            }
        }
        let mut changes: Vec<Change> = pairs.into_iter().collect();
        changes.push((SUM.to_vec(), Some(after.encode().to_vec())));
        self.with(|table| table.apply(&changes))?;
        *sum = after;
        Ok(before)
    }

    /// Up to where the segments are known. `None` also for one that this store never wrote.
    pub(super) fn checkpoint(&self) -> Result<Option<Spot>, Error> {
        let Some(value) = self.with(|table| table.get(CHECKPOINT))? else { return Ok(None) };
        let spot =
            value.get(..8).and_then(|at| Some(Spot { segment: word(&at[..4])?, offset: word(&at[4..])? }));
        Ok(spot.filter(|spot| value == self.seal(*spot)))
    }

    /// A checkpoint as it is written: segment (4), offset (4), BLAKE3-128 with the store's key over them.
    fn seal(&self, spot: Spot) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend_from_slice(&spot.segment.to_le_bytes());
        out.extend_from_slice(&spot.offset.to_le_bytes());
        let digest = blake3::Hasher::new_keyed(&self.key).update(b"checkpoint").update(&out).finalize();
        out.extend_from_slice(&digest.as_bytes()[..16]);
        out
    }

    /// Calls `each` with all entries, until it fails. Pairs that cannot be read as entries are passed over.
    /// Gives the sum over all pairs.
    pub(super) fn each(&self, mut each: impl FnMut(Key, Entry) -> Result<(), Error>) -> Result<Sum, Error> {
        let (mut sum, mut result) = (Sum::default(), Ok(()));
        let table = self.table();
        let seen = table.each(&mut |key, value| {
            if key == OWNER || key == SUM {
                return true;
            }
            sum.add(key, value);
            if let (Some(key), Some(entry)) = (decode_key(key), Entry::decode(value)) {
                result = each(key, entry);
            }
            result.is_ok()
        });
        if let Err(error) = seen {
            // Some pairs have been told of, and others not.
            self.give_up(&table, &error);
            return Err(error);
        }
        result.map(|()| sum)
    }

    /// The sum that it was found with, and the one that it has by now.
    pub(super) fn sum(&self) -> (Sum, Sum) {
        (self.found, *self.sums())
    }

    /// Goes on from what is in the table, whose sum this is, without a checkpoint: until there is one again no start
    /// takes it for whole.
    pub(super) fn distrust(&self, actual: Sum) -> Result<(), Error> {
        *self.sums() = actual;
        self.drop_checkpoint()
    }

    /// Lets the next start scan all segments.
    pub(super) fn drop_checkpoint(&self) -> Result<(), Error> {
        self.change(BTreeMap::from([(CHECKPOINT.to_vec(), None)]), &mut self.sums()).map(|_| ())
    }

    /// Hands what is buffered to the kernel. That is not the disk.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.with(|table| table.flush())
    }
}
