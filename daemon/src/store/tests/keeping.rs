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

async fn check(store: &Store, name: &str) -> Check {
    store.examine().await.into_iter().find(|check| check.name == name).unwrap()
}

#[tokio::test]
async fn a_journal_that_was_cut_short_after_an_end_in_order_is_told_of() {
    const JOURNAL: &str = "journal/journal";
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (_, first) = add_single(&store, 1, 5000).await;
    // At the end of an entry, where nothing but its length says that there was another.
    let cut = disk.bytes(Path::new(JOURNAL)).len();
    let (_, second) = add_single(&store, 2, 5000).await;
    let whole = disk.bytes(Path::new(JOURNAL)).len();
    store.close().await.unwrap();
    drop(store);
    let reopened = |edit: &dyn Fn(&mut Vec<u8>), path: &str| {
        let disk = disk.crash();
        disk.edit(path, edit);
        open_forgetful(&disk)
    };
    let store = reopened(&|bytes| bytes.truncate(cut), JOURNAL);
    store.recovered().await.unwrap();
    assert_eq!([first, second].map(|id| store.object(&id).is_some()), [true, false]);
    let found = check(&store, "journal").await;
    assert!(found.level == Level::Fail && found.what.contains(&whole.to_string()), "{found:?}");
    assert!(found.what.contains(&cut.to_string()), "{found:?}");
    assert_eq!(check(&store, "stop").await.level, Level::Warn);
    store.close().await.unwrap();
    // The same when its last entry rots.
    let store = reopened(&|bytes| bytes[whole - 40] ^= 1, JOURNAL);
    assert_eq!(check(&store, "journal").await.level, Level::Fail);
    // One in its midst is counted.
    let store = reopened(&|bytes| bytes[cut - 40] ^= 1, JOURNAL);
    assert_eq!([first, second].map(|id| store.object(&id).is_some()), [false, true]);
    let found = check(&store, "journal").await;
    assert!(found.level == Level::Fail && found.what.starts_with("1 of its entries"), "{found:?}");
    // A marker of an older version says nothing of the journal, and is one.
    let store = reopened(&|bytes| bytes.truncate(24), "CLEAN");
    store.recovered().await.unwrap();
    for name in ["journal", "stop"] {
        assert_eq!(check(&store, name).await.level, Level::Ok, "{name}");
    }
}

#[tokio::test]
async fn objects_whose_segments_are_gone_are_counted_until_they_are_back() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (_, first) = add_single(&store, 1, 5000).await;
    add_several(&store, &[2, 3]).await;
    assert_eq!(check(&store, "records").await.level, Level::Ok);
    store.close().await.unwrap();
    drop(store);
    let disk = disk.crash();
    disk.unlink(Path::new(SEGMENT)).unwrap();
    disk.discard_table().unwrap();
    let store = open_forgetful(&disk);
    let counted = async |count: usize| {
        for _ in 0..200 {
            let found = check(&store, "records").await;
            let is_said = found.what.starts_with(&format!("{count} object(s)"));
            if (count == 0 && found.level == Level::Ok) || (found.level == Level::Fail && is_said) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{:?}", check(&store, "records").await);
    };
    counted(2).await;
    assert!(store.is_recordless(&first));
    add_single(&store, 1, 5000).await;
    assert!(!store.is_recordless(&first));
    counted(1).await;
    let (chunks, manifest, _) = several(&[2, 3]);
    let lease = store.lease();
    lease.put_all(chunks.into_iter().map(Item::Chunk).collect()).await.unwrap();
    lease.put_manifest(&manifest).await.unwrap();
    counted(0).await;
}

#[tokio::test]
async fn what_is_added_again_is_stored_again_when_what_is_here_has_rotted() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (chunk, object) = single(1, 300_000);
    let lease = store.lease();
    lease.put_new(vec![Item::Chunk(chunk.clone())]).await.unwrap();
    lease.commit(object.clone()).await.unwrap();
    assert_eq!(lease.put_new(vec![Item::Chunk(chunk.clone())]).await.unwrap(), [Put::Already]);
    store.close().await.unwrap();
    drop((lease, store));
    disk.edit(SEGMENT, |bytes| bytes[200_000] ^= 1);
    // Nobody has read it since.
    let store = open_forgetful(&disk);
    let lease = store.lease();
    assert_eq!(lease.put_new(vec![Item::Chunk(chunk.clone())]).await.unwrap(), [Put::New]);
    assert_eq!(lease.commit(object).await.unwrap(), Committed::Present);
    let store = open_forgetful(&disk.crash());
    assert_eq!(store.chunk(&chunk.reference()).await.unwrap().as_ref(), Some(&chunk));
    store.recovered().await.unwrap();
    assert_eq!(store.usage().await.unwrap().stored_bytes, disk.crash().allocated("segments"));
}
