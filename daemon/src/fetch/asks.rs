//! Requests in flight: each asks one peer for one shard, proves what comes and stores it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;

use super::Parts;
use super::member::Heard;
use super::planner::{PeerNo, Shard};
use crate::content::{Chunk, ChunkRef};
use crate::session::{Answer, Asker, Came};
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

/// What is to be seen of a request that is on its way.
pub(super) enum Sight {
    /// Our own limit keeps it from being sent.
    Held,
    /// So many bytes have come, and so many of them since the last look.
    Came(u64, u64),
}

type Running = BoxFuture<'static, (PeerNo, Shard, Option<Outcome>)>;

/// The requests of one fetch. Dropping one cancels it at the peer.
#[derive(Default)]
pub(super) struct Asks {
    running: FuturesUnordered<Running>,
    open: HashMap<(PeerNo, Shard), Open>,
}

/// A request that is on its way.
struct Open {
    abort: AbortHandle,
    flow: Arc<Flow>,
    /// Bytes that had come at the last look.
    seen: u32,
}

/// How far a request is.
#[derive(Debug, Default)]
struct Flow {
    /// Our own limit has let it go.
    is_sent: AtomicBool,
    came: Came,
}

impl Asks {
    /// Asks a peer for a shard.
    pub(super) fn ask(&mut self, peer: PeerNo, shard: Shard, request: Ask) {
        let (abort, registration) = AbortHandle::new_pair();
        let flow = Arc::new(Flow::default());
        self.open.insert((peer, shard), Open { abort, flow: Arc::clone(&flow), seen: 0 });
        let work = Abortable::new(request.run(shard, flow), registration);
        self.running.push(Box::pin(async move { (peer, shard, work.await.ok()) }));
    }

    /// The answer is no longer wanted.
    pub(super) fn cancel(&mut self, peer: PeerNo, shard: Shard) {
        if let Some(open) = self.open.remove(&(peer, shard)) {
            open.abort.abort();
        }
    }

    /// Nothing of this peer is wanted any more.
    pub(super) fn cancel_peer(&mut self, peer: PeerNo) {
        self.open.retain(|(of, _), open| {
            if *of == peer {
                open.abort.abort();
            }
            *of != peer
        });
    }

    /// What has changed of the requests that are on their way since the last look.
    pub(super) fn look(&mut self) -> Vec<(PeerNo, Shard, Sight)> {
        let look = |((peer, shard), open): (&(PeerNo, Shard), &mut Open)| {
            let came = open.flow.came.bytes();
            let more = came.saturating_sub(std::mem::replace(&mut open.seen, came));
            let sight = match more {
                0 if open.flow.is_sent.load(Relaxed) => return None,
                0 => Sight::Held,
                more => Sight::Came(came.into(), more.into()),
            };
            Some((*peer, *shard, sight))
        };
        self.open.iter_mut().filter_map(look).collect()
    }

    /// Bytes that have come of requests that are on their way.
    pub(super) fn came(&self) -> u64 {
        self.open.values().map(|open| u64::from(open.flow.came.bytes())).sum()
    }

    /// The next request that ends; cancelled ones are passed over. Pending for ever when there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Ended {
        loop {
            match self.running.next().await {
                Some((peer, shard, Some(outcome))) => {
                    self.open.remove(&(peer, shard));
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
    async fn run(self, shard: Shard, flow: Arc<Flow>) -> Outcome {
        let length = self.chunk.length as usize;
        let mut open = self.heard.ask(&self.parts.download, length).await;
        flow.is_sent.store(true, Relaxed);
        let answer = self.asker.want_counted(self.chunk, &flow.came).await;
        open.answered();
        if !matches!(answer, Ok(Answer::Found(_))) {
            // Others may have what the limit let pass and did not come.
            self.parts.download.give_back(length.saturating_sub(flow.came.bytes() as usize));
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
