//! Frames: what goes over a session, to the byte. `docs/peer-protocol.md` tells when which one is sent.
//!
//! Integers are little endian. A frame is its length (u32: the bytes that follow, so at least 1), its kind (u8) and the
//! kind's fields. A frame longer than its kind's [`Kind::limit`], or with bytes left over, breaks the protocol; the
//! limit is checked before anything is read or allocated. Every frame has one encoding.
//!
//! | kind | fields after the kind | from |
//! |---|---|---|
//! | 1 hello | see below | both |
//! | 2 goodbye | reason u8, text ≤ 256 bytes UTF-8 | both |
//! | 3 ping | token u64 | asker |
//! | 4 pong | token u64 | giver |
//! | 16 get top | request u32, object 32 | asker |
//! | 17 get page | request u32, object 32, index u32 | asker |
//! | 18 get parity | request u32, object 32 | asker |
//! | 19 get parity page | request u32, object 32, digest 32 | asker |
//! | 20 want | request u32, place u8 (0 root, 1 at), offset u64 (0 at the root), length u32, id 32 | asker |
//! | 21 want run | request u32, object 32, first u32, count u16 ≥ 1 | asker |
//! | 22 subscribe | request u32, object 32 | asker |
//! | 23 cancel | request u32 | asker |
//! | 24 card | a card as `peer/card.rs` encodes it, 1 to 258 bytes; from version 2 on | asker |
//! | 32 top, 33 page, 34 parity, 35 parity page | request u32, the record as `content` encodes it | giver |
//! | 36 slice | request u32, offset u32, 1 to 131,072 bytes of the chunk | giver |
//! | 37 zero, 38 not found, 40 cancelled | request u32 | giver |
//! | 39 busy | request u32, milliseconds u32 | giver |
//! | 41 have, whole | request u32, form u8 0 | giver |
//! | 41 have, bitmap | request u32, form u8 1, first u32 (a multiple of 8), 1 to 32,768 bytes | giver |
//! | 41 have, chunks | request u32, form u8 2, 1 to 4,096 u32 | giver |
//! | 42 peers | request u32, 1 to 8 of: kind u8 (0, 4 or 6), 0, 4 or 16 bytes, length u16, a card; from version 2 on | giver |
//! | 43 given | request u32, 1 to 256 u32; from version 2 on | giver |
//!
//! A hello: magic `casd`, role u8 (1 asker, 2 giver), least u16, most u16, network 32, requests u32, bytes u32, and the
//! proof, as u8 (0 or 32) and as many bytes.

use std::time::Duration;

use bytes::Bytes;

use super::{Fellow, Have, Reason};
use crate::content::{
    ChunkRef, MAX_PAGE_BYTES, MAX_PARITY_PAGE_BYTES, MAX_PARITY_PART_BYTES, MAX_TOP_BYTES, ObjectId,
};
use crate::peer::MAX_CARD;

/// The newest version of the protocol that this build speaks…
pub const VERSION: u16 = 2;

/// …and the oldest.
pub const LEAST: u16 = 1;

/// The first version in which those who ask for the same object are told of each other.
pub const CROWDS: u16 = 2;

/// Data in a slice at most: small enough that a cancel is felt at once, large enough that the 13 bytes before it and
/// the bookkeeping do not count.
pub const SLICE: usize = 128 * 1024;

/// Bytes before the fields: the length and the kind.
pub const HEAD: usize = 5;

/// Bytes before a slice's data, with the head.
pub const SLICE_HEAD: usize = HEAD + 8;

/// Bytes of a bitmap in one frame: 262,144 chunks, so that a 4 TiB object's map is 16 frames.
pub const MAX_BITMAP: usize = 32 * 1024;

/// New chunks told in one frame.
pub const MAX_NEWS: usize = 4096;

/// Peers told of in one frame.
pub const MAX_FELLOWS: usize = 8;

/// Chunks in one frame that others are being given.
pub const MAX_GIVEN: usize = 256;

/// Words in a goodbye.
pub const MAX_TEXT: usize = 256;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $limit:expr;)*) => {
        /// What a frame is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $code,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind with this code.
            #[must_use]
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The longest that its fields may be, in bytes.
            #[must_use]
            pub const fn limit(self) -> usize {
                match self { $(Self::$name => $limit,)* }
            }
        }
    };
}

kinds! {
    /// Opens a session.
    Hello = 1, 50 + 32;
    /// Ends a session.
    Goodbye = 2, 1 + MAX_TEXT;
    /// Keeps a session alive.
    Ping = 3, 8;
    /// Answers a ping.
    Pong = 4, 8;
    /// Asks for a manifest's top.
    GetTop = 16, 4 + 32;
    /// Asks for a manifest page.
    GetPage = 17, 4 + 32 + 4;
    /// Asks for a parity part.
    GetParity = 18, 4 + 32;
    /// Asks for a parity page.
    GetParityPage = 19, 4 + 32 + 32;
    /// Asks for a chunk by what proves it.
    Want = 20, 4 + 1 + 8 + 4 + 32;
    /// Asks for chunks by their place in an object.
    WantRun = 21, 4 + 32 + 4 + 2;
    /// Asks to be told which chunks are there.
    Subscribe = 22, 4 + 32;
    /// Takes a request back.
    Cancel = 23, 4;
    /// Says where the asker gives chunks itself.
    Card = 24, MAX_CARD;
    /// A manifest's top.
    Top = 32, 4 + MAX_TOP_BYTES;
    /// A manifest page.
    Page = 33, 4 + MAX_PAGE_BYTES;
    /// A parity part.
    Parity = 34, 4 + MAX_PARITY_PART_BYTES;
    /// A parity page.
    ParityPage = 35, 4 + MAX_PARITY_PAGE_BYTES;
    /// Part of a chunk.
    Slice = 36, 8 + SLICE;
    /// The whole chunk is zeros.
    Zero = 37, 4;
    /// Not here.
    NotFound = 38, 4;
    /// Not now.
    Busy = 39, 4 + 4;
    /// A request ended because it was taken back.
    Cancelled = 40, 4;
    /// Which chunks are there.
    Have = 41, 4 + 1 + 4 + MAX_BITMAP;
    /// Who else asks for an object.
    Peers = 42, 4 + MAX_FELLOWS * (1 + 16 + 2 + MAX_CARD);
    /// Which chunks of an object others are being given.
    Given = 43, 4 + 4 * MAX_GIVEN;
}

/// Which end of a session one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Asks.
    Asker = 1,
    /// Gives.
    Giver = 2,
}

/// The first frame of each end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which end it comes from.
    pub role: Role,
    /// The oldest version that it speaks.
    pub least: u16,
    /// The newest.
    pub most: u16,
    /// Its network: the BLAKE3 key derived from the name in the context `casd 2026 network name`.
    pub network: [u8; 32],
    /// Requests that it lets the other end have open; 0 from an asker.
    pub requests: u32,
    /// Bytes that it lets the other end have asked for; 0 from an asker.
    pub bytes: u32,
    /// The proof of the network's key, where it has one.
    pub proof: Option<[u8; 32]>,
}

/// What an asker asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The top of a manifest.
    Top(ObjectId),
    /// A page of a manifest.
    Page(ObjectId, u32),
    /// A parity part of an object.
    Parity(ObjectId),
    /// A parity page of an object, by its BLAKE3.
    ParityPage(ObjectId, [u8; 32]),
    /// A chunk.
    Chunk(ChunkRef),
    /// Chunks `first` to `first + count` of an object whose manifest both ends hold. Stands for as many requests with
    /// ids that follow one another.
    Run {
        /// The object.
        object: ObjectId,
        /// The first chunk's index.
        first: u32,
        /// How many, at least 1.
        count: u16,
    },
    /// Which chunks of an object are there, now and from now on.
    Haves(ObjectId),
}

/// The kinds of record that are sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// [`Kind::Top`].
    Top,
    /// [`Kind::Page`].
    Page,
    /// [`Kind::Parity`].
    Parity,
    /// [`Kind::ParityPage`].
    ParityPage,
}

/// A frame, other than a slice: those are read straight into their chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// [`Kind::Hello`].
    Hello(Hello),
    /// [`Kind::Goodbye`]; the text is at most [`MAX_TEXT`] bytes, and cut there when it is encoded.
    Goodbye(Reason, String),
    /// [`Kind::Ping`].
    Ping(u64),
    /// [`Kind::Pong`].
    Pong(u64),
    /// Any of the requests.
    Ask(u32, Ask),
    /// [`Kind::Cancel`].
    Cancel(u32),
    /// Any of the records.
    Record(u32, Record, Bytes),
    /// [`Kind::Zero`].
    Zero(u32),
    /// [`Kind::NotFound`].
    NotFound(u32),
    /// [`Kind::Busy`]; whole milliseconds.
    Busy(u32, Duration),
    /// [`Kind::Cancelled`].
    Cancelled(u32),
    /// [`Kind::Have`].
    Have(u32, Have),
    /// [`Kind::Card`], for the next [`Ask::Haves`]; 1 to [`MAX_CARD`] bytes, which nobody has looked at yet.
    Card(Bytes),
    /// [`Kind::Peers`]; 1 to [`MAX_FELLOWS`].
    Peers(u32, Vec<Fellow>),
    /// [`Kind::Given`]; 1 to [`MAX_GIVEN`] indexes of chunks.
    Given(u32, Vec<u64>),
}

impl Ask {
    fn kind(&self) -> Kind {
        match self {
            Self::Top(_) => Kind::GetTop,
            Self::Page(..) => Kind::GetPage,
            Self::Parity(_) => Kind::GetParity,
            Self::ParityPage(..) => Kind::GetParityPage,
            Self::Chunk(_) => Kind::Want,
            Self::Run { .. } => Kind::WantRun,
            Self::Haves(_) => Kind::Subscribe,
        }
    }
}

impl Record {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Top => Kind::Top,
            Self::Page => Kind::Page,
            Self::Parity => Kind::Parity,
            Self::ParityPage => Kind::ParityPage,
        }
    }
}

impl Frame {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Goodbye(..) => Kind::Goodbye,
            Self::Ping(_) => Kind::Ping,
            Self::Pong(_) => Kind::Pong,
            Self::Ask(_, ask) => ask.kind(),
            Self::Cancel(_) => Kind::Cancel,
            Self::Record(_, record, _) => record.kind(),
            Self::Zero(_) => Kind::Zero,
            Self::NotFound(_) => Kind::NotFound,
            Self::Busy(..) => Kind::Busy,
            Self::Cancelled(_) => Kind::Cancelled,
            Self::Have(..) => Kind::Have,
            Self::Card(_) => Kind::Card,
            Self::Peers(..) => Kind::Peers,
            Self::Given(..) => Kind::Given,
        }
    }
}
