//! The record store: who announced which key to this node.
//!
//! Owns: this node's own keys, and the keys that others placed here, within a budget of bytes that the
//! sources share fairly. Refuses: values of any kind, keys of other lengths than 32 bytes, keys that many
//! known nodes are nearer to, and more than its budgets. Survives a crash: nothing yet; announcers refresh,
//! and [`Records::put`] is the one way in, so that a cache on disk can be replayed through it.
//!
//! Layout: two ordered trees of 40-byte entries, (key, source) → until for asking and (source, until, key)
//! for expiry and eviction, with sources (peer, addresses) kept once. No message ever scans the store.

mod adapter;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use rand::Rng;

use self::replay::Window;
use super::Key;
use super::position::Position;
use super::regions::K;

/// What a record is charged against the budget: two tree entries of 40 bytes, in nodes that are on average
/// two thirds full (measured with a million records: 133).
pub(super) const RECORD_BYTES: usize = 136;
/// Providers kept of one key; the next one replaces the stalest.
pub(super) const MAX_PROVIDERS: usize = 64;
/// Addresses kept of one source.
pub(super) const MAX_ADDRESSES: usize = 16;
/// A record lives at most this long without being announced again (Kademlia's customary two days).
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// A key is too far when this many known nodes are nearer: twice K, since an announcer may not know of
/// nodes that we know, and the other way round.
const MAX_NEARER: usize = 2 * K;
/// Sources kept; one costs about 300 bytes with its addresses, so 5 MiB. A new one beyond that replaces
/// the smallest of a few drawn at random, so that a flood of identities cannot lock the others out.
const MAX_SOURCES: usize = 16_384;
/// How many sources are drawn for that.
const DRAWN: usize = 8;
/// Expired records removed at a time, so that no message waits for a large clean-up (about 5 ms).
const EXPIRED_AT_ONCE: usize = 8_192;

/// Limits of the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Own keys kept.
    pub(super) own_keys: usize,
    /// Bytes for others' keys, at [`RECORD_BYTES`] each.
    pub(super) other_bytes: usize,
}

/// What became of a record that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Kept, or refreshed.
    Taken,
    /// Many known nodes are nearer to the key.
    Far,
    /// The budget is used up, and this source has its fair share of it.
    Full,
}

/// One who announces.
#[derive(Debug)]
struct Source {
    /// Who.
    peer: PeerId,
    /// Where it can be reached, told in answers.
    addresses: Vec<Multiaddr>,
    /// Records it has here.
    count: u32,
    /// Which batches of it have been taken.
    window: Window,
}

/// The store. Times are passed in, so that tests need not wait.
#[derive(Debug)]
pub(super) struct Records {
    /// This node, which is not one of the sources.
    local: PeerId,
    /// This node's place in the key space.
    place: Position,
    /// Seconds are counted from here.
    epoch: Instant,
    /// How much may be kept.
    limits: Limits,
    /// Keys that this node itself announced.
    own: BTreeSet<Key>,
    /// Where this node can be reached, told in answers.
    own_addresses: Vec<Multiaddr>,
    /// (key, source) → the second it expires.
    by_key: BTreeMap<(Key, u32), u32>,
    /// (source, second it expires, key): the same records in the order of their going.
    by_source: BTreeSet<(u32, u32, Key)>,
    /// (records, source), to find the one with the most.
    by_count: BTreeSet<(u32, u32)>,
    /// Sources by number; numbers are used again.
    sources: Vec<Option<Source>>,
    /// Numbers that are free.
    vacant: Vec<u32>,
    /// Numbers by peer.
    numbers: HashMap<PeerId, u32>,
    /// Addresses of connected peers, for those that announce without telling any.
    contacts: HashMap<PeerId, Vec<Multiaddr>>,
    /// Places of the nodes in the routing table.
    known: Vec<Position>,
    /// The second of the last clean-up.
    cleaned: u32,
}

// === impl Records ===

impl Records {
    pub(super) fn new(local: PeerId, limits: Limits, now: Instant) -> Self {
        Self {
            local,
            place: Position::of_peer(&local),
            epoch: now,
            limits,
            own: BTreeSet::new(),
            own_addresses: Vec::new(),
            by_key: BTreeMap::new(),
            by_source: BTreeSet::new(),
            by_count: BTreeSet::new(),
            sources: Vec::new(),
            vacant: Vec::new(),
            numbers: HashMap::new(),
            contacts: HashMap::new(),
            known: Vec::new(),
            cleaned: 0,
        }
    }

    /// Keeps keys of this node; says how many did not fit.
    pub(super) fn keep(&mut self, keys: &[Key]) -> usize {
        let mut over = 0;
        for key in keys {
            if self.own.contains(key) {
                continue;
            }
            if self.own.len() < self.limits.own_keys {
                self.own.insert(*key);
            } else {
                over += 1;
            }
        }
        over
    }

    /// Forgets keys of this node.
    pub(super) fn forget(&mut self, keys: &[Key]) {
        for key in keys {
            self.own.remove(key);
        }
    }

    /// Offers a record of another node, to live for `lifetime` (at most [`MAX_LIFETIME`]) from `now`.
    pub(super) fn put(&mut self, key: Key, peer: PeerId, lifetime: Duration, now: Instant) -> Verdict {
        self.clean(now);
        let until = self.second(now + lifetime.min(MAX_LIFETIME));
        if let Some(&source) = self.numbers.get(&peer)
            && let Some(kept) = self.by_key.get_mut(&(key, source))
        {
            let old = std::mem::replace(kept, until);
            self.by_source.remove(&(source, old, key));
            self.by_source.insert((source, until, key));
            return Verdict::Taken;
        }
        if self.is_far(&key) {
            return Verdict::Far;
        }
        let source = self.number(peer);
        if !self.make_room(&key, source) {
            return Verdict::Full;
        }
        self.by_key.insert((key, source), until);
        self.by_source.insert((source, until, key));
        self.recount(source, 1);
        Verdict::Taken
    }

    /// Takes back a record of another node; says whether there was one.
    pub(super) fn take_back(&mut self, key: &Key, peer: &PeerId) -> bool {
        self.numbers.get(peer).copied().is_some_and(|source| self.drop_record(key, source))
    }

    /// Who announced `key`, in an order that is drawn anew for each call and favours fresh records.
    pub(super) fn holders(&self, key: &Key, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>, Instant)> {
        let second = self.second(now);
        let mut rng = rand::rng();
        let mut found: Vec<_> = self
            .of_key(key)
            .filter(|(_, until)| *until > second)
            .filter_map(|(source, until)| Some((self.source(source)?, until)))
            .map(|(source, until)| {
                // A key drawn by weight (Efraimidis and Spirakis, 2006): u^(1/w), w the time left.
                let weight = f64::from(until - second);
                (rng.random::<f64>().powf(1.0 / weight), source, until)
            })
            .collect();
        found.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let when = |until: u32| self.epoch + Duration::from_secs(u64::from(until));
        found.into_iter().map(|(_, s, until)| (s.peer, s.addresses.clone(), when(until))).collect()
    }

    /// Whether a batch with this number is new; remembers it when it is. The other way about: the highest
    /// number seen, which the announcer must go beyond.
    pub(super) fn first_time(&mut self, peer: PeerId, sequence: u64) -> Result<(), u64> {
        let number = self.number(peer);
        let source = self.sources.get_mut(number as usize).and_then(Option::as_mut);
        source.map_or(Ok(()), |source| source.window.admit(sequence))
    }

    /// Replaces what is told of where a source is.
    pub(super) fn locate(&mut self, peer: &PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.truncate(MAX_ADDRESSES);
        let number = self.numbers.get(peer).copied();
        if let Some(source) = number.and_then(|n| self.sources.get_mut(n as usize)?.as_mut()) {
            source.addresses = addresses;
        }
    }

    /// Remembers where a connected peer is, for when it announces without telling.
    pub(super) fn met(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.truncate(MAX_ADDRESSES);
        self.locate(&peer, addresses.clone());
        self.contacts.insert(peer, addresses);
    }

    /// Forgets where a peer is that is no longer connected; its records stay.
    pub(super) fn parted(&mut self, peer: &PeerId) {
        self.contacts.remove(peer);
    }

    /// Where a peer is, as far as it has told; empty when it has not.
    pub(super) fn whereabouts(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let source = self.numbers.get(peer).and_then(|number| self.source(*number));
        let told = source.map(|source| &source.addresses).filter(|told| !told.is_empty());
        told.or_else(|| self.contacts.get(peer)).cloned().unwrap_or_default()
    }

    /// Replaces what is told of where this node is.
    pub(super) fn locate_self(&mut self, addresses: Vec<Multiaddr>) {
        self.own_addresses = addresses;
    }

    /// Replaces the nodes by which distance is judged: those of the routing table.
    pub(super) fn know(&mut self, nodes: impl Iterator<Item = Position>) {
        self.known = nodes.collect();
    }

    /// Removes what has expired, at most once a second and a bounded number at a time.
    pub(super) fn clean(&mut self, now: Instant) {
        let second = self.second(now);
        if second == self.cleaned {
            return;
        }
        self.cleaned = second;
        let mut left = EXPIRED_AT_ONCE;
        for source in 0..u32::try_from(self.sources.len()).unwrap_or(u32::MAX) {
            while left > 0
                && let Some((_, key)) = self.stalest(source).filter(|(until, _)| *until <= second)
            {
                self.drop_record(&key, source);
                left -= 1;
            }
        }
    }

    /// Records of others.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Keys of this node.
    pub(super) fn own_len(&self) -> usize {
        self.own.len()
    }

    /// Nodes with records here.
    pub(super) fn sources_len(&self) -> usize {
        self.numbers.len()
    }

    fn is_far(&self, key: &Key) -> bool {
        if self.known.len() < MAX_NEARER {
            return false;
        }
        let at = Position::of_key(key);
        let ours = self.place.distance(at);
        self.known.iter().filter(|node| node.distance(at) < ours).count() >= MAX_NEARER
    }

    /// Makes room for one more record of `source`: within its key, then within the budget. A full store
    /// takes from whoever has the most, and only for one who has less than a fair share.
    fn make_room(&mut self, key: &Key, source: u32) -> bool {
        let mut providers: Vec<_> = self.of_key(key).map(|(source, until)| (until, source)).collect();
        if providers.len() >= MAX_PROVIDERS {
            providers.sort_unstable();
            let stalest = providers[0].1;
            return self.drop_record(key, stalest);
        }
        let room = self.limits.other_bytes / RECORD_BYTES;
        if self.by_key.len() < room {
            return true;
        }
        let share = room / self.numbers.len().max(1);
        let count = self.source(source).map_or(0, |source| source.count as usize);
        let Some((most, largest)) = self.by_count.last().copied() else { return false };
        if count >= share || most as usize <= count + 1 {
            return false;
        }
        self.stalest(largest).is_some_and(|(_, key)| self.drop_record(&key, largest))
    }

    /// The number of `peer`, given to it now if it has none.
    fn number(&mut self, peer: PeerId) -> u32 {
        if let Some(number) = self.numbers.get(&peer) {
            return *number;
        }
        if self.numbers.len() >= MAX_SOURCES {
            self.replace_a_small_source();
        }
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.sources.push(None);
            u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX)
        });
        let addresses = self.contacts.get(&peer).cloned().unwrap_or_default();
        let source = Source { peer, addresses, count: 0, window: Window::default() };
        if let Some(slot) = self.sources.get_mut(number as usize) {
            *slot = Some(source);
        }
        self.numbers.insert(peer, number);
        self.by_count.insert((0, number));
        number
    }

    fn replace_a_small_source(&mut self) {
        let mut rng = rand::rng();
        let drawn = (0..DRAWN).map(|_| rng.random_range(0..self.sources.len()));
        let smallest = drawn.filter_map(|n| Some((self.sources[n].as_ref()?.count, n))).min();
        let Some(number) = smallest.and_then(|(_, n)| u32::try_from(n).ok()) else { return };
        while let Some((_, key)) = self.stalest(number) {
            self.drop_record(&key, number);
        }
        self.drop_source(number);
    }

    fn drop_source(&mut self, number: u32) {
        let Some(source) = self.sources.get_mut(number as usize).and_then(Option::take) else { return };
        self.by_count.remove(&(source.count, number));
        self.numbers.remove(&source.peer);
        self.vacant.push(number);
    }

    fn drop_record(&mut self, key: &Key, source: u32) -> bool {
        let Some(until) = self.by_key.remove(&(*key, source)) else { return false };
        self.by_source.remove(&(source, until, *key));
        self.recount(source, -1);
        true
    }

    fn recount(&mut self, number: u32, by: i32) {
        let Some(source) = self.sources.get_mut(number as usize).and_then(Option::as_mut) else { return };
        self.by_count.remove(&(source.count, number));
        source.count = source.count.saturating_add_signed(by);
        self.by_count.insert((source.count, number));
    }

    fn source(&self, number: u32) -> Option<&Source> {
        self.sources.get(number as usize)?.as_ref()
    }

    /// (source, until) of a key's records.
    fn of_key(&self, key: &Key) -> impl Iterator<Item = (u32, u32)> {
        self.by_key.range((*key, 0)..=(*key, u32::MAX)).map(|((_, source), until)| (*source, *until))
    }

    /// (until, key) of the record of `source` that goes first.
    fn stalest(&self, source: u32) -> Option<(u32, Key)> {
        let first = self.by_source.range((source, 0, [0; 32])..=(source, u32::MAX, [u8::MAX; 32])).next();
        first.map(|(_, until, key)| (*until, *key))
    }

    /// Whole seconds since the store was opened (136 years fit).
    fn second(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }
}
