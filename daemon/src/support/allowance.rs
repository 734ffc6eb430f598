//! What each of many sources may do in a time, when nobody knows beforehand who they are.
//!
//! Owns: the count. Refuses: more sources than its limit; then the one nearest to having saved up all of its allowance
//! again is forgotten. Pure: the time is passed in. Survives a crash: nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In each second, at least 1.
    pub each_second: u32,
    /// At once, after a rest.
    pub burst: u32,
}

/// The allowances of sources that are known by `K`.
#[derive(Debug)]
pub struct Allowances<K> {
    rate: Rate,
    /// Sources counted at most.
    most: usize,
    /// When each will have saved up all again; whoever has it is not in here.
    whole: HashMap<K, Instant>,
}

impl Rate {
    /// The time that one act is worth.
    fn each(self) -> Duration {
        Duration::from_secs(1) / self.each_second.max(1)
    }
}

impl<K: Copy + Eq + Hash> Allowances<K> {
    /// Of `rate` for each source, of which `most` are counted.
    #[must_use]
    pub fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most: most.max(1), whole: HashMap::new() }
    }

    /// One act of `who`: how long it has to wait until it is within the allowance. None, and it does not count: longer
    /// than `longest`.
    pub fn wait(&mut self, who: K, longest: Duration, now: Instant) -> Option<Duration> {
        let whole = self.whole_at(who, now) + self.rate.each();
        let wait = whole.saturating_duration_since(now + self.rate.each() * self.rate.burst);
        if wait > longest {
            return None;
        }
        self.whole.insert(who, whole);
        Some(wait)
    }

    /// One act of `who`, if that is within the allowance. It counts only then.
    pub fn take(&mut self, who: K, now: Instant) -> bool {
        self.wait(who, Duration::ZERO, now).is_some()
    }

    /// Sources that have not saved up everything.
    #[must_use]
    pub fn len(&self) -> usize {
        self.whole.len()
    }

    /// Whether all have saved up everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    fn whole_at(&mut self, who: K, now: Instant) -> Instant {
        if let Some(whole) = self.whole.get(&who) {
            return now.max(*whole);
        }
        if self.whole.len() >= self.most {
            self.whole.retain(|_, whole| *whole > now);
        }
        if self.whole.len() >= self.most
            && let Some(nearest) = self.whole.iter().min_by_key(|(_, whole)| **whole).map(|(who, _)| *who)
        {
            self.whole.remove(&nearest);
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { each_second: 10, burst: 5 };

    #[test]
    fn each_source_has_its_own_and_waits_when_it_is_used_up() {
        let (mut allowances, now) = (Allowances::new(RATE, 100), Instant::now());
        let long = Duration::from_millis(300);
        let waits: Vec<_> =
            (0..10).map_while(|_| allowances.wait("a", long, now)).map(|w| w.as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 300]);
        assert_eq!(allowances.wait("b", long, now), Some(Duration::ZERO));
        assert_eq!((0..8).filter(|_| allowances.take("c", now)).count(), 5);
        let later = now + Duration::from_millis(200);
        assert_eq!((0..8).filter(|_| allowances.take("c", later)).count(), 2);
        assert_eq!(allowances.wait("a", long, now + Duration::from_secs(60)), Some(Duration::ZERO));
    }

    #[test]
    fn sources_without_number_take_no_more_room() {
        let (mut allowances, now) = (Allowances::new(RATE, 100), Instant::now());
        (0..50).for_each(|_| assert!(allowances.wait(0, Duration::from_secs(60), now).is_some()));
        for source in 1..10_000 {
            assert!(allowances.take(source, now));
            assert!(allowances.len() <= 100);
        }
        assert!(!allowances.take(0, now), "who has used the most is remembered");
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_what_was_saved(steps in prop::collection::vec(0u64..400, 1..200)) {
            let (mut allowances, start) = (Allowances::new(RATE, 2), Instant::now());
            let (mut now, mut taken) = (start, 0u128);
            for millis in steps {
                now += Duration::from_millis(millis);
                taken += u128::from(allowances.take(0, now));
                prop_assert!(taken <= 5 + (now - start).as_millis() / 100);
            }
        }
    }
}
