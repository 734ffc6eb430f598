//! What fuzzing begins with: questions and answers as nodes write them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use libp2p::core::SignedEnvelope;
use libp2p::identity::{Keypair, ed25519};
use libp2p::{Multiaddr, PeerId};

use super::{MAKER, NETWORK, announcing, answer, question};
use crate::content::{Description, ObjectId, SignedDescription};
use crate::dht::about::{Describing, Said};
use crate::dht::batch::{Answer, Draft, Refusal, Request, Taken};
use crate::dht::catalogue::{Listing, Page, Question};
use crate::dht::codec::Exchange;
use crate::dht::find::{Finding, Holders};
use crate::dht::hello::{At, Greeting, Hello};
use crate::dht::introducing::Introducing;
use crate::fuzzing::tests::Seed;
use crate::peer::{Key, network_id};

/// For each target inputs that casd's own encoders write.
pub(crate) fn seeds() -> Vec<Seed> {
    [hellos(), batches(), holders(), servers(), descriptions(), lists()].concat()
}

fn hellos() -> Vec<Seed> {
    let at = |text: &str| At::Address(text.parse::<SocketAddr>().unwrap());
    let chunk = vec![At::Port(9000), at("192.0.2.1:9000"), at("[2001:db8::1]:9001"), at("127.0.0.1:9000")];
    let hello = Hello { serves: true, chunk };
    let client = Hello { serves: false, chunk: Vec::new() };
    vec![
        ("dht_hello", "a_node", Greeting.encode_request(hello)),
        ("dht_hello", "a_client", Greeting.encode_response(client)),
    ]
}

fn key(first: u8) -> Key {
    let mut key = [7; 32];
    key[0] = first;
    key
}

fn peer(number: u8) -> PeerId {
    let key = ed25519::SecretKey::try_from_bytes([number; 32]).map(ed25519::Keypair::from).unwrap();
    Keypair::from(key).public().to_peer_id()
}

fn said(first: u8, name: &str) -> SignedDescription {
    let (object, name) = (ObjectId::from_bytes(key(first)), name.to_owned());
    let said = Description { object, is_directory: first == 1, length: 5, parity: None, name, time: 1 };
    SignedDescription::sign(said, &network_id(NETWORK), &MAKER).unwrap()
}

fn batches() -> Vec<Seed> {
    let draft = Draft {
        receiver: announcing().local,
        sequence: 7,
        lifetime: Duration::from_secs(172_800),
        keys: vec![key(1), key(2), key(9)],
        removals: vec![key(3)],
        descriptions: vec![said(1, "music").encode(), said(9, "a file").encode()],
    };
    let removal = Draft { keys: Vec::new(), descriptions: Vec::new(), ..draft.clone() };
    let record = record();
    let taken = Taken {
        lifetime: Duration::from_secs(60),
        far: 1,
        full: 2,
        removed: 3,
        known: 4,
        described: 5,
        taken: vec![true, false, true, true, false, false, false, true, true],
    };
    let answer = |answer| announcing().encode_response(answer);
    vec![
        ("announce", "keys", draft.sign(NETWORK, &MAKER, &record).unwrap()),
        ("announce", "a_removal", removal.sign(NETWORK, &MAKER, &[]).unwrap()),
        ("announce", "taken", answer(Answer::Taken(taken))),
        ("announce", "refused", answer(Answer::Refused(Refusal::Sequence, 99))),
    ]
}

/// A signed peer record. What libp2p makes has the time in it, and would differ each time.
fn record() -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
    };
    let address = field(1, at("/ip4/20.0.0.1/tcp/8468").as_ref());
    let says = [&field(1, &MAKER.public().to_peer_id().to_bytes())[..], &[2 << 3, 5], &field(3, &address)];
    let domain = "libp2p-peer-record".to_owned();
    SignedEnvelope::new(&MAKER, domain, vec![3, 1], says.concat()).unwrap().into_protobuf_encoding()
}

fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn some() -> Holders {
    let far = vec![at("/ip4/20.0.0.1/udp/8468/quic-v1"), at("/ip6/2001:db8::1/tcp/8468")];
    let relayed = vec![at(&format!("/ip4/20.0.0.2/tcp/8468/p2p/{}/p2p-circuit", peer(1)))];
    let near = vec![at("/ip4/127.0.0.1/tcp/8468"), at("/dns4/casd.invalid/tcp/8468")];
    vec![(peer(2), far), (peer(3), relayed), (peer(4), near), (peer(5), Vec::new())]
}

fn holders() -> Vec<Seed> {
    vec![
        ("find", "a_key", Finding.encode_request(key(1))),
        ("find", "holders", Finding.encode_response(some())),
        ("find", "nobody", Finding.encode_response(Vec::new())),
    ]
}

fn servers() -> Vec<Seed> {
    vec![
        ("servers", "who", Introducing.encode_request(())),
        ("servers", "some", Introducing.encode_response(some())),
    ]
}

fn descriptions() -> Vec<Seed> {
    let protocol = Describing { network: network_id(NETWORK) };
    let told: Vec<Bytes> = vec![said(1, "music").encode(), said(1, "\u{e9}t\u{e9}").encode()];
    vec![
        ("describe", "a_key", protocol.encode_request(key(1))),
        ("describe", "names", protocol.encode_response(Said::Kept(told))),
        ("describe", "nothing", protocol.encode_response(Said::Kept(Vec::new()))),
    ]
}

fn lists() -> Vec<Seed> {
    let protocol = Listing { network: network_id(NETWORK) };
    let page = |next| {
        let said = Said::Kept(vec![said(1, "music").encode(), said(2, "more").encode()]);
        protocol.encode_response(Some(Page { said, next }))
    };
    let ask = |after, text: &str| protocol.encode_request(Question { after, text: text.to_owned() });
    vec![
        ("catalogue", "all", ask(None, "")),
        ("catalogue", "more", ask(Some(key(2)), "\u{e9}t\u{e9}")),
        ("catalogue", "later", protocol.encode_response(None)),
        ("catalogue", "a_page", page(Some(key(2)))),
        ("catalogue", "the_last_page", page(None)),
    ]
}

#[test]
fn what_nodes_write_is_read() {
    fn reads<E: Exchange + Sync>(protocol: &E, bytes: &[u8]) -> bool {
        question(protocol, bytes).is_some() || answer(protocol, bytes).is_some()
    }
    let network = network_id(NETWORK);
    for (target, name, bytes) in seeds() {
        let is_read = match target {
            "dht_hello" => reads(&Greeting, &bytes),
            "announce" => {
                matches!(question(&announcing(), &bytes), Some(Request::Incoming(Ok(_))))
                    || answer(&announcing(), &bytes).is_some()
            }
            "find" => reads(&Finding, &bytes),
            "servers" => reads(&Introducing, &bytes),
            "describe" => reads(&Describing { network }, &bytes),
            _ => reads(&Listing { network }, &bytes),
        };
        assert!(is_read, "{target}: {name}");
    }
}

/// Protobuf has many forms of one key; one of them counts.
#[test]
fn a_key_in_another_form_is_refused() {
    let [(_, _, batch), ..] = <[Seed; 4]>::try_from(batches()).unwrap();
    let at = 2 + announcing().local.to_bytes().len();
    let length = usize::from(batch[at]);
    let body = &batch[..batch.len() - 64];
    // The same fields, and one that nobody knows.
    let longer =
        [&body[..at], &[batch[at] + 2], &body[at + 1..=at + length], &[0x18, 1], &body[at + 1 + length..]];
    let longer = super::signed(&[&longer.concat()[..], &[0; 64]].concat());
    assert!(libp2p::identity::PublicKey::try_decode_protobuf(&longer[at + 1..at + 3 + length]).is_ok());
    assert!(announcing().decode_request(&longer).is_err());
}
