//! Provider look-ups under way: who was found, who is still being asked where they are.
//!
//! Owns: the bookkeeping. Pure: the event loop runs the queries. Refuses: more look-ups and more providers
//! of one than its limits. Survives a crash: nothing.
//!
//! Whoever answers a question may lie: in which order providers are asked is decided by [`Turns`]. A provider counts
//! when it has said where it is itself. One that takes its time keeps no place for others. Of those that were asked and
//! have not answered is told as well, and why: whoever finds nobody learns who is said to hold what it looks for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::kad::QueryId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};

use super::Key;
use super::turns::Turns;
use crate::peer::{Holder, Provider};

/// Queries at once. Each keeps ten questions in flight; a connection carries 32 of all of them, and the others wait.
const MAX_RUNNING: usize = 64;
/// Look-ups that wait for a place; beyond it they end at once, empty.
const MAX_QUEUED: usize = 4_096;
/// Providers that answer and are told of one look-up.
pub(super) const MAX_FOUND: usize = 128;
/// Providers of one look-up that are asked, however many do not answer: with those that are asked
/// [besides](super::wider) fewer than two hundred dials.
const MAX_ASKED: usize = 128;
/// What one look-up tells at most: that somebody is asked, and what comes of each question. Its channel has room for as
/// much, so that telling never waits.
pub(super) const MAX_TOLD: usize = 2 * MAX_ASKED;
/// Those that are asked at once…
const ASKING: usize = 16;
/// …not counting those that have been asked so long ago: a dial to nobody takes five to ten seconds. So all are asked
/// within 16 s.
const SLOW: Duration = Duration::from_secs(2);
/// How long nobody is asked after so many, [`ASKING`], could not be dialled because too many others wait for that…
const REST: Duration = Duration::from_secs(1);
/// …and how often that may happen before the providers are taken for ones that do not answer.
const MAX_RESTS: usize = 256;
/// After so long without anybody that answered, other nodes are asked as well: one liar on the way may hold it up.
const IN_VAIN: Duration = Duration::from_secs(8);

/// What is said of one that could not even be dialled.
pub(super) const CROWDED: &str = "too many other addresses are to be dialled first";

/// A look-up.
#[derive(Debug)]
pub(super) struct LookUp {
    /// What is looked for.
    pub(super) key: Key,
    /// Where providers are told.
    out: mpsc::Sender<Holder>,
    /// Everyone named so far, and who is asked next.
    turns: Turns,
    /// Those that are being asked for their chunk addresses, and since when.
    asking: HashMap<PeerId, Instant>,
    /// Until when nobody is asked, and how many could not be.
    rest: (Option<Instant>, usize),
    /// Those that were told to be asked, at most [`MAX_ASKED`].
    named: HashSet<PeerId>,
    /// How many have been told that answered, at most [`MAX_FOUND`].
    told: usize,
    /// When it was swept first, which is soon after it began.
    since: Option<Instant>,
    /// The query, while it runs.
    query: Option<QueryId>,
    /// Whether it has been tried again.
    again: bool,
    /// Where it is told once whether other nodes are to be asked as well: at once where its query ended at nodes that
    /// are crowded together in few address groups, or not in time; else when nobody was told.
    wider: Option<oneshot::Sender<bool>>,
}

/// A look-up as it is asked for: where providers are told, and whether to look [wider](super::wider).
pub(super) type Wanted = (Key, mpsc::Sender<Holder>, oneshot::Sender<bool>);

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
    fn new((key, out, wider): Wanted) -> Self {
        let (turns, asking, rest) = (Turns::default(), HashMap::new(), (None, 0));
        let (named, wider) = (HashSet::new(), Some(wider));
        Self { key, out, turns, asking, rest, named, told: 0, since: None, query: None, again: false, wider }
    }

    fn next_to_ask(&mut self, now: Instant) -> Option<(PeerId, Vec<Multiaddr>)> {
        let fresh = self.asking.values().filter(|since| now.saturating_duration_since(**since) < SLOW);
        let rests = self.rest.0.is_some_and(|until| now < until);
        if rests || fresh.count() >= ASKING || self.told >= MAX_FOUND {
            return None;
        }
        let (peer, addresses) = self.turns.next(MAX_ASKED)?;
        self.asking.insert(peer, now);
        // One that is put off is asked again and again.
        if self.named.len() < MAX_ASKED && self.named.insert(peer) {
            self.tell(Holder::Missed(peer, None));
        }
        Some((peer, addresses))
    }

    fn tell(&self, holder: Holder) {
        // Full is impossible (see MAX_TOLD); closed is noticed by the next sweep.
        let _ = self.out.try_send(holder);
    }

    fn is_done(&self) -> bool {
        let is_waiting = self.told < MAX_FOUND && self.turns.has_next(MAX_ASKED);
        self.query.is_none() && self.asking.is_empty() && !is_waiting
    }

    fn tell_wider(&mut self, is_wanted: bool) {
        if let Some(wider) = self.wider.take() {
            let _ = wider.send(is_wanted);
        }
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
        look_up.is_some_and(|look_up| look_up.turns.is_empty())
    }

    /// One answer to a query named providers, each with where it is said to be.
    pub(super) fn found(&mut self, query: QueryId, named: Vec<(PeerId, Vec<Multiaddr>)>) {
        let number = self.by_query.get(&query);
        if let Some(look_up) = number.and_then(|number| self.running.get_mut(number)) {
            look_up.turns.answer(named);
        }
    }

    /// Whom to ask next for its chunk addresses, where it is said to be, and for which look-up; it is asked from now
    /// on.
    pub(super) fn next_to_ask(&mut self, now: Instant) -> Option<(u64, PeerId, Vec<Multiaddr>)> {
        self.running.iter_mut().find_map(|(number, look_up)| {
            look_up.next_to_ask(now).map(|(peer, addresses)| (*number, peer, addresses))
        })
    }

    /// A provider's chunk addresses are known, or cannot be, and why.
    pub(super) fn told(&mut self, number: u64, peer: &PeerId, answer: Result<Provider, String>) {
        let Some(look_up) = self.running.get_mut(&number) else { return };
        look_up.asking.remove(peer);
        look_up.turns.resolved(peer, answer.is_ok());
        match answer {
            Ok(provider) if look_up.told < MAX_FOUND => {
                look_up.told += 1;
                look_up.tell(Holder::Found(provider));
            }
            Ok(_) => {}
            Err(why) => look_up.tell(Holder::Missed(*peer, Some(why))),
        }
        self.drop_if_done(number);
    }

    /// A provider could not even be dialled, since too many others wait for that: it is asked later.
    pub(super) fn put_off(&mut self, number: u64, peer: &PeerId, now: Instant) {
        let Some(look_up) = self.running.get_mut(&number) else { return };
        let (until, times) = &mut look_up.rest;
        if *times >= MAX_RESTS * ASKING {
            return self.told(number, peer, Err(CROWDED.to_owned()));
        }
        *times += 1;
        // Not after each: where many are made up, the others would wait a second for every one of them.
        if times.is_multiple_of(ASKING) {
            *until = Some(now + REST);
        }
        look_up.asking.remove(peer);
        look_up.turns.put_off(peer);
    }

    /// A query ended at nodes that are crowded together, or had to be ended: what it came to is not enough.
    pub(super) fn widen(&mut self, query: QueryId) {
        let number = self.by_query.get(&query);
        if let Some(look_up) = number.and_then(|number| self.running.get_mut(number)) {
            look_up.tell_wider(true);
        }
    }

    /// A query ended. `None` when it is none of ours.
    pub(super) fn ended(&mut self, query: QueryId) -> Option<(u64, End)> {
        let number = self.by_query.remove(&query)?;
        let look_up = self.running.get_mut(&number)?;
        look_up.query = None;
        // Where others are asked already the same ones need not be asked once more.
        let is_in_vain = look_up.turns.is_empty() && look_up.wider.is_some();
        if is_in_vain && !std::mem::replace(&mut look_up.again, true) {
            return Some((number, End::Again(look_up.key)));
        }
        look_up.turns.end();
        self.drop_if_done(number);
        Some((number, End::Done))
    }

    /// Ends the look-ups that nobody listens to any more, those that wait among them; gives their queries.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<QueryId> {
        self.queued.retain(|(_, out, _)| !out.is_closed());
        let by_query = &mut self.by_query;
        let mut orphans = Vec::new();
        self.running.retain(|_, look_up| {
            let wanted = !look_up.out.is_closed();
            if !wanted && let Some(query) = look_up.query {
                by_query.remove(&query);
                orphans.push(query);
            }
            if look_up.told == 0 && now >= *look_up.since.get_or_insert(now) + IN_VAIN {
                look_up.tell_wider(true);
            }
            wanted
        });
        orphans
    }

    fn drop_if_done(&mut self, number: u64) {
        if self.running.get(&number).is_some_and(LookUp::is_done)
            && let Some(mut done) = self.running.remove(&number)
        {
            let has_told_nobody = done.told == 0;
            done.tell_wider(has_told_nobody);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::kad::store::MemoryStore;
    use libp2p::kad::{self, RecordKey};

    /// A look-up under way, and what it tells.
    fn running() -> (LookUps, u64, mpsc::Receiver<Holder>, oneshot::Receiver<bool>) {
        let (mut look_ups, (out, told), (end, wider)) =
            (LookUps::default(), mpsc::channel(MAX_TOLD), oneshot::channel());
        look_ups.push(([1; 32], out, end));
        let (number, _) = look_ups.start().unwrap();
        (look_ups, number, told, wider)
    }

    /// Those that are told of and have not answered, each with what is said of it last; and those that have.
    fn all(told: &mut mpsc::Receiver<Holder>) -> (HashMap<PeerId, Option<String>>, Vec<PeerId>) {
        let (mut missed, mut found) = (HashMap::new(), Vec::new());
        while let Ok(holder) = told.try_recv() {
            match holder {
                Holder::Found(provider) => {
                    missed.remove(&provider.peer);
                    found.push(provider.peer);
                }
                Holder::Missed(peer, why) => _ = missed.insert(peer, why),
            }
        }
        (missed, found)
    }

    fn gone() -> Result<Provider, String> {
        Err("it is gone".to_owned())
    }

    fn name(look_ups: &mut LookUps, number: u64, count: usize) {
        let turns = &mut look_ups.running.get_mut(&number).unwrap().turns;
        turns.answer((0..count).map(|_| (PeerId::random(), Vec::new())));
    }

    #[test]
    fn those_that_take_their_time_keep_no_place_and_all_ends() {
        let (mut look_ups, number, mut told, mut wider) = running();
        let begun = Instant::now();
        (0..5).for_each(|_| name(&mut look_ups, number, 60));
        let mut asked = Vec::new();
        for round in 0..=MAX_ASKED / ASKING {
            let now = begun + SLOW * u32::try_from(round).unwrap();
            let more: Vec<_> = std::iter::from_fn(|| look_ups.next_to_ask(now)).collect();
            assert_eq!(more.len(), if round < MAX_ASKED / ASKING { ASKING } else { 0 });
            asked.extend(more);
        }
        let (last, silent) = asked.split_last().unwrap();
        for (number, peer, _) in silent {
            look_ups.told(*number, peer, gone());
        }
        assert!(wider.try_recv().is_err());
        let (missed, found) = all(&mut told);
        assert_eq!((missed.len(), found.len()), (MAX_ASKED, 0));
        let said = |peer: &PeerId| (*peer != last.1).then_some("it is gone");
        assert!(missed.iter().all(|(peer, why)| why.as_deref() == said(peer)));
        let provider = Provider { peer: last.1, chunk: Vec::new(), dht: Vec::new() };
        look_ups.told(last.0, &last.1, Ok(provider));
        assert_eq!(all(&mut told), (HashMap::new(), vec![last.1]));
        assert_eq!((look_ups.running.len(), wider.try_recv()), (0, Ok(false)));
    }

    #[test]
    fn whom_there_was_no_time_to_dial_is_asked_later() {
        let (mut look_ups, number, mut told, mut wider) = running();
        name(&mut look_ups, number, 20);
        let mut now = Instant::now();
        for _ in 0..MAX_RESTS {
            for _ in 0..ASKING {
                let (_, peer, _) = look_ups.next_to_ask(now).unwrap();
                look_ups.put_off(number, &peer, now);
            }
            assert!(look_ups.next_to_ask(now).is_none(), "not at once");
            assert_eq!(look_ups.running.len(), 1, "it goes on");
            now += REST;
        }
        while let Some((_, peer, _)) = look_ups.next_to_ask(now) {
            look_ups.put_off(number, &peer, now);
        }
        assert_eq!((look_ups.running.len(), wider.try_recv()), (0, Ok(true)), "it ends");
        let (missed, _) = all(&mut told);
        assert!(missed.len() == 20 && missed.values().all(|why| why.as_deref() == Some(CROWDED)));
    }

    #[test]
    fn who_was_asked_where_it_is_not_has_another_turn_and_a_last_one_in_the_end() {
        let (mut look_ups, number, _told, mut wider) = running();
        let (holder, now) = (PeerId::random(), Instant::now());
        let query = query(&mut look_ups, number);
        let at = |port: u16| format!("/ip4/9.9.9.9/tcp/{port}").parse::<Multiaddr>().unwrap();
        let first = |asked: Option<(u64, PeerId, Vec<Multiaddr>)>| asked.map(|(.., said)| said[0].clone());
        for lie in 1..=2 {
            look_ups.found(query, vec![(holder, vec![at(lie)])]);
            assert_eq!(first(look_ups.next_to_ask(now)), Some(at(lie)));
            look_ups.told(number, &holder, gone());
        }
        look_ups.found(query, vec![(holder, vec![at(3)])]);
        assert!(look_ups.next_to_ask(now).is_none(), "others may say more yet");
        assert_eq!(look_ups.ended(query), Some((number, End::Done)));
        assert_eq!(first(look_ups.next_to_ask(now)), Some(at(3)));
        look_ups.told(number, &holder, gone());
        assert_eq!((look_ups.running.len(), wider.try_recv()), (0, Ok(true)));
    }

    #[test]
    fn who_answers_frees_its_place_and_without_a_holder_others_are_asked() {
        let (mut look_ups, number, _told, mut wider) = running();
        name(&mut look_ups, number, 60);
        let now = Instant::now();
        let mut asked = 0;
        while let Some((number, peer, _)) = look_ups.next_to_ask(now) {
            asked += 1;
            look_ups.told(number, &peer, gone());
        }
        assert_eq!((asked, look_ups.running.len(), wider.try_recv()), (60, 0, Ok(true)));
    }

    fn query(look_ups: &mut LookUps, number: u64) -> QueryId {
        let local = PeerId::random();
        let mut kad = kad::Behaviour::new(local, MemoryStore::new(local));
        let query = kad.get_providers(RecordKey::new(&[1; 32]));
        look_ups.queried(number, query);
        query
    }

    #[test]
    fn what_comes_to_nothing_looks_wider_while_it_goes_on_and_not_for_who_found_one() {
        let begun = Instant::now();
        for has_found in [false, true] {
            let (mut look_ups, number, _told, mut wider) = running();
            query(&mut look_ups, number);
            name(&mut look_ups, number, 1);
            let (_, peer, _) = look_ups.next_to_ask(begun).unwrap();
            let provider = Provider { peer, chunk: Vec::new(), dht: Vec::new() };
            look_ups.told(number, &peer, if has_found { Ok(provider) } else { gone() });
            assert!(look_ups.sweep(begun).is_empty() && look_ups.sweep(begun + IN_VAIN / 2).is_empty());
            assert!(wider.try_recv().is_err(), "it may find somebody yet");
            assert!(look_ups.sweep(begun + IN_VAIN).is_empty());
            assert_eq!((look_ups.running.len(), wider.try_recv() == Ok(true)), (1, !has_found));
        }
    }

    #[test]
    fn a_query_that_names_nobody_is_made_again_unless_others_are_asked_already() {
        for (is_enough, end) in [(true, End::Again([1; 32])), (false, End::Done)] {
            let (mut look_ups, number, _told, _wider) = running();
            let query = query(&mut look_ups, number);
            _ = (!is_enough).then(|| look_ups.widen(query));
            assert_eq!(look_ups.ended(query), Some((number, end)));
        }
    }

    #[test]
    fn whoever_has_gone_takes_no_place_in_the_queue() {
        let (mut look_ups, mut told) = (LookUps::default(), Vec::new());
        for number in 0..MAX_QUEUED {
            let ((out, listener), (end, _)) = (mpsc::channel(1), oneshot::channel());
            look_ups.push(([1; 32], out, end));
            told.extend(number.is_multiple_of(2).then_some(listener));
        }
        assert!(look_ups.sweep(Instant::now()).is_empty());
        assert_eq!(look_ups.queued.len(), told.len());
    }
}
