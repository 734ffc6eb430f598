//! Entering what a segment holds in the index.

use std::ops::ControlFlow;

use super::Error;
use super::catalog::Catalog;
use super::disk::File;
use super::error::is_lost;
use super::index::{Entry, Spot};
use super::record::{BLOCK, BLOCK_SIZE, Header, Key, Kind};
use super::scan::scan;
use crate::content::CHUNK;

/// Entries written to the index at once.
const BATCH: usize = 4096;

/// What a scan saw.
#[derive(Default)]
pub(super) struct Found {
    /// Where records are, with fingerprints of their keys.
    pub(super) seen: Vec<(Spot, u64)>,
    /// Records of which the index names another copy: see [`Catalog::settle`].
    pub(super) twice: Vec<(Key, Entry)>,
    /// Where the index named a record that is there no more, and of which a scanned one has taken the place.
    pub(super) gone: Vec<Entry>,
    /// Headers whose payloads a crash tore.
    pub(super) torn: Vec<u64>,
    /// Records whose payloads cannot be read, so that it is not known whether a crash tore them.
    unproved: Vec<(Key, Entry)>,
    /// Ranges that hold no record.
    pub(super) gaps: Vec<(u64, u64)>,
    /// Bytes on disk in such ranges where a block could not be read: there may be records, which take room.
    pub(super) unknown: u64,
    /// Bytes on disk in the others: records whose headers rotted.
    pub(super) garbage: u64,
    /// Blocks that could not be read.
    pub(super) unread: Vec<u64>,
    /// Where the last good record ends; where a block could not be read that may have been a header, beyond the end of
    /// the file and of the longest record that may stand there. 0 when there is none.
    pub(super) end: u64,
}

impl Found {
    /// Counts what there is where no record is.
    pub(super) fn count(&mut self, file: &dyn File) -> std::io::Result<()> {
        (self.unknown, self.garbage) = (0, 0);
        for (start, end) in &self.gaps {
            let is_unknown = self.unread.iter().any(|at| (start..end).contains(&at));
            *(if is_unknown { &mut self.unknown } else { &mut self.garbage }) += taken(file, *start, *end)?;
        }
        Ok(())
    }
}

/// Scans one segment.
pub(super) struct Scanner<'a> {
    catalog: &'a Catalog,
    number: u32,
    /// Whether payloads are proved: nothing is known to have been synced.
    proves: bool,
    /// Whether copies are settled afterwards. Otherwise the index names the latest.
    settles: bool,
    /// Where to stop.
    until: u64,
    entries: Vec<(Key, Entry)>,
    found: Found,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(catalog: &'a Catalog, number: u32) -> Self {
        let (entries, found) = (Vec::new(), Found::default());
        Self { catalog, number, proves: false, settles: true, until: u64::MAX, entries, found }
    }

    /// Takes a record only when its payload is all there.
    pub(super) fn proving(mut self) -> Self {
        self.proves = true;
        self
    }

    /// Of two copies the index is to name the later; nothing is settled.
    pub(super) fn later(mut self) -> Self {
        self.settles = false;
        self
    }

    /// Stops at `end`, when that is in this segment: what follows is entered by the appender.
    pub(super) fn until(mut self, end: Spot) -> Self {
        if end.segment == self.number {
            self.until = end.offset.into();
        }
        self
    }

    /// Scans from `from`.
    pub(super) fn run(mut self, from: u64) -> Result<Found, Error> {
        let Some(segment) = self.catalog.segments.get(self.number) else { return Ok(self.found) };
        let file = self.catalog.segments.file(&segment).map_err(Error::io("open a segment"))?;
        let mut failed = None;
        let key = self.catalog.key;
        let mut next = from;
        let unread = scan(file.as_ref(), self.number, &key, from, |header, offset| {
            if offset >= self.until {
                return ControlFlow::Break(());
            }
            match self.take(file.as_ref(), header, offset, &mut next) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })
        .map_err(Error::io("scan a segment"))?;
        failed.map_or(Ok(()), Err)?;
        self.enter()?;
        for (key, entry) in std::mem::take(&mut self.found.unproved) {
            // It is not cut off, and nobody builds on it; the next start proves it.
            self.catalog.miss();
            // Where another copy has taken its place nothing is missed.
            let is_alone = !self.found.twice.iter().any(|(other, _)| *other == key);
            if is_alone && self.catalog.index.get(&key)? == Some(entry) {
                self.catalog.damaged(&key, &entry);
            }
        }
        let length = file.length().map_err(Error::io("measure a segment"))?;
        if next < self.until.min(length) {
            self.found.gaps.push((next, self.until.min(length)));
        }
        self.found.unread = unread;
        self.found.count(file.as_ref()).map_err(Error::io("look for holes"))?;
        if let Some(last) = self.found.unread.last() {
            // If that was a header, what is appended must not stand in its payload's place.
            let longest = last + (BLOCK_SIZE + CHUNK) as u64;
            self.found.end = self.found.end.max(longest).max(length.next_multiple_of(BLOCK));
            self.catalog.miss();
        }
        Ok(self.found)
    }

    /// `next`: where the record before ended.
    #[expect(clippy::cast_possible_truncation, reason = "a segment with its footer is shorter than 4 GiB")]
    fn take(&mut self, file: &dyn File, header: &Header, offset: u64, next: &mut u64) -> Result<(), Error> {
        let (start, end) = if header.key.kind == Kind::Footer {
            // Its list stands before it.
            (offset.saturating_sub(u64::from(header.length).next_multiple_of(BLOCK)), offset + BLOCK)
        } else {
            (offset, offset + header.footprint())
        };
        let mut is_proved = true;
        if self.proves && header.key.kind != Kind::Footer {
            match is_whole(file, header, offset)? {
                Some(true) => {}
                Some(false) => {
                    self.found.torn.push(offset);
                    return Ok(());
                }
                None => is_proved = false,
            }
        }
        if start > *next {
            self.found.gaps.push((*next, start));
        }
        *next = end;
        if header.key.kind == Kind::Footer {
            // The last segment has one when its successor could not be made: then it goes on without.
            return Ok(());
        }
        self.found.end = end;
        let spot = Spot { segment: self.number, offset: offset as u32 };
        let entry = Entry { spot, length: header.length, place: header.place, zero: header.zero };
        self.found.unproved.extend((!is_proved).then_some((header.key, entry)));
        self.found.seen.push((spot, header.key.fingerprint()));
        match self.catalog.index.get(&header.key)? {
            Some(old) if old == entry => return Ok(()),
            Some(old)
                if self.settles && old.spot != spot && self.catalog.may_be_there(&header.key, &old)? =>
            {
                self.found.twice.push((header.key, entry));
                return Ok(());
            }
            Some(old) if !self.settles && old.spot > spot && self.catalog.is_there(&header.key, &old)? => {
                return Ok(());
            }
            Some(old) if self.settles => {
                // It names what is not there; so it is no copy.
                self.catalog.index.forget(&[(header.key, old)])?;
                self.found.gone.push(old);
                self.entries.push((header.key, entry));
            }
            _ => self.entries.push((header.key, entry)),
        }
        if self.entries.len() >= BATCH { self.enter() } else { Ok(()) }
    }

    fn enter(&mut self) -> Result<(), Error> {
        let replaced = self.catalog.index.enter(&std::mem::take(&mut self.entries), None)?;
        if self.settles {
            self.found.twice.extend(replaced);
        }
        Ok(())
    }
}

/// Bytes of a range that are no hole.
fn taken(file: &dyn File, mut at: u64, end: u64) -> std::io::Result<u64> {
    let mut bytes = 0;
    while let Some(data) = file.next_data(at)?.filter(|data| *data < end) {
        at = file.next_hole(data)?.clamp(data + 1, end);
        bytes += at - data;
    }
    Ok(bytes)
}

/// Whether a record's payload is all there. `None`: the disk does not give it.
fn is_whole(file: &dyn File, header: &Header, offset: u64) -> Result<Option<bool>, Error> {
    if header.zero {
        return Ok(Some(true));
    }
    match file.read_at(offset + header.payload_at(), header.length as usize) {
        Ok(payload) => Ok(Some(header.proves(payload))),
        Err(error) if is_lost(&error) => Ok(None),
        Err(error) => Err(Error::io("read a record")(error)),
    }
}
