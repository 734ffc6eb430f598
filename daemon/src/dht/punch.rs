//! Dialling those who ask for this node at a relay while they dial it (DCUtR), and the addresses they are told for it.
//!
//! Owns: what libp2p's behaviour knows of where this node is. Refuses: that it hears of it from whoever says something:
//! what it tells is chosen by [`Sightings`] in the moment a connection through a relay comes, and with it this node's
//! own global addresses. Survives a crash: nothing.
//!
//! The swarm does not say who sees this node at a new address. Identify tells first who spoke, and then, before it
//! tells of anybody else, what that one saw: so who spoke last is who says it.

use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{FromSwarm, NewExternalAddrCandidate};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, dcutr};

use super::records::Group;
use super::sightings::{Sightings, TOLD};
use super::streams::is_relayed;

/// Of this node's own addresses: two transports of two versions of IP, and as many interfaces more.
const MAX_OWN: usize = 8;

/// See the module.
pub(super) struct Punch {
    /// Boxed: what is moved about with the swarm shall stay small.
    inner: Box<dcutr::Behaviour>,
    /// This node's own global addresses, at most [`MAX_OWN`].
    own: Vec<Multiaddr>,
    /// Where others see it.
    seen: Sightings,
    /// Who spoke last, and where it is.
    speaker: Option<(PeerId, Option<Group>)>,
}

// === impl Punch ===

impl Punch {
    pub(super) fn new(local: PeerId) -> Self {
        let (inner, seen) = (Box::new(dcutr::Behaviour::new(local)), Sightings::default());
        Self { inner, own: Vec::new(), seen, speaker: None }
    }

    /// From now on these are this node's own global addresses.
    pub(super) fn stand<'a>(&mut self, own: impl Iterator<Item = &'a Multiaddr>) {
        self.own = own.take(MAX_OWN).cloned().collect();
    }

    /// What is said from now on is said by `peer`, who is at `group`.
    pub(super) fn hear(&mut self, peer: PeerId, group: Option<Group>) {
        self.speaker = Some((peer, group));
    }

    /// Where others see this node, those first that most address groups say, each with how many do.
    pub(super) fn seen(&self) -> Vec<(Multiaddr, usize)> {
        self.seen.ranked()
    }

    /// What is told, the best last: libp2p lets the first go.
    fn told(&self) -> Vec<Multiaddr> {
        let others = self.seen.best(TOLD - self.own.len());
        self.own.iter().chain(&others).rev().cloned().collect()
    }

    /// A connection through a relay comes: what it is told is settled now.
    fn settle(&mut self) {
        for addr in &self.told() {
            let seen = NewExternalAddrCandidate { addr };
            self.inner.on_swarm_event(FromSwarm::NewExternalAddrCandidate(seen));
        }
    }
}

impl NetworkBehaviour for Punch {
    type ConnectionHandler = THandler<dcutr::Behaviour>;
    type ToSwarm = dcutr::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        if is_relayed(local) {
            self.settle();
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        if is_relayed(remote) {
            self.settle();
        }
        self.inner.handle_established_outbound_connection(connection, peer, remote, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match (event, self.speaker) {
            (FromSwarm::NewExternalAddrCandidate(seen), Some((peer, group))) if !is_relayed(seen.addr) => {
                self.seen.say(peer, group, seen.addr.clone());
            }
            (FromSwarm::NewExternalAddrCandidate(_), _) => {}
            (event, _) => self.inner.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<dcutr::Event, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Multiaddr {
        format!("/ip4/203.0.113.1/tcp/{port}").parse().unwrap()
    }

    fn say(punch: &mut Punch, addr: &Multiaddr) {
        punch.on_swarm_event(FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }));
    }

    #[test]
    fn what_is_said_counts_for_who_spoke_last_and_own_addresses_go_first() {
        let mut punch = Punch::new(PeerId::random());
        say(&mut punch, &at(1));
        assert!(punch.told().is_empty(), "nobody has spoken");
        let (honest, liar) = (PeerId::random(), PeerId::random());
        punch.hear(honest, Group::of([20, 1, 1, 1].into()));
        say(&mut punch, &at(8468));
        punch.hear(liar, Group::of([20, 2, 1, 1].into()));
        (1..1_000).for_each(|port| say(&mut punch, &at(port)));
        let own: Vec<_> = (9_000..9_100).map(at).collect();
        punch.stand(own.iter());
        let told = punch.told();
        assert!(told.contains(&at(8468)) && told.ends_with(&[at(9_001), at(9_000)]));
        assert_eq!(told.len(), MAX_OWN + 5);
    }
}
