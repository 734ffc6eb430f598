//! Parts on their way to the daemon, many in a message.
//!
//! Owns: the limits of a message, and the one buffer that its files are read into, so that a small file costs no
//! allocation of its own.

use std::ops::Range;

use casd_proto::v1::tree_part::Part;
use casd_proto::v1::{TreeData, TreeFile, TreePart};
use casd_proto::{Bytes, MAX_BATCH, MAX_DATA_BYTES};

/// Names and targets of links that one message carries, in bytes: with the files' bytes they stay below the longest
/// message.
const MAX_TEXT: usize = MAX_DATA_BYTES / 2;

/// What a message will say.
#[derive(Default)]
pub(crate) struct Batch {
    /// Its parts; those that have bytes do not have them yet.
    parts: Vec<TreePart>,
    /// Which parts have which of the bytes.
    spans: Vec<(usize, Range<usize>)>,
    /// Where the bytes of all its files are read into: nothing, or a whole message's and one more.
    room: Vec<u8>,
    /// How many there are.
    bytes: usize,
    /// Bytes of names and targets.
    text: usize,
    /// Paths of files that end in it, where somebody wants to know.
    paths: Vec<String>,
    /// How many files end in it.
    files: u64,
}

/// What one message says.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Its parts.
    pub(crate) parts: Vec<TreePart>,
    /// Bytes of files in it.
    pub(crate) bytes: u64,
    /// Files that end in it.
    pub(crate) files: u64,
    /// Their paths, where somebody wants to know.
    pub(crate) paths: Vec<String>,
}

impl Batch {
    /// Whether there is room for a part with so many bytes of a file, and with a name and a target of so many.
    pub(crate) fn has_room(&self, bytes: usize, text: usize) -> bool {
        self.parts.len() < MAX_BATCH
            && self.bytes + bytes <= MAX_DATA_BYTES
            && (self.text + text <= MAX_TEXT || self.parts.is_empty())
    }

    /// Where the bytes of the next part go; there is room for one more than a message may have, so that a file that
    /// grows is noticed.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.room.is_empty() {
            self.room.resize(MAX_DATA_BYTES + 1, 0);
        }
        &mut self.room[self.bytes..]
    }

    /// Adds a part without bytes, with a name and a target of so many.
    pub(crate) fn push(&mut self, part: Part, text: usize) {
        self.text += text;
        self.parts.push(TreePart { part: Some(part) });
    }

    /// Adds a part that has the next `count` bytes of [`Batch::room`].
    pub(crate) fn push_bytes(&mut self, part: Part, text: usize, count: usize) {
        self.spans.push((self.parts.len(), self.bytes..self.bytes + count));
        self.bytes += count;
        self.push(part, text);
    }

    /// Counts a file that has ended; `path` where somebody wants to know.
    pub(crate) fn ended(&mut self, path: Option<String>) {
        self.files += 1;
        self.paths.extend(path);
    }

    /// The message, and nothing left.
    pub(crate) fn take(&mut self) -> Message {
        let Self { mut parts, spans, mut room, bytes, paths, files, text: _ } = std::mem::take(self);
        room.truncate(bytes);
        let bytes = Bytes::from(room);
        for (at, span) in spans {
            if let Some(Part::File(TreeFile { data, .. }) | Part::Data(TreeData { data, .. })) =
                &mut parts[at].part
            {
                *data = bytes.slice(span);
            }
        }
        Message { parts, bytes: bytes.len() as u64, files, paths }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}
