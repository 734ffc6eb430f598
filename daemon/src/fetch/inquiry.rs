//! Who was asked for an object, and what they said: for people who want to know why a fetch takes its time.
//!
//! Owns: the last state of that, kept where others than the fetch see it. Refuses: more peers than people read.
//! Survives a crash: nothing; whoever fetches again asks again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer::PeerId;

/// Peers that are told of.
pub(super) const MAX_ASKED: usize = 64;

/// A peer in a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedPeer {
    /// Who.
    pub peer: PeerId,
    /// Whether there is a session with it.
    pub is_connected: bool,
    /// Bytes that it gave in this fetch.
    pub bytes: u64,
    /// Chunks of the object that it says to have; `None` where it has not said.
    pub chunks: Option<u64>,
    /// What it said, or why it said nothing, in words. Parts of them may be a stranger's; at most a line.
    pub said: String,
}

/// How a fetch stands with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Chunks of the object; 0 while nobody has proved what it is.
    pub chunks: u64,
    /// Chunks that are missing.
    pub missing: u64,
    /// Of these, such as nobody that is connected says to have. Looked at while nothing arrives.
    pub unheld: u64,
    /// Who was asked, those that gave most first, at most 64.
    pub asked: Vec<AskedPeer>,
}

/// Where a fetch tells of that. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Inquiry(Arc<Mutex<Findings>>);

impl Inquiry {
    /// How it stands now.
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.lock().clone()
    }

    pub(super) fn tell(&self, findings: Findings) {
        *self.lock() = findings;
    }

    fn lock(&self) -> MutexGuard<'_, Findings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
