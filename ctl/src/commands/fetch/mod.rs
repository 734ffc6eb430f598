//! `casctl fetch`: brings an object here, and writes a file, to standard output, or a directory.

mod detached;
mod file;
mod tree;

use std::ffi::OsStr;
use std::path::Path;

use casd_proto::Reason;
use casd_proto::v1::{FetchFinished, FetchProgress};
use serde_json::json;

use super::Session;
use crate::args::Fetch;
use crate::download::{left_over, safe_name};
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::progress::Progress;
use crate::output::text::{count, escaped, size};

/// Fetches; see [`Fetch`].
pub(super) async fn run(session: &Session, args: Fetch) -> Result<Exit, Failure> {
    for key in &args.source.unknown {
        session
            .output
            .note(&format!("the link's part {key:?} is not known to this version, and is passed over"));
    }
    let done = if args.detach {
        detached::run(session, &args).await
    } else if args.source.address.is_directory {
        tree::run(session, &args).await
    } else {
        file::run(session, &args).await
    };
    done.map_err(|failure| in_link(failure, &args))
}

/// Says where it stands when what is no address is the link's: most likely that was cut on its way, and its id would
/// do.
fn in_link(failure: Failure, args: &Fetch) -> Failure {
    let is_named = |peer: &String| failure.words().0.contains(&format!("{peer:?}"));
    if !failure.is(Reason::InvalidAddress) || !args.source.peers.iter().any(is_named) {
        return failure;
    }
    let address = &args.source.address;
    failure.about("in the link, which looks cut").hint(format!("casd:{address} alone would do"))
}

/// Refuses what makes no sense together, and what this version does not have.
pub(super) fn check(args: &Fetch) -> Result<(), Failure> {
    let address = &args.source.address;
    if args.detach && !address.path.is_empty() {
        return Err(Failure::not_built("paths in directories with --detach"));
    }
    if address.is_directory && address.path.is_empty() && is_stdout(args) {
        return Err(no_stdout());
    }
    Ok(())
}

fn is_stdout(args: &Fetch) -> bool {
    args.output.as_deref().is_some_and(|path| path.as_os_str() == "-")
}

fn no_stdout() -> Failure {
    Failure::local(Exit::Usage, "USAGE", "a directory cannot be written to standard output (-o -)")
        .hint("a file in it can: dir:ID/PATH -o -")
}

/// The folder and the name of a path that is to come into being.
fn split(path: &Path) -> Result<(&Path, &OsStr), Failure> {
    let Some(name) = path.file_name() else {
        let message = format!("{} does not name what is to be made", path.display());
        return Err(
            Failure::local(Exit::Usage, "USAGE", message).hint("name what is to be made in it with -o")
        );
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder, name))
}

/// What it is called when the caller has not said: as the path to it ends, or its link says, or its publisher, made
/// safe; else by its id.
fn default_name(args: &Fetch, known: &str) -> String {
    let address = &args.source.address;
    let inside = address.path.last().and_then(|name| safe_name(name.as_str()));
    let linked = || args.source.name.as_deref().and_then(safe_name);
    inside.or_else(linked).or_else(|| safe_name(known)).unwrap_or_else(|| address.id.as_str().to_owned())
}

/// What the daemon is to call it: as its link says, made safe.
fn link_name(args: &Fetch) -> String {
    args.source.name.as_deref().and_then(safe_name).unwrap_or_default()
}

/// Names what fetches of the same target that were killed have left beside it.
fn tell_left_over(session: &Session, folder: &Path, name: &OsStr) {
    for path in left_over(folder, name) {
        session
            .output
            .note(&format!("{} is left of a fetch that was killed; it can be removed", path.display()));
    }
}

/// Where to ask first.
fn peers(args: &Fetch) -> Vec<String> {
    args.peers.iter().chain(&args.source.peers).cloned().collect()
}

fn stall_ms(args: &Fetch) -> u64 {
    u64::try_from(args.stall.as_millis()).unwrap_or(u64::MAX)
}

fn show(bar: &Progress, progress: &FetchProgress) {
    let (rate, peers) = (size(progress.bytes_per_second), count(progress.peers.into(), "peer"));
    bar.say(format!("{rate}/s from {peers}"));
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
        for wrong in ["..", "/", "", "."] {
            assert_eq!(split(Path::new(wrong)).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn json_has_its_documented_keys() {
        let peers = [("12D3".to_owned(), 5)].into();
        let finished = FetchFinished { size: 2 << 20, seconds: 0.5, local_bytes: 3, peers, written_bytes: 0 };
        let line = line("ab", Path::new("out"), &finished);
        let expected = json!({
            "id": "ab", "path": "out", "size": 2 << 20, "seconds": 0.5, "local_bytes": 3, "peers": { "12D3": 5 },
        });
        assert_eq!(line.json, expected);
        assert_eq!(line.human, "out: 2.0 MiB in 0.5 s, 4.0 MiB/s, from 1 peer");
        assert_eq!(line.bare, "out");
    }
}
