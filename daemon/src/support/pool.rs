//! A bounded pool for work that blocks: disk calls, hashing, erasure coding.
//!
//! Owns: the bound. Refuses: more than its number of calls at once; the rest wait, in turn, as long as their callers
//! do, so that memory does not grow with a queue. Survives a crash: nothing.
//!
//! A caller that is not polled for a while keeps nobody waiting: a place is never given to it, but to its work, which
//! then runs. It may itself be waiting for another call, as one does that has many under way and looks at one of them.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::turn::{in_turn, passed_on};

/// At most a fixed number of blocking calls at once. Cheap to clone; clones share the bound.
#[derive(Clone, Debug)]
pub struct Pool {
    /// One permit a running call. `None`: calls run where they are awaited.
    permits: Option<Arc<Semaphore>>,
}

impl Pool {
    /// A pool of `width` concurrent calls (at least one).
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { permits: Some(Arc::new(Semaphore::new(width.max(1)))) }
    }

    /// No pool at all: calls run on the thread that awaits them. For programs of one thread, whose every step can then
    /// be counted and repeated; a daemon would stand still while its disk is busy.
    #[must_use]
    pub const fn inline() -> Self {
        Self { permits: None }
    }

    /// A pool as wide as the machine has processors.
    #[must_use]
    pub fn per_core() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// Runs `work` off the runtime and gives its result.
    ///
    /// Dropping the returned future does not stop work that has started; it goes on holding its permit.
    /// A panic in `work` is passed on to the caller.
    #[expect(clippy::disallowed_methods, reason = "this is the place that spawns blocking work")]
    #[expect(clippy::expect_used, reason = "the semaphore is never closed")]
    #[expect(clippy::async_yields_async, reason = "what is begun in turn is awaited where its caller is")]
    pub async fn run<T, F>(&self, work: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Some(permits) = &self.permits else { return work() };
        let turn = Arc::clone(permits).acquire_owned();
        let begin = async move {
            let permit = turn.await.expect("the pool is never closed");
            tokio::task::spawn_blocking(move || {
                let value = work();
                drop(permit);
                value
            })
        };
        match in_turn(begin).await.await {
            Ok(value) => value,
            Err(error) => passed_on(error).await,
        }
    }
}

/// Drops what may have to wait for a disk when it is dropped, such as a file: off the runtime, where there is one. For
/// what is bounded by other means.
#[expect(clippy::disallowed_methods, reason = "this is the place that spawns blocking work")]
pub fn let_go<T: Send + 'static>(value: T) {
    match tokio::runtime::Handle::try_current() {
        // Nobody waits for it.
        Ok(_) => drop(tokio::task::spawn_blocking(move || drop(value))),
        Err(_) => drop(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn never_more_at_once_than_its_width() {
        let pool = Pool::new(2);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let calls = (0..32).map(|_| {
            let (pool, now, most) = (pool.clone(), now.clone(), most.clone());
            async move {
                pool.run(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                })
                .await;
            }
        });
        futures::future::join_all(calls).await;
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn a_caller_that_is_not_polled_keeps_nobody_waiting() {
        let pool = Pool::new(1);
        let (open, gate) = std::sync::mpsc::sync_channel::<()>(1);
        let mut first = Box::pin(pool.run(move || gate.recv()));
        let mut second = Box::pin(pool.run(|| ()));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        open.send(()).unwrap();
        let third = tokio::time::timeout(std::time::Duration::from_secs(60), pool.run(|| ()));
        third.await.expect("those before it have had their turn");
        first.await.unwrap();
        second.await;
    }

    #[tokio::test]
    async fn what_waits_for_a_caller_that_has_gone_is_not_done() {
        let pool = Pool::new(1);
        let (open, gate) = std::sync::mpsc::sync_channel::<()>(1);
        let mut first = Box::pin(pool.run(move || gate.recv()));
        let mut second = Box::pin(pool.run(|| panic!("nobody wants it any more")));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        drop(second);
        open.send(()).unwrap();
        first.await.unwrap();
        pool.run(|| ()).await;
    }
}
