//! Which records there are, who needs them kept, and reading them.
//!
//! Owns: the index, the records that are written but not yet entered there, the sets that leases keep, and the
//! account of space. Refuses: giving out bytes that no proof was made of. Survives a crash: what the segments
//! hold; the rest is made from them.
//!
//! "Have it" and "keep it" are one operation under one lock, `Sweep::retire` takes the same lock: a record
//! that a lease was told of is never punched while the lease, or a sweep that began before its end, lives.
//!
//! A record that failed its proof, and one that is about to be punched, is *hidden*: nobody finds it, while the index
//! names it until it is punched. So no crash leaves bytes on disk that nothing knows of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Error;
use super::error::is_lost;
use super::index::{Entry, Index, Spot};
use super::record::{BLOCK_SIZE, Header, Key, Kind, Record, StoreKey, payload_at};
use super::segment::{Segment, Segments};
use super::space::Space;
use crate::content::CHUNK;

/// A record that failed its proof. It is not served any more, and stored anew when it is put again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What the record held.
    pub kind: Kind,
    /// Its id among its kind: a chunk's id, an object's id for a top, a page's value.
    pub id: [u8; 32],
    /// Where it was: the segment's number.
    pub segment: u32,
    /// Where it was: bytes from the segment's beginning.
    pub offset: u32,
}

/// Damage told and not yet taken; more is dropped, a scrub finds it again.
pub(super) const DAMAGE_QUEUE: usize = 256;

/// See the module.
pub(super) struct Catalog {
    pub(super) key: StoreKey,
    pub(super) segments: Segments,
    pub(super) index: Index,
    pub(super) space: Arc<Space>,
    fresh: Mutex<Fresh>,
    pub(super) damage: mpsc::Sender<Damage>,
    /// Some blocks of the segments could not be read, or punched: there may be records that nobody knows of.
    misses: AtomicBool,
}

/// What is only in memory.
#[derive(Default)]
pub(super) struct Fresh {
    /// Written, readable, and not yet in the index.
    pub(super) written: HashMap<Key, Entry>,
    /// On disk, and found by nobody.
    pub(super) hidden: HashMap<Spot, Hidden>,
    /// Retired records by segment, where the file system cannot punch.
    pub(super) stuck: BTreeMap<u32, Vec<(Key, Entry)>>,
    /// What live leases keep, by lease: fingerprints of keys, 8 bytes each, as a lease may hold a million.
    pub(super) kept: HashMap<u64, HashSet<u64>>,
    /// Leases of which others may have what they keep.
    pub(super) shared: HashSet<u64>,
    /// Sets of leases that ended during a sweep.
    pub(super) ended: Vec<HashSet<u64>>,
    /// Sweeps going on.
    pub(super) sweeps: usize,
    /// Names leases.
    pub(super) last_lease: u64,
}

impl Fresh {
    /// Whether a record that was written has not been punched since.
    fn is_there(&self, (key, entry): &(Key, Entry)) -> bool {
        self.written.get(key) == Some(entry) || self.hidden.contains_key(&entry.spot)
    }
}

/// Records up to this length, with their header, are read before they are built on.
pub(super) const SHORT: u64 = 64 << 10;

/// Why a record is found by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hidden {
    /// It failed its proof. It is punched when it has been stored anew.
    Bad,
    /// It is about to be punched.
    Retired,
}

impl Catalog {
    pub(super) fn new(
        key: StoreKey,
        segments: Segments,
        index: Index,
        space: Arc<Space>,
        damage: mpsc::Sender<Damage>,
    ) -> Self {
        Self { key, segments, index, space, fresh: Mutex::default(), damage, misses: AtomicBool::new(false) }
    }

    pub(super) fn fresh(&self) -> MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a part of the segments could not be read. No checkpoint is written any more, so that the next start
    /// looks again.
    pub(super) fn miss(&self) {
        self.misses.store(true, Ordering::Release);
        if let Err(error) = self.index.drop_checkpoint() {
            tracing::warn!(%error, "the index fails");
        }
    }

    /// Whether all of the segments could be read.
    pub(super) fn has_all(&self) -> bool {
        !self.misses.load(Ordering::Acquire)
    }

    /// Where a record is said to be.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let fresh = self.fresh();
        if let Some(entry) = fresh.written.get(key) {
            return Ok(Some(*entry));
        }
        drop(fresh);
        let entry = self.index.get(key)?;
        Ok(entry.filter(|entry| !self.fresh().hidden.contains_key(&entry.spot)))
    }

    /// Whether the record is written and not yet entered in the index.
    pub(super) fn is_fresh(&self, key: &Key) -> bool {
        self.fresh().written.contains_key(key)
    }

    /// Where a record is: its header has been read on disk, so that a stale index cannot pass for a record.
    /// Records of this run that are not yet in the index need no proof.
    pub(super) fn prove(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(entry) = self.find(key)? else { return Ok(None) };
        if self.is_fresh(key) || self.is_sound(key, &entry)? {
            return Ok(Some(entry));
        }
        tracing::warn!(record = ?key, "the index names a record that is not there, or not all of it");
        self.damaged(key, &entry);
        Ok(None)
    }

    /// Whether a record can be built on: a short one is read, since to look for a hole behind it may cost as much as
    /// all that follows it in its file is long; of others see [`Catalog::is_there`].
    fn is_sound(&self, key: &Key, entry: &Entry) -> Result<bool, Error> {
        if entry.payload_end() > SHORT {
            return self.is_there(key, entry);
        }
        Ok(self.is_good(key, entry)? == Some(true))
    }

    /// Whether the disk has this record: its header, and no hole behind it that a crash left of its removal. Its
    /// payload is not read.
    pub(super) fn is_there(&self, key: &Key, entry: &Entry) -> Result<bool, Error> {
        if self.named_header(key, entry)?.is_none() {
            return Ok(false);
        }
        let Some(segment) = self.segments.get(entry.spot.segment) else { return Ok(false) };
        let file = self.segments.file(&segment).map_err(Error::io("open a segment"))?;
        let offset = u64::from(entry.spot.offset);
        let hole = file.next_hole(offset).map_err(Error::io("look for holes"))?;
        Ok(hole >= offset + entry.payload_end())
    }

    /// Whether a record, or what a crash left of its removal, takes room there; also when its header cannot be read, so
    /// that nobody can tell.
    pub(super) fn may_be_there(&self, key: &Key, entry: &Entry) -> Result<bool, Error> {
        match self.header(entry) {
            Err(error) if is_lost(&error) => Ok(true),
            _ => self.has_header(key, entry),
        }
    }

    /// Whether the disk has a record's header.
    pub(super) fn has_header(&self, key: &Key, entry: &Entry) -> Result<bool, Error> {
        Ok(self.named_header(key, entry)?.is_some())
    }

    /// The header where an entry points to, when it is this record's.
    fn named_header(&self, key: &Key, entry: &Entry) -> Result<Option<Header>, Error> {
        let header = self.readable_header(entry)?;
        Ok(header.filter(|header| header.key == *key && header.length == entry.length))
    }

    /// Whether a record is there, and its payload what its header says; `None` when the disk does not give it. Reads
    /// it.
    pub(super) fn is_good(&self, key: &Key, entry: &Entry) -> Result<Option<bool>, Error> {
        let header = match self.header(entry) {
            Err(error) if is_lost(&error) => return Ok(None),
            header => header.map_err(Error::io("read a record's header"))?,
        };
        let header = header.filter(|header| header.key == *key && header.length == entry.length);
        let (Some(header), Some(segment)) = (header, self.segments.get(entry.spot.segment)) else {
            return Ok(Some(false));
        };
        match self.payload(&segment, entry) {
            Ok(payload) => Ok(Some(header.proves(payload))),
            Err(error) if is_lost(&error) => Ok(None),
            Err(error) => Err(Error::io("read a record")(error)),
        }
    }

    /// A record with its payload, proved; `None` when it is bad.
    pub(super) fn load(&self, entry: &Entry) -> Result<Option<Record>, Error> {
        let header = self.header(entry).map_err(Error::io("read a record's header"))?;
        let Some(header) = header else { return Ok(None) };
        let Some(segment) = self.segments.get(entry.spot.segment) else { return Ok(None) };
        let payload = self.payload(&segment, entry).map_err(Error::io("read a record"))?;
        Ok(Record::again(header, payload))
    }

    /// As [`Catalog::header`]; one that the disk does not give is none.
    pub(super) fn readable_header(&self, entry: &Entry) -> Result<Option<Header>, Error> {
        match self.header(entry) {
            Err(error) if is_lost(&error) => Ok(None),
            header => header.map_err(Error::io("read a record's header")),
        }
    }

    /// The header that is on disk where an entry points to.
    fn header(&self, entry: &Entry) -> std::io::Result<Option<Header>> {
        let Some(segment) = self.segments.get(entry.spot.segment) else { return Ok(None) };
        let offset = u64::from(entry.spot.offset);
        let file = match self.segments.file(&segment) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let block = file.read_at(offset, BLOCK_SIZE)?;
        Ok(Header::read(&block, &self.key, entry.spot.segment, offset))
    }

    /// Reads a record and has it proved by `prove`. `None`: not there, or damaged, which has been told.
    ///
    /// A sector that cannot be read is damage as well. Other failures (no descriptors left, no memory) say nothing
    /// about the record: it stays known.
    pub(super) fn read<T>(
        &self,
        key: &Key,
        prove: impl Fn(Bytes, &Entry) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let load = |segment: &Arc<Segment>, entry: &Entry| self.payload(segment, entry).map(Some);
        self.read_by(key, load, prove)
    }

    /// As [`Catalog::read`], of a record whose header has a digest of its payload: what is not what was written is
    /// damaged, whatever `prove` would say. It is told whether the header vouches for the bytes: then they are the very
    /// ones that were proved when they were put.
    pub(super) fn read_back<T>(
        &self,
        key: &Key,
        prove: impl Fn(Bytes, bool) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let load = |segment: &Arc<Segment>, entry: &Entry| self.digested(key, segment, entry);
        self.read_by(key, load, |(bytes, vouched), _| prove(bytes, vouched))
    }

    /// A payload that is what the digest in its header says, and whether that header is as it was written.
    fn digested(
        &self,
        key: &Key,
        segment: &Arc<Segment>,
        entry: &Entry,
    ) -> std::io::Result<Option<(Bytes, bool)>> {
        if entry.zero {
            return Ok(None);
        }
        let offset = u64::from(entry.spot.offset);
        // At most a block.
        let at = usize::try_from(payload_at(entry.length)).unwrap_or(BLOCK_SIZE);
        let length = (entry.length as usize).min(CHUNK);
        let mut block = self.segments.file(segment)?.read_at(offset, at + length)?;
        let payload = block.split_off(at.min(block.len()));
        if Header::digest_in(&block).is_none_or(|digest| blake3::hash(&payload) != digest) {
            return Ok(None);
        }
        let header = Header::read(&block, &self.key, segment.number, offset);
        let vouched = header.is_some_and(|header| header.key == *key && header.length == entry.length);
        Ok(Some((payload, vouched)))
    }

    fn read_by<P, T>(
        &self,
        key: &Key,
        load: impl Fn(&Arc<Segment>, &Entry) -> std::io::Result<Option<P>>,
        prove: impl Fn(P, &Entry) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        while let Some(entry) = self.find(key)? {
            let Some(segment) = self.segments.get(entry.spot.segment) else {
                // Either it was unlinked since, or the file has been lost.
                if self.find(key)? != Some(entry) {
                    continue;
                }
                self.damaged(key, &entry);
                return Ok(None);
            };
            let guard = segment.reading();
            // Since it was looked up it may have been punched; from here on it is not.
            if self.find(key)? != Some(entry) {
                continue;
            }
            let loaded = load(&segment, &entry);
            drop(guard);
            return match loaded {
                Ok(loaded) => {
                    let proved = loaded.and_then(|loaded| prove(loaded, &entry));
                    if proved.is_none() {
                        self.damaged(key, &entry);
                    }
                    Ok(proved)
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound || is_lost(&error) => {
                    self.damaged(key, &entry);
                    Ok(None)
                }
                Err(error) => Err(Error::io("read a record")(error)),
            };
        }
        Ok(None)
    }

    /// A record's payload as the disk has it; shorter when the file is.
    pub(super) fn payload(&self, segment: &Arc<Segment>, entry: &Entry) -> std::io::Result<Bytes> {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        let length = (entry.length as usize).min(CHUNK);
        if entry.zero {
            return Ok(Bytes::from_static(&ZEROS).slice(..length));
        }
        let offset = u64::from(entry.spot.offset) + payload_at(entry.length);
        self.segments.file(segment)?.read_at(offset, length)
    }

    /// Records that were just written: they can be read from now on.
    pub(super) fn written(&self, records: &[(Key, Entry)]) {
        let mut fresh = self.fresh();
        fresh.written.extend(records.iter().copied());
        drop(fresh);
        for (key, entry) in records {
            self.space.add(key, entry);
        }
    }

    /// What is on disk under the keys of these records, which are durable, besides them: bad records whose place they
    /// take, and those that were copied forward. Nobody finds these any more; they are to be punched before the new
    /// ones are entered, since the index can name one only.
    pub(super) fn replaced(&self, records: &[(Key, Entry)]) -> Result<Vec<(Key, Entry)>, Error> {
        let fresh = self.fresh();
        if fresh.hidden.is_empty() && fresh.stuck.is_empty() {
            // A record is written for one that is hidden, or copied out of a segment in which some are stuck.
            return Ok(Vec::new());
        }
        drop(fresh);
        let (mut last, mut old) = (HashMap::new(), Vec::new());
        for (key, entry) in records {
            old.extend(last.insert(*key, *entry).map(|before| (*key, before)));
        }
        for (key, entry) in &last {
            let named = self.index.get(key)?.filter(|named| named.spot != entry.spot);
            old.extend(named.map(|named| (*key, named)));
        }
        let loses_stuck = old.iter().any(|(key, entry)| self.is_stuck(key, entry));
        let mut fresh = self.fresh();
        old.retain(|(key, entry)| {
            // One that is retired is punched by whoever did.
            fresh.is_there(&(*key, last[key])) && fresh.hidden.get(&entry.spot) != Some(&Hidden::Retired)
        });
        for (_, entry) in &old {
            fresh.hidden.insert(entry.spot, Hidden::Retired);
        }
        drop(fresh);
        if loses_stuck {
            // It takes room, and the index will not name it any more.
            self.miss();
        }
        Ok(old)
    }

    /// Has the next start look for those that the index still names though they were to be punched, before another
    /// takes their name: it drops the checkpoint, and an index that loses just that does not have its sum.
    pub(super) fn look_again_for(&self, records: &[(Key, Entry)]) -> Result<(), Error> {
        for (key, entry) in records {
            if self.index.get(key)? == Some(*entry) {
                self.miss();
            }
        }
        Ok(())
    }

    /// Enters synced records in the index, those that are hidden as well: what is on disk is known, until it is
    /// punched.
    pub(super) fn enter(&self, records: &[(Key, Entry)], checkpoint: Spot) -> Result<(), Error> {
        let fresh = self.fresh();
        let there: Vec<_> = records.iter().filter(|record| fresh.is_there(record)).copied().collect();
        drop(fresh);
        self.index.enter(&there, self.has_all().then_some(checkpoint))?;
        let mut fresh = self.fresh();
        // Punched while they were being entered.
        let gone: Vec<_> = there.iter().filter(|record| !fresh.is_there(record)).copied().collect();
        for (key, entry) in &there {
            if fresh.written.get(key) == Some(entry) {
                fresh.written.remove(key);
            }
        }
        if fresh.written.is_empty() {
            // A large add leaves a large table.
            fresh.written.shrink_to(1024);
        }
        drop(fresh);
        self.index.forget(&gone)
    }
}
