//! The give path: what peers may have, and how fast.
//!
//! Owns: slots and rates, and that only public objects exist for others. Refuses: to give a byte that was not read and
//! verified for this answer, a chunk of which no public object is known, and parity that this node did not compute.
//! Survives a crash: nothing.

mod visitors;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::content::{CHUNK_LEN, Chunk, ChunkRef, Manifest, ManifestTop, ObjectId, Place};
use crate::peer::PeerId;
use crate::session::{Answer, Board, Giver, Snapshot, Subscription};
use crate::store::{self, State, Store};
use crate::support::rate::Limiter;

pub use visitors::{Visit, Visitor, Visitors};

/// How giving is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Chunks on their way to others beside one for each session: 1 MiB of memory each until it is sent.
    pub slots: usize,
    /// `transfer.upload_per_peer`: bytes a second to each, 0 for no limit.
    pub per_peer: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { slots: 32, per_peer: 0 }
    }
}

/// Manifests kept in memory for peers that ask: a few busy objects.
const MANIFESTS: usize = 8;

/// Chunks that are looked for at once for a subscriber, who may ask for the longest object there is, and many of them.
const STRETCH: usize = 2048;

/// Bytes that go out at once at least, where there are so many: their head is 0.3 % of them.
const LEAST: usize = 4 << 10;

/// Peers whose rate is limited one by one; the least recent give way.
const PEERS: usize = 1024;

/// Answers peers from the store.
pub struct Serve {
    store: Store,
    /// Tells subscribers of chunks that come.
    board: Board,
    options: Options,
    slots: Arc<Semaphore>,
    upload: Arc<Limiter>,
    /// Only where there is a limit for each.
    per_peer: Mutex<HashMap<PeerId, Arc<Limiter>>>,
    visitors: Visitors,
    /// Lately used, the latest last.
    manifests: Mutex<Vec<Arc<Manifest>>>,
}

impl Serve {
    /// A give path from `store`; `upload` is the rate of all peers together.
    #[must_use]
    pub fn new(options: Options, store: Store, board: Board, upload: Arc<Limiter>) -> Self {
        Self {
            visitors: Visitors::default(),
            slots: Arc::new(Semaphore::new(options.slots.max(1))),
            upload,
            per_peer: Mutex::default(),
            manifests: Mutex::default(),
            store,
            board,
            options,
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

    async fn give_chunk(&self, chunk: ChunkRef) -> Answer<Chunk> {
        if told(self.store.is_public(&chunk).await) != Some(true) {
            return Answer::NotFound;
        }
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

    fn limiter(&self, peer: PeerId) -> Arc<Limiter> {
        let mut limiters = self.per_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if limiters.len() >= PEERS && !limiters.contains_key(&peer) {
            limiters.retain(|_, limiter| Arc::strong_count(limiter) > 1);
        }
        Arc::clone(limiters.entry(peer).or_insert_with(|| Arc::new(Limiter::new(self.options.per_peer))))
    }
}

/// How many of `most` bytes go out at once at a rate of so many a second, 0 for no limit: a 64th of a second's worth,
/// so that none of those who share the rate hears nothing for long and takes this node for silent.
fn portion(most: usize, rate: u64) -> usize {
    let share = usize::try_from(rate / 64).unwrap_or(usize::MAX).max(LEAST);
    if rate == 0 { most } else { most.min(share) }
}

/// What the store said; a failing disk is no answer to a peer, and the store has logged it.
fn told<T>(result: Result<T, store::Error>) -> Option<T> {
    result.inspect_err(|error| tracing::debug!(%error, "cannot answer a peer")).ok()
}

/// An answer of something that is there or not.
fn answer<T>(found: Option<T>) -> Answer<T> {
    found.map_or(Answer::NotFound, Answer::Found)
}

impl Giver for Serve {
    fn top(&self, _: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        Box::pin(async move { answer(self.give_top(object).await) })
    }

    fn page(&self, _: PeerId, object: ObjectId, index: u32) -> BoxFuture<'_, Answer<Bytes>> {
        Box::pin(async move {
            let manifest = self.manifest(&object).await;
            answer(manifest.and_then(|manifest| Some(manifest.pages().get(index as usize)?.encode())))
        })
    }

    fn parity(&self, _: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        Box::pin(async move { answer(self.give_parity(object).await) })
    }

    fn parity_page(&self, _: PeerId, object: ObjectId, digest: [u8; 32]) -> BoxFuture<'_, Answer<Bytes>> {
        Box::pin(async move { answer(self.give_parity_page(object, digest).await) })
    }

    fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    fn chunk(&self, _: PeerId, chunk: ChunkRef) -> BoxFuture<'_, Answer<Chunk>> {
        Box::pin(self.give_chunk(chunk))
    }

    fn resolve(&self, _: PeerId, object: ObjectId, index: u64) -> BoxFuture<'_, Option<ChunkRef>> {
        Box::pin(async move { self.manifest(&object).await?.chunk(index) })
    }

    fn haves(&self, _: PeerId, object: ObjectId) -> BoxFuture<'_, Option<Subscription>> {
        Box::pin(self.subscribe(object))
    }

    fn pace(&self, peer: PeerId, most: usize) -> BoxFuture<'_, usize> {
        Box::pin(async move {
            let own = (self.options.per_peer > 0).then(|| self.limiter(peer));
            let rates = [self.upload.rate(), own.as_ref().map_or(0, |own| own.rate())];
            let bytes = rates.into_iter().fold(most, portion);
            self.upload.take(bytes).await;
            if let Some(own) = own {
                own.take(bytes).await;
            }
            self.visitors.gave(peer, bytes);
            bytes
        })
    }
}
