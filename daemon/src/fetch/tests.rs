//! Fetches between real stores over real sessions; only the wire is a pipe in memory.

mod crowds;
mod impostors;
mod missed;
mod passed;
mod ranges;
mod strangers;
pub(super) mod tap;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::{Error, Event, Fetcher, Links, Notice, Options, Order, Parts, Request, Summary};
use crate::content::{CHUNK, ObjectId};
use crate::erasure::Geometry;
use crate::ingest::{AddOptions, Ingest};
use crate::peer::{
    CardSigner, Conduct, Conn, Dial, DialError, Discovery, Holder, Key, Keypair, Multiaddr, PeerAddr, PeerId,
    Provider,
};
use crate::serve::{self, Serve};
use crate::session::{self, Board, Giver, Network};
use crate::store::forgetful::{Fault, Forgetful, Plan};
use crate::store::{self, Disk, Real, Store};
use crate::support::pool::Pool;
use crate::support::rate::Limiter;
use crate::support::task::Tasks;
use tap::Tap;

/// Who answers at an address, how, and on which runtime.
type There = (PeerId, Arc<dyn Giver>, session::Options, Handle);

/// Who holds something, and where they answer; at port 0 no look-up reaches them.
type Holders = Vec<(PeerId, SocketAddr)>;

/// The nodes of a test and the pipes between them.
#[derive(Clone, Default)]
pub(super) struct Web {
    givers: Arc<Mutex<HashMap<SocketAddr, There>>>,
    /// Who is known to hold what; peers come from the request beside that.
    holders: Arc<Mutex<HashMap<Key, Holders>>>,
    /// Look-ups that do not end until they are let go.
    slow: Arc<Mutex<HashMap<Key, Vec<mpsc::Sender<Holder>>>>>,
    /// What listens on the way to an address.
    taps: Arc<Mutex<HashMap<SocketAddr, Arc<Tap>>>>,
    /// Nobody can be asked but those that a caller names.
    lonely: Arc<AtomicBool>,
    /// Nobody is dialled that peers tell of.
    shy: Arc<AtomicBool>,
    tasks: Tasks,
}

impl Web {
    /// Listens on every way to a node from now on.
    pub(super) fn tap(&self, node: &Node) -> Arc<Tap> {
        let tap = Arc::new(Tap::default());
        self.taps.lock().unwrap().insert(node.at, Arc::clone(&tap));
        tap
    }

    /// Lets everyone find a node as a holder of an object.
    pub(super) fn announce(&self, id: ObjectId, node: &Node) {
        let mut holders = self.holders.lock().unwrap();
        holders.entry(*id.as_bytes()).or_default().push((node.address.peer, node.at));
    }

    /// Look-ups of an object do not end from now on…
    pub(super) fn hold_up(&self, id: ObjectId) {
        self.slow.lock().unwrap().insert(*id.as_bytes(), Vec::new());
    }

    /// …until now. How many there were.
    pub(super) fn let_go(&self, id: ObjectId) -> usize {
        self.slow.lock().unwrap().remove(id.as_bytes()).map_or(0, |held| held.len())
    }

    /// A session with a node, to ask it for anything.
    pub(super) async fn ask(&self, node: &Node) -> session::Asker {
        let me = Keypair::generate_ed25519().public().to_peer_id();
        let end = End { web: self.clone(), me };
        let conn = end.dial(node.address.peer, node.at).await.unwrap();
        let options = session::Options::new(me, Network::new("test", None), Pool::new(2));
        session::Asker::open(conn, &options, &self.tasks).await.unwrap()
    }

    /// How many requests a node grants at once from now on.
    pub(super) fn grant(&self, node: &Node, requests: u32) {
        self.givers.lock().unwrap().get_mut(&node.at).unwrap().2.requests = requests;
    }

    /// Nobody answers there any more.
    pub(super) fn cut(&self, node: &Node) {
        self.givers.lock().unwrap().remove(&node.at);
    }
}

/// One end of the web: dials as `me`.
struct End {
    web: Web,
    me: PeerId,
}

impl Dial for End {
    fn dial(&self, peer: PeerId, at: SocketAddr) -> BoxFuture<'static, Result<Conn, DialError>> {
        let (web, me) = (self.web.clone(), self.me);
        Box::pin(async move {
            let giver = web
                .givers
                .lock()
                .unwrap()
                .get(&at)
                .filter(|(id, ..)| *id == peer)
                .map(|(_, g, o, h)| (g.clone(), o.clone(), h.clone()));
            let (giver, options, runtime) = giver.ok_or(DialError::TimedOut { at })?;
            let (mut here, there) = tokio::io::duplex(1 << 18);
            let tap = web.taps.lock().unwrap().get(&at).cloned();
            if let Some(tap) = tap {
                here = tap.listen(here, &web.tasks);
            }
            let remote = Some(at.ip());
            let conn = Conn { peer: me, remote, stream: Box::new(there), binding: [0; 32] };
            let tasks = web.tasks.clone();
            let _at_home = runtime.enter();
            web.tasks.spawn("giver", async move { session::give(conn, &options, giver, &tasks).await });
            Ok(Conn { peer, remote, stream: Box::new(here), binding: [0; 32] })
        })
    }
}

impl Discovery for Web {
    fn providers(&self, key: Key) -> mpsc::Receiver<Holder> {
        let (found, providers) = mpsc::channel(128);
        for (peer, at) in self.holders.lock().unwrap().get(&key).into_iter().flatten() {
            let there = Provider { peer: *peer, chunk: vec![*at], dht: Vec::new() };
            let absent = || Holder::Missed(*peer, Some("it is gone".to_owned()));
            found.try_send(if at.port() == 0 { absent() } else { Holder::Found(there) }).unwrap();
        }
        if let Some(held) = self.slow.lock().unwrap().get_mut(&key) {
            held.push(found);
        }
        providers
    }

    fn chunk_addresses(&self, _: PeerId, _: Vec<Multiaddr>) -> BoxFuture<'static, Vec<SocketAddr>> {
        Box::pin(async { Vec::new() })
    }

    fn vouch(&self, _: &Multiaddr) {}

    fn may_dial(&self, at: SocketAddr, teller: Option<IpAddr>) -> bool {
        assert!(at.ip().is_loopback() && teller.is_some_and(|ip| ip.is_loopback()));
        !self.shy.load(Ordering::Relaxed)
    }

    fn others(&self) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(!self.lonely.load(Ordering::Relaxed)))
    }
}

/// A node with a store of its own.
pub(super) struct Node {
    pub(super) store: Store,
    pub(super) ingest: Ingest,
    pub(super) fetcher: Fetcher,
    pub(super) address: PeerAddr,
    /// What is to be announced.
    pub(super) notices: AsyncMutex<mpsc::Receiver<Notice>>,
    at: SocketAddr,
    _folder: Option<TempDir>,
}

impl Node {
    pub(super) fn new(web: &Web, number: u16) -> Self {
        let store = store::Options { reserve: 0, ..store::Options::default() };
        // So few that most lists are read again.
        Self::with(web, number, &store, Options { lists: 16 << 10, ..Options::default() })
    }

    pub(super) fn with(web: &Web, number: u16, store: &store::Options, options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Real::new(folder.path()));
        Self { _folder: Some(folder), ..Self::open(web, number, disk, store, options) }
    }

    pub(super) fn on(web: &Web, number: u16, disk: Arc<dyn Disk>) -> Self {
        let store = store::Options { reserve: 0, ..store::Options::default() };
        Self::open(web, number, disk, &store, Options::default())
    }

    fn open(web: &Web, number: u16, disk: Arc<dyn Disk>, store: &store::Options, options: Options) -> Self {
        let key = Keypair::generate_ed25519();
        let (me, at) = (key.public().to_peer_id(), SocketAddr::from(([127, 0, 0, 1], number)));
        let pool = Pool::new(4);
        let store = Store::open(store, disk, pool.clone()).unwrap();
        let card = CardSigner::new(key.clone(), "test", &[at]);
        let session = session::Options::new(me, Network::new("test", None), pool.clone());
        let session = session::Options { card, ..session };
        let (notices, noticed) = mpsc::channel(64);
        let (board, limiter) = (Board::new(), Arc::new(Limiter::new(0)));
        let bounds = serve::Bounds::new(limiter.clone());
        let serve = Serve::new(serve::Options::default(), store.clone(), board.clone(), bounds);
        web.givers.lock().unwrap().insert(at, (me, Arc::new(serve), session.clone(), Handle::current()));
        let links = Links::new(Arc::new(End { web: web.clone(), me }), session, web.tasks.clone());
        let fetcher = Fetcher::new(Parts {
            options,
            store: store.clone(),
            pool: pool.clone(),
            tasks: web.tasks.clone(),
            links,
            discovery: Arc::new(web.clone()),
            download: limiter,
            conduct: Conduct::default(),
            board,
            notices,
        });
        let ingest = Ingest::new(store.clone(), pool, key, web.tasks.clone());
        let (address, notices) = (PeerAddr::chunk(me, at), AsyncMutex::new(noticed));
        Self { store, ingest, fetcher, address, notices, at, _folder: None }
    }

    pub(super) async fn add(&self, data: &[u8], parity: Option<Geometry>) -> ObjectId {
        let mut adding = self.ingest.begin(AddOptions { parity, ..AddOptions::default() });
        for part in data.chunks(700_001) {
            adding.write(Bytes::copy_from_slice(part)).await.unwrap();
        }
        let added = adding.finish(data.len() as u64).await.unwrap();
        assert_eq!(added.id.as_bytes(), blake3::hash(data).as_bytes());
        added.id
    }

    /// Fetches and puts the bytes where their offsets say.
    async fn fetch(&self, id: ObjectId, from: &[&Node], order: Order) -> Result<(Vec<u8>, Summary), Error> {
        let peers = from.iter().map(|node| node.address.clone()).collect();
        let request = Request { peers, order, ..request(id) };
        collect(self.fetcher.fetch(request).events, order).await
    }
}

/// For all of an object, in order, from whoever is found.
fn request(id: ObjectId) -> Request {
    let (peers, stall, alone, order) = (Vec::new(), Duration::from_secs(3), super::ALONE, Order::InOrder);
    Request { id, peers, pin: None, name: None, stall, alone, order, range: None, into: None }
}

async fn collect(
    mut events: mpsc::Receiver<Result<Event, Error>>,
    order: Order,
) -> Result<(Vec<u8>, Summary), Error> {
    let first = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
    match first.expect("a fetch hangs").expect("no end")? {
        Event::Started { size, .. } => finish(events, vec![0xee; size as usize], order).await,
        other => panic!("{other:?} before Started"),
    }
}

async fn finish(
    mut events: mpsc::Receiver<Result<Event, Error>>,
    mut out: Vec<u8>,
    order: Order,
) -> Result<(Vec<u8>, Summary), Error> {
    let mut next = 0;
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
        let (offset, bytes) = match event.expect("a fetch hangs").expect("no end")? {
            Event::Data { offset, bytes } => (offset, bytes),
            Event::Zeros { offset, length } => (offset, Bytes::from(vec![0; length as usize])),
            Event::Progress(_) => continue,
            Event::Finished(summary) => return Ok((out, summary)),
            Event::Started { .. } => panic!("started twice"),
        };
        assert!(order == Order::Any || offset == next, "{offset} came where {next} was due");
        next = offset + bytes.len() as u64;
        out[offset as usize..next as usize].copy_from_slice(&bytes);
    }
}

pub(super) fn sample(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_shape_move_in_both_orders() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    for length in [0, 1, 1024, 1025, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 20 * CHUNK + 7] {
        let mut data = sample(length);
        if length > 4 * CHUNK {
            data[2 * CHUNK..3 * CHUNK].fill(0);
        }
        let id = giver.add(&data, Some(Geometry::DEFAULT)).await;
        let order = if length % 2 == 0 { Order::Any } else { Order::InOrder };
        let (got, summary) = taker.fetch(id, &[&giver], order).await.unwrap();
        assert!(got == data, "{length}");
        assert_eq!(summary.local, if length > 4 * CHUNK { CHUNK as u64 } else { 0 });
        // Again: everything is here.
        let (got, summary) = taker.fetch(id, &[], Order::InOrder).await.unwrap();
        assert!(got == data && summary.local == length as u64 && summary.peers.is_empty(), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_holders_share_the_work_and_one_that_has_rotted_does_no_harm() {
    let web = Web::default();
    let data = sample(40 * CHUNK + 3);
    let holders: Vec<Node> = (1..5).map(|number| Node::new(&web, number)).collect();
    let mut id = ObjectId::EMPTY;
    for holder in &holders {
        id = holder.add(&data, None).await;
    }
    let taker = Node::new(&web, 9);
    let from: Vec<&Node> = holders.iter().collect();
    let (got, summary) = taker.fetch(id, &from, Order::Any).await.unwrap();
    assert!(got == data);
    assert_eq!(summary.peers.len(), 4, "{summary:?}");
    assert_eq!(summary.peers.iter().map(|(_, bytes)| bytes).sum::<u64>(), data.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parity_fills_what_nobody_has_and_five_of_a_stripe_are_named() {
    let web = Web::default();
    let (giver, taker, late) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    let data = sample(33 * CHUNK + 9);
    let id = giver.add(&data, Some(Geometry::DEFAULT)).await;
    let manifest = giver.store.manifest(&id).await.unwrap().unwrap();
    // Stripes of 34 chunks at 16+4: 16, 9, 9. Four of each are lost.
    for index in [0, 3, 5, 15, 16, 17, 18, 24, 25, 30, 31, 33] {
        giver.store.lose(&manifest.chunk(index).unwrap().id);
    }
    let (got, summary) = taker.fetch(id, &[&giver], Order::InOrder).await.unwrap();
    assert!(got == data);
    assert_eq!(summary.rebuilt, 12);
    // Who asks later is told of who asked before, and would get it from there.
    web.givers.lock().unwrap().remove(&taker.at);
    giver.store.lose(&manifest.chunk(7).unwrap().id);
    let error = late.fetch(id, &[&giver], Order::Any).await.unwrap_err();
    let Error::Stalled { missing, holders, .. } = &error else { panic!("{error}") };
    assert!(holders.starts_with("; "), "{holders:?}");
    assert_eq!(missing, "chunks 0, 3, 5, 7, 15 (5 of 34)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_moves_only_the_rest_and_a_range_only_its_chunks() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let data = sample(30 * CHUNK);
    let id = giver.add(&data, None).await;
    let range = Some((3 * CHUNK as u64 + 5, 10 * CHUNK as u64));
    let request = Request { peers: vec![giver.address.clone()], range, ..request(id) };
    let mut events = taker.fetcher.fetch(request).events;
    let mut part = Vec::new();
    while let Some(event) = events.recv().await {
        if let Event::Data { bytes, .. } = event.unwrap() {
            part.extend_from_slice(&bytes);
        }
    }
    assert!(part == data[3 * CHUNK + 5..13 * CHUNK + 5]);
    let (got, summary) = taker.fetch(id, &[&giver], Order::Any).await.unwrap();
    assert!(got == data);
    assert_eq!(summary.local, 11 * CHUNK as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rebuilt_here_is_waited_for_when_there_is_nobody() {
    let web = Web::default();
    let node = Node::new(&web, 1);
    let data = sample(48 * CHUNK);
    let id = node.add(&data, Some(Geometry::DEFAULT)).await;
    let manifest = node.store.manifest(&id).await.unwrap().unwrap();
    let lost: Vec<u64> = (0..48).filter(|index| index % 4 == 0).collect();
    lost.iter().for_each(|index| node.store.lose(&manifest.chunk(*index).unwrap().id));
    let request = Request { stall: Duration::from_secs(60), alone: Duration::ZERO, ..request(id) };
    // It would not wait for a moment for peers.
    let mut events = node.fetcher.fetch(request).events;
    let mut got = Vec::new();
    while let Some(event) = events.recv().await {
        if let Event::Data { bytes, .. } = event.unwrap() {
            got.extend_from_slice(&bytes);
        }
    }
    assert!(got == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_while_it_is_read_is_not_called_damaged() {
    let web = Web::default();
    let node = Node::new(&web, 1);
    let id = node.add(&sample(40 * CHUNK), None).await;
    let request = Request { stall: Duration::from_secs(1), ..request(id) };
    let mut events = node.fetcher.fetch(request).events;
    assert!(matches!(events.recv().await, Some(Ok(Event::Started { .. }))));
    node.store.remove(&id, 0, true).await.unwrap();
    let error = finish(events, vec![0; 40 * CHUNK], Order::InOrder).await.unwrap_err();
    assert!(matches!(error, Error::Removed(removed) if removed == id), "{error}");
    let other = node.add(&sample(40 * CHUNK), None).await;
    node.store.lose(&node.store.manifest(&other).await.unwrap().unwrap().chunk(7).unwrap().id);
    let error = node.fetch(other, &[], Order::InOrder).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// Each read of the disk fails once, as a sector does that went bad: the caller gets the right bytes all the same.
/// Parity makes up for chunks, a peer for a manifest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sector_that_cannot_be_read_is_made_up_for() {
    let (web, disk) = (Web::default(), Forgetful::default());
    let data = sample(6 * CHUNK + 9);
    let id = Node::on(&web, 1, Arc::new(disk.clone())).add(&data, Some(Geometry::DEFAULT)).await;
    let peer = Node::new(&web, 2);
    peer.add(&data, None).await;
    let (mut rebuilt, mut asked) = (0, 0);
    for read in 0.. {
        let disk = disk.crash();
        let node = Node::on(&web, 3, Arc::new(disk.clone()));
        node.store.recovered().await.unwrap();
        let fault = Fault::Errno(rustix::io::Errno::IO.raw_os_error());
        disk.plan(Plan { reads: Some((read, read + 1, fault)), ..Plan::default() });
        let alone = node.fetch(id, &[], Order::InOrder).await;
        let (got, summary) = match alone {
            Ok(done) => done,
            Err(error) => {
                assert!(read < 2 && matches!(error, Error::Damaged { .. }), "read {read}: {error}");
                asked += 1;
                node.fetch(id, &[&peer], Order::InOrder).await.unwrap()
            }
        };
        assert!(got == data, "read {read}");
        rebuilt += summary.rebuilt;
        if disk.reads() <= read {
            assert!(asked == 2 && rebuilt >= 7, "{asked} of a manifest, {rebuilt} chunks, {read} reads");
            break;
        }
    }
}
