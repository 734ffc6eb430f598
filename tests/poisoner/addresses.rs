//! Addresses at which no node may be looked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::OnceLock;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rand::Rng;

/// How an address is told; each way has a port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// As a provider's, in an answer of Kademlia.
    Kademlia = 20_001,
    /// As a nearer node's, likewise.
    Closer = 20_002,
    /// In an announcer's signed record.
    Batch = 20_003,
    /// In an answer to a question for holders.
    Find = 20_004,
    /// By identify.
    Identify = 20_005,
    /// As a chunk port, in a hello.
    Hello = 20_006,
}

/// Where the daemon itself is: its DHT and its chunk port.
pub(crate) static OWN: OnceLock<(Multiaddr, SocketAddrV4)> = OnceLock::new();

/// Ports of other services.
const SERVICES: [u16; 8] = [22, 25, 53, 80, 111, 123, 389, 1023];

/// One of a kind drawn at random.
pub(crate) fn forbidden(way: Way) -> Multiaddr {
    let mut rng = rand::rng();
    let carrier = |at: Multiaddr, port| match rand::random() {
        true => at.with(Protocol::Tcp(port)),
        false => at.with(Protocol::Udp(port)).with(Protocol::QuicV1),
    };
    match rng.random_range(0..20) {
        // A name of a host's own.
        0 => carrier(Multiaddr::empty().with(Protocol::Dns4("localhost".into())), way as u16),
        1 => carrier(Multiaddr::empty().with(Protocol::Dns("metadata.internal".into())), way as u16),
        2 => OWN.get().expect("it is known").0.clone(),
        // What is there is not a node.
        3..6 => carrier(IpAddr::from([203, 0, 113, rng.random()]).into(), service()),
        _ => carrier(address().into(), way as u16),
    }
}

fn service() -> u16 {
    SERVICES[rand::rng().random_range(0..SERVICES.len())]
}

/// An address that is not for strangers to tell.
fn address() -> IpAddr {
    let mut rng = rand::rng();
    let [a, b, c] = rng.random::<[u8; 3]>();
    let tail: u16 = rng.random();
    let v4: IpAddr = match rng.random_range(0..11) {
        0 => [127, a, b, c].into(),
        1 => [0, 0, 0, 0].into(),
        2 => [169, 254, b, c].into(),
        3 => [224 + a % 16, a, b, c].into(),
        4 => Ipv4Addr::BROADCAST.into(),
        5 => [10, a, b, c].into(),
        6 => [172, 16 + a % 16, b, c].into(),
        7 => [192, 168, b, c].into(),
        8 => [198, 18 + a % 2, b, c].into(),
        9 => [192, 0, 0, c].into(),
        _ => [100, 64 + a % 64, b, c].into(),
    };
    match rng.random_range(0..10) {
        0 => Ipv6Addr::LOCALHOST.into(),
        1 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, tail).into(),
        2 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, tail).into(),
        3 => Ipv6Addr::new(0xfd00, tail, 0, 0, 0, 0, 0, tail).into(),
        4 => Ipv6Addr::new(0xfec0, tail, 0, 0, 0, 0, 0, tail).into(),
        // A translator's, on its own network.
        5 => Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0x0a00, tail).into(),
        6 => match v4 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
            v6 => v6,
        },
        _ => v4,
    }
}

/// A hello with as many chunk ports as fit, none of which is another node's: one is the daemon's own, two are of other
/// services, the others are at forbidden addresses.
pub(crate) fn hello() -> Vec<u8> {
    let own = OWN.get().expect("it is known").1;
    let mut told = vec![SocketAddr::from(own)];
    told.extend([22, 80].map(|port| SocketAddr::from(([203, 0, 113, 9], port))));
    while told.len() < 8 {
        let ip = address();
        if !ip.is_unspecified() {
            told.push(SocketAddr::new(ip, Way::Hello as u16));
        }
    }
    let mut bytes = vec![1, 1, 8];
    for at in told {
        match at.ip() {
            IpAddr::V4(ip) => {
                bytes.push(4);
                bytes.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes.push(6);
                bytes.extend(ip.octets());
            }
        }
        bytes.extend(at.port().to_le_bytes());
    }
    bytes
}
