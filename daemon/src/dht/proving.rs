//! How fast one connection has signatures proved that come many in a message.
//!
//! Owns: how long such a message waits where it is read, on its connection's task: the [`meter`](super::meter) hears of
//! it only afterwards. Refuses: what would have to wait too long; its stream ends, and nobody is blamed. Survives a
//! crash: nothing.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::meter::LONGEST;
use crate::support::allowance::{Allowances, Rate};

/// Signatures: a tenth of a second of work at once, and a fortieth of a processor. A node sends three batches of 160 at
/// once, and the next when one is answered.
const PROOFS: Rate = Rate { each_second: 500, burst: 2_000 };

/// What one connection may have proved. None: of no connection, and without a limit.
#[derive(Debug, Default)]
pub(super) struct Proofs(Option<Arc<Mutex<Allowances<()>>>>);

impl Clone for Proofs {
    /// A clone of one that is of no connection is a new connection's: `request_response` makes one of its codec for
    /// each, and clones of that for each message.
    fn clone(&self) -> Self {
        let new = || Arc::new(Mutex::new(Allowances::new(PROOFS, 1)));
        Self(Some(self.0.clone().unwrap_or_else(new)))
    }
}

// === impl Proofs ===

impl Proofs {
    /// Waits until so many signatures may be proved.
    ///
    /// # Errors
    /// That takes too long.
    pub(super) async fn turn(&self, count: usize) -> io::Result<()> {
        let wait = self.wait(count, Instant::now());
        let wait = wait.ok_or_else(|| io::Error::other("too much is to be proved before it"))?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn wait(&self, count: usize, now: Instant) -> Option<Duration> {
        let Some(proofs) = &self.0 else { return Some(Duration::ZERO) };
        let mut proofs = proofs.lock().unwrap_or_else(PoisonError::into_inner);
        (0..count).try_fold(Duration::ZERO, |_, _| proofs.wait((), LONGEST, now))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::io::Cursor;
    use libp2p::StreamProtocol;
    use libp2p::request_response::Codec;

    use super::*;
    use crate::dht::codec::{Exchange, Whole};
    use crate::dht::reading::Reading;

    /// Descriptions of a full batch.
    const BATCH: usize = 160;

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
}
