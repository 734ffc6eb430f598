//! A bounded pool for work that blocks: disk calls, hashing, erasure coding.
//!
//! Owns: the bound. Refuses: more than its number of calls at once; the rest wait in the caller, so that
//! memory does not grow with a queue. Survives a crash: nothing.

use std::sync::Arc;

use tokio::sync::Semaphore;

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
    pub async fn run<T, F>(&self, work: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Some(permits) = &self.permits else { return work() };
        let permit = Arc::clone(permits).acquire_owned().await.expect("the pool is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let value = work();
            drop(permit);
            value
        });
        match done.await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only at runtime shutdown: the caller is being dropped as well.
                Err(_) => std::future::pending().await,
            },
        }
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
}
