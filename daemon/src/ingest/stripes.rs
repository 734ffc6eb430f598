//! Parity while data streams by: holds the chunks of the stripe in work and says when one can be encoded.
//!
//! The last two stripes of an object share what is left, so of a stream whose length is not known up to two stripes
//! are held (33 chunks at 16+4) before the first is known to be full. With the length known, one is.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::content::{Chunk, ChunkId, Place};
use crate::erasure::{self, Geometry, Layout, Stripe};

/// The data chunks that wait for their stripe.
pub(super) struct Stripes {
    geometry: Geometry,
    /// The stripes, once the length is known.
    layout: Option<Layout>,
    /// Chunks from the beginning of the next stripe.
    waiting: VecDeque<Bytes>,
    /// The next stripe's number and first chunk.
    next: (u64, u64),
    /// Ids of all parity chunks so far, in stripe order.
    ids: Vec<ChunkId>,
    /// The parity chunks of the last stripe that was done: their memory is used again.
    spare: Vec<Bytes>,
}

/// A stripe with all its data, ready to be encoded.
pub(super) struct Ready {
    stripe: Stripe,
    data: Vec<Bytes>,
    /// Memory for the parity.
    spare: Vec<Bytes>,
}

impl Ready {
    /// Computes the parity chunks, in order, in memory of others that nobody has any more. Heavy: run it off the
    /// runtime.
    pub(super) fn encode(self) -> Result<Vec<Chunk>, super::Error> {
        let spare = self.spare.into_iter().filter_map(|bytes| bytes.try_into_mut().ok()).collect();
        let shards = erasure::encode_into(&self.stripe, &self.data, spare)?;
        let chunk = |bytes| Chunk::compute(Place::Root, bytes).map_err(crate::content::Error::from);
        Ok(shards.into_iter().map(chunk).collect::<Result<Vec<_>, _>>()?)
    }
}

impl Stripes {
    /// Stripes of an object whose length may be known.
    pub(super) fn new(geometry: Geometry, length: Option<u64>) -> Self {
        let layout = length.and_then(|length| Layout::new(length, geometry));
        Self { geometry, layout, waiting: VecDeque::new(), next: (0, 0), ids: Vec::new(), spare: Vec::new() }
    }

    /// Takes the next chunk's bytes.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.waiting.push_back(bytes);
    }

    /// Tells the length when the stream has ended.
    pub(super) fn end(&mut self, length: u64) {
        self.layout = Layout::new(length, self.geometry);
    }

    /// The next stripe that is known and complete.
    pub(super) fn ready(&mut self) -> Option<Ready> {
        let (index, first) = self.next;
        let stripe = match &self.layout {
            Some(layout) => layout.stripe(index)?,
            None => {
                let seen = first + self.waiting.len() as u64;
                Layout::is_full_stripe(first, seen, self.geometry).then(|| self.full_stripe())?
            }
        };
        if self.waiting.len() < stripe.data {
            return None;
        }
        self.next = (index + 1, stripe.chunks().end);
        let (data, spare) = (self.waiting.drain(..stripe.data).collect(), std::mem::take(&mut self.spare));
        Some(Ready { stripe, data, spare })
    }

    /// The next stripe, when it is one of k chunks.
    fn full_stripe(&self) -> Stripe {
        let ((index, first), parity) = (self.next, usize::from(self.geometry.m()));
        let data = usize::from(self.geometry.k());
        let first_parity = index * parity as u64;
        Stripe { index, first, data, parity, first_parity, shard: crate::content::CHUNK }
    }

    /// Notes the parity chunks of the next stripe, which have been stored.
    pub(super) fn done(&mut self, parity: Vec<Chunk>) {
        self.ids.extend(parity.iter().map(Chunk::id));
        self.spare = parity.into_iter().map(Chunk::into_bytes).collect();
    }

    /// The geometry and the ids of all parity chunks.
    pub(super) fn finish(self) -> (Geometry, Vec<ChunkId>) {
        (self.geometry, self.ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{CHUNK, CHUNK_LEN};

    /// The stripes that come ready, with and without the length known beforehand, are those of the layout.
    #[test]
    fn a_known_length_changes_nothing_but_when() {
        let geometry = Geometry::new(3, 2).unwrap();
        for chunks in 2..15u64 {
            let length = chunks * CHUNK_LEN;
            let expected: Vec<Stripe> = Layout::new(length, geometry).unwrap().iter().collect();
            for known in [None, Some(length)] {
                let (mut stripes, mut seen) = (Stripes::new(geometry, known), Vec::new());
                for index in 0..chunks {
                    stripes.push(Bytes::from(vec![index as u8; CHUNK]));
                    while let Some(ready) = stripes.ready() {
                        seen.push(ready.stripe);
                    }
                    assert!(stripes.waiting.len() <= if known.is_some() { 3 } else { 6 });
                }
                stripes.end(length);
                while let Some(ready) = stripes.ready() {
                    seen.push(ready.stripe);
                }
                assert_eq!(seen, expected, "{chunks} chunks, length {known:?}");
            }
        }
    }
}
