//! Calls on the store, and what came of them.

use super::super::*;
use super::jobs::job;
use super::model::{Absent, THINGS, Thing, key};
use crate::store::record::Key;

/// One call on the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// For a user.
    Add(u32),
    /// An add that ends before its object is entered, and has what came made durable or not.
    Abandon(bool),
    /// A fetch for a user, or nobody: which of the object's chunks come, by bit; it ends when all are there.
    Fetch(Option<u32>, u8),
    /// By a user, as an administrator or not.
    Remove(u32, bool),
    Pin(u32),
    Unpin(u32),
    Read,
    /// A job for it is begun, or changed to this form.
    Job(u8),
    /// The job for it has brought it, or is cancelled.
    EndJob,
}

/// What a call gave.
#[derive(Debug)]
pub(super) enum Outcome {
    Removed(Removed),
    Is(bool),
    Read(Absent),
}

/// How far a call got.
#[derive(Debug)]
pub(super) struct Done {
    /// Records that were put and not there before.
    pub(super) new: Vec<Key>,
    /// Records that were put or held.
    pub(super) held: Vec<Key>,
    /// They are durable.
    pub(super) durable: bool,
    /// The object is entered as one that is being fetched.
    pub(super) begun: bool,
    /// The object is entered.
    pub(super) committed: bool,
    /// The journal was asked for something, so that an error says little.
    asked: bool,
    pub(super) result: Result<Option<Outcome>, Error>,
}

impl Done {
    /// Whether the call has changed nothing but what it has said.
    pub(super) fn is_sure(&self) -> bool {
        match &self.result {
            Ok(_) => true,
            // Refusals; what was written of the entry has been cut off.
            Err(Error::Quota(_) | Error::DiskFull(_) | Error::Invalid(_) | Error::Privacy { .. }) => true,
            Err(_) => !self.asked,
        }
    }
}

pub(super) async fn perform(store: &Store, thing: usize, act: Act) -> Done {
    let mut done = Done {
        new: Vec::new(),
        held: Vec::new(),
        durable: false,
        begun: false,
        committed: false,
        asked: false,
        result: Ok(None),
    };
    done.result = done.act(store, thing, act).await;
    done
}

impl Done {
    async fn act(&mut self, store: &Store, index: usize, act: Act) -> Result<Option<Outcome>, Error> {
        let thing = &THINGS[index];
        let id = thing.object.id;
        match act {
            Act::Add(uid) => {
                let lease = self.put_all(store, thing).await?;
                self.commit(&lease, NewObject { pin: Some(uid), now: now(), ..thing.object.clone() }).await?;
                return Ok(None);
            }
            Act::Abandon(syncs) => {
                let lease = self.put_all(store, thing).await?;
                if syncs {
                    lease.sync().await?;
                    self.durable = true;
                }
                return Ok(None);
            }
            Act::Fetch(uid, chunks) => {
                self.fetch(store, thing, uid, chunks).await?;
                return Ok(None);
            }
            _ => {}
        }
        self.asked = !matches!(act, Act::Read);
        Ok(Some(match act {
            Act::Remove(uid, admin) => Outcome::Removed(store.remove(&id, uid, admin).await?),
            Act::Pin(uid) => Outcome::Is(store.pin(&id, uid).await?),
            Act::Unpin(uid) => Outcome::Is(store.unpin(&id, uid).await?),
            Act::Job(form) => return store.set_job(job(index, form)).await.map(|()| None),
            Act::EndJob => return store.end_job(job(index, 0).number).await.map(|()| None),
            _ => Outcome::Read(thing.absent(store).await),
        }))
    }

    /// As an add does.
    async fn put_all(&mut self, store: &Store, thing: &Thing) -> Result<Lease, Error> {
        let lease = store.lease();
        lease.reserve(thing.object.length.min(1 << 20)).await?;
        for item in thing.chunk_items() {
            self.put(&lease, item).await?;
        }
        // With one write, as many small chunks are.
        let items: Vec<_> = thing.parity_items().into_iter().chain(thing.manifest_items()).collect();
        let keys: Vec<_> = items.iter().map(key).collect();
        let puts = lease.put_all(items).await?;
        self.new.extend(keys.iter().zip(puts).filter(|(_, put)| *put == Put::New).map(|(key, _)| key));
        self.held.extend(keys);
        Ok(lease)
    }

    /// As a fetch does. One that was cut short is gone on with.
    async fn fetch(
        &mut self,
        store: &Store,
        thing: &Thing,
        pin: Option<u32>,
        chunks: u8,
    ) -> Result<(), Error> {
        let object = NewObject { pin, now: now(), parity: None, ..thing.object.clone() };
        let lease = store.lease();
        for item in thing.manifest_items() {
            self.put(&lease, item).await?;
        }
        lease.reserve(thing.object.length.min(1 << 20)).await?;
        self.asked = true;
        lease.partial(object.clone()).await?;
        (self.asked, self.begun) = (false, true);
        let mut all = true;
        for (at, chunk) in thing.chunks.iter().enumerate() {
            if chunks >> (at % 8) & 1 == 1 {
                self.put(&lease, Item::Chunk(chunk.clone())).await?;
            } else if lease.hold(&chunk.id()).await? {
                self.held.push(Key::data(&chunk.id()));
            } else {
                all = false;
            }
        }
        lease.sync().await?;
        self.durable = true;
        if all { self.commit(&lease, object).await } else { Ok(()) }
    }

    async fn put(&mut self, lease: &Lease, item: Item<'_>) -> Result<(), Error> {
        let key = key(&item);
        let is_held = match &item {
            Item::Chunk(chunk) => lease.hold(&chunk.id()).await?,
            _ => false,
        };
        if !is_held && lease.put(item).await? == Put::New {
            self.new.push(key);
        }
        self.held.push(key);
        Ok(())
    }

    async fn commit(&mut self, lease: &Lease, object: NewObject) -> Result<(), Error> {
        self.asked = true;
        lease.commit(object).await?;
        (self.durable, self.committed) = (true, true);
        Ok(())
    }
}
