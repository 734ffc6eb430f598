//! How fast one peer may ask, announce and tell.
//!
//! Owns: the rates, and which peers flood. Refuses: nothing by itself; it says how long something has to wait, and what
//! waits too long is not answered. Pure: the time is passed in. Survives a crash: nothing.
//!
//! The rates are several times what a casd node needs that does as much as it can. Whatever is answered waits its turn:
//! an honest peer that is fast for a while is slowed down by that, since it has only so many questions under way, and
//! nothing of it is lost. Only what a peer does without waiting for answers is dropped, and only that is a flood.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::support::allowance::{Allowances, Rate};

/// Peers counted of each kind: eight times as many as may be connected.
const PEERS: usize = 4_096;
/// What waits longer is not answered: whoever asked gives up after 8 s.
pub(super) const LONGEST: Duration = Duration::from_secs(4);

/// Kademlia's questions. A fetcher that looks for 64 keys at once in a network of a few nodes asks each some 400 times
/// a second (`tests/scale`, with three questions at once in each look-up; there are ten now).
const QUESTIONS: Rate = Rate { each_second: 1_000, burst: 4_000 };
/// Plain ADD_PROVIDER, a key each: nodes of other makes send one after the other.
const PROVIDED: Rate = Rate { each_second: 500, burst: 10_000 };
/// Hellos: one after each new connection, and one in five minutes.
const HELLOS: Rate = Rate { each_second: 5, burst: 100 };
/// Questions for holders: one for each key that look-ups found nobody for.
const FINDS: Rate = Rate { each_second: 500, burst: 2_000 };
/// Questions for what is said of an object: each is answered with up to 2 KiB.
const DESCRIBES: Rate = Rate { each_second: 50, burst: 200 };
/// Batches: full ones at 5,000 keys a second are one or two; single objects that are added one by one are more.
const BATCHES: Rate = Rate { each_second: 50, burst: 500 };
/// What identify tells: once a connection, when addresses change, and every five minutes.
const IDENTIFIED: Rate = Rate { each_second: 1, burst: 60 };
/// Bytes of an answer that count as another question: a few holders take fewer, as many as are told up to 70 KiB.
const ANSWER: usize = 4_096;
/// What was dropped, of all kinds, before that is a flood.
const DROPPED: Rate = Rate { each_second: 10, burst: 2_000 };

/// What a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A question of Kademlia, which is answered.
    Question,
    /// A plain ADD_PROVIDER, which is not.
    Provide,
    /// A hello.
    Hello,
    /// A question for holders.
    Find,
    /// A question for what is said of an object.
    Describe,
    /// A batch of keys.
    Batch,
    /// Telling what it is.
    Identify,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    /// By [`Act`].
    rates: [Allowances<PeerId>; 7],
    dropped: Allowances<PeerId>,
    /// Those who have flooded since they were taken last; a few: each is then struck.
    floods: Vec<PeerId>,
}

// === impl Meter ===

impl Meter {
    pub(super) fn new() -> Self {
        let rates = [QUESTIONS, PROVIDED, HELLOS, FINDS, DESCRIBES, BATCHES, IDENTIFIED];
        let rates = rates.map(|rate| Allowances::new(rate, PEERS));
        Self { rates, dropped: Allowances::new(DROPPED, PEERS), floods: Vec::new() }
    }

    /// Counts an act that will be answered: how long until then. None: it has waited long enough already, and is
    /// dropped.
    pub(super) fn wait(&mut self, peer: PeerId, act: Act, now: Instant) -> Option<Duration> {
        let wait = self.rates[act as usize].wait(peer, LONGEST, now);
        if wait.is_none() {
            self.drop(peer, now);
        }
        wait
    }

    /// Counts an answer of so many bytes as so many more questions.
    pub(super) fn told(&mut self, peer: PeerId, act: Act, bytes: usize, now: Instant) {
        for _ in 0..bytes / ANSWER {
            self.rates[act as usize].wait(peer, Duration::MAX, now);
        }
    }

    /// Counts an act that nobody waits for; false: it is dropped.
    pub(super) fn admits(&mut self, peer: PeerId, act: Act, now: Instant) -> bool {
        let admits = self.rates[act as usize].take(peer, now);
        if !admits {
            self.drop(peer, now);
        }
        admits
    }

    /// Something of this peer was worth nothing.
    pub(super) fn drop(&mut self, peer: PeerId, now: Instant) {
        if !self.dropped.take(peer, now) && !self.floods.contains(&peer) {
            self.floods.push(peer);
        }
    }

    /// Those who flooded.
    pub(super) fn take_floods(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.floods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_waits_and_what_is_not_is_dropped_until_it_is_a_flood() {
        let (mut meter, start) = (Meter::new(), Instant::now());
        let (busy, flooding) = (PeerId::random(), PeerId::random());
        // A fetcher with a hundred questions under way for a minute: it waits for each answer.
        let mut now = start;
        for _ in 0..60_000 {
            now += meter.wait(busy, Act::Question, now).unwrap() / 100;
        }
        assert!(meter.take_floods().is_empty());
        assert!(!(0..10_000).any(|_| !meter.admits(flooding, Act::Provide, start)));
        for _ in 0..DROPPED.burst {
            assert!(!meter.admits(flooding, Act::Provide, start));
        }
        assert!(meter.take_floods().is_empty());
        assert!(!meter.admits(flooding, Act::Provide, start) && !meter.admits(flooding, Act::Provide, start));
        assert_eq!(meter.take_floods(), [flooding]);
        assert_eq!(
            meter.wait(flooding, Act::Question, start),
            Some(Duration::ZERO),
            "other acts are not concerned"
        );
    }

    #[test]
    fn large_answers_count_as_many_questions() {
        let (mut meter, start, peer) = (Meter::new(), Instant::now(), PeerId::random());
        let mut told = |size: usize, from: Instant, seconds: u64| {
            let (mut now, mut answers) = (from, 0);
            while now < from + Duration::from_secs(seconds) {
                now += meter.wait(peer, Act::Find, now).expect("an asker that waits for each answer");
                meter.told(peer, Act::Find, size, now);
                answers += 1;
            }
            answers
        };
        let (large, burst, rate) = (70_000, 2_000, 500);
        let count = told(large, start, 60);
        assert!(count * large < (burst + 61 * rate) * (ANSWER + 33), "{count} answers");
        let later = start + Duration::from_secs(3_600);
        assert!(told(300, later, 60) > burst + 59 * rate, "what most ask is not slowed down");
    }

    #[test]
    fn an_announcer_at_full_speed_is_not_slowed_down() {
        let (mut meter, start, peer) = (Meter::new(), Instant::now(), PeerId::random());
        // An hour of full batches at 5,000 keys a second, and of ten objects a second that are added one by one.
        for tenth in 0..36_000u32 {
            let now = start + Duration::from_millis(100) * tenth;
            let batches = 1 + u32::from(tenth % 8 == 0);
            assert!((0..batches).all(|_| meter.wait(peer, Act::Batch, now) == Some(Duration::ZERO)));
        }
    }
}
