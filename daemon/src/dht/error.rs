//! What can go wrong in this room, in words for people.

use std::time::Duration;

use multiaddr::Multiaddr;

/// An error of the DHT plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network's name cannot be part of a protocol's name.
    #[error("the network name {0:?} is not usable: it takes 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'")]
    Network(String),
    /// A listen address is not of a form that casd speaks.
    #[error(
        "cannot listen on {0}: use /ip4/ADDRESS/udp/PORT/quic-v1 or /ip4/ADDRESS/tcp/PORT (or ip6) for the DHT"
    )]
    ListenForm(Multiaddr),
    /// A configured port is taken.
    #[error("cannot listen on {0}: the port is in use; stop what uses it or configure another one")]
    PortInUse(Multiaddr),
    /// Listening failed for another reason.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: Multiaddr,
        /// Why.
        reason: String,
    },
    /// An address does not say whose it is.
    #[error("the address {0} does not end in /p2p/PEERID, so nobody could be proved to be there")]
    NoPeerId(Multiaddr),
    /// Somebody asked to connect to this node itself.
    #[error("{0} is this node itself")]
    Myself(Multiaddr),
    /// A node could not be connected to.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable {
        /// Where.
        address: Multiaddr,
        /// Why.
        reason: String,
    },
    /// A node did not finish its handshake in time.
    #[error("cannot connect to {address}: no answer within {} s", .within.as_secs())]
    Silent {
        /// Where.
        address: Multiaddr,
        /// How long was waited.
        within: Duration,
    },
    /// A node is there but is not of this network.
    #[error("{address} is not a casd node of the network {network:?}; check its `network.name`")]
    OtherNetwork {
        /// Where.
        address: Multiaddr,
        /// This node's network.
        network: String,
    },
    /// A node is there and has not the key of this private network.
    #[error("{address} is not let into this private network: {reason}")]
    OtherKey {
        /// Where.
        address: Multiaddr,
        /// What it lacks.
        reason: String,
    },
    /// The transport could not be built.
    #[error("cannot set up the network transport: {0}")]
    Transport(String),
    /// The room has been stopped.
    #[error("the DHT has been stopped")]
    Stopped,
}
