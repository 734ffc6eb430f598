//! Which nodes are nearest to a key: what is known already, and looked up as far as it is not.
//!
//! Owns: the look-ups of one announcement or search. Refuses: more of them than its limit. Survives a crash: nothing.
//!
//! Whoever wants an object not to be found can make up ids until twenty nodes of its own are the nearest to the key,
//! and have them forget what they are told. Addresses are dearer than ids. So an object goes to its twenty nearest
//! nodes, as everybody expects, and besides to the nearest twenty of which not more than two are in one address group;
//! who does not find it looks there as well (see [`wider`](super::wider)).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use libp2p::{Multiaddr, PeerId};

use super::atlas::Atlas;
use super::command::{Closest, Command};
use super::listen::ip_of;
use super::position::{BITS, Position};
use super::records::Group;
use super::regions::K;
use super::{Inner, Key};

/// Look-ups of one announcement: enough for a network of twenty thousand nodes, and an end for one that answers with
/// nonsense.
const MAX_LOOK_UPS: usize = 2_048;
/// How many of the nearest nodes are looked at to find those.
const FAR: usize = 8 * K;

/// See the module.
pub(super) struct Survey {
    /// The way to the event loop.
    dht: Arc<Inner>,
    /// What is known of the network.
    pub(super) atlas: Atlas,
    /// Look-ups so far.
    pub(super) look_ups: usize,
    /// Whether nearly all that were asked in them answered.
    is_sound: bool,
}

// === impl Survey ===

impl Survey {
    /// Begins with what is known already.
    pub(super) fn new(dht: Arc<Inner>) -> Self {
        // A server may be one of the nearest; its own keys are in its store already.
        let own = dht.seen.reachability.borrow().is_server.then_some(dht.local);
        let atlas = dht.shelf.take(own, *dht.seen.routed.borrow(), Instant::now());
        Self { dht, atlas, look_ups: 0, is_sound: true }
    }

    /// The nodes that shall keep a key: the `copies` nearest; of an object also those that are nearest and not of one
    /// owner.
    pub(super) async fn nearest(&mut self, at: Position, key: Key, copies: usize) -> Vec<PeerId> {
        let mut nearest = self.known_nearest(at, key, copies).await;
        if copies >= K {
            let apart = self.nearest_apart(at, key, copies).await;
            nearest.extend(apart.into_iter().filter(|peer| !nearest.contains(peer)).collect::<Vec<_>>());
        }
        nearest
    }

    /// The `copies` nearest nodes of which not more than `of_group` are in one address group, as far as there are
    /// such among the [`FAR`] nearest.
    async fn nearest_apart(&mut self, at: Position, key: Key, copies: usize) -> Vec<PeerId> {
        let mut wanted = copies;
        loop {
            let nearest = self.known_nearest(at, key, wanted).await;
            let apart = self.apart(&nearest, copies);
            if apart.len() >= copies || nearest.len() < wanted || wanted >= FAR {
                return apart;
            }
            wanted *= 2;
        }
    }

    /// The first `most` of `nearest` that are not crowded together.
    fn apart(&self, nearest: &[PeerId], most: usize) -> Vec<PeerId> {
        let (mut of_group, mut apart) = (HashMap::<Group, usize>::new(), Vec::new());
        for peer in nearest {
            let told = self.atlas.addresses.get(peer).map(Vec::as_slice).unwrap_or_default();
            // Each address counts: who says to be in many places gains nothing by it.
            let groups: HashSet<Group> = told.iter().filter_map(ip_of).filter_map(Group::of).collect();
            let is_crowded =
                groups.iter().any(|group| of_group.get(group).is_some_and(|n| *n >= self.dht.of_group));
            if !is_crowded && apart.len() < most {
                apart.push(*peer);
                groups.into_iter().for_each(|group| *of_group.entry(group).or_default() += 1);
            }
        }
        apart
    }

    /// The `count` nearest nodes of a key, looked up as far as that is needed.
    async fn known_nearest(&mut self, at: Position, key: Key, count: usize) -> Vec<PeerId> {
        while let Err(missing) = self.atlas.regions.nearest(at, count) {
            if self.look_ups >= MAX_LOOK_UPS {
                break;
            }
            let target = if missing.length() == BITS { Some(key) } else { missing.some_key() };
            let Some(target) = target else {
                self.atlas.regions.settle(missing);
                continue;
            };
            self.look_ups += 1;
            let Some(Closest { nodes, whole, sound }) =
                self.dht.ask(|done| Command::Closest { key: target, done }).await
            else {
                // The room has stopped.
                return Vec::new();
            };
            self.is_sound &= sound;
            let found: Vec<_> = nodes.iter().map(|node| node.peer).collect();
            self.atlas.addresses.extend(nodes.into_iter().map(|node| (node.peer, node.addresses)));
            if whole {
                self.atlas.regions.learn(Position::of_key(&target), &found);
            } else {
                found.into_iter().for_each(|peer| self.atlas.regions.add(peer));
                self.atlas.regions.settle(missing);
            }
        }
        self.atlas.regions.nearest_known(at, count)
    }

    /// Where a node is.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.atlas.addresses.get(peer).cloned().unwrap_or_default()
    }

    /// Keeps what was learnt for what follows, but for those that are `dead`; nothing where many
    /// did not answer a look-up: it may be the half of a network.
    pub(super) fn end(mut self, dead: &HashSet<PeerId>) {
        if !self.is_sound {
            return;
        }
        for peer in dead {
            self.atlas.regions.remove(peer);
            self.atlas.addresses.remove(peer);
        }
        self.dht.shelf.put(self.atlas);
    }
}
