//! `casctl stat`: describes an object, or with `--chunks` lists its chunks.

use casd_proto::v1::{ChunksRequest, ListedChunk, StatRequest, StatResponse};
use serde_json::json;

use super::Session;
use crate::args::Stat;
use crate::error::{Exit, Failure};
use crate::object::{kind_name, named};
use crate::output::Line;
use crate::output::text::{escaped, size};

/// Describes; see [`Stat`].
pub(super) async fn run(session: &Session, args: Stat) -> Result<Exit, Failure> {
    if args.chunks {
        return chunks(session, args.object).await;
    }
    let object = session.objects().stat(StatRequest { object: args.object }).await?.into_inner();
    session.output.result(&line(&object))?;
    Ok(Exit::Done)
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
    ];
    let rows: Vec<String> = rows.iter().map(|(key, value)| format!("{key:8} {value}")).collect();
    Line {
        human: rows.join("\n"),
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
            "used": object.used,
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
            used: None,
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
                .contains("chunks   2 of 3 here\nparity   16+4, 1 of 1 chunks here\npinned   by others")
        );
        object.kind = ObjectKind::Directory.into();
        let line = line(&object);
        assert_eq!((&line.json["id"], &line.json["kind"]), (&json!("dir:ab"), &json!("directory")));
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
