//! The index: where each record is. A cache of what the segments say, and the only file that names `sled`.
//!
//! It holds nothing that exists nowhere else and may be deleted whenever casd is stopped: a checkpoint, written in
//! one batch with the entries, says up to where it knows the segments, and the start scans on from there.
//! sled's flush is no fsync on Linux, and sled has been seen to lose or damage its files; so nothing is
//! believed because it is here, every use proves the record on disk, and whatever sled reports or panics
//! about at the start leads to a new index.
//!
//! Entries: key = kind (1), id (32); value = version 1 (1), flags (1: zero, 2: root), segment (4), offset (4),
//! length (4), place (8), little endian.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use super::Error;
use super::record::{Key, Kind, StoreKey, footprint};
use crate::content::Place;

const VERSION: u8 = 1;
const FLAG_ZERO: u8 = 1;
const FLAG_ROOT: u8 = 2;
const VALUE: usize = 22;

/// Keys of the index about itself; no kind has number 0.
const CHECKPOINT: &[u8] = b"\0checkpoint";
const OWNER: &[u8] = b"\0owner";

/// Tries to open, 20 ms apart: an index that was closed a moment ago in this process may still hold its lock.
const TRIES: usize = 50;

/// A place in the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    /// The segment's number.
    pub(super) segment: u32,
    /// Bytes from its beginning.
    pub(super) offset: u32,
}

/// What is known of a record without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where its header is.
    pub(super) spot: Spot,
    /// Bytes of its payload.
    pub(super) length: u32,
    /// How a chunk's id is computed.
    pub(super) place: Place,
    /// Its payload is zeros and not stored.
    pub(super) zero: bool,
}

impl Entry {
    /// Bytes that it takes in its segment.
    pub(super) fn footprint(&self) -> u64 {
        footprint(self.length, self.zero)
    }

    fn encode(&self) -> [u8; VALUE] {
        let root = self.place == Place::Root;
        let mut out = [0; VALUE];
        out[0] = VERSION;
        out[1] = u8::from(self.zero) * FLAG_ZERO + u8::from(root) * FLAG_ROOT;
        out[2..6].copy_from_slice(&self.spot.segment.to_le_bytes());
        out[6..10].copy_from_slice(&self.spot.offset.to_le_bytes());
        out[10..14].copy_from_slice(&self.length.to_le_bytes());
        out[14..].copy_from_slice(&self.place.offset().to_le_bytes());
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let value: &[u8; VALUE] = value.try_into().ok().filter(|value: &&[u8; VALUE]| value[0] == VERSION)?;
        let (segment, offset) = (word(&value[2..6])?, word(&value[6..10])?);
        let at = u64::from_le_bytes(value[14..].try_into().ok()?);
        let root = value[1] & FLAG_ROOT != 0;
        let length = word(&value[10..14])?;
        Some(Self {
            spot: Spot { segment, offset },
            length,
            place: if root { Place::Root } else { Place::At(at) },
            zero: value[1] & FLAG_ZERO != 0,
        })
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn encode_key(key: &Key) -> [u8; 33] {
    let mut out = [0; 33];
    out[0] = key.kind as u8;
    out[1..].copy_from_slice(&key.id);
    out
}

fn decode_key(bytes: &[u8]) -> Option<Key> {
    let (kind, id) = bytes.split_first()?;
    Some(Key { kind: Kind::from_number(*kind)?, id: id.try_into().ok()? })
}

/// The open index. Calls block for a moment, and for a read of a page when it is not in memory.
pub(super) struct Index {
    db: sled::Db,
}

impl Index {
    /// Opens the index in `folder` (or, for tests, none that lasts). One that cannot be opened, or that belongs to
    /// another store, is moved aside and a new one made: it has no checkpoint, so that all is scanned.
    pub(super) fn open(folder: Option<&Path>, cache: u64, store: &StoreKey) -> Result<Self, Error> {
        let owner = blake3::derive_key("casd 2026 index owner 1", store);
        match Self::try_open(folder, cache).and_then(|index| index.claim(&owner)) {
            Ok(index) => Ok(index),
            Err(error) => {
                let Some(folder) = folder else { return Err(error) };
                tracing::warn!(%error, "the index cannot be used; it is moved aside and made anew");
                move_aside(folder)?;
                Self::try_open(Some(folder), cache)?.claim(&owner)
            }
        }
    }

    fn try_open(folder: Option<&Path>, cache: u64) -> Result<Self, Error> {
        let config = sled::Config::new().cache_capacity(cache).mode(sled::Mode::HighThroughput);
        let config = match folder {
            Some(folder) => config.path(folder),
            None => config.temporary(true),
        };
        for attempt in 1.. {
            match catch_unwind(AssertUnwindSafe(|| config.open())) {
                Ok(Ok(db)) => return Ok(Self { db }),
                Ok(Err(sled::Error::Io(_))) if attempt < TRIES => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(Err(error)) => return Err(failed(&error)),
                Err(_) => break,
            }
        }
        Err(Error::Index("sled panicked while opening it".to_owned()))
    }

    /// Marks a new index as this store's; refuses another's.
    fn claim(self, owner: &[u8; 32]) -> Result<Self, Error> {
        let found = self.db.get(OWNER).map_err(|error| failed(&error))?;
        match found {
            Some(found) if found == owner => Ok(self),
            Some(_) => Err(Error::Index("it belongs to another store".to_owned())),
            None if self.db.is_empty() => {
                self.db.insert(OWNER, owner).map_err(|error| failed(&error))?;
                Ok(self)
            }
            None => Err(Error::Index("it does not say whose it is".to_owned())),
        }
    }

    /// The entry of a record. One that cannot be read as an entry is none.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let value = self.db.get(encode_key(key)).map_err(|error| failed(&error))?;
        Ok(value.and_then(|value| Entry::decode(&value)))
    }

    /// Enters records, and in the same batch up to where the segments are known.
    pub(super) fn enter(&self, entries: &[(Key, Entry)], checkpoint: Option<Spot>) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, entry) in entries {
            batch.insert(encode_key(key).as_slice(), entry.encode().as_slice());
        }
        if let Some(Spot { segment, offset }) = checkpoint {
            let value = (u64::from(segment) << 32 | u64::from(offset)).to_le_bytes();
            batch.insert(CHECKPOINT, &value);
        }
        self.db.apply_batch(batch).map_err(|error| failed(&error))
    }

    /// Up to where the segments are known.
    pub(super) fn checkpoint(&self) -> Result<Option<Spot>, Error> {
        let value = self.db.get(CHECKPOINT).map_err(|error| failed(&error))?;
        let value = value.and_then(|value| Some(u64::from_le_bytes(value.as_ref().try_into().ok()?)));
        #[expect(clippy::cast_possible_truncation, reason = "the lower half of 64 bits")]
        Ok(value.map(|value| Spot { segment: (value >> 32) as u32, offset: value as u32 }))
    }

    /// Takes an entry out, when it is still this one.
    pub(super) fn forget(&self, key: &Key, entry: &Entry) -> Result<(), Error> {
        let (key, old) = (encode_key(key), entry.encode());
        // That it is another one by now is what the condition is for.
        let _ = self.db.compare_and_swap(key, Some(&old), None::<&[u8]>).map_err(|error| failed(&error))?;
        Ok(())
    }

    /// All entries, one by one. Those that cannot be read are left out.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<(Key, Entry), Error>> {
        self.db.iter().filter_map(|item| match item {
            Ok((key, value)) => Some(Ok((decode_key(&key)?, Entry::decode(&value)?))),
            Err(error) => Some(Err(failed(&error))),
        })
    }

    /// Hands what is buffered to the kernel. That is not the disk.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.db.flush().map(|_| ()).map_err(|error| failed(&error))
    }
}

fn failed(error: &sled::Error) -> Error {
    Error::Index(error.to_string())
}

/// Keeps one bad index for whoever wants to know why.
fn move_aside(folder: &Path) -> Result<(), Error> {
    let aside = folder.with_file_name("index.bad");
    let _ = std::fs::remove_dir_all(&aside);
    std::fs::rename(folder, &aside).map_err(Error::io("move the index aside"))
}
