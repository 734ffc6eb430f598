//! Sessions with peers as their asker, shared by all fetches.
//!
//! One session a peer. A session stays as long as it lives, so that the next fetch finds it open; it ends by the
//! peer's or our idle limit. What is dialled is bounded by the wire's cap on connections. Where no address of a chunk
//! port leads to a peer, other ways are tried beside.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::{Stream, StreamExt};

use tokio::sync::Mutex as AsyncMutex;

use crate::peer::{Conn, Detour, Dial, Multiaddr, PeerId, Unconnected};
use crate::session::{Asker, Error, Options, Reason};
use crate::support::task::Tasks;

/// Addresses of one peer that are tried.
const ADDRESSES: usize = 8;

/// How long chunk ports are tried alone: what answers, answers within this time (RFC 8305 has as long between two
/// attempts)…
const ALONE: Duration = Duration::from_millis(250);
/// …and how long they are preferred: a connection of theirs carries several times as much as another, and stands within
/// this time, which is three round trips of 300 ms, nearly wherever one can be had.
const PREFERRED: Duration = Duration::from_secs(1);

/// The address of a chunk port, or why one that was named is not known.
pub(super) type Place = Result<SocketAddr, Unconnected>;

/// Open sessions by peer. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    dial: Arc<dyn Dial>,
    /// Other ways than chunk ports, where there are any.
    detour: Option<Arc<dyn Detour>>,
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
    link: Mutex<Option<(Asker, Option<SocketAddr>)>>,
}

impl Slot {
    fn link(&self) -> MutexGuard<'_, Option<(Asker, Option<SocketAddr>)>> {
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
    /// The chunk port that it was reached at, if it was.
    pub at: Option<SocketAddr>,
    /// Whether it is open.
    pub open: bool,
    /// Bytes that came in it.
    pub received: u64,
}

impl Links {
    /// No sessions yet; they are dialled through `dial` and run in `tasks`.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, options: Options, tasks: Tasks) -> Self {
        Self::with_detour(dial, None, options, tasks)
    }

    /// As [`Links::new`], with other ways than chunk ports.
    #[must_use]
    pub fn with_detour(
        dial: Arc<dyn Dial>,
        detour: Option<Arc<dyn Detour>>,
        options: Options,
        tasks: Tasks,
    ) -> Self {
        Self { shared: Arc::new(Shared { dial, detour, options, tasks, slots: Mutex::default() }) }
    }

    /// Who this node is, and what stands for its network.
    pub(super) fn whose(&self) -> (PeerId, [u8; 32]) {
        (self.shared.options.me, self.shared.options.network.id())
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Slot>>> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open session with `peer`, or a new one at the first of `addresses` where that peer answers, or by another
    /// way than its chunk ports, to which what is `known` of it may lead; with `None` no other way is tried. Bounded in
    /// time by the diallers and the hello.
    ///
    /// # Errors
    /// [`Unconnected`]: what the last address that was tried gave; where none is known, what the other way did.
    pub async fn connect(
        &self,
        peer: PeerId,
        addresses: impl Stream<Item = Place> + Send,
        known: Option<Vec<Multiaddr>>,
    ) -> Result<Asker, Unconnected> {
        let slot = self.slot(peer);
        let _dialling = slot.dialling.lock().await;
        if let Some(asker) = slot.open() {
            return Ok(asker);
        }
        match self.reach(peer, addresses, known).await {
            Ok((asker, at)) => {
                *slot.link() = Some((asker.clone(), at));
                Ok(asker)
            }
            Err(why) => {
                self.forget(&peer);
                Err(why)
            }
        }
    }

    /// A session with `peer` at the first of `addresses` where it answers, by no other way; also where there is one
    /// already, which stays where they all fail. Bounded in time as [`Links::connect`].
    ///
    /// # Errors
    /// [`Unconnected`]: what the last address that was tried gave.
    pub(super) async fn try_at(
        &self,
        peer: PeerId,
        addresses: impl Stream<Item = Place> + Send,
    ) -> Result<Asker, Unconnected> {
        let slot = self.slot(peer);
        let _dialling = slot.dialling.lock().await;
        let why = match self.straight(peer, addresses).await {
            Ok((asker, at)) => {
                *slot.link() = Some((asker.clone(), at));
                return Ok(asker);
            }
            Err(why) => why,
        };
        if slot.open().is_none() {
            self.forget(&peer);
            return Err(why);
        }
        let at = slot.link().as_ref().and_then(|(_, at)| *at);
        let at = at.map_or_else(String::new, |at| format!(" at {at}"));
        Err(match why {
            Unconnected::Unreachable(why) => {
                Unconnected::Unreachable(format!("{why}; there is a session with it{at} all the same"))
            }
            other => other,
        })
    }

    /// Chunk ports first and, from when they have failed or not answered at once, other ways beside.
    async fn reach(
        &self,
        peer: PeerId,
        addresses: impl Stream<Item = Place> + Send,
        known: Option<Vec<Multiaddr>>,
    ) -> Result<(Asker, Option<SocketAddr>), Unconnected> {
        let straight = self.straight(peer, addresses);
        let (Some(detour), Some(known)) = (&self.shared.detour, known) else { return straight.await };
        let missed: Mutex<Option<Unconnected>> = Mutex::new(None);
        let around = async {
            let opened = match detour.open(peer, known).await {
                Ok(conn) => self.open(conn).await,
                Err(why) => Err(why),
            };
            opened.map(|asker| (asker, None)).inspect_err(|why| {
                tracing::debug!(%peer, %why, "no way around");
                *missed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
            })
        };
        let reached = prefer(straight, around, Unconnected::is_refusal).await;
        let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let explains = |missed: &Unconnected, why: &Unconnected| *why == nowhere() || missed.is_refusal();
        reached.map_err(|why| missed.filter(|missed| explains(missed, &why)).unwrap_or(why))
    }

    async fn straight(
        &self,
        peer: PeerId,
        addresses: impl Stream<Item = Place> + Send,
    ) -> Result<(Asker, Option<SocketAddr>), Unconnected> {
        let mut last = nowhere();
        let mut addresses = pin!(addresses.take(ADDRESSES));
        while let Some(at) = addresses.next().await {
            let at = match at {
                Ok(at) => at,
                Err(why) => {
                    last = why;
                    continue;
                }
            };
            match self.dial(peer, at).await {
                Ok(asker) => return Ok((asker, Some(at))),
                Err(why) => {
                    tracing::debug!(%peer, %at, %why, "no session");
                    // Who it is has been proved there: other addresses say no more.
                    if why.is_refusal() {
                        return Err(why);
                    }
                    last = why;
                }
            }
        }
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
        self.open(dialled.map_err(|error| Unconnected::Unreachable(error.to_string()))?).await
    }

    async fn open(&self, conn: Conn) -> Result<Asker, Unconnected> {
        Asker::open(conn, &self.shared.options, &self.shared.tasks).await.map_err(|error| match error {
            Error::Network | Error::Goodbye { reason: Reason::Network, .. } => Unconnected::OtherNetwork,
            Error::Proof | Error::Goodbye { reason: Reason::Proof, .. } => Unconnected::OtherKey,
            other => Unconnected::Unreachable(other.to_string()),
        })
    }

    /// Where the open session with a peer leads.
    pub(super) fn address(&self, peer: &PeerId) -> Option<IpAddr> {
        let slot = Arc::clone(self.slots().get(peer)?);
        slot.link().as_ref().and_then(|(asker, _)| asker.remote())
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

/// There is no chunk port to try.
fn nowhere() -> Unconnected {
    Unconnected::Unreachable("no address of its chunk port is known".to_owned())
}

/// What `straight` leads to, or `around` where that fails, takes longer than [`PREFERRED`], or has not answered when
/// `around` ends after that. An error is that of `straight`; one that `is_final` ends both.
async fn prefer<T, E>(
    straight: impl Future<Output = Result<T, E>> + Send,
    around: impl Future<Output = Result<T, E>> + Send,
    is_final: impl Fn(&E) -> bool + Send,
) -> Result<T, E> {
    let preferred = tokio::time::Instant::now() + PREFERRED;
    let (mut straight, around) = (pin!(straight), pin!(around));
    match tokio::time::timeout(ALONE, &mut straight).await {
        Ok(Ok(reached)) => return Ok(reached),
        Ok(Err(why)) if is_final(&why) => return Err(why),
        Ok(Err(why)) => return around.await.map_err(|_| why),
        Err(_) => {}
    }
    match select(straight, around).await {
        Either::Left((Ok(reached), _)) => Ok(reached),
        Either::Left((Err(why), _)) if is_final(&why) => Err(why),
        Either::Left((Err(why), around)) => around.await.map_err(|_| why),
        Either::Right((Err(_), straight)) => straight.await,
        Either::Right((Ok(around), straight)) => {
            let reached = tokio::time::timeout_at(preferred, straight).await;
            reached.ok().and_then(Result::ok).map_or(Ok(around), Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than the test may take.
    const NEVER: u64 = 600_000;

    async fn after(
        millis: u64,
        result: Result<&'static str, &'static str>,
    ) -> Result<&'static str, &'static str> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        result
    }

    #[tokio::test]
    async fn chunk_ports_are_preferred_for_a_second_and_nobody_waits_longer_for_them() {
        let (straight, around) = (Ok("straight"), Ok("around"));
        let (refused, missed, stranger) = (Err("refused"), Err("missed"), Err("a stranger"));
        let cases = [
            ((100, straight), (0, around), straight),
            ((900, straight), (10, around), straight),
            ((NEVER, straight), (10, around), around),
            ((NEVER, straight), (2_000, around), around),
            ((100, refused), (300, around), around),
            ((600, refused), (10, around), around),
            ((600, refused), (800, around), around),
            ((3_000, straight), (10, missed), straight),
            ((3_000, refused), (10, missed), refused),
            ((100, refused), (300, missed), refused),
            ((100, stranger), (NEVER, around), stranger),
            ((600, stranger), (NEVER, around), stranger),
        ];
        let tries = cases.map(|((first, one), (second, other), expected)| async move {
            let is_final = |why: &&str| *why == "a stranger";
            let got = prefer(after(first, one), after(second, other), is_final).await;
            assert_eq!(got, expected, "{first} {one:?} {second} {other:?}");
        });
        let all = futures::future::join_all(tries);
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("nobody waits for what never comes");
    }
}
