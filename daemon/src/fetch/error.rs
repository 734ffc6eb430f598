//! Why a fetch did not end with all its bytes.

use crate::content::{CHUNK_LEN, ObjectId};
use crate::peer::Nobody;
use crate::store;

/// What went wrong with a fetch. What had arrived stays in the store for a day: the same fetch goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No peer is known that could be asked.
    #[error("{nobody}, so {id} cannot be looked for")]
    NoPeers {
        /// The object.
        id: ObjectId,
        /// Why nobody can be asked.
        nobody: Nobody,
    },
    /// Nobody was found that has it.
    #[error("no holder of {id} was found{}{}{}", within(*.seconds), of_named(.named), said(*.without))]
    NoHolders {
        /// The object.
        id: ObjectId,
        /// How long was waited; 0: there was nobody to wait for.
        seconds: u64,
        /// The peers that the caller named, and what became of each; empty where none was named.
        named: String,
        /// How many answer that are said to hold it, and have no object of this id.
        without: usize,
    },
    /// Holders are known, and none of them could be reached.
    #[error("{} and none could be reached{}: {why}{}", holders(*.known, .id), within(*.seconds), said(*.without))]
    Unreached {
        /// The object.
        id: ObjectId,
        /// How many.
        known: usize,
        /// How long was waited.
        seconds: u64,
        /// A few of them, those that the caller named first, and why each could not be reached.
        why: String,
        /// How many others answer that are said to hold it, and have no object of this id.
        without: usize,
    },
    /// All that the caller named are there and not to be spoken to, and nobody else was found.
    #[error(
        "no holder of {id} was found: the peers that were named are of another network than this node's, or have another \
         key: {named}; compare `network.name` and `network.key_file` of both"
    )]
    OtherNetwork {
        /// The object.
        id: ObjectId,
        /// The peers that the caller named, and what became of each.
        named: String,
    },
    /// Nothing has come for as long as the caller would wait.
    #[error(
        "nothing arrived for {seconds} s; missing of {id}: {missing}{holders}; the same fetch again goes on from here"
    )]
    Stalled {
        /// The object.
        id: ObjectId,
        /// How long.
        seconds: u64,
        /// Which chunks, such as `chunks 3-7, 12 (6 of 20)` or `chunk 8 of 20`.
        missing: String,
        /// How many were found that hold it and what became of them, behind a semicolon; empty where that is not known.
        holders: String,
    },
    /// Of a directory, files that nobody has who was asked: what others had has come.
    #[error("nobody who was asked has all of {id}; missing: {missing}")]
    Lacking {
        /// The directory.
        id: ObjectId,
        /// Which files, by their paths: a dozen at most, and how many there are in all.
        missing: String,
    },
    /// Chunks that were here have rotted, parity did not help, and nobody who was asked has them.
    #[error("{id} is damaged here, and nobody was found who has {missing}; add it again to heal it")]
    Damaged {
        /// The object.
        id: ObjectId,
        /// What of it: chunks as in [`Error::Stalled`], `its only chunk`, or `its list of chunks`.
        missing: String,
    },
    /// Someone removed it while it was read.
    #[error("{0} was removed while it was read")]
    Removed(ObjectId),
    /// A range beyond the object's end.
    #[error("the object has {length} bytes and the range begins at {offset}")]
    Range {
        /// The object's length.
        length: u64,
        /// Where the range begins.
        offset: u64,
    },
    /// A file was wanted, and the first bytes of what came are those of a directory's list.
    #[error("dir:{0} is a directory")]
    IsDirectory(ObjectId),
    /// A directory's list that cannot be used. Its bytes were proved: whoever made it is to blame, not who gave it.
    #[error("directory {id} has a list that cannot be used: {why}")]
    BadTree {
        /// The directory.
        id: ObjectId,
        /// What is wrong with it.
        why: String,
    },
    /// A path that leads to nothing that can be fetched.
    #[error("{path} leads to no file or directory: {why}")]
    NoSuchPath {
        /// The path, as `dir:ID/sub/path`.
        path: String,
        /// Where it ends.
        why: String,
    },
    /// Something in a directory is here already, and is not for others where the directory is, or the other way round.
    #[error(
        "{id} is in this directory and is stored here already as {}; remove it first",
        if *.private { "private" } else { "public" }
    )]
    Privacy {
        /// The object.
        id: ObjectId,
        /// What it is here.
        private: bool,
    },
    /// What a caller passed to be written into cannot be.
    #[error("casd does not write into what was passed to it: {0}")]
    Unfit(
        /// What is wrong with it.
        &'static str,
    ),
    /// The caller's file system takes no more.
    #[error("there is no space left where the caller's file is")]
    OutputFull,
    /// The caller's file cannot be written.
    #[error("the caller's file cannot be written: {0}")]
    Output(
        /// What the system said.
        String,
    ),
    /// The daemon is stopping.
    #[error("casd is stopping; the same fetch again goes on from here")]
    Stopping,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// How long was waited, where anybody waited.
fn within(seconds: u64) -> String {
    if seconds == 0 { String::new() } else { format!(" within {seconds} s") }
}

/// What became of those that the caller named.
fn of_named(named: &str) -> String {
    if named.is_empty() { String::new() } else { format!("; of the peers that were named, {named}") }
}

/// What those have to say that hold something else of this id: a chunk, or what they have removed since.
fn said(without: usize) -> String {
    match without {
        0 => String::new(),
        1 => format!("; 1 node is said to hold it, and has no such object: {CHUNK_ID}"),
        nodes => format!("; {nodes} nodes are said to hold it, and have no such object: {CHUNK_ID}"),
    }
}

const CHUNK_ID: &str = "it may be the id of a chunk, which comes with its object";

fn holders(known: usize, id: &ObjectId) -> String {
    if known == 1 {
        return format!("1 holder of {id} is known");
    }
    format!("{known} holders of {id} are known")
}

/// What was lost when nothing is known of an object of this length but that it was here.
pub(super) const fn name_first(length: u64) -> &'static str {
    if length <= CHUNK_LEN { "its only chunk" } else { "its list of chunks" }
}

/// Chunk numbers as people read them: ranges, at most a dozen, and how many there are in all.
pub(super) fn name_missing(missing: &[u64], chunks: u64) -> String {
    match missing {
        [_] if chunks == 1 => return name_first(0).to_owned(),
        [index] => return format!("chunk {index} of {chunks}"),
        _ => {}
    }
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &index in missing {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == index => *end = index,
            _ => ranges.push((index, index)),
        }
    }
    let more = if ranges.len() > 12 { ", …" } else { "" };
    let text: Vec<String> = ranges
        .iter()
        .take(12)
        .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") })
        .collect();
    format!("chunks {}{more} ({} of {chunks})", text.join(", "), missing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nobody_has_it_is_told_apart_from_that_nobody_is_reached() {
        let (id, named) = (ObjectId::from_bytes([7; 32]), "12D3: refused".to_owned());
        let nobody = |seconds, named| Error::NoHolders { id, seconds, named, without: 0 }.to_string();
        assert_eq!(nobody(60, String::new()), format!("no holder of {id} was found within 60 s"));
        let early = format!("no holder of {id} was found; of the peers that were named, 12D3: refused");
        assert_eq!(nobody(0, named.clone()), early);
        let unreached = |known, without| {
            Error::Unreached { id, known, seconds: 9, why: named.clone(), without }.to_string()
        };
        let one = format!("1 holder of {id} is known and none could be reached within 9 s: 12D3: refused");
        assert_eq!(unreached(1, 0), one);
        assert!(unreached(1, 2).starts_with(&format!("{one}; 2 nodes are said to hold it")));
        assert!(unreached(2, 0).starts_with(&format!("2 holders of {id} are known and none")));
    }

    #[test]
    fn that_nobody_keeps_records_is_told_apart_from_that_nobody_is_there() {
        let (id, records) = (ObjectId::from_bytes([7; 32]), "keeps no records for others");
        let said = |nobody| Error::NoPeers { id, nobody }.to_string();
        let unknown = said(Nobody::Unknown);
        assert_eq!(unknown, format!("no peers are known, or can be reached, so {id} cannot be looked for"));
        let one = said(Nobody::Unserved(1));
        assert!(one.starts_with(&format!("the one node that is connected {records}, ")), "{one}");
        let three = said(Nobody::Unserved(3));
        assert!(three.starts_with("each of the 3 nodes") && three.contains(records), "{three}");
        let down = said(Nobody::Silent(1));
        assert!(down.contains("configured to join by, does not answer, so"), "{down}");
    }

    #[test]
    fn missing_chunks_are_named_in_ranges() {
        assert_eq!(name_missing(&[3, 4, 5, 9], 20), "chunks 3-5, 9 (4 of 20)");
        assert_eq!(name_missing(&[8], 30), "chunk 8 of 30");
        assert_eq!(name_missing(&[0], 1), "its only chunk");
        let many: Vec<u64> = (0..40).map(|i| i * 2).collect();
        assert!(name_missing(&many, 80).ends_with("22, … (40 of 80)"));
    }
}
