//! Reading and writing frames on a stream, and watching that they get on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::codec::{self, slice_head};
use super::frames::{Frame, HEAD, Kind};
use super::{Came, Error, Options, Reason};
use crate::peer::ByteStream;

/// How long a goodbye may take to be written.
const PARTING: Duration = Duration::from_secs(1);

/// Small reads are gathered in a buffer of this size; large ones go past it. So of each slice at most this much is
/// copied once more, and a slice's head costs no call of its own.
const GATHER: usize = 1024;

/// What has moved, for the watch and for whoever wants to show it.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Bytes read.
    pub(super) received: AtomicU64,
    /// Bytes written.
    pub(super) sent: AtomicU64,
    /// Frames begun, to tell one long frame from many.
    frames: AtomicU64,
    /// A frame has begun and not ended.
    reading: AtomicBool,
    /// Bytes are on their way to the stream.
    writing: AtomicBool,
}

/// The two directions of a stream.
pub(super) fn split(stream: Box<dyn ByteStream>) -> (Arc<Meter>, FrameReader, FrameWriter) {
    let meter = Arc::new(Meter::default());
    let (read, write) = tokio::io::split(stream);
    let reader = FrameReader { io: BufReader::with_capacity(GATHER, read), meter: Arc::clone(&meter) };
    let writer =
        FrameWriter { io: write, meter: Arc::clone(&meter), within: false, scratch: BytesMut::new() };
    (meter, reader, writer)
}

/// Reads frames. Not cancel-safe: a session reads to its end.
pub(super) struct FrameReader {
    io: BufReader<ReadHalf<Box<dyn ByteStream>>>,
    meter: Arc<Meter>,
}

impl FrameReader {
    /// The kind and the length of the next frame; `None` when the stream ends between two frames.
    pub(super) async fn head(&mut self) -> Result<Option<(Kind, usize)>, Error> {
        if self.io.fill_buf().await?.is_empty() {
            return Ok(None);
        }
        self.meter.frames.fetch_add(1, Relaxed);
        self.meter.reading.store(true, Relaxed);
        let mut head = [0; HEAD];
        self.io.read_exact(&mut head).await?;
        self.meter.received.fetch_add(HEAD as u64, Relaxed);
        let (kind, length) = codec::head(head)?;
        if length == 0 {
            self.done();
        }
        Ok(Some((kind, length)))
    }

    /// The next frame, whole; `None` at the end. For sides that expect no slices.
    pub(super) async fn frame(&mut self) -> Result<Option<Frame>, Error> {
        match self.head().await? {
            Some((kind, length)) => Ok(Some(self.decode(kind, length).await?)),
            None => Ok(None),
        }
    }

    /// The frame whose head was read. Its length is within its kind's limit, so it may be allocated.
    pub(super) async fn decode(&mut self, kind: Kind, length: usize) -> Result<Frame, Error> {
        let mut fields = BytesMut::with_capacity(length);
        self.fill(&mut fields, length, None).await?;
        self.done();
        Frame::decode(kind, fields.freeze())
    }

    /// The request and the offset at the beginning of a slice.
    pub(super) async fn slice_fields(&mut self) -> Result<(u32, u32), Error> {
        let mut fields = [0; 8];
        self.io.read_exact(&mut fields).await?;
        self.meter.received.fetch_add(8, Relaxed);
        let mut fields = &fields[..];
        Ok((fields.get_u32_le(), fields.get_u32_le()))
    }

    /// Reads a slice's data to where it belongs, and counts what has come. There is room for it.
    pub(super) async fn slice_data(
        &mut self,
        to: &mut BytesMut,
        length: usize,
        came: &Came,
    ) -> Result<(), Error> {
        self.fill(to, length, Some(came)).await?;
        self.done();
        Ok(())
    }

    /// Passes over a slice's data.
    pub(super) async fn skip(&mut self, mut length: usize) -> Result<(), Error> {
        while length > 0 {
            let here = self.io.fill_buf().await?.len().min(length);
            if here == 0 {
                return Err(cut_off());
            }
            self.io.consume(here);
            self.meter.received.fetch_add(here as u64, Relaxed);
            length -= here;
        }
        self.done();
        Ok(())
    }

    async fn fill(&mut self, to: &mut BytesMut, mut length: usize, came: Option<&Came>) -> Result<(), Error> {
        while length > 0 {
            let read = self.io.read_buf(&mut to.limit(length)).await?;
            if read == 0 {
                return Err(cut_off());
            }
            self.meter.received.fetch_add(read as u64, Relaxed);
            if let Some(came) = came {
                came.add(read);
            }
            length -= read;
        }
        Ok(())
    }

    fn done(&self) {
        self.meter.reading.store(false, Relaxed);
    }
}

fn cut_off() -> Error {
    Error::Broken("it ended in the middle of a message".to_owned())
}

/// Writes frames.
pub(super) struct FrameWriter {
    io: WriteHalf<Box<dyn ByteStream>>,
    meter: Arc<Meter>,
    /// A frame was begun and not written to its end, so that nothing sensible can follow.
    within: bool,
    /// Where small frames are put together.
    scratch: BytesMut,
}

impl FrameWriter {
    /// Puts a frame with those that go out next. Call [`FrameWriter::send`] or [`FrameWriter::slice`] to write them.
    pub(super) fn gather(&mut self, frame: &Frame) {
        frame.encode(&mut self.scratch);
    }

    /// Bytes gathered.
    pub(super) fn gathered(&self) -> usize {
        self.scratch.len()
    }

    /// Writes what was gathered.
    pub(super) async fn send(&mut self) -> Result<(), Error> {
        let bytes = self.scratch.split().freeze();
        self.write(bytes).await
    }

    /// Writes a slice, its data from where it lies.
    pub(super) async fn slice(&mut self, request: u32, offset: u32, data: Bytes) -> Result<(), Error> {
        let head = slice_head(request, offset, data.len());
        self.write(Buf::chain(head.as_slice(), data)).await
    }

    /// Lets go of what lower layers hold back. Before waiting for something else to send.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.meter.writing.store(true, Relaxed);
        self.io.flush().await?;
        self.meter.writing.store(false, Relaxed);
        Ok(())
    }

    async fn write(&mut self, mut bytes: impl Buf) -> Result<(), Error> {
        self.within = true;
        self.meter.writing.store(true, Relaxed);
        while bytes.has_remaining() {
            let written = self.io.write_buf(&mut bytes).await?;
            if written == 0 {
                return Err(Error::Broken("it takes no more bytes".to_owned()));
            }
            self.meter.sent.fetch_add(written as u64, Relaxed);
        }
        self.within = false;
        self.meter.writing.store(false, Relaxed);
        Ok(())
    }

    /// Says why the session ends, if that can be said, and closes. Takes no longer than [`PARTING`].
    pub(super) async fn part(mut self, reason: Option<Reason>, text: &str) {
        let last_words = async {
            if let Some(reason) = reason.filter(|_| !self.within) {
                self.gather(&Frame::Goodbye(reason, text.to_owned()));
                self.send().await?;
            }
            Ok::<_, Error>(self.io.shutdown().await?)
        };
        // Whether it is heard does not matter.
        let _ = tokio::time::timeout(PARTING, last_words).await;
    }
}

/// Ends when the stream no longer gets on, with the reason. Calls `quiet` when nothing was sent for a third of the idle
/// time, so that pings can be sent.
///
/// It looks at the meter a few times in each period instead of guarding every read with a timer, so that the bulk path
/// pays nothing; what stalls is found at most half a period late.
pub(super) async fn watch(meter: &Meter, options: &Options, mut quiet: impl FnMut()) -> Error {
    let millis = u64::try_from(options.stall.as_millis()).unwrap_or(u64::MAX);
    let need = (Options::MIN_RATE.saturating_mul(millis) / 1000).max(1);
    let period = options.stall.min(options.idle / 3);
    let mut tick = tokio::time::interval((period / 4).max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let start = Instant::now();
    let (mut read, mut written, mut heard, mut spoke) =
        (Mark::at(start), Mark::at(start), Mark::at(start), Mark::at(start));
    let mut frame = 0;
    loop {
        let now = tick.tick().await;
        let (received, sent) = (meter.received.load(Relaxed), meter.sent.load(Relaxed));
        let frames = meter.frames.load(Relaxed);
        let same_frame = meter.reading.load(Relaxed) && frames == std::mem::replace(&mut frame, frames);
        if read.age(now, received, if same_frame { need } else { 0 }) >= options.stall
            || written.age(now, sent, if meter.writing.load(Relaxed) { need } else { 0 }) >= options.stall
        {
            return Error::Stalled;
        }
        if heard.age(now, received, 1) >= options.idle {
            return Error::Idle;
        }
        if spoke.age(now, sent, 1) >= options.idle / 3 {
            quiet();
            spoke = Mark { count: sent, at: now };
        }
    }
}

/// A count, and since when it has not grown enough.
struct Mark {
    count: u64,
    at: Instant,
}

impl Mark {
    fn at(at: Instant) -> Self {
        Self { count: 0, at }
    }

    /// How long `count` has grown by less than `need`.
    fn age(&mut self, now: Instant, count: u64, need: u64) -> Duration {
        if count.saturating_sub(self.count) >= need {
            *self = Self { count, at: now };
        }
        now.duration_since(self.at)
    }
}
