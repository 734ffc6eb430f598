//! Proving what is on disk: every bit that rots is found, and nothing else.

use libp2p_identity::Keypair;

use super::*;
use crate::content::{CODEC_RS8, ParityClaim, ParityPage, ParityPart};
use crate::store::disk::forgetful::{Fault, Plan};

/// Where the checksum of a header ends: a bit that rots before it makes it none.
const HEADER_END: usize = 112;

/// Stores an object with a record of every kind. Gives its manifest and the parity chunk.
async fn add_all_kinds(store: &Store) -> (Manifest, ChunkRef) {
    let (chunks, manifest, object) = several(&[1, 2, 0]);
    let lease = store.lease();
    for chunk in chunks.into_iter().filter(|chunk| !chunk.is_zero()) {
        lease.put(Item::Chunk(chunk)).await.unwrap();
    }
    lease.put_manifest(&manifest).await.unwrap();
    let parity = Chunk::compute(Place::Root, sample(9, CHUNK)).unwrap();
    let length = manifest.length();
    let claim = ParityClaim { object: manifest.id(), length, codec: CODEC_RS8, k: 16, m: 1, count: 1 };
    let (part, pages) = ParityPart::sign(claim, &[parity.id()], &Keypair::generate_ed25519()).unwrap();
    put_parity(store, &lease, &parity, &part, &pages).await;
    lease.commit(NewObject { parity: Some((16, 1)), ..object }).await.unwrap();
    (manifest, parity.reference())
}

async fn put_parity(store: &Store, lease: &Lease, parity: &Chunk, part: &ParityPart, pages: &[ParityPage]) {
    lease.put(Item::Parity(parity.clone())).await.unwrap();
    for page in pages {
        lease.put(Item::ParityPage(page)).await.unwrap();
    }
    lease.put(Item::ParityPart(part)).await.unwrap();
    assert!(store.read_only().is_some() || lease.sync().await.is_ok());
}

async fn prove(mut scrub: Scrub, budget: u64) -> Proved {
    let mut all = Proved::default();
    while let Some(proved) = scrub.prove_next(budget).await.unwrap() {
        assert!(proved.records == 1 || proved.bytes <= budget);
        all.bytes += proved.bytes;
        all.records += proved.records;
        all.bad.extend(proved.bad);
    }
    all
}

/// Where records begin in the first segment, with their kinds and payloads.
fn records(disk: &Forgetful) -> Vec<(Kind, usize, usize, usize)> {
    let mut found = Vec::new();
    disk.edit(SEGMENT, |bytes| {
        let mut at = 0;
        while at + 4096 <= bytes.len() {
            let length = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
            let kind = Kind::from_number(bytes[at + 9]).unwrap();
            let payload = if length <= 3584 { at + 512 } else { at + 4096 };
            found.push((kind, at, payload, length));
            at = (payload + length).next_multiple_of(4096);
        }
    });
    found
}

#[tokio::test]
async fn a_bit_that_rots_in_any_kind_of_record_is_found_and_others_are_untouched() {
    let disk = Forgetful::default();
    add_all_kinds(&open_forgetful(&disk)).await;
    let disk = disk.crash();
    let all = records(&disk);
    let kinds: Vec<Kind> = all.iter().map(|(kind, ..)| *kind).collect();
    for kind in [Kind::Data, Kind::Parity, Kind::Top, Kind::Page, Kind::ParityPart, Kind::ParityPage] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    for (kind, at, payload, length) in &all {
        let disk = disk.crash();
        let store = open_forgetful(&disk);
        // Later than the start, which would take it for torn.
        store.recovered().await.unwrap();
        disk.edit(SEGMENT, |bytes| bytes[payload + length / 2] ^= 4);
        let mut told = store.take_damage().unwrap();
        let proved = prove(store.scrub(Cursor::default()), 1 << 20).await;
        assert_eq!((proved.records, proved.bad.len()), (all.len() as u64, 1), "{kind:?}");
        assert_eq!((proved.bad[0].kind, proved.bad[0].offset as usize), (*kind, *at));
        assert_eq!(told.recv().await.unwrap(), proved.bad[0]);
        let name = RecordName::from(&proved.bad[0]);
        assert_eq!(store.are_there(vec![name]).await.unwrap(), [false]);
        // Only what it held is lacking, and what can no longer be named without it.
        let object = store.objects(None, 1);
        let lacking = store.lacking(object.clone()).await.unwrap();
        assert_eq!(lacking, [(object[0].clone(), vec![name])]);
        // It stays known, and is found again.
        let again =
            prove(store.scrub_objects(&[object[0].id].into()).await.unwrap().unwrap(), u64::MAX).await;
        let is_root = matches!(kind, Kind::Top | Kind::Page | Kind::ParityPart | Kind::ParityPage);
        assert!(again.bad == proved.bad || is_root, "{kind:?}: {again:?}");
    }
}

#[tokio::test]
async fn what_a_rotten_header_belongs_to_is_saved() {
    let disk = Forgetful::default();
    add_all_kinds(&open_forgetful(&disk)).await;
    let disk = disk.crash();
    for (kind, at, ..) in records(&disk) {
        for flipped in [0, 20, 40, HEADER_END - 1] {
            // As after a start that had no reason to read it.
            let disk = disk.crash();
            let store = open_forgetful(&disk);
            store.recovered().await.unwrap();
            disk.edit(SEGMENT, |bytes| bytes[at + flipped] ^= 1);
            let proved = prove(store.scrub(Cursor::default()), 1 << 20).await;
            assert_eq!(proved.bad.len(), 1, "{kind:?} {flipped}");
            assert!(store.lacking(store.objects(None, 1)).await.unwrap().is_empty(), "{kind:?} {flipped}");
            assert_eq!(prove(store.scrub(Cursor::default()), 1 << 20).await.bad, []);
            let store = open_forgetful(&disk.crash());
            assert_eq!(prove(store.scrub(Cursor::default()), 1 << 20).await.bad, []);
            assert!(store.lacking(store.objects(None, 1)).await.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_walk_goes_on_where_it_was_and_passes_over_what_is_gone() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let mut added = Vec::new();
    for seed in 1..=20 {
        // Three segments.
        added.push(add_single(&store, seed, CHUNK).await);
    }
    let mut scrub = store.scrub(Cursor::default());
    let first = scrub.prove_next(3 << 20).await.unwrap().unwrap();
    assert_eq!(first.records, 2);
    let cursor = scrub.cursor();
    assert_eq!(prove(store.scrub(cursor), 5 << 20).await.records, 18);
    assert_eq!(prove(store.scrub(Cursor::default()), 1).await.records, 20);
    store.remove(&added[2].1, 1000, false).await.unwrap();
    let rest = prove(scrub, 8 << 20).await;
    assert_eq!((rest.records, rest.bad), (18, Vec::new()));
    let end = prove(store.scrub(Cursor { segment: 9, offset: 0 }), 1).await;
    assert_eq!(end, Proved::default());
}

#[tokio::test]
async fn a_segment_that_is_lost_is_found_and_damage_that_nothing_needs_is_dropped() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (reference, id) = add_single(&store, 1, 20_000).await;
    let orphan = single(2, 20_000).0;
    let lease = store.lease();
    lease.put(Item::Chunk(orphan.clone())).await.unwrap();
    lease.sync().await.unwrap();
    drop(lease);
    disk.edit(SEGMENT, |bytes| {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte ^= u8::from(at % 4096 == 800);
        }
    });
    let proved = prove(store.scrub(Cursor::default()), 1 << 20).await;
    let names: Vec<RecordName> = proved.bad.iter().map(RecordName::from).collect();
    assert_eq!(names.len(), 2);
    let before = store.usage().await.unwrap().stored_bytes;
    store.drop_damaged(vec![RecordName { kind: Kind::Data, id: *orphan.id().as_bytes() }]).await.unwrap();
    assert_eq!(store.usage().await.unwrap().stored_bytes, before / 2);
    let again = prove(store.scrub(Cursor::default()), 1 << 20).await;
    assert_eq!((again.records, again.bad.len()), (1, 1));
    store.lease().put(Item::Chunk(single(1, 20_000).0)).await.unwrap();
    // What is good is left alone.
    store.drop_damaged(names).await.unwrap();
    assert!(store.chunk(&reference).await.unwrap().is_some());
    assert!(store.lacking(vec![store.object(&id).unwrap()]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_flag_that_rots_in_a_page_makes_no_chunk_zeros() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let manifest = add_several(&store, &[1, 2, 3]).await;
    store.close().await.unwrap();
    let (.., payload, length) =
        *records(&disk).iter().find(|(kind, ..)| *kind == Kind::Page).expect("it has a page");
    // The flags come last. The ids, and what they fold to, are as they were.
    disk.edit(SEGMENT, |bytes| bytes[payload + length - 1] ^= 1);
    let disk = disk.crash();
    let store = open_forgetful(&disk);
    store.recovered().await.unwrap();
    let mut told = store.take_damage().unwrap();
    assert_eq!(store.page(manifest.top(), 0).await.unwrap(), None);
    assert_eq!(store.manifest(&manifest.id()).await.unwrap(), None);
    assert_eq!(told.recv().await.unwrap().kind, Kind::Page);
}

/// A store with one object of one chunk, whose record has rotted: its disk, and how many bytes that takes.
async fn rotten() -> (Forgetful, u64) {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    add_single(&store, 1, 9000).await;
    store.close().await.unwrap();
    let footprint = store.usage().await.unwrap().stored_bytes;
    disk.edit(SEGMENT, |bytes| bytes[4096 + 5000] ^= 1);
    (disk, footprint)
}

/// Puts the chunk of [`rotten`] anew, while something goes wrong. Whether it was answered that it is durable.
async fn replace(disk: &Forgetful, plan: Plan) -> bool {
    let store = open_forgetful(disk);
    store.recovered().await.unwrap();
    let chunk = single(1, 9000).0;
    assert_eq!(store.chunk(&chunk.reference()).await.unwrap(), None);
    disk.plan(plan);
    let lease = store.lease();
    lease.put(Item::Chunk(chunk)).await.is_ok() && lease.sync().await.is_ok()
}

/// Whether one record at most is left of the chunk, after a crash, and it is known. Gives whether it is good.
async fn one_is_left(disk: &Forgetful, footprint: u64) -> bool {
    let store = open_forgetful(disk);
    store.recovered().await.unwrap();
    let (chunk, object) = single(1, 9000);
    let is_good = store.chunk(&chunk.reference()).await.unwrap().is_some();
    assert!(store.object(&object.id).is_some());
    let (stored, taken) = (store.usage().await.unwrap().stored_bytes, disk.allocated("segments"));
    // A start that proves the last segment takes what is bad for torn.
    let is_one = taken == footprint || !is_good && taken == 0;
    assert!(is_one && stored == taken, "{stored} and {taken} bytes of {footprint}");
    is_good
}

#[tokio::test]
async fn of_a_bad_record_and_what_replaces_it_one_is_left_wherever_the_power_goes() {
    let ((disk, footprint), mut left) = (rotten().await, [0, 0]);
    for round in 0.. {
        // Sixteen tears for each place.
        let disk = disk.crash();
        let answered =
            replace(&disk, Plan { seed: round, cut_at: Some(1 + round / 16), ..Plan::default() }).await;
        let Some(disk) = disk.after_cut() else { break };
        let is_good = one_is_left(&disk, footprint).await;
        assert!(is_good || !answered, "{round}: it was answered for");
        left[usize::from(is_good)] += 1;
    }
    assert!(left[0] > 5 && left[1] > 5, "{left:?}");
}

#[tokio::test]
async fn of_a_bad_record_and_what_replaces_it_one_is_left_whatever_call_fails() {
    let ((disk, footprint), mut left) = (rotten().await, [0, 0]);
    for at in 0.. {
        let disk = disk.crash();
        let fault = Fault::Errno(rustix::io::Errno::IO.raw_os_error());
        let answered = replace(&disk, Plan { fault: Some((at, at + 1, fault)), ..Plan::default() }).await;
        if disk.changes() <= at {
            break;
        }
        // What the index keeps of it differs.
        for seed in 0..200 {
            let is_good = one_is_left(&disk.cut_power(seed), footprint).await;
            assert!(is_good || !answered, "call {at}, {seed}: it was answered for");
            left[usize::from(is_good)] += 1;
        }
    }
    assert!(left[0] > 5 && left[1] > 5, "{left:?}");
}
