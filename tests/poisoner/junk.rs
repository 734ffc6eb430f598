//! Records of keys that nothing has, from many peers at once.

use std::sync::Arc;

use casd_tests::hearsay::Speaks;
use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use libp2p::kad;
use libp2p::swarm::Swarm;

use crate::outsider;

/// Keys of one batch.
const BATCH: usize = 4_096;
/// How often in a row a peer sends something that is not answered, as a daemon that has too much to do leaves it: each
/// time it has waited for some seconds.
const MOST_UNANSWERED: usize = 30;

/// See the head of `main.rs`.
pub(crate) async fn flood(network: &str, target: &Multiaddr, peers: usize, records: usize) {
    let each = records.div_ceil(peers);
    let all = (0..peers).map(|_| place(network, target, each));
    let (swarms, taken): (Vec<_>, Vec<usize>) = futures::future::join_all(all).await.into_iter().unzip();
    let taken: usize = taken.iter().sum();
    println!("placed {taken}");
    // All stay connected until the test ends.
    let answering = swarms.into_iter().map(|mut swarm| async move {
        loop {
            let event = swarm.select_next_some().await;
            crate::answer(&mut swarm, event);
        }
    });
    let all = futures::future::join_all(answering);
    let mut end = [0];
    let mut input = tokio::io::stdin();
    tokio::select! {
        _ = tokio::io::AsyncReadExt::read(&mut input, &mut end) => {}
        _ = all => {}
    }
}

/// One peer places so many records; how many were taken.
async fn place(network: &str, target: &Multiaddr, count: usize) -> (Swarm<Speaks>, usize) {
    let keypair = Keypair::generate_ed25519();
    let mut swarm = outsider::swarm(network, keypair.clone(), 1, Arc::new(|_| Vec::new()));
    // Not a server: what the daemon itself announces goes to others.
    swarm.behaviour_mut().kad.set_mode(Some(kad::Mode::Client));
    let receiver = crate::meet(&mut swarm, target).await;
    let (mut left, mut taken, mut sequence, mut unanswered) = (count, 0, 1, 0);
    while left > 0 {
        let mut keys: Vec<[u8; 32]> = (0..left.min(BATCH)).map(|_| rand::random()).collect();
        keys.sort_unstable();
        let batch = outsider::batch(network, &keypair, &receiver, sequence, &keys, Vec::new());
        let answer = crate::announce(&mut swarm, &receiver, batch).await;
        sequence += 1;
        if answer.is_empty() {
            unanswered += 1;
            assert!(unanswered <= MOST_UNANSWERED, "batches are not answered");
            continue;
        }
        unanswered = 0;
        assert_eq!(answer[..2], [1, 0], "a batch is refused");
        // Behind six counts and the number of keys is a bit for each of them.
        taken += answer[28..].iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
        left -= keys.len();
    }
    (swarm, taken)
}
