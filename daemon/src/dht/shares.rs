//! What this node gives as a relay, and how much of it one host may take.
//!
//! Owns: those limits; a host is an address of IPv4 or a /64 of IPv6, at the other end of the connection. Refuses: more
//! than them, and new hosts while there are too many to remember. Survives a crash: nothing.
//!
//! libp2p bounds what is taken in all and by each peer, and how fast an address may ask. But ids are cheap, and places
//! are few: with the rates alone one host takes them all, and keeps them. So there is a limit of ours beside its rates,
//! which is asked last, when all else has been granted. Whoever shares this host itself is not bound by it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use libp2p::relay::{self, RateLimiter};
use libp2p::{Multiaddr, PeerId};

use super::listen::ip_of;

/// Nodes that may be asked for at this one, for how long, and how many connections are relayed at once, for how long
/// and with how many bytes each way: two that meet take less than 50 KiB (decision 10), and under attack 16 times
/// 128 KiB go out in a minute.
const RESERVATIONS: usize = 64;
const RESERVED: Duration = Duration::from_secs(1800);
const CIRCUITS: usize = 16;
const CIRCUIT: Duration = Duration::from_secs(60);
const CIRCUIT_BYTES: u64 = 128 << 10;
/// Of these a host may have so many: peers that may be asked for, with two places each, and connections within the time
/// that one lasts.
const PEERS_OF_HOST: usize = 4;
const CIRCUITS_OF_HOST: usize = 4;
/// Hosts that are remembered (about 300 bytes each).
const MOST: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct Shares {
    /// Places that a host may have.
    each: usize,
    /// How long one is taken: nobody says when it is free again.
    lasts: Duration,
    /// Whether a peer that asks again keeps the place that it has.
    is_kept: bool,
    /// Who has places until when.
    taken: HashMap<IpAddr, Vec<(PeerId, Instant)>>,
}

/// A relay that carries what two need to agree on dialling each other, and no more. It is off at first.
pub(super) fn relay(local: PeerId) -> relay::Behaviour {
    let mut relay = relay::Behaviour::new(local, limits());
    relay.set_status(Some(relay::Status::Disable));
    relay
}

fn limits() -> relay::Config {
    // The rates for each peer and address are libp2p's: thirty an hour of a peer, sixty of an address. What a peer has
    // is looked at before it gets one more: it has two at most.
    let mut limits = relay::Config {
        max_reservations: RESERVATIONS,
        max_reservations_per_peer: 1,
        reservation_duration: RESERVED,
        max_circuits: CIRCUITS,
        max_circuits_per_peer: 1,
        max_circuit_duration: CIRCUIT,
        max_circuit_bytes: CIRCUIT_BYTES,
        ..relay::Config::default()
    };
    limits.reservation_rate_limiters.push(limiter(Shares::new(PEERS_OF_HOST, RESERVED).kept()));
    limits.circuit_src_rate_limiters.push(limiter(Shares::new(CIRCUITS_OF_HOST, CIRCUIT)));
    limits
}

fn limiter(mut shares: Shares) -> Box<dyn RateLimiter> {
    Box::new(move |peer: PeerId, at: &Multiaddr, now: Instant| shares.take(peer, at, now))
}

// === impl Shares ===

impl Shares {
    /// `each` places for every host, each for as long as it `lasts`.
    pub(super) fn new(each: usize, lasts: Duration) -> Self {
        Self { each, lasts, is_kept: false, taken: HashMap::new() }
    }

    /// The same, where who asks again keeps its place.
    pub(super) fn kept(self) -> Self {
        Self { is_kept: true, ..self }
    }

    /// Whether `peer`, who is at `remote`, may take a place, which it has then.
    pub(super) fn take(&mut self, peer: PeerId, remote: &Multiaddr, now: Instant) -> bool {
        let Some(host) = ip_of(remote).map(host).filter(|ip| !ip.is_loopback()) else { return true };
        if self.taken.len() >= MOST && !self.taken.contains_key(&host) {
            self.taken.retain(|_, places| places.iter().any(|(_, until)| now < *until));
            if self.taken.len() >= MOST {
                return false;
            }
        }
        let places = self.taken.entry(host).or_default();
        places.retain(|(one, until)| now < *until && !(self.is_kept && *one == peer));
        let has_room = places.len() < self.each;
        if has_room {
            places.push((peer, now + self.lasts));
        }
        has_room
    }
}

/// All addresses that one host can have at will.
fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(ip: &str) -> Multiaddr {
        Multiaddr::from(ip.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn the_relay_keeps_to_it() {
        let now = Instant::now();
        let relay::Config { mut reservation_rate_limiters, mut circuit_src_rate_limiters, .. } = limits();
        for (limiters, most) in [
            (&mut reservation_rate_limiters, PEERS_OF_HOST),
            (&mut circuit_src_rate_limiters, CIRCUITS_OF_HOST),
        ] {
            let mut admits = |at: &Multiaddr| {
                limiters.iter_mut().all(|limiter| limiter.try_next(PeerId::random(), at, now))
            };
            assert_eq!((0..20).filter(|_| admits(&at("203.0.113.1"))).count(), most);
            assert!(admits(&at("203.0.113.2")));
        }
    }

    #[test]
    fn one_host_does_not_take_all_places() {
        let now = Instant::now();
        let mut shares = Shares::new(4, HOUR).kept();
        let peers: Vec<_> = (0..4).map(|_| PeerId::random()).collect();
        assert!(peers.iter().all(|peer| shares.take(*peer, &at("203.0.113.1"), now)));
        assert!(!shares.take(PeerId::random(), &at("203.0.113.1"), now));
        assert!(!shares.take(PeerId::random(), &at("::ffff:203.0.113.1"), now));
        assert!(shares.take(PeerId::random(), &at("203.0.113.2"), now));
        let later = now + HOUR / 2;
        assert!(peers[1..].iter().all(|peer| shares.take(*peer, &at("203.0.113.1"), later)), "renewed");
        assert!(!shares.take(PeerId::random(), &at("203.0.113.1"), later));
        assert!(shares.take(PeerId::random(), &at("203.0.113.1"), now + HOUR), "one has gone");
        assert!(!shares.take(PeerId::random(), &at("203.0.113.1"), now + HOUR));
        for number in 0..9 {
            let took = shares.take(PeerId::random(), &at(&format!("2001:db8:0:1:{number}::1")), now);
            assert_eq!(took, number < 4);
            assert!(shares.take(PeerId::random(), &at("127.0.0.1"), now));
            assert!(shares.take(PeerId::random(), &at("::1"), now));
        }
    }

    #[test]
    fn what_is_not_kept_counts_each_time_and_memory_is_bounded() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut shares = Shares::new(4, HOUR);
        assert_eq!((0..9).filter(|_| shares.take(peer, &at("203.0.113.1"), now)).count(), 4);
        for host in 0..10_000u32 {
            shares.take(peer, &at(&IpAddr::from((0x1400_0000 + host).to_be_bytes()).to_string()), now);
        }
        assert_eq!(shares.taken.len(), MOST);
        assert!(!shares.take(peer, &at("203.0.113.2"), now));
        assert!(shares.take(peer, &at("203.0.113.2"), now + HOUR));
        assert_eq!(shares.taken.len(), 1);
    }
}
