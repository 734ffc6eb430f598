//! What follows when a peer misbehaves on this plane, or is banned for what it did on another.
//!
//! Owns: which deeds are strikes. Refuses: to strike for what a network's trouble, an old clock or another version may
//! cause. Survives a crash: what [`Conduct`](crate::peer::Conduct) keeps.

use std::time::SystemTime;

use libp2p::PeerId;
use libp2p::request_response::OutboundFailure;

use super::codec::{Malformed, is_malformed};
use super::event_loop::EventLoop;
use super::listen::ip_of;
use super::peers::Connected;
use crate::peer::Verdict;

/// What it is called when messages are in no form that casd has.
const MALFORMED: &str = "what it sent is in no form of this protocol";

impl EventLoop {
    /// A peer misbehaved: it is remembered, and its connections end with the next tick, so that it hears an answer
    /// first.
    pub(super) fn strike(&mut self, peer: PeerId, why: &str) {
        let at = self.peers.get(&peer).and_then(|known| known.remotes().find_map(ip_of));
        let verdict = self.options.conduct.strike(peer, at, why, SystemTime::now());
        tracing::debug!(%peer, why, ?verdict, "a peer is struck; its connections end");
        self.struck.push(peer);
        if matches!(verdict, Verdict::Ban(_)) {
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
            self.remembered.forget(&peer);
            self.introductions.gone(&peer);
        }
    }

    /// What a peer sent cannot be read.
    pub(super) fn on_malformed(&mut self, peer: PeerId, malformed: Malformed) {
        tracing::debug!(%peer, %malformed, "a question cannot be read");
        self.strike(peer, MALFORMED);
    }

    /// A peer did not answer, or not in the protocol's form.
    pub(super) fn on_no_answer(&mut self, peer: PeerId, error: &OutboundFailure) {
        if matches!(error, OutboundFailure::Io(error) if is_malformed(error)) {
            self.strike(peer, MALFORMED);
        }
    }

    /// Ends the connections of those who flood, and of those who are not spoken to.
    pub(super) fn enforce(&mut self) {
        for peer in self.swarm.behaviour_mut().kad.meter.take_floods() {
            self.strike(peer, "it floods this node with what is not asked for");
        }
        let mut leaving = std::mem::take(&mut self.struck);
        // Whoever connects is judged when it does. To judge all is dear: it looks through the whole book for each.
        if self.bans.has_changed().unwrap_or(false) {
            self.bans.mark_unchanged();
            leaving.extend(self.banned());
        }
        for peer in leaving {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// The connected peers that may not be spoken to any more; they leave the routing table.
    fn banned(&mut self) -> Vec<PeerId> {
        let now = SystemTime::now();
        let conduct = &self.options.conduct;
        let is_banned =
            |peer: &PeerId, known: &Connected| !conduct.admits(peer, known.remotes().find_map(ip_of), now);
        let connected = self.peers.connected().filter(|(peer, known)| is_banned(peer, known));
        let banned: Vec<PeerId> = connected.map(|(peer, _)| *peer).collect();
        for peer in &banned {
            self.swarm.behaviour_mut().kad.remove_peer(peer);
            self.introductions.gone(peer);
        }
        banned
    }
}
