//! Peers on the local network, found by multicast DNS.
//!
//! Owns: when it is asked for, and whom of those that answer to dial. Refuses: to be asked before the room listens,
//! addresses that are not on a subnet of this host, addresses without an id, and more than its limits. Whoever answers
//! is a stranger until it has said what it is, like any peer. Survives a crash: nothing.
//!
//! `libp2p-mdns` multicasts on each interface but loopback, over one version of IP each, so there are two of it; an
//! interface that comes is used, one that cannot be multicast on is logged by it once. It keeps what it is told for as
//! long as the teller likes and as much as the teller likes, so that one that was told too much is let go for a while.
//! A node that listens nowhere asks like the others, and what it answers names nobody.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv6Addr, UdpSocket};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::{ListenerId, PortUse};
use libp2p::swarm::behaviour::{FromSwarm, NewListenAddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, ListenAddresses, NetworkBehaviour, THandlerInEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId, mdns};

use super::bootstrap::{FIRST_WAIT, LONGEST_ALONE};

/// Addresses of others that one version of IP may know at once: 600 KiB.
const MOST_KNOWN: usize = 4_096;
/// How long it is let go when there are more.
const PAUSE: Duration = Duration::from_secs(600);
/// How soon it is tried again where there is nothing to multicast on.
const RETRY: Duration = Duration::from_secs(1);
/// Peers that were found; the others are found through those.
const MAX_FOUND: usize = 256;
/// Addresses of one.
const MAX_ADDRESSES: usize = 8;
/// Dialled at once.
const AT_ONCE: usize = 8;
/// Dials of one peer, of which the waits double: for about half a minute.
const MAX_DIALS: u32 = 6;

/// Asks the local network who is there.
pub(super) struct Lan {
    local: PeerId,
    /// Where this node listens, which is told to those who ask.
    listening: ListenAddresses,
    /// One a version of IP.
    sides: [Side; 2],
    /// Whether anything is asked yet.
    open: bool,
}

struct Side {
    is_ipv6: bool,
    /// None: not open yet, not possible yet, or let go.
    mdns: Option<mdns::tokio::Behaviour>,
    /// When it may be opened again.
    after: Option<Instant>,
}

/// Peers that were found. Who has been reached, or tried in vain, is kept: multicast DNS tells of each once, as long as
/// it is there. Pure: times come in, dials go out.
#[derive(Debug, Default)]
pub(super) struct Found(HashMap<PeerId, Entry>);

#[derive(Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    /// Not dialled before this.
    due: Instant,
    dials: u32,
    /// Whether it was reached, or tried often enough: it is dialled only while no server of the DHT is known.
    is_over: bool,
}

// === impl Lan ===

impl Lan {
    pub(super) fn new(local: PeerId) -> Self {
        let side = |is_ipv6| Side { is_ipv6, mdns: None, after: None };
        Self { local, listening: ListenAddresses::default(), sides: [side(false), side(true)], open: false }
    }

    /// Begins to ask: what is found from now on, somebody hears.
    pub(super) fn open(&mut self) {
        self.open = true;
        for side in &mut self.sides {
            side.open(self.local, &self.listening);
        }
    }
}

impl Side {
    fn open(&mut self, local: PeerId, listening: &ListenAddresses) {
        if !self.is_possible() {
            self.after = Some(Instant::now() + RETRY);
            return;
        }
        let config = mdns::Config { enable_ipv6: self.is_ipv6, ..mdns::Config::default() };
        match mdns::tokio::Behaviour::new(config, local) {
            Ok(mut mdns) => {
                for addr in listening.iter() {
                    let listener_id = ListenerId::next();
                    mdns.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }));
                }
                self.mdns = Some(mdns);
            }
            Err(error) => {
                tracing::warn!(%error, "peers on the local network cannot be looked for; going on without");
            }
        }
    }

    /// Whether there is a link to multicast on. With IPv4 an address is enough; with IPv6 an attempt of `libp2p-mdns`
    /// before any link is ready would be the last for that address.
    fn is_possible(&self) -> bool {
        let join = |socket: UdpSocket| socket.join_multicast_v6(&mdns::IPV6_MDNS_MULTICAST_ADDRESS, 0);
        !self.is_ipv6 || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(join).is_ok()
    }

    /// Lets go of what was told too much, and opens it again when its time has come.
    fn keep_in_bounds(&mut self, local: PeerId, listening: &ListenAddresses) {
        if self.mdns.as_ref().is_some_and(|mdns| mdns.discovered_nodes().len() > MOST_KNOWN) {
            tracing::warn!(
                "somebody floods the local network with peers; none are looked for there for {} minutes",
                PAUSE.as_secs() / 60
            );
            (self.mdns, self.after) = (None, Some(Instant::now() + PAUSE));
        }
        if self.after.is_some_and(|after| Instant::now() >= after) {
            self.after = None;
            self.open(local, listening);
        }
    }
}

impl NetworkBehaviour for Lan {
    type ConnectionHandler = dummy::ConnectionHandler;
    /// Who says to be where.
    type ToSwarm = Vec<(PeerId, Multiaddr)>;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.listening.on_swarm_event(&event);
        for mdns in self.sides.iter_mut().filter_map(|side| side.mdns.as_mut()) {
            mdns.on_swarm_event(event);
        }
    }

    /// The swarm is polled at each tick of the event loop at the latest, so that a pause needs no timer.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        for side in self.sides.iter_mut().filter(|_| self.open) {
            side.keep_in_bounds(self.local, &self.listening);
            while let Some(mdns) = &mut side.mdns
                && let Poll::Ready(event) = mdns.poll(context)
            {
                // What it would tell the swarm itself, others would dial without a look at it.
                if let ToSwarm::GenerateEvent(mdns::Event::Discovered(found)) = event {
                    return Poll::Ready(ToSwarm::GenerateEvent(found));
                }
            }
        }
        Poll::Pending
    }
}

// === impl Found ===

impl Found {
    /// Somebody says that `peer` is at an address that ends in its id.
    pub(super) fn add(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) {
        if !self.0.contains_key(&peer) && !self.make_room() {
            return;
        }
        let new = || Entry { addresses: Vec::new(), due: now, dials: 0, is_over: false };
        let entry = self.0.entry(peer).or_insert_with(new);
        let is_new = !entry.addresses.contains(address);
        if std::mem::take(&mut entry.is_over) {
            // It was gone, or is elsewhere now: where it was before gives way.
            (entry.due, entry.dials) = (now, 0);
            if is_new {
                entry.addresses.truncate(MAX_ADDRESSES - 1);
                entry.addresses.insert(0, address.clone());
            }
        } else if is_new && entry.addresses.len() < MAX_ADDRESSES {
            entry.addresses.push(address.clone());
        }
    }

    /// Whether there is a place for one more: whoever waits to be dialled keeps its own.
    fn make_room(&mut self) -> bool {
        if self.0.len() < MAX_FOUND {
            return true;
        }
        let over = self.0.iter().find(|(_, entry)| entry.is_over).map(|(peer, _)| *peer);
        over.is_some_and(|peer| self.0.remove(&peer).is_some())
    }

    /// Whether it was found.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    /// It is connected, and need not be dialled (any more) while this node knows servers.
    pub(super) fn done(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.0.get_mut(peer) {
            (entry.is_over, entry.due) = (true, now);
        }
    }

    /// It is not of this network.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Whom to dial now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        for entry in self.0.values_mut() {
            entry.is_over |= entry.dials >= MAX_DIALS && now >= entry.due;
        }
        let is_due = |one: &Entry| !one.is_over && one.due <= now && one.dials < MAX_DIALS;
        let due = self.0.iter_mut().filter(|(_, entry)| is_due(entry));
        let dial = |(peer, entry): (&PeerId, &mut Entry)| {
            entry.due = now + FIRST_WAIT * 2_u32.pow(entry.dials);
            entry.dials += 1;
            (*peer, entry.addresses.clone())
        };
        due.take(AT_ONCE).map(dial).collect()
    }

    /// Whom to dial again now, while this node knows no server: each every half a minute.
    pub(super) fn again(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let due = self.0.iter_mut().filter(|(_, one)| one.is_over && one.due <= now);
        let dial = |(peer, entry): (&PeerId, &mut Entry)| {
            entry.due = now + LONGEST_ALONE;
            (*peer, entry.addresses.clone())
        };
        due.take(AT_ONCE).map(dial).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: usize) -> Multiaddr {
        format!("/ip4/192.168.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn who_is_found_is_dialled_a_few_times() {
        let (mut found, peer, now) = (Found::default(), PeerId::random(), Instant::now());
        for port in 0..20 {
            found.add(peer, &at(port % 10), now);
        }
        let mut dials = Vec::new();
        for second in 0..100 {
            for (dialled, addresses) in found.due(now + Duration::from_secs(second)) {
                assert_eq!((dialled, addresses.len()), (peer, MAX_ADDRESSES));
                dials.push(second);
            }
        }
        assert_eq!(dials, [0, 1, 3, 7, 15, 31]);
        let later = now + Duration::from_secs(100);
        found.add(peer, &at(1), later);
        assert_eq!(found.due(later)[0].1[0], at(0), "it is there again");
        found.done(&peer, later);
        found.add(peer, &at(10), later);
        let dialled = found.due(later);
        assert_eq!((&dialled[0].1[0], dialled[0].1.len()), (&at(10), MAX_ADDRESSES), "it is elsewhere");
        found.done(&peer, later);
        assert!(found.due(later + Duration::from_secs(9)).is_empty());
    }

    #[test]
    fn who_was_reached_or_tried_in_vain_is_dialled_again_while_nobody_is_reached() {
        let (mut found, now) = (Found::default(), Instant::now());
        let [reached, silent, stranger] = [1, 2, 3].map(|_| PeerId::random());
        for peer in [reached, silent, stranger] {
            found.add(peer, &at(1), now);
        }
        found.done(&reached, now);
        found.forget(&stranger);
        assert_eq!(found.again(now), [(reached, vec![at(1)])], "the others wait for their own dials");
        assert!(found.again(now + LONGEST_ALONE - FIRST_WAIT).is_empty());
        assert_eq!(found.again(now + LONGEST_ALONE).len(), 1);
        let mut later = now;
        for _ in 0..100 {
            later += FIRST_WAIT;
            found.due(later);
        }
        let mut again: Vec<_> = found.again(later).into_iter().map(|(peer, _)| peer).collect();
        again.sort();
        let mut both = [reached, silent];
        both.sort();
        assert_eq!(again, both);
        assert!(found.has(&reached) && !found.has(&stranger));
    }

    #[test]
    fn a_flood_is_bounded() {
        let (mut found, now) = (Found::default(), Instant::now());
        for _ in 0..1000 {
            found.add(PeerId::random(), &at(1), now);
        }
        assert_eq!(found.0.len(), MAX_FOUND);
        for _ in 0..MAX_FOUND / AT_ONCE {
            assert_eq!(found.due(now).len(), AT_ONCE);
        }
        assert!(found.due(now).is_empty());
        // Who need not be dialled gives way to a newcomer, and nobody else.
        let kept = found.0.keys().copied().next().unwrap();
        let newcomers = [PeerId::random(), PeerId::random()];
        found.done(&kept, now);
        for peer in newcomers {
            found.add(peer, &at(1), now);
        }
        assert!(!found.has(&kept) && found.has(&newcomers[0]) && !found.has(&newcomers[1]));
        assert_eq!(found.due(now), [(newcomers[0], vec![at(1)])]);
    }
}
