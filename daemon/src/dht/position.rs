//! Places in the key space: where Kademlia puts a key or a node, and the prefixes that cut the space.
//!
//! Owns: the arithmetic of 256-bit positions. Pure. Refuses: nothing. Survives a crash: nothing.
//!
//! A position is SHA-256 of a key's 32 bytes or of a peer id's bytes, compared by XOR, as in Kademlia
//! (Maymounkov and Mazières, 2002) and in `libp2p-kad`.

use libp2p::PeerId;
use libp2p::kad::KBucketKey;

use super::Key;

/// Bits in a position.
pub(super) const BITS: u16 = 256;

/// A place in the key space: 256 bits, most significant half first. Also used for XOR distances, since both
/// order as big-endian numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position(u128, u128);

/// All positions that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// The first position inside: the prefix's bits, then zeros.
    start: Position,
    /// How many bits are fixed, 0 (the whole space) to 256 (one position).
    length: u16,
}

// === impl Position ===

impl Position {
    /// Where Kademlia puts `key`.
    pub(super) fn of_key(key: &Key) -> Self {
        Self::from_hash(KBucketKey::new(*key).hashed_bytes())
    }

    /// Where Kademlia puts a node.
    pub(super) fn of_peer(peer: &PeerId) -> Self {
        Self::from_hash(KBucketKey::from(*peer).hashed_bytes())
    }

    /// The first 64 bits, which order most keys.
    pub(super) fn top(self) -> u64 {
        u64::try_from(self.0 >> 64).unwrap_or(u64::MAX)
    }

    /// The XOR metric.
    pub(super) fn distance(self, other: Self) -> Self {
        Self(self.0 ^ other.0, self.1 ^ other.1)
    }

    /// How many leading bits both share, 0 to 256.
    pub(super) fn common_prefix(self, other: Self) -> u16 {
        let Self(high, low) = self.distance(other);
        let bits = if high == 0 { 128 + low.leading_zeros() } else { high.leading_zeros() };
        u16::try_from(bits).unwrap_or(BITS)
    }

    /// Reads the digest; a short one is filled with zeros, a long one cut (neither happens with SHA-256).
    fn from_hash(hash: &[u8]) -> Self {
        let mut halves = [[0u8; 16]; 2];
        for (byte, from) in halves.as_flattened_mut().iter_mut().zip(hash) {
            *byte = *from;
        }
        Self(u128::from_be_bytes(halves[0]), u128::from_be_bytes(halves[1]))
    }

    /// A position whose first `length` bits are ones and the rest zeros.
    fn mask(length: u16) -> Self {
        let half = |bits: u16| match bits {
            0 => 0,
            1..=127 => u128::MAX << (128 - bits),
            _ => u128::MAX,
        };
        Self(half(length.min(128)), half(length.saturating_sub(128)))
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0, self.1 & other.1)
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0, self.1 | other.1)
    }

    fn not(self) -> Self {
        Self(!self.0, !self.1)
    }

    /// The position with only the bit number `index` set (0 is the most significant).
    fn bit(index: u16) -> Self {
        Self::mask(index + 1).distance(Self::mask(index))
    }
}

// === impl Prefix ===

impl Prefix {
    /// The whole space.
    pub(super) const ALL: Self = Self { start: Position(0, 0), length: 0 };

    /// The first `length` bits (at most 256) of `position`.
    pub(super) fn of(position: Position, length: u16) -> Self {
        let length = length.min(BITS);
        Self { start: position.and(Position::mask(length)), length }
    }

    /// How many bits are fixed.
    pub(super) fn length(self) -> u16 {
        self.length
    }

    /// The first position inside.
    pub(super) fn first(self) -> Position {
        self.start
    }

    /// The last position inside.
    pub(super) fn last(self) -> Position {
        self.start.or(Position::mask(self.length).not())
    }

    /// Whether `position` is inside.
    pub(super) fn contains(self, position: Position) -> bool {
        self.start.common_prefix(position) >= self.length
    }

    /// Whether all of `other` is inside.
    pub(super) fn covers(self, other: Self) -> bool {
        other.length >= self.length && self.contains(other.start)
    }

    /// The prefix one bit shorter; `None` for the whole space.
    pub(super) fn parent(self) -> Option<Self> {
        Some(Self::of(self.start, self.length.checked_sub(1)?))
    }

    /// The other half of the parent; `None` for the whole space.
    pub(super) fn sibling(self) -> Option<Self> {
        let last_bit = Position::bit(self.length.checked_sub(1)?);
        Some(Self { start: self.start.distance(last_bit), length: self.length })
    }

    /// Both halves; `None` for a single position.
    pub(super) fn halves(self) -> Option<(Self, Self)> {
        if self.length >= BITS {
            return None;
        }
        let left = Self { start: self.start, length: self.length + 1 };
        let right = Self { start: self.start.or(Position::bit(self.length)), length: self.length + 1 };
        Some((left, right))
    }

    /// A key that lies inside, found by trial: about 2^length hashes, so `None` beyond [`MAX_TRIAL_BITS`].
    pub(super) fn some_key(self) -> Option<Key> {
        if self.length > MAX_TRIAL_BITS {
            return None;
        }
        // Sixteen times the expected number of trials: missing it has a chance of e^-16.
        (0..(16u64 << self.length)).find_map(|trial| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&trial.to_le_bytes());
            self.contains(Position::of_key(&key)).then_some(key)
        })
    }
}

/// Prefixes longer than this get no key by trial: 2^16 hashes take about 20 ms, and regions this small
/// mean a network of a million nodes.
const MAX_TRIAL_BITS: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn halves_and_siblings_fit_together() {
        let (left, right) = Prefix::ALL.halves().unwrap();
        assert_eq!(left.sibling(), Some(right));
        assert_eq!(right.parent(), Some(Prefix::ALL));
        assert_eq!(Prefix::ALL.sibling(), None);
        assert_eq!(Prefix::of(Position(7, 9), BITS).halves(), None);
    }

    proptest! {
        #[test]
        fn prefixes_agree_with_common_bits(a: (u128, u128), b: (u128, u128), length in 0u16..=256) {
            let (a, b) = (Position(a.0, a.1), Position(b.0, b.1));
            let prefix = Prefix::of(a, length);
            prop_assert_eq!(prefix.contains(b), a.common_prefix(b) >= length);
            prop_assert!(prefix.contains(a) && prefix.contains(prefix.first()) && prefix.contains(prefix.last()));
            if let Some((left, right)) = prefix.halves() {
                prop_assert!(left.contains(a) != right.contains(a));
                prop_assert!(prefix.covers(left) && !left.covers(prefix));
            }
        }

        #[test]
        fn a_key_by_trial_lies_inside(seed in any::<[u8; 32]>(), length in 0u16..=10) {
            let prefix = Prefix::of(Position::of_key(&seed), length);
            let key = prefix.some_key().unwrap();
            prop_assert!(prefix.contains(Position::of_key(&key)));
        }
    }
}
