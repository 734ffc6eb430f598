//! Trees: what a directory's object consists of.
//!
//! Owns: the one form of a list of entries, and the rules for names. Refuses: every name that could lead out of the
//! directory it stands in or deceive who reads it, whatever else is right. Survives a crash: a tree is the bytes of an
//! object, stored, proved and sent as such; its id is the BLAKE3 of them.
//!
//! ```text
//! "casdtree"  version 1 (1)  count (4)
//! then, sorted by the bytes of their names, no two alike, count entries:
//!   kind (1)  length of the name (1)  name
//!   kinds 1 file, 2 executable file, 3 directory:  length (8)  id (32)
//!   kind 4 symbolic link:                          length of the target (2)  target
//! ```
//!
//! Numbers are little endian. A file's length is 0 exactly when its id is the empty object's; a directory's length is
//! that of its own tree. Times and owners are left out, and of a mode all but whether a file may be executed, so that
//! the same files give the same id everywhere.

mod begun;

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::Reader;
use super::names::{NameError, check_name};
use super::{Error, MAX_OBJECT, ObjectId};

/// Entries of one directory at most.
pub const MAX_TREE_ENTRIES: usize = 1 << 20;

/// Directories that may be nested, the outermost counted in.
pub const MAX_TREE_DEPTH: usize = 64;

/// Entries of a directory at all depths at most, each counted as often as it occurs.
pub const MAX_TREE_TOTAL: u64 = 4 << 20;

/// The longest tree that is read or made, in bytes: a million entries with names of 80 bytes.
pub const MAX_TREE_BYTES: usize = 128 << 20;

/// The longest target of a symbolic link, in bytes: what Linux takes.
pub const MAX_LINK_TARGET: usize = 4095;

const MAGIC: &[u8; 8] = b"casdtree";
const VERSION: u8 = 1;
const HEADER: usize = 13;

const FILE: u8 = 1;
const EXECUTABLE: u8 = 2;
const DIRECTORY: u8 = 3;
const LINK: u8 = 4;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// A file.
    File {
        /// Its object.
        id: ObjectId,
        /// Its bytes.
        length: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A directory.
    Directory {
        /// Its tree.
        id: ObjectId,
        /// Bytes of its tree.
        length: u64,
    },
    /// A symbolic link, wherever it may lead.
    Link {
        /// What it says; 1 to [`MAX_LINK_TARGET`] bytes without NUL.
        target: &'a str,
    },
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is called there; keeps the rules for names.
    pub name: &'a str,
    /// What it is.
    pub node: Node<'a>,
}

impl Node<'_> {
    /// The object that it names; `None` for links.
    #[must_use]
    pub const fn object(&self) -> Option<(ObjectId, u64)> {
        match self {
            Self::File { id, length, .. } | Self::Directory { id, length } => Some((*id, *length)),
            Self::Link { .. } => None,
        }
    }
}

/// A directory's entries: bytes that keep every rule. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    bytes: Bytes,
    count: usize,
}

impl Tree {
    /// Where the first entry begins.
    pub const FIRST: usize = HEADER;

    /// Reads a tree. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::Name`] for anything but the one form.
    pub fn decode(bytes: Bytes) -> Result<Self, Error> {
        let mut reader = Reader::new("tree", &bytes);
        if bytes.len() > MAX_TREE_BYTES {
            return Err(reader.malformed("it is longer than 128 MiB"));
        }
        if reader.array::<8>()? != *MAGIC {
            return Err(reader.malformed("it does not begin as one"));
        }
        reader.version(VERSION)?;
        let count = reader.u32()? as usize;
        if count > MAX_TREE_ENTRIES {
            return Err(reader.malformed("it has more than 1,048,576 entries"));
        }
        let mut last = "";
        for _ in 0..count {
            let entry = read(&mut reader)?;
            // No name is empty, so the first one is behind this.
            if entry.name <= last {
                return Err(reader.malformed("its names are not in order, or two are alike"));
            }
            last = entry.name;
        }
        reader.end()?;
        Ok(Self { bytes, count })
    }

    /// The bytes of its object.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many entries it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its entries in the order of their names.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut reader = Reader::new("tree", &self.bytes[HEADER..]);
        (0..self.count).map_while(move |_| read(&mut reader).ok())
    }

    /// The entry that begins `at` this byte, and where the next one begins, so that a walk can stop and go on; `None`
    /// behind the last one. The first is at [`Tree::FIRST`].
    #[must_use]
    pub fn entry_at(&self, at: usize) -> Option<(Entry<'_>, usize)> {
        let mut reader = Reader::new("tree", self.bytes.get(at..)?);
        let entry = read(&mut reader).ok()?;
        Some((entry, self.bytes.len() - reader.left()))
    }

    /// The entry of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Entry<'_>> {
        self.entries().take_while(|entry| entry.name <= name).find(|entry| entry.name == name)
    }
}

/// Reads the next entry, which must keep the rules.
fn read<'a>(reader: &mut Reader<'a>) -> Result<Entry<'a>, Error> {
    let kind = reader.u8()?;
    let length = usize::from(reader.u8()?);
    let name = reader.take(length)?;
    let name = str::from_utf8(name).map_err(|_| Error::Name(NameError::NotUtf8))?;
    check_name(name)?;
    let node = match kind {
        FILE | EXECUTABLE => {
            let (length, id) = (reader.u64()?, ObjectId::from_bytes(reader.array()?));
            if length > MAX_OBJECT {
                return Err(Error::TooLong { length });
            }
            if (length == 0) != (id == ObjectId::EMPTY) {
                return Err(reader.malformed("a file's length and id do not fit"));
            }
            Node::File { id, length, executable: kind == EXECUTABLE }
        }
        DIRECTORY => {
            let (length, id) = (reader.u64()?, ObjectId::from_bytes(reader.array()?));
            if length < HEADER as u64 || length > MAX_TREE_BYTES as u64 || id == ObjectId::EMPTY {
                return Err(reader.malformed("a directory's length is none that a tree can have"));
            }
            Node::Directory { id, length }
        }
        LINK => {
            let length = usize::from(u16::from_le_bytes(reader.array()?));
            let target = reader.take(length)?;
            let target =
                str::from_utf8(target).map_err(|_| reader.malformed("a link's target is not UTF-8"))?;
            if !is_target(target) {
                return Err(reader.malformed("a link's target is empty, too long or has a NUL"));
            }
            Node::Link { target }
        }
        _ => return Err(reader.malformed("an entry's kind is unknown")),
    };
    Ok(Entry { name, node })
}

fn is_target(target: &str) -> bool {
    (1..=MAX_LINK_TARGET).contains(&target.len()) && !target.contains('\0')
}

/// A directory that is being put together, in any order.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    entries: Vec<(Box<str>, Owned)>,
    /// Bytes of the tree so far, without its header.
    size: usize,
}

/// As [`Node`], while its tree is not there yet.
#[derive(Debug)]
enum Owned {
    File { id: ObjectId, length: u64, executable: bool },
    Directory { id: ObjectId, length: u64 },
    Link(Box<str>),
}

impl TreeBuilder {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`Error::Name`] for a name or a target that breaks the rules; [`Error::Crowded`] when there are too many.
    pub fn push(&mut self, entry: Entry<'_>) -> Result<(), Error> {
        let Entry { name, node } = entry;
        check_name(name)?;
        let rest = match node {
            Node::Link { target } => 2 + target.len(),
            _ => 40,
        };
        self.size += 2 + name.len() + rest;
        if self.entries.len() >= MAX_TREE_ENTRIES {
            return Err(Error::Crowded("has more than 1,048,576 entries"));
        }
        if HEADER + self.size > MAX_TREE_BYTES {
            return Err(Error::Crowded("has names of more than 128 MiB"));
        }
        let owned = match node {
            Node::File { id, length, executable } => Owned::File { id, length, executable },
            Node::Directory { id, length } => Owned::Directory { id, length },
            Node::Link { target } if is_target(target) => Owned::Link(target.into()),
            Node::Link { .. } => return Err(Error::Name(NameError::Target)),
        };
        self.entries.push((name.into(), owned));
        Ok(())
    }

    /// Bytes of the tree so far.
    #[must_use]
    pub const fn size(&self) -> usize {
        HEADER + self.size
    }

    /// The names so far, in the order in which they came.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| &**name)
    }

    /// The tree of all that was pushed.
    ///
    /// # Errors
    /// [`Error::Name`] when two entries have one name.
    #[expect(clippy::cast_possible_truncation, reason = "names, targets and counts are limited")]
    pub fn finish(mut self) -> Result<Tree, Error> {
        self.entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut out = BytesMut::with_capacity(HEADER + self.size);
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_u32_le(self.entries.len() as u32);
        let mut last = "";
        for (name, owned) in &self.entries {
            if **name == *last {
                return Err(Error::Name(NameError::Twice(last.to_owned())));
            }
            last = name;
            let kind = match owned {
                Owned::File { executable: false, .. } => FILE,
                Owned::File { executable: true, .. } => EXECUTABLE,
                Owned::Directory { .. } => DIRECTORY,
                Owned::Link(_) => LINK,
            };
            out.put_slice(&[kind, name.len() as u8]);
            out.put_slice(name.as_bytes());
            match owned {
                Owned::File { id, length, .. } | Owned::Directory { id, length } => {
                    out.put_u64_le(*length);
                    out.put_slice(id.as_bytes());
                }
                Owned::Link(target) => {
                    out.put_u16_le(target.len() as u16);
                    out.put_slice(target.as_bytes());
                }
            }
        }
        Ok(Tree { count: self.entries.len(), bytes: out.freeze() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(fill: u8, length: u64) -> Node<'static> {
        Node::File { id: ObjectId::from_bytes([fill; 32]), length, executable: fill.is_multiple_of(2) }
    }

    fn tree(entries: &[(&str, Node<'_>)]) -> Result<Tree, Error> {
        let mut builder = TreeBuilder::default();
        for (name, node) in entries {
            builder.push(Entry { name, node: *node })?;
        }
        builder.finish()
    }

    fn sample() -> Tree {
        let directory = Node::Directory { id: ObjectId::from_bytes([7; 32]), length: 13 };
        let empty = Node::File { id: ObjectId::EMPTY, length: 0, executable: false };
        let link = Node::Link { target: "../b" };
        tree(&[("b", file(2, 5)), ("a", directory), ("\u{e9}", empty), ("a.l", link)]).unwrap()
    }

    proptest! {
        #[test]
        fn any_order_gives_one_tree_that_reads_back(
            names in prop::collection::btree_set("[a-zé. ]{1,9}", 0..20), seed: u64
        ) {
            let names: Vec<_> = names.into_iter().filter(|name| check_name(name).is_ok()).collect();
            let mut entries: Vec<(&str, Node<'_>)> = Vec::new();
            names.iter().for_each(|name| entries.push((name, file(1, 1 + name.len() as u64))));
            let sorted = tree(&entries).unwrap();
            let turn = usize::try_from(seed % 20).unwrap().min(entries.len());
            entries.rotate_left(turn);
            let turned = tree(&entries).unwrap();
            prop_assert_eq!(&turned, &sorted);
            prop_assert_eq!(Tree::decode(sorted.bytes().clone()).unwrap(), turned);
            let read: Vec<_> = sorted.entries().map(|entry| entry.name.to_owned()).collect();
            prop_assert_eq!(read, names);
        }

        #[test]
        fn noise_is_no_tree_and_what_is_one_has_one_form(mut at in 0usize..400, bit in 0u8..8) {
            let mut bytes = sample().bytes().to_vec();
            at %= bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(tree) = Tree::decode(bytes.clone().into()) {
                let mut again = TreeBuilder::default();
                tree.entries().for_each(|entry| again.push(entry).unwrap());
                let again = again.finish().unwrap();
                prop_assert_eq!(again.bytes(), &bytes);
            }
        }
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let whole = sample().bytes().clone();
        for length in 0..whole.len() {
            assert!(Tree::decode(whole.slice(..length)).is_err(), "{length}");
        }
        assert!(Tree::decode([&whole[..], b"\0"].concat().into()).is_err());
    }

    #[test]
    fn entries_are_found_by_their_names() {
        let tree = sample();
        assert_eq!(tree.len(), 4);
        assert_eq!(tree.find("a.l").unwrap().node, Node::Link { target: "../b" });
        assert_eq!(tree.find("b").unwrap().node.object(), Some((ObjectId::from_bytes([2; 32]), 5)));
        assert_eq!(tree.find("c"), None);
        assert_eq!(tree.find(""), None);
    }

    #[test]
    fn a_walk_can_go_on_where_it_stopped() {
        let tree = sample();
        let mut at = Tree::FIRST;
        let mut names = Vec::new();
        while let Some((entry, next)) = tree.entry_at(at) {
            names.push(entry.name);
            at = next;
        }
        assert_eq!(names, tree.entries().map(|entry| entry.name).collect::<Vec<_>>());
        assert_eq!((at, tree.entry_at(at + 1)), (tree.bytes().len(), None));
    }

    #[test]
    fn two_of_one_name_are_refused_on_both_sides() {
        let twice = tree(&[("a", file(1, 1)), ("b", file(1, 1)), ("a", file(2, 2))]);
        assert_eq!(twice, Err(Error::Name(NameError::Twice("a".to_owned()))));
        let one = tree(&[("a", file(1, 1))]).unwrap().bytes().clone();
        let mut bytes = one.to_vec();
        bytes.extend_from_slice(&one[HEADER..]);
        bytes[9] = 2;
        assert!(Tree::decode(bytes.into()).is_err());
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let nested = |length| Node::Directory { id: ObjectId::from_bytes([1; 32]), length };
        for node in [file(1, 0), file(1, MAX_OBJECT + 1), nested(12), nested(MAX_TREE_BYTES as u64 + 1)] {
            let made = tree(&[("x", node)]).unwrap();
            assert!(Tree::decode(made.bytes().clone()).is_err(), "{node:?}");
        }
        let empty = Node::File { id: ObjectId::EMPTY, length: 1, executable: false };
        assert!(Tree::decode(tree(&[("x", empty)]).unwrap().bytes().clone()).is_err());
    }

    #[test]
    fn a_million_and_one_entries_are_refused_before_they_are_read() {
        let mut bytes = sample().bytes().to_vec();
        bytes[9..13].copy_from_slice(&(MAX_TREE_ENTRIES as u32 + 1).to_le_bytes());
        assert!(
            matches!(Tree::decode(bytes.into()), Err(Error::Malformed { why, .. }) if why.contains("more than"))
        );
    }

    #[test]
    fn the_format_is_what_it_was() {
        let directory = Node::Directory { id: ObjectId::from_bytes([7; 32]), length: 13 };
        let made = tree(&[("d", directory), ("a", Node::Link { target: "d" })]).unwrap();
        let mut golden = b"casdtree\x01\x02\0\0\0\x04\x01a\x01\0d\x03\x01d\x0d\0\0\0\0\0\0\0".to_vec();
        golden.extend([7; 32]);
        assert_eq!(made.bytes(), &golden);
        let none = tree(&[]).unwrap();
        assert_eq!(none.bytes(), &b"casdtree\x01\0\0\0\0"[..]);
        assert!(none.is_empty());
    }
}
