//! Opening a store: its folders, its lock, and whose it is.
//!
//! Every step may be interrupted and done again: it ends the same way.

use std::io;
use std::path::Path;

use super::disk::Disk;
use super::record::StoreKey;
use super::{Error, doctor, format, journal, segment, used};

/// Makes the folders and takes the lock.
pub(super) fn prepare(disk: &dyn Disk) -> Result<Box<dyn Send + Sync>, Error> {
    let folder = |error: io::Error| Error::Folder { folder: disk.name(), why: error.to_string() };
    disk.create_dir(Path::new("")).map_err(folder)?;
    let lock = disk.lock(Path::new("LOCK")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { folder: disk.name() },
        _ => folder(error),
    })?;
    for name in [segment::FOLDER, journal::FOLDER] {
        disk.create_dir(Path::new(name)).map_err(folder)?;
    }
    for name in [format::TEMPORARY, journal::TEMPORARY, used::TEMPORARY, doctor::TEMPORARY] {
        match disk.unlink(Path::new(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(folder(error)),
            _ => {}
        }
    }
    // What a process that was killed did with names may not be durable, and is built on from here.
    for name in [segment::FOLDER, journal::FOLDER, ""] {
        disk.sync_dir(Path::new(name)).map_err(folder)?;
    }
    Ok(lock)
}

/// The store's key: from FORMAT, else from the journal, else, when the store is empty, a new one.
pub(super) fn key(disk: &dyn Disk) -> Result<StoreKey, Error> {
    let rescued = match format::read(disk) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => journal::rescue_key(disk)?,
        Err(error @ (Error::Damaged { .. } | Error::Io { .. })) => {
            // What the journal says counts only where it says anything.
            let Ok(Some(key)) = journal::rescue_key(disk) else { return Err(error) };
            tracing::error!(%error, "FORMAT is made anew from the journal");
            Some(key)
        }
        Err(error) => return Err(error),
    };
    let key = match rescued {
        Some(key) => key,
        None if disk.list(segment::FOLDER.as_ref()).map_err(Error::io("list segments"))?.is_empty() => {
            rand::random()
        }
        None => {
            return Err(Error::Damaged { what: "FORMAT", why: "it is missing, and so is the journal" });
        }
    };
    format::write(disk, &key)?;
    Ok(key)
}
