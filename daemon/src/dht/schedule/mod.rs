//! The announcing schedule: what is new at once, objects before chunks, and everything again in time.
//!
//! Owns: the order and the pace in which this node's keys are announced, and finding out whether that works. Refuses:
//! to be hurried: chunks and what is repeated go at [`lanes::RATE`]. Survives a crash: when each key was announced, by
//! the [journal](super::journal); so a restart announces what is new, and nothing else before its turn.
//!
//! Four lanes, each a task, so that none waits for another: what is new of objects ([`lanes::fresh`]), everything else
//! ([`lanes::bulk`]), those who have not heard of a change ([`late`]), and the audit ([`audit`]), which looks one key
//! in a thousand up again.

mod again;
mod audit;
mod lanes;
mod late;
mod sweep;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::PeerId;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub(super) use self::again::Doubt;
use self::again::{Again, Thin};
use self::sweep::Sweep;
use super::announcer::Slow;
use super::batch::Draft;
use super::holdings::Minute;
use super::journal::Entry;
use super::{Dht, Inner};
use crate::content::Description;
use crate::peer::{Announce, Announced, Announcing, Key, Kind};
use crate::support::task::Tasks;
use crate::support::unix_now;

/// New objects that wait for the next round; those beyond it are found by going through all keys.
const MAX_FRESH: usize = 65_536;
/// Keys that wait to be taken back (about 45 bytes each): as many as may be held, whose room they had. Of what is
/// beyond it a restart has others told.
const MAX_RELEASED: usize = 4_000_000;
/// Keys that wait to be looked up again.
const MAX_AUDITS: usize = 256;
/// Keys held or let go of with the holdings locked, which the event loop waits for: 1 ms.
const LOCKED: usize = 1_024;
/// One of so many keys is looked up again.
const AUDITED: u32 = 1_000;
/// Over which time the rate is told.
const MINUTE: Duration = Duration::from_mins(1);

/// What is asked of the schedule, and how it fares.
#[derive(Debug)]
pub(super) struct Schedule {
    desk: Mutex<Desk>,
    /// Rung when something is fresh or released…
    fresh: Notify,
    /// …or there is something for the bulk lane…
    bulk: Notify,
    /// …or for the audit.
    audit: Notify,
    sweep: Sweep,
    /// Nodes that take their time to answer batches.
    pub(super) slow: Arc<Slow>,
}

#[derive(Debug, Default)]
struct Desk {
    /// New objects, in the order in which they came.
    fresh: VecDeque<Key>,
    /// Who waits for which of them.
    waiting: Vec<(Key, oneshot::Sender<Announced>)>,
    /// Keys that are to be taken back, once another node is known.
    released: BTreeSet<Key>,
    /// Not before this, since nobody was found who could be told.
    held_back: Option<Instant>,
    /// Whether all that is not counted is to be released; until it has been, no other count begins.
    is_counted: bool,
    /// When what was not told to all that should know it is announced again.
    again: Again,
    /// Keys to look up again.
    audits: VecDeque<Key>,
    /// (when, keys placed) of the last minute.
    placed: VecDeque<(Instant, usize)>,
    /// Figures since the start; some are reckoned when they are asked for.
    figures: Announcing,
}

// === impl Schedule ===

impl Schedule {
    pub(super) fn new(node: &PeerId, lifetime: Duration) -> Self {
        let sweep = Sweep::new(node, lifetime);
        Self {
            desk: Mutex::default(),
            fresh: Notify::new(),
            bulk: Notify::new(),
            audit: Notify::new(),
            sweep,
            slow: Arc::default(),
        }
    }

    /// Starts the lanes of a node.
    pub(super) fn start(dht: &Arc<Inner>, tasks: &Tasks) {
        let run = |name: &'static str, lane: BoxFuture<'static, ()>| {
            let stop = tasks.token();
            tasks.spawn(name, async move {
                stop.run_until_cancelled(lane).await;
            });
        };
        run("announce new", Box::pin(lanes::fresh(Arc::clone(dht))));
        run("announce", Box::pin(lanes::bulk(Arc::clone(dht))));
        run("tell late", Box::pin(late::late(Arc::clone(dht))));
        run("audit", Box::pin(audit::audit(Arc::clone(dht))));
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// What came of announcing `keys` of a kind: noted, and some are looked up again later.
    pub(super) fn announced(
        &self,
        keys: &[Key],
        kind: Kind,
        missed: &[Key],
        announced: &Announced,
        Doubt { thin, keys: doubted }: Doubt<'_>,
    ) {
        let [missed, doubted] = [missed, doubted].map(|keys| keys.iter().collect::<HashSet<_>>());
        let (placed, minute): (Vec<Key>, _) =
            (keys.iter().filter(|key| !missed.contains(key)).copied().collect(), minute());
        // Noted first: whoever sees that they are announced may stop this node at once. Not those of which somebody has
        // not heard, or nobody else: after a restart they are announced anew.
        let is_known = !thin.contains(&Thin::Few(0));
        let heard = placed.iter().filter(|key| is_known && !self.heard.is_owed(key)).copied().collect();
        self.journal.note(&Entry::Announced { kind, minute, keys: heard });
        // Held until all is reckoned: whoever sees that nothing is queued sees all the figures.
        let mut desk = self.schedule.desk();
        // What counts as announced since earlier, and nobody took this time, may be known to too few.
        let mut is_left = false;
        // Released meanwhile: then it may not have counted as announced, and some got it after it was taken back.
        let gone: Vec<Key> = {
            let mut holdings = self.holdings();
            for key in &placed {
                match thin {
                    [] if !doubted.contains(key) => holdings.placed(key, minute),
                    _ => holdings.placed_thinly(key, minute),
                }
            }
            for key in &missed {
                match holdings.announced(key) {
                    Some(minute) => holdings.placed_thinly(key, minute),
                    None => holdings.take(key, false),
                }
                is_left |= holdings.is_placed(key);
            }
            keys.iter().filter(|key| !holdings.holds(key)).copied().collect()
        };
        desk.release(&gone);
        // Where nobody took anything there is nothing to tell more nodes of, and whoever tries again waits for that.
        let unsure = placed.iter().any(|key| doubted.contains(key)).then_some(Thin::Unsure);
        if unsure.is_some() || !thin.is_empty() && !placed.is_empty() {
            thin.iter().copied().chain(unsure).for_each(|thin| desk.again.note(thin, Instant::now()));
            // More nodes may be known already, and the lane waits until it is due.
            self.schedule.bulk.notify_one();
        }
        // The lane is not rung: it would have what is in its turn refused again and again.
        if is_left {
            desk.again.note(Thin::Unsure, Instant::now());
        }
        let figures = &mut desk.figures;
        figures.placed += placed.len() as u64;
        figures.messages += announced.messages as u64;
        figures.look_ups += announced.look_ups as u64;
        figures.refused += announced.refused as u64;
        figures.receivers = announced.receivers;
        desk.placed.push_back((Instant::now(), placed.len()));
        desk.forget_old();
        let mut drawn = placed.iter().filter(|_| rand::random_ratio(1, AUDITED)).copied().peekable();
        let has_drawn = drawn.peek().is_some();
        desk.audits.extend(drawn);
        let over = desk.audits.len().saturating_sub(MAX_AUDITS);
        desk.audits.drain(..over);
        drop(desk);
        if has_drawn {
            self.schedule.audit.notify_one();
        }
        if !gone.is_empty() {
            self.schedule.fresh.notify_one();
        }
    }
}

impl Desk {
    /// Keys are to be taken back. That is noted when others have been told: until then a restart would have to.
    fn release(&mut self, keys: &[Key]) {
        let room = MAX_RELEASED.saturating_sub(self.released.len());
        self.released.extend(keys.iter().take(room));
    }

    fn forget_old(&mut self) {
        while self.placed.front().is_some_and(|(at, _)| at.elapsed() > MINUTE) {
            self.placed.pop_front();
        }
    }

    /// Keys a second over the last minute.
    fn rate(&mut self) -> f64 {
        self.forget_old();
        let keys: usize = self.placed.iter().map(|(_, keys)| keys).sum();
        keys as f64 / MINUTE.as_secs_f64()
    }
}

impl Announce for Dht {
    fn hold(&self, keys: &[Key], kind: Kind) -> usize {
        let (mut over, mut new) = (0, Vec::new());
        for part in keys.chunks(LOCKED) {
            let mut holdings = self.0.holdings();
            for key in part {
                if !holdings.hold(key, kind) {
                    over += 1;
                } else if holdings.is_waiting(key) {
                    new.push(*key);
                }
            }
        }
        let schedule = &self.0.schedule;
        if kind == Kind::Chunk {
            schedule.bulk.notify_one();
            return over;
        }
        self.0.announce_soon(new);
        over
    }

    fn place(&self, key: Key) -> BoxFuture<'static, Announced> {
        let (done, placed) = oneshot::channel();
        self.0.schedule.desk().waiting.push((key, done));
        self.hold(&[key], Kind::Object);
        Box::pin(async move { placed.await.unwrap_or_default() })
    }

    fn release(&self, keys: &[Key]) {
        self.0.release(keys);
    }

    fn publish(&self, said: Vec<Description>, anew: bool) -> usize {
        let mut over = 0;
        for said in said {
            let key = *said.object.as_bytes();
            match self.0.published.publish(said) {
                None => over += 1,
                Some(true) if anew => drop(self.announce_anew(key)),
                Some(_) => {}
            }
        }
        over
    }

    fn withdraw(&self, keys: &[Key]) {
        for key in keys {
            if self.0.published.withdraw(key) {
                drop(self.announce_anew(*key));
            }
        }
    }

    fn tell(&self, key: Key, said: Option<Description>) -> BoxFuture<'static, Announced> {
        match said.map(|said| self.0.published.publish(said)) {
            // There is no room for it.
            Some(None) => return Box::pin(std::future::ready(Announced::default())),
            Some(Some(_)) => {}
            None => drop(self.0.published.withdraw(&key)),
        }
        self.announce_anew(key)
    }

    fn begin_count(&self) {
        // What the last one did not count would count now, and what it did would not: that one goes on.
        if !self.0.schedule.desk().is_counted {
            self.0.holdings().begin_count();
        }
    }

    fn end_count(&self) {
        self.0.schedule.desk().is_counted = true;
        self.0.schedule.fresh.notify_one();
    }

    fn company(&self) -> BoxFuture<'static, ()> {
        let dht = Arc::clone(&self.0);
        Box::pin(async move { dht.has_company().await })
    }

    fn announcing(&self) -> Announcing {
        let counts = self.0.holdings().counts();
        let mut desk = self.0.schedule.desk();
        let (keys, queued) = (counts.keys, counts.new_objects + counts.new_chunks);
        Announcing { keys, queued, rate: desk.rate(), ..desk.figures }
    }
}

impl Dht {
    /// Announces a key that is held once more, with what is said of it now; also when a round with it is under way.
    /// Waits as [`Announce::place`].
    fn announce_anew(&self, key: Key) -> BoxFuture<'static, Announced> {
        // Before anything is sent: what was signed earlier does not say it.
        self.0.heard.changed(&key, Instant::now().into_std());
        {
            let mut holdings = self.0.holdings();
            if !holdings.holds(&key) {
                return Box::pin(std::future::ready(Announced::default()));
            }
            // Where this fails, it is as if it had never been announced: it is tried again, also after a restart.
            holdings.placed(&key, 0);
        }
        self.0.journal.note(&Entry::Released { keys: vec![key] });
        self.place(key)
    }
}

impl Inner {
    /// Keys are no longer held: what was announced of them is taken back soon.
    fn release(&self, keys: &[Key]) {
        let mut released = Vec::new();
        for part in keys.chunks(LOCKED) {
            let mut holdings = self.holdings();
            let mut is_told = |key: &Key| {
                let (is_placed, is_published) = (holdings.is_placed(key), self.published.withdraw(key));
                if is_published {
                    self.heard.changed(key, Instant::now().into_std());
                }
                holdings.drop_key(key);
                // What is published may have been announced before that; see `announce_anew`.
                is_placed || is_published
            };
            released.extend(part.iter().filter(|key| is_told(key)).copied());
        }
        self.take_back_soon(&released);
    }

    /// A message has been answered, or not. Where what it says is not so any more, another that says what is so may
    /// have come before it: so that is said once more.
    pub(super) fn overtaken(&self, said: &Draft) {
        let (mut anew, mut objects) = (Vec::new(), Vec::new());
        for key in &said.removals {
            let mut holdings = self.holdings();
            let Some(kind) = holdings.kind(key) else { continue };
            // As if it had never been announced, also where somebody is at it.
            self.heard.changed(key, Instant::now().into_std());
            holdings.placed(key, 0);
            anew.push(*key);
            objects.extend((kind == Kind::Object).then_some(*key));
        }
        if !anew.is_empty() {
            self.journal.note(&Entry::Released { keys: anew });
            self.announce_soon(objects);
            self.schedule.bulk.notify_one();
        }
        let gone: Vec<Key> = said.keys.iter().filter(|key| !self.holdings().holds(key)).copied().collect();
        if !gone.is_empty() {
            self.take_back_soon(&gone);
        }
    }

    /// Objects that were never announced are announced at once, as many as may wait for that.
    fn announce_soon(&self, mut new: Vec<Key>) {
        let mut desk = self.schedule.desk();
        let room = MAX_FRESH.saturating_sub(desk.fresh.len());
        if new.len() > room {
            self.schedule.bulk.notify_one();
        }
        new.truncate(room);
        {
            let mut holdings = self.holdings();
            new.iter().for_each(|key| holdings.take(key, true));
        }
        desk.fresh.extend(new);
        self.schedule.fresh.notify_one();
    }

    fn take_back_soon(&self, keys: &[Key]) {
        self.schedule.desk().release(keys);
        self.schedule.fresh.notify_one();
    }

    /// What is not held any more, and of which somebody has not heard that: at most what waits and what is owed.
    pub(super) fn untold(&self) -> Vec<Key> {
        let mut untold = self.schedule.desk().released.clone();
        untold.extend(self.heard.owed());
        untold.into_iter().filter(|key| !self.holdings().holds(key)).collect()
    }
}

/// Now, in minutes since 1970.
pub(super) fn minute() -> Minute {
    Minute::try_from(unix_now() / 60).unwrap_or(Minute::MAX)
}
