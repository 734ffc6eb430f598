//! Bringing the index up to what the segments hold.
//!
//! Owns: the start. First the tail, while nobody waits for anything else: what lies behind the index's checkpoint is
//! entered, what a crash tore is cut off or punched. Then, behind the caller's back, the index is checked: its sum must
//! hold. If it does not, every segment is scanned. Meanwhile what the index knows is served, and whoever misses a
//! record waits.
//!
//! Every step may be interrupted and done again: it ends the same way.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::sync::Arc;

use futures::FutureExt as _;

use super::Error;
use super::catalog::Catalog;
use super::disk::File;
use super::health::Health;
use super::index::{Entry, Spot, Sum};
use super::progress::{Gauge, Progress};
use super::record::{BLOCK, BLOCK_SIZE, Key};
use super::scanner::{Found, Scanner};
use super::segment::Segment;
use super::space::Tally;
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// The segment to go on with, and where.
pub(super) type Tail = (Arc<Segment>, Arc<dyn File>, u64);

/// The start's second part.
pub(super) struct Recovery {
    catalog: Arc<Catalog>,
    health: Arc<Health>,
    /// The index's sum when the last run ended in order; `None` after a crash.
    closed: Option<Sum>,
    /// Whether the index says up to where it knows the segments, so that the rest has been entered.
    is_known: bool,
    /// Up to where records are entered, at the start.
    end: Spot,
    /// Whether nothing is written yet: afterwards a segment may hold what is just being written or punched.
    starts: bool,
    /// Records of which there is a later copy.
    twice: Vec<(Key, Entry)>,
    /// Where the tail has records instead that are there no more.
    gone: Vec<Entry>,
}

/// The start's first part: the last segments, from the checkpoint on. Blocks.
pub(super) fn tail(catalog: &Arc<Catalog>, health: &Arc<Health>) -> Result<(Tail, Recovery), Error> {
    let closed = health.closed();
    let numbers = catalog.segments.numbers();
    let recovery = |end, is_known, found: Found| Recovery {
        catalog: Arc::clone(catalog),
        health: Arc::clone(health),
        closed,
        is_known,
        end,
        starts: true,
        twice: found.twice,
        gone: found.gone,
    };
    let Some(&last) = numbers.last() else {
        let (segment, file) = catalog.segments.create(1).map_err(Error::io("make a segment"))?;
        return Ok(((segment, file, 0), recovery(Spot { segment: 1, offset: 0 }, false, Found::default())));
    };
    let checkpoint = checkpoint(catalog, last)?;
    let mut all = Found::default();
    // Without a checkpoint the sealed segments are left to the scan of all.
    for &number in numbers.iter().filter(|number| **number != last) {
        match checkpoint {
            Some(spot) if number >= spot.segment => {
                let from = if number == spot.segment { spot.offset.into() } else { 0 };
                if closed.is_none() {
                    catalog.keep_holes(number, health)?;
                }
                let found = Scanner::new(catalog, number).run(from)?;
                catalog.space.add_unknown(found.unknown + found.garbage);
                all.twice.extend(found.twice);
                all.gone.extend(found.gone);
            }
            _ => {}
        }
    }
    let segment = catalog.segments.get(last).ok_or(Error::Closed)?;
    let file = catalog.segments.file(&segment).map_err(Error::io("open a segment"))?;
    // Without a checkpoint nothing is written again up to where the segment goes: one that could not be read now may be
    // there at the next start, and what stood before it would not be looked for.
    let length = file.length().map_err(Error::io("measure a segment"))?;
    let (from, least) = match checkpoint {
        Some(spot) if spot.segment == last => (spot.offset.into(), spot.offset.into()),
        Some(_) => (0, 0),
        None => (0, length.next_multiple_of(BLOCK)),
    };
    let mut scanner = Scanner::new(catalog, last);
    if closed.is_none() {
        // A page whose write failed may look written in memory.
        file.drop_cache().map_err(Error::io("drop cached pages"))?;
        scanner = scanner.proving();
    }
    let found = scanner.run(from)?;
    catalog.space.add_unknown(found.unknown);
    let end = match closed {
        Some(_) => found.end.max(least),
        None => mend(file.as_ref(), &found, least)?,
    };
    all.twice.extend(found.twice);
    all.gone.extend(found.gone);
    let spot = spot(last, end);
    Ok(((segment, file, end), recovery(spot, checkpoint.is_some(), all)))
}

/// Gives the room back that torn records take, and makes durable what is left. Gives where the next record goes, at
/// `least` there.
fn mend(file: &dyn File, found: &Found, least: u64) -> Result<u64, Error> {
    let end = found.end.max(least);
    for (start, stop) in &found.gaps {
        let is_here = |at: &&u64| (start..stop).contains(at);
        // Where a block cannot be read there may be a record that was acknowledged.
        let punched = match found.unread.iter().any(|at| is_here(&at)) {
            true => false,
            false => match file.punch(*start, stop - start) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => false,
                punched => punched.map(|()| true).map_err(Error::io("punch a torn record"))?,
            },
        };
        // Headers that were never acknowledged must not pass for records later.
        for at in found.torn.iter().filter(|at| !punched && is_here(at)) {
            let mut zeros = [IoSlice::new(&[0; BLOCK_SIZE])];
            file.write_at(*at, &mut zeros).map_err(Error::io("clear a torn record"))?;
        }
    }
    // Also where it is shorter: what lies between is to be a hole, and not whatever a crash leaves there.
    if file.length().map_err(Error::io("measure a segment"))? != end {
        file.truncate(end).map_err(Error::io("cut a segment"))?;
    }
    file.sync().map_err(Error::io("sync a segment"))?;
    Ok(end)
}

#[expect(clippy::cast_possible_truncation, reason = "a segment with its footer is shorter than 4 GiB")]
fn spot(segment: u32, offset: u64) -> Spot {
    Spot { segment, offset: offset as u32 }
}

/// The index's checkpoint, when it can be one of these segments'.
fn checkpoint(catalog: &Catalog, last: u32) -> Result<Option<Spot>, Error> {
    let Some(spot) = catalog.index.checkpoint()? else { return Ok(None) };
    let Some(segment) = catalog.segments.get(spot.segment) else {
        // It has been unlinked since; those behind it are scanned.
        return Ok((spot.segment < last).then_some(spot));
    };
    let file = catalog.segments.file(&segment).map_err(Error::io("open a segment"))?;
    let length = file.length().map_err(Error::io("measure a segment"))?;
    Ok((u64::from(spot.offset) <= length).then_some(spot))
}

impl Recovery {
    /// Checks the index, makes it anew if it must, and again whenever its table fails; tells how far it is.
    pub(super) async fn run(mut self, pool: Pool, tasks: Tasks, gauge: Arc<Gauge>) {
        let health = Arc::clone(&self.health);
        let anew = self.anew();
        let mut done = self.work(&pool, &tasks, &gauge).await;
        if let Err(Error::Index(_)) = done {
            // It has been given up, and one in memory has taken its place, which is filled here.
            let _ = gauge.broken().now_or_never();
            done = anew.work(&pool, &tasks, &gauge).await;
        }
        loop {
            match done {
                Ok(Some(this)) => self = this,
                // Stopped on the way; whoever waits learns that the store is closed.
                Ok(None) => return,
                Err(error) => {
                    let why = io::Error::other(error.to_string());
                    return gauge.set(Progress::Failed(health.fail("bring the index up", &why)));
                }
            }
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = gauge.broken() => {}
            }
            done = self.refill(&pool, &tasks, &gauge).await;
        }
    }

    /// The same start with an index that knows nothing.
    fn anew(&self) -> Self {
        let (catalog, health) = (Arc::clone(&self.catalog), Arc::clone(&self.health));
        Self { catalog, health, is_known: false, twice: Vec::new(), gone: Vec::new(), ..*self }
    }

    /// The start's part. `None`: stopped on the way.
    async fn work(self, pool: &Pool, tasks: &Tasks, gauge: &Gauge) -> Result<Option<Self>, Error> {
        let breaks = gauge.breaks();
        let (mut this, trusted) = pool.run(move || self.check().map(|trusted| (self, trusted))).await?;
        if !trusted {
            let Some((scanned, seen)) = this.scan_all(pool, tasks, gauge).await? else { return Ok(None) };
            this = pool.run(move || scanned.prune(&seen).map(|()| scanned)).await?;
        }
        let this = pool.run(move || this.finish().map(|()| this)).await?;
        if gauge.breaks() != breaks {
            // What was entered and counted before is not in the one that took its place.
            return Err(Error::Index("it broke while it was brought up".to_owned()));
        }
        gauge.set(Progress::Whole);
        Ok(Some(this))
    }

    /// Fills a new table while the store is used. What is counted and hidden stays so.
    async fn refill(mut self, pool: &Pool, tasks: &Tasks, gauge: &Gauge) -> Result<Option<Self>, Error> {
        self.starts = false;
        let Some((this, _)) = self.scan_all(pool, tasks, gauge).await? else { return Ok(None) };
        gauge.set(Progress::Whole);
        Ok(Some(this))
    }

    async fn scan_all(
        self,
        pool: &Pool,
        tasks: &Tasks,
        gauge: &Gauge,
    ) -> Result<Option<(Self, HashSet<(Spot, u64)>)>, Error> {
        let mut seen = HashSet::new();
        let (is_empty, mut this) = pool.run(move || (self.is_empty(), self)).await;
        if this.starts {
            this.catalog.space.clear_unknown();
        }
        let numbers = this.catalog.segments.numbers();
        let total = numbers.len();
        if is_empty {
            // A new store: nothing has been lost.
            tracing::debug!("the index is begun");
        } else {
            tracing::warn!(segments = total, "the index is made anew from the segments; reads are served");
        }
        for (done, number) in numbers.into_iter().enumerate() {
            if tasks.is_stopping() {
                return Ok(None);
            }
            gauge.set(Progress::Working { done, total });
            (this, seen) = pool.run(move || this.scan(number, &mut seen).map(|()| (this, seen))).await?;
        }
        if !is_empty {
            tracing::info!(segments = total, "the index is whole again");
        }
        Ok(Some((this, seen)))
    }

    /// Whether nothing has been written yet.
    fn is_empty(&self) -> bool {
        let segments = &self.catalog.segments;
        let length = |number| segments.file(&segments.get(number)?).ok()?.length().ok();
        segments.numbers().into_iter().all(|number| length(number) == Some(0))
    }

    /// Whether the index is what was written. Then its records are counted; after a crash those are dropped that point
    /// into a hole: the index lost that they were punched.
    fn check(&self) -> Result<bool, Error> {
        let index = &self.catalog.index;
        let (mut tally, mut spots) = (Tally::default(), Vec::new());
        let sum = index.each(|key, entry| {
            tally.add(&key, &entry);
            if self.closed.is_none() {
                spots.push(entry.spot);
            }
            Ok(())
        })?;
        let (found, expected) = index.sum();
        if !self.is_known || sum != expected || self.closed.is_some_and(|closed| closed != found) {
            index.distrust(sum)?;
            return Ok(false);
        }
        if self.closed.is_none() {
            spots.extend(self.gone.iter().map(|entry| entry.spot));
            spots.sort_unstable();
            let holes = self.holes(&spots)?;
            self.drop_stale(|_, entry| holes.contains(&entry.spot), true)?;
            // The same of those that another has taken the place of.
            let rests = self.gone.iter().filter(|entry| holes.contains(&entry.spot)).copied().collect();
            self.catalog.punch_again(rests)?;
        } else {
            self.catalog.space.recount(tally);
        }
        Ok(true)
    }

    /// Those of `spots`, which rise, where a hole is, or no segment.
    fn holes(&self, spots: &[Spot]) -> Result<HashSet<Spot>, Error> {
        let mut holes = HashSet::new();
        for run in spots.chunk_by(|a, b| a.segment == b.segment) {
            let Some(segment) = self.catalog.segments.get(run[0].segment) else {
                holes.extend(run.iter().copied());
                continue;
            };
            let file = self.catalog.segments.file(&segment).map_err(Error::io("open a segment"))?;
            for spot in run {
                let offset = u64::from(spot.offset);
                let data = file.next_data(offset).map_err(Error::io("look for holes"))?;
                if data.is_none_or(|data| data >= offset + BLOCK) {
                    holes.insert(*spot);
                }
            }
        }
        Ok(holes)
    }

    /// Drops entries that are stale, and counts the others. Of a record that was being `punched` some may be left.
    fn drop_stale(&self, is_stale: impl Fn(&Key, &Entry) -> bool, punched: bool) -> Result<(), Error> {
        let (mut tally, mut stale) = (Tally::default(), Vec::new());
        self.catalog.index.each(|key, entry| {
            if is_stale(&key, &entry) {
                stale.push((key, entry));
            } else {
                tally.add(&key, &entry);
            }
            Ok(())
        })?;
        if punched {
            let there = |(_, entry): &&(Key, Entry)| self.catalog.segments.get(entry.spot.segment).is_some();
            self.catalog.punch_again(stale.iter().filter(there).map(|(_, entry)| *entry).collect())?;
        }
        self.catalog.index.forget(&stale)?;
        self.catalog.space.recount(tally);
        Ok(())
    }

    /// Enters what one segment holds.
    fn scan(&mut self, number: u32, seen: &mut HashSet<(Spot, u64)>) -> Result<(), Error> {
        let scanner = Scanner::new(&self.catalog, number);
        if !self.starts {
            // What is counted and hidden stays so.
            return scanner.later().run(0).map(|_| ());
        }
        let mut found = scanner.until(self.end).run(0)?;
        if self.closed.is_none() {
            self.catalog.punch_rests(number, &mut found, &self.health)?;
        }
        self.catalog.space.add_unknown(found.unknown + found.garbage);
        self.twice.extend(found.twice);
        seen.extend(found.seen);
        Ok(())
    }

    /// Drops what the index names and no segment has.
    fn prune(&self, seen: &HashSet<(Spot, u64)>) -> Result<(), Error> {
        self.drop_stale(|key, entry| !seen.contains(&(entry.spot, key.fingerprint())), false)
    }

    /// Gives back what is there twice, and writes down that the index is whole.
    fn finish(&mut self) -> Result<(), Error> {
        self.catalog.settle(std::mem::take(&mut self.twice), self.end, &self.health)?;
        self.catalog.enter(&[], self.end)
    }
}
