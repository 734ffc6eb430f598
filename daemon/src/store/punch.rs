//! Giving the room of retired records back.
//!
//! Owns: the order. Holes are punched under a guard that waits for readers, and synced; then the index forgets the
//! records. So a crash leaves either a record that the index knows, or a hole that it drops at the next start: never
//! bytes that nothing knows of. An empty segment is unlinked instead.

use std::io;

use super::Error;
use super::catalog::Catalog;
use super::health::Health;
use super::index::Entry;
use super::record::{BLOCK, Key};
use super::scanner::Found;

/// What cannot be done when it is not known where holes are.
const LOOK: &str = "look for holes";

/// What failed.
enum Failed {
    /// Nothing is lost; the room is not free.
    Punch(io::Error),
    /// What the segment holds may not be what the disk has.
    Sync(io::Error),
}

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Self::Punch(error) => Error::io("punch a hole")(error),
            Self::Sync(error) => Error::io("sync a segment")(error),
        }
    }
}

impl Catalog {
    /// Punches holes where retired records are. `active`: the segment that is being filled. Gives the bytes. Blocks.
    ///
    /// What cannot be punched stays hidden: nobody finds it before the next start, which knows it again.
    pub(super) fn punch(
        &self,
        mut retired: Vec<(Key, Entry)>,
        active: u32,
        health: &Health,
    ) -> Result<u64, Error> {
        if retired.is_empty() {
            return Ok(0);
        }
        health.before_write()?;
        retired.sort_by_key(|(_, entry)| entry.spot);
        let mut freed = 0;
        for run in retired.chunk_by(|(_, a), (_, b)| a.spot.segment == b.spot.segment) {
            let number = run[0].1.spot.segment;
            let mut run = run.to_vec();
            run.extend(self.take_stuck(number));
            run.sort_by_key(|(_, entry)| entry.spot);
            let run = run.as_slice();
            let bytes = run.iter().map(|(_, entry)| entry.footprint()).sum::<u64>();
            // Where a block could not be read there may be records that are not counted.
            let punched = if number != active && self.has_all() && self.space.would_empty(number, bytes) {
                self.unlink(number)
            } else {
                self.punch_segment(number, &run.iter().map(|(_, entry)| *entry).collect::<Vec<_>>())
            };
            match punched {
                Ok(()) => {
                    freed += bytes;
                    self.forget(run)?;
                }
                Err(Failed::Sync(error)) => return Err(health.fail("sync a segment", &error)),
                Err(Failed::Punch(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    self.stick(number, run)?;
                }
                Err(Failed::Punch(error)) => {
                    self.keep_hidden(run);
                    tracing::warn!(segment = number, %error, "a hole could not be punched; its room is not free yet");
                }
            }
        }
        Ok(freed)
    }

    /// Punches what a crash may have left of records that were being punched.
    pub(super) fn punch_again(&self, mut entries: Vec<Entry>) -> Result<(), Error> {
        entries.sort_by_key(|entry| entry.spot);
        for run in entries.chunk_by(|a, b| a.spot.segment == b.spot.segment) {
            match self.punch_segment(run[0].spot.segment, run) {
                Err(Failed::Punch(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                done => done.map_err(Failed::into_error)?,
            }
        }
        Ok(())
    }

    /// As [`Catalog::punch_again`], where the index is lost: what stands behind a hole and belongs to no record. What
    /// stands before one may be a record whose header rotted; it is left for whoever can tell.
    pub(super) fn punch_rests(&self, number: u32, found: &mut Found, health: &Health) -> Result<(), Error> {
        let Some(segment) = self.segments.get(number) else { return Ok(()) };
        let file = self.segments.file(&segment).map_err(Error::io("open a segment"))?;
        let is_unread = |start, end: u64| found.unread.iter().any(|at| (start..end).contains(at));
        for (start, end) in found.gaps.iter().filter(|(start, end)| !is_unread(*start, *end)) {
            // `u64::MAX` where there are no holes.
            let hole = file
                .next_hole(*start)
                .map_err(Error::io(LOOK))?
                .checked_next_multiple_of(BLOCK)
                .unwrap_or(*end);
            let data = if hole < *end { file.next_data(hole).map_err(Error::io(LOOK))? } else { None };
            if data.is_some_and(|data| data >= hole + BLOCK && data < *end) {
                match file.punch(hole, end - hole) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                    done => done.map_err(Error::io("punch a hole"))?,
                }
            }
        }
        found.count(file.as_ref()).map_err(Error::io(LOOK))?;
        drop(file);
        self.keep_holes(number, health)
    }

    /// Makes durable what a killed process punched of a segment, since nothing that comes after looks for it again.
    ///
    /// Where that fails the store is read-only: what failed may be what is just being appended, and whoever appends
    /// would not be told again.
    pub(super) fn keep_holes(&self, number: u32, health: &Health) -> Result<(), Error> {
        let Some(segment) = self.segments.get(number) else { return Ok(()) };
        let file = self.segments.file(&segment).map_err(Error::io("open a segment"))?;
        // A hole whose sync failed in another process may be one in memory only.
        if let Err(error) = file.drop_cache().and_then(|()| file.sync()) {
            // What is known is served; the next start looks at all of it once more.
            let _ = health.fail("sync a segment", &error);
            self.miss();
        }
        Ok(())
    }

    fn unlink(&self, number: u32) -> Result<(), Failed> {
        let Some(segment) = self.segments.get(number) else { return Ok(()) };
        let _alone = segment.punching();
        self.segments.unlink(number).map_err(Failed::Punch)?;
        self.segments.sync().map_err(Failed::Sync)
    }

    fn punch_segment(&self, number: u32, retired: &[Entry]) -> Result<(), Failed> {
        let Some(segment) = self.segments.get(number) else { return Ok(()) };
        let file = self.segments.file(&segment).map_err(Failed::Punch)?;
        let ends = |entry: &Entry| u64::from(entry.spot.offset) + entry.footprint();
        for run in retired.chunk_by(|a, b| ends(a) == u64::from(b.spot.offset)) {
            let (start, end) = (u64::from(run[0].spot.offset), run.last().map_or(0, ends));
            let _alone = segment.punching();
            file.punch(start, end - start).map_err(Failed::Punch)?;
        }
        file.sync().map_err(Failed::Sync)
    }
}
