//! What is left after a power cut, a failing disk, and files that were lost or changed.

use super::*;
use crate::store::disk::forgetful::{Fault, Plan};

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_and_nothing_else_is_seen() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (_, kept) = add_single(&store, 1, 5000).await;
    let manifest = add_several(&store, &[2, 3]).await;
    let lease = store.lease();
    let (chunk, object) = single(4, CHUNK);
    lease.put(Item::Chunk(chunk.clone())).await.unwrap();
    let crashed = disk.crash();
    // Done after the cut, so that it must not show.
    lease.commit(object.clone()).await.unwrap();
    for round in 0..3 {
        let disk = crashed.crash();
        let store = open_forgetful(&disk);
        assert!(store.object(&kept).is_some() && is_whole(&store, &manifest).await, "round {round}");
        assert_eq!(store.object(&object.id), None);
        assert_eq!(store.chunk(&chunk.reference()).await.unwrap(), None);
        assert!(!store.lease().hold(&chunk.id()).await.unwrap());
    }
}

#[tokio::test]
async fn what_another_has_just_put_is_durable_before_it_is_built_on() {
    for holds in [false, true] {
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        let (chunk, _) = single(1, 9000);
        let (first, second) = (store.lease(), store.lease());
        assert_eq!(first.put(Item::Chunk(chunk.clone())).await.unwrap(), Put::New);
        if holds {
            assert!(second.hold(&chunk.id()).await.unwrap());
        } else {
            assert_eq!(second.put(Item::Chunk(chunk.clone())).await.unwrap(), Put::Already);
        }
        second.sync().await.unwrap();
        let store = open_forgetful(&disk.crash());
        assert_eq!(store.chunk(&chunk.reference()).await.unwrap(), Some(chunk), "held: {holds}");
    }
}

#[tokio::test]
async fn a_torn_record_does_not_pass_for_one() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    add_single(&store, 1, 5000).await;
    let (torn, whole) = (single(2, CHUNK).0, single(3, 9000).0);
    let lease = store.lease();
    lease.put(Item::Chunk(torn.clone())).await.unwrap();
    lease.put(Item::Chunk(whole.clone())).await.unwrap();
    lease.sync().await.unwrap();
    let crashed = disk.crash();
    // The header came to the disk, the end of the payload did not.
    crashed.edit(SEGMENT, |bytes| bytes[12288 + 4096 + CHUNK - 4096..12288 + 4096 + CHUNK].fill(0));
    let store = open_forgetful(&crashed);
    assert_eq!(store.chunk(&torn.reference()).await.unwrap(), None);
    assert!(store.chunk(&whole.reference()).await.unwrap().is_some());
    assert_eq!(store.lease().put(Item::Chunk(torn.clone())).await.unwrap(), Put::New);
    assert!(store.chunk(&torn.reference()).await.unwrap().is_some());
}

#[tokio::test]
async fn the_index_may_be_lost_damaged_or_anothers() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut manifests, mut usages) = (Vec::new(), Vec::new());
    for (folder, seed) in [(&one, 1), (&two, 50)] {
        let store = open_real(folder.path());
        store.close().await.unwrap();
        drop(store);
        return_lock(folder.path()).await;
        std::fs::rename(folder.path().join("index"), folder.path().join("index.old")).unwrap();
        let store = open_real(folder.path());
        manifests.push(add_several(&store, &[seed, seed + 1]).await);
        usages.push(store.usage().await.unwrap().stored_bytes);
        store.close().await.unwrap();
        drop(store);
        return_lock(folder.path()).await;
    }
    let index = one.path().join("index");
    let copy_folder = |from: &Path, to: &Path| {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir(to).unwrap();
        for entry in
            std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file())
        {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let spoil: [&dyn Fn(); 5] = [
        &|| std::fs::remove_dir_all(&index).unwrap(),
        // As it was before anything was in the store.
        &|| copy_folder(&one.path().join("index.old"), &index),
        &|| {
            for entry in std::fs::read_dir(&index).unwrap().map(Result::unwrap) {
                if entry.path().is_file() {
                    let length = entry.metadata().unwrap().len() as usize;
                    std::fs::write(entry.path(), vec![0; length]).unwrap();
                }
            }
        },
        &|| {
            for entry in std::fs::read_dir(&index).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    std::fs::write(&path, sample(9, 4000)).unwrap();
                }
            }
        },
        &|| {
            std::fs::remove_dir_all(&index).unwrap();
            std::fs::rename(two.path().join("index"), &index).unwrap();
        },
    ];
    for spoil in spoil {
        spoil();
        let store = open_real(one.path());
        assert!(is_whole(&store, &manifests[0]).await);
        store.recovered().await.unwrap();
        assert_eq!(store.usage().await.unwrap().stored_bytes, usages[0]);
        assert!(!store.has(&manifests[1].chunk(0).unwrap().id));
        store.close().await.unwrap();
        drop(store);
        return_lock(one.path()).await;
    }
}

#[tokio::test]
async fn a_lost_format_comes_back_from_the_journal() {
    let disk = Forgetful::default();
    let (reference, _) = add_single(&open_forgetful(&disk), 1, 10_000).await;
    let crashed = disk.crash();
    crashed.unlink(Path::new("FORMAT")).unwrap();
    assert!(open_forgetful(&crashed).chunk(&reference).await.unwrap().is_some());
}

#[tokio::test]
async fn a_failing_disk_makes_the_store_read_only_and_loses_nothing_acknowledged() {
    for steps in 0.. {
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        let (kept, _) = add_single(&store, 1, 5000).await;
        disk.fail_after(steps);
        let (chunk, object) = single(2, 5000);
        let lease = store.lease();
        let put = lease.put(Item::Chunk(chunk.clone())).await;
        let done = match put {
            Ok(_) => lease.commit(object.clone()).await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(store.chunk(&kept).await.unwrap().is_some(), "after {steps} steps");
        let after = open_forgetful(&disk.crash());
        assert!(after.chunk(&kept).await.unwrap().is_some(), "after {steps} steps");
        let Err(error) = done else {
            assert!(after.object(&object.id).is_some() && after.has(&chunk.id()));
            break;
        };
        assert!(matches!(error, Error::ReadOnly { .. }) && store.read_only().is_some(), "{error}");
        assert_eq!((store.object(&object.id), after.object(&object.id)), (None, None));
        assert!(matches!(store.lease().reserve(1).await, Err(Error::ReadOnly { .. })));
    }
}

#[tokio::test]
async fn segments_follow_each_other_and_empty_ones_go() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let mut manifests = Vec::new();
    for seed in 0..6 {
        let seeds: Vec<u64> = (1..=5).map(|n| seed * 10 + n).collect();
        manifests.push(add_several(&store, &seeds).await);
    }
    let names = disk.list(Path::new("segments")).unwrap();
    assert!(names.len() >= 4, "{names:?}");
    let sealed = disk.open(Path::new(SEGMENT)).unwrap();
    let length = sealed.length().unwrap();
    let last = sealed.read_at(length - 4096, 4096).unwrap();
    assert!(last.starts_with(b"casd-rec") && last[9] == Kind::Footer as u8);
    let store = open_forgetful(&disk.crash());
    for manifest in &manifests {
        assert!(is_whole(&store, manifest).await);
    }
    for manifest in &manifests[..2] {
        assert!(matches!(store.remove(&manifest.id(), 1000, false).await.unwrap(), Removed::Removed { .. }));
    }
    assert_eq!(store.chunk(&manifests[0].chunk(0).unwrap()).await.unwrap(), None);
    for manifest in &manifests[2..] {
        assert!(is_whole(&store, manifest).await);
    }
}

#[tokio::test]
async fn a_removal_cut_short_leaves_leftovers_and_no_ghosts() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_real(folder.path());
    let manifest = add_several(&store, &[1, 2, 3]).await;
    let (kept, _) = add_single(&store, 4, 5000).await;
    store.close().await.unwrap();
    drop(store);
    return_lock(folder.path()).await;
    // The records were punched, and the index lost that they had been taken out.
    std::fs::remove_file(folder.path().join("CLEAN")).unwrap();
    let file = Real::new(folder.path()).open(Path::new(SEGMENT)).unwrap();
    file.punch(0, 3 * (CHUNK as u64 + 4096)).unwrap();
    let store = open_real(folder.path());
    store.recovered().await.unwrap();
    for index in 0..3 {
        assert!(!store.has(&manifest.chunk(index).unwrap().id));
    }
    assert!(store.chunk(&kept).await.unwrap().is_some());
    assert_eq!(store.local_chunks(&manifest.id()).await.unwrap(), Some(0));
    let lease = store.lease();
    for chunk in several(&[1, 2, 3]).0 {
        assert_eq!(lease.put(Item::Chunk(chunk)).await.unwrap(), Put::New);
    }
    assert!(is_whole(&store, &manifest).await);
}

#[tokio::test]
async fn the_journal_is_shortened_and_loses_nothing() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (_, id) = add_single(&store, 1, 100).await;
    let name = "n".repeat(MAX_NAME);
    let (chunk, object) = single(2, 100);
    let lease = store.lease();
    lease.put(Item::Chunk(chunk)).await.unwrap();
    lease.commit(NewObject { name: Some(name.clone()), ..object.clone() }).await.unwrap();
    // Each of these writes the object anew: 1.1 KiB.
    let mut length = 0;
    for uid in 5000..5700 {
        store.pin(&object.id, uid).await.unwrap();
        store.unpin(&object.id, uid).await.unwrap();
        length = length.max(disk.open(Path::new("journal/journal")).unwrap().length().unwrap());
    }
    // 1.5 MiB were written in all, and it is shortened at 1 MiB.
    assert!((1_000_000..=1 << 20).contains(&length), "{length}");
    assert!(disk.open(Path::new("journal/journal")).unwrap().length().unwrap() < length);
    // It goes on in the new one.
    store.pin(&object.id, 5700).await.unwrap();
    let store = open_forgetful(&disk.crash());
    assert!(store.object(&id).is_some());
    let object = store.object(&object.id).unwrap();
    assert!(object.name == Some(name) && object.pins.iter().any(|pin| pin.uid == 5700));
}

#[tokio::test]
async fn without_holes_what_is_left_of_a_segment_is_copied_forward() {
    let disk = Forgetful::default();
    disk.refuse_holes();
    let store = open_forgetful(&disk);
    let mut manifests = Vec::new();
    for seed in 0..5 {
        manifests.push(add_several(&store, &[10 * seed + 1, 10 * seed + 2, 10 * seed + 3]).await);
    }
    let first = Path::new(SEGMENT);
    assert!(disk.files().iter().any(|path| path == first) && disk.files().len() > 3);
    let before = disk.allocated("segments");
    // Six of the seven chunks that are in the first segment.
    for manifest in &manifests[..2] {
        assert!(matches!(store.remove(&manifest.id(), 1000, false).await.unwrap(), Removed::Removed { .. }));
    }
    assert!(!disk.files().iter().any(|path| path == first), "{disk:?}");
    assert!(disk.allocated("segments") + 5 * CHUNK as u64 <= before);
    for store in [store, open_forgetful(&disk.crash())] {
        for manifest in &manifests[2..] {
            assert!(is_whole(&store, manifest).await);
        }
        store.recovered().await.unwrap();
        assert_eq!(store.usage().await.unwrap().stored_bytes, 3 * (3 * (CHUNK as u64 + 4096) + 2 * 4096));
    }
}

#[tokio::test]
async fn an_index_that_takes_nothing_more_costs_nothing() {
    for calls in (0..120).step_by(5) {
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        let (kept, _) = add_single(&store, 1, 5000).await;
        disk.fail_table_after(calls);
        let (late, id) = add_single(&store, 2, 5000).await;
        let manifest = add_several(&store, &[3, 4]).await;
        for store in [store, open_forgetful(&disk.crash())] {
            for reference in [kept, late] {
                assert!(store.chunk(&reference).await.unwrap().is_some(), "after {calls} calls");
            }
            assert!(store.object(&id).is_some() && is_whole(&store, &manifest).await, "after {calls} calls");
        }
    }
}

/// The index fails, so that nobody knows its checkpoint, and comes back at the next start with it.
#[tokio::test]
async fn what_is_stored_while_the_index_fails_is_there_when_it_comes_back() {
    for (closes, calls) in
        [false, true].into_iter().flat_map(|closes| (0..30).map(move |calls| (closes, calls)))
    {
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        store.recovered().await.unwrap();
        add_single(&store, 1, 5000).await;
        let (_, gone) = add_single(&store, 2, 20_000).await;
        store.remove(&gone, 1000, false).await.unwrap();
        let disk = if closes {
            store.close().await.unwrap();
            drop(store);
            disk
        } else {
            disk.kill(calls)
        };
        disk.fail_table_after(calls);
        let store = open_forgetful(&disk);
        let (late, _) = add_single(&store, 3, 100).await;
        for seed in 0..8 {
            let store = open_forgetful(&disk.kill(seed));
            assert!(
                store.chunk(&late).await.unwrap().is_some(),
                "closed {closes}, after {calls} calls, {seed}"
            );
        }
    }
}

#[tokio::test]
async fn where_there_are_no_holes_what_was_removed_and_came_again_is_counted_over_restarts() {
    let disk = Forgetful::default();
    disk.refuse_holes();
    let store = open_forgetful(&disk);
    add_single(&store, 1, 5000).await;
    let (_, id) = add_single(&store, 2, 20_000).await;
    store.remove(&id, 1000, false).await.unwrap();
    add_single(&store, 2, 20_000).await;
    let taken = disk.allocated("segments");
    let mut store = store;
    for _ in 0..3 {
        store.recovered().await.unwrap();
        assert_eq!(store.usage().await.unwrap().stored_bytes, taken);
        store.close().await.unwrap();
        drop(store);
        store = open_forgetful(&disk);
    }
}

/// What is put together with the record that begins the next segment is not synced when the segment is sealed.
#[tokio::test]
async fn a_footer_is_on_disk_only_with_all_that_it_lists() {
    let mut sealed = 0;
    for (seed, step) in (0..30).flat_map(|seed| (1..=6).map(move |step| (seed, step))) {
        let disk = Forgetful::default();
        let store = open_short(&disk);
        disk.plan(Plan { cut_at: Some(step), seed, ..Plan::default() });
        let items =
            [30_000, 34_000, 20_000, 38_000].map(|length| Item::Chunk(single(length as u64, length).0));
        let _ = store.lease().put_all(items.into()).await;
        let left = disk.after_cut().unwrap();
        let (written, bytes) = (disk.bytes(Path::new(SEGMENT)), left.bytes(Path::new(SEGMENT)));
        let footer = |bytes: &[u8]| bytes.starts_with(b"casd-rec") && bytes[9] == Kind::Footer as u8;
        if written.len() == bytes.len() && bytes.last_chunk::<4096>().is_some_and(|block| footer(block)) {
            sealed += 1;
            assert!(bytes == written, "seed {seed}, step {step}");
        }
    }
    assert!(sealed > 10, "{sealed}");
}

/// Nothing is written or synced after it but the marker of a close, whose next start proves nothing.
#[tokio::test]
async fn what_did_not_fit_does_not_come_back_after_a_close() {
    for seed in 0..20 {
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        add_single(&store, 1, 5000).await;
        let stored = store.usage().await.unwrap().stored_bytes;
        // Half of it is written.
        let full = Fault::Errno(rustix::io::Errno::NOSPC.raw_os_error());
        disk.plan(Plan { fault: Some((0, 1, full)), ..Plan::default() });
        let put = store.lease().put(Item::Chunk(single(2, 20_000).0)).await;
        assert!(matches!(put, Err(Error::DiskFull(_))), "{put:?}");
        store.close().await.unwrap();
        let store = open_forgetful(&disk.cut_power(seed));
        store.recovered().await.unwrap();
        assert_eq!(store.usage().await.unwrap().stored_bytes, stored, "seed {seed}");
    }
}

async fn stored_in(disk: &Forgetful) -> u64 {
    let store = open_short(disk);
    store.recovered().await.unwrap();
    store.usage().await.unwrap().stored_bytes
}

/// The process is killed while it removes, at each step and with whatever the index kept; the next start goes on from
/// holes that only memory has, and then the power goes.
#[tokio::test]
async fn holes_that_a_killed_process_left_do_not_come_back_unknown() {
    for (seed, step) in (0..30).flat_map(|seed| [3, 4].map(|step| (seed, step))) {
        let disk = Forgetful::default();
        let store = open_short(&disk);
        let mut added = Vec::new();
        // The last does not fit into the first segment.
        for length in [30_000, 34_000, 20_000, 38_000] {
            added.push(add_single(&store, length, length as usize).await.1);
        }
        assert_eq!(disk.list(Path::new("segments")).unwrap().len(), 2);
        disk.plan(Plan { cut_at: Some(step), kills: true, seed, ..Plan::default() });
        // Its frame is written and synced, then its record is punched (3), and that is synced (4).
        let _ = store.remove(&added[2], 1000, false).await;
        let killed = disk.after_cut().unwrap();
        stored_in(&killed).await;
        for again in 0..3 {
            let left = killed.cut_power(again);
            let known = stored_in(&left).await;
            // Without the index all is known that the segments hold.
            assert_eq!(known, stored_in(&left.crash()).await, "seed {seed}, step {step}, then {again}");
        }
    }
}

#[tokio::test]
async fn calls_that_are_interrupted_or_do_a_part_only_have_no_effect() {
    for fault in [Fault::Short, Fault::Errno(rustix::io::Errno::INTR.raw_os_error())] {
        for at in 0.. {
            let disk = Forgetful::default();
            let (fault, reads) = (Some((at, at + 1, fault)), Some((at, at + 1, fault)));
            disk.plan(Plan { fault, reads, ..Plan::default() });
            let store = open_forgetful(&disk);
            let (reference, _) = add_single(&store, 1, 5000).await;
            let manifest = add_several(&store, &[2, 3]).await;
            let removed = add_several(&store, &[4, 5]).await;
            store.remove(&removed.id(), 1000, false).await.unwrap();
            assert!(store.chunk(&reference).await.unwrap().is_some() && is_whole(&store, &manifest).await);
            let calls = disk.changes().max(disk.reads());
            let store = open_forgetful(&disk.crash());
            assert!(store.chunk(&reference).await.unwrap().is_some() && is_whole(&store, &manifest).await);
            assert!(store.object(&removed.id()).is_none() && store.read_only().is_none());
            if at > calls {
                break;
            }
        }
    }
}
