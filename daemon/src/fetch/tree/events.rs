//! What is asked for of a directory, and what its caller is told.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::{Error, Progress, Summary};
use crate::content::ObjectId;
use crate::peer::PeerAddr;

/// Which directory to fetch and how.
#[derive(Clone, Debug)]
pub struct TreeRequest {
    /// The outermost directory.
    pub root: ObjectId,
    /// The names on the way to what is wanted; none: all of it.
    pub path: Vec<String>,
    /// Peers to ask besides those that are found.
    pub peers: Vec<PeerAddr>,
    /// The user that pins what is wanted.
    pub pin: Option<u32>,
    /// What to call the directory.
    pub name: Option<String>,
    /// Give up when nothing has come for so long.
    pub stall: Duration,
    /// The path is to lead to a file, of which these bytes are wanted, as (first, number); `None` for all of whatever
    /// it leads to.
    pub range: Option<(u64, u64)>,
}

/// What the fetch of a directory tells its caller.
#[derive(Clone, Debug, PartialEq)]
pub enum TreeEvent {
    /// All trees are here. First.
    Started(TreeStarted),
    /// What comes next, in the order of a walk: depth first, the entries of each directory by their names. At most
    /// 1,024 parts with 1 MiB in all.
    Parts(Vec<FetchedPart>),
    /// How far it is; twice a second. Bytes are those that were given.
    Progress(Progress),
    /// All of it has been given, and is in the store. Last.
    Finished(Summary),
}

/// What is coming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeStarted {
    /// What is wanted.
    pub id: ObjectId,
    /// A directory; otherwise a file, which comes as the only entry.
    pub is_directory: bool,
    /// What it is called.
    pub name: Option<String>,
    /// Bytes of all files in it, each counted as often as it occurs.
    pub size: u64,
    /// Files, directories and links in it at all depths; 0 for a file.
    pub entries: u64,
}

/// A part of a walk. Names keep the rules for entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchedPart {
    /// A directory begins; what follows is in it.
    Enter {
        /// Its name.
        name: String,
    },
    /// The directory that was entered last ends.
    Leave,
    /// A file of at most 1 MiB.
    File {
        /// Its name.
        name: String,
        /// Whether it may be executed.
        executable: bool,
        /// All its bytes.
        bytes: Bytes,
    },
    /// A longer file begins; its bytes and its end follow, with nothing between.
    Start {
        /// Its name.
        name: String,
        /// Whether it may be executed.
        executable: bool,
        /// Its bytes.
        length: u64,
    },
    /// The next bytes of a longer file: 1 byte to 1 MiB.
    Data(Bytes),
    /// Instead of bytes: so many zeros, at most 1 MiB.
    Zeros(u64),
    /// The end of a longer file.
    End {
        /// Bytes that it had.
        length: u64,
    },
    /// A symbolic link.
    Link {
        /// Its name.
        name: String,
        /// What it says, wherever that leads.
        target: String,
    },
}

/// A fetch of a directory in progress. Dropping it ends the fetch; what arrived stays for a day.
pub struct TreeFetching {
    /// Events in order, then one error or the end.
    pub events: mpsc::Receiver<Result<TreeEvent, Error>>,
}
