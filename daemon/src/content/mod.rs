//! What the bytes are called and how that is proved: ids, chunks, manifests, parity parts, trees, descriptions, links.
//!
//! Owns: every id and every format whose truth is a hash. Refuses: files, peers, time, async; the whole
//! room is pure. Survives a crash: nothing is kept here, but [`ManifestTop`], [`ManifestPage`],
//! [`ParityPart`], [`ParityPage`], [`Tree`] and [`SignedDescription`] are written to disk and sent to peers in exactly
//! the bytes that their modules describe.
//!
//! Unverified bytes have another type than verified ones: a [`Chunk`] can only be made by hashing, a
//! [`ManifestTop`] or [`ManifestPage`] only by proving it against an [`ObjectId`]. What is not proved
//! cannot be stored, served or returned, because no room takes it.
//!
//! The BLAKE3 tree that all proofs rest on is described in section 2.1 of the BLAKE3 paper; subtree values are
//! those of `blake3::hazmat`.

mod chunk;
mod codec;
mod error;
mod excerpt;
mod fold;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod golden;
mod id;
mod link;
mod manifest;
mod metadata;
mod names;
mod page;
mod parity;
mod top;
mod tree;

pub use chunk::{Chunk, ChunkRef, Mismatch, Place};
pub use error::Error;
pub use excerpt::Excerpt;
pub use id::{ChunkId, IdError, ObjectId};
pub use link::{Link, LinkError};
pub use manifest::{Manifest, ManifestBuilder};
pub use metadata::{
    DESCRIPTION_LIFE, Description, MAX_DESCRIPTION, SignedDescription, described_name, is_called, is_timely,
};
pub use names::{MAX_ENTRY_NAME, NameError, TreePath, check_name, check_portable, check_public_name};
pub use page::{MAX_PAGE_BYTES, ManifestPage};
pub use parity::{
    CODEC_RS8, MAX_PARITY_PAGE_BYTES, MAX_PARITY_PART_BYTES, PARITY_PAGE, ParityClaim, ParityPage, ParityPart,
};
pub use top::{MAX_TOP_BYTES, ManifestTop};
pub use tree::{
    Entry, MAX_LINK_TARGET, MAX_TREE_BYTES, MAX_TREE_DEPTH, MAX_TREE_ENTRIES, MAX_TREE_TOTAL, Node, Tree,
    TreeBuilder,
};

/// Bytes in a chunk: 1 MiB. The last chunk of an object may be shorter.
pub const CHUNK: usize = 1 << 20;

/// [`CHUNK`] as a length in an object.
pub const CHUNK_LEN: u64 = CHUNK as u64;

/// Chunk ids on a manifest page. One page proves a subtree of 2 GiB.
pub const PAGE: usize = 2048;

/// Bytes that one manifest page covers: 2 GiB.
pub const PAGE_LEN: u64 = CHUNK_LEN * PAGE as u64;

/// The longest object: 4 TiB, so that a top lists at most 2,048 pages.
pub const MAX_OBJECT: u64 = 4 << 40;

/// Chunks of an object of `length` bytes. An empty object has none.
#[must_use]
pub fn chunk_count(length: u64) -> u64 {
    length.div_ceil(CHUNK_LEN)
}

/// Length of chunk `index` of an object of `length` bytes; 0 when it has no such chunk.
#[must_use]
pub fn chunk_length(length: u64, index: u64) -> u32 {
    let start = index.saturating_mul(CHUNK_LEN);
    u32::try_from(length.saturating_sub(start).min(CHUNK_LEN)).unwrap_or(0)
}
