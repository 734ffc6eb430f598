//! A card: where a node gives chunks, in its own word.
//!
//! Owns: the format and its proof. Refuses: cards of other networks, other times and other forms. Whether what it leads
//! to may be dialled, others judge. Pure: the time is passed in. Survives a crash: nothing; a card is signed anew
//! whenever it is shown.
//!
//! # Format (version 1)
//!
//! | field | bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | time | 8 | when this was signed, in Unix seconds, little endian |
//! | count | 1 | number of chunk ports, 1 to 8 |
//! | each | 1 | kind: 0 at whatever address its host is seen at, 4 IPv4, 6 IPv6 |
//! | | 0, 4 or 16 | the address, most significant byte first |
//! | | 2 | the port, little endian, not 0 |
//! | key | 32 | Ed25519 public key of whose card it is |
//! | signature | 64 | Ed25519, over `casd card 1\n`, 32 bytes that stand for the network, and all bytes before |

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use libp2p_identity::{Keypair, PeerId, PublicKey, ed25519};

use super::network_id;

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"casd card 1\n";
const SIGNATURE: usize = 64;

/// Ports of one card: a few interfaces in both families.
const MAX_PORTS: usize = 8;

/// The longest card: 258 bytes.
pub const MAX_CARD: usize = 1 + 8 + 1 + MAX_PORTS * (1 + 16 + 2) + 32 + SIGNATURE;

/// A card that was signed longer ago is not believed, nor one that will be signed so much later: clocks may differ by
/// a day.
const LIFE: Duration = Duration::from_hours(24);

/// A card whose signature holds. That does not make true what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Whose it is.
    peer: PeerId,
    /// Where it says that it gives chunks, at most [`MAX_PORTS`].
    ports: Vec<Port>,
    /// Its bytes.
    encoded: Bytes,
}

/// Signs this node's cards. Cheap to clone.
#[derive(Clone)]
pub struct CardSigner {
    key: Keypair,
    /// What stands for the network.
    network: [u8; 32],
    /// 1 to [`MAX_PORTS`].
    ports: Vec<Port>,
}

/// Where a chunk port listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// On every address of its host.
    Anywhere(u16),
    /// On this one.
    At(SocketAddr),
}

// === impl Card ===

impl Card {
    /// Reads a card of the network that `network` stands for, at `now` in Unix seconds; `None` where it is in another
    /// form, of another time, or its signature does not hold.
    #[must_use]
    pub fn check(encoded: &Bytes, network: &[u8; 32], now: u64) -> Option<Self> {
        let (body, signature) = encoded.split_last_chunk::<SIGNATURE>()?;
        let (ports, time, key) = read(body).ok()?;
        let key = ed25519::PublicKey::try_from_bytes(&key).ok()?;
        let is_timely = now.abs_diff(time) <= LIFE.as_secs();
        if ports.is_empty() || !is_timely || !key.verify(&signed(network, body), signature) {
            return None;
        }
        let peer = PublicKey::from(key).to_peer_id();
        Some(Self { peer, ports, encoded: encoded.clone() })
    }

    /// Whose it is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Its bytes, at most [`MAX_CARD`].
    #[must_use]
    pub fn encoded(&self) -> Bytes {
        self.encoded.clone()
    }

    /// The chunk ports that it leads to when its host is seen at `seen`, each once.
    #[must_use]
    pub fn sockets(&self, seen: Option<IpAddr>) -> Vec<SocketAddr> {
        let mut sockets: Vec<SocketAddr> = Vec::new();
        for port in &self.ports {
            let at = match port {
                Port::Anywhere(port) => seen.map(|ip| SocketAddr::new(ip.to_canonical(), *port)),
                Port::At(at) => Some(*at),
            };
            sockets.extend(at.filter(|at| !sockets.contains(at)));
        }
        sockets
    }
}

// === impl CardSigner ===

impl CardSigner {
    /// For the node of this key in the network of this name, whose chunk ports are `bound`; `None` where it has none,
    /// or the key is not Ed25519: then nobody is told of it.
    #[must_use]
    pub fn new(key: Keypair, network: &str, bound: &[SocketAddr]) -> Option<Self> {
        key.public().try_into_ed25519().ok()?;
        let told = |at: &SocketAddr| match at.ip().is_unspecified() {
            true => Port::Anywhere(at.port()),
            false => Port::At(*at),
        };
        let mut ports: Vec<Port> = bound.iter().filter(|at| at.port() != 0).map(told).collect();
        // One of IPv4 and one of IPv6, both everywhere, are the same.
        ports.dedup();
        ports.truncate(MAX_PORTS);
        (!ports.is_empty()).then(|| Self { key, network: network_id(network), ports })
    }

    /// A card that is signed at `now`, in Unix seconds.
    #[must_use]
    pub fn sign(&self, now: u64) -> Option<Bytes> {
        let mut out = BytesMut::with_capacity(MAX_CARD);
        out.put_u8(VERSION);
        out.put_u64_le(now);
        // At most eight.
        out.put_u8(u8::try_from(self.ports.len()).unwrap_or(0));
        self.ports.iter().for_each(|port| port.put(&mut out));
        out.put_slice(&self.key.public().try_into_ed25519().ok()?.to_bytes());
        let signature = self.key.sign(&signed(&self.network, &out)).ok()?;
        out.put_slice(&signature);
        Some(out.freeze())
    }
}

impl fmt::Debug for CardSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardSigner").field("ports", &self.ports).finish_non_exhaustive()
    }
}

// === impl Port ===

impl Port {
    fn put(self, out: &mut BytesMut) {
        match self {
            Self::Anywhere(_) => out.put_u8(0),
            Self::At(SocketAddr::V4(at)) => {
                out.put_u8(4);
                out.put_slice(&at.ip().octets());
            }
            Self::At(SocketAddr::V6(at)) => {
                out.put_u8(6);
                out.put_slice(&at.ip().octets());
            }
        }
        out.put_u16_le(match self {
            Self::Anywhere(port) => port,
            Self::At(at) => at.port(),
        });
    }

    /// Reads one; `None` where nobody can be there.
    fn read(rest: &mut &[u8]) -> Result<Option<Self>, TryGetError> {
        let ip = match rest.try_get_u8()? {
            0 => None,
            4 => Some(IpAddr::from(array::<4>(rest)?)),
            6 => Some(IpAddr::from(array::<16>(rest)?)),
            _ => return Ok(None),
        };
        let port = rest.try_get_u16_le()?;
        if port == 0 || ip.is_some_and(|ip| ip.is_unspecified()) {
            return Ok(None);
        }
        Ok(Some(ip.map_or(Self::Anywhere(port), |ip| Self::At(SocketAddr::new(ip, port)))))
    }
}

// === the form ===

/// What stands before the signature: the ports, when it was signed, and the key. No ports where it is in no form.
fn read(body: &[u8]) -> Result<(Vec<Port>, u64, [u8; 32]), TryGetError> {
    let nothing = |time| Ok((Vec::new(), time, [0; 32]));
    let mut rest = body;
    let version = rest.try_get_u8()?;
    let time = rest.try_get_u64_le()?;
    let count = usize::from(rest.try_get_u8()?);
    if version != VERSION || count > MAX_PORTS {
        return nothing(time);
    }
    let mut ports = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(port) = Port::read(&mut rest)? else { return nothing(time) };
        ports.push(port);
    }
    let key = array(&mut rest)?;
    if rest.is_empty() { Ok((ports, time, key)) } else { nothing(time) }
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], TryGetError> {
    let mut bytes = [0; N];
    rest.try_copy_to_slice(&mut bytes)?;
    Ok(bytes)
}

/// What is signed.
fn signed(network: &[u8; 32], body: &[u8]) -> Vec<u8> {
    [DOMAIN, &network[..], body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn key() -> Keypair {
        Keypair::ed25519_from_bytes([7; 32]).unwrap()
    }

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn card(bound: &[&str], now: u64) -> Bytes {
        CardSigner::new(key(), "test", &sockets(bound)).unwrap().sign(now).unwrap()
    }

    fn check(encoded: &Bytes, now: u64) -> Option<Card> {
        Card::check(encoded, &network_id("test"), now)
    }

    #[test]
    fn a_card_tells_whose_it_is_and_where_that_one_is() {
        let encoded = card(&["0.0.0.0:9000", "[::]:9000", "[fd00::7]:9001", "10.0.0.7:9002"], NOW);
        let card = check(&encoded, NOW).unwrap();
        assert_eq!((card.peer(), card.encoded()), (key().public().to_peer_id(), encoded));
        let named = ["[fd00::7]:9001", "10.0.0.7:9002"];
        assert_eq!(card.sockets(None), sockets(&named));
        let seen = card.sockets(Some("::ffff:192.0.2.1".parse().unwrap()));
        assert_eq!(seen, sockets(&["192.0.2.1:9000", named[0], named[1]]));
    }

    #[test]
    fn who_gives_nothing_has_no_card_and_none_is_too_long() {
        assert!(CardSigner::new(key(), "test", &[]).is_none());
        assert!(CardSigner::new(key(), "test", &sockets(&["127.0.0.1:0"])).is_none());
        let many: Vec<String> = (1..20).map(|host| format!("[fd00::{host}]:9000")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let longest = card(&many, NOW);
        assert_eq!((longest.len(), check(&longest, NOW).unwrap().sockets(None).len()), (MAX_CARD, MAX_PORTS));
    }

    #[test]
    fn it_is_of_one_network_and_of_one_day() {
        let encoded = card(&["192.0.2.1:9000"], NOW);
        assert_eq!(Card::check(&encoded, &network_id("other"), NOW), None);
        let day = LIFE.as_secs();
        for (now, believed) in
            [(NOW - day, true), (NOW + day, true), (NOW - day - 1, false), (NOW + day + 1, false), (0, false)]
        {
            assert_eq!(check(&encoded, now).is_some(), believed, "{now}");
        }
    }

    #[test]
    fn it_is_nobody_elses() {
        let mut forged = card(&["192.0.2.1:9000"], NOW).to_vec();
        let at = forged.len() - SIGNATURE - 32;
        let other = Keypair::ed25519_from_bytes([8; 32]).unwrap().public().try_into_ed25519().unwrap();
        forged[at..at + 32].copy_from_slice(&other.to_bytes());
        assert_eq!(check(&forged.into(), NOW), None);
    }

    proptest! {
        #[test]
        fn no_bit_of_a_card_may_be_flipped_and_no_byte_left_out(
            at: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index,
        ) {
            let encoded = card(&["0.0.0.0:9000", "[fd00::7]:9001"], NOW);
            let mut other = encoded.to_vec();
            other[at.index(encoded.len())] ^= 1 << bit;
            prop_assert_eq!(check(&other.into(), NOW), None);
            prop_assert_eq!(check(&encoded.slice(..cut.index(encoded.len())), NOW), None);
            prop_assert_eq!(check(&[&encoded[..], &[0]].concat().into(), NOW), None);
        }

        #[test]
        fn nothing_panics_on_garbage(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&bytes.into(), NOW);
        }
    }
}
