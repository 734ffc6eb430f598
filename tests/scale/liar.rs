//! A node that lies: to whoever asks who holds a key it names nodes that do not exist, to whoever asks for nodes it
//! names other liars only, and what it is told to keep it says it has taken, and forgets.
//!
//! Owns: its swarm, over hosts in memory ([`casd_tests::hearsay`] is what it speaks). Refuses: hellos.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use casd::peer::{Keypair, Multiaddr, PeerId};
use casd::support::task::Tasks;
use casd_tests::hearsay::{self, Speaks, SpeaksEvent};
use futures::StreamExt;
use libp2p::ping;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};

use crate::hosts::{Line, Net, multiaddr};
use crate::node::NETWORK;

/// Providers that it makes up for each question: as many as fit an answer.
const MADE_UP: usize = 20;
/// How long it keeps connections.
const IDLE: Duration = Duration::from_secs(60);

/// A liar that is up.
pub(crate) struct Liar {
    tasks: Tasks,
    /// Kept so that the host stays up.
    _line: Arc<Line>,
}

#[derive(NetworkBehaviour)]
struct Lying {
    ping: ping::Behaviour,
    speaks: Speaks,
}

impl Liar {
    /// Starts a liar that joins by `bootstrap` and knows the liars `others`, and as nodes some that are `nobody`.
    pub(crate) fn start(
        net: &Net,
        (keypair, at): &(Keypair, SocketAddr),
        bootstrap: Vec<Multiaddr>,
        others: &[(Keypair, SocketAddr)],
        nobody: &[(PeerId, SocketAddr)],
    ) -> Result<Self, String> {
        let (peer, at, tasks) = (keypair.public().to_peer_id(), *at, Tasks::new());
        let (carriers, line) = net.host(at, peer);
        let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
        let kademlia = hearsay::kademlia(NETWORK, MADE_UP);
        let speaks = Speaks::new(NETWORK, keypair, kademlia, false, Arc::new(|_| made_up()));
        let lying = Lying { ping: ping::Behaviour::default(), speaks };
        let mut swarm = Swarm::new(carriers, lying, peer, config);
        swarm.listen_on(multiaddr(at)).map_err(|error| error.to_string())?;
        swarm.add_external_address(multiaddr(at));
        // The first twenty of a bucket stay: whoever asks is told of those.
        for (other, at) in nobody {
            swarm.behaviour_mut().speaks.kad.add_address(other, multiaddr(*at));
        }
        for (other, at) in others {
            swarm.behaviour_mut().speaks.kad.add_address(&other.public().to_peer_id(), multiaddr(*at));
        }
        for address in bootstrap {
            swarm
                .dial(DialOpts::unknown_peer_id().address(address).build())
                .map_err(|error| error.to_string())?;
        }
        let stopping = tasks.clone();
        tasks.spawn("liar", async move {
            loop {
                tokio::select! {
                    () = stopping.stopping() => break,
                    event = swarm.select_next_some() => answer(&mut swarm, event),
                }
            }
        });
        Ok(Self { tasks, _line: line })
    }

    pub(crate) async fn leave(self) {
        self.tasks.drain(IDLE).await;
    }
}

/// Says that it has taken whatever it was to keep.
fn answer(swarm: &mut Swarm<Lying>, event: SwarmEvent<LyingEvent>) {
    if let SwarmEvent::Behaviour(LyingEvent::Speaks(SpeaksEvent::Announce(Event::Message {
        message: Message::Request { channel, .. },
        ..
    }))) = event
    {
        let _ = swarm.behaviour_mut().speaks.announce.send_response(channel, taken());
    }
}

/// Everybody holds everything, at made-up nodes.
fn made_up() -> Vec<(PeerId, Vec<Multiaddr>)> {
    let made_up = |_| {
        let ip = IpAddr::from(Ipv4Addr::from(0x6400_0000 | (rand::random::<u32>() >> 8)));
        (PeerId::random(), vec![multiaddr(SocketAddr::new(ip, 8468))])
    };
    (0..MADE_UP).map(made_up).collect()
}

/// The answer to a batch of 4,096 keys, all of them taken for two days.
fn taken() -> Vec<u8> {
    let mut taken = vec![1, 0];
    taken.extend(172_800u32.to_le_bytes());
    taken.extend([0; 16]);
    taken.extend(4_096u16.to_le_bytes());
    taken.extend([u8::MAX; 512]);
    taken
}
