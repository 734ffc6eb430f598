//! Limits on connections: in all, from one address, and on handshakes that are not done.
//!
//! Owns: those limits. Refuses: connections beyond them; of handshakes the oldest gives way to a new one, of the host
//! that has most of them, so that whoever opens connections and says nothing keeps nobody out but itself. Survives a
//! crash: nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Options;

/// Sockets that may be closing while others are taken in their place.
const CLOSING: usize = 16;

/// The limits of one node. What is taken is given back by dropping it.
pub(super) struct Caps {
    /// All connections.
    total: Arc<Semaphore>,
    /// Incoming ones, also while they are waiting to be accepted.
    incoming: Arc<Semaphore>,
    /// Handshakes that are not done.
    handshakes: Arc<Mutex<Handshakes>>,
    /// How many of those there may be.
    half_open: usize,
    /// Their sockets, with those that are being closed to make room.
    sockets: Arc<Semaphore>,
    /// Connections of each address that is counted.
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
    per_address: usize,
}

/// The right to be connected. Lives inside the connection.
#[derive(Debug)]
pub(super) struct Permit {
    _total: OwnedSemaphorePermit,
    _incoming: Option<OwnedSemaphorePermit>,
    _place: Option<Place>,
}

/// The right to shake hands, until it is taken away.
#[derive(Debug)]
pub(super) struct Shaking {
    handshakes: Arc<Mutex<Handshakes>>,
    number: u64,
    over: CancellationToken,
    place: Option<Place>,
}

/// Those that shake hands.
#[derive(Debug, Default)]
struct Handshakes {
    /// By number, so that the first is the oldest: from which host, and what ends it.
    open: BTreeMap<u64, (IpAddr, CancellationToken)>,
    next: u64,
}

/// A place among the connections of one address.
#[derive(Debug)]
struct Place {
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Caps {
    pub(super) fn new(options: &Options) -> Self {
        let limit = options.connections.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            total: Arc::new(Semaphore::new(limit)),
            incoming: Arc::new(Semaphore::new(limit - limit / 4)),
            handshakes: Arc::default(),
            half_open: options.half_open.max(1),
            sockets: Arc::new(Semaphore::new(options.half_open.max(1) + CLOSING)),
            addresses: Arc::default(),
            limit,
            per_address: options.per_address.max(1),
        }
    }

    /// For a dial.
    pub(super) fn outgoing(&self) -> Option<Permit> {
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Permit { _total: total, _incoming: None, _place: None })
    }

    /// For the socket of a handshake, as soon as there is room: what gives way to others is closed at once.
    /// Cancel-safe.
    pub(super) async fn socket(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.sockets).acquire_owned().await {
            Ok(socket) => socket,
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// For a handshake, unless no connection could come of it now.
    pub(super) fn incoming(&self, from: IpAddr) -> Option<Shaking> {
        if self.incoming.available_permits() == 0 || self.total.available_permits() == 0 {
            return None;
        }
        let place = match counted(from) {
            Some(address) => Some(self.place(address)?),
            None => None,
        };
        let (host, over) = (host(from), CancellationToken::new());
        let mut all = lock(&self.handshakes);
        if all.open.len() >= self.half_open {
            all.make_room_for(host);
        }
        let number = all.next;
        all.next += 1;
        all.open.insert(number, (host, over.clone()));
        Some(Shaking { handshakes: Arc::clone(&self.handshakes), number, over, place })
    }

    /// For a connection whose handshake is done.
    pub(super) fn admit(&self, mut shaken: Shaking) -> Option<Permit> {
        let incoming = Arc::clone(&self.incoming).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Permit { _total: total, _incoming: Some(incoming), _place: shaken.place.take() })
    }

    /// Connections now.
    pub(super) fn used(&self) -> usize {
        self.limit - self.total.available_permits()
    }

    fn place(&self, address: IpAddr) -> Option<Place> {
        let mut addresses = lock(&self.addresses);
        let count = addresses.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Place { addresses: Arc::clone(&self.addresses), address })
    }
}

impl Handshakes {
    /// Ends the oldest handshake of the host that has most, with the one that comes.
    fn make_room_for(&mut self, newcomer: IpAddr) {
        let mut of_each = HashMap::from([(newcomer, 1)]);
        self.open.values().for_each(|(host, _)| *of_each.entry(*host).or_insert(0) += 1);
        let others = of_each.iter().filter(|(host, _)| **host != newcomer);
        let most = others.max_by_key(|(_, count)| **count).filter(|(_, most)| **most > of_each[&newcomer]);
        let host = most.map_or(newcomer, |(host, _)| *host);
        let oldest = self.open.iter().find(|(_, (of, _))| *of == host).map(|(number, _)| *number);
        // The one that comes may be the first of its host, and as good as any.
        let oldest = oldest.or_else(|| self.open.keys().next().copied());
        if let Some((_, over)) = oldest.and_then(|oldest| self.open.remove(&oldest)) {
            over.cancel();
        }
    }
}

impl Shaking {
    /// Completes when it has to make room for another. Cancel-safe.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        lock(&self.handshakes).open.remove(&self.number);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = lock(&self.addresses);
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What an address counts as; `None` for those that are not globally routable.
fn counted(address: IpAddr) -> Option<IpAddr> {
    let is_shared = match address.to_canonical() {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            shared || v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified()
        }
    };
    (!is_shared).then(|| host(address))
}

/// Whose an address is: an IPv4 address, or a /64 of IPv6.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A connection whose handshake is done.
    fn connect(caps: &Caps, from: &str) -> Option<Permit> {
        caps.incoming(ip(from)).and_then(|shaken| caps.admit(shaken))
    }

    #[test]
    fn one_address_gets_so_many_and_gets_them_back() {
        let caps = Caps::new(&Options { per_address: 2, ..Options::default() });
        let (held, shaking) = (connect(&caps, "203.0.113.9"), caps.incoming(ip("203.0.113.9")));
        assert!(held.is_some() && shaking.is_some());
        assert!(caps.incoming(ip("::ffff:203.0.113.9")).is_none());
        assert!(caps.incoming(ip("203.0.113.10")).is_some());
        let same_net = [connect(&caps, "2001:db8::1"), connect(&caps, "2001:db8::2")];
        assert!(same_net.iter().all(Option::is_some) && caps.incoming(ip("2001:db8::3")).is_none());
        assert!(caps.incoming(ip("2001:db8:0:1::3")).is_some());
        drop(held);
        assert!(caps.incoming(ip("203.0.113.9")).is_some());
        drop((same_net, shaking));
        assert!(lock(&caps.addresses).is_empty());
        assert_eq!(caps.used(), 0);
    }

    #[test]
    fn addresses_that_many_share_are_not_counted() {
        for local in
            ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.1.1", "100.64.0.1", "::1", "fd00::1", "fe80::1"]
        {
            assert_eq!(counted(ip(local)), None, "{local}");
        }
        assert_eq!(counted(ip("100.128.0.1")), Some(ip("100.128.0.1")));
    }

    #[test]
    fn strangers_leave_room_for_our_own_dials() {
        let caps = Caps::new(&Options { connections: 8, ..Options::default() });
        let incoming: Vec<_> = (0..10).filter_map(|_| connect(&caps, "127.0.0.1")).collect();
        assert_eq!(incoming.len(), 6);
        let outgoing: Vec<_> = (0..10).filter_map(|_| caps.outgoing()).collect();
        assert_eq!((outgoing.len(), caps.used()), (2, 8));
        drop(incoming);
        // What shakes hands when the last place is taken gets none.
        let shaking = caps.incoming(ip("127.0.0.1")).unwrap();
        let dialled: Vec<_> = (0..10).filter_map(|_| caps.outgoing()).collect();
        assert_eq!(dialled.len(), 6);
        assert!(caps.incoming(ip("127.0.0.1")).is_none() && caps.admit(shaking).is_none());
    }

    #[test]
    fn of_handshakes_the_oldest_of_the_host_that_has_most_gives_way() {
        let caps = Caps::new(&Options { half_open: 4, ..Options::default() });
        let begin = |from: &str| caps.incoming(ip(from)).unwrap();
        let is_over = |shaking: &Shaking| shaking.over.is_cancelled();
        let quiet = begin("10.0.0.2");
        let crowd: Vec<_> = (0..20).map(|_| begin("10.0.0.1")).collect();
        let (gone, last) = crowd.split_at(17);
        assert!(gone.iter().all(is_over) && !last.iter().any(is_over) && !is_over(&quiet));
        // Whoever comes from elsewhere is let in at the expense of the crowd, as long as there is one.
        let others = ["10.0.0.3", "10.0.0.4"].map(begin);
        assert_eq!(last.iter().filter(|shaking| is_over(shaking)).count(), 2);
        let fourth = begin("10.0.0.5");
        assert!(is_over(&quiet), "all have one: the oldest has had most time");
        assert!(!others.iter().any(is_over) && !is_over(&fourth) && !is_over(&last[2]));
        // One that is done or has failed leaves its place.
        drop((crowd, quiet));
        assert_eq!(lock(&caps.handshakes).open.len(), 3);
        let fifth = begin("10.0.0.6");
        assert!(!others.iter().any(is_over) && !is_over(&fourth) && !is_over(&fifth));
        drop((others, fourth, fifth));
        assert!(lock(&caps.handshakes).open.is_empty());
    }
}
