//! `casctl publish`: lets the name of an object out, or takes it back.

use casd_proto::v1::{PublishRequest, PublishResponse};
use serde_json::json;

use super::Session;
use crate::args::Publish;
use crate::error::{Exit, Failure};
use crate::object::{kind_name, named};
use crate::output::Line;
use crate::output::text::escaped;

/// Publishes; see [`Publish`].
pub(super) async fn run(session: &Session, args: Publish) -> Result<Exit, Failure> {
    let Publish { id, name, withdraw } = args;
    let request = PublishRequest { id: id.as_str().to_owned(), name: name.unwrap_or_default(), withdraw };
    let published = session.objects().publish(request).await?.into_inner();
    match (withdraw, published.changed) {
        (true, false) => session.output.note("it was not published"),
        (false, false) => session.output.note("it was published already"),
        _ => {}
    }
    session.output.result(&line(&published, !withdraw))?;
    Ok(Exit::Done)
}

fn line(object: &PublishResponse, is_published: bool) -> Line {
    let id = named(object.kind(), &object.id);
    let word = if is_published { "published as" } else { "no longer published:" };
    Line {
        human: format!("{id}  {word} {}", escaped(&object.name)),
        bare: id.clone(),
        json: json!({
            "id": id,
            "name": (!object.name.is_empty()).then_some(&object.name),
            "kind": kind_name(object.kind()),
            "published": is_published,
            "changed": object.changed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use casd_proto::v1::ObjectKind;

    use super::*;

    #[test]
    fn json_has_its_documented_keys() {
        let kind = ObjectKind::Directory.into();
        let object = PublishResponse { id: "ab".into(), name: "x\u{1b}".into(), kind, changed: true };
        let line = line(&object, true);
        let expected = json!({
            "id": "dir:ab", "name": "x\u{1b}", "kind": "directory", "published": true, "changed": true,
        });
        assert_eq!((line.json, line.human.as_str()), (expected, "dir:ab  published as x\\u{1b}"));
    }
}
