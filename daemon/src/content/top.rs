//! The top of a manifest: how long an object is, and the values of its pages.
//!
//! # Format (version 1)
//!
//! | field | bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | length | 8 | of the object, little endian; 1 byte to 4 TiB |
//! | page values | 32 each | one a page of 2,048 chunks; absent when one page is enough, whose value is the id |
//! | last leaf | 1..1024 | the last bytes of the object: `length mod 1024`, or 1,024 |
//! | neighbours | 32 each | the left neighbours on the way from the last leaf up to its page's value, lowest first |
//!
//! An object of one chunk has a top as well, which proves its length to those who only know its id; it has no pages,
//! and its top is made from the chunk instead of being stored.
//!
//! Every count follows from the length, so an object has one top and one encoding of it. It is at most
//! [`MAX_TOP_BYTES`] long.
//!
//! # What it proves
//!
//! The page values fold to the id. The last leaf, hashed at its place and joined with its neighbours, gives the last
//! page's value: BLAKE3 puts a leaf's index and length into its value and marks leaves and parents apart, so a tree
//! of this id has a leaf at just this place of the right spine, and one length only. Values of a coarser or finer
//! level, which fold to the same id, are therefore refused before anything else is believed of them.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::Reader;
use super::fold::{self, LEAF, Level, Value};
use super::{
    CHUNK_LEN, Chunk, Error, MAX_OBJECT, ManifestPage, ObjectId, PAGE, PAGE_LEN, Place, chunk_count,
    chunk_length,
};

const WHAT: &str = "manifest top";
const VERSION: u8 = 1;

/// The longest top: 2,048 page values, a whole leaf, and 21 neighbours (2 GiB is 2^21 leaves).
pub const MAX_TOP_BYTES: usize = 1 + 8 + 2048 * 32 + 1024 + 21 * 32;

/// A proven top: the length and the page values of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestTop {
    id: ObjectId,
    length: u64,
    /// One a page; empty when there is one page.
    values: Vec<Value>,
    /// The last bytes of the object.
    leaf: Vec<u8>,
    /// Left neighbours on the last leaf's way up, lowest first.
    neighbours: Vec<Value>,
}

/// Pages of an object of `length` bytes.
fn page_count(length: u64) -> usize {
    usize::try_from(length.div_ceil(PAGE_LEN)).unwrap_or(usize::MAX)
}

/// Where the last page begins.
fn last_page_offset(length: u64) -> u64 {
    (length - 1) / PAGE_LEN * PAGE_LEN
}

impl ManifestTop {
    /// Reads a top and proves it against the id that it is for.
    ///
    /// Costs at most 2,070 compressions and allocates no more than the input is long.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TooLong`], or [`Error::Unproven`] when the length or the values are not
    /// the object's.
    pub fn prove(id: ObjectId, encoded: &[u8]) -> Result<Self, Error> {
        let top = Self::decode(id, encoded)?;
        top.check()?;
        Ok(top)
    }

    /// Reads the format, and believes nothing of it.
    pub(super) fn decode(id: ObjectId, encoded: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(WHAT, encoded);
        reader.version(VERSION)?;
        let length = reader.u64()?;
        if length == 0 {
            return Err(reader.malformed("the empty object has no manifest"));
        }
        if length > MAX_OBJECT {
            return Err(Error::TooLong { length });
        }
        let pages = page_count(length);
        let (spine, leaf_length) = fold::right_spine(length - last_page_offset(length));
        let values = reader.values(if pages > 1 { pages } else { 0 })?;
        let leaf = reader.take(usize::try_from(leaf_length).unwrap_or(usize::MAX))?.to_vec();
        let neighbours = reader.values(spine.len())?;
        reader.end()?;
        Ok(Self { id, length, values, leaf, neighbours })
    }

    /// The top of an object that is one chunk; `None` for a chunk of a longer object.
    #[must_use]
    pub fn of_chunk(chunk: &Chunk) -> Option<Self> {
        let id = chunk.id().whole_object(chunk.place())?;
        let length = chunk.bytes().len() as u64;
        let (spine, leaf) = fold::right_spine(length);
        let bytes = |offset: u64, size: u64| {
            let (from, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
            chunk.bytes().get(from..from.checked_add(size)?)
        };
        let neighbours = spine.iter().map(|&(at, size)| bytes(at, size).map(|b| fold::subtree(b, at)));
        let neighbours = neighbours.collect::<Option<Vec<_>>>()?;
        let leaf = bytes(length - leaf, leaf)?.to_vec();
        Some(Self { id, length, values: Vec::new(), leaf, neighbours })
    }

    /// Makes the top of an object from its last chunk and its pages' values. The caller has the data.
    pub(super) fn seal(length: u64, pages: &[ManifestPage], last: &Chunk) -> Result<Self, Error> {
        let single = pages.len() == 1;
        let level = if single { Level::Root } else { Level::Inner };
        let values: Vec<Value> = pages.iter().filter_map(|page| page.fold(level)).collect();
        let unproven = Error::Unproven { what: WHAT };
        let id = match values.as_slice() {
            [only] if single => *only,
            _ => fold::fold(values.iter().copied(), Level::Root).ok_or(unproven.clone())?,
        };
        let last_page = pages.last().ok_or(unproven)?;
        let (neighbours, leaf) = tail(length, last_page, last);
        let values = if single { Vec::new() } else { values };
        let top = Self { id: ObjectId::from_bytes(id), length, values, leaf, neighbours };
        top.check()?;
        Ok(top)
    }

    /// The proof itself. Shapes have been checked.
    fn check(&self) -> Result<(), Error> {
        let unproven = |what| Error::Unproven { what };
        let single = self.values.is_empty();
        let (level, last_value) = match self.values.last() {
            Some(value) => (Level::Inner, *value),
            None => (Level::Root, *self.id.as_bytes()),
        };
        if !single {
            let id = fold::fold(self.values.iter().copied(), Level::Root);
            if id != Some(*self.id.as_bytes()) {
                return Err(unproven("list of manifest pages"));
            }
        }
        let offset = self.length - self.leaf.len() as u64;
        if fold::climb(&self.leaf, offset, &self.neighbours, level) != last_value {
            return Err(unproven("length of the manifest"));
        }
        Ok(())
    }

    /// The object.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Bytes of the object, at least 1.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its chunks, at least 1.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        chunk_count(self.length)
    }

    /// Its pages, at most 2,048; none when it is one chunk.
    #[must_use]
    pub fn pages(&self) -> usize {
        if self.length <= CHUNK_LEN { 0 } else { page_count(self.length) }
    }

    /// Chunk ids on page `index`: [`PAGE`] on all but the last; 0 when there is no such page.
    #[must_use]
    pub fn page_chunks(&self, index: usize) -> usize {
        if index >= self.pages() {
            return 0;
        }
        let before = (index as u64).saturating_mul(PAGE as u64);
        usize::try_from(self.chunks().saturating_sub(before)).unwrap_or(usize::MAX).min(PAGE)
    }

    /// The value that page `index` folds to, under which it is stored; the object's id when there is one page.
    #[must_use]
    pub fn page_value(&self, index: usize) -> Option<[u8; 32]> {
        if self.pages() == 1 && index == 0 {
            return Some(*self.id.as_bytes());
        }
        self.values.get(index).copied()
    }

    /// Whether page `index` is folded as the top of the tree.
    pub(super) fn page_level(&self) -> Level {
        if self.values.is_empty() { Level::Root } else { Level::Inner }
    }

    /// Bytes of chunk `index`; 0 when there is no such chunk.
    #[must_use]
    pub fn chunk_length(&self, index: u64) -> u32 {
        chunk_length(self.length, index)
    }

    /// The place of chunk `index`.
    #[must_use]
    pub fn place(&self, index: u64) -> Place {
        Place::of(index, self.chunks())
    }

    /// Its bytes in the format above.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let size = 9 + (self.values.len() + self.neighbours.len()) * 32 + self.leaf.len();
        let mut out = BytesMut::with_capacity(size);
        out.put_u8(VERSION);
        out.put_u64_le(self.length);
        out.put_slice(self.values.as_flattened());
        out.put_slice(&self.leaf);
        out.put_slice(self.neighbours.as_flattened());
        out.freeze()
    }
}

/// The last leaf and its neighbours: those within the last chunk are hashed from its bytes (the one place where
/// bytes are hashed twice, at most 1 MiB an object), those above are folded from the last page's ids.
fn tail(length: u64, last_page: &ManifestPage, last: &Chunk) -> (Vec<Value>, Vec<u8>) {
    let page_offset = last_page_offset(length);
    let chunk_offset = last.place().offset() - page_offset;
    let (spine, leaf_length) = fold::right_spine(length - page_offset);
    let neighbours = spine.iter().map(|&(offset, size)| {
        if offset >= chunk_offset {
            let from = usize::try_from(offset - chunk_offset).unwrap_or(usize::MAX);
            let bytes = last.bytes().get(from..from + usize::try_from(size).unwrap_or(0)).unwrap_or_default();
            fold::subtree(bytes, page_offset + offset)
        } else {
            let ids = (offset / CHUNK_LEN..(offset + size) / CHUNK_LEN).filter_map(|index| {
                last_page.ids().get(usize::try_from(index).ok()?).map(|id| *id.as_bytes())
            });
            fold::fold(ids, Level::Inner).unwrap_or_default()
        }
    });
    debug_assert!(leaf_length <= LEAF);
    let leaf = last.bytes().len().saturating_sub(usize::try_from(leaf_length).unwrap_or(usize::MAX));
    (neighbours.collect(), last.bytes().slice(leaf..).to_vec())
}
