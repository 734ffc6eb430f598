//! What is there comes, in order, once, from whoever has it.

use std::collections::HashSet;
use std::time::Instant;

use super::super::super::Notice;
use super::*;
use crate::content::{ChunkId, TreePath};
use crate::ingest::AddOptions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_comes_whole_and_is_entered_when_all_of_it_is_here() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let folder = mixed();
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    let mut events = taker
        .fetcher
        .fetch_tree(TreeRequest { pin: Some(7), name: Some("mine".to_owned()), ..request(root, &[&giver]) })
        .events;
    let TreeEvent::Started(started) = next(&mut events).await.unwrap() else { panic!() };
    assert!(taker.shown().is_empty(), "nothing is listed before the end");
    let got = collect_rest(started, events).await.unwrap();
    assert!(got.is(&folder), "{:?}", got.entries.iter().map(|(path, _)| path).collect::<Vec<_>>());
    // Fourteen, one of them an empty directory, and `a`, `a/b`, `a/b/c`.
    assert_eq!((got.started.entries, got.entries.len()), (17, 17));
    let size: usize = folder
        .values()
        .map(|kind| if let File(bytes) | Executable(bytes) = kind { bytes.len() } else { 0 })
        .sum();
    assert_eq!((got.started.size, got.summary.size), (size as u64, size as u64));
    assert!(
        got.started.is_directory && got.started.id == root && got.started.name.as_deref() == Some("mine")
    );
    assert_eq!(taker.shown(), [root]);
    let info = taker.store.object(&root).unwrap();
    assert!(info.tree && info.pins.len() == 1 && info.name.as_deref() == Some("mine"), "{info:?}");
    assert_eq!(
        taker.store.with_contents(root).await.unwrap().len(),
        13,
        "itself, four trees, eight distinct files"
    );
    let mut notices = taker.notices.lock().await;
    assert_eq!(notices.recv().await, Some(Notice::Holds(root)));
    let Some(Notice::HoldsAll(parts)) = notices.recv().await else { panic!("its parts") };
    assert_eq!(parts.len(), 12);
    // The one who has it now can give it on.
    let third = Node::new(&web, 3);
    assert!(third.take(root, &[&taker]).await.unwrap().is(&folder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_here_whole_needs_nobody_and_writes_nothing_but_a_pin() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let folder = mixed();
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    let first = taker.take(root, &[&giver]).await.unwrap();
    assert_eq!(first.summary.local, CHUNK as u64, "the zeros of a long file");
    let tap = web.tap(&giver);
    web.cut(&giver);
    let before = taker.store.usage().await.unwrap();
    let again =
        collect(taker.fetcher.fetch_tree(TreeRequest { pin: Some(9), ..request(root, &[&giver]) }).events)
            .await
            .unwrap();
    assert!(again.is(&folder) && again.summary.peers.is_empty());
    assert_eq!(again.summary.local, again.started.size);
    assert!(tap.wanted().is_empty());
    let after = taker.store.usage().await.unwrap();
    assert_eq!(before.stored_bytes, after.stored_bytes);
    assert_eq!(taker.store.object(&root).unwrap().pins.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_distinct_object_is_asked_for_once_and_the_work_is_shared() {
    let web = Web::default();
    let (one, two, taker) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    let mut folder = many(3000, 3000);
    for number in 0..3000 {
        // Each a second time, in another directory.
        let path: &'static str = Box::leak(format!("again/g{number:05}").into_boxed_str());
        folder.insert(path, File(bytes(number + 100, 3000)));
    }
    let root = one.add_folder(&folder, TreeOptions::default()).await;
    assert_eq!(two.add_folder(&folder, TreeOptions::default()).await, root);
    let (first, second) = (web.tap(&one), web.tap(&two));
    let got = taker.take(root, &[&one, &two]).await.unwrap();
    assert!(got.is(&folder));
    assert_eq!(got.started.size, 2 * 3000 * 3000);
    let wanted = [first.wanted(), second.wanted()].concat();
    let distinct: HashSet<ChunkId> = wanted.iter().copied().collect();
    assert_eq!((wanted.len(), distinct.len()), (3000 + 32, 3000 + 32), "files, and trees");
    let shares: Vec<u64> = got.summary.peers.iter().map(|(_, bytes)| *bytes).collect();
    assert!(shares.len() == 2 && shares.iter().all(|share| *share > got.received() / 5), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_holder_lacks_another_gives() {
    let web = Web::default();
    let (one, two, taker) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    let folder: Folder = mixed().into_iter().chain(many(600, 2000)).collect();
    let root = one.add_folder(&folder, TreeOptions::default()).await;
    two.add_folder(&folder, TreeOptions::default()).await;
    let files: std::collections::BTreeSet<&Vec<u8>> =
        folder.values().filter_map(|kind| if let File(bytes) = kind { Some(bytes) } else { None }).collect();
    for (number, file) in files.iter().enumerate().filter(|(_, file)| !file.is_empty()) {
        let lacks = if number % 2 == 0 { &one } else { &two };
        lacks.store.lose(&ChunkId::from_bytes(*blake3::hash(file).as_bytes()));
    }
    let got = taker.take(root, &[&one, &two]).await.unwrap();
    assert!(got.is(&folder));
    assert_eq!(got.summary.peers.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_holder_has_is_named_when_nothing_comes_any_more() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let folder = many(250, 2000);
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    for seed in [100 + 3, 100 + 117] {
        giver.store.lose(&ChunkId::from_bytes(*blake3::hash(&bytes(seed, 2000)).as_bytes()));
    }
    let error = taker.take(root, &[&giver]).await.err().unwrap();
    let Error::Stalled { id, missing, .. } = &error else { panic!("{error}") };
    assert_eq!((*id, missing.as_str()), (root, "d000/f00003, d001/f00117"));
    assert!(taker.shown().is_empty());
    // The rest is here: whoever has the two completes it.
    let third = Node::new(&web, 3);
    let (a, b) = (third.put(bytes(103, 2000)).await, third.put(bytes(217, 2000)).await);
    let tap = web.tap(&giver);
    let got = taker.take(root, &[&third, &giver]).await.unwrap();
    assert!(got.is(&folder));
    assert_eq!(got.received(), a.1 + b.1);
    assert!(tap.wanted().len() <= 2, "only what is missing is asked for: {:?}", tap.wanted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_holder_of_the_directory_has_is_found_as_any_object_is() {
    let web = Web::default();
    let (giver, other, taker) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    let mut folder = many(300, 2000);
    folder.insert("d001/long", File(sample(3 * CHUNK)));
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    web.announce(root, &giver);
    // The other one has some of the files, and is known for two of them only.
    for seed in 120..140 {
        let (id, _) = other.put(bytes(seed, 2000)).await;
        giver.store.lose(&id.only_chunk());
        if seed == 130 {
            web.announce(id, &other);
        }
    }
    let long = other.add(&sample(3 * CHUNK), None).await;
    web.announce(long, &other);
    giver.store.lose(&giver.store.manifest(&long).await.unwrap().unwrap().chunk(1).unwrap().id);
    let got = taker.take(root, &[]).await.unwrap();
    assert!(got.is(&folder));
    assert_eq!(got.received(), got.started.size + list_bytes(&taker, root).await);
    assert_eq!(got.summary.peers.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_was_found_for_is_asked_of_who_has_joined_meanwhile() {
    let web = Web::default();
    let (giver, other, taker) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    let folder = many(3, 2000);
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    web.announce(root, &giver);
    let mut ids = Vec::new();
    for seed in 100..103 {
        let (id, _) = other.put(bytes(seed, 2000)).await;
        giver.store.lose(&id.only_chunk());
        ids.push(id);
    }
    // The other one is found by the last; meanwhile the first is still looked for.
    web.announce(ids[2], &other);
    web.hold_up(ids[0]);
    let joined = async {
        while !taker.store.has(&ids[1].only_chunk()) {
            tokio::task::yield_now().await;
        }
        assert!(web.let_go(ids[0]) > 0, "it is being looked for");
    };
    let (got, ()) = tokio::join!(taker.take(root, &[]), joined);
    assert!(got.unwrap().is(&folder));
}

/// Bytes of all lists of a directory.
async fn list_bytes(node: &Node, root: ObjectId) -> u64 {
    let all = node.store.with_contents(root).await.unwrap();
    all.iter().filter_map(|id| node.store.object(id)).filter(|info| info.tree).map(|info| info.length).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_falls_silent_does_not_hold_up_what_others_have() {
    let web = Web::default();
    let (silent, other, taker) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    let folder = many(2000, 3000);
    let root = silent.add_folder(&folder, TreeOptions::default()).await;
    other.add_folder(&folder, TreeOptions::default()).await;
    let tap = web.tap(&silent);
    let mut events = taker
        .fetcher
        .fetch_tree(TreeRequest { stall: Duration::from_secs(30), ..request(root, &[&silent, &other]) })
        .events;
    let TreeEvent::Started(started) = next(&mut events).await.unwrap() else { panic!() };
    tap.set_open(false);
    let began = Instant::now();
    let got = collect_rest(started, events).await.unwrap();
    assert!(got.is(&folder));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_brings_only_what_is_on_the_way_and_in_it() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let root = giver.add_folder(&mixed(), TreeOptions::default()).await;
    let tap = web.tap(&giver);
    let got = taker.take_path(root, &["a", "b"], &[&giver]).await.unwrap();
    let names: Vec<&str> = got.entries.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["c/", "c/deep", "empty/"]);
    assert_eq!((got.started.name.as_deref(), got.started.size, got.started.entries), (Some("b"), 300, 3));
    assert_eq!(tap.wanted().len(), 6, "the root, a, b, c, the empty one, and the file");
    assert_eq!(taker.shown(), [got.started.id]);
    assert!(!taker.is_whole(root) && taker.store.object(&got.started.id).unwrap().tree);

    for (path, kind) in mixed().iter().filter(|(_, kind)| !matches!(kind, Empty | Link(_))) {
        let names: Vec<&str> = path.split('/').collect();
        let got = taker.take_path(root, &names, &[&giver]).await.unwrap();
        let (File(bytes) | Executable(bytes)) = kind else { unreachable!() };
        let id = ObjectId::from_bytes(*blake3::hash(bytes).as_bytes());
        let started = TreeStarted {
            id,
            is_directory: false,
            name: Some(names.last().unwrap().to_string()),
            size: bytes.len() as u64,
            entries: 0,
        };
        assert_eq!(got.started, started);
        assert_eq!(got.entries, [(names.last().unwrap().to_string(), kind.clone())]);
        assert!(bytes.is_empty() || taker.shown().contains(&id), "{path}");
    }
    let nowhere = [&["b"][..], &["a", "x"], &["a", "b.txt", "c"], &["link"], &["link", "a"], &["A"], &[".."]];
    for path in nowhere {
        let error = taker.take_path(root, path, &[&giver]).await.err().unwrap();
        let Error::NoSuchPath { path: told, .. } = &error else { panic!("{error}") };
        let path = TreePath { root, path: path.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(*told, path.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_directories_are_never_given() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let folder: Folder = mixed().into_iter().chain(many(50, 900)).collect();
    let root = giver.add_folder(&folder, TreeOptions { private: true, ..TreeOptions::default() }).await;
    let error = taker.take(root, &[&giver]).await.err().unwrap();
    assert!(matches!(error, Error::NoHolders { .. }), "{error}");
    // Nor is anything in it, whoever knows its id.
    let parts = giver.store.with_contents(root).await.unwrap();
    assert_eq!(parts.len(), 13 + 50 + 1);
    let asker = web.ask(&giver).await;
    for id in &parts {
        let info = giver.store.object(id).unwrap();
        assert!(info.private && (info.part || *id == root));
        assert!(asker.top(id).await.unwrap().found().is_none(), "{id}");
        let chunk = content::ChunkRef {
            id: id.only_chunk(),
            place: Place::Root,
            length: info.length.min(CHUNK as u64) as u32,
        };
        assert!(asker.want(chunk).await.unwrap().found().is_none(), "{id}");
        let Some(manifest) = giver.store.manifest(id).await.unwrap() else { continue };
        for index in 0..manifest.chunks() {
            assert!(
                asker.want(manifest.chunk(index).unwrap()).await.unwrap().found().is_none(),
                "{id} {index}"
            );
        }
    }
    // Its owner reads it all the same, and it stays private.
    let got = giver.take(root, &[]).await.unwrap();
    assert!(got.is(&folder) && giver.store.object(&root).unwrap().private);
    // A public one cannot bring into the open what is private here.
    let public = taker.add_folder(&many(51, 900), TreeOptions::default()).await;
    let error = giver.take(public, &[&taker]).await.err().unwrap();
    assert!(matches!(error, Error::Privacy { private: true, .. }), "{error}");
    assert!(!giver.is_whole(public));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_added_in_private_is_not_given_nor_what_is_left_of_it() {
    let web = Web::default();
    let giver = Node::new(&web, 1);
    let (long, asker) = (bytes(1, 3 * CHUNK), web.ask(&giver).await);
    let mut adding = giver.ingest.begin(AddOptions { private: true, ..AddOptions::default() });
    adding.write(long.clone().into()).await.unwrap();
    let chunk = Chunk::compute(Place::At(0), long[..CHUNK].to_vec().into()).unwrap().reference();
    while !giver.store.has(&chunk.id) {
        tokio::task::yield_now().await;
    }
    assert!(asker.want(chunk).await.unwrap().found().is_none(), "under way");
    drop(adding);
    while giver.store.usage().await.unwrap().promised > 0 {
        tokio::task::yield_now().await;
    }
    assert!(asker.want(chunk).await.unwrap().found().is_none(), "given up");
    let public = giver.add(&long, None).await;
    assert_eq!(public.as_bytes(), blake3::hash(&long).as_bytes());
    assert!(asker.want(chunk).await.unwrap().found().is_some(), "public");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_files_of_more_than_a_chunk_come_as_well() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    // Names of 200 bytes, so that the list has more than a chunk.
    let mut folder: Folder = (0..6000u64)
        .map(|number| -> (&'static str, Kind) {
            (Box::leak(format!("{number:0>200}").into_boxed_str()), File(bytes(number % 40, 50)))
        })
        .collect();
    for number in 0..6u64 {
        let path: &'static str = Box::leak(format!("{number}-long").into_boxed_str());
        folder.insert(path, File(bytes(number, 2 * CHUNK + number as usize)));
    }
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    assert!(giver.store.object(&root).unwrap().length > CHUNK as u64);
    let got = taker.take(root, &[&giver]).await.unwrap();
    assert!(got.is(&folder));
    let parts = taker.store.with_contents(root).await.unwrap();
    assert_eq!(parts.len(), 1 + 46);
    assert!(parts.iter().all(|id| *id == root || taker.store.object(id).unwrap().part));
    assert_eq!(taker.shown(), [root]);
    let got = Node::new(&web, 3).take(root, &[&taker]).await.unwrap();
    assert!(got.is(&folder));
}
