//! Why a verb could not be done: one enum for everything that `api` turns into a status.

use crate::content::{IdError, NameError, ObjectId};
use crate::peer::Nobody;
use crate::{fetch, ingest, store};

/// What went wrong, for the person who asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text that is neither an id nor a name or prefix of what is stored.
    #[error("there is no object {0:?} in this node's store{more}; `casctl ls` lists what there is", more = too_short(.0))]
    NotFound(String),
    /// A name or prefix of several objects.
    #[error("{text:?} could be any of {}; give more of the id", list(.ids))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// The first few that it could be.
        ids: Vec<ObjectId>,
    },
    /// A directory where a file was needed.
    #[error("dir:{0} is a directory")]
    IsDirectory(ObjectId),
    /// A file where a directory was needed.
    #[error("{0:?} is a file, not a directory")]
    NotDirectory(String),
    /// The empty file in a directory: no object is stored for it.
    #[error("{0:?} is an empty file, which is never stored by itself")]
    EmptyFile(String),
    /// A path that leads nowhere.
    #[error("{path} leads to no file or directory: {why}")]
    NoSuchPath {
        /// The whole path.
        path: String,
        /// Where it ends.
        why: String,
    },
    /// A whole id was needed.
    #[error("{text:?} is not an id: {why}")]
    Id {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: IdError,
    },
    /// An address that is none.
    #[error("{text:?} is not a peer's address: {why}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// An id of a peer that is none.
    #[error("{0:?} is not a peer id; `casctl status` on that node shows it, 52 characters")]
    PeerId(String),
    /// This node, where another was needed.
    #[error("{0} is this node itself; `casctl status` on another node shows where that one is")]
    Myself(String),
    /// A peer could not be reached.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// What went wrong.
        why: String,
    },
    /// A node that is not to be spoken to.
    #[error("{0} is a node of another network than this one's; compare `network.name` of both")]
    OtherNetwork(String),
    /// A node that is not to be spoken to, or does not speak to this one, for want of a network's key.
    #[error("{}", other_key(address, *is_private))]
    OtherKey {
        /// Where.
        address: String,
        /// Whether this node has a key.
        is_private: bool,
    },
    /// Someone else's.
    #[error(
        "the user with uid {owner}{} has pinned {id}: only those who pinned it can remove it, or an administrator with \
         `casctl rm --force`", and_others(*others)
    )]
    NotPermitted {
        /// It.
        id: ObjectId,
        /// Who pinned it first.
        owner: u32,
        /// How many others did.
        others: usize,
    },
    /// Not the caller's to publish.
    #[error(
        "you have not pinned {0}: only those who promise to keep an object let its name out, or an administrator; \
         `casctl pin` it first"
    )]
    NotPinned(ObjectId),
    /// A name that is to leave the node, of what never does.
    #[error("what is private is never announced, so its name cannot be published")]
    Private,
    /// A node that announces nothing has nobody to tell names to.
    #[error(
        "this node announces nothing (`network.announce` is \"none\", or `network.mode` is \"client\"), so it can publish \
         no name"
    )]
    NotAnnouncing,
    /// What has no name, or one that others could not be told.
    #[error("{id} cannot be published: {why}; give it a name with --name")]
    Nameless {
        /// It.
        id: ObjectId,
        /// What is wrong with its name.
        why: String,
    },
    /// A name that was to be given, and that others could not be told.
    #[error("it cannot be published under this name: {0}")]
    UnfitName(NameError),
    /// Nothing is here, and nobody who was asked says anything of it.
    #[error(
        "there is no object {0} in this node's store, and no node that was asked tells what it is; `casctl providers` \
         asks who holds it"
    )]
    Untold(ObjectId),
    /// The same, and there is nobody to ask.
    #[error("there is no object {id} in this node's store, and nobody can be asked what it is: {nobody}")]
    NobodyToTell {
        /// It.
        id: ObjectId,
        /// Why nobody can be asked.
        nobody: Nobody,
    },
    /// Who holds something cannot be asked.
    #[error("nobody can be asked who holds {id}: {nobody}{}", if *.is_here { "; this node holds it" } else { "" })]
    NobodyToAsk {
        /// It.
        id: ObjectId,
        /// Whether this node holds it.
        is_here: bool,
        /// Why nobody can be asked.
        nobody: Nobody,
    },
    /// A job that is not there.
    #[error("there is no job {0}; `casctl jobs` lists those that there are")]
    NoJob(String),
    /// Somebody else's job.
    #[error("job {0} is another user's: only that user, or an administrator, can change it")]
    NotYourJob(u64),
    /// One job more than there may be.
    #[error("there are {all} jobs already, {own} of them of this user; `casctl jobs --cancel` ends one")]
    TooManyJobs {
        /// In all.
        all: usize,
        /// Of this user.
        own: usize,
    },
    /// For administrators.
    #[error("only an administrator may {0}: run it as root or as the user that casd runs as")]
    AdminOnly(&'static str),
    /// Comes with a later version.
    #[error("{0} arrives in a later version")]
    NotBuilt(&'static str),
    /// An object whose manifest cannot be read any more.
    #[error("{0} is damaged: its manifest cannot be read; fetch it again")]
    Damaged(ObjectId),
    /// An add failed.
    #[error(transparent)]
    Ingest(#[from] ingest::Error),
    /// A fetch failed.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Whoever gives a few digits means an id.
fn too_short(text: &str) -> &'static str {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && (1..8).contains(&text.len()) {
        ", and a beginning of an id has 8 digits at least"
    } else {
        ""
    }
}

fn list(ids: &[ObjectId]) -> String {
    ids.iter().map(|id| id.to_string()[..16].to_owned()).collect::<Vec<_>>().join(", ")
}

fn other_key(address: &str, is_private: bool) -> String {
    if is_private {
        return format!(
            "{address} is not of this node's private network: it has another key or name, or none; compare \
             `network.key_file` and `network.name` of both"
        );
    }
    format!("{address} belongs to a private network; name a file with its key in `network.key_file`")
}

fn and_others(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} others)") }
}
