//! Hosts that are in memory only: their addresses, and the connections between them.
//!
//! Owns: which host is at which address, and what a connection between two of them carries. A host that has
//! vanished and one on the other side of a cut are black holes, as on a real network: what is sent to them is
//! lost, nothing comes back, and a dial ends when it has waited long enough. Refuses: proof of who is at the
//! other end; the process itself hands out identities, so that a thousand nodes cost no cryptography.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use casd::dht::Transport;
use futures::future::{BoxFuture, FutureExt, Ready, ready};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::Transport as Carrying;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, yamux};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// Connections that may wait for a host to take them.
const BACKLOG: usize = 256;
/// Bytes in flight one way on a connection, of which a large network has a hundred thousand.
const IN_FLIGHT: usize = 8 << 10;
/// How long a dial to nobody takes: a QUIC handshake's patience.
const SILENCE: Duration = Duration::from_secs(5);
/// A dial to somebody: one round trip.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// A connection as the swarm takes it.
type Connection = (PeerId, StreamMuxerBox);

/// All hosts. Clones are the same network.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<HashMap<SocketAddr, Host>>>);

/// A host that is up.
struct Host {
    /// Who is there.
    peer: PeerId,
    /// Where connections come in.
    door: mpsc::Sender<Arrival>,
    /// What all of its connections share.
    line: Arc<Line>,
}

/// A host's line to the world.
#[derive(Default)]
pub(crate) struct Line {
    /// Which side of a cut it is on; equal sides see each other.
    side: AtomicU8,
    /// Whether the host has gone without a word.
    gone: AtomicBool,
    /// Dials from here.
    dials: AtomicU64,
}

/// A connection that comes in.
struct Arrival {
    from: SocketAddr,
    peer: PeerId,
    pipe: Pipe,
}

/// One end of a connection.
struct Pipe {
    bytes: Compat<DuplexStream>,
    /// This end's line and the other's.
    lines: [Arc<Line>; 2],
    /// Whether something was lost: then nothing comes through any more.
    lost: bool,
}

/// A host's way to dial and to be dialled.
struct Carriers {
    net: Net,
    at: SocketAddr,
    peer: PeerId,
    line: Arc<Line>,
    listener: Option<Listener>,
    /// The port that the next dial comes from.
    port: AtomicU16,
}

struct Listener {
    id: ListenerId,
    at: Multiaddr,
    door: mpsc::Receiver<Arrival>,
    told: bool,
}

// === impl Net ===

impl Net {
    fn hosts(&self) -> MutexGuard<'_, HashMap<SocketAddr, Host>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host at `at` for `peer`, up once it listens; and its line.
    pub(crate) fn host(&self, at: SocketAddr, peer: PeerId) -> (Transport, Arc<Line>) {
        let line = Arc::new(Line::default());
        let port = AtomicU16::new(32_768);
        let carriers =
            Carriers { net: self.clone(), at, peer, line: Arc::clone(&line), listener: None, port };
        (carriers.boxed(), line)
    }

    /// Puts a host on a side of a cut.
    pub(crate) fn put(&self, at: SocketAddr, side: u8) {
        if let Some(host) = self.hosts().get(&at) {
            host.line.side.store(side, Ordering::Relaxed);
        }
    }

    /// The other end of a new connection to `to`, when somebody is there who takes it.
    fn knock(
        &self,
        from: SocketAddr,
        peer: PeerId,
        line: &Arc<Line>,
        to: SocketAddr,
    ) -> Option<(PeerId, Pipe)> {
        let hosts = self.hosts();
        let host = hosts.get(&to).filter(|host| line.sees(&host.line))?;
        let (near, far) = tokio::io::duplex(IN_FLIGHT);
        let far = Pipe::new(far, [Arc::clone(&host.line), Arc::clone(line)]);
        host.door.try_send(Arrival { from, peer, pipe: far }).ok()?;
        Some((host.peer, Pipe::new(near, [Arc::clone(line), Arc::clone(&host.line)])))
    }
}

// === impl Line ===

impl Line {
    /// The host goes without a word: its connections become black holes.
    pub(crate) fn vanish(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// How many hosts have been dialled from here.
    pub(crate) fn dials(&self) -> u64 {
        self.dials.load(Ordering::Relaxed)
    }

    fn sees(&self, other: &Self) -> bool {
        let is_gone = |line: &Self| line.gone.load(Ordering::Relaxed);
        let side = |line: &Self| line.side.load(Ordering::Relaxed);
        !is_gone(self) && !is_gone(other) && side(self) == side(other)
    }
}

// === impl Pipe ===

impl Pipe {
    fn new(bytes: DuplexStream, lines: [Arc<Line>; 2]) -> Self {
        Self { bytes: bytes.compat(), lines, lost: false }
    }

    /// Whether nothing comes through, now or ever again.
    fn is_lost(&mut self) -> bool {
        self.lost |= !self.lines[0].sees(&self.lines[1]);
        self.lost
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // Whoever waits here is woken by timers of its own only.
        if self.is_lost() { Poll::Pending } else { Pin::new(&mut self.bytes).poll_read(context, into) }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_lost() {
            Poll::Ready(Ok(from.len()))
        } else {
            Pin::new(&mut self.bytes).poll_write(context, from)
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_lost() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.bytes).poll_flush(context) }
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_lost() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.bytes).poll_close(context) }
    }
}

// === impl Carriers ===

impl Carrying for Carriers {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Connection>>;
    type Dial = BoxFuture<'static, io::Result<Connection>>;

    fn listen_on(&mut self, id: ListenerId, at: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let (sender, door) = mpsc::channel(BACKLOG);
        let host = Host { peer: self.peer, door: sender, line: Arc::clone(&self.line) };
        self.net.hosts().insert(self.at, host);
        self.listener = Some(Listener { id, at, door, told: false });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listener.take_if(|listener| listener.id == id).is_some()
    }

    fn dial(&mut self, at: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let to = socket(&at).ok_or(TransportError::MultiaddrNotSupported(at))?;
        let (net, peer, line) = (self.net.clone(), self.peer, Arc::clone(&self.line));
        line.dials.fetch_add(1, Ordering::Relaxed);
        let from = SocketAddr::new(self.at.ip(), self.port.fetch_add(1, Ordering::Relaxed) | 0x8000);
        let dial = async move {
            tokio::time::sleep(ROUND_TRIP).await;
            let Some((far, pipe)) = net.knock(from, peer, &line, to) else {
                tokio::time::sleep(SILENCE).await;
                return Err(io::ErrorKind::TimedOut.into());
            };
            let muxer = OutboundConnectionUpgrade::upgrade_outbound(yamux::Config::default(), pipe, "");
            Ok((far, StreamMuxerBox::new(muxer.await?)))
        };
        Ok(dial.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let Some(listener) = &mut self.listener else { return Poll::Pending };
        let (listener_id, at) = (listener.id, listener.at.clone());
        if !std::mem::replace(&mut listener.told, true) {
            return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr: at });
        }
        let Poll::Ready(Some(Arrival { from, peer, pipe })) = listener.door.poll_recv(context) else {
            return Poll::Pending;
        };
        let muxer = InboundConnectionUpgrade::upgrade_inbound(yamux::Config::default(), pipe, "");
        let muxer = muxer.into_inner().map(|muxer| (peer, StreamMuxerBox::new(muxer)));
        let (upgrade, send_back_addr) = (ready(muxer), multiaddr(from));
        Poll::Ready(TransportEvent::Incoming { listener_id, upgrade, local_addr: at, send_back_addr })
    }
}

impl Drop for Carriers {
    fn drop(&mut self) {
        let mut hosts = self.net.hosts();
        if hosts.get(&self.at).is_some_and(|host| Arc::ptr_eq(&host.line, &self.line)) {
            hosts.remove(&self.at);
        }
    }
}

/// An address as libp2p writes it.
pub(crate) fn multiaddr(at: SocketAddr) -> Multiaddr {
    Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port()))
}

fn socket(at: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = at.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::from(ip),
        Protocol::Ip6(ip) => IpAddr::from(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}
