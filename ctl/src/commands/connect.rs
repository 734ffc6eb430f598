//! `casctl connect`: connects to a peer.

use casd_proto::v1::ConnectRequest;
use serde_json::json;

use super::Session;
use crate::args::Connect;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::escaped;

/// Connects; see [`Connect`].
pub(super) async fn run(session: &Session, args: Connect) -> Result<Exit, Failure> {
    let request = ConnectRequest { address: args.address };
    let peer = session.network().connect(request).await?.into_inner().peer_id;
    let shown = escaped(&peer);
    session.output.result(&Line {
        human: format!("connected to {shown}"),
        bare: shown,
        json: json!({ "peer_id": peer }),
    })?;
    Ok(Exit::Done)
}
