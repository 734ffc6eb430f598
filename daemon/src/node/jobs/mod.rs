//! Jobs: fetches that go on without their caller.
//!
//! Owns: which there are, and what their owners may ask of them; `table` is how they stand and which of them run,
//! `pace` which of these crawl, `run` is the task of one. Refuses: what is at a path in a directory, more jobs than its
//! limits, and others' jobs, but to administrators. Survives a crash: every job that was answered for: it is in the
//! store before that, and until it has ended.

mod pace;
mod run;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use table::{JobView, Standing};

use super::{Caller, Error, Node};
use crate::content::{ObjectId, chunk_count};
use crate::fetch::{Error as FetchError, Findings, Inquiry};
use crate::peer::PeerAddr;
use crate::store::{Job, MAX_JOB_PEER, MAX_JOB_PEERS, Priority, State};
use crate::support::unix_now;
use table::Table;

/// Jobs in all, when an administrator wants one more; when anybody else does; and of one user. Each is a task, and has
/// up to 33 KiB in the journal.
const JOBS: [usize; 3] = [1024, 896, 512];

/// What to fetch without a caller.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The whole id of a file, or of a directory with `dir:` before it.
    pub object: String,
    /// Peers to ask besides those that are found.
    pub peers: Vec<PeerAddr>,
    /// Whether the caller pins it.
    pub pin: bool,
    /// When it begins among others; `None`: as is usual, or as it is.
    pub priority: Option<Priority>,
}

/// What came of asking for a job.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It is here already; pinned, where that was asked for.
    Here(ObjectId),
    /// There is a job now.
    New(JobView),
    /// The caller had one for the same object, which has got what is new: peers, a pin, a priority.
    Joined(JobView),
}

/// How a job is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobName {
    /// By its number.
    Number(u64),
    /// By what it brings.
    Object(ObjectId),
}

/// Somebody who brings an object here.
#[derive(Clone, Debug)]
pub struct Bringing {
    /// Whose it is.
    pub uid: u32,
    /// The job; `None` for a fetch with a caller.
    pub job: Option<JobView>,
    /// Who was asked, and what they said.
    pub findings: Findings,
}

/// Why an object is, or is not, here.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// It.
    pub id: ObjectId,
    /// Whether all of it is here.
    pub is_whole: bool,
    /// Bytes of it; 0 where that is not known here.
    pub size: u64,
    /// Its chunks that are here, and all of them; 0 where that is not known here.
    pub chunks: (u64, u64),
    /// Who brings it, of those that the caller may know of.
    pub bringing: Vec<Bringing>,
}

/// The jobs of a node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Jobs(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    /// Held while the store's list of jobs and the table are changed together, by nobody who may go away meanwhile.
    changing: tokio::sync::Mutex<()>,
}

/// A fetch with a caller goes on: a job of the same user that brings the same gives way. Ends when it is dropped.
pub struct Attended {
    jobs: Jobs,
    token: u64,
}

impl Jobs {
    /// None yet; so many run at once.
    pub(super) fn new(bound: usize) -> Self {
        let (table, changing) = (Mutex::new(Table::new(bound)), tokio::sync::Mutex::new(()));
        Self(Arc::new(Shared { table, changing }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.changing.lock().await
    }

    /// A user fetches an object, and waits for it.
    pub(super) fn attend(&self, uid: u32, object: ObjectId, inquiry: Inquiry) -> Attended {
        let token = self.table().attend(uid, object, inquiry);
        Attended { jobs: self.clone(), token }
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.jobs.table().leave(self.token);
    }
}

impl Node {
    /// Takes up the jobs that the last run left.
    pub fn resume_jobs(&self) {
        let jobs = self.parts.store.jobs();
        if jobs.is_empty() {
            return;
        }
        tracing::info!(jobs = jobs.len(), "jobs that have not ended go on");
        for job in jobs {
            let number = job.number;
            let hands = self.jobs.table().insert(job);
            self.run_job(number, hands);
        }
    }

    /// Fetches an object without its caller: durable when this returns, it goes on over restarts, however long nobody
    /// has it, and until it is cancelled. A second job of the same user for the same object is the first.
    ///
    /// # Errors
    /// [`Error::Id`], [`Error::EmptyFile`], [`Error::IsDirectory`] where a file is wanted that is known to be none,
    /// [`Error::Address`], [`Error::TooManyJobs`], [`Error::Store`].
    pub async fn begin_job(&self, caller: Caller, wanted: NewJob) -> Result<Begun, Error> {
        let node = self.clone();
        self.in_full(async move { node.begin_or_join(caller, wanted).await }).await
    }

    /// Makes a change, whatever becomes of its caller: half of it would be a job in the store that nobody runs and that
    /// nobody can cancel, or one that goes on although the store has none.
    async fn in_full<T, F>(&self, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let changed = self.parts.tasks.spawn("jobs", change).await;
        changed.ok().flatten().unwrap_or_else(|| Err(FetchError::Stopping.into()))
    }

    async fn begin_or_join(&self, caller: Caller, wanted: NewJob) -> Result<Begun, Error> {
        let NewJob { object, peers, pin, priority } = wanted;
        let (tree, digits) = match object.strip_prefix("dir:") {
            Some(digits) => (true, digits),
            None => (false, object.as_str()),
        };
        let id = Self::whole_id(digits)?;
        if id == ObjectId::EMPTY {
            return Err(Error::EmptyFile(object));
        }
        if !tree && self.parts.store.object(&id).is_some_and(|info| info.tree) {
            return Err(Error::IsDirectory(id));
        }
        let peers = addresses(&peers)?;
        let _changing = self.jobs.changing().await;
        // What is removed meanwhile cannot be pinned, and has to be brought again.
        if self.is_brought(&id, tree) && (!pin || self.parts.store.pin(&id, caller.uid).await?) {
            return Ok(Begun::Here(id));
        }
        let own = self.jobs.table().own(caller.uid, &id);
        if let Some(job) = own {
            let job = joined(&job, tree, peers, pin, priority);
            self.parts.store.set_job(job.clone()).await?;
            let number = job.number;
            let view = self.jobs.table().change(job);
            return view.map(Begun::Joined).ok_or_else(|| Error::NoJob(number.to_string()));
        }
        self.may_begin(caller)?;
        let (uid, priority) = (caller.uid, priority.unwrap_or_default());
        let number = self.jobs.table().free_number();
        let job = Job { number, object: id, tree, uid, pin, priority, since: unix_now(), peers };
        self.parts.store.set_job(job.clone()).await?;
        let begins = "a job begins: a fetch without its caller";
        tracing::info!(job = number, object = %id, tree, uid, pin, ?priority, "{begins}");
        let hands = self.jobs.table().insert(job);
        let view = self.jobs.table().view(number);
        self.run_job(number, hands);
        view.map(Begun::New).ok_or_else(|| Error::NoJob(number.to_string()))
    }

    /// Whether all that a job is to bring is here.
    fn is_brought(&self, id: &ObjectId, tree: bool) -> bool {
        let known = self.parts.store.object(id);
        known.is_some_and(|info| info.state == State::Whole && (info.tree || !tree))
    }

    /// Whether the caller may have one more job.
    fn may_begin(&self, caller: Caller) -> Result<(), Error> {
        let ((all, own), [admins, users, one_user]) = (self.jobs.table().counts(caller.uid), JOBS);
        let (most, most_own) = if caller.is_admin { (admins, admins) } else { (users, one_user) };
        if all >= most || own >= most_own {
            return Err(Error::TooManyJobs { all, own });
        }
        Ok(())
    }

    /// The caller's jobs, an administrator's all: those that are there, and those that ended lately in this run.
    #[must_use]
    pub fn jobs(&self, caller: Caller) -> Vec<JobView> {
        let mut views = self.jobs.table().views();
        views.retain(|view| caller.is_admin || view.job.uid == caller.uid);
        views.sort_by_key(|view| view.job.number);
        views
    }

    /// Cancels a job; by the object's id the caller's, or where an administrator has none, everybody's. What has come
    /// of the object stays for a day.
    ///
    /// # Errors
    /// [`Error::NoJob`], [`Error::NotYourJob`], [`Error::Store`].
    pub async fn cancel_jobs(&self, caller: Caller, name: JobName) -> Result<Vec<JobView>, Error> {
        let node = self.clone();
        self.in_full(async move { node.cancel_all(caller, name).await }).await
    }

    async fn cancel_all(&self, caller: Caller, name: JobName) -> Result<Vec<JobView>, Error> {
        let _changing = self.jobs.changing().await;
        let mut cancelled = Vec::new();
        for Job { number, object, uid, .. } in self.named(caller, name)? {
            self.parts.store.end_job(number).await?;
            cancelled.extend(self.jobs.table().end(number, Standing::Cancelled));
            tracing::info!(job = number, %object, uid, by = caller.uid, "a job is cancelled");
        }
        Ok(cancelled)
    }

    /// Changes when a job begins among others; which one as [`Node::cancel_jobs`]. One that runs goes on.
    ///
    /// # Errors
    /// [`Error::NoJob`], [`Error::NotYourJob`], [`Error::Store`].
    pub async fn prioritise_jobs(
        &self,
        caller: Caller,
        name: JobName,
        priority: Priority,
    ) -> Result<Vec<JobView>, Error> {
        let node = self.clone();
        self.in_full(async move { node.prioritise_all(caller, name, priority).await }).await
    }

    async fn prioritise_all(
        &self,
        caller: Caller,
        name: JobName,
        priority: Priority,
    ) -> Result<Vec<JobView>, Error> {
        let _changing = self.jobs.changing().await;
        let mut changed = Vec::new();
        for job in self.named(caller, name)? {
            let job = Job { priority, ..job };
            self.parts.store.set_job(job.clone()).await?;
            changed.extend(self.jobs.table().change(job));
        }
        Ok(changed)
    }

    /// The jobs of this name that the caller may change.
    fn named(&self, caller: Caller, name: JobName) -> Result<Vec<Job>, Error> {
        match name {
            JobName::Number(number) => self.jobs.table().numbered(caller, number).map(|job| vec![job]),
            JobName::Object(id) => self.jobs.table().of_object(caller, &id),
        }
    }

    /// Says why an object is here or not: how much of it is, and of those who bring it whom they asked, and what those
    /// said. Takes a whole id, or what [`Node::find`] does.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::NoSuchPath`], [`Error::Damaged`], [`Error::Store`].
    pub async fn explain(&self, caller: Caller, text: &str) -> Result<Explanation, Error> {
        let id = match text.strip_prefix("dir:").unwrap_or(text).parse() {
            Ok(id) => id,
            Err(_) => self.find(text).await?.id,
        };
        let known = self.parts.store.object(&id);
        let is_whole = id == ObjectId::EMPTY || known.as_ref().is_some_and(|info| info.state == State::Whole);
        let size = known.as_ref().map_or(0, |info| info.length);
        let here = match known {
            Some(_) => self.parts.store.local_chunks(&id).await?.unwrap_or(0),
            None => 0,
        };
        let bringing = self.jobs.table().bringing(&id).into_iter();
        let own = bringing.filter(|(uid, ..)| caller.is_admin || *uid == caller.uid);
        let bringing = own.map(|(uid, job, findings)| Bringing { uid, job, findings }).collect();
        let all = if size == 0 { 0 } else { chunk_count(size) };
        Ok(Explanation { id, is_whole, size, chunks: (here, all), bringing })
    }
}

/// The addresses as they are kept.
fn addresses(peers: &[PeerAddr]) -> Result<Vec<String>, Error> {
    let kept = |peer: &PeerAddr| {
        let text = peer.to_string();
        let why = || format!("it has more than {MAX_JOB_PEER} bytes");
        if text.len() > MAX_JOB_PEER { Err(Error::Address { why: why(), text }) } else { Ok(text) }
    };
    peers.iter().take(MAX_JOB_PEERS).map(kept).collect()
}

/// A job that has got what a second one would have. Of more peers than it may have the new ones count.
fn joined(old: &Job, tree: bool, peers: Vec<String>, pin: bool, priority: Option<Priority>) -> Job {
    let mut all = peers;
    for peer in &old.peers {
        if all.len() < MAX_JOB_PEERS && !all.contains(peer) {
            all.push(peer.clone());
        }
    }
    let &Job { number, object, uid, since, .. } = old;
    Job {
        number,
        object,
        // The list of a directory comes with it.
        tree: old.tree || tree,
        uid,
        pin: old.pin || pin,
        priority: priority.unwrap_or(old.priority),
        since,
        peers: all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_job_for_the_same_adds_to_the_first() {
        let peers = |from: usize, to: usize| -> Vec<String> { (from..to).map(|n| n.to_string()).collect() };
        let old = Job {
            number: 3,
            object: ObjectId::from_bytes([7; 32]),
            tree: false,
            uid: 1000,
            pin: true,
            priority: Priority::Low,
            since: 5,
            peers: peers(0, 40),
        };
        let same = joined(&old, false, peers(0, 2), false, None);
        assert_eq!((same.pin, same.priority, same.peers.len(), same.tree), (true, Priority::Low, 40, false));
        let more = joined(&old, true, peers(40, 80), false, Some(Priority::High));
        assert_eq!((more.number, more.priority, more.tree), (3, Priority::High, true));
        assert!(joined(&more, false, Vec::new(), false, None).tree);
        assert_eq!(more.peers, peers(40, 80).into_iter().chain(peers(0, 24)).collect::<Vec<_>>());
    }
}
