//! Writing what is fetched: into a temporary file beside the target, each piece at its place, and renamed over
//! it at the end; or to standard output, in order. A thread of its own writes, so that a slow disk holds up
//! neither the connection nor Ctrl-C.
//!
//! Whatever ends early (an error, Ctrl-C, SIGTERM) removes the temporary file; only SIGKILL leaves one behind,
//! named `.NAME.casd-XXXX`. Whoever writes has a lock on it, so that the next fetch can tell what nobody writes any
//! more.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write, stdout};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use casd_proto::Bytes;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Exit, Failure};
use crate::output::stdout_failure;
use crate::thread;

/// Pieces that wait for the disk: 8 MiB ride out a pause of the disk without holding up the connection.
const QUEUE: usize = 8;

/// The longest file name on every file system that matters.
const MAX_NAME: usize = 255;

// === impl Target ===

/// A file that is being written under a temporary name. Dropping it removes it.
pub(crate) struct Target {
    /// Its temporary name; empty once it has its own.
    temporary: PathBuf,
    /// The folder of both names.
    folder: PathBuf,
}

impl Target {
    /// Creates the temporary file for a target in `folder` that will be called something like `name`. Fails at
    /// once when the folder cannot be written, so that nothing is fetched in vain.
    ///
    /// # Errors
    /// What the operating system says of the folder.
    pub(crate) fn create(folder: &Path, name: &OsStr) -> Result<(Self, File), Failure> {
        let make =
            |temporary: &OsStr| OpenOptions::new().write(true).create_new(true).open(folder.join(temporary));
        match with_temporary_name(name, make) {
            Ok((temporary, file)) => {
                lock(&file);
                Ok((Self { temporary: folder.join(temporary), folder: folder.to_owned() }, file))
            }
            Err(error) => {
                let message = format!("cannot write to the folder {}", folder.display());
                Err(Failure::io("UNWRITABLE", message, &error))
            }
        }
    }

    /// Gives the file its name. With `sync`, only when its content is on disk, and returns when its name is.
    ///
    /// # Errors
    /// When `path` exists and `force` is not set, also when it has come into being meanwhile.
    pub(crate) fn finish(mut self, path: &Path, force: bool, sync: Option<&File>) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::io("UNWRITABLE", path.display(), &error);
        if let Some(file) = sync {
            file.sync_all().map_err(failed)?;
        }
        if force {
            check_free(path, true, Coming::File)?;
            std::fs::rename(&self.temporary, path).map_err(failed)?;
        } else {
            rename_new(&self.temporary, path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => exists(path),
                _ => failed(error),
            })?;
        }
        self.temporary.clear();
        if sync.is_some() {
            File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// What is to take a target's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coming {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// It is not known yet which of them.
    Either,
}

/// Refuses a target that exists, unless it may be overwritten; and always what is neither a file nor, where a directory
/// may be coming, one.
pub(crate) fn check_free(path: &Path, force: bool, coming: Coming) -> Result<(), Failure> {
    let is_directory = |hint: String| {
        let message = format!("{} is a directory", path.display());
        Err(Failure::local(Exit::Failed, "EXISTS", message).hint(hint))
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::io("UNWRITABLE", path.display(), &error)),
        Ok(metadata) if metadata.is_dir() && coming == Coming::File => {
            is_directory(format!("-o {} writes into it", path.join("NAME").display()))
        }
        Ok(metadata) if metadata.is_dir() && force => Ok(()),
        Ok(metadata) if metadata.is_dir() && coming == Coming::Either => {
            let into = path.join("NAME");
            is_directory(format!("-o {} writes into it; --force replaces it by a directory", into.display()))
        }
        Ok(_) if !force => Err(exists(path)),
        Ok(metadata) if metadata.is_file() || metadata.is_symlink() => Ok(()),
        Ok(_) => {
            let message = format!("{} is not a file; it is not replaced", path.display());
            Err(Failure::local(Exit::Failed, "EXISTS", message).hint("to write into it: -o - and redirect"))
        }
    }
}

/// What is to be written exists.
pub(crate) fn exists(path: &Path) -> Failure {
    Failure::local(Exit::Failed, "EXISTS", format!("{} exists", path.display()))
        .hint("--force overwrites it; -o PATH writes elsewhere")
}

/// Renames without ever replacing anything, also on file systems whose rename cannot promise that.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        outcome => Ok(outcome?),
    }
}

/// Makes something under a temporary name that nothing has, for what will be called something like `name`.
///
/// # Errors
/// What `make` says, but that something of the name exists.
pub(crate) fn with_temporary_name<T>(
    name: &OsStr,
    mut make: impl FnMut(&OsStr) -> io::Result<T>,
) -> io::Result<(OsString, T)> {
    let mut attempts = 0;
    loop {
        let temporary = temporary_name(name, seed().wrapping_add(attempts));
        match make(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < 100 => attempts += 1,
            outcome => return outcome.map(|made| (temporary, made)),
        }
    }
}

/// `.NAME.casd-XXXX`, with NAME cut so that it fits.
fn temporary_name(name: &OsStr, seed: u32) -> OsString {
    let suffix = format!(".casd-{:04x}", seed & 0xffff);
    let room = MAX_NAME - 1 - suffix.len();
    let mut bytes = vec![b'.'];
    bytes.extend(name.as_bytes().iter().take(room));
    bytes.extend(suffix.as_bytes());
    OsString::from_vec(bytes)
}

/// Marks something under a temporary name as being written, as long as it is open. Where the file system has no locks
/// nothing is told of it later.
pub(crate) fn lock(temporary: impl AsFd) {
    let _ = flock(temporary, FlockOperation::NonBlockingLockExclusive);
}

/// What is in `folder` under temporary names for `name` and nobody writes any more: whoever did was killed.
pub(crate) fn left_over(folder: &Path, name: &OsStr) -> Vec<PathBuf> {
    let pattern = temporary_name(name, 0);
    let (begin, digits) = pattern.as_bytes().split_at(pattern.len() - 4);
    let is_one = |name: &OsStr| {
        name.as_bytes()
            .strip_prefix(begin)
            .is_some_and(|rest| rest.len() == digits.len() && rest.iter().all(u8::is_ascii_hexdigit))
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let is_free = |path: &PathBuf| {
        let file = rustix::fs::open(path, flags, Mode::empty());
        file.is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok())
    };
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let found = names.filter(|name| is_one(name)).map(|name| folder.join(name)).filter(is_free);
    found.map(|path| path.strip_prefix(".").map_or_else(|_| path.clone(), Path::to_owned)).collect()
}

/// Differs between processes and between calls; two that meet only cost another attempt.
fn seed() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    std::process::id().wrapping_mul(0x9e37).wrapping_add(now.subsec_nanos() >> 8)
}

// === impl Writer ===

/// Where bytes go.
pub(crate) enum Sink {
    /// A file: anywhere in it.
    File(File),
    /// Standard output: only in order.
    Stdout,
}

/// Writes pieces, on a thread of its own.
pub(crate) struct Writer {
    /// Pieces for the thread.
    queue: mpsc::Sender<(u64, Bytes)>,
    /// What the thread says when it ends: the file, once all is written.
    done: oneshot::Receiver<Result<Option<File>, Failure>>,
}

impl Writer {
    /// Starts writing to `sink`, which people know as `shown`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(sink: Sink, shown: String) -> Result<Self, Failure> {
        let (queue, pieces) = mpsc::channel(QUEUE);
        let (tell, done) = oneshot::channel();
        let work = move || {
            let outcome = match sink {
                Sink::File(file) => write_file(&file, pieces)
                    .map(|()| Some(file))
                    .map_err(|error| Failure::io("UNWRITABLE", format!("cannot write {shown}"), &error)),
                Sink::Stdout => write_stdout(pieces).map(|()| None).map_err(|error| stdout_failure(&error)),
            };
            let _ = tell.send(outcome);
        };
        thread::start("write", work).map_err(|error| Failure::io("IO", "a thread for writing", &error))?;
        Ok(Self { queue, done })
    }

    /// Queues a piece; waits while the queue is full. Cancel-safe.
    ///
    /// # Errors
    /// When writing has failed.
    pub(crate) async fn write(&mut self, offset: u64, bytes: Bytes) -> Result<(), Failure> {
        if self.queue.send((offset, bytes)).await.is_ok() {
            return Ok(());
        }
        match (&mut self.done).await {
            Ok(Err(failure)) => Err(failure),
            _ => Err(died()),
        }
    }

    /// Waits until all is written, and gives the file back.
    ///
    /// # Errors
    /// When writing has failed.
    pub(crate) async fn finish(self) -> Result<Option<File>, Failure> {
        drop(self.queue);
        self.done.await.unwrap_or_else(|_| Err(died()))
    }
}

/// The thread that writes has gone without a word.
pub(crate) fn died() -> Failure {
    Failure::local(Exit::Failed, "INTERNAL", "writing ended unexpectedly; this is a bug in casctl")
}

fn write_file(file: &File, mut pieces: mpsc::Receiver<(u64, Bytes)>) -> io::Result<()> {
    while let Some((offset, bytes)) = pieces.blocking_recv() {
        file.write_all_at(&bytes, offset)?;
    }
    Ok(())
}

fn write_stdout(mut pieces: mpsc::Receiver<(u64, Bytes)>) -> io::Result<()> {
    // Not std's `Stdout`, which looks for line ends in every byte.
    let out = rustix::io::dup(stdout())?;
    let mut out = File::from(out);
    while let Some((_, bytes)) = pieces.blocking_recv() {
        out.write_all(&bytes)?;
    }
    Ok(())
}

// === Names ===

/// The longest name that is made of a name which others supplied: leaves room for what people append.
const MAX_KNOWN_NAME: usize = 200;

/// A file name made of one that a stranger supplied: its last component, with what could hide a file, pass for
/// an option, drive a terminal or leave the folder replaced by `_`. Nothing when nothing is left.
pub(crate) fn safe_name(name: &str) -> Option<String> {
    let last = name.rsplit('/').find(|part| !part.is_empty())?;
    let mut safe: String = last
        .trim()
        .chars()
        .map(|c| if crate::output::text::deceives(c) || c == '\\' { '_' } else { c })
        .collect();
    if safe.starts_with(['.', '-', '~']) {
        safe.replace_range(..1, "_");
    }
    let end =
        safe.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_KNOWN_NAME).last();
    safe.truncate(end.unwrap_or_default());
    let safe = safe.trim_end();
    (safe.chars().any(|c| c != '_' && c != '.')).then(|| safe.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_strangers_stay_in_the_folder() {
        for (given, expected) in [
            ("report.pdf", Some("report.pdf")),
            ("a/b/c.txt", Some("c.txt")),
            ("/etc/passwd", Some("passwd")),
            ("../../x", Some("x")),
            ("dir/", Some("dir")),
            (".bashrc", Some("_bashrc")),
            (" .bashrc", Some("_bashrc")),
            ("\u{3000}.ssh", Some("_ssh")),
            ("\u{a0}~x ", Some("_x")),
            ("x/ -rf", Some("_rf")),
            ("-rf", Some("_rf")),
            ("a\u{1b}[2J\u{202e}b\0", Some("a_[2J_b_")),
            ("..", None),
            (".", None),
            ("", None),
            ("///", None),
            ("\u{7}", None),
            ("  ", None),
        ] {
            assert_eq!(safe_name(given).as_deref(), expected, "{given:?}");
        }
        assert_eq!(safe_name(&"é".repeat(300)).map(|name| name.len()), Some(MAX_KNOWN_NAME));
    }

    #[test]
    fn temporary_names_fit() {
        assert_eq!(temporary_name("out.bin".as_ref(), 0x1a2b), ".out.bin.casd-1a2b");
        assert_eq!(temporary_name("x".repeat(255).as_ref(), 1).len(), MAX_NAME);
    }

    #[test]
    fn what_nobody_writes_any_more_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let others =
            [".out.casd-12", ".out.casd-12345", ".out.casd-wxyz", ".other.casd-1234", "out.casd-1234"];
        for other in others {
            std::fs::write(folder.path().join(other), "").unwrap();
        }
        let (target, file) = Target::create(folder.path(), "out".as_ref()).unwrap();
        let left = || left_over(folder.path(), "out".as_ref());
        assert!(left().is_empty(), "it is being written");
        drop(file);
        assert_eq!(left(), std::slice::from_ref(&target.temporary));
        drop(target);
        std::fs::create_dir(folder.path().join(".out.casd-12ef")).unwrap();
        assert_eq!(left(), [folder.path().join(".out.casd-12ef")]);
    }

    fn entries(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[tokio::test]
    async fn pieces_land_at_their_place_under_the_final_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let (target, file) = Target::create(folder.path(), "out".as_ref()).unwrap();
        let mut writer = Writer::start(Sink::File(file), "out".into()).unwrap();
        writer.write(3, Bytes::from_static(b"def")).await.unwrap();
        writer.write(0, Bytes::from_static(b"abc")).await.unwrap();
        let file = writer.finish().await.unwrap();
        assert!(!path.exists());
        target.finish(&path, false, file.as_ref()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abcdef");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let (target, _) = Target::create(folder.path(), "out".as_ref()).unwrap();
        // Someone else is faster.
        std::fs::write(&path, "theirs").unwrap();
        assert!(target.finish(&path, false, None).unwrap_err().to_string().contains("exists"));
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert_eq!(entries(folder.path()), 1);

        let (target, _) = Target::create(folder.path(), "out".as_ref()).unwrap();
        target.finish(&path, true, None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        drop(Target::create(folder.path(), "out".as_ref()).unwrap());
        assert_eq!(entries(folder.path()), 1);
        assert!(Target::create(&folder.path().join("none"), "x".as_ref()).is_err());
    }

    #[test]
    fn force_replaces_files_only() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_free(&folder.path().join("free"), false, Coming::File).is_ok());
        assert!(check_free(folder.path(), true, Coming::File).is_err());
        assert!(check_free(folder.path(), true, Coming::Either).is_ok());
        let hint = |coming| check_free(folder.path(), false, coming).unwrap_err().words().1.to_owned();
        assert!(hint(Coming::Directory).contains("--force overwrites"));
        for coming in [Coming::File, Coming::Either] {
            assert!(hint(coming).contains("/NAME writes into it"));
        }
        assert!(check_free(Path::new("/dev/null"), true, Coming::File).is_err());
        let dangling = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        assert!(check_free(&dangling, false, Coming::File).is_err());
        assert!(check_free(&dangling, true, Coming::File).is_ok());
    }
}
