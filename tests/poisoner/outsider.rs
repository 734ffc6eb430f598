//! A peer of the DHT plane made of stock libp2p, so that it can lie: it speaks casd's protocols as bytes, and says in
//! each what a test wants.
//!
//! Owns: the swarm, and how a batch is put together (`daemon/src/dht/batch` has the format). Refuses: nothing; what it
//! says need not be true.

use std::borrow::Cow;
use std::io;
use std::iter::{Empty, empty};
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::PeerRecord;
use libp2p::identity::Keypair;
use libp2p::kad::store::{RecordStore, Result as StoreResult};
use libp2p::kad::{self, ProviderRecord, Record, RecordKey};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, identify, tcp, tls, yamux};

/// Longer than any message may be.
const MOST: u64 = 1 << 20;
/// How long it keeps connections on which nothing happens.
const IDLE: Duration = Duration::from_secs(600);

/// Who holds a key, as it says.
pub(crate) type Holders = Arc<dyn Fn(&RecordKey) -> Vec<(PeerId, Vec<Multiaddr>)> + Send + Sync>;

/// All that it speaks.
#[derive(NetworkBehaviour)]
pub(crate) struct Speaks {
    /// Says where it is.
    pub(crate) identify: identify::Behaviour,
    /// Answers with [`Holders`].
    pub(crate) kad: kad::Behaviour<Says>,
    /// Chunk addresses.
    pub(crate) hello: request_response::Behaviour<Bytes>,
    /// Batches.
    pub(crate) announce: request_response::Behaviour<Bytes>,
    /// Who holds a key, asked of it alone.
    pub(crate) find: request_response::Behaviour<Bytes>,
}

/// A record store that keeps nothing and says what it likes.
pub(crate) struct Says(Holders);

/// Messages that are bytes to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes;

/// A node of `network` with this identity that has yet to listen or dial. In each answer of Kademlia are up to `most`
/// holders.
pub(crate) fn swarm(network: &str, keypair: Keypair, most: usize, holders: Holders) -> Swarm<Speaks> {
    let name = |rest: &str| StreamProtocol::try_from_owned(format!("/casd/{network}/{rest}")).unwrap();
    let own = keypair.public().to_peer_id();
    let mut config = kad::Config::new(name("kad/1.0.0"));
    config
        .set_max_packet_size(64 << 10)
        .set_replication_factor(most.try_into().expect("some"))
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_periodic_bootstrap_interval(None);
    let mut kad = kad::Behaviour::with_config(own, Says(holders), config);
    kad.set_mode(Some(kad::Mode::Server));
    let speaks = |protocol| {
        let config = request_response::Config::default().with_request_timeout(Duration::from_secs(60));
        request_response::Behaviour::with_codec(Bytes, [(protocol, ProtocolSupport::Full)], config)
    };
    let behaviour = Speaks {
        identify: identify::Behaviour::new(identify::Config::new_with_signed_peer_record(
            "/casd/1".into(),
            &keypair,
        )),
        kad,
        hello: speaks(name("hello/1")),
        announce: speaks(name("announce/1")),
        find: speaks(name("find/1")),
    };
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default(), tls::Config::new, yamux::Config::default)
        .expect("TCP")
        .with_quic()
        .with_behaviour(|_| behaviour)
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
        .build()
}

/// A batch of keys for `receiver`, signed, whose announcer says to be at `addresses`. The keys must be ascending.
pub(crate) fn batch(
    network: &str,
    keypair: &Keypair,
    receiver: &PeerId,
    sequence: u64,
    keys: &[[u8; 32]],
    addresses: Vec<Multiaddr>,
) -> Vec<u8> {
    let record = PeerRecord::new_interop(keypair, addresses).expect("it can be signed");
    let record = record.into_signed_envelope().into_protobuf_encoding();
    let count = |number: usize| u32::try_from(number).expect("few").to_le_bytes();
    let mut bytes = vec![1];
    short(&mut bytes, &receiver.to_bytes());
    short(&mut bytes, &keypair.public().encode_protobuf());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(172_800u32.to_le_bytes());
    bytes.extend(u16::try_from(record.len()).expect("short").to_le_bytes());
    bytes.extend(record);
    bytes.extend(count(keys.len()));
    bytes.extend([0; 6]);
    bytes.extend(keys.as_flattened());
    let mut signed = b"casd announce 1\0".to_vec();
    short(&mut signed, network.as_bytes());
    signed.extend(&bytes);
    bytes.extend(keypair.sign(&signed).expect("it can be signed"));
    bytes
}

/// An answer to a question for holders.
pub(crate) fn holders(all: &[(PeerId, Vec<Multiaddr>)]) -> Vec<u8> {
    let mut bytes = vec![1, u8::try_from(all.len()).expect("few")];
    for (peer, addresses) in all {
        short(&mut bytes, &peer.to_bytes());
        bytes.push(u8::try_from(addresses.len()).expect("few"));
        for address in addresses {
            bytes.extend(u16::try_from(address.len()).expect("short").to_le_bytes());
            bytes.extend(address.as_ref());
        }
    }
    bytes
}

fn short(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.push(u8::try_from(field.len()).expect("short"));
    bytes.extend(field);
}

impl RecordStore for Says {
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
        let said = (self.0)(key).into_iter();
        said.map(|(peer, addresses)| ProviderRecord::new(key.clone(), peer, addresses)).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(MOST).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

impl Codec for Bytes {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}
