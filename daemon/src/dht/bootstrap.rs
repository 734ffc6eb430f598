//! Joining the network: when to dial which configured node.
//!
//! Owns: the schedule. Pure: times come in, dials go out. Refuses: nothing. Survives a crash: nothing.
//!
//! Each node is dialled until it has been reached once; afterwards while this node is alone, and now and then when it
//! does not know that one any more. Waits double from one second to five minutes, and to half a minute while this node
//! is alone: whoever comes back then is to be noticed. The log hears of each trouble once.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The longest wait while this node is alone.
pub(super) const LONGEST_ALONE: Duration = Duration::from_secs(30);

/// A wait of up to a quarter less than `wait`, by `random` from 0 to 1: not all nodes that lost the same one shall try
/// it in the same moment.
pub(super) fn drawn(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(1.0 - random.clamp(0.0, 1.0) / 4.0)
}

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
    /// Why it could not be reached when it was dialled last, at each of its addresses; the log has heard of that. None:
    /// it was.
    trouble: Option<Vec<String>>,
}

impl Bootstrap {
    /// The nodes to join by; several addresses of one node are one entry.
    pub(super) fn new(nodes: Vec<(PeerId, Multiaddr)>, now: Instant) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for (peer, address) in nodes {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.peer == peer) {
                entry.addresses.push(address);
            } else {
                let (wait, reached, trouble) = (FIRST_WAIT, false, None);
                entries.push(Entry { peer, addresses: vec![address], due: now, wait, reached, trouble });
            }
        }
        Self(entries)
    }

    /// Whom to dial now. `alone`: this node reaches nobody. `random`: from 0 to 1.
    pub(super) fn due(&mut self, now: Instant, alone: bool, random: f64) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let longest = if alone { LONGEST_ALONE } else { LONGEST_WAIT };
        let mut due = Vec::new();
        for entry in self.0.iter_mut().filter(|entry| alone || !entry.reached) {
            // It may have been put off for longer before.
            entry.due = entry.due.min(now + longest);
            if entry.due <= now {
                due.push(entry.dial(now, longest, random));
            }
        }
        due
    }

    /// When somebody is dialled next.
    pub(super) fn next(&self, alone: bool) -> Option<Instant> {
        let dialled = self.0.iter().filter(|entry| alone || !entry.reached);
        dialled.map(|entry| entry.due).min()
    }

    /// A node that had been reached and is not known any more, the one dialled longest ago.
    pub(super) fn stray(
        &mut self,
        now: Instant,
        is_known: impl Fn(&PeerId) -> bool,
    ) -> Option<(PeerId, Vec<Multiaddr>)> {
        let strays =
            self.0.iter_mut().filter(|entry| entry.reached && entry.due <= now && !is_known(&entry.peer));
        strays.min_by_key(|entry| entry.due).map(|entry| entry.dial(now, LONGEST_WAIT, 0.0))
    }

    /// There may be a way now where there was none: waits begin anew.
    pub(super) fn hurry(&mut self, now: Instant) {
        for entry in &mut self.0 {
            (entry.due, entry.wait) = (now, FIRST_WAIT);
        }
    }

    /// A node of the network has been reached. True when the log has heard that it could not be.
    pub(super) fn reached(&mut self, peer: &PeerId) -> bool {
        let Some(entry) = self.entry(peer) else { return false };
        (entry.reached, entry.wait) = (true, FIRST_WAIT);
        entry.trouble.take().is_some()
    }

    /// A node could not be reached, or is not of this network; `why`: the reason at an address. True the first time:
    /// then the log should hear.
    pub(super) fn failed(&mut self, peer: &PeerId, why: impl Fn(&Multiaddr) -> String) -> bool {
        let Some(entry) = self.entry(peer) else { return false };
        let reasons = entry.addresses.iter().map(why).collect();
        entry.trouble.replace(reasons).is_none()
    }

    /// Whether it is configured.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.0.iter().any(|entry| entry.peer == *peer)
    }

    /// All of them.
    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.0.iter().map(|entry| &entry.peer)
    }

    /// How many are configured.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The addresses of those that could not be reached when they were dialled last, each with why.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (Multiaddr, String)> {
        self.0.iter().flat_map(|entry| {
            let reasons = entry.trouble.iter().flatten().cloned();
            entry.addresses.iter().cloned().zip(reasons)
        })
    }

    fn entry(&mut self, peer: &PeerId) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.peer == *peer)
    }
}

impl Entry {
    fn dial(&mut self, now: Instant, longest: Duration, random: f64) -> (PeerId, Vec<Multiaddr>) {
        self.due = now + drawn(self.wait.min(longest), random);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        (self.peer, self.addresses.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Multiaddr {
        "/ip4/192.0.2.1/tcp/1".parse().unwrap()
    }

    #[test]
    fn waits_double_and_stop_once_reached() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let other: Multiaddr = "/dns4/seed.example/tcp/1".parse().unwrap();
        let mut bootstrap = Bootstrap::new(vec![(peer, at()), (peer, other.clone())], now);
        assert_eq!(bootstrap.due(now, true, 0.0), [(peer, vec![at(), other.clone()])]);
        let silence = |_: &Multiaddr| "silence".to_owned();
        let apart = |of: &Multiaddr| String::from(if *of == at() { "refused" } else { "no such host" });
        assert!(bootstrap.failed(&peer, silence) && !bootstrap.failed(&peer, apart));
        let each = [(at(), "refused".to_owned()), (other, "no such host".to_owned())];
        assert_eq!(bootstrap.troubles().collect::<Vec<_>>(), each);
        assert!(bootstrap.due(now, true, 0.0).is_empty());
        let mut time = now;
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            time += Duration::from_secs(wait);
            assert!(bootstrap.due(time - Duration::from_millis(1), false, 0.0).is_empty());
            assert_eq!(bootstrap.due(time, false, 0.0).len(), 1);
        }
        assert!(
            bootstrap.reached(&peer) && !bootstrap.reached(&peer) && bootstrap.troubles().next().is_none()
        );
        time += LONGEST_WAIT;
        assert!(bootstrap.due(time, false, 0.0).is_empty() && bootstrap.next(false).is_none());
        assert_eq!(bootstrap.due(time, true, 0.0).len(), 1);
        assert!(bootstrap.failed(&peer, silence));
        bootstrap.hurry(time);
        assert_eq!(bootstrap.due(time, true, 0.0).len(), 1);
        // Known by others, it is dialled when it is lost.
        time += LONGEST_WAIT;
        assert!(bootstrap.stray(time, |_| true).is_none());
        assert!(bootstrap.stray(time, |_| false).is_some() && bootstrap.stray(time, |_| false).is_none());
        let mut never = Bootstrap::new(vec![(peer, at())], time);
        assert!(never.stray(time, |_| false).is_none(), "it is dialled anyway");
    }

    #[test]
    fn whoever_is_alone_waits_for_half_a_minute_at_most() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut bootstrap = Bootstrap::new(vec![(peer, at())], now);
        // Put off for long while others were there.
        let mut time = now;
        while bootstrap.next(false).unwrap() < time + LONGEST_WAIT {
            time = bootstrap.next(false).unwrap();
            bootstrap.due(time, false, 0.0);
        }
        assert!(bootstrap.due(time, true, 0.0).is_empty());
        for random in [0.0, 0.5, 1.0, 0.0] {
            let next = bootstrap.next(true).unwrap();
            let wait = next - time;
            assert!((LONGEST_ALONE * 3 / 4..=LONGEST_ALONE).contains(&wait), "{wait:?}");
            time = next;
            assert_eq!(bootstrap.due(time, true, random).len(), 1);
        }
        assert_eq!(bootstrap.next(true), Some(time + LONGEST_ALONE));
    }
}
