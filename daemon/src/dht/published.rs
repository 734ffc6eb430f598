//! What this node publishes: descriptions of objects that it holds.
//!
//! Owns: them, signed when somebody is to be told. Refuses: more than [`MAX_PUBLISHED`]. Survives a crash: nothing; the
//! store knows what is published, and all is said again at a start.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use libp2p::identity::Keypair;

use super::Key;
use crate::content::{Description, SignedDescription, is_called};
use crate::support::unix_now;

/// Objects that may be published: about 1 KiB each with its signed form, so 64 MiB.
const MAX_PUBLISHED: usize = 65_536;

/// What was signed longer ago, in seconds, is signed anew before it is sent: with the two days that a key lives without
/// being announced again it stays well within what is believed.
const ANEW: u64 = 6 * 3600;

/// See the module.
#[derive(Debug)]
pub(super) struct Published {
    /// Signs.
    keypair: Keypair,
    /// What stands for the network's name.
    network: [u8; 32],
    entries: Mutex<BTreeMap<Key, Entry>>,
}

#[derive(Debug)]
struct Entry {
    description: Description,
    /// As it was last signed, and the time that it has.
    signed: Option<(u64, Bytes)>,
    /// It is signed with no earlier time: what was said before it must be older, also within a second.
    after: u64,
}

impl Published {
    pub(super) fn new(keypair: Keypair, network: [u8; 32]) -> Self {
        Self { keypair, network, entries: Mutex::default() }
    }

    /// Publishes from now on; whether that is news. `None` when there is no room.
    pub(super) fn publish(&self, description: Description) -> Option<bool> {
        let (key, mut entries) = (*description.object.as_bytes(), self.entries());
        let after = match entries.get(&key) {
            Some(old) if old.description == description => return Some(false),
            None if entries.len() >= MAX_PUBLISHED => return None,
            Some(old) => old.signed.as_ref().map_or(old.after, |(time, _)| time.saturating_add(1)),
            None => 0,
        };
        entries.insert(key, Entry { description, signed: None, after });
        Some(true)
    }

    /// Publishes no longer; says whether it was.
    pub(super) fn withdraw(&self, key: &Key) -> bool {
        self.entries().remove(key).is_some()
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.entries().contains_key(key)
    }

    /// The description of an object, signed; `None` when it is not published.
    pub(super) fn of(&self, key: &Key) -> Option<Bytes> {
        let mut entries = self.entries();
        self.signed(entries.get_mut(key)?)
    }

    /// Of at most `look` entries behind `after` those that are called `text`, at most `most` of them, each with its
    /// key; and behind which key to go on. None is signed twice in six hours, however often it is asked for.
    pub(super) fn page(
        &self,
        text: &str,
        after: Option<Key>,
        look: usize,
        most: usize,
    ) -> (Vec<(Key, Bytes)>, Option<Key>) {
        let (mut entries, mut page, mut last) = (self.entries(), Vec::new(), None);
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = entries.range_mut::<Key, _>((behind, Bound::Unbounded));
        for (key, entry) in rest.by_ref().take(look) {
            last = Some(*key);
            if is_called(&entry.description.name, text) {
                page.extend(self.signed(entry).map(|bytes| (*key, bytes)));
            }
            if page.len() >= most {
                break;
            }
        }
        (page, last.filter(|_| rest.next().is_some()))
    }

    /// Signs where that has not been done lately.
    fn signed(&self, entry: &mut Entry) -> Option<Bytes> {
        let now = unix_now();
        if let Some((at, bytes)) = &entry.signed
            && (*at..*at + ANEW).contains(&now)
        {
            return Some(bytes.clone());
        }
        let time = now.max(entry.after);
        let description = Description { time, ..entry.description.clone() };
        let signed = SignedDescription::sign(description, &self.network, &self.keypair);
        // What cannot be said was refused before it came here.
        let bytes =
            signed.map_err(|error| tracing::warn!(%error, "a description cannot be signed")).ok()?.encode();
        entry.signed = Some((time, bytes.clone()));
        Some(bytes)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ObjectId;

    const NETWORK: [u8; 32] = [1; 32];

    fn published(names: &[&str]) -> (Published, Vec<Key>) {
        let published = Published::new(Keypair::generate_ed25519(), NETWORK);
        let describe = |name: &&str| {
            let object = ObjectId::from_bytes(*blake3::hash(name.as_bytes()).as_bytes());
            let name = (*name).to_owned();
            let said = Description { object, is_directory: false, length: 1, parity: None, name, time: 0 };
            assert_eq!(published.publish(said.clone()), Some(true));
            assert_eq!(published.publish(said), Some(false), "it is no news");
            *object.as_bytes()
        };
        let keys = names.iter().map(describe).collect();
        (published, keys)
    }

    #[test]
    fn it_is_signed_now_and_once() {
        let (published, keys) = published(&["one"]);
        let bytes = published.of(&keys[0]).unwrap();
        let signed = SignedDescription::check(&bytes, &NETWORK).unwrap();
        assert!(signed.is_timely(unix_now()) && unix_now() - signed.description().time < 60);
        assert_eq!(published.of(&keys[0]), Some(bytes));
        assert!(published.contains(&keys[0]) && published.withdraw(&keys[0]));
        assert!(!published.withdraw(&keys[0]) && published.of(&keys[0]).is_none());
    }

    #[test]
    fn another_name_is_said_later_than_the_one_before_also_within_a_second() {
        let (published, keys) = published(&["one"]);
        let said = || SignedDescription::check(&published.of(&keys[0]).unwrap(), &NETWORK).unwrap();
        let mut last = said();
        for name in ["two", "three", "four"] {
            let description = Description { name: name.to_owned(), time: 0, ..last.description().clone() };
            assert_eq!(published.publish(description), Some(true));
            let next = said();
            assert!(next.description().time > last.description().time && next.is_timely(unix_now()));
            assert_eq!(said(), next);
            last = next;
        }
    }

    #[test]
    fn pages_go_through_all_and_a_search_through_its_own() {
        let names: Vec<String> =
            (0..50).map(|n| format!("{} {n}", if n % 5 == 0 { "Film" } else { "song" })).collect();
        let (published, _) = published(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for (text, expected) in [("", 50), ("film", 10), ("nothing", 0)] {
            let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
            loop {
                let (page, next) = published.page(text, after, 7, 3);
                assert!(page.len() <= 3);
                found.extend(page);
                (after, pages) = (next, pages + 1);
                if next.is_none() {
                    break;
                }
            }
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), expected, "{text}");
            assert!(pages >= 7);
        }
    }
}
