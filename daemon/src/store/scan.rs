//! Reading a segment header by header, whatever is in it.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::disk::File;
use super::record::{BLOCK, BLOCK_SIZE, Header, StoreKey};

/// Read ahead when headers follow each other: 16 blocks.
const WINDOW: usize = 16 * BLOCK_SIZE;

/// Calls `each` with every valid header at or after `from`, and where it stands. A block that is no header
/// never ends the scan, it goes on at the next one; holes are skipped. Gives the blocks that could not be read.
pub(super) fn scan(
    file: &dyn File,
    segment: u32,
    store: &StoreKey,
    from: u64,
    mut each: impl FnMut(&Header, u64) -> ControlFlow<()>,
) -> std::io::Result<Vec<u64>> {
    let mut unread = Vec::new();
    let length = file.length()?;
    let mut window = Window { start: 0, bytes: Bytes::new() };
    let mut offset = from.next_multiple_of(BLOCK);
    while offset < length {
        let block = match window.block(file, offset) {
            Ok(block) => block,
            Err(error) => {
                tracing::warn!(segment, offset, %error, "a block of a segment cannot be read; it is passed over");
                unread.push(offset);
                offset += BLOCK;
                continue;
            }
        };
        if let Some(header) = Header::read(&block, store, segment, offset) {
            if each(&header, offset).is_break() {
                break;
            }
            offset += header.footprint();
        } else if block.iter().all(|byte| *byte == 0) {
            match file.next_data(offset)? {
                // Data begins in blocks of the file system, which may be smaller than ours.
                Some(at) => offset = (at / BLOCK * BLOCK).max(offset + BLOCK),
                None => break,
            }
        } else {
            offset += BLOCK;
        }
    }
    Ok(unread)
}

/// The part of the file that was read last.
struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    /// The block at `offset`; shorter at the end of the file.
    fn block(&mut self, file: &dyn File, offset: u64) -> std::io::Result<Bytes> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset >= end {
            // One block after a jump; more when the last window was used up to its end.
            let ahead = if offset == end { file.read_at(offset, WINDOW).ok() } else { None };
            // Blocks that can be read are not to be missed for one behind them that cannot.
            self.bytes = ahead.map_or_else(|| file.read_at(offset, BLOCK_SIZE), Ok)?;
            self.start = offset;
        }
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let rest = self.bytes.slice(at.min(self.bytes.len())..);
        Ok(rest.slice(..rest.len().min(BLOCK_SIZE)))
    }
}
