//! Why a proof or a format was refused.

use super::{MAX_OBJECT, Mismatch, NameError};

/// What is wrong with bytes that claim to be a manifest, a page or a parity part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not of this format, or not in its only form.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// The format.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An object longer than casd takes.
    #[error("an object of {length} bytes is too long: the limit is {MAX_OBJECT} bytes (4 TiB)")]
    TooLong {
        /// Its length in bytes.
        length: u64,
    },
    /// The values do not fold to what they are to prove.
    #[error("the {what} does not prove the id that it is for")]
    Unproven {
        /// The part that failed.
        what: &'static str,
    },
    /// A page says that a chunk is all zeros, and it is not.
    #[error("the manifest page says that chunk {index} is all zeros, which its id denies")]
    NotZero {
        /// The chunk's index in its page.
        index: usize,
    },
    /// A parity part whose signature is not its maker's.
    #[error("the parity part is not signed by its maker")]
    Signature,
    /// A description whose signature is not its publisher's, or not for this network.
    #[error("the description is not signed by its publisher for this network")]
    Publisher,
    /// A chunk out of order or of the wrong shape.
    #[error("chunk {index} does not follow the chunks before it")]
    Order {
        /// The index that was expected.
        index: u64,
    },
    /// A directory with more than one can have.
    #[error("a directory {0}")]
    Crowded(&'static str),
    /// A name that no entry of a directory may have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Bytes that are not the chunk.
    #[error(transparent)]
    Chunk(#[from] Mismatch),
}
