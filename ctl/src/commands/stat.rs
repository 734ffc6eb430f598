//! `casctl stat`: describes an object, or with `--chunks` lists its chunks.

use casd_proto::Reason;
use casd_proto::v1::{ChunksRequest, Description, ListedChunk, StatRequest, StatResponse};
use serde_json::json;
use tonic::Status;

use super::Session;
use crate::args::Stat;
use crate::error::{Exit, Failure};
use crate::object::{kind_name, named, whole_id};
use crate::output::Line;
use crate::output::text::{count, escaped, size};

/// Describes; see [`Stat`].
pub(super) async fn run(session: &Session, args: Stat) -> Result<Exit, Failure> {
    if args.chunks {
        return chunks(session, args.object).await;
    }
    let failed = |status: Status| elsewhere(status.into(), &args.object);
    let asked = session.objects().stat(StatRequest { object: args.object.clone() }).await;
    let object = asked.map_err(failed)?.into_inner();
    if object.claimed {
        session.output.note("nothing of it is here; this is what others say, and nothing of it is proved");
    }
    session.output.result(&if object.claimed { claimed(&object) } else { line(&object) })?;
    Ok(Exit::Done)
}

/// Names are looked up in the store only; what is not called so here may be elsewhere.
fn elsewhere(failure: Failure, object: &str) -> Failure {
    let is_digits = object.bytes().all(|b| b.is_ascii_hexdigit());
    let is_name = whole_id(object).is_err() && !is_digits && !object.contains('/');
    if is_name && failure.is(Reason::NotFound) && failure.words().1.is_empty() {
        return failure.hint(format!("`casctl search` finds what others publish: casctl search {object:?}"));
    }
    failure
}

async fn chunks(session: &Session, object: String) -> Result<Exit, Failure> {
    let mut pages = session.objects().chunks(ChunksRequest { object }).await?.into_inner();
    while let Some(page) = pages.message().await? {
        let lines: Vec<Line> = page.chunks.iter().map(chunk_line).collect();
        session.output.results(&lines)?;
    }
    Ok(Exit::Done)
}

fn line(object: &StatResponse) -> Line {
    let id = named(object.kind(), &object.id);
    let pinned = match (object.pinned_by_caller, object.pinned) {
        (true, _) => "by you",
        (false, true) => "by others",
        (false, false) => "no",
    };
    let rows = [
        ("id", id.clone()),
        ("name", escaped(&object.name)),
        ("kind", kind_name(object.kind()).to_owned()),
        ("size", format!("{} ({} bytes)", size(object.size), object.size)),
        ("chunks", format!("{} of {} here", object.local_chunks, object.chunks)),
        ("parity", parity(object)),
        ("pinned", pinned.to_owned()),
        ("private", if object.private { "yes" } else { "no" }.to_owned()),
        ("published", if object.published { "yes" } else { "no" }.to_owned()),
    ];
    Line {
        human: table(&rows),
        bare: id.clone(),
        json: json!({
            "id": id,
            "name": (!object.name.is_empty()).then_some(&object.name),
            "kind": kind_name(object.kind()),
            "size": object.size,
            "chunks": object.chunks,
            "parity": object.parity,
            "parity_chunks": object.parity_chunks,
            "local_chunks": object.local_chunks,
            "local_parity_chunks": object.local_parity_chunks,
            "pinned": object.pinned,
            "pinned_by_caller": object.pinned_by_caller,
            "private": object.private,
            "published": object.published,
            "claimed": false,
            "used": object.used,
        }),
    }
}

fn table(rows: &[(&str, String)]) -> String {
    let rows: Vec<String> = rows.iter().map(|(key, value)| format!("{key:9} {value}")).collect();
    rows.join("\n")
}

/// What others say of an object that is not here: a block for each publisher. For programs it stands beside the id
/// where one says it; between what several say nobody has chosen.
fn claimed(object: &StatResponse) -> Line {
    let one = match object.descriptions.as_slice() {
        [one] => Some(one),
        _ => None,
    };
    let id = named(object.kind(), &object.id);
    let block = |said: &Description| {
        table(&[
            ("id", named(said.kind(), &said.id)),
            ("name", escaped(&said.name)),
            ("kind", kind_name(said.kind()).to_owned()),
            ("size", format!("{} ({} bytes)", size(said.size), said.size)),
            ("parity", escaped(&said.parity)),
            ("said by", format!("{}, as {} told", escaped(&said.publisher), tellers(said.told_by))),
        ])
    };
    let blocks: Vec<String> = object.descriptions.iter().map(block).collect();
    let said = |said: &Description| {
        json!({
            "publisher": said.publisher,
            "name": said.name,
            "kind": kind_name(said.kind()),
            "size": said.size,
            "parity": said.parity,
            "time": said.time,
            "told_by": said.told_by,
        })
    };
    Line {
        human: blocks.join("\n\n"),
        bare: id.clone(),
        json: json!({
            "id": id,
            "name": one.map(|said| &said.name),
            "kind": one.map(|said| kind_name(said.kind())),
            "size": one.map(|said| said.size),
            "chunks": one.map(|_| object.chunks),
            "parity": one.map(|said| &said.parity),
            "local_chunks": 0,
            "pinned": false,
            "claimed": true,
            "publisher": one.map(|said| &said.publisher),
            "descriptions": object.descriptions.iter().map(said).collect::<Vec<_>>(),
        }),
    }
}

fn parity(object: &StatResponse) -> String {
    let name = escaped(&object.parity);
    match object.parity_chunks {
        0 => name,
        chunks => format!("{name}, {} of {chunks} chunks here", object.local_parity_chunks),
    }
}

fn chunk_line(chunk: &ListedChunk) -> Line {
    let kind = if chunk.parity { "parity" } else { "data" };
    let place = match (chunk.zero, chunk.local) {
        (true, _) => "zeros",
        (false, true) => "here",
        (false, false) => "missing",
    };
    Line {
        human: format!(
            "{:>8}  {kind:6}  {:>10}  {place:7}  {}",
            chunk.index,
            size(chunk.size.into()),
            chunk.id
        ),
        bare: chunk.id.clone(),
        json: json!({
            "index": chunk.index,
            "id": chunk.id,
            "size": chunk.size,
            "parity": chunk.parity,
            "local": chunk.local,
            "zero": chunk.zero,
        }),
    }
}

/// Who told of what somebody says: so many nodes that were asked.
fn tellers(told_by: u32) -> String {
    if told_by == 0 { "this node was".to_owned() } else { count(told_by.into(), "node") }
}

#[cfg(test)]
mod tests {
    use casd_proto::v1::ObjectKind;

    use super::*;

    #[test]
    fn json_has_its_documented_keys() {
        let mut object = StatResponse {
            id: "ab".into(),
            name: "n".into(),
            kind: ObjectKind::File.into(),
            size: 3 << 20,
            chunks: 3,
            parity: "16+4".into(),
            parity_chunks: 1,
            local_chunks: 2,
            local_parity_chunks: 1,
            pinned: true,
            pinned_by_caller: false,
            private: false,
            ..StatResponse::default()
        };
        let plain = line(&object);
        for (key, value) in [
            ("id", json!("ab")),
            ("kind", json!("file")),
            ("size", json!(3 << 20)),
            ("chunks", json!(3)),
            ("parity", json!("16+4")),
            ("local_chunks", json!(2)),
            ("pinned", json!(true)),
        ] {
            assert_eq!(plain.json[key], value, "{key}");
        }
        assert!(
            plain
                .human
                .contains("chunks    2 of 3 here\nparity    16+4, 1 of 1 chunks here\npinned    by others")
        );
        object.kind = ObjectKind::Directory.into();
        let line = line(&object);
        assert_eq!((&line.json["id"], &line.json["kind"]), (&json!("dir:ab"), &json!("directory")));
    }

    #[test]
    fn what_others_say_is_told_as_their_word() {
        let said = |publisher: &str, name: &str, told_by| Description {
            id: "ab".into(),
            name: name.into(),
            kind: ObjectKind::File.into(),
            size: 9,
            parity: "16+4".into(),
            publisher: publisher.into(),
            time: 7,
            told_by,
        };
        let object = StatResponse {
            id: "ab".into(),
            name: "one".into(),
            kind: ObjectKind::File.into(),
            size: 9,
            claimed: true,
            descriptions: vec![said("12D3", "one\u{1b}", 3), said("12D4", "two", 1)],
            ..StatResponse::default()
        };
        let alone = StatResponse { descriptions: object.descriptions[..1].to_vec(), ..object.clone() };
        let json = claimed(&alone).json;
        assert_eq!((&json["publisher"], &json["size"]), (&json!("12D3"), &json!(9)));
        let line = claimed(&object);
        for key in ["name", "kind", "size", "chunks", "parity", "publisher"] {
            assert!(line.json[key].is_null(), "{key} is the word of one of two");
        }
        assert!(line.human.contains("name      one\\u{1b}\n"), "{}", line.human);
        assert_eq!(tellers(0), "this node was");
        assert!(line.human.contains("said by   12D3, as 3 nodes told\n\nid        ab"), "{}", line.human);
        assert_eq!((&line.json["claimed"], &line.json["id"]), (&json!(true), &json!("ab")));
        let second = json!({
            "publisher": "12D4", "name": "two", "kind": "file", "size": 9, "parity": "16+4", "time": 7, "told_by": 1,
        });
        assert_eq!(line.json["descriptions"][1], second);
    }

    #[test]
    fn a_name_that_is_not_here_may_be_searched_for_elsewhere() {
        let failed = |object: &str, hint: &str| {
            elsewhere(Failure::from(Reason::NotFound.status("nothing", hint)), object).to_string()
        };
        assert!(failed("a film", "").ends_with("casctl search \"a film\""), "{}", failed("a film", ""));
        assert_eq!(failed("a film", "do that"), "casctl: nothing\n  do that");
        for object in ["ab".repeat(4), "ab".repeat(32), format!("dir:{}", "ab".repeat(32)), "a/b".to_owned()]
        {
            assert_eq!(failed(&object, ""), "casctl: nothing");
        }
    }

    #[test]
    fn a_chunks_json_has_its_documented_keys() {
        let chunk =
            ListedChunk { index: 2, id: "cd".into(), size: 7, parity: true, local: false, zero: false };
        let expected = json!({
            "index": 2, "id": "cd", "size": 7, "parity": true, "local": false, "zero": false,
        });
        assert_eq!(chunk_line(&chunk).json, expected);
    }
}
