//! `casctl status`: says who and how the daemon is.

use casd_proto::v1::{
    AnnounceStatusRequest, AnnounceStatusResponse, Reachability, StatusRequest, StatusResponse,
};
use serde_json::json;

use super::{Session, verify};
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::{count, escaped, size, span};

/// Says.
pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let status = session.node().status(StatusRequest {}).await?.into_inner();
    let announce = session.network().announce_status(AnnounceStatusRequest {}).await?.into_inner();
    session.output.result(&line(&status, &announce))?;
    Ok(Exit::Done)
}

fn reachable(status: &StatusResponse) -> &'static str {
    match status.reachable() {
        Reachability::Yes => "yes",
        Reachability::No => "no",
        Reachability::Unknown | Reachability::Unspecified => "unknown",
    }
}

fn line(status: &StatusResponse, announce: &AnnounceStatusResponse) -> Line {
    Line {
        human: human(status, announce),
        bare: escaped(&status.peer_id),
        json: json!({
            "peer_id": status.peer_id,
            "name": (!status.name.is_empty()).then_some(&status.name),
            "version": status.version,
            "network": status.network,
            "listen": { "chunk": status.listen_chunk, "dht": status.listen_dht },
            "peers": status.peers,
            "objects": status.objects,
            "stored_bytes": status.stored_bytes,
            "quota_bytes": status.quota_bytes,
            "free_bytes": status.free_bytes,
            "ready": status.ready,
            "reachable": reachable(status),
            "uptime_ms": status.uptime_ms,
            "scrub": status.scrub.as_ref().map(verify::scrub),
            "announce": {
                "keys": announce.keys,
                "queued": announce.queued,
                "done": announce.done,
                "overdue": announce.overdue,
                "messages": announce.messages,
                "receivers": announce.receivers,
            },
        }),
    }
}

fn human(status: &StatusResponse, announce: &AnnounceStatusResponse) -> String {
    let mut node = status.peer_id.clone();
    if !status.name.is_empty() {
        node = format!("{} {node}", status.name);
    }
    let quota = match status.quota_bytes {
        0 => String::new(),
        quota => format!(" of {}", size(quota)),
    };
    let mut rows = vec![
        ("node", node),
        ("network", format!("{}, {}", status.network, count(status.peers, "peer"))),
        ("store", format!("{}, {}{quota}", count(status.objects, "object"), size(status.stored_bytes))),
        ("free", size(status.free_bytes)),
        ("announced", format!("{} of {}", announce.done, count(announce.keys, "key"))),
        ("reachable", reachable(status).to_owned()),
        ("ready", if status.ready { "yes" } else { "no" }.to_owned()),
        ("running", format!("{}, casd {}", span(status.uptime_ms), status.version)),
    ];
    rows.extend(status.scrub.iter().map(|scrub| ("scrub", verify::words(scrub))));
    rows.extend(status.listen_chunk.iter().map(|address| ("chunks at", address.clone())));
    rows.extend(status.listen_dht.iter().map(|address| ("dht at", address.clone())));
    let rows: Vec<String> = rows.iter().map(|(key, value)| format!("{key:10} {}", escaped(value))).collect();
    rows.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_its_documented_keys() {
        let status = StatusResponse {
            peer_id: "12D3".into(),
            listen_chunk: vec!["127.0.0.1:9000".into()],
            listen_dht: vec!["/ip4/127.0.0.1/udp/1/quic-v1/p2p/12D3".into()],
            peers: 1,
            objects: 2,
            stored_bytes: 3,
            ready: true,
            reachable: Reachability::No.into(),
            ..StatusResponse::default()
        };
        let line = line(&status, &AnnounceStatusResponse::default());
        for (key, value) in [
            ("peer_id", json!("12D3")),
            (
                "listen",
                json!({ "chunk": ["127.0.0.1:9000"], "dht": ["/ip4/127.0.0.1/udp/1/quic-v1/p2p/12D3"] }),
            ),
            ("peers", json!(1)),
            ("objects", json!(2)),
            ("stored_bytes", json!(3)),
            ("ready", json!(true)),
            ("reachable", json!("no")),
        ] {
            assert_eq!(line.json[key], value, "{key}");
        }
        assert!(line.human.starts_with("node       12D3\n"));
    }
}
