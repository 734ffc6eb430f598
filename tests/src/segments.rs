//! Records in a store's segments, found as `daemon/docs/storage-format.md` describes them: what rots is chosen here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Records begin at multiples of this.
const BLOCK: u64 = 4096;

/// The kind of a record that is a data chunk.
pub const DATA: u8 = 1;

/// The kind of a record that is a parity chunk.
pub const PARITY: u8 = 2;

/// The kind of a record that is a parity part.
pub const PARITY_PART: u8 = 6;

/// The kind of a record that is a page of a parity part.
pub const PARITY_PAGE: u8 = 7;

/// The kind of a footer.
const FOOTER: u8 = 15;

/// A record with a payload on disk.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it holds.
    pub kind: u8,
    /// Its id, 64 digits.
    pub id: String,
    /// Where its header begins in the file.
    header: u64,
    /// Where its payload begins.
    payload: u64,
    /// How long its payload is.
    length: u64,
}

/// Flips a byte in the middle of the payload of every record below `state` that `choose` wants, while a daemon runs or
/// not. Gives how many.
pub fn rot(state: &Path, choose: impl Fn(&Record) -> bool) -> usize {
    change(state, choose, |file, record| {
        let at = record.payload + record.length / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    })
}

/// Removes the data chunks of these ids below `state`, whose daemon is stopped: zeros from header to end, as the format
/// says. Gives how many.
pub fn remove(state: &Path, ids: &[String]) -> usize {
    change(
        state,
        |record| record.kind == DATA && ids.contains(&record.id),
        |file, record| {
            let end = (record.payload + record.length).next_multiple_of(BLOCK);
            let zeros = vec![0; usize::try_from(end - record.header).unwrap()];
            file.write_all_at(&zeros, record.header).unwrap();
        },
    )
}

/// Appends to the journal and to the last segment below `state` what a write that a crash tore may leave: the beginning
/// of what the same file holds elsewhere, and noise.
pub fn tear(state: &Path, seed: u64) {
    let segments = std::fs::read_dir(state.join("segments")).into_iter().flatten();
    let last = segments.map(|entry| entry.unwrap().path()).max();
    for path in last.into_iter().chain([state.join("journal/journal")]) {
        // Before there is one there is nothing to tear.
        let Ok(file) = File::options().read(true).write(true).open(path) else { continue };
        let end = file.metadata().unwrap().len();
        let mut torn = vec![0; usize::try_from(end.min(BLOCK + 1000)).unwrap()];
        file.read_exact_at(&mut torn, 0).unwrap();
        torn.extend(crate::corpus::bytes(seed, usize::try_from(seed % 9000).unwrap()));
        file.write_all_at(&torn, end).unwrap();
    }
}

fn change(state: &Path, choose: impl Fn(&Record) -> bool, work: impl Fn(&File, &Record)) -> usize {
    let mut changed = 0;
    for entry in std::fs::read_dir(state.join("segments")).unwrap() {
        let file = File::options().read(true).write(true).open(entry.unwrap().path()).unwrap();
        let mut at = 0;
        while let Some((record, end)) = next(&file, at) {
            if let Some(record) = record.filter(|record| choose(record)) {
                work(&file, &record);
                changed += 1;
            }
            at = end;
        }
    }
    changed
}

/// The record at `at`, if there is one, and where to look next. `None` at the end of the file.
fn next(file: &File, at: u64) -> Option<(Option<Record>, u64)> {
    let mut header = [0; 512];
    file.read_exact_at(&mut header, at).ok()?;
    if &header[..8] != b"casd-rec" || header[9] == FOOTER {
        return Some((None, at + BLOCK));
    }
    let length = u64::from(u32::from_le_bytes(header[12..16].try_into().unwrap()));
    let is_zero = header[10] & 1 != 0;
    let payload = if length <= 3584 { at + 512 } else { at + BLOCK };
    let end = if is_zero { at + BLOCK } else { (payload + length).next_multiple_of(BLOCK) };
    let record = Record { kind: header[9], id: hex::encode(&header[24..56]), header: at, payload, length };
    Some((Some(record).filter(|_| !is_zero && length > 0), end))
}
