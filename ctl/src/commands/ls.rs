//! `casctl ls`: lists what is stored, or what is in a directory.

use casd_proto::v1::{EntryKind, ListRequest, ListTreeRequest, ListedEntry, ListedObject, ObjectKind};
use serde_json::json;

use super::{Session, search};
use crate::args::Ls;
use crate::error::{Exit, Failure};
use crate::object::{directory, kind_name, named};
use crate::output::Line;
use crate::output::text::{escaped, size};

/// Lists; see [`Ls`].
pub(super) async fn run(session: &Session, args: Ls) -> Result<Exit, Failure> {
    if args.network {
        return search::list(session, args.peer, args.limit).await;
    }
    let asked = args.object.is_some();
    let object = match args.object {
        Some(object) if object.is_directory => return entries(session, object.text).await,
        object => object.map(|object| object.text).unwrap_or_default(),
    };
    let request = ListRequest { object, parts: args.parts };
    let mut pages = session.objects().list(request).await?.into_inner();
    while let Some(page) = pages.message().await? {
        if let ([object], true) = (page.objects.as_slice(), asked)
            && object.kind() == ObjectKind::Directory
        {
            return entries(session, directory(&object.id)).await;
        }
        let lines: Vec<Line> = page.objects.iter().map(line).collect();
        session.output.results(&lines)?;
    }
    Ok(Exit::Done)
}

/// Lists what is in a directory.
async fn entries(session: &Session, object: String) -> Result<Exit, Failure> {
    let mut pages = session.trees().list(ListTreeRequest { object }).await?.into_inner();
    while let Some(page) = pages.message().await? {
        let lines: Vec<Line> = page.entries.iter().map(entry_line).collect();
        session.output.results(&lines)?;
    }
    Ok(Exit::Done)
}

fn line(object: &ListedObject) -> Line {
    let state = match (object.pinned, object.complete) {
        (_, false) => "partial",
        (true, true) => "pinned",
        (false, true) => "cached",
    };
    let id = named(object.kind(), &object.id);
    let mark = if object.published { "  (published)" } else { "" };
    let human = format!("{id}  {:>10}  {state:7}  {}{mark}", size(object.size), escaped(&object.name));
    Line {
        human: human.trim_end().to_owned(),
        bare: id.clone(),
        json: json!({
            "id": id,
            "name": (!object.name.is_empty()).then_some(&object.name),
            "kind": kind_name(object.kind()),
            "size": object.size,
            "pinned": object.pinned,
            "complete": object.complete,
            "used": object.used,
            "published": object.published,
        }),
    }
}

fn entry_line(entry: &ListedEntry) -> Line {
    let (short, kind) = match entry.kind() {
        EntryKind::File | EntryKind::Executable => ("-", "file"),
        EntryKind::Directory => ("d", "directory"),
        EntryKind::Link => ("l", "link"),
        EntryKind::Unspecified => ("?", "unknown"),
    };
    let is_link = entry.kind() == EntryKind::Link;
    let executable = entry.kind() == EntryKind::Executable;
    let id = if entry.kind() == EntryKind::Directory { directory(&entry.id) } else { entry.id.clone() };
    let mut human = format!(
        "{short}{}  {:>10}  {id:68}  {}",
        if executable { "x" } else { "-" },
        if is_link { String::new() } else { size(entry.size) },
        escaped(&entry.name)
    );
    if is_link {
        human.push_str(&format!(" -> {}", escaped(&entry.target)));
    }
    Line {
        human,
        bare: id.clone(),
        json: json!({
            "name": entry.name,
            "kind": kind,
            "executable": executable,
            "size": (!is_link).then_some(entry.size),
            "id": (!id.is_empty()).then_some(id),
            "target": is_link.then_some(&entry.target),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_its_documented_keys() {
        let (id, name) = ("ab".into(), "x\u{1b}".into());
        let mut object = ListedObject {
            id,
            name,
            size: 5,
            pinned: true,
            complete: true,
            kind: ObjectKind::File.into(),
            used: Some(7),
            published: false,
        };
        assert_eq!(line(&object).human, "ab         5 B  pinned   x\\u{1b}");
        let expected = json!({
            "id": "ab", "name": "x\u{1b}", "kind": "file", "size": 5, "pinned": true, "complete": true, "used": 7,
            "published": false,
        });
        assert_eq!(line(&object).json, expected);
        object.published = true;
        assert!(
            line(&object).human.ends_with("x\\u{1b}  (published)") && line(&object).json["published"] == true
        );
        object.name.clear();
        object.kind = ObjectKind::Directory.into();
        assert!(line(&object).json["name"].is_null());
        assert_eq!(
            (line(&object).bare.as_str(), &line(&object).json["kind"]),
            ("dir:ab", &json!("directory"))
        );
    }

    #[test]
    fn an_entrys_json_has_its_documented_keys() {
        let entry = |kind: EntryKind, id: &str, target: &str| ListedEntry {
            name: "n\n".into(),
            kind: kind.into(),
            id: id.into(),
            size: 5,
            target: target.into(),
        };
        let file = entry_line(&entry(EntryKind::Executable, "ab", ""));
        assert_eq!(file.human, format!("-x         5 B  {:68}  n\\n", "ab"));
        let expected = json!({
            "name": "n\n", "kind": "file", "executable": true, "size": 5, "id": "ab", "target": null,
        });
        assert_eq!(file.json, expected);
        let folder = entry_line(&entry(EntryKind::Directory, "ab", ""));
        assert_eq!((folder.bare.as_str(), &folder.json["id"]), ("dir:ab", &json!("dir:ab")));
        assert!(folder.human.starts_with("d-  "), "{}", folder.human);
        let link = entry_line(&entry(EntryKind::Link, "", "../\u{1b}[2J"));
        assert!(link.human.ends_with("n\\n -> ../\\u{1b}[2J") && link.bare.is_empty(), "{}", link.human);
        assert_eq!((&link.json["id"], &link.json["target"]), (&json!(null), &json!("../\u{1b}[2J")));
    }
}
