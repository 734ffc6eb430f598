//! How fast signatures are proved that come in messages.
//!
//! Owns: how long such a message waits where it is read, on its connection's task: the [`meter`](super::meter) hears of
//! it only afterwards. Each connection has a rate, and all have one together, in which they take turns: one host has
//! many connections, and what was signed once can be sent again and again. Refuses: what would have to wait too long
//! for its own connection's; its stream ends, and nobody is blamed. Survives a crash: nothing.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::meter::LONGEST;
use crate::support::allowance::{Allowances, Rate};

/// Signatures of one connection: a tenth of a second of work at once, and a fortieth of a processor. A node sends three
/// batches of 162 at once, and the next when one is answered.
const PROOFS: Rate = Rate { each_second: 500, burst: 2_000 };
/// … and of all: a tenth of a processor.
const OF_ALL: Rate = Rate { each_second: 2_000, burst: 2_000 };
/// Signatures for which a connection has a turn: who brings few waits for few of each other.
const PART: usize = 16;

/// What one connection may have proved, and all.
#[derive(Debug)]
pub(super) struct Proofs {
    /// Where connections take turns.
    all: Arc<Line>,
    /// Where this one's messages do. None: of no connection, and without a limit.
    own: Option<Arc<Line>>,
}

/// Those that wait, and how long.
#[derive(Debug)]
struct Line {
    /// Whose turn it is; who came first is the next.
    turn: Semaphore,
    /// What they may have proved.
    saved: Mutex<Allowances<()>>,
}

impl Default for Proofs {
    /// Of no connection.
    fn default() -> Self {
        Self { all: Arc::new(Line::new(OF_ALL)), own: None }
    }
}

impl Clone for Proofs {
    /// A clone of one that is of no connection is a new connection's: `request_response` makes one of its codec for
    /// each, and clones of that for each message.
    fn clone(&self) -> Self {
        let own = self.own.clone().unwrap_or_else(|| Arc::new(Line::new(PROOFS)));
        Self { all: Arc::clone(&self.all), own: Some(own) }
    }
}

// === impl Proofs ===

impl Proofs {
    /// Waits until so many signatures may be proved.
    ///
    /// # Errors
    /// That takes too long.
    pub(super) async fn turn(&self, count: usize) -> io::Result<()> {
        let Some(own) = self.own.as_deref().filter(|_| count > 0) else { return Ok(()) };
        let wait = own.wait(count, LONGEST, Instant::now());
        pause(wait.ok_or_else(|| io::Error::other("too much is to be proved before it"))?).await;
        // Of each connection one message stands in line.
        let _next = own.turn.acquire().await.map_err(io::Error::other)?;
        for before in (0..count).step_by(PART) {
            let _turn = self.all.turn.acquire().await.map_err(io::Error::other)?;
            let wait = self.all.wait(PART.min(count - before), Duration::MAX, Instant::now());
            pause(wait.unwrap_or_default()).await;
        }
        Ok(())
    }
}

async fn pause(wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

// === impl Line ===

impl Line {
    fn new(rate: Rate) -> Self {
        Self { turn: Semaphore::new(1), saved: Mutex::new(Allowances::new(rate, 1)) }
    }

    /// How long so many have to wait. None: longer than `longest`.
    fn wait(&self, count: usize, longest: Duration, now: Instant) -> Option<Duration> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        (0..count).try_fold(Duration::ZERO, |_, _| saved.wait((), longest, now))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use futures::future::join_all;
    use futures::io::Cursor;
    use libp2p::StreamProtocol;
    use libp2p::request_response::Codec;

    use super::*;
    use crate::dht::codec::{Exchange, Whole};
    use crate::dht::reading::Reading;

    /// Signatures of a full batch.
    const BATCH: usize = 162;

    impl Proofs {
        /// How long so many wait for their own connection's.
        fn wait(&self, count: usize, now: Instant) -> Option<Duration> {
            self.own.as_ref().map_or(Some(Duration::ZERO), |own| own.wait(count, LONGEST, now))
        }
    }

    /// A protocol each of whose questions has more signatures than may be proved at once.
    #[derive(Clone)]
    struct Heavy;

    impl Exchange for Heavy {
        type Request = ();
        type Response = ();
        const MAX_REQUEST: usize = 1;
        const MAX_RESPONSE: usize = 1;

        fn proofs(&self, _: &[u8]) -> usize {
            3_000
        }

        fn decode_request(&self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn decode_response(&self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn encode_request(&self, (): ()) -> Vec<u8> {
            Vec::new()
        }

        fn encode_response(&self, (): ()) -> Vec<u8> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn what_a_connection_brings_waits_before_it_is_proved_or_is_not_read() {
        let (name, mut none) = (StreamProtocol::new("/heavy"), Whole::new(Heavy, &Reading::default()));
        let (mut question, mut one, mut last) = (Cursor::new([0u8]), Cursor::new([0u8]), Cursor::new([0u8]));
        let mut connection = none.clone();
        let mut stream = connection.clone();
        let mut read = pin!(connection.read_request(&name, &mut question));
        assert!(futures::poll!(read.as_mut()).is_pending());
        let refused = stream.read_request(&name, &mut one).await.unwrap_err();
        assert!(!crate::dht::codec::is_malformed(&refused), "{refused}");
        assert!(matches!(none.read_request(&name, &mut last).await, Ok(Ok(()))));
    }

    #[test]
    fn each_connection_has_its_own_and_who_floods_is_not_read() {
        let (first, now) = (Proofs::default(), Instant::now());
        let (one, other) = (first.clone(), first.clone());
        let messages = [one.clone(), one.clone()];
        let taken = (0..1_000).filter(|n| messages[n % 2].wait(BATCH, now).is_some()).count() * BATCH;
        let most = (PROOFS.burst + PROOFS.each_second * u32::try_from(LONGEST.as_secs()).unwrap()) as usize;
        assert!(taken <= most && taken > most - 2 * BATCH, "{taken}");
        assert_eq!(other.wait(BATCH, now), Some(Duration::ZERO));
        assert_eq!(one.wait(BATCH, now + Duration::from_secs(60)), Some(Duration::ZERO));
        assert_eq!(first.wait(1_000_000, now), Some(Duration::ZERO), "it is of no connection");
    }

    #[test]
    fn who_waits_for_its_answers_is_slowed_down_and_loses_nothing() {
        let (first, mut now) = (Proofs::default(), Instant::now());
        let connection = first.clone();
        // All names that a node may publish, to one that is alone with it.
        for _ in 0..65_536 / (3 * BATCH) {
            let waits = [(); 3].map(|()| connection.wait(BATCH, now).expect("it is read"));
            now += waits[2];
        }
        assert_eq!(first.wait(BATCH, now), Some(Duration::ZERO));
    }

    #[tokio::test]
    async fn all_connections_have_one_rate_and_whoever_brings_little_waits_for_little() {
        let (first, start) = (Proofs::default(), Instant::now());
        let connections: Vec<_> = (0..32).map(|_| first.clone()).collect();
        let (mut proved, mut waiting) = (0, Vec::new());
        // None of them has more than may be proved of it at once.
        for connection in connections.iter().cycle().take(8 * connections.len()) {
            let mut turn = Box::pin(connection.turn(BATCH));
            match futures::poll!(turn.as_mut()) {
                Poll::Ready(done) => proved += done.map_or(0, |()| BATCH as u128),
                Poll::Pending => waiting.push(turn),
            }
        }
        let most =
            u128::from(OF_ALL.burst) + start.elapsed().as_millis() * u128::from(OF_ALL.each_second) / 1_000;
        assert!(proved > 0 && proved <= most, "{proved}");
        let light = first.clone();
        let is_before = tokio::select! {
            _ = join_all(waiting) => false,
            done = light.turn(2) => done.is_ok(),
        };
        assert!(is_before, "it waits for all that others brought");
    }
}
