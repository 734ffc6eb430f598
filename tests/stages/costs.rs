//! What something cost: bytes, wall time, processor time; and a row of the table.

use std::time::Instant;

/// Why a stage came to nothing.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Ticks of the processor's account in a second, as Linux shows them to every program.
const TICKS: f64 = 100.0;

/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// What something cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Bytes that went through.
    bytes: u64,
    /// Seconds that passed.
    wall: f64,
    /// Seconds of processor that this process took.
    cpu: f64,
}

/// A watch that runs.
#[derive(Debug)]
pub(crate) struct Watch {
    begun: Instant,
    cpu: f64,
}

impl Watch {
    /// Starts one.
    pub(crate) fn start() -> Self {
        Self { cpu: spent(), begun: Instant::now() }
    }

    /// What has passed since, for so many bytes.
    pub(crate) fn stop(&self, bytes: u64) -> Cost {
        Cost { bytes, wall: self.begun.elapsed().as_secs_f64(), cpu: spent() - self.cpu }
    }
}

impl Cost {
    /// MB a second.
    fn rate(&self) -> f64 {
        self.bytes as f64 / self.wall.max(1e-6) / 1e6
    }
}

/// Seconds of processor that this process has taken, user and system.
fn spent() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS
}

/// Prints a row: what, MB a second (the median, the lowest and the highest), and seconds of processor for a GiB. The
/// first run has warmed up and does not count.
pub(crate) fn show(what: &str, costs: &mut Vec<Cost>) {
    if costs.len() > 1 {
        costs.remove(0);
    }
    costs.sort_by(|one, other| one.rate().total_cmp(&other.rate()));
    let (low, middle, high) = (costs.first(), costs.get(costs.len() / 2), costs.last());
    let (Some(low), Some(middle), Some(high)) = (low, middle, high) else { return };
    let cpu = middle.cpu * GIB / middle.bytes as f64;
    let (rate, low, high, runs) = (middle.rate(), low.rate(), high.rate(), costs.len());
    println!("{what:<44} {rate:8.0} MB/s ({low:.0} to {high:.0} of {runs})   {cpu:5.2} s/GiB");
}
