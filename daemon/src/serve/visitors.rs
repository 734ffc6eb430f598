//! Who asks this node for chunks, and how much it was given: for people to see.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer::{HostAddr, PeerId};

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
    /// The host that its last session came from, of globally routable ones.
    pub host: Option<HostAddr>,
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

    /// A session begins, from this address where it is known.
    #[must_use]
    pub fn enter(&self, peer: PeerId, at: Option<IpAddr>) -> Visit {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&peer) {
            let gone = all.iter().filter(|(_, visitor)| visitor.sessions == 0);
            if let Some(least) = gone.min_by_key(|(_, visitor)| visitor.sent).map(|(peer, _)| *peer) {
                all.remove(&least);
            }
        }
        let visitor = all.entry(peer).or_default();
        visitor.sessions += 1;
        visitor.host = at.and_then(HostAddr::of);
        drop(all);
        Visit { visitors: self.clone(), peer }
    }

    /// A peer was given so many bytes.
    pub(super) fn gave(&self, peer: PeerId, bytes: usize) {
        if let Some(visitor) = self.all().get_mut(&peer) {
            visitor.sent += bytes as u64;
        }
    }

    /// The host that a peer is at, as far as it is known.
    pub(super) fn host(&self, peer: &PeerId) -> Option<HostAddr> {
        self.all().get(peer)?.host
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
        let (first, second) = (visitors.enter(one, None), visitors.enter(one, "8.8.4.4".parse().ok()));
        visitors.gave(one, 5);
        visitors.gave(other, 7);
        let host = Some(HostAddr::V4(0x0808_0404));
        assert_eq!(visitors.views(), [(one, Visitor { sessions: 2, sent: 5, host })]);
        assert_eq!((visitors.host(&one), visitors.host(&other)), (host, None));
        drop(first);
        for _ in 0..2 * MOST {
            drop(visitors.enter(PeerId::random(), None));
        }
        assert_eq!(visitors.views().len(), MOST);
        assert!(visitors.views().contains(&(one, Visitor { sessions: 1, sent: 5, host })));
        drop(second);
    }
}
