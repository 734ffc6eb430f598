//! Peers that are remembered over restarts, and when they are dialled.
//!
//! Owns: whom this node would join its network by if every configured node were gone, and the schedule. Pure: times
//! come in, dials go out; `saved` keeps the peers on disk. Refuses: peers that are no servers of the DHT (the event
//! loop hands over none), more than its limits, and to let newcomers push out peers that are well. Survives a crash:
//! the peers, as they were a minute before.
//!
//! - While this node is alone, a few are dialled every second, of different address groups, each again after waits that
//!   double from one second to half a minute; to as many seconds as there are peers, where there are more.
//! - Otherwise about once a minute two that are neither connected nor known are dialled: two halves of a network that
//!   were cut off from each other until they forgot each other grow together again.
//! - Whoever could not be reached for long, while others could, is forgotten.

mod saved;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use rand::Rng;

pub(super) use self::saved::{load, save};
use super::bootstrap::{FIRST_WAIT, LONGEST_ALONE, LONGEST_WAIT, drawn};
use super::listen::ip_of;
use super::records::{Group, MAX_ADDRESS, MAX_ADDRESSES};

/// Peers remembered.
const MAX_PEERS: usize = 256;
/// Peers remembered of one group of globally routable addresses: one who rents a network is one among many.
const MAX_OF_GROUP: usize = 8;
/// Dialled at once while this node is alone.
const AT_ONCE: usize = 4;
/// Dialled at once otherwise.
const REUNION: usize = 2;
/// That a peer is still connected is written down once in so many seconds.
const COARSE: u64 = 600;
/// Whoever was not seen for so many seconds gives way to a newcomer.
const STALE: u64 = 24 * 3600;
/// Forgotten after so many dials that failed, and so many seconds.
const MAX_FAILURES: u16 = 8;
const MAX_UNSEEN: u64 = 14 * 24 * 3600;
/// Saved at most once in this time.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What is remembered of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Who.
    pub(super) peer: PeerId,
    /// Where, at most [`MAX_ADDRESSES`]; the most promising first.
    pub(super) addresses: Vec<Multiaddr>,
    /// When it was connected last, in Unix seconds.
    pub(super) seen: u64,
    /// Dials since then that failed while others did not.
    pub(super) failures: u16,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    /// The group of its addresses.
    group: Option<Group>,
    /// Not dialled before this.
    due: Instant,
    /// How long to wait after the next dial.
    wait: Duration,
}

/// The peers and the schedule.
#[derive(Debug)]
pub(super) struct Remembered {
    entries: HashMap<PeerId, Entry>,
    /// How often those that are not known are dialled, give or take a quarter, and when next.
    every: Duration,
    reunion: Instant,
    /// Whether something is not on disk yet, and when that may be mended.
    changed: bool,
    save: Instant,
}

// === impl Remembered ===

impl Remembered {
    /// With the peers of an earlier run, all due now; those that are not known are dialled `every` so often.
    pub(super) fn new(peers: Vec<Peer>, every: Duration, now: Instant, unix: u64) -> Self {
        let entry = |mut peer: Peer| {
            // A clock that was ahead would keep it for ever.
            peer.seen = peer.seen.min(unix);
            (peer.peer, Entry { group: group(&peer.addresses), peer, due: now, wait: FIRST_WAIT })
        };
        let entries = peers.into_iter().take(MAX_PEERS).map(entry).collect();
        Self { entries, every, reunion: now + every, changed: false, save: now }
    }

    /// A server of this network is connected and has said where it is.
    pub(super) fn met(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant, unix: u64) {
        let mut kept: Vec<Multiaddr> = Vec::new();
        for address in addresses {
            if address.len() <= MAX_ADDRESS && !kept.contains(&address) && kept.len() < MAX_ADDRESSES {
                kept.push(address);
            }
        }
        if kept.is_empty() {
            return;
        }
        let addresses = kept;
        if let Some(entry) = self.entries.get_mut(&peer) {
            (entry.due, entry.wait) = (now, FIRST_WAIT);
            let was = &mut entry.peer;
            self.changed |= was.addresses != addresses || was.failures > 0 || unix >= was.seen + COARSE;
            if was.addresses != addresses {
                (entry.group, was.addresses) = (group(&addresses), addresses);
            }
            (was.failures, was.seen) = (0, unix);
            return;
        }
        let group = group(&addresses);
        if self.make_room(group, unix) {
            let peer = Peer { peer, addresses, seen: unix, failures: 0 };
            self.entries.insert(peer.peer, Entry { peer, group, due: now, wait: FIRST_WAIT });
            self.changed = true;
        }
    }

    /// These are connected still.
    pub(super) fn still<'p>(&mut self, connected: impl Iterator<Item = &'p PeerId>, unix: u64) {
        for peer in connected {
            if let Some(entry) = self.entries.get_mut(peer).filter(|entry| unix >= entry.peer.seen + COARSE) {
                (entry.peer.seen, entry.peer.failures) = (unix, 0);
                self.changed = true;
            }
        }
    }

    /// A dial failed. `alone`: this node knows nobody, so that it may be its own fault.
    pub(super) fn missed(&mut self, peer: &PeerId, alone: bool, unix: u64) {
        let Some(entry) = self.entries.get_mut(peer).filter(|_| !alone) else { return };
        entry.peer.failures = entry.peer.failures.saturating_add(1);
        if entry.peer.failures >= MAX_FAILURES && unix >= entry.peer.seen.saturating_add(MAX_UNSEEN) {
            self.entries.remove(peer);
        }
        self.changed = true;
    }

    /// It is not of this network, or no server any more.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.changed |= self.entries.remove(peer).is_some();
    }

    /// All of them.
    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.entries.keys()
    }

    /// Where one of them was.
    pub(super) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.entries.get(peer).map_or(&[], |entry| &entry.peer.addresses)
    }

    /// There may be a way now where there was none: waits begin anew.
    pub(super) fn hurry(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            (entry.due, entry.wait) = (now, FIRST_WAIT);
        }
    }

    /// Whether it is time to look for those that are not known. `random`: from 0 to 1.
    pub(super) fn is_reunion(&mut self, now: Instant, random: f64) -> bool {
        let due = now >= self.reunion;
        if due {
            self.reunion = now + self.every.mul_f64(0.75 + random.clamp(0.0, 1.0) / 2.0);
        }
        due
    }

    /// Whom to dial while this node is alone. `random`: from 0 to 1.
    pub(super) fn alone(&mut self, now: Instant, random: f64) -> Vec<(PeerId, Vec<Multiaddr>)> {
        // A long memory must not make a flood of dials that come to nothing: one a second.
        let peers = Duration::from_secs(self.entries.len() as u64);
        let longest = peers.clamp(LONGEST_ALONE, LONGEST_WAIT);
        for entry in self.entries.values_mut() {
            // It may have been put off for longer before.
            entry.due = entry.due.min(now + longest);
        }
        let order = |entry: &Entry| (entry.due, entry.peer.failures, Reverse(entry.peer.seen));
        self.pick(AT_ONCE, now, |wait| drawn(wait.min(longest), random), |_| false, order)
    }

    /// When somebody is dialled next, while this node is alone.
    pub(super) fn next(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.due).min()
    }

    /// Whether it is remembered.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.entries.contains_key(peer)
    }

    /// Whom to dial of those that are not known.
    pub(super) fn strays(
        &mut self,
        now: Instant,
        is_known: impl Fn(&PeerId) -> bool,
        random: &mut impl Rng,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        // Drawn, or all nodes that lost the same ones would try them in the same order.
        self.pick(REUNION, now, |wait| wait, is_known, |_| random.random::<u64>())
    }

    /// Takes the first that are due in this order, of different groups, and puts each off for what `waits` makes of its
    /// wait.
    fn pick<O: Ord>(
        &mut self,
        most: usize,
        now: Instant,
        waits: impl Fn(Duration) -> Duration,
        is_known: impl Fn(&PeerId) -> bool,
        mut order: impl FnMut(&Entry) -> O,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let due = self.entries.values_mut().filter(|entry| entry.due <= now && !is_known(&entry.peer.peer));
        let mut due: Vec<_> = due.map(|entry| (order(entry), entry)).collect();
        due.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (mut groups, mut picked) = (HashSet::new(), Vec::new());
        for (_, entry) in due {
            if picked.len() == most {
                break;
            }
            if entry.group.is_some_and(|group| !groups.insert(group)) {
                continue;
            }
            entry.due = now + waits(entry.wait);
            entry.wait = (entry.wait * 2).min(LONGEST_WAIT);
            picked.push((entry.peer.peer, entry.peer.addresses.clone()));
        }
        picked
    }

    /// What to write down now. `stopping`: there will be no other time.
    pub(super) fn take_news(&mut self, now: Instant, stopping: bool) -> Option<Vec<Peer>> {
        if !self.changed || now < self.save && !stopping {
            return None;
        }
        (self.changed, self.save) = (false, now + SAVE_EVERY);
        let mut peers: Vec<_> = self.entries.values().map(|entry| entry.peer.clone()).collect();
        peers.sort_by_key(|peer| peer.peer);
        Some(peers)
    }

    /// Whether there is a place for a newcomer of this group. Old acquaintances are the best ones: none gives way
    /// that is well.
    fn make_room(&mut self, of: Option<Group>, unix: u64) -> bool {
        let of_group = |entry: &Entry| of.is_some() && entry.group == of;
        let crowded = self.entries.values().filter(|entry| of_group(entry)).nth(MAX_OF_GROUP - 1).is_some();
        if !crowded && self.entries.len() < MAX_PEERS {
            return true;
        }
        let candidates = self.entries.values().filter(|entry| !crowded || of_group(entry));
        let worst = candidates.max_by_key(|entry| (entry.peer.failures, Reverse(entry.peer.seen)));
        let worst = worst.filter(|one| one.peer.failures > 0 || unix >= one.peer.seen.saturating_add(STALE));
        let worst = worst.map(|entry| entry.peer.peer);
        worst.is_some_and(|peer| self.entries.remove(&peer).is_some())
    }
}

/// The group of the first address that has one.
fn group(addresses: &[Multiaddr]) -> Option<Group> {
    addresses.iter().filter_map(ip_of).find_map(Group::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const UNIX: u64 = 1_800_000_000;
    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(text: &str) -> Vec<Multiaddr> {
        vec![text.parse().unwrap()]
    }

    /// `count` peers, each of a group of its own.
    fn acquainted(count: u64, now: Instant) -> (Remembered, Vec<PeerId>) {
        let mut known = Remembered::new(Vec::new(), MINUTE, now, UNIX);
        let peers: Vec<_> = (0..count).map(|_| PeerId::random()).collect();
        for (peer, number) in peers.iter().zip(0..) {
            let group = format!("/ip4/{}.{}.1.1/tcp/1", 11 + number / 200, number % 200);
            known.met(*peer, at(&group), now, UNIX + number);
        }
        (known, peers)
    }

    #[test]
    fn whoever_knows_nobody_dials_a_few_at_a_time_and_all_of_them_in_turn() {
        let now = Instant::now();
        let (mut known, peers) = acquainted(40, now);
        let names = |dials: Vec<(PeerId, _)>| dials.into_iter().map(|(peer, _)| peer).collect::<Vec<_>>();
        // The one seen last comes first.
        let first = names(known.alone(now, 0.0));
        assert_eq!(first, peers[36..].iter().rev().copied().collect::<Vec<_>>());
        assert_eq!(names(known.alone(now, 0.0)).len(), AT_ONCE, "others are due");
        let mut dialled: HashSet<_> = peers[32..].iter().copied().collect();
        for second in 1..=8 {
            dialled.extend(names(known.alone(now + SECOND * second, 0.0)));
        }
        assert_eq!(dialled.len(), 40, "nobody waits for those that are tried again");
        // Waits double, up to half a minute for a few, up to as many seconds as there are peers for many.
        for (count, ends) in [(1, [8, 16, 30]), (100, [32, 64, 100]), (256, [64, 128, 256])] {
            let (mut known, mut tries) = (acquainted(count, now).0, Vec::new());
            let mut at = now + SECOND * 3600;
            while tries.last() != ends.last() {
                let entry = known.entries.values_mut().min_by_key(|entry| entry.peer.peer).unwrap();
                (entry.due, entry.peer.failures) = (at - SECOND, 0);
                let peer = entry.peer.peer;
                let others = known.entries.values_mut().filter(|entry| entry.peer.peer != peer);
                others.for_each(|entry| entry.due = at + LONGEST_WAIT);
                assert_eq!(names(known.alone(at, 0.0)), [peer]);
                tries.push((known.entries[&peer].due - at).as_secs());
                at = known.entries[&peer].due;
            }
            assert!(tries.ends_with(&ends), "{tries:?}");
        }
        let mut known = acquainted(1, now).0;
        while known.next().unwrap() < now + LONGEST_ALONE {
            known.alone(known.next().unwrap(), 0.0);
        }
        assert!(known.alone(now + SECOND, 0.0).is_empty());
        known.hurry(now);
        assert_eq!(known.alone(now + SECOND, 0.0).len(), 1, "a new address ends the wait");
    }

    #[test]
    fn those_dialled_at_once_are_of_different_groups() {
        let (now, mut known) = (Instant::now(), Remembered::new(Vec::new(), MINUTE, Instant::now(), UNIX));
        for host in 1..=4 {
            known.met(PeerId::random(), at(&format!("/ip4/11.1.0.{host}/tcp/1")), now, UNIX);
            known.met(PeerId::random(), at(&format!("/ip6/2001:db8::{host}/tcp/1")), now, UNIX);
        }
        assert_eq!(known.alone(now, 0.0).len(), 2);
        known.met(PeerId::random(), at("/ip4/192.168.1.1/tcp/1"), now, UNIX);
        known.met(PeerId::random(), at("/ip4/192.168.1.2/tcp/1"), now, UNIX);
        assert_eq!(known.alone(now, 0.0).len(), 4, "neighbours are of no group");
    }

    #[test]
    fn halves_that_forgot_each_other_look_for_each_other_about_once_a_minute() {
        let now = Instant::now();
        let (mut known, peers) = acquainted(10, now);
        let mut random = StdRng::seed_from_u64(1);
        assert!(!known.is_reunion(now + MINUTE - SECOND, 0.5));
        assert!(known.is_reunion(now + MINUTE, 0.0));
        let soon = now + MINUTE + Duration::from_secs(45);
        assert!(!known.is_reunion(soon - SECOND, 0.5) && known.is_reunion(soon, 1.0));
        assert!(!known.is_reunion(soon + Duration::from_secs(74), 0.5));
        let lost = &peers[..3];
        let mut found = HashSet::new();
        for minute in 0..10 {
            let dials = known.strays(now + MINUTE * minute, |peer| !lost.contains(peer), &mut random);
            assert!(dials.len() <= REUNION && dials.iter().all(|(peer, _)| lost.contains(peer)));
            found.extend(dials.into_iter().map(|(peer, _)| peer));
        }
        assert_eq!(found.len(), 3);
        assert!(known.strays(now + MINUTE * 99, |_| true, &mut random).is_empty());
    }

    #[test]
    fn whoever_fails_long_is_forgotten_unless_nobody_can_be_reached() {
        let now = Instant::now();
        let (mut known, peers) = acquainted(2, now);
        let late = UNIX + 1 + MAX_UNSEEN;
        for _ in 0..100 {
            known.missed(&peers[0], true, late);
            known.missed(&peers[1], false, late - 1);
        }
        assert_eq!(known.entries.len(), 2);
        known.missed(&peers[1], false, late);
        assert!(!known.entries.contains_key(&peers[1]));
        for _ in 1..MAX_FAILURES {
            known.missed(&peers[0], false, late);
        }
        known.met(peers[0], at("/ip4/11.0.1.1/tcp/1"), now, late);
        known.missed(&peers[0], false, late + MAX_UNSEEN);
        assert!(known.entries.contains_key(&peers[0]), "it was reached in between");
        known.forget(&peers[0]);
        assert!(known.entries.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_friends_do_not_give_way_to_floods() {
        let now = Instant::now();
        let (mut known, peers) = acquainted(MAX_PEERS as u64, now);
        for number in 0..1000 {
            known.met(PeerId::random(), at(&format!("/ip4/99.{}.1.1/tcp/1", number % 256)), now, UNIX + 999);
        }
        assert!(peers.iter().all(|peer| known.entries.contains_key(peer)));
        // One that fails gives way, and then one that was not seen for a day: the one seen first.
        known.missed(&peers[7], false, UNIX);
        known.met(PeerId::random(), at("/ip4/99.1.1.1/tcp/1"), now, UNIX + 999);
        assert!(!known.entries.contains_key(&peers[7]));
        known.still(peers[1..].iter(), UNIX + STALE);
        known.met(PeerId::random(), at("/ip4/99.2.1.1/tcp/1"), now, UNIX + STALE);
        assert!(!known.entries.contains_key(&peers[0]) && known.entries.len() == MAX_PEERS);

        let mut known = Remembered::new(Vec::new(), MINUTE, now, UNIX);
        for host in 0..100 {
            known.met(PeerId::random(), at(&format!("/ip4/11.1.1.{host}/tcp/1")), now, UNIX);
            known.met(PeerId::random(), at(&format!("/ip4/10.1.1.{host}/tcp/1")), now, UNIX);
        }
        assert_eq!(known.entries.len(), MAX_OF_GROUP + 100);
        let many = (1..=20).map(|port| format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap());
        let long = format!("/dns4/{}/tcp/1", "x".repeat(MAX_ADDRESS)).parse().unwrap();
        let one = PeerId::random();
        known.met(one, std::iter::once(long).chain(many).collect(), now, UNIX);
        assert_eq!(known.entries[&one].peer.addresses.len(), MAX_ADDRESSES);
        known.met(PeerId::random(), Vec::new(), now, UNIX);
        assert_eq!(
            known.entries.len(),
            MAX_OF_GROUP + 101,
            "without an address there is nothing to remember"
        );
    }

    #[test]
    fn it_is_saved_once_a_minute_when_it_changed_and_at_the_end() {
        let now = Instant::now();
        let (mut known, peers) = acquainted(3, now);
        let saved = known.take_news(now, false).unwrap();
        assert_eq!(saved.len(), 3);
        assert_eq!(known.take_news(now + SAVE_EVERY, true), None);
        known.missed(&peers[0], false, UNIX);
        assert_eq!(known.take_news(now + SAVE_EVERY - SECOND, false), None);
        assert!(known.take_news(now + SAVE_EVERY - SECOND, true).is_some());
        known.still(peers.iter(), UNIX + COARSE / 2);
        assert_eq!(
            known.take_news(now + SAVE_EVERY * 9, false),
            None,
            "that it is still there is news seldom"
        );
        // What was saved is what a later run begins with, whatever its clock says.
        let mut again = Remembered::new(saved, MINUTE, now, UNIX - 5);
        assert!(again.entries.values().all(|entry| entry.peer.seen == UNIX - 5));
        assert_eq!(again.alone(now, 0.0).len(), 3);
    }
}
