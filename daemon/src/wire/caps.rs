//! Limits on connections: in all, from one address, and half open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Options;

/// The limits of one node. What is taken is given back by dropping it.
pub(super) struct Caps {
    /// All connections.
    total: Arc<Semaphore>,
    /// Incoming ones, also while they are half open or waiting to be accepted.
    incoming: Arc<Semaphore>,
    /// Handshakes that are not done.
    half_open: Arc<Semaphore>,
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
            half_open: Arc::new(Semaphore::new(options.half_open.clamp(1, Semaphore::MAX_PERMITS))),
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

    /// For an incoming connection, and a second one that is dropped when its handshake is done.
    pub(super) fn incoming(&self, from: IpAddr) -> Option<(Permit, OwnedSemaphorePermit)> {
        let half_open = Arc::clone(&self.half_open).try_acquire_owned().ok()?;
        let place = match counted(from) {
            Some(address) => Some(self.place(address)?),
            None => None,
        };
        let incoming = Arc::clone(&self.incoming).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some((Permit { _total: total, _incoming: Some(incoming), _place: place }, half_open))
    }

    /// Connections now.
    pub(super) fn used(&self) -> usize {
        self.limit - self.total.available_permits()
    }

    fn place(&self, address: IpAddr) -> Option<Place> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let count = addresses.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Place { addresses: Arc::clone(&self.addresses), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What an address counts as: itself, or its /64; `None` for those that are not globally routable.
fn counted(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            let local = v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified();
            (!local && !shared).then_some(IpAddr::V4(v4))
        }
        IpAddr::V6(v6) => {
            let local = v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local();
            let network = Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64);
            (!local && !v6.is_unspecified()).then_some(IpAddr::V6(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_gets_so_many_and_gets_them_back() {
        let caps = Caps::new(&Options { per_address: 2, ..Options::default() });
        let held: Vec<_> = (0..2).map(|_| caps.incoming(ip("203.0.113.9")).unwrap()).collect();
        assert!(caps.incoming(ip("::ffff:203.0.113.9")).is_none());
        assert!(caps.incoming(ip("203.0.113.10")).is_some());
        let same_net = [caps.incoming(ip("2001:db8::1")), caps.incoming(ip("2001:db8::2"))];
        assert!(same_net.iter().all(Option::is_some) && caps.incoming(ip("2001:db8::3")).is_none());
        assert!(caps.incoming(ip("2001:db8:0:1::3")).is_some());
        drop(held);
        assert!(caps.incoming(ip("203.0.113.9")).is_some());
        drop(same_net);
        assert!(caps.addresses.lock().unwrap().is_empty());
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
        let local = ip("127.0.0.1");
        let incoming: Vec<_> = (0..10).filter_map(|_| caps.incoming(local)).collect();
        assert_eq!(incoming.len(), 6);
        let outgoing: Vec<_> = (0..10).filter_map(|_| caps.outgoing()).collect();
        assert_eq!((outgoing.len(), caps.used()), (2, 8));
        drop(incoming);
        let dialled: Vec<_> = (0..10).filter_map(|_| caps.outgoing()).collect();
        assert_eq!(dialled.len(), 6);
        assert!(caps.incoming(local).is_none());
    }

    #[test]
    fn half_open_ones_have_a_limit_of_their_own() {
        let caps = Caps::new(&Options { half_open: 2, ..Options::default() });
        let (held, shaking) = caps.incoming(ip("::1")).unwrap();
        let _other = caps.incoming(ip("::1")).unwrap();
        assert!(caps.incoming(ip("::1")).is_none());
        drop(shaking);
        assert!(caps.incoming(ip("::1")).is_some());
        drop(held);
    }
}
