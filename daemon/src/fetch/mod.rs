//! The fetch path: an object comes from the store and from many peers at once, to the store and to the caller.
//!
//! Owns: which peer is asked for what ([`planner`], pure), the peers of one fetch, proving what arrives, rebuilding
//! from parity, and giving the bytes to the caller. Refuses: to find peers by itself (it asks a
//! [`crate::peer::Discovery`]), sockets (it dials through [`crate::peer::Dial`]), and to give a byte that was not
//! proved. Survives a crash: what arrived is in the store under a journalled lease, so the same fetch again asks
//! for the rest.
//!
//! Readers go through here as well: an object that is whole in the store is a fetch that needs no peer.
//!
//! ```text
//! links ─▶ crowd ─▶ planner ─▶ asks ─▶ verify (pool) ─▶ store ─▶ shelf ─▶ deliver ─▶ caller, or his file
//!                      ▲                                  │
//!                      └────────── repair ◀───────────────┘
//! ```

mod asks;
mod crowd;
mod deliver;
mod error;
mod inquiry;
mod into;
mod job;
mod learn;
mod links;
mod member;
mod missed;
pub mod planner;
mod repair;
mod shape;
mod shelf;
mod terms;
#[cfg(test)]
mod tests;
mod tree;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use error::Error;
pub use inquiry::{AskedPeer, Findings, Inquiry};
pub use into::Target;
pub use links::{LinkView, Links};
pub use shelf::Order;
pub use tree::{FetchedPart, TreeEvent, TreeFetching, TreeRequest, TreeStarted};

use terms::Terms;

use crate::content::ObjectId;
use crate::peer::{Conduct, Discovery, PeerAddr, PeerId, Unconnected};
use crate::session::Board;
use crate::store::Store;
use crate::support::pool::Pool;
use crate::support::rate::Limiter;
use crate::support::task::Tasks;

/// Messages on their way to a caller: with chunks of 1 MiB, 4 MiB a fetch.
const QUEUE: usize = 4;

/// How fetching is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Peers of one fetch at most.
    pub per_fetch: usize,
    /// Bytes asked for and not yet proved and stored in one fetch, with the parity that waits for its stripe. Where
    /// they come faster than that all of them are in memory: this is most of what a fetch holds, and the rest is what
    /// waits for the caller. 24 MiB fill a path of 1 Gbit/s and 190 ms.
    pub in_flight: u64,
    /// Bytes of a directory's lists that stay in memory while it is given.
    pub lists: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { per_fetch: 16, in_flight: 24 << 20, lists: 32 << 20 }
    }
}

/// What to fetch and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The object.
    pub id: ObjectId,
    /// Peers to ask besides those that are found.
    pub peers: Vec<PeerAddr>,
    /// The user that pins it.
    pub pin: Option<u32>,
    /// What to call it.
    pub name: Option<String>,
    /// Give up when nothing has come for so long.
    pub stall: Duration,
    /// What has rotted here is given up so soon when there is nobody to ask for it; not later than by `stall`.
    pub alone: Duration,
    /// In which order the bytes are wanted.
    pub order: Order,
    /// The bytes that are wanted, as (first, number); `None` for all of them.
    pub range: Option<(u64, u64)>,
    /// The caller's file that they are written into, instead of being told.
    pub into: Option<Target>,
}

/// As a stall: it waits until somebody has it, also when all whom the caller named have failed.
pub const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long a reader waits for what has rotted here while there is nobody to ask.
pub const ALONE: Duration = Duration::from_secs(5);

/// What a fetch tells its caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The length is proved. First.
    Started {
        /// Of the whole object, in bytes.
        size: u64,
        /// What it is called here.
        name: Option<String>,
    },
    /// Proved bytes.
    Data {
        /// Where they belong in the object.
        offset: u64,
        /// At most 1 MiB.
        bytes: Bytes,
    },
    /// Proved zeros.
    Zeros {
        /// Where they belong in the object.
        offset: u64,
        /// How many, at most 1 MiB.
        length: u64,
    },
    /// How far it is; twice a second.
    Progress(Progress),
    /// All bytes have been given. Last.
    Finished(Summary),
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here, of those wanted.
    pub bytes: u64,
    /// Those of them that were here before.
    pub local: u64,
    /// Peers connected to.
    pub peers: usize,
    /// Bytes from peers in the last second or so.
    pub rate: u64,
    /// Of a directory that is brought to the store alone: files that are here, and all of them, each distinct one once
    /// and but empty ones.
    pub files: (u64, u64),
}

/// What a fetch did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Bytes of the object.
    pub size: u64,
    /// How long it took.
    pub took: Duration,
    /// Bytes that were here before.
    pub local: u64,
    /// Bytes by the peer that gave them, parity among them.
    pub peers: Vec<(PeerId, u64)>,
    /// Chunks rebuilt from parity.
    pub rebuilt: u64,
    /// Bytes written into the caller's file, zeros among them.
    pub written: u64,
}

/// What others may want to know while a fetch goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Enough of the object is here to be announced.
    Holds(ObjectId),
    /// All of these are here: what a directory consists of.
    HoldsAll(Vec<ObjectId>),
}

/// A fetch in progress. Dropping it ends the fetch; what arrived stays.
pub struct Fetching {
    /// Events in order, then one error or the end.
    pub events: mpsc::Receiver<Result<Event, Error>>,
}

/// The fetch path. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    parts: Arc<Parts>,
}

/// What a fetcher works with.
#[derive(Clone)]
pub struct Parts {
    /// How.
    pub options: Options,
    /// Where chunks come from first and go to.
    pub store: Store,
    /// Where hashing and rebuilding run.
    pub pool: Pool,
    /// Where fetches run.
    pub tasks: Tasks,
    /// Sessions with peers.
    pub links: Links,
    /// Finds holders.
    pub discovery: Arc<dyn Discovery>,
    /// What comes in waits for this: a class of it, within `transfer.download`.
    pub download: Arc<Limiter>,
    /// What is remembered of peers.
    pub conduct: Conduct,
    /// Tells those who ask this node which chunks have come.
    pub board: Board,
    /// Tells the announcing schedule; what does not fit is told again by the next chunk.
    pub notices: mpsc::Sender<Notice>,
}

impl Fetcher {
    /// A fetch path made of these.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The same, for another class of what comes in.
    #[must_use]
    pub fn of_class(&self, download: Arc<Limiter>) -> Self {
        Self::new(Parts { download, ..Parts::clone(&self.parts) })
    }

    /// Begins a fetch.
    #[must_use]
    pub fn fetch(&self, request: Request) -> Fetching {
        self.parts.store.touch(&request.id);
        begin(&self.parts, request, Terms::default())
    }

    /// As [`Fetcher::fetch`], and tells meanwhile who was asked, and what they said. With `once` it gives up as soon as
    /// all who were found have been asked in vain what the object is.
    #[must_use]
    pub fn fetch_telling(&self, request: Request, inquiry: Inquiry, once: bool) -> Fetching {
        self.parts.store.touch(&request.id);
        begin(&self.parts, request, Terms { once, inquiry: Some(inquiry), ..Terms::default() })
    }

    /// Opens a session at a chunk port, also where there is one with that peer elsewhere.
    ///
    /// # Errors
    /// [`Unconnected`] when that peer does not answer there, or not to this network.
    pub async fn connect(&self, at: &PeerAddr) -> Result<PeerId, Unconnected> {
        let addresses = ways::sockets(&self.parts, at.peer, std::slice::from_ref(&at.reach));
        self.parts.links.try_at(at.peer, addresses).await.map(|asker| asker.peer())
    }

    /// The sessions that are open, for people to see.
    #[must_use]
    pub fn links(&self) -> Vec<LinkView> {
        self.parts.links.views()
    }
}

/// Begins the fetch of an object.
fn begin(parts: &Arc<Parts>, request: Request, terms: Terms) -> Fetching {
    let events = run(parts, |out| job::run(Arc::clone(parts), request, terms, out));
    Fetching { events }
}

/// Runs a fetch as a task, to its end, its reader's, or the daemon's.
fn run<E, F>(
    parts: &Arc<Parts>,
    work: impl FnOnce(mpsc::Sender<Result<E, Error>>) -> F,
) -> mpsc::Receiver<Result<E, Error>>
where
    E: Send + 'static,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (out, events) = mpsc::channel(QUEUE);
    let work = work(out.clone());
    let (stop, store) = (parts.tasks.clone(), parts.store.clone());
    parts.tasks.spawn("fetch", async move {
        let done = tokio::select! {
            done = work => done,
            () = out.closed() => return,
            () = stop.stopping() => Err(Error::Stopping),
        };
        let error = match done {
            Ok(()) => return,
            // What is missing has not rotted when it was removed meanwhile.
            Err(Error::Damaged { id, .. }) if store.object(&id).is_none() => Error::Removed(id),
            Err(error) => error,
        };
        let _ = out.send(Err(error)).await;
    });
    events
}
