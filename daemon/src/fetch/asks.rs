//! Requests in flight: each asks one peer for one shard, proves what comes and stores it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;

use super::Parts;
use super::member::Heard;
use super::planner::{PeerNo, Shard};
use crate::content::{Chunk, ChunkRef};
use crate::session::{Answer, Asker};
use crate::store::{self, Item, Lease};

/// How a request ended.
pub(super) enum Outcome {
    /// Proved, and if it is data, stored.
    Chunk(Chunk),
    NotFound,
    Busy(Duration),
    /// The peer sent something else: a strike.
    Bad,
    /// The session broke.
    Failed,
    /// The store could not take it, which ends the fetch.
    Store(store::Error),
}

/// A request that has ended.
pub(super) struct Ended {
    pub(super) peer: PeerNo,
    pub(super) shard: Shard,
    pub(super) outcome: Outcome,
}

type Running = BoxFuture<'static, (PeerNo, Shard, Option<Outcome>)>;

/// The requests of one fetch. Dropping one cancels it at the peer.
#[derive(Default)]
pub(super) struct Asks {
    running: FuturesUnordered<Running>,
    handles: HashMap<(PeerNo, Shard), AbortHandle>,
}

impl Asks {
    /// Asks a peer for a shard.
    pub(super) fn ask(&mut self, peer: PeerNo, shard: Shard, request: Ask) {
        let (handle, registration) = AbortHandle::new_pair();
        self.handles.insert((peer, shard), handle);
        let work = Abortable::new(request.run(shard), registration);
        self.running.push(Box::pin(async move { (peer, shard, work.await.ok()) }));
    }

    /// The answer is no longer wanted.
    pub(super) fn cancel(&mut self, peer: PeerNo, shard: Shard) {
        if let Some(handle) = self.handles.remove(&(peer, shard)) {
            handle.abort();
        }
    }

    /// Nothing of this peer is wanted any more.
    pub(super) fn cancel_peer(&mut self, peer: PeerNo) {
        self.handles.retain(|(of, _), handle| {
            if *of == peer {
                handle.abort();
            }
            *of != peer
        });
    }

    /// The next request that ends; cancelled ones are passed over. Pending for ever when there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Ended {
        loop {
            match self.running.next().await {
                Some((peer, shard, Some(outcome))) => {
                    self.handles.remove(&(peer, shard));
                    return Ended { peer, shard, outcome };
                }
                Some((_, _, None)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// What a request needs.
pub(super) struct Ask {
    pub(super) parts: Arc<Parts>,
    pub(super) lease: Arc<Lease>,
    pub(super) asker: Asker,
    /// When that peer was heard of.
    pub(super) heard: Arc<Heard>,
    pub(super) chunk: ChunkRef,
}

impl Ask {
    async fn run(self, shard: Shard) -> Outcome {
        let length = self.chunk.length as usize;
        let _open = self.heard.ask(&self.parts.download, length).await;
        let answer = self.asker.want(self.chunk).await;
        if !matches!(answer, Ok(Answer::Found(_))) {
            // Others may have what the limit let pass.
            self.parts.download.give_back(length);
        }
        let unproven = match answer {
            Ok(Answer::Found(unproven)) => unproven,
            Ok(Answer::NotFound) => return Outcome::NotFound,
            Ok(Answer::Busy(after)) => return Outcome::Busy(after),
            Err(error) if error.is_strike() => return Outcome::Bad,
            Err(_) => return Outcome::Failed,
        };
        let Ok(chunk) = self.parts.pool.run(move || unproven.verify()).await else { return Outcome::Bad };
        if let Shard::Data(_) = shard
            && let Err(error) = self.lease.put(Item::Chunk(chunk.clone())).await
        {
            return Outcome::Store(error);
        }
        Outcome::Chunk(chunk)
    }
}
