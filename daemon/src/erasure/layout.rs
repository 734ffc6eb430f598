//! Where the stripes of an object are.
//!
//! An object of n chunks has ⌈n/k⌉ stripes of k consecutive chunks; the last two share what is left evenly, the
//! earlier taking the odd one; each has m parity chunks. With n ≤ k there is one stripe with ⌈m·n/k⌉ parity chunks.
//! A shard is as long as the longest chunk of its stripe.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::Error;
use crate::content::{chunk_count, chunk_length};

/// How much parity: k data chunks and m parity chunks in a full stripe. Always in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    k: u8,
    m: u8,
}

impl Geometry {
    /// 16+4: a quarter more bytes, any four chunks of twenty may be lost.
    pub const DEFAULT: Self = Self { k: 16, m: 4 };

    /// k data and m parity chunks a stripe.
    ///
    /// # Errors
    /// [`Error::Geometry`] unless k is 1..=128, m is 1..=64 and k+m at most 192.
    pub fn new(k: u8, m: u8) -> Result<Self, Error> {
        let fits = (1..=128).contains(&k) && (1..=64).contains(&m) && u16::from(k) + u16::from(m) <= 192;
        if fits { Ok(Self { k, m }) } else { Err(Error::Geometry { k, m }) }
    }

    /// Data chunks of a full stripe.
    #[must_use]
    pub fn k(self) -> u8 {
        self.k
    }

    /// Parity chunks of a full stripe.
    #[must_use]
    pub fn m(self) -> u8 {
        self.m
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.k, self.m)
    }
}

impl FromStr for Geometry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Text(text.to_owned());
        let (k, m) = text.split_once('+').ok_or_else(wrong)?;
        // Digits only: `parse` would also take a sign.
        let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => part.parse::<u8>().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        Self::new(number(k)?, number(m)?)
    }
}

/// One stripe of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripe {
    /// Its number.
    pub index: u64,
    /// Its first data chunk.
    pub first: u64,
    /// Its data chunks, 1..=128.
    pub data: usize,
    /// Its parity chunks, 1..=64.
    pub parity: usize,
    /// The number of its first parity chunk, counted over the whole object.
    pub first_parity: u64,
    /// Bytes of a shard: of every parity chunk, and of its longest data chunk.
    pub shard: usize,
}

impl Stripe {
    /// Its data chunks' numbers in the object.
    #[must_use]
    pub fn chunks(&self) -> Range<u64> {
        self.first..self.first + self.data as u64
    }
}

/// The stripes of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    geometry: Geometry,
    /// Bytes of the object.
    length: u64,
    /// Its chunks, at least 2.
    chunks: u64,
    /// Its stripes, at least 1.
    stripes: u64,
}

impl Layout {
    /// The layout of an object of `length` bytes. `None` for one of less than two chunks: it has no parity.
    #[must_use]
    pub fn new(length: u64, geometry: Geometry) -> Option<Self> {
        let chunks = chunk_count(length);
        let stripes = chunks.div_ceil(u64::from(geometry.k));
        (chunks >= 2).then_some(Self { geometry, length, chunks, stripes })
    }

    /// The stripes' number.
    #[must_use]
    pub fn stripes(&self) -> u64 {
        self.stripes
    }

    /// Parity chunks of the whole object.
    #[must_use]
    pub fn parity_chunks(&self) -> u64 {
        self.stripes * self.parity() as u64
    }

    /// Parity chunks of each stripe.
    fn parity(&self) -> usize {
        let (k, m) = (u64::from(self.geometry.k), u64::from(self.geometry.m));
        let parity = if self.chunks <= k { (m * self.chunks).div_ceil(k) } else { m };
        usize::try_from(parity).unwrap_or(usize::MAX)
    }

    /// First chunk and number of chunks of stripe `index`.
    fn span(&self, index: u64) -> (u64, u64) {
        let k = u64::from(self.geometry.k);
        let shared_from = self.stripes.saturating_sub(2);
        if self.stripes == 1 {
            return (0, self.chunks);
        }
        if index < shared_from {
            return (index * k, k);
        }
        let left = self.chunks - shared_from * k;
        let earlier = left.div_ceil(2);
        let start = shared_from * k;
        if index == shared_from { (start, earlier) } else { (start + earlier, left - earlier) }
    }

    /// Stripe `index`; `None` when there is no such stripe.
    #[must_use]
    pub fn stripe(&self, index: u64) -> Option<Stripe> {
        if index >= self.stripes {
            return None;
        }
        let (first, data) = self.span(index);
        let parity = self.parity();
        Some(Stripe {
            index,
            first,
            data: usize::try_from(data).ok()?,
            parity,
            first_parity: index * parity as u64,
            shard: chunk_length(self.length, first) as usize,
        })
    }

    /// The stripe of data chunk `chunk`.
    #[must_use]
    pub fn stripe_of(&self, chunk: u64) -> Option<Stripe> {
        if chunk >= self.chunks {
            return None;
        }
        // Only the last stripe can begin before its multiple of k.
        let guess = (chunk / u64::from(self.geometry.k)).min(self.stripes - 1);
        let stripe = self.stripe(guess)?;
        if stripe.chunks().contains(&chunk) { Some(stripe) } else { self.stripe(guess + 1) }
    }

    /// All stripes in order.
    pub fn iter(&self) -> impl Iterator<Item = Stripe> + use<> {
        let layout = *self;
        (0..layout.stripes).filter_map(move |index| layout.stripe(index))
    }

    /// Whether chunks `0..seen` of an object that goes on beyond them (its length is not known yet) are enough
    /// to tell that a stripe of k chunks begins at `first`: the last two stripes share, so k more chunks and
    /// one must follow.
    #[must_use]
    pub fn is_full_stripe(first: u64, seen: u64, geometry: Geometry) -> bool {
        seen.saturating_sub(first) > 2 * u64::from(geometry.k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::CHUNK_LEN;
    use crate::content::{CODEC_RS8, ChunkId, ObjectId, ParityClaim, ParityPart};
    use proptest::prelude::*;

    fn spans(chunks: u64, k: u8, m: u8) -> Vec<(usize, usize)> {
        let layout = Layout::new(chunks * CHUNK_LEN - 5, Geometry::new(k, m).unwrap()).unwrap();
        layout.iter().map(|stripe| (stripe.data, stripe.parity)).collect()
    }

    #[test]
    fn the_design_s_examples() {
        assert_eq!(spans(17, 16, 4), [(9, 4), (8, 4)]);
        assert_eq!(spans(16, 16, 4), [(16, 4)]);
        assert_eq!(spans(2, 16, 4), [(2, 1)]);
        assert_eq!(spans(5, 16, 4), [(5, 2)]);
        assert_eq!(spans(32, 16, 4), [(16, 4), (16, 4)]);
        assert_eq!(spans(33, 16, 4), [(16, 4), (9, 4), (8, 4)]);
        assert_eq!(Layout::new(CHUNK_LEN, Geometry::DEFAULT), None);
    }

    #[test]
    fn geometries_have_a_range_and_one_spelling() {
        assert_eq!("16+4".parse(), Ok(Geometry::DEFAULT));
        assert_eq!(Geometry::DEFAULT.to_string(), "16+4");
        for bad in ["", "16", "16+", "+4", "16-4", "a+b", "16+4+1", "-1+4", "16++4", "16+ 4", "70000+1"] {
            assert!(matches!(bad.parse::<Geometry>(), Err(Error::Text(_))), "{bad}");
        }
        for bad in ["0+1", "1+0", "129+1", "1+65", "128+64x"] {
            assert!(bad.parse::<Geometry>().is_err(), "{bad}");
        }
        assert!("128+64".parse::<Geometry>().is_ok() && "300+4".parse::<Geometry>().is_err());
    }

    #[test]
    fn every_k_and_m_is_taken_by_all_or_by_none() {
        let key = libp2p_identity::Keypair::generate_ed25519();
        for (k, m) in (0..=255).flat_map(|k| (0..=255).map(move |m| (k, m))) {
            let fits = (1..=128).contains(&k) && (1..=64).contains(&m);
            assert_eq!(Geometry::new(k, m).is_ok(), fits, "{k}+{m}");
            assert_eq!(format!("{k}+{m}").parse::<Geometry>().is_ok(), fits, "{k}+{m}");
            // What fits is signed, which takes its time.
            if !fits || (k, m) == (128, 64) || (k % 32, m % 16) == (1, 1) {
                let object = ObjectId::from_bytes([7; 32]);
                let claim = ParityClaim { object, length: 2 << 20, codec: CODEC_RS8, k, m, count: 1 };
                let part = ParityPart::sign(claim, &[ChunkId::from_bytes([1; 32])], &key);
                assert_eq!(part.is_ok(), fits, "{k}+{m}");
                let read = part.map(|(part, _)| ParityPart::check(&part.encode()));
                assert!(read.is_ok_and(|read| read.is_ok()) || !fits, "{k}+{m}");
            }
        }
    }

    proptest! {
        #[test]
        fn stripes_tile_the_object(length in CHUNK_LEN + 1..900 * CHUNK_LEN, k in 1u8..=128, m in 1u8..=64) {
            let layout = Layout::new(length, Geometry::new(k, m).unwrap()).unwrap();
            let (mut next, mut parity) = (0, 0);
            for stripe in layout.iter() {
                prop_assert_eq!((stripe.first, stripe.first_parity), (next, parity));
                prop_assert!((1..=usize::from(k)).contains(&stripe.data));
                prop_assert!((1..=usize::from(m)).contains(&stripe.parity));
                for chunk in stripe.chunks() {
                    prop_assert_eq!(layout.stripe_of(chunk), Some(stripe));
                    prop_assert!(chunk_length(length, chunk) as usize <= stripe.shard);
                }
                next += stripe.data as u64;
                parity += stripe.parity as u64;
            }
            prop_assert_eq!((next, parity), (chunk_count(length), layout.parity_chunks()));
            prop_assert_eq!(layout.stripe(layout.stripes()), None);
            prop_assert_eq!(layout.stripe_of(next), None);
        }

        #[test]
        fn a_stripe_that_is_called_full_is_full(
            length in CHUNK_LEN + 1..200 * CHUNK_LEN,
            k in 1u8..=20,
            seen in 1u64..200,
        ) {
            let geometry = Geometry::new(k, 2).unwrap();
            let layout = Layout::new(length, geometry).unwrap();
            let seen = seen.min(chunk_count(length));
            for stripe in layout.iter().filter(|stripe| Layout::is_full_stripe(stripe.first, seen, geometry)) {
                prop_assert_eq!(stripe.data, usize::from(k));
            }
        }
    }
}
