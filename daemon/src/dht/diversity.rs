//! Whom a routing table that is full lets go for whom: nobody who has many hosts side by side shall fill it.
//!
//! Owns: that rule. Refuses: a newcomer to a full bucket of whose address group there are enough already. Survives a
//! crash: nothing.
//!
//! Kademlia keeps those that it has known for longest, so that whoever was there first with many ids stays for ever.
//! Ids are cheap, addresses are dearer: where a bucket is full, the most crowded group gives way to a newcomer of
//! another, until no group with more than its share has two more than another that wants in. Where there is room, and
//! among hosts without global addresses, nobody is refused. The share and the figures: decision 11.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use libp2p::kad::NodeStatus;
use libp2p::{Multiaddr, PeerId};

use super::event_loop::EventLoop;
use super::listen::ip_of;
use super::peers::Connected;
use super::records::Group;
use super::regions::K;

/// A node in a bucket, or one that wants to be.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    /// Who.
    peer: PeerId,
    /// Where it says it is and is seen, of global addresses. Each counts: who is in many places gains nothing by it.
    groups: HashSet<Group>,
    /// Whether there is a connection.
    is_connected: bool,
    /// Whether it was there lately.
    is_fresh: bool,
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Kademlia's own rules apply.
    Usual,
    /// It is not taken: there are enough of its group.
    Refused,
    /// It is not taken now: nobody has to go who was there lately.
    Full,
    /// It is taken instead of this one.
    Instead(PeerId),
}

impl Resident {
    /// A node that is there if it `is_connected`, and has been lately if it `is_fresh`.
    pub(super) fn new(
        peer: PeerId,
        places: impl Iterator<Item = IpAddr>,
        is_connected: bool,
        is_fresh: bool,
    ) -> Self {
        Self { peer, groups: places.filter_map(Group::of).collect(), is_connected, is_fresh }
    }
}

/// Whether `newcomer` is taken into `bucket`, in which those that have been connected for longest come first, after
/// those that are not connected. `share`: nodes of one group that nobody need give way to.
pub(super) fn judge(bucket: &[Resident], newcomer: &Resident, share: usize) -> Verdict {
    if bucket.len() < K {
        return Verdict::Usual;
    }
    let mut count = HashMap::<Group, usize>::new();
    bucket.iter().flat_map(|one| &one.groups).for_each(|group| *count.entry(*group).or_default() += 1);
    let crowd =
        |one: &Resident| one.groups.iter().filter_map(|group| count.get(group)).max().copied().unwrap_or(0);
    let own = crowd(newcomer);
    let most = bucket.iter().map(crowd).max().unwrap_or(0);
    if most > share && most > own + 1 {
        let crowded = || bucket.iter().filter(|one| crowd(one) == most);
        // Who is not there, else who came last.
        let gone = crowded().find(|one| !one.is_connected);
        if let Some(one) = gone.or_else(|| crowded().next_back()) {
            return Verdict::Instead(one.peer);
        }
    }
    // Kademlia itself dials the first one, to let it go when it is not there: not for each newcomer.
    if bucket.first().is_some_and(|first| first.is_fresh && !first.is_connected) {
        return Verdict::Full;
    }
    // The newcomer's group does not grow by that when it is its own.
    let is_replaced = bucket.first().is_some_and(|first| newcomer.groups.is_subset(&first.groups));
    if own >= share && !is_replaced { Verdict::Refused } else { Verdict::Usual }
}

impl EventLoop {
    /// Whether a node that says it is at `told` may be put into the routing table. Whoever has to go for it is gone
    /// then.
    pub(super) fn has_place_for(&mut self, peer: PeerId, told: &[Multiaddr]) -> bool {
        let (seen_at, presence) = (&self.peers, &self.presence);
        let (share, now) = (self.options.limits.of_group, Instant::now());
        let resident = |peer: PeerId, told: &mut dyn Iterator<Item = IpAddr>, is_connected| {
            let seen = seen_at.get(&peer).into_iter().flat_map(Connected::remotes).filter_map(ip_of);
            Resident::new(peer, told.chain(seen), is_connected, presence.is_fresh(&peer, now))
        };
        let kad = &mut self.swarm.behaviour_mut().kad;
        let Some(bucket) = kad.kbucket(peer) else { return true };
        let residents: Vec<_> = bucket
            .iter()
            .map(|entry| {
                let is_connected = entry.status == NodeStatus::Connected;
                let mut told = entry.node.value.iter().filter_map(ip_of);
                resident(*entry.node.key.preimage(), &mut told, is_connected)
            })
            .collect();
        if residents.iter().any(|one| one.peer == peer) {
            return true;
        }
        let newcomer = resident(peer, &mut told.iter().filter_map(ip_of), true);
        match judge(&residents, &newcomer, share) {
            Verdict::Usual => true,
            Verdict::Full => false,
            Verdict::Refused => {
                tracing::debug!(%peer, "not taken into the routing table: enough of its neighbours are there");
                false
            }
            Verdict::Instead(other) => {
                tracing::debug!(%peer, %other, "taken into the routing table instead of one of a crowd");
                kad.remove_peer(&other);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};
    use rand::rngs::SmallRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use std::net::Ipv4Addr;

    const SHARE: usize = 2;

    fn node(network: u16, is_connected: bool) -> Resident {
        let [a, b] = network.to_be_bytes();
        // Global ones only.
        let ip = Ipv4Addr::new(20 + a % 64, b, rand::random(), rand::random());
        Resident::new(PeerId::random(), std::iter::once(ip.into()), is_connected, false)
    }

    /// Lets a newcomer in as the table does, where everybody stays connected; whether somebody had to go.
    fn meet(bucket: &mut Vec<Resident>, newcomer: Resident, share: usize) -> bool {
        match judge(bucket, &newcomer, share) {
            Verdict::Usual if bucket.len() < K => bucket.push(newcomer),
            Verdict::Usual | Verdict::Refused | Verdict::Full => {}
            Verdict::Instead(other) => {
                bucket.retain(|one| one.peer != other);
                bucket.push(newcomer);
                return true;
            }
        }
        false
    }

    /// How many of `liars` are in a bucket that met them before, among, or after as many honest nodes.
    fn besieged(networks: u16, order: &str, share: usize, rng: &mut SmallRng) -> usize {
        let liars: Vec<_> = (0..200u16).map(|n| node(n % networks, true)).collect();
        let ids: HashSet<PeerId> = liars.iter().map(|one| one.peer).collect();
        let honest: Vec<_> = (0..200).map(|_| node(rng.random_range(4_000..16_000), true)).collect();
        let mut all = match order {
            "after" => [honest, liars].concat(),
            _ => [liars, honest].concat(),
        };
        if order == "among" {
            all.shuffle(rng);
        }
        let mut bucket = Vec::new();
        all.into_iter().for_each(|one| _ = meet(&mut bucket, one, share));
        bucket.iter().filter(|one| ids.contains(&one.peer)).count()
    }

    /// Prints the figures of decision 11.
    #[test]
    fn few_networks_do_not_fill_a_bucket() {
        let mut rng = SmallRng::seed_from_u64(11);
        println!("liars of 20 in a bucket: networks, order, without and with the rule");
        for networks in [1, 6, 10, 60] {
            for order in ["before", "among", "after"] {
                let runs = 8;
                let mut mean = |share| {
                    let sum: usize = (0..runs).map(|_| besieged(networks, order, share, &mut rng)).sum();
                    sum as f64 / f64::from(runs)
                };
                let (without, with) = (mean(usize::MAX), mean(SHARE));
                println!("{networks:>4} {order:<7} {without:>5.1} {with:>5.1}");
                assert!(with <= without + 2.0 && with <= f64::from(networks) * SHARE as f64);
                assert!(order != "before" || without == K as f64);
            }
        }
    }

    #[test]
    fn a_crowd_gives_way_and_who_is_not_there_goes_first() {
        let mut bucket: Vec<_> = (0..20).map(|n| node(if n < 14 { 1 } else { n }, n > 2)).collect();
        assert_eq!(judge(&bucket, &node(99, true), SHARE), Verdict::Instead(bucket[0].peer));
        bucket.iter_mut().for_each(|one| one.is_connected = true);
        assert_eq!(judge(&bucket, &node(99, true), SHARE), Verdict::Instead(bucket[13].peer), "the newest");
        bucket.rotate_left(15);
        assert_eq!(judge(&bucket, &node(1, true), SHARE), Verdict::Refused);
        assert_eq!(judge(&bucket, &node(1, true), usize::MAX), Verdict::Usual);
        assert_eq!(judge(&bucket[1..], &node(1, true), SHARE), Verdict::Usual, "there is room");
    }

    #[test]
    fn nobody_is_dialled_for_a_newcomer_who_was_there_lately() {
        let mut bucket: Vec<_> = (0..20).map(|n| node(n, n > 9)).collect();
        assert_eq!(judge(&bucket, &node(99, true), SHARE), Verdict::Usual);
        bucket[0].is_fresh = true;
        assert_eq!(judge(&bucket, &node(99, true), SHARE), Verdict::Full);
        // A crowd gives way all the same.
        bucket[..9].iter_mut().for_each(|one| one.groups.clone_from(&node(1, true).groups));
        assert!(matches!(judge(&bucket, &node(99, true), SHARE), Verdict::Instead(_)));
    }

    #[test]
    fn a_network_of_one_group_and_one_without_global_addresses_fare_as_before() {
        let same: Vec<_> = (0..20).map(|_| node(7, false)).collect();
        assert_eq!(judge(&same, &node(7, true), SHARE), Verdict::Usual);
        let private = || Resident::new(PeerId::random(), std::iter::once([10, 1, 2, 3].into()), true, true);
        let near: Vec<_> = (0..20).map(|_| private()).collect();
        assert_eq!(judge(&near, &private(), SHARE), Verdict::Usual);
        assert_eq!(judge(&near, &node(7, true), SHARE), Verdict::Usual);
    }

    #[test]
    fn who_says_to_be_everywhere_counts_everywhere() {
        let bucket: Vec<_> = (0..20).map(|n| node(n / 2, true)).collect();
        let places = (0..9u8).map(|b| IpAddr::from([20, b, 1, 1]));
        let everywhere = Resident::new(PeerId::random(), places, true, true);
        assert_eq!(judge(&bucket, &everywhere, SHARE), Verdict::Refused);
    }

    proptest! {
        /// Each exchange makes the bucket more even, so that there is an end to them.
        #[test]
        fn exchanges_come_to_an_end(networks in proptest::collection::vec(0u16..40, 20..300)) {
            let (mut bucket, mut exchanges) = (Vec::new(), 0);
            let newcomers: Vec<_> = networks.into_iter().map(|network| node(network, true)).collect();
            for _ in 0..3 {
                for one in &newcomers {
                    if !bucket.iter().any(|there: &Resident| there.peer == one.peer) {
                        exchanges += usize::from(meet(&mut bucket, one.clone(), SHARE));
                    }
                }
            }
            prop_assert!(exchanges <= K * K);
            prop_assert!(bucket.len() <= K);
        }
    }
}
