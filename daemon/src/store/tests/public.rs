//! What others may have.

use super::*;

async fn public(store: &Store, chunks: &[ChunkRef]) -> Vec<bool> {
    let mut public = Vec::new();
    for chunk in chunks {
        public.push(store.is_public(chunk).await.unwrap());
    }
    public
}

fn private(object: NewObject) -> NewObject {
    NewObject { private: true, ..object }
}

#[tokio::test]
async fn private_chunks_are_not_public_while_they_are_added_nor_after() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (long, manifest, object) = several(&[1, 2]);
    let (short, alone) = single(3, 9000);
    let chunks: Vec<_> = long.iter().chain([&short]).map(Chunk::reference).collect();
    let lease = store.lease();
    for chunk in long.into_iter().chain([short]) {
        lease.put(Item::Chunk(chunk)).await.unwrap();
    }
    lease.put_manifest(&manifest).await.unwrap();
    assert_eq!(public(&store, &chunks).await, [false; 3], "under way");
    lease.commit_all(vec![private(object.clone()), private(alone.clone())]).await.unwrap();
    assert_eq!(public(&store, &chunks).await, [false; 3], "added");
    for id in [object.id, alone.id] {
        assert!(matches!(store.remove(&id, 1000, false).await.unwrap(), Removed::Removed { .. }));
    }
    assert_eq!(public(&store, &chunks).await, [false; 3], "removed, while a lease holds them");
    drop(lease);
    assert_eq!(public(&store, &chunks).await, [false; 3], "left over");
    let store = open_forgetful(&disk.crash());
    for chunk in &chunks {
        assert!(store.chunk(chunk).await.unwrap().is_some());
    }
    assert_eq!(public(&store, &chunks).await, [false; 3], "after a restart");
}

#[tokio::test]
async fn chunks_are_public_as_long_as_one_public_object_has_them() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let first = add_several(&store, &[1, 2]).await;
    let (shared, own) = (first.chunk(0).unwrap(), first.chunk(1).unwrap());
    let (chunks, hidden, object) = several(&[1, 3]);
    let lease = store.lease();
    lease.put(Item::Chunk(chunks[1].clone())).await.unwrap();
    lease.put_manifest(&hidden).await.unwrap();
    lease.commit(private(object)).await.unwrap();
    let all = [shared, own, hidden.chunk(1).unwrap()];
    assert_eq!(public(&store, &all).await, [true, true, false]);
    // One that comes later, and is being fetched.
    let (chunks, partial, object) = several(&[1, 4, 5]);
    lease.put(Item::Chunk(chunks[1].clone())).await.unwrap();
    lease.put_manifest(&partial).await.unwrap();
    let all = [shared, own, hidden.chunk(1).unwrap(), partial.chunk(1).unwrap()];
    assert_eq!(public(&store, &all).await, [true, true, false, false]);
    lease.partial(object).await.unwrap();
    assert_eq!(public(&store, &all).await, [true, true, false, true]);
    assert!(matches!(store.remove(&first.id(), 1000, false).await.unwrap(), Removed::Removed { .. }));
    assert_eq!(public(&store, &all).await, [true, false, false, true]);
    let store = open_forgetful(&disk.crash());
    assert_eq!(public(&store, &all).await, [true, false, false, true]);
}

#[tokio::test]
async fn a_shared_lease_is_for_others_while_it_lives_but_for_what_is_private() {
    let store = open_forgetful(&Forgetful::default());
    let ((chunk, _), (secret, object)) = (single(1, 9000), single(2, 9000));
    let chunks = [chunk.reference(), secret.reference()];
    let adding = store.lease();
    adding.put(Item::Chunk(secret)).await.unwrap();
    adding.commit(private(object)).await.unwrap();
    let lease = store.lease();
    lease.put(Item::Chunk(chunk)).await.unwrap();
    assert!(lease.hold(&chunks[1].id).await.unwrap());
    assert_eq!(public(&store, &chunks).await, [false, false]);
    lease.share();
    assert_eq!(public(&store, &chunks).await, [true, false]);
    drop(lease);
    assert_eq!(public(&store, &chunks).await, [false, false]);
}

#[tokio::test]
async fn what_cannot_be_read_is_not_public_and_the_rest_is() {
    let store = open_forgetful(&Forgetful::default());
    let (chunks, manifest, object) = several(&[1, 2]);
    let lease = store.lease();
    lease.put(Item::Chunk(chunks[0].clone())).await.unwrap();
    lease.put(Item::Top(manifest.top())).await.unwrap();
    lease.commit(object).await.unwrap();
    let other = add_several(&store, &[3, 4]).await;
    let all = [manifest.chunk(0).unwrap(), other.chunk(1).unwrap()];
    assert_eq!(public(&store, &all).await, [false, true]);
}
