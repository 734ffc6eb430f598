//! What a node must be able to do to be asked.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::frames::MAX_BITMAP;
use super::{Answer, Fellow, Have};
use crate::content::{Chunk, ChunkRef, ObjectId};
use crate::peer::{Card, PeerId};

/// What is held while a chunk goes out, and given back by being dropped.
pub type Turn = Box<dyn Send + Sync>;

/// What answers an asker. The session checks shapes and credits; whether `peer` may have what it asks for is decided
/// here. Calls run side by side; a dropped call is one whose session has ended.
pub trait Giver: Send + Sync + 'static {
    /// A manifest's top, encoded.
    fn top(&self, peer: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>>;

    /// Page `index` of a manifest, encoded.
    fn page(&self, peer: PeerId, object: ObjectId, index: u32) -> BoxFuture<'_, Answer<Bytes>>;

    /// A parity part of an object that this node computed or checked, encoded.
    fn parity(&self, peer: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>>;

    /// The parity page of an object with this BLAKE3, encoded.
    fn parity_page(&self, peer: PeerId, object: ObjectId, digest: [u8; 32]) -> BoxFuture<'_, Answer<Bytes>>;

    /// Room in memory for one more chunk on its way out, kept until its last slice is written; `None` when all is
    /// taken. One chunk of each session needs none.
    fn room(&self) -> Option<OwnedSemaphorePermit>;

    /// A chunk.
    fn chunk(&self, peer: PeerId, chunk: ChunkRef) -> BoxFuture<'_, Answer<Chunk>>;

    /// Which chunk stands at `index` of an object whose manifest is held.
    fn resolve(&self, peer: PeerId, object: ObjectId, index: u64) -> BoxFuture<'_, Option<ChunkRef>>;

    /// Which chunks of an object are held, now and from now on; `None` when the object is not given.
    fn haves(&self, peer: PeerId, object: ObjectId) -> BoxFuture<'_, Option<Subscription>>;

    /// Called before the first slice of a chunk of `peer` goes out: what is held until its last one is written. Those
    /// that were read beforehand may find that it is another's turn by now. By default all may go.
    ///
    /// # Errors
    /// When to ask again: that is the answer then.
    fn begin(&self, _peer: PeerId) -> Result<Turn, Duration> {
        Ok(Box::new(()))
    }

    /// What `caller`, who is being told which chunks of an object are held, is told of others who ask for the same, now
    /// and from now on; `None`, as by default, when that is nothing.
    fn crowd(&self, caller: Caller, object: ObjectId) -> Option<mpsc::Receiver<Rumour>> {
        let _ = (caller, object);
        None
    }

    /// Awaited before each slice of at most `most` bytes goes out: upload limits. How many may go, 1 at least.
    fn pace(&self, peer: PeerId, most: usize) -> BoxFuture<'_, usize>;
}

/// Who asks, and what is known of where it gives chunks itself.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub peer: PeerId,
    /// Where it is, as seen from here.
    pub remote: Option<IpAddr>,
    /// Its card, where it has shown one for this object that is its own; others may be told of it.
    pub card: Option<Card>,
}

/// What is told of others who ask for the same object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rumour {
    /// One of them.
    Fellow(Fellow),
    /// One of them is being given the chunk of this index.
    Given(u64),
}

/// What is told to a subscriber.
#[derive(Debug)]
pub struct Subscription {
    /// What is held at the time of the call.
    pub snapshot: Snapshot,
    /// Indexes of chunks that come later. When it ends, so does the subscription.
    pub updates: mpsc::Receiver<u64>,
}

/// Which chunks of an object are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// All.
    Whole,
    /// Those whose bit is set: bit i mod 8 (lowest first) of byte i div 8. At most 512 KiB, for 4 TiB.
    Partial(Bytes),
}

/// A snapshot as frames carry it. Stretches without any chunk are left out.
pub(super) fn stretches(snapshot: &Snapshot) -> impl Iterator<Item = Have> {
    let (whole, bits) = match snapshot {
        Snapshot::Whole => (Some(Have::Whole), Bytes::new()),
        Snapshot::Partial(bits) => (None, bits.clone()),
    };
    let partial = (0..bits.len()).step_by(MAX_BITMAP).map(move |at| Have::Bitmap {
        first: at as u64 * 8,
        bits: bits.slice(at..bits.len().min(at + MAX_BITMAP)),
    });
    let some = |have: &Have| !matches!(have, Have::Bitmap { bits, .. } if bits.iter().all(|byte| *byte == 0));
    whole.into_iter().chain(partial.filter(some))
}
