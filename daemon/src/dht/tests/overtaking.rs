//! Messages that overtake each other, what changes while they are under way, and what strangers say of their numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Node, TCP, key, network, until, within};
use crate::dht::announcer::{Announcer, Outcome, Purpose, first_number};
use crate::dht::batch::{Answer, Draft, Taken};
use crate::dht::command::{self, Command};
use crate::dht::holdings::Minute;
use crate::dht::journal::Entry;
use crate::dht::schedule::{Doubt, minute};
use crate::peer::{Announce, Announced, Key, Kind, PeerId};

async fn run(of: &Node, purpose: Purpose, keys: &[Key]) -> (Announced, Vec<Key>) {
    let round = Announcer::new(Arc::clone(&of.dht.0), purpose, keys).run(20);
    let Outcome { announced, missed, .. } = within("a round ends", round).await;
    (announced, missed)
}

async fn records(node: &Node) -> usize {
    node.dht.status().await.other_records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_a_node_says_it_has_seen_counts_at_no_other() {
    let nodes = network(TCP, 4).await;
    let sender = &nodes[0].dht.0;
    // One says that it has seen the last there is; one has seen what was sent when our clock was ahead by days.
    let ahead = first_number() + (1 << 40);
    for (node, sequence) in [(&nodes[1], u64::MAX), (&nodes[2], ahead)] {
        let (receiver, lifetime) = (node.dht.0.local, Duration::from_secs(60));
        let (keys, removals, descriptions) = (Vec::new(), vec![key(9)], Vec::new());
        let draft = Draft { receiver, sequence, lifetime, keys, removals, descriptions };
        let batch = draft.sign("test", &sender.keypair, &[]).unwrap();
        let to = command::Node { peer: receiver, addresses: vec![node.address()] };
        let send = sender.ask(|done| Command::Send { to, batch, on_way: Default::default(), done });
        let sent = within("it answers", send).await;
        assert!(matches!(sent, Some(Ok(Answer::Taken(_)))), "{sent:?}");
    }
    for number in 0..3 {
        let announced = within("it is placed", nodes[0].announce(vec![key(number)], 20)).await;
        assert_eq!(announced.receivers, 2, "{announced:?}");
        assert_eq!((records(&nodes[2]).await, records(&nodes[3]).await), (number + 1, number + 1));
    }
    assert!(sender.sequence.load(Ordering::Relaxed) < ahead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_says_what_is_so_when_it_is_signed() {
    let nodes = network(TCP, 2).await;
    let (holder, other, keys) = (&nodes[0], &nodes[1], [key(1), key(2)]);
    assert_eq!(within("both are placed", holder.announce(keys.to_vec(), 20)).await.keys, 2);
    assert_eq!(records(other).await, 2);
    // It was to be put, and is let go of.
    assert!(holder.dht.0.holdings().drop_key(&keys[0]));
    let (put, missed) = run(holder, Purpose::Put, &keys).await;
    assert_eq!((put.keys, put.messages, missed), (2, 1, Vec::new()));
    assert_eq!(records(other).await, 1);
    // It was to be taken back, and is held again.
    let (back, _) = run(holder, Purpose::TakeBack, &keys).await;
    assert_eq!((back.messages, records(other).await), (1, 1));
    let (back, _) = run(holder, Purpose::TakeBack, &keys[1..]).await;
    assert_eq!((back.messages, records(other).await), (0, 1));
    assert_eq!(other.find(keys[1]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_released_while_it_is_announced_is_taken_back_when_that_is_over() {
    let nodes = network(TCP, 2).await;
    let holder = &nodes[0].dht;
    for kind in [Kind::Object, Kind::Chunk] {
        {
            let mut holdings = holder.0.holdings();
            assert!(holdings.hold(&key(1), kind));
            holdings.take(&key(1), true);
        }
        let (announced, missed) = run(&nodes[0], Purpose::Put, &[key(1)]).await;
        holder.release(&[key(1)]);
        assert_eq!(records(&nodes[1]).await, 1, "nobody knows yet that it was announced");
        holder.0.announced(&[key(1)], kind, &missed, &announced, Doubt::default());
        until("it is taken back", || async { records(&nodes[1]).await == 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_while_a_node_reads_what_it_remembers_is_gone() {
    let nodes = network(TCP, 2).await;
    let (holder, other, keys) = (&nodes[0].dht.0, &nodes[1].dht.0, [key(1)]);
    let to = || command::Node { peer: other.local, addresses: vec![nodes[1].address()] };
    other.journal.set_read(false);
    let back = holder.send(to(), Purpose::TakeBack, &keys, &[]);
    let reading = async {
        // What was asked later has been answered: that message is there.
        for number in 0..20 {
            let asked = holder.ask(|done| Command::Find { to: to(), key: key(number), done }).await;
            assert_eq!(asked, Some(Vec::new()));
        }
        let entry = Entry::Taken { peer: holder.local, until: Minute::MAX, keys: keys.to_vec() };
        other.ask(|done| Command::Restore { entries: vec![entry], done }).await;
        other.journal.set_read(true);
    };
    let ((answer, _), ()) = within("both are over", futures::future::join(back, reading)).await;
    assert!(matches!(answer, Ok(Answer::Taken(Taken { removed: 1, .. }))), "{answer:?}");
    assert_eq!(records(&nodes[1]).await, 0);
}

/// Has `meanwhile` happen while a message to somebody who never answers is under way.
async fn under_way(of: &Node, purpose: Purpose, keys: &[Key], meanwhile: impl FnOnce()) {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    let to = command::Node { peer: PeerId::random(), addresses: vec![at.parse().unwrap()] };
    let dialled = async {
        let connection = silent.accept().await.unwrap();
        meanwhile();
        drop(connection);
    };
    let sent = futures::future::join(of.dht.0.send(to, purpose, keys, &[]), dialled);
    let ((answer, _), ()) = within("it fails", sent).await;
    assert!(answer.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_a_message_is_under_way_is_said_after_it() {
    let nodes = network(TCP, 2).await;
    let (holder, other) = (&nodes[0], &nodes[1]);
    for (number, kind) in [(1, Kind::Object), (2, Kind::Chunk)] {
        let keys = [key(number)];
        // Another message may have told that it is held.
        under_way(holder, Purpose::TakeBack, &keys, || {
            let mut holdings = holder.dht.0.holdings();
            assert!(holdings.hold(&keys[0], kind));
            holdings.placed(&keys[0], minute());
        })
        .await;
        until("it is announced", || async { records(other).await == 1 }).await;
        until("it counts as that", || async { holder.dht.0.holdings().is_placed(&keys[0]) }).await;
        // Another may have taken it back.
        under_way(holder, Purpose::Put, &keys, || assert!(holder.dht.0.holdings().drop_key(&keys[0]))).await;
        until("it is taken back", || async { records(other).await == 0 }).await;
    }
}
