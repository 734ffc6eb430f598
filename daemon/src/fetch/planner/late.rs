//! What to do about answers that are late, or will be.

use std::time::Duration;

use super::{Action, CHUNK_LEN, PeerNo, Planner, Shard};

/// Of how many peers at most one shard is asked at a time.
const COPIES: usize = 3;

/// The share of the bytes in flight that duplicates of the end game may take.
const DUPLICATE_SHARE: u64 = 4;

/// Added to every comparison of expected answers: measurements of fast peers are no finer than this.
const NOISE: Duration = Duration::from_millis(20);

/// Whether an answer expected in `late` comes so much after one expected in `soon` that asking twice pays.
pub(super) fn much_later(late: Duration, soon: Duration) -> bool {
    late > soon.saturating_mul(3) / 2 + NOISE
}

impl Planner {
    /// Finds peers that have become late and asks elsewhere for what they owe.
    pub(super) fn review(&mut self, actions: &mut Vec<Action>) {
        let is_late = |at: Duration| at <= self.now;
        let late = self.peers.iter().filter(|(_, peer)| peer.late_at().is_some_and(is_late));
        for no in late.map(|(&no, _)| no).collect::<Vec<_>>() {
            self.snub(no, actions);
        }
        self.hedge(actions);
    }

    /// A peer is late. Its oldest request stays out, as a probe, unless such probes fill half of what may be
    /// in flight; those behind it go elsewhere.
    fn snub(&mut self, no: PeerNo, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&no) else { return };
        peer.snub(self.now);
        let owed: Vec<Shard> = peer.requests.iter().map(|request| request.shard).collect();
        let crowded = self.doubtful() > self.limits.in_flight / 2
            && self.peers.values().any(|peer| peer.is_available(self.now));
        for (place, shard) in owed.into_iter().enumerate() {
            let elsewhere = self.available(shard, Some(no));
            if crowded || elsewhere && place > 0 {
                self.cancel(no, shard, actions);
            }
        }
        self.search.wake();
    }

    /// Asks other peers for what late ones owe, where they are expected to be sooner.
    fn hedge(&mut self, actions: &mut Vec<Action>) {
        let late = self.peers.values().filter(|peer| peer.snubbed);
        let owed = late.flat_map(|peer| {
            let left = |place: usize| peer.finishes_in(place, self.now);
            peer.requests.iter().enumerate().map(move |(place, request)| (request.shard, left(place)))
        });
        for (shard, left) in owed.collect::<Vec<_>>() {
            let asked = self.flight.peers(shard);
            if asked.iter().any(|no| self.peers.get(no).is_some_and(|peer| !peer.snubbed)) {
                continue;
            }
            let (oldest, crowded) = (asked.first().copied(), asked.len() >= COPIES);
            match self.soonest(shard) {
                Some((no, soon)) if soon < left => {
                    if let (true, Some(oldest)) = (crowded, oldest) {
                        self.cancel(oldest, shard, actions);
                    }
                    self.ask(no, shard, actions);
                }
                None if !self.available(shard, None) => self.doubt(shard, actions),
                _ => {}
            }
        }
    }

    /// The peer with room that would answer soonest for a shard it is not asked for yet, and in what time.
    fn soonest(&self, shard: Shard) -> Option<(PeerNo, Duration)> {
        let bytes = self.chunks.shard_bytes(shard, self.stripes.layout());
        let asked = self.flight.peers(shard);
        let ready = self.peers.iter().filter(|&(no, peer)| {
            !asked.contains(no)
                && !peer.snubbed
                && peer.has_room(bytes, self.now)
                && self.allows(peer, bytes)
                && self.may_give(peer, shard)
        });
        let answers = ready.filter_map(|(&no, peer)| Some((no, peer.answers_in(bytes, self.now)?)));
        answers.min_by_key(|&(_, soon)| soon)
    }

    /// End game: for a peer that has nothing else to do, what another one is expected to bring much later. When
    /// that cannot be had from any other peer, parity of its stripe.
    pub(super) fn pick_duplicate(&mut self, no: PeerNo, actions: &mut Vec<Action>) -> Option<Shard> {
        let most = self.limits.in_flight / CHUNK_LEN / DUPLICATE_SHARE;
        if u64::try_from(self.flight.duplicates()).unwrap_or(u64::MAX) >= most {
            return None;
        }
        let peer = self.peers.get(&no)?;
        let soon = peer.answers_in(self.chunks.bytes(0), self.now)?;
        let (mut slowest, mut stuck) = (None, None);
        for (&other, owing) in self.peers.iter().filter(|&(&other, _)| other != no) {
            for (place, request) in owing.requests.iter().enumerate() {
                let (shard, left) = (request.shard, owing.finishes_in(place, self.now));
                if self.flight.peers(shard).len() > 1 || !much_later(left, soon) {
                    continue;
                }
                if self.may_give(peer, shard) {
                    slowest = slowest.max(Some((left, shard)));
                } else if !self.flight.doubted.contains(&shard) && !self.available(shard, Some(other)) {
                    stuck = stuck.max(Some((left, shard)));
                }
            }
        }
        if let Some((_, shard)) = slowest {
            return Some(shard);
        }
        self.doubt(stuck?.1, actions);
        self.pick_for_stripe(no)
    }
}
