//! What the swarm does by itself: Kademlia, identify, ping, limits, the local network, ways through routers, and our
//! own protocols.
//!
//! Owns: the composition and its settings. Refuses: values in the DHT, republishing and caching by the
//! swarm, and nodes in the routing table that this room has not looked at. Survives a crash: nothing.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, StreamProtocol, connection_limits, identify, kad, memory_connection_limits, ping, relay,
};

use tokio::sync::mpsc;

use super::about::Describing;
use super::batch::Announcing;
use super::candidates::Candidates;
use super::catalogue::Listing;
use super::codec::Whole;
use super::dial_backs::DialBacks;
use super::error::Error;
use super::find::Finding;
use super::guard::Guard;
use super::hello::Greeting;
use super::holdings::Holdings;
use super::hosts::Hosts;
use super::introducing::Introducing;
use super::journal::Journal;
use super::lan::Lan;
use super::lasting::Lasting;
use super::metered::Metered;
use super::options::Options;
use super::punch::Punch;
use super::reach::Reach;
use super::reaching;
use super::reading::Reading;
use super::records::{self, Described, MAX_ADDRESS, MAX_ADDRESSES, Records};
use super::regions;
use super::relaying::Relaying;
use super::shares;
use super::streams::Streams;
use crate::peer::{Conn, network_id};

/// Whatever others tell of themselves, every answer fits: [`regions::K`] nearer nodes and as many providers, with the
/// routing table's addresses of each. What is longer could not be read by anybody.
const MAX_KAD_MESSAGE: usize = 64 << 10;
const _: () = assert!(2 * regions::K * MAX_OF_NODE < MAX_KAD_MESSAGE, "the longest answer can be read");
/// Bytes of a node in an answer: its addresses and the one where it answered, each with its id (41 bytes) and a field's
/// head (3 bytes), then its id and what else is said of it.
const MAX_OF_NODE: usize = (MAX_ADDRESSES + 1) * (MAX_ADDRESS + 41 + 3) + 48;
/// Time for a whole query: of those that are silent each keeps its place for two or three seconds (see
/// [`metered`](super::metered)), so that it goes past about a hundred of them.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Nodes that a query asks at once. With three, which is Kademlia's own figure, those whom one answer makes up hold it
/// up for most of its time; twenty would mean half as many questions again (decision 9).
const ASKED_AT_ONCE: usize = regions::K / 2;
/// Time for one question of a query.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(8);
/// How often a node looks in each part of its routing table anew: eight to ten look-ups, which in a large network open
/// two or three hundred connections. For its neighbours it looks more often (see [`seeking`](super::seeking)).
const REFRESH: Duration = Duration::from_hours(1);
/// Time for a hello, and for a batch of 200 KiB at 10 KiB/s.
const HELLO_TIMEOUT: Duration = Duration::from_secs(8);
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a connection is tried, and how long an answer may take: a dead one is closed after both. With many
/// connections this is most of what an idle node does.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Batches at once on one connection, those of both sides: 8 × 200 KiB. What is beyond fails, whoever sent it.
pub(super) const BATCHES_AT_ONCE: usize = 8;
/// Connections with one peer: both may dial both transports at once.
const CONNECTIONS_PER_PEER: u32 = 4;
/// Handshakes of others under way.
const PENDING: u32 = 128;
/// Dials under way: at the [pace](super::pace) 128 begin at once, 160 wait, and in the ten seconds that one may take
/// 200 more begin. That pace shall be what holds them up: what there is no place for is not tried at all.
const DIALLING: u32 = 512;
/// What identify says we are.
const AGENT: &str = concat!("casd/", env!("CARGO_PKG_VERSION"));

/// The names of a network's protocols.
#[derive(Clone, Debug)]
pub(super) struct Protocols {
    /// Kademlia: told by servers only.
    pub(super) kad: StreamProtocol,
    /// The hello: told by every node of the network, so it is what tells members from strangers.
    pub(super) hello: StreamProtocol,
    /// Batches of keys.
    pub(super) announce: StreamProtocol,
    /// Questions for the holders of a key.
    pub(super) find: StreamProtocol,
    /// Questions for nodes that keep records.
    pub(super) servers: StreamProtocol,
    /// Questions for what is said of an object…
    pub(super) describe: StreamProtocol,
    /// …and for what a node publishes.
    pub(super) catalogue: StreamProtocol,
    /// Streams for the chunk protocol.
    pub(super) chunk: StreamProtocol,
}

/// Everything that runs on a connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// Lets nobody in who is banned.
    guard: Guard,
    /// Bounds connections by number…
    limits: connection_limits::Behaviour,
    /// …of each host…
    hosts: Hosts,
    /// …and by memory…
    memory: memory_connection_limits::Behaviour,
    /// …and keeps those that nobody uses for a while.
    pub(super) lasting: Lasting,
    /// Notices dead connections, which are closed then.
    ping: ping::Behaviour,
    /// Tells who speaks what, and where.
    pub(super) identify: identify::Behaviour,
    /// Finds nodes and providers.
    pub(super) kad: Metered,
    /// Finds peers on the local network.
    pub(super) lan: Toggle<Lan>,
    /// Learns chunk addresses.
    pub(super) hello: request_response::Behaviour<Whole<Greeting>>,
    /// Places keys.
    pub(super) announce: request_response::Behaviour<Whole<Announcing>>,
    /// Asks a node of our choice who holds a key.
    pub(super) find: request_response::Behaviour<Whole<Finding>>,
    /// Asks a neighbour for nodes that keep records.
    pub(super) servers: request_response::Behaviour<Whole<Introducing>>,
    /// Asks a node what is said of an object.
    pub(super) describe: request_response::Behaviour<Whole<Describing>>,
    /// Asks a node what it publishes.
    pub(super) catalogue: request_response::Behaviour<Whole<Listing>>,
    /// Carries chunks where no chunk port is reached.
    pub(super) streams: Streams,
    /// Learns whether others reach us…
    pub(super) candidates: Toggle<Candidates>,
    /// …and tries it for them.
    pub(super) dial_backs: DialBacks,
    /// Lets others ask for us at a relay…
    relayed: relay::client::Behaviour,
    /// …and is one for them.
    pub(super) relay: Relaying,
    /// Dials those who ask for us while they dial us.
    pub(super) punch: Punch,
    /// Asks the router to let others in.
    #[cfg(feature = "upnp")]
    upnp: Toggle<libp2p::upnp::tokio::Behaviour>,
}

/// What the swarm is made with besides the settings.
pub(super) struct Seams {
    /// This node's own keys, what outlives the process, and what others say of objects.
    pub(super) kept: (Arc<Mutex<Holdings>>, Journal, Described),
    /// What may be dialled.
    pub(super) reach: Arc<Reach>,
    /// The other end of the transport through relays.
    pub(super) relayed: relay::client::Behaviour,
    /// Where streams go that others open; none: this node gives nothing.
    pub(super) accepted: Option<mpsc::Sender<Conn>>,
}

// === impl Protocols ===

impl Protocols {
    /// The names for `network`, which must be usable in one.
    pub(super) fn new(network: &str) -> Result<Self, Error> {
        let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let bad = || Error::Network(network.to_owned());
        if network.is_empty() || network.len() > 64 || !network.bytes().all(usable) {
            return Err(bad());
        }
        let name =
            |rest: &str| StreamProtocol::try_from_owned(format!("/casd/{network}/{rest}")).map_err(|_| bad());
        Ok(Self {
            kad: name("kad/1.0.0")?,
            hello: name("hello/1")?,
            announce: name("announce/1")?,
            find: name("find/1")?,
            servers: name("servers/1")?,
            describe: name("describe/1")?,
            catalogue: name("catalogue/1")?,
            chunk: name("chunk/1")?,
        })
    }
}

// === impl Behaviour ===

impl Behaviour {
    pub(super) fn new(options: &Options, protocols: &Protocols, keypair: &Keypair, seams: Seams) -> Self {
        let Seams { kept, reach, relayed, accepted } = seams;
        let local = keypair.public().to_peer_id();
        let limits = &options.limits;
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING))
            .with_max_pending_outgoing(Some(DIALLING))
            .with_max_established_incoming(Some(limits.inbound))
            .with_max_established_outgoing(Some(limits.outbound))
            .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER));
        let identify = identify::Config::new_with_signed_peer_record("/casd/1".into(), keypair)
            .with_agent_version(AGENT.into())
            .with_push_listen_addr_updates(true)
            .with_hide_listen_addrs(true);
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        let exchange = |timeout, streams| {
            request_response::Config::default()
                .with_request_timeout(timeout)
                .with_max_concurrent_streams(streams)
        };
        let network = network_id(&options.network);
        let announcing = Announcing { network: Arc::from(options.network.as_str()), local };
        let reading = Reading::default();
        Self {
            guard: Guard(options.conduct.clone()),
            limits: connection_limits::Behaviour::new(limits),
            hosts: Hosts::new(options.limits.inbound, options.limits.outbound, PENDING),
            lasting: Lasting::new(options.idle, options.limits.inbound, options.limits.outbound),
            memory: memory_connection_limits::Behaviour::with_max_bytes(options.limits.resident_bytes),
            ping: ping::Behaviour::new(ping),
            identify: identify::Behaviour::new(identify),
            kad: Metered::new(kademlia(options, protocols, local, kept), Arc::clone(&reach)),
            lan: Toggle::from(options.lan_discovery.then(|| Lan::new(local))),
            hello: request_response::Behaviour::with_codec(
                Whole::new(Greeting, &reading),
                [(protocols.hello.clone(), ProtocolSupport::Full)],
                exchange(HELLO_TIMEOUT, BATCHES_AT_ONCE),
            ),
            find: request_response::Behaviour::with_codec(
                Whole::new(Finding, &reading),
                [(protocols.find.clone(), ProtocolSupport::Full)],
                exchange(QUESTION_TIMEOUT, BATCHES_AT_ONCE),
            ),
            servers: request_response::Behaviour::with_codec(
                Whole::new(Introducing, &reading),
                [(protocols.servers.clone(), ProtocolSupport::Full)],
                exchange(QUESTION_TIMEOUT, BATCHES_AT_ONCE),
            ),
            describe: request_response::Behaviour::with_codec(
                Whole::new(Describing { network }, &reading),
                [(protocols.describe.clone(), ProtocolSupport::Full)],
                exchange(QUESTION_TIMEOUT, BATCHES_AT_ONCE),
            ),
            catalogue: request_response::Behaviour::with_codec(
                Whole::new(Listing { network }, &reading),
                [(protocols.catalogue.clone(), ProtocolSupport::Full)],
                exchange(QUESTION_TIMEOUT, BATCHES_AT_ONCE),
            ),
            announce: request_response::Behaviour::with_codec(
                Whole::new(announcing, &reading),
                [(protocols.announce.clone(), ProtocolSupport::Full)],
                exchange(ANNOUNCE_TIMEOUT, BATCHES_AT_ONCE),
            ),
            streams: Streams::new(protocols.chunk.clone(), accepted),
            candidates: Toggle::from(options.asks_to_be_dialled.then(|| Candidates::new(reach))),
            dial_backs: DialBacks::new(),
            relayed,
            relay: Relaying::new(shares::relay(local)),
            punch: Punch::new(local),
            #[cfg(feature = "upnp")]
            upnp: Toggle::from(options.listens_beyond_loopback().then(Default::default)),
        }
    }
}

fn kademlia(
    options: &Options,
    protocols: &Protocols,
    local: PeerId,
    (own, journal, described): (Arc<Mutex<Holdings>>, Journal, Described),
) -> kad::Behaviour<Records> {
    let mut config = kad::Config::new(protocols.kad.clone());
    config
        .set_max_packet_size(MAX_KAD_MESSAGE)
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(QUESTION_TIMEOUT)
        .set_parallelism(NonZeroUsize::new(ASKED_AT_ONCE).unwrap_or(kad::K_VALUE))
        .set_replication_factor(NonZeroUsize::new(regions::K).unwrap_or(kad::K_VALUE))
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_caching(kad::Caching::Disabled)
        .set_periodic_bootstrap_interval(Some(REFRESH))
        // The store itself judges what it takes, alike for batches and ADD_PROVIDER; the swarm's filter
        // would acknowledge every PUT_VALUE, where our store refuses it and the asker sees that.
        .set_record_filtering(kad::StoreInserts::Unfiltered)
        .set_provider_record_ttl(Some(records::MAX_LIFETIME))
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None);
    let records = Records::new(local, options.limits.other_bytes, own, (journal, described), Instant::now());
    let mut kad = kad::Behaviour::with_config(local, records, config);
    kad.set_mode(Some(reaching::kad_mode(reaching::first_part(options))));
    kad
}
