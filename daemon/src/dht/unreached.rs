//! Why a peer that is said to hold something was not reached, in words for people who may do something about it.
//!
//! Owns: whether it does not answer, is where this node does not dial, or is not known to let anybody in. Refuses: to
//! blame an end of which nothing is known. Pure. Survives a crash: nothing.

use std::io;
use std::net::IpAddr;

use libp2p::swarm::DialError;
use libp2p::{Multiaddr, TransportError};

use super::listen::ip_of;
use super::{causes, proof};
use crate::peer::Scope;

/// What is said where there is nothing to dial.
const NOWHERE: &str = "no address of it is known that may be dialled";

/// An address that was to be dialled, and why that failed.
type Tried = (Multiaddr, TransportError<io::Error>);

/// What is known of this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    /// Whether others are known to reach it.
    pub(super) is_reached: bool,
    /// Whether it knows nodes beyond its own subnets: else whoever is on these is there or gone.
    pub(super) is_outside: bool,
}

/// Why a dial of a peer failed, at all addresses that are known of it.
pub(super) fn why(error: &DialError, here: Here) -> String {
    let tried = match error {
        DialError::Transport(tried) if proof::refusal(error).is_none() => tried,
        DialError::NoAddresses => return NOWHERE.to_owned(),
        _ => return causes::of(error, None),
    };
    let end = if here.is_reached { "it is not" } else { "neither end is" };
    let shut = format!("{end} known to let strangers in");
    if let Some(elsewhere) = elsewhere(error) {
        return format!("{elsewhere}; no relay of it is known, and {shut}");
    }
    // Of several that one tells more which was really dialled.
    let Some((at, last)) = tried.iter().rev().find(is_dialled).or(tried.last()) else {
        return NOWHERE.to_owned();
    };
    let said = format!("{} ({})", causes::of_transport(last), causes::place(at));
    if here.is_outside && private(tried).is_some() {
        return format!("{said}; it tells only private addresses, and no relay: it is gone, or {shut}");
    }
    said
}

/// That a peer is on another private network, where that is all that is known of it and nothing was dialled.
pub(super) fn elsewhere(error: &DialError) -> Option<String> {
    let DialError::Transport(tried) = error else { return None };
    let ip = private(tried).filter(|_| !tried.iter().any(|tried| is_dialled(&tried)))?;
    Some(format!("it is on another private network ({ip}), where only what is given is dialled"))
}

/// Whether it was dialled, and failed for other reasons than that it is not.
fn is_dialled((_, error): &&Tried) -> bool {
    matches!(error, TransportError::Other(_))
}

/// The first private address among these, where they are all that: none leads through a relay, to a name, to this host
/// or to where everybody can dial.
fn private(tried: &[Tried]) -> Option<IpAddr> {
    let mut first = None;
    for (at, _) in tried {
        let ip = ip_of(at)?;
        match Scope::of(ip) {
            Scope::Private => first = first.or(Some(ip)),
            Scope::Nowhere => {}
            Scope::Loopback | Scope::Global => return None,
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    const HERE: Here = Here { is_reached: false, is_outside: true };

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn undialled(text: &str) -> Tried {
        (at(text), TransportError::MultiaddrNotSupported(at(text)))
    }

    fn silent(text: &str) -> Tried {
        (at(text), TransportError::Other(io::Error::other("Timeout has been reached")))
    }

    fn said(tried: Vec<Tried>, here: Here) -> String {
        why(&DialError::Transport(tried), here)
    }

    #[test]
    fn who_is_on_another_private_network_or_behind_a_router_without_a_relay_is_not_said_to_be_silent() {
        let place = ["/ip4/10.77.2.3/udp/8468/quic-v1", "/ip4/10.77.2.3/tcp/8468", "/ip6/fe80::1/tcp/8468"];
        let all = || Vec::from(place.map(undialled));
        let there = "it is on another private network (10.77.2.3), where only what is given is dialled";
        let (neither, shut) = (said(all(), HERE), "neither end is known to let strangers in");
        assert_eq!(neither, format!("{there}; no relay of it is known, and {shut}"));
        let one = said(all(), Here { is_reached: true, ..HERE });
        assert!(one.ends_with("and it is not known to let strangers in"), "{one}");
        let dial = DialError::Transport(all());
        assert_eq!(elsewhere(&dial).as_deref(), Some(there));
        assert!(neither.len() <= 200, "it is a line of an error");
    }

    #[test]
    fn who_was_dialled_may_be_gone() {
        let tried = || vec![silent("/ip4/192.168.0.3/tcp/8468"), undialled("/ip4/10.0.0.1/tcp/8468")];
        let near = "no answer from there in time (/ip4/192.168.0.3/tcp/8468)";
        let home = said(tried(), HERE);
        let (seen, rest) = home.split_once("; ").unwrap();
        assert_eq!(seen, near);
        assert!(rest.ends_with("it is gone, or neither end is known to let strangers in"), "{home}");
        // Where all are on one network, there is no router to blame.
        assert_eq!(said(tried(), Here { is_outside: false, ..HERE }), near);
        assert!(elsewhere(&DialError::Transport(tried())).is_none());
    }

    #[test]
    fn who_has_a_relay_or_a_public_address_is_told_of_as_what_was_dialled_there() {
        let relay = format!("/ip4/203.0.113.1/tcp/8468/p2p/{}/p2p-circuit", PeerId::random());
        for open in [relay.as_str(), "/ip4/203.0.113.9/tcp/8468", "/dns4/a.example/tcp/8468"] {
            let why = said(vec![undialled("/ip4/10.77.2.3/tcp/8468"), silent(open)], HERE);
            assert_eq!(why, format!("no answer from there in time ({open})"));
        }
        assert_eq!(said(Vec::new(), HERE), NOWHERE);
        assert_eq!(why(&DialError::NoAddresses, HERE), NOWHERE);
        let refused = TransportError::Other(io::Error::other(proof::Refusal::Keyless));
        let refused = vec![(at("/ip4/10.0.0.9/tcp/8468"), refused)];
        assert_eq!(said(refused, HERE), proof::Refusal::Keyless.to_string());
    }
}
