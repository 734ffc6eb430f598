//! A node's part in the DHT, made of stock libp2p, so that it can lie: it speaks casd's protocols as bytes, and names
//! the holders that a test wants named.
//!
//! Owns: what it speaks, and that what it reads is bounded. What carries it, and what it answers, is up to each
//! program. Refuses: nothing; what it says need not be true. It keeps nothing.
#![expect(missing_docs, reason = "the events that are derived cannot have their variants documented")]

use std::borrow::Cow;
use std::io;
use std::iter::{Empty, empty};
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::identity::Keypair;
use libp2p::kad::store::{RecordStore, Result as StoreResult};
use libp2p::kad::{self, ProviderRecord, Record, RecordKey};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Multiaddr, PeerId, StreamProtocol, identify};

/// Longer than any message may be, in bytes.
const MOST: u64 = 1 << 20;

/// Who holds a key, as it says.
pub type Holders = Arc<dyn Fn(&RecordKey) -> Vec<(PeerId, Vec<Multiaddr>)> + Send + Sync>;

/// What it speaks.
#[derive(NetworkBehaviour)]
pub struct Speaks {
    /// Says where it is.
    pub identify: identify::Behaviour,
    /// Answers with [`Holders`], as a server.
    pub kad: kad::Behaviour<Says>,
    /// Chunk addresses.
    pub hello: request_response::Behaviour<Bytes>,
    /// Batches.
    pub announce: request_response::Behaviour<Bytes>,
    /// Who holds a key, asked of it alone; not every node speaks it.
    pub find: request_response::Behaviour<Bytes>,
}

/// A record store that keeps nothing and says what it likes.
pub struct Says(Holders);

/// Messages that are bytes to it.
#[derive(Clone, Debug, Default)]
pub struct Bytes;

impl Speaks {
    /// The part of `keypair` in `network`, with Kademlia as [`kademlia`] made it. `finds`: whether it speaks that too.
    #[must_use]
    pub fn new(network: &str, keypair: &Keypair, config: kad::Config, finds: bool, holders: Holders) -> Self {
        let mut kad = kad::Behaviour::with_config(keypair.public().to_peer_id(), Says(holders), config);
        kad.set_mode(Some(kad::Mode::Server));
        let identify = identify::Config::new_with_signed_peer_record("/casd/1".into(), keypair);
        let speaks = |is_spoken: bool, rest| {
            let protocol = is_spoken.then(|| (name(network, rest), ProtocolSupport::Full));
            let config = request_response::Config::default().with_request_timeout(Duration::from_secs(60));
            request_response::Behaviour::with_codec(Bytes, protocol, config)
        };
        Self {
            identify: identify::Behaviour::new(identify),
            kad,
            hello: speaks(true, "hello/1"),
            announce: speaks(true, "announce/1"),
            find: speaks(finds, "find/1"),
        }
    }
}

/// Kademlia of `network`, in each answer of which are up to `most` holders, at least one.
#[must_use]
pub fn kademlia(network: &str, most: usize) -> kad::Config {
    let mut config = kad::Config::new(name(network, "kad/1.0.0"));
    config
        .set_max_packet_size(64 << 10)
        .set_replication_factor(most.try_into().expect("some"))
        .set_kbucket_inserts(kad::BucketInserts::Manual);
    config
}

fn name(network: &str, rest: &str) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/casd/{network}/{rest}")).expect("it begins with a slash")
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
