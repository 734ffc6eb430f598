//! Descriptions that others have of what they hold, kept for those who ask.
//!
//! Owns: at most [`MAX_OF_OBJECT`] of an object, the newest of each publisher, within a budget of bytes. Refuses: those
//! of whoever has no record of that key here: a description goes with its record, however that goes. Survives a crash:
//! what the [journal](crate::dht::journal) has of it.
//!
//! What gives way: of an object whoever is in the same address group, else what was said longest ago; when the budget
//! is used up, something of whoever has the most, and never for one who has as much.
//!
//! It is shared with those who search it, so that no search holds up the event loop. What is kept was proved when it
//! came, on its connection's task, and is told as it came; nobody here proves it again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use libp2p::PeerId;

use super::{Group, Records};
use crate::content::{Description, SignedDescription, described_name, is_called, is_timely};
use crate::dht::Key;
use crate::dht::journal::Entry;

/// Descriptions kept of one object.
pub(in crate::dht) const MAX_OF_OBJECT: usize = 4;
/// What one costs besides its bytes: its places in two trees, and what it is allocated with.
const OVERHEAD: usize = 160;

/// Where descriptions are kept. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub(in crate::dht) struct Described(Arc<Mutex<Shelf>>);

#[derive(Debug)]
struct Shelf {
    /// Bytes that may be kept.
    budget: usize,
    /// Bytes that are.
    bytes: usize,
    /// (key, source) → what it says.
    by_key: BTreeMap<(Key, u32), Kept>,
    /// What each source has.
    by_source: HashMap<u32, BTreeSet<Key>>,
    /// (descriptions, source), to find the one with the most.
    by_count: BTreeSet<(usize, u32)>,
}

#[derive(Debug)]
struct Kept {
    /// As it came.
    bytes: Bytes,
    /// When it was said.
    time: u64,
    /// Where its publisher was then.
    group: Option<Group>,
}

// === impl Described ===

impl Described {
    /// Keeps at most `budget` bytes.
    pub(in crate::dht) fn new(budget: usize) -> Self {
        let (by_key, by_source, by_count) = (BTreeMap::new(), HashMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(Shelf { budget, bytes: 0, by_key, by_source, by_count })))
    }

    /// What is said of an object.
    pub(in crate::dht) fn of(&self, key: &Key) -> Vec<Bytes> {
        let shelf = self.shelf();
        shelf.of_key(key).map(|(_, kept)| kept.bytes.clone()).collect()
    }

    /// What is said of an object that is believed at `now`, in Unix seconds.
    pub(in crate::dht) fn timely(&self, key: &Key, now: u64) -> Vec<Bytes> {
        let shelf = self.shelf();
        let timely = shelf.of_key(key).filter(|(_, kept)| is_timely(kept.time, now));
        timely.map(|(_, kept)| kept.bytes.clone()).collect()
    }

    /// Of about `look` descriptions of objects behind `after` those that are called `text`; and behind which key to go
    /// on. Those of one object stand together.
    pub(in crate::dht) fn page(
        &self,
        text: &str,
        after: Option<Key>,
        look: usize,
        most: usize,
    ) -> (Vec<Bytes>, Option<Key>) {
        let shelf = self.shelf();
        let behind = after.map_or(Bound::Unbounded, |key| Bound::Excluded((key, u32::MAX)));
        let (mut page, mut last) = (Vec::new(), None);
        for (looked, ((key, _), kept)) in shelf.by_key.range((behind, Bound::Unbounded)).enumerate() {
            if last.is_some_and(|last| last != *key) && (looked >= look || page.len() >= most) {
                return (page, last);
            }
            last = Some(*key);
            if is_called(described_name(&kept.bytes), text) {
                page.push(kept.bytes.clone());
            }
        }
        (page, None)
    }

    /// How many there are.
    #[cfg(test)]
    pub(in crate::dht) fn len(&self) -> usize {
        self.shelf().by_key.len()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shelf ===

impl Shelf {
    fn of_key(&self, key: &Key) -> impl Iterator<Item = (u32, &Kept)> {
        self.by_key.range((*key, 0)..=(*key, u32::MAX)).map(|((_, source), kept)| (*source, kept))
    }

    /// Keeps a description unless a newer one of the same source is here, or there is no room for it. What gives way is
    /// added to `gone`.
    fn keep(&mut self, key: Key, source: u32, new: Kept, gone: &mut Vec<(Key, u32)>) -> bool {
        if self.by_key.get(&(key, source)).is_some_and(|old| old.time > new.time) {
            return false;
        }
        if self.drop_one(&key, source) {
            gone.push((key, source));
        }
        let is_apart = |kept: &Kept| new.group.is_none() || kept.group != new.group;
        let others: Vec<_> =
            self.of_key(&key).map(|(source, kept)| (is_apart(kept), kept.time, source)).collect();
        if others.len() >= MAX_OF_OBJECT
            && let Some((_, _, source)) = others.iter().min()
        {
            self.drop_one(&key, *source);
            gone.push((key, *source));
        }
        let cost = new.bytes.len() + OVERHEAD;
        while self.bytes + cost > self.budget {
            let Some(pushed) = self.push_out(source) else { return false };
            gone.push(pushed);
        }
        self.bytes += cost;
        self.by_key.insert((key, source), new);
        self.recount(source, |keys| keys.insert(key));
        true
    }

    /// Drops something of whoever has the most, for one that has less; says what.
    fn push_out(&mut self, source: u32) -> Option<(Key, u32)> {
        let (most, largest) = self.by_count.last().copied()?;
        if self.by_source.get(&source).map_or(0, BTreeSet::len) + 1 >= most {
            return None;
        }
        let first = self.by_source.get(&largest)?.first().copied()?;
        self.drop_one(&first, largest).then_some((first, largest))
    }

    fn drop_one(&mut self, key: &Key, source: u32) -> bool {
        let Some(old) = self.by_key.remove(&(*key, source)) else { return false };
        self.bytes -= old.bytes.len() + OVERHEAD;
        self.recount(source, |keys| keys.remove(key));
        true
    }

    fn recount(&mut self, source: u32, change: impl FnOnce(&mut BTreeSet<Key>) -> bool) {
        let keys = self.by_source.entry(source).or_default();
        self.by_count.remove(&(keys.len(), source));
        change(keys);
        if keys.is_empty() {
            self.by_source.remove(&source);
        } else {
            self.by_count.insert((keys.len(), source));
        }
    }
}

// === impl Records ===

impl Records {
    /// What others say of what they hold.
    pub(in crate::dht) fn described(&self) -> &Described {
        &self.described
    }

    /// Keeps what `peer` says of an object whose key it has here; says whether it is kept.
    pub(in crate::dht) fn describe(&mut self, peer: &PeerId, said: &SignedDescription) -> bool {
        let bytes = said.encode();
        if said.publisher() != *peer {
            return false;
        }
        if self.described.of(said.description().object.as_bytes()).contains(&bytes) {
            return true;
        }
        let is_kept = self.shelve(peer, said.description(), bytes.clone());
        self.note_gone();
        if is_kept {
            self.journal.note(&Entry::Described { bytes });
        }
        is_kept
    }

    /// Takes the place of an older word of the same publisher that is kept here, whoever told it; it is proved and
    /// timely.
    pub(in crate::dht) fn describe_newer(&mut self, said: &SignedDescription) {
        let (publisher, description) = (said.publisher(), said.description());
        let key = *description.object.as_bytes();
        let Some(source) = self.numbers.get(&publisher).copied() else { return };
        let older = |kept: &Kept| kept.time < description.time;
        if self.described.shelf().by_key.get(&(key, source)).is_some_and(older) {
            self.describe(&publisher, said);
        }
    }

    /// Takes in again what the journal remembers; proved when it came. False when there
    /// was no place for it, though its record is here.
    pub(super) fn describe_again(&mut self, bytes: Bytes) -> bool {
        let Ok(said) = SignedDescription::read_kept(&bytes) else { return false };
        let (publisher, said) = (said.publisher(), said.description());
        let expired = self.known(&[*said.object.as_bytes()], &publisher) == 0;
        expired || self.shelve(&publisher, said, bytes)
    }

    fn shelve(&mut self, peer: &PeerId, said: &Description, bytes: Bytes) -> bool {
        let (key, source) = (*said.object.as_bytes(), self.numbers.get(peer).copied());
        let Some(source) = source.filter(|source| self.by_key.contains_key(&(key, *source))) else {
            return false;
        };
        let group = self.source(source).and_then(|source| source.group);
        let mut gone = Vec::new();
        let is_kept =
            self.described.shelf().keep(key, source, Kept { bytes, time: said.time, group }, &mut gone);
        gone.retain(|(of, from)| !is_kept || (of, from) != (&key, &source));
        gone.iter().for_each(|(key, source)| self.gave_way(key, *source));
        is_kept
    }

    /// Of these keys, ascending, those that `peer` has described here.
    pub(in crate::dht) fn described_of(&self, keys: &[Key], peer: &PeerId) -> Vec<Key> {
        let Some(source) = self.numbers.get(peer) else { return Vec::new() };
        let shelf = self.described.shelf();
        let Some(described) = shelf.by_source.get(source) else { return Vec::new() };
        keys.iter().filter(|key| described.contains(*key)).copied().collect()
    }

    /// Drops what `peer` said of these.
    pub(in crate::dht) fn undescribe(&mut self, keys: Vec<Key>, peer: &PeerId) {
        let Some(source) = self.numbers.get(peer).copied() else { return };
        for key in &keys {
            self.undescribe_one(key, source);
        }
        self.journal.note(&Entry::Undescribed { peer: *peer, keys });
    }

    /// Whether there is a description of this record.
    pub(super) fn is_described(&self, key: &Key, source: u32) -> bool {
        self.described.shelf().by_key.contains_key(&(*key, source))
    }

    pub(super) fn undescribe_one(&self, key: &Key, source: u32) {
        self.described.shelf().drop_one(key, source);
    }

    /// What is kept of these records of a source, for the journal.
    pub(super) fn descriptions<'a>(&self, source: u32, keys: impl Iterator<Item = &'a Key>) -> Vec<Entry> {
        let shelf = self.described.shelf();
        let bytes =
            |key: &Key| Some(Entry::Described { bytes: shelf.by_key.get(&(*key, source))?.bytes.clone() });
        if shelf.by_source.contains_key(&source) { keys.filter_map(bytes).collect() } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use libp2p::identity::Keypair;

    use super::*;
    use crate::content::ObjectId;
    use crate::dht::holdings::Holdings;
    use crate::dht::journal::Journal;
    use crate::dht::records::Verdict;

    const NETWORK: [u8; 32] = [1; 32];
    const DAY: Duration = Duration::from_hours(24);
    const OBJECT: Key = [7; 32];

    fn records(budget: usize) -> Records {
        let own = Arc::new(Mutex::new(Holdings::new(0)));
        let (kept, now) = (Described::new(budget), Instant::now());
        Records::new(PeerId::random(), 1 << 20, own, (Journal::new(false), kept), now)
    }

    fn said(key: &Keypair, object: Key, time: u64, name: &str) -> SignedDescription {
        let object = ObjectId::from_bytes(object);
        let name = name.to_owned();
        let said = Description { object, is_directory: false, length: 1, parity: None, name, time };
        SignedDescription::sign(said, &NETWORK, key).unwrap()
    }

    /// Announces an object as this peer, and says something of it.
    fn tell(records: &mut Records, key: &Keypair, object: Key, time: u64) -> bool {
        let peer = key.public().to_peer_id();
        assert_eq!(records.put(object, peer, DAY, Instant::now()), Verdict::Taken);
        records.describe(&peer, &said(key, object, time, "a name"))
    }

    fn publishers(records: &Records, object: &Key) -> BTreeSet<PeerId> {
        let kept = records.described().of(object);
        kept.iter().map(|bytes| SignedDescription::check(bytes, &NETWORK).unwrap().publisher()).collect()
    }

    #[test]
    fn only_a_providers_own_word_is_kept_and_it_goes_with_its_record() {
        let (mut records, now) = (records(1 << 20), Instant::now());
        let (one, two) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (first, second) = (one.public().to_peer_id(), two.public().to_peer_id());
        assert!(!records.describe(&first, &said(&one, OBJECT, 5, "x")), "it is no provider");
        assert!(tell(&mut records, &one, OBJECT, 5) && tell(&mut records, &two, OBJECT, 5));
        assert!(!records.describe(&first, &said(&two, OBJECT, 6, "x")), "it is another's word");
        assert!(!records.describe(&first, &said(&one, [8; 32], 6, "x")), "it is of another object");
        assert!(!records.describe(&first, &said(&one, OBJECT, 4, "x")), "it is older than what is here");
        assert_eq!(publishers(&records, &OBJECT), BTreeSet::from([first, second]));
        assert_eq!(records.described_of(&[[6; 32], OBJECT, [8; 32]], &first), [OBJECT]);
        records.undescribe(vec![OBJECT], &first);
        assert_eq!(publishers(&records, &OBJECT), BTreeSet::from([second]));
        assert_eq!(records.take_back(vec![OBJECT], &second), 1);
        assert_eq!(records.described().len(), 0);
        assert!(tell(&mut records, &one, OBJECT, 7));
        records.clean(now + 2 * DAY);
        assert_eq!((records.len(), records.described().len()), (0, 0), "it expires with its record");
        assert_eq!(records.described().shelf().bytes, 0);
        assert!(records.described().shelf().by_count.is_empty());
    }

    #[test]
    fn a_newer_word_takes_the_place_of_an_older_one_wherever_it_was_heard() {
        let mut records = records(1 << 20);
        let (one, two) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        assert!(tell(&mut records, &one, OBJECT, 5));
        for (key, time, name) in [(&one, 4, "older"), (&one, 7, "newer"), (&one, 6, "late"), (&two, 9, "new")]
        {
            records.describe_newer(&said(key, OBJECT, time, name));
        }
        let kept = records.described().of(&OBJECT);
        assert_eq!(kept, [said(&one, OBJECT, 7, "newer").encode()], "and nobody's who had not said anything");
        records.undescribe(vec![OBJECT], &one.public().to_peer_id());
        records.describe_newer(&said(&one, OBJECT, 8, "later"));
        assert_eq!(records.described().len(), 0, "what was taken back does not come by others");
    }

    #[test]
    fn four_of_an_object_are_kept_and_those_of_one_group_give_way_first() {
        let mut records = records(1 << 20);
        let keys: Vec<_> = (0..6).map(|_| Keypair::generate_ed25519()).collect();
        let peers: Vec<_> = keys.iter().map(|key| key.public().to_peer_id()).collect();
        let group = |ip: &str| Group::of(ip.parse().unwrap());
        for (at, ip) in ["8.8.0.1", "9.9.0.1", "8.8.7.7", "7.7.0.1", "8.8.9.9", "6.6.0.1"].iter().enumerate()
        {
            records.met(peers[at], Vec::new(), group(ip));
            assert!(tell(&mut records, &keys[at], OBJECT, 100 - at as u64));
        }
        // The fifth is of the first's and the third's network, and the third spoke before the first; the sixth is of
        // none's, and the fifth had spoken first of all.
        let expected: BTreeSet<_> = [0, 1, 3, 5].map(|at| peers[at]).into();
        assert_eq!(publishers(&records, &OBJECT), expected);
    }

    #[test]
    fn a_flood_of_one_leaves_room_for_others() {
        let cost = said(&Keypair::generate_ed25519(), OBJECT, 5, "a name").encode().len() + OVERHEAD;
        let mut records = records(10 * cost);
        let (flood, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let taken = (0..100).filter(|at| tell(&mut records, &flood, [*at; 32], 5)).count();
        assert_eq!((taken, records.described().len()), (10, 10));
        let taken = (0..100).filter(|at| tell(&mut records, &other, [*at; 32], 5)).count();
        assert_eq!((taken, records.described().len()), (5, 10), "half of it");
        assert!(records.described().shelf().bytes <= 10 * cost);
    }

    #[test]
    fn all_are_told_page_by_page_and_taken_in_again() {
        let (mut records, keys) = (records(1 << 20), [(); 3].map(|()| Keypair::generate_ed25519()));
        for object in 0..40 {
            assert!(keys.iter().all(|key| tell(&mut records, key, [object; 32], 5)));
        }
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = records.described().page("NAME", after, 10, 8);
            assert!(page.len() <= 12, "as many as there are of the objects of a page");
            found.extend(page);
            after = next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), 120);
        assert_eq!(records.described().page("other", None, 1_000, 8), (Vec::new(), None));

        let (mut entries, mut from) = (Vec::new(), None);
        loop {
            let (page, next) = records.page(from, 50, Instant::now());
            entries.extend(page);
            from = next;
            if next.is_none() {
                break;
            }
        }
        let mut again = self::records(1 << 20);
        again.restore(entries, Instant::now());
        assert_eq!((again.len(), again.described().len()), (120, 120));
    }
}
