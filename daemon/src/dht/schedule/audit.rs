//! Whether what was announced can be found: one key in a thousand is looked up again.
//!
//! Owns: the sample and what follows from it. Refuses: to look up more than one at a time. Survives a crash: nothing.
//!
//! A plain GET_PROVIDERS does not do: whoever is asked leaves the asker out of its answer. So the nodes that a look-up
//! of the key ends at are found anew, as anybody finds them, and those nearest to the key are sent it once more: they
//! say whether they had it. Where none of them had, it could not be found, and can be now.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::dht::Inner;
use crate::dht::announcer::Purpose;
use crate::dht::batch::Answer;
use crate::dht::command::Command;
use crate::peer::Key;

/// Nodes that are asked, the nearest first: any look-up that runs to its end asks them all.
const ASKED: usize = 8;
/// Look-ups begin this far apart at least.
const PACE: Duration = Duration::from_millis(200);
/// Of so many look-ups…
const SAMPLE: usize = 100;
/// …and at least so many…
const LEAST: usize = 20;
/// …so many in a hundred must have found the key.
const BOUND: usize = 95;

/// Looks keys up again as they come.
pub(super) async fn audit(dht: Arc<Inner>) {
    let (mut sample, mut said) = (VecDeque::new(), false);
    loop {
        let Some(key) = dht.next_audit() else {
            dht.schedule.audit.notified().await;
            continue;
        };
        let Some(found) = dht.can_be_found(key).await else { continue };
        dht.audited(found);
        sample.push_back(found);
        sample.drain(..sample.len().saturating_sub(SAMPLE));
        let lost = sample.iter().filter(|found| !**found).count();
        let is_bad = sample.len() >= LEAST && lost * 100 > sample.len() * (100 - BOUND);
        if is_bad {
            // What is known of the nodes is not true: looked up anew.
            dht.shelf.clear();
            if !std::mem::replace(&mut said, true) {
                let of = sample.len();
                tracing::warn!(
                    lost,
                    of,
                    "keys that were announced are not found by others; looking the nodes up anew"
                );
            }
            sample.clear();
        } else if lost == 0 {
            said = false;
        }
        tokio::time::sleep(PACE).await;
    }
}

impl Inner {
    /// A key that is still held, to be looked up.
    fn next_audit(&self) -> Option<Key> {
        loop {
            let key = self.schedule.desk().audits.pop_front()?;
            if self.holdings().is_placed(&key) {
                return Some(key);
            }
        }
    }

    /// Whether one of the nodes nearest to a key had it; `None` when nobody could be asked.
    async fn can_be_found(&self, key: Key) -> Option<bool> {
        let closest = self.ask(|done| Command::Closest { key, done }).await?;
        let record = self.record();
        let mut found = None;
        for (node, _) in closest.nodes.into_iter().take(ASKED) {
            if let (Ok(Answer::Taken(taken)), _) = self.send(node, Purpose::Put, &[key], &record).await {
                found = Some(taken.known > 0);
            }
            if found == Some(true) {
                break;
            }
        }
        found
    }

    fn audited(&self, found: bool) {
        let mut desk = self.schedule.desk();
        desk.figures.audited += 1;
        desk.figures.found += u64::from(found);
    }
}
