//! How much may move at once, and changing it while the node runs.
//!
//! Owns: the rates by class, the places of those who are given chunks, and whether uploads yield, each as it is now
//! and as the settings have it. Refuses: to keep what is changed by hand: a restart, and reading the settings again,
//! bring back what these say. Survives a crash: nothing.
//!
//! What goes out is given to peers (`serve`) or tells others of keys (`announce`), together `upload`; what comes in is
//! asked for by users (`fetch`) or to mend what is damaged here (`repair`), together `download`.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Caller, Error, Node};
use crate::serve::{Bounds, Giving, Own};
use crate::support::rate::Limiter;

/// How much may move: rates in bytes a second, 0 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Sent, of all classes together.
    pub upload: u64,
    /// Received, of all classes together.
    pub download: u64,
    /// Given to each peer.
    pub upload_per_peer: u64,
    /// Given to peers.
    pub serve: u64,
    /// Sent to tell others what is held here.
    pub announce: u64,
    /// Received for users.
    pub fetch: u64,
    /// Received to mend what is damaged here.
    pub repair: u64,
    /// Peers that are given chunks at once, at least 1.
    pub upload_slots: u32,
    /// Whether uploads make way for what else is on the line.
    pub yielding: bool,
}

impl Default for Rates {
    fn default() -> Self {
        let (upload, download, upload_per_peer) = (0, 0, 0);
        let (serve, announce, fetch, repair) = (0, 0, 0, 0);
        let (upload_slots, yielding) = (32, false);
        Self { upload, download, upload_per_peer, serve, announce, fetch, repair, upload_slots, yielding }
    }
}

/// The limits of a node. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    rates: Mutex<LimitsView>,
    upload: Arc<Limiter>,
    download: Arc<Limiter>,
    serve: Arc<Limiter>,
    announce: Arc<Limiter>,
    fetch: Arc<Limiter>,
    repair: Arc<Limiter>,
    bounds: Bounds,
    /// Where connections look whether to yield.
    yielding: Arc<AtomicBool>,
}

/// Limits as they are, and as they will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsView {
    /// Now.
    pub now: Rates,
    /// As the settings have them: after a restart, or when they are read again.
    pub configured: Rates,
}

impl Limits {
    /// Limits as the settings have them; `yielding` is where connections look.
    #[must_use]
    pub fn new(configured: Rates, yielding: Arc<AtomicBool>) -> Self {
        let none = || Arc::new(Limiter::new(0));
        let part = |whole: &Arc<Limiter>| Arc::new(Limiter::within(0, Arc::clone(whole)));
        let (upload, download) = (none(), none());
        let (serve, announce) = (part(&upload), part(&upload));
        let (fetch, repair) = (part(&download), part(&download));
        let bounds = Bounds::new(Arc::clone(&serve));
        let rates = Mutex::new(LimitsView { now: configured, configured });
        let inner = Inner { rates, upload, download, serve, announce, fetch, repair, bounds, yielding };
        let limits = Self(Arc::new(inner));
        limits.configure(configured);
        limits
    }

    /// What is given to peers keeps to this.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.0.bounds.clone()
    }

    /// What tells others of keys waits for this.
    #[must_use]
    pub fn announce(&self) -> Arc<Limiter> {
        Arc::clone(&self.0.announce)
    }

    /// What users want waits for this.
    #[must_use]
    pub fn fetch(&self) -> Arc<Limiter> {
        Arc::clone(&self.0.fetch)
    }

    /// What mends waits for this.
    #[must_use]
    pub fn repair(&self) -> Arc<Limiter> {
        Arc::clone(&self.0.repair)
    }

    /// The settings have been read (again): they hold from now on.
    pub fn configure(&self, rates: Rates) {
        let mut both = self.rates();
        *both = LimitsView { now: rates, configured: rates };
        self.apply(&rates);
    }

    /// Changes what holds now, until the next restart, or until the settings are read again.
    fn change(&self, change: impl FnOnce(&mut Rates)) -> LimitsView {
        let mut both = self.rates();
        change(&mut both.now);
        self.apply(&both.now);
        *both
    }

    fn both(&self) -> LimitsView {
        *self.rates()
    }

    /// To be told when a user's bytes move.
    fn own(&self) -> &Own {
        self.0.bounds.own()
    }

    fn rates(&self) -> MutexGuard<'_, LimitsView> {
        self.0.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the rates locked, so that two who change them do not mix.
    fn apply(&self, rates: &Rates) {
        let Inner { upload, download, serve, announce, fetch, repair, bounds, yielding, .. } = &*self.0;
        let all = [
            (upload, rates.upload),
            (download, rates.download),
            (serve, rates.serve),
            (announce, rates.announce),
            (fetch, rates.fetch),
            (repair, rates.repair),
        ];
        all.into_iter().for_each(|(limiter, rate)| limiter.set(rate));
        let least = [rates.upload, rates.serve].into_iter().filter(|rate| *rate > 0).min();
        bounds.set(Giving {
            slots: usize::try_from(rates.upload_slots).unwrap_or(usize::MAX),
            rate: least.unwrap_or(0),
            per_peer: rates.upload_per_peer,
        });
        yielding.store(rates.yielding, Relaxed);
    }
}

impl Node {
    /// The limits, as they are and as the settings have them.
    #[must_use]
    pub fn limits(&self) -> LimitsView {
        self.parts.limits.both()
    }

    /// Changes limits until the next restart, or until the settings are read again.
    ///
    /// # Errors
    /// [`Error::AdminOnly`].
    pub fn set_limits(&self, caller: Caller, change: impl FnOnce(&mut Rates)) -> Result<LimitsView, Error> {
        if !caller.is_admin {
            return Err(Error::AdminOnly("change limits"));
        }
        let both = self.parts.limits.change(change);
        tracing::info!(uid = caller.uid, limits = ?both.now, "limits changed, until a restart or a reload");
        Ok(both)
    }

    /// A user's bytes have moved: what is done for peers steps back for a moment.
    pub fn moved(&self) {
        self.parts.limits.own().moved();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn what_is_changed_by_hand_is_gone_when_the_settings_are_read_again() {
        let limits = Limits::new(Rates { upload: 7, ..Rates::default() }, Arc::default());
        let changed = limits.change(|rates| (rates.upload, rates.yielding) = (9, true));
        assert_eq!((changed.now.upload, changed.configured.upload), (9, 7));
        assert!(limits.0.yielding.load(Relaxed) && limits.both() == changed);
        limits.configure(Rates { fetch: 5, ..Rates::default() });
        let rates = Rates { fetch: 5, ..Rates::default() };
        assert_eq!(limits.both(), LimitsView { now: rates, configured: rates });
        assert!(!limits.0.yielding.load(Relaxed));
    }

    #[tokio::test]
    async fn each_class_has_its_own_limit_within_that_of_its_direction() {
        let limits = Limits::new(Rates { repair: 1, upload: 1, ..Rates::default() }, Arc::default());
        let passes = |limiter: Arc<Limiter>| async move { limiter.take(1 << 30).now_or_never().is_some() };
        assert!(!passes(limits.repair()).await && passes(limits.fetch()).await);
        assert!(!passes(limits.announce()).await && !passes(Arc::clone(&limits.0.serve)).await);
        limits.change(|rates| (rates.upload, rates.download) = (0, 1));
        assert!(passes(limits.announce()).await && !passes(limits.fetch()).await);
    }
}
