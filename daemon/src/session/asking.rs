//! The task of a session's asking end: it reads answers, writes requests, and watches.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::asker::Shared;
use super::frames::{CROWDS, Frame, Kind};
use super::io::{FrameReader, FrameWriter, watch};
use super::{Error, News, Options, Reason};
use crate::support::task::Tasks;

/// Bytes of requests that are put together before they are written.
const BATCH: usize = 16 * 1024;

/// Runs the session to its end and tells everyone who waits.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut reader: FrameReader,
    mut writer: FrameWriter,
    mut out: mpsc::Receiver<Frame>,
    options: Options,
    tasks: Tasks,
) {
    // A session that nobody uses is left to end: the giver has others waiting for its place.
    let ping = || {
        if shared.pending.is_used() {
            drop(shared.out.try_send(Frame::Ping(0)));
        }
    };
    let (error, reason) = tokio::select! {
        error = read(&shared, &mut reader) => { let reason = error.reason(); (error, reason) }
        error = write(&mut writer, &mut out) => { let reason = error.reason(); (error, reason) }
        error = watch(&shared.meter, &options, ping) => { let reason = error.reason(); (error, reason) }
        () = shared.unwanted.cancelled() => (Error::Closed, Some(Reason::Done)),
        () = tasks.stopping() => (Error::Closed, Some(Reason::Shutdown)),
    };
    tracing::debug!(peer = %shared.peer, %error, "session over");
    let text = if error.is_strike() { error.to_string() } else { String::new() };
    shared.end(error);
    writer.part(reason, &text).await;
}

async fn read(shared: &Shared, reader: &mut FrameReader) -> Error {
    loop {
        match read_frame(shared, reader).await {
            Ok(()) => {}
            Err(error) => return error,
        }
    }
}

/// Reads a frame and does what it says. Never waits for anything but the stream.
async fn read_frame(shared: &Shared, reader: &mut FrameReader) -> Result<(), Error> {
    let Some((kind, length)) = reader.head().await? else {
        return Err(Error::Broken("the peer closed it".to_owned()));
    };
    let pending = &shared.pending;
    if kind == Kind::Slice {
        return read_slice(shared, reader, length).await;
    }
    match reader.decode(kind, length).await? {
        Frame::Record(request, record, bytes) => pending.record(request, record, bytes),
        Frame::Zero(request) => pending.zero(request),
        Frame::NotFound(request) => pending.not_found(request),
        Frame::Busy(request, after) => pending.busy(request, after),
        Frame::Cancelled(request) => pending.cancelled(request),
        Frame::Have(request, have) => {
            if pending.have(request, have)? {
                // There is room: nobody else cancels this request now.
                drop(shared.out.try_send(Frame::Cancel(request)));
            }
            Ok(())
        }
        Frame::Given(request, chunks) if shared.version >= CROWDS => {
            pending.rumour(request, News::Given(chunks))
        }
        Frame::Peers(request, fellows) if shared.version >= CROWDS => {
            pending.rumour(request, News::Peers(fellows))
        }
        Frame::Pong(_) => Ok(()),
        Frame::Goodbye(reason, text) => Err(Error::goodbye(reason, &text)),
        _ => Err(Error::Protocol("a frame that no giver sends")),
    }
}

async fn read_slice(shared: &Shared, reader: &mut FrameReader, length: usize) -> Result<(), Error> {
    let data = length.checked_sub(8).ok_or(Error::Protocol("a frame that ends too early"))?;
    let (request, offset) = reader.slice_fields().await?;
    let mut to = shared.pending.slice(request, offset, data)?;
    match &mut to {
        Some((buffer, came)) => reader.slice_data(buffer, data, came).await?,
        None => reader.skip(data).await?,
    }
    shared.pending.sliced(request, data, to.map(|(buffer, _)| buffer));
    Ok(())
}

async fn write(writer: &mut FrameWriter, out: &mut mpsc::Receiver<Frame>) -> Error {
    let sent = async {
        while let Some(frame) = out.recv().await {
            writer.gather(&frame);
            while let (true, Ok(frame)) = (writer.gathered() < BATCH, out.try_recv()) {
                writer.gather(&frame);
            }
            writer.send().await?;
            writer.flush().await?;
        }
        Ok(())
    };
    match sent.await {
        Ok(()) => Error::Closed,
        Err(error) => error,
    }
}
