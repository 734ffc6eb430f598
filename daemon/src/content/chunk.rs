//! Chunks: verified bytes with the id that proves them.

use std::fmt;

use blake3::hazmat::HasherExt;
use bytes::Bytes;

use super::{CHUNK, CHUNK_LEN, ChunkId, MAX_OBJECT};

/// How a chunk's id is computed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Plain BLAKE3: the only chunk of an object of at most 1 MiB, and every parity chunk.
    Root,
    /// The BLAKE3 subtree chaining value at this byte offset: a chunk of a longer object.
    At(u64),
}

impl Place {
    /// The place of chunk `index` of an object of `chunks` chunks.
    #[must_use]
    pub const fn of(index: u64, chunks: u64) -> Self {
        if chunks <= 1 { Self::Root } else { Self::At(index.saturating_mul(CHUNK_LEN)) }
    }

    /// The offset in the object.
    #[must_use]
    pub const fn offset(self) -> u64 {
        match self {
            Self::Root => 0,
            Self::At(offset) => offset,
        }
    }

    /// Whether a chunk can have this place: offsets are multiples of a chunk, below the longest object.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        match self {
            Self::Root => true,
            Self::At(offset) => offset.is_multiple_of(CHUNK_LEN) && offset < MAX_OBJECT,
        }
    }

    /// The id of `bytes` here. The caller has checked the place and the length.
    fn id(self, bytes: &[u8]) -> ChunkId {
        ChunkId::from_bytes(match self {
            Self::Root => *blake3::hash(bytes).as_bytes(),
            Self::At(offset) => {
                blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
            }
        })
    }
}

/// All that one must know to ask for a chunk and to verify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// What the bytes must hash to.
    pub id: ChunkId,
    /// How they are hashed.
    pub place: Place,
    /// Their number, 1 to [`CHUNK`].
    pub length: u32,
}

impl ChunkRef {
    /// Whether a chunk can have this place and length, whatever its id.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.place.is_valid() && (1..=CHUNK).contains(&(self.length as usize))
    }

    /// Makes a chunk of `bytes` when they are the ones meant. Hashes them: about 0.3 ms for 1 MiB.
    ///
    /// # Errors
    /// [`Mismatch`] when the length or the hash differs, or the reference is not valid.
    pub fn verify(&self, bytes: Bytes) -> Result<Chunk, Mismatch> {
        if !self.is_valid() || bytes.len() != self.length as usize || self.place.id(&bytes) != self.id {
            return Err(Mismatch(*self));
        }
        Ok(Chunk { id: self.id, place: self.place, zero: is_zero(&bytes), bytes })
    }
}

/// Bytes that are not the chunk they were said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch(
    /// The chunk that was meant.
    pub ChunkRef,
);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bytes are not chunk {}", self.0.id)
    }
}

impl std::error::Error for Mismatch {}

/// Verified bytes of one chunk. Only hashing makes one. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    id: ChunkId,
    place: Place,
    zero: bool,
    bytes: Bytes,
}

impl Chunk {
    /// The chunk that `bytes` are at `place`.
    ///
    /// # Errors
    /// [`Mismatch`] (naming no real chunk) when no chunk can have this place or this length.
    pub fn compute(place: Place, bytes: Bytes) -> Result<Self, Mismatch> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let shape = ChunkRef { id: ChunkId::from_bytes([0; 32]), place, length };
        if !shape.is_valid() {
            return Err(Mismatch(shape));
        }
        Ok(Self { id: place.id(&bytes), place, zero: is_zero(&bytes), bytes })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// Where it stands in its object.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Its bytes, 1 to [`CHUNK`] of them.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Gives up the proof and keeps the bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Whether every byte is zero: such a chunk is a flag, its payload is neither stored nor sent.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.zero
    }

    /// What one must know to ask for it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a chunk is at most 1 MiB")]
    pub fn reference(&self) -> ChunkRef {
        ChunkRef { id: self.id, place: self.place, length: self.bytes.len() as u32 }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({}, {:?}, {} bytes)", self.id, self.place, self.bytes.len())
    }
}

/// Whether all bytes are zero. Compares memory, which is fast without optimisation too, and ends at the first byte
/// that differs. Longer than a chunk they cannot be.
fn is_zero(bytes: &[u8]) -> bool {
    super::page::ZEROS.get(..bytes.len()) == Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_bytes_at_the_right_place_verify() {
        let bytes = Bytes::from(vec![7; 5000]);
        let chunk = Chunk::compute(Place::At(3 * CHUNK_LEN), bytes.clone()).unwrap();
        assert_eq!(chunk.reference().verify(bytes.clone()), Ok(chunk.clone()));
        let elsewhere = ChunkRef { place: Place::At(2 * CHUNK_LEN), ..chunk.reference() };
        assert_eq!(elsewhere.verify(bytes.clone()), Err(Mismatch(elsewhere)));
        assert!(chunk.reference().verify(bytes.slice(1..)).is_err());
        let mut flipped = bytes.to_vec();
        flipped[4000] ^= 1;
        assert!(chunk.reference().verify(flipped.into()).is_err());
    }

    #[test]
    fn shapes_that_no_chunk_has_are_refused_and_never_reach_the_hasher() {
        let place = |offset| Chunk::compute(Place::At(offset), Bytes::from_static(b"x")).is_ok();
        assert!(place(0) && place(MAX_OBJECT - CHUNK_LEN));
        assert!(!place(1) && !place(MAX_OBJECT) && !place(u64::MAX - 1023));
        assert!(Chunk::compute(Place::Root, Bytes::new()).is_err());
        assert!(Chunk::compute(Place::Root, vec![0; CHUNK + 1].into()).is_err());
    }

    #[test]
    fn zeros_are_seen_at_any_length() {
        for length in [1, 1023, 1024, 1025, CHUNK] {
            let mut bytes = vec![0; length];
            assert!(Chunk::compute(Place::Root, bytes.clone().into()).unwrap().is_zero());
            bytes[length - 1] = 1;
            assert!(!Chunk::compute(Place::Root, bytes.into()).unwrap().is_zero());
        }
    }
}
