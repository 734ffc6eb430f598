//! From a walk to the caller: what comes next is asked for ahead and given in order, as fast as the caller takes it.
//!
//! Owns: the window between what is asked for and what has been given. Refuses: more in it than
//! [`super::super::Options::in_flight`] bytes, so a slow caller bounds everything.

mod long;
mod slot;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::super::{Error, Progress, Summary};
use super::outline::Outline;
use super::supply::{Halt, Supply};
use super::walk::{File, Step, Walk};
use super::{Errand, FetchedPart, NAMED, TreeEvent, trees};
use crate::content::{CHUNK, ObjectId, Tree};
use long::{LARGE, next_of};
use slot::{Held, Large, Slot};

/// How often a caller is told how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// Steps in the window at most.
const STEPS: usize = 8192;

/// Parts of one message at most, and bytes of it, names and targets counted in.
const MESSAGE: (usize, usize) = (1024, CHUNK);

/// A tree on its way.
type Loading = BoxFuture<'static, Result<(Tree, Summary), Error>>;

/// See the module.
pub(super) struct Delivery<'a> {
    errand: &'a Arc<Errand>,
    supply: &'a mut Supply,
    outline: &'a Outline,
    /// The files that are here, with whether they were before.
    here: HashMap<ObjectId, bool>,
    walk: Walk,
    /// The tree that the walk waits for.
    loading: Option<Loading>,
    window: VecDeque<Slot>,
    /// Bytes of the window.
    weight: u64,
    small: HashMap<ObjectId, Held>,
    /// Large files in the window that have been begun, and that have not.
    begun: usize,
    waiting: usize,
    /// The next message.
    ready: Vec<FetchedPart>,
    ready_bytes: usize,
    /// The directories around what comes next.
    trail: Vec<String>,
    given: u64,
    local: u64,
    /// For the rate: bytes from peers when it was last told.
    told: (Instant, u64),
    ticks: Interval,
}

impl<'a> Delivery<'a> {
    /// `here`: the files that are in the store.
    pub(super) fn new(
        errand: &'a Arc<Errand>,
        supply: &'a mut Supply,
        outline: &'a Outline,
        root: Tree,
        here: impl IntoIterator<Item = ObjectId>,
    ) -> Self {
        let mut ticks = tokio::time::interval(PROGRESS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            errand,
            supply,
            outline,
            here: here.into_iter().map(|id| (id, true)).collect(),
            walk: Walk::new(root),
            loading: None,
            window: VecDeque::new(),
            weight: 0,
            small: HashMap::new(),
            begun: 0,
            waiting: 0,
            ready: Vec::new(),
            ready_bytes: 0,
            trail: Vec::new(),
            given: 0,
            local: 0,
            told: (Instant::now(), 0),
            ticks,
        }
    }

    /// Gives all of it. What it did; `None` when the caller has gone.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn run(
        mut self,
        out: &mpsc::Sender<Result<TreeEvent, Error>>,
    ) -> Result<Option<Summary>, Error> {
        loop {
            self.fill();
            self.stage();
            if self.walk.is_over() && self.window.is_empty() && self.ready.is_empty() {
                let local = self.local;
                return Ok(Some(Summary { local, ..self.supply.summary() }));
            }
            let is_full = self.ready.len() >= MESSAGE.0 || self.ready_bytes >= MESSAGE.1;
            let waits_for_large = self.ready.is_empty() && self.large().is_some();
            tokio::select! {
                biased;
                _ = self.ticks.tick() => self.tick(out),
                permit = out.reserve(), if is_full => match permit {
                    Ok(permit) => permit.send(Ok(self.message())),
                    Err(_) => return Ok(None),
                },
                given = self.supply.next() => match given {
                    Ok(given) => self.came(given),
                    Err(Halt::Failed(error)) => return Err(error),
                    Err(Halt::Stalled | Halt::Lacking(_)) => return Err(self.stalled()),
                },
                tree = loaded(&mut self.loading) => {
                    let (tree, summary) = tree?;
                    self.loading = None;
                    self.supply.also(&summary);
                    self.walk.descend(tree);
                }
                event = next_of(&mut self.window), if waits_for_large => self.large_event(event)?,
                permit = out.reserve(), if !self.ready.is_empty() => match permit {
                    Ok(permit) => permit.send(Ok(self.message())),
                    Err(_) => return Ok(None),
                },
            }
        }
    }

    fn message(&mut self) -> TreeEvent {
        self.ready_bytes = 0;
        TreeEvent::Parts(std::mem::take(&mut self.ready))
    }

    /// Takes steps of the walk into the window while there is room, and begins to bring what they need.
    fn fill(&mut self) {
        while self.weight < self.errand.parts.options.in_flight && self.window.len() < STEPS {
            if let Some(id) = self.walk.needed() {
                let Some(tree) = self.outline.tree(&id) else {
                    self.load(id);
                    break;
                };
                self.walk.descend(tree);
            }
            let Some(step) = self.walk.next() else { break };
            let slot = match step {
                Step::Enter(name) => Slot::Part(FetchedPart::Enter { name }),
                Step::Leave => Slot::Part(FetchedPart::Leave),
                Step::Link(name, target) => Slot::Part(FetchedPart::Link { name, target }),
                Step::File(File { name, executable, length: 0, .. }) => {
                    Slot::Part(FetchedPart::File { name, executable, bytes: Bytes::new() })
                }
                Step::File(file) => match trees::short(file.length) {
                    Some(length) => {
                        self.want(file.id, length);
                        Slot::Small(file)
                    }
                    None => {
                        self.waiting += 1;
                        Slot::Large(Large { file, fetching: None, given: None, again: false })
                    }
                },
            };
            self.weight += slot.weight();
            self.window.push_back(slot);
        }
        if self.begun < LARGE && self.waiting > 0 {
            self.begin_large();
        }
    }

    /// Reads a tree that is not in memory.
    fn load(&mut self, id: ObjectId) {
        if self.loading.is_none() {
            let length = self.outline.length_of(&id).unwrap_or(0);
            let tree = trees::load(Arc::clone(self.errand), id, length, self.supply.askers());
            self.loading = Some(Box::pin(tree));
        }
    }

    /// A small file stands in the window once more.
    fn want(&mut self, id: ObjectId, length: u32) {
        let held = self.small.entry(id).or_default();
        held.users += 1;
        if held.users == 1 {
            self.supply.want(id, length, self.here.contains_key(&id));
        }
    }

    /// Small files have come.
    fn came(&mut self, given: Vec<(ObjectId, Bytes)>) {
        for (id, bytes) in given {
            self.here.entry(id).or_insert(false);
            if let Some(held) = self.small.get_mut(&id) {
                held.bytes = Some(bytes);
            }
        }
    }

    /// Moves what can be given from the window to the next message.
    fn stage(&mut self) {
        while self.ready.len() < MESSAGE.0 {
            let bytes = match self.window.front_mut() {
                None => return,
                Some(Slot::Part(_)) => Bytes::new(),
                Some(Slot::Small(file)) => match self.small.get(&file.id) {
                    Some(Held { bytes: Some(bytes), .. }) => bytes.clone(),
                    _ => return,
                },
                Some(Slot::Large(large)) => {
                    if large.given.is_none() {
                        large.given = Some(0);
                        let File { name, executable, length, .. } = large.file.clone();
                        self.push(FetchedPart::Start { name, executable, length });
                    }
                    return;
                }
            };
            let weight = self.window.front().map_or(0, Slot::weight);
            let fits = self.ready_bytes as u64 + weight <= MESSAGE.1 as u64;
            if !fits && !self.ready.is_empty() {
                // What is ready goes first.
                self.ready_bytes = MESSAGE.1;
                return;
            }
            self.weight -= weight;
            match self.window.pop_front() {
                Some(Slot::Part(part)) => self.push(part),
                Some(Slot::Small(file)) => self.push_small(file, bytes),
                Some(Slot::Large(_)) | None => {}
            }
        }
    }

    fn push_small(&mut self, file: File, bytes: Bytes) {
        let File { id, name, executable, length } = file;
        if let Some(held) = self.small.get_mut(&id) {
            held.users -= 1;
            if held.users == 0 {
                self.small.remove(&id);
            }
        }
        if self.here.get(&id) == Some(&true) {
            self.local += length;
        }
        self.push(FetchedPart::File { name, executable, bytes });
    }

    fn push(&mut self, part: FetchedPart) {
        match &part {
            FetchedPart::Enter { name } => self.trail.push(name.clone()),
            FetchedPart::Leave => _ = self.trail.pop(),
            FetchedPart::File { bytes, .. } | FetchedPart::Data(bytes) => self.given += bytes.len() as u64,
            FetchedPart::Zeros(count) => self.given += count,
            _ => {}
        }
        self.ready_bytes += part.weight();
        self.ready.push(part);
    }

    /// Twice a second: how far it is.
    fn tick(&mut self, out: &mpsc::Sender<Result<TreeEvent, Error>>) {
        let received: u64 = self.supply.summary().peers.iter().map(|(_, bytes)| bytes).sum();
        let (since, before) = std::mem::replace(&mut self.told, (Instant::now(), received));
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let progress = Progress {
            bytes: self.given,
            local: self.local,
            peers: self.supply.peers(),
            rate: received.saturating_sub(before).saturating_mul(1000) / millis,
            files: (0, 0),
        };
        self.supply.report(0, 0);
        // A caller that has parts waiting needs no progress.
        let _ = out.try_send(Ok(TreeEvent::Progress(progress)));
    }

    /// Nothing has come for too long: names what is missing next.
    fn stalled(&self) -> Error {
        let (mut trail, mut paths, mut count) = (self.trail.clone(), Vec::new(), 0);
        for slot in &self.window {
            let name = match slot {
                Slot::Part(FetchedPart::Enter { name }) => {
                    trail.push(name.clone());
                    continue;
                }
                Slot::Part(FetchedPart::Leave) => {
                    trail.pop();
                    continue;
                }
                Slot::Part(_) => continue,
                Slot::Small(file) if self.small.get(&file.id).is_some_and(|held| held.bytes.is_some()) => {
                    continue;
                }
                Slot::Small(file) | Slot::Large(Large { file, .. }) => &file.name,
            };
            count += 1;
            if paths.len() < NAMED {
                let around = trail.iter().fold(String::new(), |path, name| path + name + "/");
                paths.push(format!("{around}{name}"));
            }
        }
        self.errand.stalled(&paths, count)
    }
}

/// The tree that is on its way. Pending while none is. Cancel-safe.
async fn loaded(loading: &mut Option<Loading>) -> Result<(Tree, Summary), Error> {
    match loading {
        Some(loading) => loading.await,
        None => std::future::pending().await,
    }
}
