//! `casctl ls`: lists what is stored.

use casd_proto::v1::{ListRequest, ListedObject};
use serde_json::json;

use super::Session;
use crate::args::Ls;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::{escaped, size};

/// Lists; see [`Ls`].
pub(super) async fn run(session: &Session, args: Ls) -> Result<Exit, Failure> {
    let request = ListRequest { object: args.object.unwrap_or_default(), parts: false };
    let mut pages = session.objects().list(request).await?.into_inner();
    while let Some(page) = pages.message().await? {
        let lines: Vec<Line> = page.objects.iter().map(line).collect();
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
    let human = format!("{}  {:>10}  {state:7}  {}", object.id, size(object.size), escaped(&object.name));
    Line {
        human: human.trim_end().to_owned(),
        bare: object.id.clone(),
        json: json!({
            "id": object.id,
            "name": (!object.name.is_empty()).then_some(&object.name),
            "size": object.size,
            "pinned": object.pinned,
            "complete": object.complete,
            "used": object.used,
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
            used: Some(7),
            ..Default::default()
        };
        assert_eq!(line(&object).human, "ab         5 B  pinned   x\\u{1b}");
        let expected =
            json!({ "id": "ab", "name": "x\u{1b}", "size": 5, "pinned": true, "complete": true, "used": 7 });
        assert_eq!(line(&object).json, expected);
        object.name.clear();
        assert!(line(&object).json["name"].is_null());
    }
}
