//! What other rooms and the handles are told of the DHT plane: who is known, where this node is, figures.
//!
//! Owns: those views and how they are made of the swarm's state. Refuses: nothing. Survives a crash: nothing.

use std::collections::{BTreeMap, HashMap};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::watch;

use super::event_loop::EventLoop;
use super::options::{Mode, Options};
use super::own::Own;
use super::peers::Standing;
use super::{listen, reaching};
use crate::peer::Reachability;

/// Where this node is.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    /// Everything that is listened on.
    pub(super) listening: Vec<Multiaddr>,
    /// What others are told.
    pub(super) external: Vec<Multiaddr>,
}

/// Where the event loop tells what others look at all the time…
pub(super) struct Telling {
    /// Where this node is.
    pub(super) addresses: watch::Sender<Addresses>,
    /// Nodes in the routing table.
    pub(super) routed: watch::Sender<usize>,
    /// Whether this node is one that others ask: see [`EventLoop::is_entered`].
    pub(super) entered: watch::Sender<bool>,
    /// Whether others reach this node, and whether it is itself one that keeps records.
    pub(super) reachability: watch::Sender<Reachability>,
}

/// …and where they see it.
pub(super) struct Seen {
    /// Where this node is.
    pub(super) addresses: watch::Receiver<Addresses>,
    /// Nodes in the routing table.
    pub(super) routed: watch::Receiver<usize>,
    /// Whether this node is one that others ask: see [`EventLoop::is_entered`].
    pub(super) entered: watch::Receiver<bool>,
    /// Whether others reach this node, and whether it is itself one that keeps records.
    pub(super) reachability: watch::Receiver<Reachability>,
}

/// A way from the event loop to the handles.
pub(super) fn channel(options: &Options) -> (Telling, Seen) {
    let (here, addresses) = watch::channel(Addresses::default());
    let (routing, routed) = watch::channel(0);
    let (asked, entered) = watch::channel(false);
    let is_server = reaching::first_part(options) == Mode::Server;
    let (told, reachability) = watch::channel(Reachability { is_server, ..Reachability::default() });
    let telling = Telling { addresses: here, routed: routing, entered: asked, reachability: told };
    (telling, Seen { addresses, routed, entered, reachability })
}

/// A node that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Who.
    pub peer: PeerId,
    /// Where: what it told, now or in an earlier run, else where its connections lead.
    pub addresses: Vec<Multiaddr>,
    /// What it calls itself; empty until it is connected. Free of control characters.
    pub agent: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Whether it has proved, on a present connection, to speak this network's protocols.
    pub member: bool,
    /// Whether it is in the routing table: a server of the DHT.
    pub routed: bool,
}

/// Figures of the DHT plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether this node keeps records for others.
    pub server: bool,
    /// Nodes connected.
    pub connected: usize,
    /// Nodes in the routing table.
    pub routed: usize,
    /// Records of others kept.
    pub other_records: usize,
    /// Nodes that those are of.
    pub sources: usize,
    /// Announcing messages taken from others since the start.
    pub batches_taken: u64,
    /// Questions that look-ups of providers asked before somebody was found, since the start.
    pub questions_until_found: u64,
}

// === impl PeerView ===

impl PeerView {
    pub(super) fn new(peer: PeerId) -> Self {
        let (addresses, agent) = (Vec::new(), String::new());
        Self { peer, addresses, agent, connected: false, member: false, routed: false }
    }
}

// === impl EventLoop ===

impl EventLoop {
    /// Tells the handles, and through the swarm the others, where this node is.
    pub(super) fn publish_addresses(&mut self) {
        let listening: Vec<_> = self.swarm.listeners().cloned().collect();
        let mut external = listen::external(&listening, &self.options.listen);
        let reached = self.reaching.reachable.confirmed().into_iter();
        external.extend(reached.filter(|at| !listening.contains(at)));
        let before: Vec<_> = self.swarm.external_addresses().cloned().collect();
        for gone in before.iter().filter(|address| !external.contains(address)) {
            self.swarm.remove_external_address(gone);
        }
        for new in external.iter().filter(|address| !before.contains(address)) {
            self.swarm.add_external_address(new.clone());
        }
        // Identify tells those that are connected by itself only where this node listens; of an address that is gone it
        // does so before it is taken back here.
        let is_same = before.len() == external.len() && external.iter().all(|at| before.contains(at));
        if !is_same {
            let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
            self.swarm.behaviour_mut().identify.push(connected);
        }
        self.swarm.behaviour_mut().kad.store_mut().locate_self(external.clone());
        // What others say where this node is, they may lie: it would keep it from dialling who really is there.
        self.reach.stand(Own::new(listening.iter(), &self.options.listen, &self.options.chunk));
        self.try_addresses(&listening);
        self.addresses.send_replace(Addresses { listening, external });
    }

    /// Nodes of this network that could be asked something: those that are connected, and those that are in the routing
    /// table or remembered; with whether each is connected.
    pub(super) fn list_known(&mut self) -> Vec<(PeerId, bool)> {
        let mut known: BTreeMap<PeerId, bool> = self.remembered.peers().map(|peer| (*peer, false)).collect();
        for bucket in self.swarm.behaviour_mut().kad.kbuckets() {
            known.extend(bucket.iter().map(|entry| (*entry.node.key.preimage(), false)));
        }
        for (peer, connected) in self.peers.connected() {
            if connected.standing == Standing::Stranger {
                known.remove(peer);
            } else {
                known.insert(*peer, true);
            }
        }
        known.into_iter().collect()
    }

    pub(super) fn list_peers(&mut self) -> Vec<PeerView> {
        let mut views: HashMap<PeerId, PeerView> = HashMap::new();
        for bucket in self.swarm.behaviour_mut().kad.kbuckets() {
            for entry in bucket.iter() {
                let peer = *entry.node.key.preimage();
                let view = views.entry(peer).or_insert_with(|| PeerView::new(peer));
                view.addresses = entry.node.value.iter().cloned().collect();
                view.routed = true;
            }
        }
        for peer in self.remembered.peers() {
            let view = views.entry(*peer).or_insert_with(|| PeerView::new(*peer));
            if view.addresses.is_empty() {
                let known = self.remembered.addresses(peer).iter();
                view.addresses = known.map(|at| super::named(at, *peer)).collect();
            }
        }
        for (peer, connected) in self.peers.connected() {
            let view = views.entry(*peer).or_insert_with(|| PeerView::new(*peer));
            view.connected = true;
            view.member = connected.standing == Standing::Member;
            view.agent.clone_from(&connected.agent);
            if view.addresses.is_empty() {
                view.addresses = connected.remotes().map(|at| super::named(at, *peer)).collect();
            }
        }
        let mut views: Vec<_> = views.into_values().collect();
        views.sort_by_key(|view| view.peer);
        views
    }

    pub(super) fn status(&mut self) -> Status {
        let connected = self.peers.connected().count();
        let server = self.reaching.part == Mode::Server;
        let kad = &mut self.swarm.behaviour_mut().kad;
        let routed = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
        let records = kad.store_mut();
        Status {
            server,
            connected,
            routed,
            other_records: records.len(),
            sources: records.sources_len(),
            batches_taken: self.batches_taken,
            questions_until_found: self.questions_until_found,
        }
    }
}
