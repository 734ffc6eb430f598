//! This node's own keys, in the order in which Kademlia places them, and when each was last announced.
//!
//! Owns: which keys are held, and which of them are due. Pure: times are passed in, in minutes since 1970 (the
//! journal keeps them over restarts). Refuses: more keys than its limit. Survives a crash: nothing by itself.
//!
//! A sweep goes through the key space once a cycle, the same part of it at the same time of each cycle, and takes what
//! was not announced for half a cycle. So a million keys that were added at once are announced at once, and from
//! then on spread over the whole cycle; and no key is ever older than one cycle and a half.
//!
//! Layout: one ordered tree, (first 8 bytes of the place, key) → mark, 44 bytes an entry; measured with a million keys:
//! 66 MiB.

mod mark;

use std::collections::BTreeMap;
use std::ops::Bound;

use self::mark::Mark;
use super::Key;
use super::position::Position;
use crate::peer::Kind;

/// Where a key stands in the order: the first 64 bits of its place, then the key.
pub(super) type Place = (u64, Key);

/// Minutes since 1970; 0 is never.
pub(super) type Minute = u32;

/// Which keys a walk takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// Only keys of objects.
    pub(super) objects_only: bool,
    /// Announced before this: due wherever they are. Those never announced always are.
    pub(super) anywhere: Minute,
    /// Announced before this: due within `arc`.
    pub(super) within: Minute,
    /// Announced after this: due wherever they are, for the clock was ahead.
    pub(super) beyond: Minute,
    /// First and last place of the sweep's present part.
    pub(super) arc: (u64, u64),
    /// Those that not all know who should are due: more nodes are known now, or it is time to look them up anew.
    pub(super) thin: bool,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Keys that are due, in order.
    pub(super) keys: Vec<(Key, Kind)>,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<Place>,
}

/// Counts of what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// All keys.
    pub(super) keys: usize,
    /// Objects never announced.
    pub(super) new_objects: usize,
    /// Chunks never announced.
    pub(super) new_chunks: usize,
}

/// The keys.
#[derive(Debug)]
pub(super) struct Holdings {
    /// By place.
    keys: BTreeMap<Place, Mark>,
    /// How many may be held.
    limit: usize,
    /// Those never announced: objects and chunks.
    new: [usize; 2],
    /// Which count is under way or was the last, even or odd.
    count: bool,
}

// === impl Due ===

impl Due {
    fn takes(&self, place: u64, mark: Mark) -> bool {
        let before = if (self.arc.0..=self.arc.1).contains(&place) { self.within } else { self.anywhere };
        (!(before.max(1)..=self.beyond).contains(&mark.placed()) || self.thin && mark.is_thin())
            && !mark.is_taken()
            && (!self.objects_only || mark.kind() == Kind::Object)
    }
}

// === impl Holdings ===

impl Holdings {
    pub(super) fn new(limit: usize) -> Self {
        Self { keys: BTreeMap::new(), limit, new: [0; 2], count: false }
    }

    /// Holds a key. False when it does not fit; a key that is both is an object's.
    pub(super) fn hold(&mut self, key: &Key, kind: Kind) -> bool {
        let place = place(key);
        let Some(mark) = self.keys.get(&place).copied() else {
            let fits = self.keys.len() < self.limit;
            if fits {
                self.set(place, Mark::new(kind).counted(self.count));
            }
            return fits;
        };
        // A chunk's few copies are not enough for an object: announced anew.
        let grows = kind == Kind::Object && mark.kind() == Kind::Chunk;
        self.set(place, if grows { Mark::new(kind) } else { mark }.counted(self.count));
        true
    }

    /// As a journal tells: announced at `minute`. Where it is not held yet, it is not counted until it is held again.
    pub(super) fn restore(&mut self, key: &Key, kind: Kind, minute: Minute) {
        let place = place(key);
        let old = self.keys.get(&place).copied();
        if old.is_none() && self.keys.len() >= self.limit || old.is_some_and(|old| old.kind() != kind) {
            return;
        }
        let mark = old.unwrap_or_else(|| Mark::new(kind).unsaid());
        // Whoever took it for new before the journal was read will not announce it.
        self.set(place, mark.with_placed(minute).with_taken(false));
    }

    /// As a journal tells: what was announced of it counts no more. Where it is held, it has to be announced anew.
    pub(super) fn restore_released(&mut self, key: &Key) {
        match self.keys.get(&place(key)).copied() {
            Some(mark) if mark.is_unsaid() => drop(self.drop_key(key)),
            Some(_) => self.placed(key, 0),
            None => {}
        }
    }

    /// No longer holds a key; says whether it was held.
    pub(super) fn drop_key(&mut self, key: &Key) -> bool {
        let old = self.keys.remove(&place(key));
        self.note(old, None);
        old.is_some()
    }

    pub(super) fn holds(&self, key: &Key) -> bool {
        self.keys.contains_key(&place(key))
    }

    /// What a key that is held is of.
    pub(super) fn kind(&self, key: &Key) -> Option<Kind> {
        self.keys.get(&place(key)).map(|mark| mark.kind())
    }

    /// When a key that is held was last announced; `None` where it never was.
    pub(super) fn announced(&self, key: &Key) -> Option<Minute> {
        self.keys.get(&place(key)).map(|mark| mark.placed()).filter(|minute| *minute > 0)
    }

    /// Whether a key is held and was announced at some time.
    pub(super) fn is_placed(&self, key: &Key) -> bool {
        self.announced(key).is_some()
    }

    /// Whether a key was never announced, and nobody is at it.
    pub(super) fn is_waiting(&self, key: &Key) -> bool {
        self.keys.get(&place(key)).is_some_and(|mark| mark.placed() == 0 && !mark.is_taken())
    }

    /// A key that is still held was announced at `minute`, or has to be announced anew (0).
    pub(super) fn placed(&mut self, key: &Key, minute: Minute) {
        let place = place(key);
        if let Some(mark) = self.keys.get(&place).copied() {
            self.set(place, mark.with_placed(minute).with_taken(false).with_thin(false));
        }
    }

    /// As [`Holdings::placed`], and not to all that should know it, or perhaps not.
    pub(super) fn placed_thinly(&mut self, key: &Key, minute: Minute) {
        let place = place(key);
        if let Some(mark) = self.keys.get(&place).copied() {
            self.set(place, mark.with_placed(minute).with_taken(false).with_thin(true));
        }
    }

    /// Somebody takes it upon itself to announce a key, or gives that up: until then it is not due.
    pub(super) fn take(&mut self, key: &Key, is_taken: bool) {
        let place = place(key);
        if let Some(mark) = self.keys.get(&place).copied() {
            self.set(place, mark.with_taken(is_taken));
        }
    }

    /// From now on all that is held is said again; what is not, [`Holdings::uncounted`] finds afterwards.
    pub(super) fn begin_count(&mut self) {
        self.count = !self.count;
    }

    /// Of at most `look` keys from `from` on those that were not said to be held since the count began.
    pub(super) fn uncounted(&self, from: Option<Place>, look: usize) -> Walked {
        self.walk(from, look, usize::MAX, |_, mark| !mark.is_counted(self.count))
    }

    /// Of at most `look` keys from `from` on those that are due, at most `take` of them.
    pub(super) fn due(&self, from: Option<Place>, look: usize, take: usize, due: &Due) -> Walked {
        self.walk(from, look, take, |place, mark| due.takes(place, mark))
    }

    /// How many of at most `look` keys from `from` on were announced, and before `minute`; and where to go on.
    pub(super) fn older(&self, from: Option<Place>, look: usize, minute: Minute) -> (usize, Option<Place>) {
        let walked = self.walk(from, look, usize::MAX, |_, mark| (1..minute).contains(&mark.placed()));
        (walked.keys.len(), walked.next)
    }

    pub(super) fn counts(&self) -> Counts {
        let [new_objects, new_chunks] = self.new;
        Counts { keys: self.keys.len(), new_objects, new_chunks }
    }

    /// Every key with its kind and the minute of its last announcement, from `from` on, at most `look` of them.
    pub(super) fn page(&self, from: Option<Place>, look: usize) -> (Vec<(Key, Kind, Minute)>, Option<Place>) {
        let mut rest = self.from(from);
        let page = rest.by_ref().take(look).map(|((_, key), mark)| (*key, mark.kind(), mark.placed()));
        (page.collect(), rest.next().map(|(place, _)| *place))
    }

    fn walk(
        &self,
        from: Option<Place>,
        look: usize,
        take: usize,
        is_wanted: impl Fn(u64, Mark) -> bool,
    ) -> Walked {
        let mut walked = Walked::default();
        for (looked, (place, mark)) in self.from(from).enumerate() {
            if looked >= look || walked.keys.len() >= take {
                walked.next = Some(*place);
                break;
            }
            if is_wanted(place.0, *mark) {
                walked.keys.push((place.1, mark.kind()));
            }
        }
        walked
    }

    fn from(&self, from: Option<Place>) -> impl Iterator<Item = (&Place, &Mark)> {
        self.keys.range((from.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded))
    }

    fn set(&mut self, place: Place, mark: Mark) {
        let old = self.keys.insert(place, mark);
        self.note(old, Some(mark));
    }

    /// Keeps the counts of those never announced.
    fn note(&mut self, old: Option<Mark>, new: Option<Mark>) {
        for (mark, by) in [(old, -1), (new, 1)] {
            if let Some(mark) = mark.filter(|mark| mark.placed() == 0) {
                let of = &mut self.new[usize::from(mark.kind() == Kind::Chunk)];
                *of = of.saturating_add_signed(by);
            }
        }
    }
}

/// A key's place in the order.
fn place(key: &Key) -> Place {
    (Position::of_key(key).top(), *key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    const ALL: Due =
        Due { objects_only: false, anywhere: 0, within: 0, beyond: 9_999, arc: (1, 0), thin: false };

    fn key(number: u32) -> Key {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    fn due(holdings: &Holdings, due: &Due) -> Vec<Key> {
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let walked = holdings.due(from, 7, 3, due);
            all.extend(walked.keys.into_iter().map(|(key, _)| key));
            from = walked.next;
            if from.is_none() {
                return all;
            }
        }
    }

    #[test]
    fn what_is_new_is_due_and_objects_go_first() {
        let mut holdings = Holdings::new(100);
        for number in 0..40 {
            assert!(holdings.hold(&key(number), if number % 4 == 0 { Kind::Object } else { Kind::Chunk }));
        }
        assert_eq!(holdings.counts(), Counts { keys: 40, new_objects: 10, new_chunks: 30 });
        assert_eq!(due(&holdings, &Due { objects_only: true, ..ALL }).len(), 10);
        let all = due(&holdings, &ALL);
        assert_eq!(all.len(), 40);
        assert!(all.is_sorted_by_key(Position::of_key));
        holdings.take(&all[3], true);
        assert_eq!(due(&holdings, &ALL).len(), 39, "somebody is at it");
        assert_eq!(holdings.counts().new_objects + holdings.counts().new_chunks, 40);
        holdings.take(&all[3], false);
        all.iter().for_each(|key| holdings.placed(key, 1_000));
        assert_eq!(holdings.counts(), Counts { keys: 40, ..Counts::default() });
        assert!(due(&holdings, &ALL).is_empty());
        // What few nodes were told is due when there are more, until they are told.
        let growth = Due { thin: true, ..ALL };
        holdings.placed_thinly(&all[5], 1_000);
        assert!(due(&holdings, &ALL).is_empty() && holdings.is_placed(&all[5]));
        assert_eq!(due(&holdings, &growth), [all[5]]);
        holdings.placed(&all[5], 1_000);
        assert!(due(&holdings, &growth).is_empty());
        // What was a chunk and is an object now goes to more nodes.
        assert!(holdings.hold(&key(1), Kind::Object) && holdings.hold(&key(4), Kind::Chunk));
        assert_eq!(due(&holdings, &ALL), [key(1)]);
    }

    #[test]
    fn a_sweep_takes_what_is_old_in_its_part_and_what_is_very_old_everywhere() {
        let mut holdings = Holdings::new(1_000);
        for number in 0..1_000 {
            holdings.restore(&key(number), Kind::Chunk, 500 + number % 3);
        }
        let half = Due { within: 501, arc: (0, u64::MAX / 2), ..ALL };
        let found = due(&holdings, &half);
        assert!((100..230).contains(&found.len()), "{}", found.len());
        assert!(found.iter().all(|key| Position::of_key(key).top() <= u64::MAX / 2));
        assert_eq!(due(&holdings, &Due { anywhere: 501, ..half }).len(), 334);
    }

    #[test]
    fn what_is_not_counted_again_is_found() {
        let mut holdings = Holdings::new(10);
        (0..4).for_each(|number| assert!(holdings.hold(&key(number), Kind::Object)));
        holdings.restore(&key(9), Kind::Chunk, 77);
        holdings.begin_count();
        (1..4).for_each(|number| assert!(holdings.hold(&key(number), Kind::Object)));
        holdings.placed(&key(0), 5);
        let mut found: Vec<_> = holdings.uncounted(None, 100).keys.into_iter().map(|(key, _)| key).collect();
        found.sort_unstable();
        let mut wanted = vec![key(0), key(9)];
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        assert!(found.iter().all(|key| holdings.drop_key(key)) && !holdings.drop_key(&key(0)));
        assert!(holdings.uncounted(None, 100).keys.is_empty());
        assert!((10..17).all(|number| holdings.hold(&key(number), Kind::Chunk)), "there is room for ten");
        assert!(!holdings.hold(&key(99), Kind::Chunk) && holdings.hold(&key(1), Kind::Chunk));
    }

    #[test]
    fn what_a_journal_says_was_released_is_announced_anew_where_it_is_held() {
        let (mut holdings, held, gone) = (Holdings::new(10), key(1), key(2));
        assert!(holdings.hold(&held, Kind::Object));
        for key in [&held, &gone] {
            holdings.restore(key, Kind::Object, 7);
            assert!(holdings.is_placed(key));
            holdings.restore_released(key);
        }
        assert!(holdings.is_waiting(&held) && !holdings.holds(&gone));
        holdings.restore_released(&key(3));
        assert_eq!(holdings.counts(), Counts { keys: 1, new_objects: 1, new_chunks: 0 });
        // What was taken for new before the journal was read has its turn like the others.
        holdings.take(&held, true);
        holdings.restore(&held, Kind::Object, 7);
        assert_eq!(due(&holdings, &Due { anywhere: 8, ..ALL }), [held]);
    }

    proptest! {
        #[test]
        fn counts_are_true(steps in proptest::collection::vec((0u8..5, 0u32..20, any::<bool>()), 0..200)) {
            let mut holdings = Holdings::new(15);
            for (step, number, is_object) in steps {
                let (key, kind) = (key(number), if is_object { Kind::Object } else { Kind::Chunk });
                match step {
                    0 | 1 => _ = holdings.hold(&key, kind),
                    2 => _ = holdings.drop_key(&key),
                    3 => holdings.placed(&key, u32::from(is_object) * 9),
                    _ => holdings.begin_count(),
                }
                let (page, next) = holdings.page(None, 100);
                let new = |kind| page.iter().filter(|entry| entry.1 == kind && entry.2 == 0).count();
                let (new_objects, new_chunks) = (new(Kind::Object), new(Kind::Chunk));
                prop_assert_eq!(next, None);
                prop_assert_eq!(holdings.counts(), Counts { keys: page.len(), new_objects, new_chunks });
            }
        }
    }
}
