//! Many records with one write, and many objects with one change of the journal.

use rustix::io::Errno;

use super::*;
use crate::store::disk::forgetful::{Fault, Plan};

fn singles(seeds: std::ops::Range<u64>, length: usize) -> (Vec<Chunk>, Vec<NewObject>) {
    seeds.map(|seed| single(seed, length)).unzip()
}

fn items(chunks: &[Chunk]) -> Vec<Item<'static>> {
    chunks.iter().cloned().map(Item::Chunk).collect()
}

async fn are_there(store: &Store, chunks: &[Chunk]) -> bool {
    for chunk in chunks {
        if store.chunk(&chunk.reference()).await.unwrap().as_ref() != Some(chunk) {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_group_is_stored_once_and_survives_a_power_cut() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (chunks, objects) = singles(0..300, 4096);
    add_single(&store, 7, 4096).await;
    let lease = store.lease();
    let mut twice = items(&chunks);
    twice.extend(items(&chunks[..10]));
    let puts = lease.put_all(twice).await.unwrap();
    let expected: Vec<_> =
        (0..310).map(|at| if at == 7 || at >= 300 { Put::Already } else { Put::New }).collect();
    assert_eq!(puts, expected);
    let mut twice = objects.clone();
    twice.extend_from_slice(&objects[..10]);
    let committed = lease.commit_all(twice).await.unwrap();
    let expected = puts.iter().map(|put| match put {
        Put::New => Committed::Created,
        Put::Already => Committed::Present,
    });
    assert_eq!(committed, expected.collect::<Vec<_>>());
    let after = open_forgetful(&disk.crash());
    assert!(are_there(&after, &chunks).await);
    assert!(objects.iter().all(|object| after.object(&object.id).is_some_and(|info| info.pins.len() == 1)));
}

#[tokio::test]
async fn those_who_wait_to_put_and_are_not_polled_keep_nobody_waiting() {
    let store = open_forgetful(&Forgetful::default());
    add_single(&store, 2000, 1).await;
    let lease = store.lease();
    // Three times what may wait to be written.
    let (chunks, _) = singles(0..(48 << 20) / CHUNK as u64, CHUNK);
    let mut idle: Vec<_> = chunks.into_iter().map(|chunk| Box::pin(lease.put(Item::Chunk(chunk)))).collect();
    for put in &mut idle {
        assert!(futures::poll!(put).is_pending());
    }
    let another = lease.put(Item::Chunk(single(1000, 4096).0));
    let another = tokio::time::timeout(std::time::Duration::from_secs(60), another).await;
    assert_eq!(another.expect("those before it are written").unwrap(), Put::New);
    for put in idle {
        assert_eq!(put.await.unwrap(), Put::New);
    }
}

#[tokio::test]
async fn a_group_that_is_larger_than_a_segment_is_stored_whole() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (chunks, objects) = singles(0..20, CHUNK);
    let lease = store.lease();
    assert_eq!(lease.put_all(items(&chunks)).await.unwrap(), [Put::New; 20]);
    lease.commit_all(objects).await.unwrap();
    assert!(disk.files().iter().filter(|path| path.starts_with("segments")).count() > 2);
    assert!(are_there(&open_forgetful(&disk.crash()), &chunks).await);
}

#[tokio::test]
async fn objects_of_a_change_are_entered_all_or_none() {
    let store = open_forgetful(&Forgetful::default());
    let (chunks, mut objects) = singles(0..9, 100);
    let lease = store.lease();
    lease.put_all(items(&chunks)).await.unwrap();
    lease.commit(objects[8].clone()).await.unwrap();
    objects[8].private = true;
    assert!(matches!(lease.commit_all(objects.clone()).await, Err(Error::Privacy { private: false })));
    assert_eq!(store.objects(None, 100).len(), 1);
    // An object of which nothing has been stored.
    objects[8] = single(9, 100).1;
    assert!(matches!(lease.commit_all(objects.clone()).await, Err(Error::Invalid(_))));
    assert_eq!(store.objects(None, 100).len(), 1);
    objects.pop();
    lease.commit_all(objects).await.unwrap();
    assert_eq!(store.objects(None, 100).len(), 9);
}

/// A new segment takes a descriptor, which others may have used up: that ends by itself.
#[tokio::test]
async fn a_segment_that_cannot_be_begun_for_want_of_descriptors_is_tried_again() {
    let (chunks, objects) = singles(0..9, CHUNK);
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
        let mut busy = 0;
        for at in 0..10 {
            let disk = Forgetful::default();
            let store = open_forgetful(&disk);
            store.recovered().await.unwrap();
            let lease = store.lease();
            let fault = Fault::Errno(errno.raw_os_error());
            disk.plan(Plan { fault: Some((at, at + 1, fault)), ..Plan::default() });
            let put = lease.put_all(items(&chunks)).await;
            disk.plan(Plan::default());
            if store.read_only().is_some() {
                assert!(matches!(put, Err(Error::ReadOnly { .. })), "{at}: {put:?}");
                continue;
            }
            if let Err(error) = put {
                assert!(matches!(error, Error::Busy { what: "make a segment", .. }), "{at}: {error}");
                busy += 1;
            }
            lease.put_all(items(&chunks)).await.unwrap();
            lease.commit_all(objects.clone()).await.unwrap();
            assert!(are_there(&open_forgetful(&disk.crash()), &chunks).await, "{at}");
        }
        assert!(busy >= 1, "{errno}: making a segment never failed");
    }
}

/// Seven chunks go into the first segment: the calls are its write, what seals it and begins the next, and that one's.
#[tokio::test]
async fn a_group_that_failed_for_want_of_room_can_be_put_again() {
    let (chunks, objects) = singles(0..9, CHUNK);
    let mut failed = 0;
    for at in 0..10 {
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        store.recovered().await.unwrap();
        let lease = store.lease();
        let no_room = Fault::Errno(Errno::NOSPC.raw_os_error());
        disk.plan(Plan { fault: Some((at, at + 1, no_room)), ..Plan::default() });
        let put = lease.put_all(items(&chunks)).await;
        disk.plan(Plan::default());
        if store.read_only().is_some() {
            // A sync is believed when it fails, whatever it says.
            assert!(matches!(put, Err(Error::ReadOnly { .. })), "{at}: {put:?}");
            continue;
        }
        failed += u32::from(put.is_err());
        let puts = lease.put_all(items(&chunks)).await.unwrap();
        assert!(put.is_err() || puts == [Put::Already; 9], "{at}: {puts:?}");
        lease.commit_all(objects.clone()).await.unwrap();
        let after = open_forgetful(&disk.crash());
        assert!(are_there(&after, &chunks).await, "{at}");
        after.recovered().await.unwrap();
        assert_eq!(after.usage().await.unwrap().stored_bytes, 9 * (CHUNK as u64 + 4096), "{at}");
    }
    assert!(failed >= 2, "{failed}");
}

#[tokio::test]
async fn what_is_here_needs_no_room() {
    let store = open_on(Arc::new(Forgetful::default()), 3_000_000).unwrap();
    let (chunks, objects) = singles(0..3, CHUNK - 4096);
    let lease = store.lease();
    lease.put_all(items(&chunks[..2])).await.unwrap();
    lease.commit_all(objects[..2].to_vec()).await.unwrap();
    let more = lease.put_all(items(&chunks)).await;
    assert!(matches!(more, Err(Error::Quota(_))), "{more:?}");
    assert_eq!(lease.put_all(items(&chunks[..2])).await.unwrap(), [Put::Already; 2]);
}
