//! The order in which equally rare chunks are asked for.
//!
//! Chunks go in runs of sixteen that are neighbours, so that givers read and takers write long pieces and stripes
//! fill one after the other. The runs are visited by an affine permutation, and each run is entered somewhere of
//! its own, both drawn from the seed: fetchers that start together at one holder ask for different chunks.

use super::chunks::Chunks;
use super::peer::Peer;

/// Chunks in a run; divides 64, so that a run lies within one word of a bitmap.
const RUN: u64 = 16;

/// A peer's queue is sorted for this share of the object's chunks at a time: sorting looks at every chunk, so
/// this bounds how often that happens to a whole fetch from one peer.
const SORTED_SHARE: u64 = 256;

/// The shortest and the longest queue (16 bytes an entry).
const SORTED: (u64, u64) = (256, 16_384);

/// A seeded order of all chunks. Takes no memory.
#[derive(Debug)]
pub(super) struct Runs {
    /// Runs in the object.
    count: u64,
    /// What one steps from a run to the next; has no divisor in common with `count`.
    step: u64,
    /// The first run; also seeds where runs are entered.
    seed: u64,
}

impl Runs {
    /// The order that `seed` gives to `chunks` chunks.
    pub(super) fn new(chunks: u64, seed: u64) -> Self {
        let count = chunks.div_ceil(RUN).max(1);
        let mut step = mix(seed) % count;
        while gcd(step, count) != 1 {
            step = (step + 1) % count.max(2);
        }
        Self { count, step, seed: mix(seed ^ 1) }
    }

    /// A number of its own for each chunk and fetch.
    pub(super) fn draw(&self, chunk: u64) -> u64 {
        mix(self.seed ^ chunk)
    }

    /// The chunks to ask of `peer` next, rarest first and the best last, but for those that it gives to others where it
    /// is `spared`; empty when it has no such chunk that is open. `is_even`: all chunks are equally rare.
    pub(super) fn sort(
        &self,
        chunks: &Chunks,
        peer: &Peer,
        is_even: bool,
        spared: bool,
        rarity: impl Fn(u64) -> u16,
    ) -> Vec<(u64, u16)> {
        let keep = (chunks.count() / SORTED_SHARE).clamp(SORTED.0, SORTED.1);
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let (mut best, mut ceiling) = (Vec::new(), u16::MAX);
        let mut run = self.seed % self.count;
        for _ in 0..self.count {
            let (word, shift) = (run * RUN / 64, run * RUN % 64);
            let lane = (chunks.open_word(word) & peer.holding.word(word)) >> shift & ((1 << RUN) - 1);
            let entry = mix(self.seed ^ run) % RUN;
            let chunk = |i: u64| (entry + i) % RUN;
            for chunk in (0..RUN).map(chunk).filter(|i| lane >> i & 1 == 1).map(|i| run * RUN + i) {
                let count = rarity(chunk);
                if count < ceiling && !(spared && peer.given.has(chunk)) {
                    best.push((chunk, count));
                }
            }
            if best.len() >= 2 * keep {
                // A stable sort, so that equally rare chunks stay in the order of the runs.
                best.sort_by_key(|&(_, count)| count);
                best.truncate(keep);
                ceiling = best.last().map_or(0, |&(_, count)| count);
            }
            if is_even && best.len() >= keep {
                break;
            }
            run = (run + self.step) % self.count;
        }
        best.sort_by_key(|&(_, count)| count);
        best.truncate(keep);
        best.reverse();
        best
    }
}

/// The mixing step of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input moves every bit of the
/// output.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// The greatest common divisor.
fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
