//! Waiting for a condition instead of for a time.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long anything may take that takes under a second on an idle machine. Not a promise that is tested: only
/// what ends a test that would hang.
pub const LONG: Duration = Duration::from_secs(60);

/// Between two looks: short beside what is waited for, long beside what a look costs.
const BETWEEN: Duration = Duration::from_millis(10);

/// Looks until `look` gives something, at most for `limit`; then panics, naming `what` was waited for.
#[track_caller]
pub fn until<T>(what: impl Display, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(BETWEEN);
    }
}
