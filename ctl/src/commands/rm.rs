//! `casctl rm`: drops the caller's pin and frees what nothing else holds.

use casd_proto::v1::RemoveRequest;
use futures::{StreamExt, stream};
use serde_json::json;

use super::Session;
use crate::args::Rm;
use crate::error::{Exit, Failure};
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
    let id = escaped(&removed.id);
    let words = if removed.removed {
        format!("removed, {} freed", size(removed.freed_bytes))
    } else if !removed.unread_directory.is_empty() {
        let tree = escaped(&removed.unread_directory);
        format!(
            "unpinned; kept, since it may be in the directory dir:{tree}, whose list cannot be read: add or fetch \
             that directory again, or remove it or the directory that it is in"
        )
    } else if removed.in_directory {
        "unpinned; kept, since a directory needs it".to_owned()
    } else {
        "unpinned; kept for others".to_owned()
    };
    Ok(Line {
        human: format!("{id}  {words}"),
        bare: id,
        json: json!({
            "id": removed.id,
            "removed": removed.removed,
            "freed_bytes": removed.freed_bytes,
            "in_directory": removed.in_directory,
            "unread_directory": removed.unread_directory,
        }),
    })
}
