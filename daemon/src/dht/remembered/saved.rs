//! Remembered peers on disk: a small file that may be deleted.
//!
//! Owns: its format. Refuses: a file that is damaged, longer than any that is written, of another version or of
//! another network; then nobody is remembered, and the log says so. Survives a crash: what was saved last.
//!
//! Format: `docs/storage-format.md`, "Remembered peers".

use std::io;
use std::path::Path;

use libp2p::{Multiaddr, PeerId};

use super::{MAX_ADDRESS, MAX_ADDRESSES, MAX_PEERS, Peer};
use crate::dht::codec::{Reader, malformed};
use crate::support::file;

const MAGIC: &[u8; 8] = b"casdpee1";
/// A network's name has at most 64 bytes.
const MAX_NETWORK: usize = 64;
/// A peer's id is a multihash of at most 32 bytes with its two numbers; public keys within an id are as short.
const MAX_ID: usize = 48;
/// Bytes of BLAKE3 at the end.
const SUM: usize = 16;
/// One peer with all that it may have.
const MAX_PEER: usize = 1 + MAX_ID + 8 + 2 + 1 + MAX_ADDRESSES * (1 + MAX_ADDRESS);
/// The longest file: 285 KiB.
const MAX_FILE: usize = MAGIC.len() + 1 + MAX_NETWORK + 2 + MAX_PEERS * MAX_PEER + SUM;

/// What is whole, and was written in a network that this node was in before.
const OF_ANOTHER: io::ErrorKind = io::ErrorKind::Unsupported;

/// Whom the file names. Blocks.
pub(in crate::dht) fn load(at: &Path, network: &str) -> Vec<Peer> {
    let read = file::read(at, MAX_FILE).and_then(|bytes| decode(network, &bytes));
    read.unwrap_or_else(|error| {
        let file = at.display();
        match error.kind() {
            io::ErrorKind::NotFound => {}
            OF_ANOTHER => {
                tracing::info!(%file, "the peers of earlier runs are of another network: network.name has changed");
            }
            _ => tracing::warn!(%error, %file, "the peers of earlier runs cannot be read; going on without"),
        }
        Vec::new()
    })
}

/// Replaces the file; the log hears when that fails. Blocks.
pub(in crate::dht) fn save(at: &Path, network: &str, peers: &[Peer]) {
    if let Err(error) = file::replace(at, &encode(network, peers)) {
        tracing::warn!(%error, file = %at.display(), "peers cannot be written down for the next start");
    }
}

fn encode(network: &str, peers: &[Peer]) -> Vec<u8> {
    // Every length is within its limit: `Remembered` keeps them.
    let short = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
    let mut out = MAGIC.to_vec();
    out.push(short(network.len()));
    out.extend_from_slice(network.as_bytes());
    out.extend_from_slice(&u16::try_from(peers.len()).unwrap_or(u16::MAX).to_le_bytes());
    for peer in peers {
        let id = peer.peer.to_bytes();
        out.push(short(id.len()));
        out.extend_from_slice(&id);
        out.extend_from_slice(&peer.seen.to_le_bytes());
        out.extend_from_slice(&peer.failures.to_le_bytes());
        out.push(short(peer.addresses.len()));
        for address in &peer.addresses {
            out.push(short(address.len()));
            out.extend_from_slice(address.as_ref());
        }
    }
    let sum = blake3::hash(&out);
    out.extend_from_slice(&sum.as_bytes()[..SUM]);
    out
}

fn decode(network: &str, bytes: &[u8]) -> io::Result<Vec<Peer>> {
    let (summed, sum) =
        bytes.split_at_checked(bytes.len().saturating_sub(SUM)).ok_or_else(|| malformed("cut short"))?;
    if sum != &blake3::hash(summed).as_bytes()[..SUM] {
        return Err(malformed("its sum is wrong"));
    }
    let mut reader = Reader::new(summed);
    if &reader.array::<8>()? != MAGIC {
        return Err(malformed("another kind of file, or another version"));
    }
    let length = usize::from(reader.u8()?);
    if reader.bytes(length)? != network.as_bytes() {
        return Err(io::Error::new(OF_ANOTHER, "they are of another network"));
    }
    let count = usize::from(reader.u16()?);
    if count > MAX_PEERS {
        return Err(malformed("too many peers"));
    }
    let peers = (0..count).map(|_| peer(&mut reader)).collect::<io::Result<Vec<_>>>()?;
    reader.end()?;
    // One form only: whatever else would be read is not what was written.
    if encode(network, &peers) != bytes {
        return Err(malformed("another form"));
    }
    Ok(peers)
}

fn peer(reader: &mut Reader<'_>) -> io::Result<Peer> {
    let length = usize::from(reader.u8()?);
    let peer = PeerId::from_bytes(reader.bytes(length)?).map_err(|_| malformed("no peer id"))?;
    let seen = u64::from_le_bytes(reader.array()?);
    let failures = reader.u16()?;
    let count = usize::from(reader.u8()?);
    if length > MAX_ID || count > MAX_ADDRESSES {
        return Err(malformed("too long an id or too many addresses"));
    }
    let address = |_| {
        let length = usize::from(reader.u8()?);
        if length > MAX_ADDRESS {
            return Err(malformed("too long an address"));
        }
        Multiaddr::try_from(reader.bytes(length)?.to_vec()).map_err(|_| malformed("no address"))
    };
    let addresses = (0..count).map(address).collect::<io::Result<Vec<_>>>()?;
    Ok(Peer { peer, addresses, seen, failures })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn sample(count: usize) -> Vec<Peer> {
        let one = |number: usize| {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            let key = crate::peer::Keypair::ed25519_from_bytes(seed).unwrap();
            let ends = [format!("/ip4/192.0.2.{}/tcp/8468", number % 250), "/ip6/::1/udp/1/quic-v1".into()];
            let addresses = ends.iter().map(|at| at.parse().unwrap()).collect();
            Peer { peer: key.public().to_peer_id(), addresses, seen: 1_700_000_000, failures: 3 }
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn what_is_saved_is_read_and_what_is_torn_or_foreign_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("cache/peers");
        assert_eq!(load(&at, "casd"), []);
        let peers = sample(2);
        save(&at, "casd", &peers);
        assert_eq!(load(&at, "casd"), peers);
        assert_eq!(load(&at, "other"), []);
        let whole = std::fs::read(&at).unwrap();
        assert_eq!(decode("casd", &crate::golden::is("peers", &whole)).unwrap(), peers);
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert!(decode("casd", &torn).is_err() && decode("casd", &whole[..at]).is_err(), "byte {at}");
        }
        std::fs::write(&at, vec![0; MAX_FILE + 1]).unwrap();
        assert_eq!(load(&at, "casd"), []);
        std::fs::remove_file(&at).unwrap();
        std::fs::create_dir(&at).unwrap();
        assert_eq!(load(&at, "casd"), []);
        save(&at, "casd", &peers);
    }

    #[test]
    fn the_longest_file_is_read() {
        let long: Multiaddr = format!("/dns4/{}/tcp/1", "x".repeat(MAX_ADDRESS - 5)).parse().unwrap();
        assert_eq!(long.len(), MAX_ADDRESS);
        let mut peers = sample(MAX_PEERS);
        peers.iter_mut().for_each(|peer| peer.addresses = vec![long.clone(); MAX_ADDRESSES]);
        let network = "n".repeat(MAX_NETWORK);
        let bytes = encode(&network, &peers);
        assert!(bytes.len() <= MAX_FILE);
        assert_eq!(decode(&network, &bytes).unwrap(), peers);
        let over = [peers, sample(1)].concat();
        assert!(decode(&network, &encode(&network, &over)).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_one_form_is_taken(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..200_usize,
        ) {
            prop_assert!(decode("casd", &bytes).is_err());
            // Behind the sum and the beginning as well.
            let mut whole = encode("casd", &sample(1));
            whole.truncate(whole.len() - SUM);
            bytes.truncate(whole.len() - 13);
            let at = 13 + at.min(whole.len() - 13 - bytes.len());
            whole[at..at + bytes.len()].copy_from_slice(&bytes);
            let sum = blake3::hash(&whole);
            whole.extend_from_slice(&sum.as_bytes()[..SUM]);
            if let Ok(peers) = decode("casd", &whole) {
                prop_assert_eq!(encode("casd", &peers), whole);
            }
        }
    }
}
