//! How long a connection lasts that nobody uses.
//!
//! Owns: that wait. Refuses: nothing. Survives a crash: nothing.
//!
//! Who asked one thing asks another soon, so a connection is kept for a while from when it was made. But in a large
//! network each look-up asks thirty nodes, and a round of announcing speaks with all: with a minute each, connections
//! that nobody uses would take all places, and what is asked next would be refused. So where half of the places of its
//! direction are taken a connection ends when nobody has used it for [`BRIEF`].

use std::collections::{HashMap, VecDeque};
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
    NotifyHandler, SubstreamProtocol, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

/// How long a connection lasts that nobody uses, where there are many.
const BRIEF: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Lasting {
    /// How long a connection is kept from when it is made.
    keep: Duration,
    /// How often those look that nobody has used since, where there are many, and when next.
    every: Duration,
    next: Instant,
    /// Those that this node made…
    made: Side,
    /// …and those of others.
    taken: Side,
    /// Connections that are to look whether anybody uses them.
    woken: VecDeque<(PeerId, ConnectionId)>,
}

/// Connections of one direction.
#[derive(Debug)]
struct Side {
    /// Those that there are, and with whom.
    open: HashMap<ConnectionId, PeerId>,
    /// How many are half of what there may be.
    half: usize,
    /// Whether there are more. Each connection looks at it.
    is_crowded: Arc<AtomicBool>,
    /// Whether that has come to be so since the connections were woken: those that were idle before have not seen it.
    is_news: bool,
}

/// What keeps one connection. It looks when it is used, for each ping, and when it is woken.
#[derive(Debug)]
pub(super) struct Handler {
    until: Instant,
    is_crowded: Arc<AtomicBool>,
}

/// How long the swarm lets a connection be idle, where one shall last for `idle` from when it is made.
pub(super) fn brief(idle: Duration) -> Duration {
    BRIEF.min(idle)
}

// === impl Side ===

impl Side {
    fn new(all: u32) -> Self {
        let half = usize::try_from(all / 2).unwrap_or(usize::MAX);
        Self { open: HashMap::new(), half, is_crowded: Arc::default(), is_news: false }
    }

    fn opened(&mut self, connection: ConnectionId, peer: PeerId) {
        self.open.insert(connection, peer);
        let is_crowded = self.open.len() > self.half;
        self.is_news |= is_crowded && !self.is_crowded.swap(is_crowded, Ordering::Relaxed);
    }

    fn closed(&mut self, connection: ConnectionId) {
        self.open.remove(&connection);
        self.is_crowded.store(self.open.len() > self.half, Ordering::Relaxed);
    }
}

// === impl Lasting ===

impl Lasting {
    /// Where so many connections may be taken from others, and made.
    pub(super) fn new(idle: Duration, inbound: u32, outbound: u32) -> Self {
        let keep = idle.saturating_sub(brief(idle));
        let (made, taken) = (Side::new(outbound), Side::new(inbound));
        Self { keep, every: brief(idle), next: Instant::now(), made, taken, woken: VecDeque::new() }
    }

    /// Has the connections look whether anybody uses them, where they have become many, and now and then as long as
    /// they are: one that falls idle need not notice. To be called often.
    pub(super) fn wake(&mut self, now: Instant) {
        let is_turn = now >= self.next;
        if is_turn {
            self.next = now + self.every;
        }
        for side in [&mut self.made, &mut self.taken] {
            let is_news = std::mem::take(&mut side.is_news);
            if side.is_crowded.load(Ordering::Relaxed) && (is_news || is_turn) {
                self.woken.extend(side.open.iter().map(|(connection, peer)| (*peer, *connection)));
            }
        }
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
                self.side(opened.endpoint.is_dialer()).opened(opened.connection_id, opened.peer_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.side(closed.endpoint.is_dialer()).closed(closed.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The event loop polls the swarm after each tick, so that nobody needs to be woken.
        self.woken.pop_front().map_or(Poll::Pending, |(peer_id, connection)| {
            let handler = NotifyHandler::One(connection);
            Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: () })
        })
    }
}

// === impl Handler ===

impl ConnectionHandler for Handler {
    type FromBehaviour = ();
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

    fn on_behaviour_event(&mut self, (): ()) {
        // It is polled after this.
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade, (), Infallible>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_many_none_is_kept() {
        let mut lasting = Lasting::new(Duration::from_mins(1), 8, 4);
        let (made, taken) = (lasting.handler(true), lasting.handler(false));
        let kept = || (made.connection_keep_alive(), taken.connection_keep_alive());
        let (peer, id) = (PeerId::random(), ConnectionId::new_unchecked);
        for (number, is_kept) in [(1, true), (2, true), (3, false), (4, false)] {
            lasting.made.opened(id(number), peer);
            assert_eq!(kept(), (is_kept, true), "{number}");
        }
        (11..=15).for_each(|number| lasting.taken.opened(id(number), peer));
        assert_eq!(kept(), (false, false));
        let begun = lasting.next;
        let woken = |lasting: &mut Lasting, after| {
            lasting.wake(begun + after);
            lasting.woken.drain(..).count()
        };
        assert_eq!(woken(&mut lasting, Duration::ZERO), 9);
        (1..=2).for_each(|number| lasting.made.closed(id(number)));
        assert_eq!(kept(), (true, false));
        lasting.taken.opened(id(16), peer);
        assert_eq!(woken(&mut lasting, BRIEF / 2), 0, "once is enough");
        lasting.made.opened(id(5), peer);
        assert_eq!((kept(), woken(&mut lasting, BRIEF / 2)), ((false, false), 3));
        assert_eq!(woken(&mut lasting, BRIEF), 9, "some may have fallen idle since");
        assert_eq!(woken(&mut lasting, BRIEF * 3 / 2), 0);
        // Its time has come, or there was none.
        let past = Lasting::new(BRIEF, 8, 4).handler(true);
        assert!(!past.connection_keep_alive() && brief(Duration::from_secs(1)) == Duration::from_secs(1));
    }
}
