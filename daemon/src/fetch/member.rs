//! A peer of a fetch, and whether it has earned its place.
//!
//! Anybody can say that he holds an object, and many can: whoever then has nothing of it, or says nothing, must not
//! keep the place of one who has it. So a member that has given nothing goes when others wait: at once when it says
//! that it has nothing, soon when it is asked for a chunk and nothing comes of it, else some time after it was last
//! heard of; the time for which our own limit keeps it from being asked does not count. What can be said for ever and
//! costs nothing, that it has something, or is busy, is heard once. One that has given a chunk goes when it has been
//! asked for others and has not given one for some time; one that is asked for nothing, because whoever reads is slow,
//! does not. Nobody goes while there are places.
//!
//! Bytes of a chunk that is not whole may be false, and may be all that a slow holder can give, who may be the only
//! one. So a few of those that would have to go stay while bytes come: those of whom most has come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::planner::PeerNo;
use crate::peer::{Conduct, PeerId};
use crate::session::Asker;
use crate::support::rate::Limiter;

/// How long one that has proved nothing of the object yet keeps its place while others wait…
const UNPROVED: Duration = Duration::from_secs(3);
/// …and one that has proved or told something of it: a chunk of 1 MiB at 100 KiB/s takes as long.
const SLOW: Duration = Duration::from_secs(10);
/// How long nothing may come of a chunk that one is asked for who has given none.
const SILENT: Duration = Duration::from_secs(3);
/// What comes is something when it is so much in that time: 5 KiB a second.
const SOMETHING: u64 = 16 << 10;
/// Those who would have to go and bring something that stay, of 16 places.
const SPARED: usize = 4;
/// How long one that has given a chunk may owe the next: several may be on their way at once.
const OWED: Duration = Duration::from_secs(20);

/// What a member gave is reckoned to its score whenever it has taken so long together: a rate of less says little.
const RECKONED: Duration = Duration::from_secs(1);
/// Others that one may tell of in each minute. What is beyond is not heard.
const TELLS: (usize, Duration) = (50, Duration::from_mins(1));

/// See the module.
pub(super) struct Member {
    pub(super) peer: PeerId,
    pub(super) asker: Asker,
    /// The caller named it, or it gave something elsewhere: it keeps its place.
    pub(super) is_named: bool,
    /// Bytes that it gave.
    pub(super) bytes: u64,
    /// It has said to hold a chunk that it then did not have.
    pub(super) broke_word: bool,
    /// It has said that it has nothing of the object.
    pub(super) has_nothing: bool,
    /// When it was last heard of.
    pub(super) heard: Arc<Heard>,
    /// Where its score is kept.
    conduct: Conduct,
    /// What it gave that its score does not have yet, and how long that took.
    unreckoned: (u64, Duration),
}

/// How many others a peer has told of, in the minute that began then.
#[derive(Debug)]
pub(super) struct Tells(Instant, usize);

/// When a peer last proved something of the object, first told that it has some, or was first asked; before that, when
/// it came. Besides, what it owes.
#[derive(Debug)]
pub(super) struct Heard(Mutex<Last>);

#[derive(Debug)]
struct Last {
    at: Instant,
    has_proved: bool,
    has_told: bool,
    /// Whether it has been asked for a chunk.
    is_asked: bool,
    /// Requests to it that our own limit holds back, and since when there are any.
    held: (usize, Instant),
    /// Chunks that it is being asked for, and since when it has owed one.
    open: usize,
    owes: Option<Instant>,
    /// Since when it has been asked for nothing because the last of them was taken back: that time is not owed.
    rest: Option<Instant>,
    /// Since when nothing comes of them; set while there are any.
    silent: Option<Instant>,
    /// Bytes that have come of chunks that are not whole, since it last gave one; and since `silent`.
    came: u64,
    fresh: u64,
}

/// A request that our own limit holds back, until this is dropped.
struct HeldBack<'a>(&'a Heard);

/// A request that is open, until this is dropped.
pub(super) struct Open {
    heard: Arc<Heard>,
    /// Whether it has been answered, with whatever; else it is taken back.
    is_answered: bool,
}

impl Member {
    pub(super) fn new(asker: Asker, conduct: Conduct, now: Instant) -> Self {
        let heard = Arc::new(Heard::new(now));
        Self {
            peer: asker.peer(),
            asker,
            is_named: false,
            bytes: 0,
            broke_word: false,
            has_nothing: false,
            heard,
            conduct,
            unreckoned: (0, Duration::ZERO),
        }
    }

    /// It gave so many bytes now, which are what they should be.
    pub(super) fn gave(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.unreckoned.0 += bytes;
        self.unreckoned.1 += self.heard.gave();
        if self.unreckoned.1 >= RECKONED {
            self.reckon();
        }
    }

    fn reckon(&mut self) {
        let (bytes, took) = std::mem::take(&mut self.unreckoned);
        if bytes > 0 {
            self.conduct.delivered(self.peer, bytes, took, SystemTime::now());
        }
    }

    /// Whether it has to go when another waits for its place.
    pub(super) fn makes_room(&self, now: Instant) -> bool {
        !self.is_named
            && match self.bytes {
                0 => self.has_nothing || self.heard.is_over(now),
                _ => self.heard.owes(now),
            }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.reckon();
    }
}

impl Tells {
    /// Of nobody yet.
    pub(super) fn new(now: Instant) -> Self {
        Self(now, 0)
    }

    /// Of so many others that it tells of now, how many may be heard.
    pub(super) fn take(&mut self, others: usize, now: Instant) -> usize {
        if now.saturating_duration_since(self.0) >= TELLS.1 {
            *self = Self(now, 0);
        }
        let heard = others.min(TELLS.0.saturating_sub(self.1));
        self.1 += heard;
        heard
    }
}

impl Heard {
    fn new(now: Instant) -> Self {
        let (has_proved, has_told, is_asked) = (false, false, false);
        let (held, open, owes, rest, silent) = ((0, now), 0, None, None, None);
        let (came, fresh) = (0, 0);
        Self(Mutex::new(Last {
            at: now,
            has_proved,
            has_told,
            is_asked,
            held,
            open,
            owes,
            rest,
            silent,
            came,
            fresh,
        }))
    }

    /// It proved something of the object now.
    pub(super) fn now(&self) {
        let mut last = self.last();
        (last.at, last.has_proved) = (Instant::now(), true);
    }

    /// It tells that it has some of the object.
    pub(super) fn told(&self) {
        if !std::mem::replace(&mut self.last().has_told, true) {
            self.now();
        }
    }

    /// It gave a chunk now. For how long it owed that.
    fn gave(&self) -> Duration {
        let (mut last, now) = (self.last(), Instant::now());
        let owed = last.owed(now);
        (last.owes, last.rest) = ((last.open > 0).then_some(now), None);
        (last.silent, last.came, last.fresh) = (last.owes, 0, 0);
        owed
    }

    /// So many bytes of a chunk have come that is not whole.
    pub(super) fn flows(&self, bytes: u64) {
        let mut last = self.last();
        last.came += bytes;
        last.fresh += bytes;
        if last.fresh >= SOMETHING {
            last.fresh = 0;
            last.silent = (last.open > 0).then(Instant::now);
        }
    }

    /// How much has come of what is not whole, if something comes now.
    pub(super) fn flow(&self, now: Instant) -> u64 {
        let last = self.last();
        if last.is_silent(now) { 0 } else { last.came }
    }

    /// It is asked for a chunk of so many bytes as soon as our own limit allows, and is so until what this leads to is
    /// dropped.
    pub(super) async fn ask(self: Arc<Self>, limit: &Limiter, bytes: usize) -> Open {
        let held = self.hold_back();
        limit.take(bytes).await;
        drop(held);
        self.open()
    }

    fn open(self: Arc<Self>) -> Open {
        let (mut last, now) = (self.last(), Instant::now());
        last.open += 1;
        let rested = last.rest.take().map_or(Duration::ZERO, |rest| now.saturating_duration_since(rest));
        last.owes = Some(last.owes.map_or(now, |since| since + rested));
        last.silent.get_or_insert(now);
        drop(last);
        Open { heard: self, is_answered: false }
    }

    /// It would be asked for something now, but for our own limit.
    fn hold_back(&self) -> HeldBack<'_> {
        let mut last = self.last();
        if last.held.0 == 0 {
            last.held.1 = Instant::now();
        }
        last.held.0 += 1;
        drop(last);
        HeldBack(self)
    }

    fn is_over(&self, now: Instant) -> bool {
        let last = self.last();
        let patience = if last.has_proved { SLOW } else { UNPROVED };
        last.held.0 == 0 && (last.is_silent(now) || now.saturating_duration_since(last.at) > patience)
    }

    fn owes(&self, now: Instant) -> bool {
        self.last().owed(now) > OWED
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// It has been answered.
    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }
}

impl Last {
    /// For how long it has owed a chunk.
    fn owed(&self, now: Instant) -> Duration {
        let until = self.rest.unwrap_or(now);
        self.owes.map_or(Duration::ZERO, |since| until.saturating_duration_since(since))
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.silent.is_some_and(|since| now.saturating_duration_since(since) > SILENT)
    }
}

/// Who of those that have to go, each with what comes from it, goes first; nobody while all of them are spared.
pub(super) fn who_goes(mut over: Vec<(u64, PeerNo)>) -> Option<PeerNo> {
    over.sort_unstable();
    let spared = over.iter().rev().take(SPARED).filter(|(flow, _)| *flow > 0).count();
    over.first().filter(|_| over.len() > spared).map(|(_, number)| *number)
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut last = self.heard.last();
        last.open -= 1;
        if last.open == 0 {
            last.silent = None;
            last.rest = (!self.is_answered).then(Instant::now);
        }
    }
}

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        let (mut last, now) = (self.0.last(), Instant::now());
        last.held.0 -= 1;
        if last.held.0 == 0 {
            // Its time begins when it is first asked; from then on it is only not counted while it is held back.
            let held = now.saturating_duration_since(last.held.1);
            last.at = if last.is_asked { last.at + held } else { last.at.max(now) };
            last.is_asked = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_our_own_limit_keeps_waiting_keeps_its_place() {
        let start = Instant::now();
        let heard = Heard::new(start);
        let late = start + UNPROVED + Duration::from_secs(60);
        assert!(!heard.is_over(start + UNPROVED) && heard.is_over(late));
        let held = [heard.hold_back(), heard.hold_back()];
        assert!(!heard.is_over(late + SLOW));
        let [first, second] = held;
        drop(first);
        assert!(!heard.is_over(late + SLOW), "one more waits");
        drop(second);
        // Its time begins when it is asked.
        let asked = heard.last().at;
        assert!(asked > start && !heard.is_over(asked + UNPROVED) && heard.is_over(asked + UNPROVED + SLOW));
    }

    #[test]
    fn who_tells_and_is_asked_for_ever_and_gives_nothing_has_to_go() {
        let heard = Heard::new(Instant::now());
        heard.told();
        drop(heard.hold_back());
        let first = heard.last().at;
        // It has the time that a slow one needs…
        assert!(!heard.is_over(first + SLOW) && heard.is_over(first + SLOW + UNPROVED));
        // …and gains nothing by saying the same again, nor by being asked again because it is busy.
        let long_ago = first.checked_sub(2 * SLOW).unwrap();
        heard.last().at = long_ago;
        heard.told();
        drop(heard.hold_back());
        assert!(heard.is_over(Instant::now()));
        heard.now();
        let proved = heard.last().at;
        assert!(proved >= first && !heard.is_over(proved + SLOW), "a proof");
    }

    #[test]
    fn fifty_others_are_heard_of_from_one_in_a_minute() {
        let start = Instant::now();
        let mut tells = Tells::new(start);
        let heard: usize = (0..59).map(|second| tells.take(8, start + Duration::from_secs(second))).sum();
        assert_eq!((heard, tells.take(8, start + TELLS.1)), (50, 8));
    }

    #[test]
    fn who_gave_one_chunk_and_no_other_that_it_was_asked_for_has_to_go() {
        let heard = Arc::new(Heard::new(Instant::now()));
        let open = || Arc::clone(&heard).open();
        let far = |heard: &Heard| heard.owes(Instant::now() + 2 * OWED);
        let [first, second] = [open(), open()];
        drop(first);
        heard.gave();
        assert!(far(&heard) && !heard.owes(Instant::now()), "it owes the second");
        drop(second);
        heard.gave();
        assert!(!far(&heard), "it is asked for nothing");
        // Busy, each time it is asked.
        open().answered();
        let since = heard.last().owes;
        open().answered();
        assert!(far(&heard) && heard.last().owes == since);
        heard.gave();
        assert!(!far(&heard));
    }

    #[test]
    fn what_is_taken_back_is_owed_no_longer_and_the_time_before_counts() {
        let heard = Arc::new(Heard::new(Instant::now()));
        let open = || Arc::clone(&heard).open();
        let first = open();
        let since = Instant::now().checked_sub(OWED / 2).unwrap();
        heard.last().owes = Some(since);
        drop(first);
        assert!(!heard.owes(Instant::now() + 2 * OWED), "it is asked for nothing");
        let _second = open();
        assert!(!heard.owes(Instant::now()) && heard.owes(Instant::now() + OWED));
    }

    #[test]
    fn who_is_asked_and_says_nothing_has_to_go_soon_and_who_brings_something_has_not() {
        let heard = Arc::new(Heard::new(Instant::now()));
        heard.now();
        let soon = |heard: &Heard| heard.is_over(Instant::now() + SILENT + Duration::from_secs(1));
        assert!(!soon(&heard), "nothing is asked of it");
        let open = Arc::clone(&heard).open();
        assert!(soon(&heard) && heard.flow(Instant::now()) == 0);
        let long_ago = Instant::now().checked_sub(2 * SILENT).unwrap();
        heard.last().silent = Some(long_ago);
        heard.flows(SOMETHING / 2);
        assert!(heard.is_over(Instant::now()) && heard.flow(Instant::now()) == 0, "next to nothing");
        heard.flows(SOMETHING / 2);
        assert!(!heard.is_over(Instant::now()) && heard.flow(Instant::now()) == SOMETHING);
        drop(open);
        assert!(!soon(&heard));
    }

    #[test]
    fn those_that_bring_most_stay_and_not_all_of_them() {
        let over = |flows: &[u64]| (0..).zip(flows).map(|(no, flow)| (*flow, PeerNo(no))).collect();
        assert_eq!(who_goes(over(&[])), None);
        assert_eq!(who_goes(over(&[0])), Some(PeerNo(0)));
        assert_eq!(who_goes(over(&[7])), None);
        assert_eq!(who_goes(over(&[9, 0, 7])), Some(PeerNo(1)));
        assert_eq!(who_goes(over(&[9, 8, 7, 6])), None);
        assert_eq!(who_goes(over(&[9, 8, 1, 7, 6])), Some(PeerNo(2)));
    }
}
