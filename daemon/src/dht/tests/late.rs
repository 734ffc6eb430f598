//! Whoever missed that something else is said of an object, or nothing any more, hears of it later.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::FutureExt;

use super::{Node, TCP, key, network, options, until, within};
use crate::content::{Description, ObjectId};
use crate::dht::announcer::Purpose;
use crate::dht::batch::Answer;
use crate::dht::schedule::minute;
use crate::dht::{Options, command};
use crate::peer::{Announce, Catalogue, Key, Keypair, Kind};

fn said(object: Key, name: &str) -> Description {
    let (object, name) = (ObjectId::from_bytes(object), name.to_owned());
    Description { object, is_directory: false, length: 5 << 20, parity: None, name, time: 0 }
}

/// A node that remembers what it keeps in a folder, and joins by another.
struct Lasting {
    keypair: Keypair,
    options: Options,
}

impl Lasting {
    fn new(folder: &Path, hub: &Node) -> Self {
        let journal = Some(folder.join("cache/keys"));
        let options = Options { journal, ..options(TCP, &[hub]) };
        Self { keypair: Keypair::generate_ed25519(), options }
    }

    /// As it is before it has read its journal.
    async fn begin(&self) -> Node {
        Node::of(self.options.clone(), self.keypair.clone()).await
    }

    async fn start(&self) -> Node {
        let node = self.begin().await;
        within("it has read its journal", node.dht.0.journal.read()).await;
        node.knows(1).await;
        node
    }

    /// Which file its journal is.
    fn file(&self) -> u64 {
        std::fs::metadata(self.options.journal.as_ref().unwrap()).unwrap().ino()
    }
}

fn kept(node: &Node) -> Vec<String> {
    node.dht.kept("", None).said.iter().map(|said| said.description().name.clone()).collect()
}

async fn until_kept(node: &Node, names: &[&str]) {
    until("it is kept", || async { kept(node) == names }).await;
}

/// Says something of the first object, and waits until others were told.
async fn tell(publisher: &Node, name: Option<&str>) {
    let told =
        within("others are told", publisher.dht.tell(key(1), name.map(|name| said(key(1), name)))).await;
    assert!(told.receivers > 0, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_that_was_away_hears_of_another_name_and_of_none_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::server(TCP, &[]).await;
    let publisher = Node::server(TCP, &[&hub]).await;
    let lasting = Lasting::new(folder.path(), &hub);
    let mut keeper = lasting.start().await;
    publisher.knows(2).await;
    assert_eq!(publisher.dht.hold(&[key(1)], Kind::Object), 0);
    tell(&publisher, Some("old")).await;
    until_kept(&keeper, &["old"]).await;
    for names in [&["new"][..], &[]] {
        keeper.stop().await;
        tell(&publisher, names.first().copied()).await;
        until_kept(&hub, names).await;
        keeper = lasting.start().await;
        until_kept(&keeper, names).await;
    }
    tell(&publisher, Some("again")).await;
    until_kept(&keeper, &["again"]).await;
    keeper.stop().await;
    publisher.dht.release(&[key(1)]);
    until_kept(&hub, &[]).await;
    keeper = lasting.start().await;
    until_kept(&keeper, &[]).await;
    until("its record goes as well", || async { keeper.dht.status().await.other_records == 0 }).await;
    until("nothing is left to be told", || async { !publisher.dht.0.heard.is_owed(&key(1)) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_hears_that_what_had_no_name_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::server(TCP, &[]).await;
    let (holder, lasting) = (Node::server(TCP, &[&hub]).await, Lasting::new(folder.path(), &hub));
    let keeper = lasting.start().await;
    holder.knows(2).await;
    assert_eq!(holder.dht.hold(&[key(1)], Kind::Object), 0);
    until("it is kept", || async { keeper.dht.status().await.other_records == 1 }).await;
    let to = command::Node { peer: keeper.dht.0.local, addresses: vec![keeper.address()] };
    keeper.stop().await;
    let dht = &holder.dht.0;
    // Nobody else is told.
    assert!(dht.holdings().drop_key(&key(1)));
    let (keys, record) = ([key(1)], dht.record());
    let sent = within("it is not there", dht.send(to, Purpose::TakeBack, &keys, &record)).await;
    assert!(sent.0.is_err() && dht.heard.is_owed(&key(1)), "{sent:?}");
    let keeper = lasting.start().await;
    until("it has heard", || async { keeper.dht.status().await.other_records == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_let_go_of_alone_is_taken_back_when_somebody_is_known_also_after_a_restart() {
    for is_started_again in [false, true] {
        let (folder, hub) = (tempfile::tempdir().unwrap(), Node::server(TCP, &[]).await);
        let lasting = Lasting::new(folder.path(), &hub);
        let holder = lasting.start().await;
        assert_eq!(holder.dht.hold(&[key(1)], Kind::Object), 0);
        until("it is announced", || async { holder.dht.announcing().queued == 0 }).await;
        assert_eq!(hub.dht.status().await.other_records, 1);
        holder.stop().await;
        let (keypair, options) = (lasting.keypair.clone(), lasting.options.clone());
        let alone = Lasting { keypair, options: Options { bootstrap: Vec::new(), ..options } };
        let mut holder = alone.begin().await;
        within("it has read its journal", holder.dht.0.journal.read()).await;
        let counts = |node: &Node| {
            // As with `announce = "none"`, or when what there was has been removed meanwhile.
            node.dht.begin_count();
            node.dht.end_count();
        };
        counts(&holder);
        until("it is let go of", || async { holder.dht.announcing().keys == 0 }).await;
        if is_started_again {
            holder.stop().await;
            holder = lasting.start().await;
            counts(&holder);
        } else {
            within("they meet", holder.dht.connect(hub.address())).await.unwrap();
        }
        until("it is taken back", || async { hub.dht.status().await.other_records == 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_keeper_has_not_heard_is_announced_anew_after_a_restart_of_the_publisher() {
    for is_written_anew in [false, true] {
        a_keeper_hears_after_a_restart(is_written_anew).await;
    }
}

/// … of what was said while it was away, also where the publisher's journal was written anew meanwhile.
async fn a_keeper_hears_after_a_restart(is_written_anew: bool) {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let hub = Node::server(TCP, &[]).await;
    let [of_keeper, of_publisher] = [0, 1].map(|at| Lasting::new(folders[at].path(), &hub));
    let (keeper, publisher) = (of_keeper.start().await, of_publisher.start().await);
    publisher.knows(2).await;
    assert_eq!(publisher.dht.hold(&[key(1), key(2)], Kind::Object), 0);
    tell(&publisher, Some("old")).await;
    until_kept(&keeper, &["old"]).await;
    until("all is announced", || async { publisher.dht.announcing().queued == 0 }).await;
    keeper.stop().await;
    tell(&publisher, Some("new")).await;
    assert!(publisher.dht.0.heard.is_owed(&key(1)));
    if is_written_anew {
        let before = of_publisher.file();
        publisher.dht.0.journal.ask_anew();
        until("its journal is written anew", || async { of_publisher.file() != before }).await;
    }
    publisher.stop().await;
    let keeper = of_keeper.start().await;
    assert_eq!(kept(&keeper), ["old"], "nobody has told it");
    let publisher = of_publisher.start().await;
    // As after each start.
    assert_eq!(publisher.dht.publish(vec![said(key(1), "new")], false), 0);
    assert_eq!(publisher.dht.hold(&[key(1), key(2)], Kind::Object), 0);
    until_kept(&keeper, &["new"]).await;
}

// On one thread: what is said at once is said before anything else is done.
#[tokio::test]
async fn what_is_said_before_the_journal_has_been_read_is_announced_when_somebody_comes() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::server(TCP, &[]).await;
    let lasting = Lasting::new(folder.path(), &hub);
    let publisher = lasting.start().await;
    assert_eq!(publisher.dht.hold(&[key(1)], Kind::Object), 0);
    tell(&publisher, Some("old")).await;
    until("it is announced", || async { publisher.dht.announcing().queued == 0 }).await;
    publisher.stop().await;
    hub.stop().await;
    let publisher = lasting.begin().await;
    assert_eq!(publisher.dht.hold(&[key(1)], Kind::Object), 0);
    assert_eq!(publisher.dht.publish(vec![said(key(1), "new")], true), 0);
    assert!(publisher.dht.0.journal.read().now_or_never().is_none());
    within("it has read its journal", publisher.dht.0.journal.read()).await;
    assert_eq!(publisher.dht.announcing().queued, 1);
    let keeper = Node::server(TCP, &[&publisher]).await;
    until_kept(&keeper, &["new"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_of_something_later_is_not_all_that_have_to() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::server(TCP, &[]).await;
    let lasting = Lasting::new(folder.path(), &hub);
    let (publisher, before) = (lasting.start().await, minute() - 5);
    let mut keys = [key(1), key(2)];
    keys.sort_unstable();
    {
        let mut holdings = publisher.dht.0.holdings();
        for (key, minute) in keys.iter().zip([0, before]) {
            assert!(holdings.hold(key, Kind::Object));
            holdings.placed(key, minute);
            // Nobody else announces it.
            holdings.take(key, true);
        }
    }
    let (peer, addresses) = (hub.dht.0.local, vec![hub.address()]);
    let dht = &publisher.dht.0;
    dht.heard.missed(&peer, &addresses, keys.iter().map(|key| (*key, true)), Instant::now());
    let to = command::Node { peer, addresses };
    let sent = within("it hears", dht.send(to, Purpose::Put, &keys, &dht.record())).await;
    assert!(matches!(sent, (Ok(Answer::Taken(_)), 1)), "{sent:?}");
    assert!(keys.iter().all(|key| !dht.heard.is_owed(key)));
    publisher.stop().await;
    let publisher = lasting.start().await;
    let announced = keys.map(|key| publisher.dht.0.holdings().announced(&key));
    assert_eq!(announced, [None, Some(before)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_word_is_kept_wherever_it_was_heard() {
    let nodes = network(TCP, 4).await;
    let (publisher, searcher, seeker) = (&nodes[1], &nodes[2], &nodes[3]);
    assert_eq!(publisher.dht.hold(&[key(1)], Kind::Object), 0);
    tell(publisher, Some("old")).await;
    for node in [searcher, seeker, &nodes[0]] {
        until_kept(node, &["old"]).await;
    }
    // It says something else from now on, and has told nobody.
    assert_eq!(publisher.dht.publish(vec![said(key(1), "new")], false), 0);
    let list = searcher.dht.published_by(publisher.dht.0.local, "NEW".to_owned(), None);
    assert_eq!(within("it is listed", list).await.unwrap().said.len(), 1);
    until_kept(searcher, &["new"]).await;
    // As soon as the publisher is among those that answer in time.
    let about = async |node: &Node| {
        let told = within("it is told", node.dht.about(key(1))).await;
        told.iter().map(|told| told.said.description().name.clone()).collect::<Vec<_>>()
    };
    until("the newest word is told", || async { about(seeker).await == ["new"] }).await;
    until_kept(seeker, &["new"]).await;
    assert_eq!(kept(&nodes[0]), ["old"]);
    // What it takes back, others may tell; its own answer is that it says nothing.
    publisher.dht.0.published.withdraw(&key(1));
    until("none is told", || async { about(&nodes[0]).await.is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_known_and_not_connected_are_asked() {
    let idle = Duration::from_secs(1);
    let hub = Node::with(Options { idle, ..options(TCP, &[]) }).await;
    let publisher = Node::with(Options { idle, ..options(TCP, &[&hub]) }).await;
    let seeker = Node::with(Options { idle, ..options(TCP, &[&hub]) }).await;
    seeker.knows(2).await;
    assert_eq!(publisher.dht.publish(vec![said(key(1), "a name")], true), 0);
    assert_eq!(publisher.dht.hold(&[key(1)], Kind::Object), 0);
    let of = publisher.dht.0.local;
    until("its connections have closed, and it is known", || async {
        seeker.dht.known().await.contains(&(of, false))
    })
    .await;
    let list = within("it is asked", seeker.dht.published_by(of, String::new(), None)).await;
    assert_eq!(list.unwrap().said.len(), 1);
}
