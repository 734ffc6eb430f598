//! Joining the network by what a caller names: a link's addresses, or a chunk port.
//!
//! Owns: that whoever begins with a friend's link, or with a chunk port, becomes part of the network where that can be
//! had: a session at a chunk port alone finds and announces nothing. Refuses: to dial where this node is part of it
//! already, and more than a few addresses at once. Survives a crash: nothing; whom it met, the DHT remembers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select_ok};
use multiaddr::Protocol;
use tokio::sync::Semaphore;

use super::{Neighbours, Node};
use crate::peer::{Company, Host, Multiaddr, PeerAddr, PeerId, Reach, Unconnected};

/// Addresses of one link that are tried at once…
const ADDRESSES: usize = 4;
/// …and links of which some are. Others wait for these…
const TRYING: usize = 16;
/// …as long as there are no more in all.
const LINKS: usize = 64;

/// The wait before each time that a link's addresses are tried: whom they name, or the way there, may be coming up.
const WAITS: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];

/// Where the DHT of a node listens unless its settings say otherwise.
const DHT_PORT: u16 = 8468;

/// How long that port may take to answer, whose host has just answered at another.
const NEAR: Duration = Duration::from_secs(5);

/// Links by which the network is being joined. Clones share them.
#[derive(Clone)]
pub(super) struct Joins {
    /// Places for all of them.
    links: Arc<Semaphore>,
    /// Places for those whose addresses are being tried.
    trying: Arc<Semaphore>,
}

impl Default for Joins {
    fn default() -> Self {
        let [links, trying] = [LINKS, TRYING].map(|places| Arc::new(Semaphore::new(places)));
        Self { links, trying }
    }
}

impl Node {
    /// Connects to the network in the background by the libp2p addresses among these and, beside chunk ports, by the
    /// usual ones, where this node is not part of it, and again where nobody answers. The caller's own dials go on
    /// beside, and may well be faster at a chunk port.
    pub(super) fn join_by(&self, named: &[PeerAddr]) {
        let named = places(named);
        if named.is_empty() {
            return;
        }
        // Where there is no place, enough others are about to join by theirs.
        let Ok(link) = Arc::clone(&self.joins.links).try_acquire_owned() else { return };
        let (joins, neighbours) = (self.joins.clone(), Arc::clone(&self.parts.neighbours));
        let tasks = self.parts.tasks.clone();
        self.parts.tasks.spawn("join", async move {
            let _link = link;
            tokio::select! {
                () = join(&*neighbours, &joins.trying, &named, &WAITS) => {}
                () = tasks.stopping() => {}
            }
        });
    }

    /// Connects to a peer's DHT, where that listens at the usual port of this host, unless this node is part of the
    /// network. Whether it was, or is connected to that one now.
    pub(super) async fn join_near(&self, peer: PeerId, host: &Host) -> bool {
        let neighbours = &self.parts.neighbours;
        if !is_outside(&neighbours.company().await) {
            return true;
        }
        let tries = usual(peer, host).map(|at| neighbours.connect(at));
        matches!(tokio::time::timeout(NEAR, select_ok(tries)).await, Ok(Ok(_)))
    }
}

/// Connects by these addresses after each of the waits, as one of those who try at once, until somebody has answered or
/// the node is part of its network.
async fn join(neighbours: &dyn Neighbours, trying: &Semaphore, named: &[Multiaddr], waits: &[Duration]) {
    for wait in waits {
        tokio::time::sleep(*wait).await;
        // It is never closed.
        let Ok(_trying) = trying.acquire().await else { return };
        if !is_outside(&neighbours.company().await) {
            return;
        }
        let tries = join_all(named.iter().map(|at| neighbours.connect(at.clone()))).await;
        let met = tries.iter().filter(|tried| tried.is_ok()).count();
        tracing::debug!(met, tried = tries.len(), "joining by what a caller named");
        // Who has another network, or key, has that later too.
        if tries.iter().any(|tried| tried.as_ref().err().is_none_or(Unconnected::is_refusal)) {
            return;
        }
    }
}

/// Whether a node is no part of its network, though it may know of some: none of them answers, or none keeps records.
fn is_outside(company: &Company) -> bool {
    company.is_alone || company.is_unserved
}

/// Where the DHT of these may be, each place once: first as they say themselves.
fn places(named: &[PeerAddr]) -> Vec<Multiaddr> {
    let mut places: Vec<Multiaddr> = Vec::new();
    let said = named.iter().filter_map(|named| match &named.reach {
        Reach::Dht(address) => Some(address.clone()),
        Reach::Chunk(..) => None,
    });
    let near = named.iter().flat_map(|named| match &named.reach {
        Reach::Chunk(host, _) => usual(named.peer, host).to_vec(),
        Reach::Dht(_) => Vec::new(),
    });
    for place in said.chain(near) {
        if places.len() < ADDRESSES && !places.contains(&place) {
            places.push(place);
        }
    }
    places
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
    use crate::peer::Reachability;
    use futures::future::BoxFuture;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// One that is alone, and of whom others say this when they are dialled, one after the other.
    struct Lonely {
        answers: Vec<Result<PeerId, Unconnected>>,
        dialled: AtomicUsize,
    }

    impl Neighbours for Lonely {
        fn peers(&self) -> BoxFuture<'static, Vec<(PeerId, Vec<Multiaddr>, bool)>> {
            Box::pin(async { Vec::new() })
        }

        fn known(&self) -> BoxFuture<'static, Vec<(PeerId, bool)>> {
            Box::pin(async { Vec::new() })
        }

        fn joined(&self) -> BoxFuture<'static, bool> {
            Box::pin(async { false })
        }

        fn connect(&self, _: Multiaddr) -> BoxFuture<'static, Result<PeerId, Unconnected>> {
            let answer = self.answers[self.dialled.fetch_add(1, Ordering::SeqCst)].clone();
            Box::pin(std::future::ready(answer))
        }

        fn listen(&self) -> Vec<Multiaddr> {
            Vec::new()
        }

        fn company(&self) -> BoxFuture<'static, Company> {
            Box::pin(async { Company { is_alone: true, ..Company::default() } })
        }

        fn reachability(&self) -> Reachability {
            Reachability::default()
        }
    }

    /// How often one address is dialled that answers so.
    async fn dialled(answers: Vec<Result<PeerId, Unconnected>>) -> usize {
        let lonely = Lonely { answers, dialled: AtomicUsize::new(0) };
        let at = [Multiaddr::empty()];
        join(&lonely, &Semaphore::new(1), &at, &[Duration::ZERO; WAITS.len()]).await;
        lonely.dialled.into_inner()
    }

    #[tokio::test]
    async fn who_does_not_answer_is_tried_again() {
        let silent = || Err(Unconnected::Unreachable("it is not there yet".to_owned()));
        let there = Ok(PeerId::random());
        assert_eq!(dialled(vec![silent(), silent(), there.clone(), silent()]).await, 3);
        assert_eq!(dialled(vec![silent(), silent(), silent(), silent()]).await, WAITS.len());
        assert_eq!(dialled(vec![silent(), Err(Unconnected::OtherKey), there]).await, 2, "it was refused");
    }

    #[tokio::test]
    async fn a_link_for_which_there_is_no_place_waits_for_one() {
        let lonely = Lonely { answers: vec![Ok(PeerId::random())], dialled: AtomicUsize::new(0) };
        let (trying, at) = (Semaphore::new(0), [Multiaddr::empty()]);
        let mut waiting = pin!(join(&lonely, &trying, &at, &[Duration::ZERO]));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        trying.add_permits(1);
        waiting.await;
        assert_eq!(lonely.dialled.load(Ordering::SeqCst), 1);
    }

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
    fn what_a_link_says_of_the_dht_comes_first_and_few_places_are_tried() {
        let peer = crate::peer::Keypair::generate_ed25519().public().to_peer_id();
        let read =
            |texts: &[String]| -> Vec<PeerAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let shown = |texts: &[String]| -> Vec<String> {
            places(&read(texts)).iter().map(ToString::to_string).collect()
        };
        let (quic, tcp) = ("/ip4/10.0.0.7/udp/8468/quic-v1/p2p/", "/ip4/10.0.0.7/tcp/8468/p2p/");
        let usual = [format!("{quic}{peer}"), format!("{tcp}{peer}")];
        let (chunk, own) = (format!("{peer}@10.0.0.7:9000"), format!("/ip4/10.0.0.7/tcp/1/p2p/{peer}"));
        assert_eq!(shown(std::slice::from_ref(&chunk)), usual);
        assert_eq!(shown(&[chunk.clone(), usual[1].clone()]), [usual[1].clone(), usual[0].clone()]);
        assert_eq!(shown(&[chunk, own.clone()])[0], own);
        let many: Vec<_> = (0..60).map(|host| format!("{peer}@10.0.1.{host}:9000")).collect();
        assert_eq!(shown(&many).len(), ADDRESSES);
    }
}
