//! The node's own types as messages.

mod health;

use std::time::SystemTime;

use casd_proto::v1;

pub(super) use health::{check, scrub, verified};

use super::advice;
use crate::content::{self as tree, Entry, ObjectId};
use crate::node::Announced;
use crate::node::{About, Caller, ChunkLine, Event, ObjectInfo, PeerAddr, PeerLine};
use crate::node::{Added, AddedTree, Gone};
use crate::node::{Asked, Cut, Found, Listed, Source, Told};
use crate::node::{HolderLine, PeerStanding, State};
use crate::node::{Progress, Provider, Published, ReachVerdict, Stat, Status, Summary, TreeStarted, Usage};

/// "K+M", or "none".
fn parity(parity: Option<(u8, u8)>) -> String {
    parity.map_or_else(|| "none".to_owned(), |(k, m)| format!("{k}+{m}"))
}

/// What an add came to.
pub(super) fn added((added, announced): (Added, Option<Announced>)) -> v1::AddedObject {
    v1::AddedObject {
        id: added.id.to_string(),
        size: added.size,
        created: added.created,
        announced: announced.map(told),
    }
}

fn told(told: Announced) -> v1::Announced {
    v1::Announced {
        keys: told.keys as u64,
        receivers: told.receivers as u64,
        messages: told.messages as u64,
        refused: told.refused as u64,
    }
}

/// What adding a directory came to.
pub(super) fn added_tree((added, announced): (AddedTree, Option<Announced>)) -> v1::AddedTree {
    v1::AddedTree {
        id: added.id.unwrap_or(ObjectId::EMPTY).to_string(),
        size: added.size,
        files: added.files,
        directories: added.directories,
        links: added.links,
        created: added.created,
        announced: announced.map(told),
    }
}

/// What comes of a directory.
pub(super) fn tree_started(started: TreeStarted) -> v1::TreeStarted {
    let kind = if started.is_directory { v1::ObjectKind::Directory } else { v1::ObjectKind::File };
    v1::TreeStarted {
        id: started.id.to_string(),
        kind: kind.into(),
        name: started.name.unwrap_or_default(),
        size: started.size,
        entries: started.entries,
    }
}

/// An entry of a directory.
pub(super) fn entry(entry: Entry<'_>) -> v1::ListedEntry {
    let kind = match entry.node {
        tree::Node::File { executable: false, .. } => v1::EntryKind::File,
        tree::Node::File { executable: true, .. } => v1::EntryKind::Executable,
        tree::Node::Directory { .. } => v1::EntryKind::Directory,
        tree::Node::Link { .. } => v1::EntryKind::Link,
    };
    let object = entry.node.object();
    let target = if let tree::Node::Link { target } = entry.node { target } else { "" };
    v1::ListedEntry {
        name: entry.name.to_owned(),
        kind: kind.into(),
        id: object.map(|(id, _)| id.to_string()).unwrap_or_default(),
        size: object.map_or(0, |(_, length)| length),
        target: target.to_owned(),
    }
}

/// Whether an object is a file or a directory.
pub(super) fn kind(info: &ObjectInfo) -> i32 {
    kind_of(info.tree)
}

fn kind_of(is_directory: bool) -> i32 {
    let kind = if is_directory { v1::ObjectKind::Directory } else { v1::ObjectKind::File };
    kind.into()
}

/// What became of an object that was to be removed.
pub(super) fn removed(info: &ObjectInfo, gone: Gone) -> v1::RemoveResponse {
    let mut answer =
        v1::RemoveResponse { id: info.id.to_string(), kind: kind(info), ..v1::RemoveResponse::default() };
    match gone {
        Gone::Freed(bytes) => (answer.removed, answer.freed_bytes) = (true, bytes),
        Gone::Pinned => answer.unpinned = true,
        Gone::InDirectory { unpinned } => (answer.in_directory, answer.unpinned) = (true, unpinned),
        Gone::Unread { tree, unpinned } => {
            (answer.unread_directory, answer.unpinned) = (tree.to_string(), unpinned);
        }
    }
    answer
}

/// An object in a list; of a recordless one nothing is here.
pub(super) fn listed(info: ObjectInfo, used: Option<u64>, is_recordless: bool) -> v1::ListedObject {
    v1::ListedObject {
        kind: kind(&info),
        id: info.id.to_string(),
        name: info.name.unwrap_or_default(),
        size: info.length,
        pinned: !info.pins.is_empty(),
        complete: info.state == State::Whole && !is_recordless,
        used,
        published: info.publish,
    }
}

/// An object, described to `caller`.
pub(super) fn stat(stat: Stat, caller: Caller) -> v1::StatResponse {
    let Stat { info, chunks, local_chunks, parity_chunks, local_parity_chunks, used } = stat;
    v1::StatResponse {
        kind: kind(&info),
        id: info.id.to_string(),
        name: info.name.unwrap_or_default(),
        size: info.length,
        chunks,
        parity: parity(info.parity),
        parity_chunks,
        local_chunks,
        local_parity_chunks,
        pinned: !info.pins.is_empty(),
        pinned_by_caller: info.pins.iter().any(|pin| pin.uid == caller.uid),
        private: info.private,
        used,
        published: info.publish,
        claimed: false,
        descriptions: Vec::new(),
    }
}

/// What others say of an object that is not here.
pub(super) fn claimed(id: ObjectId, told: &[Told]) -> v1::StatResponse {
    let descriptions: Vec<v1::Description> = told
        .iter()
        .map(|told| v1::Description {
            told_by: u32::try_from(told.told_by).unwrap_or(u32::MAX),
            ..description(Found::new(&told.said, Source::Peer))
        })
        .collect();
    let first = descriptions.first().cloned().unwrap_or_default();
    v1::StatResponse {
        id: id.to_string(),
        name: first.name,
        kind: first.kind,
        size: first.size,
        chunks: tree::chunk_count(first.size),
        parity: first.parity,
        claimed: true,
        descriptions,
        ..v1::StatResponse::default()
    }
}

fn description(found: Found) -> v1::Description {
    v1::Description {
        id: found.id.to_string(),
        name: found.name,
        kind: kind_of(found.is_directory),
        size: found.length,
        parity: parity(found.parity),
        publisher: found.publisher.map(|peer| peer.to_string()).unwrap_or_default(),
        time: found.time,
        told_by: 0,
    }
}

/// Objects of a message.
const FOUND: usize = 1_024;

/// What a search has found, in messages of their size.
pub(super) fn listing(listed: Listed) -> impl Iterator<Item = v1::SearchResponse> {
    let Listed { found, more, cut, asked, .. } = listed;
    let object = |found: Found| v1::FoundObject {
        source: match found.source {
            Source::Local => v1::FoundSource::Local,
            Source::Kept => v1::FoundSource::Kept,
            Source::Peer => v1::FoundSource::Peer,
        }
        .into(),
        description: Some(description(found)),
    };
    let mut objects = found.into_iter().map(object);
    let short = |Cut { peer, why }| v1::CutShort { peer_id: peer.to_string(), why };
    let mut cut: Vec<_> = cut.into_iter().map(short).collect();
    let mut asked = asked.map(who_was_asked);
    let mut is_first = true;
    std::iter::from_fn(move || {
        let page: Vec<_> = objects.by_ref().take(FOUND).collect();
        let more = more && std::mem::take(&mut is_first);
        let (cut, asked) = (std::mem::take(&mut cut), asked.take());
        let is_empty = page.is_empty() && cut.is_empty() && asked.is_none();
        (more || !is_empty).then_some(v1::SearchResponse { objects: page, more, cut, asked })
    })
}

fn who_was_asked(asked: Asked) -> v1::Asked {
    let count = |nodes| u32::try_from(nodes).unwrap_or(u32::MAX);
    let Asked { known, asked, answered } = asked;
    v1::Asked { known: count(known), asked: count(asked), answered: count(answered) }
}

/// What came of publishing, or of taking it back.
pub(super) fn published(published: Published) -> v1::PublishResponse {
    let Published { info, is_news, told } = published;
    v1::PublishResponse {
        id: info.id.to_string(),
        kind: kind(&info),
        name: info.name.unwrap_or_default(),
        changed: is_news,
        told: told.map(|nodes| u32::try_from(nodes).unwrap_or(u32::MAX)),
    }
}

/// A chunk in a list. A chunk of zeros has no id.
pub(super) fn chunk(line: ChunkLine) -> v1::ListedChunk {
    v1::ListedChunk {
        index: line.index,
        id: line.id.map(|id| id.to_string()).unwrap_or_default(),
        size: line.size,
        parity: line.parity,
        local: line.local,
        zero: line.id.is_none(),
    }
}

/// How far a fetch is.
pub(super) fn progress(progress: Progress) -> v1::FetchProgress {
    v1::FetchProgress {
        bytes: progress.bytes,
        local_bytes: progress.local,
        peers: u32::try_from(progress.peers).unwrap_or(u32::MAX),
        bytes_per_second: progress.rate,
    }
}

/// What a fetch did.
pub(super) fn finished(summary: Summary) -> v1::FetchFinished {
    v1::FetchFinished {
        size: summary.size,
        seconds: summary.took.as_secs_f64(),
        local_bytes: summary.local,
        peers: summary.peers.into_iter().map(|(peer, bytes)| (peer.to_string(), bytes)).collect(),
        written_bytes: summary.written,
    }
}

/// An event of the fetch of `id`. Zeros become a length.
pub(super) fn fetched(id: &str, event: Event) -> v1::FetchResponse {
    use v1::fetch_response::Event as Message;
    let message = match event {
        Event::Started { size, name } => {
            Message::Started(v1::FetchStarted { id: id.to_owned(), size, name: name.unwrap_or_default() })
        }
        Event::Data { offset, bytes } => Message::Data(v1::FetchData { offset, data: bytes, zeros: 0 }),
        Event::Zeros { offset, length } => {
            Message::Data(v1::FetchData { offset, zeros: length, ..v1::FetchData::default() })
        }
        Event::Progress(how_far) => Message::Progress(progress(how_far)),
        Event::Finished(summary) => Message::Finished(finished(summary)),
    };
    v1::FetchResponse { event: Some(message) }
}

/// Somebody who is said to hold something.
pub(super) fn holder(line: HolderLine) -> v1::ProvidersResponse {
    match line {
        HolderLine::Here(found) => provider(&found),
        HolderLine::Absent { peer, why, described } => v1::ProvidersResponse {
            peer_id: peer.to_string(),
            advice: advice::unreached(&why).to_owned(),
            missed: why,
            described: described.unwrap_or(0),
            ..v1::ProvidersResponse::default()
        },
    }
}

/// A holder: its chunk ports first.
fn provider(found: &Provider) -> v1::ProvidersResponse {
    let peer_id = found.peer.to_string();
    let chunk = found.chunk.iter().map(|at| PeerAddr::chunk(found.peer, *at).to_string());
    let dht = found.dht.iter().map(|at| whole_address(at.to_string(), &peer_id));
    v1::ProvidersResponse {
        addresses: chunk.chain(dht).collect(),
        peer_id: peer_id.clone(),
        ..v1::ProvidersResponse::default()
    }
}

/// A connected peer.
pub(super) fn peer(peer_id: String, line: PeerLine) -> v1::Peer {
    let addresses = line.addresses.into_iter().map(|at| whole_address(at, &peer_id)).collect();
    let PeerStanding { rate, delivered, failures, strikes, banned_until } = line.standing;
    let seconds =
        |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    v1::Peer {
        addresses,
        chunk_connected: line.chunk,
        dht_connected: line.dht,
        received_bytes: line.received,
        sent_bytes: line.sent,
        banned_until: banned_until.map_or(0, seconds),
        bytes_per_second: rate,
        delivered_bytes: delivered,
        failures,
        strikes: u32::try_from(strikes).unwrap_or(u32::MAX),
        peer_id,
    }
}

/// A multiaddr with its peer's id at the end, as every address of the API has it.
fn whole_address(address: String, peer: &str) -> String {
    if !address.starts_with('/') || address.ends_with(&format!("/p2p/{peer}")) {
        return address;
    }
    format!("{address}/p2p/{peer}")
}

/// Whether others can connect.
fn reachable(verdict: ReachVerdict) -> v1::Reachability {
    match verdict {
        ReachVerdict::Unknown => v1::Reachability::Unknown,
        ReachVerdict::Yes => v1::Reachability::Yes,
        ReachVerdict::No => v1::Reachability::No,
    }
}

/// What a node says of itself.
pub(super) fn status(about: &About, status: &Status) -> v1::StatusResponse {
    v1::StatusResponse {
        peer_id: about.peer.to_string(),
        name: about.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: about.network.clone(),
        listen_chunk: status.chunk.iter().map(ToString::to_string).collect(),
        listen_dht: status.dht.iter().map(ToString::to_string).collect(),
        peers: status.peers,
        objects: status.usage.objects,
        stored_bytes: status.usage.used_bytes,
        quota_bytes: status.usage.quota,
        free_bytes: status.usage.free,
        // The socket answers last: store and listeners are up before it.
        ready: true,
        reachable: reachable(status.reachable).into(),
        uptime_ms: u64::try_from(status.uptime.as_millis()).unwrap_or(u64::MAX),
        scrub: None,
        store: Some(store(&status.usage, status.read_only.as_deref())),
        mode: if about.is_client { v1::NodeMode::Client } else { v1::NodeMode::Full }.into(),
        private_network: about.is_private_network,
        known_peers: (status.company.known as u64).max(status.peers),
        alone: status.company.is_alone,
        next_try_ms: status.company.next_try.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        configured_peers: status.company.configured as u64,
        unserved: status.company.is_unserved,
    }
}

fn store(usage: &Usage, read_only: Option<&str>) -> v1::StoreUsage {
    v1::StoreUsage {
        data_bytes: usage.kinds.data,
        parity_bytes: usage.kinds.parity,
        manifest_bytes: usage.kinds.manifests,
        parity_part_bytes: usage.kinds.parity_parts,
        index_bytes: usage.index_bytes,
        partial_bytes: usage.unfinished.map(|bytes| bytes.partial),
        leftover_bytes: usage.unfinished.map(|bytes| bytes.leftover),
        promised_bytes: usage.promised,
        reserve_bytes: usage.reserve,
        partials: usage.partials,
        recovering: usage
            .recovering
            .map(|(done, total)| v1::Recovering { done: done as u64, total: total as u64 }),
        read_only: read_only.unwrap_or_default().to_owned(),
    }
}
