//! What stands between what is asked for and what has been given.

use bytes::Bytes;

use super::super::super::Fetching;
use super::super::FetchedPart;
use super::super::walk::File;

/// What a part takes beside its bytes and names.
const OVERHEAD: usize = 64;

/// Something in the window.
pub(super) enum Slot {
    /// It needs nothing.
    Part(FetchedPart),
    /// A file of at most a chunk; not an empty one.
    Small(File),
    /// A longer file.
    Large(Large),
}

/// A file that is fetched on its own.
pub(super) struct Large {
    pub(super) file: File,
    /// `None` until its turn comes.
    pub(super) fetching: Option<Fetching>,
    /// Bytes given; `None` until it is the first in the window.
    pub(super) given: Option<u64>,
    /// Whether it has been begun again, after it found nobody while it waited.
    pub(super) again: bool,
}

impl Slot {
    /// Bytes that it is counted with.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Part(part) => part.weight() as u64,
            Self::Small(file) => (OVERHEAD + file.name.len()) as u64 + file.length,
            Self::Large(large) => (OVERHEAD + large.file.name.len()) as u64,
        }
    }
}

impl FetchedPart {
    /// Bytes that it is counted with.
    pub(super) fn weight(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Enter { name } | Self::Start { name, .. } => name.len(),
                Self::File { name, bytes, .. } => name.len() + bytes.len(),
                Self::Link { name, target } => name.len() + target.len(),
                Self::Data(bytes) => bytes.len(),
                Self::Leave | Self::Zeros(_) | Self::End { .. } => 0,
            }
    }
}

/// The bytes of a small file in the window, which may stand there several times.
#[derive(Default)]
pub(super) struct Held {
    pub(super) bytes: Option<Bytes>,
    pub(super) users: usize,
}
