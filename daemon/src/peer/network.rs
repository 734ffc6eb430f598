//! The seams to the network: what carries bytes, what finds peers, what tells them of us.
//!
//! `wire` and `dht` implement these over sockets, the simulator over a virtual network, tests over pipes.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use futures::future::BoxFuture;
use multiaddr::Multiaddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::PeerId;
use crate::content::{Description, SignedDescription};

/// A two-way stream of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A stream whose other end has proved who it is.
pub struct Conn {
    /// Who is there.
    pub peer: PeerId,
    /// Where it is, as seen from here; `None` for streams within a process.
    pub remote: Option<IpAddr>,
    /// The bytes. Whatever must live as long as the connection (a socket, a permit) is inside.
    pub stream: Box<dyn ByteStream>,
    /// A value that both ends of this connection know and no other connection has: the TLS exporter. All zeros
    /// where there is none; a proof bound to it then holds between the same two peers on any connection.
    pub binding: [u8; 32],
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("peer", &self.peer).field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// Opens connections of the chunk plane.
pub trait Dial: Send + Sync {
    /// Connects to `at` and makes sure that `peer` is who answers. Bounded in time by the implementer; dropping
    /// the future gives up.
    fn dial(&self, peer: PeerId, at: SocketAddr) -> BoxFuture<'static, Result<Conn, DialError>>;
}

/// Opens streams to peers that cannot be reached at a chunk port.
pub trait Detour: Send + Sync {
    /// Another way to `peer` than its chunk ports: a stream that carries the same sessions; `known` are addresses to
    /// reach it at besides those that are known already. Bounded in time by the implementer; dropping the future gives
    /// up.
    fn open(&self, peer: PeerId, known: Vec<Multiaddr>) -> BoxFuture<'static, Result<Conn, Unconnected>>;
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection came about.
    #[error("cannot connect to {at}: {source}")]
    Connect {
        /// Where.
        at: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answered in time, or the handshake took too long.
    #[error("{at} did not answer in time")]
    TimedOut {
        /// Where.
        at: SocketAddr,
    },
    /// Another peer answers at that address. Not the fault of either peer: addresses change hands.
    #[error("another node is at {at}: {found}, and not {wanted}")]
    WrongPeer {
        /// Where.
        at: SocketAddr,
        /// Who was to answer.
        wanted: PeerId,
        /// Who did.
        found: PeerId,
    },
    /// What answers does not speak the protocol.
    #[error("{at} does not answer as a casd chunk port does: {why}")]
    Handshake {
        /// Where.
        at: SocketAddr,
        /// What went wrong.
        why: String,
    },
    /// The peer, its host or its block of addresses is banned.
    #[error(
        "no connection to {at}: that peer is banned here for having misbehaved; `casctl peers` shows until when"
    )]
    Banned {
        /// Where.
        at: SocketAddr,
    },
    /// This node has as many connections as it may have.
    #[error("no connection to {at}: the limit of {limit} connections is reached (transfer.connections)")]
    Full {
        /// Where.
        at: SocketAddr,
        /// The limit.
        limit: usize,
    },
}

/// Why a peer could not be connected to, on either plane, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unconnected {
    /// Nobody is there, or it is somebody else.
    #[error("{0}")]
    Unreachable(String),
    /// It is there, and is of another network.
    #[error("it belongs to another network")]
    OtherNetwork,
    /// It is there, and one of the two has not proved the other's key, or has none.
    #[error("it has not the same network key")]
    OtherKey,
}

// === impl Unconnected ===

impl Unconnected {
    /// Whether somebody is there who has proved to be the peer, and the two are not to speak to each other.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::OtherNetwork | Self::OtherKey)
    }
}

/// What is announced and looked up: the raw bytes of an object's or a chunk's id.
pub type Key = [u8; 32];

/// A peer that is said to hold something, and answers. A hint: it counts once it has delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Who.
    pub peer: PeerId,
    /// Its chunk ports, as far as they are known.
    pub chunk: Vec<SocketAddr>,
    /// Its libp2p addresses, as far as they are known.
    pub dht: Vec<Multiaddr>,
}

/// What a look-up tells of one that is said to hold something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It answers. Told once.
    Found(Provider),
    /// It has not been reached so far, for this reason, of which parts may come from a stranger; `None`: it is being
    /// asked. Told whenever more is known; it may be found after all.
    Missed(PeerId, Option<String>),
}

/// Finds peers.
pub trait Discovery: Send + Sync {
    /// Looks for holders of `key`. The channel ends when the look-up does, which takes no longer than a minute;
    /// dropping it cancels the look-up.
    fn providers(&self, key: Key) -> mpsc::Receiver<Holder>;

    /// A peer's chunk ports, asked of it over libp2p when they are not known; `known` are addresses to reach it at
    /// besides those that are known already. Empty when they cannot be had.
    fn chunk_addresses(&self, peer: PeerId, known: Vec<Multiaddr>) -> BoxFuture<'static, Vec<SocketAddr>>;

    /// The owner of this node gave this address: it may be dialled wherever it leads. Addresses that strangers tell may
    /// not.
    fn vouch(&self, address: &Multiaddr);

    /// Whether a chunk port may be dialled that a peer seen at `teller` tells to be another's. None, by default: who
    /// does not know this host's networks trusts nobody.
    fn may_dial(&self, at: SocketAddr, teller: Option<IpAddr>) -> bool {
        let _ = (at, teller);
        false
    }

    /// Waits until there is somebody to ask who holds what. False as soon as nobody is to be expected; bounded in time
    /// by the caller. True by default.
    fn others(&self) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Waits until somebody announces `key` to this node, from this call on. That may never be, wherever it is held: by
    /// default it never is.
    fn announced(&self, _key: Key) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object, whole or in part: kept by as many nodes as look-ups ask.
    Object,
    /// A chunk: kept by a few.
    Chunk,
}

/// Tells the network what this node holds, for as long as it does.
pub trait Announce: Send + Sync {
    /// These keys are held here from now on: announced soon, objects before chunks, and again in time. Returns at
    /// once; how many do not fit.
    fn hold(&self, keys: &[Key], kind: Kind) -> usize;

    /// As [`Announce::hold`] of an object's key, and waits until it has been placed; with nobody, when no other node is
    /// known.
    fn place(&self, key: Key) -> BoxFuture<'static, Announced>;

    /// These are no longer held, and nothing is said of them: they are taken back from where they were placed, as far
    /// as those nodes are reached. Returns at once.
    fn release(&self, keys: &[Key]);

    /// This is said of objects that are held, or soon will be: told with their keys, and to who asks. With `anew` those
    /// that were announced before are announced again at once. Returns at once; how many do not fit.
    fn publish(&self, said: Vec<Description>, anew: bool) -> usize;

    /// Nothing is said of these any more: those that are held are announced again at once, without it.
    fn withdraw(&self, keys: &[Key]);

    /// From now on this is said of one object that is held, or nothing: it is announced once more at once, and again to
    /// those that knew otherwise until they have heard. The future waits until it has been placed once, as
    /// [`Announce::place`]; it goes on without it.
    fn tell(&self, key: Key, said: Option<Description>) -> BoxFuture<'static, Announced>;

    /// From now on everything that is held is said again…
    fn begin_count(&self);

    /// …and what has not been, is released.
    fn end_count(&self);

    /// Waits until there is another node that could be told, or others ask this one.
    fn company(&self) -> BoxFuture<'static, ()>;

    /// Where it stands.
    fn announcing(&self) -> Announcing;
}

/// What is said of an object in somebody's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What, and by whom: it is signed, and otherwise not proved.
    pub said: SignedDescription,
    /// How many of the nodes that were asked told of it.
    pub told_by: usize,
}

/// Part of a list of what is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CataloguePage {
    /// What is said.
    pub said: Vec<SignedDescription>,
    /// Behind which key to go on; `None` at the end.
    pub next: Option<Key>,
}

/// Learns what others say of objects.
pub trait Catalogue: Send + Sync {
    /// Asks the nodes that keep what is said of `key`: at most 16 publishers, first what most of them tell. It takes
    /// 10 s at most.
    fn about(&self, key: Key) -> BoxFuture<'static, Vec<Told>>;

    /// A page of what is kept here of others' words, of objects behind `after`, that are called `text` (empty:
    /// everything).
    fn kept(&self, text: &str, after: Option<Key>) -> CataloguePage;

    /// The same of what `peer` publishes, asked of it: only its own word. The error says why it does not answer.
    fn published_by(
        &self,
        peer: PeerId,
        text: String,
        after: Option<Key>,
    ) -> BoxFuture<'static, Result<CataloguePage, String>>;
}

/// Where announcing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Announcing {
    /// Keys held, which are to be known to others.
    pub keys: usize,
    /// Of these, keys that have not been announced yet.
    pub queued: usize,
    /// Keys whose turn is long past: others may have dropped their records, or soon will.
    pub overdue: usize,
    /// Keys placed at one node at least, since the start.
    pub placed: u64,
    /// Keys placed a second, over the last minute.
    pub rate: f64,
    /// Messages sent since the start.
    pub messages: u64,
    /// Look-ups for the nodes to place keys at, since the start.
    pub look_ups: u64,
    /// Placements that a node refused, since the start.
    pub refused: u64,
    /// Nodes that the last round reached.
    pub receivers: usize,
    /// Of the keys placed some were looked up again since the start; so many…
    pub audited: u64,
    /// …and so many of them were found.
    pub found: u64,
}

/// What became of an announcement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Keys placed at one node at least.
    pub keys: usize,
    /// Nodes that took some; this one counts where no other is known that keeps records, and others ask it.
    pub receivers: usize,
    /// Messages sent.
    pub messages: usize,
    /// Placements that a node refused.
    pub refused: usize,
    /// Look-ups for the nodes to place them at.
    pub look_ups: usize,
}
