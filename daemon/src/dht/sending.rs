//! Batches to others, which wait for a connection where there are many, and for each other.
//!
//! Owns: batches from when they are to be sent until they are answered. Refuses: more that wait than its limit, and to
//! wait for long. Survives a crash: nothing.
//!
//! Announcing has time and look-ups have not: a quarter of the connections that this node may make is left to these,
//! and a batch whose dial was not made for our own reasons is sent later. Nor are more under way to one node than
//! [`OF_ONE`], lest a connection have no way left for what comes the other way. Nothing of all that is held against
//! the peer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::request_response::OutboundRequestId;
use tokio::sync::{oneshot, watch};

use super::batch::{Answer, Request};
use super::behaviour::BATCHES_AT_ONCE;
use super::command::Node;
use super::event_loop::EventLoop;

/// How long a batch waits for a place: until idle connections have ended, and then some.
const PATIENCE: Duration = Duration::from_secs(30);
/// Batches that wait, of 130 KiB each: more than announcing sends at once.
const MAX_HELD: usize = 128;
/// Batches under way to one node. It may send as many, over the same connection, and of each side one may not quite
/// have ended when the next one comes.
const OF_ONE: usize = 3;
const _: () = assert!(2 * (OF_ONE + 1) <= BATCHES_AT_ONCE, "a connection has ways for those of both sides");

/// Who waits for the answer.
type Done = oneshot::Sender<Result<Answer, String>>;

/// Batches that are to be sent, or under way.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Those that wait for a connection.
    held: VecDeque<Parcel>,
    /// Those under way.
    sent: HashMap<OutboundRequestId, Parcel>,
}

/// A batch.
#[derive(Debug)]
struct Parcel {
    to: Node,
    /// Nothing any more where it is not to be sent again: a connection was there, or it has waited long enough.
    batch: Vec<u8>,
    /// Whether it is under way, and does not wait for a place.
    on_way: watch::Sender<bool>,
    done: Done,
    /// Since when it is to be sent.
    since: Instant,
    /// Whether the dial for it was not made.
    is_put_off: bool,
}

// === impl Sending ===

impl Sending {
    /// A peer was not dialled, for reasons of our own.
    pub(super) fn put_off(&mut self, peer: &PeerId) {
        let to_it = self.sent.values_mut().filter(|parcel| parcel.to.peer == *peer);
        to_it.for_each(|parcel| parcel.is_put_off = true);
    }

    pub(super) fn answered(&mut self, request: OutboundRequestId, answer: Answer) {
        if let Some(parcel) = self.sent.remove(&request) {
            let _ = parcel.done.send(Ok(answer));
        }
    }

    pub(super) fn failed(&mut self, request: OutboundRequestId, reason: String) {
        let Some(mut parcel) = self.sent.remove(&request) else { return };
        if std::mem::take(&mut parcel.is_put_off) && !parcel.batch.is_empty() {
            self.hold(parcel);
        } else {
            let _ = parcel.done.send(Err(reason));
        }
    }

    fn hold(&mut self, parcel: Parcel) {
        parcel.on_way.send_replace(false);
        if self.held.len() < MAX_HELD {
            self.held.push_back(parcel);
        } else {
            let _ = parcel.done.send(Err("too many wait for a connection".to_owned()));
        }
    }
}

// === impl EventLoop ===

impl EventLoop {
    /// Sends a batch, at once or when there is a place for it.
    pub(super) fn send_batch(&mut self, to: Node, batch: Vec<u8>, on_way: watch::Sender<bool>, done: Done) {
        self.send_or_hold(Parcel { to, batch, on_way, done, since: Instant::now(), is_put_off: false });
    }

    /// A node has answered: the next batch that waits for it goes.
    pub(super) fn send_next(&mut self, peer: &PeerId) {
        let held = &mut self.sending.held;
        let next = held.iter().position(|parcel| parcel.to.peer == *peer).and_then(|at| held.remove(at));
        if let Some(next) = next {
            self.send_or_hold(next);
        }
    }

    fn send_or_hold(&mut self, parcel: Parcel) {
        if self.has_place(&parcel.to.peer) {
            self.send(parcel);
        } else {
            self.sending.hold(parcel);
        }
    }

    /// Sends what has waited for a place and has one now.
    pub(super) fn send_held(&mut self, now: Instant) {
        for _ in 0..self.sending.held.len() {
            let Some(parcel) = self.sending.held.pop_front() else { return };
            if self.has_place(&parcel.to.peer) {
                self.send(parcel);
            } else if now.saturating_duration_since(parcel.since) >= PATIENCE {
                let _ = parcel.done.send(Err("too much else is to be sent first".to_owned()));
            } else {
                self.sending.held.push_back(parcel);
            }
        }
    }

    fn send(&mut self, mut parcel: Parcel) {
        let is_late = parcel.since.elapsed() >= PATIENCE;
        let batch = match self.swarm.is_connected(&parcel.to.peer) || is_late {
            true => std::mem::take(&mut parcel.batch),
            false => parcel.batch.clone(),
        };
        let (peer, addresses) = (&parcel.to.peer, parcel.to.addresses.clone());
        let announce = &mut self.swarm.behaviour_mut().announce;
        parcel.on_way.send_replace(true);
        let request = announce.send_request_with_addresses(peer, Ok(Request::Outgoing(batch)), addresses);
        self.sending.sent.insert(request, parcel);
    }

    /// Whether a batch may go to this peer now, over a connection that there is or a new one. Of the dials under way
    /// those for batches count, and no others: strangers have this node dial, where nobody answers, as they like.
    fn has_place(&self, peer: &PeerId) -> bool {
        let is_there = |peer: &PeerId| self.swarm.is_connected(peer);
        let all = || self.sending.sent.values().map(|parcel| &parcel.to.peer);
        if all().filter(|to| *to == peer).count() >= OF_ONE {
            return false;
        }
        let dialled: HashSet<&PeerId> = all().filter(|to| !is_there(to)).collect();
        let made = self.swarm.network_info().connection_counters().num_established_outgoing();
        let places = u32::try_from(dialled.len()).unwrap_or(u32::MAX).saturating_add(made);
        is_there(peer) || dialled.contains(peer) || places < (self.options.limits.outbound / 4 * 3).max(1)
    }
}
