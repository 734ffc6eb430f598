//! Reading a directory that is to be added: its parts in messages, read ahead on a thread of their own.
//!
//! Owns: the walk, which goes from descriptor to descriptor by names without a `/` and never through a link, so that
//! nothing outside is read, whoever changes the tree meanwhile. Refuses: what is no file, directory or link, names that
//! break the rules, and files that change while they are read; each refuses the whole tree, and is named. Behind an
//! entry that cannot be kept nothing is read any more, but others are looked for, so that all can be told at once.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use casd_proto::v1::tree_part::Part;
use casd_proto::v1::{TreeData, TreeEnd, TreeEnter, TreeFile, TreeFinish, TreeLeave, TreeLink, TreeStart};
use casd_proto::{MAX_DATA_BYTES, Reason};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::{Errno, read, retry_on_intr};
use tokio::sync::mpsc;

use super::batch::{Batch, Message};
use super::list::{self, Kind, Listed};
use super::name::{Name, Target};
use super::{MAX_DEPTH, MAX_ENTRIES};
use crate::error::{Exit, Failure};
use crate::output::text::{lossless, shortened};
use crate::thread;
use crate::upload::Shape;

/// Messages that are read before they are asked for: 4 MiB keep disk and connection busy.
const READ_AHEAD: usize = 4;

/// Entries that cannot be kept and are told in one run.
const MAX_REFUSED: usize = 10;

/// A directory that can be added.
#[derive(Debug)]
pub(crate) struct Walk {
    root: OwnedFd,
    /// As the caller named it.
    path: PathBuf,
}

impl Walk {
    /// Opens the directory at `path`, to which links may lead.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let root = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Failure::io("UNREADABLE", path.display(), &error.into()))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// What it is called: the last component of where it really is; empty for `/`.
    ///
    /// # Errors
    /// When a directory cannot be called so.
    pub(crate) fn name(&self) -> Result<String, Failure> {
        let path = &self.path;
        let real = path.canonicalize().map_err(|error| Failure::io("UNREADABLE", path.display(), &error))?;
        let Some(name) = real.file_name() else { return Ok(String::new()) };
        let shown = lossless(real.as_os_str().as_encoded_bytes());
        let refused = |why: &dyn fmt::Display| {
            let message = format!("{shown} has a name that cannot be kept: {why}");
            Failure::known(Reason::InvalidName, message).hint("--name gives it another")
        };
        let name = name.to_str().ok_or_else(|| refused(&"it is not UTF-8"))?;
        Name::new(name.to_owned()).map(Name::into_string).map_err(|name| refused(&name.why))
    }

    /// All of it in order of names, up to its finish; or failures, at most [`MAX_REFUSED`] and one more, and then the
    /// end. With `each` the messages have the paths of their files.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn messages(self, each: bool) -> Result<mpsc::Receiver<Result<Message, Failure>>, Failure> {
        let (send, receive) = mpsc::channel(READ_AHEAD);
        let Self { root, path } = self;
        let mut walker = Walker {
            top: path,
            below: String::new(),
            batch: Batch::default(),
            entries: 0,
            refused: 0,
            each,
            send,
        };
        let work = move || {
            if let Err(Stop::Failed(failure)) = walker.all(&root) {
                // The receiver is gone only when nobody wants to know.
                let _ = walker.send.blocking_send(Err(failure));
            }
        };
        thread::start("walk", work).map_err(|error| Failure::io("IO", "a thread for reading", &error))?;
        Ok(receive)
    }
}

/// Why a walk ends early.
enum Stop {
    /// It cannot go on.
    Failed(Failure),
    /// Nobody wants the rest, or enough is known of it.
    Unwanted,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A walk that is under way.
struct Walker {
    /// The outermost directory, for messages to people.
    top: PathBuf,
    /// The path of the entry in hand, in the outermost directory.
    below: String,
    batch: Batch,
    /// How many entries there were.
    entries: u64,
    /// How many of them cannot be kept.
    refused: usize,
    /// Whether the paths of files are wanted.
    each: bool,
    send: mpsc::Sender<Result<Message, Failure>>,
}

impl Walker {
    fn all(&mut self, root: &OwnedFd) -> Result<(), Stop> {
        self.directory(root, 1)?;
        if self.refused > 0 {
            return Err(Stop::Unwanted);
        }
        let entries = self.entries;
        self.push(Part::Finish(TreeFinish { entries }), 0)?;
        self.send_batch()
    }

    /// The entries of a directory; `depth` counts it and those around it.
    fn directory(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Stop> {
        let limit = usize::try_from(MAX_ENTRIES).unwrap_or(usize::MAX);
        let mut entries = list::entries(directory, limit).map_err(|error| self.unreadable(error))?;
        if entries.len() > limit {
            return Err(self.refusal(Reason::TooLarge, "has more than 1,048,576 entries").into());
        }
        entries.sort_unstable();
        let length = self.below.len();
        for entry in entries {
            self.entries += 1;
            match self.go_to(&entry.name) {
                Ok(name) => self.entry(directory, name, &entry, depth)?,
                Err(failure) => self.refuse(failure)?,
            }
            self.below.truncate(length);
        }
        Ok(())
    }

    /// The entry in hand.
    fn entry(&mut self, around: &OwnedFd, name: Name, listed: &Listed, depth: usize) -> Result<(), Stop> {
        match listed.kind {
            // It would be read for nothing.
            Kind::File if self.refused > 0 => Ok(()),
            Kind::File => self.file(around, name, &listed.name),
            Kind::Link => self.link(around, name, &listed.name),
            Kind::Directory if depth >= MAX_DEPTH => {
                self.refuse(self.refusal(Reason::TooLarge, "is nested more than 64 deep"))
            }
            Kind::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = openat(around, &listed.name, flags, Mode::empty())
                    .map_err(|error| self.unreadable(error))?;
                let text = name.as_str().len();
                self.push(Part::Enter(TreeEnter { name: name.into_string() }), text)?;
                self.directory(&inner, depth + 1)?;
                self.push(Part::Leave(TreeLeave {}), 0)
            }
            Kind::Other(what) => self.refuse(self.no_file(what)),
        }
    }

    /// Tells of an entry that cannot be kept, and goes on unless enough have been told.
    fn refuse(&mut self, failure: Failure) -> Result<(), Stop> {
        self.send.blocking_send(Err(failure)).map_err(|_| Stop::Unwanted)?;
        self.refused += 1;
        if self.refused < MAX_REFUSED { Ok(()) } else { Err(Stop::Unwanted) }
    }

    /// Takes an entry in hand.
    fn go_to(&mut self, name: &CString) -> Result<Name, Failure> {
        let parsed = match name.to_str() {
            Ok(name) => Name::new(name.to_owned()).map_err(|bad| bad.why),
            Err(_) => Err("it is not UTF-8"),
        };
        match parsed {
            Ok(name) => {
                if !self.below.is_empty() {
                    self.below.push('/');
                }
                self.below.push_str(name.as_str());
                Ok(name)
            }
            Err(why) => {
                let path = self.path().join(OsStr::from_bytes(name.as_bytes()));
                let message =
                    format!("{} has a name that cannot be kept: {why}; nothing was stored", shown(&path));
                Err(Failure::known(Reason::InvalidName, message).hint("rename it"))
            }
        }
    }

    fn file(&mut self, directory: &OwnedFd, name: Name, listed: &CStr) -> Result<(), Stop> {
        // Not waiting: it may have become a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(directory, listed, flags, Mode::empty()).map_err(|error| self.unreadable(error))?;
        let stat = fstat(&file).map_err(|error| self.unreadable(error))?;
        if Kind::from(rustix::fs::FileType::from_raw_mode(stat.st_mode)) != Kind::File {
            return Err(self.changed().into());
        }
        let before = Shape::from(&stat);
        let executable = stat.st_mode & Mode::XUSR.bits() != 0;
        let count = match usize::try_from(before.length) {
            Ok(length) if length <= MAX_DATA_BYTES => self.short(&file, name, executable, length)?,
            _ => self.long(&file, name, executable, before.length)?,
        };
        let after = Shape::from(&fstat(&file).map_err(|error| self.unreadable(error))?);
        if count != before.length || after != before {
            return Err(self.changed().into());
        }
        let path = self.each.then(|| self.below.clone());
        self.batch.ended(path);
        Ok(())
    }

    /// A file that is one part. Gives how many bytes it has.
    fn short(&mut self, file: &OwnedFd, name: Name, executable: bool, length: usize) -> Result<u64, Stop> {
        let text = name.as_str().len();
        self.make_room(length, text)?;
        let room = &mut self.batch.room()[..=length];
        let count = fill(file, room, length).map_err(|error| self.unreadable(error))?;
        if count == length {
            let part = TreeFile { name: name.into_string(), executable, ..TreeFile::default() };
            self.batch.push_bytes(Part::File(part), text, count);
        }
        Ok(count as u64)
    }

    /// A longer file. Gives how many bytes it has; it may stop when they are more or less than `length`.
    fn long(&mut self, file: &OwnedFd, name: Name, executable: bool, length: u64) -> Result<u64, Stop> {
        let text = name.as_str().len();
        let start = TreeStart { name: name.into_string(), executable, length: Some(length) };
        self.push(Part::Start(start), text)?;
        let mut count = 0;
        while count < length {
            // A message of its own: full MiBs are fastest.
            self.send_batch()?;
            let enough = usize::try_from(length - count).unwrap_or(MAX_DATA_BYTES).min(MAX_DATA_BYTES);
            let room = &mut self.batch.room()[..MAX_DATA_BYTES];
            let filled = fill(file, room, enough).map_err(|error| self.unreadable(error))?;
            count += filled as u64;
            if filled < enough {
                return Ok(count);
            }
            self.batch.push_bytes(Part::Data(TreeData::default()), 0, filled);
        }
        self.push(Part::End(TreeEnd { length: count }), 0)?;
        Ok(count)
    }

    fn link(&mut self, directory: &OwnedFd, name: Name, listed: &CStr) -> Result<(), Stop> {
        let target = readlinkat(directory, listed, Vec::new()).map_err(|error| self.unreadable(error))?;
        let target = match target.into_string().map(Target::new) {
            Ok(Ok(target)) => target,
            Ok(Err(why)) => return self.refuse(self.refusal(Reason::InvalidName, why)),
            Err(_) => return self.refuse(self.refusal(Reason::InvalidName, "points to what is not UTF-8")),
        };
        let text = name.as_str().len() + target.as_str().len();
        let link = TreeLink { name: name.into_string(), target: target.into_string() };
        self.push(Part::Link(link), text)
    }

    /// Adds a part without bytes.
    fn push(&mut self, part: Part, text: usize) -> Result<(), Stop> {
        self.make_room(0, text)?;
        self.batch.push(part, text);
        Ok(())
    }

    fn make_room(&mut self, bytes: usize, text: usize) -> Result<(), Stop> {
        if self.batch.has_room(bytes, text) { Ok(()) } else { self.send_batch() }
    }

    /// Sends what there is, unless it is for nothing; waits while enough is read ahead.
    fn send_batch(&mut self) -> Result<(), Stop> {
        if self.batch.is_empty() {
            return Ok(());
        }
        if self.refused > 0 {
            self.batch.take();
            return Ok(());
        }
        self.send.blocking_send(Ok(self.batch.take())).map_err(|_| Stop::Unwanted)
    }

    /// The path of the entry in hand.
    fn path(&self) -> PathBuf {
        if self.below.is_empty() { self.top.clone() } else { self.top.join(&self.below) }
    }

    fn shown(&self) -> String {
        shown(&self.path())
    }

    fn refusal(&self, reason: Reason, why: &str) -> Failure {
        let message = format!("{} {why}; nothing was stored", self.shown());
        Failure::known(reason, message)
    }

    fn no_file(&self, what: &str) -> Failure {
        let message =
            format!("{} is {what}, which a directory cannot keep; nothing was stored", self.shown());
        Failure::local(Exit::Failed, "NOT_A_FILE", message)
            .hint("move it elsewhere, or add what is beside it")
    }

    fn changed(&self) -> Failure {
        let message = format!("{} changed while it was read; nothing was stored", self.shown());
        Failure::local(Exit::Failed, "FILE_CHANGED", message)
            .hint("add it again when nobody writes to it, or add a copy or a snapshot")
    }

    fn unreadable(&self, error: Errno) -> Failure {
        match error {
            // It is not what it was when the directory was listed: gone, or another kind of thing.
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::INVAL => self.changed(),
            _ => Failure::io("UNREADABLE", self.shown(), &error.into()),
        }
    }
}

/// A path, for people.
fn shown(path: &Path) -> String {
    shortened(&lossless(path.as_os_str().as_encoded_bytes()))
}

/// Reads until there is enough, or no more. Gives how many bytes there are.
fn fill(file: impl AsFd, room: &mut [u8], enough: usize) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < enough {
        match retry_on_intr(|| read(&file, &mut room[filled..]))? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
