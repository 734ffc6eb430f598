//! Removing: pins dropped, objects forgotten, and their records' room given back.
//!
//! Owns: the order of a removal. The journal forgets the object, durably; then each record that neither another object
//! nor a lease needs is taken out of the index; then holes are punched where they were. A crash in between leaves
//! records that nothing references, which [`Store::collect`] finds.
//!
//! When another object's manifest cannot be read, what it references is not known: then only records that cannot be
//! shared are punched.

use std::collections::{BTreeSet, HashSet};

use super::Error;
use super::draft::{Draft, Holder};
use super::handle::{Inner, Store};
use super::index::Entry;
use super::lease::parity_part_key;
use super::object::{ObjectInfo, State};
use super::record::{Header, Key, Kind};
use crate::content::{CHUNK_LEN, CODEC_RS8, ObjectId};

/// An unpinned object is kept this long by [`Store::collect`]: an hour.
const OBJECT_AGE: u64 = 3600;

/// What an unfinished add or fetch left is kept this long: a day.
const LEFTOVER_AGE: u64 = 24 * 3600;

/// What became of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The object is gone.
    Removed {
        /// Bytes of disk given back: what nothing else needs.
        freed: u64,
        /// What was in the directory and went with it.
        along: Vec<ObjectId>,
    },
    /// The caller's pin is gone, the object stays.
    StillPinned {
        /// Pins of others.
        others: usize,
    },
    /// No pin of the caller's is left; a directory that stays has the object in it, or may have
    /// ([`Store::kept_for_unread`]).
    InDirectory {
        /// Whether there was a pin.
        unpinned: bool,
    },
    /// There is no such object.
    NotFound,
    /// Others have pinned it, the caller has not and does not force it.
    NotPermitted,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects that nobody had pinned.
    pub objects: Vec<ObjectId>,
    /// Unfinished fetches.
    pub partials: Vec<ObjectId>,
    /// Records that nothing referenced.
    pub orphans: u64,
    /// Bytes of disk given back.
    pub freed: u64,
}

impl Store {
    /// The directory whose list cannot be read and that may have the object in it, when that is what keeps it. Tells
    /// what [`Removed::InDirectory`] was for.
    #[must_use]
    pub fn kept_for_unread(&self, id: &ObjectId) -> Option<ObjectId> {
        match self.inner.ledger.imagine(|draft| draft.holder(id)) {
            Some(Holder::Unread(tree)) => Some(tree),
            Some(Holder::Directory) | None => None,
        }
    }

    /// Drops the caller's pin, and the object when no other is left and no directory has it; with a directory goes what
    /// came with it and nothing else holds. With `force` the pins of others are dropped as well, which only an
    /// administrator may. What a lease holds stays on disk while the lease lives.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`], [`Error::Index`].
    pub async fn remove(&self, id: &ObjectId, uid: u32, force: bool) -> Result<Removed, Error> {
        let id = *id;
        self.inner.learn_trees().await?;
        let change = move |draft: &mut Draft<'_>| {
            let Some(mut info) = draft.get(&id).cloned() else { return Ok((Removed::NotFound, Vec::new())) };
            let had_pin = info.unpin(uid);
            let others = info.pins.len();
            if others > 0 && !had_pin && !force {
                return Ok((Removed::NotPermitted, Vec::new()));
            }
            if others > 0 && !force {
                draft.set(info);
                return Ok((Removed::StillPinned { others }, Vec::new()));
            }
            if draft.is_held(&id) {
                let unpinned = others > 0 || had_pin;
                if unpinned {
                    info.pins.clear();
                    draft.set(info);
                }
                return Ok((Removed::InDirectory { unpinned }, Vec::new()));
            }
            let mut gone = Vec::new();
            draft.remove(id, &mut gone);
            Ok((Removed::Removed { freed: 0, along: Vec::new() }, gone))
        };
        match self.inner.change(change).await? {
            (Removed::Removed { .. }, gone) => {
                let along = gone.iter().map(|info| info.id).filter(|gone| *gone != id).collect();
                let freed = self.blocking(move |inner| inner.sweep(&gone)).await? + self.copy_forward().await;
                Ok(Removed::Removed { freed, along })
            }
            (outcome, _) => Ok(outcome),
        }
    }

    /// Drops what nobody has pinned and is older than an hour, fetches begun more than a day ago, and records
    /// older than a day that nothing references. Nothing that a lease holds. With `dry_run` it only tells.
    /// `now` in Unix seconds. Reads all manifests.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`], [`Error::Index`].
    pub async fn collect(&self, now: u64, dry_run: bool) -> Result<Collected, Error> {
        self.inner.learn_trees().await?;
        let due: Vec<ObjectInfo> = self.inner.ledger.select(|info| is_due(info, now));
        let due: Vec<ObjectId> =
            due.into_iter().filter(|info| !self.inner.is_leased(info)).map(|info| info.id).collect();
        let drop = move |draft: &mut Draft<'_>| {
            let mut gone = Vec::new();
            loop {
                let before = gone.len();
                for id in &due {
                    // It may have been pinned since.
                    if draft.get(id).is_some_and(|info| is_due(info, now)) && !draft.is_held(id) {
                        draft.remove(*id, &mut gone);
                    }
                }
                // What may have been in a directory whose list cannot be read goes after that.
                if gone.len() == before {
                    break gone;
                }
            }
        };
        let due = if dry_run {
            self.blocking(move |inner| inner.ledger.imagine(drop)).await
        } else {
            self.inner.change(move |draft| Ok(drop(draft))).await?
        };
        let ids = |state| due.iter().filter(|info| info.state == state).map(|info| info.id).collect();
        let mut collected =
            Collected { objects: ids(State::Whole), partials: ids(State::Partial), ..Collected::default() };
        let (orphans, freed) = if dry_run {
            self.inner.walk(move |inner| inner.would_free(&due, now)).await?
        } else {
            let freed = self.blocking(move |inner| inner.sweep(&due)).await?;
            let (orphans, more) =
                self.inner.walk(move |inner| inner.sweep_orphans(now, LEFTOVER_AGE)).await?;
            (orphans, freed + more)
        };
        let copied = if dry_run { 0 } else { self.copy_forward().await };
        (collected.orphans, collected.freed) = (orphans, freed + copied);
        Ok(collected)
    }
}

/// Whether nothing keeps an object any more. A pin counts once the object is whole.
fn is_due(info: &ObjectInfo, now: u64) -> bool {
    match info.state {
        State::Whole => info.pins.is_empty() && info.added.saturating_add(OBJECT_AGE) <= now,
        State::Partial => info.added.saturating_add(LEFTOVER_AGE) <= now,
    }
}

/// What is known of the records that an object needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// All of them.
    All,
    /// A part of its manifest is missing.
    Some,
}

/// Reads once more what could not be read: a bad sector is an error once, and is missing from then on.
fn again<T>(read: impl Fn() -> Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    read().or_else(|_| read())
}

impl Inner {
    /// Names the records that an object references.
    pub(super) fn references(&self, info: &ObjectInfo, mut each: impl FnMut(Key)) -> Result<Known, Error> {
        if info.length <= CHUNK_LEN {
            each(Key::data(&info.id.only_chunk()));
            return Ok(Known::All);
        }
        each(Key { kind: Kind::Top, id: *info.id.as_bytes() });
        let mut known = Known::All;
        match again(|| self.top(&info.id))? {
            None => known = Known::Some,
            Some(top) => {
                for index in 0..top.pages() {
                    each(Key { kind: Kind::Page, id: top.page_value(index).unwrap_or_default() });
                    let Some(page) = again(|| self.page(&top, index))? else {
                        known = Known::Some;
                        continue;
                    };
                    let ids = page.ids().iter().enumerate().filter(|(at, _)| !page.is_zero(*at));
                    ids.for_each(|(_, id)| each(Key::data(id)));
                }
            }
        }
        if let Some((k, m)) = info.parity {
            each(parity_part_key(&info.id, CODEC_RS8, k, m));
            let Some(part) = again(|| self.parity_part(&info.id, k, m))? else { return Ok(Known::Some) };
            for (index, digest) in part.pages().iter().enumerate() {
                each(Key { kind: Kind::ParityPage, id: *digest });
                match again(|| self.parity_page(&part, index))? {
                    Some(page) => page.ids().iter().for_each(|id| each(Key::parity(id))),
                    None => known = Known::Some,
                }
            }
        }
        Ok(known)
    }

    /// The records of `removed` that no other object needs. `gone`: ids that count as removed already.
    fn victims(&self, removed: &[ObjectInfo], gone: &BTreeSet<ObjectId>) -> Result<BTreeSet<Key>, Error> {
        let mut victims = BTreeSet::new();
        for info in removed {
            self.references(info, |key| {
                victims.insert(key);
            })?;
        }
        let stays = |info: &ObjectInfo| !gone.contains(&info.id);
        // A single chunk is shared with nothing but the object itself, which may have come again.
        let singles = removed.iter().filter(|info| info.length <= CHUNK_LEN && !gone.contains(&info.id));
        for info in singles.filter(|info| self.ledger.contains(&info.id)) {
            victims.remove(&Key::data(&info.id.only_chunk()));
        }
        if removed.iter().all(|info| info.length <= CHUNK_LEN) {
            return Ok(victims);
        }
        let mut known = Known::All;
        for other in self.ledger.select(|info| info.length > CHUNK_LEN && stays(info)) {
            let all = self.references(&other, |key| {
                victims.remove(&key);
            })?;
            // A fetch may be about to learn the rest of its manifest; what it has stored, its leases hold.
            if all == Known::Some && other.state == State::Whole {
                known = Known::Some;
            }
        }
        if known == Known::Some {
            tracing::warn!("a manifest cannot be read; chunks that it may share are kept");
            let single: Vec<_> = removed.iter().map(|info| info.id.only_chunk()).collect();
            victims.retain(|key| single.iter().any(|id| *key == Key::data(id)));
        }
        Ok(victims)
    }

    /// Gives back what removed objects alone needed. The journal has forgotten them, durably.
    pub(super) fn sweep(&self, removed: &[ObjectInfo]) -> Result<u64, Error> {
        if removed.is_empty() {
            return Ok(0);
        }
        let sweep = self.catalog.sweep();
        let victims = self.victims(removed, &BTreeSet::new())?;
        let mut retired = Vec::new();
        for key in &victims {
            retired.extend(sweep.retire(key)?.map(|entry| (*key, entry)));
        }
        self.punch(retired)
    }

    /// Gives back records that no object references and that are so many seconds old: how many, and bytes.
    pub(super) fn sweep_orphans(&self, now: u64, age: u64) -> Result<(u64, u64), Error> {
        let sweep = self.catalog.sweep();
        let mut retired = Vec::new();
        for (key, _) in self.orphans(&BTreeSet::new(), now, age)? {
            retired.extend(sweep.retire(&key)?.map(|entry| (key, entry)));
        }
        Ok((retired.len() as u64, self.punch(retired)?))
    }

    /// Records that no object but the `gone` ones references, which are `age` seconds old and which no lease holds.
    pub(super) fn orphans(
        &self,
        gone: &BTreeSet<ObjectId>,
        now: u64,
        age: u64,
    ) -> Result<Vec<(Key, Entry)>, Error> {
        // Eight bytes a record; that two are equal by chance only keeps a record.
        let mut referenced = HashSet::new();
        for info in self.ledger.select(|info| !gone.contains(&info.id)) {
            let known = self.references(&info, |key| {
                referenced.insert(key.fingerprint());
            })?;
            if known == Known::Some && info.state == State::Whole {
                tracing::warn!(object = %info.id, "its manifest cannot be read; unreferenced records are kept");
                return Ok(Vec::new());
            }
        }
        let mut orphans = Vec::new();
        self.catalog.index.each(|key, entry| {
            if referenced.contains(&key.fingerprint()) || self.catalog.is_kept(&key) {
                return Ok(());
            }
            // One whose header rotted is left to the scrub, which may save it.
            let is_old = |header: Header| header.time.saturating_add(age) <= now;
            if age == 0 || self.catalog.readable_header(&entry)?.is_some_and(is_old) {
                orphans.push((key, entry));
            }
            Ok(())
        })?;
        Ok(orphans)
    }

    /// What a collection would give back: orphans, and bytes.
    fn would_free(&self, due: &[ObjectInfo], now: u64) -> Result<(u64, u64), Error> {
        let gone: BTreeSet<_> = due.iter().map(|info| info.id).collect();
        let victims = self.victims(due, &gone)?;
        let mut freed = 0;
        for key in victims.iter().filter(|key| !self.catalog.is_kept(key)) {
            freed += self.catalog.find(key)?.map_or(0, |entry| entry.footprint());
        }
        let mut orphans = self.orphans(&gone, now, LEFTOVER_AGE)?;
        orphans.retain(|(key, _)| !victims.contains(key));
        freed += orphans.iter().map(|(_, entry)| entry.footprint()).sum::<u64>();
        Ok((orphans.len() as u64, freed))
    }

    /// See [`super::catalog::Catalog::punch`].
    fn punch(&self, retired: Vec<(Key, Entry)>) -> Result<u64, Error> {
        self.catalog.punch(retired, self.appender.segment(), &self.health)
    }
}
