//! What a holder of everything is giving to others, who will have it soon.
//!
//! A holder that many ask at once would give each chunk to each of them, while they could feed each other. So it tells
//! which chunk one of them asks for. Whoever hears that asks it for others first, and leaves that one to the crowd for
//! a while, drawn from the seed, so that not all come back for it at once. What it had itself asked for meanwhile, and
//! what is not on its way yet, it takes back: of two, the second hears of the first.
//!
//! That is a favour, and ends with its use: when it does not come in that time, when nothing has come for a moment, or
//! when those who are here bring less than the holder does. Told again of the same chunk nobody waits again, so that a
//! holder that tells nonsense gains nothing but this time, once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, Bits, CHUNK_LEN, Order, PeerNo, Planner, Shard};

/// How long a chunk is left to the crowd: four times as long as the holder would take to answer for it, within these,
/// and by chance up to twice as long.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// Nothing is left to a crowd while nothing has come for so long.
const SILENCE: Duration = Duration::from_secs(2);

/// Chunks that are left to the crowd at a time.
const MOST: usize = 4096;

/// What one peer has told of that it gives to others.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The chunks that it ever told of.
    told: Option<Bits>,
    /// Those that are left to the crowd, until when.
    left: BTreeMap<u64, Duration>,
    /// The first of these times.
    next: Option<Duration>,
}

impl Given {
    /// Whether a chunk is left to the crowd.
    pub(super) fn has(&self, chunk: u64) -> bool {
        self.left.contains_key(&chunk)
    }

    /// When the next chunk is left to it no longer.
    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Leaves a chunk of an object of `chunks` to the crowd; whether that is new.
    fn leave(&mut self, chunk: u64, chunks: u64, until: Duration) -> bool {
        let told = self.told.get_or_insert_with(|| Bits::new(chunks));
        if self.left.len() >= MOST || !told.set(chunk) {
            return false;
        }
        self.left.insert(chunk, until);
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
        true
    }

    /// A chunk is here.
    pub(super) fn came(&mut self, chunk: u64) {
        self.left.remove(&chunk);
    }

    /// Leaves to it no longer what did not come in time; whether there was anything.
    fn lapse(&mut self, now: Duration) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        let before = self.left.len();
        self.left.retain(|_, until| *until > now);
        self.next = self.left.values().min().copied();
        self.left.len() < before
    }
}

impl Planner {
    /// A peer gives these to others.
    pub(super) fn note_given(&mut self, no: PeerNo, chunks: &[u64], actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&no) else { return };
        let answers = peer.answers_in(CHUNK_LEN, self.now).unwrap_or_default();
        let patience = answers.saturating_mul(4).clamp(PATIENCE.0, PATIENCE.1);
        let mut asked = Vec::new();
        for &chunk in chunks.iter().filter(|&&chunk| self.chunks.need(chunk)) {
            let chance = u32::try_from(self.runs.draw(chunk) % 256).unwrap_or(0);
            let until = self.now + patience + patience * chance / 256;
            let shard = Shard::Data(chunk);
            let mut behind = peer.requests.iter().skip(1);
            if peer.given.leave(chunk, self.chunks.count(), until)
                && behind.any(|request| request.shard == shard)
            {
                asked.push(shard);
            }
        }
        if self.spares(no) {
            for shard in asked {
                // What it is sending now is not touched, so that its rate stays what it is.
                if self.withdraw(no, shard).is_some() {
                    actions.push(Action::Cancel { peer: no, shard });
                }
            }
        }
    }

    /// Time has passed: what was left to others in vain may be asked for again.
    pub(super) fn lapse(&mut self) {
        for peer in self.peers.values_mut() {
            if peer.given.lapse(self.now) {
                peer.dry = false;
            }
        }
    }

    /// Whether a peer is not asked for what it gives to others: it has everything, and those who are here besides, and
    /// have no crowd of their own, bring at least as much, or have yet to show what they bring.
    pub(super) fn spares(&self, no: PeerNo) -> bool {
        let Some(holder) = self.peers.get(&no) else { return false };
        let is_asked_by_many = !holder.given.left.is_empty() && holder.holding.is_whole();
        let is_moving = self.now.saturating_sub(self.progress_at) < SILENCE;
        if self.order != Order::Rarest || !is_asked_by_many || !is_moving {
            return false;
        }
        let others = self.peers.iter().filter(|&(&other, peer)| {
            other != no && peer.given.told.is_none() && peer.is_available(self.now)
        });
        let (mut are_there, mut brought) = (false, None::<u64>);
        for (_, other) in others {
            are_there = true;
            brought = brought.max(other.speed.rate().map(|rate| brought.unwrap_or(0).saturating_add(rate)));
        }
        are_there && brought.is_none_or(|brought| Some(brought) >= holder.speed.rate())
    }
}
