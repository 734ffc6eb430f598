//! When the nodes in the routing table were last there, and which of them are gone.
//!
//! Owns: those times. Refuses: nodes that are not in the table. Survives a crash: nothing.
//!
//! A newcomer to a full bucket has Kademlia dial the one that was there least recently, to see whether it has to go. At
//! the other end of that connection this node is a newcomer itself, and more often than not to a full bucket: each
//! connection of a large network would lead to the next, and those to others. So nobody is dialled for that of whom
//! something was heard lately, as the paper on Kademlia would have it (section 4.1: who is unknown waits until there is
//! something to ask); what is dead is found by look-ups. The figures: decision 16.
//!
//! `libp2p-kad` itself keeps whom it cannot reach, with its last address, for as long as the bucket has room: anybody
//! could plant such. Whoever is tried in vain twice is gone, unless it may be this node that is cut off.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// How long nobody is asked whether it is there still.
const LATELY: Duration = Duration::from_mins(15);
/// This node is not cut off when another has answered it in this time: a dial to nobody takes up to ten seconds, and
/// began beside questions to others.
const ANSWERED: Duration = Duration::from_secs(12);
/// How long after the first dial in vain a second one counts: those that began together are one, and a daemon that was
/// restarted is back by then. Longer than [`ANSWERED`], so that not both are of a time when this node was cut off.
const APART: Duration = Duration::from_secs(15);
const _: () = assert!(APART.as_secs() > ANSWERED.as_secs(), "being cut off is nobody else's fault");

/// See the module. Pure: the time is passed in.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// When each was last there.
    met: HashMap<PeerId, Instant>,
    /// When each was first tried in vain since.
    missed: HashMap<PeerId, Instant>,
}

impl Presence {
    /// A node of the table has just said what it is.
    pub(super) fn met(&mut self, peer: PeerId, now: Instant) {
        self.missed.remove(&peer);
        self.met.insert(peer, now);
    }

    /// A node of the table was tried wherever it is said to be, in vain. `heard`: when another has answered something
    /// last. Whether it is gone.
    pub(super) fn missed(&mut self, peer: PeerId, heard: Option<Instant>, now: Instant) -> bool {
        if heard.is_none_or(|heard| now >= heard + ANSWERED) {
            return false;
        }
        now >= *self.missed.entry(peer).or_insert(now) + APART
    }

    /// It could not be reached, or has left the table.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        self.met.remove(peer);
    }

    /// These are in the table.
    pub(super) fn keep(&mut self, routed: &[PeerId]) {
        if self.met.len().max(self.missed.len()) > routed.len() {
            let routed: HashSet<&PeerId> = routed.iter().collect();
            self.met.retain(|peer, _| routed.contains(peer));
            self.missed.retain(|peer, _| routed.contains(peer));
        }
    }

    /// Whether it was there lately.
    pub(super) fn is_fresh(&self, peer: &PeerId, now: Instant) -> bool {
        self.met.get(peer).is_some_and(|met| now.saturating_duration_since(*met) < LATELY)
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
        assert!(presence.met.is_empty());
    }

    #[test]
    fn who_is_tried_in_vain_twice_is_gone_unless_this_node_may_be_cut_off() {
        let (mut presence, now) = (Presence::default(), Instant::now());
        let peers = [1, 2].map(|_| PeerId::random());
        let mut missed = |peer, heard: u64, at: u64| {
            let [heard, at] = [heard, at].map(|seconds| now + Duration::from_secs(seconds));
            presence.missed(peer, Some(heard), at)
        };
        assert_eq!([0, 1, 14].map(|at| missed(peers[0], at, at)), [false; 3], "together they are one");
        assert!(!missed(peers[0], 3, 15), "nobody else answers");
        assert!(missed(peers[0], 4, 15) && !missed(peers[1], 15, 15));
        // Cut off at the sixteenth second, with dials that still counted.
        assert!((16..100).all(|at| !missed(peers[1], 16, at)));
        presence.met(peers[1], now + Duration::from_secs(100));
        let later = now + Duration::from_secs(200);
        assert!(!presence.missed(peers[1], Some(later), later), "it was there in between");
        assert!(!presence.missed(peers[0], None, later));
        presence.keep(&[]);
        assert!(presence.missed.is_empty());
    }
}
