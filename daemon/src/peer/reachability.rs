//! Whether others can connect to this node, in words that all rooms share.

use multiaddr::Multiaddr;

use super::PeerId;

/// What is known of whether others can connect to this node on the DHT plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has tried yet.
    #[default]
    Unknown,
    /// Others have.
    Yes,
    /// Others have tried, and failed.
    No,
}

/// Whether others can connect to this node, and what is done where they cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    /// What is known.
    pub verdict: Verdict,
    /// Where others have connected to, or could.
    pub confirmed: Vec<Multiaddr>,
    /// Where one says that it has, which is not enough.
    pub said: Vec<Multiaddr>,
    /// Where others see this node and could not connect to.
    pub failed: Vec<Multiaddr>,
    /// Whether nodes beyond this host's own subnets are known: else there is nobody who could not reach it.
    pub is_outside: bool,
    /// Whether it keeps records for others: a server of the DHT.
    pub is_server: bool,
    /// The nodes through which others can ask this one to connect to them.
    pub relays: Vec<PeerId>,
    /// Connections that came about by both ends dialling at the same moment, since the start.
    pub punched: u64,
    /// Attempts at that which came to nothing.
    pub missed: u64,
    /// What a router was asked for, and said; empty where none was asked.
    pub router: String,
}
