//! The planner's vocabulary: what it is told and what it answers.

use std::ops::Range;
use std::time::Duration;

use super::Bits;

/// A peer of this fetch, numbered by the caller. A number is not used again for another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNo(pub u32);

/// What can be asked of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shard {
    /// Data chunk of the object, counted from 0.
    Data(u64),
    /// Parity chunk `index` (from 0) of a stripe (counted from 0 in the order of [`Plan::stripes`]).
    Parity {
        /// Number of the stripe.
        stripe: u32,
        /// Number of the parity chunk in its stripe.
        index: u8,
    },
}

/// One stripe: any `data` of its `data + parity` shards give all its data chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripe {
    /// Its first data chunk.
    pub first: u64,
    /// Its data chunks (k'), at least 1.
    pub data: u8,
    /// Its parity chunks (m').
    pub parity: u8,
}

/// In which order chunks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Those that the fewest peers hold first: for an object that is fetched whole.
    Rarest,
    /// In order, no further than `window` chunks ahead of the reader ([`Event::ReadTo`]).
    InOrder {
        /// Chunks; at least 1 is used.
        window: u64,
    },
}

/// What a fetch may take of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes asked for and not yet arrived, over all peers, plus parity shards that wait in memory for their
    /// stripe. A single request is always allowed, and so is the one stripe that is nearest to its end.
    pub in_flight: u64,
}

/// Everything that is known when a fetch begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Length of the object in bytes.
    pub length: u64,
    /// The data chunks that the caller wants; others are asked for only where a stripe needs them.
    pub wanted: Range<u64>,
    /// The data chunks that need not be fetched: stored here, or all zero.
    pub local: Bits,
    /// All stripes of the object in order, without gaps; empty while no parity is known.
    pub stripes: Vec<Stripe>,
    /// Which chunks come first.
    pub order: Order,
    /// What the fetch may take.
    pub limits: Limits,
    /// Breaks ties between chunks. Fetchers with different seeds ask a common holder for different chunks.
    pub seed: u64,
}

/// How much a giver lets its asker have outstanding at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credits {
    /// Requests.
    pub requests: u32,
    /// Bytes of the requests' answers. A peer that grants less than one chunk is not asked for chunks.
    pub bytes: u64,
}

/// What a peer says or is believed to hold. Adds to what was known; only [`Event::NotFound`] takes away.
/// Numbers beyond the object are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Has {
    /// Every data chunk.
    Whole,
    /// The data chunks whose bits are set.
    Bitmap(Bits),
    /// These ranges of data chunks.
    Ranges(Vec<Range<u64>>),
    /// Nobody knows: it may be asked for chunks that no peer is known to hold.
    Unknown,
}

/// What happened. Times are given beside the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer can be asked. Sent again for the same peer, it changes its credits.
    PeerJoined {
        /// Its number.
        peer: PeerNo,
        /// What it grants.
        credits: Credits,
    },
    /// More is known of what a peer holds.
    PeerHas {
        /// Its number.
        peer: PeerNo,
        /// What it holds.
        has: Has,
    },
    /// A peer is giving these data chunks to others who fetch the object, and who will have them soon. Numbers beyond
    /// the object are ignored.
    Given {
        /// Its number.
        peer: PeerNo,
        /// What it gives.
        chunks: Vec<u64>,
    },
    /// A peer is gone, with all that was asked of it.
    PeerLeft {
        /// Its number.
        peer: PeerNo,
    },
    /// So many bytes of a shard have come by now, of which nothing is proved. Told now and then while a shard is on
    /// its way: a peer of which bytes come is not late, however long a chunk takes it.
    Came {
        /// Of whom it was asked.
        peer: PeerNo,
        /// What comes.
        shard: Shard,
        /// How many bytes have come of this answer in all.
        bytes: u64,
    },
    /// A request has not been sent yet: this node's own limit holds it back. Told now and then while that is so.
    Held {
        /// Of whom it is to be asked.
        peer: PeerNo,
        /// What.
        shard: Shard,
    },
    /// A shard arrived, was verified and accepted: a data chunk is stored, a parity shard kept in memory until
    /// [`Action::Release`].
    Arrived {
        /// Who gave it.
        peer: PeerNo,
        /// What came.
        shard: Shard,
        /// How many bytes it has.
        bytes: u64,
    },
    /// What arrived has another hash. The caller drops the peer; so does the planner.
    Bad {
        /// Who gave it.
        peer: PeerNo,
        /// What had been asked for.
        shard: Shard,
    },
    /// The peer does not hold the shard. No fault.
    NotFound {
        /// Who answered.
        peer: PeerNo,
        /// What it lacks.
        shard: Shard,
    },
    /// The peer asks to be left alone for a while. No fault.
    Busy {
        /// Who answered.
        peer: PeerNo,
        /// What had been asked for.
        shard: Shard,
        /// How long; held between 0.1 s and a minute.
        retry_after: Duration,
    },
    /// The request failed in another way (a broken stream, a refusal).
    Failed {
        /// Of whom it was asked.
        peer: PeerNo,
        /// What had been asked for.
        shard: Shard,
    },
    /// A shard is here without a peer: another fetch stored it, or parity lies in the local store.
    Local {
        /// What is here.
        shard: Shard,
    },
    /// A data chunk that was here turned out to be damaged or removed.
    Lost {
        /// Its number.
        chunk: u64,
    },
    /// These data chunks of a stripe were rebuilt, verified and stored.
    Rebuilt {
        /// Number of the stripe.
        stripe: u32,
        /// Numbers of the data chunks.
        chunks: Vec<u64>,
    },
    /// A stripe rebuilt to something else: the parity part is false and is discarded, all of it.
    RebuildFailed {
        /// Number of the stripe.
        stripe: u32,
    },
    /// A parity part became known. Replaces the one known before.
    ParityKnown {
        /// As [`Plan::stripes`].
        stripes: Vec<Stripe>,
    },
    /// The reader has taken every chunk before this one ([`Order::InOrder`]). It may also jump.
    ReadTo {
        /// The chunk that it reads next.
        chunk: u64,
    },
    /// Time has passed: sent first of all, and whenever [`Planner::next_wakeup`](super::Planner::next_wakeup)
    /// says.
    Tick,
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask a peer for a shard.
    Ask {
        /// Whom.
        peer: PeerNo,
        /// For what.
        shard: Shard,
    },
    /// The answer is no longer wanted. Its credit counts as free at once: frames travel in order.
    Cancel {
        /// Of whom it was asked.
        peer: PeerNo,
        /// What.
        shard: Shard,
    },
    /// Enough shards of a stripe are here: rebuild its missing data chunks.
    Rebuild {
        /// Number of the stripe.
        stripe: u32,
    },
    /// The stripe's parity shards in memory are of no more use. The caller frees them on nothing else.
    Release {
        /// Number of the stripe.
        stripe: u32,
    },
    /// No known peer holds this data chunk and parity does not help: look its key up.
    FindChunk {
        /// Number of the data chunk.
        chunk: u64,
    },
    /// More peers would help: something cannot be had, or what is left takes long. Repeated every ten seconds, or every
    /// forty, while that holds.
    NeedPeers,
    /// Every wanted chunk is here. The last action of a planner, unless a chunk is lost afterwards.
    Done,
}
