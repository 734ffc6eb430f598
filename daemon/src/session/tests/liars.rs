//! One end breaks the protocol. The other must refuse it with a reason, without a panic and without waiting for ever.

use super::*;
use crate::session::frames::{Ask, Frame, Hello, Role, SLICE, VERSION};
use crate::session::{codec::slice_head, hello};
use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An asker, and the bare stream of the giver that it talks to.
async fn against_giver(change: impl FnOnce(&mut Options)) -> (Asker, DuplexStream, Tasks) {
    let mut ends = Ends::new(&open());
    change(&mut ends.ask);
    let (one, mut two) = tokio::io::duplex(1 << 22);
    ends.asker.stream = Box::new(one);
    let tasks = Tasks::new();
    let proof = hello::Ends { asker: &ends.ask.me, giver: &ends.give.me, binding: &[7; 32] };
    let hello = ends.give.network.hello(Role::Giver, &proof, 64, 64 << 20);
    two.write_all(&encode(&[Frame::Hello(hello)])).await.unwrap();
    (Asker::open(ends.asker, &ends.ask, &tasks).await.unwrap(), two, tasks)
}

/// What a giver makes of these bytes after (or as) an asker's hello, and what it says last.
async fn against_asker(
    greet: bool,
    bytes: &[u8],
    change: impl FnOnce(&mut Options),
) -> Result<Summary, Error> {
    let mut ends = Ends::new(&open());
    change(&mut ends.give);
    let (one, mut two) = tokio::io::duplex(1 << 22);
    ends.giver.stream = Box::new(one);
    let tasks = Tasks::new();
    let given = serve(ends.giver, ends.give, &Shelf::new(&[true, true], 10), &tasks);
    if greet {
        let proof = hello::Ends { asker: &ends.ask.me, giver: &ends.ask.me, binding: &[7; 32] };
        let hello = ends.ask.network.hello(Role::Asker, &proof, 0, 0);
        two.write_all(&encode(&[Frame::Hello(hello)])).await.unwrap();
    }
    // It may be gone before it has read all.
    let _ = two.write_all(bytes).await;
    let _ = two.shutdown().await;
    let ended = given.await.unwrap().unwrap();
    drop(two);
    ended
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for frame in frames {
        frame.encode(&mut out);
    }
    out.to_vec()
}

fn slice(request: u32, offset: u32, length: usize) -> Vec<u8> {
    [&slice_head(request, offset, length)[..], &vec![1; length]].concat()
}

fn chunk(length: usize) -> ChunkRef {
    ChunkRef { id: ChunkId::from_bytes([3; 32]), place: Place::Root, length: length as u32 }
}

/// What comes of wanting a chunk of two slices and a half from a giver that says this.
async fn wanting(says: &[u8]) -> Result<Answer<Unproven>, Error> {
    let (asker, mut giver, _tasks) = against_giver(|_| {}).await;
    let mut want = Box::pin(asker.want(chunk(SLICE * 5 / 2)));
    assert!(want.as_mut().now_or_never().is_none());
    giver.write_all(says).await.unwrap();
    giver.shutdown().await.unwrap();
    within(want).await
}

#[tokio::test]
async fn answers_that_nobody_asked_for_end_the_session() {
    let half = SLICE / 2;
    let object = ObjectId::from_bytes([1; 32]);
    let whole =
        [slice(0, 0, SLICE), slice(0, SLICE as u32, SLICE), slice(0, 2 * SLICE as u32, half)].concat();
    assert!(matches!(wanting(&whole).await, Ok(Answer::Found(_))));
    let first = slice(0, 0, SLICE);
    for (what, says) in [
        ("another request", slice(1, 0, SLICE)),
        ("a gap", slice(0, 1, SLICE)),
        ("the same twice", [&first[..], &first].concat()),
        ("overlap", [&first[..], &slice(0, SLICE as u32 - 1, 9)].concat()),
        (
            "too long",
            [&first[..], &slice(0, SLICE as u32, SLICE), &slice(0, 2 * SLICE as u32, half + 1)].concat(),
        ),
        ("no data", slice(0, 0, 0)),
        ("zeros after data", [&first[..], &encode(&[Frame::Zero(0)])].concat()),
        ("a record", encode(&[Frame::Record(0, frames::Record::Top, Bytes::from_static(b"x"))])),
        ("have", encode(&[Frame::Have(0, Have::Whole)])),
        ("cancelled", encode(&[Frame::Cancelled(0)])),
        ("not found for another", encode(&[Frame::NotFound(9)])),
        ("a request", encode(&[Frame::Ask(0, Ask::Top(object))])),
        ("a ping", encode(&[Frame::Ping(0)])),
        ("no kind", vec![0, 0, 0, 0, 0]),
        ("unknown kind", vec![1, 0, 0, 0, 99]),
        ("length of 4 GiB", vec![0xff, 0xff, 0xff, 0xff, frames::Kind::Slice as u8]),
        ("half a slice head", vec![5, 0, 0, 0, frames::Kind::Slice as u8, 0, 0, 0, 0]),
        ("zero, with a tail", vec![6, 0, 0, 0, frames::Kind::Zero as u8, 0, 0, 0, 0, 0]),
    ] {
        let error = wanting(&says).await.unwrap_err();
        assert!(matches!(error, Error::Protocol(_)) && error.is_strike(), "{what}: {error}");
    }
    // Cut short is nobody's lie: connections break.
    for end in [1, 4, 5, 8, 13, 14, SLICE, whole.len() - 1] {
        assert!(matches!(wanting(&whole[..end]).await, Err(Error::Broken(_))), "{end}");
    }
}

#[tokio::test]
async fn a_chunk_answered_twice_ends_the_session_but_keeps_the_first() {
    let (asker, mut giver, _tasks) = against_giver(|_| {}).await;
    let mut want = Box::pin(asker.want(chunk(9)));
    assert!(want.as_mut().now_or_never().is_none());
    giver.write_all(&[slice(0, 0, 9), slice(0, 0, 9)].concat()).await.unwrap();
    let answer = within(want).await.unwrap().found().unwrap();
    assert!(answer.verify().is_err());
    assert!(matches!(within(asker.closed()).await, Error::Protocol(_)));
    let mut said = Vec::new();
    within(giver.read_to_end(&mut said)).await.unwrap();
    let text = String::from_utf8_lossy(&said);
    assert!(text.contains("the peer broke the protocol: an answer to nothing that was asked"), "{text:?}");
}

#[tokio::test]
async fn manifests_that_prove_nothing_are_lies() {
    let shelf = Shelf::new(&[true, true], 10);
    let (asker, mut giver, _tasks) = against_giver(|_| {}).await;
    let bytes = shelf.manifest.top().encode();
    giver.write_all(&encode(&[])).await.unwrap();
    let object = ObjectId::from_bytes([1; 32]);
    let mut ask = Box::pin(asker.top(&object));
    assert!(ask.as_mut().now_or_never().is_none());
    giver.write_all(&encode(&[Frame::Record(0, frames::Record::Top, bytes)])).await.unwrap();
    let error = within(ask).await.unwrap_err();
    assert!(matches!(error, Error::Lie(_)) && error.is_strike());
    let other = shelf.part.encode();
    let mut ask = Box::pin(asker.parity(&object));
    assert!(ask.as_mut().now_or_never().is_none());
    giver.write_all(&encode(&[Frame::Record(1, frames::Record::Parity, other)])).await.unwrap();
    assert!(matches!(within(ask).await, Err(Error::Lie(_))));
}

#[tokio::test]
async fn late_slices_of_a_cancelled_request_are_passed_over_up_to_what_was_asked() {
    let (asker, mut giver, _tasks) = against_giver(|_| {}).await;
    let mut want = Box::pin(asker.want(chunk(SLICE * 2)));
    assert!(want.as_mut().now_or_never().is_none());
    giver.write_all(&slice(0, 0, SLICE)).await.unwrap();
    until(|| asker.received() >= SLICE as u64).await;
    drop(want);
    assert_eq!(asker.room().0, 63);
    giver.write_all(&slice(0, SLICE as u32, 5)).await.unwrap();
    giver.write_all(&encode(&[Frame::Cancelled(0)])).await.unwrap();
    within(async {
        until(|| asker.room() == (64, 64 << 20)).await;
    })
    .await;
    assert!(!asker.is_closed());
    giver.write_all(&slice(0, SLICE as u32 + 5, 5)).await.unwrap();
    assert!(matches!(within(asker.closed()).await, Error::Protocol(_)));
}

#[tokio::test]
async fn news_without_end_end_the_session() {
    let map = Have::Bitmap { first: 0, bits: vec![1; frames::MAX_BITMAP].into() };
    for (news, fine) in [
        (Frame::Have(0, Have::Chunks(vec![0])), 3_900),
        (Frame::Have(0, map), 400),
        (Frame::Given(0, vec![0]), 3_900),
        (Frame::Peers(0, vec![Fellow { seen: None, card: Bytes::from_static(b"?") }]), 3_900),
    ] {
        let (asker, mut giver, _tasks) = against_giver(|_| {}).await;
        let _haves = asker.haves(ObjectId::from_bytes([1; 32])).await.unwrap();
        let many = encode(&vec![news; fine]);
        within(async {
            giver.write_all(&many).await.unwrap();
            until(|| asker.received() >= many.len() as u64).await;
            assert!(!asker.is_closed(), "what has waited for half a minute may come at once");
            let flood = async { while giver.write_all(&many).await.is_ok() {} };
            let (error, ()) = tokio::join!(asker.closed(), flood);
            assert!(matches!(error, Error::Protocol(_)) && error.is_strike(), "{error}");
        })
        .await;
    }
}

#[tokio::test]
async fn what_stops_or_trickles_in_the_middle_is_stalled_not_waited_for() {
    for trickle in [false, true] {
        let (asker, mut giver, _tasks) =
            against_giver(|options| options.stall = Duration::from_millis(200)).await;
        let mut want = Box::pin(asker.want(chunk(SLICE)));
        assert!(want.as_mut().now_or_never().is_none());
        giver.write_all(&slice(0, 0, SLICE)[..5000]).await.unwrap();
        let drip = async {
            loop {
                // One byte in 20 ms is 50 in a second: far under the least rate.
                tokio::time::sleep(Duration::from_millis(20)).await;
                if trickle {
                    let _ = giver.write_all(&[1]).await;
                }
            }
        };
        let ended = within(async {
            tokio::select! { ended = want => ended, () = drip => unreachable!() }
        })
        .await;
        assert_eq!(ended, Err(Error::Stalled));
    }
    // An asker that begins a frame and goes quiet, and one that never says hello.
    let hurry = |options: &mut Options| {
        (options.hello, options.stall) = (Duration::from_millis(100), Duration::from_millis(100));
    };
    let mut ends = Ends::new(&open());
    hurry(&mut ends.give);
    let given = serve(ends.giver, ends.give, &Shelf::new(&[true, true], 10), &Tasks::new());
    assert_eq!(within(given).await.unwrap().unwrap(), Err(Error::Silent));
    assert_eq!(
        within(async {
            let mut ends = Ends::new(&open());
            hurry(&mut ends.ask);
            Asker::open(ends.asker, &ends.ask, &Tasks::new()).await.err()
        })
        .await,
        Some(Error::Silent)
    );
}

#[tokio::test]
async fn an_asker_that_does_not_read_does_not_hold_the_giver() {
    let shelf = Shelf::new(&[true, true], CHUNK);
    let mut ends = Ends::new(&open());
    ends.give.stall = Duration::from_millis(200);
    let (one, mut two) = tokio::io::duplex(64 * 1024);
    ends.giver.stream = Box::new(one);
    let proof = hello::Ends { asker: &ends.ask.me, giver: &ends.ask.me, binding: &[7; 32] };
    let hello = ends.ask.network.hello(Role::Asker, &proof, 0, 0);
    let given = serve(ends.giver, ends.give, &shelf, &Tasks::new());
    let ask = Frame::Ask(0, Ask::Chunk(shelf.manifest.chunk(0).unwrap()));
    two.write_all(&encode(&[Frame::Hello(hello), ask])).await.unwrap();
    assert_eq!(within(given).await.unwrap().unwrap(), Err(Error::Stalled));
}

#[tokio::test]
async fn an_asker_that_breaks_the_protocol_is_refused() {
    let object = ObjectId::from_bytes([1; 32]);
    let few = |options: &mut Options| (options.requests, options.bytes) = (4, CHUNK as u32);
    let top = |request| Frame::Ask(request, Ask::Top(object));
    let want = |request| Frame::Ask(request, Ask::Chunk(chunk(CHUNK)));
    let run = |count| Frame::Ask(0, Ask::Run { object, first: 0, count });
    let subscribe = |request| Frame::Ask(request, Ask::Haves(object));
    // All of a flood is read before any of it is answered, or some of it: either way it is over the credit.
    for (what, frames) in [
        ("requests", (0..5000).map(top).collect::<Vec<_>>()),
        ("bytes", (0..5000).map(want).collect()),
        ("a run", vec![run(5)]),
        ("a run's bytes", vec![run(2)]),
        ("subscriptions", (0..5000).map(subscribe).collect()),
        ("the same id", (0..5000).map(|_| top(7)).collect()),
        ("an answer", vec![Frame::Zero(0)]),
        ("a second hello", vec![Frame::Hello(ill_hello())]),
    ] {
        let ended = within(against_asker(true, &encode(&frames), few)).await;
        assert!(matches!(ended, Err(Error::Protocol(_))), "{what}: {ended:?}");
    }
    let fine =
        within(against_asker(true, &encode(&[top(0), want(1), Frame::Cancel(1), Frame::Cancel(77)]), few))
            .await;
    assert_eq!(fine.unwrap().ended, Ended::ByAsker);
}

fn ill_hello() -> Hello {
    Hello { role: Role::Asker, least: 3, most: 9, network: [0; 32], requests: 0, bytes: 0, proof: None }
}

#[tokio::test]
async fn pings_alone_do_not_keep_a_place() {
    let mut ends = Ends::new(&open());
    ends.give.idle = Duration::from_millis(300);
    let (one, mut two) = tokio::io::duplex(1 << 16);
    ends.giver.stream = Box::new(one);
    let proof = hello::Ends { asker: &ends.ask.me, giver: &ends.ask.me, binding: &[7; 32] };
    let hello = ends.ask.network.hello(Role::Asker, &proof, 0, 0);
    let given = serve(ends.giver, ends.give, &Shelf::new(&[true, true], 10), &Tasks::new());
    two.write_all(&encode(&[Frame::Hello(hello)])).await.unwrap();
    let pinging = async {
        while two.write_all(&encode(&[Frame::Ping(1)])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (ended, ()) = within(async { tokio::join!(given, pinging) }).await;
    assert_eq!(ended.unwrap().unwrap().unwrap().ended, Ended::Idle);
}

#[tokio::test]
async fn hellos_that_are_none_are_refused() {
    let broken = within(against_asker(false, b"", |_| {})).await;
    assert!(matches!(broken, Err(Error::Broken(_))));
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"SSH-2.0-x\r\n", &encode(&[Frame::Ping(1)])] {
        let ended = within(against_asker(false, bytes, |_| {})).await;
        assert!(matches!(ended, Err(Error::Protocol(_))), "{ended:?}");
    }
    let strange = within(against_asker(false, &encode(&[Frame::Hello(ill_hello())]), |_| {})).await;
    assert_eq!(strange, Err(Error::Version { least: 3, most: 9 }));
    let giver = Hello { role: Role::Giver, least: VERSION, most: 9, ..ill_hello() };
    let giver = Hello { network: open().id, ..giver };
    let ended = within(against_asker(false, &encode(&[Frame::Hello(giver)]), |_| {})).await;
    assert!(matches!(ended, Err(Error::Protocol(_))), "{ended:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_neither_panics_nor_hangs_either_end(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        greet in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _ = within(against_asker(greet, &bytes, |_| {})).await;
            prop_assert!(wanting(&bytes).await.is_err());
            Ok(())
        })?;
    }

    #[test]
    fn garbage_in_frames_neither_panics_nor_hangs_either_end(
        kinds in prop::collection::vec(
            (prop::sample::select(frames::Kind::ALL), prop::collection::vec(0u8..3, 0..60)),
            1..8,
        )
    ) {
        let mut bytes = Vec::new();
        for (kind, fields) in kinds {
            bytes.extend_from_slice(&(1 + fields.len() as u32).to_le_bytes());
            bytes.push(kind as u8);
            bytes.extend_from_slice(&fields);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _ = within(against_asker(true, &bytes, |_| {})).await;
            let _ = wanting(&bytes).await;
        });
    }
}
