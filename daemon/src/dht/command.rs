//! What the handle asks of the event loop.

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{oneshot, watch};

use super::about::Said;
use super::batch::Answer;
use super::catalogue::{self, Question};
use super::error::Error;
use super::find::Holders;
use super::journal::Entry;
use super::look_ups::Wanted;
use super::peers::Ports;
use super::records::From;
use super::streams::Opening;
use super::survey::Places;
use super::{Key, PeerView, Status};
use crate::content::SignedDescription;
use crate::peer::Company;

/// One request to the event loop. A dropped answer channel means that nobody wants the answer any more; a
/// dropped request means that the loop has stopped.
#[derive(Debug)]
pub(super) enum Command {
    /// Dial a node and wait until it has proved to be of this network; `anew`: also where it is connected already.
    Connect { peer: PeerId, address: Multiaddr, anew: bool, done: oneshot::Sender<Result<PeerId, Error>> },
    /// List those that could be asked, and whether each is connected.
    Known { done: oneshot::Sender<Vec<(PeerId, bool)>> },
    /// Take what others say of objects that are described here, where it is newer than what is kept.
    Newer { said: Vec<SignedDescription> },
    /// List the nodes known.
    Peers { done: oneshot::Sender<Vec<PeerView>> },
    /// Tell how this node stands among the others.
    Company { done: oneshot::Sender<Company> },
    /// Tell whether somebody is known, or may be soon, who could be asked for others.
    Joining { done: oneshot::Sender<bool> },
    /// Tell whether only such are connected as keep no records, and no others are to be expected.
    Unserved { done: oneshot::Sender<bool> },
    /// Count what there is.
    Status { done: oneshot::Sender<Status> },
    /// Find who announced a key.
    Providers { wanted: Wanted },
    /// Learn where a node's chunk ports are; it may be at the addresses that are known.
    ChunkAddresses { peer: PeerId, known: Vec<Multiaddr>, done: oneshot::Sender<Ports> },
    /// Find the nodes nearest to a key.
    Closest { key: Key, done: oneshot::Sender<Closest> },
    /// Send a batch. `on_way` is true while the node has it, or is being dialled, and false while it waits here.
    Send {
        to: Node,
        batch: Vec<u8>,
        on_way: watch::Sender<bool>,
        done: oneshot::Sender<Result<Answer, String>>,
    },
    /// Ask a node who holds a key; the channel is dropped when it does not answer.
    Find { to: Node, key: Key, done: oneshot::Sender<Holders> },
    /// Ask a node what is said of an object; the channel is dropped when it does not answer.
    About { to: Node, key: Key, done: oneshot::Sender<Said> },
    /// Ask a node what it publishes.
    List { to: Node, question: Question, done: oneshot::Sender<Result<catalogue::Answer, String>> },
    /// Open a stream to a peer, however it is reached.
    Detour { peer: PeerId, known: Vec<Multiaddr>, opening: Opening },
    /// Take in again what the journal remembers of others.
    Restore { entries: Vec<Entry>, done: oneshot::Sender<()> },
    /// Tell what is kept of others, about so many records of it, and where to go on.
    Page { from: Option<From>, most: usize, done: oneshot::Sender<(Vec<Entry>, Option<From>)> },
}

/// A node and where it is.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Multiaddr>,
}

/// The nodes nearest to a key that answered, nearest first.
#[derive(Debug)]
pub(super) struct Closest {
    /// Up to K of them, and where each is seen.
    pub(super) nodes: Vec<(Node, Places)>,
    /// How many others were asked and did not answer.
    pub(super) unanswered: usize,
    /// Whether the look-up ran to its end, and so many answered it that those who did not are gone rather than out of
    /// reach.
    pub(super) is_sound: bool,
}
