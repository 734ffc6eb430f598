//! Provider look-ups under way: who was found, who is still being asked where they are.
//!
//! Owns: the bookkeeping. Pure: the event loop runs the queries. Refuses: more look-ups and more providers
//! of one than its limits. Survives a crash: nothing.

use std::collections::{HashMap, HashSet, VecDeque};

use libp2p::PeerId;
use libp2p::kad::QueryId;
use tokio::sync::mpsc;

use super::{Key, Provider};

/// Queries at once. Each keeps three questions in flight, and a connection carries 32 of them.
const MAX_RUNNING: usize = 64;
/// Look-ups that wait for a place; beyond it they end at once, empty.
const MAX_QUEUED: usize = 4_096;
/// Providers of one look-up; also the room of its channel, so that telling them never waits.
pub(super) const MAX_FOUND: usize = 128;

/// A look-up.
#[derive(Debug)]
pub(super) struct LookUp {
    /// What is looked for.
    pub(super) key: Key,
    /// Where providers are told.
    out: mpsc::Sender<Provider>,
    /// Everyone found so far.
    seen: HashSet<PeerId>,
    /// How many of them are being asked for their chunk addresses.
    asking: usize,
    /// The query, while it runs.
    query: Option<QueryId>,
    /// Whether it has been tried again.
    again: bool,
}

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
    queued: VecDeque<(Key, mpsc::Sender<Provider>)>,
    /// The next number.
    next: u64,
}

// === impl LookUps ===

impl LookUps {
    /// Takes a look-up in; it is started by [`LookUps::start`].
    pub(super) fn push(&mut self, key: Key, out: mpsc::Sender<Provider>) {
        if self.queued.len() < MAX_QUEUED {
            self.queued.push_back((key, out));
        } else {
            tracing::debug!("too many look-ups wait already; one ends without an answer");
        }
    }

    /// The next look-up to start a query for, if there is a place.
    pub(super) fn start(&mut self) -> Option<(u64, Key)> {
        while self.running.len() < MAX_RUNNING {
            let (key, out) = self.queued.pop_front()?;
            if out.is_closed() {
                continue;
            }
            self.next += 1;
            let look_up = LookUp { key, out, seen: HashSet::new(), asking: 0, query: None, again: false };
            self.running.insert(self.next, look_up);
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

    /// A query found providers: the look-up's number and those that are new and are to be asked.
    pub(super) fn found(
        &mut self,
        query: QueryId,
        peers: HashSet<PeerId>,
        local: PeerId,
    ) -> (u64, Vec<PeerId>) {
        let Some(number) = self.by_query.get(&query).copied() else { return (0, Vec::new()) };
        let Some(look_up) = self.running.get_mut(&number) else { return (number, Vec::new()) };
        let mut new = Vec::new();
        for peer in peers {
            if peer != local && look_up.seen.len() < MAX_FOUND && look_up.seen.insert(peer) {
                look_up.asking += 1;
                new.push(peer);
            }
        }
        (number, new)
    }

    /// A provider's chunk addresses are known, or cannot be.
    pub(super) fn told(&mut self, number: u64, provider: Option<Provider>) {
        let Some(look_up) = self.running.get_mut(&number) else { return };
        look_up.asking = look_up.asking.saturating_sub(1);
        if let Some(provider) = provider {
            // Full is impossible (see MAX_FOUND); closed is noticed by the next sweep.
            let _ = look_up.out.try_send(provider);
        }
        self.drop_if_done(number);
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
        if self.running.get(&number).is_some_and(|one| one.query.is_none() && one.asking == 0) {
            self.running.remove(&number);
        }
    }
}
