//! What every room stands on: spawning and joining tasks, a bounded pool for blocking work, shutdown,
//! readiness, systemd, telemetry, rate limits, allowances of many sources and small files.
//!
//! Owns: the only places that spawn. Refuses: anything that knows what casd is for. Survives a crash:
//! nothing, it keeps no state.

pub mod allowance;
pub mod file;
pub mod pool;
pub mod rate;
pub mod ready;
pub mod shutdown;
pub mod systemd;
pub mod task;
pub mod telemetry;
pub mod text;
pub mod turn;

/// The time in Unix seconds, 0 for a clock before 1970.
#[must_use]
pub fn unix_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
