//! The policy of a fetch: what to ask of whom, and when.
//!
//! Owns: which chunks are needed, who holds them, what is outstanding at whom, how fast and how reliable each peer
//! is, which stripes are finished with parity. Refuses: awaits, clocks, sockets, bytes, chance (but for a seed). A
//! [`Planner`] is told what happened and what time it is, and answers what to do; the daemon runs it over
//! sockets, the tests over a virtual network. Survives a crash: nothing; a new plan begins with what is stored.
//!
//! # How it decides
//!
//! After every event each peer with room (its credits, and what its path holds: [`speed`]) is given something,
//! the peer that would answer soonest first:
//!
//! 1. What a late peer owes is asked elsewhere as well; the slower answer is cancelled ([`late`]). A peer is late when
//!    nothing comes of what it is its turn to give; one that is slow is not, and what it was asked for stays asked.
//! 2. In order: what another peer is expected to bring long after the reader gets there, and much later than this one
//!    would.
//! 3. A needed chunk that it holds and nobody has been asked for: rarest first with ties broken by the seed
//!    ([`runs`]), or in order within the reader's window ([`pick`]). Peers that are much slower than the rest
//!    leave to them what they would only delay; a holder that a crowd asks is not asked for what it gives to
//!    others of it just now ([`given`]).
//! 4. Parity of a stripe whose missing data nobody can give, or not soon ([`rescue`]); never more shards of a
//!    stripe than rebuild it, plus one for each that is late.
//! 5. End game: what another peer is expected to bring much later than this one would.
//!
//! Nothing waits for a peer that is many times as slow as the fastest, if it can be had otherwise. Chunks that nobody
//! holds and parity does not cover are looked up by their keys, and more peers are asked for while there is much left
//! for those that are here ([`search`]).
//!
//! # What it costs
//!
//! Three bits and, while a peer holds only a part, two bytes a data chunk; one bit a chunk for each such peer, and
//! for each that tells what it gives to others; 16 bytes a stripe. Everything else is bounded by the bytes in
//! flight and the number of peers. For the longest object (4 Mi chunks) that is 14 MiB, and 0.5 MiB for each of those
//! peers.
//!
//! # How to drive it
//!
//! Feed [`Event::Tick`] first, then every event as it happens, and [`Event::Tick`] again at
//! [`Planner::next_wakeup`], asked anew after each event. Before storing what arrived, ask [`Planner::wants`]:
//! an answer may cross its cancellation on the way.

mod bits;
mod chunks;
mod events;
mod flight;
mod given;
mod holders;
mod late;
mod peer;
mod pick;
mod plan;
mod rescue;
mod runs;
mod search;
mod speed;
mod stripes;
mod view;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

pub use bits::Bits;
pub use plan::{Action, Credits, Event, Has, Limits, Order, PeerNo, Plan, Shard, Stripe};

use crate::content::CHUNK_LEN;
use chunks::Chunks;
use flight::Flight;
use holders::Holders;
use peer::{Peer, Request};
use runs::Runs;
use search::Search;
use speed::part;
use stripes::Stripes;

/// The least [`Limits::in_flight`] that is used: below four chunks, most of which may be out at peers that have yet to
/// deliver, nothing would overlap.
const LEAST_IN_FLIGHT: u64 = 4 * CHUNK_LEN;

/// How often the end game is looked at while a peer is idle and others still owe something.
const RECHECK: Duration = Duration::from_millis(50);

/// One fetch.
#[derive(Debug)]
pub struct Planner {
    /// Rarest first or in order.
    order: Order,
    /// What may be in flight, and how many peers are wanted.
    limits: Limits,
    /// Which data chunks are here, needed, asked for.
    chunks: Chunks,
    /// How rare each data chunk is.
    holders: Holders,
    /// In which order equally rare chunks are taken.
    runs: Runs,
    /// The stripes and their parity.
    stripes: Stripes,
    /// The peers that are here.
    peers: BTreeMap<PeerNo, Peer>,
    /// What is outstanding.
    flight: Flight,
    /// The search for chunks that nobody here holds.
    search: Search,
    /// The chunk that the reader takes next.
    reader: u64,
    /// The time of the last event.
    now: Duration,
    /// When something last came, or the reader began to wait.
    progress_at: Duration,
    /// When to look at the end game again.
    recheck: Option<Duration>,
    /// [`Action::Done`] has been emitted.
    done: bool,
}

/// How a fetch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Data chunks that the caller wants.
    pub wanted: u64,
    /// Of those, chunks that are not here yet.
    pub missing: u64,
    /// Bytes asked for and not yet arrived, duplicates counted.
    pub in_flight: u64,
}

/// How a peer does in this fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Bytes that it delivered.
    pub delivered: u64,
    /// Bytes a second while it was busy; `None` before its first answer.
    pub rate: Option<u64>,
    /// Requests that are outstanding.
    pub requests: usize,
    /// It is late with an answer.
    pub late: bool,
    /// It is not asked before this: busy, failed or late.
    pub wait_until: Option<Duration>,
}

impl Planner {
    /// Begins a fetch. Nothing happens before the first event, which should be [`Event::Tick`].
    ///
    /// `local` and `wanted` beyond the object are ignored; `stripes` that are not a gapless layout of the
    /// object count as none.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let chunks = Chunks::new(&plan);
        let count = chunks.count();
        let in_flight = plan.limits.in_flight.max(LEAST_IN_FLIGHT);
        Self {
            order: plan.order,
            limits: Limits { in_flight },
            holders: Holders::new(count),
            runs: Runs::new(count, plan.seed),
            stripes: Stripes::new(plan.stripes, count),
            peers: BTreeMap::new(),
            flight: Flight::default(),
            search: Search::default(),
            reader: plan.wanted.start,
            now: Duration::ZERO,
            progress_at: Duration::ZERO,
            recheck: None,
            done: false,
            chunks,
        }
    }

    /// Takes in what happened at `now` (since the fetch began; never runs backwards) and appends what is to
    /// be done to `actions`, in the order in which it is to be done. After [`Action::Done`] nothing happens until
    /// [`Event::Lost`]; peers have to be told of anew then.
    pub fn on(&mut self, event: Event, now: Duration, actions: &mut Vec<Action>) {
        if self.done && !matches!(event, Event::Lost { .. }) {
            return;
        }
        self.now = self.now.max(now);
        if std::mem::take(&mut self.done) {
            self.progress_at = self.now;
        }
        self.lapse();
        self.apply(event, actions);
        self.compare();
        if self.chunks.missing() == 0 {
            self.finish(actions);
        } else {
            self.tend_open(actions);
            self.review(actions);
            self.fill(actions);
        }
    }

    /// When to send [`Event::Tick`], if nothing happens before; `None` when only an event can help.
    /// May be in the past: then at once.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Duration> {
        if self.done {
            return None;
        }
        let late = self.peers.values().filter_map(Peer::late_at);
        let waits = self.peers.values().map(|peer| peer.wait_until).filter(|&until| until > self.now);
        let left = self.peers.values().filter_map(|peer| peer.given.next());
        late.chain(waits).chain(left).chain(self.recheck).chain(self.search.next_wakeup()).min()
    }

    /// Whether a shard that arrives now would be of use. What is not wanted is to be dropped, not stored.
    #[must_use]
    pub fn wants(&self, shard: Shard) -> bool {
        match shard {
            _ if self.done => false,
            Shard::Data(chunk) => chunk < self.chunks.count() && !self.chunks.have(chunk),
            Shard::Parity { stripe, index } => {
                let has = self.stripes.state(stripe).map(|state| state.has(index));
                self.stripes.is_open(stripe) && has == Some(false)
            }
        }
    }

    /// Whether the peer has said that it holds this; parity is never promised.
    #[must_use]
    pub fn was_promised(&self, peer: PeerNo, shard: Shard) -> bool {
        let Shard::Data(chunk) = shard else { return false };
        self.peers.get(&peer).is_some_and(|peer| peer.holding.has(chunk))
    }

    /// The wanted chunks that are not here, ascending.
    pub fn missing(&self) -> impl Iterator<Item = u64> {
        self.chunks.needed(self.chunks.wanted())
    }

    /// Whether nothing has come for `limit` although something is being waited for; a reader that has not
    /// taken what is here is not waited for.
    #[must_use]
    pub fn is_stalled(&self, now: Duration, limit: Duration) -> bool {
        !self.done && self.awaits() && now.saturating_sub(self.progress_at) >= limit
    }

    /// When something last came, or what was waited for was not asked for because of this node's own limit.
    #[must_use]
    pub fn moved_at(&self) -> Duration {
        self.progress_at
    }

    /// Whether everything is here.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// How the fetch stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let wanted = self.chunks.wanted();
        Progress {
            wanted: wanted.end.saturating_sub(wanted.start),
            missing: self.chunks.missing(),
            in_flight: self.flight.bytes,
        }
    }

    /// How a peer does; `None` when it is not here.
    #[must_use]
    pub fn peer(&self, peer: PeerNo) -> Option<PeerView> {
        let peer = self.peers.get(&peer)?;
        Some(PeerView {
            delivered: peer.speed.delivered,
            rate: peer.speed.rate(),
            requests: peer.requests.len(),
            late: peer.snubbed,
            wait_until: Some(peer.wait_until).filter(|&until| until > self.now),
        })
    }

    /// The chunks that may be asked for now.
    fn window(&self) -> Range<u64> {
        let wanted = self.chunks.wanted();
        match self.order {
            Order::Rarest => wanted,
            // What the reader skipped, or was lost behind it, comes last.
            Order::InOrder { .. } if self.reader >= wanted.end => wanted,
            Order::InOrder { window } => {
                let start = self.reader.clamp(wanted.start, wanted.end.max(wanted.start));
                start..start.saturating_add(window.max(1)).min(wanted.end)
            }
        }
    }

    /// Whether a chunk within the window is not here.
    fn awaits(&self) -> bool {
        self.chunks.needed(self.window()).next().is_some()
    }

    /// Sends a request.
    fn ask(&mut self, peer: PeerNo, shard: Shard, actions: &mut Vec<Action>) {
        let bytes = self.chunks.shard_bytes(shard, self.stripes.layout());
        let Some(asked) = self.peers.get_mut(&peer) else { return };
        let trusted = asked.is_trusted();
        if trusted {
            self.flight.doubted.remove(&shard);
        }
        asked.start(shard, bytes, self.now);
        self.flight.start(peer, shard, bytes);
        if let Shard::Data(chunk) = shard {
            self.chunks.asked.set(chunk);
        }
        actions.push(Action::Ask { peer, shard });
        if !trusted && !self.available(shard, None) && self.flight.peers(shard).len() == 1 {
            self.doubt(shard, actions);
        }
    }

    /// Forgets a request. When it was the last for its chunk, the chunk may be asked for again.
    fn withdraw(&mut self, peer: PeerNo, shard: Shard) -> Option<Request> {
        let request = self.peers.get_mut(&peer)?.end(shard, self.now)?;
        if self.flight.end(peer, shard, request.bytes)
            && let Shard::Data(chunk) = shard
        {
            self.chunks.asked.clear(chunk);
            if self.chunks.need(chunk) {
                self.flight.again.insert(chunk);
            }
        }
        Some(request)
    }

    /// Takes a request back.
    fn cancel(&mut self, peer: PeerNo, shard: Shard, actions: &mut Vec<Action>) {
        if self.withdraw(peer, shard).is_some() {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.speed.owing_since = self.now;
            }
            actions.push(Action::Cancel { peer, shard });
        }
    }

    /// Takes all requests for a shard back.
    fn cancel_all(&mut self, shard: Shard, actions: &mut Vec<Action>) {
        for peer in self.flight.peers(shard).to_vec() {
            self.cancel(peer, shard, actions);
        }
    }

    /// Whether the limits allow `bytes` more to be asked of a peer. Those that have not shown that they deliver have a
    /// request each, as far as seven eighths of what may be in flight last, and more of them only as far as one eighth
    /// does: many who never will leave something for who will.
    fn allows(&self, peer: &Peer, bytes: u64) -> bool {
        let (out, limit) = (self.flight.bytes, self.limits.in_flight);
        let doubtful = self.doubtful();
        let share = if peer.requests.is_empty() { limit - limit / 8 } else { (limit / 8).max(2 * CHUNK_LEN) };
        (out == 0 || out + self.flight.held + bytes <= limit)
            && (!peer.is_doubtful() || doubtful == 0 || doubtful + bytes <= share)
    }

    /// Bytes that are out at peers that are late or never delivered.
    fn doubtful(&self) -> u64 {
        self.peers.values().filter(|peer| peer.is_doubtful()).map(|peer| peer.owed).sum()
    }

    /// Whether a peer may be asked for a shard, as far as is known.
    fn may_give(&self, peer: &Peer, shard: Shard) -> bool {
        match shard {
            Shard::Data(chunk) => {
                peer.holding.has(chunk) || self.holders.count(chunk) == 0 && peer.holding.may_have(chunk)
            }
            Shard::Parity { stripe, index } => peer.parity.may_have(stripe, index),
        }
    }

    /// Whether a peer that can be waited for may give a shard; `but` is not counted.
    fn available(&self, shard: Shard, but: Option<PeerNo>) -> bool {
        let other = |no: PeerNo| but != Some(no);
        let mut peers = self.peers.iter().filter(|&(&no, peer)| other(no) && peer.is_available(self.now));
        peers.any(|(_, peer)| self.may_give(peer, shard))
    }

    /// Finds those that are so much slower than the fastest that nothing should wait for them.
    fn compare(&mut self) {
        let fastest = self.peers.values().filter_map(Peer::pace).min();
        self.peers.values_mut().for_each(|peer| peer.compare(fastest));
    }

    /// Tells how rare chunks are: how many peers hold each, those that are late not counted.
    fn rarity(&self) -> impl Fn(u64) -> u16 {
        let late: Vec<&Peer> = self.peers.values().filter(|peer| peer.snubbed).collect();
        move |chunk| {
            let late = late.iter().filter(|peer| peer.holding.has(chunk)).count();
            self.holders.count(chunk).saturating_sub(u16::try_from(late).unwrap_or(u16::MAX))
        }
    }

    /// Bytes a second of all peers that can be waited for, as far as they are known.
    fn rate(&self) -> u64 {
        let rates = self.peers.values().filter(|peer| peer.is_available(self.now));
        rates.filter_map(|peer| peer.speed.rate()).fold(0, u64::saturating_add)
    }

    /// In what time those that can be waited for bring so many chunks.
    fn brings(&self, chunks: u64) -> Duration {
        let bytes = chunks.saturating_mul(CHUNK_LEN);
        Duration::from_micros(part(bytes, 1_000_000, self.rate().max(1)))
    }

    /// Ends the fetch: everything wanted is here.
    fn finish(&mut self, actions: &mut Vec<Action>) {
        for shard in self.flight.asked().map(|(shard, _)| shard).collect::<Vec<_>>() {
            self.cancel_all(shard, actions);
        }
        for stripe in self.stripes.touched() {
            self.close(stripe, actions);
        }
        self.done = true;
        actions.push(Action::Done);
    }
}
