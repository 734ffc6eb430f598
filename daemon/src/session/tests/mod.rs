//! Sessions over pipes in memory: a real asker and a real giver, then each of them against a peer that lies.

mod crowds;
mod honest;
mod liars;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::content::{
    CHUNK, CHUNK_LEN, CODEC_RS8, ChunkId, Manifest, ManifestBuilder, ObjectId, ParityClaim, ParityPage,
    ParityPart, Place,
};
use crate::peer::{Conn, Keypair, PeerId};
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// An object in memory and what is told of it.
struct Shelf {
    manifest: Manifest,
    chunks: HashMap<ChunkId, Chunk>,
    part: ParityPart,
    parity: Vec<ParityPage>,
    /// Told to the next subscriber.
    news: Mutex<Option<Subscription>>,
    /// Told to the next subscriber of others.
    rumours: Mutex<Option<mpsc::Receiver<Rumour>>>,
    /// Who was to be told of others.
    callers: Mutex<Vec<Caller>>,
    /// Chunks being got at this moment, and the most that ever were.
    working: AtomicUsize,
    most: AtomicUsize,
    /// A slice goes out for each permit.
    paces: Semaphore,
    /// Whether it is another's turn, and what is held while it is not.
    is_others_turn: AtomicBool,
    turn: Arc<()>,
}

impl Shelf {
    /// An object of these chunks: `None` is one of zeros; the last is cut to `tail` bytes.
    fn new(kinds: &[bool], tail: usize) -> Arc<Self> {
        let (mut builder, mut chunks) = (ManifestBuilder::new(), HashMap::new());
        for (index, full) in kinds.iter().enumerate() {
            let mut bytes = vec![0; if index + 1 == kinds.len() { tail } else { CHUNK }];
            if *full {
                blake3::Hasher::new().update(&[index as u8]).finalize_xof().fill(&mut bytes);
            }
            let chunk = Chunk::compute(Place::At(index as u64 * CHUNK_LEN), bytes.into()).unwrap();
            builder.push(&chunk).unwrap();
            chunks.insert(chunk.id(), chunk);
        }
        let manifest = builder.finish().unwrap();
        let (object, length) = (manifest.id(), manifest.length());
        let claim = ParityClaim { object, length, codec: CODEC_RS8, k: 16, m: 4, count: 2 };
        let ids = [ChunkId::from_bytes([1; 32]), ChunkId::from_bytes([2; 32])];
        let (part, parity) = ParityPart::sign(claim, &ids, &Keypair::generate_ed25519()).unwrap();
        let (working, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let paces = Semaphore::new(Semaphore::MAX_PERMITS);
        let (news, rumours, callers, is_others_turn, turn) = Default::default();
        Arc::new(Self {
            manifest,
            chunks,
            part,
            parity,
            news,
            rumours,
            callers,
            working,
            most,
            paces,
            is_others_turn,
            turn,
        })
    }

    fn object(&self) -> ObjectId {
        self.manifest.id()
    }

    fn answer<T: Send + 'static>(&self, object: ObjectId, found: Option<T>) -> BoxFuture<'_, Answer<T>> {
        let found = found.filter(|_| object == self.object());
        async move { found.map_or(Answer::NotFound, Answer::Found) }.boxed()
    }
}

impl Giver for Shelf {
    fn top(&self, _: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        self.answer(object, Some(self.manifest.top().encode()))
    }

    fn page(&self, _: PeerId, object: ObjectId, index: u32) -> BoxFuture<'_, Answer<Bytes>> {
        self.answer(
            object,
            self.manifest.pages().get(index as usize).map(crate::content::ManifestPage::encode),
        )
    }

    fn parity(&self, _: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        self.answer(object, Some(self.part.encode()))
    }

    fn parity_page(&self, _: PeerId, object: ObjectId, digest: [u8; 32]) -> BoxFuture<'_, Answer<Bytes>> {
        self.answer(object, self.parity.iter().find(|page| page.digest() == digest).map(ParityPage::encode))
    }

    fn room(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::new(Semaphore::new(1)).try_acquire_owned().ok()
    }

    fn chunk(&self, _: PeerId, chunk: ChunkRef) -> BoxFuture<'_, Answer<Chunk>> {
        async move {
            self.most.fetch_max(self.working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.working.fetch_sub(1, Ordering::SeqCst);
            // A reference that no chunk has stands for a giver that is busy.
            match self.chunks.get(&chunk.id) {
                Some(chunk) => Answer::Found(chunk.clone()),
                None if chunk.id == ChunkId::from_bytes([0xbb; 32]) => {
                    Answer::Busy(Duration::from_millis(1500))
                }
                None => Answer::NotFound,
            }
        }
        .boxed()
    }

    fn resolve(&self, _: PeerId, object: ObjectId, index: u64) -> BoxFuture<'_, Option<ChunkRef>> {
        let chunk = self.manifest.chunk(index).filter(|_| object == self.object());
        async move { chunk }.boxed()
    }

    fn haves(&self, _: PeerId, object: ObjectId) -> BoxFuture<'_, Option<Subscription>> {
        let news = self.news.lock().unwrap().take().filter(|_| object == self.object());
        async move { news }.boxed()
    }

    fn begin(&self, _: PeerId) -> Result<Turn, Duration> {
        match self.is_others_turn.load(Ordering::SeqCst) {
            true => Err(Duration::from_millis(700)),
            false => Ok(Box::new(Arc::clone(&self.turn))),
        }
    }

    fn crowd(&self, caller: Caller, _: ObjectId) -> Option<mpsc::Receiver<Rumour>> {
        self.callers.lock().unwrap().push(caller);
        self.rumours.lock().unwrap().take()
    }

    fn pace(&self, _: PeerId, most: usize) -> BoxFuture<'_, usize> {
        async move {
            self.paces.acquire().await.unwrap().forget();
            most
        }
        .boxed()
    }
}

/// Two peers, and the two ends of the connection between them.
struct Ends {
    asker: Conn,
    giver: Conn,
    ask: Options,
    give: Options,
}

impl Ends {
    fn new(network: &Network) -> Self {
        let [asker, giver] = [PeerId::random(), PeerId::random()];
        let (one, two) = tokio::io::duplex(64 * 1024);
        let options = |me| Options::new(me, network.clone(), Pool::new(2));
        Self {
            asker: conn(giver, one, [7; 32]),
            giver: conn(asker, two, [7; 32]),
            ask: options(asker),
            give: options(giver),
        }
    }

    /// Joins both ends, honestly.
    async fn join(self, shelf: &Arc<Shelf>) -> (Asker, Given, Tasks) {
        let tasks = Tasks::new();
        let given = serve(self.giver, self.give, shelf, &tasks);
        let asker = Asker::open(self.asker, &self.ask, &tasks).await.unwrap();
        (asker, given, tasks)
    }
}

fn serve(conn: Conn, options: Options, shelf: &Arc<Shelf>, tasks: &Tasks) -> Given {
    let (shelf, inner) = (Arc::clone(shelf), tasks.clone());
    tasks.spawn("giver", async move { give(conn, &options, shelf, &inner).await })
}

type Given = tokio::task::JoinHandle<Option<Result<Summary, Error>>>;

fn conn(peer: PeerId, stream: DuplexStream, binding: [u8; 32]) -> Conn {
    Conn { peer, remote: None, stream: Box::new(stream), binding }
}

fn open() -> Network {
    Network::new("casd", None)
}

/// No test takes longer.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("a test takes under a minute")
}

/// Waits for a condition that no future tells of.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
