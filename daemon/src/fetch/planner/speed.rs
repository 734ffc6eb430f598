//! What is known of a peer's speed, from nothing but when requests were sent and bytes came.
//!
//! The rate is bytes over busy time, both with exponential forgetting; bytes count as they come, so that the rate of
//! a slow peer is known long before its first answer is whole.
//!
//! The pipeline follows BBR (Cardwell et al., 2016): the highest rate of the last answers times the shortest time
//! that one took is what the path holds. Twice that keeps it full while the rate is still being found out, because a
//! pipeline that is too short shows as a rate that grows with the pipeline. But it also hides the path's delay behind
//! a queue of our own making, which would be taken for the path and doubled, again and again. So each half of
//! [`SHORTEST_LIFE`] begins with two rounds of what the path holds and no more.

use std::time::Duration;

use super::peer::Request;
use crate::content::CHUNK_LEN;

/// Bytes of which the rate is taken, roughly: older ones are forgotten.
const MEMORY: u64 = 8 * CHUNK_LEN;

/// Answers of which the highest rate is taken.
const RECENT: usize = 16;

/// How long the shortest answer time is believed: routes change. Two halves, so that one is always full.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// Added to what the path holds: an answer that is being hashed and stored must not leave the path idle.
/// At 500 MB/s it is ten chunks, at 100 Mbit/s a quarter of one.
const SLACK: Duration = Duration::from_millis(20);

/// The most that waits at the peer beyond what the path holds: a request deep in a queue arrives late and
/// is hard to move elsewhere.
const QUEUE: Duration = Duration::from_millis(500);

/// A peer that takes longer than this for a chunk is asked for the next one when it has brought it: the round trip
/// between the two is little beside that, and a chunk that waits here for so long would be missed elsewhere.
const LONG: Duration = Duration::from_secs(4);

/// Measurements of one peer.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// Bytes that came, with forgetting.
    bytes: u64,
    /// Microseconds that they took, with forgetting.
    busy: u64,
    /// Bytes of whole answers in all.
    pub(super) delivered: u64,
    /// The shortest answer time of this and of the last half of [`SHORTEST_LIFE`].
    shortest: [Option<Duration>; 2],
    /// When the current half began.
    half_began: Duration,
    /// Bytes a second that came between each of the last requests and its answer, in a ring.
    rates: [u64; RECENT],
    /// How many answers were measured.
    answers: usize,
    /// Since when the peer owes the bytes that come next.
    pub(super) owing_since: Duration,
}

impl Speed {
    /// Takes the measure of `bytes` that have come of what was asked for at `asked_at`.
    pub(super) fn came(&mut self, bytes: u64, asked_at: Duration, now: Duration) {
        let took = micros(now.saturating_sub(self.owing_since.max(asked_at)));
        let kept = MEMORY.saturating_sub(bytes);
        self.bytes = part(self.bytes, kept, MEMORY).saturating_add(bytes);
        self.busy = part(self.busy, kept, MEMORY).saturating_add(took);
        self.owing_since = now;
    }

    /// Takes the measure of a whole answer, of which some may have been measured as it came.
    pub(super) fn delivered(&mut self, request: &Request, now: Duration) {
        self.came(request.bytes.saturating_sub(request.came), request.asked_at, now);
        self.delivered += request.bytes;
        let answer = now.saturating_sub(request.asked_at);
        if now.saturating_sub(self.half_began) > SHORTEST_LIFE / 2 {
            self.shortest = [None, self.shortest[0]];
            self.half_began = now;
        }
        self.shortest[0] = Some(self.shortest[0].map_or(answer, |old| old.min(answer)));
        let meanwhile = self.delivered.saturating_sub(request.before);
        self.rates[self.answers % RECENT] = part(meanwhile, 1_000_000, micros(answer).max(1));
        self.answers += 1;
    }

    /// Whether anything whole ever arrived.
    pub(super) fn is_proven(&self) -> bool {
        self.answers > 0
    }

    /// Bytes a second; `None` before the first answer.
    pub(super) fn rate(&self) -> Option<u64> {
        self.is_proven().then(|| part(self.bytes, 1_000_000, self.busy.max(1)).max(1))
    }

    /// How long the peer needs for `bytes`, without the path's delay; `None` before anything came.
    pub(super) fn transfer(&self, bytes: u64) -> Option<Duration> {
        (self.bytes > 0).then(|| Duration::from_micros(part(bytes, self.busy, self.bytes)))
    }

    /// The shortest time that an answer took lately; `None` before the first.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.shortest.iter().flatten().min().copied()
    }

    /// Bytes that should be outstanding to keep the path full: at least two chunks, or one that takes long.
    pub(super) fn pipeline(&self, now: Duration) -> u64 {
        let least = if self.transfer(CHUNK_LEN) > Some(LONG) { CHUNK_LEN } else { 2 * CHUNK_LEN };
        let Some(shortest) = self.shortest() else { return least };
        // A half begins with the delay of the path alone, until what was in the queue has come and requests were sent
        // behind less.
        let sounds = self.shortest[1].is_some() && now < self.half_began + 2 * shortest;
        let time = if sounds { shortest } else { shortest + shortest.min(QUEUE) + SLACK };
        let fastest = self.rates.iter().max().copied().unwrap_or(0);
        part(fastest, micros(time), 1_000_000).max(least)
    }
}

/// A time in microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// `of` times `share` over `whole`, which is not 0.
pub(super) fn part(of: u64, share: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(share) / u128::from(whole)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::super::Shard;
    use super::{CHUNK_LEN, Request, SHORTEST_LIFE, Speed};

    const MS: Duration = Duration::from_millis(1);

    /// A path that carries a chunk in `each` with 100 ms of delay, kept as full as the pipeline says until `end`. Gives
    /// the longest pipeline of the second half, in chunks, and how many chunks came in that half.
    fn keep_full(each: Duration, end: Duration) -> (usize, u32) {
        let (mut speed, mut now, mut free) = (Speed::default(), Duration::ZERO, Duration::ZERO);
        let mut asked: VecDeque<(Request, Duration)> = VecDeque::new();
        let (mut longest, mut came) = (0usize, 0u32);
        while now < end {
            let owed = |asked: &VecDeque<(Request, Duration)>| asked.len() as u64 * CHUNK_LEN;
            while owed(&asked) + CHUNK_LEN <= speed.pipeline(now) {
                if asked.is_empty() {
                    speed.owing_since = now;
                }
                let request = Request::new(Shard::Data(0), CHUNK_LEN, speed.delivered, now);
                // One after the other, each as soon as it has been asked for.
                free = free.max(now + 50 * MS) + each;
                asked.push_back((request, free + 50 * MS));
            }
            let Some((request, at)) = asked.pop_front() else { panic!("nothing is asked") };
            now = at;
            speed.delivered(&request, now);
            if now > end / 2 {
                (longest, came) = (longest.max(asked.len() + 1), came + 1);
            }
        }
        (longest, came)
    }

    #[test]
    fn the_pipeline_grows_until_the_path_is_full_and_no_further() {
        // What the path holds is 11 chunks, or 3.4; or a part of one.
        for (each, most) in [(10 * MS, 26), (42 * MS, 8), (1000 * MS, 2)] {
            let end = SHORTEST_LIFE * 10;
            let (longest, came) = keep_full(each, end);
            assert!(longest <= most, "{longest} chunks on a path of {each:?} each");
            let could = (end / 2).as_secs_f64() / each.as_secs_f64();
            assert!(f64::from(came) >= 0.98 * could, "{came} of {could} chunks of {each:?}");
        }
    }

    #[test]
    fn the_rate_is_known_before_an_answer_is_whole() {
        let mut speed = Speed::default();
        assert_eq!(speed.transfer(CHUNK_LEN), None);
        for second in 1..=4u32 {
            speed.came(8192, Duration::ZERO, second * 1000 * MS);
        }
        let expected = speed.transfer(CHUNK_LEN).unwrap();
        assert!(expected > Duration::from_secs(120) && expected < Duration::from_secs(136), "{expected:?}");
        assert_eq!(speed.pipeline(4000 * MS), CHUNK_LEN, "one at a time");
        assert!(!speed.is_proven() && speed.rate().is_none());
    }
}
