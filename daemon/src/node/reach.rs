//! What the doctor says of whether others can connect to this node, in words for people.

use super::Check;
use crate::peer::{Multiaddr, ReachVerdict, Reachability};
use crate::store::Level;

/// Addresses that are named at most.
const NAMED: usize = 4;

/// What to do where there is a relay…
const FASTER: &str = "it works as it is; for others to connect at once, have the router or firewall let in the ports of \
                      listen.dht (UDP and TCP) and listen.chunk (TCP)";
/// …and where there is none.
const OPEN: &str = "have the router or firewall let in the ports of listen.dht (UDP and TCP) and listen.chunk (TCP), or \
                    name a node that is reached, and helps others, in network.bootstrap";

/// What is known, and what to do. `listens`: whether it does, on the DHT plane; `alone`: nobody is there to try.
pub(super) fn check(reach: &Reachability, listens: bool, alone: bool) -> Check {
    let (level, what, advice) = match reach.verdict {
        _ if !listens => {
            let what = "this node listens nowhere: it connects to others, and nobody connects to it";
            (Level::Ok, what.to_owned(), "")
        }
        ReachVerdict::Yes => (Level::Ok, format!("others can connect at {}", list(&reach.confirmed)), ""),
        ReachVerdict::Unknown if alone => {
            (Level::Ok, "nobody is there who could try whether others can connect".to_owned(), "")
        }
        ReachVerdict::Unknown if !reach.is_outside => {
            (Level::Ok, "all nodes it knows are on its own network".to_owned(), "")
        }
        ReachVerdict::Unknown if !reach.said.is_empty() => {
            let what = format!(
                "one other node says that it can connect at {}, and none of another network has tried yet; {}",
                list(&reach.said),
                help(reach)
            );
            (Level::Ok, what, "ask again in a minute")
        }
        ReachVerdict::Unknown => {
            let what = format!(
                "too few other nodes have tried yet whether they can connect to this one; {}",
                help(reach)
            );
            (Level::Ok, what, "ask again in a minute")
        }
        ReachVerdict::No => {
            let what = format!("others cannot connect: they tried {}; {}", list(&reach.failed), help(reach));
            (Level::Warn, what, if reach.relays.is_empty() { OPEN } else { FASTER })
        }
    };
    Check {
        name: "reach",
        level,
        what: [what, punched(reach), router(reach)].concat(),
        advice: advice.to_owned(),
        numbers: vec![
            ("confirmed", reach.confirmed.len() as u64),
            ("failed", reach.failed.len() as u64),
            ("relays", reach.relays.len() as u64),
            ("punched", reach.punched),
            ("missed", reach.missed),
        ],
    }
}

/// Whether nobody is known to connect to this node from beyond its own network, and nobody is there through whom others
/// could ask for it. Of one that knows no others nothing is known, not that either.
pub(super) fn is_unreached(reach: &Reachability) -> bool {
    let is_so = match reach.verdict {
        ReachVerdict::Yes => false,
        ReachVerdict::No => true,
        ReachVerdict::Unknown => reach.is_outside,
    };
    is_so && reach.relays.is_empty()
}

/// What is done where nobody connects by himself.
fn help(reach: &Reachability) -> String {
    if reach.relays.is_empty() {
        return "no relay has been found at which others could ask for it".to_owned();
    }
    let names: Vec<_> = reach.relays.iter().map(ToString::to_string).collect();
    format!("others ask for it at the relay {}, and then both dial each other", names.join(" or "))
}

/// How often both ends dialled at once.
fn punched(reach: &Reachability) -> String {
    match (reach.punched, reach.missed) {
        (0, 0) => String::new(),
        (punched, missed) => {
            format!("; by both ends dialling at once {punched} connection(s) came about, {missed} did not")
        }
    }
}

/// What the router said, where it was asked.
fn router(reach: &Reachability) -> String {
    if reach.router.is_empty() { String::new() } else { format!("; {}", reach.router) }
}

fn list(addresses: &[Multiaddr]) -> String {
    let mut named: Vec<_> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    if addresses.len() > NAMED {
        named.push("…".to_owned());
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PeerId;

    #[test]
    fn who_is_not_known_to_be_reached_is_told_apart() {
        let of = |verdict, is_outside, relays: usize| {
            let relays = (0..relays).map(|_| PeerId::random()).collect();
            is_unreached(&Reachability { verdict, is_outside, relays, ..Reachability::default() })
        };
        assert!(!of(ReachVerdict::Unknown, false, 0), "all are on its own network");
        assert!(of(ReachVerdict::Unknown, true, 0) && of(ReachVerdict::No, true, 0));
        assert!(of(ReachVerdict::No, false, 0) && !of(ReachVerdict::Yes, true, 0));
        assert!(!of(ReachVerdict::No, true, 1) && !of(ReachVerdict::Unknown, true, 2));
    }

    #[test]
    fn each_state_has_its_words_and_its_advice() {
        let at: Multiaddr = "/ip4/203.0.113.9/udp/8468/quic-v1".parse().unwrap();
        let mut reach = Reachability::default();
        let near = check(&reach, true, false);
        assert!(near.level == Level::Ok && near.what.contains("its own network"), "{}", near.what);
        let alone = check(&reach, true, true);
        assert!(alone.what.starts_with("nobody is there") && alone.advice.is_empty(), "{}", alone.what);
        reach.is_outside = true;
        let untried = check(&reach, true, false);
        assert!(untried.level == Level::Ok && untried.what.contains("tried yet"), "{}", untried.what);
        let half = check(&Reachability { said: vec![at.clone()], ..reach.clone() }, true, false);
        assert!(
            half.level == Level::Ok && half.what.contains("says that it can connect at /ip4/203.0.113.9")
        );
        (reach.verdict, reach.failed) = (ReachVerdict::No, vec![at.clone()]);
        let shut = check(&reach, true, false);
        assert!(shut.level == Level::Warn && shut.what.contains("203.0.113.9"), "{}", shut.what);
        assert!(shut.advice.contains("network.bootstrap") && shut.advice.contains("listen.chunk"));
        let relay = PeerId::random();
        (reach.relays, reach.punched, reach.missed) = (vec![relay], 2, 1);
        let helped = check(&reach, true, false);
        assert!(helped.what.contains(&relay.to_string()) && helped.what.contains("2 connection"));
        assert!(helped.advice.starts_with("it works"), "{}", helped.advice);
        (reach.verdict, reach.confirmed) = (ReachVerdict::Yes, vec![at; 9]);
        let open = check(&reach, true, false);
        assert!(open.level == Level::Ok && open.advice.is_empty() && open.what.contains('…'));
        assert!(check(&reach, false, false).what.contains("listens nowhere"));
    }
}
