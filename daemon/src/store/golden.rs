//! This room's formats as they were first written (see [`crate::golden`]).

use std::path::Path;

use bytes::Bytes;

use super::disk::Disk;
use super::disk::forgetful::Forgetful;
use super::journal::{Fact, Frames};
use super::object::ObjectInfo;
use super::record::{BLOCK, FOOTER_ENTRY, Header, Key, Record, StoreKey, footer, footer_entry};
use super::*;
use crate::content::{CHUNK, Chunk, ObjectId, Place};
use crate::golden::{is, sample};

const KEY: StoreKey = [3; 32];
const SEGMENT: u32 = 7;

/// Records that share their header's block and that do not, of zeros, and of another kind than chunks.
fn records() -> Vec<(Record, Bytes)> {
    let chunk = |kind, place, bytes: Bytes| {
        (Record::chunk(kind, &Chunk::compute(place, bytes.clone()).unwrap(), 1_700_000_000), bytes)
    };
    let top = Key { kind: Kind::Top, id: [8; 32] };
    vec![
        chunk(Kind::Data, Place::Root, sample("small", 100)),
        chunk(Kind::Data, Place::At(3 << 20), sample("large", 5000)),
        chunk(Kind::Parity, Place::Root, sample("parity", 3584)),
        chunk(Kind::Data, Place::At(4 << 20), vec![0; CHUNK].into()),
        (Record::other(top, sample("top", 4097), 1_700_000_001), sample("top", 4097)),
    ]
}

#[test]
fn records_and_the_footer() {
    let (mut image, mut list, mut headers) = (Vec::new(), Vec::new(), Vec::new());
    for (record, _) in records() {
        let offset = image.len() as u64;
        list.extend(footer_entry(&record.header, offset as u32));
        headers.push((offset, record.header));
        record.parts(&KEY, SEGMENT, offset).iter().for_each(|part| image.extend_from_slice(part));
    }
    let (at, listed) = (image.len(), list.len());
    image.extend(footer(list.clone().into(), &KEY, SEGMENT, at as u64, 1_700_000_002));
    let golden = is("segment", &image);
    // What it says, read as the start does.
    let disk = Forgetful::default();
    let file = disk.create(Path::new("segment")).unwrap();
    file.write_at(0, &mut [std::io::IoSlice::new(&golden)]).unwrap();
    let mut found: Vec<(u64, Header)> = Vec::new();
    scan::scan(file.as_ref(), SEGMENT, &KEY, 0, |header, offset| {
        found.push((offset, *header));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let (place, last) = found.pop().unwrap();
    assert_eq!(found, headers);
    for ((offset, header), (_, payload)) in found.iter().zip(records()) {
        assert_eq!(
            (header.length as usize, header.zero),
            (payload.len(), payload.iter().all(|byte| *byte == 0))
        );
        let from = (offset + header.payload_at()) as usize;
        assert!(header.zero || golden[from..from + payload.len()] == payload);
        assert!(header.proves(payload));
    }
    assert_eq!((last.key.kind, place + BLOCK), (Kind::Footer, golden.len() as u64));
    let list = Bytes::copy_from_slice(&golden[at..at + last.length as usize]);
    assert!(listed == list.len() && listed == headers.len() * FOOTER_ENTRY && last.proves(list));
}

fn facts() -> Vec<Fact> {
    let full = ObjectInfo {
        id: ObjectId::from_bytes([1; 32]),
        length: 12_345_678,
        name: Some("größe.txt".to_owned()),
        parity: Some((16, 4)),
        private: true,
        publish: true,
        added: 1_700_000_000,
        pins: vec![Pin { uid: 1000, since: 1_700_000_001 }, Pin { uid: 0, since: 1_700_000_002 }],
        state: State::Partial,
        tree: false,
        part: false,
    };
    let removed = full.id;
    let plain = ObjectInfo {
        id: ObjectId::from_bytes([2; 32]),
        length: 1,
        name: None,
        parity: None,
        private: false,
        publish: false,
        pins: Vec::new(),
        state: State::Whole,
        ..full
    };
    let directory = ObjectInfo { id: ObjectId::from_bytes([3; 32]), tree: true, ..plain.clone() };
    let part = ObjectInfo { id: ObjectId::from_bytes([4; 32]), part: true, ..plain.clone() };
    let objects = [full, plain, directory, part].map(Fact::Object);
    [Fact::Key(KEY)].into_iter().chain(objects).chain([Fact::Removed(removed)]).collect()
}

#[test]
fn the_journal() {
    let mut frames = Frames::at(0, KEY);
    facts().iter().for_each(|fact| frames.push(fact));
    let golden = is("journal", &frames.bytes);
    let mut said = Vec::new();
    assert_eq!(journal::read(&golden, &KEY, &mut |fact| said.push(fact)).unwrap(), golden.len());
    assert_eq!(said, facts());
}

/// Jobs came later: what was written before them reads as it did.
#[test]
fn the_journal_with_jobs() {
    let object = ObjectId::from_bytes([1; 32]);
    let plain = Job {
        number: 1,
        object,
        tree: false,
        uid: 0,
        pin: false,
        priority: Priority::Low,
        since: 1_700_000_000,
        peers: Vec::new(),
    };
    let peers = vec!["12D3@größe.example:9000".to_owned(), "/ip4/192.0.2.1/tcp/8468/p2p/12D3".to_owned()];
    let full =
        Job { number: 0x0102_0304_0506, uid: 1000, pin: true, priority: Priority::High, peers, ..plain };
    let changed = Job { priority: Priority::Normal, ..plain.clone() };
    let facts = [Fact::Key(KEY), Fact::Job(plain), Fact::Job(full), Fact::Job(changed), Fact::Ended(1)];
    let mut frames = Frames::at(0, KEY);
    facts.iter().for_each(|fact| frames.push(fact));
    let golden = is("journal.jobs", &frames.bytes);
    let mut said = Vec::new();
    assert_eq!(journal::read(&golden, &KEY, &mut |fact| said.push(fact)).unwrap(), golden.len());
    assert_eq!(said, facts);
}

#[test]
fn the_marker_of_an_end_in_order() {
    let sum = index::Sum::decode(&sample("sum", index::Sum::SIZE)).unwrap();
    for (name, journal) in [("CLEAN.1", None), ("CLEAN.2", Some(0x0123_4567_89ab))] {
        let closed = health::Closed { sum, journal };
        let golden = is(name, &closed.encode());
        assert_eq!(health::Closed::decode(&golden), Some(closed));
        for length in (0..golden.len()).filter(|length| *length != index::Sum::SIZE) {
            assert_eq!(health::Closed::decode(&golden[..length]), None, "{length}");
        }
    }
}

#[test]
fn the_format() {
    let golden = is("FORMAT", format::render(&KEY).as_bytes());
    assert_eq!(format::parse(std::str::from_utf8(&golden).unwrap()).unwrap(), KEY);
}
