//! The protocol between two peers: one asks, the other gives, over any stream of bytes.
//!
//! Owns: frames ([`frames`] and `docs/peer-protocol.md` describe them to the byte), credits, slices, the proof of a
//! network's key, and what counts as breaking the protocol. Refuses: to know where bytes come from or go to (a
//! [`Giver`] answers, the owner of an [`Asker`] stores), to retry, to choose peers, and to judge them: an
//! [`Error`] says whether it is a strike. Survives a crash: nothing, a session is forgotten with its connection.
//!
//! Nothing that comes out of here is believed before it is proved: manifests are proved before they are returned, and
//! the bytes of a chunk come as [`Unproven`], which only [`Unproven::verify`] turns into a chunk.
//!
//! Who asks opens a session with [`Asker::open`]; who is asked runs [`give()`]. To ask back, open another session.
//! Those who ask for the same object are told of each other ([`News`]), to feed each other.
//! Each session is one task: reading, writing and watching are futures of it that never wait for one another.

mod asker;
mod asking;
mod board;
mod codec;
mod error;
pub mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod give;
mod giver;
mod hello;
mod io;
mod ledger;
mod options;
mod pending;
mod want;

pub use asker::Asker;
pub use board::Board;
pub use error::{Error, Reason};
pub use give::{Ended, Summary, give};
pub use giver::{Caller, Giver, Rumour, Snapshot, Subscription, Turn};
pub use options::{Network, Options};
pub use want::{Came, Haves, Want};

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::content::{Chunk, ChunkRef, Mismatch};

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// Here it is.
    Found(T),
    /// The giver does not have it, or does not give it. No fault: what a peer has changes.
    NotFound,
    /// Not now. Ask again after this time, or ask somebody else.
    Busy(Duration),
}

impl<T> Answer<T> {
    /// The same answer about something made of what was found.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Found(found) => Answer::Found(make(found)),
            Self::NotFound => Answer::NotFound,
            Self::Busy(after) => Answer::Busy(after),
        }
    }

    /// What was found.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(found) => Some(found),
            Self::NotFound | Self::Busy(_) => None,
        }
    }
}

/// The bytes that a peer sent for a chunk: of the right number, and not to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproven {
    /// The chunk that was asked for.
    pub reference: ChunkRef,
    /// What came.
    bytes: Bytes,
}

impl Unproven {
    /// Hashes the bytes: the one way to use them. About 0.3 ms for 1 MiB, so off the runtime.
    ///
    /// # Errors
    /// [`Mismatch`]: the peer lied, which is a strike.
    pub fn verify(self) -> Result<Chunk, Mismatch> {
        self.reference.verify(self.bytes)
    }
}

/// What a giver tells of the chunks of an object that it holds. Hints, like everything that is not hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Have {
    /// All of them.
    Whole,
    /// A stretch of its bitmap: bit i mod 8 (lowest first) of byte i div 8 is chunk `first + i`. A giver's map comes
    /// in several of these; chunks that none of them names it does not hold.
    Bitmap {
        /// The chunk of the first bit, a multiple of 8.
        first: u64,
        /// The bits.
        bits: Bytes,
    },
    /// Chunks that it has got since.
    Chunks(Vec<u64>),
}

/// What a giver tells a subscriber. Hints, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Chunks that it holds.
    Have(Have),
    /// Chunks that it is giving to others who ask for the same object, which will soon have them.
    Given(Vec<u64>),
    /// Others who ask for the same object.
    Peers(Vec<Fellow>),
}

/// Another who asks for the same object, as a giver tells of it. Not to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fellow {
    /// Where the giver sees it.
    pub seen: Option<IpAddr>,
    /// Its card, at most [`MAX_CARD`](crate::peer::MAX_CARD) bytes; [`Card::check`](crate::peer::Card::check) tells
    /// whether it is one.
    pub card: Bytes,
}

impl Have {
    /// The indexes of the chunks that it names; nothing for [`Have::Whole`].
    pub fn indexes(&self) -> impl Iterator<Item = u64> + '_ {
        let (first, bits, chunks): (u64, &[u8], &[u64]) = match self {
            Self::Whole => (0, &[], &[]),
            Self::Bitmap { first, bits } => (*first, bits, &[]),
            Self::Chunks(chunks) => (0, &[], chunks),
        };
        let set = (first..).zip(bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)));
        set.filter(|(_, held)| *held).map(|(index, _)| index).chain(chunks.iter().copied())
    }
}

#[cfg(test)]
mod tests;
