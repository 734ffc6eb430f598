//! A set of chunk numbers as one bit a chunk: 512 KiB for the longest object.

use std::ops::Range;

/// Bits in a word.
const WORD: u64 = 64;

/// A fixed number of bits, all clear at first. Whatever lies beyond its length reads as clear and is ignored
/// when set, so that a stranger's numbers need no check before they come here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Bit `i` is bit `i % 64` of word `i / 64`; bits beyond `length` are clear.
    words: Vec<u64>,
    /// How many bits there are.
    length: u64,
}

impl Bits {
    /// `length` clear bits.
    #[must_use]
    pub fn new(length: u64) -> Self {
        Self { words: vec![0; slot(length.div_ceil(WORD))], length }
    }

    /// `length` set bits.
    #[must_use]
    pub fn full(length: u64) -> Self {
        let mut bits = Self::new(length);
        bits.set_range(0..length);
        bits
    }

    /// Bits as they travel: bit `i` is bit `i % 8` of byte `i / 8`. Missing bytes are clear, surplus ones
    /// are ignored.
    #[must_use]
    pub fn from_bytes(length: u64, bytes: &[u8]) -> Self {
        let mut bits = Self::new(length);
        for (word, bytes) in bits.words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        bits.trim();
        bits
    }

    /// How many bits there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are no bits at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bits are set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether bit `index` is set.
    #[must_use]
    pub fn get(&self, index: u64) -> bool {
        self.word(index / WORD) & mask(index) != 0
    }

    /// Sets bit `index`; tells whether that changed anything.
    pub fn set(&mut self, index: u64) -> bool {
        let new = index < self.length && !self.get(index);
        if new {
            self.words[slot(index / WORD)] |= mask(index);
        }
        new
    }

    /// Clears bit `index`; tells whether that changed anything.
    pub fn clear(&mut self, index: u64) -> bool {
        let was = self.get(index);
        if was {
            self.words[slot(index / WORD)] &= !mask(index);
        }
        was
    }

    /// Sets the bits of `range` that exist, word by word.
    pub fn set_range(&mut self, range: Range<u64>) {
        let end = range.end.min(self.length);
        let mut at = range.start;
        while at < end {
            let count = (WORD - at % WORD).min(end - at);
            let ones = u64::MAX >> (WORD - count);
            self.words[slot(at / WORD)] |= ones << (at % WORD);
            at += count;
        }
    }

    /// Sets every bit that is set in `other`.
    pub fn union(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.trim();
    }

    /// Clears every bit that is set in `other`.
    pub fn subtract(&mut self, other: &Self) {
        for (word, less) in self.words.iter_mut().zip(&other.words) {
            *word &= !less;
        }
    }

    /// The 64 bits from `index * 64` on; clear beyond the end.
    #[must_use]
    pub fn word(&self, index: u64) -> u64 {
        self.words.get(slot(index)).copied().unwrap_or(0)
    }

    /// The numbers of the set bits within `range`, ascending.
    pub fn ones(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        let end = range.end.min(self.length);
        let words = range.start / WORD..end.div_ceil(WORD);
        words.flat_map(move |index| {
            let base = index * WORD;
            let mut word = self.word(index);
            if base < range.start {
                word &= u64::MAX << (range.start - base);
            }
            if base + WORD > end {
                word &= u64::MAX >> (base + WORD - end);
            }
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| u64::from(word.trailing_zeros()))?;
                word &= word - 1;
                Some(base + bit)
            })
        })
    }

    /// Clears what lies beyond the length in the last word.
    fn trim(&mut self) {
        let rest = self.length % WORD;
        if let (1.., Some(last)) = (rest, self.words.last_mut()) {
            *last &= u64::MAX >> (WORD - rest);
        }
    }
}

/// The bit of `index` in its word.
fn mask(index: u64) -> u64 {
    1 << (index % WORD)
}

/// A place in the list of words; the longest object has 65,536.
fn slot(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{prop_assert_eq, proptest};

    use super::Bits;

    proptest! {
        #[test]
        fn bits_are_a_set_of_numbers(
            length in 0u64..300,
            ranges in proptest::collection::vec((0u64..400, 0u64..80, proptest::bool::ANY), 0..12),
            window in (0u64..320, 0u64..320),
        ) {
            let (mut bits, mut set) = (Bits::new(length), BTreeSet::new());
            for (start, count, on) in ranges {
                if on {
                    bits.set_range(start..start + count);
                    set.extend((start..start + count).filter(|&i| i < length));
                } else {
                    prop_assert_eq!(bits.clear(start), set.remove(&start));
                }
            }
            prop_assert_eq!(bits.count(), set.len() as u64);
            let (from, to) = (window.0.min(window.1), window.0.max(window.1));
            prop_assert_eq!(bits.ones(from..to).collect::<Vec<_>>(),
                set.range(from..to).copied().collect::<Vec<_>>());
            let bytes: Vec<u8> = (0..length.div_ceil(64)).flat_map(|i| bits.word(i).to_le_bytes()).collect();
            prop_assert_eq!(&Bits::from_bytes(length, &bytes), &bits);
        }
    }

    #[test]
    fn surplus_bits_are_ignored() {
        let mut bits = Bits::from_bytes(3, &[0xff; 64]);
        assert_eq!(bits, Bits::full(3));
        assert!(!bits.set(3) && !bits.get(u64::MAX) && !bits.clear(64));
        bits.union(&Bits::full(64));
        assert_eq!(bits.count(), 3);
    }
}
