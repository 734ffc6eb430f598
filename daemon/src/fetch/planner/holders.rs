//! Who holds which data chunk, and how rare each chunk is.

use std::collections::BTreeSet;

use super::{Bits, Has};

/// A peer of whom nothing is known is no longer asked after lacking this many chunks.
const UNKNOWN_MISSES: usize = 16;

/// What one peer holds.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// What it said.
    said: Said,
    /// Set when it may hold chunks that nobody is known to hold; lists those that it turned out to lack.
    guess: Option<BTreeSet<u64>>,
}

/// What a peer said it holds.
#[derive(Debug, Default)]
enum Said {
    /// Nothing so far.
    #[default]
    Nothing,
    /// Every data chunk.
    Whole,
    /// The set bits.
    Part(Bits),
}

impl Holding {
    /// Whether the peer said that it holds a chunk.
    pub(super) fn has(&self, chunk: u64) -> bool {
        match &self.said {
            Said::Nothing => false,
            Said::Whole => true,
            Said::Part(bits) => bits.get(chunk),
        }
    }

    /// [`Holding::has`] for the 64 chunks from `index * 64` on.
    pub(super) fn word(&self, index: u64) -> u64 {
        match &self.said {
            Said::Nothing => 0,
            Said::Whole => u64::MAX,
            Said::Part(bits) => bits.word(index),
        }
    }

    /// Whether the peer holds every data chunk.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.said, Said::Whole)
    }

    /// Whether the peer may be asked for a chunk that nobody is known to hold.
    pub(super) fn may_have(&self, chunk: u64) -> bool {
        self.guess.as_ref().is_some_and(|lacks| lacks.len() < UNKNOWN_MISSES && !lacks.contains(&chunk))
    }
}

/// How many peers hold each data chunk.
#[derive(Debug)]
pub(super) struct Holders {
    /// Data chunks of the object.
    chunks: u64,
    /// Peers that hold all of it.
    whole: u16,
    /// Peers that hold a part with this chunk; empty while no peer holds a part.
    counts: Vec<u16>,
}

impl Holders {
    /// Nobody holds anything.
    pub(super) fn new(chunks: u64) -> Self {
        Self { chunks, whole: 0, counts: Vec::new() }
    }

    /// How many peers are known to hold a chunk.
    pub(super) fn count(&self, chunk: u64) -> u16 {
        let parts = usize::try_from(chunk).ok().and_then(|at| self.counts.get(at));
        parts.copied().unwrap_or(0).saturating_add(self.whole)
    }

    /// Whether all chunks are equally rare, as far as is known.
    pub(super) fn is_even(&self) -> bool {
        self.counts.is_empty()
    }

    /// Adds what a peer says.
    pub(super) fn learn(&mut self, holding: &mut Holding, has: Has) {
        let mut more = Bits::new(self.chunks);
        match has {
            Has::Unknown => {
                holding.guess.get_or_insert_default();
                return;
            }
            Has::Whole => return self.make_whole(holding),
            Has::Bitmap(bits) => more.union(&bits),
            Has::Ranges(ranges) => ranges.into_iter().for_each(|range| more.set_range(range)),
        }
        let mut bits = match std::mem::take(&mut holding.said) {
            Said::Whole => return holding.said = Said::Whole,
            Said::Nothing => Bits::new(self.chunks),
            Said::Part(bits) => bits,
        };
        more.subtract(&bits);
        self.recount(&more, |count| count.saturating_add(1));
        bits.union(&more);
        let is_whole = bits.count() == self.chunks;
        holding.said = Said::Part(bits);
        if is_whole {
            self.make_whole(holding);
        }
    }

    /// Notes that a peer lacks a chunk after all.
    pub(super) fn deny(&mut self, holding: &mut Holding, chunk: u64) {
        if let Some(lacks) = &mut holding.guess
            && lacks.len() < UNKNOWN_MISSES
        {
            lacks.insert(chunk);
        }
        if holding.is_whole() {
            let bits = Bits::full(self.chunks);
            self.recount(&bits, |count| count.saturating_add(1));
            self.whole = self.whole.saturating_sub(1);
            holding.said = Said::Part(bits);
        }
        if let Said::Part(bits) = &mut holding.said
            && bits.clear(chunk)
        {
            let mut only = Bits::new(self.chunks);
            only.set(chunk);
            self.recount(&only, |count| count.saturating_sub(1));
        }
    }

    /// Forgets what a peer held.
    pub(super) fn forget(&mut self, holding: &mut Holding) {
        match std::mem::take(&mut holding.said) {
            Said::Nothing => {}
            Said::Whole => self.whole = self.whole.saturating_sub(1),
            Said::Part(bits) => self.recount(&bits, |count| count.saturating_sub(1)),
        }
    }

    /// Counts a peer among those that hold everything.
    fn make_whole(&mut self, holding: &mut Holding) {
        if !holding.is_whole() {
            self.forget(holding);
            holding.said = Said::Whole;
            self.whole = self.whole.saturating_add(1);
        }
    }

    /// Changes the counts of the chunks whose bits are set.
    fn recount(&mut self, bits: &Bits, change: impl Fn(u16) -> u16) {
        if self.counts.is_empty() {
            self.counts = vec![0; usize::try_from(self.chunks).unwrap_or(0)];
        }
        for chunk in bits.ones(0..self.chunks) {
            if let Some(count) = usize::try_from(chunk).ok().and_then(|at| self.counts.get_mut(at)) {
                *count = change(*count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bits, Has, Holders, Holding, UNKNOWN_MISSES};

    #[test]
    fn counts_follow_what_peers_say_and_lack() {
        let mut holders = Holders::new(4);
        let (mut a, mut b) = (Holding::default(), Holding::default());
        holders.learn(&mut a, Has::Whole);
        assert!(holders.is_even() && holders.count(3) == 1);
        holders.learn(&mut b, Has::Ranges(vec![1..3, 2..9]));
        holders.learn(&mut b, Has::Bitmap(Bits::from_bytes(99, &[0b10])));
        assert_eq!([0, 1, 2, 3].map(|chunk| holders.count(chunk)), [1, 2, 2, 2]);
        holders.deny(&mut a, 1);
        holders.deny(&mut a, 1);
        assert!(!a.has(1) && a.has(0));
        assert_eq!([0, 1, 2, 3].map(|chunk| holders.count(chunk)), [1, 1, 2, 2]);
        holders.learn(&mut b, Has::Ranges(std::iter::once(0..1).collect()));
        assert!(b.is_whole());
        holders.forget(&mut a);
        holders.forget(&mut b);
        assert_eq!([0, 1, 2, 3, 4].map(|chunk| holders.count(chunk)), [0; 5]);
    }

    #[test]
    fn an_unknown_peer_is_tried_only_so_often() {
        let (mut holders, mut peer) = (Holders::new(100), Holding::default());
        assert!(!peer.may_have(0));
        holders.learn(&mut peer, Has::Unknown);
        for chunk in 0..UNKNOWN_MISSES as u64 {
            assert!(peer.may_have(chunk) && peer.may_have(99));
            holders.deny(&mut peer, chunk);
            assert!(!peer.may_have(chunk));
        }
        assert!(!peer.may_have(99));
    }
}
