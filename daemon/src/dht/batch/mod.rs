//! Announcement batches: many keys in one signed message.
//!
//! Owns: the format and its proof. A [`Batch`] exists only when its signature holds, its receiver is this
//! node and its keys are in order; the check runs where the message is read, off the event loop.
//! Refuses: everything that is not canonical, and descriptions of what is not among the keys or in another's word.
//! Survives a crash: nothing.
//!
//! Protocol `/casd/<network>/announce/1`, little-endian. The question:
//!
//! ```text
//! size  field
//! 1     version: 1
//! 1+n   the receiver's peer id, preceded by its length (at most 64)
//! 1+n   the announcer's public key, libp2p's protobuf form (Ed25519), preceded by its length (at most 64)
//! 8     sequence: no number of this announcer counts twice at a receiver
//! 4     expiry: seconds from receipt, 1 to 172,800, so that clocks need not agree
//! 2+n   the announcer's signed peer record (its addresses), preceded by its length (at most 4,096; 0: none)
//! 4     number of keys
//! 4     number of removals; keys and removals are at most 4,096 together
//! 2     number of descriptions, at most 160
//! 32 each  keys, ascending, none twice
//! 32 each  removals, ascending, none twice
//! 2+n each descriptions of some of the keys, ascending by key, none twice, each signed by the announcer (see
//!       `content/metadata.rs`) and preceded by its length (at most 404)
//! 64    Ed25519 signature over "casd announce 1", a zero byte, the length (one byte) and name of the
//!       network, and all of the above
//! ```
//!
//! A batch says all of its keys: one that comes without a description has none any more.
//!
//! The answer: version 1; outcome (0 = taken, else a [`Refusal`]); then, taken: expiry granted (4), keys far
//! (4), keys full (4), removed (4), taken that were known (4), descriptions kept (4), number of keys (2), a bit for
//! each key in order, set when it was taken, in whole bytes, lowest bit first; refused: the highest sequence seen, or 0
//! (8).

mod answer;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libp2p::core::{PeerRecord, SignedEnvelope};
use libp2p::identity::{Keypair, PublicKey};
use libp2p::{Multiaddr, PeerId};

pub(in crate::dht) use self::answer::{Answer, Refusal, Taken};

use crate::content::{MAX_DESCRIPTION, SignedDescription};
use crate::dht::Key;
use crate::dht::codec::{Exchange, Reader, cut_short, malformed};
use crate::dht::records::MAX_LIFETIME;
use crate::peer::network_id;

/// Keys and removals of one message: 128 KiB.
pub(in crate::dht) const MAX_KEYS: usize = 4_096;
/// Descriptions of one message: 64 KiB.
pub(in crate::dht) const MAX_DESCRIPTIONS: usize = 160;
const MAX_ID: usize = 64;
const MAX_RECORD: usize = 4_096;
const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"casd announce 1\0";
const SIGNATURE: usize = 64;

/// What an announcer says to one receiver.
#[derive(Clone, Debug)]
pub(in crate::dht) struct Draft {
    /// Whom it is for.
    pub(in crate::dht) receiver: PeerId,
    /// Its number.
    pub(in crate::dht) sequence: u64,
    /// How long the keys shall be kept.
    pub(in crate::dht) lifetime: Duration,
    /// Keys held, ascending.
    pub(in crate::dht) keys: Vec<Key>,
    /// Keys held no longer, ascending.
    pub(in crate::dht) removals: Vec<Key>,
    /// What is said of some of the keys, signed by the announcer, in their order.
    pub(in crate::dht) descriptions: Vec<Bytes>,
}

/// A batch that is proved to come from its announcer and to be meant for this node.
#[derive(Debug)]
pub(in crate::dht) struct Batch {
    /// Who announces.
    pub(in crate::dht) announcer: PeerId,
    /// Its number.
    pub(in crate::dht) sequence: u64,
    /// How long the keys are to be kept.
    pub(in crate::dht) lifetime: Duration,
    /// Where the announcer is, signed by it; empty when it does not say.
    pub(in crate::dht) addresses: Vec<Multiaddr>,
    /// Keys held.
    pub(in crate::dht) keys: Vec<Key>,
    /// Keys held no longer.
    pub(in crate::dht) removals: Vec<Key>,
    /// What the announcer says of some of the keys; when it said so is not judged yet.
    pub(in crate::dht) descriptions: Vec<SignedDescription>,
}

/// A question on its way.
#[derive(Debug)]
pub(in crate::dht) enum Request {
    /// To another node, signed and encoded.
    Outgoing(Vec<u8>),
    /// From another node, proved or refused.
    Incoming(Result<Batch, Refusal>),
}

/// The protocol.
#[derive(Clone, Debug)]
pub(in crate::dht) struct Announcing {
    /// The network, part of what is signed.
    pub(in crate::dht) network: Arc<str>,
    /// This node: batches must name it.
    pub(in crate::dht) local: PeerId,
}

// === impl Draft ===

impl Draft {
    /// Signs and encodes. `record` is the announcer's signed peer record, as [`peer_record`] makes it.
    pub(in crate::dht) fn sign(
        &self,
        network: &str,
        keypair: &Keypair,
        record: &[u8],
    ) -> Result<Vec<u8>, String> {
        let keys = self.keys.len() + self.removals.len();
        if keys > MAX_KEYS || record.len() > MAX_RECORD || self.descriptions.len() > MAX_DESCRIPTIONS {
            return Err(format!(
                "a batch of {keys} keys, {} descriptions and {} bytes of addresses is too large",
                self.descriptions.len(),
                record.len()
            ));
        }
        let mut bytes = Vec::with_capacity(512 + record.len() + 32 * keys);
        bytes.push(VERSION);
        push_short(&mut bytes, &self.receiver.to_bytes());
        push_short(&mut bytes, &keypair.public().encode_protobuf());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(seconds(self.lifetime).to_le_bytes());
        bytes.extend(u16::try_from(record.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(record);
        bytes.extend(u32::try_from(self.keys.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(u32::try_from(self.removals.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(u16::try_from(self.descriptions.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(self.keys.as_flattened());
        bytes.extend(self.removals.as_flattened());
        self.descriptions.iter().for_each(|said| push_description(&mut bytes, said));
        let signature = keypair.sign(&signed(network, &bytes)).map_err(|error| error.to_string())?;
        bytes.extend(signature);
        Ok(bytes)
    }
}

/// The signed peer record that goes into batches: where this node is. Empty when it would be too large.
pub(in crate::dht) fn peer_record(keypair: &Keypair, addresses: Vec<Multiaddr>) -> Vec<u8> {
    let record = PeerRecord::new_interop(keypair, addresses).ok();
    let bytes = record.map(|record| record.into_signed_envelope().into_protobuf_encoding());
    bytes.filter(|bytes| bytes.len() <= MAX_RECORD).unwrap_or_default()
}

// === impl Announcing ===

impl Announcing {
    /// Reads and proves a batch. An error means that it is not in the form; a refusal is answered.
    fn read(&self, bytes: &[u8]) -> io::Result<Result<Batch, Refusal>> {
        if bytes.first().is_some_and(|version| *version != VERSION) {
            return Err(malformed("a batch of another version"));
        }
        let (body, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or_else(cut_short)?;
        let mut reader = Reader::new(body);
        reader.u8()?;
        let receiver = short(&mut reader)?;
        let encoded = short(&mut reader)?;
        let key = PublicKey::try_decode_protobuf(encoded).ok().filter(|key| key.encode_protobuf() == encoded);
        let key = key.ok_or_else(|| malformed("a batch without its announcer's key"))?;
        let sequence = reader.u64()?;
        let lifetime = Duration::from_secs(u64::from(reader.u32()?));
        let record_length = usize::from(reader.u16()?);
        if record_length > MAX_RECORD || lifetime.is_zero() || lifetime > MAX_LIFETIME {
            return Err(malformed("a batch with an impossible expiry or peer record"));
        }
        let record = reader.bytes(record_length)?;
        let (keys, removals) = (length(reader.u32()?), length(reader.u32()?));
        if keys.saturating_add(removals) > MAX_KEYS {
            return Err(malformed("a batch of more than 4,096 keys"));
        }
        let descriptions = usize::from(reader.u16()?);
        if descriptions > MAX_DESCRIPTIONS {
            return Err(malformed("a batch of more than 160 descriptions"));
        }
        let (keys, removals) = (ascending(&mut reader, keys)?, ascending(&mut reader, removals)?);
        let said =
            (0..descriptions).map(|_| take_description(&mut reader)).collect::<io::Result<Vec<_>>>()?;
        reader.end()?;
        if receiver != self.local.to_bytes() {
            return Ok(Err(Refusal::Receiver));
        }
        if !key.verify(&signed(&self.network, body), signature) {
            return Ok(Err(Refusal::Signature));
        }
        let announcer = key.to_peer_id();
        let Some(addresses) = located(record, announcer) else { return Ok(Err(Refusal::Signature)) };
        let Some(descriptions) = self.described(&said, &keys, announcer) else {
            return Ok(Err(Refusal::Metadata));
        };
        Ok(Ok(Batch { announcer, sequence, lifetime, addresses, keys, removals, descriptions }))
    }

    /// The descriptions, when they are the announcer's, of keys of the batch, and in their order.
    fn described(&self, said: &[&[u8]], keys: &[Key], announcer: PeerId) -> Option<Vec<SignedDescription>> {
        let network = network_id(&self.network);
        let read = |bytes: &&[u8]| SignedDescription::check(bytes, &network).ok();
        let described = said.iter().map(read).collect::<Option<Vec<_>>>()?;
        let object = |said: &SignedDescription| said.description().object;
        let is_own = |said: &SignedDescription| {
            said.publisher() == announcer && keys.binary_search(object(said).as_bytes()).is_ok()
        };
        let is_in_order = described.is_sorted_by(|a, b| object(a).as_bytes() < object(b).as_bytes());
        (is_in_order && described.iter().all(is_own)).then_some(described)
    }
}

impl Exchange for Announcing {
    type Request = Request;
    type Response = Answer;
    /// Keys, the peer record and descriptions.
    const MAX_REQUEST: usize = 1_024 + MAX_RECORD + 32 * MAX_KEYS + MAX_DESCRIPTIONS * (2 + MAX_DESCRIPTION);
    const MAX_RESPONSE: usize = 2 + 6 * 4 + 2 + MAX_KEYS / 8;

    fn proofs(&self, bytes: &[u8]) -> usize {
        // What is in no form is told when it is read.
        signatures(bytes).unwrap_or(0)
    }

    fn decode_request(&self, bytes: &[u8]) -> io::Result<Request> {
        self.read(bytes).map(Request::Incoming)
    }

    fn decode_response(&self, bytes: &[u8]) -> io::Result<Answer> {
        Answer::decode(bytes)
    }

    fn encode_request(&self, request: Request) -> Vec<u8> {
        match request {
            Request::Outgoing(bytes) => bytes,
            // Never sent: only the reader makes it.
            Request::Incoming(_) => Vec::new(),
        }
    }

    fn encode_response(&self, response: Answer) -> Vec<u8> {
        response.encode()
    }
}

// === the encoding ===

/// What is signed of a batch.
pub(in crate::dht) fn signed(network: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DOMAIN.len() + 1 + network.len() + body.len());
    bytes.extend(DOMAIN);
    push_short(&mut bytes, network.as_bytes());
    bytes.extend(body);
    bytes
}

fn push_short(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.push(u8::try_from(field.len()).unwrap_or(u8::MAX));
    bytes.extend(field);
}

fn short<'a>(reader: &mut Reader<'a>) -> io::Result<&'a [u8]> {
    let length = usize::from(reader.u8()?);
    if length > MAX_ID { Err(malformed("an id that is too long")) } else { reader.bytes(length) }
}

fn length(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn ascending(reader: &mut Reader<'_>, count: usize) -> io::Result<Vec<Key>> {
    let (keys, _) = reader.bytes(32 * count)?.as_chunks::<32>();
    if keys.is_sorted_by(|a, b| a < b) { Ok(keys.to_vec()) } else { Err(malformed("keys out of order")) }
}

/// How many signatures a batch says that it has: its own, its peer record's and its descriptions'.
fn signatures(bytes: &[u8]) -> io::Result<usize> {
    let mut reader = Reader::new(bytes);
    reader.u8()?;
    short(&mut reader)?;
    short(&mut reader)?;
    reader.bytes(8 + 4)?;
    let record = usize::from(reader.u16()?);
    reader.bytes(record + 4 + 4)?;
    Ok(1 + usize::from(record > 0) + usize::from(reader.u16()?).min(MAX_DESCRIPTIONS))
}

/// A description behind its length, as batches and answers have it.
pub(in crate::dht) fn push_description(bytes: &mut Vec<u8>, said: &[u8]) {
    bytes.extend(u16::try_from(said.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(said);
}

/// The bytes of a description behind their length; not looked at yet.
pub(in crate::dht) fn take_description<'a>(reader: &mut Reader<'a>) -> io::Result<&'a [u8]> {
    let length = usize::from(reader.u16()?);
    if length > MAX_DESCRIPTION {
        Err(malformed("a description that is too long"))
    } else {
        reader.bytes(length)
    }
}

/// The addresses of a signed peer record; `None` when it is not signed by `peer`.
fn located(record: &[u8], peer: PeerId) -> Option<Vec<Multiaddr>> {
    if record.is_empty() {
        return Some(Vec::new());
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(record).ok()?;
    let record = PeerRecord::from_signed_envelope_interop(envelope).ok()?;
    (record.peer_id() == peer).then(|| record.addresses().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Description, ObjectId};
    use proptest::prelude::{any, prop_assert, proptest};

    fn keys(count: u16) -> Vec<Key> {
        (0..count)
            .map(|n| {
                let mut key = [0; 32];
                key[..2].copy_from_slice(&n.to_be_bytes());
                key
            })
            .collect()
    }

    fn setup() -> (Keypair, Announcing, Draft) {
        let (announcer, receiver) = (Keypair::generate_ed25519(), PeerId::random());
        let protocol = Announcing { network: "test".into(), local: receiver };
        let lifetime = Duration::from_secs(60);
        let (keys, removals, descriptions) = (keys(100), keys(3), Vec::new());
        let draft = Draft { receiver, sequence: 7, lifetime, keys, removals, descriptions };
        (announcer, protocol, draft)
    }

    #[test]
    fn a_signed_batch_is_read_as_it_was_written() {
        let (announcer, protocol, draft) = setup();
        let at: Multiaddr = "/ip4/192.0.2.1/tcp/8468".parse().unwrap();
        let bytes = draft.sign("test", &announcer, &peer_record(&announcer, vec![at.clone()])).unwrap();
        let batch = protocol.read(&bytes).unwrap().unwrap();
        assert_eq!((batch.announcer, batch.sequence), (announcer.public().to_peer_id(), 7));
        assert_eq!((batch.keys, batch.removals, batch.addresses), (draft.keys, draft.removals, vec![at]));
        assert_eq!(batch.lifetime, Duration::from_secs(60));
        let full = Draft { keys: keys(4_096), removals: vec![], ..setup().2 };
        assert!(full.sign("test", &announcer, &[]).unwrap().len() <= Announcing::MAX_REQUEST);
    }

    #[test]
    fn each_lie_is_refused() {
        let (announcer, protocol, draft) = setup();
        let refused = |bytes: &[u8]| protocol.read(bytes).unwrap().unwrap_err();
        assert_eq!(refused(&draft.sign("other", &announcer, &[]).unwrap()), Refusal::Signature);
        let elsewhere = Draft { receiver: PeerId::random(), ..draft.clone() };
        assert_eq!(refused(&elsewhere.sign("test", &announcer, &[]).unwrap()), Refusal::Receiver);
        let stranger = peer_record(&Keypair::generate_ed25519(), vec![]);
        assert_eq!(refused(&draft.sign("test", &announcer, &stranger).unwrap()), Refusal::Signature);
        let unsorted = Draft { keys: keys(9).into_iter().rev().collect(), ..draft.clone() };
        assert!(protocol.read(&unsorted.sign("test", &announcer, &[]).unwrap()).is_err());
        let endless = Draft { lifetime: Duration::from_secs(1 << 31), ..draft.clone() };
        assert!(protocol.read(&endless.sign("test", &announcer, &[]).unwrap()).is_err());
        assert!(Draft { keys: keys(4_097), ..draft }.sign("test", &announcer, &[]).is_err());
    }

    fn said(key: &Keypair, object: Key, network: &str) -> Bytes {
        let (object, name) = (ObjectId::from_bytes(object), "x".repeat(255));
        let said = Description { object, is_directory: false, length: 1, parity: None, name, time: 1 };
        SignedDescription::sign(said, &network_id(network), key).unwrap().encode()
    }

    #[test]
    fn descriptions_of_its_keys_go_along() {
        let (announcer, protocol, draft) = setup();
        let keys = keys(4_096);
        let descriptions: Vec<_> =
            keys.iter().skip(1).take(MAX_DESCRIPTIONS).map(|key| said(&announcer, *key, "test")).collect();
        let full = Draft { keys, removals: vec![], descriptions: descriptions.clone(), ..draft };
        let bytes = full.sign("test", &announcer, &[0; MAX_RECORD]).unwrap();
        assert!(bytes.len() <= Announcing::MAX_REQUEST && protocol.proofs(&bytes) == MAX_DESCRIPTIONS + 2);
        let bytes = full.sign("test", &announcer, &[]).unwrap();
        assert_eq!((protocol.proofs(&bytes), protocol.proofs(&bytes[..9])), (MAX_DESCRIPTIONS + 1, 0));
        let read = protocol.read(&bytes).unwrap().unwrap().descriptions;
        assert_eq!(read.iter().map(SignedDescription::encode).collect::<Vec<_>>(), descriptions);
        let more = [descriptions, vec![said(&announcer, full.keys[9], "test")]].concat();
        assert!(Draft { descriptions: more, ..full }.sign("test", &announcer, &[]).is_err());
    }

    /// Metadata of the wrong size, signature, id, publisher or text.
    #[test]
    fn descriptions_that_lie_are_refused() {
        let (announcer, protocol, draft) = setup();
        let key = |number: usize| draft.keys[number];
        let good = said(&announcer, key(5), "test");
        let text = [&good[..53], &[0x1b], &good[54..]].concat();
        let lies = [
            ("signature", vec![[&good[..good.len() - 1], &[good[good.len() - 1] ^ 1]].concat().into()]),
            ("network", vec![said(&announcer, key(5), "other")]),
            ("publisher", vec![said(&Keypair::generate_ed25519(), key(5), "test")]),
            ("id", vec![said(&announcer, [0xee; 32], "test")]),
            ("text", vec![text.into()]),
            ("size", vec![good.slice(..good.len() - 1)]),
            ("twice", vec![good.clone(), good.clone()]),
            ("order", vec![good.clone(), said(&announcer, key(4), "test")]),
        ];
        for (lie, descriptions) in lies {
            let bytes = Draft { descriptions, ..draft.clone() }.sign("test", &announcer, &[]).unwrap();
            assert_eq!(protocol.read(&bytes).unwrap().unwrap_err(), Refusal::Metadata, "{lie}");
        }
        let long = vec![[&good[..], &[0; 2]].concat().into()];
        let bytes = Draft { descriptions: long, ..draft.clone() }.sign("test", &announcer, &[]).unwrap();
        assert!(protocol.read(&bytes).is_err(), "longer than any");
    }

    proptest! {
        #[test]
        fn no_bit_may_be_flipped(at in any::<proptest::sample::Index>(), bit in 0u8..8) {
            let (announcer, protocol, draft) = setup();
            let mut bytes = draft.sign("test", &announcer, &[]).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(protocol.read(&bytes), Ok(Ok(_))));
        }

        #[test]
        fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (_, protocol, _) = setup();
            prop_assert!(!matches!(protocol.read(&bytes), Ok(Ok(_))));
        }
    }
}
