//! How a peer is written down: who it is and where it is reached.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use libp2p_identity::PublicKey;
use multiaddr::{Multiaddr, Protocol};

use super::{AddrError, PeerId};

/// The longest text that is read as an address: relayed multiaddrs with two ids stay under 300.
const MAX_TEXT: usize = 1024;

/// The longest host name (RFC 1035).
const MAX_NAME: usize = 253;

/// A peer and one way to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr {
    /// Who must answer.
    pub peer: PeerId,
    /// Where.
    pub reach: Reach,
}

/// Which of the two planes an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// A chunk port: TCP. Written `PEERID@HOST:PORT`.
    Chunk(
        /// The host.
        Host,
        /// The port, never 0.
        u16,
    ),
    /// A libp2p address, with its final `/p2p/PEERID`. Written as it is.
    Dht(
        /// The address.
        Multiaddr,
    ),
}

/// The host of a chunk port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name to look up: lower-case letters, digits, `.`, `-` and `_`.
    Name(String),
}

impl PeerAddr {
    /// A peer's chunk port.
    #[must_use]
    pub fn chunk(peer: PeerId, at: SocketAddr) -> Self {
        Self { peer, reach: Reach::Chunk(Host::Ip(at.ip()), at.port()) }
    }

    /// Where to dial on the chunk plane, when that needs no look-up of a name.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match &self.reach {
            Reach::Chunk(Host::Ip(ip), port) => Some(SocketAddr::new(*ip, *port)),
            _ => None,
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reach {
            Reach::Chunk(host, port) => write!(f, "{}@{host}:{port}", self.peer),
            Reach::Dht(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for PeerAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        if text.len() > MAX_TEXT {
            return Err(AddrError::TooLong(MAX_TEXT));
        }
        if text.starts_with('/') {
            let address: Multiaddr =
                text.parse().map_err(|error: multiaddr::Error| AddrError::Multiaddr(error.to_string()))?;
            return Self::try_from(address);
        }
        let (peer, place) = text.split_once('@').ok_or(AddrError::Form)?;
        let peer = read_peer_id(peer)?;
        let (host, port) = place.rsplit_once(':').ok_or(AddrError::Form)?;
        let number = port.parse().ok().filter(|number| *number != 0 && !port.starts_with('+'));
        let port = number.ok_or_else(|| AddrError::Port(port.to_owned()))?;
        Ok(Self { peer, reach: Reach::Chunk(parse_host(host)?, port) })
    }
}

impl TryFrom<Multiaddr> for PeerAddr {
    type Error = AddrError;

    /// Takes an address that ends in the peer's id.
    fn try_from(address: Multiaddr) -> Result<Self, AddrError> {
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            return Err(AddrError::NoPeer);
        };
        let named =
            address.iter().filter_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None });
        if let Some(wrong) = named.filter(|peer| !is_whole(peer)).last() {
            return Err(AddrError::PeerId(wrong.to_string()));
        }
        Ok(Self { peer, reach: Reach::Dht(address) })
    }
}

/// Reads a peer id as people write it.
///
/// # Errors
/// [`AddrError::PeerId`], also of one that has been cut off.
pub fn read_peer_id(text: &str) -> Result<PeerId, AddrError> {
    let peer = text.parse().ok().filter(is_whole);
    peer.ok_or_else(|| AddrError::PeerId(text.to_owned()))
}

/// Whether a peer could have this id: a key that casd knows, or the hash of another. What is left of an id that was cut
/// off often is an id in form, of nothing.
fn is_whole(peer: &PeerId) -> bool {
    match peer.to_bytes().as_slice() {
        [0x00, _, key @ ..] => PublicKey::try_decode_protobuf(key).is_ok(),
        [0x12, _, hash @ ..] => hash.len() == 32,
        _ => false,
    }
}

fn parse_host(host: &str) -> Result<Host, AddrError> {
    let wrong = || AddrError::Host(host.to_owned());
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().map(|ip| Host::Ip(ip.into())).map_err(|_| wrong());
    }
    if let Ok(IpAddr::V4(ip)) = host.parse() {
        return Ok(Host::Ip(ip.into()));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    // All digits and dots, yet no IPv4 address: resolvers read some of those as one (`127.1`).
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if host.is_empty() || host.len() > MAX_NAME || numeric || !host.bytes().all(plain) {
        return Err(wrong());
    }
    Ok(Host::Name(host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn both_forms_read_back() {
        for text in [
            format!("{ID}@10.0.0.7:9000"),
            format!("{ID}@[2001:db8::1]:9000"),
            format!("{ID}@files.example.org:1"),
            format!("/ip4/127.0.0.1/udp/8468/quic-v1/p2p/{ID}"),
            format!("/ip6/::1/tcp/8468/p2p/{ID}"),
            format!("/dns/a.example/tcp/1/p2p/{ID}/p2p-circuit/p2p/{ID}"),
        ] {
            let address: PeerAddr = text.parse().unwrap();
            assert_eq!((address.peer.to_string(), address.to_string()), (ID.to_owned(), text));
        }
        let address: PeerAddr = format!("{ID}@[::1]:80").parse().unwrap();
        assert_eq!(address.socket(), Some("[::1]:80".parse().unwrap()));
        assert_eq!(PeerAddr::chunk(address.peer, "[::1]:80".parse().unwrap()), address);
    }

    #[test]
    fn nonsense_is_refused_for_its_reason() {
        let error = |text: &str| text.parse::<PeerAddr>().unwrap_err();
        assert_eq!(error(""), AddrError::Form);
        assert_eq!(error("host:1"), AddrError::Form);
        assert!(matches!(error("nobody@host:1"), AddrError::PeerId(_)));
        assert!(matches!(error(&format!("{ID}@host:0")), AddrError::Port(_)));
        assert!(matches!(error(&format!("{ID}@host:+1")), AddrError::Port(_)));
        assert!(matches!(error(&format!("{ID}@host:65536")), AddrError::Port(_)));
        for host in ["", "::1", "[1.2.3.4]", "127.1", "a b", "a/b", "a\u{e9}", &"a".repeat(254)] {
            assert!(matches!(error(&format!("{ID}@{host}:1")), AddrError::Host(_)), "{host}");
        }
        assert_eq!(error("/ip4/127.0.0.1/tcp/1"), AddrError::NoPeer);
        assert!(matches!(error("/ip9/1"), AddrError::Multiaddr(_)));
        assert_eq!(error(&"x".repeat(1025)), AddrError::TooLong(1024));
    }

    #[test]
    fn an_id_that_was_cut_off_is_none() {
        for cut in ["12D3KooWXXXX", "12D3KooWKV8C", "12D3KooWKV8CK", "", "1", "11", &ID[..51], &ID[..50]] {
            let wrong = AddrError::PeerId(cut.to_owned());
            assert_eq!(read_peer_id(cut).unwrap_err(), wrong);
            assert_eq!(format!("{cut}@host:1").parse::<PeerAddr>().unwrap_err(), wrong);
            assert!(format!("/ip4/1.2.3.4/tcp/1/p2p/{cut}").parse::<PeerAddr>().is_err(), "{cut}");
        }
        let cut = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWXXXX";
        assert_eq!(cut.parse::<PeerAddr>(), Err(AddrError::PeerId("12D3KooWXXXX".to_owned())));
        let relay = format!("{cut}/p2p-circuit/p2p/{ID}");
        assert!(matches!(relay.parse::<PeerAddr>(), Err(AddrError::PeerId(_))), "of a relay");
        assert_eq!(read_peer_id(ID).unwrap().to_string(), ID);
        // A hash of a key, which other programs have.
        assert!(read_peer_id("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,120}") {
            if let Ok(address) = text.parse::<PeerAddr>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
