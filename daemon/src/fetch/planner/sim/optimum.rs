//! The fluid optimum: the least time in which honest hosts could bring everything, if chunks could be split at will
//! and nothing took any delay.
//!
//! Some hosts `A` alone hold certain chunks; they cannot bring those sooner than their bytes over the rates of
//! `A`. By the max-flow min-cut theorem the largest such quotient over all sets of hosts is reached, together
//! with the downlink's. A host's rate is bounded by its credits over its round trip as well.

use crate::content::CHUNK_LEN;

use super::Network;

/// Seconds.
pub(super) fn fluid(network: &Network) -> f64 {
    let rates: Vec<f64> = network.hosts.iter().map(rate).collect();
    let chunks = network.plan.wanted.end;
    let holders = |chunk: u64| {
        let held = network.hosts.iter().enumerate().filter(|(_, host)| host.holds.get(chunk));
        held.map(|(at, _)| 1usize << at).sum::<usize>()
    };
    let holders: Vec<usize> = (0..chunks).map(holders).collect();
    let total = (chunks * CHUNK_LEN) as f64;
    let downlink = if network.downlink == 0 { 0.0 } else { total / network.downlink as f64 };
    (1..1usize << rates.len()).fold(downlink, |worst, set| {
        let alone = holders.iter().filter(|&&of| of & !set == 0).count() as f64 * CHUNK_LEN as f64;
        let rate: f64 =
            rates.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, rate)| rate).sum();
        worst.max(alone / rate)
    })
}

/// What no real fetch can avoid besides: three round trips of the farthest host (to ask, to find out how much its
/// path holds, to end) and one chunk of each that is not split, at the rate of the best host that has it, and
/// over the downlink.
pub(super) fn grain(network: &Network) -> f64 {
    let trips = network.hosts.iter().map(|host| 6.0 * host.delay.as_secs_f64()).fold(0.0, f64::max);
    let best = |chunk: u64| {
        let held = network.hosts.iter().filter(|host| host.holds.get(chunk));
        CHUNK_LEN as f64 / held.map(rate).fold(0.0, f64::max)
    };
    let chunk = (0..network.plan.wanted.end).map(best).fold(0.0, f64::max);
    let downlink = if network.downlink == 0 { 0.0 } else { CHUNK_LEN as f64 / network.downlink as f64 };
    trips + chunk + downlink
}

/// Bytes a second that a host can bring.
fn rate(host: &super::Host) -> f64 {
    let credits = host.credits.bytes.min(u64::from(host.credits.requests) * CHUNK_LEN) as f64;
    let trip = 2.0 * host.delay.as_secs_f64() + CHUNK_LEN as f64 / host.rate as f64;
    (host.rate as f64).min(credits / trip)
}
