//! The order in which a directory is given: depth first, the entries of each directory by their names. Pure.
//!
//! Keeps the trees on the way to where it stands, and no others.

use crate::content::{Entry, Node, ObjectId, Tree};

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A directory begins.
    Enter(String),
    /// The directory that was entered last ends.
    Leave,
    /// A symbolic link, and where it points to.
    Link(String, String),
    /// A file.
    File(File),
}

/// A file of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) executable: bool,
    pub(super) id: ObjectId,
    pub(super) length: u64,
}

/// A walk, from the first entry of a directory to its last.
pub(super) struct Walk {
    /// The trees on the way, each with the byte at which its next entry begins.
    stack: Vec<(Tree, usize)>,
    /// The directory that has been entered and whose tree is needed.
    needed: Option<ObjectId>,
}

impl Walk {
    pub(super) fn new(root: Tree) -> Self {
        Self { stack: vec![(root, Tree::FIRST)], needed: None }
    }

    /// The directory whose tree is needed before the walk can go on.
    pub(super) fn needed(&self) -> Option<ObjectId> {
        self.needed
    }

    /// Goes into the directory that was entered.
    pub(super) fn descend(&mut self, tree: Tree) {
        if self.needed.take().is_some() {
            self.stack.push((tree, Tree::FIRST));
        }
    }

    /// Whether there is nothing more to come.
    pub(super) fn is_over(&self) -> bool {
        self.stack.is_empty()
    }

    /// The next step; `None` when a tree is needed first, and at the end.
    pub(super) fn next(&mut self) -> Option<Step> {
        if self.needed.is_some() {
            return None;
        }
        let (tree, at) = self.stack.last_mut()?;
        let Some((Entry { name, node }, next)) = tree.entry_at(*at) else {
            self.stack.pop();
            return (!self.stack.is_empty()).then_some(Step::Leave);
        };
        *at = next;
        let name = name.to_owned();
        Some(match node {
            Node::File { id, length, executable } => Step::File(File { name, executable, id, length }),
            Node::Link { target } => Step::Link(name, target.to_owned()),
            Node::Directory { id, .. } => {
                self.needed = Some(id);
                Step::Enter(name)
            }
        })
    }
}
