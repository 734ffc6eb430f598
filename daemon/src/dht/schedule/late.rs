//! The lane of those who have not heard that something else is said of an object now, or nothing.
//!
//! Owns: telling them, each alone, without looking anything up. Refuses: nothing of its own; whom, and when, is for
//! [`heard`](crate::dht::heard). Survives a crash: nothing of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::stream::{self, StreamExt};

use crate::dht::Inner;
use crate::dht::announcer::Purpose;
use crate::dht::batch::{MAX_DESCRIPTIONS, MAX_KEYS};
use crate::dht::command::Node;
use crate::dht::heard::Due;

/// Nodes that are told at once: a dial to one that is not there takes five to ten seconds.
const AT_ONCE: usize = 16;
/// How long one is told things at a time, the rest when it is due again: whoever takes its time with each message keeps
/// nobody else from hearing.
const LONGEST: Duration = Duration::from_mins(1);

/// Tells whoever is due what it has not heard, until the room stops.
pub(super) async fn late(dht: Arc<Inner>) {
    dht.journal.read().await;
    loop {
        dht.heard.due().await;
        let due = dht.heard.take_due(Instant::now());
        let tell = |due| tokio::time::timeout(LONGEST, dht.tell_late(due)).map(drop);
        stream::iter(due).for_each_concurrent(AT_ONCE, tell).await;
    }
}

impl Inner {
    /// Tells one node what is so now of each of these keys: that it is held, with what is said of it, or no longer.
    async fn tell_late(&self, due: Due) {
        let Due { peer, addresses, keys } = due;
        let record = self.record();
        // As many descriptions as keys may go with a batch.
        for part in keys.chunks(MAX_DESCRIPTIONS.min(MAX_KEYS)) {
            let to = Node { peer, addresses: addresses.clone() };
            if let (Err(reason), _) = self.send(to, Purpose::Put, part, &record).await {
                tracing::debug!(%peer, reason, "a node does not hear that something else is said now");
                return;
            }
        }
    }
}
