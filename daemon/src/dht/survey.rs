//! Which nodes are nearest to a key: what is known already, and looked up as far as it is not.
//!
//! Owns: the look-ups of one announcement or search. Refuses: more of them than its limit. Survives a crash: nothing.
//!
//! Whoever wants an object not to be found can make up ids until twenty nodes of its own are the nearest to the key,
//! and have them forget what they are told. Addresses are dearer than ids. So an object goes to its twenty nearest
//! nodes, as everybody expects, and besides to the nearest twenty of which not more than two are in one address group;
//! who does not find it looks there as well (see [`wider`](super::wider)). In which group a node is, its connection to
//! this one shows; where it is said to be, its like may say, of it and of others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use super::atlas::Atlas;
use super::command::{Closest, Command, Node};
use super::peers::Connected;
use super::position::{BITS, Position};
use super::records::Group;
use super::regions::{K, Regions};
use super::{Inner, Key};

/// Look-ups of one announcement: enough for a network of twenty thousand nodes, and an end for one that answers with
/// nonsense.
const MAX_LOOK_UPS: usize = 2_048;
/// A look-up that was not sound and took no longer than this is made once more: connections were closed as idle while
/// they were asked over. Whoever is not there takes longer.
const BRIEF: Duration = Duration::from_secs(2);
/// How many of the nearest nodes are looked at to find those.
const FAR: usize = 8 * K;

/// The address groups in which a node is seen: none of one that has no global address, as on a local network.
pub(super) type Places = HashSet<Group>;

/// See the module.
pub(super) struct Survey {
    /// The way to the event loop.
    dht: Arc<Inner>,
    /// What is known of the network.
    pub(super) atlas: Atlas,
    /// Look-ups so far.
    pub(super) look_ups: usize,
    /// Those of them that ended with so few nodes that they may have made known what nobody has told of…
    short: usize,
    /// …and those of the others in which many that were asked did not answer.
    unsound: usize,
    /// What is known without the short ones, once there was one.
    certain: Option<Regions>,
}

// === impl Survey ===

impl Survey {
    /// Begins with what is known already.
    pub(super) fn new(dht: Arc<Inner>) -> Self {
        // A server may be one of the nearest; its own keys are in its store already.
        let own = dht.seen.reachability.borrow().is_server.then_some(dht.local);
        let atlas = dht.shelf.take(own, *dht.seen.routed.borrow(), Instant::now());
        Self { dht, atlas, look_ups: 0, short: 0, unsound: 0, certain: None }
    }

    /// The nodes that shall keep a key: the `copies` nearest; of an object also those that are nearest and not of one
    /// owner.
    pub(super) async fn nearest(&mut self, at: Position, key: Key, copies: usize) -> Vec<PeerId> {
        let mut nearest = self.known_nearest(at, key, copies).await;
        if copies >= K {
            let apart = self.nearest_apart(at, key, nearest.clone()).await;
            nearest.extend(apart.into_iter().filter(|peer| !nearest.contains(peer)).collect::<Vec<_>>());
        }
        nearest
    }

    /// As many nodes as `nearest` are, the nearest of which not more than `of_group` are in one address group, as far
    /// as there are such among the [`FAR`] nearest.
    async fn nearest_apart(&mut self, at: Position, key: Key, mut nearest: Vec<PeerId>) -> Vec<PeerId> {
        let copies = nearest.len();
        let mut wanted = copies;
        loop {
            let apart = apart(&nearest, &self.atlas.places, self.dht.of_group, copies);
            if apart.len() >= copies || nearest.len() < wanted || wanted >= FAR {
                return apart;
            }
            wanted *= 2;
            nearest = self.known_nearest(at, key, wanted).await;
        }
    }

    /// The `count` nearest nodes of a key, looked up as far as that is needed.
    async fn known_nearest(&mut self, at: Position, key: Key, count: usize) -> Vec<PeerId> {
        while let Err(missing) = self.atlas.regions.nearest(at, count) {
            if self.look_ups >= MAX_LOOK_UPS {
                break;
            }
            let target = if missing.length() == BITS { Some(key) } else { missing.some_key() };
            let Some(target) = target else {
                let certain = self.certain.as_mut();
                certain.into_iter().chain([&mut self.atlas.regions]).for_each(|known| known.settle(missing));
                continue;
            };
            let Some(closest) = self.look_up(target).await else {
                // The room has stopped.
                return Vec::new();
            };
            // That was the key itself: what is near it need not be known whole. The next key there has it looked up.
            let is_enough = target == key && closest.is_sound && closest.nodes.len() >= count;
            self.learn(&target, closest);
            if is_enough {
                break;
            }
        }
        self.atlas.regions.nearest_known(at, count)
    }

    /// One look-up, or a second where the first was failed by connections that had just ended.
    async fn look_up(&mut self, key: Key) -> Option<Closest> {
        let begun = Instant::now();
        self.look_ups += 1;
        let mut closest = self.dht.ask(|done| Command::Closest { key, done }).await?;
        if !closest.is_sound && begun.elapsed() < BRIEF {
            self.look_ups += 1;
            closest = self.dht.ask(|done| Command::Closest { key, done }).await?;
        }
        Some(closest)
    }

    /// Takes what a look-up found. A short one is believed by this survey, which is to have an end, and by nobody else.
    fn learn(&mut self, target: &Key, closest: Closest) {
        let (at, is_short) = (Position::of_key(target), is_short(&closest));
        let Closest { nodes, unanswered, is_sound } = closest;
        let found: Vec<_> = nodes.iter().map(|(node, _)| node.peer).collect();
        for (Node { peer, addresses }, places) in nodes {
            self.atlas.addresses.insert(peer, addresses);
            self.atlas.place(peer, places);
        }
        if is_short {
            self.short += 1;
            let certain = self.certain.get_or_insert_with(|| self.atlas.regions.clone());
            found.iter().for_each(|peer| certain.add(*peer));
        } else {
            self.unsound += usize::from(!is_sound);
            self.certain.iter_mut().for_each(|certain| certain.learn(at, &found, unanswered));
        }
        self.atlas.regions.learn(at, &found, unanswered);
    }

    /// Whether what was looked up, but for what [is doubtful](Self::is_doubtful), tells of a whole network.
    pub(super) fn is_sound(&self) -> bool {
        is_whole(self.look_ups - self.short, self.unsound)
    }

    /// Whether the nodes chosen for what is there may not be the nearest, since a look-up ended with few.
    pub(super) fn is_doubtful(&self, at: Position, copies: usize) -> bool {
        self.certain.as_ref().is_some_and(|certain| certain.nearest(at, copies).is_err())
    }

    /// Where a node is.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.atlas.addresses.get(peer).cloned().unwrap_or_default()
    }

    /// Keeps what was learnt for what follows, but for those that are `dead` and for what is doubtful; nothing where
    /// many did not answer: it may be the half of a network.
    pub(super) fn end(mut self, dead: &HashSet<PeerId>) {
        let is_nothing_new = self.short > 0 && self.short == self.look_ups;
        if is_nothing_new || !self.is_sound() {
            return;
        }
        if let Some(certain) = self.certain {
            self.atlas.regions = certain;
        }
        dead.iter().for_each(|peer| self.atlas.forget(peer));
        self.dht.shelf.put(self.atlas);
    }
}

/// Whether so many look-ups, of which so many were not sound, told of a whole network. Where it is cut nearly none is
/// sound; one liar, who names nodes that are not there, spoils those that meet it, and shall not have a large network
/// looked up anew for every few thousand keys. The same goes for nodes that are told, and those of them that failed.
pub(super) fn is_whole(look_ups: usize, unsound: usize) -> bool {
    unsound * 4 <= look_ups
}

/// Whether fewer nodes were found than a look-up ends with, though many did not answer or it was cut off: of what
/// counts as known by it, which may be all of the key space, little may be (see [`regions`](super::regions)). One liar
/// suffices for that, so it spoils nothing that others have told.
fn is_short(closest: &Closest) -> bool {
    !closest.is_sound && closest.nodes.len() < K
}

/// Where a node is seen: where its connections lead.
pub(super) fn places(connected: Option<&Connected>) -> Places {
    let Some(connected) = connected else { return Places::from([Group::UNSEEN]) };
    connected.remotes().filter_map(Group::seen).collect()
}

/// The first `most` of `nearest` of which no more than `of_group` are in one address group. Each place counts: who is
/// in many gains nothing by it.
fn apart(nearest: &[PeerId], places: &HashMap<PeerId, Places>, of_group: usize, most: usize) -> Vec<PeerId> {
    let (mut count, mut apart) = (HashMap::<Group, usize>::new(), Vec::new());
    for peer in nearest {
        let own = || places.get(peer).into_iter().flatten();
        let is_crowded = own().any(|group| count.get(group).is_some_and(|n| *n >= of_group));
        if !is_crowded && apart.len() < most {
            apart.push(*peer);
            own().for_each(|group| *count.entry(*group).or_default() += 1);
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::peers::Peers;
    use crate::dht::tests::{Node as Running, TCP};
    use libp2p::swarm::ConnectionId;

    /// Where nodes are seen that are connected at these addresses; those without one are not connected.
    fn seen(at: &[(PeerId, Option<String>)]) -> HashMap<PeerId, Places> {
        let mut peers = Peers::default();
        for (number, (peer, at)) in at.iter().enumerate() {
            if let Some(at) = at {
                peers.opened(*peer, ConnectionId::new_unchecked(number), at.parse().unwrap());
            }
        }
        at.iter().map(|(peer, _)| (*peer, places(peers.get(peer)))).collect()
    }

    fn chosen(of: impl Fn(usize) -> Option<String>) -> usize {
        let at: Vec<_> = (0..30).map(|number| (PeerId::random(), of(number))).collect();
        let nearest: Vec<_> = at.iter().map(|(peer, _)| *peer).collect();
        let apart = apart(&nearest, &seen(&at), 2, K);
        assert!(nearest.starts_with(&apart[..2.min(apart.len())]), "the nearest first");
        apart.len()
    }

    #[test]
    fn of_one_group_two_are_chosen_and_so_of_those_that_are_not_seen() {
        let relay = format!("/ip4/9.9.9.9/tcp/8468/p2p/{}/p2p-circuit", PeerId::random());
        assert_eq!(chosen(|number| Some(format!("/ip4/8.8.{number}.1/tcp/8468"))), 2);
        assert_eq!(chosen(|number| Some(format!("/ip4/8.{number}.1.1/udp/8468/quic-v1"))), K);
        assert_eq!(chosen(|_| Some(relay.clone())), 2);
        assert_eq!(chosen(|_| None), 2);
        // Six networks, and those that have gone.
        assert_eq!(chosen(|number| (number % 7 > 0).then(|| format!("/ip4/8.{}.1.1/tcp/1", number % 7))), 14);
    }

    #[test]
    fn a_liar_spoils_no_large_network_and_half_of_one_is_not_kept() {
        assert!(is_whole(0, 0) && is_whole(1_000, 100) && is_whole(4, 1));
        assert!(!is_whole(1, 1) && !is_whole(3, 1) && !is_whole(1_000, 900));
    }

    #[test]
    fn what_ends_early_with_few_is_short() {
        let closest = |count, is_sound| {
            let node = || Node { peer: PeerId::random(), addresses: Vec::new() };
            let nodes = (0..count).map(|_| (node(), Places::new())).collect();
            Closest { nodes, unanswered: 0, is_sound }
        };
        assert!(is_short(&closest(K - 1, false)) && is_short(&closest(0, false)));
        // All of a small network, and all that a look-up ends with.
        assert!(!is_short(&closest(3, true)) && !is_short(&closest(K, false)));
    }

    #[tokio::test]
    async fn a_look_up_that_ended_early_spoils_nothing_that_others_have_told() {
        let node = Running::server(TCP, &[]).await;
        let all: Vec<_> = (0..3 * K).map(|_| PeerId::random()).collect();
        let closest = |at: Position, count: usize, is_sound: bool| {
            let mut nearest = all.clone();
            nearest.sort_by_key(|peer| Position::of_peer(peer).distance(at));
            let told = |peer| (Node { peer, addresses: Vec::new() }, Places::new());
            let nodes = nearest.into_iter().take(count).map(told).collect();
            Closest { nodes, unanswered: 0, is_sound }
        };
        // In two halves of the key space.
        let at = |number: u8| Position::of_key(&[number; 32]);
        let (told, spoilt) = (0, (1..).find(|number| at(*number).common_prefix(at(0)) == 0).unwrap());
        let mut survey = Survey::new(Arc::clone(&node.dht.0));
        survey.learn(&[told; 32], closest(at(told), K, true));
        survey.learn(&[spoilt; 32], closest(at(spoilt), 3, false));
        survey.look_ups = 2;
        assert!(survey.atlas.regions.nearest(at(spoilt), 1).is_ok(), "it has an end");
        assert!(survey.is_sound() && survey.is_doubtful(at(spoilt), 1) && !survey.is_doubtful(at(told), 1));
        survey.end(&HashSet::new());
        let kept = Survey::new(Arc::clone(&node.dht.0)).atlas.regions;
        assert!(kept.nearest(at(told), 1).is_ok() && kept.nearest(at(spoilt), 1).is_err());
        // One that learns nothing else does not take its place.
        let mut survey = Survey::new(Arc::clone(&node.dht.0));
        node.dht.0.shelf.clear();
        survey.learn(&[spoilt; 32], closest(at(spoilt), 3, false));
        survey.look_ups = 1;
        survey.end(&HashSet::new());
        assert!(Survey::new(Arc::clone(&node.dht.0)).atlas.regions.nearest(at(told), 1).is_err());
    }

    #[test]
    fn on_a_local_network_nobody_is_crowded() {
        assert_eq!(chosen(|number| Some(format!("/ip4/10.0.0.{number}/tcp/8468"))), K);
        assert_eq!(chosen(|number| Some(format!("/ip4/127.0.0.1/tcp/{}", 8468 + number))), K);
        // This node itself is seen nowhere, and may be one of the nearest.
        assert_eq!(apart(&[PeerId::random()], &HashMap::new(), 2, K).len(), 1);
    }
}
