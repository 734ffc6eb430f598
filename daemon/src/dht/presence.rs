//! When the nodes in the routing table were last there.
//!
//! Owns: those times. Refuses: nodes that are not in the table. Survives a crash: nothing.
//!
//! A newcomer to a full bucket has Kademlia dial the one that was there least recently, to see whether it has to go. At
//! the other end of that connection this node is a newcomer itself, and more often than not to a full bucket: each
//! connection of a large network would lead to the next, and those to others. So nobody is dialled for that of whom
//! something was heard lately, as the paper on Kademlia would have it (section 4.1: who is unknown waits until there is
//! something to ask); what is dead is found by look-ups. The figures: decision 16.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// How long nobody is asked whether it is there still.
const LATELY: Duration = Duration::from_mins(15);

/// See the module. Pure: the time is passed in.
#[derive(Debug, Default)]
pub(super) struct Presence(HashMap<PeerId, Instant>);

impl Presence {
    /// A node of the table has just said what it is.
    pub(super) fn met(&mut self, peer: PeerId, now: Instant) {
        self.0.insert(peer, now);
    }

    /// It could not be reached, or has left the table.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// These are in the table.
    pub(super) fn keep(&mut self, routed: &[PeerId]) {
        if self.0.len() > routed.len() {
            let routed: HashSet<&PeerId> = routed.iter().collect();
            self.0.retain(|peer, _| routed.contains(peer));
        }
    }

    /// Whether it was there lately.
    pub(super) fn is_fresh(&self, peer: &PeerId, now: Instant) -> bool {
        self.0.get(peer).is_some_and(|met| now.saturating_duration_since(*met) < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_there_lately_is_fresh_until_it_is_missed_or_leaves() {
        let (mut presence, now) = (Presence::default(), Instant::now());
        let peers = [1, 2, 3].map(|_| PeerId::random());
        peers.iter().for_each(|peer| presence.met(*peer, now));
        let fresh = |presence: &Presence, at| peers.map(|peer| presence.is_fresh(&peer, at));
        assert_eq!(fresh(&presence, now + LATELY - Duration::from_secs(1)), [true; 3]);
        assert_eq!(fresh(&presence, now + LATELY), [false; 3]);
        presence.met(peers[0], now + LATELY);
        assert_eq!(fresh(&presence, now + LATELY), [true, false, false]);
        presence.gone(&peers[0]);
        presence.keep(&peers[..2]);
        assert_eq!(fresh(&presence, now), [false, true, true], "no more are kept than there are");
        presence.keep(&peers[..1]);
        assert!(presence.0.is_empty());
    }
}
