//! How many hops lie between who looks for a key and who keeps its record.
//!
//! Owns: a greedy walk over the nodes' real routing tables: from whoever looks, always to the node nearest to the key
//! that the present one knows, until nobody nearer is known. A look-up asks three at a time and so takes no more
//! rounds than that. The swarm counts questions and not rounds, which is why the tables are walked.

use std::collections::HashMap;

use casd::peer::{Key, PeerId};
use libp2p::kad::KBucketKey;

use crate::node::Node;

/// Who knows whom.
pub(crate) struct Tables(HashMap<PeerId, Vec<KBucketKey<PeerId>>>);

impl Tables {
    /// The routing tables of all nodes.
    pub(crate) async fn of(nodes: &[Node]) -> Self {
        let tables = nodes.iter().map(|node| async {
            let routed = node.dht.peers().await.into_iter().filter(|view| view.routed);
            (node.peer, routed.map(|view| KBucketKey::from(view.peer)).collect())
        });
        Self(futures::future::join_all(tables).await.into_iter().collect())
    }

    /// Hops from `from` to the node nearest to `key`, as far as each knows.
    pub(crate) fn hops(&self, from: PeerId, key: Key) -> u64 {
        let key = KBucketKey::new(key);
        let (mut at, mut hops) = (KBucketKey::from(from), 0);
        while let Some(table) = self.0.get(at.preimage()) {
            let nearest = table.iter().min_by_key(|node| node.distance(&key));
            let Some(next) = nearest.filter(|node| node.distance(&key) < at.distance(&key)) else { break };
            at = *next;
            hops += 1;
        }
        hops
    }
}
