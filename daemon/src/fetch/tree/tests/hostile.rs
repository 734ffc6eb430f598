//! Directories made by strangers, and peers that lie.

use std::time::Instant;

use super::*;
use crate::content::{MAX_OBJECT, Node as Is};

fn file(id: ObjectId, length: u64) -> Is<'static> {
    Is::File { id, length, executable: false }
}

fn tree(entries: &[(&str, Is<'_>)]) -> Bytes {
    let mut builder = TreeBuilder::default();
    for (name, node) in entries {
        builder.push(Entry { name, node: *node }).unwrap();
    }
    builder.finish().unwrap().bytes().clone()
}

/// Stores a tree with these entries and gives what names it.
async fn list(node: &Node, entries: &[(&str, Is<'_>)]) -> Is<'static> {
    let (id, length) = node.put(tree(entries)).await;
    Is::Directory { id, length }
}

fn id_of(node: Is<'_>) -> ObjectId {
    node.object().unwrap().0
}

/// Why a directory cannot be used; nobody is struck for it, and nothing of it is entered.
async fn refused(web: &Web, giver: &Node, root: ObjectId) -> String {
    let taker = Node::new(web, rand::random_range(1000..60_000));
    let error = taker.take(root, &[giver]).await.err().unwrap();
    let Error::BadTree { why, .. } = &error else { panic!("{error}") };
    assert!(taker.shown().is_empty());
    let links = taker.fetcher.links();
    assert!(links.len() == 1 && links[0].open, "the session is still open: {links:?}");
    why.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proved_bytes_that_are_no_list_are_refused_and_nobody_is_struck() {
    let web = Web::default();
    let giver = Node::new(&web, 1);
    let (plain, _) = giver.put(&b"no list at all"[..]).await;
    assert!(refused(&web, &giver, plain).await.contains("does not begin"));
    let mut bytes = tree(&[("ab", Is::Link { target: "x" })]).to_vec();
    bytes[15..17].copy_from_slice(b"..");
    let (dots, length) = giver.put(bytes).await;
    assert!(refused(&web, &giver, dots).await.contains("stands for a directory"));
    let around = list(&giver, &[("in", Is::Directory { id: dots, length })]).await;
    assert!(refused(&web, &giver, id_of(around)).await.contains("stands for a directory"));
    let long = giver.add(&sample(3 * CHUNK), None).await;
    assert!(refused(&web, &giver, long).await.contains("does not begin"));
    let taker = Node::new(&web, 2);
    let error = taker.take(ObjectId::EMPTY, &[&giver]).await.err().unwrap();
    assert!(matches!(error, Error::BadTree { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_directory_says_of_its_files_must_be_true() {
    let web = Web::default();
    let giver = Node::new(&web, 1);
    let (small, length) = giver.put(bytes(1, 500)).await;
    let two = list(&giver, &[("a", file(small, length)), ("b", file(small, length + 1))]).await;
    assert!(refused(&web, &giver, id_of(two)).await.contains("two lengths"));
    // Another length than the object has: it is learnt from who proves it.
    for said in [length + 1, CHUNK as u64 + 1] {
        let wrong = list(&giver, &[("a", file(small, said))]).await;
        let why = refused(&web, &giver, id_of(wrong)).await;
        assert!(why.contains(&format!("a length of {said} bytes, which has 500")), "{why}");
    }
    let long = giver.add(&sample(2 * CHUNK + 5), None).await;
    let wrong = list(&giver, &[("a", file(long, 7))]).await;
    assert!(refused(&web, &giver, id_of(wrong)).await.contains("a length of 7 bytes"));
    // A list that is said to be longer than it is is nowhere to be had.
    let (inner, length) = giver.put(tree(&[])).await;
    let wrong = list(&giver, &[("a", Is::Directory { id: inner, length: length + 1 })]).await;
    assert!(refused(&web, &giver, id_of(wrong)).await.contains("a length of 14 bytes, which has 13"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn depth_size_and_number_are_limited_before_a_file_is_asked_for() {
    let web = Web::default();
    let giver = Node::new(&web, 1);
    let (small, length) = giver.put(bytes(1, 500)).await;
    // 64 deep is the limit.
    let mut deep = list(&giver, &[("f", file(small, length))]).await;
    for _ in 0..63 {
        deep = list(&giver, &[("d", deep)]).await;
    }
    let taker = Node::new(&web, 2);
    assert_eq!(taker.take(id_of(deep), &[&giver]).await.unwrap().started.entries, 64);
    let too_deep = list(&giver, &[("d", deep)]).await;
    assert!(refused(&web, &giver, id_of(too_deep)).await.contains("64 deep"));
    // The short way to the same lists is not too long; the other one is.
    let two_ways = list(&giver, &[("long", deep), ("short", file(small, length))]).await;
    let two_ways = list(&giver, &[("a", two_ways), ("b", deep)]).await;
    assert!(refused(&web, &giver, id_of(two_ways)).await.contains("64 deep"));

    // A hundred in each of a hundred, five times over: ten thousand million entries in five lists.
    let names: Vec<String> = (0..100).map(|number| format!("n{number:02}")).collect();
    let mut bomb = file(small, length);
    for _ in 0..5 {
        let entries: Vec<_> = names.iter().map(|name| (name.as_str(), bomb)).collect();
        bomb = list(&giver, &entries).await;
    }
    let began = Instant::now();
    assert!(refused(&web, &giver, id_of(bomb)).await.contains("4,194,304 entries"));
    assert!(began.elapsed() < Duration::from_secs(3));

    // Lengths that add up to more than can be counted: refused without a file being asked for.
    let huge = file(ObjectId::from_bytes([7; 32]), MAX_OBJECT);
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), huge)).collect();
    let mut sum = list(&giver, &entries).await;
    for _ in 0..2 {
        let entries: Vec<_> = names.iter().map(|name| (name.as_str(), sum)).collect();
        sum = list(&giver, &entries).await;
    }
    let Error::Store(error) = taker.take(id_of(sum), &[&giver]).await.err().unwrap() else { panic!() };
    assert!(error.is_no_space(), "2^62 bytes and more: {error}");
    let entries: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| (name, sum)).to_vec();
    let sum = list(&giver, &entries).await;
    assert!(refused(&web, &giver, id_of(sum)).await.contains("add up"));

    // Lists of more than 1 GiB in all are not asked for.
    let claim = |number: u8| Is::Directory { id: ObjectId::from_bytes([number; 32]), length: 120 << 20 };
    let entries: Vec<_> = (0..9).map(|number| (names[number as usize].as_str(), claim(number))).collect();
    let lists = list(&giver, &entries).await;
    let tap = web.tap(&giver);
    assert!(refused(&web, &giver, id_of(lists)).await.contains("1 GiB"));
    assert_eq!(tap.wanted().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lies_is_struck_and_the_others_are_asked() {
    let web = Web::default();
    let (liar, honest, taker) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    let folder: Folder = mixed().into_iter().chain(many(400, 2000)).collect();
    let root = liar.add_folder(&folder, TreeOptions::default()).await;
    honest.add_folder(&folder, TreeOptions::default()).await;
    let tap = web.tap(&liar);
    tap.lie(usize::MAX);
    let got = taker.take(root, &[&liar, &honest]).await.unwrap();
    assert!(got.is(&folder));
    assert!(!tap.wanted().is_empty(), "it was asked");
    assert_eq!(got.summary.peers.len(), 1, "and gave nothing that counts");
    let open: Vec<_> =
        taker.fetcher.links().into_iter().filter(|link| link.open).map(|link| link.peer).collect();
    assert_eq!(open, [honest.address.peer]);
    // Alone it gives nothing at all.
    let other = Node::new(&web, 4);
    let error = other.take(root, &[&liar]).await.err().unwrap();
    assert!(matches!(error, Error::Stalled { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_directory_claims_to_hold_pushes_nothing_out() {
    let web = Web::default();
    let options = store::Options { reserve: 0, quota: 20 << 20, ..store::Options::default() };
    let (giver, taker) = (Node::new(&web, 1), Node::with(&web, 2, &options, Options::default()));
    let mut cached = Vec::new();
    for seed in 0..15 {
        cached.push(taker.put(bytes(seed, CHUNK)).await.0);
    }
    let there = |taker: &Node| cached.iter().filter(|id| taker.is_whole(**id)).count();
    let nowhere = ObjectId::from_bytes([9; 32]);
    for (length, is_refused) in [(16 << 20, false), (100 << 20, true)] {
        for is_list in [false, true] {
            let is = match is_list {
                false => file(nowhere, length),
                true => Is::Directory { id: nowhere, length },
            };
            let root = id_of(list(&giver, &[("lie", is)]).await);
            let error = taker.take(root, &[&giver]).await.err().unwrap();
            let refused = matches!(&error, Error::Store(error) if error.is_no_space());
            assert_eq!(refused, is_refused, "{error}");
            assert_eq!(there(&taker), 15, "{error}");
        }
    }
    // What comes finds room, as much as it takes.
    let folder: Folder = many(6, CHUNK).into_iter().chain([("long", File(sample(3 * CHUNK)))]).collect();
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    assert!(taker.take(root, &[&giver]).await.unwrap().is(&folder));
    assert!((9..15).contains(&there(&taker)), "{}", there(&taker));
}
