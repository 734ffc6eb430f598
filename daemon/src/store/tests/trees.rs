//! Directories: what is in one is kept with it and goes with it, whatever happens in between.

use super::*;
use crate::content::{Entry, Node, Tree, TreeBuilder};
use crate::store::disk::forgetful::Plan;
use crate::store::{Entries, NewTree, Part};

/// A directory that is to be added.
struct Folder {
    tree: Tree,
    files: Vec<Chunk>,
    /// Directories in it, with what is in them.
    folders: Vec<Folder>,
}

fn file(seed: u64) -> Chunk {
    single(seed, 5000).0
}

fn object(chunk: &Chunk) -> ObjectId {
    chunk.id().whole_object(Place::Root).unwrap()
}

fn folder(seeds: &[u64], folders: Vec<Folder>) -> Folder {
    let files: Vec<Chunk> = seeds.iter().map(|seed| file(*seed)).collect();
    let mut tree = TreeBuilder::default();
    for (seed, file) in seeds.iter().zip(&files) {
        let node = Node::File { id: object(file), length: file.bytes().len() as u64, executable: false };
        tree.push(Entry { name: &format!("f{seed}"), node }).unwrap();
    }
    for (number, folder) in folders.iter().enumerate() {
        let node = Node::Directory { id: folder.id(), length: folder.tree.bytes().len() as u64 };
        tree.push(Entry { name: &format!("d{number}"), node }).unwrap();
    }
    Folder { tree: tree.finish().unwrap(), files, folders }
}

impl Folder {
    fn chunk(&self) -> Chunk {
        Chunk::compute(Place::Root, self.tree.bytes().clone()).unwrap()
    }

    fn id(&self) -> ObjectId {
        object(&self.chunk())
    }

    fn part(chunk: &Chunk) -> Part {
        Part { id: object(chunk), length: chunk.bytes().len() as u64, parity: None }
    }

    /// It and all directories in it.
    fn all(&self) -> Vec<&Folder> {
        [self].into_iter().chain(self.folders.iter().flat_map(Folder::all)).collect()
    }

    fn chunks(&self) -> Vec<Chunk> {
        self.all().iter().flat_map(|folder| folder.files.iter().cloned().chain([folder.chunk()])).collect()
    }

    async fn add(&self, store: &Store, pin: Option<u32>) -> Result<Committed, Error> {
        let lease = store.lease();
        lease.put_all(self.chunks().into_iter().map(Item::Chunk).collect()).await?;
        let below = &self.all()[1..];
        let root = NewObject { pin, ..NewObject::new(self.id(), self.tree.bytes().len() as u64, now()) };
        let tree = NewTree {
            root,
            entries: Entries::of(&self.tree),
            trees: below
                .iter()
                .map(|folder| (Self::part(&folder.chunk()), Entries::of(&folder.tree)))
                .collect(),
            files: self.all().iter().flat_map(|folder| folder.files.iter().map(Self::part)).collect(),
        };
        lease.commit_tree(tree).await
    }

    /// How many of its objects, and of itself, are known and read back.
    async fn there(&self, store: &Store) -> usize {
        let mut there = 0;
        for chunk in self.chunks() {
            let read = store.chunk(&chunk.reference()).await.unwrap();
            let known = store.object(&object(&chunk)).is_some_and(|info| info.state == State::Whole);
            there += usize::from(read.is_some_and(|read| read == chunk) && known);
        }
        there
    }
}

async fn remove(store: &Store, id: ObjectId) -> Removed {
    store.remove(&id, 1000, false).await.unwrap()
}

/// f1 and f2 and, in a directory of its own, f2 and f3: six objects.
fn nested() -> Folder {
    folder(&[1, 2], vec![folder(&[2, 3], Vec::new())])
}

#[tokio::test]
async fn what_is_in_a_directory_is_kept_with_it_and_goes_with_the_last_one_it_is_in() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (_, alone) = add_single(&store, 3, 5000).await;
    let (one, other) = (nested(), folder(&[2, 4], Vec::new()));
    assert_eq!(one.add(&store, Some(1000)).await.unwrap(), Committed::Created);
    assert_eq!(one.add(&store, Some(1000)).await.unwrap(), Committed::Present);
    assert_eq!(other.add(&store, Some(1000)).await.unwrap(), Committed::Created);
    // Everything again from the disk, where nothing is known of directories yet.
    for store in [store, open_forgetful(&disk.crash())] {
        assert_eq!((one.there(&store).await, other.there(&store).await), (6, 3));
        let shown = store.objects(None, 100).into_iter().filter(|info| !info.part).count();
        assert_eq!(shown, 3, "two directories and the file that was added by itself");
        assert_eq!(store.with_contents(one.id()).await.unwrap().len(), 5);
    }
    let disk = disk.crash();
    let store = open_forgetful(&disk);
    assert!(store.collect(now() + 2 * HOUR, true).await.unwrap().objects.is_empty());
    assert_eq!(remove(&store, object(&file(2))).await, Removed::InDirectory { unpinned: false });
    // Its own pin is dropped, and the directory still has it.
    assert_eq!(remove(&store, alone).await, Removed::InDirectory { unpinned: true });
    assert!(store.object(&alone).unwrap().pins.is_empty());
    let Removed::Removed { along, .. } = remove(&store, one.id()).await else { panic!() };
    // It was added by itself once, so it is cached now; f2 is in the other directory.
    assert_eq!(along.len(), 2, "f1 and the inner directory");
    for store in [store, open_forgetful(&disk.crash())] {
        assert_eq!(other.there(&store).await, 3);
        assert!(store.object(&alone).is_some());
        assert!(store.object(&object(&file(1))).is_none() && store.object(&one.folders[0].id()).is_none());
    }
    let store = open_forgetful(&disk.crash());
    let Removed::Removed { freed, along } = remove(&store, other.id()).await else { panic!() };
    assert_eq!((along.len(), freed), (2, 2 * (4096 + 8192) + 4096));
}

#[tokio::test]
async fn an_unpinned_directory_is_collected_whole_and_evicted_whole() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (cached, kept) = (nested(), folder(&[1, 9], Vec::new()));
    cached.add(&store, None).await.unwrap();
    kept.add(&store, Some(1000)).await.unwrap();
    let dry = store.collect(now() + 2 * HOUR, true).await.unwrap();
    let wet = store.collect(now() + 2 * HOUR, false).await.unwrap();
    assert_eq!((dry.objects.len(), &dry), (4, &wet), "f2, f3, two directories; f1 is kept");
    assert_eq!((cached.there(&store).await, kept.there(&store).await), (1, 3));

    let quota = 1 << 20;
    let store = open_on(Arc::new(Forgetful::default()), quota).unwrap();
    cached.add(&store, None).await.unwrap();
    kept.add(&store, Some(1000)).await.unwrap();
    let (chunk, object) = single(50, 1_010_000);
    let lease = store.lease();
    lease.put(Item::Chunk(chunk)).await.unwrap();
    lease.commit(object).await.unwrap();
    assert_eq!((cached.there(&store).await, kept.there(&store).await), (1, 3));
    let too_much = store.lease().put(Item::Chunk(single(51, 50_000).0)).await.unwrap_err();
    let Error::Quota(short) = too_much else { panic!("{too_much}") };
    let folder = short.pins.iter().find(|pin| pin.id == kept.id()).expect("the directory is named");
    assert_eq!(folder.bytes, 10_000 + kept.tree.bytes().len() as u64, "with what is in it");
}

#[tokio::test]
async fn while_a_directory_cannot_be_read_nothing_goes_that_may_be_in_it() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (lost, other) = (folder(&[1], Vec::new()), folder(&[1, 2], Vec::new()));
    lost.add(&store, Some(1000)).await.unwrap();
    other.add(&store, Some(1000)).await.unwrap();
    drop(store);
    let store = open_forgetful(&disk.crash());
    store.lose(&lost.chunk().id());
    assert_eq!(remove(&store, other.id()).await, Removed::InDirectory { unpinned: true });
    assert_eq!(other.there(&store).await, 3);
    assert!(store.collect(now() + 2 * HOUR, false).await.unwrap().objects.is_empty());
    // Its list is back: now it is known what is in it.
    store.lease().put(Item::Chunk(lost.chunk())).await.unwrap();
    let collected = store.collect(now() + 2 * HOUR, false).await.unwrap();
    assert_eq!(collected.objects.len(), 2, "the other directory and f2: {collected:?}");
    assert_eq!(lost.there(&store).await, 2);
}

#[tokio::test]
async fn a_directory_is_there_with_all_in_it_or_not_at_all() {
    let (mut seen, mut torn) = ([0, 0], 0);
    for round in 0.. {
        // Four tears for each place.
        let at = 1 + round / 4;
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        let shared = folder(&[2, 3], Vec::new());
        shared.add(&store, Some(7)).await.unwrap();
        store.recovered().await.unwrap();
        disk.plan(Plan { seed: round, cut_at: Some(at), ..Plan::default() });
        let answered = nested().add(&store, Some(1000)).await.is_ok();
        let removing = answered;
        let removed = removing && store.remove(&shared.id(), 7, false).await.is_ok();
        let Some(disk) = disk.after_cut() else { break };
        let store = open_forgetful(&disk);
        let there = nested().there(&store).await;
        let is_root = store.object(&nested().id()).is_some();
        assert!(!answered || is_root, "cut {at}: it was acknowledged");
        assert!(!is_root || there == 6, "cut {at}: the directory is there, and {there} of 6");
        // The other one is there whole until it is removed, and shares f2, f3 and a list with the first.
        let other = store.object(&shared.id()).filter(|info| !info.pins.is_empty());
        assert!(removing || other.is_some(), "cut {at}: the first directory");
        assert!(!removed || other.is_none(), "cut {at}: its removal was acknowledged");
        assert!(other.is_none() || shared.there(&store).await == 3, "cut {at}");
        seen[usize::from(is_root)] += 1;
        torn += usize::from(!is_root && there > 3);
        // What is left of it is seen by nobody, and goes.
        if !is_root {
            assert!(
                store.objects(None, 100).iter().all(|info| info.part || !info.pins.is_empty()),
                "cut {at}"
            );
            store.collect(now() + 2 * HOUR, false).await.unwrap();
            assert_eq!(nested().there(&store).await, 4, "cut {at}: only what both have, f2 twice");
        }
    }
    assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
    assert!(torn > 0, "some cut fell between what is in it and it");
}

/// Adds a file by itself, at a time of its own.
async fn add_at(store: &Store, seed: u64, at: u64, pin: Option<u32>) -> ObjectId {
    let (chunk, object) = single(seed, 5000);
    let lease = store.lease();
    lease.put(Item::Chunk(chunk)).await.unwrap();
    lease.commit(NewObject { pin, now: at, ..object.clone() }).await.unwrap();
    object.id
}

#[tokio::test]
async fn what_cannot_be_in_an_unread_directory_goes() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (root, day) = (nested(), 24 * HOUR);
    let inner = root.folders[0].id();
    root.add(&store, Some(1000)).await.unwrap();
    let older = add_at(&store, 50, now(), Some(1000)).await;
    let cached = add_at(&store, 51, now() + day, None).await;
    let later = add_at(&store, 52, now() + 2 * day, None).await;
    let mine = add_at(&store, 53, now() + 2 * day, Some(1000)).await;
    drop(store);
    let disk = disk.crash();
    let store = open_forgetful(&disk);
    store.lose(&root.folders[0].chunk().id());
    // What came before it, or not much later, may be in it.
    assert_eq!(remove(&store, older).await, Removed::InDirectory { unpinned: true });
    assert_eq!(store.kept_for_unread(&older), Some(inner));
    assert_eq!(store.kept_for_unread(&object(&file(1))), None, "the outermost one has it");
    let collected = store.collect(now() + 4 * day, false).await.unwrap();
    assert_eq!(collected.objects, [later]);
    assert!(store.object(&cached).is_some());
    assert!(matches!(remove(&store, mine).await, Removed::Removed { .. }));
    // What it is in cannot be in it, and takes it along: then nothing keeps what was in it.
    let Removed::Removed { along, .. } = remove(&store, root.id()).await else { panic!() };
    assert_eq!(along.len(), 3, "f1, f2 and the inner directory");
    let collected = store.collect(now() + 4 * day, false).await.unwrap();
    assert_eq!(collected.objects.len(), 3, "f3, and two that were added by themselves: {collected:?}");
    assert_eq!(store.objects(None, 10), []);
    assert_eq!(open_forgetful(&disk.crash()).objects(None, 10), []);
}

#[tokio::test]
async fn what_came_later_than_an_unread_directory_gives_way_and_so_does_that_directory() {
    for pin in [Some(1000), None] {
        let disk = Forgetful::default();
        let store = open_on(Arc::new(disk.clone()), 1 << 20).unwrap();
        let lost = folder(&[1], Vec::new());
        lost.add(&store, pin).await.unwrap();
        let older = add_at(&store, 51, now(), None).await;
        let later = add_at(&store, 52, now() + 48 * HOUR, None).await;
        add_single(&store, 60, 900_000).await;
        drop(store);
        let store = open_on(Arc::new(disk.crash()), 1 << 20).unwrap();
        store.recovered().await.unwrap();
        store.lose(&lost.chunk().id());
        // Room for this when one of them goes, and for the next when both others go.
        add_single(&store, 61, 105_000).await;
        assert!(store.object(&later).is_none() && store.object(&older).is_some());
        assert_eq!(store.object(&lost.id()).is_some(), pin.is_some());
        let more = store.lease().put(Item::Chunk(single(62, 20_000).0)).await;
        assert_eq!(more.is_err(), pin.is_some());
        assert_eq!([older, object(&file(1))].map(|id| store.object(&id).is_some()), [pin.is_some(); 2]);
    }
}

#[tokio::test]
async fn a_directory_is_not_older_than_what_is_in_it() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let ahead = now() + 10 * 24 * HOUR;
    // The clock was ahead when the file came.
    let alone = add_at(&store, 3, ahead, None).await;
    let root = nested();
    root.add(&store, Some(1000)).await.unwrap();
    assert_eq!([root.id(), root.folders[0].id()].map(|id| store.object(&id).unwrap().added), [ahead; 2]);
    drop(store);
    let store = open_forgetful(&disk.crash());
    store.lose(&root.folders[0].chunk().id());
    assert_eq!(store.collect(ahead + 2 * HOUR, false).await.unwrap().objects, []);
    assert!(store.object(&alone).is_some());
}

#[tokio::test]
async fn unread_directories_are_told_of_once() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let one = folder(&[1], Vec::new());
    one.add(&store, Some(1000)).await.unwrap();
    drop(store);
    let store = open_forgetful(&disk.crash());
    store.recovered().await.unwrap();
    store.lose(&one.chunk().id());
    // Those that are known to be unread have been told of.
    let knows = || store.inner.ledger.knows_unread(&[one.id()].into());
    assert!(!knows());
    for _ in 0..3 {
        assert_eq!(store.collect(now(), false).await.unwrap().objects, []);
        assert!(knows());
    }
}
