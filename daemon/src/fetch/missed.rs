//! Why peers of a fetch could not be reached, in words for people.
//!
//! Owns: the last reason of each that was tried in vain, by the fetch or by its look-ups. Refuses: more peers than a
//! look-up tells, and more than a line of each: parts of a reason may come from a stranger. Pure. Survives a crash:
//! nothing.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::peer::{PeerId, Unconnected};
use crate::support::text::shorten;

/// Peers whose reasons are kept, besides those that the caller named, who are few.
const KEPT: usize = 192;
/// Peers that are told of: more make no error clearer.
const TOLD: usize = 3;
/// Bytes of a reason.
const REASON: usize = 200;

/// What is said of one that has not failed yet.
pub(super) const SILENT: &str = "it has not answered yet";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Missed(HashMap<PeerId, String>);

impl Missed {
    /// A peer could not be reached, for this reason. What became of one that the caller named is kept however many
    /// others there were.
    pub(super) fn note(&mut self, peer: PeerId, why: String, is_named: bool) {
        if is_named || self.0.len() < KEPT || self.0.contains_key(&peer) {
            self.0.insert(peer, why);
        }
    }

    /// A peer has been reached.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Why a peer could not be reached; `None` where it was, or has not been tried to its end.
    pub(super) fn why(&self, peer: &PeerId) -> Option<&str> {
        self.0.get(peer).map(String::as_str)
    }

    /// Those that could not be reached.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.0.keys().copied()
    }

    /// A few of these peers, those with a reason first, each with its reason, and how many more there are.
    pub(super) fn of(&self, peers: impl Iterator<Item = PeerId>) -> String {
        let (told, silent): (Vec<_>, Vec<_>) = peers.partition(|peer| self.why(peer).is_some());
        let all = told.into_iter().chain(silent);
        list(all.map(|peer| (peer, self.why(&peer).unwrap_or(SILENT).to_owned())).collect())
    }
}

/// Why a peer could not be reached that was said to be at `at`, which is told where the reason does not.
pub(super) fn reason(at: Option<SocketAddr>, why: &Unconnected) -> String {
    let why = why.to_string();
    let at = at.map(|at| at.to_string()).filter(|at| !why.contains(at.as_str()));
    let why = shorten(&why, REASON);
    at.map_or_else(|| why.to_string(), |at| format!("at {at}, {why}"))
}

/// The first of these, each with what is said of it, and how many more there are.
pub(super) fn list(peers: Vec<(PeerId, String)>) -> String {
    let more = peers.len().saturating_sub(TOLD);
    let told: Vec<_> = peers.into_iter().take(TOLD).map(|(peer, why)| format!("{peer}: {why}")).collect();
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    told.join("; ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_with_its_last_reason_and_its_place_once() {
        let at: SocketAddr = "192.0.2.1:9000".parse().unwrap();
        let refused = Unconnected::Unreachable(format!("cannot connect to {at}: refused"));
        assert_eq!(reason(Some(at), &refused), "cannot connect to 192.0.2.1:9000: refused");
        let key = reason(Some(at), &Unconnected::OtherKey);
        assert_eq!(key, "at 192.0.2.1:9000, it has not the same network key");
        let long = Unconnected::Unreachable("x".repeat(10_000));
        assert!(reason(None, &long).len() <= REASON);

        let [one, two] = [(); 2].map(|()| PeerId::random());
        let mut missed = Missed::default();
        missed.note(one, "first".to_owned(), false);
        missed.note(one, key.clone(), false);
        assert_eq!(missed.of([two, one].into_iter()), format!("{one}: {key}; {two}: {SILENT}"));
        missed.forget(&one);
        assert_eq!((missed.why(&one), missed.peers().count()), (None, 0));
    }

    #[test]
    fn however_many_there_are_few_are_kept_and_fewer_told() {
        let mut missed = Missed::default();
        let peers: Vec<_> = (0..KEPT + 9).map(|_| PeerId::random()).collect();
        peers.iter().for_each(|peer| missed.note(*peer, "y".repeat(REASON), false));
        assert_eq!(missed.peers().count(), KEPT);
        let named = PeerId::random();
        missed.note(named, "refused".to_owned(), true);
        assert_eq!(missed.why(&named), Some("refused"));
        let told = missed.of(peers.into_iter());
        assert!(told.ends_with(&format!("; and {} more", KEPT + 9 - TOLD)), "{told}");
        assert!(told.len() < 800, "it fits into a message: {}", told.len());
    }
}
