//! A key that is besieged: liars whose ids were made up until they were the nearest to it.
//!
//! Owns: making such ids, and where their hosts are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use casd::peer::{Key, Keypair, PeerId};
use libp2p::kad::KBucketKey;
use rand::Rng;
use rand::rngs::SmallRng;

/// Bits that the liars share with the key beyond those that the nearest honest nodes do.
const NEARER: u32 = 3;

/// `count` identities that are nearer to `key` than the nodes of a network of `size` are, but for a few.
pub(crate) fn identities(key: Key, count: usize, size: usize) -> Vec<Keypair> {
    let bits = size.ilog2() + NEARER;
    let key = KBucketKey::new(key);
    let is_near = |keypair: &Keypair| {
        let distance = KBucketKey::from(keypair.public().to_peer_id()).distance(&key);
        distance.ilog2().is_none_or(|highest| highest < 256 - bits)
    };
    std::iter::repeat_with(Keypair::generate_ed25519).filter(is_near).take(count).collect()
}

/// `count` nodes that are not there, nearer to `key` than those: ids without a key cost a hash each.
pub(crate) fn nobody(key: Key, count: usize, size: usize) -> Vec<(PeerId, SocketAddr)> {
    let bits = size.ilog2() + 2 * NEARER;
    let key = KBucketKey::new(key);
    let is_near = |peer: &PeerId| {
        let distance = KBucketKey::from(*peer).distance(&key);
        distance.ilog2().is_none_or(|highest| highest < 256 - bits)
    };
    let at = SocketAddr::from(([100, 200, 1, 1], 8468));
    std::iter::repeat_with(PeerId::random).filter(is_near).take(count).map(|peer| (peer, at)).collect()
}

/// `count` addresses in `networks` networks of 65,536 hosts.
pub(crate) fn addresses(rng: &mut SmallRng, count: usize, networks: usize, port: u16) -> Vec<SocketAddr> {
    let networks: Vec<[u8; 2]> = (0..networks).map(|_| [rng.random_range(101..126), rng.random()]).collect();
    let host = |number: usize, rng: &mut SmallRng| {
        let [a, b] = networks[number % networks.len()];
        // Each host but once: there are fewer than 250 of one network.
        let d = u8::try_from(number / networks.len() + 1).unwrap_or(u8::MAX);
        SocketAddr::new(IpAddr::from(Ipv4Addr::new(a, b, rng.random(), d)), port)
    };
    (0..count).map(|number| host(number, rng)).collect()
}

/// The `count` of `peers` that are nearest to `key`.
pub(crate) fn nearest(peers: &[PeerId], key: Key, count: usize) -> Vec<PeerId> {
    let key = KBucketKey::new(key);
    let mut sorted = peers.to_vec();
    sorted.sort_by_key(|peer| KBucketKey::from(*peer).distance(&key));
    sorted.truncate(count);
    sorted
}
