//! `casctl announce`: how far others have been told of what is held here.

use casd_proto::v1::{AnnounceStatusRequest, AnnounceStatusResponse, StatusRequest, StatusResponse};
use serde_json::json;

use super::Session;
use super::status::alone;
use crate::error::{Exit, Failure};
use crate::output::Line;

/// What is told of a daemon that only fetches.
const CLIENT: &str =
    "nothing is announced: the daemon is a client, which gives and announces nothing (network.mode)";

/// Asks once.
pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let announce = session.network().announce_status(AnnounceStatusRequest {}).await?.into_inner();
    if !announce.client && announce.queued > 0 && announce.receivers == 0 {
        let node = session.node().status(StatusRequest {}).await?.into_inner();
        session.output.note(&untold(&node));
    }
    if !announce.client && announce.keys == 0 {
        session.output.note("nothing is held here that is announced: see `casctl ls`, and network.announce");
    }
    session.output.results(&[line(&announce)])?;
    Ok(Exit::Done)
}

/// Why nobody has been told, and what to do.
fn untold(node: &StatusResponse) -> String {
    if node.alone {
        return format!("nobody to tell: {}", alone(node));
    }
    "nobody has been told of what waits: it is told as soon as a node is there that takes it; `casctl peers` lists who is \
     connected, and `casctl doctor` looks at the rest"
        .to_owned()
}

fn line(status: &AnnounceStatusResponse) -> Line {
    let AnnounceStatusResponse { keys, queued, done, overdue, rate, receivers, .. } = status;
    let AnnounceStatusResponse { messages, look_ups, refused, audited, found, client, .. } = status;
    let checked = match audited {
        0 => "none looked up yet".to_owned(),
        _ => format!("{found} of {audited} found when looked up"),
    };
    let rows = [
        ("keys", format!("{done} of {keys} announced, {queued} waiting, {overdue} overdue")),
        (
            "",
            "one for each object, and one for each chunk that is announced: those come a little later"
                .to_owned(),
        ),
        ("now", format!("{}, to {receivers} nodes in the last round", pace(*rate))),
        ("so far", format!("{messages} messages, {look_ups} look-ups, {refused} refusals")),
        ("checked", checked),
    ];
    let human: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<9}{value}")).collect();
    Line {
        human: if *client { CLIENT.to_owned() } else { human.join("\n") },
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
            "client": client,
        }),
    }
}

/// How many keys were announced lately, at `rate` a second over the last minute: of few there are less than one.
fn pace(rate: f64) -> String {
    if rate > 0.0 && rate < 1.0 {
        return format!("{:.0} keys in the last minute", (rate * 60.0).max(1.0));
    }
    format!("{rate:.0} keys/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_that_it_announces_nothing_and_others_what_a_key_is() {
        let told =
            AnnounceStatusResponse { keys: 12, done: 3, queued: 9, ..AnnounceStatusResponse::default() };
        let node = line(&told);
        assert!(
            node.human.starts_with("keys     3 of 12 announced, 9 waiting, 0 overdue\n"),
            "{}",
            node.human
        );
        assert!(node.human.contains("for each object, and one for each chunk"), "{}", node.human);
        assert_eq!((&node.json["keys"], &node.json["client"]), (&json!(12), &json!(false)));
        let client = line(&AnnounceStatusResponse { client: true, ..told });
        assert!(client.human.contains("is a client") && client.json["client"] == true, "{}", client.human);
    }

    #[test]
    fn a_few_keys_are_not_none() {
        assert_eq!([0.0, 0.05, 12.4].map(pace), ["0 keys/s", "3 keys in the last minute", "12 keys/s"]);
    }

    #[test]
    fn who_is_alone_is_told_how_to_find_others_and_who_is_not_where_to_look() {
        let node = StatusResponse { alone: true, ..StatusResponse::default() };
        assert!(untold(&node).contains("it knows nobody; `casctl connect ADDR`"), "{}", untold(&node));
        let among = untold(&StatusResponse { alone: false, ..node });
        assert!(among.contains("casctl peers") && among.contains("as soon as"), "{among}");
    }
}
