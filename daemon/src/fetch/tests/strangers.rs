//! Peers that lie, that take and do not read, and that ask for what is not theirs to know.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::content::{ChunkRef, Place};
use crate::peer::network_id;
use crate::session::Answer;
use crate::session::frames::{Ask, Frame, Hello, Role};

/// Nodes that give what `giver` gives, but for a bit in each slice, and are found as holders of `id`.
fn liars(web: &Web, id: ObjectId, giver: &Node, count: u16) -> Vec<Arc<Tap>> {
    let tap = |number| {
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let (at, tap) = (SocketAddr::from(([127, 0, 0, 3], 1000 + number)), Arc::new(Tap::default()));
        tap.lie(usize::MAX);
        let mut givers = web.givers.lock().unwrap();
        let (_, answers, _, runtime) = givers[&giver.at].clone();
        let session = session::Options::new(peer, Network::new("test", None), Pool::new(1));
        givers.insert(at, (peer, answers, session, runtime));
        web.holders.lock().unwrap().entry(*id.as_bytes()).or_default().push((peer, at));
        web.taps.lock().unwrap().insert(at, Arc::clone(&tap));
        tap
    };
    (0..count).map(tap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_liars_of_ten_are_asked_for_little_and_nothing_false_is_taken() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    for chunks in [0, 40] {
        let data = sample(chunks * CHUNK + 9000);
        let id = giver.add(&data, None).await;
        let liars = liars(&web, id, &giver, 9);
        // The last that is told.
        web.announce(id, &giver);
        let request = Request { stall: Duration::from_secs(50), order: Order::Any, ..request(id) };
        let (got, summary) = collect(taker.fetcher.fetch(request).events, Order::Any).await.unwrap();
        assert!(got == data);
        let true_bytes = summary.peers.iter().find(|(peer, _)| *peer == giver.address.peer);
        assert!(true_bytes.is_some_and(|(_, bytes)| *bytes == data.len() as u64), "{summary:?}");
        for liar in liars {
            // What is asked of one that nobody knows yet; the first answer is the last.
            assert!(liar.wanted().len() <= 4, "{} chunks", liar.wanted().len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_who_ask_for_all_they_may_and_do_not_read_keep_nobody_from_being_served() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let data = sample(8 * CHUNK);
    let id = giver.add(&data, None).await;
    let chunk = giver.store.manifest(&id).await.unwrap().unwrap().chunk(0).unwrap();
    let network = network_id("test");
    let hello = Hello { role: Role::Asker, least: 1, most: 1, network, requests: 0, bytes: 0, proof: None };
    let mut says = bytes::BytesMut::new();
    Frame::Hello(hello).encode(&mut says);
    (0..64).for_each(|request| Frame::Ask(request, Ask::Chunk(chunk)).encode(&mut says));
    let mut greedy = Vec::new();
    for _ in 0..50 {
        let me = Keypair::generate_ed25519().public().to_peer_id();
        let end = End { web: web.clone(), me };
        let mut conn = end.dial(giver.address.peer, giver.at).await.unwrap();
        conn.stream.write_all(&says).await.unwrap();
        greedy.push(conn);
    }
    // Each has been given something, or heard that it is others' turn, and takes no more; what all share in memory, and
    // every place, has been taken by then.
    for conn in &mut greedy {
        conn.stream.read_exact(&mut [0; 800]).await.unwrap();
    }
    let request = Request {
        peers: vec![giver.address.clone()],
        stall: Duration::from_secs(30),
        order: Order::Any,
        ..request(id)
    };
    let (got, summary) = collect(taker.fetcher.fetch(request).events, Order::Any).await.unwrap();
    assert!(got == data && summary.peers.len() == 1, "{summary:?}");
}

/// B12. Answers differ in nothing, and neither does what they cost: nothing is read for any of them, so that the time
/// until the answer says nothing of what is here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_held_and_what_is_private_are_not_found_and_nothing_is_read() {
    let (web, disk) = (Web::default(), Forgetful::default());
    let node = Node::on(&web, 1, Arc::new(disk.clone()));
    let public = node.add(&sample(2 * CHUNK), None).await;
    let (secret, parity) = (sample(3 * CHUNK + 9), Some(Geometry::DEFAULT));
    let mut adding = node.ingest.begin(AddOptions { private: true, parity, ..AddOptions::default() });
    adding.write(secret.clone().into()).await.unwrap();
    let private = adding.finish(secret.len() as u64).await.unwrap().id;
    let manifest = node.store.manifest(&private).await.unwrap().unwrap();
    let chunk = |index| manifest.chunk(index).unwrap();
    let absent = ChunkRef { id: crate::content::ChunkId::from_bytes([5; 32]), ..chunk(1) };
    let lone = ChunkRef { id: private.only_chunk(), place: Place::Root, length: 9 };
    let asker = web.ask(&node).await;
    let known = node.store.manifest(&public).await.unwrap().unwrap().chunk(0).unwrap();
    let before = disk.reads();
    assert!(asker.want(known).await.unwrap().found().is_some(), "what is public is given");
    assert!(disk.reads() > before, "reads are counted");
    let before = disk.reads();
    for wanted in [absent, lone, chunk(0), chunk(1), chunk(3)] {
        assert_eq!(asker.want(wanted).await, Ok(Answer::NotFound), "{wanted:?}");
    }
    for object in [ObjectId::from_bytes([5; 32]), private] {
        assert_eq!(asker.top(&object).await, Ok(Answer::NotFound));
        assert_eq!(asker.page(manifest.top(), 0).await, Ok(Answer::NotFound));
        assert_eq!(asker.parity(&object).await, Ok(Answer::NotFound));
        assert_eq!(asker.haves(object).await.unwrap().next().await, None);
        for want in asker.want_run(object, 1, &[chunk(1), chunk(2)]).await.unwrap() {
            assert_eq!(want.await, Ok(Answer::NotFound));
        }
    }
    assert_eq!(disk.reads(), before);
    assert!(!asker.is_closed(), "to ask is no fault");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_long_object_it_is_told_which_chunks_are_there() {
    let web = Web::default();
    let node = Node::new(&web, 1);
    // Two GiB and a bit, of which all but two chunks are zeros.
    let (zeros, some) = (Bytes::from(vec![0; CHUNK]), Bytes::from(sample(CHUNK)));
    let mut adding = node.ingest.begin(AddOptions::default());
    for index in 0..2100 {
        let bytes = if [5, 2060].contains(&index) { some.clone() } else { zeros.clone() };
        adding.write(bytes).await.unwrap();
    }
    let id = adding.finish(2100 * CHUNK as u64).await.unwrap().id;
    let asker = web.ask(&node).await;
    let whole = asker.haves(id).await.unwrap().next().await;
    assert_eq!(whole, Some(session::Have::Whole));
    node.store.lose(&node.store.manifest(&id).await.unwrap().unwrap().chunk(2060).unwrap().id);
    let told = asker.haves(id).await.unwrap().next().await.unwrap();
    assert!(told.indexes().eq((0..2100).filter(|index| *index != 2060)), "{told:?}");
}
