//! Ranges: nothing but their chunks is asked for, and what is lost of them comes of its stripe.

use super::*;
use crate::content::Manifest;
use crate::store::State;

/// The bytes of a range of an object, which `from` has.
async fn part(taker: &Node, id: ObjectId, from: &Node, range: (u64, u64)) -> Result<Vec<u8>, Error> {
    let request = Request { peers: vec![from.address.clone()], range: Some(range), ..request(id) };
    let mut events = taker.fetcher.fetch(request).events;
    let mut part = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
        match event.expect("a fetch hangs").expect("no end")? {
            Event::Data { bytes, .. } => part.extend_from_slice(&bytes),
            Event::Zeros { length, .. } => part.resize(part.len() + length as usize, 0),
            Event::Finished(_) => return Ok(part),
            Event::Started { .. } | Event::Progress(_) => {}
        }
    }
}

/// The chunks of an object that a node has.
fn chunks_at(node: &Node, manifest: &Manifest) -> Vec<u64> {
    (0..manifest.chunks()).filter(|index| node.store.has(&manifest.chunk(*index).unwrap().id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_comes_though_nobody_has_the_rest() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let data = sample(30 * CHUNK);
    let id = giver.add(&data, None).await;
    let manifest = giver.store.manifest(&id).await.unwrap().unwrap();
    for index in (0..30).filter(|index| !(3..6).contains(index)) {
        giver.store.lose(&manifest.chunk(index).unwrap().id);
    }
    let tap = web.tap(&giver);
    let range = (3 * CHUNK as u64 + 5, 2 * CHUNK as u64);
    // The second time it is here.
    for _ in 0..2 {
        let got = part(&taker, id, &giver, range).await.unwrap();
        assert!(got == data[3 * CHUNK + 5..5 * CHUNK + 5]);
        let mut asked = tap.wanted();
        asked.sort_unstable();
        let mut due = [3, 4, 5].map(|index| manifest.chunk(index).unwrap().id);
        due.sort_unstable();
        assert_eq!(asked, due);
        assert_eq!(chunks_at(&taker, &manifest), [3, 4, 5]);
    }
    assert_eq!(taker.store.object(&id).unwrap().state, State::Partial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_of_a_range_that_is_lost_comes_of_its_stripe_and_no_other_is_kept() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let data = sample(33 * CHUNK + 9);
    let id = giver.add(&data, Some(Geometry::DEFAULT)).await;
    let manifest = giver.store.manifest(&id).await.unwrap().unwrap();
    // Of the first stripe, 16 + 4, just as many are left as it takes.
    for index in [0, 3, 5, 15] {
        giver.store.lose(&manifest.chunk(index).unwrap().id);
    }
    let got = part(&taker, id, &giver, (5 * CHUNK as u64, CHUNK as u64)).await.unwrap();
    assert!(got == data[5 * CHUNK..6 * CHUNK]);
    let due: Vec<u64> = (0..16).filter(|index| ![0, 3, 15].contains(index)).collect();
    assert_eq!(chunks_at(&taker, &manifest), due);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_all_of_an_object_has_fetched_it() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let data = sample(3 * CHUNK + 9);
    let id = giver.add(&data, None).await;
    let state = || taker.store.object(&id).unwrap().state;
    assert!(part(&taker, id, &giver, (1, u64::MAX)).await.unwrap() == data[1..]);
    assert_eq!(state(), State::Partial);
    assert!(part(&taker, id, &giver, (0, u64::MAX)).await.unwrap() == data);
    assert_eq!(state(), State::Whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_behind_the_end_is_refused_and_one_at_the_end_is_empty() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    for length in [0, 1000, 2 * CHUNK as u64 + 3] {
        let id = giver.add(&sample(length as usize), None).await;
        assert_eq!(part(&taker, id, &giver, (length, u64::MAX)).await.unwrap(), b"");
        for offset in [length + 1, u64::MAX] {
            let error = part(&taker, id, &giver, (offset, u64::MAX)).await.unwrap_err();
            let Error::Range { length: end, offset: begin } = &error else { panic!("{error}") };
            assert_eq!((*end, *begin), (length, offset));
        }
    }
}
