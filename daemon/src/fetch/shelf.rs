//! Proved chunks on their way to the caller.
//!
//! A chunk that arrives is put here with its bytes, so that it reaches the caller from memory; beyond a budget the
//! bytes are left to the store, from which they are read back, verified, when their turn comes. A slow caller
//! therefore costs disk reads, not memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes held for one caller at most.
const BUDGET: usize = 16 << 20;

/// In which order the caller wants its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// As they come, each with its offset: for a file that is written in place.
    #[default]
    Any,
    /// From the first to the last: for a pipe.
    InOrder,
    /// Not at all: they only come into the store.
    Nothing,
}

/// What waits for one caller. Chunks are counted from the first one that the caller wants.
pub(super) struct Shelf {
    inner: Mutex<Inner>,
    /// Rung when a chunk is added or the shelf is closed.
    bell: Notify,
}

struct Inner {
    order: Order,
    /// Chunks that are proved and can be given.
    ready: Bits,
    /// Chunks that have been taken.
    taken: Bits,
    /// All before this one have been taken.
    low: usize,
    /// Bytes of chunks that came lately.
    held: BTreeMap<usize, Bytes>,
    held_bytes: usize,
}

/// What to give next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This chunk; its bytes when they are still in memory.
    Chunk(usize, Option<Bytes>),
    /// Every chunk has been taken.
    End,
}

impl Shelf {
    /// A shelf for `chunks` chunks.
    pub(super) fn new(chunks: usize, order: Order) -> Self {
        let (ready, taken) = (Bits::new(chunks), Bits::new(chunks));
        let inner = Inner { order, ready, taken, low: 0, held: BTreeMap::new(), held_bytes: 0 };
        Self { inner: Mutex::new(inner), bell: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chunk `at` is proved and in the store; `bytes` when they are at hand.
    pub(super) fn put(&self, at: usize, bytes: Option<Bytes>) {
        let mut inner = self.inner();
        if !inner.ready.set(at) || inner.taken.get(at) {
            return;
        }
        if inner.order == Order::Nothing {
            inner.taken.set(at);
        } else if let Some(bytes) = bytes.filter(|bytes| inner.held_bytes + bytes.len() <= BUDGET) {
            inner.held_bytes += bytes.len();
            inner.held.insert(at, bytes);
        }
        drop(inner);
        self.bell.notify_one();
    }

    /// Chunk `at`, which was taken to be read from the store, is not there after all.
    pub(super) fn lost(&self, at: usize) {
        let mut inner = self.inner();
        inner.ready.clear(at);
        inner.taken.clear(at);
        inner.low = inner.low.min(at);
    }

    /// Chunk `at`, which was taken, is to be given again.
    pub(super) fn put_back(&self, at: usize) {
        let mut inner = self.inner();
        inner.taken.clear(at);
        inner.low = inner.low.min(at);
    }

    /// The first chunk that the caller has not taken.
    pub(super) fn low(&self) -> usize {
        self.inner().low
    }

    /// Takes the next chunk, waiting for one. For one taker. Cancel-safe.
    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.inner().next() {
                return next;
            }
            self.bell.notified().await;
        }
    }
}

impl Inner {
    fn next(&mut self) -> Option<Next> {
        while self.low < self.ready.len() && self.taken.get(self.low) {
            self.low += 1;
        }
        if self.low == self.ready.len() {
            return Some(Next::End);
        }
        let at = match self.order {
            Order::InOrder => Some(self.low).filter(|at| self.ready.get(*at)),
            // What is in memory first, so that it leaves memory.
            Order::Any => {
                self.held.keys().next().copied().or_else(|| self.ready.first_beyond(&self.taken, self.low))
            }
            Order::Nothing => None,
        }?;
        self.taken.set(at);
        let bytes = self.held.remove(&at);
        self.held_bytes -= bytes.as_ref().map_or(0, Bytes::len);
        Some(Next::Chunk(at, bytes))
    }
}

/// A fixed number of flags.
struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Sets a flag; false when it was set already or there is no such flag.
    fn set(&mut self, at: usize) -> bool {
        let new = at < self.len && !self.get(at);
        if new {
            self.words[at / 64] |= 1 << (at % 64);
        }
        new
    }

    fn clear(&mut self, at: usize) {
        if at < self.len {
            self.words[at / 64] &= !(1 << (at % 64));
        }
    }

    /// The first flag from `from` on that is set here and not in `other`.
    fn first_beyond(&self, other: &Self, from: usize) -> Option<usize> {
        let words = self.words.iter().zip(&other.words).enumerate().skip(from / 64);
        let mut open = words.map(|(index, (mine, theirs))| (index, mine & !theirs));
        open.find(|(_, word)| *word != 0).map(|(index, word)| index * 64 + word.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;

    #[test]
    fn in_order_waits_for_the_next_one() {
        let shelf = Shelf::new(3, Order::InOrder);
        shelf.put(1, Some(Bytes::from_static(b"b")));
        assert_eq!(shelf.next().now_or_never(), None);
        shelf.put(0, None);
        assert_eq!(shelf.next().now_or_never(), Some(Next::Chunk(0, None)));
        assert_eq!(shelf.next().now_or_never(), Some(Next::Chunk(1, Some(Bytes::from_static(b"b")))));
        assert_eq!(shelf.low(), 1);
        shelf.lost(1);
        assert_eq!(shelf.next().now_or_never(), None);
        shelf.put(2, None);
        shelf.put(1, None);
        assert_eq!(shelf.next().now_or_never(), Some(Next::Chunk(1, None)));
        assert_eq!(shelf.next().now_or_never(), Some(Next::Chunk(2, None)));
        assert_eq!(shelf.next().now_or_never(), Some(Next::End));
    }

    #[test]
    fn who_wants_nothing_is_told_only_that_all_is_there() {
        let shelf = Shelf::new(2, Order::Nothing);
        shelf.put(1, Some(Bytes::from_static(b"b")));
        assert_eq!((shelf.next().now_or_never(), shelf.inner().held_bytes), (None, 0));
        shelf.put(0, None);
        assert_eq!(shelf.next().now_or_never(), Some(Next::End));
    }

    proptest! {
        #[test]
        fn every_chunk_is_given_once_and_memory_is_bounded(
            chunks in 1usize..200,
            puts in prop::collection::vec(0usize..200, 0..400),
            ordered: bool,
        ) {
            let order = if ordered { Order::InOrder } else { Order::Any };
            let shelf = Shelf::new(chunks, order);
            let mut given = Vec::new();
            for (step, at) in puts.into_iter().chain(0..chunks).enumerate() {
                shelf.put(at, Some(Bytes::from(vec![0; 1 << 20])));
                prop_assert!(shelf.inner().held_bytes <= BUDGET);
                if step % 3 == 0 && let Some(Next::Chunk(at, _)) = shelf.next().now_or_never() {
                    given.push(at);
                }
            }
            while let Some(Next::Chunk(at, _)) = shelf.next().now_or_never() {
                given.push(at);
            }
            prop_assert_eq!(shelf.next().now_or_never(), Some(Next::End));
            prop_assert_eq!(shelf.inner().held_bytes, 0);
            if ordered {
                prop_assert!(given.is_sorted());
            }
            given.sort_unstable();
            prop_assert_eq!(given, (0..chunks).collect::<Vec<_>>());
        }
    }
}
