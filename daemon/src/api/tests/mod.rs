//! The API over a real socket and a real store, of a node that knows nobody.

mod adding;
mod jobs;
mod passing;
mod reading;
mod roles;
mod serving;
mod trees;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use casd_proto::v1::add_request::Part;
use casd_proto::v1::network_client::NetworkClient;
use casd_proto::v1::objects_client::ObjectsClient;
use casd_proto::{Failure, client, v1};
use futures::future::BoxFuture;
use futures::stream;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::{Access, Error, serve, socket_beside};
use crate::content::{CHUNK, Description};
use crate::fetch::{self, Fetcher, Links};
use crate::ingest::Ingest;
use crate::node::{About, Limits, Neighbours, Node, Parts, Rates};
use crate::peer::{
    Announce, Announced, Announcing, Catalogue, CataloguePage, Company, Conduct, Conn, Dial, DialError,
    Discovery, Holder, Key, Keypair, Kind, Multiaddr, PeerId, Reachability, Told, Unconnected,
};
use crate::session::{self, Board, Network};
use crate::store::{self, Real, Store};
use crate::support::pool::Pool;
use crate::support::rate::Limiter;
use crate::support::task::Tasks;
use crate::upkeep::{self, Announcer};

/// A network that nobody else is in.
struct Nobody;

impl Discovery for Nobody {
    fn providers(&self, _: Key) -> mpsc::Receiver<Holder> {
        mpsc::channel(1).1
    }

    fn chunk_addresses(&self, _: PeerId, _: Vec<Multiaddr>) -> BoxFuture<'static, Vec<SocketAddr>> {
        Box::pin(async { Vec::new() })
    }

    fn vouch(&self, _: &Multiaddr) {}

    fn others(&self) -> BoxFuture<'static, bool> {
        Box::pin(async { false })
    }
}

impl Dial for Nobody {
    fn dial(&self, _: PeerId, at: SocketAddr) -> BoxFuture<'static, Result<Conn, DialError>> {
        Box::pin(async move { Err(DialError::TimedOut { at }) })
    }
}

impl Announce for Nobody {
    fn hold(&self, _: &[Key], _: Kind) -> usize {
        0
    }

    fn place(&self, _: Key) -> BoxFuture<'static, Announced> {
        Box::pin(async { Announced::default() })
    }

    fn release(&self, _: &[Key]) {}

    fn publish(&self, _: Vec<Description>, _: bool) -> usize {
        0
    }

    fn withdraw(&self, _: &[Key]) {}

    fn tell(&self, _: Key, _: Option<Description>) -> BoxFuture<'static, Announced> {
        Box::pin(async { Announced::default() })
    }

    fn begin_count(&self) {}

    fn end_count(&self) {}

    fn company(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn announcing(&self) -> Announcing {
        Announcing::default()
    }
}

impl Catalogue for Nobody {
    fn about(&self, _: Key) -> BoxFuture<'static, Vec<Told>> {
        Box::pin(async { Vec::new() })
    }

    fn kept(&self, _: &str, _: Option<Key>) -> CataloguePage {
        CataloguePage::default()
    }

    fn published_by(
        &self,
        _: PeerId,
        _: String,
        _: Option<Key>,
    ) -> BoxFuture<'static, Result<CataloguePage, String>> {
        Box::pin(async { Err("nobody is there".to_owned()) })
    }
}

impl Neighbours for Nobody {
    fn peers(&self) -> BoxFuture<'static, Vec<(PeerId, Vec<Multiaddr>, bool)>> {
        Box::pin(async { Vec::new() })
    }

    fn known(&self) -> BoxFuture<'static, Vec<(PeerId, bool)>> {
        Box::pin(async { Vec::new() })
    }

    fn joined(&self) -> BoxFuture<'static, bool> {
        Box::pin(async { false })
    }

    fn connect(&self, _: Multiaddr) -> BoxFuture<'static, Result<PeerId, Unconnected>> {
        Box::pin(async { Err(Unconnected::Unreachable("nobody is there".to_owned())) })
    }

    fn listen(&self) -> Vec<Multiaddr> {
        Vec::new()
    }

    fn company(&self) -> BoxFuture<'static, Company> {
        Box::pin(async { Company { is_alone: true, ..Company::default() } })
    }

    fn reachability(&self) -> Reachability {
        Reachability::default()
    }
}

/// A node that serves its API. Ends when it is dropped.
struct Daemon {
    folder: TempDir,
    tasks: Tasks,
    api: JoinHandle<Option<Result<(), Error>>>,
    channel: Channel,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Daemon {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let socket = folder.path().join("casd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let files = UnixListener::bind(socket_beside(&socket)).unwrap();
        let served = serve(
            listener,
            Some(files),
            node(&folder, &tasks),
            Access::new(rustix::process::geteuid().as_raw()),
            tasks.token(),
        );
        let api = tasks.spawn("api", served);
        let channel = client::connect(&socket).await.unwrap();
        Self { folder, tasks, api, channel }
    }

    fn objects(&self) -> ObjectsClient<Channel> {
        client::objects(self.channel.clone())
    }

    fn network(&self) -> NetworkClient<Channel> {
        client::network(self.channel.clone())
    }

    /// Adds an object, each message with the bytes of one of `parts`.
    async fn add(&self, name: &str, parts: Vec<Bytes>) -> Result<v1::AddedObject, Status> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let start = v1::AddStart { name: name.to_owned(), ..v1::AddStart::default() };
        let messages = [Part::Start(start)]
            .into_iter()
            .chain(parts.into_iter().map(|data| Part::Data(v1::AddData { data })))
            .chain([Part::Finish(v1::AddFinish { length })]);
        self.send(messages.collect()).await
    }

    /// Sends the messages of an add, whatever they are.
    async fn send(&self, parts: Vec<Part>) -> Result<v1::AddedObject, Status> {
        let messages = parts.into_iter().map(|part| v1::AddRequest { part: Some(part) });
        let added = self.objects().add(stream::iter(messages.collect::<Vec<_>>())).await?;
        Ok(added.into_inner().object.unwrap())
    }

    /// What `ls TEXT` gives; everything for an empty text.
    async fn list(&self, text: &str) -> Result<Vec<v1::ListedObject>, Status> {
        let request = v1::ListRequest { object: text.to_owned(), parts: false };
        let pages = all(self.objects().list(request).await?.into_inner()).await?;
        Ok(pages.into_iter().flat_map(|page| page.objects).collect())
    }

    async fn cat(&self, object: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Status> {
        let request = v1::CatRequest { object: object.to_owned(), offset, length };
        let messages = all(self.objects().cat(request).await?.into_inner()).await?;
        Ok(messages.into_iter().flat_map(|message| message.data).collect())
    }
}

fn node(folder: &TempDir, tasks: &Tasks) -> Node {
    let (pool, key) = (Pool::new(2), Keypair::generate_ed25519());
    let peer = key.public().to_peer_id();
    let options = store::Options { reserve: 0, index_cache: 4 << 20, ..store::Options::default() };
    let store =
        Store::open(&options, Arc::new(Real::new(folder.path().join("state"))), pool.clone()).unwrap();
    let session = session::Options::new(peer, Network::new("test", None), pool.clone());
    let fetcher = Fetcher::new(fetch::Parts {
        options: fetch::Options::default(),
        store: store.clone(),
        pool: pool.clone(),
        tasks: tasks.clone(),
        links: Links::new(Arc::new(Nobody), session, tasks.clone()),
        discovery: Arc::new(Nobody),
        download: Arc::new(Limiter::new(0)),
        conduct: Conduct::default(),
        board: Board::new(),
        notices: mpsc::channel(8).0,
    });
    let quiet = upkeep::Options { policy: upkeep::Policy::None, ..upkeep::Options::default() };
    let rebuilder = upkeep::Rebuilder { store: store.clone(), pool: pool.clone(), key: key.clone() };
    let mender = upkeep::Mender { rebuilder, fetcher: fetcher.clone() };
    let never = upkeep::ScrubOptions { every: Duration::ZERO, file: folder.path().join("state/cache/scrub") };
    Node::new(Parts {
        scrubber: upkeep::Scrubber::start(never, mender, tasks),
        announcer: Announcer::start(quiet, store.clone(), Arc::new(Nobody), tasks),
        ingest: Ingest::new(store.clone(), pool, key, tasks.clone()),
        store,
        fetcher,
        discovery: Arc::new(Nobody),
        catalogue: Arc::new(Nobody),
        neighbours: Arc::new(Nobody),
        visitors: crate::serve::Visitors::default(),
        conduct: Conduct::default(),
        limits: Limits::new(Rates::default(), Arc::default()),
        about: About {
            peer,
            name: "alice".to_owned(),
            network: "test".to_owned(),
            is_private_network: false,
            is_client: false,
            chunk: vec!["127.0.0.1:9000".parse().unwrap()],
            parity: None,
            private: false,
            publish: false,
            started: Instant::now(),
        },
        tasks: tasks.clone(),
        jobs: 4,
    })
}

/// Bytes that differ by seed.
fn sample(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// The bytes in messages of a chunk, the last one shorter.
fn in_chunks(bytes: &Bytes) -> Vec<Bytes> {
    (0..bytes.len()).step_by(CHUNK).map(|at| bytes.slice(at..bytes.len().min(at + CHUNK))).collect()
}

fn id_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_string()
}

/// The messages of a stream up to its end or its error.
async fn all<T>(mut messages: tonic::Streaming<T>) -> Result<Vec<T>, Status> {
    let mut got = Vec::new();
    while let Some(message) = messages.message().await? {
        got.push(message);
    }
    Ok(got)
}

/// The reason of a call's failure.
fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    Failure::from(&result.unwrap_err()).reason
}

/// Runs a test's work, which must end within a minute.
async fn bounded(work: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_mins(1), work).await.unwrap();
}
