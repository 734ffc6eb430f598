//! What an object consists of: one chunk, or those of a manifest.

use std::ops::Range;
use std::sync::Arc;

use super::Error;
use super::planner::Bits;
use crate::content::{CHUNK_LEN, ChunkId, ChunkRef, Excerpt, Manifest, ObjectId, Place};
use crate::store::{Lease, Store};

/// Chunks that are looked for at once.
const HELD: usize = 1024;

/// The chunks of an object that is not empty. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// It is one chunk.
    Single(ChunkRef),
    /// It has a manifest.
    Many(Arc<Manifest>),
    /// It is long, and of its manifest only what a range needs is known.
    Part(Arc<Excerpt>),
}

impl Shape {
    /// The only chunk of an object of `length` bytes, 1 to 1 MiB.
    pub(super) fn single(id: ObjectId, length: u32) -> Self {
        Self::Single(ChunkRef { id: id.only_chunk(), place: Place::Root, length })
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Single(chunk) => u64::from(chunk.length),
            Self::Many(manifest) => manifest.length(),
            Self::Part(excerpt) => excerpt.length(),
        }
    }

    pub(super) fn chunks(&self) -> u64 {
        match self {
            Self::Single(_) => 1,
            Self::Many(manifest) => manifest.chunks(),
            Self::Part(excerpt) => excerpt.chunks(),
        }
    }

    /// Chunk `index`; of a part only those that the range needs.
    pub(super) fn chunk(&self, index: u64) -> Option<ChunkRef> {
        match self {
            Self::Single(chunk) => (index == 0).then_some(*chunk),
            Self::Many(manifest) => manifest.chunk(index),
            Self::Part(excerpt) => excerpt.chunk(index),
        }
    }

    pub(super) fn is_zero(&self, index: u64) -> bool {
        match self {
            Self::Single(_) => false,
            Self::Many(manifest) => manifest.is_zero(index),
            Self::Part(excerpt) => excerpt.is_zero(index),
        }
    }

    /// The chunks that need not be fetched: in the store, or all zero.
    pub(super) async fn local(&self, store: &Store) -> Bits {
        let mut local = self.zeros();
        for (open, ids) in self.windows() {
            set(&mut local, &open, &store.has_all(ids).await);
        }
        local
    }

    /// As [`Shape::local`], and what is in the store stays there while the lease lives.
    pub(super) async fn hold(&self, lease: &Lease) -> Result<Bits, Error> {
        let mut local = self.zeros();
        for (open, ids) in self.windows() {
            set(&mut local, &open, &lease.hold_all(ids).await?);
        }
        Ok(local)
    }

    fn zeros(&self) -> Bits {
        let mut zeros = Bits::new(self.chunks());
        (0..self.chunks()).filter(|index| self.is_zero(*index)).for_each(|index| _ = zeros.set(index));
        zeros
    }

    /// The chunks that are known and not all zero, some at a time: their indices and ids.
    fn windows(&self) -> impl Iterator<Item = (Vec<u64>, Vec<ChunkId>)> + Send {
        let windows = (0..self.chunks()).step_by(HELD).map(|first| {
            let open = first..self.chunks().min(first + HELD as u64);
            let open = open.filter(|index| !self.is_zero(*index));
            open.filter_map(|index| self.chunk(index).map(|chunk| (index, chunk.id))).unzip()
        });
        windows.filter(|(open, _): &(Vec<u64>, Vec<ChunkId>)| !open.is_empty())
    }

    /// Bytes of the wanted chunks that are not among the local ones.
    pub(super) fn absent(&self, wanted: &Wanted, local: &Bits) -> u64 {
        let missing = wanted.chunks.clone().filter(|index| !local.get(*index));
        missing.filter_map(|index| self.chunk(index)).map(|chunk| u64::from(chunk.length)).sum()
    }
}

fn set(local: &mut Bits, open: &[u64], there: &[bool]) {
    open.iter().zip(there).filter(|(_, there)| **there).for_each(|(index, _)| _ = local.set(*index));
}

/// Which bytes of an object are wanted, and the chunks that hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) bytes: Range<u64>,
    pub(super) chunks: Range<u64>,
}

impl Wanted {
    /// The wanted bytes of an object of `length`; a range that goes beyond its end is cut.
    pub(super) fn of(length: u64, range: Option<(u64, u64)>) -> Result<Self, Error> {
        let (offset, count) = range.unwrap_or((0, length));
        if offset > length {
            return Err(Error::Range { length, offset });
        }
        let end = offset.saturating_add(count).min(length);
        let chunks = if end > offset { offset / CHUNK_LEN..end.div_ceil(CHUNK_LEN) } else { 0..0 };
        Ok(Self { bytes: offset..end, chunks })
    }

    /// The part of chunk `index` (of `length` bytes) that is wanted.
    pub(super) fn within(&self, index: u64, length: usize) -> Range<usize> {
        let start = index * CHUNK_LEN;
        let cut = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(length);
        cut(self.bytes.start)..cut(self.bytes.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_object_and_to_chunks() {
        let wanted = |range| Wanted::of(3 * CHUNK_LEN + 10, range).map(|w| (w.bytes, w.chunks)).ok();
        assert_eq!(wanted(None), Some((0..3 * CHUNK_LEN + 10, 0..4)));
        assert_eq!(wanted(Some((CHUNK_LEN, 1))), Some((CHUNK_LEN..CHUNK_LEN + 1, 1..2)));
        assert_eq!(wanted(Some((CHUNK_LEN - 1, 2))), Some((CHUNK_LEN - 1..CHUNK_LEN + 1, 0..2)));
        assert_eq!(wanted(Some((5, u64::MAX))), Some((5..3 * CHUNK_LEN + 10, 0..4)));
        assert_eq!(wanted(Some((3 * CHUNK_LEN + 10, 9))).map(|w| w.1), Some(0..0));
        assert_eq!(wanted(Some((3 * CHUNK_LEN + 11, 0))), None);
        let middle = Wanted::of(3 * CHUNK_LEN, Some((CHUNK_LEN + 5, CHUNK_LEN))).unwrap();
        assert_eq!(middle.within(1, 1 << 20), 5..1 << 20);
        assert_eq!(middle.within(2, 1 << 20), 0..5);
    }
}
