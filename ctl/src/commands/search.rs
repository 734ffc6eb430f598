//! `casctl search` and `casctl ls --network`: names, and whose word they are.

use casd_proto::v1::{CutShort, FoundObject, FoundSource, SearchRequest};
use serde_json::json;

use super::Session;
use crate::args::Search;
use crate::error::{Exit, Failure};
use crate::object::{kind_name, named};
use crate::output::Line;
use crate::output::text::{escaped, size};

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
    let mut more = false;
    while let Some(page) = found.message().await? {
        // What is cut short is there, and is told by itself.
        more |= page.more && page.cut.is_empty();
        page.cut.iter().for_each(|cut| session.output.note(&cut_short(cut)));
        let lines: Vec<Line> = page.objects.iter().map(line).collect();
        session.output.results(&lines)?;
    }
    if more {
        session.output.note("there is more: search for more of the name, or raise --limit");
    }
    Ok(Exit::Done)
}

fn cut_short(CutShort { peer_id, why }: &CutShort) -> String {
    let (peer, why) = (escaped(peer_id), escaped(why));
    format!(
        "the end of what {peer} publishes is missing: {why}; `casctl ls --network --peer {peer}` asks it alone"
    )
}

fn line(found: &FoundObject) -> Line {
    let said = found.description.clone().unwrap_or_default();
    let id = named(said.kind(), &said.id);
    let (source, word) = match found.source() {
        FoundSource::Local => ("local", "here".to_owned()),
        FoundSource::Kept => ("kept", format!("says {}", escaped(&said.publisher))),
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
    fn json_has_its_documented_keys_and_lines_say_whose_word_it_is() {
        let shown = |source, publisher| line(&found(source, publisher));
        let expected = json!({
            "id": "ab", "name": "x\u{1b}[2J", "kind": "file", "size": 5, "parity": "none", "source": "kept",
            "publisher": "12D3", "time": 7,
        });
        assert_eq!(shown(FoundSource::Kept, "12D3").json, expected);
        let human = shown(FoundSource::Kept, "12D3").human;
        assert_eq!(human, "ab         5 B  x\\u{1b}[2J  (says 12D3)");
        assert!(shown(FoundSource::Peer, "12D3").human.ends_with("(publishes 12D3)"));
        let local = shown(FoundSource::Local, "");
        assert!(local.human.ends_with("(here)") && local.json["publisher"].is_null());
    }
}
