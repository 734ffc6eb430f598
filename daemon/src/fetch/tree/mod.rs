//! Fetching a directory: its trees, then its files in the order of a walk, over one stream to the caller.
//!
//! Owns: what of a directory is here and what must come, the order in which it is given, and that it becomes an
//! object only when all of it is here. Refuses: trees that break the rules or the limits, before a file of theirs is
//! asked for. Survives a crash: nothing is entered before the end, but for objects of more than a chunk, which are
//! kept as begun; what came stays for a day, so the same fetch again asks for the rest. For the store alone all of it
//! is fetched in any order (`gather`), under a lease that whoever wants it keeps from one try to the next.
//!
//! ```text
//! root ─▶ trees, breadth first ─▶ outline (totals, limits) ─▶ room ─▶ walk ─▶ window ─▶ caller ─▶ entered
//!                │                                                              │
//!                └──────────── supply (small) and ordinary fetches (large) ◀────┘
//! ```

mod delivery;
mod events;
mod file;
mod gather;
mod holders;
mod large;
mod outline;
mod supply;
#[cfg(test)]
mod tests;
mod trees;
mod walk;

pub use events::{FetchedPart, TreeEvent, TreeFetching, TreeRequest, TreeStarted};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::crowd::Crowd;
use super::shape::{Shape, Wanted};
use super::terms::{Declared, PartOf, Pulse};
use super::{Error, Fetcher, Inquiry, Notice, Order, Parts, Request, Summary, Terms, learn};
use crate::content::{ObjectId, Tree};
use crate::peer::{PeerAddr, PeerId};
use crate::session::Asker;
use crate::store::{Error as Refusal, Lease, NewObject, ObjectInfo, State};
use crate::support::text::shorten;
use crate::support::unix_now;
use delivery::Delivery;
use holders::Holders;
use outline::Outline;
use supply::Supply;
use trees::Target;

/// Bytes of a path that is told to be missing: a dozen of them are to fit into a message.
const SHOWN: usize = 64;

/// Missing files that are named.
const NAMED: usize = 12;

/// Objects that are looked for in the store at once.
const LOOK: usize = 1024;

impl Fetcher {
    /// Begins to fetch a directory, or what is at a path in one.
    #[must_use]
    pub fn fetch_tree(&self, request: TreeRequest) -> TreeFetching {
        self.begin_tree(request, None)
    }

    /// As [`Fetcher::fetch_tree`], and tells meanwhile who was asked, and what they said.
    #[must_use]
    pub fn fetch_tree_telling(&self, request: TreeRequest, inquiry: Inquiry) -> TreeFetching {
        self.begin_tree(request, Some(inquiry))
    }

    fn begin_tree(&self, request: TreeRequest, inquiry: Option<Inquiry>) -> TreeFetching {
        self.parts.store.touch(&request.root);
        let parts = Arc::clone(&self.parts);
        TreeFetching { events: super::run(&self.parts, |out| run(parts, request, inquiry, out)) }
    }
}

/// What all who work at one directory share.
struct Errand {
    parts: Arc<Parts>,
    root: ObjectId,
    /// The peers that the caller named, but those that lied.
    peers: Mutex<Vec<PeerAddr>>,
    stall: Duration,
    /// Whether the directory is private here.
    private: bool,
    /// The directory was here whole once: what is missing has rotted.
    was_whole: bool,
    /// Whoever wants it tries again: what nobody has who is found is not waited for.
    once: bool,
    /// Keeps everything of it.
    lease: Arc<Lease>,
    pulse: Pulse,
    started: Instant,
}

impl Errand {
    fn new(parts: Arc<Parts>, request: &TreeRequest, lease: Arc<Lease>) -> Self {
        let known = parts.store.object(&request.root);
        let private = known.as_ref().is_some_and(|info| info.private);
        if !private {
            // Others who fetch it have what has come of it.
            lease.share();
        }
        Self {
            root: request.root,
            peers: Mutex::new(request.peers.clone()),
            stall: request.stall,
            private,
            was_whole: known.is_some_and(|info| info.tree && info.state == State::Whole),
            once: false,
            lease,
            pulse: Pulse::new(),
            started: Instant::now(),
            parts,
        }
    }

    fn peers(&self) -> MutexGuard<'_, Vec<PeerAddr>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer lied: it is not asked for anything else of the directory.
    fn struck(&self, peer: &PeerId) {
        self.peers().retain(|named| named.peer != *peer);
    }

    /// The request for a single object.
    fn request(&self, id: ObjectId) -> Request {
        Request {
            id,
            peers: self.peers().clone(),
            pin: None,
            name: None,
            stall: self.stall,
            alone: super::ALONE,
            order: Order::InOrder,
            range: None,
            into: None,
        }
    }

    /// The terms for a single object that is a part of the directory.
    fn terms(&self, length: u64, seeds: Vec<Asker>) -> Terms {
        let part =
            PartOf { lease: Arc::clone(&self.lease), private: self.private, pulse: self.pulse.clone() };
        let declared = Some(Declared { root: self.root, length });
        Terms { seeds, declared, part: Some(part), ..Terms::default() }
    }

    /// Refuses what is here already and is private where the directory is not, or the other way round.
    fn check_privacy(&self, id: &ObjectId, known: Option<ObjectInfo>) -> Result<(), Error> {
        match known.filter(|info| info.private != self.private) {
            Some(info) => Err(Error::Privacy { id: *id, private: info.private }),
            None => Ok(()),
        }
    }

    /// Bytes of each of these objects that are not here. What is here of those of at most a chunk is kept, and shared
    /// with others: what is private is refused before.
    async fn look(&self, objects: &[(ObjectId, u64)]) -> Result<Vec<u64>, Error> {
        for (id, _) in objects {
            self.check_privacy(id, self.parts.store.object(id))?;
        }
        let ids = objects.iter().map(|(id, _)| id.only_chunk()).collect();
        let held = self.lease.hold_all(ids).await?;
        let mut absent = Vec::with_capacity(objects.len());
        for ((id, length), held) in objects.iter().zip(held) {
            absent.push(match trees::short(*length) {
                Some(_) if held => 0,
                Some(_) => *length,
                None => self.absent(id, *length).await?,
            });
        }
        Ok(absent)
    }

    /// Bytes of a longer object that are not here.
    async fn absent(&self, id: &ObjectId, length: u64) -> Result<u64, Error> {
        let store = &self.parts.store;
        match learn::from_store(store, id).await? {
            Some(shape @ Shape::Many(_)) if shape.length() == length => {
                Ok(shape.absent(&Wanted::of(length, None)?, &shape.local(store).await))
            }
            _ => Ok(length),
        }
    }

    /// Nothing has come for as long as the caller would wait, or more is not waited for; these are missing, of so many.
    fn stalled(&self, paths: &[String], count: usize) -> Error {
        let more = if count > paths.len() { format!(", … ({count} in all)") } else { String::new() };
        let paths: Vec<_> = paths.iter().map(|path| shorten(path, SHOWN)).collect();
        let missing = format!("{}{more}", paths.join(", "));
        let id = self.root;
        if self.was_whole {
            return Error::Damaged { id, missing };
        }
        if self.once && self.pulse.quiet() < self.stall {
            return Error::Lacking { id, missing };
        }
        // Its files had holders of their own.
        let (seconds, holders) = (self.stall.as_secs(), String::new());
        Error::Stalled { id, seconds, missing, holders }
    }
}

type Out = mpsc::Sender<Result<TreeEvent, Error>>;

/// Runs one fetch to its end.
async fn run(
    parts: Arc<Parts>,
    request: TreeRequest,
    inquiry: Option<Inquiry>,
    out: Out,
) -> Result<(), Error> {
    if request.root == ObjectId::EMPTY {
        return Err(Error::BadTree { id: request.root, why: "it is the empty object".to_owned() });
    }
    let lease = Arc::new(parts.store.lease());
    let errand = Arc::new(Errand::new(Arc::clone(&parts), &request, lease));
    let mut crowd = Crowd::new(parts, &request.peers, &[]);
    crowd.inquire(inquiry);
    let (length, looked) = trees::length(&errand, &mut crowd).await?;
    let mut supply = Supply::new(Arc::clone(&errand), Holders::new(crowd, request.root, looked));
    match trees::resolve(&mut supply, &errand, length, &request.path).await? {
        Target::Directory(_, id, _) if request.range.is_some() => Err(Error::IsDirectory(id)),
        Target::Directory(tree, id, name) => {
            let name = if request.path.is_empty() { request.name } else { name };
            directory(&errand, supply, (id, tree), name, request.pin, &out).await
        }
        Target::File(file) => file::give(&errand, supply.askers(), file, &request, &out).await,
    }
}

/// Gives a directory and enters it.
async fn directory(
    errand: &Arc<Errand>,
    mut supply: Supply,
    (id, tree): (ObjectId, Tree),
    name: Option<String>,
    pin: Option<u32>,
    out: &Out,
) -> Result<(), Error> {
    let store = &errand.parts.store;
    let length = tree.bytes().len() as u64;
    errand.check_privacy(&id, store.object(&id))?;
    let outline = trees::outline(&mut supply, errand, (id, tree.clone())).await?;
    let totals = outline.totals()?;
    let looked = prepare(errand, &outline).await?;
    let here = looked.into_iter().filter(|(.., absent)| *absent == 0).map(|(id, ..)| id);
    let here: Vec<ObjectId> = here.collect();
    let known = store.object(&id);
    let was_whole = known.as_ref().is_some_and(|info| info.tree && info.state == State::Whole);
    let started = TreeStarted {
        id,
        is_directory: true,
        name: name.clone().or(known.and_then(|info| info.name)),
        size: totals.size,
        entries: totals.entries,
    };
    let _ = out.send(Ok(TreeEvent::Started(started))).await;
    let given = Delivery::new(errand, &mut supply, &outline, tree, here).run(out).await?;
    let Some(summary) = given else { return Ok(()) };
    let root = NewObject { name, pin, private: errand.private, ..NewObject::new(id, length, unix_now()) };
    match enter(errand, outline, root).await {
        // What is all here can be read from a disk that takes nothing more.
        Err(Error::Store(Refusal::ReadOnly { .. })) if was_whole && pin.is_none() => {}
        entered => entered?,
    }
    let took = errand.started.elapsed();
    let _ = out.send(Ok(TreeEvent::Finished(Summary { size: totals.size, took, ..summary }))).await;
    Ok(())
}

/// Looks what of the files is here, and claims room for the rest. Gives each, with its length and how much of it is not
/// here.
async fn prepare(errand: &Errand, outline: &Outline) -> Result<Vec<(ObjectId, u64, u64)>, Error> {
    let files: Vec<(ObjectId, u64)> = outline.files().collect();
    let mut looked = Vec::with_capacity(files.len());
    for batch in files.chunks(LOOK) {
        let absent = errand.look(batch).await?;
        looked.extend(batch.iter().zip(absent).map(|((id, length), absent)| (*id, *length, absent)));
    }
    let missing: Vec<u64> = looked.iter().map(|(.., absent)| *absent).collect();
    // What cannot fit is refused before any of it comes, however much a stranger's directory claims to hold. That is
    // proved by nobody: what is here goes only for what comes.
    errand.lease.claim(missing).await?;
    Ok(looked)
}

/// Enters a directory all of which is here, and has it announced.
async fn enter(errand: &Arc<Errand>, outline: Outline, root: NewObject) -> Result<(), Error> {
    let id = root.id;
    let Some(tree) = errand.parts.pool.run(move || outline.into_tree(root)).await else {
        return Err(Error::BadTree { id, why: "not all of it is here".to_owned() });
    };
    let parts = tree.trees.iter().map(|(part, _)| part).chain(&tree.files);
    let ids = parts.map(|part| part.id).collect();
    errand.lease.commit_tree(tree).await?;
    let notices = &errand.parts.notices;
    for notice in [Notice::Holds(id), Notice::HoldsAll(ids)] {
        // Nobody listens while the daemon stops.
        let _ = notices.send(notice).await;
    }
    Ok(())
}
