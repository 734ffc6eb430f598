//! `casctl publish`: lets the name of an object out, or takes it back.

use casd_proto::Reason;
use casd_proto::v1::{PublishRequest, PublishResponse};
use serde_json::json;

use super::Session;
use crate::args::Publish;
use crate::error::{Exit, Failure};
use crate::object::{kind_name, named};
use crate::output::Line;
use crate::output::text::{count, escaped};

/// Publishes; see [`Publish`].
pub(super) async fn run(session: &Session, args: Publish) -> Result<Exit, Failure> {
    let Publish { object, name, withdraw } = args;
    // To the daemon no bytes say that none was given.
    if name.as_deref() == Some("") {
        let message = "it cannot be published under this name: a name is empty";
        return Err(Failure::known(Reason::InvalidName, message));
    }
    let request = PublishRequest { id: object, name: name.unwrap_or_default(), withdraw };
    let published = session.objects().publish(request).await?.into_inner();
    if withdraw && !published.changed {
        let id = named(published.kind(), &published.id);
        let message = format!("{id} was not published, so there is nothing to take back");
        return Err(Failure::local(Exit::Failed, "NOT_PUBLISHED", message));
    }
    session.output.note(&told(&published, withdraw));
    session.output.result(&line(&published, !withdraw))?;
    Ok(Exit::Done)
}

/// Who has heard, in words.
fn told(object: &PublishResponse, withdraw: bool) -> String {
    let again = if withdraw || object.changed { "" } else { "it was published already; " };
    match object.told {
        Some(nodes) => format!("{again}{} told", count(nodes.into(), "node")),
        None => format!("{again}other nodes will be told"),
    }
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
            "told": object.told,
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
        let mut object =
            PublishResponse { id: "ab".into(), name: "x\u{1b}".into(), kind, changed: true, told: Some(3) };
        let line = line(&object, true);
        let expected = json!({
            "id": "dir:ab", "name": "x\u{1b}", "kind": "directory", "published": true, "changed": true, "told": 3,
        });
        assert_eq!((line.json, line.human.as_str()), (expected, "dir:ab  published as x\\u{1b}"));
        assert_eq!(told(&object, false), "3 nodes told");
        (object.changed, object.told) = (false, None);
        assert_eq!(told(&object, false), "it was published already; other nodes will be told");
    }
}
