//! The asking half of the event loop: look-ups, and hellos to others.
//!
//! Owns: what happens between a command and its answer. Refuses: nothing of its own; limits are kept by
//! [`look_ups`](super::look_ups) and [`peers`](super::peers). Survives a crash: nothing.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::kad::{
    self, GetClosestPeersError, GetProvidersOk, PeerInfo, QueryId, QueryResult, QueryStats, RecordKey,
};
use libp2p::request_response::OutboundFailure;
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::command::{Closest, Node};
use super::event_loop::EventLoop;
use super::find::Holders;
use super::hello::Hello;
use super::listen::ip_of;
use super::look_ups::{CROWDED, End, Wanted};
use super::metered::addresses_of;
use super::peers::{Connected, Next, Ports, Waiter};
use super::records::Group;
use super::survey::places;
use super::unreached::{self, Here};
use super::{Key, causes, named};
use crate::peer::{Provider, ReachVerdict};

/// How long a query waits for one answer: `libp2p-kad`'s own bound.
const PATIENCE: Duration = Duration::from_secs(10);

impl EventLoop {
    pub(super) fn look_up(&mut self, wanted: Wanted) {
        self.look_ups.push(wanted);
        self.start_look_ups();
    }

    pub(super) fn learn_chunk_addresses(
        &mut self,
        peer: PeerId,
        known: Vec<Multiaddr>,
        done: oneshot::Sender<Ports>,
    ) {
        self.want_hello(peer, Waiter::Call(done), known);
    }

    pub(super) fn find_closest(&mut self, key: Key, done: oneshot::Sender<Closest>) {
        let query = self.swarm.behaviour_mut().kad.get_closest_peers(key.to_vec());
        self.closest.insert(query, done);
    }

    pub(super) fn ask_for_holders(&mut self, to: &Node, key: Key, done: oneshot::Sender<Holders>) {
        let find = &mut self.swarm.behaviour_mut().find;
        let request = find.send_request_with_addresses(&to.peer, Ok(key), to.addresses.clone());
        self.finds.insert(request, done);
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, stats } => {
                self.count_questions(id, &result, &stats);
                self.on_query(id, result, &stats, step.last);
            }
            kad::Event::RoutingUpdated { peer, .. } => self.on_routing_changed(peer),
            kad::Event::InboundRequest { request } => tracing::trace!(?request, "answered"),
            // Nodes enter the table by what identify tells, never by these.
            kad::Event::UnroutablePeer { .. }
            | kad::Event::RoutablePeer { .. }
            | kad::Event::PendingRoutablePeer { .. } => {}
            kad::Event::ModeChanged { new_mode } => tracing::debug!(%new_mode, "another part in the DHT"),
        }
    }

    fn count_questions(&mut self, query: QueryId, result: &QueryResult, stats: &QueryStats) {
        let has_found =
            matches!(result, QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { .. })));
        if has_found && self.look_ups.has_found_nobody(query) {
            self.questions_until_found += u64::from(stats.num_requests());
        }
    }

    fn on_query(&mut self, query: QueryId, result: QueryResult, stats: &QueryStats, last: bool) {
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                self.name_providers(query, providers);
                self.ask_providers();
            }
            QueryResult::GetProviders(Ok(GetProvidersOk::FinishedWithNoAdditionalRecord {
                closest_peers,
            })) => {
                if self.is_crowded(&closest_peers) {
                    self.look_ups.widen(query);
                }
            }
            // It was held up, and so may another be.
            QueryResult::GetProviders(Err(_)) => self.look_ups.widen(query),
            QueryResult::GetClosestPeers(result) => {
                let (nodes, is_whole) = match result {
                    Ok(found) => (found.peers, true),
                    Err(GetClosestPeersError::Timeout { peers, .. }) => (peers, false),
                };
                if let Some(done) = self.closest.remove(&query) {
                    let node = |PeerInfo { peer_id: peer, addrs: addresses }| {
                        (Node { peer, addresses }, places(self.peers.get(&peer)))
                    };
                    let nodes = nodes.into_iter().map(node).collect();
                    let (unanswered, is_sound) = (unanswered(stats), is_whole && is_sound(stats));
                    let _ = done.send(Closest { nodes, unanswered, is_sound });
                }
            }
            QueryResult::Bootstrap(Ok(progress)) => {
                tracing::debug!(left = progress.num_remaining, "looking for neighbours");
            }
            QueryResult::Bootstrap(Err(error)) => tracing::debug!(%error, "a bootstrap query failed"),
            // Never started by casd.
            QueryResult::StartProviding(_)
            | QueryResult::RepublishProvider(_)
            | QueryResult::GetRecord(_)
            | QueryResult::PutRecord(_)
            | QueryResult::RepublishRecord(_) => {}
        }
        if last {
            self.end_query(query);
        }
    }

    /// An answer named providers. Where it says they are, the query knows as long as it runs only.
    fn name_providers(&mut self, query: QueryId, providers: HashSet<PeerId>) {
        let local = *self.swarm.local_peer_id();
        let kad = &mut self.swarm.behaviour_mut().kad;
        let others = providers.into_iter().filter(|peer| *peer != local);
        let named = others.map(|peer| (peer, addresses_of(kad, peer)));
        self.look_ups.found(query, named.collect());
    }

    /// Whether many of these nodes are seen in one address group: then they may be of one owner.
    fn is_crowded(&self, nodes: &[PeerId]) -> bool {
        let mut of_group = HashMap::<Group, usize>::new();
        nodes.iter().any(|node| {
            let group = self.peers.get(node).map_or(Some(Group::UNSEEN), Connected::group);
            let count = group.map(|group| of_group.entry(group).or_default());
            count.is_some_and(|count| std::mem::replace(count, *count + 1) >= self.options.limits.of_group)
        })
    }

    fn end_query(&mut self, query: QueryId) {
        match self.look_ups.ended(query) {
            Some((number, End::Again(key))) => self.query_providers(number, key),
            Some((_, End::Done)) => {
                // Whom it named may have their last turn now.
                self.ask_providers();
                self.start_look_ups();
            }
            None => {}
        }
    }

    pub(super) fn sweep_look_ups(&mut self) {
        for query in self.look_ups.sweep(Instant::now()) {
            if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&query) {
                query.finish();
            }
        }
        self.start_look_ups();
        // Those that take their time have kept their places long enough.
        self.ask_providers();
    }

    fn start_look_ups(&mut self) {
        while let Some((number, key)) = self.look_ups.start() {
            self.query_providers(number, key);
        }
    }

    fn query_providers(&mut self, number: u64, key: Key) {
        let query = self.swarm.behaviour_mut().kad.get_providers(RecordKey::new(&key));
        self.look_ups.queried(number, query);
    }

    /// Asks as many of the providers found as may be asked.
    pub(super) fn ask_providers(&mut self) {
        // One that cannot even be dialled frees its place at once and leads here again: the loop below goes on then.
        if std::mem::replace(&mut self.is_asking_providers, true) {
            return;
        }
        let now = Instant::now();
        while let Some((number, peer, said)) = self.look_ups.next_to_ask(now) {
            self.want_hello(peer, Waiter::LookUp(number), said);
        }
        self.is_asking_providers = false;
    }

    /// `said`: where others say that the peer is.
    fn want_hello(&mut self, peer: PeerId, waiter: Waiter, said: Vec<Multiaddr>) {
        match self.peers.want(peer, waiter, &said, Instant::now()) {
            Next::Known(waiter, chunk) => self.answer(peer, waiter, Ok(chunk)),
            Next::Refused(waiter) => {
                self.answer(peer, waiter, Err("too many others are being asked where they are".to_owned()));
            }
            Next::Ask => self.say_hello(peer),
            Next::Dial => self.dial_for_hello(peer, said),
            Next::Wait => {}
        }
    }

    /// Dials a peer for those who wait for its hello: what becomes of other dials is no answer to them.
    pub(super) fn dial_for_hello(&mut self, peer: PeerId, said: Vec<Multiaddr>) {
        let mut known = self.swarm.behaviour_mut().kad.store_mut().whereabouts(&peer);
        let new: Vec<_> = said.into_iter().filter(|at| !known.contains(at)).collect();
        known.extend(new);
        let options = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing);
        let options = options.addresses(known).extend_addresses_through_behaviour().build();
        self.peers.dials(&peer, options.connection_id());
        self.begin_dial(peer, options);
    }

    /// Asks a connected peer for its hello.
    pub(super) fn say_hello(&mut self, peer: PeerId) {
        if self.hellos.values().any(|asked| *asked == peer) {
            return;
        }
        let remote = self.peers.get(&peer).and_then(|connected| connected.remotes().next().and_then(ip_of));
        let hello = Hello::to(&self.options.chunk, self.options.serves, remote);
        let request = self.swarm.behaviour_mut().hello.send_request(&peer, Ok(hello));
        self.hellos.insert(request, peer);
    }

    /// A hello came, or cannot be had and why: tells all who waited.
    pub(super) fn hello_resolved(&mut self, peer: PeerId, told: &Ports) {
        let waiters = match told {
            Ok(chunk) => self.peers.resolve(peer, chunk, Instant::now()),
            Err(_) => self.hello_missed(peer),
        };
        for waiter in waiters {
            self.answer(peer, waiter, told.clone());
        }
        self.ask_providers();
        self.start_look_ups();
    }

    /// A peer was not dialled, for want of time: look-ups ask it later.
    pub(super) fn hello_put_off(&mut self, peer: PeerId) {
        let now = Instant::now();
        for waiter in self.hello_missed(peer) {
            match waiter {
                Waiter::LookUp(number) => self.look_ups.put_off(number, &peer, now),
                call @ Waiter::Call(_) => self.answer(peer, call, Err(CROWDED.to_owned())),
            }
        }
        self.ask_providers();
        self.start_look_ups();
    }

    /// A hello cannot be had where it was sought: those who waited for that. For others the peer is dialled elsewhere.
    fn hello_missed(&mut self, peer: PeerId) -> Vec<Waiter> {
        let (waiters, elsewhere) = self.peers.missed(peer);
        if let Some(said) = elsewhere {
            self.dial_for_hello(peer, said);
        }
        waiters
    }

    pub(super) fn hello_failed(&mut self, peer: PeerId, error: &OutboundFailure) {
        tracing::debug!(%peer, %error, "no hello");
        self.hello_resolved(peer, &Err(causes::of_question(error, None)));
    }

    fn answer(&mut self, peer: PeerId, waiter: Waiter, told: Ports) {
        match waiter {
            Waiter::Call(done) => drop(done.send(told)),
            Waiter::LookUp(number) => {
                let provider = told.map(|chunk| Provider { peer, chunk, dht: self.dht_addresses(&peer) });
                self.look_ups.told(number, &peer, provider);
            }
        }
    }

    /// Why a dial of a peer failed, for those who want what it holds.
    pub(super) fn unreached(&self, error: &DialError) -> String {
        let is_reached = self.reaching.reachable.verdict() == ReachVerdict::Yes;
        unreached::why(error, Here { is_reached, is_outside: self.is_outside() })
    }

    /// Where a peer's DHT port is: what it told, else where its connections lead.
    fn dht_addresses(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        let mut known = self.swarm.behaviour_mut().kad.store_mut().whereabouts(peer);
        if known.is_empty()
            && let Some(connected) = self.peers.get(peer)
        {
            known = connected.remotes().cloned().collect();
        }
        known.iter().map(|address| named(address, *peer)).collect()
    }
}

/// Whether so many nodes answered a query that those that did not are gone rather than out of reach: of a network that
/// is cut in two half do not, and what one half knows is not what there is.
fn is_sound(stats: &QueryStats) -> bool {
    unanswered(stats) * 4 <= stats.num_requests() as usize
}

/// How many of those that a query asked did not answer. What is under way when it ends is to farther nodes than those
/// it found, or to some that have been silent for so long that it goes on without them.
fn unanswered(stats: &QueryStats) -> usize {
    let has_waited = stats.duration().is_some_and(|took| took >= PATIENCE);
    let silent = if has_waited { stats.num_pending() } else { 0 };
    (stats.num_failures() + silent) as usize
}
