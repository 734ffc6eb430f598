//! How far the scrub is, on disk: a small file that may be deleted.
//!
//! Format: "casdscr1", seventeen numbers of 8 bytes, little endian, and the first 16 bytes of the BLAKE3 of all that.
//! It is replaced by a rename and not synced: what a power cut tears fails its sum, and then the pass begins anew.

use std::fs;
use std::io;
use std::path::Path;

use crate::store::Cursor;
use crate::support::file::replace;
use crate::upkeep::run::Tally;

const MAGIC: &[u8; 8] = b"casdscr1";
const NUMBERS: usize = 17;
const SUMMED: usize = 8 + NUMBERS * 8;
const SUM: usize = 16;

/// What outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// Whether an administrator has paused it.
    pub(super) paused: bool,
    /// When the pass that is going on began, in Unix seconds; 0: none is.
    pub(super) begun: u64,
    /// How far that one is.
    pub(super) cursor: Cursor,
    /// What it came to so far.
    pub(super) tally: Tally,
    /// When the next pass is due, when none is going on.
    pub(super) next: u64,
    /// When the last one ended; 0: never.
    pub(super) ended: u64,
    /// What that one came to.
    pub(super) last: Tally,
}

/// What the file says; the beginning when there is none, or none that can be read.
pub(super) fn load(file: &Path) -> Saved {
    fs::read(file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default()
}

/// Replaces the file.
pub(super) fn save(file: &Path, saved: &Saved) -> io::Result<()> {
    replace(file, &encode(saved))
}

fn numbers(tally: &Tally) -> [u64; 5] {
    [tally.bytes, tally.records, tally.bad, tally.repaired, tally.unrepairable]
}

fn encode(saved: &Saved) -> Vec<u8> {
    let Saved { paused, begun, cursor, tally, next, ended, last } = saved;
    let head = [u64::from(*paused), *begun, cursor.segment.into(), cursor.offset.into(), *next, *ended];
    let spare = [0];
    let mut out = MAGIC.to_vec();
    for number in head.into_iter().chain(numbers(tally)).chain(numbers(last)).chain(spare) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let sum = blake3::hash(&out);
    out.extend_from_slice(&sum.as_bytes()[..SUM]);
    out
}

fn decode(bytes: &[u8]) -> Option<Saved> {
    let (summed, sum) = bytes.split_at_checked(SUMMED)?;
    if sum != &blake3::hash(summed).as_bytes()[..SUM] {
        return None;
    }
    let words = summed.strip_prefix(MAGIC)?.chunks_exact(8);
    let words: Vec<u64> = words.filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?))).collect();
    let tally = |at: usize| {
        let [bytes, records, bad, repaired, unrepairable] = words.get(at..at + 5)?.try_into().ok()?;
        Some(Tally { bytes, records, bad, repaired, unrepairable })
    };
    let cursor = Cursor { segment: u32::try_from(words[2]).ok()?, offset: u32::try_from(words[3]).ok()? };
    let paused = words[0] == 1;
    Some(Saved {
        paused,
        begun: words[1],
        cursor,
        tally: tally(6)?,
        next: words[4],
        ended: words[5],
        last: tally(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_and_what_is_torn_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache/scrub");
        assert_eq!(load(&file), Saved::default());
        let tally = Tally { bytes: 1, records: 2, bad: 3, repaired: 4, unrepairable: 5 };
        let last = Tally { bytes: 6, ..tally };
        let cursor = Cursor { segment: 7, offset: 4096 };
        let saved = Saved { paused: true, begun: 8, cursor, tally, next: 9, ended: 10, last };
        save(&file, &saved).unwrap();
        assert_eq!(load(&file), saved);
        let whole = fs::read(&file).unwrap();
        assert_eq!(decode(&crate::golden::is("scrub", &whole)), Some(saved));
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert_eq!(decode(&torn), None, "byte {at}");
            assert_eq!(decode(&whole[..at]), None, "byte {at}");
        }
    }
}
