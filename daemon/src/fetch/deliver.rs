//! From the shelf to the caller, or into his file, with backpressure: chunks that left memory are read back, verified,
//! a few ahead.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::shape::{Shape, Wanted};
use super::shelf::{Next, Shelf};
use super::{Error, Event, Target};
use crate::content::{CHUNK_LEN, Chunk};
use crate::store::Store;

/// Chunks read ahead from the store.
const AHEAD: usize = 4;

/// How a caller gets its bytes.
pub(super) struct Delivery {
    pub(super) store: Store,
    pub(super) shape: Shape,
    pub(super) wanted: Wanted,
    pub(super) shelf: Arc<Shelf>,
    pub(super) out: mpsc::Sender<Result<Event, Error>>,
    /// Where bytes are written, instead of being told.
    pub(super) into: Option<Target>,
    /// Told of chunks that the store no longer has, so that they are fetched again.
    pub(super) lost: mpsc::Sender<u64>,
}

/// A chunk on its way out.
type Loading = BoxFuture<'static, Result<Loaded, Error>>;

/// What became of it.
enum Loaded {
    /// The caller is to be told.
    Event(Event),
    /// It is in the caller's file.
    Written,
    /// The store lost it.
    Lost,
}

impl Delivery {
    /// Gives all wanted chunks, as they come to the shelf. Ends early when the caller is gone.
    pub(super) async fn run(self) -> Result<(), Error> {
        let mut loading: FuturesOrdered<Loading> = FuturesOrdered::new();
        let mut places: VecDeque<usize> = VecDeque::new();
        loop {
            tokio::select! {
                biased;
                Some(loaded) = loading.next() => {
                    let place = places.pop_front().unwrap_or(usize::MAX);
                    match loaded? {
                        Loaded::Event(event) => if self.out.send(Ok(event)).await.is_err() {
                            return Ok(());
                        },
                        // Where a hole need not be written nothing here waits, and there may be millions of them.
                        Loaded::Written => tokio::task::coop::consume_budget().await,
                        Loaded::Lost => {
                            // What was loading behind it goes back too, so that the order holds.
                            loading = FuturesOrdered::new();
                            places.drain(..).for_each(|place| self.shelf.put_back(place));
                            self.shelf.lost(place);
                            let _ = self.lost.send(self.wanted.chunks.start + place as u64).await;
                        }
                    }
                }
                next = self.shelf.next(), if loading.len() < AHEAD => match next {
                    Next::Chunk(place, bytes) => {
                        places.push_back(place);
                        loading.push_back(self.load(place, bytes));
                    }
                    Next::End => match loading.is_empty() {
                        true => return Ok(()),
                        false => tokio::task::yield_now().await,
                    },
                },
            }
        }
    }

    /// Makes the event for a chunk, or writes it, reading it where it is not in memory.
    fn load(&self, place: usize, held: Option<Bytes>) -> Loading {
        let (store, shape, wanted) = (self.store.clone(), self.shape.clone(), self.wanted.clone());
        let into = self.into.clone();
        Box::pin(async move {
            let index = wanted.chunks.start + place as u64;
            let Some(chunk) = shape.chunk(index) else { return Ok(Loaded::Lost) };
            let part = wanted.within(index, chunk.length as usize);
            let offset = index * CHUNK_LEN + part.start as u64;
            if shape.is_zero(index) {
                let zeros = Event::Zeros { offset, length: part.len() as u64 };
                // Where nothing is written, the file reads as zeros.
                return Ok(if into.is_some() { Loaded::Written } else { Loaded::Event(zeros) });
            }
            let bytes = match held {
                Some(bytes) => Some(bytes),
                None => store.chunk(&chunk).await?.map(Chunk::into_bytes),
            };
            let Some(bytes) = bytes.map(|bytes| bytes.slice(part)) else { return Ok(Loaded::Lost) };
            match into {
                Some(into) => into.write(offset, bytes).await.map(|()| Loaded::Written),
                None => Ok(Loaded::Event(Event::Data { offset, bytes })),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use futures::FutureExt;

    use super::super::tests::{Node, Web};
    use super::super::{Order, learn};
    use super::*;
    use crate::content::CHUNK;

    #[tokio::test]
    async fn holes_that_need_not_be_written_let_others_run_as_well() {
        const CHUNKS: usize = 140;
        let node = Node::new(&Web::default(), 1);
        let data = vec![0; CHUNKS * CHUNK];
        let id = node.add(&data, None).await;
        let shape = learn::from_store(&node.store, &id).await.unwrap().unwrap();
        let wanted = Wanted::of(shape.length(), None).unwrap();
        let shelf = Arc::new(Shelf::new(CHUNKS, Order::Any));
        (0..CHUNKS).for_each(|at| shelf.put(at, None));
        let folder = tempfile::tempdir().unwrap();
        let file = OpenOptions::new().write(true).create_new(true).open(folder.path().join("out")).unwrap();
        let into = Some(Target::take(file.into(), ()).await.unwrap());
        let ((out, _told), (lost, _losses)) = (mpsc::channel(1), mpsc::channel(1));
        let delivery = Delivery { store: node.store.clone(), shape, wanted, shelf, out, into, lost };
        let mut run = Box::pin(delivery.run());
        assert!(run.as_mut().now_or_never().is_none());
        run.await.unwrap();
    }
}
