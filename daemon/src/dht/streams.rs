//! Streams for the chunk protocol, where no TCP connection to a chunk port can be had.
//!
//! Owns: `/casd/<network>/chunk/1`, which carries a session as the chunk port does: who opens the stream asks. Refuses:
//! connections through a relay, which carry control only, and more streams from others than its limits. Survives a
//! crash: nothing.
//!
//! Who is at the other end has been proved by the connection, and so has the network's key where there is one. There is
//! no value that only the two ends of one stream know, so that a session's proof is bound to zeros.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::hash::Hash;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use either::Either;
use futures::future;
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::FromSwarm;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, ToSwarm, dummy,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::listen::ip_of;
use crate::peer::{Conn, HostAddr};

/// Streams that others have opened, at once. A session takes a chunk of memory at least: 1 MiB.
const ACCEPTED: usize = 32;
/// Of these, of one peer: it needs one, and one more while the first is being given up.
const OF_PEER: usize = 2;
/// … and of one host, which has as many ids as it likes.
const OF_HOST: usize = 4;
/// Accepted streams that wait to be taken.
pub(super) const WAITING: usize = 8;
/// Streams of one connection that wait to be opened.
const OPENING: usize = 4;

/// Opens and accepts streams. See the module.
pub(super) struct Streams {
    /// What they are for.
    protocol: StreamProtocol,
    /// Where accepted ones go; none are accepted where this node gives nothing.
    accepted: Option<mpsc::Sender<Conn>>,
    /// Places for accepted ones.
    places: Arc<Semaphore>,
    /// Places of each peer that has one.
    of_peer: HashMap<PeerId, Arc<Semaphore>>,
    /// Places of each host that has one; those of one's own network are not counted.
    of_host: HashMap<HostAddr, Arc<Semaphore>>,
    /// Connections that lead to a peer without a relay, the latest last.
    direct: HashMap<PeerId, Vec<ConnectionId>>,
    /// What the swarm is to hear.
    events: VecDeque<ToSwarm<Infallible, Either<Opening, Infallible>>>,
}

/// Somebody who waits for a stream.
pub(super) struct Opening(pub(super) oneshot::Sender<Result<Conn, String>>);

/// One connection's part.
pub(super) struct Handler {
    /// Who is at its other end, and where.
    other: (PeerId, Option<IpAddr>),
    protocol: StreamProtocol,
    accepts: bool,
    /// Those that wait for their streams to be asked for.
    queued: VecDeque<Opening>,
    /// Streams that were accepted.
    came: VecDeque<Stream>,
    /// Streams that are being opened, at most [`OPENING`].
    opening: usize,
}

/// A stream, with its place where it was accepted.
struct Held {
    stream: Compat<Stream>,
    _places: Vec<OwnedSemaphorePermit>,
}

/// Whether an address leads through a relay.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

fn conn((peer, remote): (PeerId, Option<IpAddr>), stream: Stream, places: Vec<OwnedSemaphorePermit>) -> Conn {
    let stream = Box::new(Held { stream: stream.compat(), _places: places });
    Conn { peer, remote, stream, binding: [0; 32] }
}

/// One of the `most` places that `who` may have. Whoever has none is forgotten.
fn place_of<K: Eq + Hash>(
    of: &mut HashMap<K, Arc<Semaphore>>,
    who: K,
    most: usize,
) -> Option<OwnedSemaphorePermit> {
    of.retain(|_, places| places.available_permits() < most);
    let places = of.entry(who).or_insert_with(|| Arc::new(Semaphore::new(most)));
    Arc::clone(places).try_acquire_owned().ok()
}

// === impl Streams ===

impl Streams {
    /// For streams of `protocol`; `accepted`: where those go that others open.
    pub(super) fn new(protocol: StreamProtocol, accepted: Option<mpsc::Sender<Conn>>) -> Self {
        Self {
            protocol,
            accepted,
            places: Arc::new(Semaphore::new(ACCEPTED)),
            of_peer: HashMap::new(),
            of_host: HashMap::new(),
            direct: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether a connection leads to `peer` without a relay.
    pub(super) fn has_direct(&self, peer: &PeerId) -> bool {
        self.direct.contains_key(peer)
    }

    /// Opens a stream on the latest direct connection with `peer`. Gives the caller back when there is none.
    pub(super) fn open(&mut self, peer: PeerId, opening: Opening) -> Result<(), Opening> {
        let Some(connection) = self.direct.get(&peer).and_then(|all| all.last()) else { return Err(opening) };
        let (handler, event) = (NotifyHandler::One(*connection), Either::Left(opening));
        self.events.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event });
        Ok(())
    }

    fn handler(
        &self,
        peer: PeerId,
        remote: &Multiaddr,
        is_direct: bool,
    ) -> Either<Handler, dummy::ConnectionHandler> {
        if !is_direct {
            return Either::Right(dummy::ConnectionHandler);
        }
        Either::Left(Handler {
            other: (peer, ip_of(remote)),
            protocol: self.protocol.clone(),
            accepts: self.accepted.is_some(),
            queued: VecDeque::new(),
            came: VecDeque::new(),
            opening: 0,
        })
    }

    /// Places for one more accepted stream, if there are any.
    fn places(&mut self, (peer, remote): (PeerId, Option<IpAddr>)) -> Option<Vec<OwnedSemaphorePermit>> {
        let mut taken = vec![place_of(&mut self.of_peer, peer, OF_PEER)?];
        if let Some(host) = remote.and_then(HostAddr::of) {
            taken.push(place_of(&mut self.of_host, host, OF_HOST)?);
        }
        taken.push(Arc::clone(&self.places).try_acquire_owned().ok()?);
        Some(taken)
    }

    fn accept(&mut self, other: (PeerId, Option<IpAddr>), stream: Stream) {
        let (peer, _) = other;
        let Some(places) = self.places(other) else {
            tracing::debug!(%peer, "a stream is refused: there are too many");
            return;
        };
        // Full or closed: the stream is dropped, which its opener sees.
        let conn = conn(other, stream, places);
        if self.accepted.as_ref().is_none_or(|accepted| accepted.try_send(conn).is_err()) {
            tracing::debug!(%peer, "a stream is refused: too many wait");
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Either<Handler, dummy::ConnectionHandler>;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(self.handler(peer, remote, !is_relayed(local)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(self.handler(peer, remote, !is_relayed(remote)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(opened) if !opened.endpoint.is_relayed() => {
                self.direct.entry(opened.peer_id).or_default().push(opened.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(all) = self.direct.get_mut(&closed.peer_id) {
                    all.retain(|connection| *connection != closed.connection_id);
                    if all.is_empty() {
                        self.direct.remove(&closed.peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        event: Either<(Option<IpAddr>, Stream), Infallible>,
    ) {
        match event {
            Either::Left((remote, stream)) => self.accept((peer, remote), stream),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Either<Opening, Infallible>>> {
        // The event loop polls the swarm after each command, so that nobody needs to be woken.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

// === impl Handler ===

impl ConnectionHandler for Handler {
    type FromBehaviour = Opening;
    type ToBehaviour = (Option<IpAddr>, Stream);
    type InboundProtocol = Either<ReadyUpgrade<StreamProtocol>, DeniedUpgrade>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let upgrade = match self.accepts {
            true => Either::Left(ReadyUpgrade::new(self.protocol.clone())),
            false => Either::Right(DeniedUpgrade),
        };
        SubstreamProtocol::new(upgrade, ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opening, Self::ToBehaviour>> {
        if let Some(stream) = self.came.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour((self.other.1, stream)));
        }
        let Some(opening) = self.queued.pop_front() else { return Poll::Pending };
        self.opening += 1;
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), opening);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, opening: Opening) {
        if self.queued.len() + self.opening >= OPENING {
            opening.end(Err("too many streams are being opened with it".to_owned()));
        } else {
            self.queued.push_back(opening);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opening>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: future::Either::Left(stream),
                ..
            }) => self.came.push_back(stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.opening -= 1;
                info.end(Ok(conn(self.other, protocol, Vec::new())));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.opening -= 1;
                info.end(Err(error.to_string()));
            }
            _ => {}
        }
    }
}

// === impl Opening ===

impl Opening {
    /// Answers; whoever has gone meanwhile drops the stream, which closes it.
    pub(super) fn end(self, result: Result<Conn, String>) {
        let _ = self.0.send(result);
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opening")
    }
}

// === impl Held ===

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_with_many_ids_leaves_places_to_others() {
        let mut streams = Streams::new(StreamProtocol::new("/chunk"), None);
        let mut held = Vec::new();
        let mut take = |ip: &str, count: usize| {
            let at = Some(ip.parse().unwrap());
            let taken: Vec<_> = (0..count).filter_map(|_| streams.places((PeerId::random(), at))).collect();
            held.push(taken);
            held.last().map_or(0, Vec::len)
        };
        assert_eq!(take("9.9.9.9", 16), OF_HOST);
        assert_eq!(take("8.8.8.8", 1), 1);
        assert_eq!(take("192.168.0.1", 16), 16, "on one's own network ids are not so cheap");
        assert_eq!(take("7.7.7.7", 1), 1);
        drop(held);
        let again = [(); 16].map(|()| streams.places((PeerId::random(), "9.9.9.9".parse().ok())));
        assert_eq!(again.iter().flatten().count(), OF_HOST);
        assert_eq!((streams.of_host.len(), streams.places.available_permits()), (1, ACCEPTED - OF_HOST));
    }
}
