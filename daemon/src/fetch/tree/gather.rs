//! Fetching a directory for the store alone: all that is missing of it, in any order, and what is here is not read.
//!
//! Owns: how much of it is on its way at once. Refuses: to wait for what nobody has as long as others come, and after
//! that: whoever wants it tries again. Survives a crash: as any fetch of a directory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::super::crowd::Crowd;
use super::super::inquiry::Inquiry;
use super::super::{Error, Event, Fetcher, Fetching, Parts, Progress, Summary};
use super::holders::Holders;
use super::supply::{Halt, Supply};
use super::trees::{short, weight};
use super::{Errand, NAMED, TreeRequest, enter, large, prepare, trees};
use crate::content::ObjectId;
use crate::store::{Lease, NewObject};
use crate::support::unix_now;

/// How often it is told how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// Files of more than a chunk that are fetched at once.
const LARGE: usize = 2;

/// The next event of a file of more than a chunk.
type Coming = BoxFuture<'static, (ObjectId, Option<Result<Event, Error>>, Fetching)>;

/// A file of which not all is here.
struct Missing {
    length: u64,
    /// Bytes of it that are here.
    here: u64,
}

/// See the module.
struct Gathering<'a> {
    errand: &'a Arc<Errand>,
    supply: &'a mut Supply,
    missing: HashMap<ObjectId, Missing>,
    /// Those of at most a chunk that have not been asked for.
    small: Vec<(ObjectId, u32)>,
    /// What those count for that have been, and are not here.
    flying: HashMap<ObjectId, u64>,
    weight: u64,
    /// Longer ones that have not been begun, and those that have.
    large: Vec<(ObjectId, u64)>,
    coming: FuturesUnordered<Coming>,
    /// How many nobody has who was asked.
    unheld: u64,
    /// How far it is, and for the rate when that was last told and how many bytes were here.
    progress: Progress,
    told: (Instant, u64),
    ticks: Interval,
}

impl Fetcher {
    /// Begins to fetch a directory with all that is in it for the store alone; of `request` the path is not looked at.
    /// It gives up as soon as nothing more is to be had of those who are found, whom it tells of meanwhile. Its events
    /// are those of an object that has the bytes of all distinct files in it. What comes is kept under `lease`, which
    /// is left with the room that was not needed.
    #[must_use]
    pub fn gather_tree(&self, request: TreeRequest, lease: Arc<Lease>, inquiry: Inquiry) -> Fetching {
        self.parts.store.touch(&request.root);
        let parts = Arc::clone(&self.parts);
        Fetching { events: super::super::run(&self.parts, |out| run(parts, request, lease, inquiry, out)) }
    }
}

/// Runs one such fetch to its end.
async fn run(
    parts: Arc<Parts>,
    request: TreeRequest,
    lease: Arc<Lease>,
    inquiry: Inquiry,
    out: mpsc::Sender<Result<Event, Error>>,
) -> Result<(), Error> {
    let (root, pin) = (request.root, request.pin);
    let errand = Errand { once: true, ..Errand::new(Arc::clone(&parts), &request, lease) };
    let errand = Arc::new(errand);
    let mut crowd = Crowd::new(parts, &request.peers, &[]);
    crowd.inquire(Some(inquiry));
    let (length, has_looked) = trees::length(&errand, &mut crowd).await?;
    let mut supply = Supply::new(Arc::clone(&errand), Holders::new(crowd, root, has_looked));
    let tree = trees::one(&mut supply, &errand, root, length).await?;
    let store = &errand.parts.store;
    errand.check_privacy(&root, store.object(&root))?;
    let outline = trees::outline(&mut supply, &errand, (root, tree)).await?;
    outline.totals()?;
    let looked = prepare(&errand, &outline).await?;
    let size: u64 = looked.iter().map(|(_, length, _)| length).sum();
    let name = request.name.or_else(|| store.object(&root)?.name);
    let _ = out.send(Ok(Event::Started { size, name: name.clone() })).await;
    let gathering = Gathering::new(&errand, &mut supply, &looked);
    drop(looked);
    let (missing, summary) = gathering.run(&out).await?;
    if !missing.is_empty() {
        let count = missing.len();
        let missing: BTreeSet<ObjectId> = missing.into_keys().collect();
        let paths = errand.parts.pool.run(move || outline.paths(missing, NAMED)).await;
        return Err(errand.stalled(&paths, count));
    }
    let object = NewObject { name, pin, private: errand.private, ..NewObject::new(root, length, unix_now()) };
    enter(&errand, outline, object).await?;
    let took = errand.started.elapsed();
    let _ = out.send(Ok(Event::Finished(Summary { size, took, ..summary }))).await;
    Ok(())
}

impl<'a> Gathering<'a> {
    /// `looked`: the files, each with its length and how much of it is not here.
    fn new(errand: &'a Arc<Errand>, supply: &'a mut Supply, looked: &[(ObjectId, u64, u64)]) -> Self {
        let mut ticks = tokio::time::interval(PROGRESS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut missing, mut small, mut large) = (HashMap::new(), Vec::new(), Vec::new());
        let mut here = 0;
        for (id, length, absent) in looked.iter().copied() {
            here += length.saturating_sub(absent);
            if absent == 0 {
                continue;
            }
            missing.insert(id, Missing { length, here: length.saturating_sub(absent) });
            match short(length) {
                Some(short) => small.push((id, short)),
                None => large.push((id, length)),
            }
        }
        let files = ((looked.len() - missing.len()) as u64, looked.len() as u64);
        Self {
            errand,
            supply,
            missing,
            small,
            flying: HashMap::new(),
            weight: 0,
            large,
            coming: FuturesUnordered::new(),
            unheld: 0,
            progress: Progress { bytes: here, local: here, files, ..Progress::default() },
            told: (Instant::now(), here),
            ticks,
        }
    }

    /// Brings what is to be had. Gives what is missing then, and what it did.
    async fn run(
        mut self,
        out: &mpsc::Sender<Result<Event, Error>>,
    ) -> Result<(HashMap<ObjectId, Missing>, Summary), Error> {
        loop {
            self.begin();
            if self.flying.is_empty() && self.coming.is_empty() {
                break;
            }
            tokio::select! {
                given = self.supply.next() => match given {
                    Ok(given) => given.iter().for_each(|(id, _)| self.came(id)),
                    Err(Halt::Lacking(id)) => {
                        self.lacks(&id);
                        if self.supply.peers() == 0 && self.coming.is_empty() {
                            // There is nobody to ask for the others, of which each would be looked for.
                            break;
                        }
                    }
                    Err(Halt::Stalled) => break,
                    Err(Halt::Failed(error)) => return Err(error),
                },
                Some((id, event, fetching)) = self.coming.next() => self.large_event(id, event, fetching)?,
                _ = self.ticks.tick() => self.tick(out),
            }
        }
        self.supply.report(self.missing.len() as u64, self.unheld);
        let _ = out.send(Ok(Event::Progress(self.measure()))).await;
        let local = self.progress.local;
        Ok((self.missing, Summary { local, ..self.supply.summary() }))
    }

    /// Asks for as much as may be on its way.
    fn begin(&mut self) {
        while self.weight < self.errand.parts.options.in_flight
            && let Some((id, length)) = self.small.pop()
        {
            let weight = weight(length.into());
            self.weight += weight;
            self.flying.insert(id, weight);
            self.supply.want(id, length, false);
        }
        while self.coming.len() < LARGE
            && let Some((id, length)) = self.large.pop()
        {
            let fetching = large::gather(self.errand, id, length, self.supply.askers());
            self.coming.push(next_of(id, fetching));
        }
    }

    /// All of a file is here.
    fn came(&mut self, id: &ObjectId) {
        self.weight -= self.flying.remove(id).unwrap_or(0);
        if let Some(Missing { length, here }) = self.missing.remove(id) {
            self.progress.bytes += length - here;
            self.progress.files.0 += 1;
        }
    }

    /// Nobody has a file.
    fn lacks(&mut self, id: &ObjectId) {
        self.weight -= self.flying.remove(id).unwrap_or(0);
        self.unheld += 1;
    }

    /// Something of a file of more than a chunk.
    fn large_event(
        &mut self,
        id: ObjectId,
        event: Option<Result<Event, Error>>,
        fetching: Fetching,
    ) -> Result<(), Error> {
        match event {
            Some(Ok(Event::Finished(summary))) => {
                self.supply.also(&summary);
                self.came(&id);
            }
            Some(Ok(event)) => {
                if let (Event::Progress(progress), Some(missing)) = (event, self.missing.get_mut(&id)) {
                    let here = progress.bytes.min(missing.length);
                    self.progress.bytes = self.progress.bytes - missing.here + here;
                    missing.here = here;
                }
                self.coming.push(next_of(id, fetching));
            }
            Some(Err(Error::NoHolders { .. } | Error::Unreached { .. } | Error::Stalled { .. })) => {
                self.lacks(&id);
            }
            Some(Err(error)) => return Err(error),
            None => return Err(Error::Stopping),
        }
        Ok(())
    }

    /// Twice a second: how far it is.
    fn tick(&mut self, out: &mpsc::Sender<Result<Event, Error>>) {
        let progress = self.measure();
        self.supply.report(self.missing.len() as u64, if progress.rate == 0 { self.unheld } else { 0 });
        // Whoever has not looked at the last needs no other.
        let _ = out.try_send(Ok(Event::Progress(progress)));
    }

    /// How far it is, and how much came since that was last told.
    fn measure(&mut self) -> Progress {
        let (since, before) = std::mem::replace(&mut self.told, (Instant::now(), self.progress.bytes));
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.progress.rate = self.progress.bytes.saturating_sub(before).saturating_mul(1000) / millis;
        self.progress.peers = self.supply.peers();
        self.progress
    }
}

/// Waits for the next event of a file.
fn next_of(id: ObjectId, mut fetching: Fetching) -> Coming {
    Box::pin(async move {
        let event = fetching.events.recv().await;
        (id, event, fetching)
    })
}
