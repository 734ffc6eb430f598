//! When what was not told to all that should know it is announced again, before its turn.
//!
//! Owns: the arithmetic. Pure. Refuses: to announce again for each node that comes: twice as many must be known; and to
//! do so again and again where many nodes never answer: the waits double. Survives a crash: nothing; after a restart
//! all that was announced is taken to have been told to enough, until its turn.

use std::time::Duration;

use tokio::time::Instant;

use crate::dht::regions::K;
use crate::peer::Key;

/// The first wait after nodes were chosen by look-ups that many did not answer…
const FIRST: Duration = Duration::from_secs(30);
/// …and the longest.
const LONGEST: Duration = Duration::from_hours(4);

/// What may be amiss with a round.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::dht) struct Doubt<'a> {
    /// Why not all were told that should be, if so.
    pub(in crate::dht) thin: &'a [Thin],
    /// Of which keys alone that may be so.
    pub(in crate::dht) keys: &'a [Key],
}

/// Why a round did not tell all that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dht) enum Thin {
    /// So many nodes were known, fewer than should be told.
    Few(usize),
    /// Many of those that were asked for the nearest nodes did not answer: those found may not be the nearest.
    Unsure,
}

/// What is to be announced again, and when.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Nodes that were known when what few had been told was last announced again; fewer, where since then few were
    /// told because fewer were known. `None` where few have never been told of anything.
    known: Option<usize>,
    /// When what was placed by such look-ups is placed again.
    due: Option<Instant>,
    /// The wait that led there, or to the last such time, which was then.
    wait: Duration,
    last: Option<Instant>,
    /// Whether it is being placed again: however long that takes, what is thin then has not ceased to be.
    is_under_way: bool,
}

impl Again {
    /// A round was thin.
    pub(super) fn note(&mut self, thin: Thin, now: Instant) {
        match thin {
            Thin::Few(known) => self.known = Some(self.known.map_or(known, |before| before.min(known))),
            Thin::Unsure if self.due.is_none() => {
                let is_soon = |last| now.duration_since(last) < self.wait * 2;
                let goes_on = self.is_under_way || self.last.is_some_and(is_soon);
                self.wait = if goes_on { (self.wait * 2).min(LONGEST) } else { FIRST };
                self.due = Some(now + self.wait);
            }
            Thin::Unsure => {}
        }
    }

    /// When something is due, if no more nodes come to be known.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether all that is thin is to be announced again, now that so many are known.
    pub(super) fn is_due(&self, known: usize, now: Instant) -> bool {
        let has_grown = self.known.is_some_and(|before| before < K && known >= (2 * before).clamp(1, K));
        has_grown || self.due.is_some_and(|due| due <= now)
    }

    /// It is announced again, to so many.
    pub(super) fn begun(&mut self, known: usize, now: Instant) {
        self.known = self.known.map(|_| known);
        if self.due.take().is_some() {
            (self.last, self.is_under_way) = (Some(now), true);
        }
    }

    /// All of it has been, as far as that goes.
    pub(super) fn ended(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_under_way) {
            self.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::holdings::Due;
    use crate::dht::schedule::minute;
    use crate::dht::tests::{Node, TCP};
    use crate::peer::{Announced, Key, Kind};

    #[test]
    fn a_network_that_grows_is_told_again_a_few_times_only() {
        let (mut again, mut told, now) = (Again::default(), Vec::new(), Instant::now());
        assert!(!again.is_due(K, now));
        again.note(Thin::Few(1), now);
        for known in (0..200).chain(0..200) {
            if again.is_due(known, now) {
                again.begun(known, now);
                told.push(known);
            }
            assert!(!again.is_due(known, now));
        }
        assert_eq!(told, [2, 4, 8, 16, 20]);
        // Others have gone, and with them those who had been told.
        again.note(Thin::Few(3), now);
        assert!(!again.is_due(5, now) && again.is_due(6, now));
    }

    #[tokio::test]
    async fn what_nobody_takes_when_it_is_placed_again_is_placed_once_more() {
        let (node, key) = (Node::server(TCP, &[]).await, [7; 32]);
        let dht = &node.dht.0;
        let announced = |minute, missed: &[Key]| {
            assert!(dht.holdings().hold(&key, Kind::Object));
            dht.holdings().placed(&key, minute);
            dht.announced(&[key], Kind::Object, missed, &Announced::default(), Doubt::default());
            dht.schedule.desk().again.due()
        };
        // Nobody has it yet: the lane waits before it tries again. Then somebody took it, and then nobody.
        assert_eq!((announced(0, &[key]), announced(1, &[])), (None, None));
        assert!(announced(1, &[key]).is_some());
    }

    #[tokio::test]
    async fn of_a_round_only_what_is_doubted_is_placed_again() {
        let (node, keys) = (Node::server(TCP, &[]).await, [[7; 32], [8; 32]]);
        let dht = &node.dht.0;
        assert!(keys.iter().all(|key| dht.holdings().hold(key, Kind::Object)));
        dht.announced(&keys, Kind::Object, &[], &Announced::default(), Doubt { keys: &keys[1..], thin: &[] });
        assert!(dht.schedule.desk().again.due().is_some());
        let due = Due { thin: true, ..dht.schedule.sweep.due(minute()) };
        assert_eq!(dht.holdings().due(None, 9, 9, &due).keys, [(keys[1], Kind::Object)]);
    }

    #[test]
    fn what_is_unsure_is_placed_again_soon_and_less_and_less_often_while_that_lasts() {
        let (mut again, begun) = (Again::default(), Instant::now());
        let (mut now, mut times) = (begun, Vec::new());
        while now < begun + Duration::from_hours(24) {
            again.note(Thin::Unsure, now);
            again.note(Thin::Unsure, now + Duration::from_secs(1));
            again.ended(now + Duration::from_secs(1));
            let due = again.due().unwrap();
            assert!(!again.is_due(100, now) && again.is_due(100, due));
            // The round takes its time.
            (now, _) = (due + Duration::from_secs(5), again.begun(100, due));
            times.push(due);
        }
        again.ended(now);
        assert_eq!(times[0], begun + FIRST);
        assert!((12..20).contains(&times.len()), "{}", times.len());
        // It is over, and comes back another day.
        let later = now + 3 * LONGEST;
        again.note(Thin::Unsure, later);
        assert_eq!(again.due(), Some(later + FIRST));
    }

    #[test]
    fn a_round_that_takes_long_shortens_no_wait() {
        let (mut again, mut now) = (Again::default(), Instant::now());
        for doubled in [1, 2, 4, 8] {
            // The first of it comes late, and the rest later still.
            now += Duration::from_hours(1);
            again.note(Thin::Unsure, now);
            assert_eq!(again.due(), Some(now + FIRST * doubled));
            now += Duration::from_hours(1);
            again.ended(now);
            again.begun(100, now);
        }
    }
}
