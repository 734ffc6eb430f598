//! What gave way to something else, for the journal.
//!
//! Owns: telling the journal of records and descriptions that nobody took back and that are here no longer, before it
//! is told what they made room for: so a start never has more to take in than fits, and nothing comes back that its
//! source took back after it had given way. Refuses: nothing. Survives a crash: what the journal has been told; what
//! expires needs no telling, for each record says until when it is kept.
//!
//! Bound: as many notes as keys were taken, in one entry for each source.

use libp2p::PeerId;

use super::Records;
use crate::dht::Key;
use crate::dht::journal::Entry;

impl Records {
    /// Drops a record that its source has not taken back.
    pub(super) fn push_away(&mut self, key: &Key, source: u32) -> bool {
        self.gave_way(key, source);
        self.drop_record(key, source)
    }

    /// Remembers to tell the journal of a record, or of its description only.
    pub(super) fn gave_way(&mut self, key: &Key, source: u32) {
        let peer = self.source(source).map(|source| source.peer);
        self.gone.extend(peer.map(|peer| (peer, *key)));
    }

    /// Tells the journal what gave way and has not come back since.
    pub(super) fn note_gone(&mut self) {
        let mut gone = std::mem::take(&mut self.gone);
        gone.sort_unstable();
        gone.dedup();
        for of_peer in gone.chunk_by(|a, b| a.0 == b.0) {
            let Some((peer, _)) = of_peer.first() else { continue };
            self.note_gone_of(*peer, of_peer.iter().map(|(_, key)| *key));
        }
    }

    fn note_gone_of(&self, peer: PeerId, keys: impl Iterator<Item = Key>) {
        let source = self.numbers.get(&peer).copied();
        let here = |key: &Key| source.filter(|source| self.by_key.contains_key(&(*key, *source)));
        let (mut records, mut words) = (Vec::new(), Vec::new());
        for key in keys {
            match here(&key) {
                None => records.push(key),
                Some(source) if !self.is_described(&key, source) => words.push(key),
                Some(_) => {}
            }
        }
        self.journal.note(&Entry::TakenBack { peer, keys: records });
        self.journal.note(&Entry::Undescribed { peer, keys: words });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, LazyLock, Mutex};
    use std::time::{Duration, Instant};

    use libp2p::identity::Keypair;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::super::{Described, Group, MAX_OF_OBJECT, RECORD_BYTES};
    use super::*;
    use crate::content::{Description, ObjectId, SignedDescription};
    use crate::dht::holdings::Holdings;
    use crate::dht::journal::Journal;

    const NETWORK: [u8; 32] = [1; 32];
    const DAY: Duration = Duration::from_hours(24);
    const OBJECT: Key = [7; 32];
    static KEYS: LazyLock<Vec<Keypair>> =
        LazyLock::new(|| (0..8).map(|_| Keypair::generate_ed25519()).collect());

    /// Room for so many records and bytes of descriptions.
    fn records(room: usize, bytes: usize) -> Records {
        let own = Arc::new(Mutex::new(Holdings::new(0)));
        let kept = (Journal::new(true), Described::new(bytes));
        Records::new(PeerId::random(), room * RECORD_BYTES, own, kept, Instant::now())
    }

    fn say(key: &Keypair, object: Key, time: u64) -> SignedDescription {
        let (object, name) = (ObjectId::from_bytes(object), "a name".to_owned());
        let said = Description { object, is_directory: false, length: 1, parity: None, name, time };
        SignedDescription::sign(said, &NETWORK, key).unwrap()
    }

    fn put(records: &mut Records, of: usize, objects: Vec<Key>, time: Option<u64>) {
        let peer = KEYS[of].public().to_peer_id();
        records.put_all(objects.clone(), peer, DAY, Instant::now());
        for object in objects {
            time.map(|time| records.describe(&peer, &say(&KEYS[of], object, time)));
        }
    }

    /// Whose records are here, and who has said something of them.
    fn kept(records: &Records) -> BTreeSet<(Key, PeerId, bool)> {
        let peer = |source| records.source(source).unwrap().peer;
        let all = records.by_key.keys();
        all.map(|(key, source)| (*key, peer(*source), records.is_described(key, *source))).collect()
    }

    #[test]
    fn a_name_that_gave_way_and_was_withdrawn_then_does_not_come_back_at_a_start() {
        let mut records = records(1_000, 1 << 20);
        for of in 0..=MAX_OF_OBJECT {
            // All are of one network but the last, to which the one that spoke last of all gives way.
            let ip = if of == MAX_OF_OBJECT { "9.9.0.1".to_owned() } else { format!("8.{of}.0.1") };
            records.met(KEYS[of].public().to_peer_id(), Vec::new(), Group::of(ip.parse().unwrap()));
            put(&mut records, of, vec![OBJECT], Some(100 + of as u64));
        }
        let (first, second) = (KEYS[0].public().to_peer_id(), KEYS[1].public().to_peer_id());
        assert!(records.described_of(&[OBJECT], &first).is_empty(), "it gave way to the fifth");
        // The first withdraws its name, of which nothing is here; the second takes its record back.
        records.undescribe(records.described_of(&[OBJECT], &first), &first);
        records.take_back(vec![OBJECT], &second);
        let mut again = self::records(1_000, 1 << 20);
        again.restore(records.journal.noted().0, Instant::now());
        assert_eq!(kept(&again), kept(&records));
        assert!(again.described_of(&[OBJECT], &first).is_empty());
        assert!(!again.journal.noted().1, "and there is nothing to be written anew");
    }

    #[test]
    fn what_a_start_has_no_room_for_is_not_there_at_the_next_one() {
        let (mut records, mut small) = (records(100, 1 << 20), records(5, 1 << 20));
        put(&mut records, 0, (0..20).map(|n| [n; 32]).collect(), Some(5));
        let (entries, is_short) = records.journal.noted();
        assert!(!is_short);
        small.restore(entries, Instant::now());
        assert_eq!((small.len(), small.journal.noted()), (5, (Vec::new(), true)));
    }

    proptest! {
        #[test]
        fn a_start_brings_back_what_was_there(
            steps in proptest::collection::vec((0u8..4, 0..KEYS.len(), any::<[u8; 3]>(), 0u64..9), 1..60),
            room in 4usize..30,
            bytes in 500usize..6_000,
        ) {
            let mut records = records(room, bytes);
            for (of, ip) in KEYS.iter().zip(["8.8.0.1", "9.9.0.1", "8.8.7.7", "7.7.0.1", "8.8.9.9"]) {
                records.met(of.public().to_peer_id(), Vec::new(), Group::of(ip.parse().unwrap()));
            }
            let mut entries = Vec::new();
            for (what, of, objects, time) in steps {
                let peer = KEYS[of].public().to_peer_id();
                let objects: Vec<Key> = objects.map(|object| [object % 12; 32]).into();
                match what {
                    0 => put(&mut records, of, objects, None),
                    1 => put(&mut records, of, objects, Some(time)),
                    2 => drop(records.take_back(objects, &peer)),
                    _ => records.undescribe(records.described_of(&objects, &peer), &peer),
                }
                entries.extend(records.journal.noted().0);
            }
            let mut again = self::records(room, bytes);
            again.restore(entries, Instant::now());
            prop_assert_eq!(kept(&again), kept(&records));
            prop_assert!(!again.journal.noted().1);
        }
    }
}
