//! Which data chunks are here, which are needed and which have been asked for.

use std::ops::Range;

use super::{Bits, Plan, Shard, Stripe};
use crate::content::{chunk_count, chunk_length};

/// Three bits a data chunk.
#[derive(Debug)]
pub(super) struct Chunks {
    /// Length of the object in bytes: the last chunk may be shorter than the others.
    length: u64,
    /// What the caller wants.
    wanted: Range<u64>,
    /// Stored here or all zero.
    have: Bits,
    /// Wanted and not here.
    need: Bits,
    /// Asked of at least one peer.
    pub(super) asked: Bits,
    /// How many bits of `need` are set.
    missing: u64,
}

impl Chunks {
    /// The state that a plan begins with.
    pub(super) fn new(plan: &Plan) -> Self {
        let count = chunk_count(plan.length);
        let mut have = Bits::new(count);
        have.union(&plan.local);
        let wanted = plan.wanted.start..plan.wanted.end.min(count);
        let mut need = Bits::new(count);
        need.set_range(wanted.clone());
        need.subtract(&have);
        let missing = need.count();
        Self { length: plan.length, wanted, have, need, asked: Bits::new(count), missing }
    }

    /// How many data chunks the object has.
    pub(super) fn count(&self) -> u64 {
        self.have.len()
    }

    /// What the caller wants.
    pub(super) fn wanted(&self) -> Range<u64> {
        self.wanted.clone()
    }

    /// How many wanted chunks are not here.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Whether a chunk is here.
    pub(super) fn have(&self, chunk: u64) -> bool {
        self.have.get(chunk)
    }

    /// Whether a chunk is wanted and not here.
    pub(super) fn need(&self, chunk: u64) -> bool {
        self.need.get(chunk)
    }

    /// Whether a chunk is needed and asked of nobody.
    pub(super) fn open(&self, chunk: u64) -> bool {
        self.need.get(chunk) && !self.asked.get(chunk)
    }

    /// [`Chunks::open`] for the 64 chunks from `index * 64` on.
    pub(super) fn open_word(&self, index: u64) -> u64 {
        self.need.word(index) & !self.asked.word(index)
    }

    /// The needed chunks of a range, ascending.
    pub(super) fn needed(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        self.need.ones(range)
    }

    /// Notes that a chunk is here; tells whether that is news.
    pub(super) fn accept(&mut self, chunk: u64) -> bool {
        let new = self.have.set(chunk);
        if self.need.clear(chunk) {
            self.missing -= 1;
        }
        new
    }

    /// Notes that a chunk is no longer here.
    pub(super) fn lose(&mut self, chunk: u64) {
        if self.have.clear(chunk) && self.wanted.contains(&chunk) && self.need.set(chunk) {
            self.missing += 1;
        }
    }

    /// Bytes of a data chunk.
    pub(super) fn bytes(&self, chunk: u64) -> u64 {
        u64::from(chunk_length(self.length, chunk))
    }

    /// Bytes of a shard. A parity shard is as long as its stripe's longest chunk, which is the first one.
    pub(super) fn shard_bytes(&self, shard: Shard, layout: &[Stripe]) -> u64 {
        match shard {
            Shard::Data(chunk) => self.bytes(chunk),
            Shard::Parity { stripe, .. } => {
                layout.get(stripe as usize).map_or(0, |stripe| self.bytes(stripe.first))
            }
        }
    }
}
