//! A session between two ends in this process, over a pipe, TCP, or TCP and TLS: what is asked for comes from memory,
//! and is proved where it arrives.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use casd::content::{Chunk, ChunkId, ChunkRef, ObjectId};
use casd::peer::{Conn, Dial, Keypair, PeerId};
use casd::session::{Answer, Asker, Giver, Network, Options, Subscription, give};
use casd::support::pool::Pool;
use casd::support::task::Tasks;
use casd::wire::{self, Wire};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, future, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::costs::{Cost, Failure, Watch};
use crate::parts::length;

/// Chunks that are asked for at once.
const AT_ONCE: usize = 32;

/// Bytes that a pipe in memory holds.
const PIPE: usize = 1 << 20;

/// Chunks on their way out at once.
const SLOTS: usize = 32;

/// What carries a session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    /// A pipe in memory.
    Pipe,
    /// TCP over loopback.
    Tcp,
    /// The same with TLS.
    Tls,
}

impl Over {
    /// As the table says it.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Pipe => "a session over a pipe, both ends",
            Self::Tcp => "a session over TCP, both ends",
            Self::Tls => "a session over TCP and TLS, both ends",
        }
    }
}

/// Chunks in memory, for whoever asks.
struct Shelf {
    chunks: HashMap<ChunkId, Chunk>,
    slots: Arc<Semaphore>,
}

impl Giver for Shelf {
    fn top(&self, _: PeerId, _: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        future::ready(Answer::NotFound).boxed()
    }

    fn page(&self, _: PeerId, _: ObjectId, _: u32) -> BoxFuture<'_, Answer<Bytes>> {
        future::ready(Answer::NotFound).boxed()
    }

    fn parity(&self, _: PeerId, _: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        future::ready(Answer::NotFound).boxed()
    }

    fn parity_page(&self, _: PeerId, _: ObjectId, _: [u8; 32]) -> BoxFuture<'_, Answer<Bytes>> {
        future::ready(Answer::NotFound).boxed()
    }

    fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    fn chunk(&self, _: PeerId, chunk: ChunkRef) -> BoxFuture<'_, Answer<Chunk>> {
        let found = self.chunks.get(&chunk.id).cloned();
        future::ready(found.map_or(Answer::NotFound, Answer::Found)).boxed()
    }

    fn resolve(&self, _: PeerId, _: ObjectId, _: u64) -> BoxFuture<'_, Option<ChunkRef>> {
        future::ready(None).boxed()
    }

    fn haves(&self, _: PeerId, _: ObjectId) -> BoxFuture<'_, Option<Subscription>> {
        future::ready(None).boxed()
    }

    fn pace(&self, _: PeerId, most: usize) -> BoxFuture<'_, usize> {
        future::ready(most).boxed()
    }
}

/// Carries all chunks from one end to the other.
pub(crate) async fn session(over: Over, chunks: &[Chunk]) -> Result<Cost, Failure> {
    let (tasks, pool) = (Tasks::new(), Pool::per_core());
    let [asks, gives] = [Keypair::generate_ed25519(), Keypair::generate_ed25519()];
    let [asking, giving] = [&asks, &gives]
        .map(|key| Options::new(key.public().to_peer_id(), Network::new("stages", None), pool.clone()));
    let (here, there) = connect(over, &asks, &gives, &tasks).await?;
    let all = chunks.iter().map(|chunk| (chunk.id(), chunk.clone())).collect();
    let shelf: Arc<dyn Giver> = Arc::new(Shelf { chunks: all, slots: Arc::new(Semaphore::new(SLOTS)) });
    let family = tasks.clone();
    tasks.spawn("giver", async move { give(there, &giving, shelf, &family).await });
    let asker = Asker::open(here, &asking, &tasks).await?;
    let references: Vec<_> = chunks.iter().map(Chunk::reference).collect();
    let watch = Watch::start();
    let gets = stream::iter(references).map(|chunk| get(&asker, &pool, chunk));
    let mut gets = gets.buffer_unordered(AT_ONCE);
    while let Some(got) = gets.next().await {
        got?;
    }
    drop(gets);
    let cost = watch.stop(length(chunks));
    tasks.stop();
    Ok(cost)
}

async fn get(asker: &Asker, pool: &Pool, chunk: ChunkRef) -> Result<(), Failure> {
    let Answer::Found(unproven) = asker.want(chunk).await? else {
        return Err("a chunk was not given".into());
    };
    pool.run(move || unproven.verify()).await?;
    Ok(())
}

/// The two ends of a connection, the asker's first.
async fn connect(
    over: Over,
    asks: &Keypair,
    gives: &Keypair,
    tasks: &Tasks,
) -> Result<(Conn, Conn), Failure> {
    let [asker, giver] = [asks, gives].map(|key| key.public().to_peer_id());
    match over {
        Over::Pipe => {
            let (here, there) = tokio::io::duplex(PIPE);
            Ok((conn(giver, here), conn(asker, there)))
        }
        Over::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let at = listener.local_addr()?;
            let (here, there) = tokio::join!(TcpStream::connect(at), listener.accept());
            let (here, (there, _)) = (here?, there?);
            here.set_nodelay(true)?;
            there.set_nodelay(true)?;
            Ok((conn(giver, here), conn(asker, there)))
        }
        Over::Tls => {
            let mut listener = Wire::new(gives, wire::Options::default())?
                .listen(SocketAddr::from(([127, 0, 0, 1], 0)), tasks)?;
            let (dials, at) = (Wire::new(asks, wire::Options::default())?, listener.local_addr());
            let (here, there) = tokio::join!(dials.dial(giver, at), listener.accept());
            Ok((here?, there.ok_or("nobody came")?))
        }
    }
}

fn conn(peer: PeerId, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Conn {
    Conn { peer, remote: None, stream: Box::new(stream), binding: [0; 32] }
}
