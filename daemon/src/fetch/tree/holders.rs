//! The peers that small objects are asked of, and how much each is asked at once.
//!
//! Each has a window of bytes that may be on their way from it. It begins small, grows with what arrives in time and
//! shrinks with what does not: a fast peer soon gets all that its credit allows, and a slow one holds up little.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::super::crowd::{Arrival, Crowd};
use super::super::learn::AGAIN;
use super::super::member::Member;
use super::super::planner::PeerNo;
use crate::content::{CHUNK_LEN, ObjectId};
use crate::peer::PeerId;
use crate::session::Asker;

/// The window that a peer begins with: a chunk.
const FIRST_WINDOW: u64 = CHUNK_LEN;

/// The smallest window.
const LEAST_WINDOW: u64 = 64 << 10;

/// What takes longer than this to arrive shrinks the window.
const IN_TIME: Duration = Duration::from_secs(1);

/// The holders of a directory.
pub(super) struct Holders {
    pub(super) crowd: Crowd,
    root: ObjectId,
    loads: HashMap<PeerNo, Load>,
    /// They have been looked for.
    looked: bool,
    /// No look-up or dial is going on.
    quiet: bool,
    /// When the holders are looked for again while there are none, and how long after that.
    again: (Instant, Duration),
}

/// What a holder is doing.
struct Load {
    /// What it grants at once: requests, bytes.
    credit: (usize, u64),
    requests: usize,
    bytes: u64,
    window: u64,
    /// It has said that it has no time until then.
    busy: Option<Instant>,
}

impl Load {
    fn has_room(&self, length: u64, now: Instant) -> bool {
        let fits = self.bytes + length <= self.window.min(self.credit.1);
        self.requests < self.credit.0
            && (fits || self.requests == 0)
            && self.busy.is_none_or(|until| until <= now)
    }
}

/// Which peer an object may be asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one, now.
    Ask(PeerNo),
    /// One that has too much to do for now.
    Wait,
    /// Nobody who is here.
    Nobody,
}

impl Holders {
    /// The peers of a crowd; `looked`: holders of the directory have been looked for already.
    pub(super) fn new(crowd: Crowd, root: ObjectId, looked: bool) -> Self {
        let again = (Instant::now() + AGAIN.0, AGAIN.0);
        let mut holders = Self { crowd, root, loads: HashMap::new(), looked, quiet: false, again };
        let members: Vec<PeerNo> = holders.crowd.members().map(|(peer, _)| peer).collect();
        members.into_iter().for_each(|peer| holders.joined(peer));
        holders
    }

    fn joined(&mut self, peer: PeerNo) {
        if let Some(member) = self.crowd.get(peer) {
            let (requests, bytes) = member.asker.grant();
            let credit = (requests, bytes as u64);
            let load = Load { credit, requests: 0, bytes: 0, window: FIRST_WINDOW, busy: None };
            self.loads.insert(peer, load);
            self.again.1 = AGAIN.0;
        }
    }

    /// Looks for the holders, unless that has been done. Nobody is dialled before.
    pub(super) fn need(&mut self) {
        if !self.looked {
            self.looked = true;
            self.crowd.look_for(*self.root.as_bytes());
        }
    }

    /// Waits for a peer to join, or for all look-ups and dials to end. Pending for ever while nothing goes on.
    /// Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if self.quiet || !self.looked {
            return std::future::pending().await;
        }
        match self.crowd.next().await {
            Arrival::Joined(peer) => self.joined(peer),
            Arrival::Left(peer) => _ = self.loads.remove(&peer),
            Arrival::Quiet => self.quiet = true,
        }
    }

    /// Whether nobody more is about to join.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Looks for holders again, not too often, when there are none left.
    pub(super) fn look_again(&mut self) {
        let now = Instant::now();
        if !self.quiet || self.crowd.len() > 0 || now < self.again.0 {
            return;
        }
        self.again = (now + self.again.1, (self.again.1 * 2).min(AGAIN.1));
        self.crowd.retry();
        self.crowd.look_for(*self.root.as_bytes());
        self.quiet = false;
    }

    /// A peer that gave something elsewhere may have more.
    pub(super) fn invite(&mut self, peer: PeerId) {
        self.crowd.invite(peer);
        self.quiet = false;
    }

    pub(super) fn get(&self, peer: PeerNo) -> Option<&Member> {
        self.crowd.get(peer)
    }

    /// Sessions with all of them.
    pub(super) fn askers(&self) -> Vec<Asker> {
        self.crowd.members().map(|(_, member)| member.asker.clone()).collect()
    }

    /// The peer to ask for an object of this length, none of `lacking`: the one with the most room.
    pub(super) fn choose(&self, length: u32, lacking: &[PeerNo], now: Instant) -> Choice {
        let mut others = self.loads.iter().filter(|(peer, _)| !lacking.contains(peer)).peekable();
        if others.peek().is_none() {
            return Choice::Nobody;
        }
        let free = others.filter(|(_, load)| load.has_room(length.into(), now));
        let share = |load: &Load| u128::from(load.bytes) * 1024 / u128::from(load.window.max(1));
        let best = free.min_by_key(|(peer, load)| (share(load), load.requests, peer.0));
        best.map_or(Choice::Wait, |(peer, _)| Choice::Ask(*peer))
    }

    /// A peer is asked.
    pub(super) fn asked(&mut self, peer: PeerNo, length: u32) {
        if let Some(load) = self.loads.get_mut(&peer) {
            load.requests += 1;
            load.bytes += u64::from(length);
        }
    }

    /// A peer is no longer asked for something.
    pub(super) fn ended(&mut self, peer: PeerNo, length: u32) {
        if let Some(load) = self.loads.get_mut(&peer) {
            load.requests = load.requests.saturating_sub(1);
            load.bytes = load.bytes.saturating_sub(length.into());
        }
    }

    /// What a peer was asked for has arrived, whatever it is.
    pub(super) fn arrived(&mut self, peer: PeerNo, length: u32, took: Duration) {
        self.ended(peer, length);
        if let Some(load) = self.loads.get_mut(&peer) {
            if took <= IN_TIME {
                load.window = (load.window + u64::from(length)).min(load.credit.1);
            } else {
                load.window = (load.window / 2).max(LEAST_WINDOW);
            }
        }
    }

    /// A peer keeps an answer waiting.
    pub(super) fn late(&mut self, peer: PeerNo) {
        if let Some(load) = self.loads.get_mut(&peer) {
            load.window = LEAST_WINDOW;
        }
    }

    /// A peer has no time.
    pub(super) fn busy(&mut self, peer: PeerNo, until: Instant) {
        if let Some(load) = self.loads.get_mut(&peer) {
            load.busy = Some(until);
        }
    }

    /// A peer sent something else than what was asked of it.
    pub(super) fn strike(&mut self, peer: PeerNo) {
        self.loads.remove(&peer);
        self.crowd.strike(peer);
    }

    /// Lets go of a peer whose session has ended. Whether it has.
    pub(super) fn lost(&mut self, peer: PeerNo) -> bool {
        let is_lost = self.crowd.get(peer).is_none_or(|member| member.asker.is_closed());
        if is_lost && self.loads.remove(&peer).is_some() {
            self.crowd.lost(peer);
        }
        is_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(requests: usize, bytes: u64) -> Load {
        Load { credit: (64, 64 << 20), requests, bytes, window: FIRST_WINDOW, busy: None }
    }

    #[test]
    fn one_request_is_always_allowed_and_no_window_is_overrun() {
        let now = Instant::now();
        let narrow = Load { window: LEAST_WINDOW, ..load(0, 0) };
        assert!(narrow.has_room(CHUNK_LEN, now));
        assert!(!Load { requests: 1, bytes: 1, ..narrow }.has_room(CHUNK_LEN, now));
        assert!(load(63, 4096).has_room(4096, now) && !load(64, 4096).has_room(4096, now));
        let busy = Load { busy: Some(now + Duration::from_secs(1)), ..load(0, 0) };
        assert!(!busy.has_room(1, now) && busy.has_room(1, now + Duration::from_secs(1)));
    }
}
