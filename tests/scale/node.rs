//! One node: a real `dht` room on a host that is in memory only.
//!
//! Owns: its room and its tasks. Refuses: nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casd::dht::{Dht, Limits, Mode, Options, Status};
use casd::peer::{Announce, Announced, Announcing, Discovery, Holder, Key, Keypair, Kind, Multiaddr, PeerId};
use casd::support::task::Tasks;

use crate::hosts::{Line, Net, multiaddr};

/// Longer than any look-up takes.
const PATIENCE: Duration = Duration::from_secs(90);
/// The network's name.
pub(crate) const NETWORK: &str = "scale";
/// How long a connection lasts that nobody uses: shorter than a daemon's, since two processors carry those of all
/// nodes.
const IDLE: Duration = Duration::from_secs(20);
/// Where each node says that its chunk port is.
const CHUNK_PORT: u16 = 9000;

/// A node that is up.
pub(crate) struct Node {
    pub(crate) dht: Dht,
    pub(crate) peer: PeerId,
    pub(crate) at: SocketAddr,
    tasks: Tasks,
    line: Arc<Line>,
}

/// What a look-up gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Until the holder was told, when it was.
    pub(crate) after: Option<Duration>,
    /// Questions to other nodes until somebody was told who holds the key, right or wrong.
    pub(crate) questions: u64,
    /// Hosts dialled meanwhile, and providers told before the holder: each of these would have been dialled as well.
    pub(crate) dials: u64,
}

/// What sort of node it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sort {
    /// Whether it minds how many others are of one address group.
    pub(crate) is_defended: bool,
    /// Whether it keeps records.
    pub(crate) mode: Mode,
}

impl Node {
    pub(crate) async fn start(
        net: &Net,
        at: SocketAddr,
        bootstrap: Vec<Multiaddr>,
        sort: Sort,
    ) -> Result<Self, String> {
        let (keypair, tasks) = (Keypair::generate_ed25519(), Tasks::new());
        let peer = keypair.public().to_peer_id();
        let (carriers, line) = net.host(at, peer);
        // The process is that of all nodes together.
        let mut limits = Limits { resident_bytes: usize::MAX, ..Limits::default() };
        if !sort.is_defended {
            limits.of_group = usize::MAX;
        }
        let options = Options {
            limits,
            network: NETWORK.into(),
            listen: vec![multiaddr(at)],
            bootstrap,
            chunk: vec![SocketAddr::new(at.ip(), CHUNK_PORT)],
            mode: sort.mode,
            idle: IDLE,
            ..Options::default()
        };
        let dht = Dht::start_over(carriers, options, keypair, &tasks).await;
        Ok(Self { dht: dht.map_err(|error| error.to_string())?, peer, at, tasks, line })
    }

    /// Where others join by it.
    pub(crate) fn address(&self) -> Multiaddr {
        self.dht.listen_addresses().into_iter().next().unwrap_or_else(|| multiaddr(self.at))
    }

    /// How many hosts it has dialled.
    pub(crate) fn dials(&self) -> u64 {
        self.line.dials()
    }

    pub(crate) async fn status(&self) -> Status {
        self.dht.status().await
    }

    pub(crate) fn hold(&self, keys: &[Key], kind: Kind) -> usize {
        self.dht.hold(keys, kind)
    }

    /// Announces an object now.
    pub(crate) async fn place(&self, key: Key) -> Announced {
        self.dht.place(key).await
    }

    /// Waits until all that is held has been announced, at most `patience`; how that stands then.
    pub(crate) async fn announced(&self, patience: Duration) -> Announcing {
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        let begun = Instant::now();
        loop {
            let announcing = self.dht.announcing();
            if announcing.queued == 0 || begun.elapsed() > patience {
                return announcing;
            }
            poll.tick().await;
        }
    }

    /// Looks a key up until `holder` is told, or to the end.
    pub(crate) async fn find(&self, key: Key, holder: PeerId) -> Found {
        let (before, dials, begun) = (self.status().await, self.line.dials(), Instant::now());
        let mut providers = self.dht.providers(key);
        let mut told = 0;
        let holder_told = async {
            while let Some(told_of) = providers.recv().await {
                let Holder::Found(provider) = told_of else { continue };
                if provider.peer == holder {
                    return Some(begun.elapsed());
                }
                told += 1;
            }
            None
        };
        let after = tokio::time::timeout(PATIENCE, holder_told).await.unwrap_or(None);
        if after.is_none() {
            let (at, took) = (self.at, begun.elapsed());
            eprintln!("{at} does not find {holder}, after {took:.1?} and {told} others");
        }
        let dials = self.line.dials() - dials + told;
        let questions = self.status().await.questions_until_found - before.questions_until_found;
        Found { after, questions, dials }
    }

    /// Leaves. `silently`: without closing a connection.
    pub(crate) async fn leave(self, silently: bool) {
        if silently {
            self.line.vanish();
        }
        self.tasks.drain(PATIENCE).await;
    }
}
