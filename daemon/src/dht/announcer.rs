//! Announcing: many keys, few look-ups, few messages.
//!
//! Owns: choosing the nearest nodes of every key, and handing each node its keys in signed batches.
//! Refuses: one query a key. Survives a crash: nothing; the schedule above announces again.
//!
//! Keys are taken in the order of the key space, so that neighbours share a look-up (see
//! [`regions`](super::regions)), and what was learnt serves the announcements that follow (see
//! [`atlas`](super::atlas)). Then each node gets its keys in batches, one batch at a time and several
//! nodes at once. What a node did not take goes to the key's next nearest node, at most [`ROUNDS`] times.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use libp2p::PeerId;

use super::batch::{Answer, Draft, MAX_DESCRIPTIONS, MAX_KEYS, Refusal, peer_record};
use super::command::{Command, Node};
use super::journal::Entry;
use super::position::Position;
use super::schedule::minute;
use super::survey::Survey;
use super::{Inner, Key};
use crate::peer::{Announced, Kind};

/// Nodes that are sent to at once: eight batches of 130 KiB in memory.
const RECEIVERS_AT_ONCE: usize = 8;
/// First the nearest nodes, then twice the next nearest for what was not taken.
const ROUNDS: usize = 3;
/// Keys placed before other tasks get a turn: about a millisecond.
const TURN: usize = 128;

/// Whether keys are put or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Put,
    TakeBack,
}

/// One announcement under way.
pub(super) struct Announcer {
    /// The way to the event loop.
    dht: Arc<Inner>,
    /// Put or take back.
    purpose: Purpose,
    /// The keys, in the order of the key space.
    keys: Vec<(Position, Key)>,
    /// What is known of the network.
    survey: Survey,
    /// Nodes that failed: they are not tried again.
    dead: HashSet<PeerId>,
}

/// Whom to give which keys, by their place in the order.
type Plan = HashMap<PeerId, Vec<usize>>;

/// What became of one node's keys.
#[derive(Default)]
struct Delivery {
    /// Who.
    peer: Option<PeerId>,
    /// Whether it failed for good.
    dead: bool,
    /// Messages sent.
    messages: usize,
    /// Keys it refused.
    refused: usize,
    /// Keys it took.
    taken: Vec<usize>,
    /// Keys it did not take, for whatever reason.
    missed: Vec<usize>,
}

// === impl Announcer ===

impl Announcer {
    pub(super) fn new(dht: Arc<Inner>, purpose: Purpose, keys: &[Key]) -> Self {
        let mut keys: Vec<_> = keys.iter().map(|key| (Position::of_key(key), *key)).collect();
        keys.sort_unstable();
        keys.dedup();
        let survey = Survey::new(Arc::clone(&dht));
        Self { dht, purpose, keys, survey, dead: HashSet::new() }
    }

    /// Places every key at its `copies` nearest nodes. What became of it, and the keys that nobody took.
    pub(super) async fn run(mut self, copies: usize) -> (Announced, Vec<Key>) {
        let mut result = Announced::default();
        let mut placed = vec![false; self.keys.len()];
        let mut receivers = HashSet::new();
        // How far each key has gone down its list of nearest nodes, for keys that were not taken.
        let mut reached: HashMap<usize, usize> = HashMap::new();
        let mut plan = self.nearest(copies).await;
        for round in 0..ROUNDS {
            let mut missed = Vec::new();
            for delivery in self.deliver(std::mem::take(&mut plan)).await {
                result.messages += delivery.messages;
                result.refused += delivery.refused;
                receivers.extend(delivery.peer.filter(|_| !delivery.taken.is_empty()));
                self.dead.extend(delivery.peer.filter(|_| delivery.dead));
                for index in delivery.taken {
                    placed[index] = true;
                }
                missed.extend(delivery.missed);
            }
            if missed.is_empty() || round + 1 == ROUNDS || self.purpose == Purpose::TakeBack {
                break;
            }
            for index in missed {
                let rank = reached.entry(index).or_insert(copies);
                if let Some(peer) = self.next_nearest(index, rank) {
                    plan.entry(peer).or_default().push(index);
                }
            }
        }
        let missed: Vec<_> =
            placed.iter().zip(&self.keys).filter(|(placed, _)| !**placed).map(|(_, key)| key.1).collect();
        result.keys = self.keys.len() - missed.len();
        (result.receivers, result.look_ups) = (receivers.len(), self.survey.look_ups);
        tracing::debug!(?result, nodes = self.survey.atlas.regions.len(), "announced");
        let Self { survey, dead, .. } = self;
        survey.end(&dead);
        (result, missed)
    }

    /// The nearest nodes of every key.
    async fn nearest(&mut self, copies: usize) -> Plan {
        let mut plan = Plan::new();
        for index in 0..self.keys.len() {
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let (at, key) = self.keys[index];
            for peer in self.survey.nearest(at, key, copies).await {
                if peer != self.dht.local {
                    plan.entry(peer).or_default().push(index);
                }
            }
        }
        plan
    }

    /// The next node on a key's list, after those that have been tried.
    fn next_nearest(&self, index: usize, rank: &mut usize) -> Option<PeerId> {
        let (at, _) = self.keys[index];
        loop {
            let peer = self.survey.atlas.regions.nearest_known(at, *rank + 1).get(*rank).copied()?;
            *rank += 1;
            if peer != self.dht.local && !self.dead.contains(&peer) {
                return Some(peer);
            }
        }
    }

    async fn deliver(&self, plan: Plan) -> Vec<Delivery> {
        let record = self.dht.record();
        let record = record.as_slice();
        stream::iter(plan)
            .map(|(peer, indexes)| self.deliver_to(peer, indexes, record))
            .buffer_unordered(RECEIVERS_AT_ONCE)
            .collect()
            .await
    }

    /// Gives one node its keys, batch after batch, until it fails.
    async fn deliver_to(&self, peer: PeerId, mut indexes: Vec<usize>, record: &[u8]) -> Delivery {
        let mut delivery = Delivery { peer: Some(peer), ..Delivery::default() };
        // The format wants keys ascending, not by position.
        indexes.sort_unstable_by_key(|index| self.keys[*index].1);
        for batch in self.batches(&indexes) {
            if delivery.dead {
                delivery.missed.extend(batch);
                continue;
            }
            match self.send(peer, batch, record, &mut delivery.messages).await {
                Ok(Answer::Taken(answer)) => {
                    let all = self.purpose == Purpose::TakeBack;
                    for (place, index) in batch.iter().enumerate() {
                        let taken = all || answer.taken.get(place).copied().unwrap_or(false);
                        if taken { &mut delivery.taken } else { &mut delivery.missed }.push(*index);
                        delivery.refused += usize::from(!taken);
                    }
                }
                Ok(Answer::Refused(refusal, _)) => {
                    tracing::debug!(%peer, ?refusal, "a node refuses our keys");
                    delivery.refused += batch.len();
                    delivery.dead = true;
                    delivery.missed.extend(batch);
                }
                Err(reason) => {
                    tracing::debug!(%peer, %reason, "a node did not answer an announcement");
                    delivery.dead = true;
                    delivery.missed.extend(batch);
                }
            }
        }
        delivery
    }

    /// Keys that fit in a batch with what is said of them.
    fn batches<'a>(&self, indexes: &'a [usize]) -> Vec<&'a [usize]> {
        let (mut batches, mut begin, mut described) = (Vec::new(), 0, 0);
        for (at, index) in indexes.iter().enumerate() {
            let is_described = usize::from(self.dht.published.contains(&self.keys[*index].1));
            if at - begin == MAX_KEYS || described + is_described > MAX_DESCRIPTIONS {
                batches.push(&indexes[begin..at]);
                (begin, described) = (at, 0);
            }
            described += is_described;
        }
        batches.push(&indexes[begin..]);
        batches
    }

    async fn send(
        &self,
        peer: PeerId,
        batch: &[usize],
        record: &[u8],
        messages: &mut usize,
    ) -> Result<Answer, String> {
        let keys: Vec<Key> = batch.iter().map(|index| self.keys[*index].1).collect();
        let (keys, removals) = match self.purpose {
            Purpose::Put => (keys, Vec::new()),
            Purpose::TakeBack => (Vec::new(), keys),
        };
        let addresses = self.survey.addresses(&peer);
        let (answer, sent) = self.dht.send(Node { peer, addresses }, keys, removals, record).await;
        *messages += sent;
        answer
    }
}

impl Inner {
    /// Sends one batch; with how many messages that took. A node that remembers higher numbers of ours than we do (our
    /// clock went back) gets it once more with a number beyond them.
    pub(super) async fn send(
        &self,
        to: Node,
        keys: Vec<Key>,
        removals: Vec<Key>,
        record: &[u8],
    ) -> (Result<Answer, String>, usize) {
        let (receiver, lifetime) = (to.peer, self.lifetime);
        let mut draft = Draft { receiver, sequence: 0, lifetime, keys, removals, descriptions: Vec::new() };
        let mut answer = Err("the DHT has been stopped".to_owned());
        for messages in 1..=2 {
            // Each message says what is so when it is signed.
            let change = self.heard.now();
            let said = draft.keys.iter().filter_map(|key| Some((*key, self.published.of(key)?)));
            let (described, descriptions): (Vec<Key>, _) = said.take(MAX_DESCRIPTIONS).unzip();
            draft.descriptions = descriptions;
            draft.sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
            let batch = match draft.sign(&self.network, &self.keypair, record) {
                Ok(batch) => batch,
                Err(error) => return (Err(error), messages - 1),
            };
            let node = to.clone();
            let Some(answered) = self.ask(|done| Command::Send { to: node, batch, done }).await else {
                return (answer, messages - 1);
            };
            answer = answered;
            self.note_heard(&to, &draft, &described, change, &answer);
            let Ok(Answer::Refused(Refusal::Sequence, highest)) = answer else { return (answer, messages) };
            self.sequence.fetch_max(highest.saturating_add(1), Ordering::Relaxed);
        }
        (answer, 2)
    }

    /// Notes what a node has heard: all up to a change, with descriptions of some of the keys; or that it has not.
    fn note_heard(
        &self,
        to: &Node,
        draft: &Draft,
        described: &[Key],
        change: u64,
        answer: &Result<Answer, String>,
    ) {
        let is_described = |key: &Key| described.binary_search(key).is_ok();
        let gone = draft.removals.iter().map(|key| (*key, false));
        match answer {
            Ok(Answer::Taken(answer)) => {
                let is_taken = |place: usize| answer.taken.get(place).copied().unwrap_or(false);
                let keys = draft.keys.iter().enumerate();
                let keys = keys.map(|(place, key)| (*key, is_taken(place) && is_described(key)));
                let mut keys = self.heard.told(&to.peer, keys.chain(gone), change);
                keys.retain(|key| !draft.removals.contains(key));
                // A restart need not announce them anew any more.
                self.journal.note(&Entry::Announced { kind: Kind::Object, minute: minute(), keys });
            }
            Err(_) => {
                let keys = draft.keys.iter().map(|key| (*key, is_described(key)));
                self.heard.missed(&to.peer, &to.addresses, keys.chain(gone), Instant::now());
            }
            // Whoever refuses has its reasons, and keeps nothing new.
            Ok(Answer::Refused(..)) => {}
        }
    }

    /// Where this node is, signed, as batches carry it.
    pub(super) fn record(&self) -> Vec<u8> {
        peer_record(&self.keypair, self.addresses().external)
    }
}
