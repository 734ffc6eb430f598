//! The seeking part of the event loop: whom to dial so that this node is, and stays, part of its network.
//!
//! Owns: when configured nodes, remembered peers and those on the local network are dialled, and when peers are
//! written down. Refuses: addresses on the local network that are on none of our subnets. Survives a crash: what
//! [`remembered`] has written.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::kad::QueryInfo;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::PeerCondition;
use libp2p::{Multiaddr, PeerId};

use super::bootstrap::{FIRST_WAIT, LONGEST_WAIT, drawn};
use super::event_loop::EventLoop;
use super::listen::{ip_of, is_name};
use super::peers::Standing;
use super::records::MAX_ADDRESS;
use super::regions::K;
use super::remembered::{self, Peer, Remembered};
use super::streams::is_relayed;
use crate::support::task::Tasks;
use crate::support::unix_now;

/// How often a node that knows many looks for those near its own id.
const NEIGHBOURS: Duration = Duration::from_mins(15);

impl EventLoop {
    /// The room listens, and these peers are known from earlier runs.
    pub(super) fn begin(&mut self, mut peers: Vec<Peer>) {
        // A state folder that was copied may name this node.
        peers.retain(|known| known.peer != *self.swarm.local_peer_id());
        self.reach.recall(peers.iter().map(|peer| peer.addresses.as_slice()));
        self.remembered = Remembered::new(peers, self.options.reunion, Instant::now(), unix_now());
        if let Some(lan) = self.swarm.behaviour_mut().lan.as_mut() {
            lan.open();
        }
    }

    /// Dials whoever is due.
    pub(super) fn seek(&mut self, now: Instant) {
        let routed: HashSet<PeerId> = self.routed_peers().into_iter().collect();
        // Who was taken out of the table is told by no event.
        self.routed.send_if_modified(|told| std::mem::replace(told, routed.len()) != routed.len());
        self.tell_entered();
        let alone = self.is_alone(routed.len());
        self.say_alone(alone, now);
        self.settle(now, routed.len());
        let random = rand::random();
        let mut dials = self.bootstrap.due(now, alone, random);
        if alone {
            dials.extend(self.remembered.alone(now, random));
        } else if self.remembered.is_reunion(now, random) {
            let is_known = |peer: &PeerId| routed.contains(peer) || self.peers.get(peer).is_some();
            dials.extend(self.remembered.strays(now, is_known, &mut rand::rng()));
            dials.extend(self.bootstrap.stray(now, is_known));
        }
        self.ask_for_servers(now, routed.len());
        if routed.is_empty() {
            // Who was on the local network may be there still, and is told of only once. That others are connected who
            // keep no records is no reason to leave it alone.
            let again = self.found.again(now);
            dials.extend(again.into_iter().filter_map(|(peer, at)| Some((peer, self.neighbourly(at)?))));
        }
        for (peer, addresses) in dials {
            self.dial(peer, addresses, PeerCondition::DisconnectedAndNotDialing);
        }
        self.dial_found(now);
    }

    /// Of two that join by the same node in the same moment neither may hear of the other: while few are known all
    /// parts of the table are looked for again, after waits that double; later those near this node's own id, now and
    /// then.
    fn settle(&mut self, now: Instant, routed: usize) {
        let (again, wait) = self.settling;
        // Many may have been known until now.
        let is_due = now >= again || routed < K && again > now + LONGEST_WAIT;
        if routed == 0 {
            self.settling = (now + FIRST_WAIT, FIRST_WAIT);
        }
        if routed == 0 || !is_due || self.is_looking_around() {
            return;
        }
        if routed < K {
            let wait = (wait * 2).min(LONGEST_WAIT);
            self.settling = (now + wait, wait);
            if let Err(error) = self.swarm.behaviour_mut().kad.bootstrap() {
                tracing::debug!(%error, "nobody to ask for neighbours");
            }
        } else {
            self.settling = (now + drawn(NEIGHBOURS, rand::random()), FIRST_WAIT);
            self.look_for_neighbours();
        }
    }

    /// Looks for the nodes nearest to this one.
    pub(super) fn look_for_neighbours(&mut self) {
        let local = *self.swarm.local_peer_id();
        self.swarm.behaviour_mut().kad.get_closest_peers(local);
    }

    /// Whether neighbours are being looked for: Kademlia begins that by itself while few are known.
    fn is_looking_around(&mut self) -> bool {
        let mut queries = self.swarm.behaviour_mut().kad.iter_queries();
        queries.any(|query| matches!(query.info(), QueryInfo::Bootstrap { .. }))
    }

    /// Neighbours are looked for at the next tick, and then after waits as at the start.
    pub(super) fn look_around(&mut self) {
        self.settling = (Instant::now(), FIRST_WAIT / 2);
    }

    /// This host has a new address that is listened on, and with it perhaps a way to others.
    pub(super) fn on_new_address(&mut self, address: &Multiaddr) {
        if ip_of(address).is_some_and(|ip| !ip.is_loopback()) {
            self.on_moved();
        }
    }

    /// This host has a new address: there may be a way to others where there was none. The next tick dials.
    pub(super) fn on_moved(&mut self) {
        let now = Instant::now();
        self.bootstrap.hurry(now);
        self.remembered.hurry(now);
    }

    /// Peers say that they are on the local network.
    pub(super) fn on_found(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let now = Instant::now();
        for (peer, address) in found {
            tracing::debug!(%peer, %address, "said to be on the local network");
            self.found.add(peer, &address, now);
            if self.peers.get(&peer).is_some_and(|one| one.standing == Standing::Member) {
                self.found.done(&peer, now);
            }
        }
        self.dial_found(now);
    }

    fn dial_found(&mut self, now: Instant) {
        for (peer, addresses) in self.found.due(now) {
            if let Some(addresses) = self.neighbourly(addresses) {
                self.dial(peer, addresses, PeerCondition::DisconnectedAndNotDialing);
            }
        }
    }

    /// Those of these addresses that are on our subnets, if there are any. Looked at when they are dialled: our subnets
    /// may have been learnt after them.
    fn neighbourly(&self, mut addresses: Vec<Multiaddr>) -> Option<Vec<Multiaddr>> {
        addresses.retain(|at| ip_of(at).is_some_and(|ip| self.reach.is_neighbour(ip)));
        (!addresses.is_empty()).then_some(addresses)
    }

    /// A server of this network said where it is.
    pub(super) fn remember(&mut self, peer: PeerId, told: Vec<Multiaddr>) {
        let Some(connected) = self.peers.get(&peer) else { return };
        let seen: HashSet<IpAddr> = connected.remotes().filter_map(ip_of).collect();
        if let Some(answered) = connected.dialled.as_ref().filter(|at| !is_relayed(at)) {
            // One that was dialled by name is where it says to be.
            let there = ip_of(answered).map(|_| unnamed(answered.clone()));
            self.introductions.answered(peer, there.into_iter().chain(told.iter().cloned()));
        }
        // Names are for the owner alone to dial.
        let is_kept = |at: &&Multiaddr| ip_of(at).is_some() || is_name(at) && self.reach.is_given(at);
        let answered = connected.dialled.as_ref().filter(is_kept).cloned();
        if let Some(addresses) = proved(answered, &seen, told) {
            self.remembered.met(peer, addresses, Instant::now(), unix_now());
        }
    }

    /// A peer could not be reached; `refusal`: it is there, and for this reason none of this network.
    pub(super) fn missed(&mut self, peer: &PeerId, refusal: Option<String>) {
        self.introductions.gone(peer);
        self.presence.gone(peer);
        let alone = !self.members().any(|member| member != peer);
        // Only of those that it knows: a stranger's friends may well be made up.
        if alone && self.is_acquainted(peer) {
            self.solitude.missed(*peer, refusal);
        }
        self.remembered.missed(peer, alone, unix_now());
    }

    /// Whether it is one to join the network by.
    pub(super) fn is_acquainted(&self, peer: &PeerId) -> bool {
        self.remembered.has(peer) || self.bootstrap.has(peer)
    }

    /// Writes peers down when that is due.
    pub(super) fn save_peers(&mut self, now: Instant, tasks: &Tasks) {
        if self.options.peers.is_none() {
            return;
        }
        let connected: Vec<_> = self.members().copied().collect();
        self.remembered.still(connected.iter(), unix_now());
        if let Some(saving) = self.saving(now, false) {
            tasks.spawn("remembered peers", saving);
        }
    }

    /// The work of writing peers down, when there is something new. `stopping`: there will be no other time.
    pub(super) fn saving(
        &mut self,
        now: Instant,
        stopping: bool,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let file = self.options.peers.clone()?;
        let peers = self.remembered.take_news(now, stopping)?;
        let (network, disk) = (self.options.network.clone(), self.disk.clone());
        Some(async move { disk.run(move || remembered::save(&file, &network, &peers)).await })
    }

    /// Connected peers that are of this network.
    pub(super) fn members(&self) -> impl Iterator<Item = &PeerId> {
        let connected = self.peers.connected();
        connected.filter(|(_, one)| one.standing == Standing::Member).map(|(peer, _)| peer)
    }
}

/// The addresses to remember of a peer, where it has been seen first: where it answered, then what it told of hosts
/// that its connections come from, then the others. None when it has been seen at no address that could be dialled:
/// whoever only says where it is could fill the memory with addresses of others.
fn proved(
    answered: Option<Multiaddr>,
    seen: &HashSet<IpAddr>,
    told: Vec<Multiaddr>,
) -> Option<Vec<Multiaddr>> {
    // What is too long would not be kept, and the first that is kept counts as one where the peer was.
    let told = told.into_iter().filter(|at| at.len() <= MAX_ADDRESS);
    let answered = answered.map(unnamed).filter(|at| at.len() <= MAX_ADDRESS);
    let is_seen = |at: &Multiaddr| ip_of(at).is_some_and(|ip| seen.contains(&ip));
    let (near, far): (Vec<_>, Vec<_>) = told.partition(is_seen);
    let addresses: Vec<_> = answered.into_iter().chain(near).collect();
    (!addresses.is_empty()).then(|| [addresses, far].concat())
}

/// The address without the id at its end.
fn unnamed(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_has_been_seen() {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Multiaddr>>();
        let at = |text: &str| text.parse::<Multiaddr>().ok();
        let seen = HashSet::from(["192.0.2.1".parse().unwrap()]);
        let told = all(&["/ip4/203.0.113.9/tcp/8", "/ip4/192.0.2.1/tcp/8"]);
        let turned = all(&["/ip4/192.0.2.1/tcp/8", "/ip4/203.0.113.9/tcp/8"]);
        assert_eq!(proved(None, &seen, told.clone()), Some(turned));
        assert_eq!(proved(None, &seen, told[..1].to_vec()), None, "it may be anybody's address");
        let (name, far) = ("/dns4/a.example/tcp/1", told[..1].to_vec());
        assert_eq!(proved(at(name), &seen, far), Some(all(&[name, "/ip4/203.0.113.9/tcp/8"])));
        let named = at(&format!("/ip4/198.51.100.1/tcp/7/p2p/{}", PeerId::random()));
        let answered = proved(named, &seen, told[..1].to_vec());
        assert_eq!(answered, Some(all(&["/ip4/198.51.100.1/tcp/7", "/ip4/203.0.113.9/tcp/8"])));
        // What would not be kept leaves its place to none where it was not seen.
        let mut long = told[1].clone();
        while long.len() <= MAX_ADDRESS {
            long = long.with(Protocol::P2p(PeerId::random()));
        }
        assert_eq!(proved(None, &seen, vec![long.clone(), told[0].clone()]), None);
        let far = Multiaddr::empty().with(Protocol::Dns4("a".repeat(MAX_ADDRESS).into()));
        assert_eq!(proved(Some(far), &seen, vec![long, told[0].clone()]), None);
    }
}
