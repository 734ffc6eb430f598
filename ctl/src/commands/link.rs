//! `casctl link`: prints the link by which others fetch an object.

use casd_proto::v1::LinkRequest;
use serde_json::json;

use super::Session;
use crate::args::Object;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::escaped;

/// Prints; see [`Object`].
pub(super) async fn run(session: &Session, args: Object) -> Result<Exit, Failure> {
    let link = session.objects().link(LinkRequest { object: args.object }).await?.into_inner().link;
    let shown = escaped(&link);
    session.output.result(&Line { human: shown.clone(), bare: shown, json: json!({ "link": link }) })?;
    Ok(Exit::Done)
}
