//! Announcing: many keys, few look-ups, few messages.
//!
//! Owns: choosing the nearest nodes of every key, and handing each node its keys in signed batches.
//! Refuses: one query a key. Survives a crash: nothing; the schedule above announces again.
//!
//! Keys are taken in the order of the key space, so that neighbours share a look-up (see
//! [`regions`](super::regions)), and what was learnt serves the announcements that follow (see
//! [`atlas`](super::atlas)). Then each node gets its keys in batches, one batch at a time and several
//! nodes at once (see [`delivery`]). What a node did not take goes to the key's next nearest node, at most
//! [`ROUNDS`] times.

mod delivery;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use libp2p::PeerId;
use tokio::sync::watch;

pub(super) use self::delivery::Slow;
use self::delivery::watched;
use super::batch::{Answer, Draft, MAX_DESCRIPTIONS, Refusal, Taken, peer_record};
use super::command::{Command, Node};
use super::journal::Entry;
use super::position::Position;
use super::survey::{Survey, is_whole};
use super::{Inner, Key};
use crate::peer::{Announced, Kind};

/// First the nearest nodes, then twice the next nearest for what was not taken.
const ROUNDS: usize = 3;
/// Keys placed before other tasks get a turn: about a millisecond.
const TURN: usize = 128;
/// Messages to one node that are refused for their number at once, so that their second numbers should differ.
const ABREAST: u64 = 32;

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
    keys: Arc<[(Position, Key)]>,
    /// What is known of the network.
    survey: Survey,
    /// Nodes that failed: they are not tried again.
    dead: HashSet<PeerId>,
    /// Nodes that took their time: nor are they.
    slow: HashSet<PeerId>,
    /// Keys for which others may be nearer than the nodes chosen.
    doubted: Vec<Key>,
}

/// What came of an announcement.
pub(super) struct Outcome {
    /// In figures.
    pub(super) announced: Announced,
    /// The keys that nobody took.
    pub(super) missed: Vec<Key>,
    /// Whether so many answered that the nodes chosen are the nearest, and have been told…
    pub(super) is_sound: bool,
    /// …but for those of these keys, since a look-up ended early with few.
    pub(super) doubted: Vec<Key>,
}

/// Whom to give which keys, by their place in the order.
type Plan = HashMap<PeerId, Vec<usize>>;

// === impl Announcer ===

impl Announcer {
    pub(super) fn new(dht: Arc<Inner>, purpose: Purpose, keys: &[Key]) -> Self {
        let mut keys: Vec<_> = keys.iter().map(|key| (Position::of_key(key), *key)).collect();
        keys.sort_unstable();
        keys.dedup();
        let survey = Survey::new(Arc::clone(&dht));
        let (dead, slow) = Default::default();
        Self { dht, purpose, keys: keys.into(), survey, dead, slow, doubted: Vec::new() }
    }

    /// Places every key at its `copies` nearest nodes.
    pub(super) async fn run(mut self, copies: usize) -> Outcome {
        let mut result = Announced::default();
        let mut placed = vec![false; self.keys.len()];
        let (mut receivers, mut tried) = (HashSet::new(), HashSet::new());
        // How far each key has gone down its list of nearest nodes, for keys that were not taken.
        let mut reached: HashMap<usize, usize> = HashMap::new();
        let (mut plan, here) = self.nearest(copies).await;
        receivers.extend((!here.is_empty()).then_some(self.dht.local));
        for index in here {
            placed[index] = true;
        }
        for round in 0..ROUNDS {
            let mut missed = Vec::new();
            for delivery in self.deliver(std::mem::take(&mut plan)).await {
                result.messages += delivery.messages;
                result.refused += delivery.refused;
                tried.extend(delivery.peer);
                receivers.extend(delivery.peer.filter(|_| !delivery.taken.is_empty()));
                self.dead.extend(delivery.peer.filter(|_| delivery.dead));
                self.slow.extend(delivery.peer.filter(|_| delivery.slow));
                for index in delivery.taken {
                    placed[index] = true;
                }
                missed.extend(delivery.missed);
            }
            if missed.is_empty() || round + 1 == ROUNDS || self.purpose == Purpose::TakeBack {
                break;
            }
            for (turn, index) in missed.into_iter().enumerate() {
                if turn % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
                let rank = reached.entry(index).or_insert(copies);
                if let Some(peer) = self.next_nearest(index, rank) {
                    plan.entry(peer).or_default().push(index);
                }
            }
        }
        let missed: Vec<_> =
            placed.iter().zip(&*self.keys).filter(|(placed, _)| !**placed).map(|(_, key)| key.1).collect();
        result.keys = self.keys.len() - missed.len();
        (result.receivers, result.look_ups) = (receivers.len(), self.survey.look_ups);
        tracing::debug!(?result, nodes = self.survey.atlas.regions.len(), "announced");
        let Self { survey, dead, slow, doubted, .. } = self;
        // One of a key's twenty counts as much as all: where many fail it may be the only one that knows.
        let is_sound = survey.is_sound() && is_whole(tried.len(), dead.len() + slow.len());
        survey.end(&dead);
        Outcome { announced: result, missed, is_sound, doubted }
    }

    /// The nearest nodes of every key, and the keys that only this one keeps: nobody else could, and others ask it.
    /// What it holds itself it names to them. Where others are known that could and none answers, this node may be cut
    /// off from them: then nobody keeps its keys, and they are tried again soon.
    async fn nearest(&mut self, copies: usize) -> (Plan, Vec<usize>) {
        let (mut plan, mut here) = (Plan::new(), Vec::new());
        let is_only = *self.dht.seen.entered.borrow() && *self.dht.seen.routed.borrow() == 0;
        for index in 0..self.keys.len() {
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let (at, key) = self.keys[index];
            let nearest = self.survey.nearest(at, key, copies).await;
            self.doubted.extend(self.survey.is_doubtful(at, copies).then_some(key));
            if is_only && nearest == [self.dht.local] {
                here.push(index);
            }
            for peer in nearest {
                if peer != self.dht.local {
                    plan.entry(peer).or_default().push(index);
                }
            }
        }
        (plan, here)
    }

    /// The next node on a key's list, after those that have been tried.
    fn next_nearest(&self, index: usize, rank: &mut usize) -> Option<PeerId> {
        let (at, _) = self.keys[index];
        loop {
            let peer = self.survey.atlas.regions.nearest_known(at, *rank + 1).get(*rank).copied()?;
            *rank += 1;
            if peer != self.dht.local && !self.dead.contains(&peer) && !self.slow.contains(&peer) {
                return Some(peer);
            }
        }
    }
}

impl Inner {
    /// Sends one batch of these keys, ascending; with how many messages that took. Messages overtake each other, so
    /// each says what is so when it is signed: what was to be put and is not held any more is taken back, and what was
    /// to be taken back and is held again is left out. Both count as taken. What has changed by when one is answered is
    /// said once more.
    ///
    /// A node that remembers higher numbers of ours than we do (our clock went back) gets it once more with a number
    /// beyond them. No other gets one for that: a stranger's word would have them refuse all that comes after.
    pub(super) async fn send(
        &self,
        to: Node,
        purpose: Purpose,
        keys: &[Key],
        record: &[u8],
    ) -> (Result<Answer, String>, usize) {
        self.send_watched(to, purpose, keys, record, || {}).await
    }

    /// As [`Inner::send`]; calls `is_late` when an answer takes its time.
    async fn send_watched(
        &self,
        to: Node,
        purpose: Purpose,
        keys: &[Key],
        record: &[u8],
        mut is_late: impl FnMut() + Send,
    ) -> (Result<Answer, String>, usize) {
        let (mut answer, mut beyond) = (Err("the DHT has been stopped".to_owned()), 0);
        for messages in 1..=2 {
            // Before it is said what is so: that changes while it waits.
            self.rate.take(size_of_val(keys) + record.len()).await;
            let change = self.heard.now();
            let (mut draft, described) = self.draft(to.peer, purpose, keys);
            if draft.keys.is_empty() && draft.removals.is_empty() {
                let taken = Taken { taken: vec![true; keys.len()], ..Taken::default() };
                return (Ok(Answer::Taken(taken)), messages - 1);
            }
            let number = draft.sequence;
            draft.sequence = number.max(beyond);
            let batch = match draft.sign(&self.network, &self.keypair, record) {
                Ok(batch) => batch,
                Err(error) => return (Err(error), messages - 1),
            };
            let node = to.clone();
            let (on_way, seen) = watch::channel(false);
            let asked = self.ask(|done| Command::Send { to: node, batch, on_way, done });
            let Some(answered) = watched(asked, seen, &mut is_late).await else {
                return (answer, messages - 1);
            };
            answer = answered;
            self.note_heard(&to, &draft, &described, change, &answer);
            self.overtaken(&draft);
            let Ok(Answer::Refused(Refusal::Sequence, highest)) = answer else {
                return (answer.map(|answer| of_all(answer, keys, &draft.keys)), messages);
            };
            // The clock may be right by now.
            self.sequence.fetch_max(first_number(), Ordering::Relaxed);
            let Some(next) = highest.checked_add(1 + number % ABREAST) else { return (answer, messages) };
            beyond = next;
        }
        (answer, 2)
    }

    /// What is so of these keys now, and which of them it describes.
    fn draft(&self, receiver: PeerId, purpose: Purpose, keys: &[Key]) -> (Draft, Vec<Key>) {
        // Locked for each, so that nobody waits for all of them.
        let (held, removals) = keys.iter().partition(|key| self.holdings().holds(key));
        let keys: Vec<Key> = if purpose == Purpose::Put { held } else { Vec::new() };
        let said = keys.iter().filter_map(|key| Some((*key, self.published.of(key)?)));
        let (described, descriptions) = said.take(MAX_DESCRIPTIONS).unzip();
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        (Draft { receiver, sequence, lifetime: self.lifetime, keys, removals, descriptions }, described)
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
        let gone = draft.removals.iter().copied();
        match answer {
            Ok(Answer::Taken(answer)) => {
                let is_taken = |place: usize| answer.taken.get(place).copied().unwrap_or(false);
                let keys = draft.keys.iter().enumerate();
                let keys = keys.map(|(place, key)| (*key, is_taken(place) && is_described(key)));
                for key in self.heard.told(&to.peer, keys.chain(gone.map(|key| (key, false))), change) {
                    // A restart need not announce it anew any more, if it was announced at all.
                    let announced = self.holdings().announced(&key);
                    let noted = |minute| Entry::Announced { kind: Kind::Object, minute, keys: vec![key] };
                    announced.into_iter().for_each(|minute| self.journal.note(&noted(minute)));
                }
            }
            Err(_) => {
                let keys = draft.keys.iter().map(|key| (*key, is_described(key)));
                self.heard.missed(&to.peer, &to.addresses, keys, Instant::now());
                self.heard.missed_end(&to.peer, &to.addresses, gone, Instant::now());
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

/// The answer to a batch with these keys of all that were to go.
fn of_all(answer: Answer, all: &[Key], sent: &[Key]) -> Answer {
    let Answer::Taken(answer) = answer else { return answer };
    let is_taken = |place: usize| answer.taken.get(place).copied().unwrap_or(false);
    let taken = all.iter().map(|key| sent.binary_search(key).map_or(true, is_taken)).collect();
    Answer::Taken(Taken { taken, ..answer })
}

/// The microseconds since 1970, the number of a node's first batch: so numbers grow over restarts, and never end.
pub(super) fn first_number() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_counts_as_taken() {
        let all = [1, 3, 5, 7].map(|byte| [byte; 32]);
        let answer = Answer::Taken(Taken { taken: vec![true, false], known: 1, ..Taken::default() });
        let of_all = of_all(answer, &all, &[all[1], all[2]]);
        let taken = vec![true, true, false, true];
        assert_eq!(of_all, Answer::Taken(Taken { taken, known: 1, ..Taken::default() }));
    }
}
