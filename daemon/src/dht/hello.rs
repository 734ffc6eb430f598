//! The hello: how a node learns where another's chunk port is.
//!
//! Owns: the format, and which addresses are told and believed over which connection. Refuses: loopback
//! addresses over anything but a loopback connection, this node's own, privileged ports, and other addresses that
//! [`Reach`] does not allow unless the other end is seen there. Survives a crash: nothing.
//!
//! Protocol `/casd/<network>/hello/1`; question and answer have the same form, little-endian:
//!
//! ```text
//! size  field
//! 1     version: 1
//! 1     flags: bit 0 = serves chunks (a node that only fetches does not); others are 0
//! 1     number of addresses, at most 8
//! each  1  kind: 0 = a port at whatever address the connection shows, 4 = IPv4, 6 = IPv6
//!       0, 4 or 16  the IP address, most significant byte first
//!       2  port, not 0
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::codec::{Exchange, Reader, malformed};
use super::reach::Reach;

/// Addresses told of one node: a few interfaces in both families.
pub(super) const MAX_ADDRESSES: usize = 8;
const VERSION: u8 = 1;
const SERVES: u8 = 1;

/// Where a chunk port listens, as told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// On every address of the node: dial the one that the connection shows.
    Port(u16),
    /// On this address.
    Address(SocketAddr),
}

/// What a node tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// Whether it gives chunks.
    pub(super) serves: bool,
    /// Where, at most [`MAX_ADDRESSES`].
    pub(super) chunk: Vec<At>,
}

/// The protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting;

// === impl Hello ===

impl Hello {
    /// What a node with the chunk ports `bound` tells to one that it sees at `remote`.
    pub(super) fn to(bound: &[SocketAddr], serves: bool, remote: Option<IpAddr>) -> Self {
        let near = remote.is_some_and(|ip| ip.to_canonical().is_loopback());
        let mut chunk: Vec<_> = bound
            .iter()
            .filter(|at| at.port() != 0 && (near || !at.ip().is_loopback()))
            .map(|at| if at.ip().is_unspecified() { At::Port(at.port()) } else { At::Address(*at) })
            .collect();
        chunk.dedup();
        chunk.truncate(MAX_ADDRESSES);
        Self { serves, chunk }
    }

    /// The addresses that may be dialled, told by a node that is seen at `remote`.
    pub(super) fn usable(&self, remote: Option<IpAddr>, reach: &Reach) -> Vec<SocketAddr> {
        let remote = remote.map(|ip| ip.to_canonical());
        let mut usable: Vec<SocketAddr> = Vec::new();
        for at in &self.chunk {
            let address = match at {
                At::Port(port) => remote.map(|ip| SocketAddr::new(ip, *port)),
                At::Address(address) => Some(*address),
            };
            let address = address.filter(|at| reach.allows_chunk(*at, remote));
            usable.extend(address.filter(|at| !usable.contains(at)));
        }
        usable
    }

    fn encode(&self) -> Vec<u8> {
        let told = &self.chunk[..self.chunk.len().min(MAX_ADDRESSES)];
        let mut bytes = vec![VERSION, if self.serves { SERVES } else { 0 }];
        bytes.push(u8::try_from(told.len()).unwrap_or(0));
        for at in told {
            let port = match at {
                At::Port(port) => {
                    bytes.push(0);
                    *port
                }
                At::Address(SocketAddr::V4(at)) => {
                    bytes.push(4);
                    bytes.extend(at.ip().octets());
                    at.port()
                }
                At::Address(SocketAddr::V6(at)) => {
                    bytes.push(6);
                    bytes.extend(at.ip().octets());
                    at.port()
                }
            };
            bytes.extend(port.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(malformed("a hello of another version"));
        }
        let flags = reader.u8()?;
        let count = usize::from(reader.u8()?);
        if flags & !SERVES != 0 || count > MAX_ADDRESSES {
            return Err(malformed("a hello with unknown flags or too many addresses"));
        }
        let mut chunk = Vec::with_capacity(count);
        for _ in 0..count {
            let ip = match reader.u8()? {
                0 => None,
                4 => Some(IpAddr::from(Ipv4Addr::from(reader.array::<4>()?))),
                6 => Some(IpAddr::from(Ipv6Addr::from(reader.array::<16>()?))),
                _ => return Err(malformed("a hello with an unknown kind of address")),
            };
            let port = reader.u16()?;
            if port == 0 || ip.is_some_and(|ip| ip.is_unspecified()) {
                return Err(malformed("a hello with an address that cannot be dialled"));
            }
            chunk.push(ip.map_or(At::Port(port), |ip| At::Address(SocketAddr::new(ip, port))));
        }
        reader.end()?;
        Ok(Self { serves: flags & SERVES != 0, chunk })
    }
}

impl Exchange for Greeting {
    type Request = Hello;
    type Response = Hello;
    const MAX_REQUEST: usize = 3 + MAX_ADDRESSES * 19;
    const MAX_RESPONSE: usize = Self::MAX_REQUEST;

    fn decode_request(&self, bytes: &[u8]) -> io::Result<Hello> {
        Hello::decode(bytes)
    }

    fn decode_response(&self, bytes: &[u8]) -> io::Result<Hello> {
        Hello::decode(bytes)
    }

    fn encode_request(&self, request: Hello) -> Vec<u8> {
        request.encode()
    }

    fn encode_response(&self, response: Hello) -> Vec<u8> {
        response.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn told(text: &str) -> Hello {
        Hello { serves: true, chunk: vec![At::Address(text.parse().unwrap())] }
    }

    #[test]
    fn loopback_is_told_and_believed_only_over_loopback() {
        let bound = ["127.0.0.1:9000".parse().unwrap(), "0.0.0.0:9001".parse().unwrap()];
        assert_eq!(Hello::to(&bound, true, ip("192.0.2.1")).chunk, [At::Port(9001)]);
        let near = Hello::to(&bound, true, ip("127.0.0.1"));
        assert_eq!(
            near.usable(ip("127.0.0.1"), &Reach::default()),
            ["127.0.0.1:9000", "127.0.0.1:9001"].map(|a| a.parse().unwrap())
        );
        assert_eq!(near.usable(ip("192.0.2.1"), &Reach::default()), ["192.0.2.1:9001".parse().unwrap()]);
        assert_eq!(near.usable(None, &Reach::default()), []);
    }

    #[test]
    fn private_addresses_count_only_where_the_node_is_seen() {
        assert_eq!(told("192.168.1.1:9000").usable(ip("203.0.113.5"), &Reach::default()), []);
        assert_eq!(told("192.168.1.1:9000").usable(ip("192.168.1.1"), &Reach::default()).len(), 1);
        assert_eq!(told("[fd00::1]:9000").usable(ip("2001:db8::1"), &Reach::default()), []);
        assert_eq!(told("[::ffff:127.0.0.1]:9000").usable(ip("203.0.113.5"), &Reach::default()), []);
        assert_eq!(told("169.254.169.254:9000").usable(ip("203.0.113.5"), &Reach::default()), []);
        assert_eq!(told("203.0.113.9:9000").usable(ip("203.0.113.5"), &Reach::default()).len(), 1);
        for port in [22, 80, 1023] {
            let told = told(&format!("203.0.113.9:{port}"));
            assert_eq!(told.usable(ip("203.0.113.9"), &Reach::default()), [], "no node is at {port}");
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for bad in [&[1u8, 1][..], &[2, 1, 0], &[1, 2, 0], &[1, 1, 9], &[1, 1, 1, 0, 0, 0], &[1, 1, 0, 0]] {
            assert!(Hello::decode(bad).is_err(), "{bad:?}");
        }
        assert!(Hello::decode(&[1, 1, 1, 4, 0, 0, 0, 0, 1, 0]).is_err());
    }

    proptest! {
        #[test]
        fn encoding_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode(), bytes);
            }
        }

        #[test]
        fn what_is_told_is_read(serves: bool, ports in proptest::collection::vec(1u16.., 0..8), v6: bool) {
            let at = |port| match v6 {
                true => At::Address(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)),
                false => At::Address(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
            };
            let hello = Hello { serves, chunk: ports.into_iter().map(at).collect() };
            prop_assert_eq!(Hello::decode(&hello.encode()).unwrap(), hello);
        }
    }
}
