//! A disk in memory that forgets what was not synced.
//!
//! Each file has what a reader sees and what is durable; each folder has the names that a reader sees and those
//! that are durable. [`Forgetful::crash`] gives a new disk with the durable half only. It is the harshest
//! disk that keeps its word: nothing that was not synced survives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::{Disk, File};

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Forgetful(Arc<State>);

#[derive(Default)]
struct State {
    names: Mutex<Names>,
    locked: Arc<AtomicBool>,
    /// Writes and syncs fail when this many more have been done; 0: never.
    fails_after: AtomicU64,
    /// The error number that every read fails with; 0: none.
    reads_fail: AtomicI32,
    /// Bytes free; 0 stands for plenty.
    room: AtomicU64,
}

#[derive(Default)]
struct Names {
    dirs: BTreeSet<PathBuf>,
    seen: BTreeMap<PathBuf, Arc<Content>>,
    durable: BTreeMap<PathBuf, Arc<Content>>,
}

#[derive(Default)]
struct Content(Mutex<Data>);

#[derive(Default)]
struct Data {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

struct Open {
    disk: Forgetful,
    content: Arc<Content>,
}

impl Forgetful {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.names.lock().unwrap()
    }

    /// The disk after a power cut: what was synced, in files whose names were synced. The old one can be used on
    /// by what is still running, and changes nothing here.
    pub(crate) fn crash(&self) -> Self {
        let crashed = Self::default();
        let names = self.names();
        let mut after = crashed.names();
        after.dirs = names.dirs.clone();
        for (path, content) in &names.durable {
            let bytes = content.0.lock().unwrap().durable.clone();
            let content = Arc::new(Content(Mutex::new(Data { seen: bytes.clone(), durable: bytes })));
            after.seen.insert(path.clone(), Arc::clone(&content));
            after.durable.insert(path.clone(), content);
        }
        drop(after);
        drop(names);
        crashed
    }

    /// Lets `more` writes and syncs succeed, and none after them.
    pub(crate) fn fail_after(&self, more: u64) {
        self.0.fails_after.store(more + 1, Ordering::SeqCst);
    }

    /// Lets every read fail with this error number; 0 lets none.
    pub(crate) fn fail_reads(&self, errno: i32) {
        self.0.reads_fail.store(errno, Ordering::SeqCst);
    }

    /// Changes bytes of a file behind the store's back.
    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let content = Arc::clone(&self.names().seen[Path::new(path)]);
        let mut data = content.0.lock().unwrap();
        edit(&mut data.seen);
        data.durable = data.seen.clone();
    }

    fn step(&self) -> io::Result<()> {
        let count = &self.0.fails_after;
        let left = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n > 1).then(|| n - 1));
        match left {
            Err(1) => Err(io::Error::other("the disk fails on purpose")),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Arc<Content>> {
        self.names().seen.get(path).cloned().ok_or(io::ErrorKind::NotFound.into())
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Disk for Forgetful {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if self.0.locked.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(Arc::clone(&self.0.locked))))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Open { disk: self.clone(), content: self.find(path)? }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.step()?;
        let content = Arc::new(Content::default());
        let mut names = self.names();
        if names.seen.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.seen.insert(path.to_owned(), Arc::clone(&content));
        drop(names);
        Ok(Arc::new(Open { disk: self.clone(), content }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.names().dirs.insert(path.to_owned());
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let mut names = self.names();
        let here = |file: &Path| file.parent() == Some(path);
        let entries: Vec<_> =
            names.seen.iter().filter(|(file, _)| here(file)).map(|(f, c)| (f.clone(), c.clone())).collect();
        names.durable.retain(|file, _| !here(file));
        names.durable.extend(entries);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let mut names = self.names();
        let content = names.seen.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.seen.insert(to.to_owned(), content);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.names().seen.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = self.names();
        let here = names.seen.keys().filter(|file| file.parent() == Some(path));
        Ok(here.filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn free(&self) -> io::Result<u64> {
        let room = self.0.room.load(Ordering::SeqCst);
        Ok(if room == 0 { 1 << 50 } else { room })
    }

    fn index_dir(&self) -> Option<PathBuf> {
        None
    }
}

impl Open {
    fn data(&self) -> MutexGuard<'_, Data> {
        self.content.0.lock().unwrap()
    }
}

impl File for Open {
    fn length(&self) -> io::Result<u64> {
        Ok(self.data().seen.len() as u64)
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        match self.disk.0.reads_fail.load(Ordering::SeqCst) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        let data = self.data();
        let start = (offset as usize).min(data.seen.len());
        let end = start.saturating_add(length).min(data.seen.len());
        Ok(Bytes::copy_from_slice(&data.seen[start..end]))
    }

    fn write_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.disk.step()?;
        let mut data = self.data();
        let mut at = offset as usize;
        for part in parts {
            let end = at + part.len();
            if data.seen.len() < end {
                data.seen.resize(end, 0);
            }
            data.seen[at..end].copy_from_slice(part);
            at = end;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.step()?;
        let mut data = self.data();
        data.durable = data.seen.clone();
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.step()?;
        self.data().seen.resize(length as usize, 0);
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.step()?;
        let mut data = self.data();
        let end = ((offset + length) as usize).min(data.seen.len());
        let start = (offset as usize).min(end);
        data.seen[start..end].fill(0);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let data = self.data();
        Ok(((offset as usize) < data.seen.len()).then_some(offset))
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}
