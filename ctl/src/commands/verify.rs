//! `casctl verify`: proves that what is stored is what it was, and has mended what is not.

use casd_proto::v1::verify_response::Event;
use casd_proto::v1::{
    DamagedObject, ScrubStatus, SetScrubRequest, VerifyFinished, VerifyRequest, VerifyTally,
};
use serde_json::{Value, json};

use super::Session;
use crate::args::Verify;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::progress::Progress;
use crate::output::text::{count, escaped, size, span};

/// Verifies; see [`Verify`].
pub(super) async fn run(session: &Session, args: Verify) -> Result<Exit, Failure> {
    if args.pause || args.resume {
        return set(session, args.pause).await;
    }
    let request = VerifyRequest { object: args.object.unwrap_or_default() };
    let mut events = session.node().verify(request).await?.into_inner();
    let mut progress: Option<Progress> = None;
    let (mut done, mut named) = (0, 0);
    while let Some(message) = events.message().await? {
        match message.event {
            Some(Event::Progress(far)) => {
                let tally = far.tally.unwrap_or_default();
                let total = far.total_bytes.max(tally.bytes);
                let bar = progress.get_or_insert_with(|| Progress::new(session.output, Some(total)));
                bar.add(tally.bytes.saturating_sub(done));
                done = done.max(tally.bytes);
                if tally.bad > 0 {
                    bar.say(format!("{} bad", tally.bad));
                }
            }
            Some(Event::Damaged(object)) => {
                drop(progress.take());
                named += 1;
                session.output.result(&damaged(&object))?;
            }
            Some(Event::Finished(finished)) => {
                drop(progress.take());
                session.output.result(&summary(&finished, named))?;
                let is_good = finished.tally.unwrap_or_default().unrepairable == 0;
                return Ok(if is_good { Exit::Done } else { Exit::Damage });
            }
            None => {}
        }
    }
    Err(Failure::local(Exit::Failed, "CONNECTION_LOST", "the daemon ended before everything was verified"))
}

async fn set(session: &Session, paused: bool) -> Result<Exit, Failure> {
    let status = session.node().set_scrub(SetScrubRequest { paused }).await?.into_inner();
    let status = status.scrub.unwrap_or_default();
    session.output.result(&Line {
        human: format!("scrub: {}", words(&status)),
        bare: String::new(),
        json: json!({ "scrub": scrub(&status) }),
    })?;
    Ok(Exit::Done)
}

fn damaged(object: &DamagedObject) -> Line {
    let name = if object.name.is_empty() { String::new() } else { format!("  {}", object.name) };
    Line {
        human: escaped(&format!("{}{name}: {} lost", object.id, count(object.records, "record"))),
        bare: escaped(&object.id),
        json: damaged_json(object),
    }
}

fn damaged_json(object: &DamagedObject) -> Value {
    json!({
        "id": object.id,
        "name": (!object.name.is_empty()).then_some(&object.name),
        "records": object.records,
    })
}

fn summary(finished: &VerifyFinished, named: u64) -> Line {
    let tally = finished.tally.unwrap_or_default();
    let objects = named + finished.unnamed;
    let mut human = format!("verified {}, {}: ", count(tally.records, "record"), size(tally.bytes));
    human.push_str(&outcome(&tally));
    if tally.unrepairable > 0 {
        human.push_str(&format!(
            ", in {}; add or fetch again what they were made from",
            count(objects, "object")
        ));
    }
    let mut json = tally_json(&tally);
    json["objects"] = json!(objects);
    Line { human, bare: String::new(), json }
}

fn outcome(tally: &VerifyTally) -> String {
    match tally.bad {
        0 => "all good".to_owned(),
        bad => format!("{bad} bad, {} repaired, {} lost", tally.repaired, tally.unrepairable),
    }
}

fn tally_json(tally: &VerifyTally) -> Value {
    json!({
        "bytes": tally.bytes,
        "records": tally.records,
        "bad": tally.bad,
        "repaired": tally.repaired,
        "unrepairable": tally.unrepairable,
    })
}

/// Where the scrub stands, for people.
pub(super) fn words(status: &ScrubStatus) -> String {
    let mut words = match (status.every_s, status.paused) {
        (0, _) => "never by itself".to_owned(),
        (_, true) => "paused".to_owned(),
        (every, false) => format!("every {}", span(every.saturating_mul(1000))),
    };
    if let Some(now) = &status.now {
        let share = now.bytes.saturating_mul(100) / status.total_bytes.max(1);
        words.push_str(&format!("; at {} %, {}", share.min(100), outcome(now)));
    }
    if let Some(last) = &status.last {
        words.push_str(&format!("; last: {}", outcome(last)));
    }
    let damaged = status.damaged.len() as u64 + status.unnamed;
    if damaged > 0 {
        words.push_str(&format!("; {} damaged", count(damaged, "object")));
    }
    words
}

/// Where the scrub stands, for programs.
pub(super) fn scrub(status: &ScrubStatus) -> Value {
    json!({
        "every_s": status.every_s,
        "paused": status.paused,
        "last_end": (status.last_end > 0).then_some(status.last_end),
        "last": status.last.as_ref().map(tally_json),
        "begun": (status.begun > 0).then_some(status.begun),
        "now": status.now.as_ref().map(tally_json),
        "total_bytes": status.total_bytes,
        "damaged": status.damaged.iter().map(damaged_json).collect::<Vec<_>>(),
        "unnamed": status.unnamed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_named_and_counted() {
        let tally = VerifyTally { bytes: 5 << 20, records: 9, bad: 4, repaired: 1, unrepairable: 3 };
        let finished = VerifyFinished { tally: Some(tally), unnamed: 1 };
        let line = summary(&finished, 2);
        assert!(line.human.contains("4 bad, 1 repaired, 3 lost, in 3 objects"), "{}", line.human);
        assert_eq!(line.json["objects"], 3);
        let object = DamagedObject { id: "ab".into(), name: "a\u{1b}b".into(), records: 1 };
        let line = damaged(&object);
        assert_eq!(line.bare, "ab");
        assert!(line.human.ends_with("1 record lost") && !line.human.contains('\u{1b}'), "{}", line.human);
        let good = VerifyFinished::default();
        assert!(summary(&good, 0).human.ends_with("all good"));
        let status = ScrubStatus { damaged: vec![object], last: Some(tally), ..ScrubStatus::default() };
        assert_eq!(words(&status), "never by itself; last: 4 bad, 1 repaired, 3 lost; 1 object damaged");
        assert_eq!(scrub(&status)["last"]["bad"], 4);
    }
}
