//! Provider look-ups under way: who was found, who is still being asked where they are.
//!
//! Owns: the bookkeeping. Pure: the event loop runs the queries. Refuses: more look-ups and more providers
//! of one than its limits. Survives a crash: nothing.
//!
//! Whoever answers a question may lie, so that nobody's word goes before another's: of each answer one provider
//! is asked after the other, and of all answers in turn. A provider counts when it has said where it is itself.

use std::collections::{HashMap, HashSet, VecDeque};

use libp2p::PeerId;
use libp2p::kad::QueryId;
use tokio::sync::{mpsc, oneshot};

use super::{Key, Provider};

/// Queries at once. Each keeps three questions in flight, and a connection carries 32 of them.
const MAX_RUNNING: usize = 64;
/// Look-ups that wait for a place; beyond it they end at once, empty.
const MAX_QUEUED: usize = 4_096;
/// Providers that are told of one look-up; also the room of its channel, so that telling them never waits.
pub(super) const MAX_FOUND: usize = 128;
/// Providers of one look-up that are asked, however many do not answer.
const MAX_ASKED: usize = 1_024;
/// Those that are asked at once.
const ASKING: usize = 16;

/// A look-up.
#[derive(Debug)]
pub(super) struct LookUp {
    /// What is looked for.
    pub(super) key: Key,
    /// Where providers are told.
    out: mpsc::Sender<Provider>,
    /// Everyone found so far, at most [`MAX_ASKED`].
    seen: HashSet<PeerId>,
    /// Those that have not been asked, an answer each; the first answer's turn is next.
    waiting: VecDeque<Vec<PeerId>>,
    /// How many are being asked for their chunk addresses, at most [`ASKING`].
    asking: usize,
    /// How many have been told, at most [`MAX_FOUND`].
    told: usize,
    /// The query, while it runs.
    query: Option<QueryId>,
    /// Whether it has been tried again.
    again: bool,
    /// Whether the nodes at which it ended are crowded together in few address groups…
    is_crowded: bool,
    /// …which is told when all is done.
    end: oneshot::Sender<bool>,
}

/// A look-up as it is asked for: where providers are told, and at the end whether the nodes asked are crowded together.
pub(super) type Wanted = (Key, mpsc::Sender<Provider>, oneshot::Sender<bool>);

/// What the end of a query leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody was found: try once more.
    Again(Key),
    /// Done, or waiting for hellos only.
    Done,
}

/// All look-ups.
#[derive(Debug, Default)]
pub(super) struct LookUps {
    /// By number.
    running: HashMap<u64, LookUp>,
    /// Numbers by query.
    by_query: HashMap<QueryId, u64>,
    /// Those that wait for a place.
    queued: VecDeque<Wanted>,
    /// The next number.
    next: u64,
}

// === impl LookUp ===

impl LookUp {
    fn new((key, out, end): Wanted) -> Self {
        let (seen, waiting) = (HashSet::new(), VecDeque::new());
        Self {
            key,
            out,
            seen,
            waiting,
            asking: 0,
            told: 0,
            query: None,
            again: false,
            is_crowded: false,
            end,
        }
    }

    fn next_to_ask(&mut self) -> Option<PeerId> {
        while self.asking < ASKING && self.told < MAX_FOUND {
            let mut answer = self.waiting.pop_front()?;
            if let Some(peer) = answer.pop() {
                self.waiting.push_back(answer);
                self.asking += 1;
                return Some(peer);
            }
        }
        None
    }

    fn is_done(&self) -> bool {
        let is_waiting = self.told < MAX_FOUND && self.waiting.iter().any(|answer| !answer.is_empty());
        self.query.is_none() && self.asking == 0 && !is_waiting
    }
}

// === impl LookUps ===

impl LookUps {
    /// Takes a look-up in; it is started by [`LookUps::start`].
    pub(super) fn push(&mut self, wanted: Wanted) {
        if self.queued.len() < MAX_QUEUED {
            self.queued.push_back(wanted);
        } else {
            tracing::debug!("too many look-ups wait already; one ends without an answer");
        }
    }

    /// The next look-up to start a query for, if there is a place.
    pub(super) fn start(&mut self) -> Option<(u64, Key)> {
        while self.running.len() < MAX_RUNNING {
            let wanted = self.queued.pop_front()?;
            if wanted.1.is_closed() {
                continue;
            }
            self.next += 1;
            let key = wanted.0;
            self.running.insert(self.next, LookUp::new(wanted));
            return Some((self.next, key));
        }
        None
    }

    /// A query runs for the look-up `number`.
    pub(super) fn queried(&mut self, number: u64, query: QueryId) {
        if let Some(look_up) = self.running.get_mut(&number) {
            look_up.query = Some(query);
            self.by_query.insert(query, number);
        }
    }

    /// Whether the look-up of this query has found nobody so far.
    pub(super) fn has_found_nobody(&self, query: QueryId) -> bool {
        let look_up = self.by_query.get(&query).and_then(|number| self.running.get(number));
        look_up.is_some_and(|look_up| look_up.seen.is_empty())
    }

    /// One answer to a query named providers: those that are new wait for their turn to be asked.
    pub(super) fn found(&mut self, query: QueryId, peers: HashSet<PeerId>, local: PeerId) {
        let Some(number) = self.by_query.get(&query) else { return };
        let Some(look_up) = self.running.get_mut(number) else { return };
        let room = MAX_ASKED - look_up.seen.len();
        let new: Vec<_> = peers
            .into_iter()
            .filter(|peer| *peer != local && !look_up.seen.contains(peer))
            .take(room)
            .collect();
        look_up.seen.extend(&new);
        look_up.waiting.push_back(new);
    }

    /// Whom to ask next for its chunk addresses, and for which look-up; it is asked from now on.
    pub(super) fn next_to_ask(&mut self) -> Option<(u64, PeerId)> {
        let mut asked = None;
        for (number, look_up) in &mut self.running {
            asked = look_up.next_to_ask().map(|peer| (*number, peer));
            if asked.is_some() {
                break;
            }
        }
        asked
    }

    /// A provider's chunk addresses are known, or cannot be.
    pub(super) fn told(&mut self, number: u64, provider: Option<Provider>) {
        let Some(look_up) = self.running.get_mut(&number) else { return };
        look_up.asking = look_up.asking.saturating_sub(1);
        if let Some(provider) = provider.filter(|_| look_up.told < MAX_FOUND) {
            look_up.told += 1;
            // Full is impossible (see MAX_FOUND); closed is noticed by the next sweep.
            let _ = look_up.out.try_send(provider);
        }
        self.drop_if_done(number);
    }

    /// A query ended at nodes that are crowded together.
    pub(super) fn crowded(&mut self, query: QueryId) {
        let number = self.by_query.get(&query);
        if let Some(look_up) = number.and_then(|number| self.running.get_mut(number)) {
            look_up.is_crowded = true;
        }
    }

    /// A query ended. `None` when it is none of ours.
    pub(super) fn ended(&mut self, query: QueryId) -> Option<(u64, End)> {
        let number = self.by_query.remove(&query)?;
        let look_up = self.running.get_mut(&number)?;
        look_up.query = None;
        if look_up.seen.is_empty() && !std::mem::replace(&mut look_up.again, true) {
            return Some((number, End::Again(look_up.key)));
        }
        self.drop_if_done(number);
        Some((number, End::Done))
    }

    /// Ends the look-ups that nobody listens to any more; gives their queries.
    pub(super) fn sweep(&mut self) -> Vec<QueryId> {
        let by_query = &mut self.by_query;
        let mut orphans = Vec::new();
        self.running.retain(|_, look_up| {
            let wanted = !look_up.out.is_closed();
            if !wanted && let Some(query) = look_up.query {
                by_query.remove(&query);
                orphans.push(query);
            }
            wanted
        });
        orphans
    }

    fn drop_if_done(&mut self, number: u64) {
        if self.running.get(&number).is_some_and(LookUp::is_done)
            && let Some(done) = self.running.remove(&number)
        {
            let _ = done.end.send(done.is_crowded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: usize) -> HashSet<PeerId> {
        (0..count).map(|_| PeerId::random()).collect()
    }

    /// A look-up under way whose query has not ended, and what it told.
    fn running() -> (LookUp, mpsc::Receiver<Provider>) {
        let (out, told) = mpsc::channel(MAX_FOUND);
        (LookUp::new(([0; 32], out, oneshot::channel().0)), told)
    }

    #[test]
    fn no_answer_goes_before_another() {
        let (mut look_up, _told) = running();
        let true_holder = PeerId::random();
        for _ in 0..9 {
            look_up.waiting.push_back(peers(20).into_iter().collect());
        }
        look_up.waiting.push_back(vec![true_holder]);
        let asked: Vec<_> = std::iter::from_fn(|| look_up.next_to_ask()).collect();
        assert_eq!(asked.len(), ASKING);
        assert!(asked.contains(&true_holder), "one of ten answers is asked among the first ten");
        assert!(look_up.next_to_ask().is_none() && !look_up.is_done());
        look_up.asking -= 1;
        assert!(look_up.next_to_ask().is_some());
    }

    #[test]
    fn those_that_do_not_answer_cost_no_place_and_all_ends() {
        let mut look_ups = LookUps::default();
        let (out, mut told) = mpsc::channel(MAX_FOUND);
        look_ups.push(([1; 32], out, oneshot::channel().0));
        let (number, _) = look_ups.start().unwrap();
        let look_up = look_ups.running.get_mut(&number).unwrap();
        look_up.waiting.push_back(peers(500).into_iter().collect());
        for silent in 0..300 {
            assert!(look_ups.next_to_ask().is_some(), "{silent}");
            look_ups.told(number, None);
        }
        let mut asked = 0;
        while let Some((number, peer)) = look_ups.next_to_ask() {
            asked += 1;
            look_ups.told(number, Some(Provider { peer, chunk: Vec::new(), dht: Vec::new() }));
        }
        assert_eq!((asked, look_ups.running.len()), (MAX_FOUND, 0));
        assert_eq!(std::iter::from_fn(|| told.try_recv().ok()).count(), MAX_FOUND);
    }
}
