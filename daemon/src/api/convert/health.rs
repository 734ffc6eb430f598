//! What is found of the store's health, as messages.

use casd_proto::v1;

use crate::node::{Broken, Check, Level, ScrubStatus, Tally, VerifyEvent};

/// Damaged objects that a status names; `casctl verify` names more.
const STATUS_DAMAGED: usize = 64;

/// What proving came to.
fn tally(tally: Tally) -> v1::VerifyTally {
    let Tally { bytes, records, bad, repaired, unrepairable } = tally;
    v1::VerifyTally { bytes, records, bad, repaired, unrepairable }
}

/// An object that lacks something.
fn broken(broken: Broken) -> v1::DamagedObject {
    v1::DamagedObject {
        id: broken.id.to_string(),
        name: broken.name.unwrap_or_default(),
        records: broken.records,
    }
}

/// What whoever verifies is told.
pub(in crate::api) fn verified(event: VerifyEvent) -> v1::VerifyResponse {
    use v1::verify_response::Event as Message;
    let message = match event {
        VerifyEvent::Progress(done, total_bytes) => {
            Message::Progress(v1::VerifyProgress { tally: Some(tally(done)), total_bytes })
        }
        VerifyEvent::Broken(object) => Message::Damaged(broken(object)),
        VerifyEvent::Finished(done, unnamed) => {
            Message::Finished(v1::VerifyFinished { tally: Some(tally(done)), unnamed })
        }
    };
    v1::VerifyResponse { event: Some(message) }
}

/// Where proving in the background stands.
pub(in crate::api) fn scrub(status: &ScrubStatus) -> v1::ScrubStatus {
    let named = status.broken.len().min(STATUS_DAMAGED);
    v1::ScrubStatus {
        every_s: status.every.as_secs(),
        paused: status.paused,
        last_end: status.last.map_or(0, |(at, _)| at),
        last: status.last.map(|(_, done)| tally(done)),
        begun: status.now.map_or(0, |(at, _)| at),
        now: status.now.map(|(_, done)| tally(done)),
        total_bytes: status.total,
        damaged: status.broken.iter().take(named).cloned().map(broken).collect(),
        unnamed: status.unnamed + (status.broken.len() - named) as u64,
    }
}

/// Something that was looked at.
pub(in crate::api) fn check(check: Check) -> v1::Check {
    let level = match check.level {
        Level::Ok => v1::CheckLevel::Ok,
        Level::Warn => v1::CheckLevel::Warn,
        Level::Fail => v1::CheckLevel::Fail,
    };
    v1::Check {
        name: check.name.to_owned(),
        level: level.into(),
        what: check.what,
        advice: check.advice,
        numbers: check.numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
    }
}
