//! How many of the connections that this node takes one host may have.
//!
//! Owns: that limit, on connections and on those whose handshake is under way. Refuses: more from one host, as
//! [`HostAddr`] has it, whatever ids come from there; hosts of one's own network are not counted. Survives a crash:
//! nothing.
//!
//! Without it one host takes all places that there are, with ids that it makes up, or by beginning handshakes and
//! saying nothing more; and nobody else gets in.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::listen::ip_of;
use crate::peer::HostAddr;

/// An eighth of all hosts.
const PART: u32 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Connections, and handshakes under way, that a host may have.
    most: (usize, usize),
    /// Connections, by the host that they come from.
    open: HashMap<ConnectionId, HostAddr>,
    /// Handshakes likewise.
    begun: HashMap<ConnectionId, HostAddr>,
}

/// Why a connection may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its host has its part of the connections that there are here")]
pub(super) struct Crowded;

// === impl Hosts ===

impl Hosts {
    /// Where so many connections in all, and so many handshakes, are taken from others.
    pub(super) fn new(inbound: u32, pending: u32) -> Self {
        let part = |all: u32| usize::try_from((all / PART).max(1)).unwrap_or(usize::MAX);
        Self { most: (part(inbound), part(pending)), open: HashMap::new(), begun: HashMap::new() }
    }

    fn has_room(&self, host: HostAddr) -> bool {
        let open = self.open.values().filter(|other| **other == host).count();
        open < self.most.0
    }
}

fn host(remote: &Multiaddr) -> Option<HostAddr> {
    ip_of(remote).and_then(HostAddr::of)
}

impl NetworkBehaviour for Hosts {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(host) = host(remote) else { return Ok(()) };
        let begun = self.begun.values().filter(|other| **other == host).count();
        if begun >= self.most.1 || !self.has_room(host) {
            return Err(ConnectionDenied::new(Crowded));
        }
        self.begun.insert(connection, host);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.begun.remove(&connection);
        match host(remote) {
            Some(host) if !self.has_room(host) => Err(ConnectionDenied::new(Crowded)),
            _ => Ok(dummy::ConnectionHandler),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(opened) if opened.endpoint.is_listener() => {
                let host = host(opened.endpoint.get_remote_address());
                self.open.extend(host.map(|host| (opened.connection_id, host)));
            }
            FromSwarm::ConnectionClosed(closed) => _ = self.open.remove(&closed.connection_id),
            FromSwarm::ListenFailure(failed) => _ = self.begun.remove(&failed.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::ConnectedPoint;
    use libp2p::swarm::ListenError;
    use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};

    const INBOUND: u32 = 256;
    const PENDING: u32 = 128;

    fn at(text: &str) -> Multiaddr {
        format!("/ip4/{text}/tcp/8468").parse().unwrap()
    }

    /// Whether a connection is taken; it stays open.
    fn comes(hosts: &mut Hosts, number: usize, from: &str) -> bool {
        let (id, local, remote) = (ConnectionId::new_unchecked(number), at("10.0.0.1"), at(from));
        if hosts.handle_pending_inbound_connection(id, &local, &remote).is_err() {
            return false;
        }
        let peer_id = PeerId::random();
        let taken = hosts.handle_established_inbound_connection(id, peer_id, &local, &remote).is_ok();
        let endpoint = ConnectedPoint::Listener { local_addr: local, send_back_addr: remote };
        if taken {
            hosts.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id: id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        }
        taken
    }

    fn goes(hosts: &mut Hosts, number: usize, from: &str) {
        let endpoint = ConnectedPoint::Listener { local_addr: at("10.0.0.1"), send_back_addr: at(from) };
        hosts.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: PeerId::random(),
            connection_id: ConnectionId::new_unchecked(number),
            endpoint: &endpoint,
            cause: None,
            remaining_established: 0,
        }));
    }

    #[test]
    fn one_host_has_its_part_of_the_places_whatever_its_ids() {
        let mut hosts = Hosts::new(INBOUND, PENDING);
        let taken = (0..500).filter(|number| comes(&mut hosts, *number, "9.9.9.9")).count();
        assert_eq!(taken, 32);
        assert!(comes(&mut hosts, 500, "9.9.9.8"));
        assert!((501..900).all(|number| comes(&mut hosts, number, "192.168.1.1")), "a neighbour");
        goes(&mut hosts, 7, "9.9.9.9");
        assert!(comes(&mut hosts, 901, "9.9.9.9") && !comes(&mut hosts, 902, "9.9.9.9"));
        assert!(hosts.begun.is_empty() && hosts.open.len() == 33);
    }

    #[test]
    fn handshakes_that_do_not_end_keep_nobody_out_but_their_host() {
        let mut hosts = Hosts::new(INBOUND, PENDING);
        let local = at("10.0.0.1");
        let begins = |hosts: &mut Hosts, number: usize, from: &str| {
            let id = ConnectionId::new_unchecked(number);
            hosts.handle_pending_inbound_connection(id, &local, &at(from)).is_ok()
        };
        assert_eq!((0..100).filter(|number| begins(&mut hosts, *number, "9.9.9.9")).count(), 16);
        assert!(begins(&mut hosts, 100, "9.9.9.8"));
        hosts.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
            local_addr: &local,
            send_back_addr: &at("9.9.9.9"),
            error: &ListenError::Aborted,
            connection_id: ConnectionId::new_unchecked(0),
            peer_id: None,
        }));
        assert!(begins(&mut hosts, 101, "9.9.9.9") && !begins(&mut hosts, 102, "9.9.9.9"));
    }
}
