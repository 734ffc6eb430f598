//! `casctl rm`: drops the caller's pin and frees what nothing else holds.

use casd_proto::v1::RemoveRequest;
use futures::{StreamExt, stream};
use serde_json::json;

use super::Session;
use crate::args::Objects;
use crate::error::{Exit, Failure};
use crate::object::named;
use crate::output::Line;
use crate::output::text::{escaped, size};

/// Removes; see [`Objects`].
pub(super) async fn run(session: &Session, args: Objects) -> Result<Exit, Failure> {
    session.tell_each(stream::iter(args.objects).then(|object| remove(session, object))).await
}

async fn remove(session: &Session, object: String) -> Result<Line, Failure> {
    let request = RemoveRequest { object: object.clone() };
    let removed =
        session.objects().remove(request).await.map_err(|status| Failure::from(status).about(object))?;
    let removed = removed.into_inner();
    let id = named(removed.kind(), &removed.id);
    let words = match &removed {
        gone if gone.removed => format!("removed, {} freed", size(gone.freed_bytes)),
        kept if !kept.in_directory => "unpinned; kept for others".to_owned(),
        kept if kept.unpinned => "unpinned; kept, since a directory needs it".to_owned(),
        _ => "kept, since a directory needs it".to_owned(),
    };
    Ok(Line {
        human: format!("{}  {words}", escaped(&id)),
        bare: escaped(&id),
        json: json!({
            "id": id,
            "removed": removed.removed,
            "freed_bytes": removed.freed_bytes,
            "in_directory": removed.in_directory,
            "unpinned": removed.unpinned,
        }),
    })
}
