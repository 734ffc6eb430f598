//! What waits for an answer, and takes its request back when it is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::frames::Frame;
use super::{Answer, Asker, Error, Have, News, Unproven};
use crate::content::ChunkRef;

/// A chunk that has been asked for: a future of its bytes. Dropping it takes the request back.
#[derive(Debug)]
pub struct Want {
    pub(super) chunk: ChunkRef,
    pub(super) answer: oneshot::Receiver<Answer<Bytes>>,
    pub(super) ticket: Ticket,
}

impl Want {
    /// The chunk that was asked for.
    #[must_use]
    pub fn chunk(&self) -> ChunkRef {
        self.chunk
    }
}

impl Future for Want {
    type Output = Result<Answer<Unproven>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reference = self.chunk;
        Pin::new(&mut self.answer).poll(context).map(|answer| match answer {
            Ok(answer) => Ok(answer.map(|bytes| Unproven { reference, bytes })),
            Err(_) => Err(self.ticket.asker.shared().reason()),
        })
    }
}

/// How many bytes of a chunk have come while it comes; none of them is proved. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct Came(Arc<AtomicU32>);

impl Came {
    /// Bytes so far, also those of a slice that is not whole.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(u32::try_from(bytes).unwrap_or(u32::MAX), Relaxed);
    }
}

/// News of the chunks that a giver holds, and of others who ask for them. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Haves {
    pub(super) updates: mpsc::Receiver<News>,
    /// Its one request.
    pub(super) _tickets: Vec<Ticket>,
}

impl Haves {
    /// The next news. `None` when there are no more: the giver does not give the object, the session ended, or this
    /// reader was so slow that 256 news waited; then subscribe again.
    pub async fn news(&mut self) -> Option<News> {
        self.updates.recv().await
    }

    /// The next news of chunks, passing over what there is of others; otherwise as [`Haves::news`].
    pub async fn next(&mut self) -> Option<Have> {
        loop {
            if let News::Have(have) = self.news().await? {
                return Some(have);
            }
        }
    }
}

/// An open request. Takes it back when it is dropped before its answer.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) asker: Asker,
    pub(super) request: u32,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let shared = self.asker.shared();
        if shared.pending.cancel(self.request) {
            // There is room for it, or the session is over.
            let _ = shared.out.try_send(Frame::Cancel(self.request));
        }
    }
}
