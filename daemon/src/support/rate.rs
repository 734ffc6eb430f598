//! A rate limit that many tasks share fairly.
//!
//! Owns: one rate, which may be part of another: what passes has passed both. Refuses: to let anyone overtake; whoever
//! asks first is served first, however much it asks for. Survives a crash: nothing.
//!
//! A token bucket with a queue counted in tokens instead of waiters: every `take` gets the next stretch of a line of
//! byte numbers as its ticket, and goes on once so many bytes have been allowed in all. So waiters hold no lock and
//! no place in a list, any amount can be asked for, and a change of rate only moves the times at which they wake.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Tokens that an idle bucket saves up: what comes in this time, so that a pause between two slices costs nothing.
const BURST: Duration = Duration::from_millis(100);

/// Bytes per second, shared first come, first served. Wrap it in an `Arc` to share it.
#[derive(Debug)]
pub struct Limiter {
    /// Never held across an await.
    bucket: Mutex<Bucket>,
    /// Wakes waiters when the rate changes or one of them gives up.
    changed: Notify,
    /// What passes here has to pass there as well, afterwards: whom this limit holds back keeps nobody waiting there.
    whole: Option<Arc<Self>>,
}

impl Limiter {
    /// A limit of `bytes_per_second`; 0 is none.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self::made(bytes_per_second, None)
    }

    /// A limit of `bytes_per_second` to a part of what `whole` limits; 0 is none but that one.
    #[must_use]
    pub fn within(bytes_per_second: u64, whole: Arc<Self>) -> Self {
        Self::made(bytes_per_second, Some(whole))
    }

    fn made(rate: u64, whole: Option<Arc<Self>>) -> Self {
        Self { bucket: Mutex::new(Bucket::new(rate, now())), changed: Notify::new(), whole }
    }

    /// Waits until `bytes` may pass. A dropped call gives back what it did not use.
    pub async fn take(&self, bytes: usize) {
        let mut limiter = self;
        loop {
            limiter.pass(bytes).await;
            match &limiter.whole {
                Some(whole) => limiter = whole,
                None => return,
            }
        }
    }

    /// Lets others have `bytes` that were taken, and then not moved.
    pub fn give_back(&self, bytes: usize) {
        let mut limiter = Some(self);
        while let Some(this) = limiter {
            this.with(|bucket, _| bucket.allow(bytes as u64));
            this.changed.notify_waiters();
            limiter = this.whole.as_deref();
        }
    }

    async fn pass(&self, bytes: usize) {
        let Some(number) = self.with(|bucket, now| bucket.queue(bytes as u64, now)) else { return };
        let mut ticket = Ticket { limiter: self, bytes: bytes as u64, used: false };
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on a change wakes us, so none is lost between the look and the sleep.
            changed.as_mut().enable();
            let Some(wait) = self.with(|bucket, now| bucket.wait(number, now)) else { break };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
        ticket.used = true;
    }

    /// The lowest of the rates that what passes here has to pass, in bytes a second; 0 when there is none.
    #[must_use]
    pub fn lowest(&self) -> u64 {
        let own = self.with(|bucket, _| bucket.rate);
        let whole = self.whole.as_deref().map_or(0, Self::lowest);
        if own == 0 || whole == 0 { own.max(whole) } else { own.min(whole) }
    }

    /// Changes the rate, also for those who wait; 0 lets all of them go.
    pub fn set(&self, bytes_per_second: u64) {
        self.with(|bucket, now| bucket.set(bytes_per_second, now));
        self.changed.notify_waiters();
    }

    fn with<T>(&self, act: impl FnOnce(&mut Bucket, Instant) -> T) -> T {
        act(&mut self.bucket.lock().unwrap_or_else(PoisonError::into_inner), now())
    }
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A place in the line. Gives its bytes to those behind when its owner goes away.
struct Ticket<'a> {
    limiter: &'a Limiter,
    bytes: u64,
    used: bool,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.limiter.with(|bucket, _| bucket.allow(self.bytes));
            self.limiter.changed.notify_waiters();
        }
    }
}

/// Units a byte: a rate in bytes per second times nanoseconds is a whole number of these, so nothing is rounded.
const UNIT: u128 = 1_000_000_000;

/// The arithmetic, without a clock.
#[derive(Debug)]
struct Bucket {
    /// Bytes per second; 0 is no limit.
    rate: u64,
    /// The end of the line: bytes ever asked for, in units.
    queued: u128,
    /// How far along the line bytes have been allowed, in units; ahead of `queued` by the savings.
    allowed: u128,
    /// The time up to which `allowed` is right.
    at: Instant,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Self {
        let mut bucket = Self { rate, queued: 0, allowed: 0, at: now };
        bucket.allowed = bucket.burst();
        bucket
    }

    fn burst(&self) -> u128 {
        u128::from(self.rate) * BURST.as_nanos()
    }

    /// Adds what time has brought.
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        self.at = now.max(self.at);
        self.allowed = (self.allowed + u128::from(self.rate) * passed).min(self.queued + self.burst());
    }

    /// Puts `bytes` at the end of the line and gives their number; `None` when there is no limit.
    fn queue(&mut self, bytes: u64, now: Instant) -> Option<u128> {
        if self.rate == 0 {
            return None;
        }
        self.fill(now);
        self.queued += u128::from(bytes) * UNIT;
        Some(self.queued)
    }

    /// How long until the bytes up to `number` are allowed; `None` when they are.
    fn wait(&mut self, number: u128, now: Instant) -> Option<Duration> {
        self.fill(now);
        let missing = number.saturating_sub(self.allowed);
        if missing == 0 || self.rate == 0 {
            return None;
        }
        let nanos = missing.div_ceil(u128::from(self.rate));
        // A year is long enough: whoever waits looks again.
        Some(
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
                .min(Duration::from_secs(31_536_000)),
        )
    }

    /// Allows bytes that were queued and then not wanted.
    fn allow(&mut self, bytes: u64) {
        self.allowed += u128::from(bytes) * UNIT;
    }

    fn set(&mut self, rate: u64, now: Instant) {
        self.fill(now);
        if rate == 0 {
            self.allowed = self.queued;
        }
        self.rate = rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;
    use std::sync::Arc;

    #[test]
    fn bytes_pass_at_the_rate_in_the_order_they_were_asked_for() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut bucket = Bucket::new(1000, start);
        // The savings of a tenth of a second.
        let first = bucket.queue(100, start).unwrap();
        assert_eq!(bucket.wait(first, start), None);
        // More than the bucket ever holds, then a small one that must not overtake it.
        let large = bucket.queue(5000, start).unwrap();
        let small = bucket.queue(1, start).unwrap();
        assert_eq!(bucket.wait(large, start), Some(Duration::from_secs(5)));
        assert_eq!(bucket.wait(small, after(4000)), Some(Duration::from_millis(1001)));
        assert_eq!(bucket.wait(large, after(5000)), None);
        // A clock that goes back brings nothing and takes nothing.
        assert_eq!(bucket.wait(small, start), Some(Duration::from_millis(1)));
        bucket.set(2000, after(5000));
        assert_eq!(bucket.wait(small, after(5000)), Some(Duration::from_micros(500)));
        bucket.set(0, after(5000));
        assert_eq!(bucket.wait(small, after(5000)), None);
        assert_eq!(bucket.queue(1 << 40, after(5000)), None);
    }

    proptest! {
        #[test]
        fn who_always_wants_more_gets_the_whole_rate_and_never_much_at_once(
            rate in 64_000u64..100_000_000, seconds in 4u64..20, delays in prop::collection::vec(0u64..20, 1..20)
        ) {
            // Slices as they go out, one asked for when the last has gone, each up to half of its time late.
            let (slice, start) = (128 * 1024, Instant::now());
            let most = Duration::from_nanos(slice * 500_000_000 / rate);
            let (mut bucket, mut now, mut passed) = (Bucket::new(rate, start), start, 0);
            let end = start + Duration::from_secs(seconds);
            for late in delays.iter().cycle() {
                let number = bucket.queue(slice, now).unwrap();
                now += bucket.wait(number, now).unwrap_or_default();
                if now >= end {
                    break;
                }
                passed += slice;
                now += Duration::from_millis(*late).min(most);
            }
            // Where a slice takes longer than the time, it is the last one that is missing.
            let due = rate * seconds;
            prop_assert!(passed + slice >= due - due / 20, "{passed} of {due}");
            prop_assert!(passed <= due + due / 20, "{passed} of {due}");
        }

        #[test]
        fn never_more_than_the_rate_and_its_savings(
            rate in 1u64..1_000_000, steps in prop::collection::vec((0u64..5_000_000, 0u64..100_000), 1..60)
        ) {
            let start = Instant::now();
            let (mut bucket, mut now, mut line) = (Bucket::new(rate, start), start, Vec::new());
            for (micros, bytes) in steps {
                now += Duration::from_micros(micros);
                line.push((bytes, bucket.queue(bytes, now).unwrap()));
                let passed: u64 =
                    line.iter().take_while(|(_, at)| bucket.wait(*at, now).is_none()).map(|(bytes, _)| bytes).sum();
                let most = u128::from(rate) * ((now - start).as_nanos() + BURST.as_nanos()) / UNIT;
                prop_assert!(u128::from(passed) <= most);
            }
        }
    }

    #[tokio::test]
    async fn a_part_holds_nobody_back_but_itself_and_the_whole_holds_all() {
        let whole = Arc::new(Limiter::new(0));
        let (slow, free) = (Limiter::within(1, Arc::clone(&whole)), Limiter::within(0, Arc::clone(&whole)));
        let mut held = Box::pin(slow.take(1 << 30));
        assert!(held.as_mut().now_or_never().is_none());
        free.take(1 << 30).await;
        whole.set(1);
        let mut all = Box::pin(free.take(1 << 30));
        assert!(all.as_mut().now_or_never().is_none());
        // What was taken and not moved lets those pass who wait for it.
        free.give_back(1 << 30);
        all.await;
        whole.set(0);
        assert!(held.as_mut().now_or_never().is_none());
        slow.set(0);
        held.await;
    }

    #[tokio::test]
    async fn who_gives_up_lets_the_next_one_pass() {
        let limiter = Arc::new(Limiter::new(1));
        let mut stuck = Box::pin(limiter.take(1 << 30));
        assert!(stuck.as_mut().now_or_never().is_none());
        let mut next = Box::pin(limiter.take(0));
        assert!(next.as_mut().now_or_never().is_none());
        drop(stuck);
        next.await;
        let mut waiting = Box::pin(limiter.take(1 << 30));
        assert!(waiting.as_mut().now_or_never().is_none());
        limiter.set(0);
        waiting.await;
        limiter.take(usize::MAX).await;
    }
}
