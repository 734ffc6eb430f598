//! How much is given, as it may change while giving goes on.
//!
//! Owns: whose turn it is, the rate of all peers and of each, and whether users come first. Refuses: to hold a lock
//! while anything waits. Survives a crash: nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::reads::Own;
use super::slots::{Slots, Whose};
use crate::peer::{HostAddr, PeerId};
use crate::session::Turn;
use crate::support::rate::Limiter;

/// Peers whose rate is limited one by one; the least recent give way.
const PEERS: usize = 1024;

/// Bytes that go out at once at least, where there are so many: their head is 0.3 % of them.
const LEAST: usize = 4 << 10;

/// Where the rate of all is limited, there are only so many turns at once that each peer has as much in a second: a
/// chunk, of which nothing counts before it is whole, then comes in 8 s.
const WORTH: u64 = 128 * 1024;

/// Turns at once that there are all the same: one who takes slowly is not to keep all of it from being used.
const FEWEST: usize = 2;

/// Who waits for our own limits does not count as one who takes nothing: they hold nobody longer than this.
const HELD: Duration = Duration::from_secs(3600);

/// How much is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Giving {
    /// Peers that are given chunks at once, at most; fewer where the rate is low.
    pub slots: usize,
    /// Bytes a second to all of them together, by whatever limits there are; 0: none. Only reckoned with here: that
    /// it is kept is the limiter's part.
    pub rate: u64,
    /// Bytes a second to each; 0: no limit.
    pub per_peer: u64,
}

impl Default for Giving {
    fn default() -> Self {
        Self { slots: 32, rate: 0, per_peer: 0 }
    }
}

impl Giving {
    /// Turns at once: as many as are worth it, or as use up the rate of all where each may have little.
    fn turns(self) -> usize {
        if self.rate == 0 {
            return self.slots;
        }
        let worth = self.rate / WORTH;
        let using = if self.per_peer == 0 { 0 } else { self.rate.div_ceil(self.per_peer) };
        usize::try_from(worth.max(using)).unwrap_or(usize::MAX).max(FEWEST).min(self.slots)
    }
}

/// See the module. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Bounds(Arc<Inner>);

struct Inner {
    /// The rate of all peers together.
    all: Arc<Limiter>,
    each: Mutex<Each>,
    slots: Arc<Mutex<Slots>>,
    /// Of hosts that are being given records: the line in which theirs wait for each other.
    records: Mutex<HashMap<Whose, Arc<Semaphore>>>,
    own: Own,
}

/// The rate of each peer.
#[derive(Default)]
struct Each {
    /// Bytes a second; 0: no limit, and nobody is listed.
    rate: u64,
    /// Of those that were given something lately.
    peers: HashMap<PeerId, Arc<Limiter>>,
}

/// A chunk that is on its way, until this is dropped.
struct Sending {
    slots: Arc<Mutex<Slots>>,
    peer: PeerId,
}

impl Bounds {
    /// As by default, within the rate `all` of all peers together.
    #[must_use]
    pub fn new(all: Arc<Limiter>) -> Self {
        let slots = Arc::new(Mutex::new(Slots::new(Giving::default().turns())));
        let (each, records, own) = Default::default();
        Self(Arc::new(Inner { all, each, slots, records, own }))
    }

    /// Changes how much is given, for those who wait as well.
    pub fn set(&self, giving: Giving) {
        lock(&self.0.slots).set(giving.turns(), now());
        let mut each = lock(&self.0.each);
        each.rate = giving.per_peer;
        each.peers.values().for_each(|limiter| limiter.set(giving.per_peer));
        if each.rate == 0 {
            each.peers.clear();
        }
    }

    /// To be told when a user's bytes move: reading for peers then steps back.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.0.own
    }

    /// Waits until so many bytes may go to a peer.
    pub(super) async fn take(&self, peer: PeerId, bytes: usize) {
        match self.limiter(peer) {
            Some(limiter) => limiter.take(bytes).await,
            None => self.0.all.take(bytes).await,
        }
    }

    /// As [`Bounds::take`], for a record. One that asks for many waits for no turn, so those of a host first wait for
    /// each other: whoever waits for the rate of all has one of each host before it, and not all that one asks for.
    pub(super) async fn take_record(&self, peer: PeerId, host: Option<HostAddr>, bytes: usize) {
        let line = self.line(Whose::of(peer, host));
        // It is never closed.
        let _first = line.acquire().await;
        self.take(peer, bytes).await;
    }

    fn line(&self, whose: Whose) -> Arc<Semaphore> {
        let mut records = lock(&self.0.records);
        records.retain(|_, line| Arc::strong_count(line) > 1);
        Arc::clone(records.entry(whose).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    /// Waits until a slice of a chunk may go to a peer, of at most `most` bytes. How many: fewer where a rate is low.
    pub(super) async fn pace(&self, peer: PeerId, most: usize) -> usize {
        lock(&self.0.slots).moves(&peer, now() + HELD);
        let limiter = self.limiter(peer).unwrap_or_else(|| Arc::clone(&self.0.all));
        let bytes = portion(most, limiter.lowest());
        limiter.take(bytes).await;
        lock(&self.0.slots).moves(&peer, now());
        bytes
    }

    /// `None` when it is a peer's turn to be given chunks, else when it is to ask again.
    pub(super) fn ask(&self, peer: PeerId, host: Option<HostAddr>) -> Option<Duration> {
        lock(&self.0.slots).ask(peer, host, now())
    }

    /// A chunk is about to go to a peer, until the turn is dropped.
    ///
    /// # Errors
    /// When it is to ask again: it is another's turn by now.
    pub(super) fn begin(&self, peer: PeerId, host: Option<HostAddr>) -> Result<Turn, Duration> {
        lock(&self.0.slots).begin(peer, host, now())?;
        Ok(Box::new(Sending { slots: Arc::clone(&self.0.slots), peer }))
    }

    /// The limiter of a peer, where each has a limit.
    fn limiter(&self, peer: PeerId) -> Option<Arc<Limiter>> {
        let mut each = lock(&self.0.each);
        let Each { rate, peers } = &mut *each;
        if *rate == 0 {
            return None;
        }
        if peers.len() >= PEERS && !peers.contains_key(&peer) {
            peers.retain(|_, limiter| Arc::strong_count(limiter) > 1);
        }
        let make = || Arc::new(Limiter::within(*rate, Arc::clone(&self.0.all)));
        Some(Arc::clone(peers.entry(peer).or_insert_with(make)))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        lock(&self.slots).end(&self.peer, now());
    }
}

/// How many of `most` bytes go out at once at a rate of so many a second, 0 for no limit: a 64th of a second's worth,
/// so that none of those who share the rate hears nothing for long and takes this node for silent.
fn portion(most: usize, rate: u64) -> usize {
    let share = usize::try_from(rate / 64).unwrap_or(usize::MAX).max(LEAST);
    if rate == 0 { most } else { most.min(share) }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream::FuturesUnordered;
    use futures::{FutureExt, StreamExt};

    #[test]
    fn turns_are_as_many_as_are_worth_it() {
        let turns = |slots, rate, per_peer| Giving { slots, rate, per_peer }.turns();
        assert_eq!(turns(32, 0, 0), 32);
        assert_eq!(turns(32, 100 << 20, 0), 32);
        assert_eq!(turns(32, 1 << 20, 0), 8);
        assert_eq!(turns(32, 10_000, 0), 2);
        assert_eq!(turns(1, 10_000, 0), 1);
        // Who may have little each use up the rate of all only if they are many.
        assert_eq!(turns(32, 1 << 20, 64 << 10), 16);
    }

    #[tokio::test]
    async fn a_slice_is_no_longer_than_a_small_part_of_a_second_at_the_lowest_rate() {
        let (all, peer) = (Arc::new(Limiter::new(0)), PeerId::random());
        let bounds = Bounds::new(Arc::clone(&all));
        assert_eq!(bounds.pace(peer, 128 << 10).await, 128 << 10);
        all.set(1 << 20);
        assert_eq!(bounds.pace(peer, 128 << 10).await, 16 << 10);
        bounds.set(Giving { per_peer: 512 << 10, ..Giving::default() });
        assert_eq!(bounds.pace(peer, 128 << 10).await, 8 << 10);
        assert_eq!((portion(128 << 10, 1), portion(100, 1)), (LEAST, 100));
    }

    #[tokio::test]
    async fn of_the_records_that_a_host_asks_for_one_is_in_the_line_of_all() {
        let (bounds, [greedy, other]) =
            (Bounds::new(Arc::new(Limiter::new(100_000))), [PeerId::random(), PeerId::random()]);
        let host = Some(HostAddr::V4(1));
        let mut many: FuturesUnordered<_> =
            (0..50).map(|_| bounds.take_record(greedy, host, 10_000)).collect();
        let (mut slice, mut before) = (Box::pin(bounds.pace(other, 10_000)), 0);
        loop {
            tokio::select! {
                biased;
                Some(()) = many.next() => before += 1,
                granted = &mut slice => {
                    assert!(granted > 0);
                    break;
                }
            }
        }
        assert!(before < 5, "{before}");
        drop(many);
        bounds.take_record(other, None, 1).await;
        assert_eq!(lock(&bounds.0.records).len(), 1, "who waits for nothing is forgotten");
    }

    #[tokio::test]
    async fn a_change_reaches_those_who_wait_and_those_who_come() {
        let (bounds, [one, two]) =
            (Bounds::new(Arc::new(Limiter::new(0))), [PeerId::random(), PeerId::random()]);
        bounds.set(Giving { slots: 1, rate: 0, per_peer: 1 });
        let mut waiting = Box::pin(bounds.take(one, 1 << 30));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(Box::pin(bounds.take(two, 1 << 30)).now_or_never().is_none());
        let turn = bounds.begin(one, None).ok();
        assert!(turn.is_some() && bounds.ask(one, None).is_none() && bounds.ask(two, None).is_some());
        bounds.set(Giving::default());
        waiting.await;
        bounds.take(two, 1 << 30).await;
        assert!(bounds.begin(two, None).is_ok(), "there are more turns now");
    }
}
