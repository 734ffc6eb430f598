//! The announcing schedule: objects first and at once, chunk keys after them, everything again at half the lifetime
//! of a record.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::content::ObjectId;
use crate::peer::{Announce, Announced, Key};
use crate::store::{ObjectInfo, State, Store};
use crate::support::task::Tasks;

/// Nodes that keep an object's key.
const OBJECT_COPIES: usize = 20;

/// Nodes that keep a chunk's key.
const CHUNK_COPIES: usize = 4;

/// Objects announced in one go: 32 bytes each here and at the receivers.
const ROUND: usize = 16_384;

/// Chunk keys announced in one go: 512 KiB of them.
const CHUNK_ROUND: usize = 16_384;

/// How long a round that reached nobody waits before it is tried again, and the longest such wait.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));

/// Which keys are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Objects; chunks of objects that are not whole here; chunks of whole ones as far as the budget goes.
    #[default]
    Auto,
    /// Objects only.
    Objects,
    /// Objects and all their chunks.
    Chunks,
    /// Nothing.
    None,
}

/// How announcing is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which keys.
    pub policy: Policy,
    /// How long others keep a record; refreshed at half of it.
    pub lifetime: Duration,
    /// Chunk keys of whole objects that [`Policy::Auto`] announces.
    pub budget: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { policy: Policy::Auto, lifetime: Duration::from_hours(48), budget: 256 << 10 }
    }
}

/// Where announcing stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Objects that wait to be announced.
    pub queued: usize,
    /// Whether what waits is so late that others may have dropped its records.
    pub overdue: bool,
    /// Keys placed with at least one node in this cycle: half the lifetime of a record.
    pub placed: u64,
    /// Messages sent since the start.
    pub messages: u64,
    /// Nodes that the last round reached.
    pub receivers: usize,
}

/// Tells the schedule what is new and what is gone. Cheap to clone.
#[derive(Clone)]
pub struct Announcer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Asked for by callers, done by the schedule's task.
    pending: Mutex<Pending>,
    /// Rung when something is pending.
    bell: Notify,
}

#[derive(Default)]
struct Pending {
    /// At most as many as the store has objects.
    objects: BTreeSet<ObjectId>,
    /// Keys of what has been removed.
    withdrawn: Vec<Key>,
    /// Who waits for which object.
    waiting: Vec<(ObjectId, oneshot::Sender<Announced>)>,
    /// When others begin to drop what this cycle has not refreshed; `None` in the first, which follows no other.
    late_at: Option<Instant>,
    status: Status,
}

impl Announcer {
    /// Starts the schedule over what `store` holds. Runs until `tasks` stop.
    #[must_use]
    pub fn start(options: Options, store: Store, network: Arc<dyn Announce>, tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared { pending: Mutex::default(), bell: Notify::new() });
        let announcer = Self { shared: Arc::clone(&shared) };
        if options.policy != Policy::None {
            let stop = tasks.token();
            let schedule = Schedule { options, store, network, shared, spent: 0 };
            tasks.spawn("announce", async move {
                tokio::select! {
                    () = schedule.run() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        announcer
    }

    /// An object is held here now, wholly or in part. Returns at once.
    pub fn hold(&self, id: ObjectId) {
        self.pending().objects.insert(id);
        self.shared.bell.notify_one();
    }

    /// As [`Announcer::hold`], of many.
    pub fn hold_all(&self, ids: impl IntoIterator<Item = ObjectId>) {
        self.pending().objects.extend(ids);
        self.shared.bell.notify_one();
    }

    /// As [`Announcer::hold`], and waits until the object's key has been placed (with nobody, when no other node is
    /// known). `None` when nothing is announced by policy.
    pub async fn hold_and_wait(&self, id: ObjectId) -> Option<Announced> {
        let (done, waited) = oneshot::channel();
        self.pending().waiting.push((id, done));
        self.hold(id);
        waited.await.ok()
    }

    /// Keys that are no longer held here.
    pub fn drop_keys(&self, keys: impl IntoIterator<Item = Key>) {
        self.pending().withdrawn.extend(keys);
        self.shared.bell.notify_one();
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let pending = self.pending();
        let is_late = pending.late_at.is_some_and(|at| Instant::now() >= at);
        let overdue = is_late && !pending.objects.is_empty();
        Status { queued: pending.objects.len(), overdue, ..pending.status.clone() }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task behind an [`Announcer`].
struct Schedule {
    options: Options,
    store: Store,
    network: Arc<dyn Announce>,
    shared: Arc<Shared>,
    /// Chunk keys of whole objects announced in this cycle, against the budget.
    spent: usize,
}

impl Schedule {
    async fn run(mut self) {
        let cycle = self.options.lifetime / 2;
        let mut refresh = Instant::now();
        let mut is_first = true;
        let mut retry = RETRY.0;
        loop {
            if Instant::now() >= refresh {
                self.requeue_all();
                self.pending().late_at = (!is_first).then(|| Instant::now() + cycle);
                is_first = false;
                refresh = Instant::now() + cycle;
            }
            match self.round().await {
                Round::Idle => {
                    let _ = tokio::time::timeout_at(refresh, self.shared.bell.notified()).await;
                }
                Round::Placed => retry = RETRY.0,
                Round::Alone => {
                    // A new object rings the bell, so it does not wait for the others' retry.
                    let _ = tokio::time::timeout(retry, self.shared.bell.notified()).await;
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Everything that the store holds is due.
    fn requeue_all(&mut self) {
        self.spent = 0;
        {
            let mut pending = self.pending();
            let is_late = !pending.objects.is_empty();
            if is_late {
                let left = pending.objects.len();
                tracing::warn!(
                    left,
                    "announcing is overdue: other nodes may no longer know what this one holds"
                );
            }
            pending.status.placed = 0;
        }
        let mut after = None;
        loop {
            let page = self.store.objects(after, ROUND);
            let Some(last) = page.last() else { return };
            after = Some(last.id);
            let public = page.iter().filter(|object| !object.private).map(|object| object.id);
            self.pending().objects.extend(public);
        }
    }

    /// Withdraws what is gone, then announces a round of objects and their chunks.
    async fn round(&mut self) -> Round {
        let (objects, withdrawn) = self.take();
        if !withdrawn.is_empty() {
            self.network.withdraw(withdrawn).await;
        }
        if objects.is_empty() {
            return Round::Idle;
        }
        let held: Vec<ObjectInfo> =
            objects.iter().filter_map(|id| self.store.object(id)).filter(|o| !o.private).collect();
        let keys: Vec<Key> = held.iter().map(|object| *object.id.as_bytes()).collect();
        let announced = self.network.announce(keys, OBJECT_COPIES).await;
        let alone = announced.receivers == 0 && !held.is_empty();
        self.tell(&objects, &announced);
        if alone {
            self.pending().objects.extend(held.iter().map(|object| object.id));
            return Round::Alone;
        }
        for object in held {
            self.chunks(&object).await;
        }
        Round::Placed
    }

    /// What is pending now.
    fn take(&self) -> (BTreeSet<ObjectId>, Vec<Key>) {
        let mut pending = self.pending();
        let withdrawn = std::mem::take(&mut pending.withdrawn);
        let mut objects = std::mem::take(&mut pending.objects);
        // Those that someone waits for go first; the rest in order, as many as a round takes.
        let awaited: Vec<ObjectId> =
            pending.waiting.iter().map(|(id, _)| *id).filter(|id| objects.remove(id)).collect();
        if let Some(beyond) = objects.iter().nth(ROUND).copied() {
            pending.objects = objects.split_off(&beyond);
        }
        objects.extend(awaited);
        (objects, withdrawn)
    }

    /// Notes a round and answers those who wait for one of its objects.
    fn tell(&self, objects: &BTreeSet<ObjectId>, announced: &Announced) {
        let mut pending = self.pending();
        pending.status.placed += announced.keys as u64;
        pending.status.messages += announced.messages as u64;
        pending.status.receivers = announced.receivers;
        let waiting = std::mem::take(&mut pending.waiting);
        for (id, done) in waiting {
            if objects.contains(&id) {
                let _ = done.send(*announced);
            } else {
                pending.waiting.push((id, done));
            }
        }
    }

    /// Announces the chunks of one object, as far as the policy wants them.
    async fn chunks(&mut self, object: &ObjectInfo) {
        let whole = object.state == State::Whole;
        let wanted = match self.options.policy {
            Policy::None | Policy::Objects => false,
            Policy::Chunks => true,
            Policy::Auto => !whole || self.spent < self.options.budget,
        };
        if !wanted {
            return;
        }
        // An object of one chunk is announced already: the keys are the same bytes.
        let Ok(Some(manifest)) = self.store.manifest(&object.id).await else { return };
        let held = (0..manifest.chunks())
            .filter(|index| !manifest.is_zero(*index))
            .filter_map(|index| manifest.chunk(index));
        let keys: Vec<Key> =
            held.filter(|chunk| self.store.has(&chunk.id)).map(|chunk| *chunk.id.as_bytes()).collect();
        if whole && self.options.policy == Policy::Auto {
            self.spent += keys.len();
        }
        for part in keys.chunks(CHUNK_ROUND) {
            let announced = self.network.announce(part.to_vec(), CHUNK_COPIES).await;
            self.tell(&BTreeSet::new(), &announced);
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a round went.
enum Round {
    /// Nothing was pending.
    Idle,
    /// At least one other node took keys.
    Placed,
    /// No other node is known: again later.
    Alone,
}
