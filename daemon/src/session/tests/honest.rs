//! Both ends keep to the protocol.

use super::*;
use futures::future::join_all;

async fn found(want: impl Future<Output = Result<Answer<Unproven>, Error>>) -> Chunk {
    want.await.unwrap().found().unwrap().verify().unwrap()
}

#[tokio::test]
async fn an_object_is_carried_over_and_proved() {
    let shelf = Shelf::new(&[true, false, true, true], 700_000);
    let (asker, given, _tasks) = Ends::new(&open()).join(&shelf).await;
    let object = shelf.object();
    within(async {
        let top = asker.top(&object).await.unwrap().found().unwrap();
        let page = asker.page(&top, 0).await.unwrap().found().unwrap();
        assert_eq!(asker.page(&top, 1).await, Ok(Answer::NotFound));
        let manifest = Manifest::new(top, vec![page]).unwrap();
        assert_eq!(manifest, shelf.manifest);
        let part = asker.parity(&object).await.unwrap().found().unwrap();
        assert_eq!(part, shelf.part);
        assert_eq!(asker.parity_page(&part, 0).await, Ok(Answer::Found(shelf.parity[0].clone())));
        for _ in 0..20 {
            let chunks = (0..4).map(|index| found(asker.want(manifest.chunk(index).unwrap())));
            for chunk in join_all(chunks).await {
                assert_eq!(shelf.chunks[&chunk.id()], chunk);
            }
        }
        let absent = ObjectId::from_bytes([4; 32]);
        assert_eq!(asker.top(&absent).await, Ok(Answer::NotFound));
        let nothing = |id| ChunkRef { id: ChunkId::from_bytes([id; 32]), place: Place::Root, length: 5 };
        assert_eq!(asker.want(nothing(0xaa)).await, Ok(Answer::NotFound));
        assert_eq!(asker.want(nothing(0xbb)).await, Ok(Answer::Busy(Duration::from_millis(1500))));
        assert!(shelf.most.load(Ordering::SeqCst) <= 4);
        // 20 times three chunks; zeros are not sent.
        let payload = 20 * (2 * CHUNK_LEN + 700_000);
        assert!((payload..payload + 50_000).contains(&asker.received()));
        let (sent, received) = (asker.sent(), asker.received());
        drop(asker);
        let summary = given.await.unwrap().unwrap().unwrap();
        assert_eq!((summary.ended, summary.sent, summary.requests), (Ended::ByAsker, received, 87));
        assert!(summary.received > sent);
    })
    .await;
}

#[tokio::test]
async fn runs_are_asked_for_in_one_frame() {
    let shelf = Shelf::new(&[true, false, true, true], 10);
    let (asker, _given, _tasks) = Ends::new(&open()).join(&shelf).await;
    within(async {
        let chunks: Vec<_> = (0..4).map(|index| shelf.manifest.chunk(index).unwrap()).collect();
        let before = asker.sent();
        let wants = asker.want_run(shelf.object(), 0, &chunks).await.unwrap();
        assert_eq!(wants.len(), 4);
        for (want, chunk) in wants.into_iter().zip(&chunks) {
            assert_eq!((want.chunk(), found(want).await.reference()), (*chunk, *chunk));
        }
        assert!(asker.sent() - before < 60);
        for want in asker.want_run(ObjectId::from_bytes([1; 32]), 0, &chunks).await.unwrap() {
            assert_eq!(want.await, Ok(Answer::NotFound));
        }
        // Cut to what credit there can ever be.
        let many: Vec<_> =
            (0..200).map(|i| ChunkRef { place: Place::At(i * CHUNK_LEN), ..chunks[0] }).collect();
        assert_eq!(asker.want_run(shelf.object(), 0, &many).await.unwrap().len(), 64);
        // What would break the protocol is not asked.
        let beyond = ChunkRef { place: Place::At(crate::content::MAX_OBJECT), ..chunks[0] };
        assert!(asker.want_run(shelf.object(), 1 << 22, &[beyond]).await.unwrap().is_empty());
        assert!(asker.want_run(shelf.object(), 1, &chunks).await.unwrap().is_empty());
        assert!(asker.want_run(shelf.object(), 0, &[]).await.unwrap().is_empty());
        assert_eq!(asker.want(beyond).await, Ok(Answer::NotFound));
        assert!(!asker.is_closed());
    })
    .await;
}

#[tokio::test]
async fn subscribers_hear_what_is_there_and_what_comes() {
    let shelf = Shelf::new(&[true, true], 10);
    let (tell, updates) = mpsc::channel(10);
    let mut bits = vec![0; 100_000];
    (bits[0], bits[99_999]) = (0b101, 0x80);
    *shelf.news.lock().unwrap() = Some(Subscription { snapshot: Snapshot::Partial(bits.into()), updates });
    let (asker, _given, _tasks) = Ends::new(&open()).join(&shelf).await;
    within(async {
        let mut haves = asker.haves(shelf.object()).await.unwrap();
        let first = haves.next().await.unwrap();
        assert_eq!(first.indexes().collect::<Vec<_>>(), [0, 2]);
        // The stretches between have nothing to tell.
        assert_eq!(haves.next().await.unwrap().indexes().collect::<Vec<_>>(), [799_999]);
        tell.send(5).await.unwrap();
        assert_eq!(haves.next().await, Some(Have::Chunks(vec![5])));
        drop(haves);
        // The giver drops its end when it hears the cancel.
        tell.closed().await;
        assert_eq!(asker.haves(ObjectId::from_bytes([1; 32])).await.unwrap().next().await, None);
        let (tell, updates) = mpsc::channel(1);
        *shelf.news.lock().unwrap() = Some(Subscription { snapshot: Snapshot::Whole, updates });
        let mut haves = asker.haves(shelf.object()).await.unwrap();
        assert_eq!(haves.next().await, Some(Have::Whole));
        drop(tell);
        assert_eq!(haves.next().await, None);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_want_is_taken_back_and_its_credit_comes_home() {
    let shelf = Shelf::new(&[true, true, true], CHUNK);
    shelf.paces.forget_permits(usize::MAX);
    let mut ends = Ends::new(&open());
    ends.give.bytes = CHUNK as u32;
    let (asker, given, _tasks) = ends.join(&shelf).await;
    within(async {
        let chunk = |index| shelf.manifest.chunk(index).unwrap();
        let mut first = Box::pin(asker.want(chunk(0)));
        assert!(first.as_mut().now_or_never().is_none());
        // Three slices come, then it is dropped with five to come.
        shelf.paces.add_permits(3);
        until(|| asker.received() >= 3 * 128 * 1024).await;
        drop(first);
        let mut second = Box::pin(asker.want(chunk(1)));
        assert!(second.as_mut().now_or_never().is_none());
        // At most one slice of the first still goes out; eight are the second.
        shelf.paces.add_permits(9);
        assert_eq!(found(second).await.reference(), chunk(1));
        assert_eq!(asker.room(), (64, CHUNK));
        drop(asker);
        let summary = given.await.unwrap().unwrap().unwrap();
        assert!(summary.sent < 12 * 129 * 1024 + 1000);
    })
    .await;
}

#[tokio::test]
async fn a_chunk_is_begun_in_its_peers_turn_only_and_holds_it_to_its_end() {
    let shelf = Shelf::new(&[true, true], CHUNK);
    let (asker, _given, _tasks) = Ends::new(&open()).join(&shelf).await;
    within(async {
        let chunk = shelf.manifest.chunk(0).unwrap();
        shelf.is_others_turn.store(true, Ordering::SeqCst);
        assert_eq!(asker.want(chunk).await, Ok(Answer::Busy(Duration::from_millis(700))));
        assert_eq!(Arc::strong_count(&shelf.turn), 1);
        shelf.is_others_turn.store(false, Ordering::SeqCst);
        shelf.paces.forget_permits(usize::MAX);
        let mut want = Box::pin(found(asker.want(chunk)));
        assert!(want.as_mut().now_or_never().is_none());
        until(|| Arc::strong_count(&shelf.turn) == 2).await;
        // What has been begun goes on.
        shelf.is_others_turn.store(true, Ordering::SeqCst);
        shelf.paces.add_permits(8);
        assert_eq!(want.await, shelf.chunks[&chunk.id]);
        until(|| Arc::strong_count(&shelf.turn) == 1).await;
    })
    .await;
}

#[tokio::test]
async fn credits_hold_askers_back_and_all_get_served() {
    let shelf = Shelf::new(&[true, true, true, true], CHUNK);
    let mut ends = Ends::new(&open());
    (ends.give.requests, ends.give.bytes) = (3, 2 * CHUNK as u32);
    let (asker, given, _tasks) = ends.join(&shelf).await;
    within(async {
        let wants = (0..100).map(|index| found(asker.want(shelf.manifest.chunk(index % 4).unwrap())));
        assert_eq!(join_all(wants).await.len(), 100);
        drop(asker);
        assert_eq!(given.await.unwrap().unwrap().unwrap().requests, 100);
    })
    .await;
}

#[tokio::test]
async fn pings_keep_a_session_that_is_held_and_idleness_ends_others() {
    let shelf = Shelf::new(&[true, true], 10);
    let mut ends = Ends::new(&open());
    (ends.ask.idle, ends.give.idle) = (Duration::from_secs(3), Duration::from_secs(3));
    let (asker, given, _tasks) = ends.join(&shelf).await;
    within(async {
        // Something is wanted of it, and long in coming.
        shelf.paces.forget_permits(usize::MAX);
        let mut want = Box::pin(asker.want(shelf.manifest.chunk(0).unwrap()));
        assert!(want.as_mut().now_or_never().is_none());
        // Pings come every second: four pongs of 13 bytes are longer than the idle time.
        let before = asker.received();
        until(|| asker.received() >= before + 4 * 13 || asker.is_closed()).await;
        assert!(!asker.is_closed());
        drop(want);
        drop(asker);
        assert_eq!(given.await.unwrap().unwrap().unwrap().ended, Ended::ByAsker);
    })
    .await;
    let mut ends = Ends::new(&open());
    // An asker that wants nothing.
    (ends.ask.idle, ends.give.idle) = (Duration::from_secs(600), Duration::from_millis(100));
    let (asker, given, _tasks) = ends.join(&shelf).await;
    within(async {
        assert_eq!(asker.closed().await, Error::Goodbye { reason: Reason::Slow, text: String::new() });
        assert_eq!(given.await.unwrap().unwrap().unwrap().ended, Ended::Idle);
    })
    .await;
}

#[tokio::test]
async fn shutdown_finishes_the_slice_and_says_goodbye() {
    let shelf = Shelf::new(&[true, true], CHUNK);
    shelf.paces.forget_permits(usize::MAX);
    let ends = Ends::new(&open());
    let (giving, asking) = (Tasks::new(), Tasks::new());
    let given = serve(ends.giver, ends.give, &shelf, &giving);
    within(async {
        let asker = Asker::open(ends.asker, &ends.ask, &asking).await.unwrap();
        let mut want = Box::pin(asker.want(shelf.manifest.chunk(0).unwrap()));
        assert!(want.as_mut().now_or_never().is_none());
        shelf.paces.add_permits(1);
        until(|| asker.received() >= 128 * 1024).await;
        assert_eq!(giving.drain(Duration::from_secs(30)).await, 0);
        assert_eq!(given.await.unwrap().unwrap().unwrap().ended, Ended::Shutdown);
        let goodbye = Error::Goodbye { reason: Reason::Shutdown, text: String::new() };
        assert_eq!(want.await, Err(goodbye.clone()));
        assert_eq!((asker.closed().await, asker.top(&shelf.object()).await), (goodbye.clone(), Err(goodbye)));
        assert_eq!(asking.drain(Duration::from_secs(30)).await, 0);
    })
    .await;
}

#[tokio::test]
async fn only_nodes_of_one_network_and_key_talk() {
    let key = |key: u8| Network::new("casd", Some([key; 32].into()));
    let shelf = Shelf::new(&[true, true], 10);
    let meet = |ask: Network, give: Network, binding: [u8; 32]| {
        let mut ends = Ends::new(&open());
        (ends.ask.network, ends.give.network, ends.asker.binding) = (ask, give, binding);
        let shelf = Arc::clone(&shelf);
        async move {
            let tasks = Tasks::new();
            let given = serve(ends.giver, ends.give, &shelf, &tasks);
            let asker = Asker::open(ends.asker, &ends.ask, &tasks).await;
            let refused = asker.as_ref().err().cloned();
            drop(asker);
            (refused, given.await.unwrap().unwrap().err())
        }
    };
    let goodbye = |reason| Some(Error::Goodbye { reason, text: String::new() });
    within(async {
        assert_eq!(meet(key(1), key(1), [7; 32]).await, (None, None));
        let proof = (goodbye(Reason::Proof), Some(Error::Proof));
        assert_eq!(meet(key(1), key(2), [7; 32]).await, proof);
        assert_eq!(meet(key(1), key(1), [8; 32]).await, proof);
        assert_eq!(meet(open(), key(1), [7; 32]).await, proof);
        assert_eq!(meet(key(1), open(), [7; 32]).await, proof);
        let other = meet(Network::new("other", None), open(), [7; 32]).await;
        assert_eq!(other, (goodbye(Reason::Network), Some(Error::Network)));
    })
    .await;
}
