//! A world from a seed: lives of a store, and what the model learns from the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::io::Errno;

use super::super::*;
use super::acts::{Act, Done, Outcome, perform};
use super::jobs::{Word, job};
use super::model::{SMALL, THINGS, There, Truth};
use super::rot::JOURNAL;
use crate::store::disk::forgetful::{Call, Fault, Plan};
use crate::store::record::Key;

/// See the module.
pub(super) struct World {
    pub(super) rng: SmallRng,
    pub(super) disk: Forgetful,
    pub(super) lie: Option<(Call, &'static str)>,
    pub(super) truth: Vec<Truth>,
    /// The same of the job for each thing.
    pub(super) jobs: Vec<Word>,
    /// 0: none.
    pub(super) quota: u64,
    /// What nobody pinned may go when there is no room.
    pub(super) evicts: bool,
    /// Holes cannot be punched: what is removed stays until its segment goes.
    pub(super) solid: bool,
    /// Things rot.
    pub(super) rots: bool,
    /// Records that something rotted in: they may be missing.
    pub(super) rotten: BTreeSet<Key>,
    /// Records that cannot be read, until they can.
    pub(super) unreadable: BTreeSet<Key>,
    /// Blocks in which something rotted: what is there may be known to nobody.
    pub(super) scars: BTreeSet<(PathBuf, usize)>,
    /// Records that an add or a fetch that did not end has left, durably.
    pub(super) kept: BTreeSet<Key>,
    /// What FORMAT is.
    pub(super) format: Vec<u8>,
    /// Nothing is planned to fail.
    calm: bool,
    /// A part of the journal could not be read, so that what is there may not be known.
    blind: bool,
    /// Says what it does.
    talks: bool,
}

impl World {
    pub(super) fn new(seed: u64, lie: Option<(Call, &'static str)>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let quota = if rng.random_ratio(1, 5) { rng.random_range(60_000..400_000) } else { 0 };
        let disk = Forgetful::default();
        let is_small = rng.random_ratio(1, 10);
        if is_small {
            disk.set_room(rng.random_range(30_000..300_000));
        }
        let solid = rng.random_ratio(1, 10);
        if solid {
            disk.refuse_holes();
        }
        Self {
            disk,
            lie,
            truth: vec![Truth::default(); THINGS.len()],
            jobs: vec![Word::default(); THINGS.len()],
            quota,
            evicts: quota != 0 || is_small,
            solid,
            rots: lie.is_none() && rng.random_ratio(1, 4),
            rotten: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            scars: BTreeSet::new(),
            kept: BTreeSet::new(),
            format: Vec::new(),
            calm: false,
            blind: false,
            talks: std::env::var_os("CASD_STORE_TRACE").is_some(),
            rng,
        }
    }

    pub(super) async fn live(mut self) -> Result<(), String> {
        for _ in 0..self.rng.random_range(1..=3) {
            self.life().await?;
            if self.rots {
                self.rot(false);
            }
            self.check().await?;
            if self.rots && self.rng.random_ratio(1, 3) {
                self.heal();
                self.check().await?;
            }
        }
        Ok(())
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.talks {
            println!("{}", what());
        }
    }

    pub(super) fn open(&mut self) -> Result<Store, Error> {
        let sizes = Sizes { segment: 128 << 10, journal: 2 << 10, ballast: 8 << 10 };
        let options = Options { quota: self.quota, reserve: 0, index_cache: 0, sizes };
        let store = Store::open(&options, Arc::new(self.disk.clone()), Pool::inline())?;
        if self.format.is_empty() {
            self.format = self.disk.bytes(Path::new("FORMAT"));
        }
        Ok(store)
    }

    /// The power goes, or the process is killed, now or when it was planned to.
    pub(super) fn cut(&mut self) {
        let (seed, kills) = (self.rng.random(), self.rng.random_ratio(1, 4));
        let now = |disk: &Forgetful| if kills { disk.kill(seed) } else { disk.cut_power(seed) };
        self.disk = self.disk.after_cut().unwrap_or_else(|| now(&self.disk));
    }

    fn plan(&mut self) -> Plan {
        let seed = self.rng.random();
        let mut plan = Plan { lies: self.lie, seed, kills: self.rng.random_ratio(1, 4), ..Plan::default() };
        let calls = if self.rng.random() { 12 } else { 120 };
        let at = self.rng.random_range(0..calls);
        let length = if self.rng.random() { 1 } else { self.rng.random_range(1..20) };
        let errors = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::INTR];
        let errno = errors[self.rng.random_range(0..errors.len())];
        match self.rng.random_range(0..10) {
            0..=4 => plan.cut_at = Some(at + 1),
            // To be interrupted for ever is no fault of a disk.
            5 | 6 => plan.fault = Some((at, at + length, Fault::Errno(errno.raw_os_error()))),
            7 => {
                plan.fault = Some((at, at + length, Fault::Short));
                plan.reads = Some((at, at + length, Fault::Short));
            }
            8 => plan.reads = Some((at, at + length, Fault::Errno(Errno::IO.raw_os_error()))),
            _ => {}
        }
        plan
    }

    async fn life(&mut self) -> Result<(), String> {
        let plan = self.plan();
        let spoils_reads = plan.reads.is_some_and(|(_, _, fault)| fault != Fault::Short);
        let is_calm = plan.cut_at.is_none() && plan.fault.is_none() && !spoils_reads;
        let fails_table = self.rng.random_ratio(1, 20);
        // What rotted is no reason to refuse what does not need it.
        self.calm = is_calm && self.disk.bad_blocks(Path::new(JOURNAL)).is_empty();
        self.say(|| format!("life: {plan:?}, quota {}", self.quota));
        self.disk.plan(plan);
        if fails_table {
            self.disk.fail_table_after(self.rng.random_range(0..200));
        }
        match self.open() {
            Ok(store) => {
                self.blind = store.read_only().is_some();
                for _ in 0..self.rng.random_range(1..6) {
                    self.group(&store, spoils_reads || fails_table).await?;
                    if self.rots {
                        self.rot(true);
                    }
                }
                if self.rng.random_ratio(1, 3) {
                    // Whether it can be closed in order is not promised.
                    let closed = store.close().await;
                    self.say(|| format!("  close: {closed:?}"));
                }
            }
            Err(error) if is_calm && !fails_table => return Err(format!("it does not open: {error}")),
            Err(_) => {}
        }
        self.cut();
        Ok(())
    }

    /// Some calls at once, on different objects.
    async fn group(&mut self, store: &Store, spoils_reads: bool) -> Result<(), String> {
        match self.rng.random_range(0..12) {
            0 | 1 => return self.collect(store).await,
            2 => return self.scrub_in_passing(store, spoils_reads).await,
            _ => {}
        }
        let mut acts = BTreeMap::new();
        for _ in 0..self.rng.random_range(1..5) {
            let large = self.rng.random_ratio(1, if self.rots { 10 } else { 40 });
            let thing = if large {
                self.rng.random_range(SMALL..THINGS.len())
            } else {
                self.rng.random_range(0..SMALL)
            };
            let act = self.act();
            acts.insert(thing, (act, self.rng.random_range(0..6)));
        }
        let calls = acts.iter().map(|(thing, (act, yields))| {
            let (thing, store, act, yields) = (*thing, store.clone(), *act, *yields);
            async move {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                (thing, act, perform(&store, thing, act).await)
            }
        });
        for (thing, act, done) in futures::future::join_all(calls).await {
            self.say(|| format!("  {thing} {act:?}: {:?}", done.result));
            self.check_calm(thing, act, &done)?;
            match act {
                Act::Job(form) => self.note_job(thing, Some(job(thing, form)), &done),
                Act::EndJob => self.note_job(thing, None, &done),
                _ => self.note(thing, act, &done, spoils_reads)?,
            }
        }
        self.check_quota(store)
    }

    fn act(&mut self) -> Act {
        let uid = self.rng.random_range(1..3);
        match self.rng.random_range(0..17) {
            0..=4 => Act::Add(uid),
            5 => Act::Abandon(self.rng.random()),
            6 | 7 => Act::Fetch(self.rng.random::<bool>().then_some(uid), self.rng.random()),
            8 | 9 => Act::Remove(uid, self.rng.random()),
            10 => Act::Pin(uid),
            11 => Act::Unpin(uid),
            12 | 13 => Act::Job(self.rng.random()),
            14 => Act::EndJob,
            _ => Act::Read,
        }
    }

    /// Without a failure a call may have no room, and must not fail otherwise.
    fn check_calm(&self, thing: usize, act: Act, done: &Done) -> Result<(), String> {
        let Err(error) = &done.result else { return Ok(()) };
        let is_calm = self.calm && self.disk.bad_blocks(Path::new(JOURNAL)).is_empty();
        match is_calm && !error.is_no_space() {
            true => Err(format!("{act:?} of {thing}: {error}, and nothing fails")),
            false => Ok(()),
        }
    }

    /// Enters in the model what was answered when a job was to become this.
    fn note_job(&mut self, thing: usize, job: Option<Job>, done: &Done) {
        let word = &mut self.jobs[thing];
        match &done.result {
            // That there is none is said from memory; what a failed call left on disk is not known.
            Ok(_) if job.is_none() && (self.blind || !word.is_there()) => {}
            Ok(_) => *word = Word::of(job),
            Err(_) if done.is_sure() => {}
            Err(_) => word.may_become(job),
        }
    }

    /// Enters an answer in the model.
    fn note(&mut self, thing: usize, act: Act, done: &Done, spoils_reads: bool) -> Result<(), String> {
        if done.durable {
            done.new.iter().for_each(|key| self.renew(key));
        }
        if matches!(act, Act::Remove(..)) || done.committed {
            THINGS[thing].needs(true).for_each(|key| _ = self.kept.remove(key));
        }
        let truth = &mut self.truth[thing];
        if self.evicts && (done.begun || done.committed) && truth.there.as_ref().is_some_and(There::may_go) {
            // It may have gone meanwhile, with its pins.
            truth.unsure = true;
        }
        if matches!(act, Act::Remove(..) | Act::Unpin(_)) {
            truth.surely = false;
        }
        if let (Act::Fetch(uid, _), true) = (act, done.begun) {
            truth.begin(uid);
        }
        match (act, done.committed) {
            (Act::Add(uid), true) => truth.enter(Some(uid), THINGS[thing].has_parity()),
            (Act::Fetch(uid, _), true) => truth.enter(uid, false),
            _ => {}
        }
        truth.unsure |= !done.is_sure();
        if done.durable && !truth.unsure && !truth.there.as_ref().is_some_and(|there| there.whole) {
            // Without a whole object nothing but its age keeps it.
            self.kept.extend(done.held.iter());
        }
        let Ok(Some(outcome)) = &done.result else { return Ok(()) };
        match (act, outcome) {
            (Act::Remove(uid, _), Outcome::Removed(removed)) => match removed {
                Removed::Removed { .. } => *truth = Truth::default(),
                // In memory; what a failed call left on disk is not known.
                Removed::NotFound if truth.unsure || self.blind => {}
                Removed::NotFound => truth.there = None,
                Removed::StillPinned { .. } => {
                    truth.there.iter_mut().for_each(|there| _ = there.pins.remove(&uid));
                }
                Removed::NotPermitted | Removed::InDirectory { .. } => {}
            },
            (Act::Pin(uid), Outcome::Is(true)) => {
                truth.there.iter_mut().for_each(|there| _ = there.pins.insert(uid));
            }
            (Act::Unpin(uid), Outcome::Is(true)) => {
                truth.there.iter_mut().for_each(|there| _ = there.pins.remove(&uid));
            }
            (_, Outcome::Read(absent)) => {
                let spoils_reads = spoils_reads || self.disk.after_cut().is_some();
                let sure = truth.there.as_ref().filter(|there| !truth.unsure && there.whole);
                let must = sure.filter(|there| !(spoils_reads || self.evicts && there.may_go()));
                let Some(there) = must else { return Ok(()) };
                let mut needs = THINGS[thing].needs(there.parity);
                if let Some(key) = needs.find(|key| absent.contains_key(*key) && !self.is_rotten(key)) {
                    return Err(format!("{key:?} of {thing} cannot be read: {:?}", absent[key]));
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn collect(&mut self, store: &Store) -> Result<(), String> {
        let hours = [0, 2, 25][self.rng.random_range(0..3)];
        let done = store.collect(now() + hours * HOUR, false).await;
        self.say(|| format!("  collect after {hours} hours: {done:?}"));
        let is_nothing = |done: &Collected| Collected { freed: 0, ..done.clone() } == Collected::default();
        if hours == 0 && !done.as_ref().map_or(true, is_nothing) {
            return Err(format!("nothing is old enough to be collected, and {done:?} was"));
        }
        let done = done.is_ok();
        if hours > 24 {
            self.kept.clear();
        }
        for ((truth, thing), job) in self.truth.iter_mut().zip(THINGS.iter()).zip(&self.jobs) {
            if truth.unsure {
                // Its records may go with it.
                thing.needs(true).for_each(|key| _ = self.kept.remove(key));
            }
            let goes = |whole: bool| if whole { hours > 1 } else { hours > 24 && !job.is_there() };
            if truth.there.as_ref().is_some_and(|there| there.may_go() && goes(there.whole)) {
                truth.surely = false;
                // What it shares with an add that did not end goes as well: that was promised to nobody.
                thing.needs(true).for_each(|key| _ = self.kept.remove(key));
                if self.blind {
                    continue;
                }
                let is_known = job.is_gone() || truth.there.as_ref().is_some_and(|there| there.whole);
                if done && !truth.unsure && is_known {
                    truth.there = None;
                } else {
                    truth.unsure = true;
                }
            }
        }
        Ok(())
    }

    /// A quota is hard.
    pub(super) fn check_quota(&self, store: &Store) -> Result<(), String> {
        let account = store.inner.catalog.space.account();
        let taken = account.stored + account.index + account.promised;
        if self.quota != 0 && store.inner.is_whole() && taken > self.quota {
            return Err(format!("{taken} bytes of a quota of {} are in use or promised", self.quota));
        }
        Ok(())
    }
}
