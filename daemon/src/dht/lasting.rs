//! How long a connection lasts that nobody uses.
//!
//! Owns: that wait, and who waits for a place meanwhile ([`Held`]). Refuses: batches that have waited for a place too
//! long. Survives a crash: nothing.
//!
//! Who asked one thing asks another soon, so a connection is kept for a while from when it was made. But in a large
//! network each look-up asks thirty nodes, and a round of announcing speaks with all: with a minute each, connections
//! that nobody uses would take all places, and what is asked next would be refused. So where half of the places of its
//! direction are taken a connection ends when nobody has used it for [`BRIEF`]. And batches, which have time, leave a
//! quarter of the places to look-ups, which have not.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    SubstreamProtocol, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::batch::{Answer, Request};
use super::command::Node;
use super::event_loop::EventLoop;

/// How long a connection lasts that nobody uses, where there are many.
const BRIEF: Duration = Duration::from_secs(5);
/// How long a batch waits for a place: until idle connections have ended, and then some.
const PATIENCE: Duration = Duration::from_secs(30);
/// Batches that wait, of 130 KiB each: more than announcing sends at once.
const MAX_HELD: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct Lasting {
    /// How long a connection is kept from when it is made.
    keep: Duration,
    /// Those that this node made…
    made: Side,
    /// …and those of others.
    taken: Side,
}

/// Connections of one direction.
#[derive(Debug)]
struct Side {
    /// How many there are.
    open: u32,
    /// How many are half of what there may be.
    half: u32,
    /// Whether there are more. Each connection looks at it.
    is_crowded: Arc<AtomicBool>,
}

/// What keeps one connection. It looks when it is used, and for each ping.
#[derive(Debug)]
pub(super) struct Handler {
    until: Instant,
    is_crowded: Arc<AtomicBool>,
}

/// A batch that waits for a place.
#[derive(Debug)]
pub(super) struct Held {
    to: Node,
    batch: Vec<u8>,
    done: oneshot::Sender<Result<Answer, String>>,
    since: Instant,
}

/// How long the swarm lets a connection be idle, where one shall last for `idle` from when it is made.
pub(super) fn brief(idle: Duration) -> Duration {
    BRIEF.min(idle)
}

// === impl Side ===

impl Side {
    fn new(all: u32) -> Self {
        Self { open: 0, half: all / 2, is_crowded: Arc::default() }
    }

    fn set(&mut self, open: u32) {
        self.open = open;
        self.is_crowded.store(open > self.half, Ordering::Relaxed);
    }
}

// === impl Lasting ===

impl Lasting {
    /// Where so many connections may be taken from others, and made.
    pub(super) fn new(idle: Duration, inbound: u32, outbound: u32) -> Self {
        let keep = idle.saturating_sub(brief(idle));
        Self { keep, made: Side::new(outbound), taken: Side::new(inbound) }
    }

    fn side(&mut self, is_made: bool) -> &mut Side {
        if is_made { &mut self.made } else { &mut self.taken }
    }

    fn handler(&mut self, is_made: bool) -> Handler {
        let until = Instant::now() + self.keep;
        Handler { until, is_crowded: Arc::clone(&self.side(is_made).is_crowded) }
    }
}

impl NetworkBehaviour for Lasting {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(false))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(true))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(opened) => {
                let side = self.side(opened.endpoint.is_dialer());
                side.set(side.open.saturating_add(1));
            }
            FromSwarm::ConnectionClosed(closed) => {
                let side = self.side(closed.endpoint.is_dialer());
                side.set(side.open.saturating_sub(1));
            }
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

// === impl Handler ===

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Infallible;

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        !self.is_crowded.load(Ordering::Relaxed) && Instant::now() < self.until
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, Infallible, Infallible>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade, (), Infallible>) {}
}

// === impl EventLoop ===

impl EventLoop {
    /// Sends a batch, at once or when there is a place for the connection.
    pub(super) fn send_batch(
        &mut self,
        to: Node,
        batch: Vec<u8>,
        done: oneshot::Sender<Result<Answer, String>>,
    ) {
        if self.has_place(&to.peer) {
            self.send(to, batch, done);
        } else if self.held.len() < MAX_HELD {
            self.held.push_back(Held { to, batch, done, since: Instant::now() });
        } else {
            let _ = done.send(Err("too many wait for a connection".to_owned()));
        }
    }

    /// Sends what has waited for a place and has one now.
    pub(super) fn send_held(&mut self, now: Instant) {
        for _ in 0..self.held.len() {
            let Some(held) = self.held.pop_front() else { return };
            if self.has_place(&held.to.peer) {
                self.send(held.to, held.batch, held.done);
            } else if now.saturating_duration_since(held.since) >= PATIENCE {
                let _ = held.done.send(Err("no other connection may be made yet".to_owned()));
            } else {
                self.held.push_back(held);
            }
        }
    }

    fn send(&mut self, to: Node, batch: Vec<u8>, done: oneshot::Sender<Result<Answer, String>>) {
        let announce = &mut self.swarm.behaviour_mut().announce;
        let request =
            announce.send_request_with_addresses(&to.peer, Ok(Request::Outgoing(batch)), to.addresses);
        self.batches.insert(request, done);
    }

    /// Whether a batch may have a connection with this peer: one that there is, or a new one.
    fn has_place(&self, peer: &PeerId) -> bool {
        let network = self.swarm.network_info();
        let counters = network.connection_counters();
        let made = counters.num_established_outgoing() + counters.num_pending_outgoing();
        self.swarm.is_connected(peer) || made < (self.options.limits.outbound / 4 * 3).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_many_none_is_kept() {
        let mut lasting = Lasting::new(Duration::from_mins(1), 8, 4);
        let (made, taken) = (lasting.handler(true), lasting.handler(false));
        let kept = || (made.connection_keep_alive(), taken.connection_keep_alive());
        for (open, is_kept) in [(0, true), (2, true), (3, false), (2, true)] {
            lasting.made.set(open);
            assert_eq!(kept(), (is_kept, true), "{open}");
        }
        lasting.taken.set(5);
        assert_eq!(kept(), (true, false));
        // Its time has come, or there was none.
        let past = Lasting::new(BRIEF, 8, 4).handler(true);
        assert!(!past.connection_keep_alive() && brief(Duration::from_secs(1)) == Duration::from_secs(1));
    }
}
