//! Parity in a fetch: what is known of it, the parity chunks that have come, and rebuilding stripes.

use std::collections::HashMap;
use std::ops::Range;
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
    /// These chunks, all that the fetch wanted and lacked of the stripe, are proved and stored.
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

    /// Begins to rebuild a stripe from its data chunks in the store and the parity chunks here. `missing`: whether a
    /// fetch lacks a chunk; `kept`: those that are worth storing, of all that come out.
    pub(super) fn rebuild(
        &self,
        number: u32,
        (missing, kept): (impl Fn(u64) -> bool, Range<u64>),
        shape: &Shape,
        (parts, lease): (&Arc<Parts>, &Arc<Lease>),
    ) -> Option<Rebuild> {
        let stripe = self.layout.stripe(u64::from(number))?;
        Some(Rebuild {
            missing: stripe.chunks().filter(|chunk| missing(*chunk)).collect(),
            kept,
            stripe,
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
    /// Its chunks that the fetch lacks.
    missing: Vec<u64>,
    /// The chunks of the object that are stored when they come out.
    kept: Range<u64>,
    /// Parity in memory.
    parity: Vec<(u8, Bytes)>,
    /// Parity in the store.
    stored: Vec<(u8, ChunkRef)>,
    shape: Shape,
    parts: Arc<Parts>,
    lease: Arc<Lease>,
}

impl Rebuild {
    /// Reads what is here, computes what is missing, proves and stores it. A chunk that the fetch lacks may have come
    /// back meanwhile, since a scrub mends as well: then it is among what is given, or the fetch would ask for ever.
    pub(super) async fn run(self) -> Rebuilt {
        let (shards, back) = match self.gather().await {
            Ok(gathered) => gathered,
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
        let kept = chunks.into_iter().filter(|(index, _)| self.kept.contains(index));
        for (index, chunk) in kept.chain(back) {
            if let Err(error) = self.lease.put(Item::Chunk(chunk.clone())).await {
                return Rebuilt::Store(error);
            }
            done.push((index, chunk.into_bytes()));
        }
        Rebuilt::Chunks(done)
    }

    /// The stripe's shards: data from the store, `None` where it is missing, then parity. Beside them the chunks that
    /// the fetch lacks and the store has.
    async fn gather(&self) -> Result<(Vec<Option<Bytes>>, Vec<(u64, Chunk)>), store::Error> {
        let mut shards = Vec::with_capacity(self.stripe.data + self.stripe.parity);
        let mut back = Vec::new();
        for index in self.stripe.chunks() {
            let zero = self.shape.is_zero(index);
            let chunk = self.shape.chunk(index);
            shards.push(match chunk {
                Some(chunk) if zero => Some(Bytes::from(vec![0; chunk.length as usize])),
                Some(chunk) => {
                    let stored = self.parts.store.chunk(&chunk).await?;
                    back.extend(
                        stored.clone().filter(|_| self.missing.contains(&index)).map(|chunk| (index, chunk)),
                    );
                    stored.map(Chunk::into_bytes)
                }
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
        Ok((shards, back))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::learn;
    use super::super::tests::{Node, Web, sample};
    use super::{Parity, Rebuilt};
    use crate::content::CHUNK;
    use crate::erasure::Geometry;

    /// A scrub may mend a chunk between the moment at which a reader misses it and the moment at which its stripe is
    /// read: were nothing given then, the reader would have the stripe rebuilt again and again.
    #[tokio::test]
    async fn what_came_back_meanwhile_is_given_as_what_is_rebuilt() {
        let node = Node::new(&Web::default(), 1);
        let data = sample(5 * CHUNK + 7);
        let id = node.add(&data, Some(Geometry::DEFAULT)).await;
        let shape = learn::from_store(&node.store, &id).await.unwrap().unwrap();
        let (part, pages) = node.store.parity(&id).await.unwrap().unwrap();
        let parity = Parity::new(&shape, &part, &pages).unwrap();
        node.store.lose(&shape.chunk(1).unwrap().id);
        let lease = Arc::new(node.store.lease());
        let missed = |chunk| [1, 3].contains(&chunk);
        let rebuild = parity.rebuild(0, (missed, 0..6), &shape, (&node.fetcher.parts, &lease)).unwrap();
        let Rebuilt::Chunks(chunks) = rebuild.run().await else { panic!("nothing was rebuilt") };
        let given: Vec<_> = chunks.iter().map(|(index, _)| *index).collect();
        assert_eq!(given, [1, 3]);
        assert!(chunks.iter().all(|(index, bytes)| data[*index as usize * CHUNK..].starts_with(bytes)));
    }
}
