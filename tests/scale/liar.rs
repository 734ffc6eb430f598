//! A node that lies: to whoever asks who holds a key it names nodes that do not exist, to whoever asks for nodes it
//! names other liars only, and what it is told to keep it says it has taken, and forgets.
//!
//! Owns: its swarm, made of the same parts as an honest one. Refuses: hellos.

use std::borrow::Cow;
use std::io;
use std::iter::{Empty, empty};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use casd::peer::{Keypair, Multiaddr, PeerId};
use casd::support::task::Tasks;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::kad::store::{RecordStore, Result as StoreResult};
use libp2p::kad::{self, ProviderRecord, Record, RecordKey};
use libp2p::request_response::{self, Codec, Message, ProtocolSupport};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{StreamProtocol, identify, ping};

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
    identify: identify::Behaviour,
    kad: kad::Behaviour<MakesUp>,
    hello: request_response::Behaviour<Swallows>,
    announce: request_response::Behaviour<Swallows>,
}

/// Everybody holds everything, at made-up nodes.
struct MakesUp;

/// Takes a question, whatever it says, and has one answer.
#[derive(Clone)]
struct Swallows(Option<Vec<u8>>);

impl Liar {
    /// Starts a liar that joins by `bootstrap` and knows the liars `others`.
    pub(crate) fn start(
        net: &Net,
        (keypair, at): &(Keypair, SocketAddr),
        bootstrap: Vec<Multiaddr>,
        others: &[(Keypair, SocketAddr)],
    ) -> Result<Self, String> {
        let (peer, at, tasks) = (keypair.public().to_peer_id(), *at, Tasks::new());
        let (carriers, line) = net.host(at, peer);
        let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
        let mut swarm = Swarm::new(carriers, Lying::new(keypair)?, peer, config);
        swarm.listen_on(multiaddr(at)).map_err(|error| error.to_string())?;
        swarm.add_external_address(multiaddr(at));
        for (other, at) in others {
            swarm.behaviour_mut().kad.add_address(&other.public().to_peer_id(), multiaddr(*at));
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
    if let SwarmEvent::Behaviour(LyingEvent::Announce(request_response::Event::Message {
        message: Message::Request { channel, .. },
        ..
    })) = event
    {
        let _ = swarm.behaviour_mut().announce.send_response(channel, ());
    }
}

impl Lying {
    fn new(keypair: &Keypair) -> Result<Self, String> {
        let name = |rest: &str| {
            let name = StreamProtocol::try_from_owned(format!("/casd/{NETWORK}/{rest}"));
            name.map_err(|error| error.to_string())
        };
        let peer = keypair.public().to_peer_id();
        let mut config = kad::Config::new(name("kad/1.0.0")?);
        config.set_kbucket_inserts(kad::BucketInserts::Manual).set_max_packet_size(64 << 10);
        let mut kad = kad::Behaviour::with_config(peer, MakesUp, config);
        kad.set_mode(Some(kad::Mode::Server));
        let identify = identify::Config::new_with_signed_peer_record("/casd/1".into(), keypair);
        let swallow = |protocol, with| {
            let config = request_response::Config::default();
            request_response::Behaviour::with_codec(
                Swallows(with),
                [(protocol, ProtocolSupport::Full)],
                config,
            )
        };
        // A batch of 4,096 keys, all of them taken for two days.
        let mut taken = vec![1, 0];
        taken.extend(172_800u32.to_le_bytes());
        taken.extend([0; 16]);
        taken.extend(4_096u16.to_le_bytes());
        taken.extend([u8::MAX; 512]);
        Ok(Self {
            ping: ping::Behaviour::default(),
            identify: identify::Behaviour::new(identify),
            kad,
            hello: swallow(name("hello/1")?, None),
            announce: swallow(name("announce/1")?, Some(taken)),
        })
    }
}

impl RecordStore for MakesUp {
    type RecordsIter<'a> = Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> StoreResult<()> {
        Ok(())
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        empty()
    }

    fn add_provider(&mut self, _: ProviderRecord) -> StoreResult<()> {
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let made_up = |_| {
            let ip = IpAddr::from(Ipv4Addr::from(0x6400_0000 | (rand::random::<u32>() >> 8)));
            ProviderRecord::new(key.clone(), PeerId::random(), vec![multiaddr(SocketAddr::new(ip, 8468))])
        };
        (0..MADE_UP).map(made_up).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}

impl Codec for Swallows {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        futures::io::copy(io, &mut futures::io::sink()).await?;
        Ok(())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, _: &mut T, _request: ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, _answer: ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let answer = self.0.as_deref().ok_or(io::ErrorKind::Unsupported)?;
        io.write_all(answer).await
    }
}
