//! `casctl gc`: drops what is unpinned and older than an hour.

use casd_proto::v1::CollectRequest;
use serde_json::json;

use super::Session;
use crate::args::Gc;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::{count, size};

/// Collects; see [`Gc`].
pub(super) async fn run(session: &Session, args: Gc) -> Result<Exit, Failure> {
    let collected = session.objects().collect(CollectRequest { dry_run: args.dry_run }).await?.into_inner();
    let verb = if args.dry_run { "would drop" } else { "dropped" };
    session.output.result(&Line {
        human: format!("{verb} {}, {}", count(collected.objects, "object"), size(collected.bytes)),
        bare: collected.bytes.to_string(),
        json: json!({
            "dry_run": args.dry_run,
            "objects": collected.objects,
            "bytes": collected.bytes,
        }),
    })?;
    Ok(Exit::Done)
}
