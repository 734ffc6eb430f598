//! Who is connected, where their chunk ports are, and who waits to learn that.
//!
//! Owns: the table of connected peers and a bounded memory of what hellos told. Refuses: more waiting peers
//! than its limit. Survives a crash: nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::answers;
use super::listen::ip_of;
use super::records::Group;

/// Hellos remembered (about 200 bytes each).
const MAX_CONTACTS: usize = 4_096;
/// How long a hello is believed. A new connection ends it earlier: the node may have been restarted.
const FRESH: Duration = Duration::from_secs(300);
/// Peers whose hello may be awaited at once.
const MAX_AWAITED: usize = 1_024;
/// Characters of another's agent name that are kept.
const MAX_AGENT: usize = 64;

/// Whether a connected node is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not said.
    Unknown,
    /// It speaks this network's protocols.
    Member,
    /// It does not.
    Stranger,
}

/// Where a peer's chunk ports are, as it tells itself; or why it does not, in words for people.
pub(super) type Ports = Result<Vec<SocketAddr>, String>;

/// Who wants to know where a chunk port is.
#[derive(Debug)]
pub(super) enum Waiter {
    /// The provider look-up with this number.
    LookUp(u64),
    /// A caller.
    Call(oneshot::Sender<Ports>),
}

/// What has to be done for somebody who waits for a hello.
#[derive(Debug)]
pub(super) enum Next {
    /// It is known: answer now.
    Known(Waiter, Vec<SocketAddr>),
    /// Too much is awaited already: answer that it is not known.
    Refused(Waiter),
    /// Ask over the connection there is.
    Ask,
    /// Dial first.
    Dial,
    /// Somebody asked before.
    Wait,
}

/// A connected node.
#[derive(Debug)]
pub(super) struct Connected {
    /// Where each connection leads.
    remotes: HashMap<ConnectionId, Multiaddr>,
    /// Whether it is one of ours.
    pub(super) standing: Standing,
    /// Where it answered when it was dialled last.
    pub(super) dialled: Option<Multiaddr>,
    /// What it calls itself, made harmless.
    pub(super) agent: String,
    /// When it said what it is.
    since: Option<Instant>,
}

/// What a hello told.
#[derive(Debug)]
struct Contact {
    chunk: Vec<SocketAddr>,
    learnt: Instant,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Connected nodes.
    connected: HashMap<PeerId, Connected>,
    /// What hellos told, at most [`MAX_CONTACTS`].
    contacts: HashMap<PeerId, Contact>,
    /// Who waits for whose hello, at most [`MAX_AWAITED`] peers.
    awaited: HashMap<PeerId, Awaited>,
}

/// Those who wait for one hello.
#[derive(Debug, Default)]
struct Awaited {
    /// The dial for it. None: there is none, for a connection or another dial was under way.
    dial: Option<ConnectionId>,
    /// Who, and where the peer is dialled for it.
    now: (Vec<Waiter>, Vec<Multiaddr>),
    /// Those who came later and know other places: it is dialled there when it has not answered at the first.
    then: (Vec<Waiter>, Vec<Multiaddr>),
}

// === impl Peers ===

impl Peers {
    /// A connection is there. True when somebody waits for this peer's hello.
    pub(super) fn opened(&mut self, peer: PeerId, connection: ConnectionId, remote: Multiaddr) -> bool {
        self.connected.entry(peer).or_insert_with(Connected::new).remotes.insert(connection, remote);
        self.contacts.remove(&peer);
        self.awaited.contains_key(&peer)
    }

    /// A connected peer answered at this address.
    pub(super) fn answered(&mut self, peer: &PeerId, at: Multiaddr) {
        if let Some(connected) = self.connected.get_mut(peer) {
            connected.dialled = Some(at);
        }
    }

    /// A connection is gone. True when it was the peer's last.
    pub(super) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) -> bool {
        let Some(connected) = self.connected.get_mut(peer) else { return false };
        connected.remotes.remove(&connection);
        let last = connected.remotes.is_empty();
        if last {
            self.connected.remove(peer);
        }
        last
    }

    /// A connected peer said what it is.
    pub(super) fn identified(&mut self, peer: &PeerId, standing: Standing, agent: &str, now: Instant) {
        if let Some(connected) = self.connected.get_mut(peer) {
            connected.since.get_or_insert(now);
            connected.standing = standing;
            connected.agent = agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect();
        }
    }

    /// Connected peers that have been known for `age` not to be of this network.
    pub(super) fn strangers(&self, now: Instant, age: Duration) -> Vec<PeerId> {
        let over = |one: &Connected| one.since.is_some_and(|since| now >= since + age);
        let strangers = self.connected.iter();
        let strangers = strangers.filter(|(_, one)| one.standing == Standing::Stranger && over(one));
        strangers.map(|(peer, _)| *peer).collect()
    }

    /// A connected peer.
    pub(super) fn get(&self, peer: &PeerId) -> Option<&Connected> {
        self.connected.get(peer)
    }

    /// All connected peers.
    pub(super) fn connected(&self) -> impl Iterator<Item = (&PeerId, &Connected)> {
        self.connected.iter()
    }

    /// The IP address at the other end of a connection.
    pub(super) fn remote_ip(&self, peer: &PeerId, connection: ConnectionId) -> Option<IpAddr> {
        ip_of(self.connected.get(peer)?.remotes.get(&connection)?)
    }

    /// Somebody wants to know where a peer's chunk port is. `said`: where others say that the peer is.
    pub(super) fn want(&mut self, peer: PeerId, waiter: Waiter, said: &[Multiaddr], now: Instant) -> Next {
        let contact = self.contacts.get(&peer).filter(|contact| now < contact.learnt + FRESH);
        if let Some(contact) = contact {
            return Next::Known(waiter, contact.chunk.clone());
        }
        let full = self.awaited.len() >= MAX_AWAITED;
        match self.awaited.entry(peer) {
            Entry::Occupied(mut awaited) => {
                let Awaited { now, then, .. } = awaited.get_mut();
                if said.iter().all(|at| now.1.contains(at)) {
                    now.0.push(waiter);
                } else {
                    then.0.push(waiter);
                    answers::add(&mut then.1, said.iter().filter(|at| !now.1.contains(at)).cloned());
                }
                Next::Wait
            }
            Entry::Vacant(_) if full => Next::Refused(waiter),
            Entry::Vacant(vacant) => {
                vacant.insert(Awaited { now: (vec![waiter], said.to_vec()), ..Awaited::default() });
                if self.connected.contains_key(&peer) { Next::Ask } else { Next::Dial }
            }
        }
    }

    /// A peer is dialled for its hello, if somebody waits for that.
    pub(super) fn dials(&mut self, peer: &PeerId, dial: ConnectionId) {
        if let Some(awaited) = self.awaited.get_mut(peer) {
            awaited.dial = Some(dial);
        }
    }

    /// That dial was not made, for another is under way.
    pub(super) fn undialled(&mut self, peer: &PeerId, dial: ConnectionId) {
        if let Some(awaited) = self.awaited.get_mut(peer) {
            awaited.dial = awaited.dial.filter(|own| *own != dial);
        }
    }

    /// The dial for a peer's hello, if somebody waits for that, and where it is to be dialled.
    pub(super) fn awaited(&self, peer: &PeerId) -> Option<(Option<ConnectionId>, Vec<Multiaddr>)> {
        self.awaited.get(peer).map(|awaited| (awaited.dial, awaited.now.1.clone()))
    }

    /// A peer's hello came: those who waited for it.
    pub(super) fn resolve(&mut self, peer: PeerId, chunk: &[SocketAddr], now: Instant) -> Vec<Waiter> {
        self.remember(peer, chunk.to_vec(), now);
        let Awaited { now: (waiters, _), then: (others, _), .. } =
            self.awaited.remove(&peer).unwrap_or_default();
        [waiters, others].into_iter().flatten().collect()
    }

    /// A peer's hello cannot be had: those who waited for it, and where to dial the peer for the others who wait.
    pub(super) fn missed(&mut self, peer: PeerId) -> (Vec<Waiter>, Option<Vec<Multiaddr>>) {
        let Awaited { now: (mut waiters, _), then, .. } = self.awaited.remove(&peer).unwrap_or_default();
        if then.0.is_empty() || self.connected.contains_key(&peer) {
            waiters.extend(then.0);
            return (waiters, None);
        }
        let elsewhere = then.1.clone();
        self.awaited.insert(peer, Awaited { now: then, ..Awaited::default() });
        (waiters, Some(elsewhere))
    }

    fn remember(&mut self, peer: PeerId, chunk: Vec<SocketAddr>, now: Instant) {
        if self.contacts.len() >= MAX_CONTACTS && !self.contacts.contains_key(&peer) {
            self.contacts.retain(|_, contact| now < contact.learnt + FRESH);
        }
        if self.contacts.len() >= MAX_CONTACTS
            && let Some(oldest) = self.contacts.iter().min_by_key(|(_, c)| c.learnt).map(|(peer, _)| *peer)
        {
            self.contacts.remove(&oldest);
        }
        self.contacts.insert(peer, Contact { chunk, learnt: now });
    }
}

// === impl Connected ===

impl Connected {
    fn new() -> Self {
        let (agent, dialled) = (String::new(), None);
        Self { remotes: HashMap::new(), standing: Standing::Unknown, dialled, agent, since: None }
    }

    /// Where the connections lead.
    pub(super) fn remotes(&self) -> impl Iterator<Item = &Multiaddr> {
        self.remotes.values()
    }

    /// The address group in which it is seen, by a direct connection where there is one.
    pub(super) fn group(&self) -> Option<Group> {
        let direct = self.remotes().find(|at| ip_of(at).is_some());
        direct.or_else(|| self.remotes().next()).and_then(Group::seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_are_remembered_until_a_new_connection() {
        let (mut peers, peer, now) = (Peers::default(), PeerId::random(), Instant::now());
        let at = vec!["127.0.0.1:9000".parse().unwrap()];
        assert!(matches!(peers.want(peer, Waiter::LookUp(1), &[], now), Next::Dial));
        assert!(matches!(peers.want(peer, Waiter::LookUp(2), &[], now), Next::Wait));
        let connection = ConnectionId::new_unchecked(1);
        assert!(peers.opened(peer, connection, "/ip4/127.0.0.1/tcp/1".parse().unwrap()));
        assert_eq!(peers.resolve(peer, &at, now).len(), 2);
        assert!(
            matches!(peers.want(peer, Waiter::LookUp(3), &[], now), Next::Known(_, known) if known == at)
        );
        assert!(matches!(peers.want(peer, Waiter::LookUp(3), &[], now + FRESH), Next::Ask));
        assert_eq!(peers.missed(peer).0.len(), 1);
        peers.opened(peer, ConnectionId::new_unchecked(2), "/ip4/127.0.0.1/tcp/2".parse().unwrap());
        assert!(matches!(peers.want(peer, Waiter::LookUp(4), &[], now), Next::Ask));
        assert!(!peers.closed(&peer, connection));
        assert!(peers.closed(&peer, ConnectionId::new_unchecked(2)));
    }

    #[test]
    fn who_knows_another_place_does_not_wait_for_the_first_in_vain() {
        let (mut peers, peer, now) = (Peers::default(), PeerId::random(), Instant::now());
        let [lie, truth]: [Vec<Multiaddr>; 2] =
            [1, 2].map(|port| vec![format!("/ip4/9.9.9.9/tcp/{port}").parse().unwrap()]);
        let mut want = |number, said: &[_]| peers.want(peer, Waiter::LookUp(number), said, now);
        assert!(matches!(want(1, &lie), Next::Dial) && matches!(want(2, &lie), Next::Wait));
        assert!(matches!(want(3, &[&lie[..], &truth[..]].concat()), Next::Wait));
        let (waiters, elsewhere) = peers.missed(peer);
        assert!(matches!(waiters[..], [Waiter::LookUp(1), Waiter::LookUp(2)]));
        assert_eq!(elsewhere, Some(truth));
        let (waiters, elsewhere) = peers.missed(peer);
        assert!(matches!(waiters[..], [Waiter::LookUp(3)]) && elsewhere.is_none());
        assert!(peers.awaited.is_empty());
    }

    #[test]
    fn which_dial_is_for_a_hello_is_known() {
        let (mut peers, peer, now) = (Peers::default(), PeerId::random(), Instant::now());
        let [one, other] = [1, 2].map(ConnectionId::new_unchecked);
        peers.dials(&peer, one);
        assert_eq!(peers.awaited(&peer), None, "nobody waits");
        let said: Vec<Multiaddr> = vec!["/ip4/9.9.9.9/tcp/1".parse().unwrap()];
        assert!(matches!(peers.want(peer, Waiter::LookUp(1), &said, now), Next::Dial));
        peers.dials(&peer, one);
        peers.undialled(&peer, other);
        assert_eq!(peers.awaited(&peer), Some((Some(one), said.clone())));
        peers.undialled(&peer, one);
        assert_eq!(peers.awaited(&peer), Some((None, said)));
        assert_eq!(peers.missed(peer).0.len(), 1);
        assert_eq!(peers.awaited(&peer), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        for age in 0..MAX_CONTACTS as u64 + 100 {
            peers.resolve(PeerId::random(), &[], now + Duration::from_millis(age));
        }
        assert_eq!(peers.contacts.len(), MAX_CONTACTS);
        for _ in 0..MAX_AWAITED {
            assert!(matches!(peers.want(PeerId::random(), Waiter::LookUp(1), &[], now), Next::Dial));
        }
        assert!(matches!(peers.want(PeerId::random(), Waiter::LookUp(1), &[], now), Next::Refused(_)));
    }
}
