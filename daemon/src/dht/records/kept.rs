//! What outlives the process: noting it, telling it page by page, and taking it back in.
//!
//! Owns: what of the records the journal is told. Refuses: nothing by itself; what is taken back in is judged like what
//! a node announces, but for its rate. Survives a crash: see [`journal`](crate::dht::journal).

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{MAX_LIFETIME, Records, Verdict};
use crate::dht::Key;
use crate::dht::holdings::Minute;
use crate::dht::journal::Entry;
use crate::support::unix_now;

/// Where a page of records begins: source, how far it is, key.
pub(in crate::dht) type From = (u32, u32, Key);

impl Records {
    /// Offers the keys of one announcement; says which were taken.
    pub(in crate::dht) fn put_all(
        &mut self,
        keys: Vec<Key>,
        peer: PeerId,
        lifetime: Duration,
        now: Instant,
    ) -> Vec<Verdict> {
        let verdicts: Vec<_> = keys.iter().map(|key| self.put(*key, peer, lifetime, now)).collect();
        self.note_gone();
        // Of those that were taken one may have given way to another, and some keep the end that is written already.
        let (until, source) = (self.end(lifetime, now), self.numbers.get(&peer).copied());
        let ends = |key: Key| source.and_then(|source| self.by_key.get(&(key, source)).copied());
        let new = keys.into_iter().filter(|key| ends(*key) == Some(until)).collect();
        self.journal.note(&Entry::Taken { peer, until: minute_after(lifetime), keys: new });
        verdicts
    }

    /// How many of `keys` are kept of `peer`.
    pub(in crate::dht) fn known(&self, keys: &[Key], peer: &PeerId) -> usize {
        let Some(source) = self.numbers.get(peer) else { return 0 };
        keys.iter().filter(|key| self.by_key.contains_key(&(**key, *source))).count()
    }

    /// Takes back records of another node; says how many there were.
    pub(in crate::dht) fn take_back(&mut self, mut keys: Vec<Key>, peer: &PeerId) -> usize {
        let Some(source) = self.numbers.get(peer).copied() else { return 0 };
        keys.retain(|key| self.drop_record(key, source));
        let count = keys.len();
        self.journal.note(&Entry::TakenBack { peer: *peer, keys });
        count
    }

    /// Whether all that the journal remembers of others has been taken in again.
    pub(in crate::dht) fn is_restored(&self) -> bool {
        self.journal.is_read()
    }

    /// Takes in again what the journal remembers of others. It is written anew when some of that is refused or gives
    /// way, lest a later start has room for what its source has taken back since.
    pub(in crate::dht) fn restore(&mut self, entries: Vec<Entry>, now: Instant) {
        let mut all_kept = true;
        for entry in entries {
            match entry {
                Entry::Located { peer, addresses } => {
                    let number = self.number(peer);
                    if let Some(source) = self.sources.get_mut(number as usize).and_then(Option::as_mut) {
                        source.addresses = addresses;
                    }
                }
                Entry::Taken { peer, until, keys } => {
                    let left = (u64::from(until) * 60).saturating_sub(unix_now());
                    let lifetime = Duration::from_secs(left).min(MAX_LIFETIME);
                    if !lifetime.is_zero() && peer != self.local {
                        for key in keys {
                            all_kept &= self.keep(key, peer, lifetime, now) == Verdict::Taken;
                        }
                    }
                }
                Entry::TakenBack { peer, keys } => {
                    if let Some(source) = self.numbers.get(&peer).copied() {
                        for key in keys {
                            self.drop_record(&key, source);
                        }
                    }
                }
                Entry::Described { bytes } => all_kept &= self.describe_again(bytes),
                Entry::Undescribed { peer, keys } => {
                    if let Some(source) = self.numbers.get(&peer).copied() {
                        keys.iter().for_each(|key| self.undescribe_one(key, source));
                    }
                }
                Entry::Announced { .. } | Entry::Released { .. } => {}
            }
        }
        if !all_kept || !self.gone.is_empty() {
            self.gone.clear();
            self.journal.ask_anew();
        }
    }

    /// What is kept, from `from` on, about `most` records of it; and where to go on.
    pub(in crate::dht) fn page(
        &self,
        from: Option<From>,
        most: usize,
        now: Instant,
    ) -> (Vec<Entry>, Option<From>) {
        let begin = from.unwrap_or((0, 0, [0; 32]));
        let mut rest = self.by_source.range(begin..);
        let page: Vec<From> = rest.by_ref().take(most).copied().collect();
        let mut entries = Vec::new();
        for of_source in page.chunk_by(|a, b| a.0 == b.0) {
            let Some(&(number, ..)) = of_source.first() else { continue };
            let Some(source) = self.source(number) else { continue };
            let peer = source.peer;
            entries.push(Entry::Located { peer, addresses: source.addresses.clone() });
            let until = |key: &Key| self.by_key.get(&(*key, number)).copied();
            let ends = of_source.iter().filter_map(|(_, _, key)| Some((until(key)?, *key)));
            let mut ends: Vec<(u32, Key)> = ends.collect();
            ends.sort_unstable();
            for alike in ends.chunk_by(|a, b| a.0 == b.0) {
                let Some((until, _)) = alike.first() else { continue };
                let until = self.epoch + Duration::from_secs(u64::from(*until));
                let until = minute_after(until.saturating_duration_since(now));
                entries.push(Entry::Taken { peer, until, keys: alike.iter().map(|(_, key)| *key).collect() });
            }
            entries.extend(self.descriptions(number, of_source.iter().map(|(_, _, key)| key)));
        }
        (entries, rest.next().copied())
    }
}

/// The minute in which something ends that lasts for `lifetime` from now on.
fn minute_after(lifetime: Duration) -> Minute {
    let end = unix_now().saturating_add(lifetime.min(MAX_LIFETIME).as_secs());
    Minute::try_from(end.div_ceil(60)).unwrap_or(Minute::MAX)
}
