//! What is said of a crowd that gives nothing.
//!
//! Owns: who of those that are known counts as reached, refused or gone, and the words for it. Refuses: nothing.

use std::collections::HashSet;

use super::{Crowd, Member};
use crate::content::ObjectId;
use crate::fetch::Error;
use crate::fetch::missed;
use crate::peer::PeerId;

impl Crowd {
    /// What became of those that were found, behind a semicolon, in words.
    pub(in crate::fetch) fn told(&self) -> String {
        // Whom a look-up has not reached was not dialled here.
        let missed = self.missed.peers().filter(|peer| !self.seen.contains(peer)).count();
        let (here, absent) =
            (self.members.len(), missed + self.gone.len() + self.dialling.len() + self.waiting.len());
        match (here, absent) {
            (0, 0) => "; nobody who holds it is found any more".to_owned(),
            (0, absent) => format!("; of {absent} found to hold it none is reached{}", self.in_vain()),
            (here, 0) => format!("; {here} connected, of which none gave it in time"),
            (here, absent) => {
                let why = self.in_vain();
                format!(
                    "; {here} connected, of which none gave it in time, and {absent} not reached or gone{why}"
                )
            }
        }
    }

    /// Whether all that the caller named have been tried in vain: none is reached that may have something, and
    /// nobody else is either. False where the caller named nobody.
    pub(in crate::fetch) fn is_let_down(&self) -> bool {
        let all = self.hints.iter().all(|(peer, _)| self.has_failed(peer));
        all && !self.hints.is_empty() && self.members.values().all(|member| member.has_nothing)
    }

    /// Whether all that the caller named are there, and of another network or have another key, and nobody else has
    /// been found. False where the caller named nobody.
    pub(in crate::fetch) fn is_refused(&self) -> bool {
        let all = self.hints.iter().all(|(peer, _)| self.strangers.contains(peer));
        let is_found = !self.members.is_empty() || self.missed.peers().any(|peer| !self.is_named(&peer));
        all && !self.hints.is_empty() && !is_found
    }

    fn has_failed(&self, peer: &PeerId) -> bool {
        self.missed.why(peer).is_some()
            || self.members.values().any(|member| member.peer == *peer && member.has_nothing)
    }

    /// That nobody has given anything of an object for so many seconds, and why. Whoever is said to hold it and was not
    /// reached is told of, whatever others are here that have nothing.
    pub(in crate::fetch) fn nobody(&self, id: ObjectId, seconds: u64) -> Error {
        let is_here = |peer: &PeerId| self.members.values().any(|member| member.peer == *peer);
        let waiting = self.waiting.iter().map(|provider| provider.peer);
        let named = self.hints.iter().map(|(peer, _)| *peer);
        let tried = self.missed.peers().chain(self.dialled.keys().copied()).chain(waiting).chain(named);
        let is_told = |peer: &PeerId| !self.is_named(peer) || self.vouched.contains(peer);
        let found: HashSet<PeerId> = tried.filter(|peer| is_told(peer) && !is_here(peer)).collect();
        let has_none = |member: &&Member| member.has_nothing && self.vouched.contains(&member.peer);
        let without = self.members.values().filter(has_none).count();
        let named = self.hints.iter().map(|(peer, _)| (*peer, self.what_became_of(peer)));
        if self.is_refused() && found.iter().all(|peer| self.is_named(peer)) {
            return Error::OtherNetwork { id, named: missed::list(named.collect()) };
        }
        if found.is_empty() {
            return Error::NoHolders { id, seconds, named: missed::list(named.collect()), without };
        }
        let named = self.hints.iter().map(|(peer, _)| *peer).filter(|peer| !is_here(peer));
        let others = found.into_iter().filter(|peer| !self.is_named(peer));
        let absent: Vec<PeerId> = named.chain(others).collect();
        let (known, why) = (absent.len(), self.missed.of(absent.into_iter()));
        Error::Unreached { id, known, seconds, why, without }
    }

    /// Why those that were dialled in vain were not reached, behind a colon.
    fn in_vain(&self) -> String {
        let why = self.missed.of(self.missed.peers());
        if why.is_empty() { why } else { format!(": {why}") }
    }

    /// What became of a peer that the caller named, which has given nothing.
    fn what_became_of(&self, peer: &PeerId) -> String {
        let is_here = self.members.values().any(|member| member.peer == *peer);
        match self.missed.why(peer) {
            Some(why) => why.to_owned(),
            None if is_here => "it answers, and does not have it or gives it to nobody".to_owned(),
            None if self.gone.contains(peer) => "it went away".to_owned(),
            None => missed::SILENT.to_owned(),
        }
    }
}
