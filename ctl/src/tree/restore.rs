//! Making files, directories and links of the parts that the daemon sends, on a thread of its own.
//!
//! Owns: the way from a [`Step`] to the file system: each entry is made new, by its own name, in a directory that was
//! made the same way and is open. Refuses: opening or replacing anything that is there already, links that could lead
//! out, and any mode but that of new files. Survives a crash: see [`super::place`].

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use casd_proto::Reason;
use casd_proto::v1::TreePart;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, statat, symlinkat};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use super::name::{Name, Target};
use super::order::{Executable, Order, Step, bad};
use super::place::Place;
use crate::download::died;
use crate::error::Failure;
use crate::thread;

/// Messages that wait for the disk: 8 MiB ride out a pause of the disk without holding up the connection.
const QUEUE: usize = 8;

/// Links that could lead out and are named.
const NAMED: usize = 5;

/// What has been restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    /// Files.
    pub(crate) files: u64,
    /// Directories without the outermost.
    pub(crate) directories: u64,
    /// Symbolic links.
    pub(crate) links: u64,
    /// Symbolic links that were left out.
    pub(crate) left_out: u64,
    /// The first of those that were left out although links are wanted, since they could lead out: `PATH -> TARGET`.
    pub(crate) leading_out: Vec<String>,
}

/// How it ends.
#[derive(Debug)]
pub(crate) struct Finish {
    /// What it is to be called.
    pub(crate) path: PathBuf,
    /// In place of what is there.
    pub(crate) force: bool,
    /// Only when all of it is on disk.
    pub(crate) sync: bool,
}

enum Work {
    Parts(Vec<TreePart>),
    Finish(Finish),
}

// === impl Restoring ===

/// A directory that is being restored. Dropped before its end, it is removed, before the drop returns.
pub(crate) struct Restoring {
    /// Work for the thread; nothing once it is to end.
    queue: Option<mpsc::Sender<Work>>,
    /// What the thread says when it ends.
    done: oneshot::Receiver<Result<Restored, Failure>>,
    /// Whether what is queued is still wanted.
    unwanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Restoring {
    /// Starts restoring into an empty directory what keeps to `order`; symbolic links only with `links`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start((place, root): (Place, OwnedFd), order: Order, links: bool) -> Result<Self, Failure> {
        let (queue, work) = mpsc::channel(QUEUE);
        let (tell, done) = oneshot::channel();
        let unwanted = Arc::new(AtomicBool::new(false));
        let is_unwanted = Arc::clone(&unwanted);
        let restore = Restore::new(root, order, links);
        let work = move || {
            // What is not finished is removed in here, before anybody hears of it.
            let _ = tell.send(all(place, restore, work, &is_unwanted));
        };
        let thread = thread::start("restore", work)
            .map_err(|error| Failure::io("IO", "a thread for writing", &error))?;
        Ok(Self { queue: Some(queue), done, unwanted, thread: Some(thread) })
    }

    /// Queues parts; waits while the queue is full. Cancel-safe.
    ///
    /// # Errors
    /// When an earlier part could not be restored; all that was is removed.
    pub(crate) async fn take(&mut self, parts: Vec<TreePart>) -> Result<(), Failure> {
        self.queue(Work::Parts(parts)).await
    }

    /// Waits until everything is restored and has its name.
    ///
    /// # Errors
    /// When something could not be restored, or not all has come; all that was is removed.
    pub(crate) async fn finish(mut self, finish: Finish) -> Result<Restored, Failure> {
        self.queue(Work::Finish(finish)).await?;
        (&mut self.done).await.unwrap_or_else(|_| Err(died()))
    }

    async fn queue(&mut self, work: Work) -> Result<(), Failure> {
        if let Some(queue) = &self.queue
            && queue.send(work).await.is_ok()
        {
            return Ok(());
        }
        match (&mut self.done).await {
            Ok(Err(failure)) => Err(failure),
            _ => Err(died()),
        }
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::Relaxed);
        self.queue = None;
        // The process may end right after; what is half restored must be gone by then.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Restores what is queued. What does not come to its end is removed with `place`.
fn all(
    place: Place,
    mut restore: Restore,
    mut queue: mpsc::Receiver<Work>,
    unwanted: &AtomicBool,
) -> Result<Restored, Failure> {
    while let Some(work) = queue.blocking_recv() {
        match work {
            Work::Parts(parts) => {
                for part in parts {
                    if unwanted.load(Ordering::Relaxed) {
                        return Err(died());
                    }
                    restore.take(part)?;
                }
            }
            Work::Finish(finish) => {
                restore.order.finish()?;
                place.finish(&finish.path, finish.force, finish.sync)?;
                return Ok(restore.restored);
            }
        }
    }
    Err(died())
}

// === impl Restore ===

/// What is being restored, on its thread.
struct Restore {
    order: Order,
    /// The directories that are open; the outermost first.
    open: Vec<Open>,
    /// The file that is open.
    file: Option<Writing>,
    /// Whether symbolic links are wanted.
    links: bool,
    restored: Restored,
}

struct Open {
    /// What it is called; nothing for the outermost.
    name: String,
    directory: OwnedFd,
    /// Links that were left out here: nothing else has their names.
    left_out: HashSet<Name>,
}

struct Writing {
    name: Name,
    file: File,
    /// Bytes so far, zeros among them.
    length: u64,
    /// Where the last bytes end that were written.
    written: u64,
}

impl Restore {
    fn new(root: OwnedFd, order: Order, links: bool) -> Self {
        let root = Open { name: String::new(), directory: root, left_out: HashSet::new() };
        Self { order, open: vec![root], file: None, links, restored: Restored::default() }
    }

    fn take(&mut self, part: TreePart) -> Result<(), Failure> {
        match self.order.take(part)? {
            Step::Enter(name) => self.enter(name),
            Step::Leave => {
                self.open.pop();
                Ok(())
            }
            Step::File(name, executable, bytes) => {
                let file = self.create(&name, executable)?;
                file.write_all_at(&bytes, 0).map_err(|error| self.unwritable(&name, &error))
            }
            Step::Begin(name, executable) => {
                let file = self.create(&name, executable)?;
                self.file = Some(Writing { name, file, length: 0, written: 0 });
                Ok(())
            }
            Step::Data(bytes) => self.write(bytes.len() as u64, Some(&bytes)),
            Step::Zeros(zeros) => self.write(zeros, None),
            Step::End => match self.file.take() {
                // Where nothing is written, a new file reads as zeros; its end must be set.
                Some(Writing { name, file, length, written }) if written < length => {
                    file.set_len(length).map_err(|error| self.unwritable(&name, &error))
                }
                _ => Ok(()),
            },
            Step::Link(name, target) => self.link(name, &target),
        }
    }

    fn enter(&mut self, name: Name) -> Result<(), Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = self.new_entry(&name, |around| {
            mkdirat(around, name.as_str(), Mode::from_raw_mode(0o777))?;
            openat(around, name.as_str(), flags, Mode::empty())
        })?;
        self.restored.directories += 1;
        self.open.push(Open { name: name.into_string(), directory, left_out: HashSet::new() });
        Ok(())
    }

    fn create(&mut self, name: &Name, executable: Executable) -> Result<File, Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Less what the umask takes. Nothing else of a mode is ever kept.
        let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        let file = self.new_entry(name, |around| openat(around, name.as_str(), flags, mode))?;
        self.restored.files += 1;
        Ok(file.into())
    }

    /// The next bytes of the file that is open; without them so many zeros.
    fn write(&mut self, count: u64, bytes: Option<&[u8]>) -> Result<(), Failure> {
        let Some(writing) = &mut self.file else { return Err(bad("parts out of order")) };
        let at = writing.length;
        writing.length += count;
        let Some(bytes) = bytes else { return Ok(()) };
        writing.written = writing.length;
        let outcome = writing.file.write_all_at(bytes, at);
        match (outcome, &self.file) {
            (Err(error), Some(writing)) => Err(self.unwritable(&writing.name, &error)),
            _ => Ok(()),
        }
    }

    fn link(&mut self, name: Name, target: &Target) -> Result<(), Failure> {
        let stays = target.stays_inside(self.open.len() - 1);
        if self.links && stays {
            self.new_entry(&name, |around| symlinkat(target.as_str(), around, name.as_str()))?;
            self.restored.links += 1;
            return Ok(());
        }
        // No two entries have one name, whether they are made or not.
        self.new_entry(&name, |around| match statat(around, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Ok(_) => Err(Errno::EXIST),
            Err(error) => Err(error),
        })?;
        self.restored.left_out += 1;
        if self.links && self.restored.leading_out.len() < NAMED {
            let words = format!("{} -> {}", self.path(&name), target.as_str());
            self.restored.leading_out.push(words);
        }
        if let Some(open) = self.open.last_mut() {
            open.left_out.insert(name);
        }
        Ok(())
    }

    /// Makes an entry of the directory that is open.
    fn new_entry<T>(
        &self,
        name: &Name,
        make: impl FnOnce(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, Failure> {
        // There is always one open.
        let Some(open) = self.open.last() else { return Err(bad("parts out of order")) };
        let made = if open.left_out.contains(name) { Err(Errno::EXIST) } else { make(&open.directory) };
        made.map_err(|error| match error {
            Errno::EXIST => {
                let path = self.path(name);
                let message = format!("two entries are called {path}, or are one name there; nothing was restored");
                Failure::known(Reason::BadTree, message)
                    .hint("some file systems do not tell letters by their case, or by how they are written in Unicode")
            }
            _ => self.unwritable(name, &error.into()),
        })
    }

    fn unwritable(&self, name: &Name, error: &io::Error) -> Failure {
        Failure::io("UNWRITABLE", format!("cannot restore {}", self.path(name)), error)
    }

    /// An entry's path in the outermost directory, for people.
    fn path(&self, name: &Name) -> String {
        let around = self.open.iter().skip(1).map(|open| open.name.as_str());
        around.chain([name.as_str()]).collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
