//! Those who ask for the same object are told of each other, where both ends speak of it.

use std::net::IpAddr;

use super::*;
use crate::peer::CardSigner;
use crate::session::frames::{Ask, CROWDS, Frame, Hello, MAX_FELLOWS, Role};
use crate::session::hello;
use crate::session::io::{FrameReader, FrameWriter, split};

/// Where askers are seen.
const SEEN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Two peers, of which the one that asks has a card by `signer`; `None`: by itself.
fn ends(signer: Option<Keypair>) -> Ends {
    let mut ends = Ends::new(&open());
    let key = Keypair::generate_ed25519();
    let me = key.public().to_peer_id();
    (ends.ask.me, ends.giver.peer, ends.giver.remote) = (me, me, Some(SEEN));
    let at = ["0.0.0.0:9000".parse().unwrap()];
    ends.ask.card = CardSigner::new(signer.unwrap_or(key), "casd", &at);
    ends
}

fn fellow(number: u8) -> Rumour {
    Rumour::Fellow(Fellow { seen: Some(SEEN), card: Bytes::from(vec![number; 9]) })
}

/// What a shelf tells its next subscriber of chunks and of others.
fn told_by(shelf: &Shelf) -> (mpsc::Sender<u64>, mpsc::Sender<Rumour>) {
    let (tell, updates) = mpsc::channel(10);
    let (spread, rumours) = mpsc::channel(100);
    *shelf.news.lock().unwrap() = Some(Subscription { snapshot: Snapshot::Whole, updates });
    *shelf.rumours.lock().unwrap() = Some(rumours);
    (tell, spread)
}

#[tokio::test]
async fn who_asks_shows_its_card_and_hears_of_others_and_of_what_they_are_given() {
    let shelf = Shelf::new(&[true, true], 10);
    let (tell, spread) = told_by(&shelf);
    for number in 0..=MAX_FELLOWS {
        spread.send(fellow(number as u8)).await.unwrap();
        spread.send(Rumour::Given(number as u64)).await.unwrap();
    }
    let ends = ends(None);
    let me = ends.ask.me;
    let (asker, _given, _tasks) = ends.join(&shelf).await;
    within(async {
        let mut haves = asker.join(shelf.object()).await.unwrap();
        assert_eq!(haves.news().await, Some(News::Have(Have::Whole)));
        let (mut peers, mut given) = (Vec::new(), Vec::new());
        while peers.len() + given.len() < 2 * (MAX_FELLOWS + 1) {
            match haves.news().await.unwrap() {
                News::Peers(some) => peers.extend(some),
                News::Given(some) => given.extend(some),
                News::Have(have) => panic!("{have:?}"),
            }
        }
        let told = |fellow: &Fellow| (fellow.seen, fellow.card[0] as usize);
        assert!(peers.iter().map(told).eq((0..=MAX_FELLOWS).map(|number| (Some(SEEN), number))));
        assert!(given.into_iter().eq(0..=MAX_FELLOWS as u64));
        // That there is no more of others ends nothing.
        drop(spread);
        tell.send(1).await.unwrap();
        assert_eq!(haves.next().await, Some(Have::Chunks(vec![1])));
        let callers = std::mem::take(&mut *shelf.callers.lock().unwrap());
        let [Caller { peer, remote, card: Some(card) }] = callers.as_slice() else { panic!("{callers:?}") };
        assert_eq!((*peer, *remote, card.peer()), (me, Some(SEEN), me));
        assert_eq!(card.sockets(*remote), ["192.0.2.1:9000".parse().unwrap()]);
    })
    .await;
}

#[tokio::test]
async fn a_card_of_somebody_else_is_nobodys() {
    let shelf = Shelf::new(&[true, true], 10);
    let _told = told_by(&shelf);
    let (asker, _given, _tasks) = ends(Some(Keypair::generate_ed25519())).join(&shelf).await;
    within(async {
        let mut haves = asker.join(shelf.object()).await.unwrap();
        assert_eq!(haves.next().await, Some(Have::Whole));
        until(|| !shelf.callers.lock().unwrap().is_empty()).await;
        assert!(shelf.callers.lock().unwrap().iter().all(|caller| caller.card.is_none()));
    })
    .await;
}

#[tokio::test]
async fn a_card_is_for_the_subscription_that_comes_next_and_for_no_other() {
    let shelf = Shelf::new(&[true, true], 10);
    let (asker, _given, _tasks) = ends(None).join(&shelf).await;
    within(async {
        let (mut open, object) = (Vec::new(), shelf.object());
        for joins in [false, true, false] {
            let told = told_by(&shelf);
            let haves = if joins { asker.join(object).await } else { asker.haves(object).await };
            open.push((haves.unwrap(), told));
            until(|| shelf.callers.lock().unwrap().len() == open.len()).await;
        }
        let callers = std::mem::take(&mut *shelf.callers.lock().unwrap());
        let shown: Vec<bool> = callers.iter().map(|caller| caller.card.is_some()).collect();
        assert_eq!(shown, [false, true, false]);
    })
    .await;
}

/// The other end of a stream, and the hello of an end that speaks the first version only.
fn of_old(stream: DuplexStream, options: &Options, role: Role) -> (FrameReader, FrameWriter, Frame) {
    let (_, reader, writer) = split(Box::new(stream));
    let ends = hello::Ends { asker: &options.me, giver: &options.me, binding: &[7; 32] };
    let (requests, bytes) = if role == Role::Giver { (64, 64 << 20) } else { (0, 0) };
    let hello = options.network.hello(role, &ends, requests, bytes);
    (reader, writer, Frame::Hello(Hello { most: CROWDS - 1, ..hello }))
}

async fn say(writer: &mut FrameWriter, frame: &Frame) {
    writer.gather(frame);
    writer.send().await.unwrap();
    writer.flush().await.unwrap();
}

#[tokio::test]
async fn an_asker_of_the_first_version_is_told_of_chunks_only() {
    let shelf = Shelf::new(&[true, true], 10);
    let (tell, spread) = told_by(&shelf);
    spread.send(fellow(1)).await.unwrap();
    let mut ends = ends(None);
    let (one, two) = tokio::io::duplex(1 << 16);
    ends.giver.stream = Box::new(one);
    let (mut reader, mut writer, hello) = of_old(two, &ends.ask, Role::Asker);
    let tasks = Tasks::new();
    let given = serve(ends.giver, ends.give, &shelf, &tasks);
    within(async {
        say(&mut writer, &hello).await;
        say(&mut writer, &Frame::Ask(0, Ask::Haves(shelf.object()))).await;
        tell.send(1).await.unwrap();
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(reader.frame().await.unwrap().unwrap());
        }
        let chunks = [Frame::Have(0, Have::Whole), Frame::Have(0, Have::Chunks(vec![1]))];
        assert!(matches!(heard[0], Frame::Hello(_)) && heard[1..] == chunks, "{heard:?}");
        assert!(shelf.callers.lock().unwrap().is_empty());
        // Nor does it speak of it.
        say(&mut writer, &Frame::Card(Bytes::from_static(b"?"))).await;
        assert!(matches!(given.await.unwrap().unwrap(), Err(Error::Protocol(_))));
    })
    .await;
}

#[tokio::test]
async fn a_giver_of_the_first_version_is_shown_no_card_and_tells_of_nobody() {
    let mut ends = ends(None);
    let (one, two) = tokio::io::duplex(1 << 16);
    ends.asker.stream = Box::new(one);
    let (mut reader, mut writer, hello) = of_old(two, &ends.give, Role::Giver);
    let tasks = Tasks::new();
    within(async {
        say(&mut writer, &hello).await;
        let asker = Asker::open(ends.asker, &ends.ask, &tasks).await.unwrap();
        let object = ObjectId::from_bytes([1; 32]);
        let _haves = asker.join(object).await.unwrap();
        let heard = [reader.frame().await.unwrap().unwrap(), reader.frame().await.unwrap().unwrap()];
        assert!(matches!(&heard, [Frame::Hello(_), Frame::Ask(0, Ask::Haves(_))]), "{heard:?}");
        say(&mut writer, &Frame::Given(0, vec![1])).await;
        assert!(matches!(asker.closed().await, Error::Protocol(_)));
    })
    .await;
}
