//! The product's verbs: what a person or a program can ask of a node.
//!
//! Owns: how the rooms below work together for one request, and what a caller may do to others' objects. Refuses:
//! protocols and encodings (that is `api`), and sockets (the network is behind traits). Survives a crash:
//! nothing of its own.

mod asked;
mod company;
mod error;
mod holders;
mod jobs;
mod joining;
mod limits;
mod link;
mod names;
mod objects;
mod others;
mod people;
mod reach;
mod search;
mod trees;
mod verify;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::sync::{Semaphore, watch};

pub use error::Error;
pub use holders::HolderLine;
pub use jobs::{Attended, Begun, Bringing, Explanation, JobName, JobView, NewJob, Standing};
pub use limits::{Limits, LimitsView, Rates};
pub use names::Published;
pub use objects::{ChunkLine, Gone, Linked, Reading, Stat};
pub use people::{Connected, PeerLine, Status};
pub use search::{Asked, Cut, Found, Listed, Query, Source};
pub use trees::AddingTree;

use crate::content::ObjectId;
use crate::erasure::Geometry;
use crate::fetch::{Fetcher, Inquiry};
use crate::ingest::{self, Ingest};
use crate::peer::{Catalogue, Company, Conduct, Discovery, Multiaddr, Reachability, Unconnected};
use crate::serve::Visitors;
use crate::store::Store;
use crate::support::task::Tasks;
use crate::upkeep::{Announcer, Scrubber};
use jobs::Jobs;
use joining::Joins;

pub use crate::content::Link;
pub use crate::erasure::Error as ErasureError;
pub use crate::fetch::Error as FetchError;
pub use crate::fetch::{ALONE, Event, FOREVER, Fetching, Order, Progress, Request, Summary};
pub use crate::fetch::{AskedPeer, Findings, Target};
pub use crate::fetch::{FetchedPart, TreeEvent, TreeFetching, TreeRequest, TreeStarted};
pub use crate::ingest::Error as IngestError;
pub use crate::ingest::{AddOptions, Added, AddedTree, TreeOptions, TreePart};
pub use crate::peer::{
    Announced, Key, Nobody, PeerAddr, PeerId, Provider, ReachVerdict, Standing as PeerStanding, Told,
};
pub use crate::store::Error as StoreError;
pub use crate::store::{Check, Collected, LargePin, Level, ObjectInfo, Priority, Shortage, State, Usage};
pub use crate::upkeep::{Broken, ScrubStatus, Tally, VerifyEvent};

/// How long an add that waits for others to be told waits for the network to be joined: two dials that fail.
const JOINING: Duration = Duration::from_secs(15);

/// How long whoever looks for something waits for a node that is joining its network.
const JOIN: Duration = Duration::from_secs(30);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// Root, or the user that the daemon runs as.
    pub is_admin: bool,
}

/// The nodes around this one, as the DHT plane knows them.
pub trait Neighbours: Send + Sync {
    /// Who is known, with the addresses, and whether there is a connection.
    fn peers(&self) -> BoxFuture<'static, Vec<(PeerId, Vec<Multiaddr>, bool)>>;

    /// Nodes of this network that could be asked something, connected or not, and whether each is.
    fn known(&self) -> BoxFuture<'static, Vec<(PeerId, bool)>>;

    /// Waits until there is somebody to ask. False at once when nobody is known and nobody is configured to join by,
    /// and soon, or after those that are known have been tried for a while, where only such are connected as keep no
    /// records for others.
    fn joined(&self) -> BoxFuture<'static, bool>;

    /// Dials a node and waits until it has proved to be of this network.
    fn connect(&self, at: Multiaddr) -> BoxFuture<'static, Result<PeerId, Unconnected>>;

    /// Where this node listens, each ending in `/p2p/` and its id.
    fn listen(&self) -> Vec<Multiaddr>;

    /// How this node stands among them.
    fn company(&self) -> BoxFuture<'static, Company>;

    /// Whether others can connect to this node.
    fn reachability(&self) -> Reachability;

    /// How many nodes can be asked who holds what: changes as they come and go. By default nobody comes.
    fn routed(&self) -> watch::Receiver<usize> {
        watch::channel(0).1
    }
}

/// What a node is made of.
pub struct Parts {
    /// What is stored.
    pub store: Store,
    /// The add path.
    pub ingest: Ingest,
    /// The fetch path.
    pub fetcher: Fetcher,
    /// The announcing schedule.
    pub announcer: Announcer,
    /// Proves what is on disk.
    pub scrubber: Scrubber,
    /// Finds holders.
    pub discovery: Arc<dyn Discovery>,
    /// Learns what others say of objects.
    pub catalogue: Arc<dyn Catalogue>,
    /// The nodes around.
    pub neighbours: Arc<dyn Neighbours>,
    /// Who asks this node.
    pub visitors: Visitors,
    /// Who is banned.
    pub conduct: Conduct,
    /// How much may move.
    pub limits: Limits,
    /// What the node is.
    pub about: About,
    /// Work that goes on beside a call.
    pub tasks: Tasks,
    /// Jobs that run at once.
    pub jobs: usize,
}

/// What a node is and how it adds by default.
#[derive(Clone, Debug)]
pub struct About {
    /// Its id.
    pub peer: PeerId,
    /// What people call it.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// Whether the network has a key.
    pub is_private_network: bool,
    /// Whether it only fetches: it gives and announces nothing.
    pub is_client: bool,
    /// Its chunk ports as bound; empty for a client.
    pub chunk: Vec<std::net::SocketAddr>,
    /// Parity of what is added, unless said otherwise.
    pub parity: Option<Geometry>,
    /// Whether what is added is private, unless said otherwise.
    pub private: bool,
    /// Whether the name of what is added may leave the node, unless said otherwise.
    pub publish: bool,
    /// When it started.
    pub started: Instant,
}

/// Calls that read whole lists of directories at once: each list may have 128 MiB.
const LOOKS: usize = 4;

/// Calls that ask many other nodes at once.
const ASKS: usize = 8;

/// A node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    parts: Arc<Parts>,
    /// Calls that may read whole lists of directories.
    looks: Arc<Semaphore>,
    /// Calls that ask many other nodes.
    asks: Arc<Semaphore>,
    /// Links by which the network is being joined.
    joins: Joins,
    /// Fetches that go on without their callers.
    jobs: Jobs,
}

/// An add in progress. Dropping it ends the add: nothing becomes of it.
pub struct Adding {
    node: Node,
    inner: ingest::Adding,
    wait_announced: bool,
}

impl Node {
    /// A node made of these.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let [looks, asks] = [LOOKS, ASKS].map(|places| Arc::new(Semaphore::new(places)));
        let (joins, jobs) = (Joins::default(), Jobs::new(parts.jobs));
        Self { parts: Arc::new(parts), looks, asks, joins, jobs }
    }

    /// What it is.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.parts.about
    }

    /// Begins to add an object. With `wait_announced` the add is answered when the DHT has been told.
    #[must_use]
    pub fn add(&self, options: AddOptions, wait_announced: bool) -> Adding {
        Adding { node: self.clone(), inner: self.parts.ingest.begin(options), wait_announced }
    }

    /// Adds objects of at most 1 MiB each that are in memory already: all of them or, after an error, none.
    ///
    /// # Errors
    /// [`Error::Ingest`].
    pub async fn add_small(
        &self,
        objects: Vec<(Bytes, AddOptions)>,
        wait_announced: bool,
    ) -> Result<Vec<(Added, Option<Announced>)>, Error> {
        let added = self.parts.ingest.add_small(objects).await?;
        let announced = self.announce(&added, wait_announced).await;
        Ok(added.into_iter().zip(announced).collect())
    }

    /// Lets the network know of what was added; after the answer unless the caller waits for it.
    async fn announce(&self, added: &[Added], wait: bool) -> Vec<Option<Announced>> {
        let is_public = |added: &&Added| !added.private && added.id != ObjectId::EMPTY;
        let announcer = &self.parts.announcer;
        // Names first, so that they go with the keys.
        self.publish_added(added.iter().filter(is_public).map(|added| added.id));
        if wait {
            let told = added.iter().map(|added| async move {
                if is_public(&added) { self.announce_and_wait(added.id).await } else { None }
            });
            return join_all(told).await;
        }
        announcer.hold(added.iter().filter(is_public).map(|added| added.id));
        vec![None; added.len()]
    }

    /// Announces an object and waits for that; a node that is joining its network waits for that first, for a while.
    async fn announce_and_wait(&self, id: ObjectId) -> Option<Announced> {
        let Parts { announcer, neighbours, .. } = &*self.parts;
        if !announcer.is_announcing() {
            return None;
        }
        // Whatever becomes of the caller.
        announcer.hold([id]);
        let _ = tokio::time::timeout(JOINING, neighbours.joined()).await;
        announcer.hold_and_wait(id).await
    }

    /// Begins a caller's fetch from peers and the store. A node that is joining its network waits for that first. A job
    /// of the caller's for the same object gives way as long as what stands beside the fetch is kept.
    ///
    /// # Errors
    /// [`crate::fetch::Error::NoPeers`] when the object is not here and nobody could be asked; [`Error::IsDirectory`]
    /// when it is known to be a directory.
    pub async fn fetch(
        &self,
        caller: Caller,
        request: Request,
    ) -> Result<(Fetching, Option<Attended>), Error> {
        if self.parts.store.object(&request.id).is_some_and(|info| info.tree) {
            return Err(Error::IsDirectory(request.id));
        }
        let here = request.id == ObjectId::EMPTY || self.is_whole(&request.id);
        if here {
            return Ok((self.parts.fetcher.fetch(request), None));
        }
        let inquiry = Inquiry::default();
        let attended = self.jobs.attend(caller.uid, request.id, inquiry.clone());
        self.may_ask(&request.id, &request.peers, request.stall).await?;
        Ok((self.parts.fetcher.fetch_telling(request, inquiry, false), Some(attended)))
    }
}

impl Node {
    /// Waits until there is somebody to ask, at most so long. Where there is nobody: why.
    async fn joined(&self, limit: Duration) -> Result<(), Nobody> {
        if tokio::time::timeout(limit, self.parts.neighbours.joined()).await == Ok(true) {
            return Ok(());
        }
        Err(self.company().await.nobody())
    }

    /// Waits until there is somebody to ask for `id`, where the caller names nobody: no longer than `stall`, and as
    /// long as it takes with [`FOREVER`]. By those whom it names the network is joined meanwhile.
    async fn may_ask(&self, id: &ObjectId, named: &[PeerAddr], stall: Duration) -> Result<(), Error> {
        self.join_by(named);
        if !named.is_empty() {
            return Ok(());
        }
        let mut routed = self.parts.neighbours.routed();
        while let Err(nobody) = self.joined(stall.min(JOIN)).await {
            if stall < FOREVER {
                return Err(crate::fetch::Error::NoPeers { id: *id, nobody }.into());
            }
            // Whom an administrator connects to, or who comes by itself, is not expected.
            let changed = async {
                if routed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let _ = tokio::time::timeout(JOIN, changed).await;
        }
        Ok(())
    }
}

impl Adding {
    /// Hands over the next bytes.
    ///
    /// # Errors
    /// [`Error::Ingest`], which ended the add.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        Ok(self.inner.write(bytes).await?)
    }

    /// Ends the stream, which must have had `length` bytes, and waits until the object is durable; and where the
    /// caller waits for it, until it has been announced.
    ///
    /// # Errors
    /// [`Error::Ingest`]; nothing became an object then.
    pub async fn finish(self, length: u64) -> Result<(Added, Option<Announced>), Error> {
        let added = self.inner.finish(length).await?;
        let announced = self.node.announce(std::slice::from_ref(&added), self.wait_announced).await;
        Ok((added, announced.into_iter().next().flatten()))
    }
}
