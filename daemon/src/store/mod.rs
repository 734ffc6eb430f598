//! What is on disk: segments of records, the index, the journal, leases, pins.
//!
//! Owns: the state folder, but for the node's key. Refuses: bytes that no type proves, and being opened twice.
//! Survives a crash: everything that was acknowledged ([`Lease::commit`], [`Store::pin`], [`Store::remove`],
//! [`Store::set_job`]); the order of writes is chunks durable, manifest durable, journal entry durable, answer.
//!
//! Segments hold records (headers decide what is there), the index is a cache of them that may be deleted at any
//! time, the journal says which objects there are. Formats to the byte: `docs/storage-format.md`.

mod append;
mod ballast;
mod catalog;
mod compact;
mod directory;
mod disk;
mod doctor;
mod draft;
mod error;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod golden;
mod handle;
mod health;
mod index;
mod job;
mod journal;
mod lease;
mod ledger;
mod object;
mod open;
mod progress;
mod public;
mod punch;
mod read;
mod record;
mod recordless;
mod recover;
mod relieve;
mod remove;
mod retire;
mod room;
mod scan;
mod scanner;
mod scrub;
mod segment;
mod settle;
mod shortage;
mod space;
mod table;
mod trees;
mod usage;
mod used;

#[cfg(test)]
mod tests;

pub use append::Put;
pub use catalog::Damage;
pub use directory::{Entries, NewTree, Part};
#[cfg(test)]
pub(crate) use disk::forgetful;
pub use disk::{Around, Disk, File, Real};
pub use doctor::{Check, Level};
pub use error::Error;
pub use handle::{Options, Sizes, Store};
pub use job::{Job, MAX_JOB_PEER, MAX_JOB_PEERS, Priority};
pub use lease::{Committed, Item, Lease};
pub use ledger::Found;
pub use object::{MAX_NAME, NewObject, ObjectInfo, Pin, State};
pub use record::Kind;
pub use remove::{Collected, Removed};
pub use scrub::{Cursor, Proved, RecordName, Scrub};
pub use shortage::{LargePin, Shortage};
pub use space::Kinds;
pub use table::{Change, Table};
pub use usage::{Unfinished, Usage};

use handle::Inner;

/// The time in Unix seconds.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
