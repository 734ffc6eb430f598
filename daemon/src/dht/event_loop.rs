//! The one task that owns the swarm.
//!
//! Owns: the swarm and everything that changes with its events; commands come in over a bounded channel. Every event
//! has a named fate here or in [`joining`](super::joining), [`seeking`](super::seeking), [`company`](super::company),
//! [`asking`](super::asking), [`answering`](super::answering), [`introducing`](super::introducing),
//! [`reaching`](super::reaching), [`relays`](super::relays), [`detour`](super::detour) and
//! [`strikes`](super::strikes). Refuses: nothing by itself. Survives a crash: nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::kad::QueryId;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, ping};
use tokio::sync::{mpsc, oneshot, watch};

use super::about::Said;
use super::atlas::Shelf;
use super::behaviour::{Behaviour, BehaviourEvent, Protocols};
use super::bootstrap::Bootstrap;
use super::catalogue::{self, Turns};
use super::causes;
use super::command::{Closest, Command};
use super::company::Solitude;
use super::detour::Detours;
use super::error::Error;
use super::find::Holders;
use super::heard::Heard;
use super::introducing::Introductions;
use super::lan::Found;
use super::later::Later;
use super::look_ups::LookUps;
use super::options::Options;
use super::peers::{Peers, Standing};
use super::presence::Presence;
use super::published::Published;
use super::reach::Reach;
use super::reaching::Reaching;
use super::remembered::Remembered;
use super::sending::Sending;
use super::start::Common;
use super::views::{Addresses, Telling};
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// How often bootstrap nodes, abandoned look-ups and expired records are looked at.
const TICK: Duration = Duration::from_secs(1);

/// A caller that waits for a connection.
pub(super) struct Connecting {
    /// Where it was to be dialled.
    pub(super) address: Multiaddr,
    /// Its own dial: what becomes of others to the same peer is no answer to it, unless they lead there.
    pub(super) dial: ConnectionId,
    /// Whether that dial has become a connection.
    pub(super) is_open: bool,
    /// Whether no other connection will do: it is the address that is to be tried.
    pub(super) anew: bool,
    /// Who waits.
    pub(super) done: oneshot::Sender<Result<PeerId, Error>>,
}

/// The task's state.
pub(super) struct EventLoop {
    /// The network.
    pub(super) swarm: Swarm<Behaviour>,
    /// What this node was told at start.
    pub(super) options: Options,
    /// Names of our protocols.
    pub(super) protocols: Protocols,
    /// Which addresses may be dialled.
    pub(super) reach: Arc<Reach>,
    /// Requests of the handles.
    commands: mpsc::Receiver<Command>,
    /// Where the handles see our addresses.
    pub(super) addresses: watch::Sender<Addresses>,
    /// Nodes in the routing table.
    pub(super) routed: watch::Sender<usize>,
    /// Where the handles see whether others ask this node.
    pub(super) entered: watch::Sender<bool>,
    /// Who is connected.
    pub(super) peers: Peers,
    /// Provider look-ups.
    pub(super) look_ups: LookUps,
    /// Whether providers are being asked right now, further up the stack.
    pub(super) is_asking_providers: bool,
    /// Queries for nearest nodes, by who asked.
    pub(super) closest: HashMap<QueryId, oneshot::Sender<Closest>>,
    /// Hellos under way.
    pub(super) hellos: HashMap<OutboundRequestId, PeerId>,
    /// Questions for holders under way.
    pub(super) finds: HashMap<OutboundRequestId, oneshot::Sender<Holders>>,
    /// Questions for descriptions under way.
    pub(super) descriptions: HashMap<OutboundRequestId, oneshot::Sender<Said>>,
    /// Questions for what others publish under way.
    pub(super) lists: HashMap<OutboundRequestId, oneshot::Sender<Result<catalogue::Answer, String>>>,
    /// How many such questions each peer may ask this node.
    pub(super) turns: Turns,
    /// What this node publishes.
    pub(super) published: Arc<Published>,
    /// Who has heard of it.
    pub(super) heard: Arc<Heard>,
    /// What announcing knows of the nodes.
    pub(super) shelf: Arc<Shelf>,
    /// Batches to others.
    pub(super) sending: Sending,
    /// Callers that wait for a connection.
    pub(super) connecting: HashMap<PeerId, Vec<Connecting>>,
    /// The configured nodes.
    pub(super) bootstrap: Bootstrap,
    /// Peers of earlier runs and of this one.
    pub(super) remembered: Remembered,
    /// Whether this node is alone.
    pub(super) solitude: Solitude,
    /// When neighbours are looked for again while few are known, and the wait after that.
    pub(super) settling: (Instant, Duration),
    /// Peers on the local network.
    pub(super) found: Found,
    /// When the nodes in the routing table were last there.
    pub(super) presence: Presence,
    /// Whom this node names to its neighbours, and whom of them it asks.
    pub(super) introductions: Introductions,
    /// Where peers are written down: one call after the other.
    pub(super) disk: Pool,
    /// Whether others reach this node.
    pub(super) reaching: Reaching,
    /// Who waits for a way to a peer.
    pub(super) detours: Detours,
    /// Questions of peers that are faster than their rates.
    pub(super) later: Later,
    /// Changes when somebody is banned.
    pub(super) bans: watch::Receiver<u64>,
    /// Peers that misbehaved since the last tick.
    pub(super) struck: Vec<PeerId>,
    /// Batches taken from others.
    pub(super) batches_taken: u64,
    /// Questions that look-ups asked before somebody was found.
    pub(super) questions_until_found: u64,
}

// === impl EventLoop ===

impl EventLoop {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        options: Options,
        common: &Common,
        commands: mpsc::Receiver<Command>,
        telling: Telling,
    ) -> Self {
        let Telling { addresses, routed, entered, reachability } = telling;
        let nodes = options.bootstrap.iter().filter_map(|at| Some((super::peer_of(at)?, at.clone())));
        let (now, reunion) = (Instant::now(), options.reunion);
        let bootstrap = Bootstrap::new(nodes.collect(), now);
        let reaching = Reaching::new(&options, reachability, now);
        let bans = options.conduct.changes();
        Self {
            swarm,
            options,
            protocols: common.protocols.clone(),
            reach: Arc::clone(&common.reach),
            commands,
            addresses,
            routed,
            entered,
            peers: Peers::default(),
            look_ups: LookUps::default(),
            is_asking_providers: false,
            closest: HashMap::new(),
            hellos: HashMap::new(),
            finds: HashMap::new(),
            descriptions: HashMap::new(),
            lists: HashMap::new(),
            turns: Turns::default(),
            published: Arc::clone(&common.published),
            heard: Arc::clone(&common.heard),
            shelf: Arc::clone(&common.shelf),
            sending: Sending::default(),
            connecting: HashMap::new(),
            bootstrap,
            remembered: Remembered::new(Vec::new(), reunion, now, 0),
            solitude: Solitude::default(),
            settling: (now, Duration::ZERO),
            found: Found::default(),
            presence: Presence::default(),
            introductions: Introductions::default(),
            disk: Pool::new(1),
            reaching,
            detours: Detours::default(),
            later: Later::default(),
            bans,
            struck: Vec::new(),
            batches_taken: 0,
            questions_until_found: 0,
        }
    }

    /// Runs until the room is told to stop or the last handle is gone.
    pub(super) async fn run(mut self, tasks: Tasks) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = tasks.stopping() => break,
                _ = tick.tick() => self.on_tick(&tasks),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                question = self.later.next() => self.reply(question),
                () = self.reach.moved() => self.on_moved(),
            }
        }
        if let Some(saving) = self.saving(Instant::now(), true) {
            saving.await;
        }
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        tracing::debug!("the DHT has stopped");
    }

    fn on_command(&mut self, command: Command) {
        // An answer that nobody waits for any more is dropped.
        match command {
            Command::Connect { peer, address, anew, done } => self.connect(peer, address, anew, done),
            Command::Known { done } => drop(done.send(self.list_known())),
            Command::Newer { said } => {
                let records = self.swarm.behaviour_mut().kad.store_mut();
                said.iter().for_each(|said| records.describe_newer(said));
            }
            Command::Peers { done } => drop(done.send(self.list_peers())),
            Command::Status { done } => drop(done.send(self.status())),
            Command::Joining { done } => drop(done.send(self.is_joining())),
            Command::Unserved { done } => drop(done.send(self.is_unserved(Instant::now()))),
            Command::Company { done } => drop(done.send(self.company(Instant::now()))),
            Command::Providers { wanted } => self.look_up(wanted),
            Command::ChunkAddresses { peer, known, done } => self.learn_chunk_addresses(peer, known, done),
            Command::Closest { key, done } => self.find_closest(key, done),
            Command::Send { to, batch, on_way, done } => self.send_batch(to, batch, on_way, done),
            Command::Detour { peer, known, opening } => self.detour(peer, known, opening),
            Command::Find { to, key, done } => self.ask_for_holders(&to, key, done),
            Command::About { to, key, done } => self.ask_about(&to, key, done),
            Command::List { to, question, done } => self.ask_for_list(&to, question, done),
            Command::Restore { entries, done } => {
                self.swarm.behaviour_mut().kad.store_mut().restore(entries, Instant::now());
                let _ = done.send(());
            }
            Command::Page { from, most, done } => {
                let page = self.swarm.behaviour_mut().kad.store_mut().page(from, most, Instant::now());
                let _ = done.send(page);
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_opened(peer_id, connection_id, &endpoint);
                self.reach_opened(peer_id, &endpoint);
                self.detour_opened(peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                let said = self.peers.get(&peer_id).is_some_and(|peer| peer.standing != Standing::Unknown);
                if self.peers.closed(&peer_id, connection_id) {
                    self.on_parted(peer_id, said);
                    self.reach_parted(&peer_id);
                }
                self.send_held(Instant::now());
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), connection_id, error } => {
                self.on_dial_failed(peer, connection_id, &error);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: None, error, .. } => {
                tracing::debug!(%error, "a dial to an unnamed peer failed");
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "a connection did not finish its handshake");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "the DHT listens");
                self.on_new_address(&address);
                self.reach_moved();
                self.publish_addresses();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::info!(%address, "the DHT no longer listens there");
                self.reach_left(&[address]);
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                if !self.reach_closed(listener_id) {
                    tracing::warn!(?addresses, ?reason, "a DHT listener has closed");
                }
                self.reach_left(&addresses);
            }
            SwarmEvent::ListenerError { error, .. } => {
                let error = causes::words(&error);
                tracing::warn!(%error, "one of the DHT's listeners, here or at a relay, had trouble and goes on: {error}");
            }
            SwarmEvent::Dialing { peer_id: Some(peer), .. } => self.reach_dials(peer),
            SwarmEvent::Dialing { peer_id: None, .. } => {}
            SwarmEvent::ExternalAddrConfirmed { address } => tracing::debug!(%address, "others are told"),
            SwarmEvent::ExternalAddrExpired { address } => {
                tracing::debug!(%address, "others are no longer told");
            }
            SwarmEvent::NewExternalAddrCandidate { address } => {
                tracing::trace!(%address, "others see us there; whether it reaches us is not tested yet");
            }
            SwarmEvent::IncomingConnection { .. } | SwarmEvent::NewExternalAddrOfPeer { .. } => {}
            other => tracing::trace!(?other, "an event without a fate"),
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, connection_id, info }) => {
                self.hear(peer_id, connection_id);
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::Identify(identify::Event::Error { peer_id, error, .. }) => {
                tracing::debug!(peer = %peer_id, %error, "a peer did not say what it is");
            }
            BehaviourEvent::Identify(identify::Event::Sent { .. } | identify::Event::Pushed { .. }) => {}
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Lan(found) => self.on_found(found),
            BehaviourEvent::Hello(event) => self.on_hello(event),
            BehaviourEvent::Announce(event) => self.on_announce(event),
            BehaviourEvent::Find(event) => self.on_find(event),
            BehaviourEvent::Servers(event) => self.on_servers(event),
            BehaviourEvent::Describe(event) => self.on_describe(event),
            BehaviourEvent::Catalogue(event) => self.on_catalogue(event),
            BehaviourEvent::Candidates(event) => self.on_tried(&event),
            BehaviourEvent::DialBacks(event) => {
                tracing::debug!(peer = %event.client, at = %event.tested_addr, "dialled a peer at its wish");
            }
            BehaviourEvent::Relayed(event) => self.on_relayed(&event),
            BehaviourEvent::Relay(event) => tracing::debug!(?event, "as a relay"),
            BehaviourEvent::Punch(event) => self.on_punched(&event),
            #[cfg(feature = "upnp")]
            BehaviourEvent::Upnp(event) => self.on_router(event),
        }
    }

    /// A connection that does not answer is closed: questions would go into it and wait until they are given up, one
    /// after the other. It fails as a time-out or, where the stream of pings has to be opened anew, as another trouble.
    fn on_ping(&mut self, ping::Event { peer, connection, result }: ping::Event) {
        match result {
            Ok(_) => {}
            Err(ping::Failure::Unsupported) => {
                tracing::debug!(%peer, "a peer is not pinged: it does not speak of it");
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "closing a connection that is dead");
                self.swarm.close_connection(connection);
            }
        }
    }

    fn on_tick(&mut self, tasks: &Tasks) {
        let now = Instant::now();
        self.swarm.behaviour_mut().kad.store_mut().clean(now);
        self.seek(now);
        self.send_held(now);
        self.swarm.behaviour_mut().lasting.wake(now);
        self.save_peers(now, tasks);
        self.later.clean();
        self.enforce();
        self.sweep_look_ups();
        self.reach_tick(now);
        // Not at once when they are recognised: they shall learn first who we are, or they would dial again.
        for stranger in self.peers.strangers(now, TICK) {
            let _ = self.swarm.disconnect_peer_id(stranger);
        }
    }
}
