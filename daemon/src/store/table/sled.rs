//! sled as a table.
//!
//! sled's flush is no fsync on Linux, and sled has been seen to lose or damage its files; whatever it reports or panics
//! about when it is opened is an error like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use super::{Change, Table};
use crate::store::Error;

/// Tries to open, 20 ms apart: a table that was closed a moment ago in this process may still hold its lock.
const TRIES: usize = 50;

struct Sled(sled::Db);

/// Opens the table in `folder`, with so many bytes of cache. One that is not there is made.
pub(crate) fn open(folder: &Path, cache: u64) -> Result<Box<dyn Table>, Error> {
    let config = sled::Config::new().cache_capacity(cache).mode(sled::Mode::HighThroughput).path(folder);
    for attempt in 1.. {
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(Box::new(Sled(db))),
            Ok(Err(sled::Error::Io(_))) if attempt < TRIES => std::thread::sleep(Duration::from_millis(20)),
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => break,
        }
    }
    Err(Error::Index("sled panicked while opening it".to_owned()))
}

impl Table for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.0.get(key).map_err(|error| failed(&error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn apply(&self, changes: &[Change]) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        self.0.apply_batch(batch).map_err(|error| failed(&error))
    }

    fn each(&self, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        for pair in self.0.iter() {
            let (key, value) = pair.map_err(|error| failed(&error))?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        self.0.flush().map(|_| ()).map_err(|error| failed(&error))
    }
}

fn failed(error: &sled::Error) -> Error {
    Error::Index(error.to_string())
}
