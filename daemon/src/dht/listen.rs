//! Listening: which ports are free, and which of our addresses others are told.
//!
//! Owns: the test for a port in use (libp2p's TCP listeners share ports with other processes of the same
//! user, so that a second daemon would not notice), starting listeners, and the choice of external addresses.
//! Refuses: nothing. Survives a crash: nothing.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{Swarm, SwarmEvent};
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use super::behaviour::Behaviour;
use super::error::Error;

/// How long listeners may take to say where they are bound.
const BIND: Duration = Duration::from_secs(10);

/// The transport of a listen address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Tcp,
    Quic,
}

/// The addresses to listen on: as given, or with port 0 where the port is in use and may be replaced.
pub(super) fn free_ports(wanted: &[Multiaddr], replace: bool) -> Result<Vec<Multiaddr>, Error> {
    let free = wanted.iter().map(|address| free_port(address, replace)).collect::<Result<Vec<_>, _>>()?;
    let taken = wanted.iter().zip(&free).filter(|(wanted, free)| wanted != free);
    let taken: Vec<_> = taken.map(|(wanted, _)| wanted.to_string()).collect();
    if !taken.is_empty() {
        let taken = taken.join(", ");
        tracing::warn!(
            "the DHT's default ports are in use ({taken}); free ones are taken, which `casctl status` shows; set \
             listen.dht to choose"
        );
    }
    Ok(free)
}

fn free_port(address: &Multiaddr, replace: bool) -> Result<Multiaddr, Error> {
    let (socket, carrier) = parse(address).ok_or_else(|| Error::ListenForm(address.clone()))?;
    match try_bind(socket, carrier) {
        Ok(()) => Ok(address.clone()),
        Err(rustix::io::Errno::ADDRINUSE) if replace => Ok(with_port_zero(address)),
        Err(rustix::io::Errno::ADDRINUSE) => Err(Error::PortInUse(address.clone())),
        Err(error) => Err(Error::Listen { address: address.clone(), reason: error.to_string() }),
    }
}

/// Whether an address is one host, one port and one carrier, then ids only. libp2p's TCP reads an address from its end
/// and its resolver a name anywhere in it, while everything else looks at the beginning: two hosts in one would be
/// taken for the first and dialled at the last.
pub(super) fn is_plain(address: &Multiaddr) -> bool {
    use Protocol::{Dns, Dns4, Dns6, Dnsaddr, Ip4, Ip6, P2p, P2pCircuit, QuicV1, Tcp, Udp};
    let mut parts = address.iter();
    let is_carried = match parts.next() {
        Some(Dnsaddr(_)) => true,
        Some(Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_)) => match parts.next() {
            Some(Tcp(_)) => true,
            Some(Udp(_)) => parts.next() == Some(QuicV1),
            _ => false,
        },
        _ => false,
    };
    is_carried && parts.all(|part| matches!(part, P2p(_) | P2pCircuit))
}

/// Whether a multiaddr leads directly to a host that it names.
pub(super) fn is_name(address: &Multiaddr) -> bool {
    let is_named =
        matches!(address.iter().next(), Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)));
    is_named && !address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The IP address in a multiaddr, where it is one that is reached directly.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    if address.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return None;
    }
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// The addresses others are told: those that reach beyond this host, and loopback ones where that was asked
/// for or is all there is, so that nodes on one host find each other.
pub(super) fn external(listening: &[Multiaddr], configured: &[Multiaddr]) -> Vec<Multiaddr> {
    let asked_for_loopback =
        configured.iter().any(|address| ip_of(address).is_some_and(|ip| ip.is_loopback()));
    let (near, far): (Vec<_>, Vec<_>) = listening
        .iter()
        .filter(|address| !ip_of(address).is_some_and(is_link_local))
        .cloned()
        .partition(|address| ip_of(address).is_some_and(|ip| ip.is_loopback()));
    if far.is_empty() || asked_for_loopback { [far, near].concat() } else { far }
}

/// Whether a person can give an address to another: of IPv6 a link-local one has no form that names its interface.
pub(super) fn is_for_people(address: &Multiaddr) -> bool {
    !matches!(ip_of(address), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

/// Link-local addresses mean nothing without the interface they belong to.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn parse(address: &Multiaddr) -> Option<(SocketAddr, Carrier)> {
    let parts: Vec<_> = address.iter().collect();
    let ip = ip_of(address)?;
    match parts.as_slice() {
        [_, Protocol::Tcp(port)] => Some((SocketAddr::new(ip, *port), Carrier::Tcp)),
        [_, Protocol::Udp(port), Protocol::QuicV1] => Some((SocketAddr::new(ip, *port), Carrier::Quic)),
        _ => None,
    }
}

fn with_port_zero(address: &Multiaddr) -> Multiaddr {
    let zero = |part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(0),
        Protocol::Udp(_) => Protocol::Udp(0),
        other => other,
    };
    address.iter().map(zero).collect()
}

/// Binds and lets go. The listener that follows may still lose a race; it then fails with its own words.
fn try_bind(at: SocketAddr, carrier: Carrier) -> rustix::io::Result<()> {
    if at.port() == 0 {
        return Ok(());
    }
    if carrier == Carrier::Quic && at.is_ipv4() {
        let bound = UdpSocket::bind(at);
        return bound
            .map(drop)
            .map_err(|e| rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO));
    }
    let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = if carrier == Carrier::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket(family, kind, None)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if carrier == Carrier::Tcp {
        // As listeners do: connections of an earlier run that linger are no obstacle, a listener is.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &at)
}

/// Starts all listeners and waits until each has said where it is bound.
pub(super) async fn start(swarm: &mut Swarm<Behaviour>, wanted: &[Multiaddr]) -> Result<(), Error> {
    let mut waiting = Vec::new();
    for address in wanted {
        let listener = swarm.listen_on(address.clone());
        let listener = listener
            .map_err(|error| Error::Listen { address: address.clone(), reason: error.to_string() })?;
        waiting.push((listener, address.clone()));
    }
    let bound = async {
        while !waiting.is_empty() {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    waiting.retain(|(listener, _)| *listener != listener_id);
                }
                SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. }
                | SwarmEvent::ListenerError { listener_id, error } => {
                    if let Some((_, address)) = waiting.iter().find(|(listener, _)| *listener == listener_id)
                    {
                        let (address, reason) = (address.clone(), error.to_string());
                        return Err(Error::Listen { address, reason });
                    }
                }
                // Somebody connects already: the event loop will learn of it from what follows.
                _ => {}
            }
        }
        Ok(())
    };
    match tokio::time::timeout(BIND, bound).await {
        Ok(result) => result,
        Err(_) => Err(match waiting.into_iter().next() {
            Some((_, address)) => Error::Listen { address, reason: "no answer from the system".into() },
            None => Error::Stopped,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn addresses(all: &[&str]) -> Vec<Multiaddr> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_port_in_use_is_replaced_or_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let wanted = addresses(&[&format!("/ip4/127.0.0.1/tcp/{port}")]);
        assert_eq!(free_ports(&wanted, true).unwrap(), addresses(&["/ip4/127.0.0.1/tcp/0"]));
        let error = free_ports(&wanted, false).unwrap_err().to_string();
        assert!(error.contains(&wanted[0].to_string()), "{error}");
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let wanted = addresses(&[&format!("/ip4/127.0.0.1/udp/{port}/quic-v1")]);
        assert!(matches!(free_ports(&wanted, false), Err(Error::PortInUse(_))));
        drop(taken);
        assert_eq!(free_ports(&wanted, false).unwrap(), wanted);
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in ["/ip4/127.0.0.1/udp/1", "/dns4/localhost/tcp/1", "/ip4/127.0.0.1/tcp/1/ws"] {
            assert!(matches!(free_ports(&addresses(&[bad]), true), Err(Error::ListenForm(_))), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_not_for_people() {
        let shown = addresses(&["/ip6/fe80::1/tcp/1", "/ip6/fd00::1/tcp/1", "/ip4/169.254.0.1/tcp/1"]);
        assert_eq!(shown.iter().map(is_for_people).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn loopback_is_told_only_when_asked_for_or_alone() {
        let both = addresses(&["/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip6/fe80::1/tcp/1"]);
        let wildcard = addresses(&["/ip4/0.0.0.0/tcp/1"]);
        assert_eq!(external(&both, &wildcard), addresses(&["/ip4/192.0.2.1/tcp/1"]));
        assert_eq!(external(&both[..1], &wildcard), both[..1]);
        assert_eq!(external(&both, &addresses(&["/ip4/127.0.0.1/tcp/1"])).len(), 2);
    }
}
