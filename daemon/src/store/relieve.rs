//! Making room when the quota or the disk has none: what nobody promised to keep goes.
//!
//! Owns: what goes first. Leftovers of adds and fetches that did not end, of whatever age; then objects without a pin,
//! those that nobody has read for longest first, only as many as it takes. Refuses: what is pinned, and what a lease
//! holds. Survives a crash: each object goes as [`Store::remove`] lets it go.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Error;
use super::draft::Draft;
use super::handle::{Inner, Store};
use super::object::{ObjectInfo, State};
use super::space::{cost_of_data, cost_of_freed};

/// Looking through everything for nothing is not done again before this, unless something was let go of.
const REST: Duration = Duration::from_secs(10);

/// Whether an object may go when room is needed.
fn is_unpinned(info: &ObjectInfo) -> bool {
    info.pins.is_empty() || info.state == State::Partial
}

/// That room was looked for in vain.
pub(super) struct InVain {
    /// When.
    at: Instant,
    /// How much of it. Less may be there.
    needed: u64,
    /// What had been let go of by then.
    let_go: u64,
}

impl Store {
    /// Whether [`Store::relieve`] could free what is missing of room for `cost` bytes. Nothing goes.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub(super) async fn could_relieve(&self, cost: u64) -> Result<bool, Error> {
        let needed = self.inner.catalog.space.missing(cost);
        let most = |inner: &Inner| -> u64 {
            let cached = inner.ledger.select(is_unpinned);
            cached.iter().filter(|info| !inner.is_leased(info)).map(|info| cost_of_data(info.length)).sum()
        };
        let most = self.blocking(most).await;
        if most >= needed {
            return Ok(true);
        }
        let orphans = self.inner.walk(|inner| inner.orphans(&BTreeSet::new(), super::now(), 0)).await?;
        let leftover: u64 = orphans.iter().map(|(_, entry)| entry.footprint()).sum();
        Ok(most.saturating_add(cost_of_freed(leftover)) >= needed)
    }

    /// Frees what is missing of room for `cost` bytes, where it can. Whether it is worth trying again what had no room.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`], [`Error::Index`].
    pub(super) async fn relieve(&self, cost: u64) -> Result<bool, Error> {
        self.inner.learn_trees().await?;
        let mut in_vain = self.inner.in_vain.lock().await;
        // Whoever was here before may have freed enough for others as well.
        let needed = self.inner.catalog.space.missing(cost);
        if needed == 0 {
            return Ok(true);
        }
        let let_go = self.inner.let_go();
        let is_vain =
            |last: &InVain| last.at.elapsed() < REST && last.let_go == let_go && last.needed <= needed;
        if in_vain.as_ref().is_some_and(is_vain) {
            return Ok(false);
        }
        // What has been written and is not durable yet is in no index, and may be a leftover as well.
        self.inner.appender.durable(self.inner.appender.ticket()).await?;
        // As `needed` counts, or one object more than it takes would go for the sake of an entry of the index.
        let mut freed = cost_of_freed(self.inner.walk(|inner| inner.sweep_orphans(super::now(), 0)).await?.1);
        let cached = self.inner.ledger.select(is_unpinned);
        // What is in a directory counts for what could be freed, and goes with it.
        let most: u64 = cached.iter().map(|info| cost_of_data(info.length)).sum();
        let mut cached: Vec<_> = cached.into_iter().filter(|info| !self.inner.is_leased(info)).collect();
        self.inner.ledger.imagine(|draft| cached.retain(|info| !draft.is_held(&info.id)));
        if freed.saturating_add(most) < needed {
            // Nothing is let go of for what will not fit anyway.
            cached.clear();
        }
        cached.sort_by_cached_key(|info| (info.state == State::Whole, self.inner.last_used(info)));
        // What goes here is not what was let go of by others.
        let mut own = 0;
        for info in cached {
            if freed >= needed {
                break;
            }
            let id = info.id;
            let change = move |draft: &mut Draft<'_>| {
                // It may have been pinned since.
                let mut gone = Vec::new();
                if draft.get(&id).is_some_and(is_unpinned) && !draft.is_held(&id) {
                    draft.remove(id, &mut gone);
                }
                Ok(gone)
            };
            let gone = self.inner.change(change).await?;
            own += u64::from(!gone.is_empty());
            freed += cost_of_freed(self.blocking(move |inner| inner.sweep(&gone)).await?);
        }
        freed += self.copy_forward().await;
        *in_vain = (freed < needed).then(|| InVain { at: Instant::now(), needed, let_go: let_go + own });
        if freed > 0 {
            tracing::info!(freed, needed, "room was made: leftovers and what nobody pinned");
        }
        Ok(freed > 0)
    }
}

impl Inner {
    /// Counts what was let go of: as long as it stays the same there is no more to be freed than before.
    fn let_go(&self) -> u64 {
        self.ledger.let_go() + self.ended.load(Ordering::Acquire)
    }
}
