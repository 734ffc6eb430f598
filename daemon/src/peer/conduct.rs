//! How peers behave, shared by all who meet them: strikes, bans, scores.
//!
//! Owns: the book of all peers, and who may not be spoken to. Refuses: to ban a host before several peers at it were
//! banned, or a block before peers at several hosts of it were, and ever for loopback, private or configured peers. The
//! time is passed in. Survives a crash: what was written of [`Conduct::save`].
//!
//! A peer that broke a protocol, lied, or flooded is struck: its connections end. Three strikes within an hour ban it
//! for a day. While [`OF_HOST`] peers of one host are banned, nobody is let in from it, and while peers at [`OF_BLOCK`]
//! hosts of one block are, nobody from there: who makes up ids at one host shuts out no neighbours.

mod saved;

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::{HostAddr, PeerId, Score, Scores, Verdict};

/// Banned peers of one host that ban the host.
const OF_HOST: usize = 4;
/// Hosts of one block with banned peers that ban the block.
const OF_BLOCK: usize = 4;

/// The book. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Conduct(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    book: Mutex<Book>,
    /// Counts bans and pardons, so that connections learn of them.
    bans: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Book {
    scores: Scores,
    /// Configured peers.
    spared: HashSet<PeerId>,
    /// Whether something has changed that is kept.
    is_news: bool,
}

/// How a peer has behaved, for people to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Bytes a second that it gave lately; `None` where that has not been seen.
    pub rate: Option<u64>,
    /// Bytes that it gave, ever, as far as it is remembered.
    pub delivered: u64,
    /// Attempts to reach it in a row that came to nothing.
    pub failures: u32,
    /// Strikes of the last hour.
    pub strikes: usize,
    /// The end of its ban, if it is banned.
    pub banned_until: Option<SystemTime>,
}

/// A peer that is not spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub peer: PeerId,
    /// Until when.
    pub until: SystemTime,
}

impl Book {
    /// Whether nobody is let in from a host.
    fn is_shut(&self, host: HostAddr, now: SystemTime) -> bool {
        self.scores.banned_at(host, now) >= OF_HOST || self.scores.banned_in(host.block(), now) >= OF_BLOCK
    }
}

impl Default for Conduct {
    fn default() -> Self {
        let book = Mutex::new(Book::default());
        Self(Arc::new(Inner { book, bans: watch::Sender::new(0) }))
    }
}

impl Conduct {
    /// An empty book; blocks are never banned for `configured` peers.
    #[must_use]
    pub fn new(configured: impl IntoIterator<Item = PeerId>) -> Self {
        let conduct = Self::default();
        conduct.book().spared.extend(configured);
        conduct
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer, seen `at`, broke a protocol, lied or flooded; `why` is for the log, which hears of bans. The caller
    /// drops the connection.
    pub fn strike(&self, peer: PeerId, at: Option<IpAddr>, why: &str, now: SystemTime) -> Verdict {
        let mut book = self.book();
        if let Some(until) = book.scores.banned_until(&peer, now) {
            return Verdict::Ban(until);
        }
        let verdict = book.scores.strike(peer, now);
        let host = at.and_then(HostAddr::of);
        book.scores.seen_at(&peer, host);
        book.is_news = true;
        let neighbours = host.is_some_and(|host| book.is_shut(host, now));
        drop(book);
        if let Verdict::Ban(until) = verdict {
            let hours = until.duration_since(now).unwrap_or_default().as_secs().div_ceil(3600);
            tracing::warn!(%peer, why, hours, neighbours, "a peer is banned: it misbehaved three times within an hour");
            self.0.bans.send_modify(|count| *count += 1);
        }
        verdict
    }

    /// An attempt came to nothing: no connection, a time-out.
    pub fn failed(&self, peer: PeerId, now: SystemTime) {
        let mut book = self.book();
        book.scores.failed(peer, now);
        book.is_news = true;
    }

    /// The peer shows that it is there: whoever could not reach it may try again at once.
    pub fn came(&self, peer: &PeerId) {
        let mut book = self.book();
        let was_waited_for = book.scores.came(peer);
        book.is_news |= was_waited_for;
    }

    /// The peer gave `bytes` that are what they should be, and owed something for `took`. Ends a row of failures.
    pub fn delivered(&self, peer: PeerId, bytes: u64, took: Duration, now: SystemTime) {
        let mut book = self.book();
        book.scores.delivered(peer, bytes, took, now);
        book.is_news = true;
    }

    /// Whether an attempt is worth it now: not banned, and not waiting after failures.
    #[must_use]
    pub fn is_worth_trying(&self, peer: &PeerId, now: SystemTime) -> bool {
        self.book().scores.is_worth_trying(peer, now)
    }

    /// When a peer's own ban ends; `None` when it has none (any more).
    #[must_use]
    pub fn banned_until(&self, peer: &PeerId, now: SystemTime) -> Option<SystemTime> {
        self.book().scores.banned_until(peer, now)
    }

    /// Whether a peer seen `at` may be spoken to: neither it nor its host or block is banned.
    #[must_use]
    pub fn admits(&self, peer: &PeerId, at: Option<IpAddr>, now: SystemTime) -> bool {
        let book = self.book();
        if book.scores.banned_until(peer, now).is_some() {
            return false;
        }
        let host = at.and_then(HostAddr::of).filter(|_| !book.spared.contains(peer));
        host.is_none_or(|host| !book.is_shut(host, now))
    }

    /// Lifts a peer's ban; false when it had none.
    #[must_use]
    pub fn pardon(&self, peer: &PeerId, now: SystemTime) -> bool {
        let mut book = self.book();
        let had = book.scores.banned_until(peer, now).is_some();
        book.scores.pardon(peer);
        book.is_news = true;
        drop(book);
        self.0.bans.send_modify(|count| *count += 1);
        had
    }

    /// All that are remembered.
    #[must_use]
    pub fn standings(&self, now: SystemTime) -> Vec<(PeerId, Standing)> {
        let book = self.book();
        let standing = |(peer, score): (&PeerId, &Score)| {
            let strikes = book.scores.strikes(peer, now);
            let banned_until = score.banned_until.filter(|until| *until > now);
            let Score { rate, delivered, failures, .. } = *score;
            (*peer, Standing { rate, delivered, failures, strikes, banned_until })
        };
        book.scores.iter().map(standing).collect()
    }

    /// Who is banned.
    #[must_use]
    pub fn bans(&self, now: SystemTime) -> Vec<Ban> {
        let book = self.book();
        let banned = book.scores.iter().filter_map(|(peer, score)| Some((*peer, score.banned_until?)));
        banned.filter(|(_, until)| *until > now).map(|(peer, until)| Ban { peer, until }).collect()
    }

    /// Changes when somebody is banned or pardoned.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.bans.subscribe()
    }

    /// What is to be written down, when something has changed since the last call.
    #[must_use]
    pub fn save(&self) -> Option<Vec<u8>> {
        let mut book = self.book();
        std::mem::take(&mut book.is_news).then(|| saved::encode(&book.scores))
    }

    /// Takes in what was written down.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it is damaged or of another form; then nothing is taken.
    pub fn restore(&self, bytes: &[u8]) -> io::Result<()> {
        let mut book = self.book();
        for (peer, score) in saved::decode(bytes)? {
            book.scores.restore(peer, score);
        }
        Ok(())
    }

    /// The longest that is written down.
    pub const MAX_SAVED: usize = saved::MAX_FILE;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn ban(conduct: &Conduct, peer: PeerId, ip: &str) {
        for _ in 0..3 {
            conduct.strike(peer, ip.parse().ok(), "it lies", at(0));
        }
    }

    #[test]
    fn a_block_is_banned_for_several_peers_and_never_a_private_or_configured_one() {
        let configured = PeerId::random();
        let conduct = Conduct::new([configured]);
        let stranger = PeerId::random();
        let admits = |peer: &PeerId, ip: &str| conduct.admits(peer, ip.parse().ok(), at(1));
        let liars: Vec<_> = (0..OF_BLOCK).map(|_| PeerId::random()).collect();
        for (number, liar) in liars.iter().enumerate() {
            assert!(admits(&stranger, "203.0.113.77"), "{number}");
            ban(&conduct, *liar, &format!("203.0.113.{number}"));
            assert!(!admits(liar, "198.51.100.1"), "wherever it comes from");
        }
        assert!(!admits(&stranger, "203.0.113.77") && !admits(&stranger, "::ffff:203.0.113.78"));
        assert!(admits(&stranger, "203.0.112.77") && admits(&configured, "203.0.113.77"));
        // A pardon opens the block again, and so does the end of the bans.
        assert!(conduct.pardon(&liars[0], at(1)) && !conduct.pardon(&liars[0], at(1)));
        assert!(admits(&stranger, "203.0.113.77") && admits(&liars[0], "203.0.113.0"));
        ban(&conduct, liars[0], "203.0.113.0");
        assert!(conduct.admits(&stranger, "203.0.113.77".parse().ok(), at(24 * 3600)));
        for ip in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "fd00::1", "::1"] {
            (0..2 * OF_BLOCK).for_each(|_| ban(&conduct, PeerId::random(), ip));
            assert!(admits(&stranger, ip), "{ip}");
        }
        assert!(conduct.admits(&stranger, None, at(1)));
    }

    #[test]
    fn ids_made_up_at_one_host_ban_that_host_alone() {
        let (conduct, stranger) = (Conduct::default(), PeerId::random());
        let admits = |ip: &str| conduct.admits(&stranger, ip.parse().ok(), at(1));
        for (own, neighbour) in
            [("203.0.113.1", "203.0.113.2"), ("2a00:1450:4001::1", "2a00:1450:4001:100::1")]
        {
            for number in 0..3 * OF_HOST {
                assert_eq!(admits(own), number < OF_HOST, "{number} {own}");
                ban(&conduct, PeerId::random(), own);
            }
            assert!(admits(neighbour));
        }
    }

    #[test]
    fn who_watches_learns_of_bans_and_pardons() {
        let (conduct, peer) = (Conduct::default(), PeerId::random());
        let mut changes = conduct.changes();
        conduct.strike(peer, None, "it lies", at(0));
        assert!(!changes.has_changed().unwrap() && conduct.bans(at(0)).is_empty());
        ban(&conduct, peer, "203.0.113.1");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(conduct.bans(at(0))[0].peer, peer);
        assert!(conduct.pardon(&peer, at(0)) && changes.has_changed().unwrap());
    }

    #[test]
    fn what_is_written_down_is_known_again() {
        let (conduct, liar, late) = (Conduct::default(), PeerId::random(), PeerId::random());
        assert_eq!(conduct.save(), None);
        ban(&conduct, liar, "203.0.113.1");
        conduct.failed(late, at(5));
        let good = PeerId::random();
        conduct.delivered(good, 3 << 20, Duration::from_secs(3), at(5));
        let bytes = conduct.save().unwrap();
        assert_eq!(conduct.save(), None, "nothing is new");
        let again = Conduct::default();
        again.restore(&bytes).unwrap();
        assert_eq!(again.bans(at(1)), conduct.bans(at(1)));
        let standing =
            |of: &PeerId| again.standings(at(6)).into_iter().find(|(peer, _)| peer == of).unwrap().1;
        let gave = Standing { rate: Some(1 << 20), delivered: 3 << 20, ..Standing::default() };
        assert_eq!((standing(&good), standing(&late).failures), (gave, 1));
        assert!(standing(&liar).banned_until > Some(at(6)));
        assert!(!again.is_worth_trying(&late, at(6)) && again.is_worth_trying(&late, at(7)));
        assert!(again.restore(&bytes[1..]).is_err());
    }
}
