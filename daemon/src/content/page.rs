//! A manifest page: up to 2,048 chunk ids and which of the chunks are all zeros.
//!
//! # Format (version 1)
//!
//! | field | bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | count | 2 | chunk ids, little endian, 1 to 2,048 |
//! | ids | 32 each | in order |
//! | zeros | ⌈count/8⌉ | bit i mod 8 (lowest first) of byte i div 8: chunk i is all zeros; unused bits are 0 |
//!
//! At most [`MAX_PAGE_BYTES`]. The ids fold to the page's value in the top. A zero flag is proved by hashing as many
//! zeros at the chunk's place. A chunk of zeros without its flag is let pass: to find it would mean hashing zeros
//! for every chunk, and it costs only a transfer of zeros.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::Reader;
use super::fold::{self, Level, Value};
use super::{CHUNK, ChunkId, ChunkRef, Error, ManifestTop, PAGE};

const WHAT: &str = "manifest page";
const VERSION: u8 = 1;

/// The longest page: 2,048 ids and as many flags.
pub const MAX_PAGE_BYTES: usize = 3 + PAGE * 32 + PAGE / 8;

/// A proven page of an object's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPage {
    ids: Vec<ChunkId>,
    /// One flag an id.
    zeros: Vec<bool>,
}

impl ManifestPage {
    /// Reads page `index` of the object that `top` proves, and proves it.
    ///
    /// Folding costs a compression an id; each zero flag costs hashing a chunk of zeros (0.3 ms), so run it off the
    /// runtime. A lying flag ends the work at once.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Unproven`], [`Error::NotZero`].
    pub fn prove(top: &ManifestTop, index: usize, encoded: &[u8]) -> Result<Self, Error> {
        let page = Self::recall(top, index, encoded)?;
        let zeros = Bytes::from_static(&ZEROS);
        for at in page.zeros.iter().enumerate().filter(|(_, zero)| **zero).map(|(at, _)| at) {
            let chunk = (index * PAGE + at) as u64;
            let length = top.chunk_length(chunk);
            let flagged = ChunkRef { id: page.ids[at], place: top.place(chunk), length };
            if flagged.verify(zeros.slice(..length as usize)).is_err() {
                return Err(Error::NotZero { index: at });
            }
        }
        Ok(page)
    }

    /// As [`ManifestPage::prove`], of bytes that are known to be the very ones that a page was encoded to: its flags
    /// were proved when that page was, and are not hashed again. For whoever keeps pages with a digest of his own.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Unproven`].
    pub fn recall(top: &ManifestTop, index: usize, encoded: &[u8]) -> Result<Self, Error> {
        let page = Self::decode(top.page_chunks(index), encoded)?;
        let value = top.page_value(index).ok_or(Error::Unproven { what: WHAT })?;
        if page.fold(top.page_level()) != Some(value) {
            return Err(Error::Unproven { what: WHAT });
        }
        Ok(page)
    }

    /// Reads the format; `count` is what the top allows.
    pub(super) fn decode(count: usize, encoded: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(WHAT, encoded);
        reader.version(VERSION)?;
        let claimed = usize::from(u16::from_le_bytes(reader.array()?));
        if claimed != count || count == 0 {
            return Err(reader.malformed("it has another number of chunks than the object's length asks for"));
        }
        let ids = reader.values(count)?.into_iter().map(ChunkId::from_bytes).collect();
        let flags = reader.take(count.div_ceil(8))?;
        if !count.is_multiple_of(8) && flags.last().is_some_and(|last| last >> (count % 8) != 0) {
            return Err(reader.malformed("unused bits are set"));
        }
        reader.end()?;
        let zeros = (0..count).map(|i| flags[i / 8] >> (i % 8) & 1 == 1).collect();
        Ok(Self { ids, zeros })
    }

    /// A page of chunks that were hashed here.
    pub(super) fn seal(ids: Vec<ChunkId>, zeros: Vec<bool>) -> Self {
        Self { ids, zeros }
    }

    /// The value of its ids.
    pub(super) fn fold(&self, level: Level) -> Option<Value> {
        fold::fold(self.ids.iter().map(|id| *id.as_bytes()), level)
    }

    /// The chunk ids in order.
    #[must_use]
    pub fn ids(&self) -> &[ChunkId] {
        &self.ids
    }

    /// Whether chunk `at` of this page is all zeros.
    #[must_use]
    pub fn is_zero(&self, at: usize) -> bool {
        self.zeros.get(at).copied().unwrap_or(false)
    }

    /// Its bytes in the format above.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a page has at most 2,048 ids")]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(3 + self.ids.len() * 33);
        out.put_u8(VERSION);
        out.put_u16_le(self.ids.len() as u16);
        for id in &self.ids {
            out.put_slice(id.as_bytes());
        }
        for flags in self.zeros.chunks(8) {
            out.put_u8(flags.iter().enumerate().fold(0, |byte, (bit, zero)| byte | u8::from(*zero) << bit));
        }
        out.freeze()
    }
}

/// A chunk of zeros, to prove flags against and to stand in for flagged chunks.
pub(super) static ZEROS: [u8; CHUNK] = [0; CHUNK];
