//! `casd.v1.Jobs`: fetches that go on without their callers.

use std::time::Duration;

use casd_proto::v1;
use casd_proto::v1::jobs_server::Jobs;
use futures::stream;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Answers, Desk, Role, fetch};
use crate::node::{AskedPeer, Begun, Bringing, JobName, JobView, NewJob, Node, Priority, Progress, Standing};

/// Jobs in one message.
const PAGE: usize = 64;

/// The service.
pub(super) struct Service(pub(super) Desk);

#[tonic::async_trait]
impl Jobs for Service {
    async fn begin(
        &self,
        request: Request<v1::BeginJobRequest>,
    ) -> Result<Response<v1::BeginJobResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let request = request.into_inner();
        let priority = priority(request.priority());
        let v1::BeginJobRequest { id, peers, pin, .. } = request;
        let directory = id.starts_with("dir:");
        let wanted = NewJob { object: id, peers: fetch::peers(&peers)?, pin, priority };
        let (job, joined) = match self.0.node.begin_job(caller, wanted).await? {
            Begun::New(view) => (job(view), false),
            Begun::Joined(view) => (job(view), true),
            Begun::Here(id) => {
                let state = v1::JobState::Done.into();
                let (id, uid) = (id.to_string(), caller.uid);
                (v1::Job { id, directory, uid, pin, state, ..v1::Job::default() }, false)
            }
        };
        Ok(Response::new(v1::BeginJobResponse { job: Some(job), joined }))
    }

    type ListStream = Answers<v1::ListJobsResponse>;

    async fn list(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let caller = self.0.access.admit(&request, Role::Read)?;
        let views = self.0.node.jobs(caller);
        let pages: Vec<_> = views.chunks(PAGE).map(|page| Ok(listed(page))).collect();
        Ok(Response::new(self.0.until_end(stream::iter(pages), ())))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let v1::CancelJobRequest { number, id } = request.into_inner();
        let cancelled = self.0.node.cancel_jobs(caller, name(number, &id)?).await?;
        Ok(Response::new(v1::CancelJobResponse { jobs: cancelled.into_iter().map(job).collect() }))
    }

    async fn set_priority(
        &self,
        request: Request<v1::SetJobPriorityRequest>,
    ) -> Result<Response<v1::SetJobPriorityResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let request = request.into_inner();
        let (name, priority) = (name(request.number, &request.id)?, priority(request.priority()));
        let changed = self.0.node.prioritise_jobs(caller, name, priority.unwrap_or_default()).await?;
        Ok(Response::new(v1::SetJobPriorityResponse { jobs: changed.into_iter().map(job).collect() }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Read)?;
        let explained = self.0.node.explain(caller, &request.into_inner().object).await?;
        let (local_chunks, chunks) = explained.chunks;
        Ok(Response::new(v1::ExplainResponse {
            id: explained.id.to_string(),
            complete: explained.is_whole,
            size: explained.size,
            chunks,
            local_chunks,
            bringing: explained.bringing.into_iter().map(bringing).collect(),
        }))
    }
}

/// How a job is named by a caller.
fn name(number: u64, id: &str) -> Result<JobName, Status> {
    if number > 0 { Ok(JobName::Number(number)) } else { Ok(JobName::Object(Node::whole_id(id)?)) }
}

/// What a caller says of a priority.
fn priority(said: v1::JobPriority) -> Option<Priority> {
    match said {
        v1::JobPriority::Unspecified => None,
        v1::JobPriority::Low => Some(Priority::Low),
        v1::JobPriority::Normal => Some(Priority::Normal),
        v1::JobPriority::High => Some(Priority::High),
    }
}

fn listed(page: &[JobView]) -> v1::ListJobsResponse {
    v1::ListJobsResponse { jobs: page.iter().cloned().map(job).collect() }
}

/// A job as a message.
fn job(view: JobView) -> v1::Job {
    let JobView { job, standing, size, bytes, files, tries, unheld } = view;
    let (local_files, files) = files;
    let priority = match job.priority {
        Priority::Low => v1::JobPriority::Low,
        Priority::Normal => v1::JobPriority::Normal,
        Priority::High => v1::JobPriority::High,
    };
    let message = v1::Job {
        number: job.number,
        id: job.object.to_string(),
        directory: job.tree,
        uid: job.uid,
        priority: priority.into(),
        pin: job.pin,
        since: job.since,
        size,
        bytes,
        tries,
        unheld_chunks: unheld,
        files,
        local_files,
        ..v1::Job::default()
    };
    let as_is = |state: v1::JobState| v1::Job { state: state.into(), ..message.clone() };
    match standing {
        Standing::Queued => as_is(v1::JobState::Queued),
        Standing::Finding => as_is(v1::JobState::Finding),
        Standing::Done => as_is(v1::JobState::Done),
        Standing::Cancelled => as_is(v1::JobState::Cancelled),
        Standing::Fetching(Progress { rate, peers, .. }) => v1::Job {
            bytes_per_second: rate,
            peers: u32::try_from(peers).unwrap_or(u32::MAX),
            left_ms: size.saturating_sub(bytes).saturating_mul(1000).checked_div(rate),
            ..as_is(v1::JobState::Fetching)
        },
        Standing::Waiting { why, error, until } => v1::Job {
            why,
            error,
            next_try_ms: Some(millis(until.saturating_duration_since(Instant::now()))),
            ..as_is(v1::JobState::Waiting)
        },
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn bringing(bringing: Bringing) -> v1::Bringing {
    let Bringing { uid, job: view, findings } = bringing;
    v1::Bringing {
        uid,
        job: view.map(job),
        missing_chunks: findings.missing,
        unheld_chunks: findings.unheld,
        asked: findings.asked.into_iter().map(asked).collect(),
    }
}

fn asked(asked: AskedPeer) -> v1::AskedPeer {
    let AskedPeer { peer, is_connected, bytes, chunks, said } = asked;
    v1::AskedPeer { peer_id: peer.to_string(), connected: is_connected, bytes, chunks, said }
}
