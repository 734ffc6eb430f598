//! What this node gives as a relay: libp2p's behaviour, which hears of direct connections only.
//!
//! Owns: that. Refuses: nothing; `shares` has what may be taken. Survives a crash: nothing.
//!
//! On a connection that goes through a relay itself nothing is relayed, and libp2p gives it a handler that cannot be
//! spoken to (`libp2p-relay` 0.22). It counts it among its connections all the same, and when it begins or ends to be a
//! relay it tells all of them: the connection's task would panic.

use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::FromSwarm;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, relay};

/// See the module.
pub(super) struct Relaying(relay::Behaviour);

// === impl Relaying ===

impl Relaying {
    pub(super) fn new(inner: relay::Behaviour) -> Self {
        Self(inner)
    }

    /// Begins to be a relay, or ends.
    pub(super) fn set_status(&mut self, status: relay::Status) {
        self.0.set_status(Some(status));
    }
}

impl NetworkBehaviour for Relaying {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        self.0.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        self.0.handle_established_outbound_connection(connection, peer, remote, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let is_hidden = match &event {
            FromSwarm::ConnectionEstablished(opened) => opened.endpoint.is_relayed(),
            FromSwarm::ConnectionClosed(closed) => closed.endpoint.is_relayed(),
            _ => false,
        };
        if !is_hidden {
            self.0.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.0.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<relay::Event, THandlerInEvent<Self>>> {
        self.0.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use libp2p::core::ConnectedPoint;
    use libp2p::swarm::behaviour::ConnectionEstablished;

    use super::*;
    use crate::dht::shares;

    /// Whom a node tells that it is a relay now, of one that is connected directly and one through a relay.
    #[test]
    fn who_is_connected_through_a_relay_is_told_nothing_of_this_one() {
        let [local, direct, through] = [1, 2, 3].map(|_| PeerId::random());
        let at: Multiaddr = "/ip4/203.0.113.1/tcp/8468".parse().unwrap();
        let circuit: Multiaddr =
            format!("/ip4/203.0.113.2/tcp/8468/p2p/{local}/p2p-circuit").parse().unwrap();
        let mut relaying = Relaying::new(shares::relay(local));
        for (number, (peer, address)) in [(direct, at), (through, circuit)].into_iter().enumerate() {
            let (role_override, port_use) = (Endpoint::Dialer, PortUse::Reuse);
            let endpoint = ConnectedPoint::Dialer { address, role_override, port_use };
            relaying.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: ConnectionId::new_unchecked(number),
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        }
        relaying.set_status(relay::Status::Enable);
        let mut told = Vec::new();
        while let Poll::Ready(event) = relaying.poll(&mut Context::from_waker(Waker::noop())) {
            if let ToSwarm::NotifyHandler { peer_id, .. } = event {
                told.push(peer_id);
            }
        }
        assert_eq!(told, [direct]);
    }
}
