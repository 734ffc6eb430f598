//! `casctl unpin`: takes the promise to keep objects back.

use casd_proto::v1::UnpinRequest;
use futures::{StreamExt, stream};
use serde_json::json;

use super::Session;
use crate::args::Objects;
use crate::error::{Exit, Failure};
use crate::object::named;
use crate::output::Line;
use crate::output::text::escaped;

/// Unpins; see [`Objects`].
pub(super) async fn run(session: &Session, args: Objects) -> Result<Exit, Failure> {
    session.tell_each(stream::iter(args.objects).then(|object| unpin(session, object))).await
}

async fn unpin(session: &Session, object: String) -> Result<Line, Failure> {
    let request = UnpinRequest { object: object.clone() };
    let unpinned =
        session.objects().unpin(request).await.map_err(|status| Failure::from(status).about(object))?;
    let unpinned = unpinned.into_inner();
    let id = named(unpinned.kind(), &unpinned.id);
    let words = if unpinned.changed { "unpinned" } else { "was not pinned by you" };
    Ok(Line {
        human: format!("{}  {words}", escaped(&id)),
        bare: escaped(&id),
        json: json!({ "id": id, "changed": unpinned.changed }),
    })
}
