//! Who is let in: nobody who is banned, in either direction.
//!
//! Owns: the question of [`Conduct`] when a connection is about to be, or is made. Refuses: banned peers, and those of
//! banned blocks, before anything is said to them. Survives a crash: nothing; bans are kept by [`Conduct`].

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::SystemTime;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::listen::ip_of;
use crate::peer::Conduct;

/// See the module.
pub(super) struct Guard(pub(super) Conduct);

/// Why a connection may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is banned here for having misbehaved, or too many from its address are")]
pub(super) struct Banned;

impl Guard {
    fn judge(&self, peer: &PeerId, at: Option<&Multiaddr>) -> Result<(), ConnectionDenied> {
        let is_admitted = self.0.admits(peer, at.and_then(ip_of), SystemTime::now());
        if is_admitted { Ok(()) } else { Err(ConnectionDenied::new(Banned)) }
    }
}

impl NetworkBehaviour for Guard {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.judge(&peer, Some(remote)).map(|()| dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        peer.map_or(Ok(()), |peer| self.judge(&peer, None)).map(|()| Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.judge(&peer, Some(address)).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
