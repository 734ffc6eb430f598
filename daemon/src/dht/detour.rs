//! Other ways to a peer than its chunk ports: a stream on a connection of the DHT plane.
//!
//! Owns: how such a connection is had. One that is there is used; else the peer's addresses are dialled; where these
//! lead through a relay, its other end begins to dial us while it asks us to dial it, which opens the way through the
//! routers of both (DCUtR), and whoever waits here waits for that. Refuses: to carry anything through the relay itself,
//! and more peers than its limit. Survives a crash: nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::PeerCondition;
use libp2p::{Multiaddr, PeerId};

use super::Dht;
use super::command::Command;
use super::event_loop::EventLoop;
use super::streams::{Opening, is_relayed};
use crate::peer::{Conn, Detour, Unconnected};

/// For all of it: a dial of 10 s to addresses that do not answer, and one attempt after the first at dialling together.
const WITHIN: Duration = Duration::from_secs(25);
/// Peers to which ways are sought at once.
const MAX_SOUGHT: usize = 256;
/// Addresses of one peer that are dialled.
const MAX_ADDRESSES: usize = 16;
/// How long two may take to dial each other before the relay is asked anew.
const PUNCHING: Duration = Duration::from_secs(15);

/// Whoever waits for a way to a peer.
#[derive(Debug, Default)]
pub(super) struct Detours {
    /// Callers, by whom they want.
    sought: HashMap<PeerId, Vec<Opening>>,
    /// Since when there is a connection through a relay with a peer, over which both agree on when to dial.
    relayed: HashMap<PeerId, Instant>,
}

impl Detour for Dht {
    fn open(&self, peer: PeerId, known: Vec<Multiaddr>) -> BoxFuture<'static, Result<Conn, Unconnected>> {
        let dht = self.clone();
        let failed = |why: &str| Unconnected::Unreachable(why.to_owned());
        Box::pin(async move {
            let asked = dht.0.ask(|done| Command::Detour { peer, known, opening: Opening(done) });
            match tokio::time::timeout(WITHIN, asked).await {
                Ok(Some(opened)) => opened.map_err(Unconnected::Unreachable),
                Ok(None) => Err(failed("the connection with it broke")),
                Err(_) => Err(failed("no direct connection came about, with no relay's help either")),
            }
        })
    }
}

impl EventLoop {
    /// Somebody wants a stream to a peer.
    pub(super) fn detour(&mut self, peer: PeerId, known: Vec<Multiaddr>, opening: Opening) {
        let Err(opening) = self.swarm.behaviour_mut().streams.open(peer, opening) else { return };
        let detours = &mut self.detours;
        if detours.sought.len() >= MAX_SOUGHT && !detours.sought.contains_key(&peer) {
            return opening.end(Err("too many other peers are being reached".to_owned()));
        }
        let waiting = detours.sought.entry(peer).or_default();
        waiting.push(opening);
        let is_sought = waiting.len() > 1;
        let punching = detours.relayed.get(&peer).is_some_and(|since| since.elapsed() < PUNCHING);
        if is_sought || punching {
            return;
        }
        let mut addresses = known;
        addresses.extend(self.swarm.behaviour_mut().kad.store_mut().whereabouts(&peer));
        addresses.sort();
        addresses.dedup();
        addresses.sort_by_key(|at| !is_relayed(at));
        addresses.truncate(MAX_ADDRESSES);
        self.dial(peer, addresses, PeerCondition::Always);
    }

    /// A connection has come.
    pub(super) fn detour_opened(&mut self, peer: PeerId, at: &ConnectedPoint) {
        if at.is_relayed() {
            self.detours.relayed.insert(peer, Instant::now());
            return;
        }
        if self.detours.relayed.remove(&peer).is_some() {
            self.punched(peer);
        }
        for opening in self.detours.sought.remove(&peer).unwrap_or_default() {
            if let Err(opening) = self.swarm.behaviour_mut().streams.open(peer, opening) {
                opening.end(Err("the connection with it broke".to_owned()));
            }
        }
    }

    /// There will be no connection, unless somebody asks again.
    pub(super) fn detour_failed(&mut self, peer: &PeerId, why: &str) {
        self.detours.relayed.remove(peer);
        for opening in self.detours.sought.remove(peer).unwrap_or_default() {
            opening.end(Err(why.to_owned()));
        }
    }

    /// Forgets those who wait no longer.
    pub(super) fn sweep_detours(&mut self) {
        self.detours.sought.retain(|_, waiting| {
            waiting.retain(|opening| !opening.0.is_closed());
            !waiting.is_empty()
        });
        self.detours.relayed.retain(|_, since| since.elapsed() < PUNCHING);
    }
}
