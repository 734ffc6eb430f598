//! The task of one job: it waits for its turn, tries, rests, and tries again until all of the object is here.
//!
//! Owns: how long it rests, and what ends a rest. Refuses: to give up. Survives a crash: the job is in the store until
//! the object is durable and pinned where that was asked for; what it brought is found there by the next try. Of a
//! directory that is what no other needed the room of: in this run a lease keeps it, after a restart nothing does until
//! the next try.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::table::{Hands, Standing};
use crate::content::ObjectId;
use crate::fetch::{Error as FetchError, Event, Fetching, Findings, Order, Request, Summary, TreeRequest};
use crate::node::{Error, Node};
use crate::peer::PeerAddr;
use crate::store::{Error as StoreError, Job, Lease};
use crate::support::text::shorten;

/// A try ends when nothing has come for so long.
const STALL: Duration = Duration::from_mins(1);

/// How often it is looked at whether a try crawls.
const LOOK: Duration = Duration::from_secs(1);

/// How long a job rests after a try that came to nothing: at first…
const FIRST: Duration = Duration::from_secs(5);
/// …and, twice as long each time, at most.
const LONGEST: Duration = Duration::from_mins(10);
/// When more nodes can be asked, so much of a rest is enough…
const PART: u32 = 10;
/// …and when somebody announces the object, no more than this: whoever does may be a liar, and may do so all the time.
const ANNOUNCED: Duration = Duration::from_secs(5);

/// Bytes of what a job is said to wait for, in few words and in full.
const WHY: usize = 200;
const ERROR: usize = 1024;

/// A try that came to nothing.
struct Failed {
    error: Error,
    /// Something came, all the same.
    moved: bool,
}

/// What ends a rest early, from when it is made on.
struct Hope {
    /// Somebody announces the object.
    announced: BoxFuture<'static, ()>,
    /// Nodes that can be asked…
    routed: watch::Receiver<usize>,
    /// …and how many there were.
    before: usize,
}

impl Node {
    /// Runs a job, until it has ended or the daemon stops.
    pub(super) fn run_job(&self, number: u64, hands: Hands) {
        let (node, tasks) = (self.clone(), self.parts.tasks.clone());
        self.parts.tasks.spawn("job", async move {
            tokio::select! {
                () = node.pursue(number, &hands) => {}
                () = hands.stop.cancelled() => {}
                () = tasks.stopping() => {}
            }
        });
    }

    async fn pursue(&self, number: u64, hands: &Hands) {
        // Keeps what has come of a directory, which is no object before the end.
        let mut kept: Option<Arc<Lease>> = None;
        let mut rest = FIRST;
        loop {
            hands.go.notified().await;
            let job = self.jobs.table().job(number);
            let Some(job) = job else { return };
            let hope = self.hope(&job.object);
            if job.tree && kept.is_none() {
                kept = Some(Arc::new(self.parts.store.lease()));
            }
            let tried = tokio::select! {
                tried = self.attempt(&job, kept.as_ref(), hands) => Some(tried),
                () = hands.yields.notified() => None,
                () = self.crawls(number) => {
                    tracing::debug!(job = number, "a job that crawls gives its place to one that waits");
                    self.jobs.table().tried(number);
                    None
                }
            };
            // The room that it claimed is for others while it rests.
            if let Some(lease) = &kept {
                lease.give_back();
            }
            let Some(tried) = tried else {
                self.jobs.table().queue(number);
                continue;
            };
            let ended = match tried {
                Ok(summary) => self.finish(number, &summary).await,
                Err(failed) => Err(failed),
            };
            let Err(Failed { error, moved }) = ended else { return };
            let is_list = matches!(error, Error::Fetch(FetchError::IsDirectory(_)));
            if is_list && self.is_of_tree(number).await {
                self.jobs.table().queue(number);
                continue;
            }
            if moved {
                rest = FIRST;
            }
            tracing::debug!(job = number, %error, seconds = rest.as_secs(), "a job rests");
            let why = in_short(&error, &hands.inquiry.findings(), job.tree);
            let until = Instant::now() + rest;
            let error = shorten(&error.to_string(), ERROR).into_owned();
            self.jobs.table().rest(number, why, error, until);
            hope.wait(rest, hands).await;
            self.jobs.table().queue(number);
            rest = (2 * rest).min(LONGEST);
        }
    }

    /// Waits until a try brings so little that another is to have its place.
    async fn crawls(&self, number: u64) {
        loop {
            tokio::time::sleep(LOOK).await;
            let is_over = self.jobs.table().is_to_give_way(number, Instant::now());
            if is_over {
                return;
            }
        }
    }

    /// What may end the rest after a try that begins now.
    fn hope(&self, object: &ObjectId) -> Hope {
        let mut routed = self.parts.neighbours.routed();
        let before = *routed.borrow_and_update();
        Hope { announced: self.parts.discovery.announced(*object.as_bytes()), routed, before }
    }

    /// Brings the object here.
    async fn attempt(&self, job: &Job, kept: Option<&Arc<Lease>>, hands: &Hands) -> Result<Summary, Failed> {
        let (id, number) = (job.object, job.number);
        if self.is_brought(&id, job.tree) {
            return Ok(Summary::default());
        }
        // What an earlier version took for an address may be none to this one.
        let peers: Vec<PeerAddr> = job.peers.iter().filter_map(|peer| peer.parse().ok()).collect();
        let alone = self.may_ask(&id, &peers, STALL).await;
        alone.map_err(|error| Failed { error, moved: false })?;
        let mut fetching = self.fetching(job, peers, kept, hands);
        let mut moved = false;
        loop {
            match fetching.events.recv().await {
                Some(Ok(Event::Started { size, .. })) => self.jobs.table().started(number, size),
                Some(Ok(Event::Progress(progress))) => {
                    moved |= progress.rate > 0;
                    self.jobs.table().progressed(number, progress);
                }
                Some(Ok(Event::Finished(summary))) => return Ok(summary),
                Some(Ok(Event::Data { .. } | Event::Zeros { .. })) => {}
                Some(Err(error)) => return Err(Failed { error: error.into(), moved }),
                None => return Err(Failed { error: FetchError::Stopping.into(), moved }),
            }
        }
    }

    /// Begins a try.
    fn fetching(
        &self,
        job: &Job,
        peers: Vec<PeerAddr>,
        kept: Option<&Arc<Lease>>,
        hands: &Hands,
    ) -> Fetching {
        let (fetcher, inquiry) = (&self.parts.fetcher, hands.inquiry.clone());
        let (id, pin, name, stall) = (job.object, job.pin.then_some(job.uid), None, STALL);
        if let Some(lease) = kept {
            let path = Vec::new();
            let request = TreeRequest { root: id, path, peers, pin, name, stall, range: None };
            return fetcher.gather_tree(request, Arc::clone(lease), inquiry);
        }
        let (alone, order) = (crate::fetch::ALONE, Order::Nothing);
        let request = Request { id, peers, pin, name, stall, alone, order, range: None, into: None };
        fetcher.fetch_telling(request, inquiry, true)
    }

    /// What a job brings is a directory, which its owner did not say: it brings what is in it as well from now on.
    /// False when that cannot be, or is so already.
    async fn is_of_tree(&self, number: u64) -> bool {
        let _changing = self.jobs.changing().await;
        let job = self.jobs.table().job(number);
        let Some(job) = job.filter(|job| !job.tree) else { return false };
        let job = Job { tree: true, ..job };
        if self.parts.store.set_job(job.clone()).await.is_err() {
            return false;
        }
        tracing::debug!(job = number, object = %job.object, "a job turns out to be for a directory");
        self.jobs.table().change(job).is_some()
    }

    /// All of the object is here: the job is over.
    async fn finish(&self, number: u64, summary: &Summary) -> Result<(), Failed> {
        let _changing = self.jobs.changing().await;
        // Its owner may have asked for more meanwhile.
        let job = self.jobs.table().job(number);
        let Some(Job { object, tree, uid, pin, .. }) = job else { return Ok(()) };
        let store = &self.parts.store;
        let stuck = |error: StoreError| Failed { error: error.into(), moved: true };
        let is_kept = !pin || store.pin(&object, uid).await.map_err(stuck)?;
        if !is_kept || !self.is_brought(&object, tree) {
            return Err(Failed { error: FetchError::Removed(object).into(), moved: true });
        }
        store.end_job(number).await.map_err(stuck)?;
        self.jobs.table().end(number, Standing::Done);
        let (bytes, local) = (summary.size, summary.local);
        let (seconds, peers) = (summary.took.as_secs(), summary.peers.len());
        tracing::info!(job = number, %object, uid, bytes, local, seconds, peers, "a job is done");
        Ok(())
    }
}

impl Hope {
    /// Waits for so long, or until there is hope.
    async fn wait(self, rest: Duration, hands: &Hands) {
        let (begun, part) = (Instant::now(), rest / PART);
        let after = |time: Duration| tokio::time::sleep_until(begun + time);
        let Self { announced, routed, before } = self;
        tokio::select! {
            () = after(rest) => {}
            () = hands.wake.notified() => {}
            () = async { announced.await; after(part.min(ANNOUNCED)).await } => {}
            () = async { another(routed, before).await; after(part).await } => {}
        }
    }
}

/// Waits until more nodes can be asked than there were `before`, or than a moment ago.
async fn another(mut routed: watch::Receiver<usize>, mut before: usize) {
    while routed.changed().await.is_ok() {
        let now = *routed.borrow_and_update();
        if now > before {
            return;
        }
        before = now;
    }
    std::future::pending::<()>().await;
}

/// Why a job waits, in few words.
fn in_short(error: &Error, findings: &Findings, tree: bool) -> String {
    let lacking = |count: u64| match (count, tree) {
        (1, true) => "no holder of 1 file".to_owned(),
        (files, true) => format!("no holder of {files} files"),
        (1, false) => "no holder of 1 chunk".to_owned(),
        (chunks, false) => format!("no holder of {chunks} chunks"),
    };
    match error {
        Error::Fetch(FetchError::NoPeers { .. }) => "no peers are known, or can be reached".to_owned(),
        Error::Fetch(FetchError::NoHolders { .. }) => "no holder is found".to_owned(),
        Error::Fetch(FetchError::Unreached { known, .. }) => {
            format!("of {known} who are said to hold it none can be reached")
        }
        Error::Fetch(FetchError::Lacking { .. }) if findings.missing > 0 => lacking(findings.missing),
        Error::Fetch(FetchError::Stalled { .. }) if findings.unheld > 0 => lacking(findings.unheld),
        Error::Fetch(FetchError::Stalled { .. }) => "nothing comes from those who hold it".to_owned(),
        other => shorten(&other.to_string(), WHY).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Nobody;

    #[tokio::test]
    async fn a_rest_ends_early_where_there_is_hope() {
        let rest = Duration::from_secs(3);
        let never = || -> BoxFuture<'static, ()> { Box::pin(std::future::pending()) };
        let (hands, begun) = (Hands::default(), Instant::now());
        let (more, routed) = watch::channel(3);
        let hope = |announced, before| Hope { announced, routed: routed.clone(), before };
        hope(Box::pin(async {}), 3).wait(rest, &hands).await;
        assert!((rest / PART..rest).contains(&begun.elapsed()), "somebody announces it");
        more.send(2).unwrap();
        let fewer = tokio::time::timeout(rest / 5, hope(never(), 3).wait(rest, &hands)).await;
        assert!(fewer.is_err(), "fewer can be asked");
        let begun = Instant::now();
        more.send(4).unwrap();
        hope(never(), 3).wait(rest, &hands).await;
        assert!((rest / PART..rest).contains(&begun.elapsed()), "more can be asked");
        hands.wake.notify_one();
        hope(never(), 4).wait(LONGEST, &hands).await;
    }

    #[test]
    fn what_a_job_waits_for_is_said_in_few_words() {
        let id = ObjectId::from_bytes([7; 32]);
        let stalled = || FetchError::Stalled {
            id,
            seconds: 60,
            missing: "chunks 1-3 (3 of 9)".to_owned(),
            holders: String::new(),
        };
        let short = |error: FetchError, unheld| {
            in_short(&error.into(), &Findings { unheld, ..Findings::default() }, false)
        };
        assert_eq!(short(stalled(), 3), "no holder of 3 chunks");
        assert_eq!(short(stalled(), 1), "no holder of 1 chunk");
        assert_eq!(short(stalled(), 0), "nothing comes from those who hold it");
        let unknown = FetchError::NoPeers { id, nobody: Nobody::Unknown };
        assert_eq!(short(unknown, 0), "no peers are known, or can be reached");
        let lacking = FetchError::Lacking { id, missing: "a/b".to_owned() };
        let findings = Findings { missing: 2, unheld: 1, ..Findings::default() };
        assert_eq!(in_short(&lacking.into(), &findings, true), "no holder of 2 files");
        assert_eq!(in_short(&stalled().into(), &findings, true), "no holder of 1 file");
        assert!(short(FetchError::BadTree { id, why: "x".repeat(10_000) }, 0).len() <= WHY);
    }
}
