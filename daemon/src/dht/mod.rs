//! The DHT plane: libp2p and nothing else.
//!
//! Owns: the swarm, who is known, the record store, announcing and look-ups. Other rooms see the traits
//! [`Discovery`] and [`Announce`](crate::peer::Announce), and this room's [`Dht`]. Refuses: chunks, but on
//! streams where no TCP connection is to be had, values in the DHT, and nodes of other networks. Survives a crash:
//! peers to join by again; what was announced, here and by this node, but for the last seconds (`journal`).
//!
//! # Where things are
//!
//! - `event_loop`: the one task that owns the swarm; its parts `joining`, `seeking`, `asking` and `answering`.
//! - `announcer`: many keys to their nearest nodes, which `survey` finds by `regions` of the key space (`position`)
//!   and the `atlas` keeps.
//! - `wider`: look-ups, also among nodes besides the nearest; `turns`: whom of those that are named one asks first.
//! - `diversity`: whom a crowded routing table lets go for whom; `presence`: when those in it were last there.
//! - `schedule`: which keys, and when; `holdings` are this node's own; `heard` is who has yet to hear what is said of
//!   them.
//! - `records`: who announced what to this node, and what they say of it; `awaited`: who waits for that; `published` is
//!   what this node says.
//! - `about`, `catalogue`: asking others what is said of an object, and what they publish.
//! - `journal`: what outlives the process.
//! - `look_ups`, `peers`, `bootstrap`, `remembered`: state machines of the loop, pure; `company`: whether this node is
//!   alone; `causes`: why a dial failed; `unreached`: why holders are not reached.
//! - `lan`: who is on the local network; `introducing`: whom neighbours name to a node that knows nobody.
//! - `batch`, `hello`, `find`: our other protocols; all are over `codec`, and so is `introducing`; `reading` is what of
//!   a message is here before all is.
//! - `start`: how all this is put together; `behaviour`, `transport`, `listen`: how the swarm is; `proof`: whom a
//!   private network lets in.
//! - `reach`: what may be dialled, by what was `given` and what is this node's `own`; `pace`: how fast.
//! - `meter`, `metered`, `later`, `paced`, `proving`: how fast a peer may ask; `answers`: what it may tell of others;
//!   `strikes`, `guard`: who is not spoken to; `hosts`: how many connections one may have; `lasting`: how long they
//!   last; `sending`: which batches wait for one.
//! - `reaching`, `reachable`: whether others reach this node, which `candidates` has them try and `dial_backs` tries
//!   for them; `relays`: what is done where they do not, by `relay_choice`; `relaying`, `shares`: what they get of
//!   this node as a relay; `dialled`: who does not come in unasked; `upnp`: what a router says.
//! - `detour`: ways to peers that are not reached at their chunk ports, over `streams`; `punch`: both dial at once,
//!   where others see them by `sightings`.
//! - `views`: what is told of all this to other rooms.

mod about;
mod announcer;
mod answering;
mod answers;
mod asking;
mod atlas;
mod awaited;
mod batch;
mod behaviour;
mod bootstrap;
mod candidates;
mod catalogue;
mod causes;
mod codec;
mod command;
mod company;
mod detour;
mod dial_backs;
mod dialled;
mod diversity;
mod error;
mod event_loop;
mod find;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod given;
mod guard;
mod heard;
mod hello;
mod holdings;
mod hosts;
mod introducing;
mod joining;
mod journal;
mod lan;
mod lasting;
mod later;
mod listen;
mod look_ups;
mod meter;
mod metered;
mod options;
mod own;
mod pace;
mod paced;
mod peers;
mod position;
mod presence;
mod proof;
mod proving;
mod published;
mod punch;
mod reach;
mod reachable;
mod reaching;
mod reading;
mod records;
mod regions;
mod relay_choice;
mod relaying;
mod relays;
mod remembered;
mod schedule;
mod seeking;
mod sending;
mod shares;
mod sightings;
mod start;
mod streams;
mod strikes;
mod survey;
#[cfg(test)]
mod tests;
mod transport;
mod turns;
mod unreached;
#[cfg(feature = "upnp")]
mod upnp;
mod views;
mod wider;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::multiaddr::Protocol;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::error::Error;
pub use self::options::{Limits, Mode, Options};
pub use self::transport::Transport;
pub use self::views::{PeerView, Status};

use self::atlas::Shelf;
use self::awaited::Awaited;
use self::command::Command;
use self::heard::Heard;
use self::holdings::Holdings;
use self::journal::Journal;
use self::published::Published;
use self::reach::Reach;
use self::records::Described;
use self::schedule::Schedule;
use self::views::{Addresses, Seen};
use crate::peer::{Company, Conn, Discovery, Holder, Key, Keypair, Multiaddr, PeerId, Reachability};
use crate::support::rate::Limiter;
use crate::support::task::Tasks;

/// How long a caller waits for a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How often whoever waits for the network to be joined looks whether that is to be expected still.
const LOOK: Duration = Duration::from_millis(100);
/// For how long only such are connected as keep no records until others are not expected any more: those that could
/// name some are asked as soon as they are there, and answer sooner.
const UNSERVED: Duration = Duration::from_secs(1);

/// The DHT plane. Cheap to clone; clones share it. It runs until its tasks are told to stop.
#[derive(Clone)]
pub struct Dht(Arc<Inner>);

/// What the handles share.
struct Inner {
    /// The way to the event loop.
    commands: mpsc::Sender<Command>,
    /// What the event loop tells all the time.
    seen: Seen,
    /// Whether there are configured nodes or remembered peers to join by.
    has_others: bool,
    /// Until when somebody may be found on the local network.
    neighbours_until: tokio::time::Instant,
    /// What may be dialled.
    reach: Arc<Reach>,
    /// Who this node is.
    local: PeerId,
    /// Signs batches.
    keypair: Keypair,
    /// The network's name, part of what is signed.
    network: Arc<str>,
    /// Streams that others have opened, until somebody takes them.
    accepted: Mutex<Option<mpsc::Receiver<Conn>>>,
    /// What announcing has learnt of the network.
    shelf: Arc<Shelf>,
    /// Keys that somebody here waits for.
    awaited: Awaited,
    /// This node's own keys.
    holdings: Arc<Mutex<Holdings>>,
    /// What this node says of some of them.
    published: Arc<Published>,
    /// Who has heard of it.
    heard: Arc<Heard>,
    /// What others say of what they hold.
    described: Described,
    /// When they are announced.
    schedule: Schedule,
    /// What outlives the process.
    journal: Journal,
    /// How long others are asked to keep them.
    lifetime: Duration,
    /// Nodes of one address group that are trusted with the same object's key.
    of_group: usize,
    /// What batches wait for.
    rate: Arc<Limiter>,
    /// The number of the next batch. Starts at the microseconds since 1970, so that it grows over restarts.
    sequence: AtomicU64,
    /// Where waiting is done for callers that cannot wait.
    tasks: Tasks,
}

// === impl Dht ===

impl Dht {
    /// Binds the listeners and starts the event loop. Joining the network goes on in the background.
    ///
    /// # Errors
    /// The network's name or an address is unusable, or a port is in use.
    pub async fn start(mut options: Options, keypair: Keypair, tasks: &Tasks) -> Result<Self, Error> {
        options.listen = listen::free_ports(&options.listen, options.replace_busy_port)?;
        let carriers = transport::sockets(&keypair)?;
        options.lan_discovery &= options.looks_around();
        let dht = start::begin(carriers, options, keypair, tasks).await?;
        Arc::clone(&dht.0.reach).watch(tasks);
        Ok(dht)
    }

    /// As [`Dht::start`], over other carriers than this host's sockets: so that a whole network fits in one
    /// process. This host's ports and interfaces are not looked at.
    ///
    /// # Errors
    /// The network's name or an address is unusable, or the carriers refuse to listen there.
    pub async fn start_over(
        carriers: Transport,
        options: Options,
        keypair: Keypair,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let options = Options { lan_discovery: false, asks_to_be_dialled: false, ..options };
        start::begin(carriers, options, keypair, tasks).await
    }

    /// Where this node listens, as bound, each ending in `/p2p/` and its id: good as another node's bootstrap, which
    /// link-local ones of IPv6 are not.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        let listening = self.0.addresses().listening.into_iter().filter(listen::is_for_people);
        listening.map(|address| named(&address, self.0.local)).collect()
    }

    /// Dials a node, by an address that ends in `/p2p/PEERID`, and waits until it has proved to be of this
    /// network; at most 30 s. Where it is connected at another address this one is tried all the same.
    ///
    /// # Errors
    /// The address names nobody, nobody answers there, or the node is of another network.
    pub async fn connect(&self, address: Multiaddr) -> Result<PeerId, Error> {
        self.0.reach.give(&address);
        self.dial(address, true).await
    }

    /// As [`Dht::connect`], of an address that a stranger told: only as far as [`Reach`] allows, and where the peer is
    /// not connected already.
    async fn reach(&self, address: Multiaddr) -> Result<PeerId, Error> {
        self.dial(address, false).await
    }

    async fn dial(&self, address: Multiaddr, anew: bool) -> Result<PeerId, Error> {
        let peer = peer_of(&address).ok_or_else(|| Error::NoPeerId(address.clone()))?;
        if peer == self.0.local {
            return Err(Error::Myself(address));
        }
        let silent = Error::Silent { address: address.clone(), within: CONNECT };
        let asked = self.0.ask(|done| Command::Connect { peer, address, anew, done });
        tokio::time::timeout(CONNECT, asked).await.map_err(|_| silent)?.ok_or(Error::Stopped)?
    }

    /// Waits until look-ups can be made: some node is in the routing table, or this one is where others look. False as
    /// soon as none is to be expected: none is configured or remembered to join by, none on the local network has
    /// answered, and none is being dialled; or only such are connected as keep no records, and know none that does, and
    /// those that are configured or remembered have been dialled in vain for a while. Bounded in time by the caller.
    pub async fn joined(&self) -> bool {
        let (mut routed, mut entered) = (self.0.seen.routed.clone(), self.0.seen.entered.clone());
        let routed = async move { routed.wait_for(|routed| *routed > 0).await.is_ok() };
        let entered = async move { entered.wait_for(|entered| *entered).await.is_ok() };
        let come = async move {
            tokio::select! {
                come = routed => come,
                come = entered => come,
            }
        };
        tokio::select! {
            biased;
            come = come => come,
            () = self.is_in_vain(), if !self.0.has_others => false,
            () = self.is_unserved() => false,
        }
    }

    /// Waits until only such are connected as keep no records, and no others are to be expected.
    async fn is_unserved(&self) {
        let mut left = UNSERVED;
        while !left.is_zero() {
            tokio::time::sleep(LOOK).await;
            left = match self.0.ask(|done| Command::Unserved { done }).await {
                Some(true) => left.saturating_sub(LOOK),
                Some(false) => UNSERVED,
                // The room has stopped, which is seen elsewhere.
                None => return std::future::pending().await,
            };
        }
    }

    /// Waits until nobody is to be expected any more. A caller may have named somebody by whom the network is being
    /// joined, or a neighbour.
    async fn is_in_vain(&self) {
        tokio::time::sleep_until(self.0.neighbours_until).await;
        while self.0.ask(|done| Command::Joining { done }).await == Some(true) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether others can connect to this node, as far as is known.
    #[must_use]
    pub fn reachability(&self) -> Reachability {
        self.0.seen.reachability.borrow().clone()
    }

    /// Nodes in the routing table: changes as they come and go.
    #[must_use]
    pub fn routed(&self) -> watch::Receiver<usize> {
        self.0.seen.routed.clone()
    }

    /// Streams for the chunk protocol that others open to this node. `None` when they have been taken before.
    #[must_use]
    pub fn take_accepted(&self) -> Option<mpsc::Receiver<Conn>> {
        self.0.accepted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Nodes of this network that could be asked something, connected or not, and whether each is. Empty once the room
    /// has stopped.
    pub async fn known(&self) -> Vec<(PeerId, bool)> {
        self.0.ask(|done| Command::Known { done }).await.unwrap_or_default()
    }

    /// The nodes that are connected, in the routing table or remembered. Empty once the room has stopped.
    pub async fn peers(&self) -> Vec<PeerView> {
        self.0.ask(|done| Command::Peers { done }).await.unwrap_or_default()
    }

    /// How this node stands among the others. All zero once the room has stopped.
    pub async fn standing(&self) -> Company {
        self.0.ask(|done| Command::Company { done }).await.unwrap_or_default()
    }

    /// Figures. All zero once the room has stopped.
    pub async fn status(&self) -> Status {
        self.0.ask(|done| Command::Status { done }).await.unwrap_or_default()
    }
}

impl Discovery for Dht {
    fn providers(&self, key: Key) -> mpsc::Receiver<Holder> {
        let (found, providers) = mpsc::channel(look_ups::MAX_FOUND);
        // Callers hold as many receivers as there are such tasks.
        self.0.tasks.spawn("look-up", self.clone().look(key, found));
        providers
    }

    fn chunk_addresses(&self, peer: PeerId, known: Vec<Multiaddr>) -> BoxFuture<'static, Vec<SocketAddr>> {
        let dht = self.clone();
        let learn = async move {
            let ask = || dht.0.ask(|done| Command::ChunkAddresses { peer, known: Vec::new(), done });
            let mut chunk = ask().await.and_then(Result::ok).unwrap_or_default();
            for address in known {
                if !chunk.is_empty() {
                    break;
                }
                let Ok(address) = address.with_p2p(peer) else { continue };
                if dht.reach(address).await.is_ok() {
                    chunk = ask().await.and_then(Result::ok).unwrap_or_default();
                }
            }
            chunk
        };
        // However many addresses a stranger tells, they hold up no more than one would.
        Box::pin(async move { tokio::time::timeout(CONNECT, learn).await.unwrap_or_default() })
    }

    fn vouch(&self, address: &Multiaddr) {
        self.0.reach.give(address);
    }

    fn may_dial(&self, at: SocketAddr, teller: Option<IpAddr>) -> bool {
        self.0.reach.allows_chunk(at, teller)
    }

    fn others(&self) -> BoxFuture<'static, bool> {
        let dht = self.clone();
        Box::pin(async move { dht.joined().await })
    }

    fn announced(&self, key: Key) -> BoxFuture<'static, ()> {
        let news = self.0.awaited.wait(key);
        Box::pin(async move {
            if news.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

// === impl Inner ===

impl Inner {
    /// Sends a command and waits for its answer; `None` when the room has stopped.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).await.ok()?;
        answer.await.ok()
    }

    fn addresses(&self) -> Addresses {
        self.seen.addresses.borrow().clone()
    }

    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The peer id at the end of an address.
fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// The address with the id of whose it is at its end.
fn named(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    let named = address.clone().with_p2p(peer);
    // An address that ends in another id stays as it is: it is not ours to repair.
    named.unwrap_or_else(|address| address)
}
