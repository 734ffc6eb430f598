//! Why an add became nothing.

use crate::content::{self, ObjectId};
use crate::{erasure, store};

/// What went wrong with an add. Nothing of it became an object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream ended without its finish: the caller went away.
    #[error("the stream ended before its finish, so nothing was added")]
    Unfinished,
    /// The finish names another length than what came.
    #[error("the stream had {got} bytes and its length was said to be {said}; nothing was added")]
    Length {
        /// What the caller said.
        said: u64,
        /// What came.
        got: u64,
    },
    /// The parts of a directory are not in the order of a walk.
    #[error("the directory's parts are out of order: {0}; nothing was added")]
    Order(&'static str),
    /// The finish names another number of entries than what came.
    #[error("the directory had {got} entries and was said to have {said}; nothing was added")]
    Entries {
        /// What the caller said.
        said: u64,
        /// What came.
        got: u64,
    },
    /// The caller expected another id.
    #[error("the bytes are {got}, not {expected} as expected; nothing was added")]
    NotExpected {
        /// What the caller said.
        expected: ObjectId,
        /// What the bytes are.
        got: ObjectId,
    },
    /// The daemon is stopping.
    #[error("casd is stopping; add again when it is back")]
    Stopping,
    /// A name that a directory in the one that is added may not have.
    #[error("in {path}, {error}")]
    Inside {
        /// The directory that has it, from the outermost one.
        path: String,
        /// What is wrong with it.
        error: content::NameError,
    },
    /// The bytes are too many, or a bug.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// Parity could not be computed.
    #[error(transparent)]
    Erasure(#[from] erasure::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
}
