//! What look-ups came to, in a table.

use std::time::{Duration, Instant};

use crate::node::Found;
use crate::world::World;

/// Prints rows, and remembers whether every bound has held.
pub(crate) struct Table {
    held: bool,
    begun: Instant,
}

impl Table {
    pub(crate) fn new() -> Self {
        println!(
            "{:>6}  {:<34} {:>8} {:>8} {:>8} {:>9} {:>9} {:>6} {:>6} {:>7} {:>6}",
            "nodes",
            "what",
            "look-ups",
            "found %",
            "p50 ms",
            "p99 ms",
            "questions",
            "to 1st",
            "conns",
            "routed",
            "s"
        );
        Self { held: true, begun: Instant::now() }
    }

    /// Tells what look-ups came to; at least `bound` percent of them must have found who they looked for.
    pub(crate) async fn row(&mut self, world: &World, what: &str, found: &[Found], bound: f64) {
        let good = found.iter().filter(|one| one.after.is_some()).count();
        let percent = 100.0 * good as f64 / found.len().max(1) as f64;
        let is_held = percent >= bound && !found.is_empty();
        self.held &= is_held;
        let after = sorted(found.iter().filter_map(|one| one.after));
        let questions = sorted(found.iter().map(|one| one.questions));
        let ms = |at| quantile(&after, at).map_or(0.0, |time: Duration| time.as_secs_f64() * 1e3);
        let (connected, routed) = world.density().await;
        println!(
            "{:>6}  {what:<34} {:>8} {percent:>8.2} {:>8.0} {:>9.0} {:>9} {connected:>9.0} {routed:>7.0} {:>6.0}{}",
            world.nodes.len(),
            found.len(),
            ms(50),
            ms(99),
            quantile(&questions, 50).unwrap_or(0),
            self.begun.elapsed().as_secs_f64(),
            if is_held { String::new() } else { format!("  MISSED: at least {bound} %") },
        );
    }

    /// Something that must hold.
    pub(crate) fn bound(&mut self, is_held: bool, otherwise: &str) {
        self.held &= is_held;
        if !is_held {
            println!("        MISSED: {otherwise}");
        }
    }

    /// Whether every bound has held.
    pub(crate) fn held(&self) -> bool {
        self.held
    }
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = values.collect();
    all.sort_unstable();
    all
}

/// The `at`th of a hundred.
fn quantile<T: Copy>(sorted: &[T], at: usize) -> Option<T> {
    let place = sorted.len() * at / 100;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied()
}
