//! `casctl peers`: lists the connected peers, and the banned ones.

use std::time::SystemTime;

use casd_proto::v1::{Peer, PeersRequest, PeersResponse};
use serde_json::json;

use super::Session;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::{escaped, size};

/// Lists.
pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let PeersResponse { peers, known } = session.network().peers(PeersRequest {}).await?.into_inner();
    let connected = peers.iter().filter(|peer| peer.chunk_connected || peer.dht_connected).count() as u64;
    session.output.note(&words(connected, known));
    let lines: Vec<Line> = peers.iter().map(line).collect();
    session.output.results(&lines)?;
    Ok(Exit::Done)
}

/// What is worth a word beside the list. That nobody is connected is nothing bad.
fn words(connected: u64, known: u64) -> String {
    match (connected, known) {
        (0, 0) => {
            "no peers are known; `casctl connect ADDR`, or `bootstrap` in the configuration, finds some"
                .to_owned()
        }
        (0, known) => {
            format!("0 connected, {known} known; connections that nobody uses are closed after a minute")
        }
        (connected, known) => format!("{connected} connected, {known} known"),
    }
}

fn line(peer: &Peer) -> Line {
    let id = escaped(&peer.peer_id);
    let (received, sent) = (size(peer.received_bytes), size(peer.sent_bytes));
    let addresses = escaped(&peer.addresses.join(" "));
    let banned = if peer.banned_until > 0 {
        format!("banned for {}  ", left(peer.banned_until))
    } else {
        String::new()
    };
    Line {
        human: format!("{id}  {banned}in {received}  out {sent}  {addresses}").trim_end().to_owned(),
        bare: id,
        json: json!({
            "peer_id": peer.peer_id,
            "addresses": peer.addresses,
            "chunk_connected": peer.chunk_connected,
            "dht_connected": peer.dht_connected,
            "received_bytes": peer.received_bytes,
            "sent_bytes": peer.sent_bytes,
            "banned_until": peer.banned_until,
        }),
    }
}

/// How long it is until a Unix time, in hours and minutes.
fn left(until: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let minutes = until.saturating_sub(now).div_ceil(60);
    format!("{} h {} min", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_others_is_not_told_to_find_some() {
        assert!(words(0, 0).contains("casctl connect"));
        assert!(words(0, 3).starts_with("0 connected, 3 known") && !words(0, 3).contains("casctl connect"));
        assert_eq!(words(2, 3), "2 connected, 3 known");
    }
}
