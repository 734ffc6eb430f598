//! How fast a try of a job is.
//!
//! Owns: which one crawls. Refuses: nothing by itself; whether somebody waits for its place, others know. Pure: the
//! time is passed in. Survives a crash: nothing.
//!
//! A try goes on as long as anything comes, and somebody may see to it that hardly anything does, for ever. So the
//! place of one that crawls is had by turns. A turn ends with a chunk, since what has come of one that is not whole is
//! lost with the try.

use std::time::Duration;

use tokio::time::Instant;

/// How long a turn is, at least; where no chunk ends it, it is twice as long: one of 1 MiB that comes at 1 KiB a
/// second, which is what a session must bring, takes 17 minutes.
pub(super) const TURN: Duration = Duration::from_mins(10);
/// Bytes a second, of whole chunks: whoever brings less crawls.
const CRAWL: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    /// When its turn began.
    since: Instant,
    /// Bytes that were here then; `None` until that is known.
    from: Option<u64>,
    /// Bytes that were here at the last look.
    seen: u64,
}

impl Pace {
    /// A try begins.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, from: None, seen: 0 }
    }

    /// So many bytes are here.
    pub(super) fn is_at(&mut self, bytes: u64) {
        self.from.get_or_insert(bytes);
    }

    /// Another turn begins, where so many bytes are here.
    pub(super) fn renew(&mut self, bytes: u64, now: Instant) {
        (self.since, self.from) = (now, Some(bytes));
    }

    /// Whether its turn is over and it has crawled; so many bytes are here.
    pub(super) fn crawls(&mut self, bytes: u64, now: Instant) -> bool {
        let has_chunk = bytes > std::mem::replace(&mut self.seen, bytes);
        let time = now.saturating_duration_since(self.since);
        if time < TURN {
            return false;
        }
        let brought = self.from.map_or(0, |from| bytes.saturating_sub(from));
        if brought >= CRAWL * time.as_secs() {
            self.renew(bytes, now);
            return false;
        }
        has_chunk || time >= 2 * TURN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every second for three turns at a try that brings a chunk of 1 MiB every so many seconds: when it is
    /// first said to crawl.
    fn crawls_after(every: u64) -> Option<u64> {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.is_at(5 << 20);
        let mut looks = 1..3 * TURN.as_secs();
        looks.find(|second| pace.crawls((5 + second / every) << 20, start + Duration::from_secs(*second)))
    }

    #[test]
    fn a_turn_of_one_that_crawls_ends_with_a_chunk() {
        assert_eq!(crawls_after(59), Some(649));
        assert_eq!(crawls_after(1024), Some(1024));
        assert_eq!(crawls_after(4000), Some(1200), "none has come");
        assert_eq!(crawls_after(15), None);
    }

    #[test]
    fn what_was_here_before_counts_for_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        // It is not known yet what the object is; then much of it is here.
        assert!(!pace.crawls(0, start + TURN));
        pace.is_at(1 << 30);
        assert!(pace.crawls(1 << 30, start + TURN));
    }
}
