//! Proving what is on disk, record by record, in the order of the disk; and which objects lack something.
//!
//! Owns: the walk. Refuses: to mend what it cannot prove (whoever walks does that), and to stand in anyone's way: a
//! record is read under the guard that every reader holds, and no longer. Survives a crash: nothing; a walk is begun
//! again at its [`Cursor`].
//!
//! What is walked is what the index names, not what headers say: so a record whose header rotted is found as well.
//! One whose payload can still be proved is stored anew at once. Before a segment is walked its cached pages are
//! dropped, so that the disk is asked and not the memory.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use bytes::Bytes;

use super::catalog::Damage;
use super::error::is_lost;
use super::handle::{Inner, Store};
use super::index::{Entry, Spot};
use super::object::ObjectInfo;
use super::record::{BLOCK_SIZE, Header, Key, Kind, Record};
use super::{Error, now};
use crate::content::{ChunkId, ChunkRef, ObjectId};

/// How far a walk is: records before it have been proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// A segment's number.
    pub segment: u32,
    /// Bytes from its beginning.
    pub offset: u32,
}

/// The name of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName {
    /// What it holds.
    pub kind: Kind,
    /// Its id among its kind.
    pub id: [u8; 32],
}

impl RecordName {
    fn key(self) -> Key {
        Key { kind: self.kind, id: self.id }
    }
}

impl From<&Damage> for RecordName {
    fn from(damage: &Damage) -> Self {
        Self { kind: damage.kind, id: damage.id }
    }
}

/// What a step of a walk came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proved {
    /// Bytes of records that were looked at: headers and payloads.
    pub bytes: u64,
    /// How many records.
    pub records: u64,
    /// Those that are not what they were, found by anyone. They are hidden and told of ([`Store::take_damage`]); of
    /// these some may have been stored anew.
    pub bad: Vec<Damage>,
}

/// Records with where they are said to be.
type Listed = Vec<(Key, Entry)>;

/// A walk over the whole store, or over what one object needs.
pub struct Scrub {
    store: Store,
    /// Listed, and not proved yet; in the order of the disk.
    queue: VecDeque<(Key, Entry)>,
    /// Where to list from when the queue is empty. `None`: nothing more is listed.
    next: Option<Cursor>,
}

impl Store {
    /// Begins to prove everything, from `from` on. Records that are written meanwhile may be left out.
    #[must_use]
    pub fn scrub(&self, from: Cursor) -> Scrub {
        Scrub { store: self.clone(), queue: VecDeque::new(), next: Some(from) }
    }

    /// Begins to prove the records that some objects need. `None`: there are no such objects. Reads their manifests.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`], [`Error::Closed`], [`Error::ReadOnly`].
    pub async fn scrub_objects(&self, ids: &BTreeSet<ObjectId>) -> Result<Option<Scrub>, Error> {
        self.inner.whole().await?;
        let infos: Vec<_> = ids.iter().filter_map(|id| self.object(id)).collect();
        if infos.is_empty() {
            return Ok(None);
        }
        let listed = self.blocking(move |inner| inner.records_of(&infos)).await?;
        Ok(Some(Scrub { store: self.clone(), queue: listed.into(), next: None }))
    }

    /// Those of these objects that lack records, with what they lack. Damage counts as lacking once it has been found.
    /// Reads their manifests.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`], [`Error::Closed`], [`Error::ReadOnly`].
    pub async fn lacking(
        &self,
        objects: Vec<ObjectInfo>,
    ) -> Result<Vec<(ObjectInfo, Vec<RecordName>)>, Error> {
        self.inner.whole().await?;
        self.blocking(move |inner| {
            let mut lacking = Vec::new();
            for info in objects {
                let missing = inner.missing(&info)?;
                // It may have been removed while it was looked at.
                if !missing.is_empty() && inner.ledger.contains(&info.id) {
                    lacking.push((info, missing));
                }
            }
            Ok(lacking)
        })
        .await
    }

    /// Whether these records are there, in their order, as far as the index knows.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub async fn are_there(&self, records: Vec<RecordName>) -> Result<Vec<bool>, Error> {
        let found = |inner: &Inner, name: &RecordName| inner.catalog.find(&name.key()).map(|e| e.is_some());
        self.blocking(move |inner| records.iter().map(|name| found(inner, name)).collect()).await
    }

    /// Gives back the room of damaged records. For those that nothing needs: what is damaged and needed stays on disk
    /// until it has been stored anew. Those that are good are left alone.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Io`], [`Error::Index`].
    pub async fn drop_damaged(&self, records: Vec<RecordName>) -> Result<(), Error> {
        self.blocking(move |inner| {
            let mut retired = Vec::new();
            for name in records {
                let key = name.key();
                retired.extend(inner.catalog.retire_bad(&key)?.map(|entry| (key, entry)));
            }
            inner.catalog.punch(retired, inner.appender.segment(), &inner.health).map(|_| ())
        })
        .await
    }
}

impl Scrub {
    /// Where to begin again if it ended here.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let listed = self.queue.front().map(|(_, entry)| entry.spot);
        let at = listed.map(|spot| Cursor { segment: spot.segment, offset: spot.offset });
        at.or(self.next).unwrap_or(Cursor { segment: u32::MAX, offset: u32::MAX })
    }

    /// Proves the next records: one at least, then as many as fit `budget` bytes. `None`: there are no more. What it
    /// holds in memory is a record, a list of the records in one segment, and what it stores anew.
    ///
    /// # Errors
    /// [`Error::Io`] for what says nothing of a record (no descriptors, no memory), [`Error::Index`]; and when a
    /// record is stored anew those of [`super::Lease::put`]. The records of the step are passed over then.
    pub async fn prove_next(&mut self, budget: u64) -> Result<Option<Proved>, Error> {
        self.store.inner.whole().await?;
        while self.queue.is_empty() {
            let Some(from) = self.next else { return Ok(None) };
            let listed = self.store.inner.walk(move |inner| inner.list_segment(from)).await?;
            (self.queue, self.next) = (listed.0.into(), listed.1);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((key, entry)) = self.queue.front().copied() {
            bytes += entry.footprint();
            if bytes > budget && !batch.is_empty() {
                break;
            }
            batch.push((key, entry));
            self.queue.pop_front();
        }
        let (proved, saved) = self.store.blocking(move |inner| inner.prove_all(&batch)).await?;
        if !saved.is_empty() {
            let lease = self.store.lease();
            for record in saved {
                lease.put_record(record).await?;
            }
            lease.sync().await?;
        }
        Ok(Some(proved))
    }
}

/// What a record turned out to be.
enum Finding {
    Good,
    /// It has been removed or replaced since it was listed.
    Gone,
    Bad,
    /// Bad where it is, and to be stored anew.
    Saved(Box<Record>),
}

impl Inner {
    /// The records that the index names in the segment of `from`, from there on, and the next segment that it names.
    fn list_segment(&self, from: Cursor) -> Result<(Listed, Option<Cursor>), Error> {
        let (mut listed, mut next) = (Vec::new(), None);
        self.catalog.index.each(|key, entry| {
            let Spot { segment, offset } = entry.spot;
            if segment == from.segment && offset >= from.offset {
                listed.push((key, entry));
            } else if segment > from.segment && next.is_none_or(|next| segment < next) {
                next = Some(segment);
            }
            Ok(())
        })?;
        listed.sort_unstable_by_key(|(_, entry)| entry.spot);
        if let Some(segment) = self.catalog.segments.get(from.segment).filter(|_| !listed.is_empty()) {
            // Where that fails, what is in memory is proved.
            let _ = self.catalog.segments.file(&segment).and_then(|file| file.drop_cache());
        }
        Ok((listed, next.map(|segment| Cursor { segment, offset: 0 })))
    }

    /// What the index names of what an object needs, in the order of the disk; what it does not name is lacking.
    fn records_of(&self, infos: &[ObjectInfo]) -> Result<Listed, Error> {
        let mut keys = Vec::new();
        for info in infos {
            self.references(info, |key| keys.push(key))?;
        }
        let mut listed = Vec::with_capacity(keys.len());
        for key in keys {
            listed.extend(self.catalog.index.get(&key)?.map(|entry| (key, entry)));
        }
        listed.sort_unstable_by_key(|(_, entry)| entry.spot);
        listed.dedup();
        Ok(listed)
    }

    fn missing(&self, info: &ObjectInfo) -> Result<Vec<RecordName>, Error> {
        let mut keys = Vec::new();
        // Reading a page may find it bad: whether it is there is asked behind that.
        self.references(info, |key| keys.push(key))?;
        let mut missing = Vec::new();
        for Key { kind, id } in keys {
            if self.catalog.find(&Key { kind, id })?.is_none() {
                missing.push(RecordName { kind, id });
            }
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    fn prove_all(&self, batch: &[(Key, Entry)]) -> Result<(Proved, Vec<Record>), Error> {
        let (mut proved, mut saved) = (Proved::default(), Vec::new());
        for (key, entry) in batch {
            let finding = self.prove_record(key, entry)?;
            proved.bytes += entry.footprint();
            proved.records += 1;
            if let Finding::Bad | Finding::Saved(_) = &finding {
                let Spot { segment, offset } = entry.spot;
                proved.bad.push(Damage { kind: key.kind, id: key.id, segment, offset });
            }
            if let Finding::Saved(record) = finding {
                saved.push(*record);
            }
        }
        Ok((proved, saved))
    }

    /// Proves one record, header and payload. One that is bad is hidden.
    fn prove_record(&self, key: &Key, entry: &Entry) -> Result<Finding, Error> {
        let catalog = &self.catalog;
        if catalog.is_bad(entry) {
            // Found by somebody else. Still bad, unless another has taken its place.
            let is_named = catalog.index.get(key)? == Some(*entry) && !catalog.is_fresh(key);
            return Ok(if is_named { Finding::Bad } else { Finding::Gone });
        }
        let Some(segment) = catalog.segments.get(entry.spot.segment) else {
            if catalog.find(key)? != Some(*entry) {
                return Ok(Finding::Gone);
            }
            catalog.damaged(key, entry);
            return Ok(Finding::Bad);
        };
        let guard = segment.reading();
        if catalog.find(key)? != Some(*entry) {
            return Ok(Finding::Gone);
        }
        let block = catalog.segments.file(&segment);
        let block = block.and_then(|file| file.read_at(entry.spot.offset.into(), BLOCK_SIZE));
        let payload = catalog.payload(&segment, entry);
        drop(guard);
        let (block, payload) = (lost(block)?, lost(payload)?);
        let header = block.as_ref().and_then(|block| {
            Header::read(block, &catalog.key, entry.spot.segment, entry.spot.offset.into())
        });
        let header = header.filter(|header| {
            header.key == *key
                && (header.length, header.place, header.zero) == (entry.length, entry.place, entry.zero)
        });
        let is_good = |payload: &Bytes| header.is_some_and(|header| header.proves(payload.clone()));
        if payload.as_ref().is_some_and(is_good) {
            return Ok(Finding::Good);
        }
        catalog.damaged(key, entry);
        let saved = payload
            .filter(|_| header.is_none())
            .and_then(|payload| save(key, entry, block.as_ref(), payload));
        Ok(saved.map_or(Finding::Bad, |record| Finding::Saved(Box::new(record))))
    }
}

/// A record made anew of a payload whose header rotted, if it can be proved without.
fn save(key: &Key, entry: &Entry, block: Option<&Bytes>, payload: Bytes) -> Option<Record> {
    if let Kind::Data | Kind::Parity = key.kind {
        let id = ChunkId::from_bytes(key.id);
        let chunk = ChunkRef { id, place: entry.place, length: entry.length }.verify(payload).ok()?;
        return Some(Record::chunk(key.kind, &chunk, now()));
    }
    // The digest has been spared, or it would not be the payload's.
    let is_whole = blake3::hash(&payload).as_bytes() == &Header::digest_in(block?)?;
    is_whole.then(|| Record::other(*key, payload, now()))
}

/// What the disk has; `None` when it is lost. Other failures say nothing about it.
fn lost(read: io::Result<Bytes>) -> Result<Option<Bytes>, Error> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if is_lost(&error) => Ok(None),
        Err(error) => Err(Error::io("read a record")(error)),
    }
}
