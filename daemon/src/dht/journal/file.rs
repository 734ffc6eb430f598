//! The journal's file.
//!
//! Owns: reading it piece by piece, appending, and replacing it. Refuses: to follow what does not belong to it: an
//! entry that is torn or damaged ends it, and then it is written anew. Survives a crash: what was appended, as far as
//! the system had written it; a new file takes the old one's place by a rename, after it was synced.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::SMALL;
use super::format::{Entry, HEAD, MAGIC, Network};

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct File {
    file: fs::File,
    /// Its length, and what it was when it had been written anew.
    length: u64,
    compact: u64,
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    file: fs::File,
    /// Read, and not understood yet.
    rest: Vec<u8>,
    length: u64,
}

/// What follows what has been read.
#[derive(Debug)]
pub(super) enum Rest {
    More(Reading),
    /// Nothing: it was read to its end.
    Whole(File),
    /// Something that is not an entry.
    Torn,
}

/// Opens the file of `network` at `path` to be read; `None` when there is none, or it is of another network, which this
/// node was in before.
pub(super) fn open(path: &Path, network: &Network) -> io::Result<Option<Reading>> {
    let opened = fs::OpenOptions::new().read(true).append(true).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut head = [0; HEAD];
    file.read_exact(&mut head)?;
    let (magic, of) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is of another form"));
    }
    if of != network {
        tracing::info!(
            file = %path.display(),
            "what the DHT had kept is of another network: network.name has changed; it begins anew"
        );
        return Ok(None);
    }
    Ok(Some(Reading { file, rest: Vec::new(), length: HEAD as u64 }))
}

/// Begins a new file of `network` beside `path`, for its owner only.
pub(super) fn begin(path: &Path, network: &Network) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    let new = path.with_extension("tmp");
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(new)?;
    file.write_all(MAGIC)?;
    file.write_all(network)?;
    Ok(File { file, length: HEAD as u64, compact: 0 })
}

// === impl File ===

impl File {
    /// Whether it is twice as long as it has to be.
    pub(super) fn has_grown(&self) -> bool {
        self.length > 2 * self.compact.max(SMALL)
    }

    pub(super) fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        self.length += entries.len() as u64;
        self.file.write_all(entries)
    }

    /// Puts a file that was begun beside `path` in its place.
    pub(super) fn put_in_place(mut self, path: &Path) -> io::Result<Self> {
        self.file.sync_data()?;
        fs::rename(path.with_extension("tmp"), path)?;
        self.compact = self.length;
        Ok(self)
    }
}

// === impl Reading ===

impl Reading {
    /// Reads about `bytes` more.
    pub(super) fn next(mut self, bytes: usize) -> (Vec<Entry>, Rest) {
        let begun = self.rest.len();
        let most = u64::try_from(bytes).unwrap_or(u64::MAX);
        let read = (&self.file).take(most).read_to_end(&mut self.rest);
        let is_end = read.is_err() || self.rest.len() == begun;
        let (mut entries, mut place) = (Vec::new(), 0);
        while let Some((entry, length)) = Entry::read(&self.rest[place..]) {
            entries.push(entry);
            place += length;
        }
        self.rest.drain(..place);
        self.length += place as u64;
        if !is_end && self.rest.len() <= 2 * super::format::MAX_ENTRY {
            return (entries, Rest::More(self));
        }
        if read.is_ok() && self.rest.is_empty() {
            let Self { file, length, .. } = self;
            return (entries, Rest::Whole(File { file, length, compact: length / 2 }));
        }
        tracing::warn!("what the DHT had kept ends with something torn or damaged, which is left out");
        (entries, Rest::Torn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::Key;

    const NETWORK: Network = [7; 32];

    fn entry(number: u8) -> Entry {
        Entry::Released { keys: vec![[number; 32]; 3] }
    }

    fn read(path: &Path) -> (Vec<Entry>, bool) {
        let (mut all, mut reading) = (Vec::new(), open(path, &NETWORK).unwrap().unwrap());
        loop {
            let (entries, rest) = reading.next(50);
            all.extend(entries);
            match rest {
                Rest::More(more) => reading = more,
                Rest::Whole(_) => return (all, true),
                Rest::Torn => return (all, false),
            }
        }
    }

    fn written(path: &Path, entries: impl Iterator<Item = Entry>) -> File {
        let mut file = begin(path, &NETWORK).unwrap();
        for entry in entries {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            file.append(&bytes).unwrap();
        }
        file.put_in_place(path).unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_what_is_torn_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache/keys");
        assert!(open(&path, &NETWORK).unwrap().is_none());
        drop(written(&path, (0..9).map(entry)));
        assert_eq!(read(&path), ((0..9).map(entry).collect(), true));
        assert!(open(&path, &[8; 32]).unwrap().is_none(), "what is of another network is not read");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read(&path), ((0..8).map(entry).collect(), false));
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let (entries, is_whole) = read(&path);
        assert!(!is_whole && entries == (0..entries.len() as u8).map(entry).collect::<Vec<_>>());
        fs::write(&path, b"something else").unwrap();
        assert!(open(&path, &NETWORK).is_err());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(open(&path, &NETWORK).is_err());
    }

    #[test]
    fn it_is_written_anew_when_it_has_doubled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let keys: Vec<Key> = vec![[7; 32]; 4_000];
        let mut file = written(&path, (0..10).map(|_| Entry::Released { keys: keys.clone() }));
        let (mut bytes, mut more) = (Vec::new(), 0);
        Entry::Released { keys }.write(&mut bytes);
        while !file.has_grown() {
            file.append(&bytes).unwrap();
            more += 1;
        }
        assert!((10..20).contains(&more), "{more}");
    }
}
