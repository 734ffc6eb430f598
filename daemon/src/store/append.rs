//! The appender: the one place that writes records, and makes them durable in groups.
//!
//! Owns: the segment that is being filled. Refuses: records twice (it looks once more, as the only writer), and
//! anything after a failed write. Survives a crash: every record whose ticket was told durable.
//!
//! Two tasks: one takes records off a bounded queue and writes as many as there are with one call, the other syncs
//! what was written, enters it in the index together with the checkpoint, and tells who waits. Writing goes on
//! while the disk syncs.

use std::collections::{BTreeSet, HashSet};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::Error;
use super::catalog::Catalog;
use super::disk::File;
use super::error::{is_full, is_passing};
use super::health::Health;
use super::index::{Entry, Spot};
use super::record::{BLOCK, FOOTER_ENTRY, Key, Record, footer, footer_entry};
use super::recover::Tail;
use super::scan::scan;
use super::segment::Segment;
use super::space::Promise;
use crate::support::pool::Pool;
use crate::support::task::Tasks;
use crate::support::turn::in_turn;

/// Groups of records that wait to be written, and at most as many of one write.
const QUEUE: usize = 512;

/// Bytes that wait to be written or are being written, counted in blocks: 16 MiB.
const QUEUE_BLOCKS: u32 = 4096;

/// Bytes written before a sync is begun that nobody asked for: a sync then never has much to do.
const SYNC_AFTER: u64 = 32 << 20;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was written.
    New,
    /// It was there.
    Already,
}

/// What became of records, in their order, with the ticket to wait for.
type Answer = Result<(Vec<Put>, u64), Error>;

/// Records on their way.
struct Queued {
    records: Vec<Record>,
    reply: oneshot::Sender<Answer>,
    /// They are written also when they are there.
    again: bool,
    /// Their share of the queue's bytes.
    share: OwnedSemaphorePermit,
    /// Their room on disk: given back once they are counted, or not written.
    room: Promise,
}

/// How far the disk is.
struct Durable {
    /// All records up to this ticket are durable.
    ticket: u64,
    /// Set when no more will be.
    failed: Option<Error>,
}

/// The face of the appender.
pub(super) struct Appender {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    durable: watch::Receiver<Durable>,
    writer: Arc<Writer>,
}

/// What the tasks share.
struct Writer {
    catalog: Arc<Catalog>,
    health: Arc<Health>,
    active: Mutex<Active>,
    durable: watch::Sender<Durable>,
    /// Wakes the syncing task.
    wake: Notify,
    /// Bytes of records in a segment at most.
    limit: u64,
}

/// The segment that is being filled.
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    /// Where the next record goes.
    offset: u64,
    /// The last record's ticket.
    ticket: u64,
    /// Written since the last sync.
    unsynced: Vec<(Key, Entry)>,
    /// Bytes of them.
    dirty: u64,
}

impl Appender {
    /// Begins at `offset` of `segment`, which is the last one.
    pub(super) fn start(
        catalog: Arc<Catalog>,
        health: Arc<Health>,
        (segment, file, offset): Tail,
        limit: u64,
        pool: &Pool,
        tasks: &Tasks,
    ) -> Self {
        let active = Active { segment, file, offset, ticket: 0, unsynced: Vec::new(), dirty: 0 };
        let (durable, watch) = watch::channel(Durable { ticket: 0, failed: None });
        let active = Mutex::new(active);
        let writer = Arc::new(Writer { catalog, health, active, durable, wake: Notify::new(), limit });
        let (queue, records) = mpsc::channel(QUEUE);
        tasks.spawn("store-append", write_all(Arc::clone(&writer), records, pool.clone(), tasks.clone()));
        tasks.spawn("store-sync", sync_all(Arc::clone(&writer), pool.clone(), tasks.clone()));
        let room = Arc::new(Semaphore::new(QUEUE_BLOCKS as usize));
        Self { queue, room, durable: watch, writer }
    }

    /// Writes those records that are not there, which have `room`. Waits for room in the queue and for the write, not
    /// for the disk; the ticket is what to wait for with [`Appender::durable`]. After an error some of them may have
    /// been written.
    pub(super) async fn append(&self, records: Vec<Record>, room: Promise) -> Answer {
        self.queue(records, room, false).await
    }

    /// Writes a record that is there in another place. Gives its ticket.
    pub(super) async fn append_again(&self, record: Record, room: Promise) -> Result<u64, Error> {
        self.queue(vec![record], room, true).await.map(|(_, ticket)| ticket)
    }

    /// Completes when all that is in the queue by now has been written, and its room given back.
    pub(super) async fn written(&self) -> Result<(), Error> {
        let nothing = Promise::none(Arc::clone(&self.writer.catalog.space));
        self.queue(Vec::new(), nothing, false).await.map(|_| ())
    }

    async fn queue(&self, records: Vec<Record>, room: Promise, again: bool) -> Answer {
        self.writer.health.check()?;
        let bytes: u64 = records.iter().map(|record| record.header.footprint()).sum();
        let blocks = u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX).min(QUEUE_BLOCKS);
        let (reply, answer) = oneshot::channel();
        let (turn, queue) = (Arc::clone(&self.room).acquire_many_owned(blocks), self.queue.clone());
        let enter = async move {
            let share = turn.await.map_err(|_| Error::Closed)?;
            queue.send(Queued { records, reply, again, share, room }).await.map_err(|_| Error::Closed)
        };
        // One that has many under way and looks at one of them lets the others in.
        in_turn(enter).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Completes when the record of this ticket, and all before it, are durable.
    pub(super) async fn durable(&self, ticket: u64) -> Result<(), Error> {
        self.writer.wake.notify_one();
        let mut durable = self.durable.clone();
        let state = durable.wait_for(|now| now.ticket >= ticket || now.failed.is_some()).await;
        let state = state.map_err(|_| Error::Closed)?;
        match &state.failed {
            Some(error) if state.ticket < ticket => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The last record's ticket.
    pub(super) fn ticket(&self) -> u64 {
        self.writer.active().ticket
    }

    /// The segment that is being filled: it is not unlinked.
    pub(super) fn segment(&self) -> u32 {
        self.writer.active().segment.number
    }

    /// The last sync, when the tasks have ended. Blocks.
    pub(super) fn finish(&self) -> Result<(), Error> {
        self.writer.sync()
    }
}

/// The writing task.
async fn write_all(writer: Arc<Writer>, mut queue: mpsc::Receiver<Queued>, pool: Pool, tasks: Tasks) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            count = queue.recv_many(&mut batch, QUEUE) => if count == 0 { break },
            () = tasks.stopping() => {
                // What was accepted is still written.
                queue.close();
                continue;
            }
        }
        let worker = Arc::clone(&writer);
        if pool.run(move || worker.write(batch)).await >= SYNC_AFTER {
            writer.wake.notify_one();
        }
    }
}

/// The syncing task.
async fn sync_all(writer: Arc<Writer>, pool: Pool, tasks: Tasks) {
    loop {
        tokio::select! {
            biased;
            () = writer.wake.notified() => {}
            () = tasks.stopping() => break,
        }
        let worker = Arc::clone(&writer);
        // A failure is told to all who wait, and ends the syncing for good.
        if pool.run(move || worker.sync()).await.is_err() {
            break;
        }
    }
}

/// Records of one write.
#[derive(Default)]
struct Run {
    records: Vec<(Key, Entry)>,
    keys: HashSet<Key>,
    parts: Vec<Bytes>,
    /// The groups that they are of.
    groups: BTreeSet<usize>,
    bytes: u64,
}

/// What is known so far of groups of records.
type Outcomes = Vec<Result<Vec<Put>, Error>>;

impl Writer {
    fn active(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what of a batch is new, in as few calls as segments allow, and answers. Blocks. Gives the bytes not
    /// synced yet.
    fn write(&self, batch: Vec<Queued>) -> u64 {
        let mut active = self.active();
        let (mut run, mut outcomes, mut waiting) = (Run::default(), Outcomes::new(), Vec::new());
        let mut rooms = Vec::new();
        for Queued { records, reply, again, share, room } in batch {
            outcomes.push(Ok(Vec::with_capacity(records.len())));
            waiting.push((reply, share));
            rooms.push(room);
            for record in records {
                let put = self.take(&mut active, &mut run, &mut outcomes, &record, again);
                match (outcomes.last_mut(), put) {
                    (Some(Ok(puts)), Ok(put)) => puts.push(put),
                    (Some(outcome), Err(error)) => *outcome = Err(error),
                    _ => {}
                }
                if outcomes.last().is_none_or(Result::is_err) {
                    break;
                }
            }
        }
        self.flush(&mut active, run, &mut outcomes);
        // What was written is counted by now, and takes room of the disk.
        drop(rooms);
        for ((reply, _share), outcome) in waiting.into_iter().zip(outcomes) {
            // What was there may have been written a moment ago and not be durable yet.
            let _ = reply.send(outcome.map(|puts| (puts, active.ticket)));
        }
        active.dirty
    }

    /// Stages a record of the last group unless it is there.
    fn take(
        &self,
        active: &mut Active,
        run: &mut Run,
        outcomes: &mut Outcomes,
        record: &Record,
        again: bool,
    ) -> Result<Put, Error> {
        let header = &record.header;
        if run.keys.contains(&header.key) || (self.catalog.prove(&header.key)?.is_some() && !again) {
            return Ok(Put::Already);
        }
        if active.offset + run.bytes + header.footprint() > self.limit {
            self.flush(active, std::mem::take(run), outcomes);
            if let Some(Err(error)) = outcomes.last() {
                return Err(error.clone());
            }
            self.roll(active)?;
        }
        self.stage(active, run, record);
        run.groups.insert(outcomes.len() - 1);
        Ok(Put::New)
    }

    /// Adds a record to a run, at the place that it will have.
    #[expect(clippy::cast_possible_truncation, reason = "a segment's records end at 1 GiB")]
    fn stage(&self, active: &Active, run: &mut Run, record: &Record) {
        let (segment, offset) = (active.segment.number, active.offset + run.bytes);
        let Record { header, .. } = record;
        let spot = Spot { segment, offset: offset as u32 };
        let entry = Entry { spot, length: header.length, place: header.place, zero: header.zero };
        run.parts.extend(
            record.parts(&self.catalog.key, segment, offset).into_iter().filter(|part| !part.is_empty()),
        );
        run.records.push((header.key, entry));
        run.keys.insert(header.key);
        run.bytes += header.footprint();
    }

    /// Writes a run. When that fails, so have the groups that its records are of.
    fn flush(&self, active: &mut Active, run: Run, outcomes: &mut Outcomes) {
        if run.records.is_empty() {
            return;
        }
        if let Err(error) = self.write_parts(active, &run) {
            for group in run.groups {
                outcomes[group] = Err(error.clone());
            }
            return;
        }
        self.catalog.written(&run.records);
        active.ticket += run.records.len() as u64;
        active.unsynced.extend(run.records);
        active.offset += run.bytes;
        active.dirty += run.bytes;
    }

    fn write_parts(&self, active: &Active, run: &Run) -> Result<(), Error> {
        self.health.before_write()?;
        let mut parts: Vec<_> = run.parts.iter().map(|part| IoSlice::new(part)).collect();
        let Err(error) = active.file.write_at(active.offset, &mut parts) else { return Ok(()) };
        // A full disk is no failing disk: what was written of the run is cut off, and nobody was told of it.
        let cut = || active.file.truncate(active.offset).and_then(|()| active.file.sync());
        if is_full(&error) && cut().is_ok() {
            return Err(self.catalog.space.disk_full(run.bytes));
        }
        Err(self.health.fail("write a segment", &error))
    }

    /// Seals the segment and begins the next. The old one is durable before a record goes into the new one, so
    /// that only the last segment can be torn by a crash.
    fn roll(&self, active: &mut Active) -> Result<(), Error> {
        let (number, file) = (active.segment.number, &active.file);
        self.health.before_write()?;
        file.sync().map_err(|error| self.health.fail("sync a segment", &error))?;
        let list = self.list(file.as_ref(), number).map_err(Error::io("read a segment's headers"))?;
        let image = footer(list, &self.catalog.key, number, active.offset, super::now());
        let sealed = file.write_at(active.offset, &mut [IoSlice::new(&image)]);
        if sealed.as_ref().is_err_and(is_passing) {
            // The footer is a hint: a sealed segment does without.
            file.truncate(active.offset).map_err(|error| self.health.fail("cut a segment", &error))?;
        } else {
            sealed.map_err(|error| self.health.fail("seal a segment", &error))?;
        }
        file.sync().map_err(|error| self.health.fail("sync a segment", &error))?;
        let (segment, file) = match self.catalog.segments.create(number + 1) {
            Ok(new) => new,
            Err(error) if is_passing(&error) => {
                // This one goes on, without its footer.
                let cut = file.truncate(active.offset).and_then(|()| file.sync());
                cut.map_err(|error| self.health.fail("cut a segment", &error))?;
                return Err(Error::io("make a segment")(error));
            }
            Err(error) => return Err(self.health.fail("make a segment", &error)),
        };
        (active.segment, active.file, active.offset) = (segment, file, 0);
        Ok(())
    }

    /// The footer's list. Headers decide what is in it: punched records are not.
    #[expect(clippy::cast_possible_truncation, reason = "a segment's records end at 1 GiB")]
    fn list(&self, file: &dyn File, number: u32) -> std::io::Result<Bytes> {
        let mut list = Vec::with_capacity(1024 * FOOTER_ENTRY);
        scan(file, number, &self.catalog.key, 0, |header, offset| {
            list.extend_from_slice(&footer_entry(header, offset as u32));
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(list.into())
    }

    /// Makes durable what was written, enters it in the index, tells who waits. Blocks.
    #[expect(clippy::cast_possible_truncation, reason = "a segment's records end at 1 GiB")]
    fn sync(&self) -> Result<(), Error> {
        let mut active = self.active();
        let (ticket, file) = (active.ticket, Arc::clone(&active.file));
        let checkpoint = Spot { segment: active.segment.number, offset: active.offset as u32 };
        let records = std::mem::take(&mut active.unsynced);
        active.dirty = 0;
        drop(active);
        if records.is_empty() {
            return Ok(());
        }
        if let Err(error) = self
            .health
            .check()
            .and_then(|()| file.sync().map_err(|error| self.health.fail("sync a segment", &error)))
        {
            self.durable.send_modify(|state| state.failed = Some(error.clone()));
            return Err(error);
        }
        if let Err(error) = self.enter(&records, checkpoint) {
            // They stay readable from memory, and the next start finds them in the segment.
            tracing::warn!(%error, "records could not be entered in the index");
        }
        self.durable.send_modify(|state| state.ticket = ticket);
        Ok(())
    }

    /// Enters durable records in the index, when what they replace is gone: no crash in between loses sight of either.
    fn enter(&self, records: &[(Key, Entry)], checkpoint: Spot) -> Result<(), Error> {
        let replaced = self.catalog.replaced(records)?;
        drop(self.catalog.punch(replaced.clone(), checkpoint.segment, &self.health));
        self.catalog.look_again_for(&replaced)?;
        self.catalog.enter(records, checkpoint)
    }
}
