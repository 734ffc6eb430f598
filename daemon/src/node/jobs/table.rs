//! The jobs that are there: which of them run, and how each stands.
//!
//! Owns: how many run at once, and in which order those that wait begin: those of users of whom fewest run, then of
//! whom one began longest ago; of one user's by priority, then those that were tried less often, then the older ones.
//! One that crawls ([`Pace`]) gives way to these. Refuses: two that bring the same object at once, and one whose owner
//! fetches the object in the foreground meanwhile. No awaits. Survives a crash: nothing; the store has the jobs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use crate::content::ObjectId;
use crate::fetch::{Findings, Inquiry, Progress};
use crate::node::{Caller, Error};
use crate::store::{Job, Priority};

/// Jobs that have ended and are still told of: so many…
const ENDED: usize = 64;
/// …for so long.
const TOLD: Duration = Duration::from_hours(1);

/// How a job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It waits for its turn: others run, or somebody brings the same object already.
    Queued,
    /// It looks for holders.
    Finding,
    /// It brings the object.
    Fetching(Progress),
    /// It could not go on, and tries again.
    Waiting {
        /// Why, in few words.
        why: String,
        /// What the last try ended with.
        error: String,
        /// When it tries again, if nothing happens before that gives hope.
        until: Instant,
    },
    /// All of it is here. It is told of for a while.
    Done,
    /// Somebody cancelled it. It is told of for a while.
    Cancelled,
}

/// A job and how it stands.
#[derive(Clone, Debug)]
pub struct JobView {
    /// What is to be done, and for whom.
    pub job: Job,
    /// How it stands.
    pub standing: Standing,
    /// Bytes of the object, of a directory those of its files; 0 while that is not known.
    pub size: u64,
    /// Bytes of it that are here, as far as is known.
    pub bytes: u64,
    /// Of a directory: files that are here, as far as is known, and all of them; 0 while that is not known.
    pub files: (u64, u64),
    /// Tries that ended without all of it.
    pub tries: u32,
    /// Missing chunks, of a directory files, that nobody who was asked says to have. Looked at while nothing arrives.
    pub unheld: u64,
}

/// What a job's task is told by.
#[derive(Clone, Default)]
pub(super) struct Hands {
    /// It is its turn.
    pub(super) go: Arc<Notify>,
    /// Its try gives way to somebody who brings the same.
    pub(super) yields: Arc<Notify>,
    /// There is hope: it may try again at once.
    pub(super) wake: Arc<Notify>,
    /// It has ended.
    pub(super) stop: CancellationToken,
    /// Who was asked, and what they said.
    pub(super) inquiry: Inquiry,
}

struct Entry {
    job: Job,
    standing: Standing,
    size: u64,
    bytes: u64,
    files: (u64, u64),
    tries: u32,
    /// How fast the try is that goes on.
    pace: Pace,
    hands: Hands,
}

/// In which order jobs begin: how many run of its user and which one began last, its priority, tries and number.
type Rank = (usize, u64, Reverse<Priority>, u32, u64);

/// A fetch with a caller.
struct Attended {
    token: u64,
    uid: u32,
    object: ObjectId,
    inquiry: Inquiry,
}

/// See the module.
pub(super) struct Table {
    /// Jobs that run at once.
    bound: usize,
    /// By their numbers.
    entries: BTreeMap<u64, Entry>,
    attended: Vec<Attended>,
    /// Those that ended last, and when.
    ended: VecDeque<(Instant, JobView)>,
    /// The last number and the last token that were given.
    last: (u64, u64),
    /// How many tries have begun, and of each user who has jobs which one began last.
    begun: (u64, BTreeMap<u32, u64>),
}

impl Entry {
    fn runs(&self) -> bool {
        matches!(self.standing, Standing::Finding | Standing::Fetching(_))
    }

    fn view(&self) -> JobView {
        let Self { job, standing, size, bytes, files, tries, hands, .. } = self;
        let unheld = hands.inquiry.findings().unheld;
        let (job, standing) = (job.clone(), standing.clone());
        JobView { job, standing, size: *size, bytes: *bytes, files: *files, tries: *tries, unheld }
    }
}

impl Table {
    /// No jobs yet; `bound` of them run at once.
    pub(super) fn new(bound: usize) -> Self {
        let (entries, attended, ended, last, begun) = Default::default();
        Self { bound, entries, attended, ended, last, begun }
    }

    /// A number that no job has had in this run.
    pub(super) fn free_number(&self) -> u64 {
        self.last.0 + 1
    }

    /// How many jobs there are in all, and of this user.
    pub(super) fn counts(&self, uid: u32) -> (usize, usize) {
        (self.entries.len(), self.entries.values().filter(|entry| entry.job.uid == uid).count())
    }

    /// Takes a job in, which waits for its turn.
    pub(super) fn insert(&mut self, job: Job) -> Hands {
        let (given, number) = (Hands::default(), job.number);
        let (standing, pace, hands) = (Standing::Queued, Pace::new(Instant::now()), given.clone());
        self.last.0 = self.last.0.max(number);
        let entry = Entry { job, standing, size: 0, bytes: 0, files: (0, 0), tries: 0, pace, hands };
        self.entries.insert(number, entry);
        self.assign();
        given
    }

    /// A job as it is now.
    pub(super) fn job(&self, number: u64) -> Option<Job> {
        self.entries.get(&number).map(|entry| entry.job.clone())
    }

    /// A user's job for an object.
    pub(super) fn own(&self, uid: u32, object: &ObjectId) -> Option<Job> {
        let mut own = self.entries.values().filter(|entry| entry.job.uid == uid);
        own.find(|entry| entry.job.object == *object).map(|entry| entry.job.clone())
    }

    /// The job of this number, when the caller may change it.
    pub(super) fn numbered(&self, caller: Caller, number: u64) -> Result<Job, Error> {
        let job = self.job(number).ok_or_else(|| Error::NoJob(number.to_string()))?;
        if caller.is_admin || job.uid == caller.uid { Ok(job) } else { Err(Error::NotYourJob(number)) }
    }

    /// The caller's job for an object; where an administrator has none, everybody's.
    pub(super) fn of_object(&self, caller: Caller, object: &ObjectId) -> Result<Vec<Job>, Error> {
        if let Some(own) = self.own(caller.uid, object) {
            return Ok(vec![own]);
        }
        let all = self.entries.values().map(|entry| &entry.job);
        let all: Vec<Job> = all.filter(|job| caller.is_admin && job.object == *object).cloned().collect();
        if all.is_empty() { Err(Error::NoJob(object.to_string())) } else { Ok(all) }
    }

    /// A job's record has changed: it may begin at once.
    pub(super) fn change(&mut self, job: Job) -> Option<JobView> {
        let entry = self.entries.get_mut(&job.number)?;
        let number = job.number;
        entry.job = job;
        entry.hands.wake.notify_one();
        self.assign();
        self.view(number)
    }

    /// A job waits for its turn again.
    pub(super) fn queue(&mut self, number: u64) {
        self.stand(number, Standing::Queued);
    }

    /// A try has come to nothing.
    pub(super) fn rest(&mut self, number: u64, why: String, error: String, until: Instant) {
        self.tried(number);
        self.stand(number, Standing::Waiting { why, error, until });
    }

    /// It is known how long the object is.
    pub(super) fn started(&mut self, number: u64, size: u64) {
        if let Some(entry) = self.entries.get_mut(&number).filter(|entry| entry.runs()) {
            entry.size = size;
            entry.standing = Standing::Fetching(Progress { bytes: entry.bytes, ..Progress::default() });
        }
    }

    /// A try goes on.
    pub(super) fn progressed(&mut self, number: u64, progress: Progress) {
        if let Some(entry) = self.entries.get_mut(&number).filter(|entry| entry.runs()) {
            (entry.bytes, entry.files) = (progress.bytes, progress.files);
            entry.pace.is_at(progress.bytes);
            entry.standing = Standing::Fetching(progress);
        }
    }

    /// Whether a try crawls and its place is to be another's. Looked at every second or so.
    pub(super) fn is_to_give_way(&mut self, number: u64, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&number).filter(|entry| entry.runs()) else { return false };
        if !entry.pace.crawls(entry.bytes, now) {
            return false;
        }
        // Its turn has been long enough for those that wait, or may come to wait during another one.
        entry.pace.renew(entry.bytes, now);
        self.has_rival(number)
    }

    /// A try has ended without success, be it for the sake of others.
    pub(super) fn tried(&mut self, number: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.tries = entry.tries.saturating_add(1);
        }
    }

    /// A job is over, as `standing` says.
    pub(super) fn end(&mut self, number: u64, standing: Standing) -> Option<JobView> {
        let mut entry = self.entries.remove(&number)?;
        entry.hands.stop.cancel();
        if standing == Standing::Done {
            (entry.bytes, entry.files.0) = (entry.size, entry.files.1);
        }
        entry.standing = standing;
        let view = entry.view();
        self.ended.push_back((Instant::now(), view.clone()));
        if self.ended.len() > ENDED {
            self.ended.pop_front();
        }
        let uid = entry.job.uid;
        if !self.entries.values().any(|other| other.job.uid == uid) {
            self.begun.1.remove(&uid);
        }
        self.hope(&entry.job.object);
        self.assign();
        Some(view)
    }

    /// A user's own fetch of an object begins: a job of that user's that brings it gives way. Gives its token.
    pub(super) fn attend(&mut self, uid: u32, object: ObjectId, inquiry: Inquiry) -> u64 {
        self.last.1 += 1;
        let token = self.last.1;
        self.attended.push(Attended { token, uid, object, inquiry });
        for entry in self.entries.values().filter(|entry| entry.runs()) {
            if entry.job.uid == uid && entry.job.object == object {
                entry.hands.yields.notify_one();
            }
        }
        token
    }

    /// That fetch has ended.
    pub(super) fn leave(&mut self, token: u64) {
        let Some(at) = self.attended.iter().position(|fetch| fetch.token == token) else { return };
        let object = self.attended.swap_remove(at).object;
        self.hope(&object);
        self.assign();
    }

    /// The jobs that are there, and those that ended lately.
    pub(super) fn views(&self) -> Vec<JobView> {
        let lately = self.ended.iter().filter(|(at, _)| at.elapsed() < TOLD).map(|(_, view)| view.clone());
        lately.chain(self.entries.values().map(Entry::view)).collect()
    }

    /// Who brings an object, as a job or not, with what those said who were asked.
    pub(super) fn bringing(&self, object: &ObjectId) -> Vec<(u32, Option<JobView>, Findings)> {
        let jobs = self.entries.values().filter(|entry| entry.job.object == *object);
        let jobs = jobs.map(|entry| (entry.job.uid, Some(entry.view()), entry.hands.inquiry.findings()));
        let attended = self.attended.iter().filter(|fetch| fetch.object == *object);
        jobs.chain(attended.map(|fetch| (fetch.uid, None, fetch.inquiry.findings()))).collect()
    }

    pub(super) fn view(&self, number: u64) -> Option<JobView> {
        self.entries.get(&number).map(Entry::view)
    }

    fn stand(&mut self, number: u64, standing: Standing) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.standing = standing;
        }
        self.assign();
    }

    /// Somebody else has brought (some of) an object.
    fn hope(&self, object: &ObjectId) {
        let jobs = self.entries.values().filter(|entry| entry.job.object == *object);
        jobs.for_each(|entry| entry.hands.wake.notify_one());
    }

    /// The user and the object of each that runs, but for this one.
    fn running(&self, but: Option<u64>) -> Vec<(u32, ObjectId)> {
        let running = self.entries.values().filter(|entry| entry.runs() && Some(entry.job.number) != but);
        running.map(|entry| (entry.job.uid, entry.job.object)).collect()
    }

    /// Who begins next when these run. Users have equal parts: priorities are among the jobs of one.
    fn next(&self, running: &[(u32, ObjectId)]) -> Option<&Entry> {
        let is_brought = |job: &Job| running.iter().any(|(_, object)| *object == job.object);
        let is_attended =
            |job: &Job| self.attended.iter().any(|fetch| fetch.uid == job.uid && fetch.object == job.object);
        let queued = self.entries.values().filter(|entry| entry.standing == Standing::Queued);
        let free = queued.filter(|entry| !is_brought(&entry.job) && !is_attended(&entry.job));
        free.min_by_key(|entry| self.rank(entry, running))
    }

    fn rank(&self, entry: &Entry, running: &[(u32, ObjectId)]) -> Rank {
        let Job { number, uid, priority, .. } = &entry.job;
        let of_user = running.iter().filter(|(other, _)| other == uid).count();
        let begun = self.begun.1.get(uid).copied().unwrap_or(0);
        (of_user, begun, Reverse(*priority), entry.tries, *number)
    }

    /// Whether another job would begin in the place of one that runs, if that waited for its next turn.
    fn has_rival(&self, number: u64) -> bool {
        let Some(entry) = self.entries.get(&number) else { return false };
        let running = self.running(Some(number));
        let mut own = self.rank(entry, &running);
        own.3 = own.3.saturating_add(1);
        self.next(&running).is_some_and(|next| self.rank(next, &running) < own)
    }

    /// Lets as many begin as there are places.
    fn assign(&mut self) {
        loop {
            let running = self.running(None);
            if running.len() >= self.bound {
                return;
            }
            let next = self.next(&running).map(|entry| (entry.job.number, entry.job.uid));
            let Some((number, uid)) = next else { return };
            self.begun.0 += 1;
            self.begun.1.insert(uid, self.begun.0);
            if let Some(entry) = self.entries.get_mut(&number) {
                (entry.standing, entry.pace) = (Standing::Finding, Pace::new(Instant::now()));
                entry.hands.go.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests;
