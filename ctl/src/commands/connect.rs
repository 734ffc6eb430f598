//! `casctl connect`: connects to a peer.

use casd_proto::v1::ConnectRequest;
use serde_json::json;

use super::Session;
use crate::args::Connect;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::escaped;

/// What somebody is told who has not joined the network.
const CHUNK_ONLY: &str = "connected to its chunk port only, by which nobody is found and nothing is announced; to join \
                          the network use one of the `dht at` addresses that its `casctl status` shows";

/// Connects; see [`Connect`].
pub(super) async fn run(session: &Session, args: Connect) -> Result<Exit, Failure> {
    let request = ConnectRequest { address: args.address };
    let connected = session.network().connect(request).await?.into_inner();
    let (peer, chunk_only) = (connected.peer_id, connected.chunk_only);
    let shown = escaped(&peer);
    session.output.result(&Line {
        human: format!("connected to {shown}"),
        bare: shown,
        json: json!({ "peer_id": peer, "chunk_only": chunk_only }),
    })?;
    if chunk_only {
        session.output.note(CHUNK_ONLY);
    }
    Ok(Exit::Done)
}
