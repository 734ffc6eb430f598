//! What each event changes.

use super::flight::STEP;
use super::peer::Peer;
use super::stripes::Stripes;
use super::{Action, Event, PeerNo, Planner, Shard};

impl Planner {
    /// Takes in one event. What follows from it is decided afterwards.
    pub(super) fn apply(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::PeerJoined { peer, credits } => {
                self.peers.entry(peer).or_insert_with(|| Peer::new(credits)).credits = credits;
            }
            Event::PeerHas { peer, has } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    self.holders.learn(&mut peer.holding, has);
                    peer.dry = false;
                    self.search.wake();
                }
            }
            Event::Given { peer, chunks } => self.note_given(peer, &chunks, actions),
            Event::PeerLeft { peer } | Event::Bad { peer, .. } => self.part(peer),
            Event::Came { peer, shard, bytes } => self.came(peer, shard, bytes),
            Event::Held { peer, shard } => self.held(peer, shard),
            Event::Arrived { peer, shard, .. } => self.arrived(peer, shard, actions),
            Event::Local { shard: Shard::Data(chunk) } => self.accept(chunk, actions),
            Event::Local { shard: Shard::Parity { stripe, index } } => {
                if let Some(state) = self.stripes.touch(stripe) {
                    state.local.set(u64::from(index));
                    self.tend(stripe, actions);
                }
            }
            Event::Lost { chunk } => self.lose(chunk),
            Event::Rebuilt { stripe, chunks } => self.rebuilt(stripe, &chunks, actions),
            Event::RebuildFailed { .. } => self.discard_parity(actions),
            Event::ParityKnown { stripes } => {
                self.discard_parity(actions);
                self.stripes = Stripes::new(stripes, self.chunks.count());
            }
            Event::ReadTo { chunk } => self.read_to(chunk),
            Event::NotFound { .. } | Event::Busy { .. } | Event::Failed { .. } => self.refused(&event),
            Event::Tick => {}
        }
    }

    /// A request was answered without data.
    fn refused(&mut self, event: &Event) {
        let (Event::NotFound { peer: no, shard }
        | Event::Busy { peer: no, shard, .. }
        | Event::Failed { peer: no, shard }) = *event
        else {
            return;
        };
        self.withdraw(no, shard);
        let Some(peer) = self.peers.get_mut(&no) else { return };
        match *event {
            Event::Busy { retry_after, .. } => peer.busy(retry_after, self.now),
            Event::Failed { .. } => peer.failed(shard, self.now),
            _ => {
                peer.lacks(self.now);
                match shard {
                    Shard::Data(chunk) => self.holders.deny(&mut peer.holding, chunk),
                    Shard::Parity { stripe, index } => peer.parity.miss(stripe, index),
                }
            }
        }
        self.search.wake();
    }

    /// A peer is gone.
    fn part(&mut self, no: PeerNo) {
        let Some(peer) = self.peers.get(&no) else { return };
        let owed: Vec<Shard> = peer.requests.iter().map(|request| request.shard).collect();
        for shard in owed {
            self.withdraw(no, shard);
        }
        if let Some(mut peer) = self.peers.remove(&no) {
            self.holders.forget(&mut peer.holding);
        }
        self.resort();
        self.search.wake();
    }

    /// Some chunks are rarer now than when the queues were sorted.
    pub(super) fn resort(&mut self) {
        if !self.holders.is_even() {
            self.peers.values_mut().for_each(|peer| peer.queue.clear());
        }
    }

    /// Some of a shard has come. Of each shard what comes counts once as progress, however often it is begun.
    fn came(&mut self, no: PeerNo, shard: Shard, bytes: u64) {
        let (now, before) = (self.now, self.has_come(no, shard).unwrap_or(0));
        if !self.peers.get_mut(&no).is_some_and(|peer| peer.came(shard, bytes, now)) {
            return;
        }
        if self.flight.came(shard, bytes) {
            self.progress_at = now;
        }
        // Its stripe keeps its room, also when it was begun before.
        let stripe = match shard {
            Shard::Data(chunk) => self.stripes.of(chunk),
            Shard::Parity { stripe, .. } => Some(stripe),
        };
        if bytes / STEP > before / STEP
            && let Some(state) = stripe.and_then(|stripe| self.stripes.state_mut(stripe))
        {
            state.moved_at = now;
        }
    }

    /// A request waits here: nobody is late, and nothing stalls.
    fn held(&mut self, no: PeerNo, shard: Shard) {
        if let Some(peer) = self.peers.get_mut(&no) {
            peer.held(shard, self.now);
            self.progress_at = self.now;
        }
    }

    /// A shard is here.
    fn arrived(&mut self, no: PeerNo, shard: Shard, actions: &mut Vec<Action>) {
        if let Some(request) = self.withdraw(no, shard)
            && let Some(peer) = self.peers.get_mut(&no)
        {
            peer.delivered(&request, self.now);
            if matches!(shard, Shard::Parity { .. }) {
                peer.parity.hit();
            }
        }
        match shard {
            Shard::Data(chunk) => self.accept(chunk, actions),
            Shard::Parity { stripe, index } => self.keep(stripe, index, actions),
        }
    }

    /// A data chunk is here.
    fn accept(&mut self, chunk: u64, actions: &mut Vec<Action>) {
        if !self.chunks.accept(chunk) {
            return;
        }
        self.progress_at = self.now;
        self.flight.again.remove(&chunk);
        self.flight.forget(Shard::Data(chunk));
        self.search.found(chunk);
        self.peers.values_mut().for_each(|peer| peer.given.came(chunk));
        self.cancel_all(Shard::Data(chunk), actions);
        if let Some(stripe) = self.stripes.of(chunk) {
            self.tend(stripe, actions);
        }
    }

    /// Data chunks of a stripe were rebuilt.
    fn rebuilt(&mut self, stripe: u32, chunks: &[u64], actions: &mut Vec<Action>) {
        let set_rebuilding = |planner: &mut Self, rebuilding| {
            if let Some(state) = planner.stripes.state_mut(stripe) {
                state.rebuilding = rebuilding;
            }
        };
        // Until the last one is taken in, or the first would order another rebuild.
        set_rebuilding(self, true);
        for &chunk in chunks {
            self.accept(chunk, actions);
        }
        set_rebuilding(self, false);
        self.tend(stripe, actions);
    }

    /// A data chunk is here no longer.
    fn lose(&mut self, chunk: u64) {
        self.chunks.lose(chunk);
        if self.chunks.open(chunk) {
            self.flight.again.insert(chunk);
        }
        if let Some(stripe) = self.stripes.of(chunk)
            && let Some(state) = self.stripes.state_mut(stripe)
        {
            // What was ordered cannot be done any more.
            state.rebuilding = false;
        }
        self.search.wake();
    }

    /// The reader has moved.
    fn read_to(&mut self, chunk: u64) {
        let waited = self.awaits();
        self.reader = chunk;
        if !waited {
            // Nothing was asked for while the reader was busy: that was no stall.
            self.progress_at = self.now;
        }
        self.search.wake();
    }
}
