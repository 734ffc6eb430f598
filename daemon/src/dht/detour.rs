//! Other ways to a peer than its chunk ports: a stream on a connection of the DHT plane.
//!
//! Owns: how such a connection is had. One that is there is used; else the peer's addresses are dialled; where these
//! lead through a relay, its other end begins to dial us while it asks us to dial it, which opens the way through the
//! routers of both (DCUtR), and whoever waits here waits for that. Refuses: to carry anything through the relay itself,
//! and more peers than its limit. Survives a crash: nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, TransportError};

use super::command::Command;
use super::error::Error;
use super::event_loop::EventLoop;
use super::pace::is_unhurried;
use super::streams::{Opening, is_relayed};
use super::{Dht, unreached};
use crate::peer::{Conn, Detour, Unconnected};

/// For all of it: a dial of 10 s to addresses that do not answer, and one attempt after the first at dialling together.
const WITHIN: Duration = Duration::from_secs(25);
/// How long one that was not reached may take to say that it is of another network.
const REFUSED: Duration = Duration::from_secs(5);
/// Peers to which ways are sought at once.
const MAX_SOUGHT: usize = 256;
/// Addresses of one peer that are dialled.
const MAX_ADDRESSES: usize = 16;
/// How long two may take to dial each other before the relay is asked anew.
const PUNCHING: Duration = Duration::from_secs(15);
/// How long the other end may take to dial this one, where this one dials none of the places that it is told, and no
/// relay has connected the two: where one has, they tell each other more places, and dial them.
const COMES: Duration = Duration::from_secs(8);
/// What is said where both have dialled in vain.
const SHUT: &str = "neither end's router or firewall lets the other in, and relays carry no data";

/// Whoever waits for a way to a peer.
#[derive(Debug, Default)]
pub(super) struct Detours {
    /// By peer.
    sought: HashMap<PeerId, Sought>,
    /// Since when there is a connection through a relay, by peer, over which both agree on when to dial.
    relayed: HashMap<PeerId, Instant>,
}

/// A peer to which a way is sought.
#[derive(Debug, Default)]
struct Sought {
    /// Who waits for it.
    callers: Vec<Opening>,
    /// Where it is said to be.
    known: Vec<Multiaddr>,
    /// Its dial, which is under way or has led to a relay. None: it has had no turn yet.
    dial: Option<ConnectionId>,
    /// When the first of them asked.
    since: Option<Instant>,
}

// === impl Detours ===

impl Detours {
    /// A dial of a peer failed. Those who have waited for it in vain: what becomes of others is no answer, and one that
    /// had no turn is made again.
    fn dial_failed(&mut self, peer: &PeerId, dial: ConnectionId, is_unhurried: bool) -> Vec<Opening> {
        let Some(sought) = self.sought.get_mut(peer).filter(|sought| sought.dial == Some(dial)) else {
            return Vec::new();
        };
        if is_unhurried {
            sought.dial = None;
            return Vec::new();
        }
        self.give_up(peer)
    }

    /// Those peers that have had time to come by their own dial.
    fn waited(&self, now: Instant) -> Vec<PeerId> {
        let is_over = |sought: &Sought| sought.since.is_some_and(|since| now >= since + COMES);
        let waited = self.sought.iter().filter(|(peer, sought)| is_over(sought) && !self.punches(peer, now));
        waited.map(|(peer, _)| *peer).collect()
    }

    /// Whether the two may still be dialling each other, which a relay has connected.
    fn punches(&self, peer: &PeerId, now: Instant) -> bool {
        self.relayed.get(peer).is_some_and(|since| now < *since + PUNCHING)
    }

    /// There will be no connection, unless somebody asks again.
    fn give_up(&mut self, peer: &PeerId) -> Vec<Opening> {
        self.relayed.remove(peer);
        self.sought.remove(peer).map(|sought| sought.callers).unwrap_or_default()
    }
}

impl Detour for Dht {
    fn open(&self, peer: PeerId, known: Vec<Multiaddr>) -> BoxFuture<'static, Result<Conn, Unconnected>> {
        let dht = self.clone();
        Box::pin(async move {
            let given = known.iter().find(|at| dht.0.reach.is_given(at)).cloned();
            let asked = dht.0.ask(|done| Command::Detour { peer, known, opening: Opening(done) });
            let why = match tokio::time::timeout(WITHIN, asked).await {
                Ok(Some(Ok(conn))) => return Ok(conn),
                Ok(Some(Err(why))) => why,
                Ok(None) => "the connection with it broke".to_owned(),
                Err(_) => {
                    "no direct connection came about in time, with a relay's help or without".to_owned()
                }
            };
            let refusal = tokio::time::timeout(REFUSED, dht.refusal(given)).await.ok().flatten();
            Err(refusal.unwrap_or(Unconnected::Unreachable(why)))
        })
    }
}

impl Dht {
    /// Whether who is at an address that the owner gave is not to be spoken to: a connection with it may have come, and
    /// no stream.
    async fn refusal(&self, given: Option<Multiaddr>) -> Option<Unconnected> {
        match self.reach(given?).await {
            Err(Error::OtherNetwork { .. }) => Some(Unconnected::OtherNetwork),
            Err(Error::OtherKey { .. }) => Some(Unconnected::OtherKey),
            _ => None,
        }
    }
}

impl EventLoop {
    /// Somebody wants a stream to a peer.
    pub(super) fn detour(&mut self, peer: PeerId, known: Vec<Multiaddr>, opening: Opening) {
        let Err(opening) = self.swarm.behaviour_mut().streams.open(peer, opening) else { return };
        let detours = &mut self.detours;
        if detours.sought.len() >= MAX_SOUGHT && !detours.sought.contains_key(&peer) {
            return opening.end(Err("too many other peers are being reached".to_owned()));
        }
        let sought = detours.sought.entry(peer).or_default();
        sought.callers.push(opening);
        if sought.callers.len() == 1 {
            (sought.known, sought.since) = (known, Some(Instant::now()));
            self.dial_sought(peer);
        }
    }

    /// Dials a peer to which a way is sought, unless the two agree on when to dial.
    fn dial_sought(&mut self, peer: PeerId) {
        if self.detours.punches(&peer, Instant::now()) {
            return;
        }
        let Some(sought) = self.detours.sought.get_mut(&peer) else { return };
        let mut addresses = sought.known.clone();
        addresses.extend(self.swarm.behaviour_mut().kad.store_mut().whereabouts(&peer));
        addresses.sort();
        addresses.dedup();
        addresses.sort_by_key(|at| !is_relayed(at));
        addresses.truncate(MAX_ADDRESSES);
        let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses);
        let options = options.extend_addresses_through_behaviour().build();
        sought.dial = Some(options.connection_id());
        self.begin_dial(peer, options);
    }

    /// A dial of a peer failed.
    pub(super) fn detour_dial_failed(&mut self, peer: &PeerId, dial: ConnectionId, error: &DialError) {
        for opening in self.detours.dial_failed(peer, dial, is_unhurried(error)) {
            opening.end(Err(self.unreached(error)));
        }
    }

    /// A connection has come.
    pub(super) fn detour_opened(&mut self, peer: PeerId, at: &ConnectedPoint) {
        if at.is_relayed() {
            self.detours.relayed.insert(peer, Instant::now());
            return;
        }
        if self.detours.relayed.remove(&peer).is_some() {
            self.punched(peer);
        }
        for opening in self.detours.give_up(&peer) {
            if let Err(opening) = self.swarm.behaviour_mut().streams.open(peer, opening) {
                opening.end(Err("the connection with it broke".to_owned()));
            }
        }
    }

    /// Two that agreed over a relay to dial each other were not connected, and will not be, unless somebody asks again.
    pub(super) fn detour_failed(&mut self, peer: &PeerId) {
        let why = self.elsewhere(peer).unwrap_or_else(|| SHUT.to_owned());
        for opening in self.detours.give_up(peer) {
            opening.end(Err(why.clone()));
        }
    }

    /// Why nothing was dialled, where all places that are told of a peer are on another private network.
    fn elsewhere(&mut self, peer: &PeerId) -> Option<String> {
        let mut told = self.detours.sought.get(peer).map(|sought| sought.known.clone()).unwrap_or_default();
        told.extend(self.swarm.behaviour_mut().kad.store_mut().whereabouts(peer));
        told.retain(|at| !is_relayed(at));
        if told.iter().any(|at| self.reach.allows(at)) {
            return None;
        }
        let undialled = told.into_iter().map(|at| (at.clone(), TransportError::MultiaddrNotSupported(at)));
        unreached::elsewhere(&DialError::Transport(undialled.collect()))
    }

    /// Forgets those who wait no longer, and dials those that had no turn.
    pub(super) fn sweep_detours(&mut self) {
        self.detours.sought.retain(|_, sought| {
            sought.callers.retain(|opening| !opening.0.is_closed());
            !sought.callers.is_empty()
        });
        for peer in self.detours.waited(Instant::now()) {
            if let Some(why) = self.elsewhere(&peer) {
                for opening in self.detours.give_up(&peer) {
                    opening.end(Err(why.clone()));
                }
            }
        }
        self.detours.relayed.retain(|_, since| since.elapsed() < PUNCHING);
        let undialled = self.detours.sought.iter().filter(|(_, sought)| sought.dial.is_none());
        for peer in undialled.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.dial_sought(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[test]
    fn only_its_own_dial_ends_a_detour_and_not_where_it_had_no_turn() {
        let (mut detours, peer) = (Detours::default(), PeerId::random());
        let [own, other, again] = [1, 2, 3].map(ConnectionId::new_unchecked);
        let (done, _called) = oneshot::channel();
        let sought = Sought { callers: vec![Opening(done)], known: Vec::new(), dial: Some(own), since: None };
        detours.sought.insert(peer, sought);
        assert!(detours.dial_failed(&peer, other, false).is_empty());
        assert!(detours.dial_failed(&peer, own, true).is_empty());
        assert!(detours.sought[&peer].dial.is_none(), "it is dialled again");
        assert!(detours.dial_failed(&peer, own, false).is_empty());
        detours.sought.get_mut(&peer).unwrap().dial = Some(again);
        assert_eq!(detours.dial_failed(&peer, again, false).len(), 1);
        assert!(detours.sought.is_empty());
    }

    #[test]
    fn who_is_not_dialled_has_eight_seconds_to_come_by_itself() {
        let (mut detours, peer, start) = (Detours::default(), PeerId::random(), Instant::now());
        detours.sought.insert(peer, Sought { since: Some(start), ..Sought::default() });
        let short = COMES.saturating_sub(Duration::from_millis(1));
        assert!(detours.waited(start + short).is_empty(), "its own dial may be under way");
        assert_eq!(detours.waited(start + COMES), [peer]);
        detours.give_up(&peer);
        assert!(detours.waited(start + COMES).is_empty());
    }

    #[test]
    fn who_came_through_a_relay_has_the_time_of_two_attempts_however_late_it_came() {
        let (mut detours, peer, start) = (Detours::default(), PeerId::random(), Instant::now());
        detours.sought.insert(peer, Sought { since: Some(start), ..Sought::default() });
        // The dial waited for its turn, and the relay for the other end.
        let came = start + Duration::from_secs(9);
        detours.relayed.insert(peer, came);
        let short = PUNCHING.saturating_sub(Duration::from_millis(1));
        assert!(detours.waited(came + short).is_empty(), "the two are dialling each other");
        assert_eq!(detours.waited(came + PUNCHING), [peer]);
        assert!(came + PUNCHING < start + WITHIN, "and what is said then is heard");
    }
}
