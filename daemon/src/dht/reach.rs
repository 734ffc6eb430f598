//! Which addresses may be dialled.
//!
//! Owns: the rule, and what it needs to know: the addresses that the owner gave, and the subnets of this
//! host's interfaces. Refuses: addresses by which a stranger could make this node knock at its own host, at
//! its neighbours' services or at names. Survives a crash: nothing.
//!
//! - What was configured or given by a caller may be dialled, whatever it is.
//! - A global IP address may be dialled.
//! - A private one (RFC 1918, RFC 6598, RFC 4193) may, inside a subnet of one of our interfaces.
//! - A loopback one may, when this node itself is reached by loopback.
//! - A way through a relay may, where the relay may.
//! - Names, link-local, multicast and unspecified addresses may not.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use if_watch::IpNet;
use if_watch::tokio::IfWatcher;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::listen::ip_of;
use crate::support::task::Tasks;

/// Addresses given by callers that are remembered; the configured ones do not count.
const MAX_GIVEN: usize = 4_096;

/// The rule. Shared by the transport and the event loop.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Whether this node itself is reached by loopback.
    near: bool,
    /// What may change while it runs.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// First parts (address or name) of multiaddrs that the owner gave.
    given: HashSet<Multiaddr>,
    /// Subnets of this host's interfaces.
    subnets: Vec<IpNet>,
}

/// Whom an IP address can belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Loopback,
    Private,
    Global,
    /// Nobody that could be dialled.
    Nowhere,
}

// === impl Reach ===

impl Reach {
    /// The rule for a node that listens on `listening` and was given `bootstrap`.
    pub(super) fn new(listening: &[Multiaddr], bootstrap: &[Multiaddr]) -> Self {
        let near = listening.iter().any(|at| ip_of(at).is_some_and(|ip| ip.is_loopback()));
        let given = bootstrap.iter().filter_map(first_part).collect();
        Self { near, known: Mutex::new(Known { given, subnets: Vec::new() }) }
    }

    /// A caller gave this address.
    pub(super) fn give(&self, address: &Multiaddr) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.given.len() < MAX_GIVEN {
            known.given.extend(first_part(address));
        }
    }

    /// Whether `address` may be dialled.
    pub(super) fn allows(&self, address: &Multiaddr) -> bool {
        let given = first_part(address).is_some_and(|part| {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.given.contains(&part)
        });
        // Of a way through a relay the relay is what this node dials.
        let relay = || address.iter().take_while(|part| *part != Protocol::P2pCircuit).collect();
        given || ip_of(&relay()).is_some_and(|ip| self.allows_ip(ip))
    }

    /// Whether an IP address that nobody gave may be dialled.
    pub(super) fn allows_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match scope(ip) {
            Scope::Global => true,
            Scope::Loopback => self.near,
            Scope::Private => self.is_neighbour(ip),
            Scope::Nowhere => false,
        }
    }

    /// Whether the interfaces are not known (yet), so that nobody is seen to be a neighbour.
    pub(super) fn is_blind(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).subnets.is_empty()
    }

    /// Whether it is on a subnet of one of our interfaces.
    pub(super) fn is_neighbour(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(scope(ip), Scope::Private | Scope::Global)
            && known.subnets.iter().any(|subnet| subnet.contains(&ip))
    }

    /// Follows the host's interfaces until the tasks are told to stop.
    pub(super) fn watch(self: Arc<Self>, tasks: &Tasks) {
        let mut watcher = match IfWatcher::new() {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "cannot see the network interfaces; private addresses that others tell are not dialled");
                return;
            }
        };
        let stop = tasks.token();
        tasks.spawn("interfaces", async move {
            while let Some(Some(change)) = stop.run_until_cancelled(watcher.next()).await {
                if let Err(error) = change {
                    tracing::warn!(%error, "no longer following the network interfaces");
                    break;
                }
                let subnets = watcher.iter().copied().collect();
                self.known.lock().unwrap_or_else(PoisonError::into_inner).subnets = subnets;
            }
        });
    }
}

/// Whether an address may be dialled from anywhere.
pub(super) fn is_global(ip: IpAddr) -> bool {
    scope(ip.to_canonical()) == Scope::Global
}

fn scope(ip: IpAddr) -> Scope {
    if ip.is_loopback() {
        return Scope::Loopback;
    }
    let (nowhere, private) = match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let reserved = first == 0 || first >= 224;
            let shared = first == 100 && second & 0xc0 == 64;
            (reserved || ip.is_link_local() || ip == Ipv4Addr::BROADCAST, ip.is_private() || shared)
        }
        IpAddr::V6(ip) => {
            let nowhere = ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local();
            (nowhere, ip.is_unique_local())
        }
    };
    match (nowhere, private) {
        (true, _) => Scope::Nowhere,
        (false, true) => Scope::Private,
        (false, false) => Scope::Global,
    }
}

fn first_part(address: &Multiaddr) -> Option<Multiaddr> {
    address.iter().next().map(Multiaddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_cannot_choose_whom_we_knock_at() {
        let reach = Reach::new(&[at("/ip4/0.0.0.0/tcp/1")], &[]);
        for bad in [
            "/ip4/127.0.0.1/tcp/25",
            "/ip4/127.9.9.9/udp/53/quic-v1",
            "/ip6/::1/tcp/25",
            "/ip6/::ffff:127.0.0.1/tcp/25",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::/tcp/1",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/10.0.0.1/tcp/22",
            "/ip4/192.168.1.1/tcp/22",
            "/ip4/100.64.0.1/tcp/22",
            "/ip4/224.0.0.1/udp/1/quic-v1",
            "/ip4/255.255.255.255/udp/1/quic-v1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/ff02::1/udp/1/quic-v1",
            "/dns4/internal.example/tcp/1",
            "/p2p/12D3KooWAmwqg8qoL6hDmjttmqin8nAm3T9kjTyqm1rMnFzWfkHa/p2p-circuit",
        ] {
            assert!(!reach.allows(&at(bad)), "{bad}");
        }
        let relayed = |ip: &str| {
            let (relay, peer) = (PeerId::random(), PeerId::random());
            at(&format!("/ip4/{ip}/tcp/1/p2p/{relay}/p2p-circuit/p2p/{peer}"))
        };
        assert!(reach.allows(&relayed("203.0.113.1")) && !reach.allows(&relayed("10.0.0.1")));
        assert!(reach.allows(&at("/ip4/203.0.113.1/tcp/1")));
        assert!(reach.allows(&at("/ip6/2001:db8::1/tcp/1")));
    }

    #[test]
    fn what_the_owner_gives_may_be_dialled() {
        let reach = Reach::new(&[], &[at("/ip4/10.1.2.3/tcp/1"), at("/dns4/seed.example/tcp/1")]);
        assert!(reach.allows(&at("/ip4/10.1.2.3/tcp/2")) && reach.allows(&at("/dns4/seed.example/tcp/2")));
        assert!(!reach.allows(&at("/ip4/127.0.0.1/tcp/2")));
        reach.give(&at("/ip4/127.0.0.1/tcp/1"));
        assert!(reach.allows(&at("/ip4/127.0.0.1/tcp/2")));
    }

    #[test]
    fn neighbours_may_be_dialled() {
        let reach = Reach::new(&[at("/ip4/127.0.0.1/tcp/1")], &[]);
        reach.known.lock().unwrap().subnets =
            vec!["192.168.7.9/24".parse().unwrap(), "fd00:1::2/64".parse().unwrap()];
        for (address, allowed) in [
            ("/ip4/192.168.7.200/tcp/1", true),
            ("/ip4/192.168.8.1/tcp/1", false),
            ("/ip6/fd00:1::77/tcp/1", true),
            ("/ip6/fd00:2::77/tcp/1", false),
            ("/ip4/127.0.0.1/tcp/2", true),
        ] {
            assert_eq!(reach.allows(&at(address)), allowed, "{address}");
        }
        reach.known.lock().unwrap().subnets.push("203.0.113.9/28".parse().unwrap());
        for (ip, near) in [
            ("192.168.7.200", true),
            ("::ffff:192.168.7.200", true),
            ("192.168.8.1", false),
            ("203.0.113.14", true),
            ("203.0.113.16", false),
            ("127.0.0.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(reach.is_neighbour(ip.parse().unwrap()), near, "{ip}");
        }
    }
}
