//! What a crowd makes of what one of it tells of others.

use super::hearsay::TOLD;
use super::*;
use crate::fetch::tests::{Node, Web};

/// The member that tells.
const TELLER: PeerNo = PeerNo(0);

/// A crowd of a node and of one that tells of others.
async fn crowd(web: &Web, taker: &Node) -> Crowd {
    let teller = Node::new(web, 9);
    Crowd::new(Arc::clone(&taker.fetcher.parts), &[], &[web.ask(&teller).await])
}

/// Somebody at the address of the node of this number; nobody is at 77.
fn at(peer: PeerId, number: u16) -> Provider {
    let chunk = vec![SocketAddr::from(([127, 0, 0, 1], number))];
    Provider { peer, chunk, dht: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_said_to_be_elsewhere_is_tried_where_a_look_up_finds_it_meanwhile() {
    let web = Web::default();
    let (holder, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let (mut crowd, peer) = (crowd(&web, &taker).await, holder.address.peer);
    crowd.meet(TELLER, vec![at(peer, 77)]);
    crowd.dial_waiting();
    crowd.retry();
    crowd.told_of(Holder::Found(at(peer, 1)));
    let Arrival::Joined(number) = crowd.next().await else { panic!("it is not tried there") };
    assert_eq!(crowd.get(number).map(|member| member.peer), Some(peer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_to_be_where_others_say_is_no_failure() {
    let web = Web::default();
    let (holder, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let (mut crowd, peer) = (crowd(&web, &taker).await, holder.address.peer);
    crowd.meet(TELLER, vec![at(peer, 77)]);
    crowd.dial_waiting();
    // Others are looked for again before it has failed.
    crowd.retry();
    assert!(matches!(crowd.next().await, Arrival::Quiet));
    assert!(crowd.gone.is_empty() && !crowd.seen.contains(&peer));
    // Where a look-up told of it, it is one.
    crowd.told_of(Holder::Found(at(peer, 77)));
    assert!(matches!(crowd.next().await, Arrival::Quiet));
    assert!(crowd.gone.contains(&peer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_what_is_dialled_is_for_those_that_look_ups_tell() {
    let web = Web::default();
    let taker = Node::new(&web, 2);
    let mut crowd = crowd(&web, &taker).await;
    for _ in 0..2 * MAX_DIALS {
        crowd.meet(TELLER, vec![at(PeerId::random(), 77)]);
        crowd.dial_waiting();
        // None of them answers.
        let long_ago = Instant::now().checked_sub(SLOW).unwrap();
        crowd.dialled.values_mut().for_each(|since| *since = long_ago);
    }
    assert_eq!((crowd.dialled.len(), crowd.waiting.len()), (TOLD, 0));
    for number in 0..32 {
        crowd.told_of(Holder::Found(at(PeerId::random(), number)));
    }
    crowd.dial_waiting();
    assert_eq!(crowd.dialled.len(), TOLD + DIALS - 1, "with the one that tells there are sixteen");
}
