//! Which batches of a source have been taken: a sliding window over their numbers.
//!
//! Owns: the highest number seen and a bit for each of the 64 up to it (the anti-replay window of RFC 4303,
//! §3.4.3), so that batches may overtake each other but none counts twice. Pure.
//! Refuses: numbers seen before or too far behind. Survives a crash: nothing.

/// The window of one source. Starts empty: any number is new.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The highest number seen.
    highest: u64,
    /// Bit n: `highest - n` has been seen.
    seen: u64,
}

impl Window {
    /// Takes `number` if it is new; otherwise tells the highest seen.
    pub(super) fn admit(&mut self, number: u64) -> Result<(), u64> {
        if self.seen == 0 || number > self.highest {
            let ahead = if self.seen == 0 { u64::from(u64::BITS) } else { number - self.highest };
            let shift = u32::try_from(ahead).unwrap_or(u64::BITS);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.highest = number;
            return Ok(());
        }
        let bit = u32::try_from(self.highest - number).ok().and_then(|behind| 1u64.checked_shl(behind));
        match bit {
            Some(bit) if self.seen & bit == 0 => {
                self.seen |= bit;
                Ok(())
            }
            _ => Err(self.highest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert_eq, proptest};
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn each_number_counts_once(numbers in proptest::collection::vec(0u64..200, 1..300)) {
            let mut window = Window::default();
            let (mut seen, mut highest) = (HashSet::new(), 0);
            for number in numbers {
                let expected = seen.is_empty() || (number + 64 > highest && !seen.contains(&number));
                prop_assert_eq!(window.admit(number).is_ok(), expected);
                if expected {
                    seen.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }

    #[test]
    fn far_jumps_do_not_overflow() {
        let mut window = Window::default();
        assert!(window.admit(0).is_ok());
        assert!(window.admit(u64::MAX).is_ok());
        assert_eq!(window.admit(0), Err(u64::MAX));
        assert_eq!(window.admit(u64::MAX), Err(u64::MAX));
    }
}
