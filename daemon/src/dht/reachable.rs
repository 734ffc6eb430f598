//! Whether others can connect to this node, by what they have tried.
//!
//! Owns: what counts as an answer. Pure. Refuses: to take back, on one word, what was confirmed. Survives a
//! crash: nothing.

use std::collections::HashMap;

use libp2p::Multiaddr;

use crate::peer::ReachVerdict as Verdict;

/// Addresses of which something is known; more are not asked about at once.
const MOST: usize = 32;

/// What is known of this node's addresses.
#[derive(Debug, Default)]
pub(super) struct Reachable(HashMap<Multiaddr, Word>);

/// What is known of an address.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// Somebody has connected there; whether another could not, since then.
    Reached { doubt: bool },
    /// Nobody could.
    Failed,
}

// === impl Reachable ===

impl Reachable {
    /// Somebody has connected to `address`. True when that is news.
    pub(super) fn reached(&mut self, address: &Multiaddr) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(address) {
            self.0.retain(|_, word| *word != Word::Failed);
        }
        if self.0.len() >= MOST && !self.0.contains_key(address) {
            return false;
        }
        let before = self.0.insert(address.clone(), Word::Reached { doubt: false });
        !matches!(before, Some(Word::Reached { .. }))
    }

    /// Somebody could not connect to `address`. True when it counts as not reached from now on.
    pub(super) fn failed(&mut self, address: &Multiaddr) -> bool {
        let full = self.0.len() >= MOST;
        match self.0.get_mut(address) {
            Some(Word::Reached { doubt: doubt @ false }) => {
                *doubt = true;
                false
            }
            Some(word) => std::mem::replace(word, Word::Failed) != Word::Failed,
            None if full => false,
            None => {
                self.0.insert(address.clone(), Word::Failed);
                true
            }
        }
    }

    /// Whether something that was confirmed is in doubt.
    pub(super) fn is_doubted(&self) -> bool {
        self.0.values().any(|word| *word == Word::Reached { doubt: true })
    }

    /// What it comes to.
    pub(super) fn verdict(&self) -> Verdict {
        match (self.confirmed().is_empty(), self.0.is_empty()) {
            (false, _) => Verdict::Yes,
            (true, false) => Verdict::No,
            (true, true) => Verdict::Unknown,
        }
    }

    /// Where somebody has connected to, in order.
    pub(super) fn confirmed(&self) -> Vec<Multiaddr> {
        self.all(|word| *word != Word::Failed)
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

    #[test]
    fn one_word_is_enough_to_be_reached_and_two_to_be_not() {
        let mut known = Reachable::default();
        let (udp, tcp): (Multiaddr, Multiaddr) =
            ("/ip4/203.0.113.1/udp/1/quic-v1".parse().unwrap(), "/ip4/203.0.113.1/tcp/1".parse().unwrap());
        assert_eq!(known.verdict(), Verdict::Unknown);
        assert!(known.failed(&udp) && !known.failed(&udp));
        assert_eq!((known.verdict(), known.unreached()), (Verdict::No, vec![udp.clone()]));
        assert!(known.reached(&tcp) && !known.reached(&tcp));
        assert_eq!((known.verdict(), known.confirmed()), (Verdict::Yes, vec![tcp.clone()]));
        assert!(!known.failed(&tcp) && known.is_doubted());
        assert!(!known.reached(&tcp) && !known.is_doubted(), "it was one word");
        assert!(!known.failed(&tcp) && known.failed(&tcp));
        assert_eq!(known.verdict(), Verdict::No);
        assert!(known.reached(&udp));
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Reachable::default();
        let at = |port: usize| format!("/ip4/203.0.113.1/tcp/{port}").parse().unwrap();
        for port in 1..1000 {
            known.failed(&at(port));
        }
        assert_eq!(known.0.len(), MOST);
        assert!(known.reached(&at(2000)), "what failed gives way");
        for port in 1..1000 {
            known.reached(&at(port));
        }
        assert_eq!(known.0.len(), MOST);
    }
}
