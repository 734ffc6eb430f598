//! Leases: under which everything is written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::append::Put;
use super::draft::Draft;
use super::object::{NewObject, ObjectInfo, State};
use super::record::{Key, Kind, Record};
use super::room::Refused;
use super::space::Promise;
use super::{Error, Inner, now};
use crate::content::{Chunk, ChunkId, Manifest, ManifestPage, ManifestTop};
use crate::content::{ObjectId, ParityPage, ParityPart};

/// What can be put: only what a type proves.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// A chunk of an object.
    Chunk(Chunk),
    /// A parity chunk; its place is [`crate::content::Place::Root`].
    Parity(Chunk),
    /// The top of a manifest.
    Top(&'a ManifestTop),
    /// A page of a manifest: the top that proves it, its index, the page.
    Page(&'a ManifestTop, usize, &'a ManifestPage),
    /// A parity part.
    ParityPart(&'a ParityPart),
    /// A page of a parity part.
    ParityPage(&'a ParityPage),
}

/// Whether an object was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is here now, and was not, or not whole.
    Created,
    /// It was here already; its pin and its name were added where there were none.
    Present,
}

/// The name of an object's parity part for a code.
pub(super) fn parity_part_key(object: &ObjectId, codec: u8, k: u8, m: u8) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("casd 2026 parity part name 1");
    hasher.update(object.as_bytes()).update(&[codec, k, m]);
    Key { kind: Kind::ParityPart, id: *hasher.finalize().as_bytes() }
}

impl Item<'_> {
    /// The record of it.
    pub(super) fn record(&self) -> Result<Record, Error> {
        let other = |kind, id, payload: Bytes| Record::other(Key { kind, id }, payload, now());
        Ok(match self {
            Self::Chunk(chunk) => Record::chunk(Kind::Data, chunk, now()),
            Self::Parity(chunk) => Record::chunk(Kind::Parity, chunk, now()),
            Self::Top(top) => other(Kind::Top, *top.id().as_bytes(), top.encode()),
            Self::Page(top, index, page) => {
                let fits = page.ids().len() == top.page_chunks(*index);
                let value = top.page_value(*index).filter(|_| fits);
                let value = value.ok_or(Error::Invalid("the page is not one of this manifest"))?;
                other(Kind::Page, value, page.encode())
            }
            Self::ParityPart(part) => {
                let claim = part.claim();
                let key = parity_part_key(&claim.object, claim.codec, claim.k, claim.m);
                Record::other(key, part.encode(), now())
            }
            Self::ParityPage(page) => other(Kind::ParityPage, page.digest(), page.encode()),
        })
    }
}

/// Protects what is put or held under it from removal, as long as it lives, and holds the room that was
/// reserved. Give it to as many tasks as needed, behind an `Arc`. Dropping it gives everything back; what was
/// stored stays for a day, so that a second try finds it.
pub struct Lease {
    pub(super) store: Arc<Inner>,
    /// Its name in the catalog.
    pub(super) id: u64,
    /// Room that is left of what was reserved.
    pub(super) room: Mutex<Promise>,
    /// The last ticket of what was put or held.
    ticket: AtomicU64,
    /// Set when there was no room for what was to come.
    pub(super) refused: Mutex<Option<Refused>>,
}

impl Lease {
    pub(super) fn new(store: Arc<Inner>) -> Self {
        let id = store.catalog.lease();
        let room = Mutex::new(Promise::none(Arc::clone(&store.catalog.space)));
        Self { store, id, room, ticket: AtomicU64::new(0), refused: Mutex::new(None) }
    }

    /// Others may have what this lease keeps: it is of something public that is being fetched.
    pub fn share(&self) {
        self.store.catalog.share(self.id);
    }

    /// Whether the chunk is here, and if so it stays while the lease lives: one operation. Its header is read
    /// from disk, its payload is not.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn hold(&self, id: &ChunkId) -> Result<bool, Error> {
        self.hold_key(Key::data(id)).await
    }

    /// As [`Lease::hold`], of many, in their order.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn hold_all(&self, ids: Vec<ChunkId>) -> Result<Vec<bool>, Error> {
        self.hold_keys(ids.iter().map(Key::data).collect()).await
    }

    /// As [`Lease::hold`], of a parity chunk.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn hold_parity(&self, id: &ChunkId) -> Result<bool, Error> {
        self.hold_key(Key::parity(id)).await
    }

    async fn hold_key(&self, key: Key) -> Result<bool, Error> {
        Ok(self.hold_keys(vec![key]).await? == [true])
    }

    /// Which of the records are here; those stay while the lease lives.
    pub(super) async fn hold_keys(&self, keys: Vec<Key>) -> Result<Vec<bool>, Error> {
        self.store.catalog.keep(self.id, &keys);
        let look = move |store: &Inner| {
            let there = keys.iter().map(|key| Ok(store.catalog.prove(key)?.is_some()));
            Ok::<_, Error>((there.collect::<Result<Vec<_>, Error>>()?, store.appender.ticket()))
        };
        let (there, ticket) = self.store.look_all(look).await?;
        self.ticket.fetch_max(ticket, Ordering::AcqRel);
        Ok(there)
    }

    /// Stores something unless it is here, and keeps it while the lease lives. It can be read at once; it is
    /// durable after [`Lease::sync`] or [`Lease::commit`]. Waits while too much is queued for the disk.
    ///
    /// # Errors
    /// [`Error::Quota`] or [`Error::DiskFull`] for what was not reserved, [`Error::ReadOnly`], [`Error::Io`],
    /// [`Error::Invalid`] for a page that does not belong to its top.
    pub async fn put(&self, item: Item<'_>) -> Result<Put, Error> {
        let record = item.record()?;
        drop(item);
        self.put_record(record).await
    }

    /// As [`Lease::put`], of many small things with one write. All of them are in memory meanwhile: a few MiB are
    /// right. After an error some may have been stored.
    ///
    /// # Errors
    /// As [`Lease::put`].
    pub async fn put_all(&self, items: Vec<Item<'_>>) -> Result<Vec<Put>, Error> {
        let records = items.iter().map(Item::record).collect::<Result<_, _>>()?;
        drop(items);
        self.put_records(records).await
    }

    /// As [`Lease::put`], of a record that is made already.
    pub(super) async fn put_record(&self, record: Record) -> Result<Put, Error> {
        Ok(if self.put_records(vec![record]).await? == [Put::New] { Put::New } else { Put::Already })
    }

    async fn put_records(&self, records: Vec<Record>) -> Result<Vec<Put>, Error> {
        let store = &self.store;
        let keys: Vec<Key> = records.iter().map(|record| record.header.key).collect();
        store.catalog.keep(self.id, &keys);
        store.whole().await?;
        let costs: Vec<u64> = records.iter().map(Record::cost).collect();
        let cost = costs.iter().sum();
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner).take(cost);
        if room.left() < cost {
            let promised = (!self.is_refused()).then(|| store.catalog.space.promise(cost - room.left()));
            match promised {
                Some(Ok(more)) => room.merge(more),
                Some(Err(error)) if !error.is_no_space() => return Err(error),
                _ => {
                    let cost = self.missing(keys, costs).await?;
                    if room.left() < cost {
                        room.merge(self.more(cost - room.left()).await?);
                    }
                }
            }
        }
        let (puts, ticket) = match store.appender.append(records, room).await {
            Ok(done) => done,
            Err(error) => return Err(store.explained(error).await),
        };
        self.ticket.fetch_max(ticket, Ordering::AcqRel);
        Ok(puts)
    }

    /// As [`Lease::hold`], of a manifest's top and all its pages.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn hold_manifest(&self, manifest: &Manifest) -> Result<bool, Error> {
        let top = manifest.top();
        let pages = (0..top.pages()).filter_map(|index| top.page_value(index));
        let pages = pages.map(|id| Key { kind: Kind::Page, id });
        let keys = pages.chain([Key { kind: Kind::Top, id: *top.id().as_bytes() }]).collect();
        Ok(self.hold_keys(keys).await?.into_iter().all(|there| there))
    }

    /// Puts a manifest's top and all its pages.
    ///
    /// # Errors
    /// As [`Lease::put`].
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        for (index, page) in manifest.pages().iter().enumerate() {
            self.put(Item::Page(manifest.top(), index, page)).await?;
        }
        self.put(Item::Top(manifest.top())).await.map(|_| ())
    }

    /// Waits until all that was put and held so far is durable. Callers that wait together share a sync.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] when the disk failed; nothing put since the last sync may be counted on then.
    pub async fn sync(&self) -> Result<(), Error> {
        self.store.appender.durable(self.ticket.load(Ordering::Acquire)).await
    }

    /// Enters the object. What was put is made durable first, then the journal's entry, then this answers. An
    /// object that is here already gets the pin, and the name and parity when it has none. Callers that wait together
    /// share the syncs.
    ///
    /// # Errors
    /// [`Error::Invalid`] when its only chunk, or the top of its manifest, is not here; [`Error::ReadOnly`],
    /// [`Error::DiskFull`], [`Error::Io`].
    pub async fn commit(&self, object: NewObject) -> Result<Committed, Error> {
        let committed = self.commit_all(vec![object]).await?;
        Ok(if committed == [Committed::Created] { Committed::Created } else { Committed::Present })
    }

    /// As [`Lease::commit`], of many objects: all of them or, after an error, none.
    ///
    /// # Errors
    /// As [`Lease::commit`].
    pub async fn commit_all(&self, objects: Vec<NewObject>) -> Result<Vec<Committed>, Error> {
        objects.iter().try_for_each(NewObject::check)?;
        self.store.require_first_records(&objects).await?;
        self.sync().await?;
        self.store.change(move |draft| enter(draft, objects)).await
    }

    /// Enters an object that is being fetched, durably: it is listed apart, and what of it is here is kept for
    /// a day, also over a restart. An object that is here stays as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`].
    pub async fn partial(&self, object: NewObject) -> Result<Committed, Error> {
        object.check()?;
        self.store
            .change(move |draft| {
                match draft.get(&object.id).cloned() {
                    Some(info) if info.state == State::Whole => Ok(Committed::Present),
                    Some(mut info) => {
                        // A second run begins the day anew.
                        info.added = object.now;
                        join(&mut info, object)?;
                        draft.set(info);
                        Ok(Committed::Present)
                    }
                    None => {
                        draft.set(object.into_info(State::Partial));
                        Ok(Committed::Created)
                    }
                }
            })
            .await
    }
}

/// Enters objects. Nothing is changed when one of them cannot be.
fn enter(draft: &mut Draft<'_>, objects: Vec<NewObject>) -> Result<Vec<Committed>, Error> {
    let (mut entered, mut committed) = (HashMap::new(), Vec::with_capacity(objects.len()));
    for object in objects {
        let id = object.id;
        let (info, what) = merged(entered.get(&id).or_else(|| draft.get(&id)), object)?;
        entered.extend(info.map(|info| (id, info)));
        committed.push(what);
    }
    entered.into_values().for_each(|info| draft.set(info));
    Ok(committed)
}

/// What becomes of an object when it is entered as a whole one, `None` where nothing changes.
pub(super) fn merged(
    old: Option<&ObjectInfo>,
    object: NewObject,
) -> Result<(Option<ObjectInfo>, Committed), Error> {
    let Some(mut info) = old.cloned() else {
        return Ok((Some(object.into_info(State::Whole)), Committed::Created));
    };
    let created = info.state == State::Partial;
    let changed = join(&mut info, object)?;
    info.state = State::Whole;
    let committed = if created { Committed::Created } else { Committed::Present };
    Ok(((changed || created).then_some(info), committed))
}

/// Adds to an object what a second add of it brings. Whether that was anything.
fn join(info: &mut ObjectInfo, new: NewObject) -> Result<bool, Error> {
    if info.length != new.length {
        return Err(Error::Invalid("the object is known with another length"));
    }
    if info.private != new.private {
        return Err(Error::Privacy { private: info.private });
    }
    let mut changed = match new.pin {
        Some(uid) => info.pin(uid, new.now)?,
        None => false,
    };
    if info.part && !new.part {
        // From now on it is here for its own sake.
        info.part = false;
        changed = true;
    }
    let name = new.name;
    if info.name.is_none() && name.is_some() {
        info.name.clone_from(&name);
        changed = true;
    }
    if info.parity.is_none() && new.parity.is_some() {
        info.parity = new.parity;
        changed = true;
    }
    if new.publish && !info.publish {
        info.publish = true;
        // Only the name that its publisher knows of may leave this node.
        info.name = name.or_else(|| info.name.take());
        changed = true;
    }
    Ok(changed)
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.store.catalog.end_lease(self.id) {
            self.store.ended.fetch_add(1, Ordering::AcqRel);
        }
    }
}
