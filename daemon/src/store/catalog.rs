//! Which records there are, who needs them kept, and reading them.
//!
//! Owns: the index, the records that are written but not yet entered there, the sets that leases keep, and the
//! account of space. Refuses: giving out bytes that no proof was made of. Survives a crash: what the segments
//! hold; the rest is made from them.
//!
//! "Have it" and "keep it" are one operation under one lock, [`Catalog::retire`] takes the same lock: a record
//! that a lease was told of is never punched while the lease, or a sweep that began before its end, lives.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Error;
use super::index::{Entry, Index};
use super::record::{BLOCK_SIZE, Header, Key, Kind, StoreKey, payload_at};
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
    damage: mpsc::Sender<Damage>,
}

/// What is only in memory.
#[derive(Default)]
struct Fresh {
    /// Written, readable, and not yet in the index.
    written: HashMap<Key, Entry>,
    /// What live leases keep, by lease: fingerprints of keys, 8 bytes each, as a lease may hold a million.
    kept: HashMap<u64, HashSet<u64>>,
    /// Sets of leases that ended during a sweep.
    ended: Vec<HashSet<u64>>,
    /// Sweeps going on.
    sweeps: usize,
    /// Names leases.
    last_lease: u64,
}

impl Catalog {
    pub(super) fn new(
        key: StoreKey,
        segments: Segments,
        index: Index,
        space: Arc<Space>,
        damage: mpsc::Sender<Damage>,
    ) -> Self {
        Self { key, segments, index, space, fresh: Mutex::default(), damage }
    }

    fn fresh(&self) -> MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a record is said to be.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Entry>, Error> {
        if let Some(entry) = self.fresh().written.get(key) {
            return Ok(Some(*entry));
        }
        self.index.get(key)
    }

    /// Whether the record is written and not yet entered in the index.
    pub(super) fn is_fresh(&self, key: &Key) -> bool {
        self.fresh().written.contains_key(key)
    }

    /// Where a record is: its header has been read on disk, so that a stale index cannot pass for a record.
    /// Records of this run that are not yet in the index need no proof.
    pub(super) fn prove(&self, key: &Key) -> Result<Option<Entry>, Error> {
        if let Some(entry) = self.fresh().written.get(key) {
            return Ok(Some(*entry));
        }
        let Some(entry) = self.index.get(key)? else { return Ok(None) };
        match self.header(&entry)? {
            Some(header) if header.key == *key && header.length == entry.length => Ok(Some(entry)),
            _ => {
                tracing::warn!(record = ?key, "the index names a record that is not there; it is forgotten");
                self.forget(key, &entry)?;
                Ok(None)
            }
        }
    }

    /// The header that is on disk where an entry points to.
    pub(super) fn header(&self, entry: &Entry) -> Result<Option<Header>, Error> {
        let Some(segment) = self.segments.get(entry.spot.segment) else { return Ok(None) };
        let offset = u64::from(entry.spot.offset);
        let file = match self.segments.file(&segment) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open a segment")(error)),
        };
        let block = file.read_at(offset, BLOCK_SIZE).map_err(Error::io("read a record's header"))?;
        Ok(Header::read(&block, &self.key, entry.spot.segment, offset))
    }

    /// Reads a record and has it proved by `prove`. `None`: not there, or damaged, which has been told.
    ///
    /// A sector that cannot be read is an error the first time; then the record counts as missing, so that it can be
    /// healed. Other failures (no descriptors left, no memory) say nothing about the record: it stays known.
    pub(super) fn read<T>(
        &self,
        key: &Key,
        prove: impl Fn(Bytes, &Entry) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        while let Some(entry) = self.find(key)? {
            let Some(segment) = self.segments.get(entry.spot.segment) else {
                // Either it was unlinked since, or the file has been lost.
                if self.find(key)? != Some(entry) {
                    continue;
                }
                self.damaged(key, &entry)?;
                return Ok(None);
            };
            let guard = segment.reading();
            // Since it was looked up it may have been punched; from here on it is not.
            if self.find(key)? != Some(entry) {
                continue;
            }
            let bytes = self.payload(&segment, &entry);
            drop(guard);
            return match bytes {
                Ok(bytes) => {
                    let proved = prove(bytes, &entry);
                    if proved.is_none() {
                        self.damaged(key, &entry)?;
                    }
                    Ok(proved)
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.damaged(key, &entry)?;
                    Ok(None)
                }
                Err(error) => {
                    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
                        self.damaged(key, &entry)?;
                    }
                    Err(Error::io("read a record")(error))
                }
            };
        }
        Ok(None)
    }

    /// A record's payload as the disk has it; shorter when the file is.
    fn payload(&self, segment: &Arc<Segment>, entry: &Entry) -> std::io::Result<Bytes> {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        let length = (entry.length as usize).min(CHUNK);
        if entry.zero {
            return Ok(Bytes::from_static(&ZEROS).slice(..length));
        }
        let offset = u64::from(entry.spot.offset) + payload_at(entry.length);
        self.segments.file(segment)?.read_at(offset, length)
    }

    /// A record failed: it is forgotten and told of.
    fn damaged(&self, key: &Key, entry: &Entry) -> Result<(), Error> {
        self.forget(key, entry)?;
        let (segment, offset) = (entry.spot.segment, entry.spot.offset);
        let damage = Damage { kind: key.kind, id: key.id, segment, offset };
        // A full queue drops it: whoever reads the record next misses it, and a scrub finds it.
        let _ = self.damage.try_send(damage);
        Ok(())
    }

    /// Takes a record out of what is known, when it is still at this place.
    pub(super) fn forget(&self, key: &Key, entry: &Entry) -> Result<(), Error> {
        let mut fresh = self.fresh();
        let was_fresh = fresh.written.get(key) == Some(entry);
        if was_fresh {
            fresh.written.remove(key);
        }
        let known = was_fresh || self.index.get(key)? == Some(*entry);
        self.index.forget(key, entry)?;
        drop(fresh);
        if known {
            self.space.subtract(entry);
        }
        Ok(())
    }

    /// Records that were just written: they can be read from now on.
    pub(super) fn written(&self, records: &[(Key, Entry)]) {
        let mut fresh = self.fresh();
        fresh.written.extend(records.iter().copied());
        drop(fresh);
        for (_, entry) in records {
            self.space.add(entry);
        }
    }

    /// Enters synced records in the index. Those that were forgotten meanwhile stay out.
    pub(super) fn enter(
        &self,
        records: &[(Key, Entry)],
        checkpoint: super::index::Spot,
    ) -> Result<(), Error> {
        let fresh = self.fresh();
        let live: Vec<_> =
            records.iter().filter(|(key, entry)| fresh.written.get(key) == Some(entry)).copied().collect();
        drop(fresh);
        self.index.enter(&live, Some(checkpoint))?;
        let mut fresh = self.fresh();
        for (key, entry) in &live {
            if fresh.written.get(key) == Some(entry) {
                fresh.written.remove(key);
            } else {
                // Forgotten while it was being entered.
                self.index.forget(key, entry)?;
            }
        }
        if fresh.written.is_empty() {
            // A large add leaves a large table.
            fresh.written.shrink_to(1024);
        }
        Ok(())
    }

    /// A new lease's name.
    pub(super) fn lease(&self) -> u64 {
        let mut fresh = self.fresh();
        fresh.last_lease += 1;
        let lease = fresh.last_lease;
        fresh.kept.insert(lease, HashSet::new());
        lease
    }

    /// Keeps a record, whether it is there or about to be, as long as the lease lives.
    pub(super) fn keep(&self, lease: u64, key: &Key) {
        if let Some(kept) = self.fresh().kept.get_mut(&lease) {
            kept.insert(key.fingerprint());
        }
    }

    /// Ends a lease. What it kept is kept to the end of sweeps that are going on: they may have looked at the
    /// objects before the one that was committed under this lease.
    pub(super) fn end_lease(&self, lease: u64) {
        let mut fresh = self.fresh();
        let kept = fresh.kept.remove(&lease);
        if fresh.sweeps > 0 {
            fresh.ended.extend(kept);
        }
    }

    /// Begins a sweep; must come before looking at what is referenced.
    pub(super) fn sweep(&self) -> Sweep<'_> {
        self.fresh().sweeps += 1;
        Sweep(self)
    }

    /// Takes a record out of what is known unless a lease keeps it: after this no one finds it, and it may be
    /// punched. Gives where it is.
    fn retire(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let mut fresh = self.fresh();
        let print = key.fingerprint();
        if fresh.kept.values().chain(&fresh.ended).any(|kept| kept.contains(&print)) {
            return Ok(None);
        }
        let entry = match fresh.written.remove(key) {
            Some(entry) => Some(entry),
            None => self.index.get(key)?,
        };
        if let Some(entry) = &entry {
            self.index.forget(key, entry)?;
            self.space.subtract(entry);
        }
        Ok(entry)
    }

    /// Whether a lease keeps the record.
    pub(super) fn is_kept(&self, key: &Key) -> bool {
        let fresh = self.fresh();
        let print = key.fingerprint();
        fresh.kept.values().chain(&fresh.ended).any(|kept| kept.contains(&print))
    }
}

/// A removal going on.
pub(super) struct Sweep<'a>(&'a Catalog);

impl Sweep<'_> {
    /// See [`Catalog::retire`].
    pub(super) fn retire(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.0.retire(key)
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        let mut fresh = self.0.fresh();
        fresh.sweeps -= 1;
        if fresh.sweeps == 0 {
            fresh.ended.clear();
        }
    }
}
