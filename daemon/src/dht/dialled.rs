//! Whom, or where, this node has dialled lately: who comes in from there may have been let in by a router for that
//! reason alone.
//!
//! Owns: that memory. Pure. Refuses: more than its limit; while it is full everybody counts as dialled. Survives a
//! crash: nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a router may let in what belongs to a dial.
const LATELY: Duration = Duration::from_secs(300);
/// More than are dialled in that time at the pace of [`pace`](super::pace).
const MOST: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub(super) struct Dialled<K>(HashMap<K, Instant>);

// Derived, it would ask for a default of K.
impl<K> Default for Dialled<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

// === impl Dialled ===

impl<K: Eq + Hash> Dialled<K> {
    /// A dial begins.
    pub(super) fn note(&mut self, whom: K, now: Instant) {
        if self.0.len() >= MOST {
            self.sweep(now);
        }
        if self.0.len() < MOST || self.0.contains_key(&whom) {
            self.0.insert(whom, now);
        }
    }

    /// Whether it was dialled lately, or may have been.
    pub(super) fn has(&self, whom: &K, now: Instant) -> bool {
        self.0.len() >= MOST || self.0.get(whom).is_some_and(|at| now < *at + LATELY)
    }

    /// When it was dialled last, where that is remembered.
    pub(super) fn last(&self, whom: &K) -> Option<Instant> {
        self.0.get(whom).copied()
    }

    /// Forgets what is long ago.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, at| now < *at + LATELY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dialled_is_remembered_for_a_while() {
        let (mut dialled, now) = (Dialled::default(), Instant::now());
        dialled.note("one", now);
        assert!(dialled.has(&"one", now) && !dialled.has(&"other", now));
        assert_eq!((dialled.last(&"one"), dialled.last(&"other")), (Some(now), None));
        assert!(!dialled.has(&"one", now + LATELY));
        dialled.sweep(now + LATELY);
        assert!(dialled.0.is_empty());
    }

    #[test]
    fn while_it_is_full_everybody_may_have_been_dialled() {
        let (mut dialled, now) = (Dialled::default(), Instant::now());
        for number in 0..2 * MOST {
            dialled.note(number, now);
        }
        assert_eq!(dialled.0.len(), MOST);
        assert!(dialled.has(&usize::MAX, now));
        dialled.note(0, now + LATELY);
        assert!(!dialled.has(&usize::MAX, now + LATELY));
    }
}
