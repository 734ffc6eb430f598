//! The reaching part of the event loop: whether others can connect to this node, and what is done where they cannot.
//!
//! Owns: what the events of AutoNAT lead to, and this node's part in the DHT where that is "auto"; `relays` has what is
//! done where nobody reaches it. Refuses: to dial others back unless it is reached itself, and to be a relay unless it
//! is that, or all that it knows are on its own subnets: there may be routers among them, and those behind them reach
//! it. Survives a crash: nothing.
//!
//! A node is a server of the DHT when others have connected to it, or when all that it knows are on its own subnets.
//! Others have connected to it when enough of them say so, by AutoNAT (`reachable` has how many), or when somebody from
//! beyond its subnets has come in at an address of one of its own interfaces, and neither that peer nor its
//! host has been dialled lately: then no router stands in between.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::autonat::v2::client;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::PeerCondition;
use libp2p::{Multiaddr, PeerId, kad, relay};
use rand::seq::IteratorRandom;
use tokio::sync::watch;

use super::dialled::Dialled;
use super::event_loop::EventLoop;
use super::listen::ip_of;
use super::options::{Mode, Options};
use super::reach::is_global;
use super::reachable::{News, Reachable, Witness};
use super::records::Group;
use super::streams::is_relayed;
use crate::peer::{ReachVerdict as Verdict, Reachability};

/// How often it is tried again whether others reach this node, while that is so and while it is not.
const CONFIRMED: Duration = Duration::from_secs(3600);
const UNCONFIRMED: Duration = Duration::from_secs(600);
/// How soon after this host's addresses have changed.
const SETTLED: Duration = Duration::from_secs(5);
/// How long nodes beyond this host's subnets are remembered, as such.
const OUTSIDE: Duration = Duration::from_secs(3600);

/// What this part of the loop knows.
pub(super) struct Reaching {
    /// What others have tried.
    pub(super) reachable: Reachable,
    /// Server or client, at present.
    pub(super) part: Mode,
    /// Where the handles see it.
    told: watch::Sender<Reachability>,
    /// When a node beyond this host's subnets was last connected.
    outside: Option<Instant>,
    /// When it is tried again.
    due: Instant,
    /// Connected nodes that are relays, and where they are.
    pub(super) relays: HashMap<PeerId, Multiaddr>,
    /// The relays that are used, and whether they have agreed.
    pub(super) slots: HashMap<ListenerId, (PeerId, bool)>,
    /// Relays that are left alone until then.
    pub(super) resting: HashMap<PeerId, Instant>,
    /// Whom this node has dialled lately.
    dialled: Dialled<PeerId>,
    /// What a router said, where one is asked.
    pub(super) router: String,
    pub(super) punched: u64,
    pub(super) missed: u64,
}

impl Reaching {
    pub(super) fn new(options: &Options, told: watch::Sender<Reachability>, now: Instant) -> Self {
        Self {
            reachable: Reachable::default(),
            part: first_part(options),
            told,
            outside: None,
            due: now + UNCONFIRMED,
            relays: HashMap::new(),
            slots: HashMap::new(),
            resting: HashMap::new(),
            dialled: Dialled::default(),
            router: String::new(),
            punched: 0,
            missed: 0,
        }
    }
}

/// This node's part before it knows more.
pub(super) fn first_part(options: &Options) -> Mode {
    let is_far = |at: &Multiaddr| !ip_of(at).is_some_and(|ip| ip.is_loopback());
    match options.mode {
        Mode::Auto if options.bootstrap.iter().any(is_far) => Mode::Client,
        Mode::Auto => Mode::Server,
        other => other,
    }
}

/// That part, as Kademlia has it.
pub(super) fn kad_mode(part: Mode) -> kad::Mode {
    if part == Mode::Client { kad::Mode::Client } else { kad::Mode::Server }
}

impl EventLoop {
    /// A connection has come.
    pub(super) fn reach_opened(&mut self, peer: PeerId, end: &ConnectedPoint) {
        if end.is_relayed() {
            return;
        }
        let Some(remote) = ip_of(end.get_remote_address()) else { return };
        // Whom it cannot place yet, the next tick does.
        if self.reach.is_blind() || self.is_near(remote) {
            return;
        }
        let now = Instant::now();
        self.reaching.outside = Some(now);
        // One host has many ids, and what a router lets in it lets in by address.
        if let ConnectedPoint::Listener { local_addr, .. } = end
            && !self.reaching.dialled.has(&peer, now)
            && !self.reach.has_dialled(remote, now)
        {
            self.came_in(remote, &local_addr.clone());
        }
        self.take_part();
    }

    /// Somebody beyond our subnets has come in unasked at `local`, which may be all addresses of this host.
    fn came_in(&mut self, remote: IpAddr, local: &Multiaddr) {
        let carrier = |at: &Multiaddr| at.iter().skip(1).collect::<Multiaddr>();
        let is_open = |at: &&Multiaddr| {
            let ip = ip_of(at).filter(|ip| ip.is_ipv4() == remote.is_ipv4() && !ip.is_loopback());
            let is_local = ip_of(local).is_some_and(|local| local.is_unspecified() || ip == Some(local));
            ip.is_some_and(|ip| is_global(ip) == is_global(remote))
                && is_local
                && carrier(at) == carrier(local)
        };
        let open: Vec<_> = self.swarm.listeners().filter(is_open).cloned().collect();
        let news: Vec<_> = open.iter().map(|address| self.reaching.reachable.reached(address)).collect();
        if news.contains(&News::Changed) {
            self.judge_reach();
        }
    }

    pub(super) fn is_near(&self, ip: IpAddr) -> bool {
        ip.to_canonical().is_loopback() || self.reach.is_neighbour(ip)
    }

    /// Whether nodes beyond our subnets are known; while nobody is connected, those to join by count.
    pub(super) fn is_outside(&self) -> bool {
        let is_far = |at: &Multiaddr| !ip_of(at).is_some_and(|ip| self.is_near(ip));
        let is_alone = self.peers.connected().next().is_none();
        self.reaching.outside.is_some_and(|at| at.elapsed() < OUTSIDE)
            || is_alone && self.options.bootstrap.iter().any(is_far)
    }

    /// Notes that somebody beyond our subnets is connected.
    fn look_outside(&mut self, now: Instant) {
        let mut remotes = self.peers.connected().flat_map(|(_, one)| one.remotes()).filter_map(ip_of);
        if !self.reach.is_blind() && remotes.any(|ip| !self.is_near(ip)) {
            self.reaching.outside = Some(now);
        }
    }

    /// A dial begins.
    pub(super) fn reach_dials(&mut self, peer: PeerId) {
        self.reaching.dialled.note(peer, Instant::now());
    }

    /// Another node has tried one of our addresses.
    pub(super) fn on_tried(&mut self, tried: &client::Event) {
        let address = &tried.tested_addr;
        // Only those are asked whom this node has dialled at a global address; who is gone has no say.
        let Some(by) = self.witness(tried.server) else { return };
        let is_ours = ip_of(address).is_some_and(|ip| self.reach.is_ours(ip));
        let reachable = &mut self.reaching.reachable;
        let news = match &tried.result {
            Ok(()) => reachable.vouched(address, by, is_ours),
            Err(error) => {
                tracing::debug!(%address, by = %tried.server, %error, "another node cannot connect here");
                reachable.failed(address, by)
            }
        };
        match news {
            News::Changed => self.judge_reach(),
            // Where there is somebody else to ask, that is done soon.
            News::Half if self.unheard().next().is_some() => {
                self.reaching.due = self.reaching.due.min(Instant::now() + SETTLED);
            }
            News::Half | News::None => {}
        }
    }

    /// One who has tried an address of ours, by where it was dialled.
    fn witness(&self, peer: PeerId) -> Option<Witness> {
        let connected = self.peers.get(&peer)?;
        let dialled = connected.dialled.as_ref().and_then(ip_of);
        let ip = dialled.or_else(|| connected.remotes().find_map(ip_of))?;
        Some(Witness { peer, group: Group::of(ip)? })
    }

    /// Relays, which try addresses for others as well, of groups whose word is not waiting for that of others.
    fn unheard(&self) -> impl Iterator<Item = (&PeerId, &Multiaddr)> {
        let heard = self.reaching.reachable.heard();
        let is_heard =
            move |at: &Multiaddr| ip_of(at).and_then(Group::of).is_none_or(|group| heard.contains(&group));
        self.reaching.relays.iter().filter(move |(_, at)| !is_heard(at))
    }

    /// What is known of our addresses has changed.
    fn judge_reach(&mut self) {
        let before = self.reaching.told.borrow().verdict;
        self.publish_addresses();
        self.take_part();
        let reachable = &self.reaching.reachable;
        match (before, reachable.verdict()) {
            (Verdict::Yes | Verdict::Unknown, Verdict::No) => {
                tracing::info!(
                    tried = ?reachable.unreached(),
                    "others cannot connect to this node; it reaches them, and is reached with the help of a relay"
                );
            }
            (Verdict::No | Verdict::Unknown, Verdict::Yes) => {
                tracing::info!(at = ?reachable.confirmed(), "others can connect to this node");
                self.leave_relays();
            }
            _ => {}
        }
        self.tell_reach();
    }

    /// Server or client, relay or not, as things stand.
    fn take_part(&mut self) {
        let is_reached = self.reaching.reachable.verdict() == Verdict::Yes;
        let part = match self.options.mode {
            Mode::Auto if is_reached || !self.is_outside() => Mode::Server,
            Mode::Auto => Mode::Client,
            other => other,
        };
        let helps = self.options.mode != Mode::Client && (is_reached || self.options.mode == Mode::Server);
        // Who is at home among neighbours learns from nobody that it is reached. That it could dial somebody back
        // proves little; those behind a neighbour's router, who have no other, may ask for each other here.
        let relays = helps || part == Mode::Server && !self.reach.is_blind();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.dial_backs.set_open(helps);
        let status = if relays { relay::Status::Enable } else { relay::Status::Disable };
        behaviour.relay.set_status(status);
        if std::mem::replace(&mut self.reaching.part, part) != part {
            behaviour.kad.set_mode(Some(kad_mode(part)));
            // Others who have just become servers are known to nobody yet either.
            self.look_around();
            match part {
                Mode::Server => tracing::info!(
                    "others reach this node, or it sees only its own network: it keeps records for others and answers \
                     their questions (dht = \"server\")"
                ),
                _ => tracing::info!(
                    "others are not known to reach this node: it asks and announces, and keeps no records for others \
                     (dht = \"client\")"
                ),
            }
        }
    }

    /// A peer speaks of where it sees this node.
    pub(super) fn hear(&mut self, peer: PeerId, connection: ConnectionId) {
        let group = self.peers.remote_ip(&peer, connection).and_then(Group::of);
        self.swarm.behaviour_mut().punch.hear(peer, group);
    }

    /// Of our own addresses those that are global may be reached, or only while this node dials as well: a firewall
    /// that changes no addresses stands in between, or none. Others do not say that they see us there: we told them.
    pub(super) fn try_addresses(&mut self, listening: &[Multiaddr]) {
        let global = |at: &&Multiaddr| !is_relayed(at) && ip_of(at).is_some_and(is_global);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.punch.stand(listening.iter().filter(global));
        for addr in listening.iter().filter(global) {
            if let Some(candidates) = behaviour.candidates.as_mut() {
                candidates.consider(addr);
            }
        }
    }

    /// Few addresses are tried, and anybody may say anything: what most say comes before what few say.
    fn try_sightings(&mut self) {
        let behaviour = self.swarm.behaviour_mut();
        if let Some(candidates) = behaviour.candidates.as_mut().filter(|candidates| candidates.has_room()) {
            behaviour.punch.seen().iter().for_each(|(seen, groups)| candidates.hear(seen, *groups));
        }
    }

    /// This host has other addresses: what was known of them is soon looked at again.
    pub(super) fn reach_moved(&mut self) {
        self.reaching.due = self.reaching.due.min(Instant::now() + SETTLED);
    }

    /// This node no longer listens at these: that others have connected to them says nothing any more.
    pub(super) fn reach_left(&mut self, addresses: &[Multiaddr]) {
        let reachable = &mut self.reaching.reachable;
        if addresses.iter().filter(|at| reachable.left(at)).count() > 0 {
            self.reach_moved();
            self.judge_reach();
        } else {
            self.publish_addresses();
        }
    }

    pub(super) fn reach_tick(&mut self, now: Instant) {
        self.sweep_detours();
        self.reaching.dialled.sweep(now);
        self.look_outside(now);
        self.take_part();
        self.use_relays(now);
        if now >= self.reaching.due {
            self.try_again(now);
        }
        self.try_sightings();
        self.tell_reach();
    }

    /// Has it tried again whether others reach this node, by one that is asked on a connection of its own.
    fn try_again(&mut self, now: Instant) {
        let reachable = &self.reaching.reachable;
        let is_sure = reachable.verdict() == Verdict::Yes && !reachable.is_doubted();
        self.reaching.due = now + if is_sure { CONFIRMED } else { UNCONFIRMED };
        let (confirmed, said) = (reachable.confirmed(), reachable.said());
        if let Some(candidates) = self.swarm.behaviour_mut().candidates.as_mut() {
            candidates.renew(&confirmed);
        }
        let listening: Vec<_> = self.swarm.listeners().cloned().collect();
        self.try_addresses(&listening);
        // Of what one says that it has connected to, another is to be asked.
        if let Some(candidates) = self.swarm.behaviour_mut().candidates.as_mut() {
            said.iter().for_each(|at| candidates.hear(at, 1));
        }
        let asked = self.unheard().choose(&mut rand::rng());
        let asked = asked.or_else(|| self.reaching.relays.iter().choose(&mut rand::rng()));
        if let Some((peer, at)) = asked.map(|(peer, at)| (*peer, at.clone())) {
            self.dial(peer, vec![at], PeerCondition::Always);
        }
    }

    /// Tells the handles, where there is news.
    pub(super) fn tell_reach(&self) {
        let Reaching { reachable, part, slots, router, punched, missed, told, .. } = &self.reaching;
        let mut relays: Vec<_> =
            slots.values().filter(|(_, agreed)| *agreed).map(|(peer, _)| *peer).collect();
        relays.sort();
        let now = Reachability {
            verdict: reachable.verdict(),
            confirmed: reachable.confirmed(),
            said: reachable.said(),
            failed: reachable.unreached(),
            is_outside: self.is_outside(),
            is_server: *part == Mode::Server,
            relays,
            punched: *punched,
            missed: *missed,
            router: router.clone(),
        };
        told.send_if_modified(|before| {
            let is_news = *before != now;
            *before = now;
            is_news
        });
    }
}
