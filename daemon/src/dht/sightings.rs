//! Where others say they see this node, and which of that is told to those with whom it dials at once.
//!
//! Owns: what was said, by whom, and the choice. Pure. Refuses: more sayings of one peer, of one address group and in
//! all than its limits. Survives a crash: nothing.
//!
//! Whoever is connected may say anything, and again and again. Twenty addresses are told (as many as libp2p's DCUtR
//! keeps), so that a few liars could leave no room for the one that is right. Therefore it is chosen when it is needed:
//! first what most address groups say, then of each group in turn one more, of the last said first. One host has many
//! ids, but one group; a group says as much as another.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};

use libp2p::{Multiaddr, PeerId};

use super::records::Group;

/// Addresses that are told.
pub(super) const TOLD: usize = 20;
/// Of one peer: two transports of two versions of IP.
const OF_PEER: usize = 4;
/// Of one address group; those who are not at a global address are one as well.
const OF_GROUP: usize = 8;
/// In all, about 200 bytes each.
const MOST: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sightings(VecDeque<Saying>);

#[derive(Debug, PartialEq, Eq)]
struct Saying {
    peer: PeerId,
    /// Where the peer is.
    group: Option<Group>,
    address: Multiaddr,
}

// === impl Sightings ===

impl Sightings {
    /// `peer`, who is at `group`, sees this node at `address`. The oldest gives way, of the peer or of its group.
    pub(super) fn say(&mut self, peer: PeerId, group: Option<Group>, address: Multiaddr) {
        let new = Saying { peer, group, address };
        self.0.retain(|old| *old != new);
        self.make_room(OF_PEER, |old| old.peer == peer);
        self.make_room(OF_GROUP, |old| old.group == group);
        self.make_room(MOST, |_| true);
        self.0.push_back(new);
    }

    /// Forgets the oldest of those that `is_one` is true of, where there are `most`.
    fn make_room(&mut self, most: usize, is_one: impl Fn(&Saying) -> bool) {
        if self.0.iter().filter(|old| is_one(old)).count() < most {
            return;
        }
        if let Some(oldest) = self.0.iter().position(is_one) {
            self.0.remove(oldest);
        }
    }

    /// At most `most` addresses, the best first.
    pub(super) fn best(&self, most: usize) -> Vec<Multiaddr> {
        self.ranked().into_iter().take(most).map(|(address, _)| address).collect()
    }

    /// All addresses, the best first, each with how many address groups say it.
    pub(super) fn ranked(&self) -> Vec<(Multiaddr, usize)> {
        let mut groups = HashMap::<&Multiaddr, HashSet<Option<Group>>>::new();
        for saying in &self.0 {
            groups.entry(&saying.address).or_default().insert(saying.group);
        }
        let support = |address: &Multiaddr| groups.get(address).map_or(0, HashSet::len);
        let mut newest: Vec<_> = self.0.iter().rev().collect();
        newest.sort_by_key(|saying| Reverse(support(&saying.address)));
        // How many of its group, and in all, go before it.
        let mut turns = HashMap::<Option<Group>, usize>::new();
        let mut ranked = Vec::new();
        for saying in newest {
            let turn = turns.entry(saying.group).or_default();
            ranked.push((Reverse(support(&saying.address)), *turn, &saying.address));
            *turn += 1;
        }
        ranked.sort_by_key(|(support, turn, _)| (*support, *turn));
        let mut seen = HashSet::new();
        let once = ranked.into_iter().filter(|(_, _, address)| seen.insert(*address));
        once.map(|(Reverse(support), _, address)| (address.clone(), support)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen_at(port: usize) -> Multiaddr {
        format!("/ip4/203.0.113.1/udp/{port}/quic-v1").parse().unwrap()
    }

    fn group(number: usize) -> Option<Group> {
        Group::of([20, u8::try_from(number).unwrap(), 1, 1].into())
    }

    #[test]
    fn liars_of_few_groups_leave_room_for_the_one_that_is_right() {
        let (mut sightings, right) = (Sightings::default(), seen_at(8468));
        sightings.say(PeerId::random(), group(99), right.clone());
        for lie in 0..2_000 {
            sightings.say(PeerId::random(), group(lie % 12), seen_at(10_000 + lie));
        }
        let best = sightings.best(TOLD);
        assert_eq!(best.len(), TOLD);
        assert!(best.contains(&right), "{best:?}");
    }

    #[test]
    fn what_several_groups_say_goes_first() {
        let (mut sightings, right) = (Sightings::default(), seen_at(8468));
        for honest in [98, 99] {
            sightings.say(PeerId::random(), group(honest), right.clone());
        }
        for lie in 0..30 {
            let ids = [PeerId::random(), PeerId::random()];
            ids.into_iter().for_each(|id| sightings.say(id, group(lie), seen_at(10_000 + lie)));
        }
        assert_eq!(sightings.best(TOLD).first(), Some(&right));
    }

    #[test]
    fn nobody_says_more_than_its_share() {
        let (mut sightings, peer) = (Sightings::default(), PeerId::random());
        for port in 1..100 {
            sightings.say(peer, group(1), seen_at(port));
            sightings.say(peer, group(1), seen_at(port));
        }
        let last: Vec<_> = (96..100).rev().map(seen_at).collect();
        assert_eq!(sightings.best(TOLD), last, "the last said");
        for port in 1..100 {
            sightings.say(PeerId::random(), None, seen_at(port));
        }
        assert_eq!(sightings.0.len(), OF_PEER + OF_GROUP);
        for number in 0..1_000 {
            sightings.say(PeerId::random(), group(number % 200), seen_at(1));
        }
        assert_eq!(sightings.0.len(), MOST);
    }
}
