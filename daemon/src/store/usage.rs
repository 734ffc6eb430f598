//! What is in use, by kind.
//!
//! Owns: counting what no whole object needs, which takes a look at all manifests and is done at most a twentieth of
//! the time. Refuses: holding up whoever asks for it. Survives a crash: nothing; it is counted again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Error;
use super::handle::{Inner, Store};
use super::object::State;
use super::remove::Known;
use super::space::Kinds;

/// How long whoever asks waits for a count; then he gets the last one.
const PATIENCE: Duration = Duration::from_millis(300);

/// Between two counts so many times what the last one took.
const REST: u32 = 20;

/// What is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of records on disk: payloads with their headers and padding.
    pub stored_bytes: u64,
    /// The same by what the records hold.
    pub kinds: Kinds,
    /// Bytes that the index is charged with: an estimate of what it takes on disk.
    pub index_bytes: u64,
    /// Bytes that count against the quota: records, index, and what may be records that cannot be read.
    pub used_bytes: u64,
    /// Bytes promised to adds and fetches that go on. They count against quota and free space.
    pub promised: u64,
    /// Whole objects.
    pub objects: u64,
    /// Objects that are being fetched.
    pub partials: u64,
    /// What no whole object needs. `None`: it could not be counted yet, or a manifest cannot be read.
    pub unfinished: Option<Unfinished>,
    /// The quota, 0 for none.
    pub quota: u64,
    /// Bytes of the file system that are to stay free.
    pub reserve: u64,
    /// Bytes free on the file system.
    pub free: u64,
    /// While the index is checked or made anew: segments that are scanned, and all. The counts are not whole yet.
    pub recovering: Option<(usize, usize)>,
}

/// Bytes of records that no whole object needs; they are among those of [`Kinds`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Of fetches that have not ended.
    pub partial: u64,
    /// Of adds and fetches that nobody goes on with, kept for a day.
    pub leftover: u64,
}

/// The last count.
#[derive(Default)]
pub(super) struct Survey(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    last: Option<Unfinished>,
    /// Not again before.
    rests_until: Option<Instant>,
    running: bool,
}

impl Survey {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time for another count, which the caller must then do.
    fn begin(&self) -> bool {
        let mut counted = self.counted();
        let due = !counted.running && counted.rests_until.is_none_or(|until| until <= Instant::now());
        counted.running |= due;
        due
    }

    fn end(&self, found: Option<Unfinished>, took: Duration) {
        let rests_until = Some(Instant::now() + took * REST);
        *self.counted() = Counted { last: found, rests_until, running: false };
    }
}

impl Store {
    /// What is in use. What no whole object needs may be as of the last count, a moment ago.
    ///
    /// # Errors
    /// [`Error::Io`] when the file system does not tell its free space.
    pub async fn usage(&self) -> Result<Usage, Error> {
        let recovering = self.inner.gauge.working();
        let unfinished = if recovering.is_none() { self.survey().await } else { None };
        self.blocking(move |inner| {
            let account = inner.catalog.space.account();
            let (objects, partials) = inner.ledger.count();
            let free = inner.disk.free().map_err(Error::io("ask for the free space"))?;
            let (quota, reserve) = inner.catalog.space.limits();
            Ok(Usage {
                stored_bytes: account.stored,
                kinds: account.kinds,
                index_bytes: account.index,
                used_bytes: account.stored + account.index + account.unknown,
                promised: account.promised,
                objects,
                partials,
                unfinished,
                quota,
                reserve,
                free,
                recovering,
            })
        })
        .await
    }

    /// Has it counted what no whole object needs when that has rested for long enough, and gives the last count.
    async fn survey(&self) -> Option<Unfinished> {
        let survey = Arc::clone(&self.inner.survey);
        if survey.begin() {
            let (store, survey) = (self.clone(), Arc::clone(&survey));
            let count = async move {
                let started = Instant::now();
                // An index that fails, or a disk: then it is not known.
                let found = store.blocking(|inner| inner.unfinished().ok().flatten()).await;
                survey.end(found, started.elapsed());
            };
            let counting = self.inner.tasks.spawn("store-survey", count);
            let _ = tokio::time::timeout(PATIENCE, counting).await;
        }
        survey.counted().last
    }
}

/// Fingerprints of records, in order. A hash set of a million takes thrice the memory.
#[derive(Default)]
struct Prints(Vec<u64>);

impl Prints {
    fn sort(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }

    fn contains(&self, print: u64) -> bool {
        self.0.binary_search(&print).is_ok()
    }
}

impl Inner {
    /// Counts what no whole object needs. `None`: a manifest cannot be read, so that it is not known.
    fn unfinished(&self) -> Result<Option<Unfinished>, Error> {
        // Eight bytes a record; that two are equal by chance costs a record's worth of truth.
        let (mut needed, mut begun) = (Prints::default(), Prints::default());
        for info in self.ledger.select(|_| true) {
            if self.tasks.is_stopping() {
                return Ok(None);
            }
            let whole = info.state == State::Whole;
            let into = if whole { &mut needed } else { &mut begun };
            let known = self.references(&info, |key| into.0.push(key.fingerprint()))?;
            if known == Known::Some && whole {
                return Ok(None);
            }
        }
        needed.sort();
        begun.sort();
        let mut found = Unfinished::default();
        self.catalog.index.each(|key, entry| {
            if self.tasks.is_stopping() {
                return Err(Error::Closed);
            }
            let print = key.fingerprint();
            if begun.contains(print) && !needed.contains(print) {
                found.partial += entry.footprint();
            } else if !needed.contains(print) && !self.catalog.is_kept(&key) {
                found.leftover += entry.footprint();
            }
            Ok(())
        })?;
        Ok(Some(found))
    }
}
