//! Which records are kept, and which nobody finds any more.
//!
//! Owns: what leases keep, what sweeps retire, and the hidden records: bad ones, and those that are to be punched.
//! Refuses: retiring what a lease keeps, or kept when a sweep began. Survives a crash: nothing; what was hidden and not
//! punched is found again by the next start.

use std::collections::HashSet;

use super::Error;
use super::catalog::{Catalog, Damage, Hidden};
use super::index::Entry;
use super::record::Key;

impl Catalog {
    /// A record failed: nobody finds it any more, and it is told of.
    pub(super) fn damaged(&self, key: &Key, entry: &Entry) {
        let mut fresh = self.fresh();
        if fresh.hidden.contains_key(&entry.spot) {
            return;
        }
        if fresh.written.get(key) == Some(entry) {
            fresh.written.remove(key);
        }
        fresh.hidden.insert(entry.spot, Hidden::Bad);
        drop(fresh);
        let (segment, offset) = (entry.spot.segment, entry.spot.offset);
        let damage = Damage { kind: key.kind, id: key.id, segment, offset };
        // A full queue drops it: whoever reads the record next misses it, and a scrub finds it.
        let _ = self.damage.try_send(damage);
    }

    /// Reads what is here under these keys, since what takes its place is at hand: of what is bad nobody finds anything
    /// any more, and it is not passed over.
    pub(super) fn give_up_bad(&self, keys: &[Key]) -> Result<(), Error> {
        for key in keys {
            let Some(entry) = self.find(key)?.filter(|_| !self.is_fresh(key)) else { continue };
            if self.is_good(key, &entry)? != Some(true) {
                self.damaged(key, &entry);
            }
        }
        Ok(())
    }

    /// The records of a segment that are not hidden.
    pub(super) fn live_in(&self, segment: u32) -> Result<Vec<(Key, Entry)>, Error> {
        let mut live = Vec::new();
        self.index.each(|key, entry| {
            if entry.spot.segment == segment && !self.fresh().hidden.contains_key(&entry.spot) {
                live.push((key, entry));
            }
            Ok(())
        })?;
        Ok(live)
    }

    /// Segments but `active` of which at least half is retired and could not be punched.
    pub(super) fn half_retired(&self, active: u32) -> Vec<u32> {
        let fresh = self.fresh();
        let half = |number: u32, stuck: &[(Key, Entry)]| {
            let bytes: u64 = stuck.iter().map(|(_, entry)| entry.footprint()).sum();
            number != active && self.space.would_empty(number, 2 * bytes)
        };
        fresh
            .stuck
            .iter()
            .filter(|(number, stuck)| half(**number, stuck))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Takes what could not be punched in a segment, to try again.
    pub(super) fn take_stuck(&self, segment: u32) -> Vec<(Key, Entry)> {
        self.fresh().stuck.remove(&segment).unwrap_or_default()
    }

    /// Whether a record is retired where the file system has no holes.
    pub(super) fn is_stuck(&self, key: &Key, entry: &Entry) -> bool {
        self.fresh().stuck.get(&entry.spot.segment).is_some_and(|stuck| stuck.contains(&(*key, *entry)))
    }

    /// Keeps retired records of a segment that cannot be punched. One that the index does not name, because it names a
    /// copy, is looked for by the next start.
    pub(super) fn stick(&self, segment: u32, retired: &[(Key, Entry)]) -> Result<(), Error> {
        for (key, entry) in retired {
            if self.index.get(key)? != Some(*entry) {
                self.miss();
                break;
            }
        }
        self.fresh().stuck.entry(segment).or_default().extend_from_slice(retired);
        Ok(())
    }

    /// A new lease's name.
    pub(super) fn lease(&self) -> u64 {
        let mut fresh = self.fresh();
        fresh.last_lease += 1;
        let lease = fresh.last_lease;
        fresh.kept.insert(lease, HashSet::new());
        lease
    }

    /// Keeps records, whether they are there or about to be, as long as the lease lives.
    pub(super) fn keep(&self, lease: u64, keys: &[Key]) {
        if let Some(kept) = self.fresh().kept.get_mut(&lease) {
            kept.extend(keys.iter().map(Key::fingerprint));
        }
    }

    /// Ends a lease. What it kept is kept to the end of sweeps that are going on: they may have looked at the
    /// objects before the one that was committed under this lease. Whether it kept anything.
    pub(super) fn end_lease(&self, lease: u64) -> bool {
        let mut fresh = self.fresh();
        let kept = fresh.kept.remove(&lease);
        fresh.shared.remove(&lease);
        let any = kept.as_ref().is_some_and(|kept| !kept.is_empty());
        if fresh.sweeps > 0 {
            fresh.ended.extend(kept);
        }
        any
    }

    /// Others may have what a lease keeps.
    pub(super) fn share(&self, lease: u64) {
        self.fresh().shared.insert(lease);
    }

    /// Whether a lease keeps a record for others as well.
    pub(super) fn is_shared(&self, key: &Key) -> bool {
        let (fresh, print) = (self.fresh(), key.fingerprint());
        let keeps = |lease| fresh.kept.get(lease).is_some_and(|kept| kept.contains(&print));
        fresh.shared.iter().any(keeps)
    }

    /// How many leases live.
    #[cfg(test)]
    pub(super) fn leases(&self) -> usize {
        self.fresh().kept.len()
    }

    /// Begins a sweep; must come before looking at what is referenced.
    pub(super) fn sweep(&self) -> Sweep<'_> {
        self.fresh().sweeps += 1;
        Sweep(self)
    }

    /// Hides a record unless a lease keeps it: after this no one finds it, and it may be punched. Gives where it is.
    /// [`Catalog::forget`] ends it, when it has been.
    fn retire(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let mut fresh = self.fresh();
        let print = key.fingerprint();
        if fresh.kept.values().chain(&fresh.ended).any(|kept| kept.contains(&print)) {
            return Ok(None);
        }
        let entry = match fresh.written.remove(key) {
            Some(entry) => Some(entry),
            None => self.index.get(key)?,
        };
        Ok(entry.filter(|entry| fresh.hidden.insert(entry.spot, Hidden::Retired) != Some(Hidden::Retired)))
    }

    /// Whether a record is known to have failed its proof, and is still on disk.
    pub(super) fn is_bad(&self, entry: &Entry) -> bool {
        self.fresh().hidden.get(&entry.spot) == Some(&Hidden::Bad)
    }

    /// As [`Catalog::retire`], of a record that failed its proof: no lease keeps that. Another that has taken its place
    /// is left alone.
    pub(super) fn retire_bad(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let mut fresh = self.fresh();
        let entry = self.index.get(key)?.filter(|entry| fresh.hidden.get(&entry.spot) == Some(&Hidden::Bad));
        fresh.hidden.extend(entry.map(|entry| (entry.spot, Hidden::Retired)));
        Ok(entry)
    }

    /// Notes that retired records could not be punched. Their keys may have got other records, so that the index does
    /// not name them any more: the next start looks for them.
    pub(super) fn keep_hidden(&self, retired: &[(Key, Entry)]) {
        self.miss();
        self.fresh().hidden.extend(retired.iter().map(|(_, entry)| (entry.spot, Hidden::Bad)));
    }

    /// Forgets retired records that have been punched.
    pub(super) fn forget(&self, retired: &[(Key, Entry)]) -> Result<(), Error> {
        self.index.forget(retired)?;
        let mut fresh = self.fresh();
        for (_, entry) in retired {
            fresh.hidden.remove(&entry.spot);
        }
        drop(fresh);
        for (key, entry) in retired {
            self.space.subtract(key, entry);
        }
        Ok(())
    }

    /// Whether a lease keeps the record.
    pub(super) fn is_kept(&self, key: &Key) -> bool {
        let fresh = self.fresh();
        let print = key.fingerprint();
        fresh.kept.values().chain(&fresh.ended).any(|kept| kept.contains(&print))
    }
}

/// A removal going on.
pub(super) struct Sweep<'a>(&'a Catalog);

impl Sweep<'_> {
    /// See [`Catalog::retire`].
    pub(super) fn retire(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.0.retire(key)
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        let mut fresh = self.0.fresh();
        fresh.sweeps -= 1;
        if fresh.sweeps == 0 {
            fresh.ended.clear();
        }
    }
}
