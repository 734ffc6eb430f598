//! The place that spawns tasks.
//!
//! Owns: every task of the process that outlives its caller, its name, and the token that tells it to stop. What ends
//! with its caller [`super::turn`] spawns, and calls that block [`super::pool`]. Refuses: detached work; a task that
//! panics is logged by name, and whoever stops the process waits for all of them. Survives a crash: nothing.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A family of tasks that are told to stop together and joined together.
///
/// Cheap to clone: clones are the same family. [`Tasks::child`] makes a family that stops with its parent
/// but can also be stopped and joined on its own.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// Counts running tasks, so that the end can be waited for.
    tracker: TaskTracker,
    /// Cancelled once, when the family is to stop.
    stop: CancellationToken,
}

impl Tasks {
    /// A new family with no parent.
    #[must_use]
    pub fn new() -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// A family that is told to stop when this one is, and may be stopped and joined earlier.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), stop: self.stop.child_token() }
    }

    /// Runs `work` on the runtime under `name`. A panic inside ends only this task and is logged.
    ///
    /// The task is not cancelled by [`Tasks::stop`]: it must watch [`Tasks::stopping`] itself, so that
    /// it ends at a point of its own choosing.
    /// The handle gives `None` after a panic; dropping it does not stop the task.
    pub fn spawn<F>(&self, name: &'static str, work: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let watched = async move {
            let done = AssertUnwindSafe(work).catch_unwind().await;
            if done.is_err() {
                tracing::error!(task = name, "a task failed unexpectedly; this is a bug in casd");
            }
            done.ok()
        };
        self.tracker.spawn(watched.instrument(tracing::debug_span!("task", name)))
    }

    /// Tells the family to stop. Idempotent.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether the family has been told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Completes when the family is told to stop. Cancel-safe.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    /// A token that is cancelled when the family is told to stop, for code that wants one of its own.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Tells the family to stop and waits for its tasks, at most `deadline`. Returns how many were still
    /// running then (0 when all ended in time).
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.stop();
        self.tracker.close();
        let _ = tokio::time::timeout(deadline, self.tracker.wait()).await;
        self.tracker.len()
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_that_watch_the_token() {
        let tasks = Tasks::new();
        let inner = tasks.child();
        let watch = inner.clone();
        let handle = inner.spawn("watcher", async move { watch.stopping().await });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
        assert_eq!(inner.drain(Duration::from_secs(5)).await, 0);
        assert!(handle.await.is_ok_and(|value| value.is_some()));
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let tasks = Tasks::new();
        let bad = tasks.spawn("bad", async { panic!("on purpose") });
        assert!(bad.await.is_ok_and(|value| value.is_none()));
        let good = tasks.spawn("good", async { 7 });
        assert_eq!(good.await.unwrap_or_default(), Some(7));
    }
}
