//! Fetching a file by its id, to a file or to standard output. A file is passed to the daemon, which then writes into
//! it what it would otherwise send; where that cannot be, it is written here.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use casd_proto::Reason;
use casd_proto::v1::fetch_response::Event;
use casd_proto::v1::{FetchData, FetchFinished, FetchRequest, FetchResponse, FetchStarted};
use tonic::Streaming;

use super::super::{Session, broken};
use super::{default_name, is_stdout, line, link_name, peers, show, split, stall_ms, tell_left_over};
use crate::args::Fetch;
use crate::download::{Coming, Sink, Target, Writer, check_free};
use crate::error::{Exit, Failure};
use crate::object::directory;
use crate::output::progress::Progress;
use crate::passing::{self, Passed};

/// Fetches.
pub(super) async fn run(session: &Session, args: &Fetch) -> Result<Exit, Failure> {
    let done = match args.output.as_deref() {
        Some(_) if is_stdout(args) => to_stdout(session, args).await,
        path => to_file(session, args, path).await,
    };
    done.map_err(|failure| {
        if failure.is(Reason::IsDirectory) {
            let address = directory(args.source.address.id.as_str());
            return failure.hint(format!("`casctl fetch {address}` restores it"));
        }
        failure
    })
}

async fn to_stdout(session: &Session, args: &Fetch) -> Result<Exit, Failure> {
    let writer = Writer::start(Sink::Stdout, "standard output".to_owned())?;
    let mut transfer = Transfer::start(session, args, writer, true, None).await?;
    while transfer.step().await?.is_some() {}
    let (_, finished) = transfer.finish().await?;
    session.output.aside(&line(args.source.address.id.as_str(), Path::new("-"), &finished));
    Ok(Exit::Done)
}

async fn to_file(session: &Session, args: &Fetch, path: Option<&Path>) -> Result<Exit, Failure> {
    let id = args.source.address.id.as_str();
    let (folder, name) = match path {
        Some(path) => split_file(path)?,
        None => (Path::new("."), OsStr::new(id)),
    };
    if let Some(path) = path {
        check_free(path, args.force, Coming::File)?;
    }
    tell_left_over(session, folder, name);
    // Now, not when it is needed: nothing is fetched for a folder that cannot be written.
    let (target, file) = Target::create(folder, name)?;
    let size = file.try_clone().map_err(|error| Failure::io("IO", "the temporary file", &error))?;
    let shown = path.map_or_else(|| id.to_owned(), |path| path.display().to_string());
    let passed = passing::pass(&session.socket, &file).await;
    let writer = Writer::start(Sink::File(file), shown)?;
    let mut transfer = Transfer::start(session, args, writer, false, passed).await?;
    let mut path = path.map(Path::to_owned);
    while let Some(event) = transfer.step().await? {
        let Some(started) = event else { continue };
        let path = path.get_or_insert_with(|| PathBuf::from(default_name(args, &started.name)));
        check_free(path, args.force, Coming::File)?;
        size.set_len(started.size).map_err(|error| Failure::io("UNWRITABLE", path.display(), &error))?;
    }
    let (file, finished) = transfer.finish().await?;
    let path = path.unwrap_or_else(|| PathBuf::from(id));
    target.finish(&path, args.force, file.as_ref().filter(|_| args.sync))?;
    session.output.result(&line(id, &path, &finished))?;
    Ok(Exit::Done)
}

/// The folder and the name of a path that is to become a file.
fn split_file(path: &Path) -> Result<(&Path, &OsStr), Failure> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        let message = format!("{} does not name a file", path.display());
        return Err(Failure::local(Exit::Usage, "USAGE", message).hint("name the file in it with -o"));
    }
    split(path)
}

// === impl Transfer ===

/// A fetch that is under way.
struct Transfer {
    /// The daemon's messages.
    events: Streaming<FetchResponse>,
    /// Where bytes go.
    writer: Writer,
    /// Whether they must come in order.
    in_order: bool,
    /// Whether the daemon writes them itself.
    is_passed: bool,
    /// The object's length in bytes, once started.
    size: Option<u64>,
    /// Bytes that have come, zeros among them.
    received: u64,
    /// The daemon's last word.
    finished: Option<FetchFinished>,
    /// Shown to people; made when the length is known.
    progress: Option<Progress>,
    /// How it is shown.
    output: crate::output::Output,
}

impl Transfer {
    /// Begins, with the file that the daemon has been passed, where it has.
    async fn start(
        session: &Session,
        args: &Fetch,
        writer: Writer,
        in_order: bool,
        passed: Option<Passed>,
    ) -> Result<Self, Failure> {
        let request = FetchRequest {
            id: args.source.address.id.as_str().to_owned(),
            peers: peers(args),
            pin: args.pin,
            stall_timeout_ms: stall_ms(args),
            in_order,
            to_store_only: false,
            accept_zeros: !in_order,
            into_file: passed.as_ref().map(Passed::token).unwrap_or_default(),
            wait: args.wait,
            name: link_name(args),
        };
        let events = session.objects().fetch(request).await?.into_inner();
        Ok(Self {
            events,
            writer,
            in_order,
            is_passed: passed.is_some(),
            size: None,
            received: 0,
            finished: None,
            progress: None,
            output: session.output,
        })
    }

    /// Takes one message. Gives the object's description when that was it; nothing after the last message.
    async fn step(&mut self) -> Result<Option<Option<FetchStarted>>, Failure> {
        let Some(message) = self.events.message().await? else { return Ok(None) };
        match message.event {
            Some(Event::Started(started)) => {
                self.size = Some(started.size);
                self.progress = Some(Progress::new(self.output, Some(started.size)));
                return Ok(Some(Some(started)));
            }
            Some(Event::Data(data)) => self.take(data).await?,
            Some(Event::Progress(progress)) => {
                if let Some(bar) = &self.progress {
                    show(bar, &progress);
                    if self.is_passed {
                        bar.reach(progress.bytes);
                    }
                }
            }
            Some(Event::Finished(finished)) => self.finished = Some(finished),
            // Of a later version.
            None => {}
        }
        Ok(Some(None))
    }

    async fn take(&mut self, data: FetchData) -> Result<(), Failure> {
        let length = data.data.len() as u64 + data.zeros;
        let end = data.offset.checked_add(length);
        let misplaced = self.in_order && data.offset != self.received;
        if misplaced || end.is_none_or(|end| self.size.is_none_or(|size| end > size)) {
            return Err(broken("sent bytes that do not belong there"));
        }
        self.received += length;
        if let Some(progress) = &self.progress {
            progress.add(length);
        }
        // Where nothing is written, a new file reads as zeros.
        if data.data.is_empty() { Ok(()) } else { self.writer.write(data.offset, data.data).await }
    }

    /// Waits until everything is written, and makes sure that it was everything.
    async fn finish(self) -> Result<(Option<File>, FetchFinished), Failure> {
        let file = self.writer.finish().await?;
        let finished = self.finished.ok_or_else(|| broken("ended the fetch early"))?;
        let written = if self.is_passed { finished.written_bytes } else { 0 };
        let given = self.received.checked_add(written);
        if self.size != Some(finished.size) || given != Some(finished.size) {
            return Err(broken("gave another number of bytes than it says"));
        }
        Ok((file, finished))
    }
}
