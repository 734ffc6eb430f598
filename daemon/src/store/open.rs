//! Opening a store: whose it is, what the journal says, and bringing the index up to what the segments hold.
//!
//! Every step may be interrupted and done again: it ends the same way.

use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::catalog::Catalog;
use super::disk::{Disk, File};
use super::index::{Entry, Spot};
use super::record::{BLOCK, BLOCK_SIZE, Header, Key, Kind, StoreKey};
use super::scan::scan;
use super::segment::{self, Segment};
use super::{Error, format, journal};

/// Entries written to the index at once.
const BATCH: usize = 4096;

/// Makes the folders and takes the lock.
pub(super) fn prepare(disk: &dyn Disk) -> Result<Box<dyn Send + Sync>, Error> {
    let folder = |error: io::Error| Error::Folder { folder: disk.name(), why: error.to_string() };
    disk.create_dir(Path::new("")).map_err(folder)?;
    let lock = disk.lock(Path::new("LOCK")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { folder: disk.name() },
        _ => folder(error),
    })?;
    for name in [segment::FOLDER, journal::FOLDER] {
        disk.create_dir(Path::new(name)).map_err(folder)?;
    }
    disk.sync_dir(Path::new("")).map_err(folder)?;
    Ok(lock)
}

/// The store's key: from FORMAT, else from the journal, else, when the store is empty, a new one.
pub(super) fn key(disk: &dyn Disk) -> Result<StoreKey, Error> {
    if let Some(key) = format::read(disk)? {
        return Ok(key);
    }
    let key = match journal::rescue_key(disk)? {
        Some(key) => key,
        None if disk.list(segment::FOLDER.as_ref()).map_err(Error::io("list segments"))?.is_empty() => {
            rand::random()
        }
        None => {
            return Err(Error::Damaged { what: "FORMAT", why: "it is missing, and so is the journal" });
        }
    };
    format::write(disk, &key)?;
    Ok(key)
}

/// The segment to go on with, and where.
pub(super) type Tail = (Arc<Segment>, Arc<dyn File>, u64);

/// Scans from the checkpoint to the end (after a crash from one sealed segment further back), enters what is found,
/// removes what a crash tore, counts what is there.
pub(super) fn recover(catalog: &Catalog, clean: bool) -> Result<Tail, Error> {
    let numbers = catalog.segments.numbers();
    let Some(&last) = numbers.last() else {
        let (segment, file) = catalog.segments.create(1).map_err(Error::io("make a segment"))?;
        return Ok((segment, file, 0));
    };
    let checkpoint = checkpoint(catalog, last)?;
    let tail = catalog.segments.get(last).ok_or(Error::Closed)?;
    let file = catalog.segments.file(&tail).map_err(Error::io("open a segment"))?;
    if !clean {
        // A page whose write failed may look written in memory.
        file.drop_cache().map_err(Error::io("drop cached pages"))?;
    }
    for &number in numbers.iter().filter(|number| **number != last) {
        if let Some(from) = from(number, &numbers, checkpoint, clean) {
            Scanner::new(catalog, number, u64::MAX).run(from)?;
        }
    }
    let synced = checkpoint.filter(|spot| spot.segment == last).map_or(0, |spot| u64::from(spot.offset));
    let start = from(last, &numbers, checkpoint, clean).unwrap_or(0);
    let unsynced = if clean { u64::MAX } else { synced };
    let end = Scanner::new(catalog, last, unsynced).run(start)?.max(synced);
    if file.length().map_err(Error::io("measure a segment"))? > end {
        file.truncate(end).map_err(Error::io("cut a segment"))?;
    }
    if !clean {
        file.sync().map_err(Error::io("sync a segment"))?;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a segment with its footer is shorter than 4 GiB")]
    catalog.index.enter(&[], Some(Spot { segment: last, offset: end as u32 }))?;
    count(catalog, clean)?;
    Ok((tail, file, end))
}

/// The index's checkpoint, when it can be one of these segments'.
fn checkpoint(catalog: &Catalog, last: u32) -> Result<Option<Spot>, Error> {
    let Some(spot) = catalog.index.checkpoint()? else { return Ok(None) };
    let Some(segment) = catalog.segments.get(spot.segment).filter(|_| spot.segment <= last) else {
        return Ok(None);
    };
    let file = catalog.segments.file(&segment).map_err(Error::io("open a segment"))?;
    let length = file.length().map_err(Error::io("measure a segment"))?;
    Ok((u64::from(spot.offset) <= length).then_some(spot))
}

/// Where to begin in segment `number`; `None`: the index knows it.
fn from(number: u32, numbers: &[u32], checkpoint: Option<Spot>, clean: bool) -> Option<u64> {
    let Some(spot) = checkpoint else { return Some(0) };
    let before = numbers.iter().rev().find(|other| **other < spot.segment);
    match number.cmp(&spot.segment) {
        std::cmp::Ordering::Greater => Some(0),
        std::cmp::Ordering::Equal => Some(if clean { u64::from(spot.offset) } else { 0 }),
        std::cmp::Ordering::Less => (!clean && before == Some(&number)).then_some(0),
    }
}

/// Enters what one segment holds.
struct Scanner<'a> {
    catalog: &'a Catalog,
    number: u32,
    /// From here on nothing is known to have been synced: payloads are proved as well.
    unsynced: u64,
    found: Vec<(Key, Entry)>,
    /// Headers whose payloads a crash tore.
    torn: Vec<u64>,
    /// Where the last good record ends.
    end: u64,
}

impl<'a> Scanner<'a> {
    fn new(catalog: &'a Catalog, number: u32, unsynced: u64) -> Self {
        Self { catalog, number, unsynced, found: Vec::new(), torn: Vec::new(), end: 0 }
    }

    /// Scans from `from`. Gives where the last good record ends, 0 when there is none.
    fn run(mut self, from: u64) -> Result<u64, Error> {
        let Some(segment) = self.catalog.segments.get(self.number) else { return Ok(0) };
        let file = self.catalog.segments.file(&segment).map_err(Error::io("open a segment"))?;
        let mut failed = None;
        let key = self.catalog.key;
        scan(file.as_ref(), self.number, &key, from, |header, offset| {
            match self.take(file.as_ref(), header, offset) {
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
        for at in &self.torn {
            // It was never acknowledged. Its header must not pass for a record later.
            let zeros = [0; BLOCK_SIZE];
            file.write_at(*at, &mut [IoSlice::new(&zeros)]).map_err(Error::io("clear a torn record"))?;
        }
        Ok(self.end)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a segment with its footer is shorter than 4 GiB")]
    fn take(&mut self, file: &dyn File, header: &Header, offset: u64) -> Result<(), Error> {
        if header.key.kind == Kind::Footer {
            self.end = offset + BLOCK;
            return Ok(());
        }
        let spot = Spot { segment: self.number, offset: offset as u32 };
        let entry = Entry { spot, length: header.length, place: header.place, zero: header.zero };
        if offset >= self.unsynced && !is_whole(file, header, offset) {
            self.torn.push(offset);
            // An earlier start may have entered it, from pages that never came to the disk.
            return self.catalog.index.forget(&header.key, &entry);
        }
        self.end = offset + header.footprint();
        // The later copy of two is the one that replaced a bad one.
        if self.catalog.index.get(&header.key)?.is_none_or(|old| old.spot < spot) {
            self.found.push((header.key, entry));
        }
        if self.found.len() >= BATCH { self.enter() } else { Ok(()) }
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.catalog.index.enter(&std::mem::take(&mut self.found), None)
    }
}

/// Whether a record's payload is all there.
fn is_whole(file: &dyn File, header: &Header, offset: u64) -> bool {
    if header.zero {
        return true;
    }
    let payload = file.read_at(offset + header.payload_at(), header.length as usize);
    payload.is_ok_and(|payload| header.proves(payload))
}

/// Counts the records, and drops entries of segments that are gone. After a crash also those that point into a
/// hole: the index lost that their records were punched.
fn count(catalog: &Catalog, clean: bool) -> Result<(), Error> {
    let mut stale = Vec::new();
    for item in catalog.index.entries() {
        let (key, entry) = item?;
        let is_there = match catalog.segments.get(entry.spot.segment) {
            None => false,
            Some(_) if clean => true,
            Some(segment) => {
                let file = catalog.segments.file(&segment).map_err(Error::io("open a segment"))?;
                let offset = u64::from(entry.spot.offset);
                let data = file.next_data(offset).map_err(Error::io("look for holes"))?;
                data.is_some_and(|data| data < offset + BLOCK)
            }
        };
        if is_there {
            catalog.space.add(&entry);
        } else {
            stale.push((key, entry));
        }
    }
    for (key, entry) in stale {
        catalog.index.forget(&key, &entry)?;
    }
    Ok(())
}
