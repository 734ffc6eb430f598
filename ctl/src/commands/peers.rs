//! `casctl peers`: lists the connected peers, and the banned ones, with how they have behaved.

use std::time::SystemTime;

use casd_proto::v1::{Peer, PeersRequest, PeersResponse};
use serde_json::json;

use super::Session;
use crate::args::Peers;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::{count, escaped, size};

/// Lists; see [`Peers`].
pub(super) async fn run(session: &Session, args: Peers) -> Result<Exit, Failure> {
    let request = PeersRequest { all: args.all };
    let PeersResponse { peers, known } = session.network().peers(request).await?.into_inner();
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
    let conduct = conduct(peer);
    Line {
        human: format!("{id}  {conduct}in {received}  out {sent}  {addresses}").trim_end().to_owned(),
        bare: id,
        json: json!({
            "peer_id": peer.peer_id,
            "addresses": peer.addresses,
            "chunk_connected": peer.chunk_connected,
            "dht_connected": peer.dht_connected,
            "received_bytes": peer.received_bytes,
            "sent_bytes": peer.sent_bytes,
            "banned_until": peer.banned_until,
            "rate": peer.bytes_per_second,
            "delivered_bytes": peer.delivered_bytes,
            "failures": peer.failures,
            "strikes": peer.strikes,
        }),
    }
}

/// How a peer has behaved, as far as there is something to say.
fn conduct(peer: &Peer) -> String {
    let mut words = Vec::new();
    if peer.banned_until > 0 {
        words.push(format!("banned for {}", left(peer.banned_until)));
    }
    if peer.strikes > 0 {
        words.push(count(peer.strikes.into(), "strike"));
    }
    if peer.failures > 0 {
        words.push(format!("failed {}", count(peer.failures.into(), "time")));
    }
    if peer.delivered_bytes > 0 {
        words.push(format!("gave {}", size(peer.delivered_bytes)));
    }
    if let Some(rate) = peer.bytes_per_second {
        words.push(format!("at {}/s", size(rate)));
    }
    words.into_iter().map(|word| word + "  ").collect()
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

    #[test]
    fn what_there_is_to_say_of_a_peer_is_said() {
        let mut peer = Peer { peer_id: "12D3".into(), received_bytes: 2048, ..Peer::default() };
        assert_eq!(line(&peer).human, "12D3  in 2.0 KiB  out 0 B");
        (peer.strikes, peer.failures, peer.delivered_bytes) = (2, 1, 3 << 20);
        peer.bytes_per_second = Some(1 << 20);
        let line = line(&peer);
        let said = "12D3  2 strikes  failed 1 time  gave 3.0 MiB  at 1.0 MiB/s  in 2.0 KiB  out 0 B";
        assert_eq!(line.human, said);
        assert_eq!((&line.json["rate"], &line.json["strikes"]), (&json!(1 << 20), &json!(2)));
    }
}
