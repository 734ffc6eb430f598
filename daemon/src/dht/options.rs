//! Settings of the room.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use multiaddr::Multiaddr;

use super::listen::ip_of;
use crate::peer::{Conduct, NetworkKey};
use crate::support::rate::Limiter;

/// Settings of the DHT plane. Nothing here is read from a file by this room.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network's name: 1 to 63 of `a-z`, `0-9`, `-`, `_`, `.`. Nodes of other names are never spoken to.
    pub network: String,
    /// The key of a private network: only nodes that prove it are spoken to.
    pub key: Option<NetworkKey>,
    /// Where to listen: `/ip4|ip6/…/udp/PORT/quic-v1` and `/ip4|ip6/…/tcp/PORT`; port 0 picks one.
    pub listen: Vec<Multiaddr>,
    /// Whether a port in use may be replaced by a free one: for built-in defaults, not for what somebody
    /// configured.
    pub replace_busy_port: bool,
    /// Nodes to join the network by, each ending in `/p2p/PEERID`.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether peers are looked for by multicast on the networks that this host is in. Not where this node listens on
    /// loopback only; where it listens nowhere it asks and has nothing to answer.
    pub lan_discovery: bool,
    /// Where peers are kept for the next start. It may be deleted. None: they are forgotten.
    pub peers: Option<PathBuf>,
    /// How often peers that are known no more are looked for, give or take a quarter.
    pub reunion: Duration,
    /// Whether this node answers the network's questions.
    pub mode: Mode,
    /// Whether others are asked to dial this node, so that it learns whether it is reached.
    pub asks_to_be_dialled: bool,
    /// Where the chunk port is bound, told to others by the hello.
    pub chunk: Vec<SocketAddr>,
    /// Whether this node gives chunks.
    pub serves: bool,
    /// How long others are asked to keep this node's keys; announced again at half of it.
    pub lifetime: Duration,
    /// Where it is remembered what was announced, here and by this node; `None`: in memory only.
    pub journal: Option<PathBuf>,
    /// Whether whatever a stranger tells is dialled. Only for the test that shows what the rule keeps from being
    /// dialled: nothing sets it.
    pub dials_everything: bool,
    /// How peers behave, and whom not to speak to.
    pub conduct: Conduct,
    /// What tells others of this node's keys waits for this.
    pub announce: Arc<Limiter>,
    /// How long a connection that nobody uses is kept from when it was made; less where there are many.
    pub idle: Duration,
    /// Limits.
    pub limits: Limits,
}

/// A node's part in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Keeps records and answers questions.
    Server,
    /// Only asks and announces.
    Client,
    /// The first where others reach this node, or where it knows none beyond its own subnets; else the second.
    Auto,
}

/// How much this room may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Own keys held (66 bytes each).
    pub own_keys: usize,
    /// Bytes for keys that other nodes place here.
    pub other_bytes: usize,
    /// Nodes of one address group among those at which an object's key is placed besides the nearest; when more are
    /// among the nearest, a look-up goes on there.
    pub of_group: usize,
    /// Connections from others.
    pub inbound: u32,
    /// Connections to others.
    pub outbound: u32,
    /// New connections are refused while the process's resident memory is above this many bytes.
    pub resident_bytes: usize,
}

impl Options {
    /// Whether others than those on this host may connect.
    pub(super) fn listens_beyond_loopback(&self) -> bool {
        self.listen.iter().any(|at| !ip_of(at).is_some_and(|ip| ip.is_loopback()))
    }

    /// Whether the local network is this node's to look at: who listens on loopback only keeps to this host.
    pub(super) fn looks_around(&self) -> bool {
        self.listen.is_empty() || self.listens_beyond_loopback()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            network: "casd".into(),
            key: None,
            listen: Vec::new(),
            replace_busy_port: false,
            bootstrap: Vec::new(),
            lan_discovery: false,
            peers: None,
            reunion: Duration::from_secs(60),
            mode: Mode::Server,
            asks_to_be_dialled: true,
            chunk: Vec::new(),
            serves: true,
            lifetime: Duration::from_hours(48),
            journal: None,
            dials_everything: false,
            conduct: Conduct::default(),
            announce: Arc::new(Limiter::new(0)),
            // A fetch asks several times within a minute.
            idle: Duration::from_secs(60),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // All chunks of 4 TiB, where all are announced: 264 MiB.
            own_keys: 4_000_000,
            // 300,000 records; with what comes beside them a flood moves less than 64 MiB (the test `junk`).
            other_bytes: 40 << 20,
            // Two of ten times as many as a Sybil's networks still leave room for others.
            of_group: 2,
            // A connection costs about 100 KiB with its buffers: 50 MiB for both.
            inbound: 256,
            outbound: 256,
            resident_bytes: 2 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_nowhere_looks_around_and_who_keeps_to_this_host_does_not() {
        let options = |listen: &[&str]| {
            let listen = listen.iter().map(|at| at.parse().unwrap()).collect();
            Options { listen, ..Options::default() }
        };
        let (near, far) = ("/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0");
        assert!(options(&[]).looks_around() && !options(&[]).listens_beyond_loopback());
        assert!(!options(&[near]).looks_around());
        assert!(options(&[far]).looks_around() && options(&[near, far]).looks_around());
    }
}
