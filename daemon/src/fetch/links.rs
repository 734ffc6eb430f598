//! Sessions with peers as their asker, shared by all fetches.
//!
//! One session a peer. A session stays as long as it lives, so that the next fetch finds it open; it ends by the
//! peer's or our idle limit. What is dialled is bounded by the wire's cap on connections.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use crate::peer::{Dial, PeerId, Unconnected};
use crate::session::{Asker, Error, Options, Reason};
use crate::support::task::Tasks;

/// Addresses of one peer that are tried.
const ADDRESSES: usize = 8;

/// Open sessions by peer. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    dial: Arc<dyn Dial>,
    options: Options,
    tasks: Tasks,
    /// One slot a peer that a session was opened with, or is being.
    slots: Mutex<HashMap<PeerId, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    /// Held while dialling, so that a peer is dialled once.
    dialling: AsyncMutex<()>,
    /// The last session and where it leads.
    link: Mutex<Option<(Asker, SocketAddr)>>,
}

impl Slot {
    fn link(&self) -> MutexGuard<'_, Option<(Asker, SocketAddr)>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Option<Asker> {
        let mut link = self.link();
        link.take_if(|(asker, _)| asker.is_closed());
        link.as_ref().map(|(asker, _)| asker.clone())
    }
}

/// A session, for people to see.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// With whom.
    pub peer: PeerId,
    /// Where it was reached.
    pub at: SocketAddr,
    /// Whether it is open.
    pub open: bool,
    /// Bytes that came in it.
    pub received: u64,
}

impl Links {
    /// No sessions yet; they are dialled through `dial` and run in `tasks`.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, options: Options, tasks: Tasks) -> Self {
        Self { shared: Arc::new(Shared { dial, options, tasks, slots: Mutex::default() }) }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Slot>>> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open session with `peer`, or a new one at the first of `addresses` where that peer answers. Bounded in
    /// time by the dialler and the hello.
    ///
    /// # Errors
    /// [`Unconnected`]: what the last address that was tried gave.
    pub async fn connect(&self, peer: PeerId, addresses: &[SocketAddr]) -> Result<Asker, Unconnected> {
        let slot = self.slot(peer);
        let _dialling = slot.dialling.lock().await;
        if let Some(asker) = slot.open() {
            return Ok(asker);
        }
        let mut last = Unconnected::Unreachable("no address of its chunk port is known".to_owned());
        for at in addresses.iter().take(ADDRESSES) {
            match self.dial(peer, *at).await {
                Ok(asker) => {
                    *slot.link() = Some((asker.clone(), *at));
                    return Ok(asker);
                }
                Err(why) => {
                    tracing::debug!(%peer, %at, %why, "no session");
                    last = why;
                }
            }
        }
        self.forget(&peer);
        Err(last)
    }

    /// The slot of a peer. Those of sessions that have ended, and that nobody dials, are dropped on the way.
    fn slot(&self, peer: PeerId) -> Arc<Slot> {
        let mut slots = self.slots();
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.open().is_some());
        Arc::clone(slots.entry(peer).or_default())
    }

    async fn dial(&self, peer: PeerId, at: SocketAddr) -> Result<Asker, Unconnected> {
        let dialled = self.shared.dial.dial(peer, at).await;
        let conn = dialled.map_err(|error| Unconnected::Unreachable(error.to_string()))?;
        Asker::open(conn, &self.shared.options, &self.shared.tasks).await.map_err(|error| match error {
            Error::Network | Error::Goodbye { reason: Reason::Network, .. } => Unconnected::OtherNetwork,
            Error::Proof | Error::Goodbye { reason: Reason::Proof, .. } => Unconnected::OtherKey,
            other => Unconnected::Unreachable(other.to_string()),
        })
    }

    /// Where the open session with a peer leads.
    pub(super) fn address(&self, peer: &PeerId) -> Option<IpAddr> {
        let slot = Arc::clone(self.slots().get(peer)?);
        let at = slot.link().as_ref().map(|(_, at)| at.ip());
        at
    }

    /// Drops the session with a peer: it lied.
    pub fn forget(&self, peer: &PeerId) {
        self.slots().remove(peer);
    }

    /// All sessions that are open.
    #[must_use]
    pub fn views(&self) -> Vec<LinkView> {
        let slots: Vec<(PeerId, Arc<Slot>)> =
            self.slots().iter().map(|(peer, slot)| (*peer, Arc::clone(slot))).collect();
        let view = |(peer, slot): (PeerId, Arc<Slot>)| {
            let link = slot.link();
            let (asker, at) = link.as_ref()?;
            Some(LinkView { peer, at: *at, open: !asker.is_closed(), received: asker.received() })
        };
        slots.into_iter().filter_map(view).filter(|view| view.open).collect()
    }
}
