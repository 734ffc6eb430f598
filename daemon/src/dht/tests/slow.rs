//! Nodes that take their time to answer announcements.

use std::time::{Duration, Instant};

use super::outsider::Outsider;
use super::{Node, TCP, key, network, until, within};
use crate::dht::position::Position;
use crate::peer::{Announce, Kind};

/// Two nodes; and one that is connected to the first, which takes it for one of the nearest to each key. It does
/// nothing, so that each batch fails after twenty seconds.
async fn with_a_slow_one() -> (Vec<Node>, Outsider) {
    let (nodes, mut outsider) = (network(TCP, 2).await, Outsider::new("test"));
    let (dht, honest, slow) = (&nodes[0].dht.0, nodes[1].dht.0.local, outsider.id());
    until("it is known", || async { *dht.seen.routed.borrow() == 1 }).await;
    outsider.meet(&nodes[0]).await.unwrap();
    let mut atlas = dht.shelf.take(None, 1, Instant::now());
    atlas.regions.learn(Position::of_peer(&honest), &[honest, slow], 0);
    atlas.addresses.extend([(honest, vec![nodes[1].address()]), (slow, Vec::new())]);
    dht.shelf.put(atlas);
    (nodes, outsider)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_its_time_is_neither_waited_for_nor_sent_more_meanwhile() {
    let (nodes, outsider) = with_a_slow_one().await;
    let (dht, slow) = (&nodes[0].dht.0, outsider.id());
    for number in 1..=2 {
        let announced = within("it is placed", nodes[0].announce(vec![key(number)], 20)).await;
        assert_eq!((announced.keys, announced.receivers, announced.look_ups), (1, 1, 0));
        assert_eq!(dht.schedule.slow.of(&slow), 1, "{number}");
    }
    // What was sent goes on until it fails, and then it is not chosen again.
    drop(outsider);
    until("it is slow no longer", || async { dht.schedule.slow.of(&slow) == 0 }).await;
    let is_forgotten = || async { !dht.shelf.take(None, 1, Instant::now()).addresses.contains_key(&slow) };
    until("it is forgotten", is_forgotten).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_does_not_wait_for_who_takes_its_time() {
    let (nodes, _outsider) = with_a_slow_one().await;
    let begun = Instant::now();
    // Each in a round of its own, more than go on at once.
    for number in 1..=6 {
        assert_eq!(nodes[0].dht.hold(&[key(number)], Kind::Object), 0);
        until("it is there", || async { nodes[1].dht.status().await.other_records == number }).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
