//! Which addresses may be dialled.
//!
//! Owns: the rule, and what it needs to know: the addresses that the owner gave, and the subnets of this
//! host's interfaces. Refuses: addresses by which a stranger could make this node knock at its own host, at
//! its neighbours' services or at names. Survives a crash: nothing.
//!
//! - What was configured or given by a caller may be dialled, whatever it is.
//! - Of what others tell, this node's own addresses may not, and neither may ports below 1024, but for 443: there are
//!   services that are no nodes.
//! - Other ports of a host that was given may be dialled.
//! - A global IP address may be dialled.
//! - A private one (see [`Scope`]) may, inside a subnet of one of our interfaces, where a peer of an
//!   earlier run was, and where the network has a key: whoever tells it has proved that.
//! - A loopback one may, when this node itself is reached by loopback.
//! - A way through a relay may, where the relay may.
//! - Names may only where they were given, also in an earlier run; link-local, multicast and unspecified addresses
//!   may not.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use if_watch::tokio::IfWatcher;
use if_watch::{IfEvent, IpNet};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::Notify;

use super::dialled::Dialled;
use super::given::{Given, port};
use super::listen::{ip_of, is_name, is_plain};
use super::own::{End, Own, is_privileged};
use crate::peer::Scope;
use crate::support::task::Tasks;

/// The rule. Shared by the transport and the event loop.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Whether this node itself is reached by loopback.
    near: bool,
    /// Whether the network has a key, which whoever tells of an address has proved.
    among_members: bool,
    /// Whether everything may be dialled: see [`Options::dials_everything`](super::Options).
    open: bool,
    /// What may change while it runs.
    known: Mutex<Known>,
    /// This host has a new address.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// What the owner gave.
    given: Given,
    /// Subnets of this host's interfaces.
    subnets: Vec<IpNet>,
    /// Where peers of earlier runs were, on private networks: they may be behind a router, on none of our subnets.
    recalled: HashSet<End>,
    /// Where this node itself is.
    own: Own,
    /// Where it has dialled lately…
    dialled: Dialled<IpAddr>,
    /// …and whom.
    called: Dialled<PeerId>,
}

// === impl Known ===

impl Known {
    /// Whether an interface has this address.
    fn has(&self, ip: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.addr().to_canonical() == ip)
    }
}

// === impl Reach ===

impl Reach {
    /// The rule for a node that listens on `listening` and was given `bootstrap`.
    pub(super) fn new(listening: &[Multiaddr], bootstrap: &[Multiaddr]) -> Self {
        let near = listening.iter().any(|at| ip_of(at).is_some_and(|ip| ip.is_loopback()));
        let known = Known { given: Given::new(bootstrap), ..Known::default() };
        Self { near, among_members: false, open: false, known: Mutex::new(known), moved: Notify::new() }
    }

    /// … in a network that has a key, where `among_members`.
    pub(super) fn within(self, among_members: bool) -> Self {
        Self { among_members, ..self }
    }

    /// Without the rule, where `open`.
    pub(super) fn opened(self, open: bool) -> Self {
        Self { open, ..self }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A caller gave this address.
    pub(super) fn give(&self, address: &Multiaddr) {
        self.known().given.give(address);
    }

    /// These are addresses of peers of earlier runs. At the first of a peer's it was seen, and so at others of its
    /// host; where that is a name, the owner gave it.
    pub(super) fn recall<'p>(&self, peers: impl Iterator<Item = &'p [Multiaddr]>) {
        let (mut known, mut recalled) = (self.known(), HashSet::new());
        for addresses in peers {
            let first = addresses.first();
            if let Some(name) = first.filter(|at| is_plain(at) && is_name(at)) {
                known.given.give(name);
            }
            let host = first.and_then(ip_of).map(|ip| ip.to_canonical());
            let ends = addresses.iter().filter(|at| is_plain(at)).filter_map(End::of);
            recalled.extend(ends.filter(|end| Some(end.ip) == host && Scope::of(end.ip) == Scope::Private));
        }
        known.recalled = recalled;
    }

    /// From now on this node itself is there, and nowhere else.
    pub(super) fn stand(&self, own: Own) {
        self.known().own = own;
    }

    /// Whether the owner gave just this address.
    pub(super) fn is_given(&self, address: &Multiaddr) -> bool {
        self.known().given.has(address)
    }

    /// A dial of `address` begins.
    pub(super) fn dials(&self, address: &Multiaddr, now: Instant) {
        let mut known = self.known();
        if let Some(ip) = ip_of(address) {
            known.dialled.note(ip.to_canonical(), now);
        }
        if let Some(Protocol::P2p(peer)) = address.iter().last() {
            known.called.note(peer, now);
        }
    }

    /// When a dial of a peer, at any of its addresses, had its turn last.
    pub(super) fn called(&self, peer: &PeerId) -> Option<Instant> {
        self.known().called.last(peer)
    }

    /// Whether something at `ip` was dialled lately, or may have been.
    pub(super) fn has_dialled(&self, ip: IpAddr, now: Instant) -> bool {
        self.known().dialled.has(&ip.to_canonical(), now)
    }

    /// Whether `address` may be dialled.
    pub(super) fn allows(&self, address: &Multiaddr) -> bool {
        if self.open {
            return true;
        }
        if !is_plain(address) {
            return false;
        }
        if self.is_given(address) {
            return true;
        }
        // Of a way through a relay the relay is what this node dials.
        let address: &Multiaddr = &address.iter().take_while(|part| *part != Protocol::P2pCircuit).collect();
        let (is_for_nodes, end) = (port(address).is_some_and(|port| !is_privileged(port)), End::of(address));
        if !is_for_nodes || end.as_ref().is_some_and(|end| self.is_own(end)) {
            return false;
        }
        let known = self.known();
        let is_known = known.given.has_host(address) || end.is_some_and(|end| known.recalled.contains(&end));
        drop(known);
        is_known || ip_of(address).is_some_and(|ip| self.allows_ip(ip))
    }

    /// Whether a node may be at a chunk port that a node seen at `remote` tells, or that it tells to be its own: where
    /// the rule allows it, or where the connection shows that it really is there. Loopback only over loopback.
    pub(super) fn allows_chunk(&self, at: SocketAddr, remote: Option<IpAddr>) -> bool {
        if self.open {
            return true;
        }
        let (ip, remote) = (at.ip().to_canonical(), remote.map(|ip| ip.to_canonical()));
        let is_near = if ip.is_loopback() {
            remote.is_some_and(|ip| ip.is_loopback())
        } else {
            self.allows_ip(ip) || remote == Some(ip)
        };
        is_near && !is_privileged(at.port()) && !self.is_own(&End::chunk(at))
    }

    /// Whether this node itself is there.
    fn is_own(&self, end: &End) -> bool {
        let known = self.known();
        known.own.is(end, |ip| known.has(ip))
    }

    /// Whether it is the address of one of this host's interfaces.
    pub(super) fn is_ours(&self, ip: IpAddr) -> bool {
        self.known().has(ip.to_canonical())
    }

    /// Whether an IP address that nobody gave may be dialled.
    pub(super) fn allows_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match Scope::of(ip) {
            Scope::Global => true,
            Scope::Loopback => self.near,
            Scope::Private => self.among_members || self.is_neighbour(ip),
            Scope::Nowhere => false,
        }
    }

    /// As if this host had one interface, with this address and subnet.
    #[cfg(test)]
    pub(super) fn be_in(&self, subnet: &str) {
        self.known().subnets = subnet.parse().into_iter().collect();
    }

    /// Whether the interfaces are not known (yet), so that nobody is seen to be a neighbour.
    pub(super) fn is_blind(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).subnets.is_empty()
    }

    /// Whether it is on a subnet of one of our interfaces.
    pub(super) fn is_neighbour(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let known = self.known();
        matches!(Scope::of(ip), Scope::Private | Scope::Global)
            && known.subnets.iter().any(|subnet| subnet.contains(&ip))
    }

    /// Waits until this host has a new address.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
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
                let change = match change {
                    Ok(change) => change,
                    Err(error) => {
                        tracing::warn!(%error, "no longer following the network interfaces");
                        break;
                    }
                };
                let subnets = watcher.iter().copied().collect();
                self.known().subnets = subnets;
                if let IfEvent::Up(net) = change
                    && matches!(Scope::of(net.addr()), Scope::Private | Scope::Global)
                {
                    self.moved.notify_one();
                }
            }
        });
    }
}

/// Whether an address may be dialled from anywhere.
pub(super) fn is_global(ip: IpAddr) -> bool {
    Scope::of(ip) == Scope::Global
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
            "/ip4/127.0.0.1/tcp/8468",
            "/ip4/127.9.9.9/udp/8468/quic-v1",
            "/ip6/::1/tcp/8468",
            "/ip6/::ffff:127.0.0.1/tcp/8468",
            "/ip4/0.0.0.0/tcp/8468",
            "/ip6/::/tcp/8468",
            "/ip4/169.254.169.254/tcp/8468",
            "/ip4/10.0.0.1/tcp/8468",
            "/ip4/192.168.1.1/tcp/8468",
            "/ip4/100.64.0.1/tcp/8468",
            "/ip4/224.0.0.1/udp/8468/quic-v1",
            "/ip4/255.255.255.255/udp/8468/quic-v1",
            "/ip6/fd00::1/tcp/8468",
            "/ip6/fe80::1/tcp/8468",
            "/ip6/ff02::1/udp/8468/quic-v1",
            "/dns4/internal.example/tcp/8468",
            "/ip4/203.0.113.1/tcp/22",
            "/ip4/203.0.113.1/udp/53/quic-v1",
            "/ip6/2001:db8::1/tcp/1023",
            "/p2p/12D3KooWAmwqg8qoL6hDmjttmqin8nAm3T9kjTyqm1rMnFzWfkHa/p2p-circuit",
        ] {
            assert!(!reach.allows(&at(bad)), "{bad}");
        }
        for two in
            ["/ip4/203.0.113.1/tcp/8468/ip4/127.0.0.1/tcp/8468", "/ip4/203.0.113.1/tcp/8468/dns4/x/tcp/8468"]
        {
            reach.give(&at("/ip4/203.0.113.1/tcp/8468"));
            assert!(!reach.allows(&at(two)), "{two}");
        }
        let relayed = |ip: &str| {
            let (relay, peer) = (PeerId::random(), PeerId::random());
            at(&format!("/ip4/{ip}/tcp/1024/p2p/{relay}/p2p-circuit/p2p/{peer}"))
        };
        assert!(reach.allows(&relayed("203.0.113.1")) && !reach.allows(&relayed("10.0.0.1")));
        assert!(reach.allows(&at("/ip4/203.0.113.1/tcp/1024")));
        assert!(reach.allows(&at("/ip6/2001:db8::1/udp/443/quic-v1")));
    }

    #[test]
    fn what_the_owner_gives_may_be_dialled() {
        let reach = Reach::new(&[], &[at("/ip4/10.1.2.3/tcp/1"), at("/dns4/seed.example/tcp/1")]);
        assert!(reach.allows(&at("/ip4/10.1.2.3/tcp/1")) && reach.allows(&at("/dns4/seed.example/tcp/1")));
        // Another port of that host only where nodes are.
        assert!(
            reach.allows(&at("/ip4/10.1.2.3/tcp/2000")) && reach.allows(&at("/dns4/seed.example/tcp/2000"))
        );
        assert!(
            !reach.allows(&at("/ip4/10.1.2.3/tcp/22")) && !reach.allows(&at("/dns4/seed.example/tcp/22"))
        );
        assert!(!reach.allows(&at("/ip4/127.0.0.1/tcp/2000")));
        reach.give(&at("/ip4/127.0.0.1/tcp/1"));
        assert!(reach.allows(&at("/ip4/127.0.0.1/tcp/2000")) && reach.is_given(&at("/ip4/127.0.0.1/tcp/1")));
    }

    #[test]
    fn neighbours_may_be_dialled() {
        let reach = Reach::new(&[at("/ip4/127.0.0.1/tcp/1")], &[]);
        reach.known.lock().unwrap().subnets =
            vec!["192.168.7.9/24".parse().unwrap(), "fd00:1::2/64".parse().unwrap()];
        for (address, allowed) in [
            ("/ip4/192.168.7.200/tcp/8468", true),
            ("/ip4/192.168.7.200/tcp/22", false),
            ("/ip4/192.168.8.1/tcp/8468", false),
            ("/ip6/fd00:1::77/tcp/8468", true),
            ("/ip6/fd00:2::77/tcp/8468", false),
            ("/ip4/127.0.0.1/tcp/8468", true),
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
        for (ip, ours) in [("203.0.113.9", true), ("203.0.113.14", false), ("::ffff:192.168.7.9", true)] {
            assert_eq!(reach.is_ours(ip.parse().unwrap()), ours, "{ip}");
        }
    }

    #[test]
    fn who_has_the_key_may_be_dialled_behind_a_router_as_well() {
        let listen = [at("/ip4/0.0.0.0/udp/8468/quic-v1"), at("/ip4/0.0.0.0/tcp/8468")];
        let [open, keyed] = [false, true].map(|among_members| {
            let reach = Reach::new(&listen, &[]).within(among_members);
            reach.known().subnets = vec!["10.77.1.2/24".parse().unwrap()];
            reach.stand(Own::new(listen.iter(), &listen, &["0.0.0.0:9000".parse().unwrap()]));
            reach
        });
        for private in [
            "/ip4/10.77.2.3/udp/8468/quic-v1",
            "/ip4/172.16.0.1/tcp/443",
            "/ip4/192.168.9.9/tcp/8468",
            "/ip4/100.64.0.1/tcp/8468",
            "/ip6/fd00::1/tcp/8468",
        ] {
            assert!(keyed.allows(&at(private)) && !open.allows(&at(private)), "{private}");
        }
        for bad in [
            "/ip4/127.0.0.1/tcp/8470",
            "/ip6/::1/tcp/8470",
            "/ip4/169.254.169.254/tcp/8468",
            "/ip6/fe80::1/tcp/8468",
            "/ip4/224.0.0.251/udp/5353/quic-v1",
            "/ip4/0.0.0.0/tcp/8468",
            "/ip4/10.77.2.3/tcp/22",
            "/dns4/internal.example/tcp/8468",
            // Our own.
            "/ip4/10.77.1.2/tcp/8468",
            "/ip4/10.77.1.2/tcp/9000",
        ] {
            assert!(!keyed.allows(&at(bad)), "{bad}");
        }
        // A chunk port likewise, seen from elsewhere.
        let seen = Some(IpAddr::from([10, 77, 1, 1]));
        let chunk = |reach: &Reach, at: &str| reach.allows_chunk(at.parse().unwrap(), seen);
        assert!(chunk(&keyed, "10.77.2.3:9000") && !chunk(&open, "10.77.2.3:9000"));
        for bad in ["10.77.2.3:25", "127.0.0.1:9001", "169.254.1.1:9000", "10.77.1.2:9000"] {
            assert!(!chunk(&keyed, bad), "{bad}");
        }
    }

    #[test]
    fn where_peers_of_earlier_runs_were_may_be_dialled_behind_a_router_as_well() {
        let reach = Reach::new(&[at("/ip4/0.0.0.0/tcp/1")], &[]);
        let addresses =
            ["/ip4/10.77.0.2/udp/8468/quic-v1", "/ip4/10.77.0.2/tcp/9999", "/ip4/10.77.0.3/tcp/8468"];
        let (behind, near) =
            (addresses.map(at), [at("/ip4/127.0.0.1/tcp/8468"), at("/ip4/127.0.0.1/tcp/8469")]);
        let low = [at("/ip4/10.77.0.4/tcp/22")];
        let named = ["/dns4/a.example/tcp/8468", "/dns4/b.example/tcp/8468"].map(at);
        assert!(!reach.allows(&behind[0]));
        reach.recall([behind.as_slice(), &near, &low, &named].into_iter());
        assert!(reach.allows(&behind[0]) && reach.allows(&behind[1]) && reach.allows(&named[0]));
        // Of another host the peer has only told, and of other ports nobody has said anything.
        for bad in [&behind[2], &at("/ip4/10.77.0.2/udp/9999/quic-v1"), &near[0], &low[0], &named[1]] {
            assert!(!reach.allows(bad), "{bad}");
        }
    }

    #[test]
    fn a_node_does_not_dial_itself() {
        let listen = [at("/ip4/0.0.0.0/tcp/8468")];
        let reach = Reach::new(&listen, &[at("/ip4/203.0.113.7/tcp/8470")]);
        reach.known().subnets = vec!["192.168.7.9/24".parse().unwrap()];
        let told = [at("/ip4/203.0.113.7/tcp/8468")];
        reach.stand(Own::new(told.iter(), &listen, &["0.0.0.0:9000".parse().unwrap()]));
        for mine in ["/ip4/203.0.113.7/tcp/8468", "/ip4/192.168.7.9/tcp/8468", "/ip4/203.0.113.7/tcp/9000"] {
            assert!(!reach.allows(&at(mine)), "{mine}");
        }
        assert!(reach.allows(&at("/ip4/203.0.113.7/tcp/8469")), "another node of this host");
        let chunk = |port: u16, seen: &str| {
            reach.allows_chunk(SocketAddr::from(([192, 168, 7, 9], port)), seen.parse().ok())
        };
        assert!(!chunk(9000, "192.168.7.9") && chunk(9001, "192.168.7.9") && !chunk(80, "192.168.7.9"));
        assert!(Reach::default().opened(true).allows(&at("/ip4/127.0.0.1/tcp/1")));
    }
}
