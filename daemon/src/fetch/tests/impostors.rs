//! One holder among many who say that they hold an object and have nothing of it.

use super::*;

/// A hundred nodes that are found as holders of `id`, and have nothing.
fn crowd(web: &Web, id: ObjectId, empty: &Node) {
    for number in 0..100 {
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let at = SocketAddr::from(([127, 0, 0, 2], 1000 + number));
        let mut givers = web.givers.lock().unwrap();
        let (_, giver, _, runtime) = givers[&empty.at].clone();
        let session = session::Options::new(peer, Network::new("test", None), Pool::new(1));
        givers.insert(at, (peer, giver, session, runtime));
        web.holders.lock().unwrap().entry(*id.as_bytes()).or_default().push((peer, at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_nothing_makes_room_for_who_has_something() {
    let web = Web::default();
    let (giver, empty, taker) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    for data in [sample(9000), sample(3 * CHUNK)] {
        let id = giver.add(&data, None).await;
        crowd(&web, id, &empty);
        // The last that is told.
        web.announce(id, &giver);
        let request = Request { stall: Duration::from_secs(50), order: Order::Any, ..request(id) };
        let (got, summary) = collect(taker.fetcher.fetch(request).events, Order::Any).await.unwrap();
        assert!(got == data && summary.peers.len() == 1, "{summary:?}");
    }
}
