//! This node's own addresses, which it never dials: whoever tells them would have it talk to itself.
//!
//! Owns: which they are. Refuses: nothing. Pure. Survives a crash: nothing.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::listen::ip_of;

/// What carries bytes to a port: a number may be one node's of TCP and another's of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Carrier {
    Tcp,
    Udp,
}

/// A port of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) ip: IpAddr,
    pub(super) carrier: Carrier,
    pub(super) port: u16,
}

/// Where this node is.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Ports of one address each.
    ends: HashSet<End>,
    /// Ports that are open on every address of a family; true: IPv6.
    everywhere: HashSet<(bool, Carrier, u16)>,
    /// Addresses that are listened on or told to others.
    ips: HashSet<IpAddr>,
}

/// Whether services of a host's own have this port, rather than nodes: below 1024, where only root may listen, but for
/// 443, which much is let through to.
pub(super) fn is_privileged(port: u16) -> bool {
    port < 1024 && port != 443
}

// === impl End ===

impl End {
    /// The host and port that a multiaddr leads to directly.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        let ip = ip_of(address)?.to_canonical();
        let (carrier, port) = match address.iter().nth(1)? {
            Protocol::Tcp(port) => (Carrier::Tcp, port),
            Protocol::Udp(port) => (Carrier::Udp, port),
            _ => return None,
        };
        Some(Self { ip, carrier, port })
    }

    /// A chunk port.
    pub(super) fn chunk(at: SocketAddr) -> Self {
        Self { ip: at.ip().to_canonical(), carrier: Carrier::Tcp, port: at.port() }
    }

    fn family(&self) -> (bool, Carrier, u16) {
        (self.ip.is_ipv6(), self.carrier, self.port)
    }
}

// === impl Own ===

impl Own {
    /// A node whose DHT is reached at `told`, configured to listen at `listen`, and whose chunk ports are `chunk`.
    pub(super) fn new<'a>(
        told: impl Iterator<Item = &'a Multiaddr>,
        listen: &[Multiaddr],
        chunk: &[SocketAddr],
    ) -> Self {
        let is_everywhere = |end: &End| {
            let same = |at: &End| at.ip.is_unspecified() && at.ip.is_ipv6() == end.ip.is_ipv6();
            listen.iter().filter_map(End::of).any(|at| same(&at) && at.carrier == end.carrier)
        };
        let mut own = Self::default();
        for end in told.filter_map(End::of) {
            if is_everywhere(&end) {
                own.everywhere.insert(end.family());
            }
            own.ips.insert(end.ip);
            own.ends.insert(end);
        }
        for end in chunk.iter().map(|at| End::chunk(*at)) {
            if end.ip.is_unspecified() {
                own.everywhere.insert(end.family());
            } else {
                own.ends.insert(end);
            }
        }
        own
    }

    /// Whether this node itself is there; `is_ours`: whether an address is one of this host's interfaces.
    pub(super) fn is(&self, end: &End, is_ours: impl Fn(IpAddr) -> bool) -> bool {
        let everywhere = || self.everywhere.contains(&end.family());
        let ours = || end.ip.is_loopback() || self.ips.contains(&end.ip) || is_ours(end.ip);
        self.ends.contains(end) || (everywhere() && ours())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_itself_at_each_of_its_addresses_and_no_other_on_its_host() {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Multiaddr>>();
        let listen = all(&["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/192.0.2.7/tcp/8468", "/ip6/::1/tcp/8468"]);
        let told = all(&["/ip4/192.0.2.7/udp/8468/quic-v1", "/ip4/192.0.2.7/tcp/8468", "/ip6/::1/tcp/8468"]);
        let chunk = ["0.0.0.0:9000".parse().unwrap(), "[fd00::7]:9000".parse().unwrap()];
        let own = Own::new(told.iter(), &listen, &chunk);
        let ours = |ip: IpAddr| ip == IpAddr::from([10, 0, 0, 7]);
        let is = |text: &str| own.is(&End::of(&text.parse().unwrap()).unwrap(), ours);
        for here in [
            "/ip4/192.0.2.7/udp/8468/quic-v1",
            "/ip4/127.8.8.8/udp/8468/quic-v1",
            "/ip4/10.0.0.7/udp/8468/quic-v1",
            "/ip6/::ffff:127.0.0.1/udp/8468/quic-v1",
            "/ip4/192.0.2.7/tcp/8468",
            "/ip6/::1/tcp/8468",
            "/ip4/127.0.0.1/tcp/9000",
            "/ip4/10.0.0.7/tcp/9000/p2p/12D3KooWAmwqg8qoL6hDmjttmqin8nAm3T9kjTyqm1rMnFzWfkHa",
            "/ip6/fd00::7/tcp/9000",
        ] {
            assert!(is(here), "{here}");
        }
        for elsewhere in [
            "/ip4/127.0.0.1/tcp/8468",
            "/ip4/10.0.0.7/tcp/8468",
            "/ip4/192.0.2.8/udp/8468/quic-v1",
            "/ip4/192.0.2.7/udp/9000/quic-v1",
            "/ip6/::1/tcp/9000",
        ] {
            assert!(!is(elsewhere), "{elsewhere}");
        }
    }
}
