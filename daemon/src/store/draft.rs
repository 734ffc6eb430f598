//! Changes to the objects that are not durable yet.
//!
//! Owns: what later changes of one batch see of earlier ones, and in which of two steps the journal learns of each. A
//! directory and what is in it are several entries of the journal, of which a crash may leave some: so what is in a
//! directory is entered durably before it, and goes durably after it. Survives a crash: nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::object::{ObjectInfo, State};
use super::trees::{Contents, Trees};
use crate::content::ObjectId;

pub(super) type Objects = BTreeMap<ObjectId, ObjectInfo>;

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
        if self.get(id).is_some_and(|info| info.state == State::Partial) {
            return false;
        }
        let change = self.changes.holders.get(id).copied().unwrap_or(0);
        !self.trees.all_known() || i64::from(self.trees.holders(id)) + change > 0
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
            if let Some(contents) = self.contents(&id).cloned() {
                self.count(&contents, -1);
                self.changes.trees.insert(id, None);
                next.extend(contents.iter().filter(|id| self.goes_along(id)));
            }
            gone.push(info);
        }
    }

    /// Whether an object goes with the last directory that it was in.
    fn goes_along(&self, id: &ObjectId) -> bool {
        let own = |info: &ObjectInfo| !info.part || !info.pins.is_empty() || info.state == State::Partial;
        self.get(id).is_some_and(|info| !own(info)) && !self.is_held(id)
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
