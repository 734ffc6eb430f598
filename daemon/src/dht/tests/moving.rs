//! Nodes that say they are elsewhere, again and again.

use super::hostile::{FIND_NODE, is_well, kad};
use super::outsider::{Outsider, Says};
use super::{Node, TCP, key, until};
use crate::peer::Multiaddr;

/// Where a node says that it is, the `round`th time: eight names that are not too long, and eight that are.
fn addresses(round: usize) -> Vec<Multiaddr> {
    let name = |number: usize| "x".repeat(if number < 8 { 110 } else { 220 });
    let at = |number| format!("/dns4/{}/tcp/{}", name(number), 1 + round * 16 + number).parse().unwrap();
    (0..16).map(at).collect()
}

/// Where `node` knows that peer to be.
async fn known(node: &Node, peer: crate::peer::PeerId) -> Vec<String> {
    let peers = node.dht.peers().await.into_iter();
    peers
        .filter(|known| known.peer == peer)
        .flat_map(|known| known.addresses)
        .map(|at| at.to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_moves_without_end_makes_no_answer_too_long_to_be_read() {
    let node = Node::server(TCP, &[]).await;
    let mut hostile = Outsider::server("test");
    let id = hostile.id();
    hostile.meet(&node).await.unwrap();
    for round in 0..30 {
        let to = addresses(round);
        hostile.moves(&to);
        let heard = async || {
            let known = known(&node, id).await;
            to.iter().any(|at| known.contains(&format!("{at}/p2p/{id}")))
        };
        hostile.answer(&Says::Whole(Vec::new()), until("it is heard", heard)).await;
    }
    assert!(known(&node, id).await.len() <= 8);
    let mut asker = Outsider::new("test");
    asker.meet(&node).await.unwrap();
    let answer =
        asker.say(&node, "kad/1.0.0", Says::Whole(kad(FIND_NODE, &key(1), None, &[]))).await.unwrap();
    assert!((100..2_000).contains(&answer.len()), "{}", answer.len());
    is_well(&node).await;
}
