//! `casctl pin`: promises to keep objects.

use casd_proto::v1::PinRequest;
use futures::{StreamExt, stream};
use serde_json::json;

use super::Session;
use crate::args::Objects;
use crate::error::{Exit, Failure};
use crate::object::named;
use crate::output::Line;
use crate::output::text::escaped;

/// Pins; see [`Objects`].
pub(super) async fn run(session: &Session, args: Objects) -> Result<Exit, Failure> {
    session.tell_each(stream::iter(args.objects).then(|object| pin(session, object))).await
}

async fn pin(session: &Session, object: String) -> Result<Line, Failure> {
    let request = PinRequest { object: object.clone() };
    let pinned =
        session.objects().pin(request).await.map_err(|status| Failure::from(status).about(object))?;
    let pinned = pinned.into_inner();
    let id = named(pinned.kind(), &pinned.id);
    let words = if pinned.changed { "pinned" } else { "was pinned already" };
    Ok(Line {
        human: format!("{}  {words}", escaped(&id)),
        bare: escaped(&id),
        json: json!({ "id": id, "pinned": true, "changed": pinned.changed }),
    })
}
