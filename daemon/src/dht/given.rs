//! Addresses that the owner gave: configured, in a link, or by a caller.
//!
//! Owns: which they are. Refuses: to remember more than its limits; those given longest ago are forgotten, so that
//! whatever is given last may be dialled. Pure. Survives a crash: nothing; what is configured is given again.

use std::collections::{HashMap, VecDeque};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Hosts remembered, besides configured ones (about 200 bytes each).
const MAX_HOSTS: usize = 4_096;
/// Ports of one host.
const MAX_PORTS: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Ports by host: the first part of a multiaddr, an address or a name.
    hosts: HashMap<Multiaddr, VecDeque<u16>>,
    /// Hosts that are not configured, in the order in which they were given first.
    order: VecDeque<Multiaddr>,
}

impl Given {
    /// What is configured.
    pub(super) fn new(configured: &[Multiaddr]) -> Self {
        let mut given = Self::default();
        configured.iter().for_each(|at| given.insert(at));
        given.order.clear();
        given
    }

    /// The owner gives this address.
    pub(super) fn give(&mut self, address: &Multiaddr) {
        self.insert(address);
        if self.order.len() > MAX_HOSTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.hosts.remove(&oldest);
        }
    }

    fn insert(&mut self, address: &Multiaddr) {
        let Some(host) = host(address) else { return };
        if !self.hosts.contains_key(&host) {
            self.order.push_back(host.clone());
        }
        let ports = self.hosts.entry(host).or_default();
        if let Some(port) = port(address).filter(|port| !ports.contains(port)) {
            ports.push_back(port);
            if ports.len() > MAX_PORTS {
                ports.pop_front();
            }
        }
    }

    /// Whether the owner gave this host.
    pub(super) fn has_host(&self, address: &Multiaddr) -> bool {
        host(address).is_some_and(|host| self.hosts.contains_key(&host))
    }

    /// Whether the owner gave this host with this port, on whatever carrier.
    pub(super) fn has(&self, address: &Multiaddr) -> bool {
        let ports = host(address).and_then(|host| self.hosts.get(&host));
        ports.is_some_and(|ports| port(address).is_some_and(|port| ports.contains(&port)))
    }
}

fn host(address: &Multiaddr) -> Option<Multiaddr> {
    address.iter().next().map(Multiaddr::from)
}

/// The port of a multiaddr's host.
pub(super) fn port(address: &Multiaddr) -> Option<u16> {
    match address.iter().nth(1)? {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_last_is_remembered_and_what_is_configured_always() {
        let at = |text: &str| text.parse::<Multiaddr>().unwrap();
        let mut given = Given::new(&[at("/ip4/10.0.0.1/tcp/80")]);
        for number in 0..MAX_HOSTS + 50 {
            given.give(&at(&format!("/dns4/host{number}/udp/8468/quic-v1")));
            given.give(&at(&format!("/dns4/host{number}/tcp/8469")));
        }
        assert_eq!(given.order.len(), MAX_HOSTS);
        assert_eq!(given.hosts.len(), MAX_HOSTS + 1);
        assert!(given.has(&at("/ip4/10.0.0.1/tcp/80")) && given.has_host(&at("/ip4/10.0.0.1/tcp/22")));
        assert!(!given.has(&at("/ip4/10.0.0.1/tcp/22")) && !given.has(&at("/ip4/10.0.0.2/tcp/80")));
        assert!(given.has(&at("/dns4/host4145/tcp/8468")) && given.has(&at("/dns4/host4145/tcp/8469")));
        assert!(!given.has_host(&at("/dns4/host49/tcp/8468")) && given.has_host(&at("/dns4/host50/tcp/1")));
        for port in 0..100 {
            given.give(&at(&format!("/dns4/host4145/tcp/{port}")));
        }
        assert!(given.hosts.values().all(|ports| ports.len() <= MAX_PORTS));
    }
}
