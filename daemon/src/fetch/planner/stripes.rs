//! The stripes, and what is here of their parity.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Bits, Stripe};

/// The stripes of the object. Holds a state only for stripes whose parity plays a part.
#[derive(Debug, Default)]
pub(super) struct Stripes {
    /// All stripes in order; empty while no parity is known.
    layout: Vec<Stripe>,
    /// What is known of stripes whose parity plays a part.
    states: BTreeMap<u32, State>,
    /// The stripes that parity is being asked for.
    open: BTreeSet<u32>,
    /// Stripes that were given up once, and when: asking for their parity again is no progress.
    abandoned: BTreeMap<u32, Duration>,
}

/// What is known of one stripe's parity.
#[derive(Debug)]
pub(super) struct State {
    /// The parity shards that wait in the caller's memory.
    pub(super) held: Bits,
    /// The parity shards that lie in the local store.
    pub(super) local: Bits,
    /// A rebuild has been ordered and has not ended.
    pub(super) rebuilding: bool,
    /// When it was opened, or parity last came.
    pub(super) moved_at: Duration,
}

impl State {
    /// Whether a parity shard is here.
    pub(super) fn has(&self, index: u8) -> bool {
        self.held.get(u64::from(index)) || self.local.get(u64::from(index))
    }
}

impl Stripes {
    /// The stripes of `layout`, if it is one: no gaps, `chunks` data chunks in all. Otherwise no stripes.
    pub(super) fn new(layout: Vec<Stripe>, chunks: u64) -> Self {
        let mut next = 0;
        for stripe in &layout {
            if stripe.first != next || stripe.data == 0 {
                return Self::default();
            }
            next += u64::from(stripe.data);
        }
        if next == chunks { Self { layout, ..Self::default() } } else { Self::default() }
    }

    /// All stripes.
    pub(super) fn layout(&self) -> &[Stripe] {
        &self.layout
    }

    /// A stripe by its number.
    pub(super) fn get(&self, stripe: u32) -> Option<Stripe> {
        self.layout.get(stripe as usize).copied()
    }

    /// The stripe that a data chunk belongs to; `None` while no parity is known.
    pub(super) fn of(&self, chunk: u64) -> Option<u32> {
        let after = self.layout.partition_point(|stripe| stripe.first <= chunk);
        u32::try_from(after.checked_sub(1)?).ok()
    }

    /// The state of a stripe, if its parity plays a part.
    pub(super) fn state(&self, stripe: u32) -> Option<&State> {
        self.states.get(&stripe)
    }

    /// The state of a stripe, if its parity plays a part.
    pub(super) fn state_mut(&mut self, stripe: u32) -> Option<&mut State> {
        self.states.get_mut(&stripe)
    }

    /// The state of a stripe that exists, whose parity plays a part from now on.
    pub(super) fn touch(&mut self, stripe: u32) -> Option<&mut State> {
        let parity = u64::from(self.get(stripe)?.parity);
        Some(self.states.entry(stripe).or_insert_with(|| State {
            held: Bits::new(parity),
            local: Bits::new(parity),
            rebuilding: false,
            moved_at: Duration::ZERO,
        }))
    }

    /// Parity is to be asked for from `now` on. An open stripe has a state.
    pub(super) fn open_at(&mut self, stripe: u32, now: Duration) {
        if let Some(state) = self.touch(stripe) {
            state.moved_at = now;
            self.open.insert(stripe);
        }
    }

    /// Parity is not to be asked for any more.
    pub(super) fn shut(&mut self, stripe: u32) {
        self.open.remove(&stripe);
    }

    /// Whether parity is being asked for.
    pub(super) fn is_open(&self, stripe: u32) -> bool {
        self.open.contains(&stripe)
    }

    /// The stripes that parity is being asked for, ascending.
    pub(super) fn open(&self) -> impl Iterator<Item = u32> {
        self.open.iter().copied()
    }

    /// Notes that a stripe was given up.
    pub(super) fn abandon(&mut self, stripe: u32, now: Duration) {
        self.abandoned.insert(stripe, now);
    }

    /// When a stripe was given up last.
    pub(super) fn abandoned_at(&self, stripe: u32) -> Option<Duration> {
        self.abandoned.get(&stripe).copied()
    }

    /// Whether a stripe was given up before.
    pub(super) fn is_abandoned(&self, stripe: u32) -> bool {
        self.abandoned.contains_key(&stripe)
    }

    /// Forgets the state of a stripe.
    pub(super) fn remove(&mut self, stripe: u32) {
        self.open.remove(&stripe);
        self.states.remove(&stripe);
        self.abandoned.remove(&stripe);
    }

    /// Forgets the state of a stripe that needs nothing, but for the parity that lies in the store.
    pub(super) fn rest(&mut self, stripe: u32) {
        match self.states.get_mut(&stripe).filter(|state| state.local.count() > 0) {
            Some(state) => {
                state.rebuilding = false;
                self.open.remove(&stripe);
                self.abandoned.remove(&stripe);
            }
            None => self.remove(stripe),
        }
    }

    /// All stripes with a state.
    pub(super) fn touched(&self) -> Vec<u32> {
        self.states.keys().copied().collect()
    }
}
