//! How many of the connections that this node has one host may have.
//!
//! Owns: that limit, on those that are taken, on those that are made, and on handshakes of others that are under way.
//! Refuses: more with one host, as [`HostAddr`] has it, whatever ids are there; what comes through a relay
//! counts for the relay's. Hosts of one's own network are not counted. Survives a crash: nothing.
//!
//! Without it one host takes all places that there are, with ids that it makes up, or by beginning handshakes and
//! saying nothing more, and nobody else gets in; or by having others name it under many ids, and this node reaches
//! nobody else.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::streams::is_relayed;
use crate::peer::HostAddr;

/// An eighth of all hosts.
const PART: u32 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Connections that others made, by their host.
    taken: Places,
    /// Connections that this node made.
    made: Places,
    /// Handshakes that others began.
    begun: Places,
}

/// Places of one kind.
#[derive(Debug)]
struct Places {
    /// Who has them.
    of: HashMap<ConnectionId, HostAddr>,
    /// How many a host may have.
    most: usize,
}

/// Why a connection may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its host has its part of the connections that there are here")]
pub(super) struct Crowded;

// === impl Places ===

impl Places {
    fn new(all: u32) -> Self {
        let most = usize::try_from((all / PART).max(1)).unwrap_or(usize::MAX);
        Self { of: HashMap::new(), most }
    }

    /// Whether there is one more for a host; for one that is not counted there is.
    fn admit(&self, host: Option<HostAddr>) -> Result<(), ConnectionDenied> {
        let Some(host) = host else { return Ok(()) };
        let has = self.of.values().filter(|other| **other == host).count();
        if has < self.most { Ok(()) } else { Err(ConnectionDenied::new(Crowded)) }
    }

    fn take(&mut self, connection: ConnectionId, host: Option<HostAddr>) {
        self.of.extend(host.map(|host| (connection, host)));
    }
}

// === impl Hosts ===

impl Hosts {
    /// Where so many connections in all are taken from others, and made, and so many handshakes begun.
    pub(super) fn new(inbound: u32, outbound: u32, pending: u32) -> Self {
        Self { taken: Places::new(inbound), made: Places::new(outbound), begun: Places::new(pending) }
    }
}

/// The host at the other end, or the relay's. Who comes through one shows its id only; where it comes in says by which.
fn host(remote: &Multiaddr, local: Option<&Multiaddr>) -> Option<HostAddr> {
    let through = local.filter(|at| is_relayed(at)).unwrap_or(remote);
    match through.iter().next()? {
        Protocol::Ip4(ip) => HostAddr::of(ip.into()),
        Protocol::Ip6(ip) => HostAddr::of(ip.into()),
        _ => None,
    }
}

impl NetworkBehaviour for Hosts {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let host = host(remote, Some(local));
        self.begun.admit(host)?;
        self.taken.admit(host)?;
        self.begun.take(connection, host);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.begun.of.remove(&connection);
        self.taken.admit(host(remote, Some(local)))?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.made.admit(host(remote, None))?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(opened) => match opened.endpoint {
                ConnectedPoint::Dialer { address, .. } => {
                    self.made.take(opened.connection_id, host(address, None));
                }
                ConnectedPoint::Listener { local_addr, send_back_addr } => {
                    self.taken.take(opened.connection_id, host(send_back_addr, Some(local_addr)));
                }
            },
            FromSwarm::ConnectionClosed(closed) => {
                self.made.of.remove(&closed.connection_id);
                self.taken.of.remove(&closed.connection_id);
            }
            FromSwarm::ListenFailure(failed) => _ = self.begun.of.remove(&failed.connection_id),
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
    use libp2p::swarm::ListenError;
    use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};

    const INBOUND: u32 = 256;
    const OUTBOUND: u32 = 256;
    const PENDING: u32 = 128;

    fn at(text: &str) -> Multiaddr {
        format!("/ip4/{text}/tcp/8468").parse().unwrap()
    }

    /// Whether a connection may be; it stays open.
    fn opens(hosts: &mut Hosts, number: usize, endpoint: &ConnectedPoint) -> bool {
        let (id, peer_id) = (ConnectionId::new_unchecked(number), PeerId::random());
        let may_be = match endpoint {
            ConnectedPoint::Listener { local_addr: local, send_back_addr: remote } => {
                hosts.handle_pending_inbound_connection(id, local, remote).is_ok()
                    && hosts.handle_established_inbound_connection(id, peer_id, local, remote).is_ok()
            }
            ConnectedPoint::Dialer { address, role_override, port_use } => hosts
                .handle_established_outbound_connection(id, peer_id, address, *role_override, *port_use)
                .is_ok(),
        };
        if may_be {
            hosts.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id: id,
                endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        }
        may_be
    }

    fn comes(hosts: &mut Hosts, number: usize, from: &str) -> bool {
        let endpoint = ConnectedPoint::Listener { local_addr: at("10.0.0.1"), send_back_addr: at(from) };
        opens(hosts, number, &endpoint)
    }

    fn is_made(hosts: &mut Hosts, number: usize, address: Multiaddr) -> bool {
        let (role_override, port_use) = (Endpoint::Dialer, PortUse::Reuse);
        opens(hosts, number, &ConnectedPoint::Dialer { address, role_override, port_use })
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
        let mut hosts = Hosts::new(INBOUND, OUTBOUND, PENDING);
        let taken = (0..500).filter(|number| comes(&mut hosts, *number, "9.9.9.9")).count();
        assert_eq!(taken, 32);
        assert!(comes(&mut hosts, 500, "9.9.9.8"));
        assert!((501..900).all(|number| comes(&mut hosts, number, "192.168.1.1")), "a neighbour");
        goes(&mut hosts, 7, "9.9.9.9");
        assert!(comes(&mut hosts, 901, "9.9.9.9") && !comes(&mut hosts, 902, "9.9.9.9"));
        assert!(hosts.begun.of.is_empty() && hosts.taken.of.len() == 33);
    }

    #[test]
    fn one_host_has_its_part_of_the_places_where_this_node_knocks() {
        let mut hosts = Hosts::new(INBOUND, OUTBOUND, PENDING);
        let made = (0..500).filter(|number| is_made(&mut hosts, *number, at("9.9.9.9"))).count();
        assert_eq!(made, 32);
        assert!(is_made(&mut hosts, 500, at("9.9.9.8")) && comes(&mut hosts, 501, "9.9.9.9"));
        assert!((502..900).all(|number| is_made(&mut hosts, number, at("127.0.0.1"))), "a neighbour");
        goes(&mut hosts, 7, "9.9.9.9");
        assert!(is_made(&mut hosts, 901, at("9.9.9.9")) && !is_made(&mut hosts, 902, at("9.9.9.9")));
    }

    #[test]
    fn what_comes_and_goes_through_a_relay_is_the_relays() {
        let mut hosts = Hosts::new(INBOUND, OUTBOUND, PENDING);
        let by = at("9.9.9.9").with(Protocol::P2p(PeerId::random())).with(Protocol::P2pCircuit);
        let circuit = || ConnectedPoint::Listener {
            local_addr: by.clone(),
            send_back_addr: Protocol::P2p(PeerId::random()).into(),
        };
        assert_eq!((0..500).filter(|number| opens(&mut hosts, *number, &circuit())).count(), 32);
        assert!(comes(&mut hosts, 500, "9.9.9.8") && !comes(&mut hosts, 501, "9.9.9.9"));
        let to = |peer| by.clone().with(Protocol::P2p(peer));
        let made = (600..900).filter(|number| is_made(&mut hosts, *number, to(PeerId::random())));
        assert_eq!(made.count(), 32);
    }

    #[test]
    fn handshakes_that_do_not_end_keep_nobody_out_but_their_host() {
        let mut hosts = Hosts::new(INBOUND, OUTBOUND, PENDING);
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
