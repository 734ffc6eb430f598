//! The codecs of our protocols under what hostile peers write: too much, too little, nonsense, and what never ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::AsyncRead;
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use crate::content::{Description, ObjectId, SignedDescription};
use crate::dht::about::Describing;
use crate::dht::batch::{Announcing, Answer, Draft, Refusal, Taken};
use crate::dht::catalogue::{Listing, Question};
use crate::dht::codec::{Exchange, Whole, is_malformed};
use crate::dht::find::Finding;
use crate::dht::hello::{Greeting, Hello};
use crate::dht::introducing::Introducing;
use crate::dht::reading::Reading;
use crate::peer::{Key, Keypair, PeerId};

/// What stands for the network's name.
const NETWORK: [u8; 32] = [1; 32];

/// A stream that never ends, and counts what was taken from it.
struct Endless(usize);

impl AsyncRead for Endless {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        into.fill(1);
        self.0 += into.len();
        Poll::Ready(Ok(into.len()))
    }
}

fn protocol() -> StreamProtocol {
    StreamProtocol::new("/x")
}

fn announcing() -> Announcing {
    Announcing { network: "test".into(), local: PeerId::random() }
}

/// Two descriptions, as they are told.
fn told() -> Vec<u8> {
    let (object, key) = (ObjectId::from_bytes([7; 32]), Keypair::generate_ed25519());
    let say = |name: &str| {
        let said = Description {
            object,
            is_directory: false,
            length: 1,
            parity: None,
            name: name.to_owned(),
            time: 1,
        };
        let said = SignedDescription::sign(said, &NETWORK, &key).unwrap().encode();
        [&u16::try_from(said.len()).unwrap().to_le_bytes(), &said[..]].concat()
    };
    [say("a"), say("another")].concat()
}

/// What never ends is read to its limit and no further, and is its writer's fault.
async fn is_cut_off<E: Exchange + Sync>(exchange: E) {
    let mut whole = Whole::new(exchange, &Reading::default());
    let mut endless = Endless(0);
    // The reader of it is told, and whose it is.
    let read = whole.read_request(&protocol(), &mut endless).await.unwrap();
    assert!(read.is_err() && endless.0 <= E::MAX_REQUEST + 1, "{} bytes", endless.0);
    let mut endless = Endless(0);
    let refused = whole.read_response(&protocol(), &mut endless).await.map(drop).unwrap_err();
    assert!(is_malformed(&refused) && endless.0 <= E::MAX_RESPONSE + 1, "{refused}: {} bytes", endless.0);
}

#[tokio::test]
async fn what_never_ends_is_read_to_its_limit() {
    is_cut_off(Greeting).await;
    is_cut_off(Finding).await;
    is_cut_off(Introducing).await;
    is_cut_off(announcing()).await;
    is_cut_off(Describing { network: NETWORK }).await;
    is_cut_off(Listing { network: NETWORK }).await;
}

#[test]
fn every_beginning_of_a_message_is_cut_short_and_every_tail_too_much() {
    /// Neither less nor more than `whole` is read by `decode`.
    fn only<T>(whole: &[u8], decode: impl Fn(&[u8]) -> io::Result<T>) {
        assert!(decode(whole).is_ok());
        for length in 0..whole.len() {
            // Half a message may be the network's fault.
            let cut = decode(&whole[..length]).err().unwrap();
            assert!(!is_malformed(&cut), "{length} of {}: {cut}", whole.len());
        }
        let long = decode(&[whole, &[0]].concat()).err().unwrap();
        assert!(is_malformed(&long), "{long}");
    }
    let hello =
        Hello::to(&["127.0.0.1:9000".parse().unwrap(), "[::1]:9".parse().unwrap()], true, "::1".parse().ok());
    only(&Greeting.encode_request(hello), |bytes| Greeting.decode_request(bytes));
    only(&Finding.encode_request([7; 32]), |bytes| Finding.decode_request(bytes));
    let at = ["/ip4/203.0.113.1/tcp/8468", "/ip6/::1/udp/1/quic-v1"].map(|at| at.parse().unwrap()).to_vec();
    let holders = vec![(PeerId::random(), at), (PeerId::random(), Vec::new())];
    only(&Finding.encode_response(holders.clone()), |bytes| Finding.decode_response(bytes));
    only(&Introducing.encode_request(()), |bytes| Introducing.decode_request(bytes));
    only(&Introducing.encode_response(holders), |bytes| Introducing.decode_response(bytes));
    let taken = Taken { lifetime: Duration::from_secs(9), taken: vec![true; 9], ..Taken::default() };
    let announcing = announcing();
    for answer in [Answer::Taken(taken), Answer::Refused(Refusal::Sequence, 7)] {
        only(&announcing.encode_response(answer), |bytes| announcing.decode_response(bytes));
    }
    let (describing, listing) = (Describing { network: NETWORK }, Listing { network: NETWORK });
    only(&describing.encode_request([7; 32]), |bytes| describing.decode_request(bytes));
    let question = Question { after: Some([7; 32]), text: "x".to_owned() };
    only(&listing.encode_request(question), |bytes| listing.decode_request(bytes));
    only(&[&[1, 2][..], &told()[..]].concat(), |bytes| describing.decode_response(bytes));
    only(&[&[1, 2][..], &[7; 32], &[2], &told()[..]].concat(), |bytes| listing.decode_response(bytes));
    only(&[1, 0], |bytes| listing.decode_response(bytes));
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let (keypair, announcing) = (Keypair::generate_ed25519(), announcing());
    let (receiver, lifetime) = (announcing.local, Duration::from_secs(9));
    let keys: Vec<Key> = (0..9).map(|number| [number; 32]).collect();
    let draft = Draft {
        receiver,
        sequence: 1,
        lifetime,
        keys: keys.clone(),
        removals: keys,
        descriptions: Vec::new(),
    };
    let whole = draft.sign("test", &keypair, &[]).unwrap();
    let is_taken = |bytes: &[u8]| {
        matches!(announcing.decode_request(bytes), Ok(crate::dht::batch::Request::Incoming(Ok(_))))
    };
    assert!(is_taken(&whole));
    assert!((0..whole.len()).all(|length| !is_taken(&whole[..length])));
    assert!(!is_taken(&[&whole[..], &[0]].concat()));
}

proptest! {
    #[test]
    fn answers_are_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..80), head in 0u8..8) {
        let announcing = announcing();
        for bytes in [bytes.clone(), [&[1, head], &bytes[..]].concat()] {
            if let Ok(answer) = announcing.decode_response(&bytes) {
                prop_assert_eq!(announcing.encode_response(answer), bytes);
            }
        }
    }

    #[test]
    fn no_message_is_longer_than_its_limit(keys in 0usize..=4096, holders in 0usize..100) {
        let announcing = announcing();
        let taken = Taken { taken: vec![true; keys], ..Taken::default() };
        prop_assert!(announcing.encode_response(Answer::Taken(taken)).len() <= Announcing::MAX_RESPONSE);
        let long: crate::peer::Multiaddr = format!("/dns4/{}/tcp/8468", "x".repeat(110)).parse().unwrap();
        let holders = (0..holders).map(|_| (PeerId::random(), vec![long.clone(); 12])).collect::<Vec<_>>();
        prop_assert!(Finding.encode_response(holders).len() <= Finding::MAX_RESPONSE);
    }
}
