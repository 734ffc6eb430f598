//! Frames by property: what is written reads back, what is nonsense is refused.

use super::*;
use crate::content::CHUNK;
use crate::session::frames::{MAX_BITMAP, SLICE};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn id() -> impl Strategy<Value = ObjectId> {
    any::<[u8; 32]>().prop_map(ObjectId::from_bytes)
}

fn chunk() -> impl Strategy<Value = ChunkRef> {
    let place = prop_oneof![Just(Place::Root), (0..MAX_CHUNKS).prop_map(|i| Place::At(i * CHUNK_LEN))];
    (any::<[u8; 32]>(), place, 1..=CHUNK as u32).prop_map(|(id, place, length)| ChunkRef {
        id: ChunkId::from_bytes(id),
        place,
        length,
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        id().prop_map(Ask::Top),
        (id(), any::<u32>()).prop_map(|(object, index)| Ask::Page(object, index)),
        id().prop_map(Ask::Parity),
        (id(), any::<[u8; 32]>()).prop_map(|(object, digest)| Ask::ParityPage(object, digest)),
        chunk().prop_map(Ask::Chunk),
        (id(), 0..MAX_CHUNKS as u32 - 65536, 1u16..).prop_map(|(object, first, count)| Ask::Run {
            object,
            first,
            count
        }),
        id().prop_map(Ask::Haves),
    ]
}

fn have() -> impl Strategy<Value = Have> {
    let bits = prop::collection::vec(any::<u8>(), 1..200);
    prop_oneof![
        Just(Have::Whole),
        (0..MAX_CHUNKS / 8 - 200, bits)
            .prop_map(|(byte, bits)| Have::Bitmap { first: byte * 8, bits: bits.into() }),
        prop::collection::vec(0..MAX_CHUNKS, 1..100).prop_map(Have::Chunks),
    ]
}

fn card() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 1..=MAX_CARD).prop_map(Bytes::from)
}

fn fellows() -> impl Strategy<Value = Vec<Fellow>> {
    let seen = prop_oneof![
        Just(None),
        any::<[u8; 4]>().prop_map(|ip| Some(IpAddr::from(Ipv4Addr::from(ip)))),
        any::<[u8; 16]>().prop_map(|ip| Some(IpAddr::from(Ipv6Addr::from(ip)))),
    ];
    let fellow = (seen, card()).prop_map(|(seen, card)| Fellow { seen, card });
    prop::collection::vec(fellow, 1..=MAX_FELLOWS)
}

fn frame() -> impl Strategy<Value = Frame> {
    let role = prop_oneof![Just(Role::Asker), Just(Role::Giver)];
    let hello = (role, any::<(u16, u16, [u8; 32], u32, u32, Option<[u8; 32]>)>()).prop_map(|(role, rest)| {
        let (least, most, network, requests, bytes, proof) = rest;
        Frame::Hello(Hello { role, least, most, network, requests, bytes, proof })
    });
    let record =
        prop_oneof![Just(Record::Top), Just(Record::Page), Just(Record::Parity), Just(Record::ParityPage)];
    prop_oneof![
        hello,
        (any::<u8>(), ".{0,60}").prop_map(|(code, text)| Frame::Goodbye(Reason::from_code(code), text)),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        (any::<u32>(), ask()).prop_map(|(request, ask)| Frame::Ask(request, ask)),
        any::<u32>().prop_map(Frame::Cancel),
        (any::<u32>(), record, prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(request, record, bytes)| Frame::Record(request, record, bytes.into())),
        any::<u32>().prop_map(Frame::Zero),
        any::<u32>().prop_map(Frame::NotFound),
        any::<(u32, u32)>()
            .prop_map(|(request, ms)| Frame::Busy(request, Duration::from_millis(u64::from(ms)))),
        any::<u32>().prop_map(Frame::Cancelled),
        (any::<u32>(), have()).prop_map(|(request, have)| Frame::Have(request, have)),
        card().prop_map(Frame::Card),
        (any::<u32>(), fellows()).prop_map(|(request, fellows)| Frame::Peers(request, fellows)),
        (any::<u32>(), prop::collection::vec(0..MAX_CHUNKS, 1..=MAX_GIVEN))
            .prop_map(|(request, chunks)| Frame::Given(request, chunks)),
    ]
}

fn read(bytes: &[u8]) -> Result<Frame, Error> {
    let (kind, length) = head(*bytes.first_chunk().unwrap())?;
    assert_eq!(length, bytes.len() - HEAD);
    Frame::decode(kind, Bytes::copy_from_slice(&bytes[HEAD..]))
}

proptest! {
    #[test]
    fn frames_read_back(frame in frame()) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        prop_assert_eq!(read(&bytes), Ok(frame));
    }

    #[test]
    fn what_is_read_from_garbage_has_that_one_encoding(
        kind in prop::sample::select(Kind::ALL), fields in prop::collection::vec(any::<u8>(), 0..100)
    ) {
        if let Ok(frame) = Frame::decode(kind, fields.clone().into()) {
            let mut bytes = BytesMut::new();
            frame.encode(&mut bytes);
            prop_assert_eq!(&bytes[HEAD..], &fields[..]);
        }
    }

    #[test]
    fn cut_short_or_with_a_tail_it_is_another_frame_or_none(frame in frame(), at in any::<prop::sample::Index>()) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let fields = bytes.split_off(HEAD).freeze();
        if !fields.is_empty() {
            let short = Frame::decode(frame.kind(), fields.slice(..at.index(fields.len())));
            prop_assert_ne!(short, Ok(frame.clone()));
        }
        let long = Frame::decode(frame.kind(), [&fields[..], &[1]].concat().into());
        prop_assert_ne!(long, Ok(frame));
    }
}

#[test]
fn heads_are_checked_before_anything_else() {
    let lengths = |kind: u8, length: u32| {
        let [a, b, c, d] = length.to_le_bytes();
        head([a, b, c, d, kind])
    };
    for kind in Kind::ALL {
        let limit = kind.limit();
        assert_eq!(lengths(*kind as u8, limit as u32 + 1), Ok((*kind, limit)));
        for length in [0, limit as u32 + 2, u32::MAX] {
            assert!(matches!(lengths(*kind as u8, length), Err(Error::Protocol(_))), "{kind:?} {length}");
        }
        assert!(limit <= Kind::Slice.limit());
    }
    for code in (0..=u8::MAX).filter(|code| Kind::from_code(*code).is_none()) {
        assert!(lengths(code, 1).is_err());
    }
}

#[test]
fn the_longest_of_each_kind_fits() {
    let object = ObjectId::from_bytes([7; 32]);
    let bits = Bytes::from(vec![0xff; MAX_BITMAP]);
    let card = Bytes::from(vec![1; MAX_CARD]);
    let fellow = Fellow { seen: Some(Ipv6Addr::LOCALHOST.into()), card: card.clone() };
    for frame in [
        Frame::Card(card),
        Frame::Peers(1, vec![fellow; MAX_FELLOWS]),
        Frame::Given(1, vec![MAX_CHUNKS - 1; MAX_GIVEN]),
        Frame::Have(1, Have::Bitmap { first: MAX_CHUNKS - MAX_BITMAP as u64 * 8, bits }),
        Frame::Have(1, Have::Chunks((0..MAX_NEWS as u64).collect())),
        Frame::Ask(u32::MAX, Ask::ParityPage(object, [1; 32])),
        Frame::Goodbye(Reason::Busy, "x".repeat(MAX_TEXT)),
    ] {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        assert_eq!(read(&bytes), Ok(frame));
    }
    let mut bytes = BytesMut::new();
    Frame::Goodbye(Reason::Busy, "\u{e9}".repeat(MAX_TEXT)).encode(&mut bytes);
    assert_eq!(read(&bytes), Ok(Frame::Goodbye(Reason::Busy, "\u{e9}".repeat(MAX_TEXT / 2))));
    let bytes = slice_head(5, 9, SLICE);
    assert_eq!(head(*bytes.first_chunk().unwrap()), Ok((Kind::Slice, 8 + SLICE)));
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let protocol =
        |kind, fields: Vec<u8>| matches!(Frame::decode(kind, fields.into()), Err(Error::Protocol(_)));
    let want = |root: u8, offset: u64, length: u32| {
        [&[0; 4], &[root][..], &offset.to_le_bytes(), &length.to_le_bytes(), &[0; 32]].concat()
    };
    assert!(!protocol(Kind::Want, want(0, 0, 1)) && !protocol(Kind::Want, want(1, CHUNK_LEN, CHUNK as u32)));
    for (root, offset, length) in
        [(0, 1, 1), (2, 0, 1), (1, 5, 1), (1, MAX_OBJECT, 1), (0, 0, 0), (0, 0, CHUNK as u32 + 1)]
    {
        assert!(protocol(Kind::Want, want(root, offset, length)), "{root} {offset} {length}");
    }
    let run = |first: u32, count: u16| [&[0; 36][..], &first.to_le_bytes(), &count.to_le_bytes()].concat();
    assert!(!protocol(Kind::WantRun, run(MAX_CHUNKS as u32 - 1, 1)));
    assert!(protocol(Kind::WantRun, run(MAX_CHUNKS as u32 - 1, 2)) && protocol(Kind::WantRun, run(0, 0)));
    assert!(protocol(Kind::Have, [&[0; 4], &[1][..], &1u32.to_le_bytes(), &[0]].concat()));
    assert!(protocol(Kind::Have, [&[0; 4], &[1][..], &(MAX_CHUNKS as u32).to_le_bytes(), &[0]].concat()));
    assert!(protocol(Kind::Have, vec![0, 0, 0, 0, 2]) && protocol(Kind::Have, vec![0, 0, 0, 0, 0, 0]));
    assert!(protocol(Kind::Have, [&[0; 4], &[2][..], &u32::MAX.to_le_bytes()].concat()));
    assert!(protocol(Kind::Goodbye, vec![0, 0xff]) && protocol(Kind::Slice, vec![0; 9]));
    // One peer too many, no peer, a card of no length, longer than the frame or than any, and no kind of address.
    let peer = [0, 1, 0, 9];
    assert!(!protocol(Kind::Peers, [&[0; 4], &peer.repeat(MAX_FELLOWS)[..]].concat()));
    let bad = [peer.repeat(MAX_FELLOWS + 1), Vec::new(), vec![0, 0, 0], vec![0, 9, 0, 9], vec![5, 1, 0, 9]];
    assert!(bad.into_iter().all(|peers| protocol(Kind::Peers, [&[0; 4], &peers[..]].concat())));
    assert!(protocol(Kind::Peers, [&[0; 4], &[0, 3, 1][..], &[9; MAX_CARD + 1]].concat()));
    assert!(protocol(Kind::Card, Vec::new()) && protocol(Kind::Card, vec![9; MAX_CARD + 1]));
    assert!(protocol(Kind::Given, vec![0; 4]) && protocol(Kind::Given, vec![0; 4 + 4 * MAX_GIVEN + 4]));
    assert!(protocol(Kind::Given, [&[0; 4], &(MAX_CHUNKS as u32).to_le_bytes()[..]].concat()));
}
