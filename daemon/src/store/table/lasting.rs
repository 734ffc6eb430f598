//! sled as a table.
//!
//! sled's flush is no fsync on Linux, and sled has been seen to lose or damage its files, and to panic where the disk
//! fails; whatever it reports or panics about is an error like any other. Its flush may wait for ever for a write of
//! one of its own threads that failed; so nobody waits for it for long.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::{Change, Table};
use crate::store::Error;

/// Tries to open, 20 ms apart: a table that was closed a moment ago in this process may still hold its lock.
const TRIES: usize = 50;

/// A flush that takes longer is given up.
const FLUSH_WITHIN: Duration = Duration::from_secs(20);

/// `None` only while it is dropped.
struct Sled(Option<sled::Db>);

/// Opens the table in `folder`, with so many bytes of cache. One that is not there is made.
pub(crate) fn open(folder: &Path, cache: u64) -> Result<Box<dyn Table>, Error> {
    let config = sled::Config::new().cache_capacity(cache).mode(sled::Mode::HighThroughput).path(folder);
    for attempt in 1.. {
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(Box::new(Sled(Some(db)))),
            // This is how it says that the lock is taken; a full disk has a kind of its own.
            Ok(Err(sled::Error::Io(error))) if attempt < TRIES && error.kind() == io::ErrorKind::Other => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => break,
        }
    }
    Err(Error::Index("sled panicked while opening it".to_owned()))
}

impl Sled {
    fn with<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, Error> {
        let Some(db) = &self.0 else { return Err(Error::Closed) };
        match catch_unwind(AssertUnwindSafe(|| call(db))) {
            Ok(result) => result.map_err(|error| failed(&error)),
            Err(_) => Err(Error::Index("sled panicked".to_owned())),
        }
    }
}

impl Table for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.with(|db| db.get(key))?.map(|value| value.to_vec()))
    }

    fn apply(&self, changes: &[Change]) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        self.with(|db| db.apply_batch(batch))
    }

    fn each(&self, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        self.with(|db| {
            for pair in db.iter() {
                let (key, value) = pair?;
                if !each(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), Error> {
        let Some(db) = self.0.clone() else { return Err(Error::Closed) };
        let (done, ended) = mpsc::sync_channel(1);
        flusher(move || {
            let flushed = db.flush();
            // The last one to go syncs once more: that is not to be this one, unless it has been given up.
            drop(db);
            let _ = done.send(flushed);
        })?;
        match ended.recv_timeout(FLUSH_WITHIN) {
            Ok(flushed) => flushed.map(|_| ()).map_err(|error| failed(&error)),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Index("sled panicked".to_owned())),
            Err(RecvTimeoutError::Timeout) => Err(Error::Index("sled does not come to an end".to_owned())),
        }
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        let db = self.0.take();
        // It syncs once more, and panics when that fails.
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("sled panicked while it was closed");
        }
    }
}

/// Runs a flush on a thread of its own, which may be left behind: one that waits for ever must not keep a place in the
/// pool, nor anybody who joins it.
fn flusher(flush: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name("index-flush".to_owned());
    thread.spawn(flush).map(|_| ()).map_err(Error::io("flush the index"))
}

fn failed(error: &sled::Error) -> Error {
    Error::Index(error.to_string())
}
