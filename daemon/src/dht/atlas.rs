//! What announcing has learnt of the network's nodes, kept from one announcement to the next.
//!
//! Owns: the regions that are known, where their nodes are, and how long that is believed. So a node that
//! announces a million keys in many rounds looks each part of the network up once, and the number of look-ups
//! is one of nodes, not of keys. Refuses: to be believed for long, or when the routing table of a small network
//! has changed. Survives a crash: nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use super::records::Group;
use super::regions::{K, Regions};
use super::survey::Places;

/// How long nodes are believed to be where they were: within it few come and go, and those that went are found out by
/// sending to them.
const FRESH: Duration = Duration::from_mins(10);
/// With fewer nodes in the routing table than this, each one counts: what was learnt is dropped when their number
/// changes.
const SMALL: usize = 2 * K;

/// What is known of the nodes.
#[derive(Clone, Debug)]
pub(super) struct Atlas {
    /// Who they are, and in which parts of the key space all are known.
    pub(super) regions: Regions,
    /// Where they are said to be…
    pub(super) addresses: HashMap<PeerId, Vec<Multiaddr>>,
    /// …and where they were seen.
    pub(super) places: HashMap<PeerId, Places>,
    /// Nodes in the routing table when this was begun.
    routed: usize,
    /// When it was begun.
    since: Instant,
}

/// Where the latest is kept. Announcements work on copies, so that several may go on at once.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Option<Atlas>>);

// === impl Atlas ===

impl Atlas {
    /// Nothing is known but `own`, which is this node where it keeps records itself.
    fn new(own: Option<PeerId>, routed: usize, now: Instant) -> Self {
        let mut regions = Regions::default();
        own.into_iter().for_each(|peer| regions.add(peer));
        Self { regions, addresses: HashMap::new(), places: HashMap::new(), routed, since: now }
    }

    /// A node was seen there. Where one was seen that is not connected any more stays known.
    pub(super) fn place(&mut self, peer: PeerId, places: Places) {
        let is_unseen = places.contains(&Group::UNSEEN);
        if !(is_unseen && self.places.contains_key(&peer)) {
            self.places.insert(peer, places);
        }
    }

    /// A node is not there.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.regions.remove(peer);
        self.addresses.remove(peer);
        self.places.remove(peer);
    }

    fn is_fresh(&self, routed: usize, now: Instant) -> bool {
        let is_same = routed == self.routed || routed.min(self.routed) >= SMALL;
        is_same && now.saturating_duration_since(self.since) < FRESH
    }
}

// === impl Shelf ===

impl Shelf {
    /// A copy of what is known, or a new one when that is no longer believed. `routed`: nodes in the routing
    /// table now.
    pub(super) fn take(&self, own: Option<PeerId>, routed: usize, now: Instant) -> Atlas {
        let kept = self.kept();
        let fresh = kept.as_ref().filter(|atlas| atlas.is_fresh(routed, now)).cloned();
        fresh.unwrap_or_else(|| Atlas::new(own, routed, now))
    }

    /// Keeps what an announcement has learnt, unless one that began later is kept. An empty network is not kept:
    /// the first node that comes changes all.
    pub(super) fn put(&self, atlas: Atlas) {
        let mut kept = self.kept();
        let is_later = kept.as_ref().is_none_or(|kept| kept.since <= atlas.since);
        if is_later && !atlas.addresses.is_empty() {
            *kept = Some(atlas);
        }
    }

    /// A node is there. Of a small network nothing is believed that does not know it: it may have come in the place of
    /// another, or be back.
    pub(super) fn met(&self, peer: &PeerId) {
        let is_missing = |atlas: &mut Atlas| atlas.routed < SMALL && !atlas.addresses.contains_key(peer);
        drop(self.kept().take_if(is_missing));
    }

    /// A node that an announcement has not waited for has failed.
    pub(super) fn gone(&self, peer: &PeerId) {
        self.kept().iter_mut().for_each(|atlas| atlas.forget(peer));
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Option<Atlas>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::position::Position;

    fn learnt(shelf: &Shelf, routed: usize, now: Instant, nodes: usize) -> Atlas {
        let mut atlas = shelf.take(None, routed, now);
        let found: Vec<_> = (0..nodes).map(|_| PeerId::random()).collect();
        atlas.regions.learn(Position::of_peer(&PeerId::random()), &found, 0);
        atlas.addresses.extend(found.into_iter().map(|peer| (peer, Vec::new())));
        atlas
    }

    #[test]
    fn what_was_learnt_is_used_again_while_it_is_fresh() {
        let (shelf, now) = (Shelf::default(), Instant::now());
        shelf.put(learnt(&shelf, 50, now, 10));
        assert_eq!(shelf.take(None, 50, now).regions.len(), 10);
        assert_eq!(shelf.take(None, 41, now + FRESH / 2).regions.len(), 10);
        assert_eq!(shelf.take(None, 39, now).regions.len(), 0);
        assert_eq!(shelf.take(None, 50, now + FRESH).regions.len(), 0);
        assert_eq!(shelf.take(Some(PeerId::random()), 50, now + FRESH).regions.len(), 1);
    }

    #[test]
    fn in_a_small_network_each_node_counts_and_nobody_is_not_kept() {
        let (shelf, now) = (Shelf::default(), Instant::now());
        shelf.put(learnt(&shelf, 0, now, 0));
        assert!(shelf.kept().is_none());
        shelf.put(learnt(&shelf, 3, now, 3));
        assert_eq!(shelf.take(None, 3, now).regions.len(), 3);
        assert_eq!(shelf.take(None, 4, now).regions.len(), 0);
        for (routed, is_kept) in [(3, false), (SMALL, true)] {
            let atlas = learnt(&shelf, routed, now, 3);
            let known = atlas.addresses.keys().next().copied().unwrap();
            shelf.put(atlas);
            shelf.met(&known);
            assert!(shelf.kept().is_some());
            shelf.met(&PeerId::random());
            assert_eq!(shelf.kept().is_some(), is_kept);
        }
    }

    #[test]
    fn who_was_seen_somewhere_is_not_unseen_since_its_connection_has_ended() {
        let mut atlas = Atlas::new(None, 50, Instant::now());
        let (seen, unseen) = (PeerId::random(), PeerId::random());
        let group = |ip: &str| Places::from_iter(Group::of(ip.parse().unwrap()));
        atlas.place(seen, group("8.8.8.8"));
        for peer in [seen, unseen] {
            atlas.place(peer, Places::from([Group::UNSEEN]));
        }
        assert_eq!(atlas.places[&seen], group("8.8.8.8"));
        assert_eq!(atlas.places[&unseen], Places::from([Group::UNSEEN]));
        for peer in [seen, unseen] {
            atlas.place(peer, group("9.9.9.9"));
            assert_eq!(atlas.places[&peer], group("9.9.9.9"));
        }
    }

    #[test]
    fn the_older_one_of_two_announcements_does_not_undo_the_other() {
        let (shelf, now) = (Shelf::default(), Instant::now());
        let (small, large) = (learnt(&shelf, 50, now, 5), learnt(&shelf, 50, now + FRESH, 9));
        shelf.put(large);
        shelf.put(small);
        assert_eq!(shelf.take(None, 50, now + FRESH).regions.len(), 9);
    }
}
