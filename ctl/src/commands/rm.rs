//! `casctl rm`: drops the caller's pin and frees what nothing else holds.

use casd_proto::v1::RemoveRequest;
use futures::{StreamExt, stream};
use serde_json::json;

use super::Session;
use crate::args::Rm;
use crate::error::{Exit, Failure};
use crate::object::named;
use crate::output::Line;
use crate::output::text::{escaped, size};

/// Removes; see [`Rm`].
pub(super) async fn run(session: &Session, args: Rm) -> Result<Exit, Failure> {
    let Rm { objects, force } = args;
    session.tell_each(stream::iter(objects.objects).then(|object| remove(session, object, force))).await
}

async fn remove(session: &Session, object: String, force: bool) -> Result<Line, Failure> {
    let request = RemoveRequest { object: object.clone(), force };
    let removed =
        session.objects().remove(request).await.map_err(|status| Failure::from(status).about(object))?;
    let removed = removed.into_inner();
    let id = named(removed.kind(), &removed.id);
    let unpinned = if removed.unpinned { "unpinned; " } else { "" };
    let words = match &removed {
        gone if gone.removed => format!("removed, {} freed", size(gone.freed_bytes)),
        kept if !kept.unread_directory.is_empty() => format!(
            "{unpinned}kept, since it may be in the directory dir:{}, whose list cannot be read: add or fetch that \
             directory again, or remove it or the directory that it is in",
            escaped(&kept.unread_directory)
        ),
        kept if kept.in_directory => format!("{unpinned}kept, since a directory needs it"),
        _ => "unpinned; kept for others".to_owned(),
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
            "unread_directory": removed.unread_directory,
        }),
    })
}
