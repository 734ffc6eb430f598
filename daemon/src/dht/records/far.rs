//! Which keys are for others to keep.
//!
//! Owns: the nodes by which that is judged, with where each was last seen. Refuses: keys that many of them are nearer
//! to than this node; but the ids of one address group do not count as many, for whoever makes ids up makes them near
//! what he likes. Survives a crash: nothing.

use std::collections::HashMap;

use libp2p::PeerId;

use super::{Group, Records};
use crate::dht::Key;
use crate::dht::position::Position;
use crate::dht::regions::K;

/// A key is too far when this many known nodes are nearer: twice K, since an announcer may not know of
/// nodes that we know, and the other way round.
const MAX_NEARER: usize = 2 * K;
/// Of these, in one address group: as many as are trusted where a key is placed. A host makes ids up that are nearer.
const NEARER_OF_GROUP: usize = 2;

/// A node of the routing table.
#[derive(Debug)]
pub(super) struct Known {
    /// Who.
    peer: PeerId,
    /// Its place in the key space.
    place: Position,
    /// Where it was last seen.
    group: Option<Group>,
}

// === impl Records ===

impl Records {
    /// Replaces the nodes by which distance is judged: those of the routing table.
    pub(in crate::dht) fn know(&mut self, nodes: &[PeerId]) {
        let before: HashMap<_, _> = self.known.iter().map(|node| (node.peer, node.group)).collect();
        let group = |peer: &PeerId| {
            let seen = self.contacts.get(peer).map(|contact| contact.group);
            seen.or_else(|| before.get(peer).copied()).unwrap_or(Some(Group::UNSEEN))
        };
        let known = |peer: &PeerId| Known { peer: *peer, place: Position::of_peer(peer), group: group(peer) };
        let mut all: Vec<_> = nodes.iter().map(known).collect();
        all.sort_unstable_by_key(|node| node.group);
        self.known = all;
    }

    /// Whether many known nodes are nearer to the key. What is in no address group counts by itself.
    pub(super) fn is_far(&self, key: &Key) -> bool {
        if self.known.len() < MAX_NEARER {
            return false;
        }
        let at = Position::of_key(key);
        let ours = self.place.distance(at);
        let nearer = |of: &[Known]| of.iter().filter(|node| node.place.distance(at) < ours).count();
        let groups = self.known.chunk_by(|a, b| a.group.is_some() && a.group == b.group);
        groups.map(|alike| nearer(alike).min(NEARER_OF_GROUP)).sum::<usize>() >= MAX_NEARER
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::tests::{HOUR, key, store};
    use super::*;

    #[test]
    fn a_far_key_is_refused_when_many_nodes_are_nearer() {
        let (mut records, now) = store(10_000);
        let peers: Vec<_> = (0..400).map(|_| PeerId::random()).collect();
        peers.iter().for_each(|peer| records.opened(*peer, None));
        records.know(&peers);
        let nodes: Vec<_> = peers.iter().map(Position::of_peer).collect();
        let peer = PeerId::random();
        let (mut near, mut far) = (0, 0);
        for n in 0..2_000 {
            let at = Position::of_key(&key(n));
            let nearer = nodes.iter().filter(|node| node.distance(at) < records.place.distance(at)).count();
            match records.put(key(n), peer, HOUR, now) {
                Verdict::Taken => near += usize::from(nearer < MAX_NEARER),
                Verdict::Far => far += usize::from(nearer >= MAX_NEARER),
                Verdict::Full => panic!("there is room"),
            }
        }
        assert_eq!(near + far, 2_000);
        assert!(near > 0 && far > near);
    }

    #[test]
    fn one_host_with_many_ids_makes_no_key_too_far() {
        let (mut records, now) = store(100);
        // In the other half of the key space, so that there are such ids.
        let number = (0..).find(|number| records.far(&key(*number)) >> 31 == 1).unwrap();
        let (at, place) = (Position::of_key(&key(number)), records.place);
        let is_nearer = |peer: &PeerId| Position::of_peer(peer).distance(at) < place.distance(at);
        let nearer = || std::iter::repeat_with(PeerId::random).filter(is_nearer).take(MAX_NEARER);
        let offer = |records: &mut Records| records.put(key(number), PeerId::random(), HOUR, now);

        let ids: Vec<_> = nearer().collect();
        ids.iter().for_each(|peer| records.opened(*peer, Group::of([8, 8, 1, 1].into())));
        records.know(&ids);
        assert_eq!(offer(&mut records), Verdict::Taken);
        // Nor when it has gone, nor if it was there too briefly.
        ids.iter().for_each(|peer| records.parted(peer));
        records.know(&ids);
        assert_eq!(offer(&mut records), Verdict::Taken);
        records.know(&nearer().collect::<Vec<_>>());
        assert_eq!(offer(&mut records), Verdict::Taken);
        // As many nodes of many networks do, also those that are not connected any more.
        let nodes: Vec<_> = nearer().collect();
        for (net, peer) in (1..).zip(&nodes) {
            records.opened(*peer, Group::of([9, net, 1, 1].into()));
        }
        records.know(&nodes);
        nodes.iter().for_each(|peer| records.parted(peer));
        records.know(&nodes);
        assert_eq!(offer(&mut records), Verdict::Far);
    }
}
