//! `casctl jobs`: lists fetches that go on without their callers, and cancels or reorders them.

use std::collections::HashMap;
use std::time::Duration;

use casd_proto::Reason;
use casd_proto::v1::{CancelJobRequest, Job, JobPriority, JobState, ListJobsRequest, SetJobPriorityRequest};
use serde_json::{Value, json};

use super::Session;
use crate::args::{JobName, Jobs, Priority};
use crate::error::{Exit, Failure};
use crate::object::directory;
use crate::output::Line;
use crate::output::text::{count, escaped, size, span};

/// Between two looks at jobs that are watched.
const EVERY: Duration = Duration::from_millis(500);

/// Lists, or changes; see [`Jobs`].
pub(super) async fn run(session: &Session, args: Jobs) -> Result<Exit, Failure> {
    if let Some(name) = &args.cancel {
        let (number, id) = named(name);
        let cancelled = session.jobs().cancel(CancelJobRequest { number, id }).await?.into_inner();
        return show(session, &cancelled.jobs);
    }
    if let (Some(name), Some(wanted)) = (&args.job, args.priority) {
        let (number, id) = named(name);
        let request = SetJobPriorityRequest { number, id, priority: priority(Some(wanted)) };
        let changed = session.jobs().set_priority(request).await?.into_inner();
        return show(session, &changed.jobs);
    }
    let only = args.job.as_ref();
    if args.watch {
        return watch(session, only).await;
    }
    let jobs = list(session, only).await?;
    if jobs.is_empty() {
        session.output.note("no jobs; `casctl fetch --detach ID` begins one");
    }
    show(session, &jobs)
}

/// Prints each change of jobs until all have ended.
async fn watch(session: &Session, only: Option<&JobName>) -> Result<Exit, Failure> {
    let mut shown: HashMap<u64, Job> = HashMap::new();
    loop {
        let jobs = list(session, only).await?;
        for job in &jobs {
            if shown.get(&job.number).is_none_or(|before| differs(before, job)) {
                session.output.result(&line(job))?;
                shown.insert(job.number, job.clone());
            }
        }
        if jobs.iter().all(has_ended) {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Whether more than the time has changed.
fn differs(before: &Job, now: &Job) -> bool {
    let told = |job: &Job| {
        (job.state, job.priority, job.bytes, job.local_files, job.unheld_chunks, job.tries, job.pin)
    };
    told(before) != told(now)
}

fn has_ended(job: &Job) -> bool {
    matches!(job.state(), JobState::Done | JobState::Cancelled)
}

/// The jobs of this name, all without one.
async fn list(session: &Session, only: Option<&JobName>) -> Result<Vec<Job>, Failure> {
    let mut pages = session.jobs().list(ListJobsRequest {}).await?.into_inner();
    let mut jobs = Vec::new();
    while let Some(page) = pages.message().await? {
        jobs.extend(page.jobs);
    }
    let Some(name) = only else { return Ok(jobs) };
    let (number, id) = named(name);
    jobs.retain(|job| if number > 0 { job.number == number } else { job.id == id });
    if jobs.is_empty() {
        let shown = if number > 0 { number.to_string() } else { id };
        let message = format!("there is no job {shown}");
        return Err(
            Failure::known(Reason::NotFound, message).hint("`casctl jobs` lists those that there are")
        );
    }
    Ok(jobs)
}

/// A name as the API has it: a number, or 0 and an id.
fn named(name: &JobName) -> (u64, String) {
    match name {
        JobName::Number(number) => (*number, String::new()),
        JobName::Id(id) => (0, id.as_str().to_owned()),
    }
}

/// A priority as the API has it.
pub(super) fn priority(wanted: Option<Priority>) -> i32 {
    let priority = match wanted {
        None => JobPriority::Unspecified,
        Some(Priority::High) => JobPriority::High,
        Some(Priority::Normal) => JobPriority::Normal,
        Some(Priority::Low) => JobPriority::Low,
    };
    priority.into()
}

fn show(session: &Session, jobs: &[Job]) -> Result<Exit, Failure> {
    session.output.results(&jobs.iter().map(line).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

/// The id of what a job brings, as it is written.
pub(super) fn id(job: &Job) -> String {
    if job.directory { directory(&job.id) } else { job.id.clone() }
}

/// A job as it is printed.
pub(super) fn line(job: &Job) -> Line {
    let mut human = format!("{}  {}  {}", job.number, escaped(&id(job)), escaped(&words(job)));
    if job.priority() != JobPriority::Normal && !has_ended(job) {
        human += &format!(" ({})", priority_name(job.priority()));
    }
    if job.uid != rustix::process::geteuid().as_raw() {
        human += &format!(" (of uid {})", job.uid);
    }
    Line { human, bare: job.number.to_string(), json: json(job) }
}

/// How a job stands, in words.
pub(super) fn words(job: &Job) -> String {
    match job.state() {
        JobState::Queued => "waits for its turn".to_owned(),
        JobState::Finding => "finding holders".to_owned(),
        JobState::Fetching if job.bytes_per_second == 0 && job.unheld_chunks > 0 => {
            format!("{}: no holder of {}", part(job), count(job.unheld_chunks, unit(job)))
        }
        JobState::Fetching => {
            let (rate, peers) = (size(job.bytes_per_second), count(job.peers.into(), "peer"));
            let left = job.left_ms.map_or_else(String::new, |left| format!(", {} left", span(left)));
            format!("{} at {rate}/s from {peers}{left}", part(job))
        }
        JobState::Waiting => {
            let next =
                job.next_try_ms.map_or_else(String::new, |next| format!("; next try in {}", span(next)));
            format!("waiting: {}{next}", job.why)
        }
        JobState::Done if job.size == 0 => "done".to_owned(),
        JobState::Done if job.files > 0 => {
            format!("done, {} in {}", size(job.size), count(job.files, "file"))
        }
        JobState::Done => format!("done, {}", size(job.size)),
        JobState::Cancelled => "cancelled".to_owned(),
        JobState::Unspecified => "in a state that this casctl does not know".to_owned(),
    }
}

/// What is counted of it when some is missing.
pub(super) fn unit(job: &Job) -> &'static str {
    if job.directory { "file" } else { "chunk" }
}

/// How much of it is here: `fetching 43 %`, of a directory `fetching 43 % (5 of 9 files)`.
fn part(job: &Job) -> String {
    let percent = (u128::from(job.bytes) * 100).checked_div(job.size.into());
    let part = percent.map_or_else(|| "fetching".to_owned(), |percent| format!("fetching {percent} %"));
    match job.files {
        0 => part,
        files => format!("{part} ({} of {})", job.local_files, count(files, "file")),
    }
}

fn priority_name(priority: JobPriority) -> &'static str {
    match priority {
        JobPriority::High => "high",
        JobPriority::Low => "low",
        JobPriority::Normal | JobPriority::Unspecified => "normal",
    }
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Finding => "finding",
        JobState::Fetching => "fetching",
        JobState::Waiting => "waiting",
        JobState::Done => "done",
        JobState::Cancelled => "cancelled",
        JobState::Unspecified => "unknown",
    }
}

/// A job's documented keys.
pub(super) fn json(job: &Job) -> Value {
    let known = |number: u64| Some(number).filter(|number| *number > 0);
    let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    json!({
        "job": known(job.number),
        "id": id(job),
        "uid": job.uid,
        "priority": priority_name(job.priority()),
        "pin": job.pin,
        "since": known(job.since),
        "state": state_name(job.state()),
        "size": known(job.size),
        "bytes": job.bytes,
        "files": known(job.files),
        "local_files": known(job.files).map(|_| job.local_files),
        "bytes_per_second": job.bytes_per_second,
        "peers": job.peers,
        "left_ms": job.left_ms,
        "unheld_chunks": job.unheld_chunks,
        "why": said(&job.why),
        "error": said(&job.error),
        "next_try_ms": job.next_try_ms,
        "tries": job.tries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState) -> Job {
        let (id, priority) = ("ab".to_owned(), JobPriority::Normal.into());
        Job { number: 3, id, priority, state: state.into(), size: 1000, bytes: 437, ..Job::default() }
    }

    #[test]
    fn a_job_stands_in_words_that_people_understand() {
        let fetching =
            Job { bytes_per_second: 81 << 20, peers: 7, left_ms: Some(12_345), ..job(JobState::Fetching) };
        let lacking = Job { unheld_chunks: 3, ..job(JobState::Fetching) };
        let (why, next_try_ms) = ("no holder of 3 chunks".to_owned(), Some(40_000));
        let waiting = Job { why, next_try_ms, ..job(JobState::Waiting) };
        for (job, expected) in [
            (job(JobState::Queued), "waits for its turn"),
            (job(JobState::Finding), "finding holders"),
            (fetching, "fetching 43 % at 81.0 MiB/s from 7 peers, 12 s left"),
            (lacking, "fetching 43 %: no holder of 3 chunks"),
            (waiting, "waiting: no holder of 3 chunks; next try in 40 s"),
            (job(JobState::Done), "done, 1000 B"),
            (job(JobState::Cancelled), "cancelled"),
        ] {
            assert_eq!(words(&job), expected);
        }
        let folder = |state| Job { directory: true, files: 9, local_files: 5, ..job(state) };
        let lacking = Job { unheld_chunks: 1, ..folder(JobState::Fetching) };
        assert_eq!(words(&lacking), "fetching 43 % (5 of 9 files): no holder of 1 file");
        assert_eq!(words(&folder(JobState::Done)), "done, 1000 B in 9 files");
        assert!(line(&folder(JobState::Done)).human.starts_with("3  dir:ab  done"));
        let high = Job { priority: JobPriority::High.into(), uid: u32::MAX, ..job(JobState::Finding) };
        assert_eq!(line(&high).human, "3  ab  finding holders (high) (of uid 4294967295)");
        assert_eq!(line(&high).bare, "3");
    }

    #[test]
    fn json_has_its_documented_keys() {
        let expected = json!({
            "job": 3, "id": "ab", "uid": 0, "priority": "normal", "pin": false, "since": null, "state": "queued",
            "size": 1000, "bytes": 437, "files": null, "local_files": null, "bytes_per_second": 0, "peers": 0,
            "left_ms": null, "unheld_chunks": 0,
            "why": null, "error": null, "next_try_ms": null, "tries": 0,
        });
        assert_eq!(json(&job(JobState::Queued)), expected);
    }

    #[test]
    fn only_what_changed_is_told_of_a_job_that_is_watched() {
        let waiting = |next: u64| Job { next_try_ms: Some(next), ..job(JobState::Waiting) };
        assert!(!differs(&waiting(5000), &waiting(4500)));
        assert!(differs(&waiting(5000), &job(JobState::Finding)));
        assert!(differs(&job(JobState::Fetching), &Job { bytes: 500, ..job(JobState::Fetching) }));
    }
}
