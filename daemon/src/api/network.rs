//! `casd.v1.Network`: other nodes.

use std::time::Duration;

use casd_proto::v1::network_server::Network;
use casd_proto::{Reason, v1};
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};

use super::{Answers, Desk, Role, convert, status};
use crate::node::{Node, PeerId, PeerLine, Query};

/// Holders that one search gives: more are of no use to anyone, and strangers say who they are.
const MAX_HOLDERS: usize = 1024;

/// How long a look-up for holders may take, unless its caller wants it to end earlier: as long as the network is asked.
const LOOK_UP: Duration = Duration::from_mins(1);

/// How long others may be asked in a search at most.
const SEARCH: Duration = Duration::from_mins(10);

/// Bytes of what is searched for.
const MAX_SEARCH: usize = 128;

/// Lines of each source that a search gives, unless its caller wants another number, and at most.
const LINES: usize = 1_000;
const MAX_LINES: usize = 10_000;

/// How long others are asked in a search, unless its caller says otherwise.
const ASK: Duration = Duration::from_secs(10);

/// The service.
pub(super) struct Service(pub(super) Desk);

#[tonic::async_trait]
impl Network for Service {
    type ProvidersStream = Answers<v1::ProvidersResponse>;

    async fn providers(
        &self,
        request: Request<v1::ProvidersRequest>,
    ) -> Result<Response<Self::ProvidersStream>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let v1::ProvidersRequest { id, timeout_ms } = request.into_inner();
        let time = if timeout_ms == 0 { LOOK_UP } else { Duration::from_millis(timeout_ms).min(LOOK_UP) };
        let holders = self.0.node.providers(&id, time).await?;
        let answers = holders.take(MAX_HOLDERS).map(|line| Ok(convert::holder(line)));
        Ok(Response::new(self.0.until_end(answers, ())))
    }

    async fn peers(&self, request: Request<v1::PeersRequest>) -> Result<Response<v1::PeersResponse>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let all = request.into_inner().all;
        let known = self.0.node.peers().await;
        let is_listed =
            |line: &PeerLine| all || line.chunk || line.dht || line.standing.banned_until.is_some();
        let listed = known.into_iter().filter(|(_, line)| is_listed(line));
        let peers: Vec<_> = listed.map(|(peer, line)| convert::peer(peer.to_string(), line)).collect();
        let open = peers.iter().filter(|peer| peer.chunk_connected || peer.dht_connected).count();
        let known = self.0.node.company().await.known.max(open) as u64;
        Ok(Response::new(v1::PeersResponse { peers, known }))
    }

    async fn connect(
        &self,
        request: Request<v1::ConnectRequest>,
    ) -> Result<Response<v1::ConnectResponse>, Status> {
        self.0.access.admit(&request, Role::Admin)?;
        let connected = self.0.node.connect(&request.into_inner().address).await?;
        Ok(Response::new(v1::ConnectResponse {
            peer_id: connected.peer.to_string(),
            chunk_only: connected.is_chunk_only,
        }))
    }

    type SearchStream = Answers<v1::SearchResponse>;

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let v1::SearchRequest { text, peer, limit, timeout_ms } = request.into_inner();
        if text.len() > MAX_SEARCH {
            return Err(status::refusal(
                Reason::InvalidName,
                "a search is for at most 128 bytes of text",
                "",
            ));
        }
        let peer = if peer.is_empty() { None } else { Some(peer_id(&peer)?) };
        let limit =
            if limit == 0 { LINES } else { usize::try_from(limit).unwrap_or(MAX_LINES).min(MAX_LINES) };
        let time = if timeout_ms == 0 { ASK } else { Duration::from_millis(timeout_ms).min(SEARCH) };
        let listed = self.0.node.search(Query { text, limit, peer, time }).await?;
        let answers = listed.flat_map(|listed| stream::iter(convert::listing(listed).map(Ok)));
        Ok(Response::new(self.0.until_end(answers, ())))
    }

    async fn announce_status(
        &self,
        request: Request<v1::AnnounceStatusRequest>,
    ) -> Result<Response<v1::AnnounceStatusResponse>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let status = self.0.node.announcing();
        let (keys, queued) = (status.keys as u64, status.queued as u64);
        Ok(Response::new(v1::AnnounceStatusResponse {
            keys,
            queued,
            done: keys.saturating_sub(queued),
            overdue: status.overdue as u64,
            messages: status.messages,
            receivers: status.receivers as u64,
            rate: status.rate,
            look_ups: status.look_ups,
            refused: status.refused,
            audited: status.audited,
            found: status.found,
            client: self.0.node.about().is_client,
        }))
    }
}

/// A peer, by its id or an address that has it.
fn peer_id(text: &str) -> Result<PeerId, Status> {
    if text.contains(['/', '@']) { Ok(Node::address(text)?.peer) } else { Ok(Node::peer_id(text)?) }
}
