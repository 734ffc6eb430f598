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

/// So far ahead of the clock, in seconds, what is published anew is dated at most so that it is newer than what was
/// withdrawn: well within what is believed.
const AHEAD: u64 = 3600;

/// See the module.
#[derive(Debug)]
pub(super) struct Published {
    /// Signs.
    keypair: Keypair,
    /// What stands for the network's name.
    network: [u8; 32],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, Entry>,
    /// Later than all that was withdrawn: whoever missed that has it still, and takes nothing older for news.
    withdrawn: u64,
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
        Self { keypair, network, state: Mutex::default() }
    }

    /// Publishes from now on; whether that is news. `None` when there is no room.
    pub(super) fn publish(&self, description: Description) -> Option<bool> {
        let (key, mut state) = (*description.object.as_bytes(), self.state());
        let after = match state.entries.get(&key) {
            Some(old) if old.description == description => return Some(false),
            None if state.entries.len() >= MAX_PUBLISHED => return None,
            Some(old) => old.after(),
            None => state.withdrawn.min(unix_now() + AHEAD),
        };
        state.entries.insert(key, Entry { description, signed: None, after });
        Some(true)
    }

    /// Publishes no longer; says whether it was.
    pub(super) fn withdraw(&self, key: &Key) -> bool {
        let mut state = self.state();
        let Some(old) = state.entries.remove(key) else { return false };
        state.withdrawn = state.withdrawn.max(old.after());
        true
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.state().entries.contains_key(key)
    }

    /// The description of an object, signed; `None` when it is not published.
    pub(super) fn of(&self, key: &Key) -> Option<Bytes> {
        self.signed(self.state().entries.get_mut(key)?)
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
        let (mut state, mut page, mut last) = (self.state(), Vec::new(), None);
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = state.entries.range_mut::<Key, _>((behind, Bound::Unbounded));
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
        let time = unix_now().max(entry.after);
        if let Some((at, bytes)) = &entry.signed
            && (*at..*at + ANEW).contains(&time)
        {
            return Some(bytes.clone());
        }
        let description = Description { time, ..entry.description.clone() };
        let signed = SignedDescription::sign(description, &self.network, &self.keypair);
        // What cannot be said was refused before it came here.
        let bytes =
            signed.map_err(|error| tracing::warn!(%error, "a description cannot be signed")).ok()?.encode();
        entry.signed = Some((time, bytes.clone()));
        Some(bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// What is said instead is signed with no earlier time.
    fn after(&self) -> u64 {
        self.signed.as_ref().map_or(self.after, |(time, _)| time.saturating_add(1))
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
    fn what_is_published_again_is_said_later_than_what_was_withdrawn() {
        let (published, keys) = published(&["one"]);
        let said = || SignedDescription::check(&published.of(&keys[0]).unwrap(), &NETWORK).unwrap();
        let mut last = said();
        for name in ["two", "three", "three", "four"] {
            let description = Description { name: name.to_owned(), time: 0, ..last.description().clone() };
            // Renamed and withdrawn before anybody was told, too.
            if name == "four" {
                assert_eq!(
                    published.publish(Description { name: "x".to_owned(), ..description.clone() }),
                    Some(true)
                );
            }
            assert!(published.withdraw(&keys[0]));
            assert_eq!(published.publish(description), Some(true));
            let next = said();
            assert!(next.description().time > last.description().time && next.is_timely(unix_now()));
            last = next;
        }
    }

    #[test]
    fn however_often_it_is_withdrawn_it_is_believed() {
        let (published, keys) = published(&["one"]);
        let said = || SignedDescription::check(&published.of(&keys[0]).unwrap(), &NETWORK).unwrap();
        let description = Description { time: 0, ..said().description().clone() };
        published.state().withdrawn = unix_now() + 10 * AHEAD;
        assert!(published.withdraw(&keys[0]));
        assert_eq!(published.publish(description), Some(true));
        assert!(said().description().time <= unix_now() + AHEAD);
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
