//! How the room is put together: the swarm, what its task and the handles share, and what runs beside it.
//!
//! Owns: the order in which that is made. Refuses: networks and bootstrap addresses that cannot be used. Survives a
//! crash: nothing; what earlier runs left is read here.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::relay;
use libp2p::swarm::{self, Swarm};
use tokio::sync::mpsc;

use super::announcer::first_number;
use super::atlas::Shelf;
use super::awaited::Awaited;
use super::behaviour::{Behaviour, Protocols, Seams};
use super::error::Error;
use super::event_loop::EventLoop;
use super::heard::Heard;
use super::holdings::Holdings;
use super::journal::{self, Journal};
use super::options::Options;
use super::published::Published;
use super::reach::Reach;
use super::records::Described;
use super::schedule::Schedule;
use super::{
    Dht, Inner, Transport, lasting, listen, paced, peer_of, proof, remembered, streams, transport, views,
};
use crate::peer::{Conn, Keypair, network_id};
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// Commands that may wait for the event loop.
const COMMANDS: usize = 256;
/// What others say of objects may take this part of what their keys may: 5 MiB.
const DESCRIBED_SHARE: usize = 8;
/// How long after the start somebody may still be found on the local network; it is asked after 0, 0.5, 1.5 and 3.5 s.
const LAN_ANSWERS: Duration = Duration::from_secs(5);

/// What the swarm, its task and the handles have in common.
pub(super) struct Common {
    /// Names of our protocols.
    pub(super) protocols: Protocols,
    /// What may be dialled.
    pub(super) reach: Arc<Reach>,
    /// This node's own keys.
    pub(super) holdings: Arc<Mutex<Holdings>>,
    /// What outlives the process.
    pub(super) journal: Journal,
    /// What others say of what they hold.
    pub(super) described: Described,
    /// What this node says of what it holds.
    pub(super) published: Arc<Published>,
    /// Who has heard of it.
    pub(super) heard: Arc<Heard>,
    /// What is known of the nodes.
    pub(super) shelf: Arc<Shelf>,
    /// Keys that somebody here waits for.
    pub(super) awaited: Awaited,
}

/// Starts the room over these carriers.
pub(super) async fn begin(
    carriers: Transport,
    mut options: Options,
    keypair: Keypair,
    tasks: &Tasks,
) -> Result<Dht, Error> {
    let local = keypair.public().to_peer_id();
    if let Some(anonymous) = options.bootstrap.iter().find(|at| peer_of(at).is_none()) {
        return Err(Error::NoPeerId(anonymous.clone()));
    }
    options.bootstrap.retain(|at| peer_of(at) != Some(local));
    let common = Common::new(&options, &keypair)?;
    let (accept, accepted) = mpsc::channel(streams::WAITING);
    let accept = options.serves.then_some(accept);
    let mut swarm = swarm(carriers, &options, &keypair, &common, accept)?;
    swarm.behaviour_mut().kad.store_mut().tell_of(common.awaited.clone());
    listen::start(&mut swarm, &options.listen).await?;

    let (commands, requests) = mpsc::channel(COMMANDS);
    let (told, seen) = views::channel(&options);
    let remembered = known_before(&options).await;
    let has_others = !options.bootstrap.is_empty() || !remembered.is_empty();
    let wait = if options.lan_discovery { LAN_ANSWERS } else { Duration::ZERO };
    let network = Arc::from(options.network.as_str());
    let id = network_id(&network);
    let (lifetime, file, of_group) = (options.lifetime, options.journal.clone(), options.limits.of_group);
    let rate = Arc::clone(&options.announce);
    let mut event_loop = EventLoop::new(*swarm, options, &common, requests, told);
    event_loop.publish_addresses();
    event_loop.begin(remembered);
    let stopping = tasks.clone();
    tasks.spawn("dht", event_loop.run(stopping));
    let Common { reach, holdings, journal, described, published, heard, shelf, awaited, .. } = common;
    let inner = Arc::new(Inner {
        commands,
        seen,
        has_others,
        neighbours_until: tokio::time::Instant::now() + wait,
        reach,
        local,
        keypair,
        network,
        accepted: Mutex::new(Some(accepted)),
        shelf,
        awaited,
        holdings,
        published,
        heard,
        described,
        schedule: Schedule::new(&local, lifetime),
        journal: journal.clone(),
        lifetime,
        of_group,
        rate,
        sequence: AtomicU64::new(first_number()),
        tasks: tasks.clone(),
    });
    if let Some(file) = file {
        let writer = journal::Writer::new(Arc::downgrade(&inner), journal, file, id);
        tasks.spawn("what the DHT keeps", writer.run(tasks.clone()));
    }
    Schedule::start(&inner, tasks);
    Ok(Dht(inner))
}

impl Common {
    fn new(options: &Options, keypair: &Keypair) -> Result<Self, Error> {
        let reach = Reach::new(&options.listen, &options.bootstrap).within(options.key.is_some());
        Ok(Self {
            protocols: Protocols::new(&options.network)?,
            reach: Arc::new(reach.opened(options.dials_everything)),
            holdings: Arc::new(Mutex::new(Holdings::new(options.limits.own_keys))),
            journal: Journal::new(options.journal.is_some()),
            described: Described::new(options.limits.other_bytes / DESCRIBED_SHARE),
            published: Arc::new(Published::new(keypair.clone(), network_id(&options.network))),
            heard: Arc::new(Heard::new(options.lifetime)),
            shelf: Arc::default(),
            awaited: Awaited::default(),
        })
    }
}

/// The swarm, which is large: carriers that dial only where they may and, where the network has a key, let in only who
/// proves it.
fn swarm(
    carriers: Transport,
    options: &Options,
    keypair: &Keypair,
    common: &Common,
    accepted: Option<mpsc::Sender<Conn>>,
) -> Result<Box<Swarm<Behaviour>>, Error> {
    let local = keypair.public().to_peer_id();
    let kept = (Arc::clone(&common.holdings), common.journal.clone(), common.described.clone());
    let (circuits, relayed) = relay::client::new(local);
    let carriers = transport::with_circuits(carriers, circuits, keypair)?;
    let seams = Seams { kept, reach: Arc::clone(&common.reach), relayed, accepted };
    let behaviour = Behaviour::new(options, &common.protocols, keypair, seams);
    let config =
        swarm::Config::with_tokio_executor().with_idle_connection_timeout(lasting::brief(options.idle));
    let carriers = paced::paced(carriers);
    let carriers = match &options.key {
        Some(key) => proof::proved(carriers, proof::Prover::new(key.clone(), local, &options.network)),
        None => carriers,
    };
    let guarded = transport::guarded(carriers, Arc::clone(&common.reach));
    Ok(Box::new(Swarm::new(guarded, behaviour, local, config)))
}

/// The peers of earlier runs.
async fn known_before(options: &Options) -> Vec<remembered::Peer> {
    let Some(file) = options.peers.clone() else { return Vec::new() };
    let network = options.network.clone();
    Pool::new(1).run(move || remembered::load(&file, &network)).await
}
