//! Introductions: a node that knows nobody who keeps records, or only such as are near, asks its neighbours for some.
//!
//! Owns: the format, whom this node would name, and when it asks. Refuses: to ask while it knows a server of the DHT
//! and has met somebody beyond its own subnets; to ask, or tell anything, beyond these and this host; to name servers
//! that have not answered when it dialled them; more than its limits. Survives a crash: nothing.
//!
//! A node behind a router takes part as a client of the DHT: it answers no question of Kademlia, and whoever finds it
//! on the local network learns nothing from it, though it knows the whole network. Two that find it, and each other,
//! are servers to each other and to nobody else: they would stay by themselves, so they ask as well. Strangers beyond
//! are told nothing: whom a client has dialled is not theirs to know. What is told is dialled as far as
//! [`Reach`](super::reach::Reach) allows, and at the [`pace`](super::pace) of all that others tell.
//!
//! Protocol `/casd/<network>/servers/1`. The question: version 1, one byte. The answer is that of
//! [`find`], with at most [`MAX_SERVERS`] servers in the place of holders.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use libp2p::request_response::{Event, Message};
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::PeerCondition;
use libp2p::{Multiaddr, PeerId};

use super::bootstrap::{FIRST_WAIT, LONGEST_ALONE, LONGEST_WAIT};
use super::codec::{Asked, Exchange, Reader, malformed};
use super::event_loop::EventLoop;
use super::find::{self, Holders};
use super::later::Question;
use super::listen::ip_of;
use super::meter::Act;
use super::peers::Connected;
use super::records::{Group, MAX_ADDRESS, MAX_ADDRESSES};
use crate::peer::Scope;

/// Servers that are named at most.
pub(super) const MAX_SERVERS: usize = 8;
/// Servers that are kept, to name the latest of them…
const MAX_KEPT: usize = 32;
/// …and of these such of one group of globally routable addresses: whose ids look-ups come by is others' choice.
const MAX_OF_GROUP: usize = 4;
/// Neighbours that are asked at once.
const AT_ONCE: usize = 4;
const VERSION: u8 = 1;

/// The protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Introducing;

/// Whom this node would name, and whom it asks. Pure: the time is passed in.
#[derive(Debug, Default)]
pub(super) struct Introductions {
    /// Servers that answered when this node dialled them, and where they are; the latest last.
    answered: VecDeque<(PeerId, Vec<Multiaddr>)>,
    /// Connected nodes that are no servers and could name some: no more than there are connections.
    askable: HashMap<PeerId, Turn>,
    /// Whom others have named lately.
    named: VecDeque<PeerId>,
}

#[derive(Debug)]
struct Turn {
    /// Not asked before this.
    due: Instant,
    /// How long to wait after the next question.
    wait: Duration,
}

// === impl Introducing ===

impl Exchange for Introducing {
    type Request = ();
    type Response = Holders;
    const MAX_REQUEST: usize = 1;
    const MAX_RESPONSE: usize = find::longest(MAX_SERVERS);

    fn decode_request(&self, bytes: &[u8]) -> io::Result<()> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(malformed("a question of another version"));
        }
        reader.end()
    }

    fn decode_response(&self, bytes: &[u8]) -> io::Result<Holders> {
        find::decode(bytes, MAX_SERVERS)
    }

    fn encode_request(&self, (): ()) -> Vec<u8> {
        vec![VERSION]
    }

    fn encode_response(&self, servers: Holders) -> Vec<u8> {
        find::encode(&servers, MAX_SERVERS)
    }
}

// === impl Introductions ===

impl Introductions {
    /// A server answered when it was dialled, and is at these addresses: the first count.
    pub(super) fn answered(&mut self, peer: PeerId, addresses: impl Iterator<Item = Multiaddr>) {
        let mut kept: Vec<Multiaddr> = Vec::new();
        for at in addresses {
            if kept.len() < MAX_ADDRESSES && at.len() <= MAX_ADDRESS && !kept.contains(&at) {
                kept.push(at);
            }
        }
        self.gone(&peer);
        let of = group(&kept);
        let is_of_it = |(_, at): &(PeerId, Vec<Multiaddr>)| of.is_some() && group(at) == of;
        if self.answered.iter().filter(|one| is_of_it(one)).count() >= MAX_OF_GROUP
            && let Some(first) = self.answered.iter().position(is_of_it)
        {
            self.answered.remove(first);
        }
        self.answered.push_back((peer, kept));
        if self.answered.len() > MAX_KEPT {
            self.answered.pop_front();
        }
    }

    /// It is no server any more, or does not answer.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        self.answered.retain(|(known, _)| known != peer);
    }

    /// Whom to name to `asker`: those that answered last, first one of each address group, at those of their addresses
    /// of which this is true.
    fn told(&self, asker: &PeerId, is_told: impl Fn(&Multiaddr) -> bool) -> Holders {
        let others = self.answered.iter().rev().filter(|(peer, _)| peer != asker);
        let told = |at: &[Multiaddr]| at.iter().filter(|at| is_told(at)).cloned().collect::<Vec<_>>();
        let told = others.map(|(peer, at)| (group(at), (*peer, told(at))));
        let mut groups = HashSet::new();
        let (first, more): (Vec<_>, Vec<_>) = told
            .filter(|(_, (_, at))| !at.is_empty())
            .partition(|(group, _)| group.is_none_or(|group| groups.insert(group)));
        first.into_iter().chain(more).map(|(_, server)| server).take(MAX_SERVERS).collect()
    }

    /// A connected node is no server, and could name some.
    pub(super) fn met(&mut self, peer: PeerId, now: Instant) {
        self.askable.entry(peer).or_insert(Turn { due: now, wait: FIRST_WAIT });
    }

    /// It is connected no more, or a server itself.
    pub(super) fn parted(&mut self, peer: &PeerId) {
        self.askable.remove(peer);
    }

    /// Whom to ask now of those of whom this is true: each after waits that double up to the `longest`, and first who
    /// has waited most, so that one who comes again and again keeps nobody waiting.
    fn due(&mut self, now: Instant, longest: Duration, is_near: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
        let near = self.askable.iter_mut().filter(|(peer, _)| is_near(peer));
        let mut due: Vec<(PeerId, &mut Turn)> = near.map(|(peer, turn)| (*peer, turn)).collect();
        for (_, turn) in &mut due {
            // It may have been put off for longer before.
            turn.due = turn.due.min(now + longest);
        }
        due.retain(|(_, turn)| turn.due <= now);
        due.sort_by_key(|(_, turn)| turn.due);
        let ask = |(peer, turn): (PeerId, &mut Turn)| {
            turn.due = now + turn.wait.min(longest);
            turn.wait = (turn.wait * 2).min(LONGEST_WAIT);
            peer
        };
        due.into_iter().take(AT_ONCE).map(ask).collect()
    }

    fn name(&mut self, peer: PeerId) {
        if !self.has_named(&peer) {
            self.named.push_back(peer);
        }
        if self.named.len() > MAX_KEPT {
            self.named.pop_front();
        }
    }

    /// Whether a neighbour has named it lately.
    pub(super) fn has_named(&self, peer: &PeerId) -> bool {
        self.named.contains(peer)
    }
}

/// The group of the first address that has one: where it answered, unless that was on a private network.
fn group(addresses: &[Multiaddr]) -> Option<Group> {
    addresses.iter().filter_map(ip_of).find_map(Group::of)
}

// === impl EventLoop ===

impl EventLoop {
    /// Asks neighbours for servers of the DHT, where they may know more of them than this node; `routed`: those in its
    /// routing table.
    pub(super) fn ask_for_servers(&mut self, now: Instant, routed: usize) {
        if !self.is_secluded(routed) {
            return;
        }
        let longest = if routed == 0 { LONGEST_ALONE } else { LONGEST_WAIT };
        let near: HashSet<PeerId> = self.neighbours().collect();
        for peer in self.introductions.due(now, longest, |peer| near.contains(peer)) {
            tracing::debug!(%peer, "asking a neighbour for nodes that keep records");
            self.swarm.behaviour_mut().servers.send_request(&peer, Ok(()));
        }
    }

    /// Whether this node knows no server, or has met nobody beyond its own subnets: those that it knows may then have
    /// found nobody but each other.
    fn is_secluded(&self, routed: usize) -> bool {
        routed == 0 || !self.is_outside()
    }

    /// Members that are connected directly from our subnets or this host.
    fn neighbours(&self) -> impl Iterator<Item = PeerId> {
        let is_near = move |peer: &&PeerId| {
            let mut remotes = self.peers.get(peer).into_iter().flat_map(Connected::remotes);
            remotes.any(|at| ip_of(at).is_some_and(|ip| self.is_near(ip)))
        };
        self.members().filter(is_near).copied()
    }

    pub(super) fn on_servers(&mut self, event: Event<Asked<()>, Holders>) {
        match event {
            Event::Message { peer, connection_id, message } => match message {
                Message::Request { request, channel, .. } => {
                    let asked = request.map(|()| Question::Servers(peer, connection_id, channel));
                    self.in_turn(peer, Act::Find, asked);
                }
                Message::Response { response, .. } => self.on_introduced(peer, response),
            },
            Event::OutboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a neighbour names nobody");
                self.on_no_answer(peer, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a question went wrong");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// Whom to name to who asked on this connection.
    pub(super) fn servers_for(&self, asker: &PeerId, connection: ConnectionId) -> Holders {
        let Some(remote) = self.peers.remote_ip(asker, connection).filter(|ip| self.is_near(*ip)) else {
            return Vec::new();
        };
        let is_told = |at: &Multiaddr| {
            ip_of(at).is_some_and(|ip| match Scope::of(ip.to_canonical()) {
                Scope::Global => true,
                // The asker, which has the key if there is one, would not dial others.
                Scope::Private => self.reach.allows_ip(ip),
                Scope::Loopback => remote.to_canonical().is_loopback(),
                Scope::Nowhere => false,
            })
        };
        self.introductions.told(asker, is_told)
    }

    /// A neighbour named servers: those that are not known are dialled, if this node would still ask.
    fn on_introduced(&mut self, by: PeerId, servers: Holders) {
        tracing::debug!(peer = %by, named = servers.len(), "a neighbour names nodes that keep records");
        let (local, routed) = (*self.swarm.local_peer_id(), self.routed_peers());
        if !self.is_secluded(routed.len()) {
            return;
        }
        for (peer, mut addresses) in servers {
            addresses.retain(|at| ip_of(at).is_some() && self.reach.allows(at));
            if peer != local && !routed.contains(&peer) && !addresses.is_empty() {
                self.introductions.name(peer);
                self.dial(peer, addresses, PeerCondition::DisconnectedAndNotDialing);
            }
        }
    }
}
