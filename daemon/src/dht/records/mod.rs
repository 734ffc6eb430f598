//! The record store: who announced which key to this node.
//!
//! Owns: the keys that others placed here, within a budget of bytes that their [owners] share fairly. Refuses: values
//! of any kind, keys of other lengths than 32 bytes, keys that many known nodes are nearer to, more than its budgets,
//! and more a second than [`RATE`] from one source and [`OF_GROUP`] from an address group. Survives a crash: what the
//! [journal](super::journal) has of it; [`Records::put`] is the one way in, so that what is read there is judged again.
//!
//! What gives way when it is full, after what has expired:
//! - of a key's records beyond four of an address group, or 64, the one that ends first;
//! - beyond the budget what is farthest from this node, since others look for that elsewhere, of whoever has the most
//!   of the [owner](owners) that has the most, and nothing for one who has as much;
//! - beyond the places for sources one that has nothing, else a small one of the address group that has the most.
//!
//! Layout: two ordered trees of 40-byte entries, (key, source) → until for asking and (source, distance, key) for
//! what gives way, with sources (peer, addresses) kept once. No message ever scans the store, and none costs more when
//! it is full.

mod adapter;
mod described;
mod far;
mod gone;
mod kept;
mod owners;
mod replay;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use rand::Rng;

pub(super) use self::described::{Described, MAX_OF_OBJECT};
use self::far::Known;
pub(super) use self::kept::From;
use self::owners::Owners;
use self::source::{Contact, Source};
pub(super) use self::source::{Group, chosen};
use super::Key;
use super::awaited::Awaited;
use super::holdings::Holdings;
use super::journal::Journal;
use super::position::Position;
use crate::support::allowance::{Allowances, Rate};

/// What a record is charged against the budget: two tree entries of 40 bytes, in nodes that are on average
/// two thirds full (measured with a million records: 133).
pub(super) const RECORD_BYTES: usize = 136;
/// Providers kept of one key; the next one replaces the stalest.
pub(super) const MAX_PROVIDERS: usize = 64;
/// Of these, in one address group: so many hosts of one owner cannot crowd out the others.
const MAX_PER_GROUP: usize = 4;
/// Addresses kept of one source, and told of a node.
pub(super) const MAX_ADDRESSES: usize = 8;
/// Bytes of one: a name of 63 letters and a port fit, and so does the way through a relay.
pub(super) const MAX_ADDRESS: usize = 128;
/// A record lives at most this long without being announced again (Kademlia's customary two days).
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// Sources kept; one costs about 400 bytes with its addresses, so 6 MiB. A new one beyond that takes another's place,
/// so that a flood of identities cannot lock the others out.
const MAX_SOURCES: usize = 16_384;
/// Keys a second that one source may announce, and how many it may save up: four times what casd sends to all.
const RATE: u32 = 20_000;
const BURST: u32 = 100_000;
/// The same of all sources of one address group together: a host has many ids, and what all of them announce takes the
/// event loop's time.
const OF_GROUP: Rate = Rate { each_second: 5 * RATE, burst: 4 * BURST };
/// Address groups whose keys are counted.
const MAX_GROUPS: usize = 1_024;
/// A record that is announced again keeps its end until a part of its life has passed, one of so many: so what is
/// announced again and again is not written down each time, and what is written is what is known. It is little enough
/// that none ends before its turn, which comes a day and a half after it was announced at the latest, of two.
const PART: u32 = 8;
/// Records of which it is looked each second whether they have expired, so that no message waits for a large clean-up
/// (some 10 ms where all have); all of them in a minute or so.
const SWEPT_AT_ONCE: usize = 4_096;

/// What became of a record that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Kept, or refreshed.
    Taken,
    /// Many known nodes are nearer to the key.
    Far,
    /// The budget is used up, and nobody has more of it than this source, or its address group.
    Full,
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
    /// Bytes that may be kept, at [`RECORD_BYTES`] a record.
    budget: usize,
    /// Keys that this node itself holds.
    own: Arc<Mutex<Holdings>>,
    /// Remembers on disk what is taken.
    journal: Journal,
    /// What others say of the objects they hold.
    described: Described,
    /// What gave way since the journal was last told: whose, and of which key.
    gone: Vec<(PeerId, Key)>,
    /// Where this node can be reached, told in answers.
    own_addresses: Vec<Multiaddr>,
    /// (key, source) → the second it expires.
    by_key: BTreeMap<(Key, u32), u32>,
    /// (source, how far it is from this node, key): the same records, of each source the nearest first.
    by_source: BTreeSet<(u32, u32, Key)>,
    /// Who has how much.
    owners: Owners,
    /// Sources by number; numbers are used again.
    sources: Vec<Option<Source>>,
    /// Numbers that are free.
    vacant: Vec<u32>,
    /// Numbers by peer.
    numbers: HashMap<PeerId, u32>,
    /// Where connected peers are, for those that announce without telling.
    contacts: HashMap<PeerId, Contact>,
    /// The nodes in the routing table, in the order of their groups.
    known: Vec<Known>,
    /// What each address group may announce.
    of_group: Allowances<Group>,
    /// Keys that somebody here waits for.
    awaited: Awaited,
    /// The second of the last clean-up.
    cleaned: u32,
    /// The record at which the next one begins.
    sweep: (Key, u32),
}

// === impl Records ===

impl Records {
    /// A store of `budget` bytes beside this node's `own` keys.
    pub(super) fn new(
        local: PeerId,
        budget: usize,
        own: Arc<Mutex<Holdings>>,
        (journal, described): (Journal, Described),
        now: Instant,
    ) -> Self {
        Self {
            local,
            place: Position::of_peer(&local),
            epoch: now,
            budget,
            own,
            journal,
            described,
            gone: Vec::new(),
            own_addresses: Vec::new(),
            by_key: BTreeMap::new(),
            by_source: BTreeSet::new(),
            owners: Owners::default(),
            sources: Vec::new(),
            vacant: Vec::new(),
            numbers: HashMap::new(),
            contacts: HashMap::new(),
            known: Vec::new(),
            of_group: Allowances::new(OF_GROUP, MAX_GROUPS),
            awaited: Awaited::default(),
            cleaned: 0,
            sweep: ([0; 32], 0),
        }
    }

    /// Tells from now on whoever waits for a key there that it is announced.
    pub(super) fn tell_of(&mut self, awaited: Awaited) {
        self.awaited = awaited;
    }

    /// Offers a record of another node, to live for `lifetime` (at most [`MAX_LIFETIME`]) from `now`.
    pub(super) fn put(&mut self, key: Key, peer: PeerId, lifetime: Duration, now: Instant) -> Verdict {
        let (number, second) = (self.number(peer), self.second(now));
        let source = self.sources.get_mut(number as usize).and_then(Option::as_mut);
        let group = source.as_ref().and_then(|source| source.group);
        let of_group = &mut self.of_group;
        let may_announce = source.is_some_and(|source| source.may_announce(second, RATE, BURST))
            && group.is_none_or(|group| of_group.take(group, now));
        if may_announce {
            // Also where it is not kept here: others may have taken it.
            self.awaited.announced(&key);
        }
        let (end, part) = (self.end(lifetime, now), lifetime.min(MAX_LIFETIME) / PART);
        match self.by_key.get(&(key, number)).copied() {
            _ if !may_announce => Verdict::Full,
            Some(kept) if u64::from(end.saturating_sub(kept)) < part.as_secs().max(1) => Verdict::Taken,
            _ => self.keep(key, peer, lifetime, now),
        }
    }

    /// As [`Records::put`], however fast, and until just then.
    fn keep(&mut self, key: Key, peer: PeerId, lifetime: Duration, now: Instant) -> Verdict {
        self.clean(now);
        let until = self.end(lifetime, now);
        if let Some(&source) = self.numbers.get(&peer)
            && let Some(kept) = self.by_key.get_mut(&(key, source))
        {
            *kept = until;
            return Verdict::Taken;
        }
        if self.is_far(&key) {
            return Verdict::Far;
        }
        let source = self.number(peer);
        if !self.make_room(&key, source) {
            return Verdict::Full;
        }
        let far = self.far(&key);
        self.by_key.insert((key, source), until);
        self.by_source.insert((source, far, key));
        self.recount(source, 1);
        Verdict::Taken
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

    /// Whether this node itself holds `key`.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).holds(key)
    }

    /// Everybody who holds `key`, this node among them.
    pub(super) fn all_holders(&self, key: &Key) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let own = self.holds(key).then(|| (self.local, self.own_addresses.clone()));
        let others = self.holders(key, Instant::now()).into_iter().map(|(peer, at, _)| (peer, at));
        own.into_iter().chain(others).collect()
    }

    /// Whether a batch with this number is new; remembers it when it is. The other way about: the highest
    /// number seen, which the announcer must go beyond.
    pub(super) fn first_time(&mut self, peer: PeerId, sequence: u64) -> Result<(), u64> {
        let number = self.number(peer);
        let source = self.sources.get_mut(number as usize).and_then(Option::as_mut);
        source.map_or(Ok(()), |source| source.window.admit(sequence))
    }

    /// Replaces what is told of where this node is.
    pub(super) fn locate_self(&mut self, addresses: Vec<Multiaddr>) {
        self.own_addresses = chosen(addresses, &[]);
    }

    /// Removes what has expired: at most once a second it looks at some of the records, and goes on behind them next.
    pub(super) fn clean(&mut self, now: Instant) {
        let second = self.second(now);
        if second == self.cleaned {
            return;
        }
        self.cleaned = second;
        let mut rest = self.by_key.range(self.sweep..);
        let some = rest.by_ref().take(SWEPT_AT_ONCE).filter(|(_, until)| **until <= second);
        let expired: Vec<_> = some.map(|(record, _)| *record).collect();
        self.sweep = rest.next().map_or(([0; 32], 0), |(record, _)| *record);
        for (key, source) in expired {
            self.drop_record(&key, source);
        }
    }

    /// Records of others.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Nodes with records here.
    pub(super) fn sources_len(&self) -> usize {
        self.numbers.len()
    }

    /// Makes room for one more record of `source`: within its key, then within the budget.
    fn make_room(&mut self, key: &Key, source: u32) -> bool {
        let mut providers: Vec<_> = self.of_key(key).map(|(source, until)| (until, source)).collect();
        providers.sort_unstable();
        let group = self.source(source).and_then(|source| source.group);
        let is_alike =
            |of: u32| group.is_some() && self.source(of).is_some_and(|source| source.group == group);
        let alike: Vec<u32> = providers.iter().map(|(_, of)| *of).filter(|of| is_alike(*of)).collect();
        let gives_way = if alike.len() >= MAX_PER_GROUP {
            alike.first().copied()
        } else {
            providers.first().filter(|_| providers.len() >= MAX_PROVIDERS).map(|(_, of)| *of)
        };
        match gives_way {
            Some(stalest) => self.push_away(key, stalest),
            None => self.by_key.len() < self.room() || self.push_out(key, source),
        }
    }

    /// Records that fit.
    fn room(&self) -> usize {
        self.budget / RECORD_BYTES
    }

    /// The farthest record of `source`: how far it is, and its key.
    fn farthest(&self, source: u32) -> Option<(u32, Key)> {
        let all = (source, 0, [0; 32])..=(source, u32::MAX, [u8::MAX; 32]);
        self.by_source.range(all).next_back().map(|(_, far, key)| (*far, *key))
    }

    /// How far a key is from this node: the first 32 bits, which order most.
    fn far(&self, key: &Key) -> u32 {
        u32::try_from(Position::of_key(key).distance(self.place).top() >> 32).unwrap_or(u32::MAX)
    }

    /// The number of `peer`, given to it now if it has none.
    fn number(&mut self, peer: PeerId) -> u32 {
        if let Some(number) = self.numbers.get(&peer) {
            return *number;
        }
        if self.numbers.len() >= MAX_SOURCES {
            self.replace_a_source();
        }
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.sources.push(None);
            u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX)
        });
        let contact = self.contacts.get(&peer).cloned().unwrap_or_default();
        let source = Source::new(peer, contact, BURST);
        self.owners.recount(source.owner(number), number, 0, 0);
        if let Some(slot) = self.sources.get_mut(number as usize) {
            *slot = Some(source);
        }
        self.numbers.insert(peer, number);
        number
    }

    /// Forgets a source that has no record.
    fn drop_source(&mut self, number: u32) {
        let Some(source) = self.sources.get_mut(number as usize).and_then(Option::take) else { return };
        self.owners.forget(number);
        self.numbers.remove(&source.peer);
        self.vacant.push(number);
    }

    fn drop_record(&mut self, key: &Key, source: u32) -> bool {
        if self.by_key.remove(&(*key, source)).is_none() {
            return false;
        }
        let far = self.far(key);
        self.by_source.remove(&(source, far, *key));
        self.recount(source, -1);
        self.undescribe_one(key, source);
        true
    }

    fn recount(&mut self, number: u32, by: i32) {
        let Some(source) = self.sources.get_mut(number as usize).and_then(Option::as_mut) else { return };
        let before = source.count;
        source.count = before.saturating_add_signed(by);
        self.owners.recount(source.owner(number), number, before, source.count);
    }

    fn source(&self, number: u32) -> Option<&Source> {
        self.sources.get(number as usize)?.as_ref()
    }

    /// (source, until) of a key's records.
    fn of_key(&self, key: &Key) -> impl Iterator<Item = (u32, u32)> {
        self.by_key.range((*key, 0)..=(*key, u32::MAX)).map(|((_, source), until)| (*source, *until))
    }

    /// When a record ends that is to live for so long.
    fn end(&self, lifetime: Duration, now: Instant) -> u32 {
        self.second(now + lifetime.min(MAX_LIFETIME))
    }

    /// Whole seconds since the store was opened (136 years fit).
    fn second(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }
}
