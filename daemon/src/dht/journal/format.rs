//! The journal's bytes.
//!
//! Owns: the format. Refuses: entries longer than [`MAX_ENTRY`], sums that do not hold, and what is not canonical.
//!
//! The file begins with "casdkey1" and 32 bytes that stand for the network's name ([`network_id`]). Then entries,
//! little-endian:
//!
//! ```text
//! size  field
//! 4     length of the payload, at most 256 KiB
//! n     payload
//! 8     the first bytes of the payload's BLAKE3
//! ```
//!
//! A payload is a byte that says what it is, and then:
//!
//! ```text
//! 1  own keys announced   1 kind (0 object, 1 chunk), 4 minute, keys
//! 2  own keys released    keys
//! 3  where a node is      peer, 1 number of addresses (at most 16), each: 2 length, the multiaddr
//! 4  a node's keys taken  peer, 4 minute in which they expire, keys
//! 5  …and taken back      peer, keys
//! 6  what a node says of an object it holds   a description, as `content/metadata.rs` has it
//! 7  …and says no more    peer, keys
//! ```
//!
//! Minutes are since 1970; keys are 32 bytes each, to the end; a peer is 1 length and the bytes of its id.

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};

use crate::content::MAX_DESCRIPTION;
use crate::dht::Key;
use crate::dht::codec::Reader;
use crate::dht::holdings::Minute;
use crate::peer::Kind;
#[cfg(doc)]
use crate::peer::network_id;

/// How the file begins.
pub(super) const MAGIC: &[u8; 8] = b"casdkey1";
/// What stands for the network's name: what was kept in one network is of no use in another.
pub(super) type Network = [u8; 32];
/// Bytes before the first entry.
pub(super) const HEAD: usize = MAGIC.len() + 32;
/// Bytes of an entry's payload.
pub(super) const MAX_ENTRY: usize = 256 << 10;
/// Addresses of one node.
const MAX_ADDRESSES: usize = 16;
/// Keys of one entry: more are written as several.
const MAX_KEYS: usize = 4_096;
/// Bytes before and after the payload.
const LENGTH: usize = 4;
const SUM: usize = 8;

/// What the journal remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dht) enum Entry {
    /// Keys of this node were announced.
    Announced { kind: Kind, minute: Minute, keys: Vec<Key> },
    /// They are no longer held, and others have heard that; or they are to be announced anew.
    Released { keys: Vec<Key> },
    /// Where a node is that announces here.
    Located { peer: PeerId, addresses: Vec<Multiaddr> },
    /// Its keys were taken, to be kept until that minute.
    Taken { peer: PeerId, until: Minute, keys: Vec<Key> },
    /// It took them back.
    TakenBack { peer: PeerId, keys: Vec<Key> },
    /// What a node says of an object that it holds.
    Described { bytes: Bytes },
    /// It says that of them no more.
    Undescribed { peer: PeerId, keys: Vec<Key> },
}

impl Entry {
    /// Appends the entry, as several where it has many keys.
    pub(in crate::dht) fn write(&self, out: &mut Vec<u8>) {
        let (head, keys) = self.parts();
        if keys.is_empty() && !matches!(self, Self::Located { .. } | Self::Described { .. }) {
            return;
        }
        let mut keys = keys.chunks(MAX_KEYS);
        loop {
            let part = keys.next().unwrap_or_default();
            let length = head.len() + part.as_flattened().len();
            out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            let begin = out.len();
            out.extend(&head);
            out.extend(part.as_flattened());
            let sum = blake3::hash(&out[begin..]);
            out.extend(&sum.as_bytes()[..SUM]);
            if keys.len() == 0 {
                return;
            }
        }
    }

    /// The first entry of `bytes` and its length there. `None` when it is not whole or not as it was written.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
        let length =
            usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= MAX_ENTRY)?;
        let (payload, rest) = rest.split_at_checked(length)?;
        let is_whole = rest.get(..SUM)? == &blake3::hash(payload).as_bytes()[..SUM];
        let entry = is_whole.then(|| Self::decode(payload)).flatten()?;
        Some((entry, LENGTH + length + SUM))
    }

    /// What stands before the keys, and the keys.
    fn parts(&self) -> (Vec<u8>, &[Key]) {
        let mut head = Vec::new();
        let keys: &[Key] = match self {
            Self::Announced { kind, minute, keys } => {
                head.extend([1, u8::from(*kind == Kind::Chunk)]);
                head.extend(minute.to_le_bytes());
                keys
            }
            Self::Released { keys } => {
                head.push(2);
                keys
            }
            Self::Located { peer, addresses } => {
                head.push(3);
                write_peer(peer, &mut head);
                let fits = |at: &&Multiaddr| at.len() <= usize::from(u16::MAX) / MAX_ADDRESSES;
                let addresses: Vec<_> = addresses.iter().filter(fits).take(MAX_ADDRESSES).collect();
                head.push(u8::try_from(addresses.len()).unwrap_or(0));
                for address in addresses {
                    head.extend(u16::try_from(address.len()).unwrap_or(0).to_le_bytes());
                    head.extend(address.as_ref());
                }
                &[]
            }
            Self::Taken { peer, until, keys } => {
                head.push(4);
                write_peer(peer, &mut head);
                head.extend(until.to_le_bytes());
                keys
            }
            Self::TakenBack { peer, keys } => {
                head.push(5);
                write_peer(peer, &mut head);
                keys
            }
            Self::Described { bytes } => {
                head.push(6);
                head.extend(bytes);
                &[]
            }
            Self::Undescribed { peer, keys } => {
                head.push(7);
                write_peer(peer, &mut head);
                keys
            }
        };
        (head, keys)
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        Some(match reader.u8().ok()? {
            1 => {
                let kind = match reader.u8().ok()? {
                    0 => Kind::Object,
                    1 => Kind::Chunk,
                    _ => return None,
                };
                let minute = reader.u32().ok()?;
                Self::Announced { kind, minute, keys: read_keys(&mut reader)? }
            }
            2 => Self::Released { keys: read_keys(&mut reader)? },
            3 => {
                let peer = read_peer(&mut reader)?;
                let count = usize::from(reader.u8().ok()?);
                let mut addresses = Vec::with_capacity(count.min(MAX_ADDRESSES));
                for _ in 0..count {
                    let length = usize::from(reader.u16().ok()?);
                    addresses.push(Multiaddr::try_from(reader.bytes(length).ok()?.to_vec()).ok()?);
                }
                reader.end().ok()?;
                (count <= MAX_ADDRESSES).then_some(Self::Located { peer, addresses })?
            }
            4 => {
                let peer = read_peer(&mut reader)?;
                let until = reader.u32().ok()?;
                Self::Taken { peer, until, keys: read_keys(&mut reader)? }
            }
            5 => Self::TakenBack { peer: read_peer(&mut reader)?, keys: read_keys(&mut reader)? },
            6 => {
                let bytes = reader.rest();
                (bytes.len() <= MAX_DESCRIPTION)
                    .then(|| Self::Described { bytes: Bytes::copy_from_slice(bytes) })?
            }
            7 => Self::Undescribed { peer: read_peer(&mut reader)?, keys: read_keys(&mut reader)? },
            _ => return None,
        })
    }
}

fn write_peer(peer: &PeerId, out: &mut Vec<u8>) {
    let bytes = peer.to_bytes();
    // Peer ids are at most 64 bytes long.
    out.push(u8::try_from(bytes.len()).unwrap_or(0));
    out.extend(bytes);
}

fn read_peer(reader: &mut Reader<'_>) -> Option<PeerId> {
    let length = usize::from(reader.u8().ok()?);
    PeerId::from_bytes(reader.bytes(length).ok()?).ok()
}

fn read_keys(reader: &mut Reader<'_>) -> Option<Vec<Key>> {
    let (keys, rest) = reader.rest().as_chunks::<32>();
    (rest.is_empty() && !keys.is_empty()).then(|| keys.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    fn entries() -> impl Strategy<Value = Entry> {
        let keys = || proptest::collection::vec(any::<Key>(), 1..9);
        let peer = || any::<u8>().prop_map(|_| PeerId::random());
        let at = || {
            proptest::collection::vec(any::<[u8; 4]>(), 0..=MAX_ADDRESSES).prop_map(|all| {
                all.into_iter().map(|ip| Multiaddr::from(std::net::Ipv4Addr::from(ip))).collect::<Vec<_>>()
            })
        };
        let kind = || any::<bool>().prop_map(|object| if object { Kind::Object } else { Kind::Chunk });
        prop_oneof![
            (kind(), any::<u32>(), keys()).prop_map(|(kind, minute, keys)| Entry::Announced {
                kind,
                minute,
                keys
            }),
            keys().prop_map(|keys| Entry::Released { keys }),
            (peer(), at()).prop_map(|(peer, addresses)| Entry::Located { peer, addresses }),
            (peer(), any::<u32>(), keys()).prop_map(|(peer, until, keys)| Entry::Taken { peer, until, keys }),
            (peer(), keys()).prop_map(|(peer, keys)| Entry::TakenBack { peer, keys }),
            proptest::collection::vec(any::<u8>(), 0..=MAX_DESCRIPTION)
                .prop_map(|bytes| Entry::Described { bytes: bytes.into() }),
            (peer(), keys()).prop_map(|(peer, keys)| Entry::Undescribed { peer, keys }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entry in entries(), flip in any::<proptest::sample::Index>(), bit in 0u8..8) {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            prop_assert_eq!(Entry::read(&bytes), Some((entry, bytes.len())));
            prop_assert!((0..bytes.len()).all(|cut| Entry::read(&bytes[..cut]).is_none()));
            let place = flip.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert!(Entry::read(&bytes).is_none());
        }
    }

    #[test]
    fn many_keys_are_several_entries_and_none_is_nothing() {
        let keys: Vec<Key> = (0..10_000u32).map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        let mut bytes = Vec::new();
        Entry::Released { keys: Vec::new() }.write(&mut bytes);
        assert!(bytes.is_empty());
        Entry::Released { keys: keys.clone() }.write(&mut bytes);
        let (mut read, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((Entry::Released { keys }, length)) = Entry::read(rest) {
            assert!(keys.len() <= MAX_KEYS);
            read.extend(keys);
            rest = &rest[length..];
        }
        assert_eq!((read, rest.len()), (keys, 0));
    }
}
