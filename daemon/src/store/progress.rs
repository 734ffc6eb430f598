//! How far the index is, for those who wait for it, and the wish for a new one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use super::Error;

/// How far the index is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// It is being checked, or made anew: so many of so many segments are scanned.
    Working {
        /// Segments scanned.
        done: usize,
        /// Segments in all; 0 while it is checked.
        total: usize,
    },
    /// It names every record.
    Whole,
    /// It could not be brought up.
    Failed(Error),
}

/// See the module.
pub(super) struct Gauge {
    progress: watch::Sender<Progress>,
    /// The index broke and is to be made anew.
    broke: Notify,
    /// How often it did.
    breaks: AtomicU64,
    /// It has been made anew.
    anew: AtomicBool,
}

impl Gauge {
    /// Of an index that is to be checked.
    pub(super) fn new() -> Self {
        Self {
            progress: watch::Sender::new(Progress::Working { done: 0, total: 0 }),
            broke: Notify::new(),
            breaks: AtomicU64::new(0),
            anew: AtomicBool::new(false),
        }
    }

    /// Says how far it is.
    pub(super) fn set(&self, progress: Progress) {
        if matches!(progress, Progress::Working { total, .. } if total > 0) {
            self.anew.store(true, Ordering::Release);
        }
        self.progress.send_replace(progress);
    }

    /// The index broke: from now on it does not name every record, and it is to be made anew.
    pub(super) fn break_down(&self) {
        self.breaks.fetch_add(1, Ordering::AcqRel);
        self.progress.send_modify(|now| {
            // Once given up nobody makes it anew.
            if !matches!(now, Progress::Failed(_)) {
                *now = Progress::Working { done: 0, total: 0 };
            }
        });
        self.broke.notify_one();
    }

    /// How often the index broke: what was missed meanwhile says nothing.
    pub(super) fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Acquire)
    }

    /// Whether it had to be made anew in this run.
    pub(super) fn was_made_anew(&self) -> bool {
        self.anew.load(Ordering::Acquire)
    }

    /// Completes when the index broke.
    pub(super) async fn broken(&self) {
        self.broke.notified().await;
    }

    /// Whether the index names every record.
    pub(super) fn is_whole(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Whole)
    }

    /// Segments scanned, and all, while it is worked on.
    pub(super) fn working(&self) -> Option<(usize, usize)> {
        match *self.progress.borrow() {
            Progress::Working { done, total } => Some((done, total)),
            _ => None,
        }
    }

    /// Why the index could not be brought up.
    pub(super) fn failed(&self) -> Option<Error> {
        match &*self.progress.borrow() {
            Progress::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Waits until the index names every record.
    pub(super) async fn whole(&self) -> Result<(), Error> {
        if self.is_whole() {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let progress = progress.wait_for(|now| !matches!(now, Progress::Working { .. })).await;
        match &*progress.map_err(|_| Error::Closed)? {
            Progress::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
