//! Readers that are slow, readers that go away, and fetches that are begun again.

use std::time::Instant;

use super::*;
use crate::store::forgetful::{Fault, Forgetful, Plan};

/// A node that may have only so many bytes on their way.
fn narrow(web: &Web, number: u16, in_flight: u64) -> Node {
    let store = store::Options { reserve: 0, ..store::Options::default() };
    Node::with(web, number, &store, Options { in_flight, ..Options::default() })
}

/// Waits until nothing more is asked for.
async fn settled(tap: &super::super::super::tests::tap::Tap) -> usize {
    let mut before = usize::MAX;
    loop {
        let now = tap.wanted().len();
        if now == before {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_bounds_what_is_asked_for_and_is_not_waited_for() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), narrow(&web, 2, 1 << 20));
    let folder = many(400, 20_000);
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    let tap = web.tap(&giver);
    let mut events = taker.begin(root, &[&giver]);
    let TreeEvent::Started(started) = next(&mut events).await.unwrap() else { panic!() };
    let asked = settled(&tap).await;
    // 1 MiB in the window, and 4 messages of up to 1 MiB with one more being made.
    assert!(asked > 50 && asked < 6 * (1 << 20) / 20_000 + 6, "{asked}");
    // Longer than the stall limit: it is the reader who is waited for.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(tap.wanted().len(), asked);
    assert!(collect_rest(started, events).await.unwrap().is(&folder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_file_gets_its_turn_while_all_that_is_granted_is_taken_by_short_ones() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    web.grant(&giver, 4);
    let mut folder = many(300, 20_000);
    folder.insert("d001/long", File(sample(5 * CHUNK)));
    folder.insert("d002/long", File(sample(3 * CHUNK)));
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    let request = TreeRequest { stall: Duration::from_secs(60), ..request(root, &[&giver]) };
    let taking = collect(taker.fetcher.fetch_tree(request).events);
    let taken = tokio::time::timeout(Duration::from_secs(30), taking).await.expect("it waits for a turn");
    assert!(taken.unwrap().is(&folder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_goes_away_ends_it_and_a_second_run_asks_only_for_the_rest() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), narrow(&web, 2, 2 << 20));
    let mut folder = many(500, 20_000);
    folder.insert("d001/long", File(sample(5 * CHUNK)));
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    let tap = web.tap(&giver);
    let mut events = taker.begin(root, &[&giver]);
    let mut taken = 0;
    while taken < 3 << 20 {
        if let TreeEvent::Parts(parts) = next(&mut events).await.unwrap() {
            let bytes = |part: &FetchedPart| match part {
                FetchedPart::File { bytes, .. } | FetchedPart::Data(bytes) => bytes.len(),
                _ => 0,
            };
            taken += parts.iter().map(bytes).sum::<usize>();
        }
    }
    drop(events);
    settled(&tap).await;
    assert!(taker.shown().is_empty() && !taker.is_whole(root));
    // What is here now, whether or not its reader got it.
    let here = |node: &Node, bytes: &[u8]| {
        node.store.has(&content::ChunkId::from_bytes(*blake3::hash(bytes).as_bytes()))
    };
    let files = |folder: &Folder| -> Vec<Vec<u8>> {
        let file = |kind: &Kind| if let File(bytes) = kind { Some(bytes.clone()) } else { None };
        folder.values().filter_map(file).collect()
    };
    let came: Vec<Vec<u8>> = files(&folder).into_iter().filter(|file| here(&taker, file)).collect();
    assert!(came.len() > 100 && came.len() < 500, "{}", came.len());
    let before = tap.wanted().len();
    let got = taker.take(root, &[&giver]).await.unwrap();
    assert!(got.is(&folder));
    let second = tap.wanted().split_off(before);
    let again: Vec<_> = came
        .iter()
        .filter(|file| second.contains(&content::ChunkId::from_bytes(*blake3::hash(file).as_bytes())))
        .collect();
    assert!(again.is_empty(), "{} files were asked for again", again.len());
    assert!(got.summary.local >= came.iter().map(|file| file.len() as u64).sum());
    assert_eq!(got.summary.local + got.received(), got.started.size, "no list was asked for again either");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giver_that_falls_silent_is_told_in_time_and_one_that_comes_back_goes_on() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), narrow(&web, 2, 1 << 20));
    let folder = many(300, 20_000);
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    let tap = web.tap(&giver);
    let request = TreeRequest { stall: Duration::from_secs(3), ..request(root, &[&giver]) };
    let mut events = taker.fetcher.fetch_tree(request).events;
    assert!(matches!(next(&mut events).await, Ok(TreeEvent::Started(_))));
    tap.set_open(false);
    let began = Instant::now();
    let error = loop {
        if let Err(error) = next(&mut events).await {
            break error;
        }
    };
    let took = began.elapsed();
    let Error::Stalled { missing, .. } = &error else { panic!("{error}") };
    assert!(missing.starts_with("d00") && missing.ends_with("in all)"), "{missing}");
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(8), "{took:?}");
    tap.set_open(true);
    assert!(taker.take(root, &[&giver]).await.unwrap().is(&folder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_fit_is_refused_before_a_file_is_asked_for() {
    let web = Web::default();
    let options = store::Options { reserve: 0, quota: 4 << 20, ..store::Options::default() };
    let (giver, taker) = (Node::new(&web, 1), Node::with(&web, 2, &options, Options::default()));
    // Headers and blocks count: twice the bytes.
    let root = giver.add_folder(&many(600, 4000), TreeOptions::default()).await;
    let tap = web.tap(&giver);
    let Error::Store(error) = taker.take(root, &[&giver]).await.err().unwrap() else { panic!() };
    assert!(error.is_no_space(), "{error}");
    assert_eq!(tap.wanted().len(), 7, "only lists");
    let fits = giver.add_folder(&many(300, 4000), TreeOptions::default()).await;
    taker.take(fits, &[&giver]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_rotted_here_is_asked_for_and_told_when_nobody_has_it() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let folder = many(120, 3000);
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    taker.take(root, &[&giver]).await.unwrap();
    let lost = content::ChunkId::from_bytes(*blake3::hash(&bytes(150, 3000)).as_bytes());
    taker.store.lose(&lost);
    let error = taker.take(root, &[]).await.err().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let got = taker.take(root, &[&giver]).await.unwrap();
    assert!(got.is(&folder) && got.received() == 3000);
    assert!(taker.take(root, &[]).await.unwrap().summary.peers.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_here_whole_comes_from_a_disk_that_takes_nothing_more() {
    let (web, disk) = (Web::default(), Forgetful::default());
    let node = Node::on(&web, 1, std::sync::Arc::new(disk.clone()));
    let folder = mixed();
    let root = node.add_folder(&folder, TreeOptions::default()).await;
    node.store.recovered().await.unwrap();
    let failing = Fault::Errno(rustix::io::Errno::IO.raw_os_error());
    disk.plan(Plan { fault: Some((0, u64::MAX, failing)), ..Plan::default() });
    let chunk = Chunk::compute(Place::Root, bytes(9, 100).into()).unwrap();
    assert!(node.store.lease().put(Item::Chunk(chunk)).await.is_err());
    assert!(node.store.read_only().is_some());
    assert!(node.take(root, &[]).await.unwrap().is(&folder));
    // A pin is a promise, which could not be kept.
    let pinned = TreeRequest { pin: Some(7), ..request(root, &[]) };
    let error = collect(node.fetcher.fetch_tree(pinned).events).await.err().unwrap();
    assert!(matches!(error, Error::Store(store::Error::ReadOnly { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_of_a_public_directory_is_given_meanwhile_and_not_when_it_is_given_up() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), narrow(&web, 2, 1 << 20));
    let root = giver.add_folder(&many(400, 20_000), TreeOptions::default()).await;
    let mut events = taker.begin(root, &[&giver]);
    let bytes = loop {
        let TreeEvent::Parts(parts) = next(&mut events).await.unwrap() else { continue };
        let files = parts.into_iter().find_map(|part| match part {
            FetchedPart::File { bytes, .. } => Some(bytes),
            _ => None,
        });
        if let Some(bytes) = files {
            break bytes;
        }
    };
    let chunk = Chunk::compute(Place::Root, bytes).unwrap();
    let asker = web.ask(&taker).await;
    let given = asker.want(chunk.reference()).await.unwrap().found().unwrap();
    assert_eq!(given.verify().unwrap(), chunk);
    assert!(!taker.is_whole(root));
    drop(events);
    while asker.want(chunk.reference()).await.unwrap().found().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(taker.store.chunk(&chunk.reference()).await.unwrap().is_some());
}
