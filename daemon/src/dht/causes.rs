//! Why a dial failed, in words for people: the same for who asked for it and for the log.
//!
//! Owns: those words. Refuses: what libraries say in terms of their own, control characters, and more than a line:
//! parts may come from a stranger. Pure. Survives a crash: nothing.

use std::error::Error;
use std::io;

use libp2p::multiaddr::Protocol;
use libp2p::request_response::OutboundFailure;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, TransportError};

use super::proof;
use super::streams::is_relayed;

/// Characters of a reason.
const LONGEST: usize = 200;
/// Addresses of one dial that are told of.
const TOLD: usize = 4;

/// What libraries say in words of their own, and what that is for people.
const PLAIN: [(&str, &str); 9] = [
    // The resolver shows its question as code does.
    ("no records found for", "no such host"),
    ("No Matching Records Found", "no such host"),
    ("no connections available", "the name cannot be looked up: this host names no name server"),
    ("request timed out", "the name cannot be looked up: no name server answers in time"),
    // What went wrong in it `libp2p-tls` does not tell.
    (
        "Failed to upgrade client connection",
        "what is there ended the handshake: it is too busy, is no casd node, or that is its chunk port (usually 9000; the \
         DHT's is 8468)",
    ),
    (
        "connection limit exceeded",
        "this node has as many connections as it may have, or as many with that peer",
    ),
    ("Timeout has been reached", NO_ANSWER),
    ("Handshake with the remote timed out", NO_ANSWER),
    // `libp2p-relay` has given up on the relay: it could not be dialled, or its connection broke off.
    ("oneshot canceled", "the relay there cannot be reached"),
];
const NO_ANSWER: &str = "no answer from there in time";

/// Why a dial failed. `wanted`: the address that somebody asked for, who knows it; any other is named.
pub(super) fn of(error: &DialError, wanted: Option<&Multiaddr>) -> String {
    // Of several addresses it is the one that says why.
    if let Some(refusal) = proof::refusal(error) {
        return words(refusal);
    }
    match error {
        DialError::Transport(tried) => {
            let is_wanted = |at: &Multiaddr| wanted.is_some_and(|wanted| place(wanted) == place(at));
            let asked = tried.iter().find(|(at, _)| is_wanted(at));
            match (asked, tried.last()) {
                (Some((_, error)), _) => of_transport(error),
                (None, Some((at, error))) => format!("{} ({at})", of_transport(error)),
                (None, None) => "there is no address to try".to_owned(),
            }
        }
        DialError::WrongPeerId { obtained, address }
            if wanted.is_some_and(|at| place(at) == place(address)) =>
        {
            format!("another node is there: {obtained}")
        }
        DialError::WrongPeerId { obtained, address } => {
            format!("another node is at {}: {obtained}", place(address))
        }
        DialError::LocalPeerId { .. } => "this node itself is there".to_owned(),
        DialError::NoAddresses => "there is no address to try".to_owned(),
        DialError::Aborted => "the attempt was given up".to_owned(),
        other => words(other),
    }
}

/// Why a dial failed that nobody asked for: of several addresses each is told of.
pub(super) fn of_each(error: &DialError) -> String {
    match error {
        DialError::Transport(tried) if tried.len() > 1 && proof::refusal(error).is_none() => {
            let each = tried.iter().take(TOLD).map(|(at, error)| format!("{} ({at})", of_transport(error)));
            let more = if tried.len() > TOLD { "; …" } else { "" };
            each.collect::<Vec<_>>().join("; ") + more
        }
        _ => of(error, None),
    }
}

/// Why one address could not be reached.
pub(super) fn of_transport(error: &TransportError<io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(_) => {
            "it is not dialled: an address of that form, or on a network that this host is not in".to_owned()
        }
        TransportError::Other(error) => words(error),
    }
}

/// Why a node that was asked something does not answer; `known`: where it is said to be.
pub(super) fn of_question(error: &OutboundFailure, known: Option<&Multiaddr>) -> String {
    match (error, known) {
        (OutboundFailure::DialFailure, Some(at)) if is_relayed(at) => {
            format!("no way through the relay where it was last leads to it now ({})", place(at))
        }
        (OutboundFailure::DialFailure, Some(at)) => {
            format!("it does not answer at {}, where it was last; it may be gone", place(at))
        }
        (OutboundFailure::DialFailure, None) => {
            "it is not connected, and no address of it is known: it may be gone, or it is a client, which nobody dials"
                .to_owned()
        }
        (OutboundFailure::Timeout, _) => "it is connected and does not answer in time".to_owned(),
        (OutboundFailure::ConnectionClosed, _) => "it ended the connection before it answered".to_owned(),
        (OutboundFailure::UnsupportedProtocols, _) => {
            "it does not know what it is asked: it is of another version or network, or no casd node".to_owned()
        }
        (OutboundFailure::Io(error), _) => words(error),
    }
}

/// Why two did not connect by both dialling at once, by what libp2p says of it.
pub(super) fn of_punch(said: &str) -> &'static str {
    if said.contains("Giving up after") {
        return "neither end's router lets the other in";
    }
    "they could not agree on when to: the relay's connection, or the other end's, broke off"
}

/// What an address failed by, where that is a `T`: each transport puts the errors of the one below it in its own.
pub(super) fn inside<T: Error + 'static>(error: &TransportError<io::Error>) -> Option<&T> {
    let TransportError::Other(error) = error else { return None };
    let mut error: &(dyn Error + 'static) = error;
    while let Some(outer) = error.downcast_ref::<io::Error>() {
        error = outer.get_ref()?;
    }
    error.downcast_ref()
}

/// The innermost cause, in words of ours where a library's say nothing to people.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let said = cause.to_string();
    let plain =
        PLAIN.iter().find(|(theirs, _)| said.contains(theirs)).map_or(said.as_str(), |(_, ours)| *ours);
    plain.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// An address without the id at its end.
pub(super) fn place(address: &Multiaddr) -> Multiaddr {
    let mut place = address.clone();
    if matches!(place.iter().last(), Some(Protocol::P2p(_))) {
        place.pop();
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_said_of_the_address_that_was_asked_for() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let typed = at("/ip4/10.0.0.9/tcp/8468").with(Protocol::P2p(peer));
        let failed = |at: &str, why: &str| {
            (at.parse::<Multiaddr>().unwrap(), TransportError::Other(io::Error::other(why.to_owned())))
        };
        let tried = DialError::Transport(vec![
            failed("/ip4/10.0.0.9/tcp/8468", "nobody there"),
            failed("/ip4/10.77.0.2/tcp/8468", "Failed to upgrade client connection"),
        ]);
        assert_eq!(of(&tried, Some(&typed)), "nobody there");
        let log = of(&tried, None);
        assert!(
            log.starts_with("what is there ended") && log.ends_with("(/ip4/10.77.0.2/tcp/8468)"),
            "{log}"
        );
        assert!(log.contains("the DHT's is 8468"), "{log}");
        let each = of_each(&tried);
        assert!(each.starts_with("nobody there (/ip4/10.0.0.9/tcp/8468); what is there ended"), "{each}");
        assert!(each.ends_with("(/ip4/10.77.0.2/tcp/8468)"), "{each}");
        let many = DialError::Transport((0..9).map(|_| failed("/ip4/10.0.0.9/tcp/1", "x")).collect());
        assert!(of_each(&many).ends_with("; …") && of_each(&many).len() < 200, "{}", of_each(&many));
        let wrong = DialError::WrongPeerId { obtained: other, address: typed.clone() };
        assert_eq!(of_each(&wrong), of(&wrong, None));
        assert_eq!(of(&wrong, Some(&typed)), format!("another node is there: {other}"));
        assert_eq!(of(&wrong, None), format!("another node is at /ip4/10.0.0.9/tcp/8468: {other}"));
        let refused =
            (at("/ip4/10.0.0.9/tcp/1"), TransportError::Other(io::Error::other(proof::Refusal::Keyless)));
        let both = DialError::Transport(vec![refused, failed("/ip4/10.0.0.9/tcp/8468", "x")]);
        assert_eq!(
            of(&both, Some(&typed)),
            proof::Refusal::Keyless.to_string(),
            "what explains it comes first"
        );
    }

    #[test]
    fn what_libraries_or_strangers_say_is_put_plainly() {
        let said = |text: &str| words(&io::Error::other(text.to_owned()));
        assert_eq!(said("no records found for Query { name: Name(\"x.example\"), .. }"), "no such host");
        let nameless = said("no connections available");
        assert!(nameless.contains("name server") && !nameless.contains("connections"), "{nameless}");
        assert!(said("request timed out").contains("name server"));
        assert!(
            of_punch("Failed to hole-punch connection: Giving up after 3 dial attempts").contains("router")
        );
        assert!(of_punch("Failed to hole-punch connection: Inbound stream error: x").contains("relay"));
        assert_eq!(said("aborted by peer: a\n\u{1b}[31mb"), "aborted by peer: a  [31mb");
        assert_eq!(said(&"x".repeat(9_999)).len(), LONGEST);
        assert_eq!(said("Timeout has been reached"), NO_ANSWER);
        // As the innermost cause of what libp2p says of a relay.
        let relay = libp2p::relay::client::transport::Error::from(futures::channel::oneshot::Canceled);
        assert_eq!(words(&io::Error::other(relay)), "the relay there cannot be reached");
        let timed_out = io::Error::other(io::Error::other("Handshake with the remote timed out."));
        assert_eq!(words(&timed_out), NO_ANSWER);
    }

    #[test]
    fn who_was_asked_and_does_not_answer_is_told_of_with_where_it_was() {
        let peer = PeerId::random();
        let known = at("/ip4/203.0.113.7/tcp/8468").with(Protocol::P2p(peer));
        let gone = of_question(&OutboundFailure::DialFailure, Some(&known));
        assert!(gone.contains(" at /ip4/203.0.113.7/tcp/8468, "), "{gone}");
        assert!(of_question(&OutboundFailure::DialFailure, None).contains("no address of it is known"));
        let relay = at("/ip4/10.0.0.9/tcp/8468").with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
        let shut = of_question(&OutboundFailure::DialFailure, Some(&relay));
        assert!(shut.contains("through the relay") && !shut.contains("gone"), "{shut}");
        let failures = [
            OutboundFailure::Timeout,
            OutboundFailure::ConnectionClosed,
            OutboundFailure::UnsupportedProtocols,
        ];
        for failure in [OutboundFailure::DialFailure].into_iter().chain(failures) {
            let theirs = failure.to_string();
            assert!(!of_question(&failure, None).contains(&theirs), "{theirs}");
        }
    }
}
