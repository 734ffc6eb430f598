//! What fuzzing begins with: frames of every kind, and what asker and giver say, honest and not.

use std::time::Duration;

use bytes::Bytes;

use super::{BINDING, MAKER, SEEN, SIGNED, Truth, encode, heard, me, networks};
use crate::content::{CHUNK_LEN, ChunkId, ChunkRef, ObjectId, Place};
use crate::fuzzing::tests::Seed;
use crate::peer::CardSigner;
use crate::session::codec::slice_head;
use crate::session::frames::{Ask, Frame, Kind, Record, Role};
use crate::session::{Fellow, Have, Reason, hello};

const OBJECT: ObjectId = ObjectId::from_bytes([7; 32]);

/// For each target inputs that casd's own encoders write.
pub(crate) fn seeds() -> Vec<Seed> {
    let truth = Truth::new().unwrap();
    let mut seeds: Vec<Seed> = hellos();
    for (name, frame) in frames(&truth) {
        seeds.push(("frame", name, encode(&frame)[4..].to_vec()));
    }
    seeds.push(("frame", "a_head_of_4_gib", [&[0xff; 4][..], &[Kind::Slice as u8]].concat()));
    for (name, says) in [
        ("everything", everything(&truth)),
        ("beyond_the_credits", beyond(&truth)),
        ("a_card_and_none", introduced()),
    ] {
        seeds.push(("asks", name, says));
    }
    for (name, says) in given(&truth) {
        seeds.push(("answers", name, says));
    }
    seeds
}

fn hellos() -> Vec<Seed> {
    let me = me();
    let ends = hello::Ends { asker: &me, giver: &me, binding: &BINDING };
    let [open, keyed] = networks();
    let said = [
        ("an_asker", open.hello(Role::Asker, &ends, 0, 0)),
        ("a_giver", open.hello(Role::Giver, &ends, 64, 64 << 20)),
        ("an_asker_with_the_key", keyed.hello(Role::Asker, &ends, 0, 0)),
        ("a_giver_with_the_key", keyed.hello(Role::Giver, &ends, 64, 64 << 20)),
    ];
    said.map(|(name, hello)| ("hello", name, encode(&Frame::Hello(hello))[5..].to_vec())).into()
}

/// One of each kind, but for slices.
fn frames(truth: &Truth) -> Vec<(&'static str, Frame)> {
    let me = me();
    let ends = hello::Ends { asker: &me, giver: &me, binding: &BINDING };
    let [_, keyed] = networks();
    let record = |record, bytes| Frame::Record(9, record, bytes);
    let root = ChunkRef { id: ChunkId::from_bytes([3; 32]), place: Place::Root, length: 5 };
    vec![
        ("hello", Frame::Hello(keyed.hello(Role::Asker, &ends, 0, 0))),
        ("goodbye", Frame::Goodbye(Reason::Protocol, "\u{1b}[31mno\u{2028}t\u{e9}\n".to_owned())),
        ("ping", Frame::Ping(5)),
        ("pong", Frame::Pong(u64::MAX)),
        ("get_top", Frame::Ask(1, Ask::Top(OBJECT))),
        ("get_page", Frame::Ask(2, Ask::Page(OBJECT, 3))),
        ("get_parity", Frame::Ask(3, Ask::Parity(OBJECT))),
        ("get_parity_page", Frame::Ask(4, Ask::ParityPage(OBJECT, [1; 32]))),
        ("want", Frame::Ask(5, Ask::Chunk(truth.last.reference()))),
        ("want_root", Frame::Ask(u32::MAX, Ask::Chunk(root))),
        ("want_run", Frame::Ask(6, Ask::Run { object: OBJECT, first: (1 << 22) - 2, count: 2 })),
        ("subscribe", Frame::Ask(7, Ask::Haves(OBJECT))),
        ("cancel", Frame::Cancel(7)),
        ("top", record(Record::Top, truth.manifest.top().encode())),
        ("page", record(Record::Page, truth.manifest.pages()[0].encode())),
        ("parity", record(Record::Parity, truth.part.encode())),
        ("parity_page", record(Record::ParityPage, truth.parity.encode())),
        ("zero", Frame::Zero(1)),
        ("not_found", Frame::NotFound(2)),
        ("busy", Frame::Busy(3, Duration::from_millis(u64::from(u32::MAX)))),
        ("cancelled", Frame::Cancelled(4)),
        ("have_all", Frame::Have(5, Have::Whole)),
        ("have_some", Frame::Have(5, Have::Bitmap { first: (1 << 22) - 16, bits: vec![0x81, 0xff].into() })),
        ("have_more", Frame::Have(5, Have::Chunks(vec![0, (1 << 22) - 1, 5]))),
        ("card", Frame::Card(card())),
        ("peers", Frame::Peers(5, fellows())),
        ("given", Frame::Given(5, vec![0, (1 << 22) - 1])),
    ]
}

/// The card of the one peer that there is.
fn card() -> Bytes {
    let ports = ["0.0.0.0:9000", "[fd00::7]:9001"].map(|at| at.parse().unwrap());
    CardSigner::new(MAKER.clone(), "fuzz", &ports).unwrap().sign(SIGNED).unwrap()
}

fn fellows() -> Vec<Fellow> {
    vec![Fellow { seen: Some(SEEN), card: card() }, Fellow { seen: None, card: Bytes::from_static(b"?") }]
}

/// Who shows a card, and then what is none.
fn introduced() -> Vec<u8> {
    let shown = [
        Frame::Card(card()),
        Frame::Ask(0, Ask::Haves(OBJECT)),
        Frame::Card(Bytes::from_static(b"?")),
        Frame::Ask(1, Ask::Haves(OBJECT)),
        Frame::Goodbye(Reason::Done, String::new()),
    ];
    shown.iter().flat_map(encode).collect()
}

/// What an asker may say.
fn everything(truth: &Truth) -> Vec<u8> {
    let last = Ask::Chunk(truth.last.reference());
    let asks = [
        Frame::Ask(0, Ask::Top(OBJECT)),
        Frame::Ask(1, Ask::ParityPage(OBJECT, [1; 32])),
        Frame::Ask(2, last),
        Frame::Ping(1),
        Frame::Ask(3, Ask::Haves(OBJECT)),
        Frame::Cancel(2),
        Frame::Ask(4, Ask::Run { object: OBJECT, first: 0, count: 1 }),
        Frame::Goodbye(Reason::Done, String::new()),
    ];
    asks.iter().flat_map(encode).collect()
}

/// What it may not.
fn beyond(truth: &Truth) -> Vec<u8> {
    let whole = ChunkRef { place: Place::At(CHUNK_LEN), length: 1 << 20, ..truth.last.reference() };
    let asks = (0..3).map(|request| Frame::Ask(request, Ask::Chunk(whole)));
    let run = Frame::Ask(u32::MAX - 1, Ask::Run { object: OBJECT, first: 0, count: u16::MAX });
    asks.chain([run]).flat_map(|frame| encode(&frame)).collect()
}

/// What a giver may say to the requests of the target `answers`, and some of what it may not.
fn given(truth: &Truth) -> Vec<(&'static str, Vec<u8>)> {
    let slice = |request, from: usize, to: usize| {
        let head = slice_head(request, u32::try_from(from).unwrap(), to - from);
        [&head[..], &truth.last.bytes()[from..to]].concat()
    };
    let records = [
        Frame::Record(0, Record::Top, truth.manifest.top().encode()),
        Frame::Record(1, Record::Page, truth.manifest.pages()[0].encode()),
        Frame::Record(2, Record::Parity, truth.part.encode()),
        Frame::Record(3, Record::ParityPage, truth.parity.encode()),
    ];
    let told = [
        Frame::Have(6, Have::Bitmap { first: 0, bits: vec![4].into() }),
        Frame::Have(6, Have::Chunks(vec![2])),
        Frame::Pong(0),
        Frame::NotFound(6),
        Frame::Cancelled(7),
    ];
    let [records, told] =
        [records.as_slice(), &told].map(|frames| frames.iter().flat_map(encode).collect::<Vec<_>>());
    let refused = [0, 1, 2, 3, 6].map(Frame::NotFound).iter().flat_map(encode).collect::<Vec<_>>();
    let busy = encode(&Frame::Busy(4, Duration::from_secs(1)));
    vec![
        ("the_truth", [records, slice(4, 0, 400), slice(5, 0, 1000), slice(4, 400, 1000), told].concat()),
        ("nothing", [refused, busy, encode(&Frame::Zero(5)), slice(7, 0, 9)].concat()),
        ("a_chunk_twice", [slice(4, 0, 1000), slice(4, 0, 1000)].concat()),
        ("a_gap", [slice(4, 0, 10), slice(4, 11, 20)].concat()),
        ("a_goodbye", encode(&Frame::Goodbye(Reason::Busy, "later".to_owned()))),
        ("others", [Frame::Peers(6, fellows()), Frame::Given(6, vec![2])].iter().flat_map(encode).collect()),
    ]
}

#[test]
fn what_a_giver_says_is_heard() {
    let truth = Truth::new().unwrap();
    let found = given(&truth).into_iter().map(|(name, says)| (name, heard(&says)));
    let expected = [("the_truth", 6), ("nothing", 0), ("a_chunk_twice", 1), ("a_gap", 0), ("a_goodbye", 0)];
    assert!(found.eq(expected.into_iter().chain([("others", 0)])));
}
