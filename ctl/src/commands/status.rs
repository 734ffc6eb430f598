//! `casctl status`: says who and how the daemon is.

use casd_proto::v1::{
    AnnounceStatusRequest, AnnounceStatusResponse, NodeMode, Reachability, StatusRequest, StatusResponse,
    StoreUsage,
};
use serde_json::{Value, json};

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

/// `None`: a daemon of an earlier version.
fn mode(status: &StatusResponse) -> Option<&'static str> {
    match status.mode() {
        NodeMode::Full => Some("full"),
        NodeMode::Client => Some("client"),
        NodeMode::Unspecified => None,
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
            "private_network": status.private_network,
            "mode": mode(status),
            "listen": { "chunk": status.listen_chunk, "dht": for_others_first(&status.listen_dht) },
            "peers": status.peers,
            "known_peers": status.known_peers,
            "alone": status.alone,
            "unserved": status.unserved,
            "next_try_ms": status.next_try_ms,
            "objects": status.objects,
            "stored_bytes": status.stored_bytes,
            "quota_bytes": status.quota_bytes,
            "free_bytes": status.free_bytes,
            "ready": status.ready,
            "reachable": reachable(status),
            "uptime_ms": status.uptime_ms,
            "scrub": status.scrub.as_ref().map(verify::scrub),
            "store": status.store.as_ref().map(store_json),
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

fn store_json(store: &StoreUsage) -> Value {
    json!({
        "data_bytes": store.data_bytes,
        "parity_bytes": store.parity_bytes,
        "manifest_bytes": store.manifest_bytes,
        "parity_part_bytes": store.parity_part_bytes,
        "index_bytes": store.index_bytes,
        "partial_bytes": store.partial_bytes,
        "leftover_bytes": store.leftover_bytes,
        "promised_bytes": store.promised_bytes,
        "reserve_bytes": store.reserve_bytes,
        "partials": store.partials,
        "recovering": store.recovering.map(|at| json!({ "done": at.done, "total": at.total })),
        "read_only": (!store.read_only.is_empty()).then_some(&store.read_only),
    })
}

/// What the store's bytes are, a row a question.
fn store_rows(store: &StoreUsage) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if !store.read_only.is_empty() {
        rows.push(("read-only", format!("{}; look at the disk, then restart casd", store.read_only)));
    }
    if let Some(at) = store.recovering {
        let how_far = match at.total {
            0 => "is being checked".to_owned(),
            total => format!("is being made anew: {} of {}", at.done, count(total, "segment")),
        };
        rows.push(("index", format!("{how_far}; reads are served, writing waits, counts are not whole")));
    }
    let manifests = store.manifest_bytes + store.parity_part_bytes;
    rows.push((
        "bytes",
        format!(
            "{} data, {} parity, {} manifests, {} index",
            size(store.data_bytes),
            size(store.parity_bytes),
            size(manifests),
            size(store.index_bytes)
        ),
    ));
    let known = |bytes: Option<u64>| bytes.map_or_else(|| "not counted".to_owned(), size);
    if store.partials > 0 || store.partial_bytes != Some(0) || store.leftover_bytes != Some(0) {
        let (partial, leftover) = (known(store.partial_bytes), known(store.leftover_bytes));
        rows.push(("unfinished", format!("{}, {partial}; leftovers {leftover}", fetches(store.partials))));
    }
    if store.promised_bytes > 0 {
        rows.push(("promised", format!("{} to what is under way", size(store.promised_bytes))));
    }
    rows
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
    let private = if status.private_network { "private, " } else { "" };
    let mut rows = vec![
        ("node", node),
        (
            "network",
            format!("{}, {private}{} connected, {} known", status.network, status.peers, status.known_peers),
        ),
        ("store", format!("{}, {}{quota}", count(status.objects, "object"), size(status.stored_bytes))),
        ("free", free(status)),
        ("announced", announced(status, announce)),
        ("reachable", reachable(status).to_owned()),
        ("ready", if status.ready { "yes" } else { "no" }.to_owned()),
        ("running", format!("{}, casd {}", span(status.uptime_ms), status.version)),
    ];
    if status.mode() == NodeMode::Client {
        rows.insert(2, ("mode", "client: it only fetches; it gives and announces nothing".to_owned()));
    }
    if status.alone {
        rows.insert(2, ("alone", alone(status)));
    }
    if status.unserved {
        let said = "it is connected only to nodes that keep no records; `casctl doctor` says more";
        rows.insert(2, ("unserved", said.to_owned()));
    }
    rows.extend(status.scrub.iter().map(|scrub| ("scrub", verify::words(scrub))));
    if let Some(store) = &status.store {
        let below = rows.iter().position(|(key, _)| *key == "store").map_or(rows.len(), |at| at + 1);
        rows.splice(below..below, store_rows(store));
    }
    rows.extend(status.listen_chunk.iter().map(|address| ("chunks at", address.clone())));
    rows.extend(for_others_first(&status.listen_dht).into_iter().map(|address| ("dht at", address)));
    let rows: Vec<String> = rows.iter().map(|(key, value)| format!("{key:10} {}", escaped(value))).collect();
    rows.join("\n")
}

/// Addresses in the order in which people copy them: those that lead to this host only come last.
fn for_others_first(addresses: &[String]) -> Vec<String> {
    let is_near = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    let (near, far): (Vec<String>, Vec<String>) = addresses.iter().cloned().partition(is_near);
    [far, near].concat()
}

/// What a node does that is connected to nobody and reaches nobody.
pub(super) fn alone(status: &StatusResponse) -> String {
    let whom = match (status.known_peers, status.configured_peers) {
        _ if status.peers > 0 => "it is connected to chunk ports only, by which nobody is found".to_owned(),
        (0, 0) => {
            return "it knows nobody; `casctl connect ADDR`, or `bootstrap` in the configuration, finds some"
                .to_owned();
        }
        (0, configured) => {
            format!("it knows nobody and reaches none of {} in the configuration", count(configured, "node"))
        }
        (known, _) => format!("it knows {}, connected to none", count(known, "node")),
    };
    match status.next_try_ms {
        Some(wait) => format!("{whom}; next try in {} s; `casctl doctor` says more", wait.div_ceil(1000)),
        None => format!("{whom}; `casctl doctor` says more"),
    }
}

fn announced(status: &StatusResponse, announce: &AnnounceStatusResponse) -> String {
    match status.mode() {
        NodeMode::Client => "nothing".to_owned(),
        _ => format!("{} of {}", announce.done, count(announce.keys, "key")),
    }
}

fn fetches(count: u64) -> String {
    if count == 1 { "1 fetch".to_owned() } else { format!("{count} fetches") }
}

fn free(status: &StatusResponse) -> String {
    match status.store.as_ref().map_or(0, |store| store.reserve_bytes) {
        0 => size(status.free_bytes),
        reserve => format!("{}, {} of it kept in reserve", size(status.free_bytes), size(reserve)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use casd_proto::v1::Recovering;

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
        assert!(line.json["store"].is_null(), "an older daemon does not say");
    }

    #[test]
    fn what_leads_to_this_host_only_is_listed_last() {
        let quic = |host: &str| format!("/{host}/udp/8468/quic-v1/p2p/12D3");
        let hosts = ["ip4/127.0.0.1", "ip4/10.77.1.1", "ip6/::1", "ip6/::1234"];
        let status = StatusResponse { listen_dht: hosts.map(quic).to_vec(), ..StatusResponse::default() };
        let line = line(&status, &AnnounceStatusResponse::default());
        let expected = ["ip4/10.77.1.1", "ip6/::1234", "ip4/127.0.0.1", "ip6/::1"].map(quic);
        assert_eq!(line.json["listen"]["dht"], json!(expected));
        let shown: Vec<_> = line.human.lines().filter_map(|row| row.strip_prefix("dht at     ")).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_client_announces_nothing() {
        let client = StatusResponse { mode: NodeMode::Client.into(), ..StatusResponse::default() };
        let human = line(&client, &AnnounceStatusResponse::default()).human;
        assert!(human.contains("\nannounced  nothing\n"), "{human}");
    }

    #[test]
    fn who_is_alone_is_told_when_it_is_tried_again_and_who_is_idle_is_not() {
        let human = |status: &StatusResponse| line(status, &AnnounceStatusResponse::default()).human;
        let idle = StatusResponse { network: "casd".into(), known_peers: 4, ..StatusResponse::default() };
        let said = human(&idle);
        assert!(
            said.contains("\nnetwork    casd, 0 connected, 4 known\n") && !said.contains("\nalone"),
            "{said}"
        );
        let alone = StatusResponse { alone: true, next_try_ms: Some(11_200), ..idle };
        let said = human(&alone);
        assert!(
            said.contains("\nalone      it knows 4 nodes, connected to none; next try in 12 s; "),
            "{said}"
        );
        let nobody = StatusResponse { known_peers: 0, next_try_ms: None, ..alone };
        assert!(human(&nobody).contains("\nalone      it knows nobody; `casctl connect"));
        let session = StatusResponse { peers: 1, known_peers: 1, ..nobody.clone() };
        assert!(human(&session).contains("\nalone      it is connected to chunk ports only, by which"));
        let unmet = StatusResponse { configured_peers: 4, ..nobody };
        assert!(human(&unmet).contains("reaches none of 4 nodes in the configuration; `casctl doctor`"));
        let unserved =
            StatusResponse { unserved: true, peers: 1, known_peers: 1, ..StatusResponse::default() };
        let said = human(&unserved);
        assert!(said.contains("1 known\nunserved   it is connected only to nodes that keep"), "{said}");
    }

    #[test]
    fn bytes_are_told_by_kind_and_that_they_are_not_whole() {
        let store = StoreUsage {
            data_bytes: 1 << 20,
            parity_bytes: 2 << 20,
            manifest_bytes: 4096,
            parity_part_bytes: 4096,
            index_bytes: 288,
            leftover_bytes: Some(0),
            promised_bytes: 5,
            reserve_bytes: 1 << 30,
            partials: 1,
            recovering: Some(Recovering { done: 3, total: 7 }),
            ..StoreUsage::default()
        };
        let status = StatusResponse { free_bytes: 2 << 30, store: Some(store), ..StatusResponse::default() };
        let line = line(&status, &AnnounceStatusResponse::default());
        let said = &line.json["store"];
        assert_eq!(said["recovering"], json!({ "done": 3, "total": 7 }));
        assert_eq!((&said["data_bytes"], &said["parity_part_bytes"]), (&json!(1 << 20), &json!(4096)));
        assert_eq!((&said["partial_bytes"], &said["leftover_bytes"]), (&Value::Null, &json!(0)));
        for row in [
            "index      is being made anew: 3 of 7 segments; ",
            "bytes      1.0 MiB data, 2.0 MiB parity, 8.0 KiB manifests, 288 B index\n",
            "unfinished 1 fetch, not counted; leftovers 0 B\n",
            "promised   5 B to what is under way\n",
            "free       2.0 GiB, 1.0 GiB of it kept in reserve\n",
        ] {
            assert!(line.human.contains(row), "{row:?} is not in\n{}", line.human);
        }
    }
}
