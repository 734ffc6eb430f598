//! Kademlia as strangers may use it: each peer at its rate, and of its answers what [`answers`] lets
//! through.
//!
//! Owns: what of Kademlia's requests waits, since `libp2p-kad` answers whatever comes, which of its dials that had no
//! turn are made again, and how long its look-ups wait for one. Refuses: plain ADD_PROVIDER over the rate or in
//! another's name. Survives a crash: nothing.
//!
//! It stands between the connections and Kademlia, and hands on what they bring, later where it is too much. A
//! connection carries 32 questions at once, which bounds what waits here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, kad};

use super::answers::{self, Known};
use super::meter::{Act, Meter};
use super::pace::{is_unhurried, without_untried};
use super::reach::Reach;
use super::records::Records;
use super::{Key, find};

/// How long one that had no turn to be dialled is left…
const REST: Duration = Duration::from_secs(2);
/// …and how often: Kademlia waits for ten seconds, and goes on beside it.
const AGAIN: u8 = 3;
/// How long look-ups wait for one that is being dialled, from when its dial has had its turn: a handshake takes one to
/// three ways there and back, and a second more where a packet is lost.
const SILENCE: Duration = Duration::from_secs(2);
/// How often it is looked for such…
const LOOK: Duration = Duration::from_millis(500);
/// …and how long look-ups do not wait for those anew: a query's time.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Who comes back after so long was not slow: it may have been this node that was cut off, also from the others.
const BACK: Duration = Duration::from_secs(10);

/// What is wrapped.
type Inner = kad::Behaviour<Records>;
/// What a connection brings.
type Brought = THandlerOutEvent<Inner>;
/// What Kademlia wants done.
type Wanted = ToSwarm<<Inner as NetworkBehaviour>::ToSwarm, THandlerInEvent<Inner>>;

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
    /// When somebody answered a question last.
    pub(super) heard: Option<Instant>,
    /// Whom Kademlia has dialled, and waits for.
    dialled: HashMap<PeerId, Awaited>,
    /// When those of them that had no turn are dialled again.
    put_off: VecDeque<(Instant, PeerId)>,
    /// When it is looked next for such as are silent.
    look: Instant,
    /// Those, and since when. The pace of dials bounds how many there are.
    silent: HashMap<PeerId, Instant>,
}

/// One whom Kademlia has dialled.
#[derive(Debug)]
struct Awaited {
    /// When it was to be dialled.
    since: Instant,
    /// How often it has had no turn.
    put_off: u8,
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
        Self {
            inner,
            meter: Meter::new(),
            waiting: VecDeque::new(),
            alarm: None,
            reach,
            connected: HashSet::new(),
            heard: None,
            dialled: HashMap::new(),
            put_off: VecDeque::new(),
            look: Instant::now(),
            silent: HashMap::new(),
        }
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
            _ => return,
        }
        self.heard = Some(Instant::now());
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
                if let Brought::GetProvidersReq { key, .. } = brought
                    && let Ok(key) = Key::try_from(key.as_ref())
                {
                    let told = find::weight(&self.inner.store_mut().all_holders(&key));
                    self.meter.told(peer, Act::Question, told, now);
                }
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

    /// Whether one whom Kademlia had dialled, and who had no turn, is dialled again: to a look-up that one would have
    /// failed, and what it finds without such is not what there is.
    fn puts_off(&mut self, failed: &DialFailure<'_>, now: Instant) -> bool {
        let Some(peer) = failed.peer_id else { return false };
        match failed.error {
            // It is connected, or another dial is under way.
            DialError::DialPeerConditionFalse(_) => return false,
            DialError::Transport(_) if is_unhurried(failed.error) => {}
            _ => {
                self.dialled.remove(&peer);
                return false;
            }
        }
        let Some(awaited) = self.dialled.get_mut(&peer) else { return false };
        awaited.put_off += 1;
        if awaited.put_off > AGAIN {
            self.dialled.remove(&peer);
            return false;
        }
        self.put_off.push_back((now + REST, peer));
        true
    }

    /// The next who is to be dialled again. The swarm is polled at each tick of the event loop at the latest, so that
    /// no timer is needed.
    fn dial_again(&mut self, now: Instant) -> Option<DialOpts> {
        let (_, peer) = self.put_off.pop_front_if(|(due, _)| *due <= now)?;
        Some(DialOpts::peer_id(peer).build())
    }

    /// Has look-ups go on without those whose dial has had its turn and who have been silent since: a few answers that
    /// name nobody but nodes that are not there would keep all places until the time is over. Their dials go on, and
    /// whom they name as holders when they answer after all is heard.
    fn give_up_silent(&mut self, now: Instant) {
        self.silent.retain(|_, since| now < *since + SILENT_FOR);
        let reach = &self.reach;
        let is_silent = |peer: &PeerId, awaited: &mut Awaited| {
            let called = reach.called(peer).filter(|called| *called >= awaited.since);
            called.is_some_and(|called| now >= called + SILENCE)
        };
        let silent: Vec<_> = self.dialled.extract_if(is_silent).map(|(peer, _)| peer).collect();
        for peer in silent {
            self.silent.insert(peer, now);
            self.fail(peer);
        }
    }

    /// A peer is connected.
    fn met(&mut self, peer: &PeerId, now: Instant) {
        if self.silent.remove(peer).is_some_and(|since| now >= since + BACK) {
            self.silent.clear();
        }
    }

    /// Look-ups count a peer as one that does not answer.
    fn fail(&mut self, peer: PeerId) {
        // Which dial it is Kademlia does not ask; of no address this says anything.
        let (error, connection_id) = (DialError::Aborted, ConnectionId::new_unchecked(0));
        let failed = DialFailure { peer_id: Some(peer), error: &error, connection_id };
        self.inner.on_swarm_event(FromSwarm::DialFailure(failed));
    }

    /// What Kademlia does next. Whom it would dial who has just been silent has failed.
    fn proceed(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Wanted> {
        loop {
            let event = self.inner.poll(context);
            let Poll::Ready(ToSwarm::Dial { opts }) = &event else { return event };
            let Some(peer) = opts.get_peer_id() else { return event };
            if self.silent.get(&peer).is_none_or(|since| now >= *since + SILENT_FOR) {
                self.dialled.insert(peer, Awaited { since: now, put_off: 0 });
                return event;
            }
            self.fail(peer);
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
            self.dialled.remove(&opened.peer_id);
            self.met(&opened.peer_id, Instant::now());
        }
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.waiting.retain(|(_, _, connection, _)| *connection != closed.connection_id);
            if closed.remaining_established == 0 {
                self.connected.remove(&closed.peer_id);
            }
        }
        if let FromSwarm::DialFailure(failed) = &event {
            if self.puts_off(failed, Instant::now()) {
                return;
            }
            // What had no turn says nothing of the address; Kademlia would forget it.
            if let Some(error) = without_untried(failed.error) {
                let failed = DialFailure { error: &error, ..*failed };
                return self.inner.on_swarm_event(FromSwarm::DialFailure(failed));
            }
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
        let now = Instant::now();
        if let Some(opts) = self.dial_again(now) {
            return Poll::Ready(ToSwarm::Dial { opts });
        }
        // The event loop's tick is timer enough for this, too.
        if now >= self.look {
            self.look = now + LOOK;
            self.give_up_silent(now);
        }
        self.proceed(context, now)
    }
}

#[cfg(test)]
mod tests;
