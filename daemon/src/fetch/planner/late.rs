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
        self.relieve(actions);
        self.hedge(actions);
    }

    /// Cancels what late peers owe, the oldest first, while it keeps others from being asked at all.
    fn relieve(&mut self, actions: &mut Vec<Action>) {
        let bytes = self.chunks.bytes(0);
        loop {
            let kept_waiting = self
                .peers
                .values()
                .any(|peer| !peer.snubbed && peer.has_room(bytes, self.now) && !self.allows(peer, bytes));
            let late = self.peers.iter().filter(|(_, peer)| peer.snubbed);
            let owed = late.flat_map(|(&no, peer)| {
                peer.requests.iter().map(move |owed| (owed.asked_at, no, owed.shard))
            });
            let Some((_, no, shard)) = owed.min().filter(|_| kept_waiting) else { break };
            self.cancel(no, shard, actions);
        }
    }

    /// A peer is late. Its oldest request stays out, as a probe; those behind it go elsewhere, if they can.
    fn snub(&mut self, no: PeerNo, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&no) else { return };
        peer.snub(self.now);
        let owed: Vec<Shard> = peer.requests.iter().map(|request| request.shard).collect();
        for shard in owed.into_iter().skip(1) {
            if self.available(shard, Some(no)) {
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
            if asked
                .iter()
                .any(|no| self.peers.get(no).is_some_and(|peer| peer.is_trusted() && !peer.snubbed))
            {
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
        let spared = self.spares(no);
        let (mut slowest, mut stuck) = (None, None);
        for (shard, asked) in self.flight.asked() {
            let left = asked.iter().filter_map(|&no| self.left(no, shard)).min().unwrap_or_default();
            let is_left = matches!(shard, Shard::Data(chunk) if spared && peer.given.has(chunk));
            if asked.contains(&no) || asked.len() >= COPIES || is_left || !much_later(left, soon) {
                continue;
            }
            if self.may_give(peer, shard) {
                slowest = slowest.max(Some((left, shard)));
            } else if !self.flight.doubted.contains(&shard) && !self.available(shard, asked.first().copied())
            {
                stuck = stuck.max(Some((left, shard)));
            }
        }
        if let Some((_, shard)) = slowest {
            return Some(shard);
        }
        self.doubt(stuck?.1, actions);
        self.pick_for_stripe(no)
    }

    /// In what time a peer is expected to bring a shard that it was asked for.
    fn left(&self, no: PeerNo, shard: Shard) -> Option<Duration> {
        let peer = self.peers.get(&no)?;
        let place = peer.requests.iter().position(|request| request.shard == shard)?;
        Some(peer.finishes_in(place, self.now))
    }
}
