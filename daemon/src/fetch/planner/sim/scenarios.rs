//! Networks by name, each with the share of the fluid optimum that the planner reaches there.

use std::time::Duration;

use super::super::{Bits, Order};
use super::network::MBIT;
use super::optimum::fluid;
use super::{Entry, Host, Network, Outcome, World};
use crate::content::CHUNK_LEN;

/// 256 MiB, as the bench moves.
const CHUNKS: u64 = 256;

/// One way on a local network.
const NEAR: Duration = Duration::from_micros(200);

const SECOND: Duration = Duration::from_secs(1);

fn host(mbits: u64) -> Host {
    Host::whole(CHUNKS, mbits, NEAR)
}

/// What hosts can do at best, in seconds.
fn best(hosts: &[Host]) -> f64 {
    fluid(&Network::new(hosts[0].holds.len(), hosts.to_vec()))
}

/// Runs a network, which brings everything and is as fast as this `share` of the `best` that there is.
fn reaches(share: f64, what: &str, network: Network, best: f64) -> Outcome {
    let outcome = World::run(network, false);
    let time = outcome.time.as_secs_f64();
    println!("{what}: {time:.3} s, at best {best:.3} s, {:.1} %", 100.0 * best / time);
    assert!(outcome.missing.is_empty(), "{what}: {:?} are missing", outcome.missing);
    assert!(best / time >= share, "{what}: {time:.3} s, at best {best:.3} s");
    outcome
}

/// A reader that takes what comes, in order.
fn read(mut network: Network) -> Network {
    network.plan.order = Order::InOrder { window: 64 };
    network.reads = Some(Duration::from_millis(1));
    network
}

#[test]
fn four_hosts_are_used_to_98_percent_even_or_one_slow_or_cut() {
    let four = vec![host(100); 4];
    reaches(0.98, "even", Network::new(CHUNKS, four.clone()), best(&four));
    let mut slow = four.clone();
    slow[0] = host(1);
    reaches(0.98, "slow", Network::new(CHUNKS, slow.clone()), best(&slow));
    let mut cut = four;
    cut[0].stalls = Some(2 * SECOND);
    // Four for two seconds, then three.
    let (bytes, rate) = ((CHUNKS * CHUNK_LEN) as f64, (100 * MBIT) as f64);
    let ideal = 2.0 + (bytes - 2.0 * 4.0 * rate) / (3.0 * rate);
    reaches(0.98, "cut", Network::new(CHUNKS, cut.clone()), ideal);
    // Not silent, but as good as that.
    (cut[0].stalls, cut[0].turns) = (None, Some((2 * SECOND, 10 << 10)));
    reaches(0.97, "slowed down", Network::new(CHUNKS, cut), ideal);
}

#[test]
fn two_liars_beside_four_honest_hosts_leave_them_95_percent() {
    let honest = vec![host(100); 4];
    let liar = Host { bad: 100, ..host(100) };
    for places in [[0, 1], [0, 3], [4, 5]] {
        let mut hosts = honest.clone();
        places.into_iter().for_each(|at| hosts.insert(at, liar.clone()));
        reaches(0.95, "liars", Network::new(CHUNKS, hosts), best(&honest));
    }
}

/// Five hosts that have each chunk twice between them.
fn five_parts() -> Vec<Host> {
    let mut parts = vec![Bits::new(CHUNKS); 5];
    for chunk in 0..CHUNKS {
        let one = chunk % 5;
        let other = (one + 1 + chunk / 5 % 4) % 5;
        for at in [one, other] {
            parts[at as usize].set(chunk);
        }
    }
    parts.iter().map(|holds| Host::part(holds, 100, NEAR)).collect()
}

#[test]
fn of_five_partial_holders_one_may_die() {
    let dies: [fn(&mut Host); 3] = [
        |host| host.stalls = Some(Duration::ZERO),
        |host| host.stalls = Some(SECOND),
        |host| host.leaves = Some(SECOND),
    ];
    let healthy = reaches(0.9, "healthy", Network::new(CHUNKS, five_parts()), best(&five_parts()));
    assert!(healthy.delivered.iter().all(|bytes| *bytes > 0));
    let narrow = |hosts| Network { downlink: 300 * MBIT, ..Network::new(CHUNKS, hosts) };
    let all = reaches(0.9, "healthy, narrow", narrow(five_parts()), fluid(&narrow(five_parts())));
    for die in dies {
        let mut hosts = five_parts();
        let alive = best(&hosts[..4]);
        die(&mut hosts[4]);
        reaches(1.0 / 1.1, "one dead", Network::new(CHUNKS, hosts.clone()), alive);
        reaches(1.0 / 1.1, "one dead, narrow", narrow(hosts), all.time.as_secs_f64());
    }
}

/// Says "have", then stalls, or says next to nothing: one honest host among twenty.
#[test]
fn twenty_that_stall_cost_the_one_that_gives_little() {
    for mbits in [20, 100, 500] {
        let honest = || Host::whole(300, mbits, Duration::from_millis(20));
        let alone = World::run(Network::new(300, vec![honest()]), false).time.as_secs_f64();
        let stalls = Host { stalls: Some(Duration::ZERO), ..honest() };
        let trickles = Host { rate: 1024, ..honest() };
        for (what, bad) in [("among those that stall", stalls), ("among those that trickle", trickles)] {
            for at in [0, 20] {
                let mut hosts = vec![bad.clone(); 20];
                hosts.insert(at, honest());
                reaches(1.0 / 1.2, what, Network::new(300, hosts), alone);
            }
        }
    }
}

#[test]
fn one_far_host_fills_the_link_to_90_percent() {
    let far = |mbits| Host::whole(CHUNKS, mbits, Duration::from_millis(50));
    let hosts = vec![Host { starts_slowly: true, ..far(200) }];
    reaches(0.9, "100 ms at 200 Mbit/s", Network::new(CHUNKS, hosts.clone()), best(&hosts));
    reaches(0.85, "and read in order", read(Network::new(CHUNKS, hosts.clone())), best(&hosts));
    // Once the connection is up to it: five times as much is on its way.
    let fast = vec![Host::whole(2048, 1000, Duration::from_millis(50))];
    reaches(0.95, "100 ms at 1 Gbit/s", Network::new(2048, fast.clone()), best(&fast));
}

#[test]
fn a_slow_holder_that_is_the_only_one_is_waited_for() {
    let hosts = vec![Host { rate: 8 << 10, ..Host::whole(3, 1, NEAR) }];
    let outcome = reaches(0.98, "8 KiB/s", Network::new(3, hosts.clone()), best(&hosts));
    assert_eq!((outcome.asks, outcome.cancels), (3, 0), "each chunk is begun once");
    assert!(outcome.silence < 10 * SECOND, "{:?} without progress", outcome.silence);
}

#[test]
fn a_slow_holder_holds_up_nobody() {
    let hosts = vec![Host { rate: 8 << 10, ..host(100) }, host(100)];
    reaches(0.98, "beside one of 8 KiB/s", Network::new(CHUNKS, hosts.clone()), best(&hosts));
    let outcome = reaches(0.9, "and read", read(Network::new(CHUNKS, hosts.clone())), best(&hosts));
    assert!(outcome.first < Some(SECOND), "the reader waits {:?}", outcome.first);
    // One chunk at it, and what it is tried with when its measure has become old.
    assert!(outcome.cancels < 10, "{} cancels", outcome.cancels);
}

#[test]
fn parity_is_chosen_over_waiting() {
    let mut most = Bits::full(128);
    (0..8).for_each(|stripe| _ = most.clear(stripe * 16 + 5));
    let all = Host { parity: true, ..Host::part(&Bits::full(128), 100, NEAR) };
    let fast = Host { holds: most.clone(), claims: most, ..all };
    // All that the fast one brings is as good as if it had everything.
    let alone = best(std::slice::from_ref(&all));
    let slow = Host { rate: MBIT, parity: false, ..all.clone() };
    let stalls = Host { stalls: Some(Duration::ZERO), ..all };
    for slow in [slow, stalls] {
        let network = Network::new(128, vec![fast.clone(), slow]).with_parity();
        let outcome = reaches(0.9, "with parity", network.clone(), alone);
        assert!(outcome.rebuilds >= 6, "{} rebuilds", outcome.rebuilds);
        reaches(0.85, "with parity, and read", read(network), alone);
    }
}

#[test]
fn holders_that_grow_come_and_go_are_used_as_they_are() {
    let four = vec![host(100); 4];
    let grows = |host: &Host| Host { grows: Some(SECOND / 5), ..host.clone() };
    let growing = four.iter().map(grows).collect();
    reaches(0.95, "growing", Network::new(CHUNKS, growing), best(&four));
    let goes = Host { leaves: Some(SECOND), ..host(100) };
    let comes = Host { entry: Entry::At(SECOND), ..host(100) };
    let hosts = vec![host(100), host(100), goes.clone(), goes, comes.clone(), comes];
    reaches(0.95, "two for two", Network::new(CHUNKS, hosts), best(&four));
}

#[test]
fn lost_packets_cost_what_they_cost() {
    let four = vec![Host { loss: 3, ..host(100) }; 4];
    reaches(0.8, "three chunks of a hundred are held up", Network::new(CHUNKS, four.clone()), best(&four));
}
