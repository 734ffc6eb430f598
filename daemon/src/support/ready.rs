//! Ready means: everything that a caller needs has said so.
//!
//! Owns: the count of what is still missing. Refuses: to wait for peers or anything else that may never come;
//! whoever builds a room takes a latch for it only when the process can itself bring it about. A latch that is
//! dropped without [`Latch::release`], because its room failed, keeps the process unready for ever: a failed
//! start must not read as a finished one. Survives a crash: nothing.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Whether everything is there. Cheap to clone; clones share their latches.
///
/// Take all latches before the first is released: with none outstanding it reads as ready.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
}

/// One thing that is awaited.
#[derive(Debug)]
pub struct Latch {
    shared: Arc<Shared>,
    /// What it stands for.
    name: &'static str,
}

#[derive(Debug)]
struct Shared {
    /// What is awaited, by name; a name may stand more than once.
    missing: Mutex<Vec<&'static str>>,
    /// Tells waiters that `missing` became shorter.
    changed: watch::Sender<()>,
}

impl Readiness {
    /// With nothing to wait for yet.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared { missing: Mutex::default(), changed: watch::Sender::new(()) };
        Self { shared: Arc::new(shared) }
    }

    /// One more thing to wait for. `name` is for people: "store", "api".
    #[must_use]
    pub fn latch(&self, name: &'static str) -> Latch {
        self.shared.with_missing(|missing| missing.push(name));
        Latch { shared: Arc::clone(&self.shared), name }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.with_missing(|missing| missing.is_empty())
    }

    /// What is missing, by name, for a status line.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.shared.with_missing(|missing| missing.clone())
    }

    /// Completes when nothing is missing. Cancel-safe.
    pub async fn ready(&self) {
        // Subscribed before the look, so that a release between the two is not missed.
        let mut changed = self.shared.changed.subscribe();
        while !self.is_ready() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Latch {
    /// What it stands for is there.
    pub fn release(self) {
        self.shared.with_missing(|missing| {
            if let Some(at) = missing.iter().position(|name| *name == self.name) {
                missing.swap_remove(at);
            }
        });
        self.shared.changed.send_replace(());
    }
}

impl Shared {
    fn with_missing<T>(&self, look: impl FnOnce(&mut Vec<&'static str>) -> T) -> T {
        look(&mut self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_all_are_released_in_any_order() {
        let readiness = Readiness::new();
        let (store, api, other) = (readiness.latch("store"), readiness.latch("api"), readiness.latch("api"));
        let waiter = readiness.clone();
        let mut ready = Box::pin(waiter.ready());
        assert!(futures::poll!(&mut ready).is_pending());
        api.release();
        store.release();
        assert!(futures::poll!(&mut ready).is_pending());
        assert_eq!(readiness.missing(), ["api"]);
        other.release();
        ready.await;
        assert!(readiness.is_ready());
    }

    #[tokio::test]
    async fn a_dropped_latch_never_reads_as_ready() {
        let readiness = Readiness::new();
        drop(readiness.latch("store"));
        assert!(!readiness.is_ready());
    }
}
