//! What people are told of a plan: who holds how much, and what nobody does.

use super::{PeerNo, Planner};

impl Planner {
    /// How many data chunks a peer says that it holds; `None` when it has not said, or is not here. Costs a look at
    /// each word of its bitmap.
    #[must_use]
    pub fn holds(&self, peer: PeerNo) -> Option<u64> {
        let (holding, chunks) = (&self.peers.get(&peer)?.holding, self.chunks.count());
        if holding.is_whole() {
            return Some(chunks);
        }
        let held: u64 = (0..chunks.div_ceil(64)).map(|word| u64::from(holding.word(word).count_ones())).sum();
        (held > 0).then_some(held)
    }

    /// How many of the wanted chunks are not here and are held by nobody here, as far as they say. Costs a look at each
    /// that is missing.
    #[must_use]
    pub fn unheld(&self) -> u64 {
        self.missing().filter(|chunk| self.holders.count(*chunk) == 0).count() as u64
    }
}
