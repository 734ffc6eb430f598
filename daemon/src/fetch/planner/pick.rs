//! Which needed chunk to ask of which peer.

use std::time::Duration;

use super::late::much_later;
use super::{Action, CHUNK_LEN, Order, PeerNo, Planner, RECHECK, Shard};

/// Chunks that are looked at for a peer of which nobody knows what it holds.
const GUESSES: usize = 1024;

impl Planner {
    /// Gives every peer with room something to do, as far as there is anything.
    pub(super) fn fill(&mut self, actions: &mut Vec<Action>) {
        let mut idle = Vec::new();
        loop {
            while let Some(peer) = self.next_peer(&idle) {
                match self.pick(peer, actions) {
                    Some(shard) => self.ask(peer, shard, actions),
                    None => idle.push(peer),
                }
            }
            if !self.survey(!idle.is_empty(), actions) {
                break;
            }
            idle.clear();
        }
        self.want_more(actions);
        let waiting = !idle.is_empty() && self.flight.bytes > 0;
        self.recheck = waiting.then(|| self.now + self.often(RECHECK));
    }

    /// An interval that grows with the time that nothing came: what takes long is looked at rarely.
    pub(super) fn often(&self, least: Duration) -> Duration {
        least.max(self.now.saturating_sub(self.progress_at) / 8)
    }

    /// Of the peers with room and not in `idle`, the one that would answer soonest.
    fn next_peer(&self, idle: &[PeerNo]) -> Option<PeerNo> {
        let bytes = self.chunks.bytes(0);
        let ready = self.peers.iter().filter(|&(no, peer)| {
            !idle.contains(no) && peer.has_room(bytes, self.now) && self.allows(peer, bytes)
        });
        let soonest = ready.min_by_key(|(_, peer)| peer.answers_in(bytes, self.now).unwrap_or(Duration::MAX));
        soonest.map(|(&no, _)| no)
    }

    /// The best thing to ask of a peer now.
    fn pick(&mut self, no: PeerNo, actions: &mut Vec<Action>) -> Option<Shard> {
        let data = match self.order {
            Order::Rarest => self.pick_rarest(no).map(Shard::Data),
            Order::InOrder { .. } => {
                self.pick_overdue(no, actions).or_else(|| self.pick_in_order(no).map(Shard::Data))
            }
        };
        data.or_else(|| self.pick_for_stripe(no))
            .or_else(|| self.pick_guess(no).map(Shard::Data))
            .or_else(|| self.pick_duplicate(no, actions))
    }

    /// The rarest open chunk that a peer holds.
    fn pick_rarest(&mut self, no: PeerNo) -> Option<u64> {
        let (overtaken, spared) = (self.overtaken(no) >= self.chunks.missing(), self.spares(no));
        if let Some(chunk) = self.pick_again(no, overtaken, spared) {
            return Some(chunk);
        }
        while let Some((chunk, count)) = self.next_in_queue(no, spared) {
            // What has become less rare since, or is given to others, comes back when the queue is sorted again.
            let peer = self.peers.get(&no)?;
            let is_left = spared && peer.given.has(chunk);
            let stale = self.rarity()(chunk) > count || !peer.holding.has(chunk);
            if stale || is_left || !self.chunks.open(chunk) {
                continue;
            }
            if self.is_covered(chunk) {
                self.flight.again.insert(chunk);
                continue;
            }
            if overtaken && self.sooner_elsewhere(no, chunk) {
                self.peers.get_mut(&no)?.queue.push((chunk, count));
                return None;
            }
            return Some(chunk);
        }
        None
    }

    /// Takes the next chunk of a peer's queue; sorts it anew when it is empty.
    fn next_in_queue(&mut self, no: PeerNo, spared: bool) -> Option<(u64, u16)> {
        let peer = self.peers.get(&no)?;
        if peer.queue.is_empty() && (!peer.dry || peer.spared && !spared) {
            let again = |&(chunk, _): &(u64, u16)| self.flight.again.contains(&chunk);
            let is_even = self.holders.is_even();
            let queue = self.runs.sort(&self.chunks, peer, is_even, spared, self.rarity());
            let dry = queue.iter().all(again);
            let peer = self.peers.get_mut(&no)?;
            (peer.dry, peer.spared, peer.queue) = (dry, spared, queue);
        }
        self.peers.get_mut(&no)?.queue.pop()
    }

    /// A chunk that was asked for in vain before; last of all the one that failed at this very peer.
    fn pick_again(&mut self, no: PeerNo, overtaken: bool, spared: bool) -> Option<u64> {
        // What nobody here holds is found by the survey instead.
        self.flight.again.retain(|&chunk| self.holders.count(chunk) > 0);
        let peer = self.peers.get(&no)?;
        let fits = |chunk: &u64| {
            self.chunks.open(*chunk)
                && peer.holding.has(*chunk)
                && !self.is_covered(*chunk)
                && !(spared && peer.given.has(*chunk))
                && !(overtaken && self.sooner_elsewhere(no, *chunk))
        };
        let mut fitting = self.flight.again.iter().copied().filter(fits);
        let first = fitting.next()?;
        if peer.avoid != Some(first) {
            return Some(first);
        }
        fitting.next().or_else(|| peer.dry.then_some(first))
    }

    /// The first open chunk within the window that a peer holds, and that it would bring in time.
    fn pick_in_order(&self, no: PeerNo) -> Option<u64> {
        let peer = self.peers.get(&no)?;
        let overtaken = self.overtaken(no);
        let mut avoided = None;
        for (ahead, chunk) in (0..).zip(self.chunks.needed(self.window())) {
            if self.chunks.asked.get(chunk)
                || !peer.holding.has(chunk)
                || (ahead < overtaken && self.sooner_elsewhere(no, chunk))
                || self.is_covered(chunk)
            {
                continue;
            }
            if peer.avoid != Some(chunk) {
                return Some(chunk);
            }
            avoided = Some(chunk);
        }
        avoided
    }

    /// A chunk that no peer is known to hold, for a peer of which nobody knows what it holds.
    fn pick_guess(&self, no: PeerNo) -> Option<u64> {
        let peer = self.peers.get(&no)?;
        let open = self.chunks.needed(self.window()).take(GUESSES).filter(|&chunk| self.chunks.open(chunk));
        let mut orphans = open.filter(|&chunk| self.holders.count(chunk) == 0);
        orphans.find(|&chunk| peer.holding.may_have(chunk) && !self.is_covered(chunk))
    }

    /// How many chunks the other peers will bring before this one could answer; 0 unless it is much slower than
    /// the fastest of them.
    fn overtaken(&self, no: PeerNo) -> u64 {
        let bytes = self.chunks.bytes(0);
        let Some(mine) = self.known_answer(no) else { return 0 };
        let (mut rate, mut best) = (0u64, Duration::MAX);
        for (_, peer) in self.peers.iter().filter(|&(&other, _)| other != no) {
            if let (true, Some(theirs)) = (peer.is_available(self.now), peer.speed.rate()) {
                rate = rate.saturating_add(theirs);
                best = best.min(peer.answers_in(bytes, self.now).unwrap_or(Duration::MAX));
            }
        }
        if best == Duration::MAX || !much_later(mine, best) {
            return 0;
        }
        let brought = u128::from(rate) * mine.as_micros() / 1_000_000 / u128::from(CHUNK_LEN);
        u64::try_from(brought).unwrap_or(u64::MAX)
    }

    /// Whether another peer that holds a chunk would bring it much sooner than this one.
    fn sooner_elsewhere(&self, no: PeerNo, chunk: u64) -> bool {
        let bytes = self.chunks.bytes(chunk);
        let Some(mine) = self.known_answer(no) else { return false };
        self.peers.iter().any(|(&other, peer)| {
            other != no
                && peer.is_available(self.now)
                && peer.speed.is_proven()
                && peer.holding.has(chunk)
                && peer.answers_in(bytes, self.now).is_some_and(|theirs| much_later(mine, theirs))
        })
    }

    /// In what time a peer of which something has come would answer one more request.
    fn known_answer(&self, no: PeerNo) -> Option<Duration> {
        let bytes = self.chunks.bytes(0);
        let peer = self.peers.get(&no).filter(|peer| peer.speed.transfer(bytes).is_some())?;
        peer.answers_in(bytes, self.now)
    }
}
