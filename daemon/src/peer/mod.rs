//! Who the others are, and the seams through which the network is reached.
//!
//! Owns: this node's identity, how peers are written down ([`PeerAddr`]), what is remembered of how they behaved
//! ([`Scores`]), and the traits that the network rooms, the simulator and the tests all implement ([`Dial`],
//! [`Detour`], [`Discovery`], [`Announce`]). Refuses: sockets, clocks and tasks: the time is passed in, and whatever
//! moves bytes lives behind a trait. Survives a crash: `node.key`; nothing else is written here.

mod addr;
mod error;
mod identity;
mod network;
mod network_key;
mod reachability;
mod scores;

pub use libp2p_identity::{Keypair, PeerId};
pub use multiaddr::Multiaddr;

pub use addr::{Host, PeerAddr, Reach};
pub use error::{AddrError, Error};
pub use identity::{Identity, create_key, read_key};
pub use network::{
    Announce, Announced, Announcing, ByteStream, Conn, Detour, Dial, DialError, Discovery, Key, Kind,
    Provider, Unconnected,
};
pub use network_key::{NetworkKey, network_id};
pub use reachability::{Reachability, Verdict as ReachVerdict};
pub use scores::{Score, Scores, Verdict};
