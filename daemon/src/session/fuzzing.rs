//! What must hold of any bytes that a peer sends in a session: of each frame, of a hello, and of all that an asker or a
//! giver says (see [`crate::fuzzing`]).

#[cfg(test)]
pub(crate) mod seeds;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::frames::{Ask, Frame, Hello, Kind, MAX_FELLOWS, MAX_GIVEN, MAX_NEWS, MAX_TEXT, Role, VERSION};
use super::{
    Answer, Asker, Caller, Ended, Error, Fellow, Giver, Have, Haves, Network, News, Options, Rumour,
    Snapshot, Subscription, Unproven,
};
use super::{codec, give, hello};
use crate::content::fuzzing::{MAKER, sample};
use crate::content::{
    CHUNK_LEN, CODEC_RS8, Chunk, ChunkRef, MAX_OBJECT, Manifest, ObjectId, ParityClaim, ParityPage,
    ParityPart,
};
use crate::peer::{Card, Conn, MAX_CARD, PeerId};
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// What the connections of all this are bound to.
const BINDING: [u8; 32] = [7; 32];

/// Credits that the giver grants: few, so that short inputs reach beyond them.
const REQUESTS: u32 = 4;
const BYTES: u32 = 2 << 20;

/// When the cards of the corpora were signed, and where it is said that their owner is seen.
const SIGNED: u64 = 1_800_000_000;
const SEEN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Runs sessions on the thread that calls, so that the memory they take is counted.
static RUNTIME: LazyLock<Option<Runtime>> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().ok());

/// A frame: its kind, and its fields; and as the beginning of a frame, what it says of its length.
pub(crate) fn frame(bytes: &[u8]) {
    if let Some(Ok((kind, length))) = bytes.first_chunk().map(|start| codec::head(*start)) {
        assert!(length <= kind.limit() && kind.limit() <= Kind::Slice.limit(), "{kind:?} of {length}");
    }
    let Some((code, fields)) = bytes.split_first() else { return };
    let Some(kind) = Kind::from_code(*code) else { return };
    let [a, b, c, d] = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let start = [a, b, c, d, *code];
    if fields.len() > kind.limit() {
        assert!(codec::head(start).is_err(), "{kind:?} of {} bytes is read", fields.len());
        return;
    }
    assert_eq!(codec::head(start), Ok((kind, fields.len())));
    let decode = |fields: &[u8]| Frame::decode(kind, Bytes::copy_from_slice(fields));
    let Ok(frame) = decode(fields) else { return };
    assert_eq!((frame.kind(), encode(&frame)), (kind, [&start, fields].concat()), "{frame:?}");
    is_in_limits(&frame);
    assert_ne!(decode(&[fields, &[0]].concat()).as_ref(), Ok(&frame), "it takes more");
    if let Some((_, short)) = fields.split_last() {
        assert_ne!(decode(short).as_ref(), Ok(&frame), "it needs less");
    }
}

fn encode(frame: &Frame) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.to_vec()
}

fn is_in_limits(frame: &Frame) {
    let most = MAX_OBJECT / CHUNK_LEN;
    match frame {
        Frame::Goodbye(reason, text) => {
            assert!(text.len() <= MAX_TEXT);
            // What is shown of it drives no terminal.
            assert!(!Error::goodbye(*reason, text).to_string().chars().any(char::is_control));
        }
        Frame::Ask(_, Ask::Chunk(chunk)) => assert!(chunk.is_valid()),
        Frame::Ask(_, Ask::Run { first, count, .. }) => {
            assert!(*count > 0 && u64::from(*first) + u64::from(*count) <= most);
        }
        Frame::Have(_, have) => {
            assert!(have.indexes().all(|index| index < most));
            assert!(!matches!(have, Have::Chunks(chunks) if chunks.len() > MAX_NEWS));
        }
        Frame::Given(_, chunks) => {
            assert!(chunks.iter().all(|index| *index < most) && (1..=MAX_GIVEN).contains(&chunks.len()));
        }
        Frame::Peers(_, fellows) => {
            assert!((1..=MAX_FELLOWS).contains(&fellows.len()));
            fellows.iter().for_each(|fellow| can_be_read(&fellow.card));
        }
        Frame::Card(card) => can_be_read(card),
        _ => {}
    }
}

/// A card is of its length, and tells of no more than it may.
fn can_be_read(card: &Bytes) {
    assert!((1..=MAX_CARD).contains(&card.len()));
    let [network, _] = networks();
    if let Some(card) = Card::check(card, &network.id(), SIGNED) {
        assert!(card.sockets(Some(SEEN)).iter().all(|at| at.port() != 0 && !at.ip().is_unspecified()));
    }
}

/// The fields of a hello, to nodes of a network that has a key and of one that has none.
pub(crate) fn hello(fields: &[u8]) {
    let Ok(Frame::Hello(said)) = Frame::decode(Kind::Hello, Bytes::copy_from_slice(fields)) else { return };
    let me = me();
    let ends = hello::Ends { asker: &me, giver: &me, binding: &BINDING };
    for network in networks() {
        for role in [Role::Asker, Role::Giver] {
            let ours = network.hello(role, &ends, 0, 0);
            let is_one_of_us = said.network == ours.network && said.proof == ours.proof;
            let speaks = said.least <= VERSION.min(said.most) && said.most >= 1;
            let admitted = network.admit(&said, role, &ends);
            assert_eq!(admitted.is_ok(), is_one_of_us && speaks && said.role == role, "{said:?}");
            // With the proof made to fit, and on another connection.
            let fits = Hello { proof: ours.proof, network: ours.network, ..said.clone() };
            assert_eq!(network.admit(&fits, role, &ends).is_ok(), speaks && said.role == role, "{fits:?}");
            let elsewhere = hello::Ends { binding: &[8; 32], ..ends };
            let passes = network.admit(&fits, role, &elsewhere).is_ok();
            assert!(!passes || ours.proof.is_none(), "a proof is of one connection");
        }
    }
}

fn networks() -> [Network; 2] {
    [Network::new("fuzz", None), Network::new("fuzz", Some([9; 32].into()))]
}

/// Whoever it is: one peer talks to itself.
fn me() -> PeerId {
    MAKER.public().to_peer_id()
}

fn options() -> Options {
    let [network, _] = networks();
    Options { requests: REQUESTS, bytes: BYTES, ..Options::new(me(), network, Pool::inline()) }
}

/// A connection on which the other end says this and closes. What is said to it goes nowhere.
fn conn(says: Vec<u8>) -> Conn {
    let stream = tokio::io::join(std::io::Cursor::new(says), tokio::io::sink());
    Conn { peer: me(), remote: None, stream: Box::new(stream), binding: BINDING }
}

/// The hello of an end, and what it says behind it.
fn behind_hello(role: Role, said: &[u8]) -> Vec<u8> {
    let (me, [network, _]) = (me(), networks());
    let ends = hello::Ends { asker: &me, giver: &me, binding: &BINDING };
    let (requests, bytes) = if role == Role::Giver { (16, 16 << 20) } else { (0, 0) };
    [encode(&Frame::Hello(network.hello(role, &ends, requests, bytes))), said.to_vec()].concat()
}

/// What an asker says behind its hello, to a giver that has nothing.
pub(crate) fn asks(said: &[u8]) {
    let says = behind_hello(Role::Asker, said);
    let Some(runtime) = &*RUNTIME else { return };
    let given =
        runtime.block_on(async { give(conn(says), &options(), Arc::new(Nothing), &Tasks::new()).await });
    match given {
        // Each request takes a frame, but for those of a run, which are within what is granted.
        Ok(summary) => {
            assert_eq!(summary.ended, Ended::ByAsker);
            assert!(summary.requests <= said.len() as u64 * u64::from(REQUESTS), "{summary:?}");
        }
        Err(error) => assert!(matches!(error, Error::Protocol(_) | Error::Broken(_)), "{error}"),
    }
}

/// Has nothing.
struct Nothing;

fn none<T: Send + 'static>() -> BoxFuture<'static, Answer<T>> {
    std::future::ready(Answer::NotFound).boxed()
}

impl Giver for Nothing {
    fn top(&self, _: PeerId, _: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        none()
    }

    fn page(&self, _: PeerId, _: ObjectId, _: u32) -> BoxFuture<'_, Answer<Bytes>> {
        none()
    }

    fn parity(&self, _: PeerId, _: ObjectId) -> BoxFuture<'_, Answer<Bytes>> {
        none()
    }

    fn parity_page(&self, _: PeerId, _: ObjectId, _: [u8; 32]) -> BoxFuture<'_, Answer<Bytes>> {
        none()
    }

    fn room(&self) -> Option<OwnedSemaphorePermit> {
        None
    }

    fn chunk(&self, _: PeerId, _: ChunkRef) -> BoxFuture<'_, Answer<Chunk>> {
        none()
    }

    fn resolve(&self, _: PeerId, _: ObjectId, _: u64) -> BoxFuture<'_, Option<ChunkRef>> {
        std::future::ready(None).boxed()
    }

    fn haves(&self, _: PeerId, _: ObjectId) -> BoxFuture<'_, Option<Subscription>> {
        let (_, updates) = mpsc::channel(1);
        let snapshot = Snapshot::Whole;
        std::future::ready(Some(Subscription { snapshot, updates })).boxed()
    }

    fn crowd(&self, caller: Caller, _: ObjectId) -> Option<mpsc::Receiver<Rumour>> {
        assert!(caller.card.is_none_or(|card| card.peer() == caller.peer), "a card of somebody else");
        let (to, rumours) = mpsc::channel(1);
        let fellow = Fellow { seen: caller.remote, card: Bytes::from_static(b"?") };
        to.try_send(Rumour::Fellow(fellow)).ok().map(|()| rumours)
    }

    fn pace(&self, _: PeerId, most: usize) -> BoxFuture<'_, usize> {
        std::future::ready(most).boxed()
    }
}

/// An object that is there but for most of its bytes, and its parity.
struct Truth {
    manifest: Manifest,
    /// Its third and last chunk, of 1,000 bytes.
    last: Chunk,
    part: ParityPart,
    parity: ParityPage,
}

impl Truth {
    fn new() -> Option<Self> {
        let (manifest, last) = sample()?;
        let (object, length) = (manifest.id(), manifest.length());
        let claim = ParityClaim { object, length, codec: CODEC_RS8, k: 16, m: 4, count: 1 };
        let (part, pages) = ParityPart::sign(claim, &[last.id()], &MAKER).ok()?;
        let parity = pages.into_iter().next()?;
        Some(Self { manifest, last, part, parity })
    }
}

/// What a giver says behind its hello, when everything is asked of it that there is to ask.
pub(crate) fn answers(said: &[u8]) {
    heard(said);
}

/// How many of the answers are true.
fn heard(said: &[u8]) -> usize {
    let (Some(runtime), Some(truth)) = (&*RUNTIME, Truth::new()) else { return 0 };
    runtime.block_on(async {
        let (tasks, options) = (Tasks::new(), options());
        let asker = Asker::open(conn(behind_hello(Role::Giver, said)), &options, &tasks).await;
        assert!(asker.is_ok(), "{asker:?}: its hello is good");
        let mut found = 0;
        if let Ok(asker) = asker {
            found = hear(&asker, &truth).await;
        }
        tasks.drain(options.hello).await;
        found
    })
}

/// Asks for everything, waits for the end, and looks at what came. Requests have the numbers 0 to 7, as they are made.
async fn hear(asker: &Asker, truth: &Truth) -> usize {
    let (object, last) = (truth.manifest.id(), truth.last.reference());
    // What is asked is asked as soon as it is looked at.
    let mut top = std::pin::pin!(asker.top(&object));
    let mut page = std::pin::pin!(asker.page(truth.manifest.top(), 0));
    let mut part = std::pin::pin!(asker.parity(&object));
    let mut parity = std::pin::pin!(asker.parity_page(&truth.part, 0));
    let mut whole = std::pin::pin!(asker.want(last));
    assert!(top.as_mut().now_or_never().is_none() && page.as_mut().now_or_never().is_none());
    assert!(part.as_mut().now_or_never().is_none() && parity.as_mut().now_or_never().is_none());
    assert!(whole.as_mut().now_or_never().is_none());
    let run = asker.want_run(object, 2, &[last]).now_or_never();
    let haves = asker.haves(object).now_or_never();
    {
        let taken_back = std::pin::pin!(asker.want(last));
        assert!(taken_back.now_or_never().is_none());
    }
    let error = asker.closed().await;
    let expected = matches!(error, Error::Protocol(_) | Error::Broken(_) | Error::Goodbye { .. });
    assert!(expected, "{error}");
    let mut found = vec![
        is_true(top.await, truth.manifest.top()),
        is_true(page.await, &truth.manifest.pages()[0]),
        is_true(part.await, &truth.part),
        is_true(parity.await, &truth.parity),
        is_chunk(whole.await, &truth.last),
    ];
    for want in run.into_iter().flatten().flatten() {
        found.push(is_chunk(want.await, &truth.last));
    }
    all_can_be(haves.and_then(Result::ok));
    found.into_iter().filter(|found| *found).count()
}

/// Whether a record came. It is the one that was asked for: whatever else is said in its place is a lie.
fn is_true<T: PartialEq + std::fmt::Debug>(answer: Result<Answer<T>, Error>, truth: &T) -> bool {
    let Ok(Answer::Found(found)) = answer else { return false };
    assert_eq!(&found, truth);
    true
}

/// Whether the bytes of a chunk came. What came is as long as what was asked for, and whatever proves it is it.
fn is_chunk(answer: Result<Answer<Unproven>, Error>, truth: &Chunk) -> bool {
    let Ok(Answer::Found(found)) = answer else { return false };
    assert_eq!(found.bytes.len(), truth.bytes().len());
    found.verify().is_ok_and(|chunk| {
        assert_eq!(&chunk, truth);
        true
    })
}

fn all_can_be(haves: Option<Haves>) {
    let Some(mut haves) = haves else { return };
    let can_be = |index: u64| index < MAX_OBJECT / CHUNK_LEN;
    while let Some(Some(news)) = haves.news().now_or_never() {
        match news {
            News::Have(have) => assert!(have.indexes().all(can_be)),
            News::Given(chunks) => assert!(chunks.into_iter().all(can_be)),
            News::Peers(fellows) => fellows.iter().for_each(|fellow| can_be_read(&fellow.card)),
        }
    }
}
