//! What this room remembers on disk: which of its keys were announced when, and what others announced to it.
//!
//! Owns: the file `cache/keys` in the state folder. Entries are noted as things happen, written once a second, and all
//! is written anew when the file has grown to twice of what it has to say. Refuses: to hold anybody up: notes are
//! kept in memory, at most [`MAX_NOTES`]; beyond that the file is written anew as soon as it can be. Survives a
//! crash: all but the last second or two; after a power cut the file may lack what was not on disk yet. It is a
//! cache: what it lacks is announced again, and it may be deleted.
//!
//! The format is in [`mod@format`].

mod file;
mod format;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

pub(super) use self::format::Entry;

use self::file::File;
use self::format::Network;
use super::Inner;
use super::command::Command;
use super::schedule::minute;
use crate::peer::{Key, Kind};
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// How often notes are written.
const PERIOD: Duration = Duration::from_secs(1);
/// Bytes of notes in memory.
const MAX_NOTES: usize = 8 << 20;
/// A file smaller than this is not written anew because it has grown.
const SMALL: u64 = 1 << 20;
/// Keys written anew at a time.
const PAGE: usize = 16_384;
/// Bytes read at a time.
const READ: usize = 1 << 20;

/// Where things are noted. Cheap to clone; clones share the notes.
#[derive(Clone, Debug)]
pub(super) struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What has not been written; `None` when nothing is remembered on disk.
    notes: Option<Mutex<Notes>>,
    /// Whether what was remembered has been read.
    is_read: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Notes {
    /// Entries as in the file.
    bytes: Vec<u8>,
    /// Whether the file has to be written anew: some were left out, or it says more than is so.
    is_short: bool,
}

// === impl Journal ===

impl Journal {
    /// Of a room that remembers on disk, or in memory only.
    pub(super) fn new(on_disk: bool) -> Self {
        let notes = on_disk.then(Mutex::default);
        Self(Arc::new(Shared { notes, is_read: watch::Sender::new(!on_disk) }))
    }

    /// Notes something that has happened.
    pub(super) fn note(&self, entry: &Entry) {
        let Some(mut notes) = self.notes() else { return };
        if notes.bytes.len() < MAX_NOTES {
            entry.write(&mut notes.bytes);
        } else {
            notes.is_short = true;
        }
    }

    /// Has the file written anew, soon: it says more than what is kept.
    pub(super) fn ask_anew(&self) {
        if let Some(mut notes) = self.notes() {
            notes.is_short = true;
        }
    }

    /// What has been noted and not been written, and whether all is to be written anew.
    #[cfg(test)]
    pub(super) fn noted(&self) -> (Vec<Entry>, bool) {
        let (Notes { bytes, is_short }, mut entries, mut place) = (self.take(), Vec::new(), 0);
        while let Some((entry, length)) = Entry::read(&bytes[place..]) {
            entries.push(entry);
            place += length;
        }
        assert_eq!(place, bytes.len());
        (entries, is_short)
    }

    /// Whether what was remembered is known again.
    pub(super) fn is_read(&self) -> bool {
        *self.0.is_read.borrow()
    }

    /// As if it were just being read, or had been.
    #[cfg(test)]
    pub(super) fn set_read(&self, is_read: bool) {
        self.0.is_read.send_replace(is_read);
    }

    /// Waits until what was remembered is known again.
    pub(super) async fn read(&self) {
        // The sender lives as long as this handle.
        let _ = self.0.is_read.subscribe().wait_for(|is_read| *is_read).await;
    }

    fn take(&self) -> Notes {
        self.notes().map(|mut notes| std::mem::take(&mut *notes)).unwrap_or_default()
    }

    fn notes(&self) -> Option<MutexGuard<'_, Notes>> {
        self.0.notes.as_ref().map(|notes| notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The task behind a journal.
pub(super) struct Writer {
    dht: Weak<Inner>,
    journal: Journal,
    path: PathBuf,
    network: Network,
    /// Disk calls, one at a time.
    pool: Pool,
    /// Whether the log has heard that the file cannot be written.
    said: bool,
}

impl Writer {
    pub(super) fn new(dht: Weak<Inner>, journal: Journal, path: PathBuf, network: Network) -> Self {
        Self { dht, journal, path, network, pool: Pool::new(1), said: false }
    }

    /// Reads what was remembered, then writes until the room stops.
    pub(super) async fn run(mut self, tasks: Tasks) {
        let (mut file, mut is_short) = (self.read().await, false);
        self.journal.0.is_read.send_replace(true);
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopping = tokio::select! {
                () = tasks.stopping() => true,
                _ = period.tick() => false,
            };
            let notes = self.journal.take();
            is_short |= notes.is_short;
            file = self.append(file, notes.bytes).await;
            if stopping {
                return;
            }
            if is_short || file.as_ref().is_none_or(File::has_grown) {
                // Until there is a new one, the old one goes on.
                let new = self.write_anew().await;
                is_short &= new.is_none();
                file = new.or(file);
            }
        }
    }

    /// Tells the room what the file says. The file, unless there is none or it has to be written anew.
    async fn read(&mut self) -> Option<File> {
        let (path, network) = (self.path.clone(), self.network);
        let mut reading = match self.pool.run(move || file::open(&path, &network)).await {
            Ok(Some(reading)) => reading,
            Ok(None) => return self.begin().await,
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "what the DHT had kept cannot be read");
                return None;
            }
        };
        loop {
            let read = self.pool.run(move || reading.next(READ)).await;
            let (entries, rest) = read;
            let dht = self.dht.upgrade()?;
            let mut others = Vec::new();
            for entry in entries {
                match entry {
                    Entry::Announced { kind, minute, keys } => {
                        let mut holdings = dht.holdings();
                        // What is held, and of which something else is said since the start, has to be announced anew.
                        let is_old = |key: &&Key| !(dht.heard.is_newer(key, 0) && holdings.holds(key));
                        let old: Vec<Key> = keys.iter().filter(is_old).copied().collect();
                        old.iter().for_each(|key| holdings.restore(key, kind, minute));
                    }
                    Entry::Released { keys } => {
                        let mut holdings = dht.holdings();
                        keys.iter().for_each(|key| holdings.restore_released(key));
                    }
                    other => others.push(other),
                }
            }
            dht.ask(|done| Command::Restore { entries: others, done }).await;
            match rest {
                file::Rest::More(more) => reading = more,
                file::Rest::Whole(file) => return Some(file),
                file::Rest::Torn => return None,
            }
        }
    }

    /// A file that says nothing yet.
    async fn begin(&mut self) -> Option<File> {
        let (path, network) = (self.path.clone(), self.network);
        let begun = self.pool.run(move || file::begin(&path, &network)?.put_in_place(&path)).await;
        self.judge(begun)
    }

    async fn append(&mut self, file: Option<File>, bytes: Vec<u8>) -> Option<File> {
        let mut file = file?;
        if bytes.is_empty() {
            return Some(file);
        }
        let written = self.pool.run(move || file.append(&bytes).map(|()| file)).await;
        self.judge(written)
    }

    /// Writes all that is known to a new file, page by page, and puts it in the old one's place.
    async fn write_anew(&mut self) -> Option<File> {
        let (path, network) = (self.path.clone(), self.network);
        let begun = self.pool.run(move || file::begin(&path, &network)).await;
        let mut file = self.judge(begun)?;
        // What others have not heard of is taken back after a restart. As if it had just been announced, so that it is
        // not announced before it is known there that nobody holds it.
        let untold = self.dht.upgrade()?.untold();
        for keys in untold.chunks(PAGE) {
            let (mut page, keys) = (Vec::new(), keys.to_vec());
            Entry::Announced { kind: Kind::Chunk, minute: minute(), keys }.write(&mut page);
            let written = self.pool.run(move || file.append(&page).map(|()| file)).await;
            file = self.judge(written)?;
        }
        let (mut own, mut others) = (Some(None), Some(None));
        while own.is_some() || others.is_some() {
            let dht = self.dht.upgrade()?;
            let mut page = Vec::new();
            if let Some(from) = own {
                let (mut keys, next) = dht.holdings().page(from, PAGE);
                // Those of which somebody has not heard are announced anew after a restart.
                keys.retain(|(key, _, minute)| *minute > 0 && !dht.heard.is_owed(key));
                write_own(keys, &mut page);
                own = next.map(Some);
            } else if let Some(from) = others {
                let (entries, next) = dht.ask(|done| Command::Page { from, most: PAGE, done }).await?;
                entries.iter().for_each(|entry| entry.write(&mut page));
                others = next.map(Some);
            }
            drop(dht);
            let written = self.pool.run(move || file.append(&page).map(|()| file)).await;
            file = self.judge(written)?;
        }
        let path = self.path.clone();
        let placed = self.pool.run(move || file.put_in_place(&path)).await;
        self.judge(placed)
    }

    /// The log hears once that the file cannot be written; it is tried again.
    fn judge(&mut self, result: std::io::Result<File>) -> Option<File> {
        match result {
            Ok(file) => {
                self.said = false;
                Some(file)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    let file = self.path.display();
                    tracing::warn!(%error, %file, "what the DHT keeps cannot be written down; trying on");
                }
                None
            }
        }
    }
}

/// Own keys that were announced, those of one kind and minute together.
fn write_own(mut placed: Vec<(Key, Kind, u32)>, out: &mut Vec<u8>) {
    placed.sort_unstable_by_key(|(key, kind, minute)| (*minute, *kind as u8, *key));
    for alike in placed.chunk_by(|a, b| (a.1, a.2) == (b.1, b.2)) {
        let Some((_, kind, minute)) = alike.first() else { continue };
        let keys = alike.iter().map(|(key, _, _)| *key).collect();
        Entry::Announced { kind: *kind, minute: *minute, keys }.write(out);
    }
}
