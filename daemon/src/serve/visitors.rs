//! Who asks this node for chunks, and how much it was given: for people to see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer::PeerId;

/// Peers remembered after their last session; those that were given least are forgotten first.
const MOST: usize = 1024;

/// The peers that have sessions with this node as their giver. Cheap to clone.
#[derive(Clone, Default)]
pub struct Visitors(Arc<Mutex<HashMap<PeerId, Visitor>>>);

/// What is known of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visitor {
    /// Sessions that are open.
    pub sessions: u32,
    /// Payload bytes that it was given.
    pub sent: u64,
}

/// A session. Counts until it is dropped.
pub struct Visit {
    visitors: Visitors,
    peer: PeerId,
}

impl Visitors {
    fn all(&self) -> MutexGuard<'_, HashMap<PeerId, Visitor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins.
    #[must_use]
    pub fn enter(&self, peer: PeerId) -> Visit {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&peer) {
            let gone = all.iter().filter(|(_, visitor)| visitor.sessions == 0);
            if let Some(least) = gone.min_by_key(|(_, visitor)| visitor.sent).map(|(peer, _)| *peer) {
                all.remove(&least);
            }
        }
        all.entry(peer).or_default().sessions += 1;
        Visit { visitors: self.clone(), peer }
    }

    /// A peer was given so many bytes.
    pub(super) fn gave(&self, peer: PeerId, bytes: usize) {
        if let Some(visitor) = self.all().get_mut(&peer) {
            visitor.sent += bytes as u64;
        }
    }

    /// All that are remembered.
    #[must_use]
    pub fn views(&self) -> Vec<(PeerId, Visitor)> {
        self.all().iter().map(|(peer, visitor)| (*peer, *visitor)).collect()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(visitor) = self.visitors.all().get_mut(&self.peer) {
            visitor.sessions -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_and_the_table_is_bounded() {
        let visitors = Visitors::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        let (first, second) = (visitors.enter(one), visitors.enter(one));
        visitors.gave(one, 5);
        visitors.gave(other, 7);
        assert_eq!(visitors.views(), [(one, Visitor { sessions: 2, sent: 5 })]);
        drop(first);
        for _ in 0..2 * MOST {
            drop(visitors.enter(PeerId::random()));
        }
        assert_eq!(visitors.views().len(), MOST);
        assert!(visitors.views().contains(&(one, Visitor { sessions: 1, sent: 5 })));
        drop(second);
    }
}
