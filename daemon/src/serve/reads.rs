//! Reading for peers, beside what this node's own users do.
//!
//! Owns: how many reads for peers go on at once, and that they step back while a user's bytes move. Refuses: nothing;
//! each has its turn, even where users never rest. Survives a crash: nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Reads for peers at once: half of the calls of the disk that the store has at once, so that a user's waits for few.
const WIDTH: u32 = 4;

/// While users' bytes move there is one at a time, and then a rest of so many times as long as it took: peers have a
/// quarter of one call's time, for the disk and for hashing…
const REST: u32 = 3;
/// …but no longer a rest than this, however slow the disk is.
const LONGEST: Duration = Duration::from_millis(500);

/// How long users' bytes count as moving after the last of them.
const LATELY: Duration = Duration::from_millis(250);

/// Whether this node's own users are being served: the callers of its API. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Own(Arc<Mutex<Option<Instant>>>);

impl Own {
    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user's bytes have moved, either way.
    pub fn moved(&self) {
        *self.last() = Some(Instant::now());
    }

    fn is_moving(&self) -> bool {
        self.last().is_some_and(|last| last.elapsed() < LATELY)
    }
}

/// The reads for all peers.
pub(super) struct Reads {
    places: Semaphore,
    own: Own,
    /// While users' bytes move, no read begins before this.
    rest: Mutex<Instant>,
}

/// A read that goes on, until this is dropped.
pub(super) struct Reading<'a> {
    reads: &'a Reads,
    began: Instant,
    _places: SemaphorePermit<'a>,
}

impl Reads {
    pub(super) fn new(own: Own) -> Self {
        Self { places: Semaphore::new(WIDTH as usize), own, rest: Mutex::new(Instant::now()) }
    }

    fn rest(&self) -> MutexGuard<'_, Instant> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may begin.
    pub(super) async fn begin(&self) -> Reading<'_> {
        let steps_back = self.own.is_moving();
        let places = self.places.acquire_many(if steps_back { WIDTH } else { 1 }).await;
        let Ok(places) = places else {
            // They are never closed.
            return std::future::pending().await;
        };
        if steps_back {
            let until = *self.rest();
            tokio::time::sleep_until(until).await;
        }
        Reading { reads: self, began: Instant::now(), _places: places }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let rest = self.began.elapsed().saturating_mul(REST).min(LONGEST);
        *self.reads.rest() = Instant::now() + rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn reads_for_peers_go_one_by_one_and_rest_while_users_are_served() {
        let own = Own::default();
        let reads = Reads::new(own.clone());
        let four = futures::future::join_all((0..WIDTH).map(|_| reads.begin())).await;
        assert!(reads.begin().now_or_never().is_none(), "half of the disk's calls are users'");
        drop(four);
        own.moved();
        let mut first = reads.begin().await;
        assert!(reads.begin().now_or_never().is_none(), "one at a time");
        let (took, now) = (Duration::from_millis(20), Instant::now());
        first.began -= took;
        drop(first);
        let ends = *reads.rest();
        assert!(ends >= now + took * REST, "and then a rest");
        own.moved();
        drop(reads.begin().await);
        assert!(Instant::now() >= ends, "that is waited for");
        // Users who have gone keep nobody waiting.
        *own.last() = Instant::now().checked_sub(LATELY);
        let all = futures::future::join_all((0..WIDTH).map(|_| reads.begin()));
        assert_eq!(all.now_or_never().map(|all| all.len()), Some(WIDTH as usize));
    }
}
