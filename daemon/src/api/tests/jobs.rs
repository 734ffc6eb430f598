//! Jobs over the API, of a node that knows nobody: they wait, and nothing of them is done twice.

use casd_proto::v1::jobs_client::JobsClient;
use futures::FutureExt;

use super::*;
use crate::node::{AddOptions, Begun, Caller, JobName, NewJob, Standing};

impl Daemon {
    fn jobs(&self) -> JobsClient<Channel> {
        client::jobs(self.channel.clone())
    }

    async fn begin(&self, request: v1::BeginJobRequest) -> Result<v1::BeginJobResponse, Status> {
        Ok(self.jobs().begin(request).await?.into_inner())
    }

    async fn list_jobs(&self) -> Vec<v1::Job> {
        let pages = self.jobs().list(v1::ListJobsRequest {}).await.unwrap().into_inner();
        all(pages).await.unwrap().into_iter().flat_map(|page| page.jobs).collect()
    }

    /// The only job, once it waits.
    async fn waiting(&self) -> v1::Job {
        loop {
            let jobs = self.list_jobs().await;
            if let [job] = jobs.as_slice()
                && job.state() == v1::JobState::Waiting
            {
                return job.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn wanted(id: &str) -> v1::BeginJobRequest {
    v1::BeginJobRequest { id: id.to_owned(), ..v1::BeginJobRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_begun_once_waits_and_is_cancelled() {
    bounded(async {
        let daemon = Daemon::start().await;
        let id = id_of(b"nowhere");
        let first = daemon.begin(wanted(&id)).await.unwrap();
        let job = first.job.unwrap();
        assert_eq!((job.number, job.id.as_str(), first.joined), (1, id.as_str(), false));
        let high = v1::JobPriority::High.into();
        let more = v1::BeginJobRequest { pin: true, priority: high, ..wanted(&id) };
        let second = daemon.begin(more).await.unwrap();
        let job = second.job.unwrap();
        assert_eq!((job.number, job.pin, job.priority, second.joined), (1, true, high, true));

        let waiting = daemon.waiting().await;
        assert_eq!(waiting.why, "no peers are known, or can be reached");
        assert!(waiting.error.contains(&id) && waiting.next_try_ms.is_some() && waiting.tries > 0);
        let low = v1::JobPriority::Low.into();
        let request = v1::SetJobPriorityRequest { number: 1, priority: low, ..Default::default() };
        let changed = daemon.jobs().set_priority(request).await.unwrap().into_inner().jobs;
        assert_eq!(changed.iter().map(|job| job.priority).collect::<Vec<_>>(), [low]);

        let explain = |object: &str| {
            let (request, mut jobs) = (v1::ExplainRequest { object: object.to_owned() }, daemon.jobs());
            async move { jobs.explain(request).await }
        };
        let explained = explain(&id).await.unwrap().into_inner();
        assert_eq!((explained.complete, explained.size, explained.bringing.len()), (false, 0, 1));
        assert_eq!(explained.bringing[0].job.as_ref().map(|job| job.number), Some(1));
        assert_eq!(reason(explain("no such name").await), "NOT_FOUND");

        let cancel = |number, id: &str| {
            let (request, mut jobs) = (v1::CancelJobRequest { number, id: id.to_owned() }, daemon.jobs());
            async move { jobs.cancel(request).await }
        };
        assert_eq!(reason(cancel(2, "").await), "NOT_FOUND");
        assert_eq!(reason(cancel(0, "x").await), "INVALID_ID");
        let cancelled = cancel(0, &id).await.unwrap().into_inner().jobs;
        assert_eq!(cancelled.len(), 1);
        let states: Vec<_> = daemon.list_jobs().await.iter().map(v1::Job::state).collect();
        assert_eq!(states, [v1::JobState::Cancelled]);
        assert_eq!(reason(cancel(1, "").await), "NOT_FOUND");
        assert!(explain(&id).await.unwrap().into_inner().bringing.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_no_job_gets_none_and_what_can_have_none_is_refused() {
    bounded(async {
        let daemon = Daemon::start().await;
        let bytes = sample(1, 10);
        daemon.add("here", vec![bytes.clone()]).await.unwrap();
        let id = id_of(&bytes);
        let job = daemon.begin(wanted(&id)).await.unwrap().job.unwrap();
        assert_eq!((job.number, job.state()), (0, v1::JobState::Done));
        let unknown = id_of(b"unknown");
        for (expected, request) in [
            ("INVALID_ID", wanted("here")),
            ("INVALID_ID", wanted(&format!("dir:{unknown}/a"))),
            ("NOT_FOUND", wanted(&id_of(b""))),
            ("INVALID_ADDRESS", v1::BeginJobRequest { peers: vec!["x".to_owned()], ..wanted(&unknown) }),
        ] {
            assert_eq!(reason(daemon.begin(request).await), expected);
        }
        assert!(daemon.list_jobs().await.is_empty());
        let request = v1::ExplainRequest { object: "here".to_owned() };
        let explained = daemon.jobs().explain(request).await.unwrap().into_inner();
        assert_eq!((explained.id, explained.complete, explained.local_chunks), (id, true, 1));
    })
    .await;
}

/// The store's list and what runs are one, also when a caller goes away in the middle.
#[tokio::test]
async fn a_caller_who_goes_away_leaves_no_job_half_begun_nor_half_cancelled() {
    bounded(async {
        let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let (node, caller) = (node(&folder, &tasks), Caller { uid: 1000, is_admin: false });
        let wanted = NewJob { object: id_of(b"nowhere"), peers: Vec::new(), pin: false, priority: None };
        // By then the store has been told, and has not answered.
        assert!(Box::pin(node.begin_job(caller, wanted)).now_or_never().is_none());
        while node.jobs(caller).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(Box::pin(node.cancel_jobs(caller, JobName::Number(1))).now_or_never().is_none());
        while node.jobs(caller)[0].standing != Standing::Cancelled {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tasks.stop();
    })
    .await;
}

/// Somebody removes it at the same time.
#[tokio::test]
async fn who_is_told_that_it_is_here_has_its_pin() {
    bounded(async {
        let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let node = node(&folder, &tasks);
        let [caller, other] = [1000, 1001].map(|uid| Caller { uid, is_admin: false });
        for seed in 0..20 {
            let (bytes, private) = (sample(seed, 10), true);
            let object = id_of(&bytes);
            let mut adding = node.add(AddOptions { private, ..AddOptions::default() }, false);
            adding.write(bytes).await.unwrap();
            adding.finish(10).await.unwrap();
            // The removal is on its way to the journal when it is looked for.
            let removing = Box::pin(node.remove(other, &object, false));
            let wanted = NewJob { object: object.clone(), peers: Vec::new(), pin: true, priority: None };
            let (removed, begun) = tokio::join!(removing, Box::pin(node.begin_job(caller, wanted)));
            let is_here = matches!(begun.unwrap(), Begun::Here(_));
            let is_pinned = node.list(None).iter().any(|info| info.id.to_string() == object);
            assert_eq!(is_here, is_pinned, "{seed}: {removed:?}");
        }
        tasks.stop();
    })
    .await;
}
