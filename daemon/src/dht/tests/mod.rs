//! Real swarms on loopback.
//!
//! Nothing sleeps: tests wait for conditions, each within [`PATIENCE`].

mod alone;
mod announcing;
mod answers;
mod detours;
mod frames;
mod hostile;
mod introducing;
mod joining;
mod late;
mod memory;
mod moving;
mod outsider;
mod overtaking;
mod private;
mod publishing;
mod reached;
mod rejoining;
mod slow;
mod strangers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::announcer::{Announcer, Purpose};
use super::holdings::Minute;
use super::{Dht, Mode, Options};
use crate::peer::{Announced, Conduct, Discovery, Holder, Key, Keypair, Kind, Multiaddr, Provider};
use crate::support::task::Tasks;
use crate::support::unix_now;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(super) const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// A node of a test's network, stopped when the test ends.
pub(super) struct Node {
    pub(super) dht: Dht,
    /// Where it says that its chunk port is.
    pub(super) chunk: Vec<SocketAddr>,
    /// What it remembers of others.
    pub(super) conduct: Conduct,
    tasks: Tasks,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Node {
    /// Starts a node with options of its own.
    pub(super) async fn with(options: Options) -> Self {
        Self::of(options, Keypair::generate_ed25519()).await
    }

    /// As [`Node::with`], of a node that was there before.
    pub(super) async fn of(options: Options, keypair: Keypair) -> Self {
        let (tasks, chunk, conduct) = (Tasks::new(), options.chunk.clone(), options.conduct.clone());
        let dht = Dht::start(options, keypair, &tasks).await.unwrap();
        Self { dht, chunk, conduct, tasks }
    }

    /// Starts a server on loopback that joins by `others`.
    pub(super) async fn server(listen: &str, others: &[&Node]) -> Self {
        Self::with(options(listen, others)).await
    }

    pub(super) fn address(&self) -> Multiaddr {
        self.dht.listen_addresses().into_iter().next().unwrap()
    }

    /// Stops and waits for the end.
    pub(super) async fn stop(self) {
        assert_eq!(self.tasks.drain(PATIENCE).await, 0);
    }

    /// Waits until this node knows `count` servers.
    pub(super) async fn knows(&self, count: usize) {
        until("the routing table fills", || async { self.dht.status().await.routed >= count }).await;
    }

    /// Announces once, past the schedule.
    pub(super) async fn announce(&self, keys: Vec<Key>, copies: usize) -> Announced {
        let dht = &self.dht.0;
        {
            let mut holdings = dht.holdings();
            for key in &keys {
                assert!(holdings.hold(key, Kind::Object));
                holdings.placed(key, Minute::try_from(unix_now() / 60).unwrap());
            }
        }
        Announcer::new(Arc::clone(dht), Purpose::Put, &keys).run(copies).await.announced
    }

    /// All providers of `key` that answer.
    pub(super) async fn find(&self, key: Key) -> Vec<Provider> {
        let found = |holder| match holder {
            Holder::Found(provider) => Some(provider),
            Holder::Missed(..) => None,
        };
        self.look(key).await.into_iter().filter_map(found).collect()
    }

    /// All that a look-up tells.
    pub(super) async fn look(&self, key: Key) -> Vec<Holder> {
        let look = async {
            let (mut told, mut all) = (self.dht.providers(key), Vec::new());
            while let Some(holder) = told.recv().await {
                all.push(holder);
            }
            all
        };
        within("a look-up ends", look).await
    }
}

pub(super) fn options(listen: &str, others: &[&Node]) -> Options {
    // Nobody is told of a chunk port that is its own.
    static CHUNK: AtomicU16 = AtomicU16::new(10_000);
    let port = CHUNK.fetch_add(1, Ordering::Relaxed);
    Options {
        network: "test".into(),
        listen: vec![listen.parse().unwrap()],
        bootstrap: others.iter().map(|node| node.address()).collect(),
        chunk: vec![SocketAddr::from(([127, 0, 0, 1], port))],
        mode: Mode::Server,
        ..Options::default()
    }
}

/// `count` servers, all joined by the first, that all know each other.
pub(super) async fn network(listen: &str, count: usize) -> Vec<Node> {
    let mut nodes = vec![Node::server(listen, &[]).await];
    for _ in 1..count {
        let node = Node::server(listen, &[&nodes[0]]).await;
        nodes.push(node);
    }
    for node in &nodes {
        node.knows(count - 1).await;
    }
    nodes
}

/// A key made from a number.
pub(super) fn key(number: usize) -> Key {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

pub(super) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    within(what, async {
        // The condition has no event to wait for (it is about another node's tables), so it is polled.
        let mut poll = tokio::time::interval(Duration::from_millis(10));
        while !holds().await {
            poll.tick().await;
        }
    })
    .await;
}
