//! What a directory consists of: its trees, each once, and what they come to.
//!
//! Owns: the limits on a directory as a whole. Refuses: what is nested too deep, names too much, or says two things of
//! one object, before memory is spent on it. A tree may name another many times, and so may that one: what is counted
//! here is counted once for each tree, never for each path.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::Error;
use crate::content::{MAX_TREE_DEPTH, MAX_TREE_TOTAL, Node, ObjectId, Tree};
use crate::store::{Entries, NewObject, NewTree, Part};

/// Bytes of all trees of a directory, each once.
const MAX_LISTS: u64 = 1 << 30;

/// A directory, as far as its trees are here. Its trees are numbered in the order in which they were first named.
pub(super) struct Outline {
    root: ObjectId,
    dirs: Vec<Dir>,
    numbers: HashMap<ObjectId, u32>,
    /// The files, each once, with their lengths; but empty ones.
    files: HashMap<ObjectId, u64>,
    /// Bytes of all trees.
    bytes: u64,
    /// Entries of the trees that are here.
    entries: u64,
    /// Bytes of trees that may still stay in memory for the walk; the others are read again from the store.
    room: u64,
}

/// One of its trees.
struct Dir {
    id: ObjectId,
    length: u64,
    /// Directories around it, on the shortest way.
    depth: usize,
    /// What is in it, once it is here.
    list: Option<Box<List>>,
}

/// What is in a tree.
struct List {
    /// Bytes of its own files, each as often as it occurs.
    size: u64,
    /// Its own entries.
    entries: u64,
    /// The directories in it, each as often as it occurs.
    dirs: Vec<u32>,
    contents: Entries,
    /// `None` when it is to be read again.
    tree: Option<Tree>,
}

/// What a directory comes to, each file and entry counted as often as it occurs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Bytes of all files.
    pub(super) size: u64,
    /// Files, directories but the outermost, and links.
    pub(super) entries: u64,
    /// Directories on the longest way down, itself counted in.
    height: usize,
}

impl Outline {
    /// A directory of which only this is known. So many bytes of trees may stay in memory.
    pub(super) fn new(root: ObjectId, length: u64, room: u64) -> Self {
        let dir = Dir { id: root, length, depth: 0, list: None };
        Self {
            root,
            dirs: vec![dir],
            numbers: HashMap::from([(root, 0)]),
            files: HashMap::new(),
            bytes: length,
            entries: 0,
            room,
        }
    }

    /// Trees that are known of, here or not.
    pub(super) fn len(&self) -> usize {
        self.dirs.len()
    }

    /// Tree `number`: its id and its length.
    pub(super) fn dir(&self, number: usize) -> Option<(ObjectId, u64)> {
        self.dirs.get(number).map(|dir| (dir.id, dir.length))
    }

    /// Trees that are not here.
    pub(super) fn missing(&self) -> Vec<ObjectId> {
        self.dirs.iter().filter(|dir| dir.list.is_none()).map(|dir| dir.id).collect()
    }

    /// The length of a tree that is known of.
    pub(super) fn length_of(&self, id: &ObjectId) -> Option<u64> {
        self.of(id).map(|dir| dir.length)
    }

    /// A tree that is in memory.
    pub(super) fn tree(&self, id: &ObjectId) -> Option<Tree> {
        self.of(id)?.list.as_ref()?.tree.clone()
    }

    /// The files, each once, with their lengths; but empty ones.
    pub(super) fn files(&self) -> impl Iterator<Item = (ObjectId, u64)> {
        self.files.iter().map(|(id, length)| (*id, *length))
    }

    /// Where some of these files are, at most `count` of them: a path each, or the id where no list in memory names it.
    pub(super) fn paths(&self, mut files: BTreeSet<ObjectId>, count: usize) -> Vec<String> {
        let mut paths = Vec::new();
        // Each tree once, however often it is named.
        let (mut seen, mut next) = (HashSet::from([self.root]), vec![(self.root, String::new())]);
        while paths.len() < count
            && let Some((id, around)) = next.pop()
        {
            let Some(tree) = self.tree(&id) else { continue };
            for entry in tree.entries() {
                match entry.node {
                    Node::File { id, .. } if paths.len() < count && files.remove(&id) => {
                        paths.push(format!("{around}{}", entry.name));
                    }
                    Node::Directory { id, .. } if seen.insert(id) => {
                        next.push((id, format!("{around}{}/", entry.name)));
                    }
                    _ => {}
                }
            }
        }
        let left = count.saturating_sub(paths.len());
        paths.extend(files.iter().take(left).map(ToString::to_string));
        paths
    }

    fn of(&self, id: &ObjectId) -> Option<&Dir> {
        self.dirs.get(*self.numbers.get(id)? as usize)
    }

    fn bad(&self, why: impl Into<String>) -> Error {
        Error::BadTree { id: self.root, why: why.into() }
    }

    /// A tree has come.
    ///
    /// # Errors
    /// [`Error::BadTree`].
    pub(super) fn add(&mut self, id: &ObjectId, tree: Tree) -> Result<(), Error> {
        let Some(number) = self.numbers.get(id).map(|number| *number as usize) else { return Ok(()) };
        if self.dirs[number].list.is_some() {
            return Ok(());
        }
        self.entries += tree.len() as u64;
        if self.entries > MAX_TREE_TOTAL {
            return Err(self.bad("it has more than 4,194,304 entries in all"));
        }
        let depth = self.dirs[number].depth + 1;
        let (mut size, mut dirs) = (0u64, Vec::new());
        for entry in tree.entries() {
            match entry.node {
                Node::File { id, length, .. } => {
                    size = size.checked_add(length).ok_or_else(|| self.bad(OVERFLOW))?;
                    self.file(id, length)?;
                }
                Node::Directory { id, length } => dirs.push(self.directory(id, length, depth)?),
                Node::Link { .. } => {}
            }
        }
        let (entries, contents) = (tree.len() as u64, Entries::of(&tree));
        let left = self.room.checked_sub(tree.bytes().len() as u64);
        self.room = left.unwrap_or(self.room);
        let tree = left.is_some().then_some(tree);
        self.dirs[number].list = Some(Box::new(List { size, entries, dirs, contents, tree }));
        Ok(())
    }

    fn file(&mut self, id: ObjectId, length: u64) -> Result<(), Error> {
        if id != ObjectId::EMPTY && *self.files.entry(id).or_insert(length) != length {
            return Err(self.bad(format!("it gives {id} two lengths")));
        }
        Ok(())
    }

    /// The number of a directory that is named at this depth.
    fn directory(&mut self, id: ObjectId, length: u64, depth: usize) -> Result<u32, Error> {
        if let Some(number) = self.numbers.get(&id) {
            return match self.dirs[*number as usize].length == length {
                true => Ok(*number),
                false => Err(self.bad(format!("it gives {id} two lengths"))),
            };
        }
        if depth >= MAX_TREE_DEPTH {
            return Err(self.bad(DEEP));
        }
        self.bytes += length;
        if self.bytes > MAX_LISTS {
            return Err(self.bad("its lists have more than 1 GiB in all"));
        }
        let number = u32::try_from(self.dirs.len()).map_err(|_| self.bad(OVERFLOW))?;
        self.dirs.push(Dir { id, length, depth, list: None });
        self.numbers.insert(id, number);
        Ok(number)
    }

    /// What it comes to, when all its trees are here.
    ///
    /// # Errors
    /// [`Error::BadTree`].
    pub(super) fn totals(&self) -> Result<Totals, Error> {
        let mut known = vec![None; self.dirs.len()];
        self.total(0, 1, &mut known)
    }

    /// Goes no deeper than directories may be nested.
    fn total(&self, number: u32, depth: usize, known: &mut [Option<Totals>]) -> Result<Totals, Error> {
        if depth > MAX_TREE_DEPTH {
            return Err(self.bad(DEEP));
        }
        if let Some(known) = known[number as usize] {
            return Ok(known);
        }
        let dir = &self.dirs[number as usize];
        let list = dir.list.as_ref().ok_or_else(|| self.bad("not all of it is here"))?;
        let mut totals = Totals { size: list.size, entries: list.entries, height: 1 };
        for child in &list.dirs {
            let inner = self.total(*child, depth + 1, known)?;
            totals.size = totals.size.checked_add(inner.size).ok_or_else(|| self.bad(OVERFLOW))?;
            totals.entries = totals.entries.saturating_add(inner.entries);
            totals.height = totals.height.max(inner.height + 1);
            if totals.entries > MAX_TREE_TOTAL {
                return Err(self.bad("it has more than 4,194,304 entries in all"));
            }
            if totals.height > MAX_TREE_DEPTH {
                return Err(self.bad(DEEP));
            }
        }
        known[number as usize] = Some(totals);
        Ok(totals)
    }

    /// All that it consists of, for entering it as `root`; `None` while a tree is missing.
    pub(super) fn into_tree(self, root: NewObject) -> Option<NewTree> {
        let mut dirs = self.dirs.into_iter();
        let entries = dirs.next()?.list?.contents;
        let tree =
            |dir: Dir| Some((Part { id: dir.id, length: dir.length, parity: None }, dir.list?.contents));
        let trees = dirs.map(tree).collect::<Option<_>>()?;
        let files = self.files.into_iter().map(|(id, length)| Part { id, length, parity: None }).collect();
        Some(NewTree { root, entries, trees, files })
    }
}

const DEEP: &str = "it is nested more than 64 deep";
const OVERFLOW: &str = "the lengths of its files add up to more than can be counted";
