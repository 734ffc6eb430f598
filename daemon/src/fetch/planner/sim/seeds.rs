//! Thousands of networks.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::optimum::{fluid, grain};
use super::{Host, Network, Outcome, World};

/// Replays one seed.
const SEED: &str = "CASD_SIM_SEED";

/// How many seeds to run instead of the suite's short form.
const COUNT: &str = "CASD_SIM_SEEDS";

/// Networks of each kind.
const SEEDS: u64 = 300;

/// The most that an honest network may take, as a multiple of the fluid optimum beyond [`grain`].
const FACTOR: f64 = 1.5;

/// Runs one kind of network over all seeds, or over the one that is asked for.
fn each(draw: impl Fn(u64) -> Network, mut judge: impl FnMut(u64, &Network, &Outcome)) {
    let only: Option<u64> = std::env::var(SEED).ok().map(|seed| seed.parse().unwrap());
    let count = std::env::var(COUNT).map_or(SEEDS, |count| count.parse().unwrap());
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let run = catch_unwind(AssertUnwindSafe(|| {
            let network = draw(seed);
            if only.is_some() {
                println!("{network:#?}");
            }
            let outcome = World::run(network.clone(), only.is_some());
            judge(seed, &network, &outcome);
        }));
        if let Err(panic) = run {
            eprintln!("failed with {SEED}={seed}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn honest_networks_finish_near_the_fluid_optimum() {
    let mut ratios = Vec::new();
    each(Network::honest, |seed, network, outcome| {
        assert!(outcome.missing.is_empty(), "honest hosts brought everything");
        let (fluid, grain, time) = (fluid(network), grain(network), outcome.time.as_secs_f64());
        let ratio = (time - grain) / fluid;
        ratios.push((ratio, time / fluid, seed, fluid, grain));
    });
    ratios.retain(|r| r.3 > 10.0);
    if ratios.is_empty() {
        // One short fetch, replayed.
        return;
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let at = |part: f64| ratios[((ratios.len() - 1) as f64 * part) as usize];
    println!("beyond the grain: median {:.3}, p99 {:.3}, worst {:?}", at(0.5).0, at(0.99).0, at(1.0));
    for r in &ratios[ratios.len().saturating_sub(10)..] {
        println!("{r:?}");
    }
    assert!(at(1.0).0 <= FACTOR, "{SEED}={} took too long: {:?}", at(1.0).2, at(1.0));
}

/// Nine of ten lie: what each of them is asked for is lost, and it is asked for no more.
#[test]
fn nine_liars_of_ten_cost_little() {
    let (chunks, delay) = (300, Duration::from_millis(20));
    let honest = || Host::whole(chunks, 100, delay);
    let alone = World::run(Network::new(chunks, vec![honest()]), false);
    for seed in 0..100 {
        let liar = || Host { bad: 100, ..honest() };
        let mut hosts: Vec<Host> = (0..9).map(|_| liar()).collect();
        let at = usize::try_from(seed % 10).unwrap();
        hosts.insert(at, honest());
        let mut network = Network::new(chunks, hosts);
        (network.seed, network.plan.seed) = (seed, seed);
        let among = World::run(network, false);
        let ratio = among.time.as_secs_f64() / alone.time.as_secs_f64();
        assert!(among.missing.is_empty() && ratio <= 1.3, "seed {seed}: {ratio:.2} times as long");
        // That none is believed is seen by what is here; and none is asked for more than it was at first.
        for liar in (0..10).filter(|host| *host != at) {
            let asked = among.asked.iter().filter(|(_, peer, _)| peer.0 as usize == liar).count();
            assert!(asked <= 4, "seed {seed}: {asked} chunks of a liar");
        }
    }
}

/// Networks that once hung, or were given up although they could end.
#[test]
fn what_went_wrong_once_ends_well() {
    let wild =
        [111, 2183, 2310, 7468, 8318, 12424, 13122, 13835, 17463, 17472, 17719, 17820, 19512, 19882, 33155];
    for seed in wild {
        World::run(Network::wild(seed), false);
    }
    for seed in [276, 442, 9041, 9775, 26165] {
        World::run(Network::rough(seed), false);
    }
}

#[test]
fn wild_networks_end_well() {
    end_well(Network::wild);
}

#[test]
fn rough_networks_end_well() {
    end_well(Network::rough);
}

fn end_well(draw: impl Fn(u64) -> Network) {
    let (mut done, mut stalled) = (0, 0);
    each(draw, |_, _, outcome| {
        *(if outcome.missing.is_empty() { &mut done } else { &mut stalled }) += 1;
    });
    println!("{done} done, {stalled} stalled");
}
