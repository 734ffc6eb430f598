//! `casctl announce`: how far others have been told of what is held here.

use casd_proto::v1::{AnnounceStatusRequest, AnnounceStatusResponse};
use serde_json::json;

use super::Session;
use crate::error::{Exit, Failure};
use crate::output::Line;

/// Asks once.
pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let status = session.network().announce_status(AnnounceStatusRequest {}).await?.into_inner();
    if status.queued > 0 && status.receivers == 0 {
        session.output.note("nobody to tell; `casctl peers` lists who is connected");
    }
    session.output.results(&[line(&status)])?;
    Ok(Exit::Done)
}

fn line(status: &AnnounceStatusResponse) -> Line {
    let AnnounceStatusResponse { keys, queued, done, overdue, rate, receivers, .. } = status;
    let AnnounceStatusResponse { messages, look_ups, refused, audited, found, .. } = status;
    let checked = match audited {
        0 => "none looked up yet".to_owned(),
        _ => format!("{found} of {audited} found when looked up"),
    };
    let rows = [
        ("keys", format!("{done} of {keys} announced, {queued} waiting, {overdue} overdue")),
        ("now", format!("{rate:.0} keys/s, to {receivers} nodes in the last round")),
        ("so far", format!("{messages} messages, {look_ups} look-ups, {refused} refusals")),
        ("checked", checked),
    ];
    let human: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<9}{value}")).collect();
    Line {
        human: human.join("\n"),
        bare: queued.to_string(),
        json: json!({
            "keys": keys,
            "queued": queued,
            "done": done,
            "overdue": overdue,
            "rate": rate,
            "receivers": receivers,
            "messages": messages,
            "look_ups": look_ups,
            "refused": refused,
            "audited": audited,
            "found": found,
        }),
    }
}
