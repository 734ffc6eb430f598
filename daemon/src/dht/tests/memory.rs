//! Hosts in memory: at whatever addresses, behind routers or not, and such as lie about where others are.
//!
//! What is proved on a real connection the process knows: who is at the other end. What runs over it is the real room.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt, Ready, ready};
use libp2p::core::Transport as Carrying;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::multiaddr::Protocol;
use libp2p::yamux;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{Node, TCP, options};
use crate::dht::{Options, start};
use crate::peer::{Keypair, Multiaddr, PeerId};
use crate::support::task::Tasks;

/// Bytes in flight one way on a connection, and what may wait for a host to take it.
const IN_FLIGHT: usize = 64 << 10;
const BACKLOG: usize = 64;
const PORT: u16 = 8468;
/// What the name of a host begins with; its address follows.
pub(super) const NAMED: &str = "host-";

/// A connection as the swarm takes it.
type Connection = (PeerId, StreamMuxerBox);

/// All hosts. Clones are the same network.
#[derive(Clone, Default)]
pub(super) struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Who is where others see it, and lets them in there.
    doors: HashMap<SocketAddr, (PeerId, mpsc::Sender<News>)>,
    /// Who has dialled where.
    dials: Vec<(PeerId, IpAddr)>,
}

/// What comes to a host.
enum News {
    /// A connection.
    Arrival(SocketAddr, PeerId, DuplexStream),
    /// It has its address anew.
    Moved,
}

/// A host's place in the network.
#[derive(Clone, Copy)]
pub(super) struct Place {
    inside: IpAddr,
    outside: IpAddr,
    is_open: bool,
    lies: Option<(IpAddr, IpAddr)>,
}

/// A node on a host.
pub(super) struct Hosted {
    pub(super) node: Node,
    /// Its own door.
    moves: mpsc::Sender<News>,
}

/// A host's way to dial and to be dialled.
struct Carriers {
    net: Net,
    peer: PeerId,
    place: Place,
    listener: Option<(ListenerId, Multiaddr)>,
    door: (mpsc::Sender<News>, mpsc::Receiver<News>),
}

// === impl Place ===

impl Place {
    /// At an address of its own.
    pub(super) fn at(ip: &str) -> Self {
        let ip = ip.parse().unwrap();
        Self { inside: ip, outside: ip, is_open: true, lies: None }
    }

    /// At a private address, behind a router that lets everybody in who knows where.
    pub(super) fn behind(router: &str, inside: &str) -> Self {
        Self { inside: inside.parse().unwrap(), ..Self::at(router) }
    }

    /// … or nobody.
    pub(super) fn shut(self) -> Self {
        Self { is_open: false, ..self }
    }

    /// It says of whoever is at `truth` that it sees it at `lie`, and can connect to it there.
    pub(super) fn lying(self, truth: &str, lie: &str) -> Self {
        Self { lies: Some((truth.parse().unwrap(), lie.parse().unwrap())), ..self }
    }
}

// === impl Net ===

impl Net {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Starts a node there.
    pub(super) async fn start(&self, place: Place, with: impl FnOnce(Options) -> Options) -> Hosted {
        self.start_as(Keypair::generate_ed25519(), place, with).await
    }

    /// As [`Net::start`], of a node that others knew before.
    pub(super) async fn start_as(
        &self,
        keypair: Keypair,
        place: Place,
        with: impl FnOnce(Options) -> Options,
    ) -> Hosted {
        let tasks = Tasks::new();
        let (peer, door) = (keypair.public().to_peer_id(), mpsc::channel(BACKLOG));
        let moves = door.0.clone();
        let carriers = Carriers { net: self.clone(), peer, place, listener: None, door };
        let options = with(Options { listen: vec![address(place.inside)], ..options(TCP, &[]) });
        let (chunk, conduct) = (options.chunk.clone(), options.conduct.clone());
        let dht = start::begin(carriers.boxed(), options, keypair, &tasks).await.unwrap();
        // Its host has no others besides it.
        dht.0.reach.be_in(&format!("{}/32", place.inside));
        Hosted { node: Node { dht, chunk, conduct, tasks }, moves }
    }

    /// How often `node` has dialled there.
    pub(super) fn dials(&self, node: &Hosted, ip: &str) -> usize {
        let (peer, ip) = (node.id(), ip.parse::<IpAddr>().unwrap());
        self.state().dials.iter().filter(|dial| **dial == (peer, ip)).count()
    }
}

// === impl Hosted ===

impl Hosted {
    pub(super) fn id(&self) -> PeerId {
        self.node.dht.0.local
    }

    /// Its host has addresses anew, so that what is known of them is soon looked at again.
    pub(super) async fn moves(&self) {
        self.moves.send(News::Moved).await.unwrap();
    }

    /// Connects to another, which is reached.
    pub(super) async fn connect(&self, other: &Self) {
        super::within("they connect", self.node.dht.connect(other.node.address())).await.unwrap();
    }
}

// === impl Carriers ===

impl Carrying for Carriers {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Connection>>;
    type Dial = BoxFuture<'static, io::Result<Connection>>;

    fn listen_on(&mut self, id: ListenerId, at: Multiaddr) -> Result<(), TransportError<io::Error>> {
        if self.place.is_open {
            let (outside, door) = (SocketAddr::new(self.place.outside, PORT), self.door.0.clone());
            self.net.state().doors.insert(outside, (self.peer, door));
        }
        self.listener = Some((id, at));
        self.door.0.try_send(News::Moved).map_err(|error| TransportError::Other(io::Error::other(error)))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listener.take_if(|(own, _)| *own == id).is_some()
    }

    fn dial(&mut self, at: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let mut parts = at.iter();
        let host = match parts.next() {
            Some(Protocol::Ip4(ip)) => Some(IpAddr::from(ip)),
            Some(Protocol::Dns4(name)) => name.strip_prefix(NAMED).and_then(|ip| ip.parse().ok()),
            _ => None,
        };
        let (Some(ip), Some(Protocol::Tcp(port))) = (host, parts.next()) else {
            return Err(TransportError::MultiaddrNotSupported(at));
        };
        let mut state = self.net.state();
        state.dials.push((self.peer, ip));
        let truth = self.place.lies.filter(|(_, lie)| *lie == ip).map_or(ip, |(truth, _)| truth);
        let (near, far) = tokio::io::duplex(IN_FLIGHT);
        // Its router keeps ports.
        let arrival = News::Arrival(SocketAddr::new(self.place.outside, PORT), self.peer, far);
        let door = state.doors.get(&SocketAddr::new(truth, port));
        let taken = door.and_then(|(peer, door)| door.try_send(arrival).ok().map(|()| *peer));
        Ok(async move {
            let peer = taken.ok_or(io::ErrorKind::ConnectionRefused)?;
            let near = near.compat();
            let muxer = OutboundConnectionUpgrade::upgrade_outbound(yamux::Config::default(), near, "");
            Ok((peer, StreamMuxerBox::new(muxer.await?)))
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let Some((listener_id, at)) = self.listener.clone() else { return Poll::Pending };
        let (from, peer, far) = match self.door.1.poll_recv(context) {
            Poll::Ready(Some(News::Arrival(from, peer, far))) => (from, peer, far),
            Poll::Ready(Some(News::Moved)) => {
                return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr: at });
            }
            _ => return Poll::Pending,
        };
        let muxer = InboundConnectionUpgrade::upgrade_inbound(yamux::Config::default(), far.compat(), "");
        let muxer = muxer.into_inner().map(|muxer| (peer, StreamMuxerBox::new(muxer)));
        let seen = self.place.lies.filter(|(truth, _)| *truth == from.ip()).map_or(from.ip(), |(_, lie)| lie);
        let send_back_addr = address(seen);
        Poll::Ready(TransportEvent::Incoming {
            listener_id,
            upgrade: ready(muxer),
            local_addr: at,
            send_back_addr,
        })
    }
}

impl Drop for Carriers {
    fn drop(&mut self) {
        self.net.state().doors.retain(|_, (peer, _)| *peer != self.peer);
    }
}

/// Where a node is on a host.
pub(super) fn address(ip: IpAddr) -> Multiaddr {
    Multiaddr::from(ip).with(Protocol::Tcp(PORT))
}
