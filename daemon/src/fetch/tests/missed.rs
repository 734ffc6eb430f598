//! Fetches that come to nothing: what is told of why, and how soon.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_it_is_said_in_time() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let error = taker.fetch(ObjectId::from_bytes([7; 32]), &[&giver], Order::Any).await.unwrap_err();
    let Error::NoHolders { seconds: 3, named, .. } = &error else { panic!("{error}") };
    assert!(named.contains("it answers, and does not have it"), "{named}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_caller_named_in_vain_is_told_at_once_where_there_is_nobody_else() {
    let web = Web::default();
    web.lonely.store(true, Ordering::Relaxed);
    let [giver, gone, taker] = [1, 2, 3].map(|number| Node::new(&web, number));
    web.cut(&gone);
    let peers = vec![giver.address.clone(), gone.address.clone()];
    // It would wait for an hour.
    let stall = Duration::from_secs(3_600);
    let request = Request { peers, stall, ..request(ObjectId::from_bytes([7; 32])) };
    let error = collect(taker.fetcher.fetch(request).events, Order::InOrder).await.unwrap_err();
    let Error::NoHolders { seconds: 0, named, .. } = &error else { panic!("{error}") };
    let silent = format!("{}: {} did not answer in time", gone.address.peer, gone.at);
    assert!(named.contains(&silent), "{named}");
    let without = format!("{}: it answers, and does not have it", giver.address.peer);
    assert!(named.contains(&without), "{named}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_named_and_of_another_network_is_told_at_once_unless_another_has_it() {
    for is_lonely in [true, false] {
        let web = Web::default();
        web.lonely.store(is_lonely, Ordering::Relaxed);
        let [stranger, holder, taker] = [1, 2, 3].map(|number| Node::new(&web, number));
        let id = holder.add(b"it is elsewhere", None).await;
        let other = Network::new("other", None);
        let other = session::Options::new(stranger.address.peer, other, Pool::new(1));
        web.givers.lock().unwrap().get_mut(&stranger.at).unwrap().2 = other;
        // It would wait for an hour.
        let (peers, stall) = (vec![stranger.address.clone()], Duration::from_secs(3_600));
        let wanted = Request { peers, stall, ..request(id) };
        let failed = collect(taker.fetcher.fetch(wanted.clone()).events, Order::InOrder).await;
        let error = failed.unwrap_err();
        let Error::OtherNetwork { named, .. } = &error else { panic!("{error}") };
        assert!(named.contains(&stranger.address.peer.to_string()), "{named}");
        web.announce(id, &holder);
        let (got, _) = collect(taker.fetcher.fetch(wanted).events, Order::InOrder).await.unwrap();
        assert_eq!(got, b"it is elsewhere");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_named_in_vain_does_no_harm_where_another_has_it() {
    let web = Web::default();
    web.lonely.store(true, Ordering::Relaxed);
    let [giver, gone, taker] = [1, 2, 3].map(|number| Node::new(&web, number));
    let id = giver.add(b"it is here", None).await;
    web.cut(&gone);
    let (got, _) = taker.fetch(id, &[&gone, &giver], Order::InOrder).await.unwrap();
    assert_eq!(got, b"it is here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_to_be_connected_to_is_tried_also_where_there_is_a_session() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    assert_eq!(taker.fetcher.connect(&giver.address).await, Ok(giver.address.peer));
    let other = PeerAddr::chunk(giver.address.peer, SocketAddr::from(([127, 0, 0, 9], 9)));
    let error = taker.fetcher.connect(&other).await.unwrap_err().to_string();
    assert!(error.starts_with("127.0.0.9:9 did not answer"), "{error}");
    assert!(error.contains(&format!("a session with it at {}", giver.at)), "{error}");
    let links = taker.fetcher.links();
    assert!(links.iter().any(|link| link.open && link.at == Some(giver.at)), "{links:?}");
    assert_eq!(taker.fetcher.connect(&giver.address).await, Ok(giver.address.peer));
    web.cut(&giver);
    assert!(taker.fetcher.connect(&giver.address).await.is_err(), "it is tried anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_that_are_known_and_not_reached_are_told_of() {
    let web = Web::default();
    let [one, two, taker] = [1, 2, 3].map(|number| Node::new(&web, number));
    let id = one.add(b"it is elsewhere", None).await;
    for gone in [&one, &two] {
        web.announce(id, gone);
        web.cut(gone);
    }
    let error = taker.fetch(id, &[], Order::Any).await.unwrap_err();
    let Error::Unreached { known: 2, why, .. } = &error else { panic!("{error}") };
    for gone in [&one, &two] {
        let silent = format!("{}: {} did not answer in time", gone.address.peer, gone.at);
        assert!(why.contains(&silent), "{why}");
    }
}

/// One is said to hold it that no look-up reaches; gives who.
fn only_said(web: &Web, id: ObjectId) -> PeerId {
    let (peer, nowhere) = (PeerId::random(), SocketAddr::from(([127, 0, 0, 9], 0)));
    web.holders.lock().unwrap().entry(*id.as_bytes()).or_default().push((peer, nowhere));
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_only_said_to_hold_it_is_told_of_whoever_else_is_here() {
    let web = Web::default();
    let (other, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let id = ObjectId::from_bytes([7; 32]);
    let gone = only_said(&web, id);
    for here in [&[][..], &[&other]] {
        let error = taker.fetch(id, here, Order::Any).await.unwrap_err();
        let Error::Unreached { known: 1, seconds: 3, why, .. } = &error else { panic!("{error}") };
        assert_eq!(*why, format!("{gone}: it is gone"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_only_said_to_hold_it_is_told_of_where_another_has_not_all_of_it() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let id = giver.add(&sample(3 * CHUNK), None).await;
    let gone = only_said(&web, id);
    web.announce(id, &giver);
    let manifest = giver.store.manifest(&id).await.unwrap().unwrap();
    giver.store.lose(&manifest.chunk(1).unwrap().id);
    let error = taker.fetch(id, &[], Order::Any).await.unwrap_err();
    let Error::Stalled { holders, .. } = &error else { panic!("{error}") };
    assert!(holders.contains(&format!("{gone}: it is gone")), "{holders}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_rotted_is_given_up_as_soon_as_is_asked_for_when_there_is_nobody() {
    let web = Web::default();
    let node = Node::new(&web, 1);
    let (small, large) = (sample(9000), sample(3 * CHUNK));
    for data in [small, large] {
        let id = node.add(&data, None).await;
        match node.store.manifest(&id).await.unwrap() {
            Some(manifest) => node.store.lose(&manifest.chunk(1).unwrap().id),
            None => node.store.lose(&id.only_chunk()),
        }
        let patience = (Duration::from_secs(10), Duration::from_secs(1));
        let request = Request { stall: patience.0, alone: patience.1, order: Order::Any, ..request(id) };
        let begun = std::time::Instant::now();
        let error = collect(node.fetcher.fetch(request).events, Order::Any).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
