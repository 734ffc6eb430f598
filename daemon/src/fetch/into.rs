//! A file that a caller has opened for writing and passed: what was proved is written into it, instead of being sent.
//!
//! Owns: what may be passed, and that each write is at its place and off the runtime. Refuses: paths, and with them to
//! decide who may write where: the system decided that when the caller opened the file. What the file does in its
//! caller's hands meanwhile is the caller's business. Survives a crash: nothing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, fstatfs};
use rustix::process::{Resource, getrlimit};

use super::Error;
use crate::support::pool::{self, Pool};

/// The type of file systems that a program of any user may stand behind, as statfs(2) tells it: it can leave who writes
/// waiting for as long as it likes.
const FUSE: u32 = 0x6573_5546;

/// A caller's file. Cheap to clone; clones are the same file, which is closed with the last of them.
#[derive(Clone)]
pub struct Target {
    open: Arc<Open>,
    /// One write at a time, of this file alone: one that hangs holds up nobody else's.
    pool: Pool,
}

/// The file, and what it is counted by until it is closed; only dropping takes them out.
struct Open {
    file: Option<File>,
    place: Option<Box<dyn Send + Sync>>,
}

impl Target {
    /// Takes a descriptor that a caller passed. Its `place` is dropped when it has been closed: not before a write has
    /// ended that hangs, which nobody may wait for any more.
    ///
    /// # Errors
    /// [`Error::Unfit`] unless it is a regular, empty file, open for writing alone, in which a write stays where it is
    /// put; [`Error::Output`] when the system does not tell.
    pub async fn take(descriptor: OwnedFd, place: impl Send + Sync + 'static) -> Result<Self, Error> {
        let pool = Pool::new(1);
        // Off the runtime: what a program stands behind may not answer.
        let file = pool.run(move || check(descriptor)).await?;
        let open = Open { file: Some(file), place: Some(Box::new(place)) };
        Ok(Self { open: Arc::new(open), pool })
    }

    /// Gives it its length. It reads as zeros then.
    pub(super) async fn begin(&self, length: u64) -> Result<(), Error> {
        // The system would not refuse such a write, but end the process.
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| length > limit) {
            return Err(Error::Output(format!("casd may write no file of {length} bytes")));
        }
        self.run(move |file| file.set_len(length)).await
    }

    /// Writes bytes at their place: all of them, or it fails.
    pub(super) async fn write(&self, offset: u64, bytes: Bytes) -> Result<(), Error> {
        self.run(move |file| file.write_all_at(&bytes, offset)).await
    }

    async fn run(&self, work: impl FnOnce(&File) -> io::Result<()> + Send + 'static) -> Result<(), Error> {
        let open = Arc::clone(&self.open);
        let done = self.pool.run(move || open.file.as_ref().map_or(Ok(()), work)).await;
        done.map_err(|error| output(&error))
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Closing may wait for what was written, or for the blocks of a file that has no name any more.
        if let Some(file) = self.file.take() {
            // In this order.
            pool::let_go((file, self.place.take()));
        }
    }
}

fn check(descriptor: OwnedFd) -> Result<File, Error> {
    let untold = |error: rustix::io::Errno| output(&error.into());
    let stat = fstat(&descriptor).map_err(untold)?;
    let flags = fcntl_getfl(&descriptor).map_err(untold)?;
    let is_fuse = u32::try_from(fstatfs(&descriptor).map_err(untold)?.f_type & 0xffff_ffff) == Ok(FUSE);
    let unfit = kind(FileType::from_raw_mode(stat.st_mode))
        .or_else(|| access(flags))
        .or(is_fuse.then_some("a program stands behind its file system"))
        .or((stat.st_size != 0).then_some("it is not empty"));
    unfit.map_or_else(|| Ok(File::from(descriptor)), |why| Err(Error::Unfit(why)))
}

/// What is wrong with what it is.
fn kind(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Directory => Some("it is a directory"),
        FileType::Fifo => Some("it is a pipe"),
        FileType::Socket => Some("it is a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("it is a device"),
        FileType::Symlink | FileType::Unknown => Some("it is no file"),
    }
}

/// What is wrong with how it was opened.
fn access(flags: OFlags) -> Option<&'static str> {
    let mode = flags & OFlags::RWMODE;
    if mode == OFlags::RDWR {
        Some("it is open for reading as well, not for writing alone")
    } else if mode != OFlags::WRONLY {
        Some("it is open for reading, not for writing")
    } else if flags.contains(OFlags::APPEND) {
        Some("it is open for appending")
    } else {
        flags.contains(OFlags::DIRECT).then_some("it is open for direct access")
    }
}

/// What the system says of a caller's file.
fn output(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::OutputFull,
        _ => Error::Output(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::path::Path;

    use super::*;

    fn open(path: &Path, options: &mut OpenOptions) -> OwnedFd {
        options.open(path).unwrap().into()
    }

    fn write() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.write(true).create(true);
        options
    }

    async fn refused(descriptor: impl Into<OwnedFd>) -> &'static str {
        match Target::take(descriptor.into(), ()).await.unwrap_err() {
            Error::Unfit(why) => why,
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn only_an_empty_file_that_is_open_for_writing_alone_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
        std::fs::write(&full, b"something").unwrap();
        assert!(Target::take(open(&empty, &mut write()), ()).await.is_ok());
        assert!(refused(open(&full, &mut write())).await.contains("not empty"));
        assert!(refused(open(&empty, write().append(true))).await.contains("appending"));
        assert!(refused(open(&empty, write().read(true))).await.contains("reading as well"));
        assert!(refused(open(&empty, OpenOptions::new().read(true))).await.contains("not for writing"));
        assert!(refused(open(folder.path(), OpenOptions::new().read(true))).await.contains("directory"));
        let (reader, writer) = io::pipe().unwrap();
        assert!(refused(writer).await.contains("pipe"));
        assert!(refused(reader).await.contains("pipe"));
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(refused(socket).await.contains("socket"));
        assert!(refused(open(Path::new("/dev/null"), &mut write())).await.contains("device"));
    }

    #[tokio::test]
    async fn bytes_land_at_their_place_and_what_is_not_written_is_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let target = Target::take(open(&path, &mut write()), ()).await.unwrap();
        target.begin(10).await.unwrap();
        target.write(6, Bytes::from_static(b"def")).await.unwrap();
        target.write(1, Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"\0abc\0\0def\0");
    }

    #[tokio::test]
    async fn its_place_is_taken_while_a_write_hangs_for_which_nobody_waits_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let (path, place) = (folder.path().join("out"), Arc::new(()));
        let target = Target::take(open(&path, &mut write()), Arc::clone(&place)).await.unwrap();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (ends, end) = std::sync::mpsc::sync_channel::<()>(1);
        let mut hangs = Box::pin(target.run(move |_| {
            let _ = begun.send(());
            end.recv().map_err(io::Error::other)
        }));
        tokio::select! {
            _ = &mut hangs => panic!("it does not hang"),
            _ = begins => {}
        }
        drop(hangs);
        drop(target);
        assert_eq!(Arc::strong_count(&place), 2);
        ends.send(()).unwrap();
        while Arc::strong_count(&place) > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn no_space_is_the_callers() {
        assert!(matches!(output(&io::ErrorKind::StorageFull.into()), Error::OutputFull));
        assert!(matches!(output(&io::ErrorKind::QuotaExceeded.into()), Error::OutputFull));
        assert!(matches!(output(&io::ErrorKind::PermissionDenied.into()), Error::Output(_)));
    }
}
