//! Who has heard what this node says of its objects, and who has yet to hear that it says something else now.
//!
//! Owns: which nodes have taken an object's key with a description, and those of them that have not heard of a change
//! since: they tell the old word until their record expires, so they are told again and again until then. Pure: times
//! come in, debts go out (`schedule/late.rs` pays them). Refuses: more nodes of an object, and more debts, than its
//! limits. Survives a crash: nothing. What has not been paid is not noted as announced, nor as released, so that a
//! restart announces it anew or takes it back once more; see [`journal`](super::journal).
//!
//! Changes are numbered. Whatever is sent says all that was changed before it was signed, and pays no later change:
//! one message may overtake another.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::Notify;

use super::Key;

/// Nodes remembered of an object (8 bytes each): those at which its key is placed, and some that were once.
const MAX_KEEPERS: usize = 48;
/// Debts in all (about 80 bytes each).
const MAX_DEBTS: usize = 65_536;
/// Debts beyond which nobody is owed the end of a key of which no word was said: many such keys end at once.
const MAX_ENDS: usize = MAX_DEBTS / 2;
/// Changes remembered: more than there are while one round is under way.
const MAX_CHANGES: usize = 65_536;
/// Addresses remembered of a debtor's node.
const MAX_ADDRESSES: usize = 4;
/// How long is waited before somebody is told again, and the longest such wait. The first announcement of a change is
/// over by then.
const WAIT: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(30));

/// See the module.
#[derive(Debug)]
pub(super) struct Heard {
    state: Mutex<State>,
    /// Rung when something may be due earlier than it was.
    bell: Notify,
    /// How long others keep what they are told.
    lifetime: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last change.
    number: u64,
    /// Key → its last change; the oldest are forgotten.
    changes: HashMap<Key, u64>,
    /// The same in their order.
    order: VecDeque<(u64, Key)>,
    /// Each node once, so that those of an object are few bytes.
    nodes: HashSet<Arc<PeerId>>,
    /// Key → who has taken it with a description, those that took it last at the end.
    keepers: HashMap<Key, VecDeque<Arc<PeerId>>>,
    /// Whom something is to be told.
    debts: HashMap<PeerId, Debt>,
    /// Key → how many are to be told of it.
    owed: HashMap<Key, usize>,
    /// All of these together.
    count: usize,
}

/// What one node has not heard.
#[derive(Debug)]
struct Debt {
    /// Where it was.
    addresses: Vec<Multiaddr>,
    /// Key → the change, and until when the node may keep the old word.
    keys: BTreeMap<Key, (u64, Instant)>,
    /// When it is told next, and how long is waited after that.
    due: Instant,
    wait: Duration,
}

/// Somebody to be told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Who.
    pub(super) peer: PeerId,
    /// Where it was.
    pub(super) addresses: Vec<Multiaddr>,
    /// Of which keys, ascending.
    pub(super) keys: Vec<Key>,
}

// === impl Heard ===

impl Heard {
    /// Of a node whose keys others keep for `lifetime`.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { state: Mutex::default(), bell: Notify::new(), lifetime }
    }

    /// The number of the last change: what is signed from now on says all up to it.
    pub(super) fn now(&self) -> u64 {
        self.state().number
    }

    /// From now on something else is said of a key, or nothing: whoever took the old word is to be told.
    pub(super) fn changed(&self, key: &Key, now: Instant) {
        let mut state = self.state();
        state.change(key);
        for peer in state.keepers.get(key).cloned().unwrap_or_default() {
            state.owe(&peer, &[], key, now + self.lifetime, now);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Whether something else is said of a key since the change of this number.
    pub(super) fn is_newer(&self, key: &Key, than: u64) -> bool {
        self.state().changes.get(key).is_some_and(|change| *change > than)
    }

    /// The keys of which somebody is still to be told.
    pub(super) fn owed(&self) -> Vec<Key> {
        self.state().owed.keys().copied().collect()
    }

    /// Whether somebody is still to be told of a key.
    pub(super) fn is_owed(&self, key: &Key) -> bool {
        self.state().owed.contains_key(key)
    }

    /// A node took a message that said all changes up to `number`: these keys, and whether it keeps a description of
    /// each from now on. Those of which everybody has heard now.
    pub(super) fn told(
        &self,
        peer: &PeerId,
        keys: impl Iterator<Item = (Key, bool)>,
        number: u64,
    ) -> Vec<Key> {
        let (mut state, mut settled) = (self.state(), Vec::new());
        for (key, is_kept) in keys {
            state.keep(peer, key, is_kept);
            if state.pay(peer, &key, number) {
                settled.push(key);
            }
        }
        settled
    }

    /// A node did not answer: of these keys it is to be told later, as far as there is something to hear. `described`:
    /// whether it would have heard a description.
    pub(super) fn missed(
        &self,
        peer: &PeerId,
        addresses: &[Multiaddr],
        keys: impl Iterator<Item = (Key, bool)>,
        now: Instant,
    ) {
        let mut state = self.state();
        for (key, described) in keys {
            if described || state.changes.contains_key(&key) {
                state.owe(peer, addresses, &key, now + self.lifetime, now);
            }
        }
        drop(state);
        self.bell.notify_one();
    }

    /// A node did not answer when it was told that these keys are not held any more: it may go on naming this node for
    /// them, so it is told later.
    pub(super) fn missed_end(
        &self,
        peer: &PeerId,
        addresses: &[Multiaddr],
        keys: impl Iterator<Item = Key>,
        now: Instant,
    ) {
        let mut state = self.state();
        for key in keys {
            if state.count < MAX_ENDS || state.changes.contains_key(&key) {
                state.owe(peer, addresses, &key, now + self.lifetime, now);
            }
        }
        drop(state);
        self.bell.notify_one();
    }

    /// A node is there: it is told at once what it has not heard.
    pub(super) fn met(&self, peer: &PeerId, now: Instant) {
        let mut state = self.state();
        if let Some(debt) = state.debts.get_mut(peer) {
            (debt.due, debt.wait) = (now, WAIT.0);
            self.bell.notify_one();
        }
    }

    /// Waits until somebody is to be told. Cancel-safe.
    pub(super) async fn due(&self) {
        loop {
            let next = self.state().debts.values().map(|debt| debt.due).min();
            let come = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = come => return,
                () = self.bell.notified() => {}
            }
        }
    }

    /// Who is to be told now. They are due again later, until [`Heard::told`].
    pub(super) fn take_due(&self, now: Instant) -> Vec<Due> {
        let mut state = self.state();
        state.forget_old(now);
        let due = state.debts.iter_mut().filter(|(_, debt)| debt.due <= now);
        let due = due.map(|(peer, debt)| {
            debt.due = now + debt.wait;
            debt.wait = (debt.wait * 2).min(WAIT.1);
            Due { peer: *peer, addresses: debt.addresses.clone(), keys: debt.keys.keys().copied().collect() }
        });
        due.collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn change(&mut self, key: &Key) {
        self.number += 1;
        self.changes.insert(*key, self.number);
        self.order.push_back((self.number, *key));
        while self.order.len() > MAX_CHANGES
            && let Some((number, key)) = self.order.pop_front()
        {
            if self.changes.get(&key) == Some(&number) {
                self.changes.remove(&key);
            }
        }
    }

    /// Somebody keeps a description of this key, or keeps none.
    fn keep(&mut self, peer: &PeerId, key: Key, is_kept: bool) {
        if !is_kept {
            if let Some(keepers) = self.keepers.get_mut(&key) {
                keepers.retain(|keeper| **keeper != *peer);
                if keepers.is_empty() {
                    self.keepers.remove(&key);
                }
            }
            return;
        }
        let node = self.nodes.get(peer).cloned().unwrap_or_else(|| Arc::new(*peer));
        self.nodes.insert(Arc::clone(&node));
        let keepers = self.keepers.entry(key).or_default();
        keepers.retain(|keeper| **keeper != *peer);
        if keepers.len() >= MAX_KEEPERS {
            keepers.pop_front();
        }
        keepers.push_back(node);
    }

    fn owe(&mut self, peer: &PeerId, addresses: &[Multiaddr], key: &Key, until: Instant, now: Instant) {
        let number = self.changes.get(key).copied().unwrap_or(0);
        if self.count >= MAX_DEBTS && !self.debts.get(peer).is_some_and(|debt| debt.keys.contains_key(key)) {
            return;
        }
        let debt = self.debts.entry(*peer).or_insert_with(|| Debt {
            addresses: Vec::new(),
            keys: BTreeMap::new(),
            due: now + WAIT.0,
            wait: WAIT.0,
        });
        if !addresses.is_empty() {
            debt.addresses = addresses.iter().take(MAX_ADDRESSES).cloned().collect();
        }
        // Who misses the same again may not keep the old word for longer.
        let until = debt.keys.get(key).filter(|(old, _)| *old == number).map_or(until, |(_, until)| *until);
        if debt.keys.insert(*key, (number, until)).is_none() {
            self.count += 1;
            *self.owed.entry(*key).or_default() += 1;
        }
    }

    /// A node has heard all changes of a key up to `number`; whether everybody has, of one that somebody had not.
    fn pay(&mut self, peer: &PeerId, key: &Key, number: u64) -> bool {
        let Some(debt) = self.debts.get_mut(peer) else { return false };
        if debt.keys.get(key).is_none_or(|(change, _)| *change > number) {
            return false;
        }
        debt.keys.remove(key);
        if debt.keys.is_empty() {
            self.debts.remove(peer);
        }
        self.settle(key)
    }

    /// One debt less of a key; whether it was the last.
    fn settle(&mut self, key: &Key) -> bool {
        self.count = self.count.saturating_sub(1);
        let Some(left) = self.owed.get_mut(key) else { return false };
        *left = left.saturating_sub(1);
        let is_last = *left == 0;
        if is_last {
            self.owed.remove(key);
        }
        is_last
    }

    /// Forgets debts to those that cannot keep the old word any more, so that they are no keepers either; and nodes
    /// that keep nothing.
    fn forget_old(&mut self, now: Instant) {
        let mut gone = Vec::new();
        self.debts.retain(|peer, debt| {
            debt.keys.retain(|key, (_, until)| {
                let is_over = *until <= now;
                gone.extend(is_over.then_some((*peer, *key)));
                !is_over
            });
            !debt.keys.is_empty()
        });
        for (peer, key) in gone {
            self.settle(&key);
            self.keep(&peer, key, false);
        }
        self.nodes.retain(|node| Arc::strong_count(node) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const ONE: Key = [1; 32];
    const TWO: Key = [2; 32];

    fn due(heard: &Heard, now: Instant) -> Vec<(PeerId, Vec<Key>)> {
        let mut due: Vec<_> = heard.take_due(now).into_iter().map(|due| (due.peer, due.keys)).collect();
        due.sort();
        due
    }

    fn kept(heard: &Heard, peer: &PeerId, key: Key) -> Vec<Key> {
        heard.told(peer, [(key, true)].into_iter(), heard.now())
    }

    #[test]
    fn who_took_the_old_word_is_told_until_it_has_heard_the_new_one() {
        let (heard, now, peers) = (Heard::new(DAY), Instant::now(), [(); 3].map(|()| PeerId::random()));
        peers.iter().for_each(|peer| assert!(kept(&heard, peer, ONE).is_empty()));
        kept(&heard, &peers[0], TWO);
        assert!(due(&heard, now + DAY).is_empty(), "nothing has changed");
        let before = heard.now();
        heard.changed(&ONE, now);
        assert!(heard.is_owed(&ONE) && !heard.is_owed(&TWO) && heard.is_newer(&ONE, before));
        // What was signed before it pays nothing.
        assert!(heard.told(&peers[0], [(ONE, true)].into_iter(), before).is_empty());
        // The announcement comes first.
        assert!(due(&heard, now).is_empty());
        assert!(heard.told(&peers[0], [(ONE, true)].into_iter(), heard.now()).is_empty());
        let mut left = [(peers[1], vec![ONE]), (peers[2], vec![ONE])];
        left.sort();
        assert_eq!(due(&heard, now + WAIT.0), left);
        assert!(due(&heard, now + WAIT.0).is_empty(), "it has been taken");
        heard.told(&peers[1], [(ONE, false)].into_iter(), heard.now());
        assert_eq!(due(&heard, now + 3 * WAIT.0), [(peers[2], vec![ONE])]);
        // It comes back, and hears at once.
        heard.met(&peers[2], now + 3 * WAIT.0);
        assert_eq!(due(&heard, now + 3 * WAIT.0), [(peers[2], vec![ONE])]);
        assert_eq!(heard.told(&peers[2], [(ONE, false)].into_iter(), heard.now()), [ONE]);
        assert!(!heard.is_owed(&ONE) && due(&heard, now + DAY).is_empty());
        // Those that keep none need not hear of a change.
        heard.changed(&ONE, now);
        assert_eq!(due(&heard, now + WAIT.0), [(peers[0], vec![ONE])]);
    }

    #[test]
    fn who_does_not_answer_is_tried_ever_more_rarely_and_not_for_ever() {
        let (heard, now, peer) = (Heard::new(DAY), Instant::now(), PeerId::random());
        let at = vec!["/ip4/9.9.9.9/tcp/1".parse().unwrap(); 9];
        kept(&heard, &peer, ONE);
        heard.missed(&peer, &at, [(ONE, true), (TWO, false)].into_iter(), now);
        assert!(!heard.is_owed(&TWO), "there is nothing to hear of it");
        let (mut tries, mut time) = (Vec::new(), Duration::ZERO);
        while time < 2 * DAY {
            time += Duration::from_secs(15);
            for due in heard.take_due(now + time) {
                assert_eq!((due.keys, due.addresses.len()), (vec![ONE], MAX_ADDRESSES));
                tries.push(time);
                heard.missed(&peer, &[], [(ONE, true)].into_iter(), now + time);
            }
        }
        assert!((45..70).contains(&tries.len()), "{}", tries.len());
        assert!(tries.windows(3).all(|three| three[2] - three[1] >= three[1] - three[0]), "{tries:?}");
        assert!(*tries.last().unwrap() < DAY && !heard.is_owed(&ONE));
        let state = heard.state();
        assert!(state.debts.is_empty() && state.count == 0);
        assert!(state.keepers.is_empty() && state.nodes.is_empty(), "it keeps the old word no longer");
    }

    #[test]
    fn who_does_not_hear_of_an_end_is_told_later_and_leaves_room_for_words() {
        let (heard, now, peer) = (Heard::new(DAY), Instant::now(), PeerId::random());
        heard.missed_end(&peer, &[], [ONE].into_iter(), now);
        assert_eq!((heard.owed(), due(&heard, now + WAIT.0)), (vec![ONE], vec![(peer, vec![ONE])]));
        assert_eq!(heard.told(&peer, [(ONE, false)].into_iter(), heard.now()), [ONE]);
        let keys = (0..MAX_DEBTS).map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes());
        heard.missed_end(&peer, &[], keys, now);
        assert_eq!(heard.owed().len(), MAX_ENDS);
        heard.changed(&TWO, now);
        heard.missed_end(&peer, &[], [ONE, TWO].into_iter(), now);
        assert!(heard.is_owed(&TWO) && !heard.is_owed(&ONE));
    }

    #[test]
    fn memory_is_bounded() {
        let (heard, now) = (Heard::new(DAY), Instant::now());
        for number in 0..MAX_DEBTS + 100 {
            let key: Key = *blake3::hash(&number.to_le_bytes()).as_bytes();
            heard.missed(&PeerId::random(), &[], [(key, true)].into_iter(), now);
            heard.changed(&key, now);
        }
        for _ in 0..100 {
            kept(&heard, &PeerId::random(), ONE);
        }
        let state = heard.state();
        assert_eq!((state.count, state.owed.len(), state.changes.len()), (MAX_DEBTS, MAX_DEBTS, MAX_CHANGES));
        assert_eq!((state.order.len(), state.keepers[&ONE].len()), (MAX_CHANGES, MAX_KEEPERS));
    }
}
