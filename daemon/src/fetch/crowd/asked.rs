//! What a fetch tells of its peers.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::super::inquiry::{AskedPeer, MAX_ASKED};
use super::super::member::Member;
use super::super::missed;
use super::super::planner::PeerNo;
use super::Crowd;
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
