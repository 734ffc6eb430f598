//! A peer of the DHT plane that can lie ([`casd_tests::hearsay`]), over TCP and QUIC.
//!
//! Owns: the swarm, and how a batch is put together (`daemon/src/dht/batch` has the format). Refuses: nothing; what it
//! says need not be true.

use std::time::Duration;

use casd_tests::hearsay::{self, Holders, Speaks};
use libp2p::core::PeerRecord;
use libp2p::identity::Keypair;
use libp2p::swarm::Swarm;
use libp2p::{Multiaddr, PeerId, SwarmBuilder, tcp, tls, yamux};

/// How long it keeps connections on which nothing happens.
const IDLE: Duration = Duration::from_secs(600);

/// A node of `network` with this identity that has yet to listen or dial. In each answer of Kademlia are up to `most`
/// holders.
pub(crate) fn swarm(network: &str, keypair: Keypair, most: usize, holders: Holders) -> Swarm<Speaks> {
    let mut config = hearsay::kademlia(network, most);
    config.set_periodic_bootstrap_interval(None);
    let speaks = Speaks::new(network, &keypair, config, true, holders);
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default(), tls::Config::new, yamux::Config::default)
        .expect("TCP")
        .with_quic()
        .with_behaviour(|_| speaks)
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
