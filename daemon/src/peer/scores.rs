//! What is remembered of each peer: strikes, bans, failed dials, and how much it delivered and how fast.
//!
//! Pure: the time comes in, nothing is timed or stored here. The table is bounded; a flood of new peers pushes out
//! whoever was heard of least recently, banned peers last.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::{Block, HostAddr, PeerId};

/// Peers remembered at most: about 200 bytes each, so under a megabyte.
const MAX_PEERS: usize = 4096;

/// Strikes within [`STRIKE_WINDOW`] that ban.
const STRIKES: usize = 3;

/// How long a strike counts.
const STRIKE_WINDOW: Duration = Duration::from_secs(3600);

/// How long a ban lasts.
const BAN: Duration = Duration::from_secs(24 * 3600);

/// Wait after the first failure in a row; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// The longest wait between attempts: 2 s doubled nine times and cut.
const MAX_RETRY: Duration = Duration::from_secs(900);

/// Bytes that say something of a rate; how long less took is more a matter of the delay.
const MEASURED: u64 = 256 * 1024;

/// What a strike leads to, beside dropping the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection is dropped; the peer may come back.
    Drop,
    /// The peer is not spoken to until then.
    Ban(
        /// The end of the ban.
        SystemTime,
    ),
}

/// What is remembered of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// When each strike was given, oldest first; fewer than it takes to ban.
    pub strikes: Vec<SystemTime>,
    /// The end of its ban.
    pub banned_until: Option<SystemTime>,
    /// Where it was seen when it was struck last, if that was at a global address.
    pub host: Option<HostAddr>,
    /// Attempts in a row that came to nothing.
    pub failures: u32,
    /// Not worth another attempt before this.
    pub retry_at: Option<SystemTime>,
    /// Bytes per second that it delivered lately, smoothed.
    pub rate: Option<u64>,
    /// Bytes that it delivered, ever.
    pub delivered: u64,
    /// When it was last heard of.
    pub seen: SystemTime,
}

/// The book of all peers.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    peers: HashMap<PeerId, Score>,
}

impl Scores {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The peer broke the protocol or delivered bytes that are not what it said. The caller drops the connection.
    pub fn strike(&mut self, peer: PeerId, now: SystemTime) -> Verdict {
        let score = self.entry(peer, now);
        score.strikes.retain(|at| counts(*at, now));
        score.strikes.push(now);
        if score.strikes.len() < STRIKES {
            return Verdict::Drop;
        }
        score.strikes.clear();
        let until = now + BAN;
        score.banned_until = Some(until);
        Verdict::Ban(until)
    }

    /// Where a peer was seen that has just been struck.
    pub fn seen_at(&mut self, peer: &PeerId, host: Option<HostAddr>) {
        if let Some(score) = self.peers.get_mut(peer) {
            score.host = host.or(score.host);
        }
    }

    fn banned_hosts(&self, now: SystemTime) -> impl Iterator<Item = HostAddr> {
        let banned = move |score: &&Score| score.banned_until.is_some_and(|until| until > now);
        self.peers.values().filter(banned).filter_map(|score| score.host)
    }

    /// How many banned peers were seen at a host.
    #[must_use]
    pub fn banned_at(&self, host: HostAddr, now: SystemTime) -> usize {
        self.banned_hosts(now).filter(|banned| *banned == host).count()
    }

    /// At how many hosts of a block banned peers were seen.
    #[must_use]
    pub fn banned_in(&self, block: Block, now: SystemTime) -> usize {
        self.banned_hosts(now).filter(|host| host.block() == block).collect::<HashSet<_>>().len()
    }

    /// When the peer's ban ends; `None` when it has none (any more).
    #[must_use]
    pub fn banned_until(&self, peer: &PeerId, now: SystemTime) -> Option<SystemTime> {
        self.peers.get(peer)?.banned_until.filter(|until| *until > now)
    }

    /// How many of a peer's strikes count.
    #[must_use]
    pub fn strikes(&self, peer: &PeerId, now: SystemTime) -> usize {
        let count = |score: &Score| score.strikes.iter().filter(|at| counts(**at, now)).count();
        self.peers.get(peer).map_or(0, count)
    }

    /// Lifts a ban and forgets strikes.
    pub fn pardon(&mut self, peer: &PeerId) {
        if let Some(score) = self.peers.get_mut(peer) {
            score.banned_until = None;
            score.strikes.clear();
        }
    }

    /// An attempt came to nothing: no connection, a time-out. Gives when another is worth trying. Those that fail
    /// before that were made at once, and are one.
    pub fn failed(&mut self, peer: PeerId, now: SystemTime) -> SystemTime {
        let score = self.entry(peer, now);
        // Not after a clock that has been set back.
        let is_near = |at: &SystemTime| at.duration_since(now).is_ok_and(|wait| wait <= MAX_RETRY);
        if let Some(at) = score.retry_at.filter(|at| *at > now && is_near(at)) {
            return at;
        }
        let wait = FIRST_RETRY.saturating_mul(1 << score.failures.min(16)).min(MAX_RETRY);
        score.failures = score.failures.saturating_add(1);
        let at = now + wait;
        score.retry_at = Some(at);
        at
    }

    /// The peer delivered `bytes` that were what they should be, and owed something for `took`. Ends a row of failures.
    pub fn delivered(&mut self, peer: PeerId, bytes: u64, took: Duration, now: SystemTime) {
        let score = self.entry(peer, now);
        score.failures = 0;
        score.retry_at = None;
        score.delivered = score.delivered.saturating_add(bytes);
        if bytes < MEASURED {
            return;
        }
        let nanos = took.as_nanos().max(1);
        let measured = u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
        // A quarter of the new value: four deliveries forget half of what was, eight nearly all.
        score.rate = Some(score.rate.map_or(measured, |rate| rate - rate / 4 + measured / 4));
    }

    /// The peer shows that it is there: another attempt is worth it at once. Its row of failures goes on, so that the
    /// waits of one that is not reached all the same go on growing. Whether it was waited for.
    pub fn came(&mut self, peer: &PeerId) -> bool {
        self.peers.get_mut(peer).is_some_and(|score| score.retry_at.take().is_some())
    }

    /// Whether an attempt is worth it now: not banned, and not waiting after failures.
    #[must_use]
    pub fn is_worth_trying(&self, peer: &PeerId, now: SystemTime) -> bool {
        let waiting = |score: &Score| score.retry_at.is_some_and(|at| at > now);
        self.banned_until(peer, now).is_none() && !self.peers.get(peer).is_some_and(waiting)
    }

    /// What is remembered of a peer.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Score> {
        self.peers.get(peer)
    }

    /// All of it, in no order, to be shown or kept.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Score)> {
        self.peers.iter()
    }

    /// Puts back what was kept. Bounded like everything else.
    pub fn restore(&mut self, peer: PeerId, score: Score) {
        let seen = score.seen;
        *self.entry(peer, seen) = score;
    }

    /// The peer's entry; makes room for it first.
    fn entry(&mut self, peer: PeerId, now: SystemTime) -> &mut Score {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            let banned = |score: &Score| score.banned_until.filter(|until| *until > now);
            let least = self.peers.iter().min_by_key(|(_, score)| (banned(score), score.seen));
            if let Some(least) = least.map(|(peer, _)| *peer) {
                self.peers.remove(&least);
            }
        }
        let score = self.peers.entry(peer).or_insert_with(|| Score {
            strikes: Vec::new(),
            banned_until: None,
            host: None,
            failures: 0,
            retry_at: None,
            rate: None,
            delivered: 0,
            seen: now,
        });
        score.seen = now;
        score
    }
}

/// Whether a strike of then counts now.
fn counts(at: SystemTime, now: SystemTime) -> bool {
    now.duration_since(at).is_ok_and(|age| age < STRIKE_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn three_strikes_in_an_hour_ban_for_a_day() {
        let (mut scores, peer) = (Scores::new(), PeerId::random());
        assert_eq!(scores.strike(peer, at(0)), Verdict::Drop);
        assert_eq!(scores.strike(peer, at(1800)), Verdict::Drop);
        assert_eq!([1800, 3600, 5400].map(|second| scores.strikes(&peer, at(second))), [2, 1, 0]);
        // The first is an hour old by now.
        assert_eq!(scores.strike(peer, at(3600)), Verdict::Drop);
        assert_eq!(scores.strike(peer, at(3601)), Verdict::Ban(at(3601 + 86400)));
        assert!(!scores.is_worth_trying(&peer, at(3602)));
        assert_eq!(scores.banned_until(&peer, at(3601 + 86399)), Some(at(3601 + 86400)));
        assert_eq!(scores.banned_until(&peer, at(3601 + 86400)), None);
        // The ban has been served: the count starts anew.
        assert_eq!(scores.strike(peer, at(3602 + 86400)), Verdict::Drop);
        scores.strike(peer, at(3602 + 86400));
        scores.strike(peer, at(3602 + 86400));
        scores.pardon(&peer);
        assert!(scores.is_worth_trying(&peer, at(3602 + 86400)));
    }

    #[test]
    fn failures_in_a_row_wait_longer_and_a_delivery_ends_them() {
        let (mut scores, peer) = (Scores::new(), PeerId::random());
        assert_eq!(scores.failed(peer, at(0)), at(2));
        assert_eq!(scores.failed(peer, at(2)), at(6));
        assert!(!scores.is_worth_trying(&peer, at(5)) && scores.is_worth_trying(&peer, at(6)));
        // Many fetches try at once.
        assert!((0..100).all(|_| scores.failed(peer, at(6)) == at(14)));
        assert_eq!(scores.get(&peer).unwrap().failures, 3);
        let mut now = at(14);
        for _ in 0..100 {
            let next = scores.failed(peer, now);
            assert!(next <= now + MAX_RETRY);
            now = next;
        }
        assert_eq!(scores.failed(peer, now), now + MAX_RETRY);
        scores.delivered(peer, 1 << 20, Duration::from_secs(1), at(7));
        assert!(scores.is_worth_trying(&peer, at(7)));
        assert_eq!(scores.failed(peer, at(7)), at(9));
        scores.delivered(peer, MEASURED - 1, Duration::from_secs(60), at(8));
        let score = scores.get(&peer).unwrap();
        assert_eq!((score.rate, score.delivered), (Some(1 << 20), (1 << 20) + MEASURED - 1));
        scores.delivered(peer, u64::MAX, Duration::ZERO, at(8));
        let score = scores.get(&peer).unwrap();
        assert!(score.rate > Some(1 << 20) && score.delivered == u64::MAX);
    }

    #[test]
    fn who_shows_that_it_is_there_is_worth_trying_and_waits_no_shorter_the_next_time() {
        let (mut scores, peer) = (Scores::new(), PeerId::random());
        assert!(!scores.came(&peer) && scores.iter().count() == 0);
        assert_eq!(scores.failed(peer, at(0)), at(2));
        assert!(scores.came(&peer) && !scores.came(&peer) && scores.is_worth_trying(&peer, at(0)));
        assert_eq!(scores.failed(peer, at(0)), at(4));
        (0..STRIKES).for_each(|_| _ = scores.strike(peer, at(0)));
        scores.came(&peer);
        assert!(!scores.is_worth_trying(&peer, at(0)), "that lifts no ban");
    }

    #[test]
    fn a_flood_of_strangers_does_not_wash_a_ban_away() {
        let (mut scores, liar) = (Scores::new(), PeerId::random());
        for _ in 0..STRIKES {
            scores.strike(liar, at(0));
        }
        for second in 1..=MAX_PEERS as u64 + 100 {
            scores.failed(PeerId::random(), at(second));
        }
        assert_eq!(scores.iter().count(), MAX_PEERS);
        assert!(scores.banned_until(&liar, at(10_000)).is_some());
    }

    proptest! {
        #[test]
        fn clocks_that_jump_do_no_harm(times in prop::collection::vec(0u64..200_000, 1..40)) {
            let (mut scores, peer) = (Scores::new(), PeerId::random());
            for time in times {
                scores.strike(peer, at(time));
                scores.failed(peer, at(time));
                scores.delivered(peer, time, Duration::from_nanos(time), at(time));
                prop_assert!(scores.get(&peer).unwrap().strikes.len() < STRIKES);
            }
        }
    }
}
