//! Whether this node is reached where others see it: the asking half of AutoNAT v2.
//!
//! Owns: which addresses are tried, and whom to ask. Refuses: addresses that are not global, more than its limits
//! (whoever says where it sees this node may lie), the word of nodes on our own subnets, who are behind the same
//! router, and to have the swarm tell an address on one node's word: `reachable` says what it takes. Survives a crash:
//! nothing.
//!
//! What few address groups say leaves room for what more say: of the places those that one says have half, those that
//! two say three quarters, and so on. What the swarm tells of it is not heard, since it does not tell who says so.
//!
//! The behaviour of libp2p tries each address once and for all, so that it is made anew now and then; it does not know
//! the connections from before then, and nothing of theirs is told to it.
//!
//! A router that lets one transport in at a port most likely treats the other alike: an address that is seen on one
//! brings that of the other, which is tried, and which two that dial each other tell each other (DCUtR).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use either::Either;
use libp2p::PeerId;
use libp2p::autonat::v2::client;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{FromSwarm, NewExternalAddrCandidate};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, ListenAddresses, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};

use super::listen::ip_of;
use super::reach::{Reach, is_global};
use super::streams::is_relayed;

/// Addresses that are tried: two transports of two versions of IP, and as many that are wrong.
const MOST: usize = 8;

/// Asks others to dial this node.
pub(super) struct Candidates {
    /// What asks.
    inner: client::Behaviour,
    /// Tells neighbours.
    reach: Arc<Reach>,
    /// Where this node listens.
    listening: ListenAddresses,
    /// What is tried, at most [`MOST`].
    known: HashSet<Multiaddr>,
    /// How many of these others say, and nobody else.
    heard: usize,
    /// Addresses that others are to hear of.
    found: VecDeque<Multiaddr>,
    /// All connections…
    open: HashSet<ConnectionId>,
    /// …and those that are older than what asks.
    old: HashSet<ConnectionId>,
}

// === impl Candidates ===

impl Candidates {
    pub(super) fn new(reach: Arc<Reach>) -> Self {
        Self {
            inner: client::Behaviour::default(),
            reach,
            listening: ListenAddresses::default(),
            known: HashSet::new(),
            heard: 0,
            found: VecDeque::new(),
            open: HashSet::new(),
            old: HashSet::new(),
        }
    }

    /// Tries `again`, and what comes after it, over connections that come from now on.
    pub(super) fn renew(&mut self, again: &[Multiaddr]) {
        self.inner = client::Behaviour::default();
        self.old.clone_from(&self.open);
        self.known.clear();
        self.heard = 0;
        for address in again {
            self.consider(address);
        }
    }

    /// Whether more may be tried.
    pub(super) fn has_room(&self) -> bool {
        self.known.len() < MOST
    }

    /// This node may be at `address`, as far as it knows itself.
    pub(super) fn consider(&mut self, address: &Multiaddr) {
        self.add(address, None);
    }

    /// So many address groups say that this node is seen at `address`.
    pub(super) fn hear(&mut self, address: &Multiaddr, groups: usize) {
        self.add(address, Some(MOST - (MOST >> groups.min(MOST))));
    }

    /// Has an address tried, and with it that on the other transport; `heard`: as long as fewer are tried that others
    /// say, which it is as well.
    fn add(&mut self, address: &Multiaddr, heard: Option<usize>) {
        let is_one = ip_of(address).is_some_and(is_global) && transport(address).is_some();
        let is_full = !self.has_room() || heard.is_some_and(|most| self.heard >= most);
        if !is_one || is_full || !self.known.insert(address.clone()) {
            return;
        }
        self.heard += usize::from(heard.is_some());
        let seen = NewExternalAddrCandidate { addr: address };
        self.inner.on_swarm_event(FromSwarm::NewExternalAddrCandidate(seen));
        let siblings: Vec<_> =
            self.listening.iter().filter_map(|listening| sibling(address, listening)).collect();
        for sibling in siblings {
            if !self.known.contains(&sibling) {
                self.add(&sibling, heard);
                self.found.push_back(sibling);
            }
        }
    }
}

/// Which of our transports an address is of.
fn transport(address: &Multiaddr) -> Option<Carrier> {
    let mut parts = address.iter().skip(1);
    match (parts.next()?, parts.next(), parts.next()) {
        (Protocol::Tcp(port), None, None) => Some(Carrier::Tcp(port)),
        (Protocol::Udp(port), Some(Protocol::QuicV1), None) => Some(Carrier::Quic(port)),
        _ => None,
    }
}

/// A transport and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Tcp(u16),
    Quic(u16),
}

/// The address on the other transport, where `listening` is of that and of the same version of IP.
fn sibling(address: &Multiaddr, listening: &Multiaddr) -> Option<Multiaddr> {
    let (seen, own) = (ip_of(address)?, ip_of(listening)?);
    let host = Multiaddr::from(seen);
    match (transport(address)?, transport(listening)?) {
        _ if seen.is_ipv4() != own.is_ipv4() || own.is_loopback() => None,
        (Carrier::Quic(_), Carrier::Tcp(port)) => Some(host.with(Protocol::Tcp(port))),
        (Carrier::Tcp(_), Carrier::Quic(port)) => Some(host.with(Protocol::Udp(port)).with(Protocol::QuicV1)),
        _ => None,
    }
}

impl NetworkBehaviour for Candidates {
    type ConnectionHandler = Either<THandler<client::Behaviour>, dummy::ConnectionHandler>;
    type ToSwarm = client::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        if is_relayed(local) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote).map(Either::Left)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        let ip = ip_of(remote);
        if !ip.is_some_and(|ip| is_global(ip) && !self.reach.is_neighbour(ip)) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let inner = &mut self.inner;
        inner.handle_established_outbound_connection(connection, peer, remote, role, port).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.listening.on_swarm_event(&event);
        match event {
            FromSwarm::NewExternalAddrCandidate(_) => return,
            FromSwarm::ConnectionEstablished(opened) => {
                self.open.insert(opened.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.open.remove(&closed.connection_id);
                if self.old.remove(&closed.connection_id) {
                    return;
                }
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) if !self.old.contains(&connection) => {
                self.inner.on_connection_handler_event(peer, connection, event);
            }
            Either::Left(_) => {}
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<client::Event, THandlerInEvent<Self>>> {
        if let Some(found) = self.found.pop_front() {
            return Poll::Ready(ToSwarm::NewExternalAddrCandidate(found));
        }
        loop {
            match self.inner.poll(context) {
                Poll::Ready(event) if is_hearsay(&event) => {}
                other => return other.map(|event| event.map_in(Either::Left)),
            }
        }
    }
}

/// Whether the swarm would tell others of an address on one node's word; what has been said is in an event besides.
fn is_hearsay<E, I>(event: &ToSwarm<E, I>) -> bool {
    matches!(event, ToSwarm::ExternalAddrConfirmed(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_on_one_transport_brings_that_on_the_other() {
        let (udp, tcp) = (at("/ip4/203.0.113.9/udp/8468/quic-v1"), at("/ip4/203.0.113.9/tcp/9468"));
        let (own_udp, own_tcp) = (at("/ip4/192.168.0.2/udp/8468/quic-v1"), at("/ip4/192.168.0.2/tcp/9468"));
        assert_eq!(sibling(&udp, &own_tcp), Some(tcp.clone()));
        assert_eq!(sibling(&tcp, &own_udp), Some(udp.clone()));
        assert_eq!(sibling(&udp, &own_udp), None);
        assert_eq!(sibling(&udp, &at("/ip6/2001:db8::1/tcp/1")), None);
        assert_eq!(sibling(&udp, &at("/ip4/127.0.0.1/tcp/1")), None);
    }

    #[test]
    fn one_node_does_not_make_the_swarm_tell_an_address() {
        let at = at("/ip4/203.0.113.9/tcp/9468");
        let said = client::Event {
            tested_addr: at.clone(),
            bytes_sent: 0,
            server: PeerId::random(),
            result: Ok(()),
        };
        assert!(is_hearsay::<client::Event, ()>(&ToSwarm::ExternalAddrConfirmed(at)));
        assert!(!is_hearsay::<client::Event, ()>(&ToSwarm::GenerateEvent(said)));
    }

    #[test]
    fn what_few_say_leaves_room_for_what_more_say() {
        let mut candidates = Candidates::new(Arc::default());
        let seen = |groups: usize, port: usize| at(&format!("/ip4/203.0.113.{groups}/tcp/{port}"));
        // The swarm does not tell who says so.
        let addr = &seen(9, 1);
        candidates.on_swarm_event(FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }));
        assert!(candidates.known.is_empty());
        for (groups, all) in [(1, 4), (2, 6), (3, 7), (100, MOST)] {
            (1..100).for_each(|port| candidates.hear(&seen(groups, port), groups));
            assert_eq!((candidates.known.len(), candidates.has_room()), (all, all < MOST));
        }
        // What this node knows itself is no hearsay.
        candidates.renew(&[seen(1, 1), seen(1, 2)]);
        (1..100).for_each(|port| candidates.hear(&seen(1, port), 1));
        assert_eq!(candidates.known.len(), 6);
    }

    #[test]
    fn what_strangers_say_is_bounded() {
        let mut candidates = Candidates::new(Arc::default());
        for bad in
            ["/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip4/203.0.113.1/tcp/1/ws", "/dns4/a/tcp/1"]
        {
            candidates.consider(&at(bad));
        }
        assert!(candidates.known.is_empty());
        for port in 1..100 {
            candidates.consider(&at(&format!("/ip4/203.0.113.1/tcp/{port}")));
        }
        assert_eq!(candidates.known.len(), MOST);
        candidates.renew(&[at("/ip4/203.0.113.1/tcp/7")]);
        assert_eq!(candidates.known.len(), 1);
    }
}
