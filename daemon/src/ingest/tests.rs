//! Adding to a store that is full, or nearly.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::content::{CHUNK, ChunkId};
use crate::store::forgetful::Forgetful;
use crate::store::{Error as StoreError, Options, Sizes};

const MIB: u64 = 1 << 20;

/// Bytes that differ by seed, without a random source.
fn sample(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn ingest(disk: &Forgetful, quota: u64) -> Ingest {
    let sizes = Sizes { segment: 64 << 20, ..Sizes::default() };
    let options = Options { quota, reserve: 0, index_cache: 4 << 20, sizes };
    let pool = Pool::new(2);
    let store = Store::open(&options, Arc::new(disk.clone()), pool.clone()).unwrap();
    Ingest::new(store, pool, Keypair::generate_ed25519(), Tasks::new())
}

fn wide() -> Option<Geometry> {
    Some(Geometry::new(16, 4).unwrap())
}

async fn add(ingest: &Ingest, bytes: &Bytes, pin: Option<u32>) -> Result<Added, Error> {
    let length = Some(bytes.len() as u64);
    let mut adding = ingest.begin(AddOptions { length, parity: wide(), pin, ..AddOptions::default() });
    for start in (0..bytes.len()).step_by(CHUNK) {
        adding.write(bytes.slice(start..bytes.len().min(start + CHUNK))).await?;
    }
    adding.finish(bytes.len() as u64).await
}

async fn add_tree(ingest: &Ingest, bytes: &Bytes) -> Result<AddedTree, Error> {
    let mut adding =
        ingest.begin_tree(TreeOptions { parity: wide(), pin: Some(1), ..TreeOptions::default() });
    let file = TreePart::File("a".to_owned(), false, sample(77, 9000));
    adding.take(vec![file, TreePart::Start("b".to_owned(), false, Some(bytes.len() as u64))]).await?;
    for start in (0..bytes.len()).step_by(CHUNK) {
        adding.take(vec![TreePart::Data(bytes.slice(start..bytes.len().min(start + CHUNK)))]).await?;
    }
    adding.take(vec![TreePart::End(bytes.len() as u64)]).await?;
    adding.finish(2).await
}

async fn used(ingest: &Ingest) -> u64 {
    ingest.store.usage().await.unwrap().used_bytes
}

fn is_quota<T>(result: Result<T, Error>) -> u64 {
    match result {
        Err(Error::Store(StoreError::Quota(shortage))) => shortage.needed,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was added"),
    }
}

/// Chunks of an object that rot.
async fn lose(ingest: &Ingest, id: ObjectId, chunks: &[u64]) -> Vec<ChunkId> {
    let manifest = ingest.store.manifest(&id).await.unwrap().unwrap();
    let ids: Vec<_> = chunks.iter().map(|index| manifest.chunk(*index).unwrap().id).collect();
    ids.iter().for_each(|id| ingest.store.lose(id));
    assert_eq!(ingest.store.has_all(ids.clone()).await, vec![false; ids.len()]);
    ids
}

#[tokio::test]
async fn what_is_stored_is_added_again_and_healed_on_a_full_store() {
    let (bytes, disk) = (sample(1, 40 * CHUNK + 5), Forgetful::default());
    let roomy = ingest(&disk, 0);
    let first = add(&roomy, &bytes, Some(1)).await.unwrap();
    let small = sample(5, 9000);
    let only =
        roomy.add_small(vec![(small.clone(), AddOptions::default())]).await.unwrap()[0].id.only_chunk();
    roomy.store.pin(&ObjectId::from_bytes(*only.as_bytes()), 1).await.unwrap();
    let whole = used(&roomy).await;
    drop(roomy);
    for left in [0, 3 * MIB] {
        let ingest = ingest(&disk.crash(), whole + left);
        let again = add(&ingest, &bytes, Some(1)).await.unwrap();
        assert!(!again.created && again.id == first.id);
        let lost = lose(&ingest, first.id, &[0, 7, 8, 40]).await;
        assert!(!add(&ingest, &bytes, Some(1)).await.unwrap().created);
        assert_eq!(ingest.store.has_all(lost).await, [true; 4], "it heals");
        assert_eq!(used(&ingest).await, whole, "and takes no more than before");
        let small = vec![(small.clone(), AddOptions::default())];
        assert!(!ingest.add_small(small.clone()).await.unwrap()[0].created);
        ingest.store.lose(&only);
        assert!(!ingest.add_small(small).await.unwrap()[0].created);
        assert_eq!(ingest.store.has_all(vec![only]).await, [true]);
    }
}

#[tokio::test]
async fn a_directory_that_is_stored_is_added_again_and_healed_on_a_full_store() {
    let (bytes, disk) = (sample(1, 40 * CHUNK + 5), Forgetful::default());
    let roomy = ingest(&disk, 0);
    let first = add_tree(&roomy, &bytes).await.unwrap();
    let whole = used(&roomy).await;
    drop(roomy);
    let ingest = ingest(&disk.crash(), whole);
    assert!(!add_tree(&ingest, &bytes).await.unwrap().created);
    let lost = lose(&ingest, first.objects[1], &[0, 7, 8, 40]).await;
    assert!(!add_tree(&ingest, &bytes).await.unwrap().created);
    assert_eq!(ingest.store.has_all(lost).await, [true; 4], "it heals");
}

#[tokio::test]
async fn what_is_new_and_too_long_neither_fills_the_store_nor_evicts() {
    for left in [2, 25] {
        let ingest = ingest(&Forgetful::default(), (10 + left) * MIB);
        let cached = add(&ingest, &sample(9, 5 * CHUNK), None).await.unwrap();
        let before = used(&ingest).await;
        let bytes = sample(2, 100 * CHUNK);
        // The refusal is that of the whole, not of the chunk at which it was given.
        assert!(is_quota(add(&ingest, &bytes, Some(1)).await) > 100 * MIB);
        assert!(used(&ingest).await <= before + 16 * MIB);
        assert!(is_quota(add_tree(&ingest, &bytes).await) > 100 * MIB);
        assert!(used(&ingest).await <= before + 17 * MIB);
        assert!(ingest.store.object(&cached.id).is_some());
        // All is given back by whoever was refused, when what was in the queue has been written.
        let given_back = async { while ingest.store.usage().await.unwrap().promised > 0 {} };
        tokio::time::timeout(Duration::from_secs(30), given_back).await.expect("room stays promised");
        assert_eq!(ingest.store.leases(), 0);
    }
}

#[tokio::test]
async fn room_that_was_refused_is_there_as_soon_as_something_is_unpinned() {
    let ingest = ingest(&Forgetful::default(), 12 * MIB);
    let first = add(&ingest, &sample(1, 7 * CHUNK), Some(1)).await.unwrap();
    let bytes = sample(2, 7 * CHUNK);
    is_quota(add(&ingest, &bytes, Some(1)).await);
    is_quota(add_tree(&ingest, &bytes).await);
    ingest.store.unpin(&first.id, 1).await.unwrap();
    assert!(add(&ingest, &bytes, Some(1)).await.unwrap().created);
    is_quota(add(&ingest, &sample(3, 7 * CHUNK), Some(1)).await);
    ingest.store.unpin(&ObjectId::from_bytes(*blake3::hash(&bytes).as_bytes()), 1).await.unwrap();
    assert!(add_tree(&ingest, &sample(4, 7 * CHUNK)).await.unwrap().created);
}
