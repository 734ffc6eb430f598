//! Asking one node who holds a key: GET_PROVIDERS of a node of one's own choice.
//!
//! Owns: the format. Refuses: more than [`MAX_HOLDERS`] holders and more than [`MAX_ADDRESSES`] addresses of one;
//! whoever answers may lie about both. Survives a crash: nothing.
//!
//! Kademlia's own question is asked of the nodes nearest to a key only, which may all be of one owner. Protocol
//! `/casd/<network>/find/1`, little-endian. The question: version 1, then the key. The answer:
//!
//! ```text
//! size  field
//! 1     version: 1
//! 1     number of holders, at most 64
//! each  1, n  length and bytes of the peer's id
//!       1     number of addresses, at most 8
//!       each  2, n  length and bytes of the multiaddr
//! ```

use std::io;

use libp2p::{Multiaddr, PeerId};

use super::Key;
use super::codec::{Exchange, Reader, malformed};
use super::records::{MAX_ADDRESS, MAX_ADDRESSES, MAX_PROVIDERS as MAX_HOLDERS};

const VERSION: u8 = 1;

/// The protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finding;

/// Those who are said to hold a key, or whom somebody [names](super::introducing), and where they are.
pub(super) type Holders = Vec<(PeerId, Vec<Multiaddr>)>;

/// About how many bytes it takes to tell of them.
pub(super) fn weight(holders: &Holders) -> usize {
    let of_one = |addresses: &[Multiaddr]| 64 + addresses.iter().map(Multiaddr::len).sum::<usize>();
    holders.iter().map(|(_, addresses)| of_one(addresses)).sum()
}

/// Bytes of the longest answer that tells of so many.
pub(super) const fn longest(most: usize) -> usize {
    2 + most * (1 + 64 + 1 + MAX_ADDRESSES * (2 + MAX_ADDRESS))
}

/// Reads an answer that tells of `most` at most.
pub(super) fn decode(bytes: &[u8], most: usize) -> io::Result<Holders> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(malformed("an answer of another version"));
    }
    let count = usize::from(reader.u8()?);
    if count > most {
        return Err(malformed("more peers than are told"));
    }
    let mut holders = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::from(reader.u8()?);
        let peer = PeerId::from_bytes(reader.bytes(length)?).map_err(|_| malformed("no id of a peer"))?;
        let count = usize::from(reader.u8()?);
        if count > MAX_ADDRESSES {
            return Err(malformed("more addresses than are told"));
        }
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            let length = usize::from(reader.u16()?);
            if length > MAX_ADDRESS {
                return Err(malformed("an address that is too long"));
            }
            let address = Multiaddr::try_from(reader.bytes(length)?.to_vec());
            addresses.push(address.map_err(|_| malformed("no address"))?);
        }
        holders.push((peer, addresses));
    }
    reader.end()?;
    Ok(holders)
}

/// Writes an answer that tells of the first `most`, which is less than 256.
pub(super) fn encode(holders: &Holders, most: usize) -> Vec<u8> {
    let told = &holders[..holders.len().min(most)];
    let mut bytes = vec![VERSION, u8::try_from(told.len()).unwrap_or(0)];
    for (peer, addresses) in told {
        let peer = peer.to_bytes();
        // Peer ids are at most 64 bytes long.
        bytes.push(u8::try_from(peer.len()).unwrap_or(0));
        bytes.extend(peer);
        let fits = |at: &&Multiaddr| at.len() <= MAX_ADDRESS;
        let addresses: Vec<_> = addresses.iter().filter(fits).take(MAX_ADDRESSES).collect();
        bytes.push(u8::try_from(addresses.len()).unwrap_or(0));
        for address in addresses {
            bytes.extend(u16::try_from(address.len()).unwrap_or(0).to_le_bytes());
            bytes.extend(address.as_ref());
        }
    }
    bytes
}

impl Exchange for Finding {
    type Request = Key;
    type Response = Holders;
    const MAX_REQUEST: usize = 33;
    const MAX_RESPONSE: usize = longest(MAX_HOLDERS);

    fn decode_request(&self, bytes: &[u8]) -> io::Result<Key> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(malformed("a question of another version"));
        }
        let key = reader.array()?;
        reader.end()?;
        Ok(key)
    }

    fn decode_response(&self, bytes: &[u8]) -> io::Result<Holders> {
        decode(bytes, MAX_HOLDERS)
    }

    fn encode_request(&self, key: Key) -> Vec<u8> {
        [&[VERSION], &key[..]].concat()
    }

    fn encode_response(&self, holders: Holders) -> Vec<u8> {
        encode(&holders, MAX_HOLDERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn what_is_told_is_read(counts in proptest::collection::vec(0usize..12, 0..80), key: Key) {
            let at = |n: usize| (0..n).map(|n| format!("/ip4/8.8.4.4/tcp/{}", n + 1).parse().unwrap()).collect();
            let holders: Holders = counts.into_iter().map(|n| (PeerId::random(), at(n))).collect();
            let bytes = Finding.encode_response(holders.clone());
            prop_assert!(bytes.len() <= Finding::MAX_RESPONSE);
            let told = holders.into_iter().take(MAX_HOLDERS);
            let told: Holders = told.map(|(peer, at)| (peer, at.into_iter().take(MAX_ADDRESSES).collect())).collect();
            prop_assert_eq!(Finding.decode_response(&bytes).unwrap(), told);
            let question = Finding.encode_request(key);
            prop_assert_eq!(question.len(), Finding::MAX_REQUEST);
            prop_assert_eq!(Finding.decode_request(&question).unwrap(), key);
        }

        #[test]
        fn nonsense_is_refused_and_what_is_read_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(holders) = Finding.decode_response(&bytes) {
                prop_assert_eq!(Finding.encode_response(holders), bytes);
            }
        }
    }
}
