//! Uploads that make way for what else is on the line.
//!
//! Owns: the rate at which one connection may send while that is asked for. Refuses: to guess: where the kernel does
//! not tell delays nothing is held back, and the log says so once. Survives a crash: nothing.
//!
//! As LEDBAT (RFC 6817) it goes by the delay that packets have in queues: the round trip now without the shortest one
//! lately. Below [`TARGET`] it sends faster, above it slower than what arrives at the other end: a line that is its own
//! is filled to that delay, and where others fill the queue further it leaves the line to them, down to [`FLOOR`]. The
//! rate is held by waiting before writes, so that TCP's own window is left as it is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::delay::{self, Delay};

/// The delay in queues that is aimed at: between 60 ms, where people do not notice it, and LEDBAT's 100 ms.
const TARGET: Duration = Duration::from_millis(80);

/// How much faster or slower than now, at most, between two looks: a quarter as fast again on an empty queue…
const GAIN: u64 = 4;
/// …and half as fast on one that is far too long.
const CUT: u64 = 2;

/// The slowest, in bytes a second: a chunk in half a minute.
const FLOOR: u64 = 32 * 1024;

/// Between two looks at the delay, or as long as a round trip takes.
const LOOK: Duration = Duration::from_millis(100);
/// What arrived over a longer time, in which nothing was sent, says nothing of the line.
const PAUSE: Duration = Duration::from_millis(1000);

/// Bytes that are written at once while the rate is held: those of 50 ms, within these.
const PORTION: (usize, usize) = (4 * 1024, 128 * 1024);

/// The rate of one connection.
pub(super) struct Yielding {
    /// Whether uploads are to yield: one switch for all connections.
    switch: Arc<AtomicBool>,
    /// This end and the other; `None` where the kernel does not tell.
    ends: Option<(SocketAddr, SocketAddr)>,
    rein: Rein,
    /// When the delay is to be looked at next.
    look_at: Instant,
    /// What had arrived at the last look.
    arrived: Option<(Instant, u64)>,
    /// Nothing is written before this.
    free_at: Instant,
    /// Wakes whoever waits for that.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What the delay makes of the rate. Pure.
#[derive(Debug, Default)]
struct Rein {
    /// Bytes a second; `None`: nothing is held back.
    rate: Option<u64>,
}

impl Yielding {
    pub(super) fn new(switch: Arc<AtomicBool>, ends: io::Result<(SocketAddr, SocketAddr)>) -> Self {
        let now = Instant::now();
        Self {
            switch,
            ends: ends.ok(),
            rein: Rein::default(),
            look_at: now,
            arrived: None,
            free_at: now,
            sleep: None,
        }
    }

    /// How many of so many bytes may be written now; pending while none may.
    pub(super) fn poll_portion(&mut self, context: &mut Context<'_>, bytes: usize) -> Poll<usize> {
        if !self.switch.load(Relaxed) {
            self.rein.rate = None;
            return Poll::Ready(bytes);
        }
        let now = Instant::now();
        self.look(now);
        let Some(rate) = self.rein.rate else { return Poll::Ready(bytes) };
        if now < self.free_at {
            let free_at = self.free_at;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(free_at)));
            sleep.as_mut().reset(free_at);
            ready!(sleep.as_mut().poll(context));
        }
        let portion = usize::try_from(rate / 20).unwrap_or(usize::MAX).clamp(PORTION.0, PORTION.1);
        Poll::Ready(bytes.min(portion))
    }

    /// So many bytes have been written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        if let Some(rate) = self.rein.rate {
            let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
            self.free_at = self.free_at.max(Instant::now()) + Duration::from_nanos(nanos);
        }
    }

    /// Looks at the delay, when it is time to.
    fn look(&mut self, now: Instant) {
        let Some((local, remote)) = self.ends.filter(|_| now >= self.look_at) else { return };
        let delay = match delay::ask(local, remote) {
            Ok(delay) => delay,
            Err(error) => {
                tell_once(&error);
                (self.ends, self.rein.rate) = (None, None);
                return;
            }
        };
        self.look_at = now + LOOK.max(delay.now);
        self.looked(delay, now);
    }

    fn looked(&mut self, delay: Delay, now: Instant) {
        let Some((since, before)) = self.arrived.replace((now, delay.acked)) else { return };
        let took = now.duration_since(since);
        if took > PAUSE.max(delay.now * 2) {
            return;
        }
        let arrived = u128::from(delay.acked.saturating_sub(before)) * 1_000_000_000;
        let rate = u64::try_from(arrived / took.as_nanos().max(1)).unwrap_or(u64::MAX);
        self.rein.look(delay.now.saturating_sub(delay.least), rate);
    }
}

impl Rein {
    /// The delay in queues is this, and so many bytes a second have arrived since the last look.
    fn look(&mut self, queue: Duration, arrived: u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (queue, target) = (micros(queue.min(100 * TARGET)), micros(TARGET));
        // As much of a rate as the delay is off the target, over the gain.
        let part = |rate: u64, off: u64| rate.saturating_mul(off) / (GAIN * target);
        if queue < target {
            let Some(rate) = self.rate else { return };
            let base = rate.max(arrived);
            let next = base.saturating_add(part(base, target - queue));
            // Far more than is asked for is no rein.
            self.rate = Some(next).filter(|next| *next <= arrived.max(FLOOR).saturating_mul(4));
        } else {
            let base = self.rate.map_or(arrived, |rate| rate.min(arrived));
            let cut = part(base, queue - target).min(base / CUT);
            self.rate = Some((base - cut).max(FLOOR));
        }
    }
}

/// One line in the log, however many connections there are.
fn tell_once(error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(%error, "transfer.yielding has no effect: the kernel does not tell how long packets take");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line: so many bytes a second, so long a way, so long a queue.
    struct Line {
        capacity: f64,
        way: f64,
        longest: f64,
    }

    /// What came of a while: part of the line that was ours, and the queue, on average, in seconds.
    struct Came {
        ours: f64,
        queue: f64,
    }

    const STEP: f64 = 0.005;

    impl Line {
        /// Sends as much as it may for so many seconds; others send what `others` says, as part of the line. Gives what
        /// came of each of the stretches.
        fn run(&self, others: impl Fn(f64) -> f64, stretches: &[(f64, f64)]) -> Vec<Came> {
            let mut rein = Rein::default();
            let (mut time, mut queue, mut smooth, mut arrived) = (0.0, 0.0_f64, self.way, 0.0_f64);
            let (mut looked, mut before) = (0.0, 0.0);
            let mut came: Vec<(f64, f64, f64)> = stretches.iter().map(|_| (0.0, 0.0, 0.0)).collect();
            while time < stretches.iter().fold(0.0, |last, (_, end)| f64::max(last, *end)) {
                time += STEP;
                // Unreined it fills whatever queue there is.
                let ours = rein.rate.map_or(2.0 * self.capacity, |rate| rate as f64);
                let all = ours + others(time) * self.capacity;
                let got = if all > self.capacity || queue > 0.0 { self.capacity * ours / all } else { ours };
                queue = (queue + (all - self.capacity) * STEP).clamp(0.0, self.longest * self.capacity);
                let trip = self.way + queue / self.capacity;
                smooth += (trip - smooth) * (STEP / self.way.max(0.02)).min(1.0);
                arrived += got * STEP;
                if time >= looked + LOOK.as_secs_f64().max(smooth) {
                    let queue = Duration::from_secs_f64((smooth - self.way).max(0.0));
                    rein.look(queue, ((arrived - before) / (time - looked)) as u64);
                    (looked, before) = (time, arrived);
                }
                for ((from, to), sum) in stretches.iter().zip(&mut came) {
                    if (*from..*to).contains(&time) {
                        *sum = (sum.0 + 1.0, sum.1 + got / self.capacity, sum.2 + queue / self.capacity);
                    }
                }
            }
            came.iter()
                .map(|(steps, ours, queue)| Came { ours: ours / steps, queue: queue / steps })
                .collect()
        }
    }

    #[test]
    fn a_free_line_is_filled_without_a_long_queue_and_a_busy_one_left_to_others() {
        for capacity in [1.25e6, 12.5e6, 125e6] {
            for way in [0.01, 0.05, 0.2] {
                let line = Line { capacity, way, longest: 0.3 };
                // From 10 to 20 s others want more than all of it. From the slowest to a gigabit takes a quarter as
                // much again each look, which over the longest way is ten seconds.
                let others = |time| if (10.0..20.0).contains(&time) { 1.2 } else { 0.0 };
                let came = line.run(others, &[(3.0, 10.0), (13.0, 20.0), (32.0, 50.0)]);
                for free in [&came[0], &came[2]] {
                    assert!(free.ours > 0.9, "{capacity} {way}: {}", free.ours);
                    assert!((0.05..0.11).contains(&free.queue), "{capacity} {way}: {}", free.queue);
                }
                assert!(came[1].ours < 0.05, "{capacity} {way}: {}", came[1].ours);
            }
        }
    }

    #[test]
    fn who_is_slow_by_itself_is_not_held_back_and_nobody_is_held_to_nothing() {
        let (mut rein, long, none) = (Rein::default(), Duration::from_secs(10), Duration::ZERO);
        (0..100).for_each(|_| rein.look(none, 5_000));
        assert_eq!(rein.rate, None);
        (0..100).for_each(|_| rein.look(long, 1 << 30));
        assert_eq!(rein.rate, Some(FLOOR));
        // It asks for little: what it may have grows beyond that at once, until nothing holds it back.
        let looks = (0..100).take_while(|_| {
            rein.look(none, 5_000);
            rein.rate.is_some()
        });
        assert!((2..20).contains(&looks.count()));
        rein.look(long, u64::MAX);
        rein.look(Duration::MAX, u64::MAX);
        assert!(rein.rate > Some(FLOOR));
    }
}
