//! Keys that somebody here waits for: whoever does is told when another node announces one of them to this one.
//!
//! Owns: who waits for which key. Refuses: to look for anything. Survives a crash: nothing; whoever waits asks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::peer::Key;

/// See the module. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Awaited(Arc<Mutex<HashMap<Key, Vec<oneshot::Sender<()>>>>>);

impl Awaited {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Key, Vec<oneshot::Sender<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is told that `key` is announced, from now on.
    pub(super) fn wait(&self, key: Key) -> oneshot::Receiver<()> {
        let (told, news) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.retain(|_, waiting| {
            waiting.retain(|told| !told.is_closed());
            !waiting.is_empty()
        });
        waiting.entry(key).or_default().push(told);
        news
    }

    /// Somebody announces `key`.
    pub(super) fn announced(&self, key: &Key) {
        for told in self.waiting().remove(key).into_iter().flatten() {
            // Whoever waited may have gone.
            let _ = told.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_a_key_is_told_once_and_nobody_else() {
        let awaited = Awaited::default();
        let [mut one, mut same, mut other] = [[1; 32], [1; 32], [2; 32]].map(|key| awaited.wait(key));
        awaited.announced(&[1; 32]);
        assert!(one.try_recv().is_ok() && same.try_recv().is_ok() && other.try_recv().is_err());
        awaited.announced(&[1; 32]);
        drop(other);
        let _again = awaited.wait([1; 32]);
        assert_eq!(awaited.waiting().len(), 1, "nobody waits for the other any more");
    }
}
