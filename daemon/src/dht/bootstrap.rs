//! Joining the network: when to dial which configured node.
//!
//! Owns: the schedule. Pure: times come in, dials go out. Refuses: nothing. Survives a crash: nothing.
//!
//! Each node is dialled until it has been reached once; afterwards while this node knows nobody at all, and
//! now and then when it does not know that one any more. Waits double from one second to five minutes. The
//! log hears of each trouble once.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The configured nodes.
#[derive(Debug)]
pub(super) struct Bootstrap(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    /// Not dialled before this.
    due: Instant,
    /// How long to wait after the next dial.
    wait: Duration,
    /// Whether it has been reached.
    reached: bool,
    /// Whether the log has heard that it cannot be reached.
    said: bool,
}

impl Bootstrap {
    /// The nodes to join by; several addresses of one node are one entry.
    pub(super) fn new(nodes: Vec<(PeerId, Multiaddr)>, now: Instant) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for (peer, address) in nodes {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.peer == peer) {
                entry.addresses.push(address);
            } else {
                let (wait, reached, said) = (FIRST_WAIT, false, false);
                entries.push(Entry { peer, addresses: vec![address], due: now, wait, reached, said });
            }
        }
        Self(entries)
    }

    /// Whom to dial now. `alone`: this node knows nobody.
    pub(super) fn due(&mut self, now: Instant, alone: bool) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        for entry in self.0.iter_mut().filter(|entry| (alone || !entry.reached) && entry.due <= now) {
            due.push(entry.dial(now));
        }
        due
    }

    /// A node that had been reached and is not known any more, the one dialled longest ago.
    pub(super) fn stray(
        &mut self,
        now: Instant,
        is_known: impl Fn(&PeerId) -> bool,
    ) -> Option<(PeerId, Vec<Multiaddr>)> {
        let strays =
            self.0.iter_mut().filter(|entry| entry.reached && entry.due <= now && !is_known(&entry.peer));
        strays.min_by_key(|entry| entry.due).map(|entry| entry.dial(now))
    }

    /// There may be a way now where there was none: waits begin anew.
    pub(super) fn hurry(&mut self, now: Instant) {
        for entry in &mut self.0 {
            (entry.due, entry.wait) = (now, FIRST_WAIT);
        }
    }

    /// A node of the network has been reached.
    pub(super) fn reached(&mut self, peer: &PeerId) {
        if let Some(entry) = self.entry(peer) {
            if !entry.reached || entry.said {
                tracing::info!(%peer, "joined the network");
            }
            (entry.reached, entry.said, entry.wait) = (true, false, FIRST_WAIT);
        }
    }

    /// A node could not be reached, or is not of this network. True the first time: then the log should hear.
    pub(super) fn failed(&mut self, peer: &PeerId) -> bool {
        self.entry(peer).is_some_and(|entry| !std::mem::replace(&mut entry.said, true))
    }

    fn entry(&mut self, peer: &PeerId) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.peer == *peer)
    }
}

impl Entry {
    fn dial(&mut self, now: Instant) -> (PeerId, Vec<Multiaddr>) {
        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        (self.peer, self.addresses.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_stop_once_reached() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let mut bootstrap = Bootstrap::new(vec![(peer, address.clone()), (peer, address.clone())], now);
        assert_eq!(bootstrap.due(now, true), [(peer, vec![address.clone(), address])]);
        assert!(bootstrap.failed(&peer) && !bootstrap.failed(&peer));
        assert!(bootstrap.due(now, true).is_empty());
        let mut at = now;
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            at += Duration::from_secs(wait);
            assert!(bootstrap.due(at - Duration::from_millis(1), true).is_empty());
            assert_eq!(bootstrap.due(at, false).len(), 1);
        }
        bootstrap.reached(&peer);
        at += LONGEST_WAIT;
        assert!(bootstrap.due(at, false).is_empty());
        assert_eq!(bootstrap.due(at, true).len(), 1);
        assert!(bootstrap.failed(&peer));
        bootstrap.hurry(at);
        assert_eq!(bootstrap.due(at, true).len(), 1);
        // Known by others, it is dialled when it is lost.
        at += LONGEST_WAIT;
        assert!(bootstrap.stray(at, |_| true).is_none());
        assert!(bootstrap.stray(at, |_| false).is_some() && bootstrap.stray(at, |_| false).is_none());
        let mut never = Bootstrap::new(vec![(peer, "/ip4/192.0.2.1/tcp/1".parse().unwrap())], at);
        assert!(never.stray(at, |_| false).is_none(), "it is dialled anyway");
    }
}
