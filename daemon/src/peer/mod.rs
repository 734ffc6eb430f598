//! Who the others are, and the seams through which the network is reached.
//!
//! Owns: this node's identity, how peers are written down ([`PeerAddr`]) and what they say of where they are
//! ([`Card`]), what is remembered of how they behaved ([`Conduct`], [`Scores`]), whose an address may be ([`Scope`]),
//! and the traits that the network rooms, the simulator and the tests all implement ([`Dial`], [`Detour`],
//! [`Discovery`], [`Announce`], [`Catalogue`]). Refuses: sockets, clocks and tasks: the time is passed in, and whatever
//! moves bytes lives behind a trait. Survives a crash: `node.key`; of conduct what [`Conduct::save`] gave to be
//! written.

mod addr;
mod card;
mod company;
mod conduct;
mod error;
mod identity;
mod network;
mod network_key;
mod reachability;
mod scope;
mod scores;

pub use libp2p_identity::{Keypair, PeerId};
pub use multiaddr::Multiaddr;

pub use addr::{Host, PeerAddr, Reach, read_peer_id};
pub use card::{Card, CardSigner, MAX_CARD};
pub use company::{Company, Nobody};
pub use conduct::{Ban, Conduct, Standing};
pub use error::{AddrError, Error};
pub use identity::{Identity, create_key, read_key};
pub use network::{
    Announce, Announced, Announcing, ByteStream, Catalogue, CataloguePage, Conn, Detour, Dial, DialError,
    Discovery, Holder, Key, Kind, Provider, Told, Unconnected,
};
pub use network_key::{NetworkKey, network_id};
pub use reachability::{Reachability, Verdict as ReachVerdict};
pub use scope::{Block, HostAddr, Scope};
pub use scores::{Score, Scores, Verdict};
