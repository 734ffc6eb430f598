//! Which nodes are nearest to a key, and whether that is known for certain.
//!
//! Owns: the nodes found so far and the parts of the key space in which *all* nodes are known. Pure: it says
//! where to look next, somebody else looks. Refuses: nothing. Survives a crash: nothing.
//!
//! How it knows: a look-up at a position is told of at least its K nearest nodes, and asks them. Every node that shares
//! more bits with that position than the farthest of them must be among them, so that prefix is complete. Some may not
//! answer: as many fewer of the nearest that do are the nearest that there are. Fewer than K, with those that do not
//! answer, mean that there are no more: the whole space is complete. A key's nearest nodes are certain when
//! the smallest complete prefix around it holds enough of them, for whatever lies outside is farther.

use std::collections::BTreeSet;

use libp2p::PeerId;

use super::position::{BITS, Position, Prefix};

/// Nodes that a full look-up answers with: Kademlia's k in `libp2p-kad`.
pub(super) const K: usize = libp2p::kad::K_VALUE.get();

/// So many of the nearest are taken for those that there are, however many others did not answer, and fewer for all:
/// where half a network is gone, or a liar names nodes that are not there, each look-up takes long, and they are to
/// have an end. What is placed by such look-ups is placed again (see [`survey`](super::survey)).
const LEAST: usize = K / 2;

/// What is known of the nodes of the network.
#[derive(Clone, Debug, Default)]
pub(super) struct Regions {
    /// Every node found, by position.
    nodes: Vec<(Position, PeerId)>,
    /// Prefixes in which every node is known: disjoint, and never both halves of one.
    complete: BTreeSet<Prefix>,
}

impl Regions {
    /// Adds one node that is known from elsewhere, such as this one.
    pub(super) fn add(&mut self, peer: PeerId) {
        let entry = (Position::of_peer(&peer), peer);
        if let Err(place) = self.nodes.binary_search(&entry) {
            self.nodes.insert(place, entry);
        }
    }

    /// Takes the answer of a look-up that ran to its end at `target`: the nearest nodes that answered, up to [`K`],
    /// nearest first, and how many of those that were asked did not.
    pub(super) fn learn(&mut self, target: Position, found: &[PeerId], unanswered: usize) {
        found.iter().for_each(|peer| self.add(*peer));
        let certain = K.saturating_sub(unanswered).max(LEAST).min(found.len());
        let is_all = found.len() + unanswered < K || found.len() < LEAST;
        let farthest = found[..certain].last().filter(|_| !is_all);
        self.settle(farthest.map_or(Prefix::ALL, |peer| {
            Prefix::of(target, Position::of_peer(peer).common_prefix(target) + 1)
        }));
    }

    /// Declares `prefix` complete: proved, or given up on after a look-up there failed.
    pub(super) fn settle(&mut self, prefix: Prefix) {
        if self.covering(prefix.first()).is_some_and(|known| known.covers(prefix)) {
            return;
        }
        self.complete.retain(|known| !prefix.covers(*known));
        let mut whole = prefix;
        while let (Some(sibling), Some(parent)) = (whole.sibling(), whole.parent()) {
            if !self.complete.remove(&sibling) {
                break;
            }
            whole = parent;
        }
        self.complete.insert(whole);
    }

    /// The `copies` nodes nearest to `key`, nearest first; or the part of the space to look at before that
    /// can be said.
    pub(super) fn nearest(&self, key: Position, copies: usize) -> Result<Vec<PeerId>, Prefix> {
        let Some(known) = self.covering(key) else { return Err(Prefix::of(key, BITS)) };
        if let Some(sibling) = known.sibling()
            && self.count(known) < copies
        {
            return Err(self.gap(sibling).unwrap_or(sibling));
        }
        Ok(self.nearest_known(key, copies))
    }

    /// The `copies` nearest of the nodes found so far, nearest first, certain or not.
    pub(super) fn nearest_known(&self, key: Position, copies: usize) -> Vec<PeerId> {
        // The smallest prefix around the key that still holds enough: all outside it are farther.
        let mut around = Prefix::ALL;
        while around.length() < BITS {
            let inner = Prefix::of(key, around.length() + 1);
            if self.count(inner) < copies {
                break;
            }
            around = inner;
        }
        let mut near: Vec<_> =
            self.within(around).iter().map(|(at, peer)| (at.distance(key), *peer)).collect();
        near.sort_unstable_by_key(|(distance, _)| *distance);
        near.truncate(copies);
        near.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Forgets a node that did not answer. It may be there all the same, as where this node's own network has failed
    /// it: the smallest part around it with [`K`] nodes, which one look-up can tell of, is to be looked at again.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        let at = Position::of_peer(peer);
        let Ok(place) = self.nodes.binary_search(&(at, *peer)) else { return };
        self.nodes.remove(place);
        let Some(mut part) = self.covering(at) else { return };
        self.complete.remove(&part);
        while let inner = Prefix::of(at, part.length() + 1)
            && self.count(inner) >= K
        {
            self.complete.extend(inner.sibling());
            part = inner;
        }
    }

    /// How many nodes have been found.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The complete prefix that holds `position`.
    fn covering(&self, position: Position) -> Option<Prefix> {
        let before = self.complete.range(..=Prefix::of(position, BITS)).next_back();
        before.copied().filter(|prefix| prefix.contains(position))
    }

    /// The first part of `prefix` that holds nothing complete; `None` when all of it is complete.
    fn gap(&self, prefix: Prefix) -> Option<Prefix> {
        if self.covering(prefix.first()).is_some_and(|known| known.covers(prefix)) {
            return None;
        }
        if !self.complete.iter().any(|known| prefix.covers(*known)) {
            return Some(prefix);
        }
        let (left, right) = prefix.halves()?;
        self.gap(left).or_else(|| self.gap(right))
    }

    fn within(&self, prefix: Prefix) -> &[(Position, PeerId)] {
        let from = self.nodes.partition_point(|(at, _)| *at < prefix.first());
        let to = self.nodes.partition_point(|(at, _)| *at <= prefix.last());
        &self.nodes[from..to]
    }

    fn count(&self, prefix: Prefix) -> usize {
        self.within(prefix).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::Key;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    /// The network as an all-knowing observer sees it.
    fn closest(all: &[PeerId], target: Position, count: usize) -> Vec<PeerId> {
        let mut sorted = all.to_vec();
        sorted.sort_by_key(|peer| Position::of_peer(peer).distance(target));
        sorted.truncate(count);
        sorted
    }

    /// Places every key as the announcer does; gives the number of look-ups.
    fn place(all: &[PeerId], keys: &[Key], copies: usize) -> usize {
        let mut regions = Regions::default();
        let mut look_ups = 0;
        let mut sorted: Vec<_> = keys.iter().map(|key| (Position::of_key(key), *key)).collect();
        sorted.sort_unstable();
        for (at, key) in sorted {
            let nearest = loop {
                match regions.nearest(at, copies) {
                    Ok(nearest) => break nearest,
                    Err(missing) if missing.length() == BITS => {
                        assert_eq!(Position::of_key(&key), missing.first());
                        regions.learn(missing.first(), &closest(all, missing.first(), K), 0);
                    }
                    Err(missing) => {
                        let target = Position::of_key(&missing.some_key().unwrap());
                        regions.learn(target, &closest(all, target, K), 0);
                    }
                }
                look_ups += 1;
            };
            assert_eq!(nearest, closest(all, at, copies));
        }
        look_ups
    }

    #[test]
    fn a_small_network_takes_one_look_up() {
        let all: Vec<_> = (0..19).map(|_| PeerId::random()).collect();
        let keys: Vec<Key> = (0..100u8).map(|n| [n; 32]).collect();
        assert_eq!(place(&all, &keys, 20), 1);
        assert_eq!(place(&[], &keys, 20), 1);
    }

    #[test]
    fn nodes_that_are_taken_for_dead_are_found_again() {
        let all: Vec<_> = (0..300).map(|_| PeerId::random()).collect();
        let mut regions = Regions::default();
        all.iter().for_each(|peer| regions.add(*peer));
        regions.settle(Prefix::ALL);
        let key = Position::of_key(&[7; 32]);
        // All that were told of one object, while this node's own network had failed.
        for peer in closest(&all, key, 2 * K) {
            regions.remove(&peer);
        }
        let mut look_ups = 0;
        let nearest = loop {
            match regions.nearest(key, 2 * K) {
                Ok(nearest) => break nearest,
                Err(missing) => {
                    let target = match missing.some_key() {
                        Some(target) => Position::of_key(&target),
                        None => missing.first(),
                    };
                    regions.learn(target, &closest(&all, target, K), 0);
                    look_ups += 1;
                }
            }
        };
        assert_eq!(nearest, closest(&all, key, 2 * K));
        // What is far from them is known as before.
        assert!(
            look_ups < 20
                && regions
                    .nearest(all.iter().map(Position::of_peer).max_by_key(|at| at.distance(key)).unwrap(), K)
                    .is_ok(),
            "{look_ups}"
        );
    }

    #[test]
    fn those_that_do_not_answer_make_no_far_part_known() {
        let all: Vec<_> = (0..120).map(|_| PeerId::random()).collect();
        let near = Position::of_key(&[1; 32]);
        // In the other half, the first of those positions.
        let far = Prefix::of(near, 1).sibling().unwrap().first();
        for unanswered in 0..=K - LEAST {
            let mut regions = Regions::default();
            // All that were asked are the nearest; some of them, wherever, did not answer, and nobody named others.
            let mut found = closest(&all, near, K);
            for _ in 0..unanswered {
                found.remove(rand::random_range(0..found.len()));
            }
            regions.learn(near, &found, unanswered);
            assert!(regions.nearest(far, 1).is_err(), "{unanswered}");
            assert_eq!(regions.nearest_known(near, 1), found[..1]);
            let known = regions.covering(near).unwrap();
            let there = all.iter().filter(|peer| known.contains(Position::of_peer(peer))).count();
            assert!(there <= K, "{there} in what is known");
        }
        // Nearly nobody answers: it has an end.
        let mut regions = Regions::default();
        regions.learn(near, &closest(&all, near, LEAST - 1), 100);
        assert!(regions.nearest(far, 20).is_ok());
        // A network that is small, of which some do not answer.
        let mut regions = Regions::default();
        regions.learn(near, &all[..10], 9);
        assert!(regions.nearest(far, 20).is_ok());
    }

    #[test]
    fn look_ups_grow_with_nodes_and_not_with_keys() {
        let all: Vec<_> = (0..300).map(|_| PeerId::random()).collect();
        let keys: Vec<Key> = (0..2_000u32)
            .map(|n| {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&n.to_le_bytes());
                key
            })
            .collect();
        // Each look-up proves at least about half of its twenty nodes: 300 / 10, with room for bad luck.
        let look_ups = place(&all, &keys, 4);
        assert!(look_ups <= 90, "{look_ups}");
        let look_ups = place(&all, &keys, 20);
        assert!(look_ups <= 90, "{look_ups}");
    }

    proptest! {
        #[test]
        fn settled_prefixes_stay_disjoint(cuts in proptest::collection::vec((any::<[u8; 32]>(), 0u16..=6), 1..60)) {
            let mut regions = Regions::default();
            for (seed, length) in cuts {
                regions.settle(Prefix::of(Position::of_key(&seed), length));
                prop_assert!(regions.covering(Position::of_key(&seed)).is_some());
            }
            let all: Vec<_> = regions.complete.iter().copied().collect();
            for (i, a) in all.iter().enumerate() {
                for (j, b) in all.iter().enumerate() {
                    prop_assert!(i == j || !a.covers(*b));
                }
                prop_assert!(a.sibling().is_none_or(|other| !regions.complete.contains(&other)));
            }
            prop_assert_eq!(regions.gap(Prefix::ALL).is_none(), regions.complete.contains(&Prefix::ALL));
        }
    }
}
