//! What a file says that can be done, and hardly is what was meant.
//!
//! Owns: those doubts, each a line with its place. Refuses: nothing; what can never work `value` refuses. Pure.
//! Survives a crash: nothing.

use std::net::IpAddr;

use multiaddr::{Multiaddr, Protocol};

use super::document::Document;
use super::{Announce, DhtMode, Listen, Mode, Network};

/// The doubts about these settings, which `document` has.
pub(super) fn of(document: &Document<'_>, listen: &Listen, network: &Network) -> Vec<String> {
    let mut doubts = Vec::new();
    if network.mode == Mode::Client {
        let announces = matches!(network.announce, Announce::Objects | Announce::Chunks);
        let unused = [
            (listen.chunk.configured, "listen", "chunk", "gives nothing to anyone"),
            (network.dht == DhtMode::Server, "network", "dht", "answers no other node"),
            (announces, "network", "announce", "announces nothing"),
            (network.publish, "network", "publish", "announces nothing, and so no names"),
        ];
        for (_, section, key, why) in unused.into_iter().filter(|(is_set, ..)| *is_set) {
            let problem = format!(
                "not used: a node of network.mode = \"client\" {why}; leave it out, or set mode = \"full\""
            );
            doubts.extend(document.remark(section, key, problem));
        }
    }
    if let Some(near) = network.bootstrap.iter().find_map(loopback) {
        let problem = format!(
            "{near} is the host that reads this: another casd on it is found there, and of a node elsewhere nothing; \
             take from the \"dht at\" of that node's `casctl status` an address that is not 127.0.0.1 or ::1"
        );
        doubts.extend(document.remark("network", "bootstrap", problem));
    }
    doubts
}

/// The address of this host in a multiaddr. Whose id follows is left to those lines that say how it went there.
fn loopback(address: &Multiaddr) -> Option<IpAddr> {
    let ip: IpAddr = match address.iter().next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    ip.to_canonical().is_loopback().then_some(ip)
}
