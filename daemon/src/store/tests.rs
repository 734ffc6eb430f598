//! The store over a real folder, and over a disk that forgets what was not synced.

mod crash;
mod generated;
mod groups;
mod jobs;
mod keeping;
mod public;
mod rare;
mod scrub;
mod sim;
mod trees;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::forgetful::Forgetful;
use super::*;
use crate::content::{CHUNK, Chunk, ChunkRef, Manifest, ManifestBuilder, ObjectId, Place};
use crate::support::pool::Pool;

/// The first segment.
const SEGMENT: &str = "segments/00000001.seg";
const HOUR: u64 = 3600;

/// Bytes that differ by seed, without a random source.
fn sample(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn open_on(disk: Arc<dyn Disk>, quota: u64) -> Result<Store, Error> {
    let sizes = Sizes { segment: 8 << 20, ..Sizes::default() };
    let options = Options { quota, reserve: 0, index_cache: 4 << 20, sizes };
    Store::open(&options, disk, Pool::new(2))
}

fn open_forgetful(disk: &Forgetful) -> Store {
    open_on(Arc::new(disk.clone()), 0).unwrap()
}

/// With segments of 128 KiB.
fn open_short(disk: &Forgetful) -> Store {
    let sizes = Sizes { segment: 128 << 10, ..Sizes::default() };
    let options = Options { quota: 0, reserve: 0, index_cache: 0, sizes };
    Store::open(&options, Arc::new(disk.clone()), Pool::inline()).unwrap()
}

fn open_real(folder: &Path) -> Store {
    open_on(Arc::new(Real::new(folder)), 0).unwrap()
}

fn single(seed: u64, length: usize) -> (Chunk, NewObject) {
    let chunk = Chunk::compute(Place::Root, sample(seed, length)).unwrap();
    let id = chunk.id().whole_object(Place::Root).unwrap();
    let object = NewObject { pin: Some(1000), ..NewObject::new(id, length as u64, now()) };
    (chunk, object)
}

/// An object of the chunks with these seeds; seed 0 stands for zeros.
fn several(seeds: &[u64]) -> (Vec<Chunk>, Manifest, NewObject) {
    let mut builder = ManifestBuilder::new();
    let bytes = |seed| if seed == 0 { vec![0; CHUNK].into() } else { sample(seed, CHUNK) };
    let place = |index| Place::At(index as u64 * CHUNK as u64);
    let chunks: Vec<_> = seeds
        .iter()
        .enumerate()
        .map(|(index, seed)| Chunk::compute(place(index), bytes(*seed)).unwrap())
        .collect();
    chunks.iter().for_each(|chunk| builder.push(chunk).unwrap());
    let manifest = builder.finish().unwrap();
    let object = NewObject { pin: Some(1000), ..NewObject::new(manifest.id(), manifest.length(), now()) };
    (chunks, manifest, object)
}

async fn add_single(store: &Store, seed: u64, length: usize) -> (ChunkRef, ObjectId) {
    let (chunk, object) = single(seed, length);
    let (reference, id, lease) = (chunk.reference(), object.id, store.lease());
    lease.put(Item::Chunk(chunk)).await.unwrap();
    lease.commit(object).await.unwrap();
    (reference, id)
}

async fn add_several(store: &Store, seeds: &[u64]) -> Manifest {
    let (chunks, manifest, object) = several(seeds);
    let lease = store.lease();
    for chunk in chunks.into_iter().filter(|chunk| !chunk.is_zero()) {
        lease.put(Item::Chunk(chunk)).await.unwrap();
    }
    lease.put_manifest(&manifest).await.unwrap();
    assert_eq!(lease.commit(object).await.unwrap(), Committed::Created);
    manifest
}

async fn is_whole(store: &Store, manifest: &Manifest) -> bool {
    for index in (0..manifest.chunks()).filter(|index| !manifest.is_zero(*index)) {
        if store.chunk(&manifest.chunk(index).unwrap()).await.unwrap().is_none() {
            return false;
        }
    }
    store.manifest(&manifest.id()).await.unwrap().as_ref() == Some(manifest)
}

#[tokio::test]
async fn what_is_put_reads_back_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_real(folder.path());
    let mut all = Vec::new();
    for (seed, length) in [1, 2, 3584, 3585, 4096, 100_000, CHUNK].into_iter().enumerate() {
        all.push(add_single(&store, seed as u64, length).await);
    }
    let zeros = Chunk::compute(Place::Root, vec![0; CHUNK].into()).unwrap();
    assert_eq!(store.lease().put(Item::Chunk(zeros.clone())).await.unwrap(), Put::New);
    let manifest = add_several(&store, &[10, 0, 11]).await;
    let mut store = store;
    for round in 0..2 {
        for (reference, id) in &all {
            assert_eq!(store.chunk(reference).await.unwrap().unwrap().reference(), *reference);
            assert_eq!(store.object(id).unwrap().length, u64::from(reference.length));
        }
        assert_eq!(store.chunk(&zeros.reference()).await.unwrap().as_ref(), Some(&zeros));
        assert!(is_whole(&store, &manifest).await);
        assert_eq!(store.local_chunks(&manifest.id()).await.unwrap(), Some(3));
        assert_eq!(store.objects(None, 100).len(), 8);
        store.close().await.unwrap();
        assert!(matches!(store.lease().put(Item::Chunk(zeros.clone())).await, Err(Error::Closed)));
        drop(store);
        assert!(folder.path().join("CLEAN").exists(), "round {round}");
        return_lock(folder.path()).await;
        store = open_real(folder.path());
    }
}

/// Waits until the folder can be locked: the last task that writes has ended.
async fn return_lock(folder: &Path) {
    let disk = Real::new(folder);
    let locked = async {
        while disk.lock(Path::new("LOCK")).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), locked).await.unwrap();
}

#[tokio::test]
async fn a_second_store_on_the_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let _store = open_real(folder.path());
    let error = open_on(Arc::new(Real::new(folder.path())), 0).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()));
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(open_on(Arc::new(Real::new(file)), 0), Err(Error::Folder { .. })));
}

#[tokio::test]
async fn damage_is_told_once_not_served_and_healed_by_a_put() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let mut damage = store.take_damage().unwrap();
    assert!(store.take_damage().is_none());
    let (reference, _) = add_single(&store, 1, 20_000).await;
    let wrong = ChunkRef { place: Place::At(0), ..reference };
    assert_eq!(store.chunk(&wrong).await.unwrap(), None);
    disk.edit(SEGMENT, |bytes| bytes[4096 + 777] ^= 1);
    assert_eq!(store.chunk(&reference).await.unwrap(), None);
    let told = damage.recv().await.unwrap();
    assert_eq!((told.kind, told.id, told.offset), (Kind::Data, *reference.id.as_bytes(), 0));
    assert!(!store.has(&reference.id) && damage.try_recv().is_err());
    assert_eq!(store.lease().put(Item::Chunk(single(1, 20_000).0)).await.unwrap(), Put::New);
    assert!(store.chunk(&reference).await.unwrap().is_some());
}

#[tokio::test]
async fn a_quota_is_hard_and_what_is_not_used_comes_back() {
    let disk = Forgetful::default();
    let store = open_on(Arc::new(disk), 4 << 20).unwrap();
    let lease = store.lease();
    lease.reserve(3 << 20).await.unwrap();
    assert!(matches!(lease.reserve(2 << 20).await, Err(Error::Quota(_))));
    assert!(store.lease().reserve(2 << 20).await.unwrap_err().is_no_space());
    drop(lease);
    let lease = store.lease();
    lease.reserve(3 << 20).await.unwrap();
    for seed in [1, 2, 3, 3, 3, 3] {
        lease.put(Item::Chunk(single(seed, CHUNK).0)).await.unwrap();
    }
    let full = lease.put(Item::Chunk(single(4, CHUNK).0)).await;
    assert!(matches!(full, Err(Error::Quota(_))));
    drop(lease);
    let usage = store.usage().await.unwrap();
    assert_eq!(usage.stored_bytes, 3 * (CHUNK as u64 + 4096));
    store.lease().reserve((4 << 20) - usage.used_bytes - 9000).await.unwrap();
}

#[tokio::test]
async fn only_a_bad_sector_is_damage() {
    use rustix::io::Errno;
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (chunk, object) = single(1, 5000);
    let lease = store.lease();
    lease.put(Item::Chunk(chunk.clone())).await.unwrap();
    lease.commit(object).await.unwrap();
    let reference = chunk.reference();
    // Out of descriptors or memory: the record is not to blame, and stays known.
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
        disk.fail_reads(errno.raw_os_error());
        assert!(matches!(store.chunk(&reference).await, Err(Error::Busy { .. })), "{errno}");
        disk.fail_reads(0);
        assert_eq!(store.chunk(&reference).await.unwrap(), Some(chunk.clone()), "{errno}");
    }
    disk.fail_reads(Errno::IO.raw_os_error());
    assert_eq!(store.chunk(&reference).await.unwrap(), None, "it is asked for elsewhere and stored anew");
    disk.fail_reads(0);
    assert_eq!(store.chunk(&reference).await.unwrap(), None);
    store.lease().put(Item::Chunk(chunk.clone())).await.unwrap();
    assert_eq!(store.chunk(&reference).await.unwrap(), Some(chunk));
}

#[tokio::test]
async fn removing_frees_what_nothing_else_needs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_real(folder.path());
    let (first, second) = (add_several(&store, &[1, 2, 0]).await, add_several(&store, &[1, 3, 0]).await);
    let shared = first.chunk(0).unwrap();
    assert_eq!(shared, second.chunk(0).unwrap());
    assert!(store.pin(&first.id(), 7).await.unwrap());
    assert_eq!(store.remove(&first.id(), 8, false).await.unwrap(), Removed::NotPermitted);
    assert_eq!(store.remove(&first.id(), 1000, false).await.unwrap(), Removed::StillPinned { others: 1 });
    let freed = match store.remove(&first.id(), 7, false).await.unwrap() {
        Removed::Removed { freed, .. } => freed,
        other => panic!("{other:?}"),
    };
    // One chunk, the top and the page.
    assert_eq!(freed, CHUNK as u64 + 3 * 4096);
    assert_eq!(store.remove(&first.id(), 7, true).await.unwrap(), Removed::NotFound);
    assert!(is_whole(&store, &second).await && !is_whole(&store, &first).await);
    assert_eq!(store.chunk(&first.chunk(1).unwrap()).await.unwrap(), None);
    // Nobody drops the pins of others but by force, whether he has one of his own or not.
    assert!(store.pin(&second.id(), 0).await.unwrap());
    assert_eq!(store.remove(&second.id(), 0, false).await.unwrap(), Removed::StillPinned { others: 1 });
    assert_eq!(store.remove(&second.id(), 0, false).await.unwrap(), Removed::NotPermitted);
    assert!(store.pin(&second.id(), 0).await.unwrap());
    assert!(matches!(store.remove(&second.id(), 0, true).await.unwrap(), Removed::Removed { .. }));
    assert_eq!(store.usage().await.unwrap().stored_bytes, 0);
    use std::os::unix::fs::MetadataExt;
    let blocks = folder.path().join(SEGMENT).metadata().unwrap().blocks();
    assert!(blocks * 512 < CHUNK as u64, "the holes are not there: {blocks} blocks");
    let again = add_several(&store, &[1, 2, 0]).await;
    assert!(is_whole(&store, &again).await);
}

#[tokio::test]
async fn what_a_lease_holds_is_not_removed() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (reference, id) = add_single(&store, 1, 9000).await;
    let lease = store.lease();
    assert!(lease.hold(&reference.id).await.unwrap());
    assert_eq!(
        store.remove(&id, 1000, false).await.unwrap(),
        Removed::Removed { freed: 0, along: Vec::new() }
    );
    assert!(store.chunk(&reference).await.unwrap().is_some());
    assert_eq!(lease.commit(single(1, 9000).1).await.unwrap(), Committed::Created);
    drop(lease);
    assert!(open_forgetful(&disk.crash()).chunk(&reference).await.unwrap().is_some());
    let freed = store.remove(&id, 1000, false).await.unwrap();
    assert_eq!(freed, Removed::Removed { freed: 4096 + 12288, along: Vec::new() });
    assert!(store.chunk(&reference).await.unwrap().is_none());
}

#[tokio::test]
async fn collecting_drops_what_is_unpinned_old_or_left_over() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (pinned, _) = add_single(&store, 1, 9000).await;
    let (cached, id) = add_single(&store, 2, 9000).await;
    assert!(store.unpin(&id, 1000).await.unwrap());
    let (orphan, partial) = (single(3, 9000).0, several(&[4, 5]));
    let lease = store.lease();
    lease.put(Item::Chunk(orphan.clone())).await.unwrap();
    lease.put_manifest(&partial.1).await.unwrap();
    lease.put(Item::Chunk(partial.0[0].clone())).await.unwrap();
    assert_eq!(lease.partial(partial.2.clone()).await.unwrap(), Committed::Created);
    lease.sync().await.unwrap();
    assert!(!store.unpin(&partial.2.id, 1000).await.unwrap());
    drop(lease);
    let store = open_forgetful(&disk.crash());
    assert_eq!(store.partials(None, 9).len(), 1);
    assert_eq!(store.local_chunks(&partial.2.id).await.unwrap(), Some(1));
    assert_eq!(store.collect(now(), false).await.unwrap(), Collected::default());
    let soon = store.collect(now() + HOUR, true).await.unwrap();
    assert_eq!((soon.objects.as_slice(), soon.freed), ([id].as_slice(), 4096 + 12288));
    assert_eq!(store.collect(now() + HOUR, false).await.unwrap(), soon);
    assert!(store.chunk(&cached).await.unwrap().is_none());
    let later = store.collect(now() + 25 * HOUR, true).await.unwrap();
    assert_eq!((later.orphans, later.partials.len()), (1, 1));
    assert_eq!(store.collect(now() + 25 * HOUR, false).await.unwrap(), later);
    assert!(store.chunk(&orphan.reference()).await.unwrap().is_none());
    assert!(store.chunk(&pinned).await.unwrap().is_some());
}

#[tokio::test]
async fn objects_are_found_by_name_and_by_the_beginning_of_their_id() {
    let store = open_forgetful(&Forgetful::default());
    let lease = store.lease();
    let mut ids = Vec::new();
    for (seed, name) in [(1, "a"), (2, "b"), (3, "b")] {
        let (chunk, object) = single(seed, 100);
        lease.put(Item::Chunk(chunk)).await.unwrap();
        let object = NewObject { name: Some(name.to_owned()), ..object };
        ids.push(object.id);
        assert_eq!(lease.commit(object.clone()).await.unwrap(), Committed::Created);
        assert_eq!(lease.commit(object).await.unwrap(), Committed::Present);
    }
    assert!(matches!(store.find("a"), Found::One(info) if info.id == ids[0]));
    assert!(matches!(store.find("b"), Found::Several(two) if two.len() == 2));
    let text = ids[1].to_string();
    for length in [8, 9, 63, 64] {
        assert!(matches!(store.find(&text[..length]), Found::One(info) if info.id == ids[1]));
    }
    for nothing in ["", "c", &text[..7], "ffffffffff"] {
        assert_eq!(store.find(nothing), Found::None);
    }
    // Somebody gives a file a name that is another's id, or its beginning.
    for (seed, name) in [(4, &text[..]), (5, &text[..9]), (6, &"0".repeat(64)), (7, "feedbeef")] {
        let (chunk, object) = single(seed, 100);
        lease.put(Item::Chunk(chunk)).await.unwrap();
        ids.push(object.id);
        lease.commit(NewObject { name: Some(name.to_owned()), ..object }).await.unwrap();
    }
    assert!(matches!(store.find(&text), Found::One(info) if info.id == ids[1]), "a whole id is no name");
    assert!(matches!(store.find(&text[..8]), Found::One(info) if info.id == ids[1]));
    assert!(matches!(store.find(&text[..9]), Found::Several(two) if two == [ids[1], ids[4]]));
    assert_eq!(store.find(&"0".repeat(64)), Found::None);
    assert!(matches!(store.find("feedbeef"), Found::One(info) if info.id == ids[6]));
    let mut sorted = ids.clone();
    sorted.sort();
    let page = store.objects(Some(sorted[0]), 1);
    assert_eq!((page.len(), page[0].id), (1, sorted[1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commits_share_syncs_and_equal_puts_are_stored_once() {
    let store = open_forgetful(&Forgetful::default());
    let adds = (0..400u64).map(|seed| {
        let store = store.clone();
        async move { add_single(&store, seed % 200, 100).await }
    });
    futures::future::join_all(adds).await;
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.objects, usage.stored_bytes), (200, 200 * 4096));
}
