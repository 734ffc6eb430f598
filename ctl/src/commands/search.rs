//! `casctl search` and `casctl ls --network`: names, and whose word they are.

use std::time::SystemTime;

use casd_proto::Reason;
use casd_proto::v1::{
    Asked, CutShort, FoundObject, FoundSource, SearchRequest, StatusRequest, StatusResponse,
};
use serde_json::json;

use super::Session;
use super::status::alone;
use crate::args::Search;
use crate::error::{Exit, Failure};
use crate::object::{kind_name, named};
use crate::output::Line;
use crate::output::text::{count, escaped, size, span};

/// Searches; see [`Search`].
pub(super) async fn run(session: &Session, args: Search) -> Result<Exit, Failure> {
    let Search { text, limit } = args;
    ask(session, SearchRequest { text, limit, ..SearchRequest::default() }).await
}

/// Lists everything that has a name, or what one peer publishes.
pub(super) async fn list(session: &Session, peer: Option<String>, limit: u32) -> Result<Exit, Failure> {
    ask(session, SearchRequest { peer: peer.unwrap_or_default(), limit, ..SearchRequest::default() }).await
}

async fn ask(session: &Session, request: SearchRequest) -> Result<Exit, Failure> {
    let mut found = session.network().search(request).await?.into_inner();
    let (mut any, mut more, mut asked) = (false, false, None);
    while let Some(page) = found.message().await? {
        // What is cut short is there, and is told by itself.
        more |= page.more && page.cut.is_empty();
        page.cut.iter().for_each(|cut| session.output.note(&cut_short(cut)));
        let lines: Vec<Line> = page.objects.iter().map(|found| line(found, unix_now())).collect();
        any |= !lines.is_empty();
        asked = page.asked.or(asked);
        session.output.results(&lines)?;
    }
    if more {
        session.output.note("there is more: search for more of the name, or raise --limit");
    }
    // An older daemon does not say.
    let Some(asked) = asked else { return Ok(Exit::Done) };
    if !any && asked.answered == 0 {
        let status = session.node().status(StatusRequest {}).await;
        return Err(unasked(asked, status.ok().as_ref().map(tonic::Response::get_ref)));
    }
    if !any {
        session.output.note("nothing is found");
    }
    session.output.aside(&asked_line(asked));
    Ok(Exit::Done)
}

/// Nothing is found, and nobody has said that there is nothing; `node`: how this one stands, where that is known.
fn unasked(asked: Asked, node: Option<&StatusResponse>) -> Failure {
    if let Some(node) = node.filter(|node| asked.known == 0 && node.configured_peers > 0) {
        let message = format!("nothing is found here, and nobody can be asked: {}", alone(node));
        return Failure::known(Reason::NoPeers, message);
    }
    if asked.known == 0 {
        return Failure::known(Reason::NoPeers, "nothing is found here, and no other node is known to ask")
            .hint("add one with `casctl connect ADDR`, or network.bootstrap");
    }
    let message = format!("nothing is found here, and nobody answered: {}", in_words(asked));
    Failure::known(Reason::NoPeers, message).hint("try again later, or `casctl connect ADDR` to another node")
}

fn in_words(Asked { known, asked, answered }: Asked) -> String {
    let nodes = count(known.into(), "node");
    let of = if asked == known { nodes } else { format!("{asked} of {nodes}") };
    let answered = if answered == 0 { "none".to_owned() } else { answered.to_string() };
    format!("asked {of}, {answered} answered")
}

/// How many were asked.
fn asked_line(asked: Asked) -> Line {
    let human = match asked.known {
        0 => "no other node is known, so none was asked".to_owned(),
        _ => in_words(asked),
    };
    let Asked { known, asked, answered } = asked;
    Line { human, bare: String::new(), json: json!({ "known": known, "asked": asked, "answered": answered }) }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn cut_short(CutShort { peer_id, why }: &CutShort) -> String {
    let (peer, why) = (escaped(peer_id), escaped(why));
    format!(
        "the end of what {peer} publishes is missing: {why}; `casctl ls --network --peer {peer}` asks it alone"
    )
}

/// A line of what is found, at a time in Unix seconds.
fn line(found: &FoundObject, now: u64) -> Line {
    let said = found.description.clone().unwrap_or_default();
    let id = named(said.kind(), &said.id);
    let (source, word) = match found.source() {
        FoundSource::Local => ("local", "here".to_owned()),
        FoundSource::Kept => {
            let age = span(now.saturating_sub(said.time).saturating_mul(1_000));
            ("kept", format!("says {}, {age} ago", escaped(&said.publisher)))
        }
        FoundSource::Peer => ("peer", format!("publishes {}", escaped(&said.publisher))),
        FoundSource::Unspecified => ("unknown", escaped(&said.publisher)),
    };
    let name = escaped(&said.name);
    Line {
        human: format!("{id}  {:>10}  {name}  ({word})", size(said.size)),
        bare: id.clone(),
        json: json!({
            "id": id,
            "name": said.name,
            "kind": kind_name(said.kind()),
            "size": said.size,
            "parity": said.parity,
            "source": source,
            "publisher": (!said.publisher.is_empty()).then_some(&said.publisher),
            "time": (said.time > 0).then_some(said.time),
        }),
    }
}

#[cfg(test)]
mod tests {
    use casd_proto::v1::{Description, ObjectKind};

    use super::*;

    fn found(source: FoundSource, publisher: &str) -> FoundObject {
        let said = Description {
            id: "ab".into(),
            name: "x\u{1b}[2J".into(),
            kind: ObjectKind::File.into(),
            size: 5,
            parity: "none".into(),
            publisher: publisher.into(),
            time: 7,
            told_by: 0,
        };
        FoundObject { description: Some(said), source: source.into() }
    }

    #[test]
    fn a_list_that_is_cut_short_is_told_of_in_text_that_drives_no_terminal() {
        let cut = CutShort { peer_id: "12D3".into(), why: "a\u{1b}[2Jb".into() };
        let told = cut_short(&cut);
        assert!(told.starts_with("the end of what 12D3 publishes is missing: a\\u{1b}[2Jb; "), "{told}");
    }

    #[test]
    fn how_many_were_asked_is_told_and_that_nobody_was_is_a_failure() {
        let asked = |known, asked, answered| Asked { known, asked, answered };
        assert_eq!(asked_line(asked(5, 3, 2)).human, "asked 3 of 5 nodes, 2 answered");
        assert_eq!(asked_line(asked(1, 1, 0)).human, "asked 1 node, none answered");
        assert_eq!(asked_line(asked(0, 0, 0)).human, "no other node is known, so none was asked");
        assert_eq!(asked_line(asked(5, 3, 2)).json, json!({ "known": 5, "asked": 3, "answered": 2 }));
        for (asked, word) in
            [(asked(0, 0, 0), "no other node"), (asked(5, 5, 0), "asked 5 nodes, none answered")]
        {
            let failure = unasked(asked, None);
            assert!(failure.exit == Exit::NotFound && failure.to_string().contains(word), "{failure}");
        }
        let node = StatusResponse { configured_peers: 1, ..StatusResponse::default() };
        let down = unasked(asked(0, 0, 0), Some(&node)).to_string();
        assert!(
            down.contains("1 node in the configuration") && !down.contains("network.bootstrap"),
            "{down}"
        );
    }

    #[test]
    fn json_has_its_documented_keys_and_lines_say_whose_word_it_is() {
        let shown = |source, publisher| line(&found(source, publisher), 7 + 3 * 3_600);
        let expected = json!({
            "id": "ab", "name": "x\u{1b}[2J", "kind": "file", "size": 5, "parity": "none", "source": "kept",
            "publisher": "12D3", "time": 7,
        });
        assert_eq!(shown(FoundSource::Kept, "12D3").json, expected);
        let human = shown(FoundSource::Kept, "12D3").human;
        assert_eq!(human, "ab         5 B  x\\u{1b}[2J  (says 12D3, 3 h 0 min ago)");
        assert!(shown(FoundSource::Peer, "12D3").human.ends_with("(publishes 12D3)"));
        let local = shown(FoundSource::Local, "");
        assert!(local.human.ends_with("(here)") && local.json["publisher"].is_null());
    }
}
