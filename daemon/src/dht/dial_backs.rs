//! Dialling others where they say they are, so that they learn whether they are reached: the answering half of
//! AutoNAT v2.
//!
//! Owns: for whom and how often that is done. Refuses: it altogether unless this node is itself reached, more dials
//! than its limits, and more time than a dial that is answered takes. What may be dialled is decided by the
//! transport, as for all dials; whoever asks for a dial elsewhere than where it is seen has to send 30 kB first.
//! Survives a crash: nothing.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use either::Either;
use libp2p::PeerId;
use libp2p::autonat::v2::server;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{DialFailure, FromSwarm};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};

use super::listen::ip_of;
use super::streams::is_relayed;
use crate::peer::HostAddr;

/// Dials under way.
const AT_ONCE: usize = 8;
/// Dials a minute, for all, for one peer, who has up to eight addresses to be tried, and for all peers of one host: who
/// makes up ids keeps nobody from learning what it asks. Those of one's own network are not counted by host.
const A_MINUTE: usize = 60;
const OF_PEER: usize = 10;
const OF_HOST: usize = 20;
/// Of the dials for all, and of those under way, one in so many is for hosts that had none in this minute (on one's own
/// network, for peers): else three hosts have them all.
const KEPT: usize = 3;
const MINUTE: Duration = Duration::from_secs(60);
/// A dial that has not been answered by then has failed: who asked waits for 10 s.
const ANSWERED: Duration = Duration::from_secs(6);

/// Dials others at their wish. See the module.
pub(super) struct DialBacks {
    inner: server::Behaviour,
    /// Whether it is done for those that connect from now on.
    is_open: bool,
    /// Since when each dial is under way, and whom it is for.
    under_way: HashMap<ConnectionId, (PeerId, Instant)>,
    /// The dials of the last minute.
    lately: VecDeque<(Instant, PeerId, Option<HostAddr>)>,
    /// Where connections come from.
    hosts: HashMap<ConnectionId, HostAddr>,
}

// === impl DialBacks ===

impl DialBacks {
    pub(super) fn new() -> Self {
        let (under_way, lately, hosts) = (HashMap::new(), VecDeque::new(), HashMap::new());
        Self { inner: server::Behaviour::default(), is_open: false, under_way, lately, hosts }
    }

    /// Begins or ceases to do it, for those that connect from now on.
    pub(super) fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// Whether `peer`, which is at `host`, may have one more dial now.
    fn admits(&mut self, peer: PeerId, host: Option<HostAddr>, now: Instant) -> bool {
        while self.lately.front().is_some_and(|(at, ..)| *at + MINUTE <= now) {
            self.lately.pop_front();
        }
        let of_peer = self.lately.iter().filter(|(_, other, _)| *other == peer).count();
        let of_host = self.lately.iter().filter(|(.., other)| host.is_some() && *other == host).count();
        let had = if host.is_some() { of_host } else { of_peer };
        let open = |most: usize| if had == 0 { most } else { most - most / KEPT };
        let is_within = of_peer < OF_PEER && of_host < OF_HOST;
        let admits = is_within && self.lately.len() < open(A_MINUTE) && self.under_way.len() < open(AT_ONCE);
        if admits {
            self.lately.push_back((now, peer, host));
        }
        admits
    }

    /// Tells those whose dials are not answered.
    fn give_up(&mut self, now: Instant) {
        let late = self.under_way.extract_if(|_, (_, since)| *since + ANSWERED <= now);
        for (connection_id, (peer, _)) in late {
            let failure = DialFailure { peer_id: Some(peer), error: &DialError::Aborted, connection_id };
            self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
        }
    }
}

impl NetworkBehaviour for DialBacks {
    type ConnectionHandler = Either<THandler<server::Behaviour>, dummy::ConnectionHandler>;
    type ToSwarm = server::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        if !self.is_open || is_relayed(local) {
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
        self.under_way.remove(&connection);
        let inner = &mut self.inner;
        inner.handle_established_outbound_connection(connection, peer, remote, role, port).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::DialFailure(failure) => _ = self.under_way.remove(&failure.connection_id),
            FromSwarm::ConnectionEstablished(opened) => {
                let host = ip_of(opened.endpoint.get_remote_address()).and_then(HostAddr::of);
                self.hosts.extend(host.map(|host| (opened.connection_id, host)));
            }
            FromSwarm::ConnectionClosed(closed) => _ = self.hosts.remove(&closed.connection_id),
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
        let event = match event {
            Either::Left(event) => event,
            Either::Right(never) => match never {},
        };
        // A wish that is dropped is answered with an error, and said again to somebody else.
        let is_wish = matches!(event, Either::Right(Either::Left(_)));
        let host = self.hosts.get(&connection).copied();
        if is_wish && !self.admits(peer, host, Instant::now()) {
            tracing::debug!(%peer, "not dialled back: too many are");
            return;
        }
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    /// The swarm is polled at each tick of the event loop at the latest, so that no timer is needed.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<server::Event, THandlerInEvent<Self>>> {
        let now = Instant::now();
        self.give_up(now);
        let event = self.inner.poll(context);
        if let Poll::Ready(ToSwarm::Dial { opts }) = &event
            && let Some(peer) = opts.get_peer_id()
        {
            self.under_way.insert(opts.connection_id(), (peer, now));
        }
        event.map(|event| event.map_in(Either::Left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_dials_than_its_share() {
        let (mut dials, now) = (DialBacks::new(), Instant::now());
        let greedy = PeerId::random();
        let given = (0..100).filter(|_| dials.admits(greedy, None, now)).count();
        assert_eq!(given, OF_PEER);
        let host = HostAddr::of("9.9.9.9".parse().unwrap());
        let given = (0..100).filter(|_| dials.admits(PeerId::random(), host, now)).count();
        assert_eq!(given, OF_HOST);
        let given = (0..100).filter(|_| dials.admits(PeerId::random(), None, now)).count();
        assert_eq!(given, A_MINUTE - OF_PEER - OF_HOST);
        let other = PeerId::random();
        assert!(!dials.admits(other, None, now) && dials.admits(greedy, None, now + MINUTE));
        let connection = ConnectionId::new_unchecked;
        dials.under_way = (0..AT_ONCE).map(|number| (connection(number), (greedy, now))).collect();
        assert!(!dials.admits(other, None, now + MINUTE));
        dials.give_up(now + ANSWERED);
        assert!(dials.under_way.is_empty() && dials.admits(other, None, now + MINUTE));
    }

    #[test]
    fn three_hosts_leave_dials_to_others() {
        let (mut dials, now) = (DialBacks::new(), Instant::now());
        let host = |number: u8| HostAddr::of([9, 9, 9, number].into());
        for number in 1..4 {
            (0..OF_HOST).for_each(|_| _ = dials.admits(PeerId::random(), host(number), now));
        }
        let is_under_way = |number| (ConnectionId::new_unchecked(number), (PeerId::random(), now));
        dials.under_way = (0..AT_ONCE - AT_ONCE / KEPT).map(is_under_way).collect();
        assert!(dials.admits(PeerId::random(), host(4), now), "it had none");
        assert!(
            !dials.admits(PeerId::random(), host(4), now) && !dials.admits(PeerId::random(), host(1), now)
        );
        let others = (5..=255).filter(|number| dials.admits(PeerId::random(), host(*number), now)).count();
        assert_eq!(dials.lately.len(), A_MINUTE, "{others} more");
    }
}
