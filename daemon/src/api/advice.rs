//! What to do next about an error, in words for people, where its message does not say so itself. Pure.

use casd_proto::Reason;

use crate::node::{FetchError, Nobody};

/// What to do about a fault of casd.
pub(super) const SEE_LOG: &str = "the daemon's log says more";

/// What to do, where no message of this reason says so itself.
pub(super) fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::InvalidId => "`b3sum FILE` prints a file's id",
        Reason::NoFinish => "send a finish with the length as the last message",
        Reason::Unreachable => {
            "check the address, that casd runs there, and that no firewall keeps this node out"
        }
        Reason::IsDirectory => "`casctl ls dir:ID` lists what is in it, `casctl fetch dir:ID` restores it",
        Reason::NoPeers => "add one with `casctl connect ADDR`, or network.bootstrap",
        Reason::Internal => SEE_LOG,
        _ => "",
    }
}

/// What to do about a directory that is not here, or what is at a path in one: what is elsewhere is not looked into.
pub(super) const FETCH_IT: &str = "where it is elsewhere, `casctl fetch dir:ID/PATH` and `casctl cat dir:ID/PATH` bring a file of it; what is in the \
     directory can be seen once it is here: `casctl fetch --detach dir:ID`";

/// What to do about a node that cannot be reached: of some only the id was given, and some are another.
pub(super) fn unreachable(address: &str, why: &str) -> &'static str {
    if why.contains("another node is ") || why.contains("this node itself is ") {
        return "the id is not that of the node there; `casctl status` on the node that you mean shows its own";
    }
    if why.contains("it belongs to a private network") {
        return "network.name and network.key_file must be the same on both: ask whoever runs that node for its key";
    }
    if !address.contains(['/', '@']) {
        return "`casctl peers` lists the nodes that are known; `casctl connect ADDR` tries an address of it at once";
    }
    hint(Reason::Unreachable)
}

/// What to do where nobody can be asked.
pub(super) fn nobody(why: Nobody) -> &'static str {
    match why {
        Nobody::Unknown => hint(Reason::NoPeers),
        Nobody::Silent(_) => {
            "`casctl doctor` says why, and when it is tried again; `casctl connect ADDR` tries another node"
        }
        Nobody::Unserved(_) => {
            "connect to a node that keeps records, which those do that others can connect to: `casctl connect ADDR`, \
             or network.bootstrap; `casctl status` on such a node shows its addresses"
        }
    }
}

/// How it is told that neither of two lets the other in, or is dialled there, whatever one waits for.
const SHUT: [&str; 3] = ["to let strangers in", "lets the other in", ELSEWHERE];
const ELSEWHERE: &str = "on another private network";

fn is_shut(why: &str) -> bool {
    SHUT.iter().any(|words| why.contains(words))
}

/// What to do where holders are known, and none was reached for such reasons.
pub(super) fn unreached(why: &str) -> &'static str {
    if why.contains(ELSEWHERE) {
        return "where this host can reach that network, name an address of the holder: `casctl connect ID@HOST:PORT`, \
                `casctl fetch --peer ID@HOST:PORT`, or network.bootstrap; or give all nodes one network.key_file, and \
                each is dialled wherever it says that it is. Else have one of the two let others in (its router or \
                firewall: the ports of listen.dht and listen.chunk)";
    }
    if is_shut(why) {
        return "have one of the two let others in (its router or firewall: the ports of listen.dht and listen.chunk), or \
                add a node that all can reach, which then helps them to connect; `casctl fetch --peer ID@HOST:PORT` \
                names where a holder is that this host can reach";
    }
    "try again later, or name one that can be reached with `casctl fetch --peer ID@HOST:PORT`"
}

/// What to do about a fetch that came to nothing, also for the sake of `cat`, which takes no peers.
pub(super) fn of_failed(error: &FetchError, reason: Reason) -> &'static str {
    match error {
        FetchError::NoPeers { nobody: Nobody::Silent(_), .. } => {
            "`casctl doctor` says why, and when it is tried again; `casctl connect ADDR` tries another node; or name a \
             holder with `casctl fetch --peer ID@HOST:PORT`"
        }
        FetchError::NoPeers { nobody: Nobody::Unserved(_), .. } => {
            "connect to a node that keeps records, which those do that others can connect to: `casctl connect ADDR`, or \
             network.bootstrap; or name a holder with `casctl fetch --peer ID@HOST:PORT`"
        }
        FetchError::NoPeers { .. } => {
            "add one with `casctl connect ADDR`, or network.bootstrap, or name a holder with `casctl fetch --peer \
             ID@HOST:PORT`"
        }
        FetchError::NoHolders { named, .. } if !named.is_empty() => {
            "see whether casd runs there and the address is the one that its `casctl status` shows, or name another \
             holder with `casctl fetch --peer ID@HOST:PORT`"
        }
        FetchError::NoHolders { .. } => {
            "try again later, or name one with `casctl fetch --peer ID@HOST:PORT`; check the id: `casctl providers ID` says \
             in a moment whether anybody says to hold it"
        }
        FetchError::Unreached { why, .. } => unreached(why),
        FetchError::Stalled { holders, .. } if is_shut(holders) => unreached(holders),
        FetchError::OutputFull => "make room there, or name another place with -o",
        _ => hint(reason),
    }
}

#[cfg(test)]
mod tests {
    use casd_proto::Failure;
    use tonic::Status;

    use super::*;
    use crate::content::ObjectId;
    use crate::node::Error;

    #[test]
    fn who_knows_nobody_is_told_what_to_do_as_the_verb_allows() {
        let id = ObjectId::EMPTY;
        let hint = |error: Error| Failure::from(&Status::from(error)).hint;
        let told = |nobody| {
            [Error::NobodyToTell { id, nobody }, Error::NobodyToAsk { id, is_here: true, nobody }].map(hint)
        };
        let (unknown, silent, unserved) = (Nobody::Unknown, Nobody::Silent(1), Nobody::Unserved(2));
        let told: Vec<_> = [told(unknown), told(unserved), told(silent)].concat();
        let is_fit = |hint: &String| hint.contains("casctl connect") && !hint.contains("--peer");
        assert!(told.iter().all(is_fit), "{told:?}");
        let why = "it ended the connection: most likely it belongs to a private network".to_owned();
        let keyless = hint(Error::Unreachable { address: "/ip4/192.0.2.7/tcp/1".to_owned(), why });
        assert!(keyless.contains("network.key_file") && !keyless.contains("firewall"), "{keyless}");
        let fetch = |nobody| hint(FetchError::NoPeers { id, nobody }.into());
        for fetch in [fetch(unknown), fetch(silent), fetch(unserved)] {
            assert!(fetch.contains("casctl connect") && fetch.contains("casctl fetch --peer"), "{fetch}");
        }
        // Whoever is configured is not to be added once more.
        let down = [told[4].clone(), told[5].clone(), fetch(silent)];
        assert!(down.iter().all(|hint| hint.contains("doctor") && !hint.contains("bootstrap")), "{down:?}");
        let unserved = [told[2].clone(), told[3].clone(), fetch(unserved)];
        assert!(unserved.iter().all(|hint| hint.starts_with("connect to a node that keeps records")));
        let holders =
            |named: &str| FetchError::NoHolders { id, seconds: 1, named: named.to_owned(), without: 0 };
        let nobody = hint(holders("").into());
        assert!(nobody.starts_with("try again later") && nobody.contains("check the id"), "{nobody}");
        assert!(hint(holders("x: refused").into()).contains("casctl status"));
        // As the events of a fetch have it.
        let unreached = |why: &str| {
            let error = FetchError::Unreached { id, known: 1, seconds: 1, why: why.to_owned(), without: 0 };
            Failure::from(&Status::from(error)).hint
        };
        assert!(unreached("12D3: refused").starts_with("try again later"));
        let shut = unreached("12D3: it is gone, or neither end is known to let strangers in");
        assert!(shut.contains("listen.chunk") && shut.contains("a node that all can reach"), "{shut}");
        let stalled = |why: &str| {
            let (missing, holders) =
                ("chunk 1 of 3".to_owned(), format!("; of 1 found to hold it none: {why}"));
            Failure::from(&Status::from(FetchError::Stalled { id, seconds: 1, missing, holders })).hint
        };
        assert_eq!(stalled("neither end's router or firewall lets the other in"), shut);
        assert_eq!(stalled("refused"), "", "its message says what to do");
        let private = unreached("12D3: it is on another private network (10.0.0.9), where only ...");
        let ways = ["casctl connect ID@HOST:PORT", "network.bootstrap", "network.key_file", "let others in"];
        assert!(
            ways.iter().all(|way| private.contains(way)) && !private.contains("all can reach"),
            "{private}"
        );
        assert!([unreached(""), shut, private].iter().all(|hint| hint.contains("--peer ID@HOST:PORT")));
    }
}
