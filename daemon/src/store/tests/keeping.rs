//! What is in use, what gives way first, and what the doctor finds.

use super::*;

#[tokio::test]
async fn bytes_are_counted_by_kind_and_so_is_what_is_not_finished() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    store.recovered().await.unwrap();
    let manifest = add_several(&store, &[1, 2, 3]).await;
    let parity = Chunk::compute(Place::Root, sample(9, CHUNK)).unwrap();
    let lease = store.lease();
    lease.put(Item::Parity(parity.clone())).await.unwrap();
    let record = CHUNK as u64 + 4096;
    let (chunk, object) = single(4, 5000);
    lease.put(Item::Chunk(chunk.clone())).await.unwrap();
    lease.partial(object.clone()).await.unwrap();
    lease.sync().await.unwrap();
    let usage = store.usage().await.unwrap();
    let expected = Kinds { data: 3 * record + 12288, parity: record, manifests: 2 * 4096, parity_parts: 0 };
    assert_eq!(usage.kinds, expected);
    assert_eq!(usage.stored_bytes, 4 * record + 5 * 4096);
    assert_eq!((usage.index_bytes, usage.used_bytes), (7 * 288, usage.stored_bytes + 7 * 288));
    // What a lease holds is nobody's leftover.
    assert_eq!(usage.unfinished, Some(Unfinished { partial: 12288, leftover: 0 }));
    lease.reserve(1 << 20).await.unwrap();
    assert!(store.usage().await.unwrap().promised > 1 << 20);
    drop(lease);
    wait_for_survey(&store, Unfinished { partial: 12288, leftover: record }).await;
    // The same after a restart, from the index and without it.
    store.close().await.unwrap();
    for whole in [true, false] {
        let disk = disk.crash();
        if !whole {
            disk.discard_table().unwrap();
        }
        let store = open_forgetful(&disk);
        store.recovered().await.unwrap();
        let again = store.usage().await.unwrap();
        assert_eq!((again.kinds, again.promised), (expected, 0), "{whole}");
        store.collect(now() + 48 * HOUR, false).await.unwrap();
        wait_for_survey(&store, Unfinished::default()).await;
        assert!(is_whole(&store, &manifest).await);
        store.remove(&manifest.id(), 1000, false).await.unwrap();
        let empty = store.usage().await.unwrap();
        assert_eq!((empty.kinds, empty.used_bytes), (Kinds::default(), 0), "{whole}");
    }
}

async fn wait_for_survey(store: &Store, expected: Unfinished) {
    for _ in 0..200 {
        if store.usage().await.unwrap().unfinished == Some(expected) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{:?} is not {expected:?}", store.usage().await.unwrap().unfinished);
}

#[tokio::test]
async fn what_nobody_read_for_longest_gives_way_first() {
    let disk = Forgetful::default();
    let quota = 4 * (CHUNK as u64 + 8192);
    let store = open_on(Arc::new(disk.clone()), quota).unwrap();
    let mut ids = Vec::new();
    for seed in 1..=3 {
        let (chunk, object) = single(seed, CHUNK);
        let lease = store.lease();
        lease.put(Item::Chunk(chunk)).await.unwrap();
        lease.commit(NewObject { pin: None, now: 1000 + seed, ..object.clone() }).await.unwrap();
        ids.push(object.id);
    }
    // The first to come was read last, the second never.
    store.used_at(&ids[0], 5000);
    store.used_at(&ids[2], 4000);
    assert_eq!([0, 1, 2].map(|at| store.used(&ids[at])), [Some(5000), None, Some(4000)]);
    store.close().await.unwrap();
    drop(store);
    let here = |store: &Store| ids.iter().map(|id| store.object(id).is_some()).collect::<Vec<_>>();
    let crashed = disk.crash();
    let store = open_on(Arc::new(crashed.clone()), quota).unwrap();
    assert_eq!(store.used(&ids[0]), Some(5000), "it is durable when the store is closed");
    add_single(&store, 11, CHUNK).await;
    add_single(&store, 12, CHUNK).await;
    assert_eq!(here(&store), [true, false, true]);
    add_single(&store, 13, CHUNK).await;
    assert_eq!(here(&store), [true, false, false]);
    store.touch(&ids[0]);
    store.touch(&ids[1]);
    assert!(store.used(&ids[0]).unwrap() > 5000, "an hour has passed");
    assert_eq!(store.used(&ids[1]), None, "what is not here is not noted");
    // A file that is damaged, or gone, says nothing, and hinders nothing.
    disk.edit("cache/used", |bytes| bytes[20] ^= 1);
    let store = open_on(Arc::new(disk.crash()), quota).unwrap();
    assert_eq!(store.used(&ids[0]), None);
    assert_eq!(here(&store), [true, true, true]);
}

#[tokio::test]
async fn the_doctor_says_what_is_wrong_and_leaves_nothing() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    store.recovered().await.unwrap();
    let files = disk.files();
    let level = |checks: &[Check], name: &str| checks.iter().find(|check| check.name == name).unwrap().level;
    let checks = store.examine().await;
    assert!(checks.iter().all(|check| check.level == Level::Ok && check.advice.is_empty()), "{checks:#?}");
    assert_eq!(disk.files(), files, "nothing is left");
    add_single(&store, 1, 5000).await;
    // After a crash, without the ballast, on a disk that is down to nothing, with an object from the future.
    let crashed = disk.crash();
    crashed.unlink(Path::new("ballast")).unwrap();
    crashed.set_room(0);
    let store = open_forgetful(&crashed);
    store.recovered().await.unwrap();
    let (chunk, object) = single(1, 5000);
    store.lease().hold(&chunk.id()).await.unwrap();
    let ahead = NewObject { pin: Some(7), now: now() + 5 * HOUR, ..object };
    store.remove(&ahead.id, 1000, false).await.unwrap();
    crashed.set_room(1 << 30);
    let lease = store.lease();
    lease.put(Item::Chunk(chunk)).await.unwrap();
    lease.commit(ahead).await.unwrap();
    crashed.set_room(0);
    let checks = store.examine().await;
    for (name, expected) in [
        ("space", Level::Fail),
        ("stop", Level::Warn),
        ("ballast", Level::Warn),
        ("clock", Level::Warn),
        ("index", Level::Ok),
        ("writable", Level::Ok),
    ] {
        assert_eq!(level(&checks, name), expected, "{name}: {checks:#?}");
    }
    // A disk that fails, and the table of the index.
    crashed.fail_table_after(1);
    crashed.fail_after(0);
    let checks = store.examine().await;
    assert_eq!(level(&checks, "sync"), Level::Fail, "{checks:#?}");
    assert!(store.pin(&single(1, 5000).1.id, 8).await.is_err());
    let checks = store.examine().await;
    assert_eq!(level(&checks, "writable"), Level::Fail, "{checks:#?}");
    assert!(checks.iter().filter(|check| check.level != Level::Ok).all(|check| !check.advice.is_empty()));
}
