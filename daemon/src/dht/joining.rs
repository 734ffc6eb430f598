//! The joining half of the event loop: connections come and go, nodes say what they are.
//!
//! Owns: who is let into the routing table, and when somebody is dialled. Refuses: nodes of other networks,
//! which are told goodbye by closing. Survives a crash: nothing.

use std::time::Instant;

use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, identify, kad, relay};
use tokio::sync::oneshot;

use super::causes;
use super::error::Error;
use super::event_loop::{Connecting, EventLoop};
use super::listen::{ip_of, is_plain};
use super::meter::Act;
use super::named;
use super::pace;
use super::peers::{Connected, Standing};
use super::proof::{self, Refusal};
use super::records::{self, MAX_ADDRESSES, Records};

impl EventLoop {
    pub(super) fn on_opened(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let (remote, dialled) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, true),
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, false),
        };
        if self.peers.opened(peer, connection, remote.clone()) {
            self.say_hello(peer);
        }
        if dialled {
            self.peers.answered(&peer, remote.clone());
            let callers = self.connecting.get_mut(&peer).into_iter().flatten();
            callers.filter(|caller| caller.dial == connection).for_each(|caller| caller.is_open = true);
            // Of one that is connected at another address it is known already what it is.
            match self.peers.get(&peer).map(|connected| connected.standing) {
                Some(Standing::Member) => self.tell_connected(peer),
                Some(Standing::Stranger) => self.tell_strange(peer),
                Some(Standing::Unknown) | None => {}
            }
        } else {
            // Who comes by itself is there.
            self.options.conduct.came(&peer);
        }
        let group = self.peers.get(&peer).and_then(Connected::group);
        self.swarm.behaviour_mut().kad.store_mut().opened(peer, group);
    }

    /// A peer's last connection is gone; `said`: it had said what it is.
    pub(super) fn on_parted(&mut self, peer: PeerId, said: bool) {
        self.swarm.behaviour_mut().kad.store_mut().parted(&peer);
        self.introductions.parted(&peer);
        if said {
            return;
        }
        let reason = match self.options.key {
            Some(_) => {
                "it closed the connection before saying what it is; it may just be too busy: try again"
            }
            // A private network ends the connections of those that prove no key, and says no more. Nodes of others
            // do so only where they have no room.
            None => {
                "it ended the connection before it said what it is: most likely it belongs to a private network, whose \
                 key this node has not (network.key_file); if not, it has no room for more: try again"
            }
        };
        let callers = self.callers(peer, |caller| caller.is_open);
        if callers.is_empty() && self.bootstrap.failed(&peer, |_| reason.to_owned()) {
            tracing::warn!(%peer, "cannot join by the bootstrap node {peer} yet: {reason}");
        }
        if self.options.key.is_none() && self.is_acquainted(&peer) {
            self.solitude.refused(peer, reason.to_owned());
        }
        for Connecting { address, done, .. } in callers {
            let _ = done.send(Err(Error::Unreachable { address, reason: reason.into() }));
        }
    }

    /// A peer is of this network: those hear it who wait for it, or for the address that has led there.
    fn tell_connected(&mut self, peer: PeerId) {
        for Connecting { done, .. } in self.callers(peer, |caller| caller.is_open || !caller.anew) {
            let _ = done.send(Ok(peer));
        }
    }

    /// A peer is of another network: those hear it who wait for it.
    fn tell_strange(&mut self, peer: PeerId) {
        for Connecting { address, done, .. } in self.connecting.remove(&peer).unwrap_or_default() {
            let network = self.options.network.clone();
            let _ = done.send(Err(Error::OtherNetwork { address, network }));
        }
    }

    /// Those who wait for a peer, of whom this is true; they wait no more.
    fn callers(&mut self, peer: PeerId, of: impl Fn(&Connecting) -> bool) -> Vec<Connecting> {
        let waiting = self.connecting.remove(&peer).unwrap_or_default();
        let (callers, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(of);
        if !others.is_empty() {
            self.connecting.insert(peer, others);
        }
        callers
    }

    pub(super) fn on_dial_failed(&mut self, peer: PeerId, dial: ConnectionId, error: &DialError) {
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            // Connected, or about to be.
            self.peers.undialled(&peer, dial);
            return;
        }
        tracing::debug!(%peer, %error, "a dial failed");
        if pace::is_unhurried(error) {
            self.sending.put_off(&peer);
        }
        let is_refused = matches!(proof::refusal(error), Some(Refusal::Keyless | Refusal::OtherKey));
        let callers = self.callers(peer, |caller| caller.dial == dial);
        // Who asked for it is told; it may have been another's address.
        let is_ours = callers.is_empty();
        let elsewhere = self.peers.get(&peer).and_then(|connected| connected.remotes().next().cloned());
        for Connecting { address, done, .. } in callers {
            let reason = causes::of(error, Some(&address));
            let reason = match &elsewhere {
                Some(at) => format!("{reason}; it is connected at {at} all the same"),
                None => reason,
            };
            let _ = done.send(Err(match is_refused {
                true => Error::OtherKey { address, reason },
                false => Error::Unreachable { address, reason },
            }));
        }
        if self.peers.get(&peer).is_none() {
            if is_ours && self.bootstrap.failed(&peer, |at| causes::of(error, Some(at))) {
                let reason = causes::of_each(error);
                tracing::warn!(%peer, "cannot reach the bootstrap node {peer} yet: {reason}");
            }
            let is_tried = matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. });
            self.detour_dial_failed(&peer, dial, error);
            let is_unhurried = pace::is_unhurried(error);
            if is_tried && !is_unhurried {
                self.missed(&peer, is_refused.then(|| causes::of(error, None)));
                // Where it was asked for elsewhere, that says nothing of where it is known to be.
                if is_ours && pace::is_in_vain(error) {
                    self.missed_routed(peer);
                }
            }
            match self.peers.awaited(&peer) {
                // That dial goes on, or could not be made while this one was under way.
                Some((Some(own), _)) if own != dial => {}
                Some((None, said)) => self.dial_for_hello(peer, said),
                _ if is_unhurried => self.hello_put_off(peer),
                _ => self.hello_resolved(peer, &Err(self.unreached(error))),
            }
        }
    }

    /// A peer said what it speaks: one of ours is welcomed, another is let go.
    pub(super) fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        let is_neighbour = self.found.has(&peer);
        self.found.done(&peer, Instant::now());
        if !self.swarm.behaviour_mut().kad.meter.admits(peer, Act::Identify, Instant::now()) {
            return;
        }
        if !info.protocols.contains(&self.protocols.hello) {
            self.peers.identified(&peer, Standing::Stranger, &info.agent_version, Instant::now());
            tracing::debug!(%peer, "a node that is not of this network; letting it go soon");
            let network = &self.options.network;
            let reason = "it belongs to another network: compare network.name of both";
            if self.bootstrap.failed(&peer, |_| reason.to_owned()) {
                tracing::warn!(%peer, "the bootstrap node {peer} is not of the network {network:?}");
            }
            if self.is_acquainted(&peer) {
                self.solitude.refused(peer, reason.to_owned());
            }
            self.tell_strange(peer);
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
            self.remembered.forget(&peer);
            self.introductions.gone(&peer);
            self.found.forget(&peer);
            return;
        }
        self.peers.identified(&peer, Standing::Member, &info.agent_version, Instant::now());
        self.heard.met(&peer, Instant::now());
        let is_server = info.protocols.contains(&self.protocols.kad);
        self.note_company(peer, is_neighbour, is_server);
        self.tell_entered();
        self.note_relay(peer, info.protocols.contains(&relay::HOP_PROTOCOL_NAME));
        self.tell_connected(peer);
        let remotes = self.peers.get(&peer).into_iter().flat_map(Connected::remotes);
        let seen: Vec<_> = remotes.filter_map(ip_of).collect();
        let near = seen.iter().any(std::net::IpAddr::is_loopback);
        let group = self.peers.get(&peer).and_then(Connected::group);
        let told =
            info.listen_addrs.into_iter().filter(|at| near || !ip_of(at).is_some_and(|ip| ip.is_loopback()));
        let addresses = records::chosen(told.filter(is_plain).collect(), &seen);
        let alone = self.swarm.behaviour_mut().kad.kbuckets().next().is_none();
        let kad = &mut self.swarm.behaviour_mut().kad;
        kad.store_mut().met(peer, addresses.clone(), group);
        if is_server {
            self.introductions.parted(&peer);
            self.shelf.met(&peer);
            if self.has_place_for(peer, &addresses) {
                self.route(peer, &addresses);
            }
            if self.is_routed(peer) {
                self.presence.met(peer, Instant::now());
            }
            if alone {
                // The nearest at once. For the rest of the table Kademlia begins to look by itself half a second later,
                // and would once more after a search that was begun now.
                self.look_for_neighbours();
            }
            self.remember(peer, addresses);
        } else {
            kad.remove_peer(&peer);
            self.remembered.forget(&peer);
            self.introductions.gone(&peer);
            if info.protocols.contains(&self.protocols.servers) {
                let (now, routed) = (Instant::now(), self.routed_peers().len());
                self.introductions.met(peer, now);
                self.ask_for_servers(now, routed);
            }
        }
    }

    /// Has the routing table say where a node is: as it tells now, and where it answered. Kademlia itself only adds,
    /// until no answer that names the node is short enough to be read.
    fn route(&mut self, peer: PeerId, told: &[Multiaddr]) {
        let answered = self.peers.get(&peer).and_then(|connected| connected.dialled.clone());
        let so: Vec<_> = told.iter().chain(&answered).map(|at| named(at, peer)).collect();
        let kad = &mut self.swarm.behaviour_mut().kad;
        for address in told {
            kad.add_address(&peer, address.clone());
        }
        // With its last address the node itself would go.
        let gone = routed_at(kad, peer).into_iter().filter(|at| !told.is_empty() && !so.contains(at));
        gone.for_each(|at| _ = kad.remove_address(&peer, &at));
    }

    /// The routing table has changed: records are judged by it. Of all the places where a node has answered when it was
    /// dialled the last is kept, besides what it tells.
    pub(super) fn on_routing_changed(&mut self, peer: PeerId) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let besides: Vec<_> = routed_at(kad, peer).into_iter().skip(MAX_ADDRESSES).collect();
        if let Some((_, old)) = besides.split_last() {
            old.iter().for_each(|at| _ = kad.remove_address(&peer, at));
        }
        let known = self.routed_peers();
        self.presence.keep(&known);
        self.routed.send_replace(known.len());
        self.swarm.behaviour_mut().kad.store_mut().know(&known);
    }

    /// A node was tried in vain wherever it is said to be: one that is gone leaves the routing table. It is met again
    /// when it comes back, as anybody is, and those that are remembered are dialled now and then.
    fn missed_routed(&mut self, peer: PeerId) {
        let alone = self.members().next().is_none();
        let heard = self.swarm.behaviour().kad.heard.filter(|_| !alone);
        if self.is_routed(peer) && self.presence.missed(peer, heard, Instant::now()) {
            tracing::debug!(%peer, "let go from the routing table: it is not there any more");
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
            self.on_routing_changed(peer);
        }
    }

    fn is_routed(&mut self, peer: PeerId) -> bool {
        let bucket = self.swarm.behaviour_mut().kad.kbucket(peer);
        bucket.is_some_and(|bucket| bucket.iter().any(|entry| *entry.node.key.preimage() == peer))
    }

    /// All nodes in the routing table.
    pub(super) fn routed_peers(&mut self) -> Vec<PeerId> {
        let buckets = self.swarm.behaviour_mut().kad.kbuckets();
        buckets.flat_map(|bucket| bucket.iter().map(|e| *e.node.key.preimage()).collect::<Vec<_>>()).collect()
    }

    pub(super) fn connect(
        &mut self,
        peer: PeerId,
        address: Multiaddr,
        anew: bool,
        done: oneshot::Sender<Result<PeerId, Error>>,
    ) {
        let is_connected = self.peers.get(&peer).is_some_and(|one| one.standing == Standing::Member);
        if is_connected && !anew {
            let _ = done.send(Ok(peer));
            return;
        }
        // That address and no other that is known: whoever asks wants to know whether it is the right one.
        let options =
            DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![address.clone()]);
        let options = options.build();
        let waiting = self.connecting.entry(peer).or_default();
        waiting.retain(|caller| !caller.done.is_closed());
        waiting.push(Connecting { address, dial: options.connection_id(), is_open: false, anew, done });
        self.begin_dial(peer, options);
    }

    /// Dials now, while running queries still know further addresses.
    pub(super) fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, when: PeerCondition) {
        let options = DialOpts::peer_id(peer).condition(when).addresses(addresses);
        self.begin_dial(peer, options.extend_addresses_through_behaviour().build());
    }

    pub(super) fn begin_dial(&mut self, peer: PeerId, options: DialOpts) {
        let dial = options.connection_id();
        if let Err(error) = self.swarm.dial(options) {
            self.on_dial_failed(peer, dial, &error);
        }
    }
}

/// Where the routing table says that a node is.
fn routed_at(kad: &mut kad::Behaviour<Records>, peer: PeerId) -> Vec<Multiaddr> {
    let Some(bucket) = kad.kbucket(peer) else { return Vec::new() };
    let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer);
    entry.map(|entry| entry.node.value.iter().cloned().collect()).unwrap_or_default()
}
