//! When a network has grown since few were told of something because few were known.
//!
//! Owns: the arithmetic. Pure. Refuses: to announce again for each node that comes: twice as many must be known.
//! Survives a crash: nothing; after a restart all that was announced is taken to have been told to enough, until its
//! turn.

use crate::dht::regions::K;

/// What is known of the growth.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Nodes that were known when what few had been told was last announced again; fewer, where since then few were
    /// told because fewer were known. `None` where few have never been told of anything.
    known: Option<usize>,
}

impl Growth {
    /// Few were told of something, when so many were known.
    pub(super) fn few(&mut self, known: usize) {
        self.known = Some(self.known.map_or(known, |before| before.min(known)));
    }

    /// Whether what few were told is to be announced again, now that so many are known.
    pub(super) fn is_due(&self, known: usize) -> bool {
        self.known.is_some_and(|before| before < K && known >= (2 * before).clamp(1, K))
    }

    /// It is announced again, to so many.
    pub(super) fn told(&mut self, known: usize) {
        self.known = Some(known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_grows_is_told_again_a_few_times_only() {
        let (mut growth, mut told) = (Growth::default(), Vec::new());
        assert!(!growth.is_due(K));
        growth.few(1);
        for known in (0..200).chain(0..200) {
            if growth.is_due(known) {
                growth.told(known);
                told.push(known);
            }
            assert!(!growth.is_due(known));
        }
        assert_eq!(told, [2, 4, 8, 16, 20]);
        // Others have gone, and with them those who had been told.
        growth.few(3);
        assert!(!growth.is_due(5) && growth.is_due(6));
    }
}
