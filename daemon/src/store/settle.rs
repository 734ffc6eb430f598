//! Which of several copies of a record stays, where a crash left more than one.
//!
//! Owns: the order. The index names one copy of a record; while there are others, nothing but a scan of all finds them.
//! So the copy that goes is punched first, and only then does the index name the other: a crash in between leaves one
//! that the index names, or one that the next start finds behind the checkpoint. Refuses: punching what nobody vouches
//! for.
//! Survives a crash: either.

use std::collections::BTreeMap;

use super::Error;
use super::catalog::Catalog;
use super::health::Health;
use super::index::{Entry, Spot};
use super::record::Key;

impl Catalog {
    /// Settles records of which the index names another copy, or none. `end`: up to where records are entered. Blocks.
    pub(super) fn settle(
        &self,
        mut twice: Vec<(Key, Entry)>,
        end: Spot,
        health: &Health,
    ) -> Result<(), Error> {
        twice.sort_by_key(|(_, entry)| entry.spot);
        twice.dedup();
        let (mut stay, mut go) = (BTreeMap::new(), Vec::new());
        for (key, other) in twice {
            let known = match stay.get(&key) {
                Some(entry) => Some(*entry),
                None => self.index.get(&key)?,
            };
            let Some(known) = known.filter(|known| known.spot != other.spot) else {
                stay.insert(key, other);
                continue;
            };
            if !self.may_be_there(&key, &other)? {
                continue;
            }
            match self.choose(&key, known, other)? {
                Some((stays, goes)) => {
                    stay.insert(key, stays);
                    go.push((key, goes));
                }
                None => self.leave(&other),
            }
        }
        for (key, entry) in &stay {
            if self.index.get(key)? != Some(*entry) {
                // It is counted before the others go: its segment is not empty without them.
                self.space.add(key, entry);
            }
        }
        self.punch_losers(go, end, health)?;
        self.name(stay)
    }

    /// Which stays and which goes: the later copy replaced the other, which had gone bad; unless it is bad itself.
    /// `None` while nobody can tell.
    fn choose(&self, key: &Key, one: Entry, other: Entry) -> Result<Option<(Entry, Entry)>, Error> {
        let (earlier, later) = if one.spot < other.spot { (one, other) } else { (other, one) };
        Ok(match (self.is_good(key, &earlier)?, self.is_good(key, &later)?) {
            (_, Some(true)) | (Some(false), Some(false)) => Some((later, earlier)),
            (Some(true), _) => Some((earlier, later)),
            _ => None,
        })
    }

    /// Leaves a copy that the index does not name to the next start. Until then it takes room.
    fn leave(&self, copy: &Entry) {
        self.space.add_unknown(copy.footprint());
        self.miss();
    }

    /// Punches the copies that go. One that cannot be read goes when the index, which has been checked, names it.
    fn punch_losers(&self, go: Vec<(Key, Entry)>, end: Spot, health: &Health) -> Result<(), Error> {
        let mut there = Vec::with_capacity(go.len());
        for (key, entry) in go {
            let is_named = self.index.get(&key)? == Some(entry);
            if !is_named && !self.has_header(&key, &entry)? {
                self.leave(&entry);
                continue;
            }
            if health.check().is_err() {
                self.miss();
                continue;
            }
            if !is_named {
                // Nothing has counted it.
                self.space.add(&key, &entry);
            }
            there.push((key, entry));
        }
        self.punch(there, end.segment, health).map(|_| ())
    }

    /// Has the index name the copies that stay. Where it still names one whose hole failed, they are found in memory
    /// until the next start; where the file system has no holes there is nothing to wait for.
    fn name(&self, stay: BTreeMap<Key, Entry>) -> Result<(), Error> {
        let mut free = Vec::new();
        for (key, entry) in stay {
            match self.index.get(&key)? {
                Some(named) if named == entry => {}
                Some(named) => {
                    self.miss();
                    match self.is_stuck(&key, &named) {
                        true => free.push((key, entry)),
                        false => _ = self.fresh().written.insert(key, entry),
                    }
                }
                None => free.push((key, entry)),
            }
        }
        self.index.enter(&free, None).map(|_| ())
    }
}
