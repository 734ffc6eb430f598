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
mod pipeline;
mod stripes;

use bytes::Bytes;
use libp2p_identity::Keypair;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use error::Error;

use crate::content::{Chunk, ObjectId, Place};
use crate::erasure::Geometry;
use crate::store::{Committed, Item, NewObject, Store};
use crate::support::pool::Pool;
use crate::support::task::Tasks;
use crate::support::unix_now;

/// Messages on their way into a pipeline: with messages of 1 MiB, 4 MiB of memory an add.
const QUEUE: usize = 4;

/// What is to be added and how.
#[derive(Clone, Debug, Default)]
pub struct AddOptions {
    /// What people call it; never leaves the node by itself.
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
pub struct Adding {
    /// To the pipeline; bounded, so a slow disk slows the caller.
    input: mpsc::Sender<Input>,
    /// The pipeline, which ends with the result.
    done: JoinHandle<Option<Result<Added, Error>>>,
}

/// What a caller tells its pipeline.
enum Input {
    Data(Bytes),
    /// The end, with the length that the caller counted.
    Finish(u64),
}

impl Ingest {
    /// An add path into `store`.
    #[must_use]
    pub fn new(store: Store, pool: Pool, key: Keypair, tasks: Tasks) -> Self {
        Self { store, pool, key, tasks }
    }

    /// Begins an add.
    #[must_use]
    pub fn begin(&self, options: AddOptions) -> Adding {
        let (input, messages) = mpsc::channel(QUEUE);
        let done = self.tasks.spawn("add", pipeline::run(self.clone(), options, messages));
        Adding { input, done }
    }

    /// Adds an object of at most one chunk that is in memory already. Many may run at once: they share their syncs.
    ///
    /// # Errors
    /// As [`Adding::finish`]; also when `bytes` are more than a chunk.
    pub async fn add_small(&self, bytes: Bytes, options: AddOptions) -> Result<Added, Error> {
        let size = bytes.len() as u64;
        if let Some(said) = options.length.filter(|said| *said != size) {
            return Err(Error::Length { said, got: size });
        }
        if bytes.is_empty() {
            return Added::known(ObjectId::EMPTY, 0, &options);
        }
        let hash = move || Chunk::compute(Place::Root, bytes).map_err(crate::content::Error::from);
        // A few KiB hash faster than a thread is woken.
        let chunk = if size <= 16 << 10 { hash()? } else { self.pool.run(hash).await? };
        self.commit_single(chunk, options).await
    }

    /// Stores the only chunk of an object and makes it an object.
    async fn commit_single(&self, chunk: Chunk, options: AddOptions) -> Result<Added, Error> {
        let id = ObjectId::from_bytes(*chunk.id().as_bytes());
        let size = chunk.bytes().len() as u64;
        let known = Added::known(id, size, &options)?;
        let lease = self.store.lease();
        lease.put(Item::Chunk(chunk)).await?;
        let created = lease.commit(new_object(id, size, None, &options)).await? == Committed::Created;
        Ok(Added { created, ..known })
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
        if self.input.send(Input::Data(bytes)).await.is_err() {
            return Err(self.failure().await);
        }
        Ok(())
    }

    /// Ends the stream, whose length must be what was written, and waits until the object is durable.
    ///
    /// # Errors
    /// [`Error`]; nothing became an object then.
    pub async fn finish(mut self, length: u64) -> Result<Added, Error> {
        if self.input.send(Input::Finish(length)).await.is_err() {
            return Err(self.failure().await);
        }
        (&mut self.done).await.ok().flatten().unwrap_or(Err(Error::Stopping))
    }

    /// Why the pipeline ended before its input did.
    async fn failure(&mut self) -> Error {
        match (&mut self.done).await.ok().flatten() {
            Some(Err(error)) => error,
            _ => Error::Stopping,
        }
    }
}
