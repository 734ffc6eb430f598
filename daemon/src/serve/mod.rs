//! The give path: what peers may have, and how fast.
//!
//! Owns: slots and rates, that only public objects exist for others, and that those who ask for the same one are told
//! of each other. Refuses: to give a byte that was not read and verified for this answer, a chunk of which no public
//! object is known, and parity that this node did not compute. Survives a crash: nothing.
//!
//! A chunk is given to whose turn it is (`slots`), read when no user's work goes first (`reads`), and goes out slice by
//! slice at the rates of the peer, of giving and of all (`bounds`).

mod bounds;
mod crowds;
mod reads;
mod slots;
mod visitors;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::content::{CHUNK_LEN, Chunk, ChunkRef, Manifest, ManifestTop, ObjectId, Place};
use crate::peer::PeerId;
use crate::session::{Answer, Board, Caller, Giver, Rumour, Snapshot, Subscription, Turn};
use crate::store::{self, State, Store};

pub use bounds::{Bounds, Giving};
pub use reads::Own;
pub use visitors::{Visit, Visitor, Visitors};

use crowds::Crowds;
use reads::Reads;

/// How giving is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Chunks on their way to others beside one for each session: 1 MiB of memory each until it is sent.
    pub ahead: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { ahead: 32 }
    }
}

/// Manifests kept in memory for peers that ask: a few busy objects.
const MANIFESTS: usize = 8;

/// Chunks that are looked for at once for a subscriber, who may ask for the longest object there is, and many of them.
const STRETCH: usize = 2048;

/// Answers peers from the store.
pub struct Serve {
    store: Store,
    /// Tells subscribers of chunks that come.
    board: Board,
    /// Room for chunks on their way.
    room: Arc<Semaphore>,
    /// How much is given, and to whom now.
    bounds: Bounds,
    reads: Reads,
    visitors: Visitors,
    /// Those who ask for the same objects.
    crowds: Crowds,
    /// Lately used, the latest last.
    manifests: Mutex<Vec<Arc<Manifest>>>,
}

impl Serve {
    /// A give path from `store`, within `bounds`.
    #[must_use]
    pub fn new(options: Options, store: Store, board: Board, bounds: Bounds) -> Self {
        Self {
            visitors: Visitors::default(),
            crowds: Crowds::default(),
            room: Arc::new(Semaphore::new(options.ahead.max(1))),
            reads: Reads::new(bounds.own().clone()),
            manifests: Mutex::default(),
            store,
            board,
            bounds,
        }
    }

    /// Who asks.
    #[must_use]
    pub fn visitors(&self) -> Visitors {
        self.visitors.clone()
    }

    /// Whether there is such an object for others.
    fn is_public(&self, object: &ObjectId) -> bool {
        self.store.object(object).is_some_and(|info| !info.private)
    }

    /// The manifest of a public object of more than a chunk.
    async fn manifest(&self, object: &ObjectId) -> Option<Arc<Manifest>> {
        if !self.is_public(object) {
            return None;
        }
        self.store.touch(object);
        if let Some(known) = self.recall(object) {
            return Some(known);
        }
        let manifest = Arc::new(told(self.store.manifest(object).await)??);
        let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        if manifests.len() == MANIFESTS {
            manifests.remove(0);
        }
        manifests.push(Arc::clone(&manifest));
        Some(manifest)
    }

    fn recall(&self, object: &ObjectId) -> Option<Arc<Manifest>> {
        let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        let at = manifests.iter().position(|manifest| manifest.id() == *object)?;
        let manifest = manifests.remove(at);
        manifests.push(Arc::clone(&manifest));
        Some(manifest)
    }

    async fn give_top(&self, object: ObjectId) -> Option<Bytes> {
        if let Some(manifest) = self.manifest(&object).await {
            return Some(manifest.top().encode());
        }
        let info = self.store.object(&object).filter(|info| !info.private && info.length <= CHUNK_LEN)?;
        let length = u32::try_from(info.length).ok()?;
        let chunk = ChunkRef { id: object.only_chunk(), place: Place::Root, length };
        ManifestTop::of_chunk(&told(self.store.chunk(&chunk).await)??).map(|top| top.encode())
    }

    async fn give_parity(&self, object: ObjectId) -> Option<Bytes> {
        let info = self.store.object(&object).filter(|info| !info.private)?;
        let (k, m) = info.parity?;
        told(self.store.parity_part(&object, k, m).await)?.map(|part| part.encode())
    }

    async fn give_parity_page(&self, object: ObjectId, digest: [u8; 32]) -> Option<Bytes> {
        let info = self.store.object(&object).filter(|info| !info.private)?;
        let (k, m) = info.parity?;
        let part = told(self.store.parity_part(&object, k, m).await)??;
        let index = part.pages().iter().position(|page| *page == digest)?;
        told(self.store.parity_page(&part, index).await)?.map(|page| page.encode())
    }

    async fn give_chunk(&self, peer: PeerId, chunk: ChunkRef) -> Answer<Chunk> {
        if told(self.store.is_public(&chunk).await) != Some(true) {
            return Answer::NotFound;
        }
        // Nothing is read for who would have to wait.
        if let Some(after) = self.bounds.ask(peer, self.visitors.host(&peer)) {
            return Answer::Busy(after);
        }
        // Others leave to it what they hear of: not what it is refused.
        self.spread(peer, &chunk);
        let _reading = self.reads.begin().await;
        match told(self.store.chunk(&chunk).await).flatten() {
            Some(chunk) => {
                // What is hashed plainly may be an object of its own; of others the manifest was asked for.
                if let Some(object) = chunk.id().whole_object(chunk.place()) {
                    self.store.touch(&object);
                }
                Answer::Found(chunk)
            }
            None => Answer::NotFound,
        }
    }

    /// Whoever asks for the same object as this peer hears which chunk of it the peer is to be given. That is known of
    /// objects whose manifests are in memory, which are those that are asked for.
    fn spread(&self, peer: PeerId, chunk: &ChunkRef) {
        if let Place::At(offset) = chunk.place {
            let index = offset / CHUNK_LEN;
            let stands_in = |manifest: Arc<Manifest>| manifest.chunk(index).as_ref() == Some(chunk);
            let is_of = |object: &ObjectId| self.recall(object).is_some_and(stands_in);
            self.crowds.asked(&peer, index, Instant::now(), is_of);
        }
    }

    async fn subscribe(&self, object: ObjectId) -> Option<Subscription> {
        let info = self.store.object(&object).filter(|info| !info.private)?;
        // Subscribed first: what comes while the snapshot is taken is told twice rather than never.
        let updates = self.board.subscribe(object);
        let Some(manifest) = self.manifest(&object).await else {
            let here = info.length <= CHUNK_LEN && self.store.has(&object.only_chunk());
            return here.then_some(Subscription { snapshot: Snapshot::Whole, updates });
        };
        let (bits, all) = self.held(&manifest).await;
        let is_whole = all && info.state == State::Whole;
        let snapshot = if is_whole { Snapshot::Whole } else { Snapshot::Partial(bits.into()) };
        Some(Subscription { snapshot, updates })
    }

    /// The chunks of an object that are here, as [`Snapshot::Partial`] tells of them, and whether these are all.
    async fn held(&self, manifest: &Manifest) -> (Vec<u8>, bool) {
        let (mut bits, mut all) = (Vec::new(), true);
        for first in (0..manifest.chunks()).step_by(STRETCH) {
            let indexes = (first..manifest.chunks()).take(STRETCH);
            let ids = indexes.clone().filter_map(|index| manifest.chunk(index)).map(|chunk| chunk.id);
            let stored = self.store.has_all(ids.collect()).await;
            let held = indexes.zip(stored).map(|(index, stored)| stored || manifest.is_zero(index));
            let held: Vec<bool> = held.collect();
            all &= held.iter().all(|held| *held);
            let byte =
                |eight: &[bool]| eight.iter().rev().fold(0u8, |byte, held| (byte << 1) | u8::from(*held));
            bits.extend(held.chunks(8).map(byte));
        }
        (bits, all)
    }

    /// A record for a peer, when the rates let it go. It waits for no turn: who has to know what there is can wait
    /// then.
    async fn record(&self, peer: PeerId, found: Option<Bytes>) -> Answer<Bytes> {
        let Some(bytes) = found else { return Answer::NotFound };
        self.bounds.take_record(peer, self.visitors.host(&peer), bytes.len()).await;
        Answer::Found(bytes)
    }
}

/// What the store said; a failing disk is no answer to a peer, and the store has logged it.
fn told<T>(result: Result<T, store::Error>) -> Option<T> {
    result.inspect_err(|error| tracing::debug!(%error, "cannot answer a peer")).ok()
}

impl Giver for Serve {
    fn top(&self, peer: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        Box::pin(async move { self.record(peer, self.give_top(object).await).await })
    }

    fn page(&self, peer: PeerId, object: ObjectId, index: u32) -> BoxFuture<'_, Answer<Bytes>> {
        Box::pin(async move {
            let manifest = self.manifest(&object).await;
            let page = manifest.and_then(|manifest| Some(manifest.pages().get(index as usize)?.encode()));
            self.record(peer, page).await
        })
    }

    fn parity(&self, peer: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        Box::pin(async move { self.record(peer, self.give_parity(object).await).await })
    }

    fn parity_page(&self, peer: PeerId, object: ObjectId, digest: [u8; 32]) -> BoxFuture<'_, Answer<Bytes>> {
        Box::pin(async move { self.record(peer, self.give_parity_page(object, digest).await).await })
    }

    fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    fn chunk(&self, peer: PeerId, chunk: ChunkRef) -> BoxFuture<'_, Answer<Chunk>> {
        Box::pin(self.give_chunk(peer, chunk))
    }

    fn resolve(&self, _: PeerId, object: ObjectId, index: u64) -> BoxFuture<'_, Option<ChunkRef>> {
        Box::pin(async move { self.manifest(&object).await?.chunk(index) })
    }

    fn haves(&self, _: PeerId, object: ObjectId) -> BoxFuture<'_, Option<Subscription>> {
        Box::pin(self.subscribe(object))
    }

    fn begin(&self, peer: PeerId) -> Result<Turn, Duration> {
        self.bounds.begin(peer, self.visitors.host(&peer))
    }

    fn crowd(&self, caller: Caller, object: ObjectId) -> Option<mpsc::Receiver<Rumour>> {
        let info = self.store.object(&object).filter(|info| !info.private)?;
        Some(self.crowds.enter(object, info.state == State::Whole, caller, Instant::now()))
    }

    fn pace(&self, peer: PeerId, most: usize) -> BoxFuture<'_, usize> {
        Box::pin(async move {
            let bytes = self.bounds.pace(peer, most).await;
            self.visitors.gave(peer, bytes);
            bytes
        })
    }
}
