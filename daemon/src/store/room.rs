//! Room for what is put under a lease: reserved before it comes, or found as it does.
//!
//! Owns: what a put needs of room, and what becomes of it when there was none for all that was to come. Refuses: what
//! has no room, before it is written. Survives a crash: nothing; what was reserved is given back.

use std::sync::{Arc, PoisonError};

use super::append::Put;
use super::catalog::SHORT;
use super::lease::{Item, Lease};
use super::record::{BLOCK, Key};
use super::space::{self, Promise};
use super::{Error, Store};
use crate::content::{CHUNK_LEN, Chunk};

/// New records that are still written under a lease whose room was refused: a stripe.
const SPARE: u64 = 16 << 20;

/// A refusal that holds unless what comes is here already.
pub(super) struct Refused {
    why: Error,
    /// Bytes that may still be written.
    spare: u64,
}

impl Lease {
    /// Reserves room for `bytes` of data, with what comes on top of it for headers and index. What is put is
    /// taken from it; what turns out to be here already is given back. Where there is none, what nobody pinned goes.
    ///
    /// # Errors
    /// [`Error::Quota`], [`Error::DiskFull`], [`Error::ReadOnly`], [`Error::Io`].
    pub async fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.reserve_cost(space::cost_of_data(bytes)).await
    }

    /// As [`Lease::reserve`], where what was reserved before does not suffice: less than `bytes` is left of it.
    ///
    /// # Errors
    /// As [`Lease::reserve`].
    pub async fn secure(&self, bytes: u64) -> Result<(), Error> {
        let left = self.room.lock().unwrap_or_else(PoisonError::into_inner).left();
        match space::cost_of_data(bytes).saturating_sub(left) {
            0 => Ok(()),
            cost => self.reserve_cost(cost).await,
        }
    }

    /// Gives back what is left of the room that was reserved. What is kept stays kept.
    pub fn give_back(&self) {
        let none = Promise::none(Arc::clone(&self.store.catalog.space));
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = none;
    }

    /// Reserves room for many objects, each with a record of its own, of lengths that nobody has proved: nothing goes
    /// for them. Where there is no room now, but could be made, nothing is reserved, and room is made for what is put.
    /// Nothing is no object.
    ///
    /// # Errors
    /// As [`Lease::reserve`].
    pub async fn claim(&self, lengths: impl IntoIterator<Item = u64>) -> Result<(), Error> {
        let cost = |length: u64| match u32::try_from(length) {
            Ok(short) if length <= CHUNK_LEN => space::cost(short, false),
            _ => space::cost_of_data(length),
        };
        let lengths = lengths.into_iter().filter(|length| *length > 0);
        match lengths.map(cost).fold(0, u64::saturating_add) {
            0 => Ok(()),
            cost => self.claim_cost(cost).await,
        }
    }

    async fn claim_cost(&self, cost: u64) -> Result<(), Error> {
        self.store.health.check()?;
        self.store.whole().await?;
        match self.store.catalog.space.promise(cost) {
            Ok(more) => self.room.lock().unwrap_or_else(PoisonError::into_inner).merge(more),
            Err(error) if error.is_no_space() => {
                let store = Store { inner: Arc::clone(&self.store) };
                if !store.could_relieve(cost).await? {
                    return Err(self.store.explained(error).await);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// As [`Lease::reserve`], for what may be here already. When there is no room, what is here, or takes the place of
    /// a damaged record, is put all the same, and 16 MiB more where they have room, for which nothing else goes; the
    /// first put that is too much gets the refusal.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Io`].
    pub async fn reserve_new(&self, bytes: u64) -> Result<(), Error> {
        match self.reserve(bytes).await {
            Err(why) if why.is_no_space() => {
                self.refuse(why);
                Ok(())
            }
            done => done,
        }
    }

    /// As [`Lease::put_all`], also where what takes the place of damaged records is all that has no room; see
    /// [`Lease::reserve_new`]. What is here already is read: whoever is answered may delete what he has.
    ///
    /// # Errors
    /// As [`Lease::put_all`].
    pub async fn put_new(&self, items: Vec<Item<'_>>) -> Result<Vec<Put>, Error> {
        // Of shorter ones every look-up reads all.
        let is_long = |chunk: &Chunk| chunk.bytes().len() as u64 + BLOCK > SHORT;
        let long = items.iter().filter_map(|item| match item {
            Item::Chunk(chunk) => is_long(chunk).then(|| Key::data(&chunk.id())),
            Item::Parity(chunk) => is_long(chunk).then(|| Key::parity(&chunk.id())),
            _ => None,
        });
        let long: Vec<_> = long.collect();
        if !long.is_empty() {
            self.store.catalog.keep(self.id, &long);
            self.store.whole().await?;
            let catalog = Arc::clone(&self.store.catalog);
            self.store.pool.run(move || catalog.give_up_bad(&long)).await?;
        }
        match self.put_all(items.clone()).await {
            Err(why) if why.is_no_space() => {
                self.refuse(why);
                self.put_all(items).await
            }
            done => done,
        }
    }

    fn refuse(&self, why: Error) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = refused.as_ref().map_or(SPARE, |before| before.spare);
        *refused = Some(Refused { why, spare });
    }

    /// Room for `cost` bytes that were not reserved.
    pub(super) async fn more(&self, cost: u64) -> Result<Promise, Error> {
        match self.spared(cost) {
            Some(promised) => promised,
            None => self.promise(cost).await,
        }
    }

    /// Room for `cost` bytes of what is still written after a refusal; `None` when there was none.
    fn spared(&self, cost: u64) -> Option<Result<Promise, Error>> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let Refused { why, spare } = refused.as_mut()?;
        let Some(left) = spare.checked_sub(cost) else { return Some(Err(why.clone())) };
        let promised = self.store.catalog.space.promise(cost);
        *spare = left;
        Some(promised.map_err(|error| if error.is_no_space() { why.clone() } else { error }))
    }

    /// Whether there was no room for what was to come.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    async fn reserve_cost(&self, cost: u64) -> Result<(), Error> {
        self.store.health.check()?;
        self.store.whole().await?;
        let more = self.promise(cost).await?;
        self.room.lock().unwrap_or_else(PoisonError::into_inner).merge(more);
        Ok(())
    }

    /// A promise of room, for which what nobody pinned goes if it must.
    async fn promise(&self, cost: u64) -> Result<Promise, Error> {
        let space = &self.store.catalog.space;
        let store = Store { inner: Arc::clone(&self.store) };
        match space.promise(cost) {
            // What is being written is counted twice for a moment: as promised, and as taken of the disk.
            Err(error) if error.is_no_space() => self.store.appender.written().await?,
            promised => return promised,
        }
        // Others may have taken what was freed.
        loop {
            match space.promise(cost) {
                Err(error) if error.is_no_space() && !store.relieve(cost).await? => {
                    return Err(self.store.explained(error).await);
                }
                Err(error) if error.is_no_space() => {}
                promised => return promised,
            }
        }
    }

    /// What these records need of room that they do not have: not what is here already, and after a refusal not what
    /// takes the place of a damaged record. That one is punched when the new one is durable, so for a moment a healed
    /// store may be over its quota by what is not synced yet.
    pub(super) async fn missing(&self, keys: Vec<Key>, costs: Vec<u64>) -> Result<u64, Error> {
        let there = self.hold_keys(keys.clone()).await?;
        let new = keys.into_iter().zip(costs).zip(there).filter(|(_, there)| !there).map(|(new, _)| new);
        let (new, catalog): (Vec<_>, _) = (new.collect(), Arc::clone(&self.store.catalog));
        let heals = self.is_refused();
        let cost = move || {
            let needs = |(key, cost): (Key, u64)| {
                let is_bad = match catalog.index.get(&key)? {
                    Some(entry) => heals && catalog.is_bad(&entry),
                    None => false,
                };
                Ok(if is_bad { 0 } else { cost })
            };
            new.into_iter().map(needs).sum()
        };
        self.store.pool.run(cost).await
    }
}
