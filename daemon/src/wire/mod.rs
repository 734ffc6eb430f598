//! The chunk plane's connections: TCP and TLS 1.3, both ends named by their libp2p identity.
//!
//! Owns: certificates, cipher order, listening, dialling, the limits on connections, that those with banned peers
//! end, and that they yield where that is asked for. Refuses: peers that are banned, to know what is said on a
//! connection, to choose whom to dial, to look up names. Survives a crash: nothing.
//!
//! A certificate is self-signed and carries the peer's Ed25519 key with its signature over the certificate's own key
//! (the libp2p TLS specification), so whoever completes a handshake has proved its [`PeerId`]. Its key lives as long
//! as the process.

mod ahead;
mod caps;
mod delay;
mod error;
mod listener;
mod stream;
mod tls;
mod yielding;

pub use error::Error;
pub use listener::Listener;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;

use crate::peer::{Conduct, Conn, Dial, DialError, Keypair, PeerId};
use crate::support::task::Tasks;
use caps::Caps;
use stream::conn;
use tls::Tls;

/// Limits of the chunk plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections at once, in and out. A quarter is kept for those that this node opens, so that strangers
    /// cannot keep it from fetching.
    pub connections: usize,
    /// Connections at once from one globally routable IPv4 address or IPv6 /64. Loopback and private addresses are
    /// not counted: there many nodes share one.
    pub per_address: usize,
    /// Incoming connections whose handshake is not done, beside the others. For one more the oldest is closed, of the
    /// host that has most of them. 64 cost under 64 x 100 KiB.
    pub half_open: usize,
    /// How long a handshake may take once the connection stands.
    pub handshake: Duration,
    /// How long a dial may take, handshake and all.
    pub dial: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 100,
            per_address: 8,
            half_open: 64,
            handshake: Duration::from_secs(10),
            dial: Duration::from_secs(10),
        }
    }
}

/// What became of incoming connections since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handshakes done.
    pub accepted: u64,
    /// Handshakes that failed: other protocols, strangers, silence, and those that made room for others.
    pub failed: u64,
    /// Connections closed because of a limit.
    pub refused: u64,
}

/// The chunk plane of one node. Cheap to clone; clones share identity and limits.
#[derive(Clone)]
pub struct Wire {
    shared: Arc<Shared>,
}

/// What all connections of a node share.
struct Shared {
    options: Options,
    tls: Tls,
    caps: Caps,
    conduct: Conduct,
    /// Whether what is sent makes way for what else is on the line.
    yielding: Arc<AtomicBool>,
    accepted: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

impl Wire {
    /// A chunk plane for the node of this identity that bans nobody. Makes a fresh certificate.
    ///
    /// # Errors
    /// [`Error::Certificate`] when the key cannot sign one.
    pub fn new(identity: &Keypair, options: Options) -> Result<Self, Error> {
        Self::minding(identity, options, Conduct::default())
    }

    /// As [`Wire::new`], that speaks to nobody who is banned.
    ///
    /// # Errors
    /// [`Error::Certificate`] when the key cannot sign one.
    pub fn minding(identity: &Keypair, options: Options, conduct: Conduct) -> Result<Self, Error> {
        let (tls, caps) = (Tls::new(identity)?, Caps::new(&options));
        let (yielding, accepted, failed, refused) = Default::default();
        let shared = Shared { options, tls, caps, conduct, yielding, accepted, failed, refused };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Listens on `at`; port 0 takes a free one. `[::]` takes IPv6 only. Incoming connections shake hands in
    /// tasks of their own among `tasks`, which stop listening when they are told to stop.
    ///
    /// # Errors
    /// [`Error::Listen`], whose source is of kind `AddrInUse` when the port is taken.
    pub fn listen(&self, at: SocketAddr, tasks: &Tasks) -> Result<Listener, Error> {
        Listener::open(at, Arc::clone(&self.shared), tasks)
    }

    /// The switch by which what is sent on any connection makes way for what else is on the line, as far as the kernel
    /// tells how long packets take. Off at first.
    #[must_use]
    pub fn yielding(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.yielding)
    }

    /// What became of incoming connections.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let Shared { accepted, failed, refused, .. } = &*self.shared;
        Counters {
            accepted: accepted.load(Relaxed),
            failed: failed.load(Relaxed),
            refused: refused.load(Relaxed),
        }
    }

    /// Connections now, in and out.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.caps.used()
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Dial for Wire {
    fn dial(&self, peer: PeerId, at: SocketAddr) -> BoxFuture<'static, Result<Conn, DialError>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let limit = shared.options.connections;
            let permit = shared.caps.outgoing().ok_or(DialError::Full { at, limit })?;
            if !shared.conduct.admits(&peer, Some(at.ip()), SystemTime::now()) {
                return Err(DialError::Banned { at });
            }
            let attempt = async {
                let socket = connect(at).await.map_err(|source| DialError::Connect { at, source })?;
                let stream = shared.tls.connect(peer, at, socket).await?;
                conn(stream, peer, at, permit, &shared).map_err(|error| tls::handshake_error(at, &error))
            };
            tokio::time::timeout(shared.options.dial, attempt)
                .await
                .unwrap_or(Err(DialError::TimedOut { at }))
        }
        .boxed()
    }
}

async fn connect(at: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect(at).await?;
    tune(&socket)?;
    Ok(socket)
}

/// Small frames must not wait for acknowledgements. Buffer sizes are left alone: setting them would stop the kernel
/// from growing them with the path.
fn tune(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)
}

#[cfg(test)]
mod tests;
