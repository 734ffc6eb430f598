//! The relaying part of the event loop: how others connect to this node where they cannot by themselves.
//!
//! Owns: whose relays it uses (`relay_choice` has which), and what comes of two dialling each other at once. Refuses:
//! more relays than two, but for a moment, and any while others reach this node, or nobody beyond its own subnets is
//! known. Survives a crash: nothing.

use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, dcutr, relay};

use super::causes;
use super::event_loop::EventLoop;
use super::listen::ip_of;
use super::reaching::Reaching;
use super::records::Group;
use super::relay_choice::{self, Offer};
use super::streams::is_relayed;
use crate::peer::ReachVerdict as Verdict;

/// Relays through which this node is asked to connect.
const SLOTS: usize = 2;
/// Relays that are remembered.
const MAX_RELAYS: usize = 32;
/// How long a relay that refused, or went away, is left alone.
const REST: Duration = Duration::from_secs(60);

impl EventLoop {
    /// A member has said what it speaks.
    pub(super) fn note_relay(&mut self, peer: PeerId, is_relay: bool) {
        let at = self.peers.get(&peer).and_then(|connected| connected.dialled.clone());
        let at = at.filter(|at| !is_relayed(at) && ip_of(at).is_some_and(|ip| !self.is_near(ip)));
        match at {
            Some(mut at) if is_relay && self.has_room_for(&peer, &at) => {
                if matches!(at.iter().last(), Some(Protocol::P2p(_))) {
                    at.pop();
                }
                self.reaching.relays.insert(peer, at);
                self.use_relays(Instant::now());
            }
            _ => drop(self.reaching.relays.remove(&peer)),
        }
    }

    /// Whether one more relay may be remembered; one of a crowd is forgotten for it.
    fn has_room_for(&mut self, peer: &PeerId, at: &Multiaddr) -> bool {
        let Reaching { relays, slots, .. } = &mut self.reaching;
        if relays.len() < MAX_RELAYS || relays.contains_key(peer) {
            return true;
        }
        let is_used = |peer: &PeerId| slots.values().any(|(relay, _)| relay == peer);
        let unused: Vec<Offer> =
            relays.iter().filter(|(peer, _)| !is_used(peer)).map(|(peer, at)| (*peer, group(at))).collect();
        relay_choice::gives_way(&unused, group(at)).is_some_and(|other| relays.remove(&other).is_some())
    }

    /// Asks relays to let others ask for this node there, where it cannot be reached otherwise. Where those that are
    /// used are of one address group and there is one of another, that one is asked as well, and when it has agreed one
    /// of the others is left.
    pub(super) fn use_relays(&mut self, now: Instant) {
        let is_reached = self.reaching.reachable.verdict() == Verdict::Yes;
        if is_reached || !self.options.serves || !self.is_outside() {
            return;
        }
        self.reaching.resting.retain(|_, until| now < *until);
        let Reaching { relays, slots, resting, .. } = &self.reaching;
        let of = |peer: &PeerId| (*peer, relays.get(peer).and_then(group));
        let used: Vec<Offer> = slots.values().map(|(peer, _)| of(peer)).collect();
        let is_used = |peer: &PeerId| used.iter().any(|(relay, _)| relay == peer);
        let fresh = relays.keys().filter(|peer| !is_used(peer) && !resting.contains_key(peer));
        let mut fresh: Vec<Offer> = fresh.map(of).collect();
        let crowded = relay_choice::crowded(&used);
        let mut room = SLOTS.saturating_sub(used.len());
        if crowded.is_some() && used.len() == SLOTS {
            fresh.retain(|(_, group)| used.iter().all(|(_, other)| other != group));
            room = 1;
        }
        let chosen = relay_choice::choose(&fresh, &used, room);
        let chosen = chosen.into_iter().filter_map(|peer| Some((peer, relays.get(&peer)?.clone())));
        let chosen: Vec<_> = chosen.collect();
        if used.len() > SLOTS
            && slots.values().all(|(_, agreed)| *agreed)
            && let Some(one) = crowded
        {
            let _ = self.swarm.disconnect_peer_id(one);
        }
        for (peer, at) in chosen {
            self.use_relay(peer, at, now);
        }
    }

    fn use_relay(&mut self, peer: PeerId, at: Multiaddr, now: Instant) {
        let circuit = at.with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
        match self.swarm.listen_on(circuit) {
            Ok(listener) => drop(self.reaching.slots.insert(listener, (peer, false))),
            Err(error) => {
                tracing::debug!(relay = %peer, %error, "a relay cannot be used");
                self.reaching.resting.insert(peer, now + REST);
            }
        }
    }

    /// Others reach this node without relays: their slots are for those who need them. A relay is left by closing the
    /// connection, which it and the swarm both understand at any time.
    pub(super) fn leave_relays(&mut self) {
        for (peer, _) in self.reaching.slots.values() {
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
    }

    pub(super) fn on_relayed(&mut self, event: &relay::client::Event) {
        match event {
            relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. } => {
                if !renewal {
                    tracing::info!(relay = %relay_peer_id, "others may ask for this node at a relay");
                }
                for (peer, agreed) in self.reaching.slots.values_mut() {
                    *agreed |= peer == relay_peer_id;
                }
                self.tell_reach();
            }
            relay::client::Event::OutboundCircuitEstablished { relay_peer_id, .. } => {
                tracing::debug!(relay = %relay_peer_id, "a relay connects us");
            }
            relay::client::Event::InboundCircuitEstablished { src_peer_id, .. } => {
                tracing::debug!(peer = %src_peer_id, "a peer asks for this node at a relay");
            }
        }
    }

    /// Two that agreed over a relay to dial each other at the same moment are connected. Whose dial it was that came
    /// through, only one of them learns from the other events.
    pub(super) fn punched(&mut self, peer: PeerId) {
        self.reaching.punched += 1;
        tracing::info!(%peer, "connected by both dialling at once, which a relay arranged");
        self.tell_reach();
    }

    /// This node's own dials of such a pair have ended. Where they failed, the other's may have come through.
    pub(super) fn on_punched(&mut self, event: &dcutr::Event) {
        let peer = event.remote_peer_id;
        let Err(error) = &event.result else { return };
        if self.swarm.behaviour().streams.has_direct(&peer) {
            return;
        }
        self.reaching.missed += 1;
        let why = causes::of_punch(&error.to_string());
        tracing::debug!(%peer, %error, "libp2p says of it");
        tracing::info!(%peer, "could not connect to {peer} by both dialling at once: {why}");
        self.detour_failed(&peer);
        self.tell_reach();
    }

    /// A listener has closed. Whether it was at a relay.
    pub(super) fn reach_closed(&mut self, listener: ListenerId) -> bool {
        let Some((relay, _)) = self.reaching.slots.remove(&listener) else { return false };
        tracing::debug!(%relay, "a relay is not used any more");
        self.reaching.resting.insert(relay, Instant::now() + REST);
        self.tell_reach();
        true
    }

    /// A peer is gone.
    pub(super) fn reach_parted(&mut self, peer: &PeerId) {
        self.reaching.relays.remove(peer);
    }
}

/// The address group of what is there.
fn group(at: &Multiaddr) -> Option<Group> {
    ip_of(at).and_then(Group::of)
}
