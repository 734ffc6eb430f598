//! Reading what is to be added: which paths are files, and their bytes in blocks, read ahead on a thread of
//! their own. A file that changes while it is read is an error, not another object.

use std::collections::VecDeque;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, stdin};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use casd_proto::{Bytes, BytesMut, MAX_DATA_BYTES};
use tokio::sync::mpsc;

use crate::error::{Exit, Failure};
use crate::thread;

/// Blocks that are read before they are asked for: 4 MiB keep disk and connection busy.
const READ_AHEAD: usize = 4;

/// Something that can be added.
pub(crate) struct Upload {
    /// What it is called, unless the caller says otherwise; standard input has no name.
    pub(crate) name: Option<String>,
    /// Its length in bytes, where known.
    pub(crate) length: Option<u64>,
    /// How many of them the file system has blocks for, where it has holes.
    pub(crate) data: Option<u64>,
    /// Where the bytes come from.
    reader: Reader,
}

enum Reader {
    Stdin,
    File(PathBuf, File, Shape),
}

/// What a file looks like as long as nobody writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Its length in bytes.
    pub(crate) length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl From<&rustix::fs::Stat> for Shape {
    fn from(stat: &rustix::fs::Stat) -> Self {
        // A length that does not fit is none that a file has.
        let length = u64::try_from(stat.st_size).unwrap_or_default();
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Self { length, modified: (stat.st_mtime, nanoseconds) }
    }
}

impl From<&Metadata> for Shape {
    fn from(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl Upload {
    /// Opens `path`, or standard input for `-`.
    ///
    /// # Errors
    /// When it is missing, unreadable, or not a regular file.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self { name: None, length: None, data: None, reader: Reader::Stdin });
        }
        let unreadable = |error: io::Error| Failure::io("UNREADABLE", path.display(), &error);
        // Looked at before it is opened: opening a FIFO waits for a writer, opening a device may act on it.
        // Looked at again after, because it may have been replaced in between.
        check_kind(path, &std::fs::metadata(path).map_err(unreadable)?)?;
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        check_kind(path, &metadata)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let shape = Shape::from(&metadata);
        // Blocks of 512 bytes, whatever the file system's are.
        let data = Some(metadata.blocks().saturating_mul(512)).filter(|data| *data < shape.length);
        let reader = Reader::File(path.to_owned(), file, shape);
        Ok(Self { name, length: Some(shape.length), data, reader })
    }

    /// Its bytes: blocks of 1 MiB, the last one shorter, then the end; or a failure, and then the end.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn blocks(self) -> Result<mpsc::Receiver<Result<Bytes, Failure>>, Failure> {
        let (send, receive) = mpsc::channel(READ_AHEAD);
        let work = move || {
            let outcome = match &self.reader {
                Reader::Stdin => read_all(stdin().lock(), None, &send)
                    .map(drop)
                    .map_err(|error| Failure::io("UNREADABLE", "standard input", &error)),
                Reader::File(path, file, before) => read_file(path, file, *before, &send),
            };
            if let Err(failure) = outcome {
                // The receiver is gone only when nobody wants to know.
                let _ = send.blocking_send(Err(failure));
            }
        };
        thread::start("read", work).map_err(|error| Failure::io("IO", "a thread for reading", &error))?;
        Ok(receive)
    }
}

/// Refuses what has no bytes that stay: folders, FIFOs, devices, sockets.
fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), Failure> {
    let kind = metadata.file_type();
    let (what, hint) = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        ("a directory", "-r adds it, with everything in it")
    } else if kind.is_fifo() {
        ("a FIFO", "to add what it gives: `casctl add - < FIFO`")
    } else if kind.is_socket() {
        ("a socket", "")
    } else {
        ("a device", "to add what it holds: `casctl add - < DEVICE`")
    };
    let (exit, reason) =
        if kind.is_dir() { (Exit::Usage, "IS_A_DIRECTORY") } else { (Exit::Failed, "NOT_A_FILE") };
    let message = format!("{} is {what}, not a file", path.display());
    Err(Failure::local(exit, reason, message).hint(hint))
}

/// Reads a file whole and makes sure that it is still what it was.
fn read_file(path: &Path, file: &File, before: Shape, send: &mpsc::Sender<Block>) -> Result<(), Failure> {
    let unreadable = |error: io::Error| Failure::io("UNREADABLE", path.display(), &error);
    let count = read_all(file, Some(before.length), send).map_err(unreadable)?;
    let after = Shape::from(&file.metadata().map_err(unreadable)?);
    if (after == before && count == before.length) || send.is_closed() {
        return Ok(());
    }
    let message = format!("{} changed while it was read; nothing was stored", path.display());
    Err(Failure::local(Exit::Failed, "FILE_CHANGED", message)
        .hint("add it again when nobody writes to it, or add a copy or a snapshot"))
}

type Block = Result<Bytes, Failure>;

/// Reads to the end, at most one byte past `expected`, and says how many bytes there were. Ends early when
/// nobody wants them any more.
fn read_all(mut from: impl Read, expected: Option<u64>, send: &mpsc::Sender<Block>) -> io::Result<u64> {
    let (mut count, mut sent) = (0, VecDeque::new());
    loop {
        let mut block = empty_block(&mut sent);
        let filled = fill(&mut from, &mut block)?;
        block.truncate(filled);
        count += filled as u64;
        let more = filled == MAX_DATA_BYTES && expected.is_none_or(|expected| count <= expected);
        let block = block.freeze();
        sent.push_back(block.clone());
        if filled > 0 && send.blocking_send(Ok(block)).is_err() || !more {
            return Ok(count);
        }
    }
}

/// A block to read into: one that was sent and that nobody has any more, or a new one. New memory for every MiB would
/// cost as much as reading it.
fn empty_block(sent: &mut VecDeque<Bytes>) -> BytesMut {
    match sent.pop_front().map(Bytes::try_into_mut) {
        Some(Ok(block)) => return block,
        Some(Err(held)) => sent.push_front(held),
        None => {}
    }
    BytesMut::zeroed(MAX_DATA_BYTES)
}

/// Reads until `block` is full or the end is there.
fn fill(from: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match from.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    async fn read(upload: Upload) -> Result<Vec<u8>, Failure> {
        let mut blocks = upload.blocks().unwrap();
        let mut bytes = Vec::new();
        while let Some(block) = blocks.recv().await {
            bytes.extend_from_slice(&block?);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn files_of_any_length_are_read_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for length in [0, 1, MAX_DATA_BYTES - 1, MAX_DATA_BYTES, MAX_DATA_BYTES + 1, 3 * MAX_DATA_BYTES] {
            let content: Vec<u8> = (0..=250).cycle().take(length).collect();
            file.as_file().set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(&content).unwrap();
            let upload = Upload::open(file.path()).unwrap();
            assert_eq!(upload.length, Some(length as u64));
            assert!(read(upload).await.unwrap() == content, "{length}");
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![1; 1000]).unwrap();
        let upload = Upload::open(file.path()).unwrap();
        file.write_all(b"more").unwrap();
        assert!(read(upload).await.unwrap_err().to_string().contains("changed while it was read"));

        let upload = Upload::open(file.path()).unwrap();
        file.as_file().set_len(10).unwrap();
        assert!(read(upload).await.unwrap_err().to_string().contains("changed while it was read"));
    }

    #[test]
    fn only_files_have_bytes_that_stay() {
        let folder = tempfile::tempdir().unwrap();
        let failed = |path: &Path, word: &str| {
            let failure = Upload::open(path).map(drop).unwrap_err();
            assert!(failure.to_string().contains(word), "{failure}");
        };
        failed(folder.path(), "is a directory");
        failed(Path::new("/dev/zero"), "is a device");
        failed(&folder.path().join("none"), "no such file");
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        failed(&socket, "is a socket");
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        failed(&fifo, "is a FIFO");
    }
}
