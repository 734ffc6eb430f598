//! Kademlia as strangers may use it: each peer at its rate, and of its answers what [`answers`] lets
//! through.
//!
//! Owns: what of Kademlia's requests waits, since `libp2p-kad` answers whatever comes. Refuses: plain ADD_PROVIDER
//! over the rate or in another's name. Survives a crash: nothing.
//!
//! It stands between the connections and Kademlia, and hands on what they bring, later where it is too much. A
//! connection carries 32 questions at once, which bounds what waits here.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, kad};

use super::answers::{self, Known};
use super::meter::{Act, Meter};
use super::pace::is_unhurried;
use super::reach::Reach;
use super::records::Records;

/// What is wrapped.
type Inner = kad::Behaviour<Records>;
/// What a connection brings.
type Brought = THandlerOutEvent<Inner>;

/// See the module.
pub(super) struct Metered {
    inner: Inner,
    /// What each peer may do, of Kademlia and of our own protocols.
    pub(super) meter: Meter,
    /// What waits, and until when: those of one peer in order.
    waiting: VecDeque<(Instant, PeerId, ConnectionId, Brought)>,
    /// Ends when the first of those is due.
    alarm: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Which addresses may be dialled.
    reach: Arc<Reach>,
    /// Who is connected.
    connected: HashSet<PeerId>,
}

/// What Kademlia knows, for judging an answer.
struct Knowing<'a> {
    kad: &'a mut Inner,
    reach: &'a Reach,
    connected: &'a HashSet<PeerId>,
}

impl Known for Knowing<'_> {
    fn addresses(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        addresses_of(self.kad, *peer)
    }

    fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains(peer)
    }

    fn allows(&self, address: &Multiaddr) -> bool {
        self.reach.allows(address)
    }
}

/// Where Kademlia knows a node to be: from its table, and from what running queries have been told.
pub(super) fn addresses_of(kad: &mut Inner, peer: PeerId) -> Vec<Multiaddr> {
    // Looks addresses up, and nothing else.
    let none = ConnectionId::new_unchecked(0);
    kad.handle_pending_outbound_connection(none, Some(peer), &[], Endpoint::Dialer).unwrap_or_default()
}

// === impl Metered ===

impl Metered {
    pub(super) fn new(inner: Inner, reach: Arc<Reach>) -> Self {
        let (waiting, connected) = (VecDeque::new(), HashSet::new());
        Self { inner, meter: Meter::new(), waiting, alarm: None, reach, connected }
    }

    /// Makes of an answer what may be believed.
    fn judge(&mut self, brought: &mut Brought) {
        let known = &mut Knowing { kad: &mut self.inner, reach: &self.reach, connected: &self.connected };
        match brought {
            Brought::FindNodeRes { closer_peers, .. } => answers::judge_nearer(closer_peers, known),
            Brought::GetProvidersRes { closer_peers, provider_peers, .. } => {
                answers::judge_nearer(closer_peers, known);
                answers::judge_holders(provider_peers, known);
            }
            _ => {}
        }
    }

    /// When a request may be handed on; now: `now`. None: never.
    fn due(&mut self, peer: PeerId, brought: &Brought, now: Instant) -> Option<Instant> {
        match brought {
            Brought::FindNodeReq { .. }
            | Brought::GetProvidersReq { .. }
            | Brought::GetRecord { .. }
            | Brought::PutRecord { .. } => {
                // One that waited too long is answered last: its stream would be lost otherwise.
                let wait = self.meter.wait(peer, Act::Question, now);
                Some(now + wait.unwrap_or(super::meter::LONGEST))
            }
            Brought::AddProvider { provider, .. } => {
                if provider.node_id != peer {
                    self.meter.drop(peer, now);
                    return None;
                }
                self.meter.admits(peer, Act::Provide, now).then_some(now)
            }
            _ => Some(now),
        }
    }

    /// Hands on what is due.
    fn release(&mut self, now: Instant) {
        let due = self.waiting.partition_point(|(at, ..)| *at <= now);
        for (_, peer, connection, brought) in self.waiting.drain(..due) {
            self.inner.on_connection_handler_event(peer, connection, brought);
        }
    }
}

impl Deref for Metered {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Metered {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl NetworkBehaviour for Metered {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = <Inner as NetworkBehaviour>::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(opened) = &event {
            self.connected.insert(opened.peer_id);
        }
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.waiting.retain(|(_, _, connection, _)| *connection != closed.connection_id);
            if closed.remaining_established == 0 {
                self.connected.remove(&closed.peer_id);
            }
        }
        // What was not dialled for want of time says nothing of the address; Kademlia would forget it.
        if let FromSwarm::DialFailure(failed) = &event
            && is_unhurried(failed.error)
        {
            let failed = DialFailure { error: &DialError::Aborted, ..*failed };
            return self.inner.on_swarm_event(FromSwarm::DialFailure(failed));
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, mut brought: Brought) {
        self.judge(&mut brought);
        let now = Instant::now();
        let Some(due) = self.due(peer, &brought, now) else { return };
        if due <= now {
            self.inner.on_connection_handler_event(peer, connection, brought);
            return;
        }
        let place = self.waiting.partition_point(|(at, ..)| *at <= due);
        self.waiting.insert(place, (due, peer, connection, brought));
        // Polling sets it anew.
        self.alarm = None;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Some((due, ..)) = self.waiting.front() {
            let due = tokio::time::Instant::from_std(*due);
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if alarm.as_mut().poll(context).is_pending() {
                break;
            }
            self.alarm = None;
            self.release(Instant::now());
        }
        self.inner.poll(context)
    }
}
