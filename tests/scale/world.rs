//! A network of nodes: it grows, nodes come and go, it is cut and mended, all from a seed.
//!
//! Owns: the nodes that are up, and who holds which key. The seed fixes addresses, who joins by whom, who holds what,
//! who leaves and who looks for what; it does not fix the order in which tasks run.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use casd::dht::Mode;
use casd::peer::{Announcing, Key, Keypair, Kind, PeerId};
use futures::stream::{self, StreamExt};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};

use crate::hops::Tables;
use crate::hosts::Net;
use crate::liar::Liar;
use crate::node::{Found, Node, Sort};
use crate::siege;

/// Nodes that a new one is told to join by.
const BOOTSTRAP: usize = 3;
/// Nodes that start at once.
const WAVE: usize = 20;
/// Longer than many keys take.
const MANY: Duration = Duration::from_secs(600);
/// Honest nodes near a besieged key to which the liars make themselves known.
const NEIGHBOURS: usize = 20;
/// Look-ups at once.
pub(crate) const AT_ONCE: usize = 32;
/// Keys drawn until one is of another node than who looks for it.
const DRAWS: usize = 20;
/// Until all nodes know somebody.
const JOINING: Duration = Duration::from_secs(120);
/// Ports of the DHT.
pub(crate) const PORT: u16 = 8468;

/// What announcing many keys came to.
#[derive(Debug, Default)]
pub(crate) struct Many {
    pub(crate) placed: u64,
    pub(crate) queued: usize,
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) look_ups: u64,
    pub(crate) refused: u64,
    /// Keys that the node looked up again, and those of them that could be found.
    pub(crate) audited: (u64, u64),
    /// Until all others found an object that was added meanwhile, when all did.
    pub(crate) object: Option<Duration>,
    /// Bytes that the process grew by when the keys were held.
    pub(crate) own: u64,
}

/// What it came to that all nodes announced keys.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) keys: usize,
    /// Of them, keys that were announced in time.
    pub(crate) placed: usize,
    /// Since the nodes started.
    pub(crate) look_ups: u64,
    pub(crate) messages: u64,
}

/// See the module.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) rng: SmallRng,
    /// Whether nodes mind how many others are of one address group.
    is_defended: bool,
    pub(crate) nodes: Vec<Node>,
    pub(crate) liars: Vec<Liar>,
    /// Keys and who holds them.
    pub(crate) held: Vec<(Key, PeerId)>,
    /// Addresses that are taken, or were.
    taken: HashSet<IpAddr>,
}

impl World {
    pub(crate) fn new(seed: u64, is_defended: bool) -> Self {
        let (net, rng) = (Net::default(), SmallRng::seed_from_u64(seed));
        Self {
            net,
            rng,
            is_defended,
            nodes: Vec::new(),
            liars: Vec::new(),
            held: Vec::new(),
            taken: HashSet::new(),
        }
    }

    /// Lets the network grow to `count` nodes and waits until each knows somebody.
    pub(crate) async fn grow(&mut self, count: usize) -> Result<(), String> {
        while self.nodes.len() < count {
            let more = WAVE.min(count - self.nodes.len()).min(self.nodes.len().max(1));
            let places: Vec<_> = (0..more).map(|_| (self.address(), self.entrances())).collect();
            let (net, sort) = (&self.net, Sort { is_defended: self.is_defended, mode: Mode::Server });
            let started = places.into_iter().map(|(at, by)| Node::start(net, at, by, sort));
            for node in futures::future::join_all(started).await {
                self.nodes.push(node?);
            }
            self.joined().await?;
        }
        Ok(())
    }

    async fn joined(&self) -> Result<(), String> {
        let wanted = (self.nodes.len() - 1).min(BOOTSTRAP);
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        let begun = Instant::now();
        for node in &self.nodes {
            while node.status().await.routed < wanted {
                if begun.elapsed() > JOINING {
                    return Err(format!("{} knows too few others", node.at));
                }
                poll.tick().await;
            }
        }
        Ok(())
    }

    /// An address that nobody has had: global, and each in a /16 of its own as long as there are any.
    fn address(&mut self) -> SocketAddr {
        loop {
            let [a, b, c, d] = self.rng.random::<[u8; 4]>();
            let is_plain = (1..100).contains(&a) && a != 10 && (1..255).contains(&d);
            let ip = IpAddr::from(Ipv4Addr::new(a, b, c, d));
            if is_plain && self.taken.insert(ip) {
                return SocketAddr::new(ip, PORT);
            }
        }
    }

    pub(crate) fn entrances(&mut self) -> Vec<casd::peer::Multiaddr> {
        self.nodes.iter().choose_multiple(&mut self.rng, BOOTSTRAP).into_iter().map(Node::address).collect()
    }

    /// Every node announces `each` keys of its own. A few nodes at a time: all of them share the processors that each
    /// would have to itself.
    pub(crate) async fn announce(&mut self, each: usize) -> Placed {
        let Self { rng, nodes, held, .. } = self;
        let drawn = nodes.iter().map(|node| (node, (0..each).map(|_| rng.random()).collect::<Vec<Key>>()));
        let drawn: Vec<_> = drawn.collect();
        held.extend(drawn.iter().flat_map(|(node, keys)| keys.iter().map(|key| (*key, node.peer))));
        let announcing = drawn.into_iter().map(|(node, keys)| async move {
            node.hold(&keys, Kind::Object);
            node.announced(MANY).await
        });
        let all: Vec<_> = stream::iter(announcing).buffer_unordered(AT_ONCE).collect().await;
        let keys = all.iter().map(|one| one.keys).sum();
        let queued: usize = all.iter().map(|one| one.queued).sum();
        let sum = |of: fn(&Announcing) -> u64| all.iter().map(of).sum();
        Placed {
            keys,
            placed: keys - queued,
            look_ups: sum(|one| one.look_ups),
            messages: sum(|one| one.messages),
        }
    }

    /// One node announces `count` chunks. What that came to, and meanwhile: how long after an object's add each of the
    /// others finds it.
    pub(crate) async fn announce_many(&mut self, count: usize) -> Many {
        let Self { rng, nodes, held, .. } = self;
        let Some((node, others)) = nodes.split_first() else { return Many::default() };
        let (before, begun) = (node.announced(Duration::ZERO).await, Instant::now());
        let keys: Vec<Key> = (0..count).map(|_| rng.random()).collect();
        let resident = resident();
        node.hold(&keys, Kind::Chunk);
        let own = self::resident().saturating_sub(resident);
        held.extend(keys.into_iter().map(|key| (key, node.peer)));
        let beside = async {
            let key: Key = rng.random();
            let added = Instant::now();
            node.place(key).await;
            let placed = added.elapsed();
            let looks = others.iter().map(|other| other.find(key, node.peer));
            let found = futures::future::join_all(looks).await;
            let last = found.iter().map(|one| one.after).max().flatten();
            last.filter(|_| found.iter().all(|one| one.after.is_some())).map(|last| placed + last)
        };
        let (after, object) = tokio::join!(node.announced(MANY), beside);
        Many {
            placed: after.placed - before.placed,
            queued: after.queued,
            seconds: begun.elapsed().as_secs_f64(),
            messages: after.messages - before.messages,
            look_ups: after.look_ups - before.look_ups,
            refused: after.refused - before.refused,
            audited: (after.audited - before.audited, after.found - before.found),
            object,
            own,
        }
    }

    /// Hops from a node to a key: the median and the most of as many pairs as there are nodes.
    pub(crate) async fn hops(&mut self) -> (u64, u64) {
        let tables = Tables::of(&self.nodes).await;
        let mut hops: Vec<u64> =
            self.nodes.iter().map(|node| tables.hops(node.peer, self.rng.random())).collect();
        hops.sort_unstable();
        (hops.get(hops.len() / 2).copied().unwrap_or(0), hops.last().copied().unwrap_or(0))
    }

    /// `count` look-ups among the last `of` keys that were announced; those are forgotten then.
    pub(crate) async fn look_up_last(&mut self, count: usize, of: usize) -> Vec<Found> {
        let last = self.held.split_off(self.held.len().saturating_sub(of));
        let others = std::mem::replace(&mut self.held, last);
        let found = self.look_up(count).await;
        self.held = others;
        found
    }

    /// `count` look-ups of keys whose holders are up, each from another node, a few at a time.
    pub(crate) async fn look_up(&mut self, count: usize) -> Vec<Found> {
        let Self { rng, nodes, held, .. } = self;
        let up: HashSet<_> = nodes.iter().map(|node| node.peer).collect();
        held.retain(|(_, holder)| up.contains(holder));
        // No node makes two at once, or their questions could not be told apart.
        let mut found = Vec::new();
        while found.len() < count {
            let seekers = nodes
                .iter()
                .choose_multiple(rng, AT_ONCE.min(count - found.len()).min(nodes.len().div_ceil(2)));
            let looks = seekers.into_iter().filter_map(|node| {
                let mut drawn = (0..DRAWS).map_while(|_| held.choose(rng));
                let (key, holder) = drawn.find(|(_, holder)| *holder != node.peer)?;
                Some(node.find(*key, *holder))
            });
            let round = futures::future::join_all(looks.collect::<Vec<_>>()).await;
            if round.is_empty() {
                break;
            }
            found.extend(round);
        }
        found
    }

    /// `count` nodes leave, every second one without a word, and as many new ones join.
    pub(crate) async fn replace(&mut self, count: usize) -> Result<(), String> {
        let size = self.nodes.len();
        let leaving = count.min(size.saturating_sub(1));
        for number in 0..leaving {
            let place = self.rng.random_range(0..self.nodes.len());
            self.nodes.swap_remove(place).leave(number % 2 == 0).await;
        }
        self.grow(size).await
    }

    /// `count` liars join, who all know each other.
    pub(crate) fn corrupt(&mut self, count: usize) -> Result<(), String> {
        let liars: Vec<_> = (0..count).map(|_| (Keypair::generate_ed25519(), self.address())).collect();
        for liar in &liars {
            let entrances = self.entrances();
            self.liars.push(Liar::start(&self.net, liar, entrances, &liars, &[])?);
        }
        Ok(())
    }

    /// `count` liars from `networks` address groups become the nearest to a key, and then a node announces it. As still
    /// nearer ones they name twenty nodes that are not there.
    pub(crate) async fn besiege(&mut self, count: usize, networks: usize) -> Result<Key, String> {
        let key: Key = self.rng.random();
        let hosts = siege::addresses(&mut self.rng, count, networks, PORT);
        let liars: Vec<_> = siege::identities(key, count, self.nodes.len()).into_iter().zip(hosts).collect();
        // They make themselves known to whoever is asked on the way to the key.
        let all: Vec<PeerId> = self.nodes.iter().map(|node| node.peer).collect();
        let near = siege::nearest(&all, key, NEIGHBOURS);
        let neighbours = self.nodes.iter().filter(|node| near.contains(&node.peer));
        let entrances: Vec<_> = neighbours.map(Node::address).collect();
        let nobody = siege::nobody(key, 20, self.nodes.len());
        for liar in &liars {
            self.liars.push(Liar::start(&self.net, liar, entrances.clone(), &liars, &nobody)?);
        }
        self.known(&near, &liars).await?;
        let holder = self.rng.random_range(0..self.nodes.len());
        self.nodes[holder].place(key).await;
        self.held.push((key, self.nodes[holder].peer));
        Ok(key)
    }

    /// Waits until the neighbours of the key know twenty of the liars between them. One alone need not ever do that:
    /// all liars may belong in one bucket of it, beside honest nodes.
    async fn known(&self, near: &[PeerId], liars: &[(Keypair, SocketAddr)]) -> Result<(), String> {
        let liars: HashSet<PeerId> = liars.iter().map(|(keypair, _)| keypair.public().to_peer_id()).collect();
        let mut poll = tokio::time::interval(Duration::from_millis(100));
        let begun = Instant::now();
        loop {
            let mut known = HashSet::new();
            for node in self.nodes.iter().filter(|node| near.contains(&node.peer)) {
                let routed = node.dht.peers().await.into_iter().filter(|view| view.routed);
                known.extend(routed.map(|view| view.peer).filter(|peer| liars.contains(peer)));
            }
            if known.len() >= 20 {
                return Ok(());
            }
            if begun.elapsed() > JOINING {
                return Err("nobody near the key knows the liars".into());
            }
            poll.tick().await;
        }
    }

    /// Look-ups of one key from `count` nodes, a few at a time.
    pub(crate) async fn look_up_besieged(&mut self, key: Key, count: usize) -> Vec<Found> {
        let Some((_, holder)) = self.held.iter().rfind(|(held, _)| *held == key).copied() else {
            return Vec::new();
        };
        let others = self.nodes.iter().filter(|node| node.peer != holder).take(count);
        stream::iter(others).map(|node| node.find(key, holder)).buffer_unordered(AT_ONCE).collect().await
    }

    /// Cuts the network in two halves; false joins them again.
    pub(crate) fn cut(&self, is_cut: bool) {
        for (number, node) in self.nodes.iter().enumerate() {
            self.net.put(node.at, u8::from(is_cut && number % 2 == 0));
        }
    }

    /// Connections and routing table entries a node, on average.
    pub(crate) async fn density(&self) -> (f64, f64) {
        let all = futures::future::join_all(self.nodes.iter().map(Node::status)).await;
        let mean = |of: &dyn Fn(&casd::dht::Status) -> usize| {
            all.iter().map(|status| of(status) as f64).sum::<f64>() / all.len().max(1) as f64
        };
        (mean(&|status| status.connected), mean(&|status| status.routed))
    }

    /// Dials of a node until now, on average.
    pub(crate) fn dials(&self) -> f64 {
        self.nodes.iter().map(Node::dials).sum::<u64>() as f64 / self.nodes.len().max(1) as f64
    }

    pub(crate) async fn end(self) {
        futures::future::join_all(self.nodes.into_iter().map(|node| node.leave(false))).await;
        futures::future::join_all(self.liars.into_iter().map(Liar::leave)).await;
    }
}

/// Bytes that the process has resident.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
