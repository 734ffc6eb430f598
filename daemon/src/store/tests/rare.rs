//! Turns of events that the simulation meets once in many thousand lives: refused journal entries, blocks that cannot
//! be read while the store starts and come back later, torn records where holes cannot be punched, records with a hole,
//! an index that breaks while it is asked, names that a killed process left.

use super::*;
use crate::store::disk::forgetful::{Fault, Plan, Rot};

/// Bytes that the first record takes in most of these tests: 30,000 and a header, in blocks.
const FIRST: u64 = 4096 + 32_768;

fn spoil(disk: &Forgetful, at: u64, rot: Rot) {
    disk.rot(Path::new(SEGMENT), at, rot);
}

async fn is_there(store: &Store, reference: &ChunkRef) -> bool {
    store.recovered().await.unwrap();
    store.chunk(reference).await.unwrap().is_some()
}

fn is_closed(disk: &Forgetful) -> bool {
    disk.open(Path::new("CLEAN")).is_ok()
}

#[tokio::test]
async fn of_entries_that_did_not_all_fit_none_comes_back() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    add_single(&store, 1, 5000).await;
    let lease = store.lease();
    let mut objects = Vec::new();
    for seed in 2..6 {
        let (chunk, object) = single(seed, 100);
        lease.put(Item::Chunk(chunk)).await.unwrap();
        objects.push(object);
    }
    lease.sync().await.unwrap();
    // Half of what goes to the journal is written: some entries are whole.
    let full = Fault::Errno(rustix::io::Errno::NOSPC.raw_os_error());
    disk.plan(Plan { fault: Some((0, 1, full)), ..Plan::default() });
    assert!(matches!(lease.commit_all(objects.clone()).await, Err(Error::DiskFull(_))));
    for (seed, left) in (0..20).flat_map(|seed| [(seed, disk.kill(seed)), (seed, disk.cut_power(seed))]) {
        let store = open_forgetful(&left);
        assert!(objects.iter().all(|object| store.object(&object.id).is_none()), "seed {seed}");
    }
}

#[tokio::test]
async fn a_segment_of_which_a_part_cannot_be_read_is_not_thrown_away() {
    let disk = Forgetful::default();
    let store = open_short(&disk);
    let (_, gone) = add_single(&store, 1, 30_000).await;
    let (kept, _) = add_single(&store, 2, 34_000).await;
    add_single(&store, 3, 100_000).await;
    assert_eq!(disk.list(Path::new("segments")).unwrap().len(), 2);
    // The index is lost as well, so that nobody knows of the second.
    let disk = disk.crash();
    spoil(&disk, FIRST, Rot::Unreadable);
    let store = open_short(&disk);
    assert!(!is_there(&store, &kept).await);
    store.remove(&gone, 1000, false).await.unwrap();
    spoil(&disk, FIRST, Rot::Heal);
    assert!(is_there(&open_short(&disk.crash()), &kept).await);
}

#[tokio::test]
async fn what_could_not_be_read_at_a_start_is_looked_for_at_the_next() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    add_single(&store, 1, 30_000).await;
    let (kept, _) = add_single(&store, 2, 20_000).await;
    for (what, at) in [("a header", FIRST), ("a payload", FIRST + 4096)] {
        let disk = disk.crash();
        spoil(&disk, at, Rot::Unreadable);
        let store = open_forgetful(&disk);
        assert!(!is_there(&store, &kept).await, "{what}");
        store.close().await.unwrap();
        drop(store);
        assert!(!is_closed(&disk), "{what}");
        spoil(&disk, at, Rot::Heal);
        let store = open_forgetful(&disk);
        assert!(is_there(&store, &kept).await, "{what}");
        store.close().await.unwrap();
        assert!(is_closed(&disk), "{what}");
    }
}

/// A header that cannot be read may belong to a record that was acknowledged, or to one that was torn: what comes next
/// spoils neither the one nor itself.
#[tokio::test]
async fn nothing_is_written_where_a_record_may_stand_that_cannot_be_read() {
    for torn in [false, true] {
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        add_single(&store, 1, 30_000).await;
        let (hidden, _) = add_single(&store, 2, 200_000).await;
        let disk = disk.crash();
        if torn {
            disk.edit(SEGMENT, |bytes| bytes.truncate(FIRST as usize + 8192));
        }
        spoil(&disk, FIRST, Rot::Unreadable);
        let store = open_forgetful(&disk);
        let (late, _) = add_single(&store, 3, 20_000).await;
        spoil(&disk, FIRST, Rot::Heal);
        // With the index and without it.
        for disk in [disk.kill(0), disk.crash()] {
            let store = open_forgetful(&disk);
            assert!(is_there(&store, &late).await, "torn: {torn}");
            assert!(torn || is_there(&store, &hidden).await);
        }
    }
}

/// Where there are no holes the header of a torn record is written over.
#[tokio::test]
async fn a_torn_record_is_gone_for_good_also_without_holes() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    add_single(&store, 1, 30_000).await;
    let (torn, _) = add_single(&store, 2, 20_000).await;
    let (kept, _) = add_single(&store, 3, 30_000).await;
    let (end, _) = add_single(&store, 4, 20_000).await;
    let disk = disk.crash();
    disk.refuse_holes();
    let second = FIRST as usize + 4096 + 8192;
    let last = FIRST as usize + 24_576 + FIRST as usize + 4096 + 8192;
    disk.edit(SEGMENT, |bytes| {
        bytes[second..second + 4096].fill(0);
        bytes[last..last + 4096].fill(0);
    });
    let store = open_forgetful(&disk);
    assert!(is_there(&store, &kept).await);
    store.close().await.unwrap();
    drop(store);
    // After an end in order nothing is proved, and without the index all headers count.
    disk.discard_table().unwrap();
    let store = open_forgetful(&disk);
    assert!(is_there(&store, &kept).await && !store.has(&torn.id) && !store.has(&end.id));
}

/// As far as the index knew what was before it.
#[tokio::test]
async fn a_segment_is_cut_where_its_last_record_ends() {
    let mut cut = 0;
    for seed in 0..60 {
        let disk = Forgetful::default();
        let store = open_forgetful(&disk);
        add_single(&store, 1, 30_000).await;
        let (chunk, _) = single(2, 20_000);
        store.lease().put(Item::Chunk(chunk.clone())).await.unwrap();
        let disk = disk.cut_power(seed);
        let length = || disk.bytes(Path::new(SEGMENT)).len() as u64;
        let before = length();
        let store = open_forgetful(&disk);
        if !is_there(&store, &chunk.reference()).await && before > FIRST {
            cut += usize::from(length() == FIRST);
        }
    }
    assert!(cut >= 5, "{cut}");
}

/// The process is killed while it begins a segment, and the power goes after the next start has written into it.
#[tokio::test]
async fn a_segment_whose_name_a_killed_process_left_is_there_after_a_power_cut() {
    for step in 1..12 {
        let disk = Forgetful::default();
        let store = open_short(&disk);
        disk.plan(Plan { cut_at: Some(step), kills: true, ..Plan::default() });
        let items =
            [30_000, 34_000, 20_000, 38_000].map(|length| Item::Chunk(single(length as u64, length).0));
        let lease = store.lease();
        let _ = lease.put_all(items.into()).await;
        let _ = lease.sync().await;
        let Some(killed) = disk.after_cut() else {
            assert!(step > 6, "{step}");
            return;
        };
        let (late, _) = add_single(&open_short(&killed), 9, 5000).await;
        for seed in 0..10 {
            let store = open_short(&killed.cut_power(seed));
            assert!(is_there(&store, &late).await, "step {step}, seed {seed}");
        }
    }
    panic!("more calls than a segment takes to begin");
}

/// What is being appended meanwhile is in the same file, and the disk tells of what it could not write only once.
#[tokio::test]
async fn a_sync_that_fails_while_the_index_is_made_anew_is_not_passed_over() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (kept, _) = add_single(&store, 1, 30_000).await;
    let (calm, failing) = (disk.crash(), disk.crash());
    assert!(is_there(&open_forgetful(&calm), &kept).await);
    // That sync is the last call of a start.
    let last = calm.changes() - 1;
    let fault = Some((last, last + 1, Fault::Errno(rustix::io::Errno::IO.raw_os_error())));
    failing.plan(Plan { fault, ..Plan::default() });
    let store = open_forgetful(&failing);
    assert!(is_there(&store, &kept).await && store.read_only().is_some());
    let put = store.lease().put(Item::Chunk(single(2, 100).0)).await;
    assert!(matches!(put, Err(Error::ReadOnly { .. })), "{put:?}");
}

/// What a crash leaves of a removal: a header, and a hole behind it.
#[tokio::test]
async fn nobody_builds_on_a_record_with_a_hole() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (reference, _) = add_single(&store, 1, 200_000).await;
    assert!(store.lease().hold(&reference.id).await.unwrap());
    disk.open(Path::new(SEGMENT)).unwrap().punch(4096 + 8192, 4096).unwrap();
    assert!(!store.lease().hold(&reference.id).await.unwrap());
}

#[tokio::test]
async fn an_index_that_breaks_while_it_is_asked_is_asked_again() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (chunk, object) = single(1, 5000);
    let lease = store.lease();
    lease.put(Item::Chunk(chunk)).await.unwrap();
    lease.sync().await.unwrap();
    disk.fail_table_after(0);
    assert_eq!(lease.commit(object).await.unwrap(), Committed::Created);
}
