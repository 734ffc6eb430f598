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

    /// The names of these objects of `store`, which are published, may be told from now on. Before or after they are held.
    pub fn publish(&self, objects: &[ObjectInfo], store: &Store) {
        if self.is_announcing() {
            self.shared.publish(objects, true);
            self.shared.reconsider(objects, store);
        }
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
mod tests {
    use std::collections::BTreeMap;

    use futures::future::BoxFuture;
    use tokio::time::sleep;

    use super::*;
    use crate::content::{Chunk, Place};
    use crate::store::{Item, NewObject, Real};
    use crate::support::pool::Pool;

    /// Remembers what it is told.
    #[derive(Default)]
    struct Network {
        /// Key → kind, and whether it was said in the present count.
        held: Mutex<BTreeMap<Key, (bool, bool)>>,
        /// What is published.
        names: Mutex<BTreeMap<Key, String>>,
        counts: Mutex<usize>,
    }

    impl Network {
        fn keys(&self) -> Vec<Key> {
            self.held.lock().unwrap().keys().copied().collect()
        }
    }

    impl Announce for Network {
        fn hold(&self, keys: &[Key], kind: Kind) -> usize {
            let mut held = self.held.lock().unwrap();
            held.extend(keys.iter().map(|key| (*key, (kind == Kind::Object, true))));
            0
        }

        fn place(&self, key: Key) -> BoxFuture<'static, Announced> {
            self.hold(&[key], Kind::Object);
            Box::pin(async { Announced { keys: 1, ..Announced::default() } })
        }

        fn release(&self, keys: &[Key]) {
            self.held.lock().unwrap().retain(|key, _| !keys.contains(key));
        }

        fn publish(&self, said: Vec<Description>, _: bool) -> usize {
            let mut names = self.names.lock().unwrap();
            names.extend(said.into_iter().map(|said| (*said.object.as_bytes(), said.name)));
            0
        }

        fn withdraw(&self, keys: &[Key]) {
            self.names.lock().unwrap().retain(|key, _| !keys.contains(key));
        }

        fn begin_count(&self) {
            self.held.lock().unwrap().values_mut().for_each(|(_, said)| *said = false);
        }

        fn end_count(&self) {
            self.held.lock().unwrap().retain(|_, (_, said)| *said);
            *self.counts.lock().unwrap() += 1;
        }

        fn company(&self) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }

        fn announcing(&self) -> Announcing {
            Announcing::default()
        }
    }

    async fn add(store: &Store, number: u64, private: bool) -> ObjectId {
        let chunk = Chunk::compute(Place::Root, number.to_le_bytes().to_vec().into()).unwrap();
        let id = chunk.id().whole_object(Place::Root).unwrap();
        let lease = store.lease();
        lease.put(Item::Chunk(chunk)).await.unwrap();
        lease.commit(NewObject { private, ..NewObject::new(id, 8, 0) }).await.unwrap();
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

    async fn started(policy: Policy) -> (tempfile::TempDir, Store, Arc<Network>, Announcer, ObjectId) {
        let folder = tempfile::tempdir().unwrap();
        let options = crate::store::Options { reserve: 0, ..crate::store::Options::default() };
        let store = Store::open(&options, Arc::new(Real::new(folder.path())), Pool::inline()).unwrap();
        let first = add(&store, 0, false).await;
        add(&store, 1, true).await;
        let (network, tasks) = (Arc::new(Network::default()), Tasks::new());
        // What an earlier life announced, and has gone meanwhile.
        network.hold(&[[9; 32]], Kind::Chunk);
        let announce = Arc::clone(&network) as Arc<dyn Announce>;
        let options = Options { policy, look: Duration::from_millis(20), ..Options::default() };
        let announcer = Announcer::start(options, store.clone(), announce, &tasks);
        until(|| *network.counts.lock().unwrap() == 1).await;
        (folder, store, network, announcer, first)
    }

    #[tokio::test]
    async fn a_start_tells_all_that_is_public_and_takes_back_what_is_gone() {
        let (_folder, store, network, announcer, first) = started(Policy::Auto).await;
        assert_eq!(network.keys(), [*first.as_bytes()]);
        let second = add(&store, 2, false).await;
        announcer.hold([second]);
        assert!(network.keys().contains(second.as_bytes()), "it is told at once");
        let third = add(&store, 3, false).await;
        assert_eq!(announcer.hold_and_wait(third).await.map(|announced| announced.keys), Some(1));
        announcer.drop_keys([*first.as_bytes()]);
        let mut left = vec![*second.as_bytes(), *third.as_bytes()];
        left.sort_unstable();
        assert_eq!(network.keys(), left);
    }

    #[tokio::test]
    async fn what_the_store_lets_go_of_is_taken_back() {
        let (_folder, store, network, announcer, first) = started(Policy::Auto).await;
        let second = add(&store, 2, false).await;
        announcer.hold([second]);
        assert_eq!(network.keys().len(), 2);
        assert!(matches!(
            store.remove(&first, 0, true).await.unwrap(),
            crate::store::Removed::Removed { .. }
        ));
        until(|| network.keys() == [*second.as_bytes()]).await;
    }

    #[tokio::test]
    async fn only_names_that_are_published_are_told() {
        let (folder, store, network, announcer, first) = started(Policy::Auto).await;
        let names = |network: &Network| network.names.lock().unwrap().values().cloned().collect::<Vec<_>>();
        assert!(store.publish(&first, true, None).await.unwrap());
        announcer.publish(&[store.object(&first).unwrap()], &store);
        assert!(names(&network).is_empty(), "it has none");
        assert!(store.publish(&first, true, Some("a/b".to_owned())).await.unwrap());
        announcer.publish(&[store.object(&first).unwrap()], &store);
        assert!(names(&network).is_empty(), "it is a path");
        assert!(store.publish(&first, true, Some("a name".to_owned())).await.unwrap());
        announcer.publish(&[store.object(&first).unwrap()], &store);
        assert_eq!(names(&network), ["a name"]);
        announcer.withdraw([first]);
        assert!(names(&network).is_empty());
        // Told from what was read before it was taken back, or renamed.
        let before = [store.object(&first).unwrap()];
        assert!(store.publish(&first, false, None).await.unwrap());
        announcer.publish(&before, &store);
        assert!(names(&network).is_empty(), "it has been taken back");
        assert!(store.publish(&first, true, Some("another".to_owned())).await.unwrap());
        announcer.publish(&before, &store);
        assert_eq!(names(&network), ["another"]);
        assert!(store.publish(&first, true, Some("a name".to_owned())).await.unwrap());
        announcer.withdraw([first]);
        let private = store.private_objects().first().copied().unwrap();
        assert!(store.publish(&private, true, Some("secret".to_owned())).await.is_err());

        // Another start tells what the store knows to be published; one that announces nothing tells nothing.
        for (policy, expected) in [(Policy::Auto, vec!["a name"]), (Policy::None, vec![])] {
            let (network, tasks) = (Arc::new(Network::default()), Tasks::new());
            let announce = Arc::clone(&network) as Arc<dyn Announce>;
            let options = Options { policy, ..Options::default() };
            let again = Announcer::start(options, store.clone(), announce, &tasks);
            until(|| *network.counts.lock().unwrap() == 1).await;
            assert_eq!((names(&network), again.is_announcing()), (vec_of(&expected), policy != Policy::None));
        }
        drop(folder);
    }

    fn vec_of(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[tokio::test]
    async fn with_nothing_to_tell_all_is_taken_back() {
        let (_folder, store, network, announcer, _) = started(Policy::None).await;
        let id = add(&store, 2, false).await;
        announcer.hold([id]);
        assert_eq!(announcer.hold_and_wait(id).await, None);
        assert!(network.keys().is_empty());
    }
}
