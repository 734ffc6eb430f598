//! The giving end of a session.
//!
//! One task, several futures: a reader that opens requests in the [`Ledger`], three lanes that answer them (chunks,
//! records, subscriptions, so that none waits for another kind), and a writer. A lane that is done waits for the
//! writer, and what waits is bounded by the lane's width; the reader waits for nobody, and cannot be flooded because
//! what is open is bounded by the credits.

mod telling;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frames::{Ask, CROWDS, Frame, Record, SLICE};
use super::giver::{Giver, Turn};
use super::hello::{self, Ends};
use super::io::{FrameReader, FrameWriter, split, watch};
use super::ledger::{Ledger, SUBSCRIPTIONS};
use super::{Answer, Error, Options, Reason};
use crate::content::ObjectId;
use crate::peer::{Conn, PeerId};
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// Chunks loaded ahead of the writer: enough to hide the disk, and 4 MiB at most for each peer.
const CHUNK_LANE: usize = 4;

/// Manifest and parity records loaded at once, under 70 KiB each.
const RECORD_LANE: usize = 4;

/// Small frames that wait for the writer.
const CONTROL: usize = 64;

/// Bytes of small frames that are put together before they are written.
const BATCH: usize = 64 * 1024;

/// How a session came to its end without anyone's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The asker said goodbye, or closed between two frames.
    ByAsker,
    /// Nothing came for the idle time.
    Idle,
    /// This end is shutting down.
    Shutdown,
}

/// What a session did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Who asked.
    pub peer: PeerId,
    /// Why it ended.
    pub ended: Ended,
    /// Requests it had.
    pub requests: u64,
    /// Bytes written.
    pub sent: u64,
    /// Bytes read.
    pub received: u64,
}

/// Runs one session as its giver, to its end. When `tasks` are told to stop it finishes the slice in work and says
/// goodbye. Dropping the future closes the connection.
///
/// # Errors
/// [`Error`]: the session could not begin, or broke; see [`Error::is_strike`].
pub async fn give(
    conn: Conn,
    options: &Options,
    giver: Arc<dyn Giver>,
    tasks: &Tasks,
) -> Result<Summary, Error> {
    let Conn { peer, remote, stream, binding } = conn;
    let (meter, mut reader, mut writer) = split(stream);
    let ends = Ends { asker: &peer, giver: &options.me, binding: &binding };
    let version = match hello::answer((&mut reader, &mut writer), options, &ends).await {
        Ok(version) => version,
        Err(error) => {
            writer.part(error.reason(), "").await;
            return Err(error);
        }
    };
    let side = Side {
        peer,
        remote,
        version,
        network: options.network.id(),
        pool: options.pool.clone(),
        giver,
        ledger: Ledger::new(options.requests, options.bytes),
        own: Arc::new(Semaphore::new(1)),
    };
    let ended = tokio::select! {
        ended = side.run(&mut reader, &mut writer, options, tasks) => ended,
        error = watch(&meter, options, || {}) => if error == Error::Idle { Ok(Ended::Idle) } else { Err(error) },
        () = side.unused(options.idle) => Ok(Ended::Idle),
    };
    let reason = match &ended {
        Ok(Ended::ByAsker) => None,
        Ok(Ended::Idle) => Some(Reason::Slow),
        Ok(Ended::Shutdown) => Some(Reason::Shutdown),
        Err(error) => error.reason(),
    };
    let text = ended.as_ref().err().map(ToString::to_string).unwrap_or_default();
    writer.part(reason, &text).await;
    let (sent, received) = (meter.sent.load(Relaxed), meter.received.load(Relaxed));
    ended.map(|ended| Summary { peer, ended, requests: side.ledger.total(), sent, received })
}

/// What the futures of a session share.
struct Side {
    peer: PeerId,
    /// Where the asker is, as seen from here.
    remote: Option<IpAddr>,
    /// The version of the protocol that both ends speak.
    version: u16,
    /// What stands for the network: cards are signed for it.
    network: [u8; 32],
    /// Where cards are checked.
    pool: Pool,
    giver: Arc<dyn Giver>,
    ledger: Ledger,
    /// Room in memory for the one chunk that every session may have, however many others there are.
    own: Arc<Semaphore>,
}

/// One request on its lane. Runs have been taken apart.
enum Job {
    Ask(u32, Ask),
    /// To be told of an object, with the card that was shown for it as it came; not looked at yet.
    Tell(u32, ObjectId, Option<Bytes>),
    /// The chunk at an index of an object.
    At(u32, ObjectId, u64),
}

/// What the lanes hand to the writer.
#[derive(Clone)]
struct Outbox {
    /// Small frames, which go first.
    control: mpsc::Sender<Frame>,
    /// Chunks, each in the writer's hand until its last slice.
    chunks: mpsc::Sender<Sending>,
}

/// The ends of the lanes that the reader fills.
struct Lanes {
    chunks: mpsc::Sender<Job>,
    records: mpsc::Sender<Job>,
    haves: mpsc::Sender<Job>,
}

impl Side {
    async fn run(
        &self,
        reader: &mut FrameReader,
        writer: &mut FrameWriter,
        options: &Options,
        tasks: &Tasks,
    ) -> Result<Ended, Error> {
        // As long as what can be open at once, so that the reader always finds room.
        let open = options.requests as usize + SUBSCRIPTIONS;
        let (chunks, chunk_jobs) = mpsc::channel(open);
        let (records, record_jobs) = mpsc::channel(open);
        let (haves, have_jobs) = mpsc::channel(open);
        let (control, control_out) = mpsc::channel(CONTROL);
        let (bulk, bulk_out) = mpsc::channel(1);
        let out = Outbox { control: control.clone(), chunks: bulk };
        let lanes = futures::future::join3(
            lane(chunk_jobs, CHUNK_LANE, |job| self.give_chunk(job, out.clone())),
            lane(record_jobs, RECORD_LANE, |job| self.give_record(job, out.clone())),
            lane(have_jobs, SUBSCRIPTIONS, |job| self.give_haves(job, out.clone())),
        );
        let to = Lanes { chunks, records, haves };
        tokio::select! {
            ended = self.read(reader, &to, &control) => ended,
            ended = self.write(writer, control_out, bulk_out, tasks) => ended,
            _ = lanes => Err(Error::Closed),
        }
    }

    /// Ends when nothing was asked for during `idle`: pings alone do not keep a place that others wait for.
    async fn unused(&self, idle: Duration) {
        let mut before = None;
        loop {
            let now = (!self.ledger.is_used()).then(|| self.ledger.total());
            if now.is_some() && now == before {
                return;
            }
            before = now;
            tokio::time::sleep(idle).await;
        }
    }

    async fn read(
        &self,
        reader: &mut FrameReader,
        lanes: &Lanes,
        control: &mpsc::Sender<Frame>,
    ) -> Result<Ended, Error> {
        let mut shown = None;
        while let Some(frame) = reader.frame().await? {
            match frame {
                Frame::Ask(request, ask) => self.accept(request, ask, &mut shown, lanes)?,
                Frame::Cancel(request) => self.ledger.cancel(request),
                // When there is no room, there is enough to send to show that this end lives.
                Frame::Ping(token) => drop(control.try_send(Frame::Pong(token))),
                Frame::Card(card) if self.version >= CROWDS => shown = Some(card),
                Frame::Goodbye(..) => break,
                _ => return Err(Error::Protocol("a frame that no asker sends")),
            }
        }
        Ok(Ended::ByAsker)
    }

    /// Waits for room in memory for a chunk: of what all sessions share while there is any, else this session's own.
    async fn room(&self) -> OwnedSemaphorePermit {
        match self.giver.room() {
            Some(room) => room,
            // It is never closed.
            None => match Arc::clone(&self.own).acquire_owned().await {
                Ok(room) => room,
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Opens a request and puts it on its lane. The card that was `shown` last is for the next subscription.
    fn accept(&self, request: u32, ask: Ask, shown: &mut Option<Bytes>, lanes: &Lanes) -> Result<(), Error> {
        let put = |lane: &mpsc::Sender<Job>, job| lane.try_send(job).map_err(|_| Error::Closed);
        if let Ask::Run { object, first, count } = ask {
            for step in 0..u32::from(count) {
                let request = request.wrapping_add(step);
                self.ledger.open(request, &ask)?;
                put(&lanes.chunks, Job::At(request, object, u64::from(first + step)))?;
            }
            return Ok(());
        }
        self.ledger.open(request, &ask)?;
        match ask {
            Ask::Haves(object) => put(&lanes.haves, Job::Tell(request, object, shown.take())),
            Ask::Chunk(_) => put(&lanes.chunks, Job::Ask(request, ask)),
            _ => put(&lanes.records, Job::Ask(request, ask)),
        }
    }

    async fn give_chunk(&self, job: Job, out: Outbox) {
        let room = self.room().await;
        let (request, chunk) = match job {
            Job::Ask(request, Ask::Chunk(chunk)) => (request, Some(chunk)),
            Job::At(request, object, index) if !self.ledger.is_cancelled(request) => {
                (request, self.giver.resolve(self.peer, object, index).await)
            }
            Job::Ask(request, _) | Job::Tell(request, ..) | Job::At(request, ..) => (request, None),
        };
        let frame = match chunk {
            _ if self.ledger.is_cancelled(request) => Frame::Cancelled(request),
            None => Frame::NotFound(request),
            Some(wanted) => match self.giver.chunk(self.peer, wanted).await {
                Answer::Found(chunk) if chunk.reference() != wanted => Frame::NotFound(request),
                Answer::Found(chunk) if chunk.is_zero() => Frame::Zero(request),
                Answer::Found(chunk) => {
                    let bytes = chunk.into_bytes();
                    // The other end of the channel lives as long as the session.
                    let _ =
                        out.chunks.send(Sending { request, bytes, sent: 0, turn: None, _room: room }).await;
                    return;
                }
                Answer::NotFound => Frame::NotFound(request),
                Answer::Busy(after) => Frame::Busy(request, after),
            },
        };
        let _ = out.control.send(frame).await;
    }

    async fn give_record(&self, job: Job, out: Outbox) {
        let Job::Ask(request, ask) = job else { return };
        let (record, answer) = match ask {
            Ask::Top(object) => (Record::Top, self.giver.top(self.peer, object)),
            Ask::Page(object, index) => (Record::Page, self.giver.page(self.peer, object, index)),
            Ask::Parity(object) => (Record::Parity, self.giver.parity(self.peer, object)),
            Ask::ParityPage(object, digest) => {
                (Record::ParityPage, self.giver.parity_page(self.peer, object, digest))
            }
            Ask::Chunk(_) | Ask::Run { .. } | Ask::Haves(_) => return,
        };
        let frame = match answer.await {
            Answer::Found(bytes) if bytes.len() + 4 <= record.kind().limit() => {
                Frame::Record(request, record, bytes)
            }
            Answer::Found(_) | Answer::NotFound => Frame::NotFound(request),
            Answer::Busy(after) => Frame::Busy(request, after),
        };
        let _ = out.control.send(frame).await;
    }

    /// Writes what comes: small frames first, then the next slice of the chunk in hand.
    async fn write(
        &self,
        writer: &mut FrameWriter,
        mut control: mpsc::Receiver<Frame>,
        mut chunks: mpsc::Receiver<Sending>,
        tasks: &Tasks,
    ) -> Result<Ended, Error> {
        let mut hand = None;
        while !tasks.is_stopping() {
            if self.write_control(writer, &mut control).await? {
                writer.send().await?;
            }
            if hand.is_none() {
                hand = chunks.try_recv().ok();
            }
            let Some(sending) = &mut hand else {
                writer.flush().await?;
                tokio::select! {
                    () = tasks.stopping() => {}
                    Some(frame) = control.recv() => self.gather(writer, &frame),
                    Some(sending) = chunks.recv() => hand = Some(sending),
                }
                continue;
            };
            if self.ledger.is_cancelled(sending.request) {
                self.gather(writer, &Frame::Cancelled(sending.request));
                hand = None;
                continue;
            }
            if sending.turn.is_none() {
                match self.giver.begin(self.peer) {
                    Ok(turn) => sending.turn = Some(turn),
                    Err(after) => {
                        self.gather(writer, &Frame::Busy(sending.request, after));
                        hand = None;
                        continue;
                    }
                }
            }
            let mut pace = self.giver.pace(self.peer, sending.bytes.len().min(SLICE));
            let length = loop {
                // A slow rate must not hold up small frames. The limit's place in line is kept.
                tokio::select! {
                    biased;
                    length = &mut pace => break length,
                    Some(frame) = control.recv() => {
                        self.gather(writer, &frame);
                        writer.send().await?;
                        writer.flush().await?;
                    }
                    () = tasks.stopping() => return Ok(Ended::Shutdown),
                }
            };
            if self.write_slice(writer, sending, length).await? {
                hand = None;
            }
        }
        Ok(Ended::Shutdown)
    }

    /// Gathers the small frames that wait; whether there is anything to write.
    async fn write_control(
        &self,
        writer: &mut FrameWriter,
        control: &mut mpsc::Receiver<Frame>,
    ) -> Result<bool, Error> {
        while let Ok(frame) = control.try_recv() {
            self.gather(writer, &frame);
            if writer.gathered() >= BATCH {
                writer.send().await?;
            }
        }
        Ok(writer.gathered() > 0)
    }

    /// Writes the next slice, of this length where there is so much; whether it was the last.
    async fn write_slice(
        &self,
        writer: &mut FrameWriter,
        sending: &mut Sending,
        length: usize,
    ) -> Result<bool, Error> {
        let data = sending.bytes.split_to(sending.bytes.len().min(length.clamp(1, SLICE)));
        let (offset, last) = (sending.sent, sending.bytes.is_empty());
        sending.sent += u32::try_from(data.len()).unwrap_or(u32::MAX);
        if last {
            self.ledger.close(sending.request);
        }
        writer.slice(sending.request, offset, data).await?;
        Ok(last)
    }

    /// Puts a frame with those that go out next, and closes the request that it ends.
    fn gather(&self, writer: &mut FrameWriter, frame: &Frame) {
        match frame {
            Frame::Record(request, ..)
            | Frame::Zero(request)
            | Frame::NotFound(request)
            | Frame::Busy(request, _)
            | Frame::Cancelled(request) => self.ledger.close(*request),
            _ => {}
        }
        writer.gather(frame);
    }
}

/// A chunk on its way out.
struct Sending {
    request: u32,
    /// What is left of it.
    bytes: Bytes,
    /// How much has gone.
    sent: u32,
    /// Its peer's turn, from the first slice on.
    turn: Option<Turn>,
    /// Given back with the last slice, or with the session.
    _room: OwnedSemaphorePermit,
}

/// Works on at most `width` jobs at once, until there are no more to come.
async fn lane<F: Future<Output = ()>>(mut jobs: mpsc::Receiver<Job>, width: usize, work: impl Fn(Job) -> F) {
    let mut working = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = working.next() => {}
            job = jobs.recv(), if working.len() < width => match job {
                Some(job) => working.push(work(job)),
                None => return,
            },
        }
    }
}
