//! One peer of a fetch: its credits, what is outstanding at it, how it has behaved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::given::Given;
use super::holders::Holding;
use super::speed::Speed;
use super::{Credits, Shard};

/// The first wait after a failure or a late answer; doubles each time in a row.
const BACKOFF: Duration = Duration::from_secs(1);

/// Doublings of [`BACKOFF`]: the longest wait is 64 s.
const BACKOFF_DOUBLINGS: u32 = 6;

/// What a peer may ask for when it is busy.
const BUSY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// A peer that is to be left alone for no longer than this is waited for, rather than using parity.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// A peer that was late this often in a row is still tried, but not counted on.
const DISTRUST: u32 = 2;

/// When an idle peer that never delivered is expected to answer: a guess, so that it is worth trying for what
/// a known peer takes longer for.
const GUESS: Duration = Duration::from_millis(250);

/// A peer that lacked this many parity shards, and a quarter of what it gave besides, is taken to have none.
const PARITY_MISSES: u32 = 8;

/// One request that is outstanding at a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// What was asked for.
    pub(super) shard: Shard,
    /// Bytes of the answer.
    pub(super) bytes: u64,
    /// When it was asked.
    pub(super) asked_at: Duration,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// What it grants.
    pub(super) credits: Credits,
    /// Which data chunks it holds.
    pub(super) holding: Holding,
    /// What it gives to others.
    pub(super) given: Given,
    /// What it has been found to lack of the parity.
    pub(super) parity: ParityRecord,
    /// What is outstanding, in the order in which it was asked.
    pub(super) requests: Vec<Request>,
    /// Bytes of `requests`.
    pub(super) owed: u64,
    /// How fast it is.
    pub(super) speed: Speed,
    /// Not asked before this: it is busy, or failed, or was late.
    pub(super) wait_until: Duration,
    /// Failures since the last delivery.
    failures: u32,
    /// Times that it was late since the last delivery.
    snubs: u32,
    /// It owes something that is late, and is not asked for more.
    pub(super) snubbed: bool,
    /// The data chunk that failed here last: asked of it again only when there is nothing else.
    pub(super) avoid: Option<u64>,
    /// Chunks to ask of it next with their rarity at the time of sorting, the best last.
    pub(super) queue: Vec<(u64, u16)>,
    /// It has no open chunk but those in [`Flight::again`](super::flight::Flight): sorting is no use until it
    /// tells of more.
    pub(super) dry: bool,
    /// What it gives to others was left out when its queue was sorted.
    pub(super) spared: bool,
}

impl Peer {
    /// A peer that nothing is known of.
    pub(super) fn new(credits: Credits) -> Self {
        Self {
            credits,
            holding: Holding::default(),
            given: Given::default(),
            parity: ParityRecord::default(),
            requests: Vec::new(),
            owed: 0,
            speed: Speed::default(),
            wait_until: Duration::ZERO,
            failures: 0,
            snubs: 0,
            snubbed: false,
            avoid: None,
            queue: Vec::new(),
            dry: false,
            spared: false,
        }
    }

    /// Whether it can be waited for: not late, not twice late in a row before, not to be left alone for long.
    pub(super) fn is_available(&self, now: Duration) -> bool {
        self.is_trusted() && !self.snubbed && self.wait_until <= now + SHORT_WAIT
    }

    /// Whether what is asked of it can be counted on.
    pub(super) fn is_trusted(&self) -> bool {
        self.snubs < DISTRUST
    }

    /// Whether what is outstanding here may well never come: it is late, or has yet to deliver.
    pub(super) fn is_doubtful(&self) -> bool {
        self.snubs > 0 || !self.speed.is_proven()
    }

    /// Whether `bytes` more may be asked of it now.
    pub(super) fn has_room(&self, bytes: u64, now: Duration) -> bool {
        let asked = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        if now < self.wait_until || asked >= self.credits.requests || self.owed + bytes > self.credits.bytes {
            return false;
        }
        // Trust comes back with an answer to a single request.
        asked == 0 || self.failures + self.snubs == 0 && self.owed + bytes <= self.speed.pipeline()
    }

    /// Notes a request as sent.
    pub(super) fn start(&mut self, request: Request) {
        if self.requests.is_empty() {
            self.speed.owing_since = request.asked_at;
        }
        self.owed += request.bytes;
        self.requests.push(request);
    }

    /// Forgets a request, if it is there.
    pub(super) fn end(&mut self, shard: Shard) -> Option<Request> {
        let at = self.requests.iter().position(|request| request.shard == shard)?;
        let request = self.requests.remove(at);
        self.owed -= request.bytes;
        self.snubbed &= !self.requests.is_empty();
        Some(request)
    }

    /// Notes that `request` was answered with what was asked for.
    pub(super) fn delivered(&mut self, request: &Request, now: Duration) {
        if now < self.wait_until && self.failures + self.snubs > 0 {
            self.wait_until = now;
        }
        self.speed.delivered(request.bytes, request.asked_at, now);
        (self.failures, self.snubs, self.snubbed, self.avoid) = (0, 0, false, None);
    }

    /// Notes an answer that is neither data nor a fault.
    pub(super) fn answered(&mut self, now: Duration) {
        self.speed.owing_since = now;
        self.snubbed = false;
    }

    /// Notes that it wants to be left alone.
    pub(super) fn busy(&mut self, retry_after: Duration, now: Duration) {
        self.answered(now);
        self.wait_until = self.wait_until.max(now + retry_after.clamp(BUSY.0, BUSY.1));
    }

    /// Notes that a request for `shard` failed.
    pub(super) fn failed(&mut self, shard: Shard, now: Duration) {
        self.answered(now);
        if now >= self.wait_until {
            // Requests that fail together are one failure.
            self.wait_until = now + backoff(self.failures);
            self.failures = self.failures.saturating_add(1);
        }
        if let Shard::Data(chunk) = shard {
            self.avoid = Some(chunk);
        }
    }

    /// When the oldest request is late, unless that is known already.
    pub(super) fn late_at(&self) -> Option<Duration> {
        let oldest = self.requests.first().filter(|_| !self.snubbed)?;
        Some(oldest.asked_at + self.speed.patience(self.snubs))
    }

    /// Notes that it is late.
    pub(super) fn snub(&mut self, now: Duration) {
        self.wait_until = self.wait_until.max(now + backoff(self.snubs));
        self.snubs = self.snubs.saturating_add(1);
        self.snubbed = true;
    }

    /// In what time it would answer one more request of `bytes`, as far as can be told: a guess while it is
    /// idle and never delivered, `None` while it is busy with its first.
    pub(super) fn answers_in(&self, bytes: u64, now: Duration) -> Option<Duration> {
        // One that was late takes at least as long as it was waited for, until it shows otherwise.
        let doubt = if self.snubs == 0 { Duration::ZERO } else { self.speed.patience(self.snubs - 1) };
        let (Some(each), Some(shortest)) = (self.speed.transfer(bytes), self.speed.shortest()) else {
            return self.requests.is_empty().then_some(GUESS.max(doubt));
        };
        let owed = self.speed.transfer(self.owed).unwrap_or_default();
        let spent = now.saturating_sub(self.speed.owing_since);
        Some(shortest.max(owed.saturating_sub(spent) + each).max(doubt))
    }

    /// In what time the answer to the request at place `at` is expected. One that is overdue is expected to take
    /// as long again as it has been overdue.
    pub(super) fn finishes_in(&self, at: usize, now: Duration) -> Duration {
        let Some(request) = self.requests.get(at) else { return Duration::ZERO };
        let ahead: u64 = self.requests[..=at].iter().map(|request| request.bytes).sum();
        let due = match (self.speed.transfer(ahead), self.speed.shortest()) {
            (Some(transfer), Some(shortest)) => {
                (self.speed.owing_since + transfer).max(request.asked_at + shortest)
            }
            _ => request.asked_at,
        };
        due.abs_diff(now)
    }
}

/// The wait after `before` faults in a row.
fn backoff(before: u32) -> Duration {
    BACKOFF * 2u32.pow(before.min(BACKOFF_DOUBLINGS))
}

/// Which parity shards a peer has been found to lack. Nobody says beforehand who holds parity.
#[derive(Debug, Default)]
pub(super) struct ParityRecord {
    /// Those it lacks of stripes that are not finished: (stripe, shard). Bounded by [`PARITY_MISSES`].
    lacks: BTreeMap<u32, BTreeSet<u8>>,
    /// Parity shards that it gave.
    hits: u32,
    /// Parity shards that it lacked.
    misses: u32,
}

impl ParityRecord {
    /// Whether it may hold a parity shard.
    pub(super) fn may_have(&self, stripe: u32, index: u8) -> bool {
        self.misses < PARITY_MISSES + self.hits / 4
            && !self.lacks.get(&stripe).is_some_and(|lacks| lacks.contains(&index))
    }

    /// It gave one.
    pub(super) fn hit(&mut self) {
        self.hits = self.hits.saturating_add(1);
    }

    /// It lacked one.
    pub(super) fn miss(&mut self, stripe: u32, index: u8) {
        self.misses = self.misses.saturating_add(1);
        if self.misses <= PARITY_MISSES + self.hits / 4 {
            self.lacks.entry(stripe).or_default().insert(index);
        }
    }

    /// A stripe is finished.
    pub(super) fn finished(&mut self, stripe: u32) {
        self.lacks.remove(&stripe);
    }
}
