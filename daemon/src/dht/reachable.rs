//! Whether others can connect to this node, by what they have tried.
//!
//! Owns: what counts as an answer. Pure. Refuses: to believe one node that another has connected, and to take back, on
//! one word, what was confirmed. Survives a crash: nothing.
//!
//! Who tries an address for us may lie, and an address that is not ours, once it is told to others, sends them astray.
//! So an address is reached
//!
//! - when this node has seen it itself (`reaching` has what that takes), or
//! - when one node says so and the address is one of this host's own interfaces: it is ours, whatever is said, or
//! - when two say so in a row, of different address groups: one host has many ids, but one group. "In a row": nobody has
//!   failed to connect in between.
//!
//! It is so no longer when since the last success two of different groups, or anybody [`PATIENCE`] times, have failed.

use std::collections::{HashMap, HashSet};

use libp2p::{Multiaddr, PeerId};

use super::records::Group;
use crate::peer::ReachVerdict as Verdict;

/// Addresses of which something is known; more are not asked about at once.
const MOST: usize = 32;
/// Failures in a row that take back what was confirmed, where nobody of another group can be asked: one every ten
/// minutes.
const PATIENCE: usize = 4;

/// One who has tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    /// Who.
    pub(super) peer: PeerId,
    /// Where this node has dialled it.
    pub(super) group: Group,
}

/// What a word leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing that was not known.
    None,
    /// One says that it has connected; now another of another group has to be asked.
    Half,
    /// An address counts as reached that did not, or the other way round.
    Changed,
}

/// What is known of this node's addresses.
#[derive(Debug, Default)]
pub(super) struct Reachable(HashMap<Multiaddr, Word>);

/// What is known of an address.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// Others have connected there; who could not, since then: fewer than [`PATIENCE`].
    Reached { doubts: Vec<Witness> },
    /// One says that it has, and nobody since then that it could not.
    Said(Witness),
    /// Nobody could.
    Failed,
}

// === impl Witness ===

impl Witness {
    /// Whether the two are probably not one.
    fn differs(&self, other: &Self) -> bool {
        self.peer != other.peer && self.group != other.group
    }
}

// === impl Reachable ===

impl Reachable {
    /// This node has seen that somebody has connected to `address`.
    pub(super) fn reached(&mut self, address: &Multiaddr) -> News {
        if !self.has_room(address) {
            return News::None;
        }
        match self.0.insert(address.clone(), Word::Reached { doubts: Vec::new() }) {
            Some(Word::Reached { .. }) => News::None,
            _ => News::Changed,
        }
    }

    /// `by` says that it has connected to `address`; `is_ours`: that is one of this host's interfaces.
    pub(super) fn vouched(&mut self, address: &Multiaddr, by: Witness, is_ours: bool) -> News {
        if !self.has_room(address) {
            return News::None;
        }
        match self.0.get(address) {
            Some(Word::Said(first)) if !is_ours && !first.differs(&by) => News::None,
            Some(Word::Reached { .. } | Word::Said(_)) => self.reached(address),
            _ if is_ours => self.reached(address),
            Some(Word::Failed) | None => {
                self.0.insert(address.clone(), Word::Said(by));
                News::Half
            }
        }
    }

    /// `by` says that it could not connect to `address`.
    pub(super) fn failed(&mut self, address: &Multiaddr, by: Witness) -> News {
        if !self.has_room(address) {
            return News::None;
        }
        match self.0.get_mut(address) {
            Some(Word::Reached { doubts })
                if doubts.len() + 1 < PATIENCE && !doubts.iter().any(|one| one.differs(&by)) =>
            {
                doubts.push(by);
                News::None
            }
            Some(Word::Failed) => News::None,
            _ => {
                self.0.insert(address.clone(), Word::Failed);
                News::Changed
            }
        }
    }

    /// This host is no longer at `address`, so that nothing is known of it. True where something was.
    pub(super) fn left(&mut self, address: &Multiaddr) -> bool {
        self.0.remove(address).is_some()
    }

    /// Whether something may be noted of `address`: what is not confirmed gives way.
    fn has_room(&mut self, address: &Multiaddr) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(address) {
            self.0.retain(|_, word| matches!(word, Word::Reached { .. }));
        }
        self.0.len() < MOST || self.0.contains_key(address)
    }

    /// Whether something that was confirmed is in doubt.
    pub(super) fn is_doubted(&self) -> bool {
        self.0.values().any(|word| matches!(word, Word::Reached { doubts } if !doubts.is_empty()))
    }

    /// The groups of those whose word waits for that of another.
    pub(super) fn heard(&self) -> HashSet<Group> {
        let of = |word: &Word| match word {
            Word::Reached { doubts } => doubts.clone(),
            Word::Said(by) => vec![*by],
            Word::Failed => Vec::new(),
        };
        self.0.values().flat_map(of).map(|by| by.group).collect()
    }

    /// What it comes to.
    pub(super) fn verdict(&self) -> Verdict {
        match (self.confirmed().is_empty(), self.unreached().is_empty()) {
            (false, _) => Verdict::Yes,
            (true, false) => Verdict::No,
            (true, true) => Verdict::Unknown,
        }
    }

    /// Where others have connected to, in order.
    pub(super) fn confirmed(&self) -> Vec<Multiaddr> {
        self.all(|word| matches!(word, Word::Reached { .. }))
    }

    /// Where one says that it has, and nobody else.
    pub(super) fn said(&self) -> Vec<Multiaddr> {
        self.all(|word| matches!(word, Word::Said(_)))
    }

    /// Where nobody could.
    pub(super) fn unreached(&self) -> Vec<Multiaddr> {
        self.all(|word| *word == Word::Failed)
    }

    fn all(&self, of: impl Fn(&Word) -> bool) -> Vec<Multiaddr> {
        let mut all: Vec<_> = self.0.iter().filter(|(_, word)| of(word)).map(|(at, _)| at.clone()).collect();
        all.sort();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// Somebody whose hosts are at 20.`network`.
    fn of(network: u8) -> Witness {
        Witness { peer: PeerId::random(), group: Group::of([20, network, 1, 1].into()).unwrap() }
    }

    #[test]
    fn one_liar_makes_no_address_ours() {
        let (mut known, foreign) = (Reachable::default(), at("/ip4/203.0.113.1/tcp/1"));
        let liar = of(1);
        assert_eq!(known.vouched(&foreign, liar, false), News::Half);
        for another_id in [liar, of(1), of(1), Witness { group: of(2).group, ..liar }] {
            assert_eq!(known.vouched(&foreign, another_id, false), News::None);
        }
        assert_eq!((known.verdict(), known.confirmed()), (Verdict::Unknown, vec![]));
        assert_eq!((known.said(), known.heard()), (vec![foreign.clone()], [liar.group].into()));
        assert_eq!(known.failed(&foreign, of(3)), News::Changed);
        assert_eq!(known.vouched(&foreign, of(1), false), News::Half, "in a row");
        assert_eq!(known.vouched(&foreign, of(2), false), News::Changed, "two groups");
        assert_eq!((known.verdict(), known.confirmed()), (Verdict::Yes, vec![foreign]));
    }

    #[test]
    fn what_is_this_hosts_one_may_vouch_for() {
        let mut known = Reachable::default();
        let (udp, tcp) = (at("/ip4/203.0.113.1/udp/1/quic-v1"), at("/ip4/203.0.113.1/tcp/1"));
        assert_eq!(known.verdict(), Verdict::Unknown);
        assert_eq!((known.failed(&udp, of(1)), known.failed(&udp, of(1))), (News::Changed, News::None));
        assert_eq!((known.verdict(), known.unreached()), (Verdict::No, vec![udp.clone()]));
        assert_eq!(known.vouched(&tcp, of(1), true), News::Changed);
        assert_eq!((known.verdict(), known.confirmed()), (Verdict::Yes, vec![tcp]));
        assert_eq!((known.reached(&udp), known.reached(&udp)), (News::Changed, News::None));
    }

    #[test]
    fn what_was_confirmed_is_not_taken_back_on_one_word() {
        let (mut known, tcp, liar) = (Reachable::default(), at("/ip4/203.0.113.1/tcp/1"), of(1));
        known.reached(&tcp);
        for _ in 1..PATIENCE {
            assert_eq!(known.failed(&tcp, liar), News::None);
        }
        assert!(known.is_doubted() && known.heard().contains(&liar.group));
        assert_eq!(known.vouched(&tcp, of(2), false), News::None);
        assert!(!known.is_doubted());
        assert_eq!((known.failed(&tcp, liar), known.failed(&tcp, of(2))), (News::None, News::Changed));
        known.reached(&tcp);
        let last = (0..PATIENCE).map(|_| known.failed(&tcp, liar)).last();
        assert_eq!((last, known.verdict()), (Some(News::Changed), Verdict::No));
    }

    #[test]
    fn where_this_host_is_no_longer_nobody_reaches_it() {
        let mut known = Reachable::default();
        let [old, new] = ["/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.9/tcp/1"].map(at);
        known.reached(&old);
        known.reached(&new);
        assert!(known.left(&old) && !known.left(&old));
        assert_eq!(known.confirmed(), std::slice::from_ref(&new));
        assert!(known.left(&new) && known.verdict() == Verdict::Unknown);
        assert_eq!(known.reached(&old), News::Changed, "it has come back");
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Reachable::default();
        let at = |port: usize| format!("/ip4/203.0.113.1/tcp/{port}").parse().unwrap();
        for port in 1..1000 {
            known.failed(&at(port), of(1));
            known.vouched(&at(port + 2000), of(1), false);
            assert!(known.0.len() <= MOST);
        }
        assert_eq!(known.reached(&at(9000)), News::Changed, "what is not confirmed gives way");
        for port in 1..1000 {
            known.reached(&at(port));
        }
        assert_eq!(known.0.len(), MOST);
        assert_eq!(known.failed(&at(9001), of(1)), News::None);
    }
}
