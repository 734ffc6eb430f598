//! Joining the network by what a caller names: a link's addresses, or a chunk port.
//!
//! Owns: that whoever begins with a friend's link, or with a chunk port, becomes part of the network where that can be
//! had: a session at a chunk port alone finds and announces nothing. Refuses: to dial where this node knows others
//! already, and more than a few addresses at once. Survives a crash: nothing; whom it met, the DHT remembers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select_ok};
use multiaddr::Protocol;

use super::Node;
use crate::peer::{Host, Multiaddr, PeerAddr, PeerId, Reach};

/// Callers' addresses that are tried at once: of one link, and links.
const ADDRESSES: usize = 4;
pub(super) const JOINS: usize = 4;

/// Where the DHT of a node listens unless its settings say otherwise.
const DHT_PORT: u16 = 8468;

/// How long that port may take to answer, whose host has just answered at another.
const NEAR: Duration = Duration::from_secs(5);

impl Node {
    /// Connects to the network in the background by the libp2p addresses among these, where nobody is known yet. The
    /// caller's own dials go on beside, and may well be faster at a chunk port.
    pub(super) fn join_by(&self, named: &[PeerAddr]) {
        let named: Vec<Multiaddr> = named.iter().filter_map(dht).take(ADDRESSES).collect();
        if named.is_empty() {
            return;
        }
        // Where there is no place, others are about to join by theirs.
        let Ok(join) = Arc::clone(&self.joins).try_acquire_owned() else { return };
        let (neighbours, tasks) = (Arc::clone(&self.parts.neighbours), self.parts.tasks.clone());
        self.parts.tasks.spawn("join", async move {
            let _join = join;
            let joining = async {
                if neighbours.known().await.is_empty() {
                    let tries = join_all(named.into_iter().map(|at| neighbours.connect(at))).await;
                    let met = tries.iter().filter(|tried| tried.is_ok()).count();
                    tracing::debug!(met, tried = tries.len(), "joining by what a caller named");
                }
            };
            tokio::select! {
                () = joining => {}
                () = tasks.stopping() => {}
            }
        });
    }

    /// Connects to a peer's DHT, where that listens at the usual port of this host, unless others are known. Whether
    /// this node has become, or was, part of the network.
    pub(super) async fn join_near(&self, peer: PeerId, host: &Host) -> bool {
        let neighbours = &self.parts.neighbours;
        if !neighbours.known().await.is_empty() {
            return true;
        }
        let tries = usual(peer, host).map(|at| neighbours.connect(at));
        matches!(tokio::time::timeout(NEAR, select_ok(tries)).await, Ok(Ok(_)))
    }
}

fn dht(named: &PeerAddr) -> Option<Multiaddr> {
    match &named.reach {
        Reach::Dht(address) => Some(address.clone()),
        Reach::Chunk(..) => None,
    }
}

/// Where a peer's DHT listens on a host by default.
fn usual(peer: PeerId, host: &Host) -> [Multiaddr; 2] {
    let host = match host {
        Host::Ip(ip) => Multiaddr::from(*ip),
        Host::Name(name) => Multiaddr::empty().with(Protocol::Dns(name.as_str().into())),
    };
    let quic = host.clone().with(Protocol::Udp(DHT_PORT)).with(Protocol::QuicV1);
    [quic, host.with(Protocol::Tcp(DHT_PORT))].map(|at| at.with(Protocol::P2p(peer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_addresses_of_a_host_are_such_as_its_status_shows() {
        let peer = PeerId::random();
        let texts = |host: &Host| usual(peer, host).map(|at| at.to_string());
        let ends = ["udp/8468/quic-v1", "tcp/8468"];
        let expected = |host: &str| ends.map(|end| format!("/{host}/{end}/p2p/{peer}"));
        assert_eq!(texts(&Host::Ip([10, 77, 1, 1].into())), expected("ip4/10.77.1.1"));
        assert_eq!(texts(&Host::Ip("2001:db8::1".parse().unwrap())), expected("ip6/2001:db8::1"));
        assert_eq!(texts(&Host::Name("a.example".to_owned())), expected("dns/a.example"));
    }

    #[test]
    fn of_what_a_link_names_the_libp2p_addresses_are_of_use() {
        let peer = PeerId::random();
        let chunk: PeerAddr = format!("{peer}@10.0.0.7:9000").parse().unwrap();
        assert_eq!(dht(&chunk), None);
        let [at, _] = usual(peer, &Host::Ip([10, 0, 0, 7].into()));
        assert_eq!(dht(&PeerAddr::try_from(at.clone()).unwrap()), Some(at));
    }
}
