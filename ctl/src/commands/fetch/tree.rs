//! Fetching a directory, or what a path inside one names.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use casd_proto::v1::tree_part::Part;
use casd_proto::v1::{FetchFinished, FetchTreeRequest, FetchTreeResponse, ObjectKind, TreePart, TreeStarted};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde_json::json;
use tonic::Streaming;

use super::super::{Session, broken};
use super::{
    default_name, is_stdout, line, link_name, no_stdout, peers, show, split, stall_ms, tell_left_over,
};
use crate::args::Fetch;
use crate::download::{Coming, Sink, Target, Writer, check_free};
use crate::error::{Exit, Failure};
use crate::object::directory;
use crate::output::progress::Progress;
use crate::output::text::count;
use crate::output::{Line, Output};
use crate::tree::order::{Order, Step};
use crate::tree::place::Place;
use crate::tree::restore::{Finish, Restored, Restoring};

/// Fetches.
pub(super) async fn run(session: &Session, args: &Fetch) -> Result<Exit, Failure> {
    // Now, not when it is needed: nothing is fetched for a target that cannot be made.
    let path = args.output.as_deref().filter(|_| !is_stdout(args));
    match path {
        Some(path) => {
            let (folder, _) = split(path)?;
            check_writable(folder)?;
            let inside = !args.source.address.path.is_empty();
            check_free(path, args.force, if inside { Coming::Either } else { Coming::Directory })?;
        }
        None if is_stdout(args) => {}
        None => check_writable(Path::new("."))?,
    }
    let mut transfer = Transfer::start(session, args).await?;
    match transfer.started.kind() {
        ObjectKind::Directory if is_stdout(args) => Err(no_stdout()),
        ObjectKind::Directory => to_directory(session, args, transfer).await,
        ObjectKind::File if is_stdout(args) => {
            let writer = Writer::start(Sink::Stdout, "standard output".to_owned())?;
            let (file, finished) = to_file(&mut transfer, writer).await?;
            debug_assert!(file.is_none());
            session.output.aside(&line(&transfer.started.id, Path::new("-"), &finished));
            Ok(Exit::Done)
        }
        ObjectKind::File => to_new_file(session, args, transfer).await,
        ObjectKind::Unspecified => Err(broken("does not say what is coming")),
    }
}

/// Restores a directory.
async fn to_directory(session: &Session, args: &Fetch, mut transfer: Transfer) -> Result<Exit, Failure> {
    let started = &transfer.started;
    let path = path(args, started);
    let (folder, name) = split(&path)?;
    check_free(&path, args.force, Coming::Directory)?;
    tell_left_over(session, folder, name);
    let place = Place::create(folder, name, started.size, started.entries)?;
    let order = Order::directory(started.entries, started.size);
    let mut restoring = Restoring::start(place, order, args.symlinks)?;
    while let Some(parts) = transfer.next().await? {
        restoring.take(parts).await?;
    }
    let finished = transfer.finish()?;
    let finish = Finish { path: path.clone(), force: args.force, sync: args.sync };
    let restored = restoring.finish(finish).await?;
    session.output.result(&tree_line(&directory(&transfer.started.id), &path, &finished, &restored))?;
    Ok(tell_left_out(session.output, &path, &restored))
}

/// Writes a file that a path names.
async fn to_new_file(session: &Session, args: &Fetch, mut transfer: Transfer) -> Result<Exit, Failure> {
    if args.output.as_ref().is_some_and(|path| path.as_os_str().as_encoded_bytes().ends_with(b"/")) {
        return Err(Failure::local(Exit::Usage, "USAGE", "it is a file, and -o names a directory"));
    }
    let path = path(args, &transfer.started);
    let (folder, name): (&Path, &OsStr) = split(&path)?;
    check_free(&path, args.force, Coming::File)?;
    tell_left_over(session, folder, name);
    let (target, file) = Target::create(folder, name)?;
    let unwritable = |error| Failure::io("UNWRITABLE", path.display(), &error);
    // Where nothing is written, a new file reads as zeros.
    file.set_len(transfer.started.size).map_err(unwritable)?;
    let writer = Writer::start(Sink::File(file), path.display().to_string())?;
    let (file, finished) = to_file(&mut transfer, writer).await?;
    if let Some(file) = file.as_ref().filter(|_| transfer.executable) {
        make_executable(file).map_err(unwritable)?;
    }
    target.finish(&path, args.force, file.as_ref().filter(|_| args.sync))?;
    session.output.result(&line(&transfer.started.id, &path, &finished))?;
    Ok(Exit::Done)
}

/// Writes the one file that is coming.
async fn to_file(
    transfer: &mut Transfer,
    mut writer: Writer,
) -> Result<(Option<File>, FetchFinished), Failure> {
    let mut order = Order::file(transfer.started.size);
    let mut offset = 0;
    while let Some(parts) = transfer.next().await? {
        for part in parts {
            let bytes = match order.take(part)? {
                Step::File(_, executable, bytes) => {
                    transfer.executable = executable;
                    bytes
                }
                Step::Begin(_, executable) => {
                    transfer.executable = executable;
                    continue;
                }
                Step::Data(bytes) => bytes,
                Step::Zeros(zeros) if transfer.takes_zeros => {
                    offset += zeros;
                    continue;
                }
                Step::End => continue,
                Step::Zeros(_) | Step::Enter(_) | Step::Leave | Step::Link(..) => {
                    return Err(broken("sent what was not asked for"));
                }
            };
            let length = bytes.len() as u64;
            writer.write(offset, bytes).await?;
            offset += length;
        }
    }
    order.finish()?;
    let file = writer.finish().await?;
    Ok((file, transfer.finish()?))
}

/// Lets everybody execute a file who may read it.
fn make_executable(file: &File) -> std::io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode | (mode & 0o444) >> 2))
}

/// Where it goes.
fn path(args: &Fetch, started: &TreeStarted) -> PathBuf {
    match &args.output {
        // Without a `/` at its end.
        Some(path) => path.components().collect(),
        None => default_name(args, &started.name).into(),
    }
}

fn check_writable(folder: &Path) -> Result<(), Failure> {
    accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|error| {
        let message = format!("cannot write to the folder {}", folder.display());
        Failure::io("UNWRITABLE", message, &error.into())
    })
}

// === impl Transfer ===

/// A fetch that is under way.
struct Transfer {
    events: Streaming<FetchTreeResponse>,
    /// A message that has come and has not been looked at.
    first: Option<FetchTreeResponse>,
    /// What is coming.
    started: TreeStarted,
    /// Of a single file: whether it may be executed.
    executable: bool,
    /// Whether zeros may be told by their length.
    takes_zeros: bool,
    /// The daemon's last word.
    finished: Option<FetchFinished>,
    progress: Progress,
}

impl Transfer {
    /// Begins, and waits until it is known what is coming.
    async fn start(session: &Session, args: &Fetch) -> Result<Self, Failure> {
        let address = &args.source.address;
        let takes_zeros = !is_stdout(args);
        let request = FetchTreeRequest {
            object: address.to_string(),
            peers: peers(args),
            pin: args.pin,
            stall_timeout_ms: stall_ms(args),
            accept_zeros: takes_zeros,
            wait: args.wait,
            name: link_name(args),
        };
        let mut events = session.trees().fetch(request).await?.into_inner();
        let mut first = events.message().await?.ok_or_else(|| broken("ended the fetch early"))?;
        let started = first.started.take().ok_or_else(|| broken("does not say what is coming"))?;
        if address.path.is_empty()
            && (started.kind() != ObjectKind::Directory || started.id != address.id.as_str())
        {
            return Err(broken("sent something else than was asked for"));
        }
        let progress = Progress::new(session.output, Some(started.size));
        let first = Some(first);
        Ok(Self { events, first, started, executable: false, takes_zeros, finished: None, progress })
    }

    /// The next parts; nothing after the last message.
    async fn next(&mut self) -> Result<Option<Vec<TreePart>>, Failure> {
        let message = match self.first.take() {
            Some(message) => message,
            None => match self.events.message().await? {
                Some(message) => message,
                None => return Ok(None),
            },
        };
        self.progress.add(message.parts.iter().map(bytes_of).fold(0, u64::saturating_add));
        if let Some(progress) = &message.progress {
            show(&self.progress, progress);
        }
        if message.finished.is_some() {
            self.finished = message.finished;
        }
        Ok(Some(message.parts))
    }

    /// The daemon's last word, which must have come.
    fn finish(&mut self) -> Result<FetchFinished, Failure> {
        let finished = self.finished.take().ok_or_else(|| broken("ended the fetch early"))?;
        if finished.size == self.started.size {
            return Ok(finished);
        }
        Err(broken("sent another number of bytes than it says"))
    }
}

/// Bytes of files that a part brings; only shown.
fn bytes_of(part: &TreePart) -> u64 {
    match &part.part {
        Some(Part::File(file)) => file.data.len() as u64,
        Some(Part::Data(data)) => (data.data.len() as u64).saturating_add(data.zeros),
        _ => 0,
    }
}

// === What is said ===

fn tree_line(id: &str, path: &Path, finished: &FetchFinished, restored: &Restored) -> Line {
    let mut line = line(id, path, finished);
    line.json["files"] = json!(restored.files);
    line.json["directories"] = json!(restored.directories);
    line.json["links"] = json!(restored.links);
    line.json["left_out"] = json!(restored.left_out);
    line
}

/// Says which links were left out, and gives how casctl ends.
fn tell_left_out(output: Output, path: &Path, restored: &Restored) -> Exit {
    let shown = path.display();
    let links = count(restored.left_out, "symbolic link");
    if restored.left_out == 0 {
        return Exit::Done;
    }
    if restored.leading_out.is_empty() {
        let hint = "--symlinks restores those that stay inside";
        output.note(&format!("{shown}: {links} left out; {hint}"));
        return Exit::Done;
    }
    let more = restored.left_out - restored.leading_out.len() as u64;
    let named = restored.leading_out.join(", ");
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    let message = format!("{shown}: {links} that could lead outside left out: {named}{rest}");
    output.failure(&Failure::local(Exit::Failed, "LINKS_LEFT_OUT", message));
    Exit::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_its_documented_keys() {
        let finished = FetchFinished { size: 9, seconds: 0.5, local_bytes: 3, ..FetchFinished::default() };
        let restored =
            Restored { files: 1, directories: 2, links: 3, left_out: 4, leading_out: vec!["a -> /".into()] };
        let line = tree_line("dir:ab", Path::new("out"), &finished, &restored);
        let expected = json!({
            "id": "dir:ab", "path": "out", "size": 9, "seconds": 0.5, "local_bytes": 3, "peers": {},
            "files": 1, "directories": 2, "links": 3, "left_out": 4,
        });
        assert_eq!(line.json, expected);
    }

    #[test]
    fn executable_is_for_whoever_may_read() {
        let file = tempfile::tempfile().unwrap();
        for (before, after) in [(0o644, 0o755), (0o600, 0o700), (0o640, 0o750)] {
            file.set_permissions(Permissions::from_mode(before)).unwrap();
            make_executable(&file).unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, after);
        }
    }
}
