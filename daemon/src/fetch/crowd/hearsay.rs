//! Others that members of a crowd tell of: tried where they are said to be, which may be a lie.
//!
//! Owns: how many of them are tried, and that nobody is worse off for what is said of it: not to be there is no failure
//! of its own, and where a look-up finds it meanwhile it is tried there as well. Refuses: more than a part of what a
//! fetch dials at once. Survives a crash: nothing.

use std::time::SystemTime;

use super::Crowd;
use crate::fetch::planner::PeerNo;
use crate::peer::{PeerId, Provider};

/// Others that members tell of are taken in while no more wait and are being dialled: at least half of the places are
/// for those that look-ups tell.
pub(super) const TOLD: usize = 32;

/// Others that members told of, of whom one fetch remembers that they did.
const REMEMBERED: usize = 1024;

impl Crowd {
    /// A member tells of others who fetch the object: each is tried once, like those that are found.
    pub(in crate::fetch) fn meet(&mut self, by: PeerNo, others: Vec<Provider>) {
        if !self.members.contains_key(&by) {
            return;
        }
        let dialled = self.dialled.keys().filter(|peer| self.hearsay.contains(*peer)).count();
        for other in others {
            let is_room = self.waiting.len() + dialled < TOLD && self.hearsay.len() < REMEMBERED;
            if is_room && !self.seen.contains(&other.peer) && self.hearsay.insert(other.peer) {
                self.found(other);
            }
        }
    }

    /// A look-up has found one. Who is being tried where others said that it is, is tried there after that.
    pub(super) fn located(&mut self, provider: Provider) {
        let peer = provider.peer;
        if !self.hearsay.contains(&peer) {
            self.found(provider);
        } else if self.dialled.contains_key(&peer) || self.waiting.iter().any(|one| one.peer == peer) {
            self.elsewhere.insert(peer, provider);
        } else {
            self.hearsay.remove(&peer);
            self.found(provider);
        }
    }

    /// A peer was dialled in vain. Where only other peers have told of it, it is tried where a look-up has found it, or
    /// may find it yet.
    pub(super) fn failed(&mut self, peer: PeerId) {
        if !self.hearsay.contains(&peer) {
            self.gone.insert(peer);
            self.parts.conduct.failed(peer, SystemTime::now());
            return;
        }
        self.seen.remove(&peer);
        if let Some(provider) = self.elsewhere.remove(&peer) {
            self.hearsay.remove(&peer);
            self.found(provider);
        }
    }

    /// Others may be told of again, but for those that are being tried.
    pub(super) fn forget_hearsay(&mut self) {
        let (dialled, waiting) = (&self.dialled, &self.waiting);
        let is_tried =
            |peer: &PeerId| dialled.contains_key(peer) || waiting.iter().any(|one| one.peer == *peer);
        self.hearsay.retain(is_tried);
        self.elsewhere.retain(|peer, _| is_tried(peer));
    }
}
