//! One run over the store, or over one object: prove, and mend what is bad.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, Semaphore};

use super::mend::Mender;
use crate::content::ObjectId;
use crate::store::{Error, ObjectInfo, RecordName, Scrub, State};

/// Bytes proved in one go: some ten milliseconds of a disk.
pub(super) const STEP: u64 = 8 << 20;

/// Objects looked at in one go.
const PAGE: usize = 256;

/// Damaged objects that are named; more are counted.
pub(super) const MOST_BROKEN: usize = 1024;

/// Bad records that wait for mending in one go: what is known of them takes 33 bytes each.
const MOST_PENDING: usize = 1 << 16;

/// How long peers are asked in one go of mending. What is left then is listed, and asked for by the next run.
const PEERS: Duration = Duration::from_secs(60);

/// Objects that are mended at once: most of that is waiting for peers.
const AT_ONCE: usize = 8;

/// Records that are asked of peers at once, 1 MiB each at most, by all of those objects.
const ASKED: u32 = 32;

/// An object that lacks something, which could not be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// It.
    pub id: ObjectId,
    /// What it is called here.
    pub name: Option<String>,
    /// How many of its records are lost.
    pub records: u64,
}

/// What a run has done so far. What is bad and in none of the last two figures is still to be mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes proved: of payloads with their headers.
    pub bytes: u64,
    /// Records proved.
    pub records: u64,
    /// Records that were not what they were, or not there.
    pub bad: u64,
    /// Those of them that are good again, or that nothing needs: these are dropped.
    pub repaired: u64,
    /// Those of them that an object needs and that could not be brought back.
    pub unrepairable: u64,
}

/// See the module.
pub(super) struct Run {
    mender: Arc<Mender>,
    /// Held while a stripe is rebuilt.
    rebuilding: Mutex<()>,
    /// A permit for each record that is asked of peers.
    asked: Semaphore,
    bytes: u64,
    records: u64,
    repaired: u64,
    /// Found bad, and not looked after yet.
    pending: HashSet<RecordName>,
    /// What could not be brought back.
    lost: HashSet<RecordName>,
    /// Whose that is.
    pub(super) broken: Vec<Broken>,
    /// How many more objects there are than those.
    pub(super) unnamed: u64,
}

impl Run {
    pub(super) fn new(mender: Arc<Mender>, before: Tally) -> Self {
        Self {
            mender,
            rebuilding: Mutex::new(()),
            asked: Semaphore::new(ASKED as usize),
            bytes: before.bytes,
            records: before.records,
            repaired: before.repaired,
            pending: HashSet::new(),
            lost: HashSet::new(),
            broken: Vec::new(),
            unnamed: 0,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let (waiting, unrepairable) = (self.pending.len() as u64, self.lost.len() as u64);
        let bad = self.repaired + waiting + unrepairable;
        Tally { bytes: self.bytes, records: self.records, bad, repaired: self.repaired, unrepairable }
    }

    /// Whether so much is bad that it is to be mended before more is proved.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= MOST_PENDING
    }

    /// Whether something waits to be mended.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Somebody else has found a bad record.
    pub(super) fn found(&mut self, records: impl IntoIterator<Item = RecordName>) {
        let lost = &self.lost;
        self.pending.extend(records.into_iter().filter(|name| !lost.contains(name)));
    }

    /// Proves a little more. False: there is no more.
    ///
    /// # Errors
    /// Those of [`Scrub::prove_next`].
    pub(super) async fn step(&mut self, scrub: &mut Scrub) -> Result<bool, Error> {
        let Some(proved) = scrub.prove_next(STEP).await? else { return Ok(false) };
        self.bytes += proved.bytes;
        self.records += proved.records;
        self.found(proved.bad.iter().map(RecordName::from));
        Ok(true)
    }

    /// Looks which objects lack something, of all or only these, and brings back what can be.
    ///
    /// # Errors
    /// When the store cannot say what is lacking: [`Error::Io`], [`Error::Index`], [`Error::Closed`],
    /// [`Error::ReadOnly`].
    pub(super) async fn heal(&mut self, only: Option<&BTreeSet<ObjectId>>) -> Result<(), Error> {
        let mut bad = std::mem::take(&mut self.pending);
        let before = std::mem::take(&mut self.lost);
        bad.extend(before.iter().copied());
        (self.broken, self.unnamed) = (Vec::new(), 0);
        let store = self.mender.store().clone();
        let begun = Instant::now();
        let mut after = None;
        loop {
            let page: Vec<ObjectInfo> = match only {
                Some(ids) => {
                    let infos = ids.iter().filter_map(|id| store.object(id));
                    infos.filter(|info| info.state == State::Whole).collect()
                }
                None => store.objects(after, PAGE),
            };
            after = page.last().map(|info| info.id);
            let lacking = store.lacking(page).await?;
            bad.extend(lacking.iter().flat_map(|(_, missing)| missing.iter().copied()));
            let mended = {
                let mend = |(info, missing): (ObjectInfo, Vec<RecordName>)| async {
                    let is_new = missing.iter().any(|name| !before.contains(name));
                    let left = if is_new { self.mend(&info, missing, begun).await? } else { missing };
                    Ok::<_, Error>((info, left))
                };
                stream::iter(lacking).map(mend).buffered(AT_ONCE).try_collect::<Vec<_>>().await?
            };
            mended.into_iter().for_each(|(info, left)| self.note(info, left));
            if after.is_none() || only.is_some() {
                break;
            }
        }
        let rest: Vec<RecordName> = bad.into_iter().filter(|name| !self.lost.contains(name)).collect();
        self.repaired += rest.len() as u64;
        let there = store.are_there(rest.clone()).await?;
        let unneeded = rest.into_iter().zip(there).filter(|(_, there)| !there).map(|(name, _)| name);
        store.drop_damaged(unneeded.collect()).await
    }

    /// Brings back what can be of what an object lacks; gives what it lacks then.
    async fn mend(
        &self,
        info: &ObjectInfo,
        missing: Vec<RecordName>,
        begun: Instant,
    ) -> Result<Vec<RecordName>, Error> {
        let left = self.rebuild(info, missing).await?;
        if left.is_empty() || begun.elapsed() > PEERS {
            return Ok(left);
        }
        let share = u32::try_from(left.len()).unwrap_or(ASKED).min(ASKED);
        let asked = self.asked.acquire_many(share).await;
        let fetched = self.mender.fetch(info, &left).await;
        drop(asked);
        match fetched {
            // With the data that came the parity can be made again.
            Ok(_) => self.rebuild(info, left).await,
            Err(error) => {
                tracing::warn!(object = %info.id, %error, "what this object lacks could not be fetched");
                Ok(left)
            }
        }
    }

    async fn rebuild(&self, info: &ObjectInfo, missing: Vec<RecordName>) -> Result<Vec<RecordName>, Error> {
        // A stripe at a time is in memory.
        let _one = self.rebuilding.lock().await;
        if let Err(error) = self.mender.rebuilder.rebuild(info, &missing).await {
            tracing::warn!(object = %info.id, %error, "what this object lacks could not be rebuilt");
        }
        let lacking = self.mender.store().lacking(vec![info.clone()]).await?;
        Ok(lacking.into_iter().flat_map(|(_, missing)| missing).collect())
    }

    fn note(&mut self, info: ObjectInfo, left: Vec<RecordName>) {
        if left.is_empty() {
            return;
        }
        if self.broken.len() < MOST_BROKEN {
            self.broken.push(Broken { id: info.id, name: info.name, records: left.len() as u64 });
        } else {
            self.unnamed += 1;
        }
        self.lost.extend(left);
    }
}
