//! Messages of which not all is here yet.
//!
//! Owns: the budget of bytes for what is here of them, of all connections together. Refuses: nobody who comes: where
//! the budget is used up, whatever is longest under way gives way and its stream ends, which says nothing of its
//! sender. Survives a crash: nothing.
//!
//! Who begins many messages and ends none has the oldest, so that what others send passes, however many hosts do so: to
//! have one give way that comes quickly, one has to send the whole budget while it does. What is shorter than
//! [`FREE`] is not counted and never gives way.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;

/// Bytes in all: forty of the longest batches.
const BUDGET: usize = 8 << 20;
/// Bytes of each message that are not counted: they are fewer than its connection takes.
const FREE: usize = 4 << 10;

/// The budget. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Bytes of all.
    bytes: usize,
    /// Messages that have some, in the order in which they began to.
    begun: BTreeMap<u64, Begun>,
    /// The number of the last one.
    last: u64,
}

#[derive(Debug)]
struct Begun {
    bytes: usize,
    /// Dropped when it gives way.
    _stays: oneshot::Sender<()>,
}

/// What one message has of the budget, until it is dropped.
struct Place<'a> {
    of: &'a Reading,
    /// Its number, and what ends when it gives way; none as long as it is short.
    counted: Option<(u64, oneshot::Receiver<()>)>,
}

// === impl Reading ===

impl Reading {
    /// Reads to the end of a stream; of one that is longer than `limit` one byte more than that. Memory grows with what
    /// has arrived, to twice as much.
    pub(super) async fn whole<T: AsyncRead + Unpin>(&self, io: &mut T, limit: usize) -> io::Result<Vec<u8>> {
        let (mut bytes, mut length) = (Vec::new(), 0);
        let mut place = Place { of: self, counted: None };
        while length <= limit {
            if length == bytes.len() {
                let more = length.max(FREE).min(limit + 1 - length);
                if length > 0 {
                    place.take(more);
                }
                bytes.reserve_exact(more);
                bytes.resize(length + more, 0);
            }
            let read = tokio::select! {
                biased;
                () = place.gives_way() => return Err(io::Error::other("others are read first")),
                read = io.read(&mut bytes[length..]) => read?,
            };
            if read == 0 {
                break;
            }
            length += read;
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Place<'_> {
    /// Takes so much more, and has others give way for it; itself if it is the oldest.
    fn take(&mut self, more: usize) {
        let mut state = self.of.state();
        let number = match &self.counted {
            Some((number, _)) => *number,
            None => {
                let (stays, gives_way) = oneshot::channel();
                state.last += 1;
                let number = state.last;
                state.begun.insert(number, Begun { bytes: 0, _stays: stays });
                self.counted = Some((number, gives_way));
                number
            }
        };
        // One that has given way already learns that before it reads on.
        if let Some(begun) = state.begun.get_mut(&number) {
            begun.bytes += more;
            state.bytes += more;
        }
        while state.bytes > BUDGET
            && let Some((_, oldest)) = state.begun.pop_first()
        {
            state.bytes -= oldest.bytes;
        }
    }

    /// Ends when this message gives way to others.
    async fn gives_way(&mut self) {
        match &mut self.counted {
            Some((_, gives_way)) => _ = gives_way.await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some((number, _)) = &self.counted else { return };
        let mut state = self.of.state();
        if let Some(begun) = state.begun.remove(number) {
            state.bytes -= begun.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    const LIMIT: usize = 200 << 10;

    /// A stream that brings so many bytes, in small pieces, and then ends or brings nothing more.
    struct Drips {
        left: usize,
        ends: bool,
    }

    impl AsyncRead for Drips {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let brings = self.left.min(into.len()).min(1_000);
            self.left -= brings;
            into[..brings].fill(7);
            if brings > 0 || self.ends { Poll::Ready(Ok(brings)) } else { Poll::Pending }
        }
    }

    /// Reads what comes until nothing more does.
    fn read(of: &Reading, left: usize, ends: bool) -> (BoxFuture<'static, io::Result<Vec<u8>>>, bool) {
        let of = of.clone();
        let mut reading = async move { of.whole(&mut Drips { left, ends }, LIMIT).await }.boxed();
        let is_over = (&mut reading).now_or_never().is_some();
        (reading, is_over)
    }

    /// How many of these wait for more.
    fn waiting(all: &mut [BoxFuture<'static, io::Result<Vec<u8>>>]) -> usize {
        all.iter_mut().filter_map(|one| one.now_or_never().is_none().then_some(())).count()
    }

    #[test]
    fn what_is_not_whole_takes_no_more_than_there_is_and_what_is_passes() {
        let reading = Reading::default();
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for _ in 0..256 {
            short.push(read(&reading, FREE - 1, false).0);
            long.push(read(&reading, LIMIT - 1, false).0);
            // And whoever comes meanwhile is read.
            for length in [0, 1, FREE, FREE + 1, LIMIT] {
                let whole = reading.whole(&mut Drips { left: length, ends: true }, LIMIT).now_or_never();
                assert_eq!(whole.map(|read| read.unwrap().len()), Some(length));
            }
        }
        let used = reading.state().bytes;
        assert!(used <= BUDGET && used > BUDGET - 3 * LIMIT, "{used}");
        assert_eq!(waiting(&mut short), 256, "what is short does not give way");
        let left = waiting(&mut long[128..]);
        assert!((30..=BUDGET / (LIMIT - FREE)).contains(&left), "{left}");
        assert_eq!(waiting(&mut long[..128]), 0, "the oldest do");
        drop(long);
        let state = reading.state();
        assert_eq!((state.bytes, state.begun.len()), (0, 0));
    }

    #[test]
    fn what_gives_way_is_nobodys_fault_and_what_is_too_long_is_read_to_its_limit() {
        let reading = Reading::default();
        let (mut first, is_over) = read(&reading, LIMIT - 1, false);
        assert!(!is_over);
        let _others: Vec<_> = (0..64).map(|_| read(&reading, LIMIT - 1, false)).collect();
        let error = (&mut first).now_or_never().unwrap().unwrap_err();
        assert!(!crate::dht::codec::is_malformed(&error), "{error}");
        let long = reading.whole(&mut Drips { left: usize::MAX, ends: false }, LIMIT).now_or_never();
        assert_eq!(long.map(|read| read.unwrap().len()), Some(LIMIT + 1));
    }
}
