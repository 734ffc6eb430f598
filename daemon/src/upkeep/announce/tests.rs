//! What is told of a real store to a network that remembers it.

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

    fn tell(&self, key: Key, said: Option<Description>) -> BoxFuture<'static, Announced> {
        match said {
            Some(said) => drop(self.publish(vec![said], true)),
            None => self.withdraw(&[key]),
        }
        self.place(key)
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
    assert!(matches!(store.remove(&first, 0, true).await.unwrap(), crate::store::Removed::Removed { .. }));
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
