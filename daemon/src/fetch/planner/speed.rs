//! What is known of a peer's speed, from nothing but when requests were sent and answers came.
//!
//! The rate is bytes over busy time, both with exponential forgetting. The pipeline follows BBR (Cardwell et
//! al., 2016): rate times the shortest time an answer took is what the path holds; twice that keeps it full
//! while the rate is still being found out, because a pipeline that is too short shows as a rate that grows
//! with the pipeline.

use std::time::Duration;

use crate::content::CHUNK_LEN;

/// Answers that the median is taken of.
const RECENT: usize = 16;

/// How long the shortest answer time is believed: routes change. Two halves, so that one is always full.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// Added to what the path holds: an answer that is being hashed and stored must not leave the path idle.
/// At 500 MB/s it is ten chunks, at 100 Mbit/s a quarter of one.
const SLACK: Duration = Duration::from_millis(20);

/// The most that waits at the peer beyond what the path holds: a request deep in a queue arrives late and
/// is hard to move elsewhere.
const QUEUE: Duration = Duration::from_millis(500);

/// No request is late before this.
const LATE_FLOOR: Duration = Duration::from_secs(2);

/// A request is late after this many times the peer's median answer time.
const LATE_MEDIANS: u32 = 4;

/// Patience doubles each time that a peer is late in a row, up to this many times (to 32 s): one that is slow
/// but alive gets to deliver, and its median then speaks for it.
const LATE_DOUBLINGS: u32 = 4;

/// Measurements of one peer.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// Bytes delivered, with forgetting.
    bytes: u64,
    /// Microseconds that delivering them took, with forgetting.
    busy: u64,
    /// Bytes delivered in all.
    pub(super) delivered: u64,
    /// The shortest answer time of this and of the last half of [`SHORTEST_LIFE`].
    shortest: [Option<Duration>; 2],
    /// When the current half began.
    half_began: Duration,
    /// The last answer times, in a ring.
    recent: [Duration; RECENT],
    /// How many answers were measured.
    answers: usize,
    /// Since when the peer owes the bytes that come next.
    pub(super) owing_since: Duration,
}

impl Speed {
    /// Takes the measure of an answer of `bytes` to a request sent at `asked_at`.
    pub(super) fn delivered(&mut self, bytes: u64, asked_at: Duration, now: Duration) {
        self.bytes = self.bytes / 8 * 7 + bytes;
        let took = now.saturating_sub(self.owing_since.max(asked_at));
        self.busy = self.busy / 8 * 7 + u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 8);
        self.delivered += bytes;
        self.owing_since = now;
        let answer = now.saturating_sub(asked_at);
        if now.saturating_sub(self.half_began) > SHORTEST_LIFE / 2 {
            self.shortest = [None, self.shortest[0]];
            self.half_began = now;
        }
        self.shortest[0] = Some(self.shortest[0].map_or(answer, |old| old.min(answer)));
        self.recent[self.answers % RECENT] = answer;
        self.answers += 1;
    }

    /// Whether anything ever arrived.
    pub(super) fn is_proven(&self) -> bool {
        self.answers > 0
    }

    /// Bytes a second; `None` before the first answer.
    pub(super) fn rate(&self) -> Option<u64> {
        let rate = u128::from(self.bytes) * 1_000_000 / u128::from(self.busy.max(1));
        self.is_proven().then(|| u64::try_from(rate).unwrap_or(u64::MAX).max(1))
    }

    /// How long the peer needs for `bytes`, without the path's delay; `None` before the first answer.
    pub(super) fn transfer(&self, bytes: u64) -> Option<Duration> {
        let micros = u128::from(bytes) * u128::from(self.busy) / u128::from(self.bytes.max(1));
        self.is_proven().then(|| Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    /// The shortest time that an answer took lately; `None` before the first.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.shortest.iter().flatten().min().copied()
    }

    /// After how long a request is late, for a peer that was late `snubs` times in a row.
    pub(super) fn patience(&self, snubs: u32) -> Duration {
        let floor = LATE_FLOOR * 2u32.pow(snubs.min(LATE_DOUBLINGS));
        let mut recent = self.recent;
        let recent = &mut recent[..self.answers.min(RECENT)];
        recent.sort_unstable();
        recent.get(recent.len() / 2).map_or(floor, |median| floor.max(*median * LATE_MEDIANS))
    }

    /// Bytes that should be outstanding to keep the path full: at least two chunks.
    pub(super) fn pipeline(&self) -> u64 {
        let (Some(rate), Some(shortest)) = (self.rate(), self.shortest()) else { return 2 * CHUNK_LEN };
        let time = shortest + shortest.min(QUEUE) + SLACK;
        let bytes = u128::from(rate) * time.as_micros() / 1_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(2 * CHUNK_LEN)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CHUNK_LEN, Speed};

    const MS: Duration = Duration::from_millis(1);

    /// A path that carries a chunk in 10 ms with 100 ms of delay, asked for `depth` chunks at a time.
    fn measure(speed: &mut Speed, depth: u32, from: Duration) -> Duration {
        speed.owing_since = from;
        for i in 1..=depth {
            speed.delivered(CHUNK_LEN, from, from + 100 * MS + 10 * i * MS);
        }
        from + 100 * MS + 10 * depth * MS
    }

    #[test]
    fn the_pipeline_grows_until_the_path_is_full() {
        let (mut speed, mut now, mut depth) = (Speed::default(), Duration::ZERO, 2);
        for _ in 0..12 {
            now = measure(&mut speed, depth, now);
            depth = u32::try_from(speed.pipeline() / CHUNK_LEN).unwrap().min(64);
        }
        // What the path holds is 11 chunks. Asking in bursts hides the rate a little.
        assert!((11..=26).contains(&depth), "{depth}");
    }

    #[test]
    fn patience_is_four_medians_and_doubles() {
        let mut speed = Speed::default();
        assert_eq!(speed.patience(0), Duration::from_secs(2));
        assert_eq!(speed.patience(2), Duration::from_secs(8));
        assert_eq!(speed.patience(60), Duration::from_secs(32));
        for _ in 0..20 {
            speed.delivered(CHUNK_LEN, Duration::ZERO, Duration::from_secs(9));
        }
        assert_eq!(speed.patience(0), Duration::from_secs(36));
    }
}
