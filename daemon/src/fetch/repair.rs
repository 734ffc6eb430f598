//! Parity in a fetch: what is known of it, the parity chunks that have come, and rebuilding stripes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::planner::Shard;
use super::shape::Shape;
use super::{Parts, planner};
use crate::content::{CODEC_RS8, Chunk, ChunkId, ChunkRef, ParityPage, ParityPart, Place};
use crate::erasure::{self, Geometry, Layout};
use crate::peer::PeerId;
use crate::store::{self, Item, Lease, Store};

/// The parity of one object, as its maker claims it.
pub(super) struct Parity {
    layout: Layout,
    /// All parity chunks, in stripe order.
    ids: Arc<Vec<ChunkId>>,
    maker: PeerId,
    /// Parity chunks in memory, by stripe.
    held: HashMap<u32, Vec<(u8, Bytes)>>,
}

/// What came of rebuilding a stripe.
pub(super) enum Rebuilt {
    /// These chunks are proved and stored.
    Chunks(Vec<(u64, Bytes)>),
    /// The parity is false.
    False,
    /// A chunk of the stripe is no longer in the store.
    Lost(u64),
    /// Parity that lies in the store cannot be read.
    Short,
    /// The store failed, which ends the fetch.
    Store(store::Error),
}

impl Parity {
    /// Parity that fits the object. `None` when the part's claim does not: its count, length, codec or pages are not
    /// those that the geometry gives.
    pub(super) fn new(shape: &Shape, part: &ParityPart, pages: &[ParityPage]) -> Option<Self> {
        let claim = part.claim();
        let geometry = Geometry::new(claim.k, claim.m).ok()?;
        let layout = Layout::new(shape.length(), geometry)?;
        let ids: Vec<ChunkId> = pages.iter().flat_map(|page| page.ids().iter().copied()).collect();
        let fits = claim.codec == CODEC_RS8
            && claim.length == shape.length()
            && u64::from(claim.count) == layout.parity_chunks()
            && ids.len() as u64 == layout.parity_chunks();
        fits.then(|| Self { layout, ids: Arc::new(ids), maker: part.maker(), held: HashMap::new() })
    }

    /// Who signed it.
    pub(super) fn maker(&self) -> PeerId {
        self.maker
    }

    /// The stripes, as the planner wants them.
    #[expect(clippy::cast_possible_truncation, reason = "a stripe has at most 128 data and 64 parity chunks")]
    pub(super) fn stripes(&self) -> Vec<planner::Stripe> {
        let stripe = |s: erasure::Stripe| planner::Stripe {
            first: s.first,
            data: s.data as u8,
            parity: s.parity as u8,
        };
        self.layout.iter().map(stripe).collect()
    }

    /// Parity chunk `index` of stripe `stripe`.
    pub(super) fn chunk(&self, stripe: u32, index: u8) -> Option<ChunkRef> {
        let stripe = self.layout.stripe(u64::from(stripe))?;
        if usize::from(index) >= stripe.parity {
            return None;
        }
        let at = usize::try_from(stripe.first_parity).ok()? + usize::from(index);
        let length = u32::try_from(stripe.shard).ok()?;
        Some(ChunkRef { id: *self.ids.get(at)?, place: Place::Root, length })
    }

    /// Keeps a parity chunk until its stripe is done.
    pub(super) fn keep(&mut self, stripe: u32, index: u8, chunk: Chunk) {
        self.held.entry(stripe).or_default().push((index, chunk.into_bytes()));
    }

    /// Frees the parity chunks of a stripe.
    pub(super) fn release(&mut self, stripe: u32) {
        self.held.remove(&stripe);
    }

    /// The parity chunks of a stripe that are in the store.
    fn refs(&self, stripe: u32, store: &Store) -> Vec<(u8, ChunkRef)> {
        let parity = self.layout.stripe(u64::from(stripe)).map_or(0, |stripe| stripe.parity);
        let all =
            (0..u8::try_from(parity).unwrap_or(u8::MAX)).filter_map(|at| Some((at, self.chunk(stripe, at)?)));
        all.filter(|(_, chunk)| store.has(&chunk.id)).collect()
    }

    /// The parity that is in the store of the stripe of a data chunk.
    pub(super) fn stored(&self, chunk: u64, store: &Store) -> Vec<Shard> {
        let stripe = self.layout.iter().position(|stripe| stripe.chunks().contains(&chunk));
        let Some(stripe) = stripe.and_then(|stripe| u32::try_from(stripe).ok()) else { return Vec::new() };
        self.refs(stripe, store).into_iter().map(|(index, _)| Shard::Parity { stripe, index }).collect()
    }

    /// Begins to rebuild a stripe from its data chunks in the store and the parity chunks here.
    pub(super) fn rebuild(
        &self,
        number: u32,
        shape: &Shape,
        parts: &Arc<Parts>,
        lease: &Arc<Lease>,
    ) -> Option<Rebuild> {
        Some(Rebuild {
            stripe: self.layout.stripe(u64::from(number))?,
            parity: self.held.get(&number).cloned().unwrap_or_default(),
            stored: self.refs(number, &parts.store),
            shape: shape.clone(),
            parts: Arc::clone(parts),
            lease: Arc::clone(lease),
        })
    }
}

/// The rebuilding of one stripe.
pub(super) struct Rebuild {
    stripe: erasure::Stripe,
    /// Parity in memory.
    parity: Vec<(u8, Bytes)>,
    /// Parity in the store.
    stored: Vec<(u8, ChunkRef)>,
    shape: Shape,
    parts: Arc<Parts>,
    lease: Arc<Lease>,
}

impl Rebuild {
    /// Reads what is here, computes what is missing, proves and stores it.
    pub(super) async fn run(self) -> Rebuilt {
        let shards = match self.gather().await {
            Ok(shards) => shards,
            Err(error) => return Rebuilt::Store(error),
        };
        let (stripe, shape) = (self.stripe, self.shape.clone());
        let rebuilt = self.parts.pool.run(move || compute(&stripe, &shape, &shards)).await;
        let chunks = match rebuilt {
            Ok(chunks) => chunks,
            // What the store has rotted: were it told again that it is here, this would begin again.
            Err(erasure::Error::TooFew { .. }) if !self.stored.is_empty() => return Rebuilt::Short,
            Err(erasure::Error::TooFew { .. }) => return Rebuilt::Lost(self.first_missing()),
            Err(_) => return Rebuilt::False,
        };
        let mut done = Vec::with_capacity(chunks.len());
        for (index, chunk) in chunks {
            if let Err(error) = self.lease.put(Item::Chunk(chunk.clone())).await {
                return Rebuilt::Store(error);
            }
            done.push((index, chunk.into_bytes()));
        }
        Rebuilt::Chunks(done)
    }

    /// The stripe's shards: data from the store, `None` where it is missing, then parity.
    async fn gather(&self) -> Result<Vec<Option<Bytes>>, store::Error> {
        let mut shards = Vec::with_capacity(self.stripe.data + self.stripe.parity);
        for index in self.stripe.chunks() {
            let zero = self.shape.is_zero(index);
            let chunk = self.shape.chunk(index);
            shards.push(match chunk {
                Some(chunk) if zero => Some(Bytes::from(vec![0; chunk.length as usize])),
                Some(chunk) => self.parts.store.chunk(&chunk).await?.map(Chunk::into_bytes),
                None => None,
            });
        }
        shards.resize(self.stripe.data + self.stripe.parity, None);
        let at = |index: u8| self.stripe.data + usize::from(index);
        for (index, bytes) in &self.parity {
            if let Some(shard) = shards.get_mut(at(*index)) {
                *shard = Some(bytes.clone());
            }
        }
        for (index, chunk) in &self.stored {
            if let Some(shard) = shards.get_mut(at(*index)).filter(|shard| shard.is_none()) {
                *shard = self.parts.store.chunk(chunk).await?.map(Chunk::into_bytes);
            }
        }
        Ok(shards)
    }

    /// A chunk of this stripe that is not in the store.
    fn first_missing(&self) -> u64 {
        let missing = |index: &u64| {
            !self.shape.is_zero(*index)
                && self.shape.chunk(*index).is_some_and(|chunk| !self.parts.store.has(&chunk.id))
        };
        self.stripe.chunks().find(missing).unwrap_or(self.stripe.first)
    }
}

/// Rebuilds and proves the missing chunks. A chunk that does not match its id is [`erasure::Error::Shape`].
fn compute(
    stripe: &erasure::Stripe,
    shape: &Shape,
    shards: &[Option<Bytes>],
) -> Result<Vec<(u64, Chunk)>, erasure::Error> {
    let prove = |(at, bytes): (usize, Bytes)| {
        let index = stripe.first + at as u64;
        let chunk = shape.chunk(index).filter(|chunk| bytes.len() >= chunk.length as usize);
        let chunk = chunk.ok_or(erasure::Error::Shape)?;
        let proved = chunk.verify(bytes.slice(..chunk.length as usize)).map_err(|_| erasure::Error::Shape)?;
        Ok((index, proved))
    };
    erasure::rebuild(stripe, shards)?.into_iter().map(prove).collect()
}
