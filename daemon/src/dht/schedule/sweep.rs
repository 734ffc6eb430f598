//! When which part of the key space has its turn.
//!
//! Owns: the arithmetic. Pure: minutes since 1970 come in. Refuses: nothing. Survives a crash: nothing is to be
//! remembered: the turn of a part depends on the time of day and on the node.

use std::time::Duration;

use libp2p::PeerId;

use crate::dht::holdings::{Due, Minute};
use crate::dht::position::Position;

/// Parts of the key space, and so turns of a cycle: what is known of the nodes is used for a whole part.
const PARTS: u32 = 48;

/// One node's sweep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// Minutes of a cycle, half of what a record lives; at least [`PARTS`].
    cycle: Minute,
    /// Where in its cycle this node was in minute 0, so that not all nodes sweep the same part at once.
    offset: Minute,
}

impl Sweep {
    /// The sweep of `node` for records that live for `lifetime`.
    pub(super) fn new(node: &PeerId, lifetime: Duration) -> Self {
        let cycle = u32::try_from(lifetime.as_secs() / 120).unwrap_or(u32::MAX / 4).max(PARTS);
        let offset = u32::try_from(Position::of_peer(node).top() % u64::from(cycle)).unwrap_or(0);
        Self { cycle, offset }
    }

    /// What is due at `now`: in the present part what is older than half a cycle, and anywhere what missed its turn.
    pub(super) fn due(&self, now: Minute) -> Due {
        let (part, size) = (u64::from(self.part(now)), u64::MAX / u64::from(PARTS));
        let last = if part + 1 == u64::from(PARTS) { u64::MAX } else { (part + 1) * size - 1 };
        Due {
            objects_only: false,
            // Old enough that its turn is over: a cycle and a half, and a turn for luck.
            anywhere: now.saturating_sub(self.cycle / 2 * 3 + 2 * self.turn()),
            within: now.saturating_sub(self.cycle / 2),
            // What is announced while all that is due is gone through is no later than that.
            beyond: now.saturating_add(self.cycle / 8),
            arc: (part * size, last),
            thin: false,
        }
    }

    /// What was announced before this, has not been for so long that others have dropped it, or soon will.
    pub(super) fn overdue(&self, now: Minute) -> Minute {
        now.saturating_sub(self.cycle / 8 * 15)
    }

    /// How long the present turn still is.
    pub(super) fn left(&self, now: Minute) -> Duration {
        let gone = now.wrapping_add(self.offset) % self.cycle % self.turn();
        Duration::from_secs(60 * u64::from(self.turn() - gone))
    }

    fn part(&self, now: Minute) -> u32 {
        (now.wrapping_add(self.offset) % self.cycle / self.turn()).min(PARTS - 1)
    }

    /// Minutes of a turn.
    fn turn(&self) -> Minute {
        self.cycle / PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::holdings::Holdings;
    use crate::peer::{Key, Kind};

    /// Announces as a schedule does, looking once a turn, for `cycles`; gives the oldest that a key ever was and the
    /// most that were announced in a turn of the last cycle.
    fn live(keys: u32, cycles: u32, is_down: impl Fn(Minute) -> bool) -> (Minute, usize) {
        let sweep = Sweep::new(&PeerId::random(), Duration::from_hours(48));
        let (mut holdings, mut now, mut last) = (Holdings::new(100_000), 30_000_000, Vec::new());
        for number in 0..keys {
            let key: Key = *blake3::hash(&number.to_le_bytes()).as_bytes();
            assert!(holdings.hold(&key, Kind::Chunk));
        }
        let (begun, mut oldest) = (now, 0);
        while now < begun + cycles * sweep.cycle {
            let pause = u32::try_from(sweep.left(now).as_secs() / 60).unwrap();
            if !is_down(now - begun) {
                let due = holdings.due(None, usize::MAX, usize::MAX, &sweep.due(now));
                for (key, _) in &due.keys {
                    holdings.placed(key, now);
                }
                last.push(due.keys.len());
            }
            now += pause;
            let ages = holdings.page(None, usize::MAX).0.into_iter().map(|(_, _, minute)| now - minute);
            oldest = oldest.max(ages.max().unwrap());
        }
        (oldest, last.into_iter().rev().take(PARTS as usize).max().unwrap())
    }

    #[test]
    fn what_was_added_at_once_is_spread_over_a_cycle_and_never_late() {
        let (oldest, most) = live(4_800, 4, |_| false);
        assert!(oldest <= 24 * 60 / 2 * 3 + 30, "{oldest}");
        assert!((100..200).contains(&most), "{most}");
    }

    #[test]
    fn what_missed_its_turn_is_made_up_for_when_it_is_late_and_not_before() {
        // Off for an hour in each day: nobody drops a record.
        let (oldest, _) = live(4_800, 6, |minute| minute % 1_440 < 60 && minute > 1_440);
        assert!(oldest < 48 * 60, "{oldest}");
        // Off for three days: all are late, and all are announced at once when it is back.
        let (oldest, _) = live(480, 6, |minute| (1_440..5_760).contains(&minute));
        assert!(oldest >= 48 * 60, "{oldest}");
    }

    #[test]
    fn what_was_announced_when_the_clock_was_ahead_is_due() {
        let (sweep, now) = (Sweep::new(&PeerId::random(), Duration::from_hours(48)), 30_000_000);
        let (mut holdings, day) = (Holdings::new(10), 24 * 60);
        for (number, ahead) in (0..).zip([0, 60, day, 3_650 * day]) {
            let key: Key = *blake3::hash(&u32::to_le_bytes(number)).as_bytes();
            holdings.restore(&key, Kind::Object, now + ahead);
        }
        let due = holdings.due(None, usize::MAX, usize::MAX, &sweep.due(now)).keys;
        assert_eq!(due.len(), 2);
        for (key, _) in &due {
            holdings.placed(key, now);
        }
        assert!(holdings.due(None, usize::MAX, usize::MAX, &sweep.due(now)).keys.is_empty());
    }

    #[test]
    fn parts_cover_the_space_and_turns_end() {
        let sweep = Sweep::new(&PeerId::random(), Duration::from_hours(48));
        let (mut now, mut arcs) = (29_000_000, Vec::new());
        for _ in 0..PARTS {
            arcs.push(sweep.due(now).arc);
            let left = sweep.left(now);
            assert!((60..=1_800).contains(&left.as_secs()));
            now += u32::try_from(left.as_secs() / 60).unwrap();
        }
        arcs.sort_unstable();
        assert_eq!((arcs[0].0, arcs[47].1), (0, u64::MAX));
        assert!(arcs.windows(2).all(|two| two[0].1 + 1 == two[1].0));
    }
}
