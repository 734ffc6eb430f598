//! Directories on this side of the socket: reading one that is to be added, and restoring one that was fetched.
//!
//! Owns: the rules for names and links ([`name`]), the order in which parts come ([`order`]), walking ([`walk`]) and
//! restoring ([`restore`]). Refuses: following a symbolic link, whatever is no file, directory or link, and a name that
//! could lead elsewhere. Survives a crash: nothing of what is added; of a fetch that is killed, a temporary folder
//! beside the target (`.NAME.casd-XXXX`).

pub(crate) mod batch;
pub(crate) mod clear;
pub(crate) mod list;
pub(crate) mod name;
pub(crate) mod order;
pub(crate) mod place;
pub(crate) mod restore;
pub(crate) mod walk;

/// Directories that may be nested, the outermost counted in.
pub(crate) const MAX_DEPTH: usize = 64;

/// Entries of one directory at most.
pub(crate) const MAX_ENTRIES: u64 = 1 << 20;
