//! `casctl fetch`: brings an object here and writes it to a file or to standard output.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use casd_proto::Reason;
use casd_proto::v1::fetch_response::Event;
use casd_proto::v1::{FetchData, FetchFinished, FetchProgress, FetchRequest, FetchResponse, FetchStarted};
use serde_json::json;
use tonic::Streaming;

use super::Session;
use crate::args::Fetch;
use crate::download::{Sink, Target, Writer, check_free, safe_name};
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::progress::Progress;
use crate::output::text::{count, escaped, size};

/// Fetches; see [`Fetch`].
pub(super) async fn run(session: &Session, args: Fetch) -> Result<Exit, Failure> {
    match args.output.as_deref() {
        Some(path) if path.as_os_str() == "-" => to_stdout(session, &args).await,
        path => to_file(session, &args, path).await,
    }
}

/// Refuses what this version does not have.
pub(super) fn check(args: &Fetch) -> Result<(), Failure> {
    if args.detach || args.wait || args.symlinks {
        return Err(Failure::not_built("--detach, --wait and --symlinks"));
    }
    Ok(())
}

async fn to_stdout(session: &Session, args: &Fetch) -> Result<Exit, Failure> {
    let writer = Writer::start(Sink::Stdout, "standard output".to_owned())?;
    let mut transfer = Transfer::start(session, args, writer, true).await?;
    while transfer.step().await?.is_some() {}
    let (_, finished) = transfer.finish().await?;
    session.output.aside(&line(args.source.id.as_str(), Path::new("-"), &finished));
    Ok(Exit::Done)
}

async fn to_file(session: &Session, args: &Fetch, path: Option<&Path>) -> Result<Exit, Failure> {
    let id = args.source.id.as_str();
    let (folder, name) = match path {
        Some(path) => split(path)?,
        None => (Path::new("."), OsStr::new(id)),
    };
    if let Some(path) = path {
        check_free(path, args.force)?;
    }
    // Now, not when it is needed: nothing is fetched for a folder that cannot be written.
    let (target, file) = Target::create(folder, name)?;
    let size = file.try_clone().map_err(|error| Failure::io("IO", "the temporary file", &error))?;
    let shown = path.map_or_else(|| id.to_owned(), |path| path.display().to_string());
    let writer = Writer::start(Sink::File(file), shown)?;
    let mut transfer = Transfer::start(session, args, writer, false).await?;
    let mut path = path.map(Path::to_owned);
    while let Some(event) = transfer.step().await? {
        let Some(started) = event else { continue };
        let path = path.get_or_insert_with(|| folder_name(args, &started));
        check_free(path, args.force)?;
        size.set_len(started.size).map_err(|error| Failure::io("UNWRITABLE", path.display(), &error))?;
    }
    let (file, finished) = transfer.finish().await?;
    let path = path.unwrap_or_else(|| PathBuf::from(id));
    target.finish(&path, args.force, file.as_ref().filter(|_| args.sync))?;
    session.output.result(&line(id, &path, &finished))?;
    Ok(Exit::Done)
}

/// The folder and the name of a path that is to become a file.
fn split(path: &Path) -> Result<(&Path, &OsStr), Failure> {
    let ends_as_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let Some(name) = path.file_name().filter(|_| !ends_as_folder) else {
        let message = format!("{} does not name a file", path.display());
        return Err(Failure::local(Exit::Usage, "USAGE", message).hint("name the file in it with -o"));
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder, name))
}

/// What the file is called when the caller has not said: as its link, else as its publisher says, made safe;
/// else by its id.
fn folder_name(args: &Fetch, started: &FetchStarted) -> PathBuf {
    let name = args.source.name.as_deref().and_then(safe_name).or_else(|| safe_name(&started.name));
    PathBuf::from(name.unwrap_or_else(|| args.source.id.as_str().to_owned()))
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
    async fn start(session: &Session, args: &Fetch, writer: Writer, in_order: bool) -> Result<Self, Failure> {
        let request = FetchRequest {
            id: args.source.id.as_str().to_owned(),
            peers: args.peers.iter().chain(&args.source.peers).cloned().collect(),
            pin: args.pin,
            stall_timeout_ms: u64::try_from(args.stall.as_millis()).unwrap_or(u64::MAX),
            in_order,
            to_store_only: false,
            accept_zeros: !in_order,
        };
        let events = session.objects().fetch(request).await?.into_inner();
        let output = session.output;
        Ok(Self { events, writer, in_order, size: None, received: 0, finished: None, progress: None, output })
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
            Some(Event::Progress(progress)) => self.show(&progress),
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

    fn show(&self, progress: &FetchProgress) {
        if let Some(bar) = &self.progress {
            bar.say(format!(
                "{}/s from {}",
                size(progress.bytes_per_second),
                count(progress.peers.into(), "peer")
            ));
        }
    }

    /// Waits until everything is written, and makes sure that it was everything.
    async fn finish(self) -> Result<(Option<File>, FetchFinished), Failure> {
        let file = self.writer.finish().await?;
        let finished = self.finished.ok_or_else(|| broken("ended the fetch early"))?;
        if self.size != Some(finished.size) || self.received != finished.size {
            return Err(broken("sent another number of bytes than it says"));
        }
        Ok((file, finished))
    }
}

/// The daemon does not keep to `casd.v1`.
fn broken(what: &str) -> Failure {
    Failure::local(Exit::Failed, Reason::Internal.as_str(), format!("the daemon {what}; this is a bug"))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people"
)]
fn line(id: &str, path: &Path, finished: &FetchFinished) -> Line {
    let rate = size((finished.size as f64 / finished.seconds.max(1e-3)) as u64);
    let shown = escaped(&path.display().to_string());
    let whence = match finished.peers.len() as u64 {
        0 => "from the store".to_owned(),
        peers => format!("from {}", count(peers, "peer")),
    };
    let human = format!("{shown}: {} in {:.1} s, {rate}/s, {whence}", size(finished.size), finished.seconds);
    let json = json!({
        "id": id,
        "path": path.display().to_string(),
        "size": finished.size,
        "seconds": finished.seconds,
        "local_bytes": finished.local_bytes,
        "peers": finished.peers,
    });
    Line { human, bare: shown, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_into_folder_and_name() {
        assert_eq!(split(Path::new("a")).unwrap(), (Path::new("."), OsStr::new("a")));
        assert_eq!(split(Path::new("/x/a")).unwrap(), (Path::new("/x"), OsStr::new("a")));
        for wrong in ["x/", "..", "/", ""] {
            assert_eq!(split(Path::new(wrong)).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn json_has_its_documented_keys() {
        let peers = [("12D3".to_owned(), 5)].into();
        let finished = FetchFinished { size: 2 << 20, seconds: 0.5, local_bytes: 3, peers };
        let line = line("ab", Path::new("out"), &finished);
        let expected = json!({
            "id": "ab", "path": "out", "size": 2 << 20, "seconds": 0.5, "local_bytes": 3, "peers": { "12D3": 5 },
        });
        assert_eq!(line.json, expected);
        assert_eq!(line.human, "out: 2.0 MiB in 0.5 s, 4.0 MiB/s, from 1 peer");
        assert_eq!(line.bare, "out");
    }
}
