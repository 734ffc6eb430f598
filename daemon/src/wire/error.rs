//! Why the chunk plane cannot begin. Why a dial fails is [`crate::peer::DialError`].

use std::io;
use std::net::SocketAddr;

/// Why the chunk plane cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificate could be made with the node's key.
    #[error("cannot make a TLS certificate with the node's key: {0}")]
    Certificate(
        /// Why.
        String,
    ),
    /// The port cannot be listened on.
    #[error("cannot listen on {at} for chunks: {source}; choose another address under listen.chunk")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}
