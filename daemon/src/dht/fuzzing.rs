//! What must hold of any bytes that a peer sends as a question or an answer of one of our protocols on the DHT plane
//! (see [`crate::fuzzing`]). Each target takes its input for a question, and for an answer.

#[cfg(test)]
pub(crate) mod seeds;

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use futures::FutureExt;
use futures::io::Cursor;
use libp2p::request_response::Codec;
use libp2p::{PeerId, StreamProtocol};

use super::about::Describing;
use super::batch::{self, Announcing, Batch, Draft, MAX_DESCRIPTIONS, MAX_KEYS, Refusal, Request};
use super::catalogue::Listing;
use super::codec::{Exchange, Whole, is_malformed};
use super::find::{Finding, Holders, weight};
use super::hello::{Greeting, Hello, MAX_ADDRESSES};
use super::introducing::Introducing;
use super::listen::ip_of;
use super::reach::Reach;
use super::reading::Reading;
use super::records::{MAX_ADDRESS, MAX_LIFETIME};
use crate::content::SignedDescription;
use crate::content::fuzzing::MAKER;
use crate::peer::{Scope, network_id};

/// The network of all this.
const NETWORK: &str = "fuzz";

/// Where who tells of itself is seen.
const SEEN: IpAddr = IpAddr::V4(Ipv4Addr::new(20, 0, 0, 1));

/// What is no longer than a message may be, and in its form, is in that form only as it is.
fn in_form<T>(bytes: &[u8], limit: usize, decode: impl Fn(&[u8]) -> std::io::Result<T>) {
    assert!(bytes.len() <= limit, "{} bytes are read where {limit} are too many", bytes.len());
    for end in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        // That may be its carrier's fault, and is nobody's lie.
        let short = decode(&bytes[..end]).err();
        assert!(short.is_some_and(|error| !is_malformed(&error)), "{end} of {} bytes", bytes.len());
    }
    let long = decode(&[bytes, &[0]].concat()).err();
    assert!(long.is_some_and(|error| is_malformed(&error)), "it takes a byte more");
}

/// The question that these bytes are, as it is read from a stream.
fn question<E: Exchange + Sync>(protocol: &E, bytes: &[u8]) -> Option<E::Request> {
    let (name, mut codec) = (StreamProtocol::new("/fuzz"), Whole::new(protocol.clone(), &Reading::default()));
    let read = codec.read_request(&name, &mut Cursor::new(bytes)).now_or_never();
    assert!(read.is_some(), "it waits for what has ended");
    let read = read?.ok()?.ok()?;
    in_form(bytes, E::MAX_REQUEST, |bytes| protocol.decode_request(bytes));
    Some(read)
}

/// The answer that these bytes are, as it is read from a stream.
fn answer<E: Exchange + Sync>(protocol: &E, bytes: &[u8]) -> Option<E::Response> {
    let (name, mut codec) = (StreamProtocol::new("/fuzz"), Whole::new(protocol.clone(), &Reading::default()));
    let read = codec.read_response(&name, &mut Cursor::new(bytes)).now_or_never();
    assert!(read.is_some(), "it waits for what has ended");
    let read = read?.ok()?;
    in_form(bytes, E::MAX_RESPONSE, |bytes| protocol.decode_response(bytes));
    Some(read)
}

/// A protocol in which a question and an answer that were read are written to the same bytes.
fn exchange<E: Exchange + Sync>(protocol: &E, bytes: &[u8]) {
    if let Some(read) = question(protocol, bytes) {
        assert_eq!(protocol.encode_request(read), bytes);
    }
    if let Some(read) = answer(protocol, bytes) {
        assert_eq!(protocol.encode_response(read), bytes);
    }
}

/// What a node tells of itself.
pub(crate) fn dht_hello(bytes: &[u8]) {
    exchange(&Greeting, bytes);
    let Some(Hello { serves, chunk }) = question(&Greeting, bytes) else { return };
    assert!(chunk.len() <= MAX_ADDRESSES);
    let (hello, reach) = (Hello { serves, chunk }, Reach::default());
    for at in hello.usable(Some(SEEN), &reach) {
        let ip = at.ip().to_canonical();
        assert!(Scope::of(ip) == Scope::Global && (at.port() >= 1024 || at.port() == 443), "{at}");
    }
    assert!(hello.usable(None, &reach).len() <= hello.chunk.len());
}

/// A batch and what is answered to it.
pub(crate) fn announce(bytes: &[u8]) {
    let protocol = announcing();
    for bytes in [bytes.to_vec(), signed(bytes)] {
        if let Some(Request::Incoming(Ok(said))) = question(&protocol, &bytes) {
            is_said(&said, &bytes);
        }
    }
    if let Some(read) = answer(&protocol, bytes) {
        assert_eq!(protocol.encode_response(read), bytes);
    }
}

fn announcing() -> Announcing {
    Announcing { network: NETWORK.into(), local: MAKER.public().to_peer_id() }
}

/// The bytes of a batch with the signature that they should have.
fn signed(bytes: &[u8]) -> Vec<u8> {
    let Some((body, _)) = bytes.split_last_chunk::<64>() else { return bytes.to_vec() };
    let signature = MAKER.sign(&batch::signed(NETWORK, body)).unwrap_or_default();
    [body, &signature].concat()
}

/// A batch that is believed is the only one that says so, and is of this network and this receiver only.
fn is_said(said: &Batch, bytes: &[u8]) {
    let me = MAKER.public().to_peer_id();
    assert!(said.keys.len() + said.removals.len() <= MAX_KEYS && said.descriptions.len() <= MAX_DESCRIPTIONS);
    assert!(!said.lifetime.is_zero() && said.lifetime <= MAX_LIFETIME);
    assert!(said.descriptions.iter().all(|said| said.publisher() == me));
    let ids = [me.to_bytes(), MAKER.public().encode_protobuf()].concat().len();
    let record = bytes.get(1 + 2 + ids + 8 + 4..).and_then(|rest| rest.split_first_chunk::<2>());
    let Some((length, rest)) = record else { return };
    let draft = Draft {
        receiver: me,
        sequence: said.sequence,
        lifetime: said.lifetime,
        keys: said.keys.clone(),
        removals: said.removals.clone(),
        descriptions: said.descriptions.iter().map(SignedDescription::encode).collect::<Vec<Bytes>>(),
    };
    let record = rest.get(..usize::from(u16::from_le_bytes(*length))).unwrap_or_default();
    assert_eq!(draft.sign(NETWORK, &MAKER, record).as_deref(), Ok(bytes), "it has another form");
    assert_eq!(said.announcer, me);
    let other = Announcing { network: "other".into(), ..announcing() };
    assert_eq!(refusal(&other, bytes), Some(Refusal::Signature));
    let other = Announcing { local: PeerId::random(), ..announcing() };
    assert_eq!(refusal(&other, bytes), Some(Refusal::Receiver));
}

fn refusal(protocol: &Announcing, bytes: &[u8]) -> Option<Refusal> {
    match protocol.decode_request(bytes) {
        Ok(Request::Incoming(read)) => read.err(),
        _ => None,
    }
}

/// Who holds a key.
pub(crate) fn find(bytes: &[u8]) {
    exchange(&Finding, bytes);
    if let Some(holders) = answer(&Finding, bytes) {
        are_peers(&holders, bytes);
    }
}

/// Who keeps records.
pub(crate) fn servers(bytes: &[u8]) {
    exchange(&Introducing, bytes);
    if let Some(servers) = answer(&Introducing, bytes) {
        are_peers(&servers, bytes);
    }
}

fn are_peers(peers: &Holders, bytes: &[u8]) {
    assert!(weight(peers) <= 64 * bytes.len());
    let reach = Reach::default();
    for (_, addresses) in peers {
        assert!(addresses.len() <= super::records::MAX_ADDRESSES);
        for at in addresses {
            assert!(at.len() <= MAX_ADDRESS);
            let ip = ip_of(at).map(|ip| ip.to_canonical());
            assert!(!reach.allows(at) || ip.is_none_or(|ip| Scope::of(ip) == Scope::Global), "{at}");
        }
    }
}

/// What is said of an object.
pub(crate) fn describe(bytes: &[u8]) {
    exchange(&Describing { network: network_id(NETWORK) }, bytes);
}

/// What a node publishes.
pub(crate) fn catalogue(bytes: &[u8]) {
    exchange(&Listing { network: network_id(NETWORK) }, bytes);
}
