//! The books of an independent observer, who knows the rules and not the planner.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Action, Bits, Credits, Event, Has, PeerNo, Plan, Shard, Stripe};
use crate::content::{CHUNK_LEN, chunk_length};

/// What the observer knows.
#[derive(Debug)]
pub(super) struct Books {
    /// The plan.
    plan: Plan,
    /// The stripes known now.
    stripes: Vec<Stripe>,
    /// Data that is here.
    pub(super) have: Bits,
    /// Parity in memory.
    pub(super) held: BTreeSet<(u32, u8)>,
    /// Parity in the local store.
    local: BTreeSet<(u32, u8)>,
    /// Peers here: credits, what they told, whether they may be guessed at.
    peers: BTreeMap<PeerNo, (Credits, Bits, bool)>,
    /// What is outstanding.
    asked: BTreeSet<(PeerNo, Shard)>,
    /// What is outstanding and has been late.
    doubted: BTreeSet<Shard>,
    /// Rebuilds under way.
    rebuilding: BTreeSet<u32>,
    /// The fetch has ended.
    pub(super) done: bool,
}

impl Books {
    /// Before anything happened.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            stripes: plan.stripes.clone(),
            have: plan.local.clone(),
            plan: plan.clone(),
            held: BTreeSet::new(),
            local: BTreeSet::new(),
            peers: BTreeMap::new(),
            asked: BTreeSet::new(),
            doubted: BTreeSet::new(),
            rebuilding: BTreeSet::new(),
            done: false,
        }
    }

    /// Takes in an event before the planner does.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::PeerJoined { peer, credits } => {
                self.peers.insert(*peer, (*credits, Bits::new(self.have.len()), false));
            }
            Event::PeerHas { peer, has } => {
                let (_, told, guess) = self.peers.get_mut(peer).unwrap();
                match has {
                    Has::Whole => told.set_range(0..u64::MAX),
                    Has::Bitmap(bits) => told.union(bits),
                    Has::Ranges(ranges) => ranges.iter().for_each(|range| told.set_range(range.clone())),
                    Has::Unknown => *guess = true,
                }
            }
            Event::PeerLeft { peer } | Event::Bad { peer, .. } => {
                self.peers.remove(peer);
                self.asked.retain(|(other, _)| other != peer);
            }
            Event::Arrived { peer, shard, .. } => {
                assert!(self.asked.remove(&(*peer, *shard)), "came without being asked for");
                match *shard {
                    Shard::Data(chunk) => assert!(self.have.set(chunk), "chunk {chunk} stored twice"),
                    Shard::Parity { stripe, index } => assert!(self.held.insert((stripe, index))),
                }
            }
            Event::NotFound { peer, shard } => {
                if let (Shard::Data(chunk), Some((_, told, _))) = (shard, self.peers.get_mut(peer)) {
                    told.clear(*chunk);
                }
                self.asked.remove(&(*peer, *shard));
            }
            Event::Busy { peer, shard, .. } | Event::Failed { peer, shard } => {
                self.asked.remove(&(*peer, *shard));
            }
            Event::Lost { chunk } => {
                self.have.clear(*chunk);
                let of = |stripe: &&Stripe| stripe.first <= *chunk;
                let stripe = self.stripes.iter().take_while(of).count();
                self.rebuilding.retain(|&other| other as usize + 1 != stripe);
            }
            Event::Rebuilt { stripe, chunks } => {
                self.rebuilding.remove(stripe);
                chunks.iter().for_each(|&chunk| assert!(self.have.set(chunk), "{chunk} stored twice"));
            }
            Event::RebuildFailed { .. } => {
                self.rebuilding.clear();
                self.local.clear();
                self.stripes.clear();
            }
            Event::ParityKnown { stripes } => {
                self.rebuilding.clear();
                self.local.clear();
                self.stripes.clone_from(stripes);
            }
            Event::Local { shard: Shard::Data(chunk) } => {
                self.have.set(*chunk);
            }
            Event::Local { shard: Shard::Parity { stripe, index } } => {
                self.local.insert((*stripe, *index));
            }
            Event::Came { peer, shard, bytes } => {
                assert!(self.asked.contains(&(*peer, *shard)), "comes without being asked for");
                assert!(*bytes < self.bytes(*shard), "what is whole has arrived");
            }
            Event::Given { .. } | Event::Held { .. } | Event::ReadTo { .. } | Event::Tick => {}
        }
    }

    /// Holds an action against the rules.
    pub(super) fn action(&mut self, action: Action) {
        assert!(!self.done, "an action after the end");
        match action {
            Action::Ask { peer, shard } => self.ask(peer, shard),
            Action::Cancel { peer, shard } => {
                assert!(self.asked.remove(&(peer, shard)), "cancelled what was not asked");
            }
            Action::Rebuild { stripe } => self.rebuild(stripe),
            Action::Release { stripe } => {
                let before = self.held.len();
                self.held.retain(|&(other, _)| other != stripe);
                assert!(self.held.len() < before, "released nothing");
            }
            Action::FindChunk { chunk } => {
                assert!(!self.have.get(chunk) && self.plan.wanted.contains(&chunk));
                assert!(!self.peers.values().any(|(_, told, _)| told.get(chunk)), "looked up what is held");
            }
            Action::NeedPeers => {}
            Action::Done => {
                self.done = true;
                assert!(self.plan.wanted.clone().all(|chunk| self.have.get(chunk)), "done too early");
                assert!(self.asked.is_empty() && self.held.is_empty(), "left something behind");
            }
        }
    }

    /// A request.
    fn ask(&mut self, peer: PeerNo, shard: Shard) {
        if self.asked.iter().any(|&(_, asked)| asked == shard) {
            // What a second one is asked for is not counted on, though that one may be trusted.
            self.doubted.insert(shard);
        }
        assert!(self.asked.insert((peer, shard)), "asked twice of the same peer");
        let (credits, told, guess) = self.peers.get(&peer).expect("asked a peer that is not here");
        let mine: Vec<u64> = self
            .asked
            .iter()
            .filter(|(other, _)| *other == peer)
            .map(|&(_, shard)| self.bytes(shard))
            .collect();
        assert!(mine.len() <= credits.requests as usize, "over its requests");
        assert!(mine.iter().sum::<u64>() <= credits.bytes, "over its bytes");
        match shard {
            Shard::Data(chunk) => {
                assert!(!self.have.get(chunk), "asked for what is here");
                let orphan = !self.peers.values().any(|(_, told, _)| told.get(chunk));
                assert!(told.get(chunk) || *guess && orphan, "{peer:?} is not known to hold {chunk}");
            }
            Shard::Parity { stripe, index } => {
                assert!(index < self.stripes[stripe as usize].parity);
                assert!(!self.held.contains(&(stripe, index)));
            }
        }
        let out: u64 = self.asked.iter().map(|&(_, shard)| self.bytes(shard)).sum();
        let held = self.held.len() as u64 * CHUNK_LEN;
        let limit = self.plan.limits.in_flight.max(4 * CHUNK_LEN);
        assert!(out + held <= limit || self.asked.len() == 1, "over the memory limit");
    }

    /// Takes note of what the planner holds to be late.
    pub(super) fn doubt(&mut self, doubted: &BTreeSet<Shard>) {
        self.doubted.extend(doubted);
        self.doubted.retain(|&shard| self.asked.iter().any(|&(_, asked)| asked == shard));
    }

    /// Never more shards of a stripe than rebuild it, but for hedges: after parity was asked for, what is here and
    /// what is asked for and has never been late is no more than k'.
    pub(super) fn stripe_bound(&self, no: u32) {
        let Some(stripe) = self.stripes.get(no as usize) else { return };
        let asked: BTreeSet<Shard> = self.asked.iter().map(|&(_, shard)| shard).collect();
        let coming =
            asked.difference(&self.doubted).filter(|&&shard| self.stripe_of(shard) == Some(no)).count();
        let here = self.here(no);
        assert!(here + coming <= usize::from(stripe.data), "{here} here, {coming} asked of {stripe:?}");
    }

    /// Whether a parity shard lies in the local store.
    pub(super) fn is_stored(&self, shard: Shard) -> bool {
        matches!(shard, Shard::Parity { stripe, index } if self.local.contains(&(stripe, index)))
    }

    /// Shards of a stripe that are here.
    pub(super) fn here(&self, no: u32) -> usize {
        let stripe = self.stripes[no as usize];
        let data =
            (stripe.first..stripe.first + u64::from(stripe.data)).filter(|&chunk| self.have.get(chunk));
        let parity = self.held.union(&self.local).filter(|(stripe, _)| *stripe == no);
        data.count() + parity.count()
    }

    /// A rebuild.
    fn rebuild(&mut self, no: u32) {
        assert!(self.rebuilding.insert(no), "rebuilt twice");
        let stripe = self.stripes[no as usize];
        let mut range = stripe.first..stripe.first + u64::from(stripe.data);
        assert!(self.here(no) >= usize::from(stripe.data), "rebuilt too early");
        assert!(range.any(|chunk| !self.have.get(chunk)), "nothing to rebuild");
    }

    /// The stripe of a shard.
    pub(super) fn stripe_of(&self, shard: Shard) -> Option<u32> {
        match shard {
            Shard::Parity { stripe, .. } => Some(stripe),
            Shard::Data(chunk) => {
                let mut all = (0..).zip(&self.stripes);
                let of =
                    |stripe: &Stripe| (stripe.first..stripe.first + u64::from(stripe.data)).contains(&chunk);
                all.find(|(_, stripe)| of(stripe)).map(|(no, _)| no)
            }
        }
    }

    /// The stripes known now.
    pub(super) fn stripes(&self) -> &[Stripe] {
        &self.stripes
    }

    /// Bytes of a shard.
    pub(super) fn bytes(&self, shard: Shard) -> u64 {
        let chunk = match shard {
            Shard::Data(chunk) => chunk,
            Shard::Parity { stripe, .. } => {
                self.stripes.get(stripe as usize).map_or(0, |stripe| stripe.first)
            }
        };
        u64::from(chunk_length(self.plan.length, chunk))
    }
}
