//! Which relays are known and used: of different address groups, where there is a choice.
//!
//! Owns: that rule. Pure. Refuses: nothing. Survives a crash: nothing.
//!
//! A relay sees who asks for this node, and may let nobody through. Who owns one group shall not be all that there is.

use std::collections::HashMap;

use libp2p::PeerId;

use super::records::Group;

/// A relay and where it is; those without a global address are one group.
pub(super) type Offer = (PeerId, Option<Group>);

/// At most `most` of `fresh` to be used besides those at `used`: of other groups first.
pub(super) fn choose(fresh: &[Offer], used: &[Offer], most: usize) -> Vec<PeerId> {
    let mut groups: Vec<_> = used.iter().map(|(_, group)| *group).collect();
    let mut left = fresh.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < most && !left.is_empty() {
        let other = left.iter().position(|(_, group)| !groups.contains(group));
        let (peer, group) = left.swap_remove(other.unwrap_or(0));
        groups.push(group);
        chosen.push(peer);
    }
    chosen
}

/// One of `used` that is of a group with another.
pub(super) fn crowded(used: &[Offer]) -> Option<PeerId> {
    let is_shared = |one: &&Offer| used.iter().any(|other| other.0 != one.0 && other.1 == one.1);
    used.iter().find(is_shared).map(|(peer, _)| *peer)
}

/// Which of `known`, of which there are enough, is forgotten for one of `group`: one of the largest group, where that
/// is larger by two.
pub(super) fn gives_way(known: &[Offer], group: Option<Group>) -> Option<PeerId> {
    let mut count = HashMap::<Option<Group>, usize>::new();
    known.iter().for_each(|(_, group)| *count.entry(*group).or_default() += 1);
    let own = count.get(&group).copied().unwrap_or(0);
    let (largest, most) = count.into_iter().max_by_key(|(_, count)| *count)?;
    let one = known.iter().find(|(_, group)| *group == largest).filter(|_| most > own + 1);
    one.map(|(peer, _)| *peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(network: u8) -> Offer {
        (PeerId::random(), Group::of([20, network, 1, 1].into()))
    }

    #[test]
    fn relays_are_of_different_groups_where_there_is_a_choice() {
        let (crowd, other): (Vec<_>, _) = ((0..9).map(|_| of(1)).collect(), of(2));
        let both: Vec<_> = crowd.iter().copied().chain([other]).collect();
        for _ in 0..20 {
            assert!(choose(&both, &[], 2).contains(&other.0));
            assert_eq!(choose(&both, &[of(1)], 1), [other.0]);
        }
        assert_eq!(choose(&crowd, &[of(1)], 1).len(), 1, "no choice");
        assert!(choose(&[], &[], 2).is_empty() && choose(&crowd, &[], 0).is_empty());
    }

    #[test]
    fn one_of_a_crowd_goes() {
        let (first, second) = (of(1), of(1));
        assert!(crowded(&[first, of(2), second]).is_some_and(|one| [first.0, second.0].contains(&one)));
        assert_eq!(crowded(&[first, of(2), of(3)]), None);
        let mut known: Vec<_> = (0..4).map(|_| of(1)).collect();
        let gone = gives_way(&known, of(2).1);
        assert!(known.iter().any(|(peer, _)| gone == Some(*peer)));
        assert_eq!(gives_way(&known, of(1).1), None);
        known.extend((0..3).map(|_| of(2)));
        assert_eq!(gives_way(&known, of(2).1), None, "there would be no end to it");
        assert_eq!(gives_way(&[], None), None);
    }
}
