//! Those who fetch the same object from one holder learn of each other from it, and feed each other.

use tokio::sync::OwnedSemaphorePermit;

use super::*;
use crate::content::{Chunk, ChunkRef};
use crate::peer::{Card, network_id};
use crate::session::{Answer, Caller, Fellow, Rumour, Subscription, Turn};

/// Gives what another one gives, and tells whoever asks of these, and then that a chunk is being given.
struct Gossip {
    giver: Arc<dyn Giver>,
    fellows: Vec<Fellow>,
}

impl Giver for Gossip {
    fn top(&self, peer: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        self.giver.top(peer, object)
    }

    fn page(&self, peer: PeerId, object: ObjectId, index: u32) -> BoxFuture<'_, Answer<Bytes>> {
        self.giver.page(peer, object, index)
    }

    fn parity(&self, peer: PeerId, object: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        self.giver.parity(peer, object)
    }

    fn parity_page(&self, peer: PeerId, object: ObjectId, digest: [u8; 32]) -> BoxFuture<'_, Answer<Bytes>> {
        self.giver.parity_page(peer, object, digest)
    }

    fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.giver.room()
    }

    fn chunk(&self, peer: PeerId, chunk: ChunkRef) -> BoxFuture<'_, Answer<Chunk>> {
        self.giver.chunk(peer, chunk)
    }

    fn resolve(&self, peer: PeerId, object: ObjectId, index: u64) -> BoxFuture<'_, Option<ChunkRef>> {
        self.giver.resolve(peer, object, index)
    }

    fn haves(&self, peer: PeerId, object: ObjectId) -> BoxFuture<'_, Option<Subscription>> {
        self.giver.haves(peer, object)
    }

    fn begin(&self, peer: PeerId) -> Result<Turn, Duration> {
        self.giver.begin(peer)
    }

    fn crowd(&self, _: Caller, _: ObjectId) -> Option<mpsc::Receiver<Rumour>> {
        let (to, rumours) = mpsc::channel(self.fellows.len() + 1);
        let fellows = self.fellows.iter().cloned().map(Rumour::Fellow);
        fellows.chain([Rumour::Given(0)]).for_each(|rumour| to.try_send(rumour).unwrap());
        Some(rumours)
    }

    fn pace(&self, peer: PeerId, most: usize) -> BoxFuture<'_, usize> {
        self.giver.pace(peer, most)
    }
}

impl Web {
    /// A node tells whoever asks of these from now on.
    pub(in crate::fetch) fn gossip(&self, node: &Node, fellows: Vec<Fellow>) {
        let mut givers = self.givers.lock().unwrap();
        let (_, giver, ..) = givers.get_mut(&node.at).unwrap();
        *giver = Arc::new(Gossip { giver: Arc::clone(giver), fellows });
    }
}

/// A node gives no more than so many bytes a second from now on.
fn slow_down(web: &Web, node: &Node, rate: u64) {
    let bounds = serve::Bounds::new(Arc::new(Limiter::new(rate)));
    let serve = Serve::new(serve::Options::default(), node.store.clone(), Board::new(), bounds);
    let mut givers = web.givers.lock().unwrap();
    let (_, giver, ..) = givers.get_mut(&node.at).unwrap();
    *giver = Arc::new(serve);
}

/// Three fetch an object of so many bytes from one holder; nobody else is found. How much the holder gives, and with
/// how many each of them has a session afterwards.
async fn three_of_one(web: &Web, length: usize) -> (u64, Vec<usize>) {
    let giver = Node::new(web, 1);
    let data = sample(length);
    let id = giver.add(&data, None).await;
    slow_down(web, &giver, 8 << 20);
    let takers: Vec<Node> = (2..5).map(|number| Node::new(web, number)).collect();
    let from = [&giver];
    let fetches = takers.iter().map(|taker| taker.fetch(id, &from, Order::Any));
    let mut given = 0;
    for fetched in futures::future::join_all(fetches).await {
        let (got, summary) = fetched.unwrap();
        assert!(got == data);
        let of_giver = summary.peers.iter().filter(|(peer, _)| *peer == giver.address.peer);
        given += of_giver.map(|(_, bytes)| bytes).sum::<u64>();
    }
    (given, takers.iter().map(|taker| taker.fetcher.links().len()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_who_fetch_from_one_holder_feed_each_other() {
    let length = 24 * CHUNK;
    let (given, sessions) = three_of_one(&Web::default(), length).await;
    assert!((length as u64..2 * length as u64).contains(&given), "{given} of {length}");
    assert_eq!(sessions, [3; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_rule_forbids_is_not_dialled_whoever_tells_of_it() {
    let web = Web::default();
    web.shy.store(true, Ordering::Relaxed);
    let length = 6 * CHUNK;
    let (given, sessions) = three_of_one(&web, length).await;
    assert_eq!((given, sessions), (3 * length as u64, vec![1; 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_is_refused_others_do_not_hear_to_be_given() {
    let web = Web::default();
    let giver = Node::new(&web, 1);
    let id = giver.add(&sample(3 * CHUNK), None).await;
    let manifest = giver.store.manifest(&id).await.unwrap().unwrap();
    let bounds = serve::Bounds::new(Arc::new(Limiter::new(0)));
    bounds.set(serve::Giving { slots: 1, ..serve::Giving::default() });
    let serve = Serve::new(serve::Options::default(), giver.store.clone(), Board::new(), bounds);
    let card = || {
        let signer = CardSigner::new(Keypair::generate_ed25519(), "test", &[giver.at]).unwrap();
        Card::check(&signer.sign(1).unwrap(), &network_id("test"), 1).unwrap()
    };
    let (one, two) = (card(), card());
    let enter = |card: &Card| {
        let caller = Caller { peer: card.peer(), remote: None, card: Some(card.clone()) };
        serve.crowd(caller, id).unwrap()
    };
    let (mut first, mut second) = (enter(&one), enter(&two));
    let (one, two) = (one.peer(), two.peer());
    // It is asked what the object is before it is asked for chunks.
    assert!(matches!(serve.top(one, id).await, Answer::Found(_)));
    let chunk = |index| manifest.chunk(index).unwrap();
    assert!(matches!(serve.chunk(one, chunk(0)).await, Answer::Found(_)));
    assert!(matches!(serve.chunk(two, chunk(1)).await, Answer::Busy(_)), "there is one place");
    assert_eq!((first.try_recv().ok(), second.try_recv().ok()), (None, Some(Rumour::Given(0))));
    assert!(matches!(serve.chunk(one, chunk(1)).await, Answer::Found(_)));
    assert_eq!(second.try_recv().ok(), Some(Rumour::Given(1)), "nobody has been told of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_part_or_keeps_it_private_shows_no_card() {
    let web = Web::default();
    let [giver, taker, keeper] = [1, 2, 3].map(|number| Node::new(&web, number));
    let data = sample(3 * CHUNK + 9);
    let id = giver.add(&data, None).await;
    let tap = web.tap(&giver);
    let (peers, order) = (vec![giver.address.clone()], Order::Any);
    let part = Request { peers, order, range: Some((5, CHUNK as u64)), ..request(id) };
    collect(taker.fetcher.fetch(part).events, order).await.unwrap();
    assert_eq!(tap.cards(), 0, "it is announced nowhere");
    taker.fetch(id, &[&giver], order).await.unwrap();
    assert_eq!(tap.cards(), 1);
    // What is private is asked for when it has rotted.
    let mut adding = keeper.ingest.begin(AddOptions { private: true, ..AddOptions::default() });
    for part in data.chunks(CHUNK) {
        adding.write(Bytes::copy_from_slice(part)).await.unwrap();
    }
    adding.finish(data.len() as u64).await.unwrap();
    let manifest = giver.store.manifest(&id).await.unwrap().unwrap();
    keeper.store.lose(&manifest.chunk(2).unwrap().id);
    let (got, summary) = keeper.fetch(id, &[&giver], order).await.unwrap();
    assert!(got == data && summary.peers.len() == 1);
    assert_eq!(tap.cards(), 1);
}
