//! One peer of a fetch: its credits, what is outstanding at it, how it has behaved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::given::Given;
use super::holders::Holding;
use super::speed::{Speed, micros, part};
use super::{CHUNK_LEN, Credits, Shard};

/// A peer is late when nothing has come for so long of what is its turn to give…
const LATE: Duration = Duration::from_secs(2);

/// …which doubles each time that it is late in a row, up to this many times (to 32 s): one that gives now and then
/// gets to deliver.
const LATE_DOUBLINGS: u32 = 4;

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

/// What was measured of a peer that has had nothing to do for so long is old: it is tried as if nobody knew it.
const STALE: Duration = Duration::from_secs(30);

/// A peer is slow, and nothing waits for it that can be had otherwise, when a chunk takes it so long, and so many times
/// as long as the fastest.
const SLOW: (Duration, u32) = (Duration::from_secs(2), 20);

/// A peer that lacked this many parity shards, and a quarter of what it gave besides, is taken to have none.
const PARITY_MISSES: u32 = 8;

/// One request that is outstanding at a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// What was asked for.
    pub(super) shard: Shard,
    /// Bytes of the answer.
    pub(super) bytes: u64,
    /// Bytes that the peer had delivered in all when it was asked.
    pub(super) before: u64,
    /// When it was asked.
    pub(super) asked_at: Duration,
    /// Bytes of the answer that have come, as far as was told.
    pub(super) came: u64,
    /// When some of them last came; before that, when it was asked.
    pub(super) moved_at: Duration,
}

impl Request {
    /// A request that is sent at `now` to a peer that has delivered so many bytes `before`.
    pub(super) fn new(shard: Shard, bytes: u64, before: u64, now: Duration) -> Self {
        Self { shard, bytes, before, asked_at: now, came: 0, moved_at: now }
    }
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
    /// Since when it is the turn of the first of `requests`, and how much of that had come by then.
    turn: (Duration, u64),
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
    /// It is so much slower than the fastest that nothing should wait for it.
    slow: bool,
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
            turn: (Duration::ZERO, 0),
            speed: Speed::default(),
            wait_until: Duration::ZERO,
            failures: 0,
            snubs: 0,
            snubbed: false,
            slow: false,
            avoid: None,
            queue: Vec::new(),
            dry: false,
            spared: false,
        }
    }

    /// Whether it can be waited for: not late, not twice late in a row before, not much slower than others, not to be
    /// left alone for long.
    pub(super) fn is_available(&self, now: Duration) -> bool {
        self.is_trusted() && !self.snubbed && !self.slow && self.wait_until <= now + SHORT_WAIT
    }

    /// How long it takes for a chunk; `None` before it has delivered, and while it is late.
    pub(super) fn pace(&self) -> Option<Duration> {
        self.speed.transfer(CHUNK_LEN).filter(|_| self.speed.is_proven() && !self.snubbed)
    }

    /// Compares it with the fastest that is here, who takes so long for a chunk.
    pub(super) fn compare(&mut self, fastest: Option<Duration>) {
        let (least, times) = SLOW;
        let most = fastest.map(|fastest| least.max(fastest * times));
        self.slow = most.is_some_and(|most| self.speed.transfer(CHUNK_LEN) > Some(most));
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
        asked == 0 || self.failures + self.snubs == 0 && self.owed + bytes <= self.speed.pipeline(now)
    }

    /// Notes that it is asked for `bytes`.
    pub(super) fn start(&mut self, shard: Shard, bytes: u64, now: Duration) {
        if self.requests.is_empty() {
            (self.speed.owing_since, self.turn) = (now, (now, 0));
        }
        self.owed += bytes;
        self.requests.push(Request::new(shard, bytes, self.speed.delivered, now));
    }

    /// Forgets a request, if it is there.
    pub(super) fn end(&mut self, shard: Shard, now: Duration) -> Option<Request> {
        let at = self.place_of(shard)?;
        let request = self.requests.remove(at);
        self.owed -= request.bytes;
        self.snubbed &= !self.requests.is_empty();
        if at == 0 {
            self.turn = (now, self.requests.first().map_or(0, |next| next.came));
        }
        Some(request)
    }

    /// The place of a request among those that are outstanding.
    pub(super) fn place_of(&self, shard: Shard) -> Option<usize> {
        self.requests.iter().position(|request| request.shard == shard)
    }

    /// Notes that `bytes` of a request have come; tells whether that is more than before.
    pub(super) fn came(&mut self, shard: Shard, bytes: u64, now: Duration) -> bool {
        let Some(request) = self.requests.iter_mut().find(|request| request.shard == shard) else {
            return false;
        };
        let bytes = bytes.min(request.bytes);
        if bytes <= request.came {
            return false;
        }
        self.speed.came(bytes - request.came, request.asked_at, now);
        (request.came, request.moved_at) = (bytes, now);
        self.snubbed = false;
        true
    }

    /// Notes that a request has not been sent yet.
    pub(super) fn held(&mut self, shard: Shard, now: Duration) {
        let Some(at) = self.place_of(shard) else { return };
        if at == 0 {
            (self.speed.owing_since, self.turn) = (now, (now, 0));
        }
        if let Some(request) = self.requests.get_mut(at) {
            (request.asked_at, request.moved_at) = (now, now);
        }
    }

    /// Notes that `request` was answered with what was asked for.
    pub(super) fn delivered(&mut self, request: &Request, now: Duration) {
        if now < self.wait_until && self.failures + self.snubs > 0 {
            self.wait_until = now;
        }
        self.speed.delivered(request, now);
        (self.failures, self.snubs, self.snubbed, self.avoid) = (0, 0, false, None);
    }

    /// Notes an answer that is neither data nor a fault.
    pub(super) fn answered(&mut self, now: Duration) {
        self.speed.owing_since = now;
        self.snubbed = false;
    }

    /// Notes that it lacks something: it may have failed before, but answers.
    pub(super) fn lacks(&mut self, now: Duration) {
        self.answered(now);
        self.failures = self.failures.saturating_sub(1);
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

    /// When it is late, unless that is known already. What has come and is being proved is not waited for.
    pub(super) fn late_at(&self) -> Option<Duration> {
        let first = self.requests.first().filter(|first| !self.snubbed && first.came < first.bytes)?;
        Some(first.moved_at.max(self.turn.0) + patience(self.snubs))
    }

    /// Notes that it is late.
    pub(super) fn snub(&mut self, now: Duration) {
        self.wait_until = self.wait_until.max(now + backoff(self.snubs));
        self.snubs = self.snubs.saturating_add(1);
        self.snubbed = true;
    }

    /// In what time it would answer one more request of `bytes`, as far as can be told: a guess while it is
    /// idle and nothing ever came of it, `None` while it is busy and nothing has.
    pub(super) fn answers_in(&self, bytes: u64, now: Duration) -> Option<Duration> {
        // One that was late takes at least as long as it was waited for, until it shows otherwise.
        let doubt = if self.snubs == 0 { Duration::ZERO } else { patience(self.snubs - 1) };
        let Some(each) = self.speed.transfer(bytes) else {
            return self.requests.is_empty().then_some(GUESS.max(doubt));
        };
        let shortest = self.speed.shortest().unwrap_or_default();
        let Some(last) = self.requests.len().checked_sub(1) else {
            let is_stale = now.saturating_sub(self.speed.owing_since) > STALE;
            let known = shortest.max(each);
            let expected = if is_stale { known.min(GUESS) } else { known };
            return Some(expected.max(doubt));
        };
        Some(shortest.max(self.finishes_in(last, now) + each).max(doubt))
    }

    /// In what time the answer to the request at place `at` is expected. One that is overdue is expected to take
    /// as long again as it has been overdue.
    pub(super) fn finishes_in(&self, at: usize, now: Duration) -> Duration {
        let (Some(first), Some(last)) = (self.requests.first(), self.requests.get(at)) else {
            return Duration::ZERO;
        };
        let upto: u64 = self.requests.iter().take(at + 1).map(|request| request.bytes).sum();
        let (since, before) = self.turn;
        let due = match self.speed.transfer(upto) {
            // As fast as the first of them comes now.
            _ if first.came > before => {
                let took = micros(first.moved_at.saturating_sub(since));
                let rest = part(took, upto.saturating_sub(first.came), first.came - before);
                first.moved_at + Duration::from_micros(rest)
            }
            Some(transfer) => {
                let shortest = self.speed.shortest().unwrap_or_default();
                (self.speed.owing_since + transfer).max(last.asked_at + shortest)
            }
            None => last.asked_at,
        };
        due.abs_diff(now)
    }
}

/// After what silence a peer is late that was late `snubs` times in a row.
fn patience(snubs: u32) -> Duration {
    LATE * 2u32.pow(snubs.min(LATE_DOUBLINGS))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_late_and_bytes_that_come_are_not() {
        let second = Duration::from_secs;
        let mut peer = Peer::new(Credits { requests: 8, bytes: 8 * CHUNK_LEN });
        let (first, next) = (Shard::Data(0), Shard::Data(1));
        peer.start(first, CHUNK_LEN, second(1));
        peer.start(next, CHUNK_LEN, second(1));
        assert_eq!(peer.late_at(), Some(second(3)));
        assert!(peer.came(first, 8192, second(2)) && !peer.came(first, 8192, second(3)));
        assert_eq!(peer.late_at(), Some(second(4)), "since it last came");
        // 128 chunks' worth of seconds for one, twice that for both.
        assert_eq!(peer.finishes_in(0, second(2)), second(127));
        assert_eq!(peer.finishes_in(1, second(2)), second(255));
        peer.snub(second(4));
        assert!(peer.late_at().is_none() && peer.came(first, 16384, second(5)));
        assert_eq!(peer.late_at(), Some(second(9)), "twice as patient");
        assert!(peer.end(first, second(8)).is_some());
        assert_eq!(peer.late_at(), Some(second(12)), "since it is its turn");
        peer.held(next, second(20));
        assert_eq!(peer.late_at(), Some(second(24)), "since it is sent");
        assert!(peer.came(next, CHUNK_LEN, second(21)) && peer.late_at().is_none(), "all is here");
    }

    #[test]
    fn who_is_much_slower_than_the_fastest_is_not_waited_for() {
        let second = Duration::from_secs;
        let mut peer = Peer::new(Credits { requests: 8, bytes: 8 * CHUNK_LEN });
        peer.start(Shard::Data(0), CHUNK_LEN, second(0));
        peer.compare(Some(Duration::from_millis(1)));
        assert!(peer.is_available(second(0)), "nobody knows yet");
        assert!(peer.came(Shard::Data(0), CHUNK_LEN / 4, second(1)));
        peer.compare(Some(Duration::from_millis(300)));
        assert!(peer.is_available(second(1)), "four seconds beside six");
        peer.compare(Some(Duration::from_millis(100)));
        assert!(!peer.is_available(second(1)), "four seconds beside two");
        peer.compare(None);
        assert!(peer.is_available(second(1)), "nobody is faster");
    }
}
