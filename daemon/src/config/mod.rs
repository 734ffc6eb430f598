//! The daemon's settings: one file of TOML read into plain values.
//!
//! Owns: every key, its default, its range, and the words that say what is wrong with it and where. Refuses:
//! to open anything but this file and the key file that it names, to bind or create anything (`--check-config` must be
//! safe beside a running daemon), to read the process environment by itself, and to guess: an unknown key or a value
//! out of range is an error, because a mistyped limit that is silently ignored is found only when it was needed.
//! Survives a crash: nothing.
//!
//! The commented defaults are in `packaging/casd.toml`; a test keeps the two equal.

mod document;
mod environment;
mod error;
mod load;
mod value;
mod warnings;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use multiaddr::Multiaddr;

use crate::erasure::Geometry;
use crate::peer::NetworkKey;

pub use environment::Environment;
pub use error::{Error, Position};

/// Everything that can be set. Made by [`Config::load`], [`Config::parse`] or [`Config::defaults`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[node]`: who this daemon is and where it keeps its state.
    pub node: Node,
    /// `[api]`: where programs of this machine reach it.
    pub api: Api,
    /// `[listen]`: where other daemons reach it.
    pub listen: Listen,
    /// `[network]`: whom it speaks to, and what it tells them.
    pub network: Network,
    /// `[store]`: what it may keep on disk.
    pub store: Store,
    /// `[transfer]`: how much it may move at once.
    pub transfer: Transfer,
    /// What the file says that has no effect, or hardly the one that was meant: a line each, with its place. The node
    /// runs all the same.
    pub warnings: Vec<String>,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// A name for people; default: the host's. At most 64 bytes, no control characters. Not an identity: that
    /// is the key in `state_dir`.
    pub name: String,
    /// The folder of everything that outlives the process. Absolute.
    pub state_dir: PathBuf,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The Unix socket. Absolute, at most 107 bytes. Not used when systemd hands over a socket.
    pub socket: PathBuf,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The chunk port: TCP addresses, each for its own family only (`[::]` does not take v4 as well).
    pub chunk: Addresses<SocketAddr>,
    /// The DHT: `/ip4|ip6/ADDRESS/udp/PORT/quic-v1` and `/ip4|ip6/ADDRESS/tcp/PORT`.
    pub dht: Addresses<Multiaddr>,
}

/// Addresses to listen on: 1 to 16 of them; port 0 takes a free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses<T> {
    /// The addresses.
    pub list: Vec<T>,
    /// Whether the file names them. A configured port that is in use is an error; a default one is not: a free
    /// port is taken instead, and a default address of a family that the machine lacks is left out.
    pub configured: bool,
}

/// `[network]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Nodes of other names are never spoken to. 1 to 64 of `a-z A-Z 0-9 . _ -`: it is part of protocol names.
    pub name: String,
    /// The key of a private network, from `key_file`: only nodes that prove it are spoken to. `None`: an open network.
    pub key: Option<NetworkKey>,
    /// Where to find the first peers, each ending in `/p2p/PEERID`; at most 256.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether it serves and announces.
    pub mode: Mode,
    /// Whether it answers other nodes' DHT queries.
    pub dht: DhtMode,
    /// Whether it looks for peers on the local network, by multicast DNS.
    pub lan_discovery: bool,
    /// Which keys it announces.
    pub announce: Announce,
    /// Whether the names of what is added leave the node without a word.
    pub publish: bool,
}

/// `network.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Fetches, serves and announces.
    Full,
    /// Fetches only: no serving, no announcing.
    Client,
}

/// `network.dht`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhtMode {
    /// A server where others reach this node, or where it knows none beyond its own subnets; else it asks only.
    Auto,
    /// Answers queries and keeps others' records.
    Server,
    /// Asks only.
    Client,
}

/// `network.announce`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Objects always; chunks where they help to find them, within the key budget.
    Auto,
    /// Objects only.
    Objects,
    /// Objects and every chunk.
    Chunks,
    /// Nothing.
    None,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Bytes that data, parity and index may take together; 0: no quota.
    pub quota: u64,
    /// Bytes of the file system that are left free.
    pub reserve: u64,
    /// Parity that `add` makes when the caller does not say; `None`: none.
    pub parity: Option<Geometry>,
    /// Whether `add` without a word keeps objects to this node: never announced, never served.
    pub private: bool,
    /// How often everything on disk is proved, 1 s to 10 years; zero: never by itself.
    pub scrub: Duration,
}

/// `[transfer]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Peers connected at once, 1 to 4096.
    pub connections: u32,
    /// Peers of one fetch at once, 1 to 256.
    pub per_fetch: u32,
    /// Jobs (fetches that go on without their callers) that run at once, 1 to 64; others wait for their turn.
    pub jobs: u32,
    /// How long a connection may move nothing before it is closed, 1 s to 1 h.
    pub idle_timeout: Duration,
    /// Bytes per second sent to all peers together; 0: no limit.
    pub upload: u64,
    /// Bytes per second received from all peers together; 0: no limit.
    pub download: u64,
    /// Bytes per second sent to one peer; 0: no limit.
    pub upload_per_peer: u64,
    /// Of `upload`, what is given to peers; 0: no limit but that.
    pub serve: u64,
    /// Of `upload`, what tells others of keys; 0: no limit but that.
    pub announce: u64,
    /// Of `download`, what users fetch; 0: no limit but that.
    pub fetch: u64,
    /// Of `download`, what mends what is damaged here; 0: no limit but that.
    pub repair: u64,
    /// Peers that are given chunks at once, 1 to 4096; fewer where the rate is low.
    pub upload_slots: u32,
    /// Whether uploads make way for what else is on the line.
    pub yielding: bool,
}
