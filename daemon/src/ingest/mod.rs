//! The add path: a stream of bytes becomes chunks, parity and a manifest in the store, and then an object.
//!
//! Owns: the order of an add: chunks durable, then the manifest, then the journal's entry, then the answer. Refuses:
//! files and paths (whoever calls reads its own), and to announce (the caller does, after the answer). Survives a
//! crash: whatever was put is in the store under a lease of its own; without the journal's entry it is no
//! object, and running the add again stores nothing twice.
//!
//! ```text
//! write() ─▶ bounded channel ─▶ cut ─▶ hash (pool, in order) ─▶ store ─▶ parity of full stripes ─▶ store
//! ```

mod cut;
mod error;
mod feed;
mod pipeline;
mod stripes;
#[cfg(test)]
mod tests;
mod tree;

use bytes::Bytes;
use libp2p_identity::Keypair;

pub use error::Error;
pub use tree::{AddedTree, AddingTree, TreeOptions, TreePart};

use feed::Feed;

use crate::content::{Chunk, ObjectId, Place};
use crate::erasure::Geometry;
use crate::store::{Committed, Item, NewObject, Store};
use crate::support::pool::Pool;
use crate::support::task::Tasks;
use crate::support::unix_now;

/// What is to be added and how.
#[derive(Clone, Debug, Default)]
pub struct AddOptions {
    /// What people call it; leaves the node only with `publish`.
    pub name: Option<String>,
    /// Its length where the caller knows it: bounds the memory that parity needs, and is checked.
    pub length: Option<u64>,
    /// How many of its bytes are no holes, where the caller knows: what of it has no room is refused before it is sent.
    pub data: Option<u64>,
    /// The id where the caller knows it: another one is an error and adds nothing.
    pub expected: Option<ObjectId>,
    /// Parity to compute; `None` for none.
    pub parity: Option<Geometry>,
    /// Never announced, served, or placed.
    pub private: bool,
    /// Its name may leave the node.
    pub publish: bool,
    /// The user that pins it; `None` leaves it cached.
    pub pin: Option<u32>,
}

/// An object that the store has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its id.
    pub id: ObjectId,
    /// Its length.
    pub size: u64,
    /// Whether it is new here.
    pub created: bool,
    /// Whether it is never to be announced.
    pub private: bool,
}

/// The add path. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    /// Where hashing and encoding run.
    pool: Pool,
    /// Signs parity parts.
    key: Keypair,
    tasks: Tasks,
}

/// An add in progress. Dropping it ends the add: nothing becomes of it.
pub struct Adding(Feed<Added>);

impl Ingest {
    /// An add path into `store`.
    #[must_use]
    pub fn new(store: Store, pool: Pool, key: Keypair, tasks: Tasks) -> Self {
        Self { store, pool, key, tasks }
    }

    /// Begins an add.
    #[must_use]
    pub fn begin(&self, options: AddOptions) -> Adding {
        let ingest = self.clone();
        Adding(Feed::start(&self.tasks, |messages| pipeline::run(ingest, options, messages)))
    }

    /// Adds objects of at most one chunk each that are in memory already, with one write, one sync and one change of
    /// the journal. After an error nothing became an object.
    ///
    /// # Errors
    /// As [`Adding::finish`]; also when one has more bytes than a chunk.
    pub async fn add_small(&self, objects: Vec<(Bytes, AddOptions)>) -> Result<Vec<Added>, Error> {
        // A task of its own: a caller who is slow to ask for the answer is not to hold what others wait for.
        let done = self.tasks.spawn("add-small", self.clone().add_all_small(objects)).await;
        done.ok().flatten().unwrap_or(Err(Error::Stopping))
    }

    async fn add_all_small(self, objects: Vec<(Bytes, AddOptions)>) -> Result<Vec<Added>, Error> {
        let bytes: usize = objects.iter().map(|(bytes, _)| bytes.len()).sum();
        let hash = move || objects.into_iter().map(Small::hash).collect::<Result<Vec<_>, Error>>();
        // A few KiB hash faster than a thread is woken.
        let small = if bytes <= 16 << 10 { hash()? } else { self.pool.run(hash).await? };
        let chunks: Vec<_> = small.iter().filter_map(|small| small.chunk.clone()).map(Item::Chunk).collect();
        let mut added: Vec<_> = small.iter().map(|small| small.added.clone()).collect();
        // The empty object is always there, and never stored.
        let entries = small.into_iter().filter(|small| small.chunk.is_some());
        let entries: Vec<_> =
            entries.map(|small| new_object(small.added.id, small.added.size, None, &small.options)).collect();
        if entries.is_empty() {
            return Ok(added);
        }
        let lease = self.store.lease();
        lease.put_new(chunks).await?;
        let committed = lease.commit_all(entries).await?;
        let stored = added.iter_mut().filter(|added| added.id != ObjectId::EMPTY);
        for (added, committed) in stored.zip(committed) {
            added.created = committed == Committed::Created;
        }
        Ok(added)
    }

    /// Hashes an object of at most one chunk.
    async fn only_chunk(&self, bytes: Bytes) -> Result<Chunk, Error> {
        let is_short = bytes.len() <= 16 << 10;
        let hash = move || Chunk::compute(Place::Root, bytes).map_err(crate::content::Error::from);
        // A few KiB hash faster than a thread is woken.
        Ok(if is_short { hash()? } else { self.pool.run(hash).await? })
    }
}

/// A small object on its way.
struct Small {
    /// Its bytes, unless it is empty.
    chunk: Option<Chunk>,
    options: AddOptions,
    /// The answer before it is known whether it is new.
    added: Added,
}

impl Small {
    /// Hashes an object and checks it against what its caller says of it.
    fn hash((bytes, options): (Bytes, AddOptions)) -> Result<Self, Error> {
        let size = bytes.len() as u64;
        if let Some(said) = options.length.filter(|said| *said != size) {
            return Err(Error::Length { said, got: size });
        }
        let hash = |bytes| Chunk::compute(Place::Root, bytes).map_err(crate::content::Error::from);
        let chunk = if bytes.is_empty() { None } else { Some(hash(bytes)?) };
        let id = chunk.as_ref().map_or(ObjectId::EMPTY, |chunk| ObjectId::from_bytes(*chunk.id().as_bytes()));
        let added = Added::known(id, size, &options)?;
        Ok(Self { chunk, options, added })
    }
}

impl Added {
    /// The answer for `id` before it is known whether it is new.
    fn known(id: ObjectId, size: u64, options: &AddOptions) -> Result<Self, Error> {
        match options.expected {
            Some(expected) if expected != id => Err(Error::NotExpected { expected, got: id }),
            _ => Ok(Self { id, size, created: false, private: options.private }),
        }
    }
}

/// The journal's entry for an object that was added with these options.
fn new_object(id: ObjectId, length: u64, parity: Option<Geometry>, options: &AddOptions) -> NewObject {
    NewObject {
        name: options.name.clone(),
        parity: parity.map(|geometry| (geometry.k(), geometry.m())),
        private: options.private,
        publish: options.publish,
        pin: options.pin,
        ..NewObject::new(id, length, unix_now())
    }
}

impl Adding {
    /// Hands over the next bytes. Waits when the store is slower than the caller.
    ///
    /// # Errors
    /// Whatever ended the add meanwhile.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.0.write(bytes).await
    }

    /// Ends the stream, whose length must be what was written, and waits until the object is durable.
    ///
    /// # Errors
    /// [`Error`]; nothing became an object then.
    pub async fn finish(self, length: u64) -> Result<Added, Error> {
        self.0.finish(length).await
    }
}
