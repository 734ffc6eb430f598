//! How sessions are run, and who may talk.

use std::time::Duration;

use crate::peer::{self, CardSigner, NetworkKey, PeerId};
use crate::support::pool::Pool;

/// Settings of all sessions of a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who we are: both ids are in the proof.
    pub me: PeerId,
    /// The network that both ends must belong to.
    pub network: Network,
    /// Requests that an asker may have open with us: 64 keep a path full whose delay is 64 chunks long (at 100 MB/s
    /// two thirds of a second) and bound the work that one peer can queue.
    pub requests: u32,
    /// Bytes that an asker may have asked of us and not got, at least a chunk. They are promises, not memory: the
    /// giver loads a few chunks ahead of what it writes. 64 whole chunks.
    pub bytes: u32,
    /// How long the hellos may take.
    pub hello: Duration,
    /// A session in which nothing comes for so long ends. An asker keeps a session that it holds alive with pings.
    pub idle: Duration,
    /// A frame once begun must bring [`Options::MIN_RATE`] over this time, and so must the other end's reading.
    pub stall: Duration,
    /// Where proving a manifest runs.
    pub pool: Pool,
    /// Says where this node gives chunks itself, to those who are to tell others of it who ask for the same object.
    /// `None`: nobody is told of this node.
    pub card: Option<CardSigner>,
}

impl Options {
    /// Bytes per second below which a frame counts as stalled.
    pub const MIN_RATE: u64 = 1024;

    /// The defaults: 64 requests, 64 MiB, hello within 5 s, 30 s idle, 10 s stalled.
    #[must_use]
    pub fn new(me: PeerId, network: Network, pool: Pool) -> Self {
        Self {
            me,
            network,
            requests: 64,
            bytes: 64 << 20,
            hello: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            stall: Duration::from_secs(10),
            pool,
            card: None,
        }
    }
}

/// Who may talk: nodes of the same name and, where there is one, the same key.
#[derive(Clone, PartialEq, Eq)]
pub struct Network {
    /// What goes over the wire instead of the name.
    pub(super) id: [u8; 32],
    /// Proved, never sent.
    pub(super) key: Option<NetworkKey>,
}

impl Network {
    /// The network of this name; with a key, only nodes that prove it.
    #[must_use]
    pub fn new(name: &str, key: Option<NetworkKey>) -> Self {
        Self { id: peer::network_id(name), key }
    }

    /// What stands for its name.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        self.id
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("private", &self.key.is_some()).finish_non_exhaustive()
    }
}
