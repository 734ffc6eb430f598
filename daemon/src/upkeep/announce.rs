//! What is announced: all objects that are not private, and chunks by policy and budget.
//!
//! Owns: which keys of the store's others are told. Refuses: when they are told; that is the network's schedule
//! ([`Announce`]). Survives a crash: nothing; all is told again at a start, and once a day, so that nothing is
//! missing and what is gone is taken back, however it went.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::content::{Description, ObjectId};
use crate::peer::{Announce, Announced, Announcing, Key, Kind};
use crate::store::{ObjectInfo, State, Store};
use crate::support::task::Tasks;

/// Objects told in one go.
const ROUND: usize = 16_384;

/// How often all is told again: then it is noticed what is missing, by whatever fault.
const CYCLE: Duration = Duration::from_hours(24);

/// How often it is looked whether something has been let go of, by whomever: then all is told again, and the keys of
/// what is gone are taken back. It costs two seconds for a million chunks.
const LOOK: Duration = Duration::from_mins(10);

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

/// What is to be announced.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which keys.
    pub policy: Policy,
    /// Chunk keys of whole objects that [`Policy::Auto`] announces.
    pub budget: usize,
    /// How often it is looked whether something has been let go of.
    pub look: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { policy: Policy::Auto, budget: 256 << 10, look: LOOK }
    }
}

/// Tells the network what is new and what is gone. Cheap to clone.
#[derive(Clone)]
pub struct Announcer {
    shared: Arc<Shared>,
}

struct Shared {
    policy: Policy,
    network: Arc<dyn Announce>,
    /// Objects whose chunks have to be told; at most as many as the store has.
    pending: Mutex<BTreeSet<ObjectId>>,
    /// Rung when there are some.
    bell: Notify,
}

impl Announcer {
    /// Tells of what `store` holds. Runs until `tasks` stop.
    #[must_use]
    pub fn start(options: Options, store: Store, network: Arc<dyn Announce>, tasks: &Tasks) -> Self {
        let policy = options.policy;
        let shared = Arc::new(Shared { policy, network, pending: Mutex::default(), bell: Notify::new() });
        let announcer = Self { shared: Arc::clone(&shared) };
        // With nothing to tell, what an earlier policy told is taken back.
        let stop = tasks.token();
        let teller = Teller { options, store, shared, spent: 0 };
        tasks.spawn("tell what is held", async move {
            stop.run_until_cancelled(teller.run()).await;
        });
        announcer
    }

    /// Objects are held here now, wholly or in part. Returns at once.
    pub fn hold(&self, ids: impl IntoIterator<Item = ObjectId>) {
        let ids: Vec<ObjectId> = ids.into_iter().collect();
        self.shared.tell(&ids);
        self.shared.later(ids);
    }

    /// As [`Announcer::hold`], and waits until the object's key has been placed (with nobody, when no other node is
    /// known). `None` when nothing is announced by policy.
    pub async fn hold_and_wait(&self, id: ObjectId) -> Option<Announced> {
        if self.shared.policy == Policy::None {
            return None;
        }
        let announced = self.shared.network.place(*id.as_bytes()).await;
        self.shared.later([id]);
        Some(announced)
    }

    /// Whether anything is announced at all: otherwise nobody hears of names either.
    #[must_use]
    pub fn is_announcing(&self) -> bool {
        self.shared.policy != Policy::None
    }

    /// The names of these objects of `store`, which are published, may be told from now on. Before or after they are
    /// held.
    pub fn publish(&self, objects: &[ObjectInfo], store: &Store) {
        if self.is_announcing() {
            self.shared.publish(objects, true);
            self.shared.reconsider(objects, store);
        }
    }

    /// What this node says of one object of `store` is told now: its name where it is published, else that it has none.
    /// Waits until others have been told once; `None` when nothing is announced by policy.
    pub async fn tell(&self, object: &ObjectInfo, store: &Store) -> Option<Announced> {
        if !self.is_announcing() {
            return None;
        }
        let (of_one, key) = (std::slice::from_ref(object), *object.id.as_bytes());
        self.shared.publish(of_one, false);
        let told = self.shared.network.tell(key, described(object));
        self.shared.reconsider(of_one, store);
        Some(told.await)
    }

    /// They may not any more.
    pub fn withdraw(&self, ids: impl IntoIterator<Item = ObjectId>) {
        self.shared.network.withdraw(&ids.into_iter().map(|id| *id.as_bytes()).collect::<Vec<_>>());
    }

    /// Keys that are no longer held here.
    pub fn drop_keys(&self, keys: impl IntoIterator<Item = Key>) {
        self.shared.network.release(&keys.into_iter().collect::<Vec<_>>());
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Announcing {
        self.shared.network.announcing()
    }
}

impl Shared {
    fn tell(&self, ids: &[ObjectId]) {
        if self.policy != Policy::None {
            let keys: Vec<Key> = ids.iter().map(|id| *id.as_bytes()).collect();
            self.hold(&keys, Kind::Object);
        }
    }

    fn publish<'a>(&self, objects: impl IntoIterator<Item = &'a ObjectInfo>, anew: bool) {
        let over = self.network.publish(objects.into_iter().filter_map(described).collect(), anew);
        if over > 0 {
            tracing::warn!(over, "more objects are published than can be; others do not learn these names");
        }
    }

    /// What was published of these as they were: where a name was taken back or changed meanwhile, that counts.
    fn reconsider(&self, told: &[ObjectInfo], store: &Store) {
        let published = told.iter().filter(|info| info.publish);
        let now = published.map(|info| (info, store.object(&info.id)));
        let (mut gone, mut other) = (Vec::new(), Vec::new());
        for (then, now) in now {
            match now.filter(|now| now.publish && !now.private) {
                None => gone.push(*then.id.as_bytes()),
                Some(now) if now.name != then.name => other.push(now),
                Some(_) => {}
            }
        }
        self.network.withdraw(&gone);
        self.publish(&other, true);
    }

    /// Their chunks are told soon.
    fn later(&self, ids: impl IntoIterator<Item = ObjectId>) {
        self.pending().extend(ids);
        self.bell.notify_one();
    }

    fn hold(&self, keys: &[Key], kind: Kind) {
        let over = self.network.hold(keys, kind);
        if over > 0 {
            tracing::warn!(over, "more keys than can be announced; others cannot find these");
        }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeSet<ObjectId>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of an object, where its name may leave this node.
fn described(info: &ObjectInfo) -> Option<Description> {
    let name = info.name.clone().filter(|_| info.publish && !info.private)?;
    let (object, is_directory, length, parity) = (info.id, info.tree, info.length, info.parity);
    let said = Description { object, is_directory, length, parity, name, time: 0 };
    said.check().is_ok().then_some(said)
}

/// The task behind an [`Announcer`].
struct Teller {
    options: Options,
    store: Store,
    shared: Arc<Shared>,
    /// Chunk keys of whole objects told since all was told, against the budget.
    spent: usize,
}

impl Teller {
    async fn run(mut self) {
        loop {
            let let_go = self.store.let_go();
            self.tell_all().await;
            let (told, mut look) = (Instant::now(), Instant::now() + self.options.look);
            while told.elapsed() < CYCLE && self.store.let_go() == let_go {
                while tokio::time::timeout_at(look, self.shared.bell.notified()).await.is_ok() {
                    self.tell_chunks().await;
                }
                look += self.options.look;
            }
        }
    }

    /// Tells of everything; what is not told of again, is taken back.
    async fn tell_all(&mut self) {
        self.spent = 0;
        self.shared.network.begin_count();
        let mut after = None;
        loop {
            let page = self.store.objects(after, ROUND);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let public: Vec<ObjectId> =
                page.iter().filter(|object| !object.private).map(|object| object.id).collect();
            // They are announced in their time; what was announced before this start went with its name.
            if self.options.policy != Policy::None {
                self.shared.publish(&page, false);
                self.shared.reconsider(&page, &self.store);
            }
            self.shared.tell(&public);
            self.shared.pending().extend(public);
        }
        self.tell_chunks().await;
        self.shared.network.end_count();
    }

    /// Tells of the chunks of what is pending.
    async fn tell_chunks(&mut self) {
        // Which chunks there are is read from disk: not before somebody could be told.
        if self.options.policy != Policy::None {
            self.shared.network.company().await;
        }
        let pending = std::mem::take(&mut *self.shared.pending());
        for id in pending {
            if let Some(object) = self.store.object(&id).filter(|object| !object.private) {
                self.chunks(&object).await;
            }
        }
    }

    /// Tells of the chunks of one object, as far as the policy wants them.
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
        self.shared.hold(&keys, Kind::Chunk);
    }
}

#[cfg(test)]
mod tests;
