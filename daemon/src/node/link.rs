//! Where a link says that an object is: which of this node's addresses are of use to somebody elsewhere. Pure.

use std::net::{IpAddr, SocketAddr};

use multiaddr::Protocol;

use crate::peer::{Multiaddr, PeerAddr, PeerId, Scope};

/// Addresses in a link: it is to be sent to people.
const MOST: usize = 4;
/// Those of them that lead through relays: whoever is near needs the others.
const RELAYED: usize = 2;

/// How good an address is; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Others have connected there.
    Confirmed,
    /// It can be dialled from anywhere.
    Global,
    /// A relay there lets others ask for this node.
    Relay,
    /// It is of use within a network.
    Private,
    /// It is of use on this host: told only where the settings name no other.
    Loopback,
    /// It means nothing without its interface: never told.
    Nowhere,
}

/// The best addresses: a chunk port as `ID@HOST:PORT` where there is one on a host, else a multiaddr. One of them is a
/// multiaddr wherever the DHT listens at one that is of use: at a chunk port nobody joins the network. None, where this
/// host has no address that others could use. `chunk` and `listen`: as bound; `confirmed`: where others have connected
/// to.
pub(super) fn addresses(
    peer: PeerId,
    chunk: &[SocketAddr],
    listen: &[Multiaddr],
    confirmed: &[Multiaddr],
) -> Vec<String> {
    let worth = |ip: IpAddr| match Scope::of(ip) {
        _ if confirmed.iter().any(|at| direct(at) == Some(ip)) => Worth::Confirmed,
        Scope::Global => Worth::Global,
        Scope::Private => Worth::Private,
        Scope::Loopback => Worth::Loopback,
        Scope::Nowhere => Worth::Nowhere,
    };
    let named = |at: &Multiaddr| at.clone().with_p2p(peer).unwrap_or_else(|at| at).to_string();
    let mut found: Vec<(Worth, String)> = Vec::new();
    let mut hosts: Vec<IpAddr> = listen.iter().filter_map(direct).collect();
    hosts.extend(chunk.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()));
    let mut told = Vec::new();
    for ip in hosts {
        let at =
            chunk.iter().find(|at| at.ip() == ip || at.ip().is_unspecified() && at.is_ipv4() == ip.is_ipv4());
        if let Some(at) = at.filter(|_| !told.contains(&ip)) {
            told.push(ip);
            found.push((worth(ip), PeerAddr::chunk(peer, SocketAddr::new(ip, at.port())).to_string()));
        }
    }
    // That others reach the DHT's port says nothing of the chunk port; of a host without one the DHT's will do.
    let mut dht: Vec<IpAddr> = Vec::new();
    for at in confirmed.iter().chain(listen) {
        match direct(at) {
            Some(ip) if dht.contains(&ip) || worth(ip) != Worth::Confirmed && told.contains(&ip) => {}
            Some(ip) => {
                dht.push(ip);
                found.push((worth(ip), named(at)));
            }
            None => {}
        }
    }
    found.extend(relayed(listen).into_iter().map(|at| (Worth::Relay, named(at))));
    found.sort_by_key(|(worth, _)| *worth);
    // A chunk port of all addresses is one that others are to reach, once there is a network.
    let bound = chunk.iter().map(SocketAddr::ip).chain(listen.iter().filter_map(direct));
    let is_near = bound.map(Scope::of).all(|scope| scope == Scope::Loopback);
    let is_of_use = |worth: Worth| worth < Worth::Loopback || worth == Worth::Loopback && is_near;
    let mut chosen: Vec<String> =
        found.into_iter().filter(|(worth, _)| is_of_use(*worth)).map(|(_, address)| address).collect();
    chosen.truncate(MOST);
    // Nobody on this host's own network needs a relay to join.
    if !chosen.iter().any(|address| address.starts_with('/') && !address.contains("/p2p-circuit/")) {
        let all = confirmed.iter().chain(listen);
        let worths = all.filter_map(|at| Some((worth(direct(at)?), at)));
        // Of those that are as good as another it is the first.
        let joins = worths.filter(|(worth, _)| is_of_use(*worth)).min_by_key(|(worth, _)| *worth);
        if let Some((_, at)) = joins {
            chosen.truncate(MOST - 1);
            chosen.push(named(at));
        }
    }
    chosen
}

/// The ways through relays that are told, those through relays that everybody reaches first: one of each relay, then
/// another of one of them.
fn relayed(listen: &[Multiaddr]) -> Vec<&Multiaddr> {
    let mut ways: Vec<&Multiaddr> = listen.iter().filter(|at| direct(at).is_none()).collect();
    ways.sort_by_key(|at| !begins_global(at));
    let mut relays = Vec::new();
    let (first, more): (Vec<_>, Vec<_>) = ways.into_iter().partition(|at| {
        let relay = at.iter().find_map(|part| if let Protocol::P2p(id) = part { Some(id) } else { None });
        let is_first = !relays.contains(&relay);
        relays.push(relay);
        is_first
    });
    first.into_iter().chain(more).take(RELAYED).collect()
}

/// Whether a multiaddr begins with an address that can be dialled from anywhere.
fn begins_global(address: &Multiaddr) -> bool {
    let ip: IpAddr = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return false,
    };
    Scope::of(ip) == Scope::Global
}

/// The IP address of a multiaddr that is reached directly.
fn direct(address: &Multiaddr) -> Option<IpAddr> {
    if address.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return None;
    }
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_link_has_few_addresses_the_most_useful_first() {
        let peer = PeerId::random();
        let everywhere = ["0.0.0.0:9000".parse().unwrap(), "[::]:9000".parse().unwrap()];
        let ends = ["udp/8468/quic-v1", "tcp/8468"];
        let hosts = ["ip4/127.0.0.1", "ip6/::1", "ip6/fe80::1", "ip4/10.0.0.7"];
        let listen: Vec<_> = hosts.iter().flat_map(|host| ends.map(|end| format!("/{host}/{end}"))).collect();
        let listen = all(&listen.iter().map(String::as_str).collect::<Vec<_>>());
        let plain = addresses(peer, &everywhere, &listen, &[]);
        let joins = format!("/ip4/10.0.0.7/udp/8468/quic-v1/p2p/{peer}");
        assert_eq!(plain, [format!("{peer}@10.0.0.7:9000"), joins], "as the README shows it");
        assert!(addresses(peer, &everywhere, &listen[..6], &[]).is_empty(), "there is no network");
        assert!(addresses(peer, &[], &listen[4..6], &[]).is_empty(), "nobody can connect there");

        // Behind a router others see another host, of which they have tried the DHT's port only.
        let confirmed = all(&["/ip4/203.0.113.9/udp/8468/quic-v1"]);
        let seen = addresses(peer, &everywhere, &listen, &confirmed);
        assert_eq!(seen[0], format!("/ip4/203.0.113.9/udp/8468/quic-v1/p2p/{peer}"));
        assert_eq!(seen[1..], plain[..1], "there is one to join by");
        let both = addresses(peer, &everywhere, &confirmed, &confirmed);
        assert_eq!(both, [format!("{peer}@203.0.113.9:9000"), seen[0].clone()]);

        let relay = PeerId::random();
        let many = all(&[
            &format!("/ip4/198.51.100.1/tcp/8468/p2p/{relay}/p2p-circuit"),
            "/ip4/10.0.0.7/tcp/8468",
            "/ip4/10.0.1.7/tcp/8468",
            "/ip6/2001:db9::7/tcp/8468",
            "/ip4/10.0.2.7/tcp/8468",
            "/ip4/10.0.3.7/tcp/8468",
        ]);
        let few = addresses(peer, &everywhere, &many, &[]);
        assert_eq!(few.len(), MOST);
        assert_eq!(few[0], format!("{peer}@[2001:db9::7]:9000"));
        assert!(few[1].ends_with(&format!("/p2p-circuit/p2p/{peer}")) && few[2].contains("@10."), "{few:?}");
    }

    #[test]
    fn ways_through_relays_leave_room_for_what_is_near() {
        let (peer, relays) = (PeerId::random(), [PeerId::random(), PeerId::random()]);
        let everywhere = ["0.0.0.0:9000".parse().unwrap()];
        let near = ["/ip4/10.78.0.1/udp/8468/quic-v1", "/ip4/10.78.0.1/tcp/8468"].map(str::to_owned);
        let ends = ["udp/8468/quic-v1", "tcp/8468"];
        let through =
            |host: &str, relay: PeerId| ends.map(|end| format!("/ip4/{host}/{end}/p2p/{relay}/p2p-circuit"));
        let told = |listen: &[[String; 2]]| {
            let listen = listen.concat();
            addresses(peer, &everywhere, &all(&listen.iter().map(String::as_str).collect::<Vec<_>>()), &[])
        };
        let named = |at: &str| format!("{at}/p2p/{peer}");
        let (one, two) = (through("198.51.100.1", relays[0]), through("203.0.113.1", relays[1]));
        let home = [format!("{peer}@10.78.0.1:9000"), named(&near[0])];
        let both = told(&[one.clone(), two.clone(), near.clone()]);
        assert_eq!(both, [[named(&one[0]), named(&two[0])], home.clone()].concat());
        // Of a single one both of its ways, and where it is for everybody comes first.
        let inside = through("10.0.0.9", relays[0]);
        let single = told(&[inside, one.clone(), near]);
        assert_eq!(single, [[named(&one[0]), named(&one[1])], home].concat());
    }

    #[test]
    fn among_many_chunk_ports_there_is_one_address_to_join_by() {
        let peer = PeerId::random();
        let everywhere = ["0.0.0.0:9000".parse().unwrap()];
        let hosts: Vec<_> = (0..9).map(|host| format!("/ip4/10.0.{host}.7/tcp/8468")).collect();
        let listen = all(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
        let told = addresses(peer, &everywhere, &listen, &[]);
        let chunk = |host| format!("{peer}@10.0.{host}.7:9000");
        assert_eq!(told, [chunk(0), chunk(1), chunk(2), format!("{}/p2p/{peer}", hosts[0])]);
        let here = ["127.0.0.1:9000".parse().unwrap()];
        let told = addresses(peer, &here, &all(&["/ip4/127.0.0.1/tcp/1"]), &[]);
        assert_eq!(told, [format!("{peer}@127.0.0.1:9000"), format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}")]);
    }

    #[test]
    fn who_has_no_chunk_port_is_named_by_one_multiaddr_a_host() {
        let peer = PeerId::random();
        let listen = all(&["/ip4/10.0.0.7/udp/1/quic-v1", "/ip4/10.0.0.7/tcp/1"]);
        assert_eq!(addresses(peer, &[], &listen, &[]), [format!("/ip4/10.0.0.7/udp/1/quic-v1/p2p/{peer}")]);
        // What nobody else reaches is of no use beside what they do.
        let near = all(&["/ip4/127.0.0.1/tcp/1"]);
        let far = ["192.168.1.2:9000".parse().unwrap()];
        assert_eq!(addresses(peer, &far, &near, &[]), [format!("{peer}@192.168.1.2:9000")]);
        let only = ["192.168.1.2:9000".parse().unwrap()];
        let told = addresses(peer, &only, &[], &[]);
        assert_eq!(told, [format!("{peer}@192.168.1.2:9000")]);
    }
}
