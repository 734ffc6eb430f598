//! Changes to the objects that are not durable yet.
//!
//! Owns: what later changes of one batch see of earlier ones, and in which of two steps the journal learns of each. A
//! directory and what is in it are several entries of the journal, of which a crash may leave some: so what is in a
//! directory is entered durably before it, and goes durably after it. Also what keeps an object that nobody pinned: a
//! directory that has it in it, or one whose list cannot be read and may name it. Survives a crash: nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::job::Job;
use super::object::{ObjectInfo, State};
use super::trees::{Contents, Trees};
use crate::content::ObjectId;

pub(super) type Objects = BTreeMap<ObjectId, ObjectInfo>;

/// Directories that an earlier version entered have the clock's time, not that of the youngest thing in them
/// ([`super::directory`]): the clock may have stepped meanwhile.
const CLOCK_MARGIN: u64 = 24 * 3600;

/// With more unread directories than this, each of them counts as one that may have anything in it.
const TOLD_APART: usize = 1000;

/// What keeps an object that nobody pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A directory has it in it, or nothing is known of directories yet.
    Directory,
    /// This directory's list cannot be read, and may name it.
    Unread(ObjectId),
}

/// The objects with changes that are not durable yet.
pub(super) struct Draft<'a> {
    pub(super) objects: &'a Objects,
    pub(super) trees: &'a Trees,
    pub(super) changes: Changes,
}

/// What a draft changes.
#[derive(Default)]
pub(super) struct Changes {
    /// `None`: removed.
    pub(super) objects: BTreeMap<ObjectId, Option<ObjectInfo>>,
    /// Those of them that are written when the others are durable.
    pub(super) after: BTreeSet<ObjectId>,
    /// Directories that come and go. `None`: gone.
    pub(super) trees: HashMap<ObjectId, Option<Contents>>,
    /// By how much that changes in how many directories an object is.
    holders: HashMap<ObjectId, i64>,
    /// Directories whose trees could not be read, when that was tried.
    pub(super) unread: Option<BTreeSet<ObjectId>>,
    /// Jobs by their numbers. `None`: ended.
    pub(super) jobs: BTreeMap<u64, Option<Job>>,
}

impl<'a> Draft<'a> {
    /// Nothing changed yet.
    pub(super) fn new(objects: &'a Objects, trees: &'a Trees) -> Self {
        Self { objects, trees, changes: Changes::default() }
    }

    /// The object as the changes before left it.
    pub(super) fn get(&self, id: &ObjectId) -> Option<&ObjectInfo> {
        match self.changes.objects.get(id) {
            Some(changed) => changed.as_ref(),
            None => self.objects.get(id),
        }
    }

    /// Enters or changes an object.
    pub(super) fn set(&mut self, info: ObjectInfo) {
        if !info.tree {
            // Whatever was to become of it, it is in the journal before a directory that it may be in.
            self.changes.after.remove(&info.id);
        }
        self.changes.objects.insert(info.id, Some(info));
    }

    /// Enters or changes a directory. What is in it has been set before.
    pub(super) fn set_tree(&mut self, info: ObjectInfo, contents: Contents) {
        self.learn(info.id, contents);
        self.changes.after.insert(info.id);
        self.changes.objects.insert(info.id, Some(info));
    }

    /// Notes what a directory consists of.
    pub(super) fn learn(&mut self, tree: ObjectId, contents: Contents) {
        if self.contents(&tree).is_none() {
            self.count(&contents, 1);
            self.changes.trees.insert(tree, Some(contents));
        }
    }

    /// Notes which trees could not be read.
    pub(super) fn tried(&mut self, unread: BTreeSet<ObjectId>) {
        self.changes.unread = Some(unread);
    }

    /// Whether a directory has the object in it, or may have. What is being fetched is in none.
    pub(super) fn is_held(&self, id: &ObjectId) -> bool {
        self.holder(id).is_some()
    }

    /// The directory that has the object in it, or may have.
    pub(super) fn holder(&self, id: &ObjectId) -> Option<Holder> {
        if self.get(id).is_some_and(|info| info.state == State::Partial) {
            return None;
        }
        if self.known_holders(id) > 0 {
            return Some(Holder::Directory);
        }
        match self.changes.unread.as_ref().or(self.trees.unread()) {
            None => Some(Holder::Directory),
            Some(unread) if unread.is_empty() => None,
            Some(unread) if unread.len() > TOLD_APART => unread.first().copied().map(Holder::Unread),
            Some(unread) => self.unread_holder(id, unread),
        }
    }

    /// A directory whose list cannot be read and that may have the object in it, at any depth. It cannot when it is
    /// itself in the object, and not when it was entered before the object was: what is in it was there by then. Of
    /// those lists only such as something keeps count: a part that no other has in it is in one of them, or is
    /// what a removal left over.
    fn unread_holder(&self, id: &ObjectId, unread: &BTreeSet<ObjectId>) -> Option<Holder> {
        let (info, below) = (self.get(id), self.below(*id));
        let came_later = |tree: &ObjectInfo| {
            info.is_some_and(|info| !info.part && info.added > tree.added.saturating_add(CLOCK_MARGIN))
        };
        let is_kept = |tree: &ObjectInfo| is_own(tree) || self.known_holders(&tree.id) > 0;
        let unread = unread.iter().filter_map(|tree| self.get(tree));
        unread
            .filter(|tree| tree.tree && tree.state == State::Whole && self.contents(&tree.id).is_none())
            .find(|tree| is_kept(tree) && !below.contains(&tree.id) && !came_later(tree))
            .map(|tree| Holder::Unread(tree.id))
    }

    /// In how many directories the object is, as far as their lists are known.
    fn known_holders(&self, id: &ObjectId) -> i64 {
        i64::from(self.trees.holders(id)) + self.changes.holders.get(id).copied().unwrap_or(0)
    }

    /// An object and, of a directory, what is in it at any depth, as far as that is known.
    pub(super) fn below(&self, id: ObjectId) -> BTreeSet<ObjectId> {
        let mut seen = BTreeSet::from([id]);
        let mut next = vec![id];
        while let Some(tree) = next.pop() {
            let contents = self.contents(&tree).map_or(&[][..], |contents| contents);
            next.extend(contents.iter().filter(|id| seen.insert(**id)));
        }
        seen
    }

    /// Removes an object, and with a directory what came with it and nothing else holds. Adds what goes to `gone`.
    pub(super) fn remove(&mut self, id: ObjectId, gone: &mut Vec<ObjectInfo>) {
        let first = gone.len();
        let mut next = vec![id];
        while let Some(id) = next.pop() {
            let Some(info) = self.get(&id).cloned() else { continue };
            self.changes.objects.insert(id, None);
            if gone.len() == first {
                self.changes.after.remove(&id);
            } else {
                self.changes.after.insert(id);
            }
            let contents = self.contents(&id).cloned();
            if info.tree {
                self.changes.trees.insert(id, None);
            }
            if let Some(contents) = contents {
                self.count(&contents, -1);
                next.extend(contents.iter().filter(|id| self.goes_along(id)));
            }
            gone.push(info);
        }
    }

    /// Whether an object goes with the last directory that it was in.
    fn goes_along(&self, id: &ObjectId) -> bool {
        self.get(id).is_some_and(|info| !is_own(info)) && !self.is_held(id)
    }

    fn contents(&self, tree: &ObjectId) -> Option<&Contents> {
        match self.changes.trees.get(tree) {
            Some(changed) => changed.as_ref(),
            None => self.trees.contents(tree),
        }
    }

    fn count(&mut self, contents: &Contents, by: i64) {
        for id in contents.iter() {
            *self.changes.holders.entry(*id).or_default() += by;
        }
    }
}

/// Whether an object is here for its own sake.
fn is_own(info: &ObjectInfo) -> bool {
    !info.part || !info.pins.is_empty() || info.state == State::Partial
}
