//! Among whom the store is shared, and who gives way when it is full.
//!
//! Owns: who has how much here. An owner is an address group, for a host has as many ids as it likes. A source that is
//! in none (of a network of one's own, or not seen since the start) is an owner by itself; but of the places for
//! sources all of these have one share, or what a flood left before the start would keep newcomers out. Refuses: room
//! to who has as much as those that would have to give way. Survives a crash: nothing; it is counted anew.

use std::collections::{BTreeSet, HashMap};

use rand::Rng;

use super::Records;
use super::source::Group;
use crate::dht::Key;

/// How many of the sources that are in no group are drawn to find one that is small: of all of them it would be the
/// newest each time.
const DRAWN: usize = 8;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    /// All that are seen there.
    Group(Group),
    /// The source of this number.
    Alone(u32),
}

/// Who has what. Four entries for each source, about 100 bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owners {
    /// What each has that has records.
    has: HashMap<Owner, Has>,
    /// (records, owner), to find the one with the most.
    by_records: BTreeSet<(u32, Owner)>,
    /// (sources, group), for the same.
    by_sources: BTreeSet<(u32, Group)>,
    /// Sources that have records and are in no group.
    alone: u32,
    /// (owner, records, source) of the sources that have records.
    sources: BTreeSet<(Owner, u32, u32)>,
    /// The sources that have none.
    idle: BTreeSet<u32>,
}

/// What one owner has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Has {
    /// Sources that have records.
    sources: u32,
    /// Records of all of them.
    records: u32,
}

// === impl Owners ===

impl Owners {
    /// Source `number` of `owner` had `from` records, and has `to`.
    pub(super) fn recount(&mut self, owner: Owner, number: u32, from: u32, to: u32) {
        let (had, holds) = (u32::from(from > 0), u32::from(to > 0));
        let has = self.has.entry(owner).or_default();
        let before = *has;
        has.sources = has.sources.saturating_sub(had) + holds;
        has.records = has.records.saturating_sub(from) + to;
        let now = *has;
        if now.sources == 0 {
            self.has.remove(&owner);
        }
        self.by_records.remove(&(before.records, owner));
        self.by_records.extend((now.records > 0).then_some((now.records, owner)));
        match owner {
            Owner::Alone(_) => self.alone = self.alone.saturating_sub(had) + holds,
            Owner::Group(group) => {
                self.by_sources.remove(&(before.sources, group));
                self.by_sources.extend((now.sources > 0).then_some((now.sources, group)));
            }
        }
        self.sources.remove(&(owner, from, number));
        self.sources.extend((to > 0).then_some((owner, to, number)));
        self.idle.remove(&number);
        self.idle.extend((to == 0).then_some(number));
    }

    /// A source that has no record is here no more.
    pub(super) fn forget(&mut self, number: u32) {
        self.idle.remove(&number);
    }

    /// Who gives way to a source of `owner` that has so many records: of the owner with the most, where that has more
    /// than this one would then, and else of the source's own, whoever has the most. Nobody, where that is no more than
    /// the source has itself.
    fn larger(&self, owner: Owner, records: u32) -> Option<u32> {
        let own = self.has.get(&owner).map_or(0, |has| has.records);
        let other = self.by_records.last().filter(|(most, _)| *most > own + 1).map(|(_, other)| *other);
        let from = other.unwrap_or(owner);
        let (_, most, number) = self.sources.range((from, 0, 0)..=(from, u32::MAX, u32::MAX)).next_back()?;
        (other.is_some() || *most > records + 1).then_some(*number)
    }

    /// Whose place is given to another: who has no record, else a small one of the group with the most sources, or of
    /// those that are in none if they are more. Nobody, where there are no sources.
    fn smallest(&self) -> Option<u32> {
        if let Some(idle) = self.idle.first() {
            return Some(*idle);
        }
        match self.by_sources.last() {
            Some((sources, group)) if *sources > self.alone => self.smallest_of(Owner::Group(*group)),
            _ => self.smallest_alone(),
        }
    }

    /// One of the sources of `owner` with the fewest records.
    fn smallest_of(&self, owner: Owner) -> Option<u32> {
        let (_, fewest, first) = self.sources.range((owner, 0, 0)..).next()?;
        // Any of these: the first one's number is the next newcomer's, who would be the first to go again.
        let alike = |from: u32| self.sources.range((owner, *fewest, from)..=(owner, *fewest, u32::MAX));
        let (_, _, last) = alike(*first).next_back()?;
        alike(rand::rng().random_range(*first..=*last)).next().map(|(_, _, number)| *number)
    }

    /// The smallest of a few of those that are in no group.
    fn smallest_alone(&self) -> Option<u32> {
        // They come behind the groups.
        let (_, _, last) = self.sources.last()?;
        let mut rng = rand::rng();
        let from = (0..DRAWN).map(|_| (Owner::Alone(rng.random_range(0..=*last)), 0, 0));
        let drawn = from.filter_map(|from| self.sources.range(from..).next());
        drawn.min_by_key(|(_, records, _)| *records).map(|(_, _, number)| *number)
    }
}

// === impl Records ===

impl Records {
    /// Drops a record to make room for `key`: the farthest of whoever has more than `source`; else one of the source's
    /// own that is farther from this node.
    pub(super) fn push_out(&mut self, key: &Key, source: u32) -> bool {
        let Some(own) = self.source(source) else { return false };
        if let Some(larger) = self.owners.larger(own.owner(source), own.count) {
            return self.farthest(larger).is_some_and(|(_, key)| self.push_away(&key, larger));
        }
        let far = self.far(key);
        let farther = self.farthest(source).filter(|(farthest, _)| *farthest > far);
        farther.is_some_and(|(_, key)| self.push_away(&key, source))
    }

    /// Drops a source with all that it has, for another.
    pub(super) fn replace_a_source(&mut self) {
        let Some(number) = self.owners.smallest() else { return };
        while let Some((_, key)) = self.farthest(number) {
            self.push_away(&key, number);
        }
        self.drop_source(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(of: &[(Owner, u32)]) -> Owners {
        let mut owners = Owners::default();
        (0..).zip(of).for_each(|(number, (owner, records))| owners.recount(*owner, number, 0, *records));
        owners
    }

    #[test]
    fn whoever_has_the_most_gives_way_to_those_who_have_less() {
        let [one, other] = [8, 9].map(|net| Owner::Group(Group::of([net, 1, 1, 1].into()).unwrap()));
        let owners = owners(&[(one, 3), (one, 5), (one, 4), (other, 7), (Owner::Alone(4), 10)]);
        assert_eq!(owners.larger(other, 7), Some(1), "the larger of the group with twelve");
        assert_eq!(owners.larger(Owner::Alone(4), 10), Some(1));
        assert_eq!(owners.larger(one, 3), Some(1), "of its own group, which has the most");
        assert_eq!(owners.larger(one, 4), None);
        assert_eq!(owners.larger(Owner::Alone(9), 0), Some(1), "a newcomer");
    }

    #[test]
    fn whoever_has_nothing_goes_first_and_then_a_small_one_of_those_that_are_most() {
        let [one, other] = [8, 9].map(|net| Owner::Group(Group::of([net, 1, 1, 1].into()).unwrap()));
        let alone = [5, 6, 7].map(|number| (Owner::Alone(number), number % 5));
        let mut owners =
            owners(&[&[(other, 1), (one, 2), (one, 9), (one, 2), (one, 3)][..], &alone[..]].concat());
        let smallest = |owners: &Owners| (0..200).filter_map(|_| owners.smallest()).collect::<BTreeSet<_>>();
        assert_eq!(smallest(&owners), BTreeSet::from([5]), "it has nothing");
        owners.forget(5);
        assert_eq!(smallest(&owners), BTreeSet::from([1, 3]));
        for (number, records) in [(1, 2), (3, 2)] {
            owners.recount(one, number, records, 0);
            owners.forget(number);
        }
        // Those that are in no group are as many now.
        assert!(smallest(&owners).is_subset(&BTreeSet::from([6, 7])));
        (6..8).for_each(|number| owners.recount(Owner::Alone(number), number, number % 5, 0));
        (6..8).for_each(|number| owners.forget(number));
        assert_eq!(smallest(&owners), BTreeSet::from([4]));
        assert_eq!(Owners::default().smallest(), None);
    }
}
