//! What to do next about an error, in words for people, where its message does not say so itself. Pure.

use casd_proto::Reason;

use crate::node::FetchError;

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

/// What to do about a node that cannot be reached: of some only the id was given, and some are another.
pub(super) fn unreachable(address: &str, why: &str) -> &'static str {
    if why.contains("another node is ") || why.contains("this node itself is ") {
        return "the id is not that of the node there; `casctl status` on the node that you mean shows its own";
    }
    if !address.contains(['/', '@']) {
        return "`casctl peers` lists the nodes that are known; `casctl connect ADDR` tries an address of it at once";
    }
    hint(Reason::Unreachable)
}

/// What to do about a fetch that came to nothing: its caller may name peers.
pub(super) fn of_failed(error: &FetchError, reason: Reason) -> &'static str {
    match error {
        FetchError::NoPeers { .. } => {
            "add one with `casctl connect ADDR`, or network.bootstrap, or name a holder with --peer ID@HOST:PORT"
        }
        FetchError::NoHolders { named, .. } if !named.is_empty() => {
            "see whether casd runs there and the address is the one that its `casctl status` shows, or name another \
             holder with --peer ID@HOST:PORT"
        }
        FetchError::NoHolders { .. } => "try again later, or name one with --peer ID@HOST:PORT",
        FetchError::Unreached { .. } => {
            "try again later, or name one that can be reached with --peer ID@HOST:PORT"
        }
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
        let told = [Error::NobodyToTell(id), Error::NobodyToAsk { id, is_here: true }].map(hint);
        let is_fit = |hint: &String| hint.contains("casctl connect") && !hint.contains("--peer");
        assert!(told.iter().all(is_fit), "{told:?}");
        let fetch = hint(FetchError::NoPeers { id }.into());
        assert!(fetch.contains("casctl connect") && fetch.contains("--peer"), "{fetch}");
        let holders = |named: &str| FetchError::NoHolders { id, seconds: 1, named: named.to_owned() };
        assert!(hint(holders("").into()).starts_with("try again later"));
        assert!(hint(holders("x: refused").into()).contains("casctl status"));
        let unreached = FetchError::Unreached { id, known: 1, seconds: 1, why: String::new() };
        // As the events of a fetch have it.
        assert!(Failure::from(&Status::from(unreached)).hint.contains("--peer ID@HOST:PORT"));
    }
}
