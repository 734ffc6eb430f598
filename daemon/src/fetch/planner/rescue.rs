//! Finishing stripes with parity.
//!
//! A stripe is *open* while parity is asked for it: because nobody can give some of its data, or because what
//! was asked for is late. Parity shards wait in the caller's memory until their stripe is done, so only as many
//! stripes are open as fit into half of what may be in flight, and at least one. One that nobody can finish now
//! keeps what it has until another one needs the room.

use std::time::Duration;

use super::peer::{ParityRecord, Peer};
use super::{Action, Bits, PeerNo, Planner, Shard, Stripes};

/// How long a stripe that nobody can be counted on to finish keeps its room while another one waits for it.
const TURN: Duration = Duration::from_secs(30);

/// How long a stripe that was given up stays so: two that need each other's room would else take turns for ever
/// within one moment.
const PAUSE: Duration = Duration::from_secs(1);

/// How a stripe stands, in shards.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Data chunks that it takes to rebuild it.
    enough: u32,
    /// Stored, held in memory.
    here: u32,
    /// Asked for and counted on.
    coming: u32,
    /// Needed data that is about to be asked for anyway.
    due: u32,
    /// Can be asked for besides, of peers that can be counted on.
    spare: u32,
    /// May be had besides, of any peer that is not late right now.
    hope: u32,
    /// Needed data chunks that are not here.
    missing: u32,
    /// Of those, the ones that are not asked for, or not counted on.
    stuck: u32,
}

impl Tally {
    /// How many spare shards must be asked for.
    fn gap(&self) -> u32 {
        self.enough.saturating_sub(self.here + self.coming + self.due)
    }

    /// Whether nobody can finish the stripe now.
    fn is_hopeless(&self) -> bool {
        self.gap() > self.hope
    }
}

/// What came of trying to open a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It is open now.
    Opened,
    /// It was open already.
    Open,
    /// It must wait until another stripe is done.
    Full,
    /// Parity cannot be counted on.
    Useless,
}

impl Planner {
    /// Opens the stripe of a data chunk that cannot be had, if parity can make up for it.
    pub(super) fn open_for(&mut self, chunk: u64, actions: &mut Vec<Action>) -> Opening {
        let Some((stripe, tally)) = self.stripes.of(chunk).and_then(|no| Some((no, self.tally(no)?))) else {
            return Opening::Useless;
        };
        if self.stripes.is_open(stripe) {
            if tally.gap() > tally.spare {
                return Opening::Useless;
            }
            // It may have been opened when it needed less, and be kept waiting by one that nobody can finish.
            if !self.has_parity_room(stripe, tally) {
                self.make_parity_room(stripe, tally, actions);
            }
            return Opening::Open;
        }
        if tally.is_hopeless() {
            return Opening::Useless;
        }
        if self.stripes.abandoned_at(stripe).is_some_and(|at| self.now < at + PAUSE) {
            return Opening::Full;
        }
        if !self.has_parity_room(stripe, tally) {
            self.make_parity_room(stripe, tally, actions);
            if !self.has_parity_room(stripe, tally) {
                return Opening::Full;
            }
        }
        self.stripes.open_at(stripe, self.now);
        self.tend(stripe, actions);
        Opening::Opened
    }

    /// Whether what a stripe lacks may be asked for besides what the others have.
    fn has_parity_room(&self, stripe: u32, tally: Tally) -> bool {
        let more = u64::from(tally.gap()) * self.shard_bytes(stripe);
        self.stripes.open().all(|open| open == stripe) || more <= self.parity_room()
    }

    /// Whether a data chunk will be rebuilt from what is here and asked for, so that it need not be asked for.
    pub(super) fn is_covered(&self, chunk: u64) -> bool {
        let open = |&stripe: &u32| self.stripes.is_open(stripe);
        let stripe = self.stripes.open().next().and_then(|_| self.stripes.of(chunk)).filter(open);
        stripe
            .and_then(|stripe| self.tally(stripe))
            .is_some_and(|tally| tally.here + tally.coming >= tally.enough)
    }

    /// Stops counting on a shard that is asked for; opens its stripe.
    pub(super) fn doubt(&mut self, shard: Shard, actions: &mut Vec<Action>) {
        if !self.flight.doubted.insert(shard) {
            return;
        }
        match shard {
            Shard::Data(chunk) => {
                if self.open_for(chunk, actions) == Opening::Full {
                    // Asked again when there is room: until then it is worth waiting for.
                    self.flight.doubted.remove(&shard);
                }
                if let Some(stripe) = self.stripes.of(chunk) {
                    self.tend(stripe, actions);
                }
            }
            Shard::Parity { stripe, .. } => self.tend(stripe, actions),
        }
    }

    /// A parity shard is here.
    pub(super) fn keep(&mut self, stripe: u32, index: u8, actions: &mut Vec<Action>) {
        let bytes = self.shard_bytes(stripe);
        let shard = Shard::Parity { stripe, index };
        if !self.stripes.is_open(stripe) {
            // It crossed its cancellation: nobody waits for it.
            return actions.push(Action::Release { stripe });
        }
        if let Some(state) = self.stripes.state_mut(stripe)
            && state.held.set(u64::from(index))
        {
            self.flight.held += bytes;
            state.moved_at = self.now;
            if !self.stripes.is_abandoned(stripe) {
                self.progress_at = self.now;
            }
            self.cancel_all(shard, actions);
        }
        self.tend(stripe, actions);
    }

    /// A shard of an open stripe that a peer may have and that is not asked for otherwise: first data that lies
    /// outside the window, then parity.
    pub(super) fn pick_for_stripe(&self, no: PeerNo) -> Option<Shard> {
        let peer = self.peers.get(&no)?;
        let window = self.window();
        let mut is_first = true;
        for stripe in self.stripes.open() {
            let (Some(shape), Some(state)) = (self.stripes.get(stripe), self.stripes.state(stripe)) else {
                continue;
            };
            let Some(tally) = self.tally(stripe).filter(|tally| !tally.is_hopeless()) else { continue };
            let room = std::mem::take(&mut is_first) || self.parity_room() >= self.shard_bytes(stripe);
            if tally.gap() == 0 || state.rebuilding {
                continue;
            }
            let mut data = shape.first..shape.first + u64::from(shape.data);
            let extra = |&chunk: &u64| {
                let due = window.contains(&chunk) && self.chunks.need(chunk);
                !due && !self.chunks.have(chunk) && !self.chunks.asked.get(chunk) && peer.holding.has(chunk)
            };
            if let Some(chunk) = data.find(extra) {
                return Some(Shard::Data(chunk));
            }
            if !room {
                continue;
            }
            let mut parity = (0..shape.parity).filter(|&index| !state.has(index));
            let free = |&index: &u8| {
                let asked = self.flight.peers(Shard::Parity { stripe, index });
                asked.is_empty() && peer.parity.may_have(stripe, index)
            };
            if let Some(index) = parity.find(free) {
                return Some(Shard::Parity { stripe, index });
            }
        }
        None
    }

    /// Moves a stripe on, if its parity plays a part: orders its rebuild, or ends it.
    pub(super) fn tend(&mut self, stripe: u32, actions: &mut Vec<Action>) {
        let (Some(state), Some(tally)) = (self.stripes.state(stripe), self.tally(stripe)) else { return };
        if tally.missing == 0 {
            self.close(stripe, actions);
        } else if state.rebuilding {
        } else if tally.here >= tally.enough && tally.stuck > 0 {
            if let Some(state) = self.stripes.state_mut(stripe) {
                state.rebuilding = true;
            }
            actions.push(Action::Rebuild { stripe });
        }
    }

    /// Gives up other open stripes that nobody can be counted on to finish, as this one needs their room: at once
    /// when this one can be finished for certain, else by turns. None is given up unless that makes the room: it
    /// would only be opened again, for ever.
    fn make_parity_room(&mut self, needy: u32, tally: Tally, actions: &mut Vec<Action>) {
        let more = u64::from(tally.gap()) * self.shard_bytes(needy);
        let certain = tally.gap() <= tally.spare;
        let others = || self.stripes.open().filter(|&stripe| stripe != needy);
        let yields = |&stripe: &u32| {
            let Some(state) = self.stripes.state(stripe) else { return false };
            let waited = self.now.saturating_sub(state.moved_at) >= TURN;
            let doubtful = self.tally(stripe).is_some_and(|tally| tally.gap() > tally.spare);
            doubtful && !state.rebuilding && (certain || waited)
        };
        let yielding: Vec<u32> = others().filter(yields).collect();
        let freed: u64 = yielding.iter().map(|&stripe| self.parity_bytes(stripe)).sum();
        let all = yielding.len() == others().count();
        if !all && more > self.parity_room().saturating_add(freed) {
            return;
        }
        for stripe in yielding {
            self.give_up(stripe, actions);
            self.stripes.abandon(stripe, self.now);
        }
    }

    /// Bytes of a stripe's parity in memory and on the way.
    fn parity_bytes(&self, stripe: u32) -> u64 {
        let held = self.stripes.state(stripe).map_or(0, |state| state.held.count());
        let asked: usize =
            self.flight.parity_of(stripe).into_iter().map(|shard| self.flight.peers(shard).len()).sum();
        (held + asked as u64) * self.shard_bytes(stripe)
    }

    /// Looks at all open stripes: a peer has come, gone or told what it lacks.
    pub(super) fn tend_open(&mut self, actions: &mut Vec<Action>) {
        for stripe in self.stripes.open().collect::<Vec<_>>() {
            self.tend(stripe, actions);
        }
    }

    /// Ends a stripe that needs nothing any more.
    pub(super) fn close(&mut self, stripe: u32, actions: &mut Vec<Action>) {
        self.give_up(stripe, actions);
        let parity = self.stripes.get(stripe).map_or(0, |shape| shape.parity);
        (0..parity).for_each(|index| self.flight.forget(Shard::Parity { stripe, index }));
        self.stripes.rest(stripe);
        for peer in self.peers.values_mut() {
            peer.parity.finished(stripe);
        }
    }

    /// Stops asking for a stripe's parity and gives its memory back. What peers lack is remembered.
    fn give_up(&mut self, stripe: u32, actions: &mut Vec<Action>) {
        let Some(shape) = self.stripes.get(stripe) else { return };
        self.stripes.shut(stripe);
        for shard in self.flight.parity_of(stripe) {
            self.cancel_all(shard, actions);
        }
        for chunk in shape.first..shape.first + u64::from(shape.data) {
            if !self.chunks.need(chunk) {
                self.cancel_all(Shard::Data(chunk), actions);
            }
        }
        let bytes = self.shard_bytes(stripe);
        let Some(state) = self.stripes.state_mut(stripe) else { return };
        let held = state.held.count();
        state.held = Bits::new(state.held.len());
        if state.local.count() == 0 && !state.rebuilding {
            self.stripes.remove(stripe);
        }
        if held > 0 {
            self.flight.held -= held * bytes;
            actions.push(Action::Release { stripe });
        }
        self.search.wake();
    }

    /// The parity part is false, or replaced by another.
    pub(super) fn discard_parity(&mut self, actions: &mut Vec<Action>) {
        for stripe in self.stripes.touched() {
            self.close(stripe, actions);
        }
        self.stripes = Stripes::default();
        for peer in self.peers.values_mut() {
            peer.parity = ParityRecord::default();
        }
        self.search.wake();
    }

    /// Bytes of a stripe's shards.
    fn shard_bytes(&self, stripe: u32) -> u64 {
        self.chunks.shard_bytes(Shard::Parity { stripe, index: 0 }, self.stripes.layout())
    }

    /// Bytes of parity that may be asked for besides what is in memory and on the way.
    fn parity_room(&self) -> u64 {
        (self.limits.in_flight / 2).saturating_sub(self.flight.held + self.flight.parity_bytes)
    }

    /// Counts the shards of a stripe that exists.
    fn tally(&self, stripe: u32) -> Option<Tally> {
        let (shape, state) = (self.stripes.get(stripe)?, self.stripes.state(stripe));
        let mut tally = Tally { enough: u32::from(shape.data), ..Tally::default() };
        let window = self.window();
        for chunk in shape.first..shape.first + u64::from(shape.data) {
            let shard = Shard::Data(chunk);
            if self.chunks.have(chunk) {
                tally.here += 1;
                continue;
            }
            let (need, asked) = (self.chunks.need(chunk), self.chunks.asked.get(chunk));
            let coming = self.flight.is_coming(shard);
            tally.missing += u32::from(need);
            tally.stuck += u32::from(need && !coming);
            if coming {
                tally.coming += 1;
            } else if !asked && self.available(shard, None) && need && window.contains(&chunk) {
                tally.due += 1;
            } else {
                self.count_spare(shard, &mut tally);
            }
        }
        for index in 0..shape.parity {
            let shard = Shard::Parity { stripe, index };
            if state.is_some_and(|state| state.has(index)) {
                tally.here += 1;
            } else if self.flight.is_coming(shard) {
                tally.coming += 1;
            } else {
                self.count_spare(shard, &mut tally);
            }
        }
        Some(tally)
    }

    /// Counts a shard that is not here and not counted on.
    fn count_spare(&self, shard: Shard, tally: &mut Tally) {
        let asked = self.flight.peers(shard);
        tally.spare += u32::from(asked.is_empty() && self.available(shard, None));
        let gives = |no: &PeerNo, peer: &Peer| match asked {
            [] => self.may_give(peer, shard),
            asked => asked.contains(no),
        };
        tally.hope += u32::from(self.peers.iter().any(|(no, peer)| !peer.snubbed && gives(no, peer)));
    }
}
