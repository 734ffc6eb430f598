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

/// Rounds begin this far apart at least: what is added meanwhile goes together.
const PACE: Duration = Duration::from_millis(100);

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
    /// By policy nothing is announced: nothing that callers ask for is kept, since nobody would do it.
    is_silent: bool,
    /// Asked for by callers, done by the schedule's task.
    pending: Mutex<Pending>,
    /// Rung when something is pending.
    bell: Notify,
}

#[derive(Default)]
struct Pending {
    /// At most as many as the store has objects.
    objects: BTreeSet<ObjectId>,
    /// Those that were tried when no other node was known. They wait until one is, or for the next try.
    stranded: BTreeSet<ObjectId>,
    /// Keys of what has been removed.
    withdrawn: Vec<Key>,
    /// Who waits for which object.
    waiting: Vec<(ObjectId, oneshot::Sender<Announced>)>,
    /// When others begin to drop what this cycle has not refreshed; `None` in the first, which follows no other.
    late_at: Option<Instant>,
    status: Status,
}

impl Pending {
    fn queued(&self) -> usize {
        self.objects.len() + self.stranded.len()
    }

    /// Those that nobody could be told of are tried again.
    fn try_stranded(&mut self) {
        self.objects.append(&mut self.stranded);
    }
}

impl Announcer {
    /// Starts the schedule over what `store` holds. Runs until `tasks` stop.
    #[must_use]
    pub fn start(options: Options, store: Store, network: Arc<dyn Announce>, tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared {
            is_silent: options.policy == Policy::None,
            pending: Mutex::default(),
            bell: Notify::new(),
        });
        let announcer = Self { shared: Arc::clone(&shared) };
        if !shared.is_silent {
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

    /// Objects are held here now, wholly or in part. Returns at once.
    pub fn hold(&self, ids: impl IntoIterator<Item = ObjectId>) {
        if self.shared.is_silent {
            return;
        }
        self.pending().objects.extend(ids);
        self.shared.bell.notify_one();
    }

    /// As [`Announcer::hold`], and waits until the object's key has been placed (with nobody, when no other node is
    /// known). `None` when nothing is announced by policy.
    pub async fn hold_and_wait(&self, id: ObjectId) -> Option<Announced> {
        if self.shared.is_silent {
            return None;
        }
        let (done, waited) = oneshot::channel();
        self.pending().waiting.push((id, done));
        self.hold([id]);
        waited.await.ok()
    }

    /// Keys that are no longer held here.
    pub fn drop_keys(&self, keys: impl IntoIterator<Item = Key>) {
        if self.shared.is_silent {
            return;
        }
        self.pending().withdrawn.extend(keys);
        self.shared.bell.notify_one();
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let pending = self.pending();
        let is_late = pending.late_at.is_some_and(|at| Instant::now() >= at);
        let queued = pending.queued();
        Status { queued, overdue: is_late && queued > 0, ..pending.status.clone() }
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
        let (mut retry, mut retry_at) = (RETRY.0, None::<Instant>);
        loop {
            let begun = Instant::now();
            if begun >= refresh {
                self.requeue_all();
                self.pending().late_at = (!is_first).then(|| Instant::now() + cycle);
                is_first = false;
                refresh = Instant::now() + cycle;
            }
            if retry_at.take_if(|at| begun >= *at).is_some() {
                self.pending().try_stranded();
            }
            match self.round().await {
                Round::Idle => {
                    let until = retry_at.map_or(refresh, |at| at.min(refresh));
                    let _ = tokio::time::timeout_at(until, self.shared.bell.notified()).await;
                    continue;
                }
                Round::Placed => {
                    self.pending().try_stranded();
                    (retry, retry_at) = (RETRY.0, None);
                }
                Round::Alone if retry_at.is_none() => {
                    retry_at = Some(Instant::now() + retry);
                    retry = (retry * 2).min(RETRY.1);
                }
                Round::Alone => {}
            }
            tokio::time::sleep_until(begun + PACE).await;
        }
    }

    /// Everything that the store holds is due.
    fn requeue_all(&mut self) {
        self.spent = 0;
        {
            let mut pending = self.pending();
            let left = pending.queued();
            if left > 0 {
                tracing::warn!(
                    left,
                    "announcing is overdue: other nodes may no longer know what this one holds"
                );
            }
            pending.try_stranded();
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
            self.pending().stranded.extend(held.iter().map(|object| object.id));
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::BoxFuture;
    use tokio::time::sleep;

    use super::*;
    use crate::content::{Chunk, Place};
    use crate::store::{Item, NewObject, Real};
    use crate::support::pool::Pool;

    /// Notes what it is told, call by call.
    #[derive(Default)]
    struct Network {
        told: Mutex<Vec<Vec<Key>>>,
        receivers: AtomicUsize,
    }

    impl Network {
        fn rounds(&self) -> Vec<usize> {
            self.told.lock().unwrap().iter().map(Vec::len).collect()
        }
    }

    impl Announce for Network {
        fn announce(&self, keys: Vec<Key>, _: usize) -> BoxFuture<'static, Announced> {
            let receivers = self.receivers.load(Ordering::SeqCst);
            let placed = if receivers > 0 { keys.len() } else { 0 };
            self.told.lock().unwrap().push(keys);
            Box::pin(async move { Announced { keys: placed, receivers, ..Announced::default() } })
        }

        fn withdraw(&self, _: Vec<Key>) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    async fn add(store: &Store, number: u64) -> ObjectId {
        let chunk = Chunk::compute(Place::Root, number.to_le_bytes().to_vec().into()).unwrap();
        let id = chunk.id().whole_object(Place::Root).unwrap();
        let lease = store.lease();
        lease.put(Item::Chunk(chunk)).await.unwrap();
        lease.commit(NewObject::new(id, 8, 0)).await.unwrap();
        id
    }

    async fn until(what: impl Fn() -> bool) {
        let wait = async {
            while !what() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    }

    #[tokio::test]
    async fn a_new_object_does_not_bring_the_others_along_while_alone_and_all_go_when_somebody_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let options = crate::store::Options { reserve: 0, ..crate::store::Options::default() };
        let store = Store::open(&options, Arc::new(Real::new(folder.path())), Pool::inline()).unwrap();
        let (network, tasks) = (Arc::new(Network::default()), Tasks::new());
        let announce = Arc::clone(&network) as Arc<dyn Announce>;
        let announcer = Announcer::start(Options::default(), store.clone(), announce, &tasks);
        let begun = std::time::Instant::now();
        for number in 0..10 {
            let id = add(&store, number).await;
            announcer.hold([id]);
            until(|| network.told.lock().unwrap().iter().flatten().any(|key| key == id.as_bytes())).await;
        }
        assert_eq!(announcer.status().queued, 10);
        // All are tried again, but only when it is time.
        let tries = network.rounds().into_iter().filter(|round| *round > 1).count() as u64;
        assert!(tries <= begun.elapsed().as_secs() / RETRY.0.as_secs(), "{:?}", network.rounds());
        until(|| network.rounds().last() == Some(&10)).await;
        network.receivers.store(1, Ordering::SeqCst);
        announcer.hold([add(&store, 10).await]);
        until(|| announcer.status().queued == 0).await;
        assert_eq!(announcer.status().placed, 11);
        tasks.drain(Duration::from_secs(1)).await;
    }
}
