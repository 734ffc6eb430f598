//! Objects that the journal names and of which no segment has anything: the segments were removed, or lost.
//!
//! Owns: which these are. They are looked for once, when the index had to be made anew; later losses are what a scrub
//! finds. Refuses: letting go of them, since they are promised, and a fetch or an add brings them back. Survives a
//! crash: nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::handle::{Inner, Store};
use super::object::State;
use super::progress::Gauge;
use super::record::Key;
use crate::content::ObjectId;
use crate::support::task::Tasks;

/// Objects looked at in one go.
const PAGE: usize = 1024;

/// Ids that are named at most.
const NAMED: usize = 3;

/// The objects without a first record.
#[derive(Default)]
pub(super) struct Recordless(Mutex<BTreeSet<ObjectId>>);

impl Store {
    /// Whether the object is known to have nothing here, not even its first record.
    #[must_use]
    pub fn is_recordless(&self, id: &ObjectId) -> bool {
        let recordless = self.inner.recordless.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = recordless.contains(id);
        drop(recordless);
        is_known && self.inner.has_none(id)
    }
}

/// Looks for them when the index is whole.
pub(super) async fn find(store: Weak<Inner>, gauge: Arc<Gauge>, tasks: Tasks) {
    tokio::select! {
        biased;
        whole = gauge.whole() => if whole.is_err() { return },
        () = tasks.stopping() => return,
    }
    if !gauge.was_made_anew() {
        return;
    }
    let mut after = None;
    while let Some(inner) = store.upgrade() {
        let page = inner.ledger.page(State::Whole, after, PAGE);
        after = page.last().map(|info| info.id);
        if after.is_none() {
            let (count, first) = inner.recordless();
            if count > 0 {
                tracing::error!(count, %first, "objects of which no segment has anything: were segments removed?");
            }
            return;
        }
        let worker = Arc::clone(&inner);
        let look =
            move || page.into_iter().map(|info| info.id).filter(|id| worker.has_none(id)).collect::<Vec<_>>();
        let found = inner.pool.run(look).await;
        inner.recordless.0.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }
}

impl Inner {
    /// Whether a whole object has no first record. One that cannot be looked for is not counted.
    fn has_none(&self, id: &ObjectId) -> bool {
        let Some(info) = self.ledger.get(id).filter(|info| info.state == State::Whole) else { return false };
        let key = Key::first(&info.id, info.length);
        !self.catalog.is_fresh(&key) && matches!(self.catalog.find(&key), Ok(None))
    }

    /// How many objects have none now, and the first of them, in words.
    pub(super) fn recordless(&self) -> (usize, String) {
        let known = self.recordless.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known: BTreeSet<ObjectId> = known.into_iter().filter(|id| self.has_none(id)).collect();
        let mut first: Vec<String> = known.iter().take(NAMED).map(ObjectId::to_string).collect();
        if known.len() > NAMED {
            first.push("…".to_owned());
        }
        let count = known.len();
        *self.recordless.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
        (count, first.join(", "))
    }
}
