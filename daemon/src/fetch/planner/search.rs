//! The search for what nobody here can give.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rescue::Opening;
use super::{Action, Planner, Shard};

/// Chunk keys that are looked up at a time, and for how long each is left to it.
const LOOKUPS: usize = 32;
const LOOKUP_LIFE: Duration = Duration::from_secs(30);

/// No stripe is given up to parity, and no chunk looked up, before this: the first peers are still telling what
/// they hold.
pub(super) const PARITY_GRACE: Duration = Duration::from_millis(250);
const LOOKUP_GRACE: Duration = Duration::from_secs(1);

/// How often more peers are asked for while something cannot be had…
const NEED_EVERY: Duration = Duration::from_secs(10);

/// …and while what is left takes longer than this with those that are here: others may have come to hold it.
const LONG: Duration = Duration::from_secs(30);

/// Needed chunks that one survey looks at, and how soon the next one goes on: a few hundred microseconds of work
/// every so often, whatever the object's length.
const STEP: usize = 4096;
const STEP_EVERY: Duration = Duration::from_millis(50);

/// How soon at least everything is looked at anew when nothing was told in between.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// What is being searched for.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The chunk that the survey goes on from.
    cursor: u64,
    /// Not surveyed before this.
    survey_at: Duration,
    /// Chunks whose keys are being looked up, and until when.
    lookups: BTreeMap<u64, Duration>,
    /// More peers are not asked for before this.
    need_at: Duration,
    /// Something is lacking: the time alone may call for action.
    hungry: bool,
}

impl Search {
    /// Something changed: survey at the next occasion.
    pub(super) fn wake(&mut self) {
        self.survey_at = Duration::ZERO;
    }

    /// A chunk is here.
    pub(super) fn found(&mut self, chunk: u64) {
        self.lookups.remove(&chunk);
    }

    /// When to look again although nothing happens.
    pub(super) fn next_wakeup(&self) -> Option<Duration> {
        self.hungry.then_some(self.survey_at)
    }
}

impl Planner {
    /// Looks for needed chunks that no peer can give: opens their stripes, looks their keys up, asks for more peers.
    /// Does nothing while every peer is `busy`. Tells whether a stripe was opened.
    pub(super) fn survey(&mut self, idle: bool, actions: &mut Vec<Action>) -> bool {
        let now = self.now;
        let alone = !self.peers.values().any(|peer| peer.is_available(now));
        self.search.hungry = idle || alone;
        if !self.search.hungry || now < self.search.survey_at {
            return false;
        }
        let graces = [PARITY_GRACE, LOOKUP_GRACE].into_iter().filter(|&grace| grace > now);
        self.search.survey_at = graces.min().unwrap_or(now + self.often(ROUND_EVERY));
        if self.peers.values().any(|peer| peer.is_available(now) && peer.holding.is_whole()) {
            return false;
        }
        self.search.lookups.retain(|_, until| *until > now);
        let (opened, lacking) = self.walk(actions);
        if (alone || lacking) && now >= self.search.need_at {
            self.search.need_at = now + NEED_EVERY;
            actions.push(Action::NeedPeers);
        }
        opened
    }

    /// Asks for more peers now and then while there is much left for those that are here.
    pub(super) fn want_more(&mut self, actions: &mut Vec<Action>) {
        if self.now >= self.search.need_at + LONG && self.brings(self.chunks.missing()) > LONG {
            self.search.need_at = self.now + NEED_EVERY;
            actions.push(Action::NeedPeers);
        }
    }

    /// One step of the survey. Tells whether a stripe was opened, and whether a chunk cannot be had at all.
    fn walk(&mut self, actions: &mut Vec<Action>) -> (bool, bool) {
        let window = self.window();
        let cursor = if window.contains(&self.search.cursor) { self.search.cursor } else { window.start };
        let (ahead, behind) =
            (self.chunks.needed(cursor..window.end), self.chunks.needed(window.start..cursor));
        let step: Vec<u64> = ahead.chain(behind).take(STEP).collect();
        let (mut lacking, mut useless) = (false, None);
        for &chunk in &step {
            let shard = Shard::Data(chunk);
            if self.flight.is_coming(shard) || self.available(shard, None) {
                continue;
            }
            let stripe = self.stripes.of(chunk);
            let opening = match stripe {
                // All chunks of a stripe fare alike.
                Some(_) if stripe == useless => Opening::Useless,
                Some(_) if self.now < PARITY_GRACE => Opening::Full,
                _ => self.open_for(chunk, actions),
            };
            match opening {
                Opening::Opened => {
                    self.search.cursor = chunk;
                    self.search.wake();
                    return (true, lacking);
                }
                Opening::Open => {}
                Opening::Full => break,
                Opening::Useless => {
                    (lacking, useless) = (true, stripe);
                    self.look_up(chunk, actions);
                }
            }
        }
        if let (STEP.., Some(&last)) = (step.len(), step.last()) {
            self.search.cursor = last + 1;
            self.search.survey_at = self.now + STEP_EVERY;
        }
        (false, lacking)
    }

    /// Has a chunk's key looked up, unless that is going on, someone is known to hold it, or it is too early.
    fn look_up(&mut self, chunk: u64, actions: &mut Vec<Action>) {
        let search = &mut self.search;
        if self.now >= LOOKUP_GRACE
            && self.holders.count(chunk) == 0
            && search.lookups.len() < LOOKUPS
            && !search.lookups.contains_key(&chunk)
        {
            search.lookups.insert(chunk, self.now + LOOKUP_LIFE);
            actions.push(Action::FindChunk { chunk });
        }
    }
}
