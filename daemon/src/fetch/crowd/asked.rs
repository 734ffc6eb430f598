//! What a fetch tells of its peers.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::super::Error;
use super::super::inquiry::{AskedPeer, MAX_ASKED};
use super::super::member::Member;
use super::super::missed;
use super::super::planner::PeerNo;
use super::Crowd;
use crate::content::ObjectId;
use crate::peer::PeerId;

/// What is said of those that are found, and are not connected yet.
const NEXT: &str = "it is said to have it, and is dialled next";
const DIALLED: &str = "it is said to have it, and is being dialled";

impl Crowd {
    /// Those that were asked, those that gave most first. `holds`: of how many of the object's `chunks` a member says
    /// that it has them, where it has.
    pub(in super::super) fn asked(
        &self,
        chunks: u64,
        holds: impl Fn(PeerNo) -> Option<u64>,
    ) -> Vec<AskedPeer> {
        let told = |peer: &PeerId, said: &str| {
            let bytes = self.given.get(peer).copied().unwrap_or(0);
            let said = said.to_owned();
            (*peer, AskedPeer { peer: *peer, is_connected: false, bytes, chunks: None, said })
        };
        // What comes later counts.
        let mut asked: HashMap<PeerId, AskedPeer> = HashMap::new();
        asked.extend(self.gone.iter().map(|peer| told(peer, "it went away")));
        asked.extend(self.hints.iter().map(|(peer, _)| told(peer, missed::SILENT)));
        asked.extend(self.waiting.iter().map(|found| told(&found.peer, NEXT)));
        asked.extend(self.dialled.keys().map(|peer| told(peer, DIALLED)));
        let why = |peer: &PeerId| self.missed.why(peer).unwrap_or(missed::SILENT);
        asked.extend(self.missed.peers().map(|peer| told(&peer, why(&peer))));
        for (number, member) in &self.members {
            let own = if member.has_nothing { Some(0) } else { holds(*number) };
            let (_, mut line) = told(&member.peer, &words(member, own, chunks));
            (line.is_connected, line.chunks) = (true, own);
            line.bytes += member.bytes;
            asked.insert(member.peer, line);
        }
        let mut asked: Vec<AskedPeer> = asked.into_values().collect();
        asked.sort_by_key(|line| (Reverse(line.bytes), Reverse(line.is_connected), line.peer));
        asked.truncate(MAX_ASKED);
        asked
    }

    /// What became of those that were found, behind a semicolon, in words.
    pub(in super::super) fn told(&self) -> String {
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
    pub(in super::super) fn is_let_down(&self) -> bool {
        let all = self.hints.iter().all(|(peer, _)| self.has_failed(peer));
        all && !self.hints.is_empty() && self.members.values().all(|member| member.has_nothing)
    }

    /// Whether all that the caller named are there, and of another network or have another key, and nobody else has been
    /// found. False where the caller named nobody.
    pub(in super::super) fn is_refused(&self) -> bool {
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
    pub(in super::super) fn nobody(&self, id: ObjectId, seconds: u64) -> Error {
        let is_here = |peer: &PeerId| self.members.values().any(|member| member.peer == *peer);
        let waiting = self.waiting.iter().map(|provider| provider.peer);
        let tried = self.missed.peers().chain(self.dialled.keys().copied()).chain(waiting);
        let found: HashSet<PeerId> = tried.filter(|peer| !self.is_named(peer) && !is_here(peer)).collect();
        let named = self.hints.iter().map(|(peer, _)| (*peer, self.what_became_of(peer)));
        if self.is_refused() && found.is_empty() {
            return Error::OtherNetwork { id, named: missed::list(named.collect()) };
        }
        if found.is_empty() {
            return Error::NoHolders { id, seconds, named: missed::list(named.collect()) };
        }
        let named = self.hints.iter().map(|(peer, _)| *peer).filter(|peer| !is_here(peer));
        let absent: Vec<PeerId> = named.chain(found).collect();
        Error::Unreached { id, known: absent.len(), seconds, why: self.missed.of(absent.into_iter()) }
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

/// What a member says of an object of so many chunks.
fn words(member: &Member, own: Option<u64>, chunks: u64) -> String {
    match own {
        _ if member.broke_word => "it does not have chunks that it said it has".to_owned(),
        _ if member.has_nothing => "it does not have it, or gives it to nobody".to_owned(),
        None => "it answers, and has not said what it has".to_owned(),
        Some(own) if own >= chunks => "it has all of it".to_owned(),
        Some(own) => format!("it has {own} of {chunks} chunks"),
    }
}
