//! Entering a directory with all that is in it.
//!
//! Owns: that a directory is an object only together with everything its trees name. Refuses: a directory of which a
//! part has not been put or held under the lease. Survives a crash: the directory when it was answered; before that its
//! parts may be there without it, where nobody sees them, and a collection takes them.
//!
//! Nothing in a directory came later than it, by the times in the journal: a directory that is new is as young as the
//! youngest thing in it, whatever the clock says. What came later than a directory is not in it.

use super::draft::Draft;
use super::error::Error;
use super::lease::{Committed, Lease, merged};
use super::object::{NewObject, ObjectInfo, State};
use super::record::Key;
use super::trees::Contents;
use crate::content::{ObjectId, Tree};

/// A directory that is to be entered: the outermost one, and everything in it at all depths, in any order. What occurs
/// several times may be named several times.
#[derive(Debug)]
pub struct NewTree {
    /// The outermost directory.
    pub root: NewObject,
    /// What it consists of.
    pub entries: Entries,
    /// The directories in it, with what they consist of.
    pub trees: Vec<(Part, Entries)>,
    /// The files in it, but empty ones.
    pub files: Vec<Part>,
}

/// An object in a directory. Its chunks and manifest have been put, or held, under the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its id.
    pub id: ObjectId,
    /// Its length in bytes, at least 1.
    pub length: u64,
    /// Data and parity chunks of a full stripe, when parity was stored with it.
    pub parity: Option<(u8, u8)>,
}

/// The objects that a tree names, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries(Contents);

impl Entries {
    /// Those of this tree.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        Self(super::trees::contents(tree))
    }
}

impl Lease {
    /// Enters a directory: what was put is made durable first, then what is in it is entered in the journal, then the
    /// directory, then this answers. What was not asked for by itself comes as a part. A directory that is here already
    /// gets the pin, and the name when it has none.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a first record of something is not here; [`Error::Privacy`] when something in it is here
    /// and is private where this is public, or the other way round; [`Error::ReadOnly`], [`Error::DiskFull`],
    /// [`Error::Io`].
    pub async fn commit_tree(&self, tree: NewTree) -> Result<Committed, Error> {
        tree.root.check()?;
        self.store.whole().await?;
        let store = std::sync::Arc::clone(&self.store);
        let tree = self.store.pool.run(move || store.require_parts(&tree).map(|()| tree)).await?;
        self.sync().await?;
        self.store.change(move |draft| enter(draft, tree)).await
    }
}

impl super::Inner {
    /// Every part must have its first record here. Blocks.
    fn require_parts(&self, tree: &NewTree) -> Result<(), Error> {
        let root = Part { id: tree.root.id, length: tree.root.length, parity: None };
        let parts = tree.trees.iter().map(|(part, _)| part).chain(&tree.files).chain([&root]);
        for part in parts {
            let key = Key::first(&part.id, part.length);
            if !self.catalog.is_fresh(&key) && self.catalog.find(&key)?.is_none() {
                return Err(Error::Invalid("a part of the directory has not been stored"));
            }
        }
        Ok(())
    }
}

fn enter(draft: &mut Draft<'_>, tree: NewTree) -> Result<Committed, Error> {
    let NewTree { root, entries, trees, files } = tree;
    // Refused before anything is changed.
    let (root_info, committed) = directory(draft, root.clone())?;
    for part in trees.iter().map(|(part, _)| part).chain(&files) {
        if draft.get(&part.id).is_some_and(|info| info.private != root.private) {
            return Err(Error::Privacy { private: !root.private });
        }
    }
    let template = NewObject { name: None, pin: None, publish: false, part: true, ..root };
    let object = |part: Part| {
        let Part { id, length, parity } = part;
        NewObject { id, length, parity, ..template.clone() }
    };
    let entered: Vec<ObjectId> = files.iter().map(|file| file.id).collect();
    for file in files {
        if let (Some(info), _) = merged(draft.get(&file.id), object(file))? {
            draft.set(info);
        }
    }
    // Of everything in it, at any depth.
    let ids = trees.iter().map(|(part, _)| part.id).chain(entered);
    let latest = ids.filter_map(|id| Some(draft.get(&id)?.added)).fold(root.now, u64::max);
    let dated = |draft: &Draft<'_>, info: ObjectInfo| {
        let is_new = !draft.get(&info.id).is_some_and(is_directory);
        ObjectInfo { added: if is_new { info.added.max(latest) } else { info.added }, ..info }
    };
    for (tree, entries) in trees {
        let (info, _) = directory(draft, object(tree))?;
        let info = dated(draft, info);
        if draft.get(&tree.id) != Some(&info) {
            draft.set(info);
        }
        draft.learn(tree.id, entries.0);
    }
    let root_info = dated(draft, root_info);
    if draft.get(&root_info.id) == Some(&root_info) {
        draft.learn(root_info.id, entries.0);
    } else {
        draft.set_tree(root_info, entries.0);
    }
    Ok(committed)
}

/// What becomes of a directory when it is entered.
fn directory(draft: &Draft<'_>, object: NewObject) -> Result<(ObjectInfo, Committed), Error> {
    let old = draft.get(&object.id);
    let committed = match old {
        Some(info) if is_directory(info) => Committed::Present,
        _ => Committed::Created,
    };
    let same = old.cloned();
    let info = merged(old, object)?.0.or(same).ok_or(Error::Invalid("the directory is gone"))?;
    Ok((ObjectInfo { tree: true, ..info }, committed))
}

fn is_directory(info: &ObjectInfo) -> bool {
    info.tree && info.state == State::Whole
}
