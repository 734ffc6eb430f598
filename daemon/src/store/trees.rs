//! What directories consist of, so that what is in one is kept with it and goes with it.
//!
//! Owns: for each directory in the ledger its contents, and for each object how many directories it is in. Refuses:
//! files' bytes; whoever enters a directory says what is in it. Survives a crash: nothing; it is read from the trees
//! themselves when it is first needed after a start ([`Inner::learn_trees`]).
//!
//! While a tree cannot be read, nobody knows what is in that directory: what may be in it counts as held then
//! ([`Draft::holder`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Error;
use super::draft::Draft;
use super::handle::{Inner, Store};
use super::object::ObjectInfo;
use crate::content::{MAX_TREE_BYTES, ObjectId, Tree};

/// The objects in a directory, each once, but the empty one.
pub(super) type Contents = Arc<[ObjectId]>;

/// The objects that a tree names, each once, but the empty one, which is never stored.
pub(super) fn contents(tree: &Tree) -> Contents {
    let named = tree.entries().filter_map(|entry| Some(entry.node.object()?.0));
    named.filter(|id| *id != ObjectId::EMPTY).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What the directories of the ledger consist of.
#[derive(Default)]
pub(super) struct Trees {
    contents: HashMap<ObjectId, Contents>,
    /// In how many directories an object is; those that are in none are left out.
    holders: HashMap<ObjectId, u32>,
    /// Directories whose trees could not be read when it was last tried. `None`: nothing has been tried yet.
    unread: Option<BTreeSet<ObjectId>>,
}

impl Trees {
    /// What is in a directory, as far as it is known.
    pub(super) fn contents(&self, tree: &ObjectId) -> Option<&Contents> {
        self.contents.get(tree)
    }

    /// In how many directories an object is, of those that are known.
    pub(super) fn holders(&self, id: &ObjectId) -> u32 {
        self.holders.get(id).copied().unwrap_or(0)
    }

    /// Whether every directory's contents are known.
    pub(super) fn all_known(&self) -> bool {
        self.unread.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Directories whose trees could not be read. `None`: nothing has been tried yet.
    pub(super) fn unread(&self) -> Option<&BTreeSet<ObjectId>> {
        self.unread.as_ref()
    }

    /// A directory is there; `None`: it is gone.
    pub(super) fn change(&mut self, tree: ObjectId, contents: Option<Contents>) {
        if let Some(unread) = &mut self.unread {
            unread.remove(&tree);
        }
        match contents {
            Some(contents) if !self.contents.contains_key(&tree) => {
                for id in contents.iter() {
                    *self.holders.entry(*id).or_default() += 1;
                }
                self.contents.insert(tree, contents);
            }
            Some(_) => {}
            None => {
                for id in self.contents.remove(&tree).iter().flat_map(|contents| contents.iter()) {
                    if let Some(count) = self.holders.get_mut(id) {
                        *count -= 1;
                    }
                    if self.holders(id) == 0 {
                        self.holders.remove(id);
                    }
                }
            }
        }
    }

    /// All trees have been read but these.
    pub(super) fn tried(&mut self, unread: BTreeSet<ObjectId>) {
        self.unread = Some(unread);
    }
}

impl Store {
    /// An object and, of a directory, what is in it at any depth, each once.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Closed`], [`Error::Io`].
    pub async fn with_contents(&self, id: ObjectId) -> Result<BTreeSet<ObjectId>, Error> {
        self.inner.learn_trees().await?;
        Ok(self.inner.ledger.all(id))
    }
}

impl Inner {
    /// Sees to it that the ledger knows what every directory consists of, as far as their trees can be read. Removing
    /// anything begins with this.
    pub(super) async fn learn_trees(self: &Arc<Self>) -> Result<(), Error> {
        self.whole().await?;
        if self.ledger.knows_trees() {
            return Ok(());
        }
        let inner = Arc::clone(self);
        let read = move || {
            let (mut known, mut unread) = (Vec::new(), BTreeSet::new());
            for info in inner.ledger.unknown_trees() {
                match inner.tree(&info) {
                    Ok(Some(tree)) => known.push((info.id, contents(&tree))),
                    Ok(None) | Err(_) => _ = unread.insert(info.id),
                }
            }
            (known, unread)
        };
        let (known, unread) = self.pool.run(read).await;
        if let Some(tree) = unread.first().filter(|_| !self.ledger.knows_unread(&unread)) {
            let count = unread.len();
            tracing::warn!(
                %tree, count,
                "directories whose lists cannot be read; what may be in them is kept until they are added or fetched \
                 again, or removed"
            );
        }
        self.change(move |draft: &mut Draft<'_>| {
            for (tree, contents) in known {
                draft.learn(tree, contents);
            }
            draft.tried(unread);
            Ok(())
        })
        .await
    }

    /// Reads a directory's tree; `None` where something of it is missing or is no tree.
    pub(super) fn tree(&self, info: &ObjectInfo) -> Result<Option<Tree>, Error> {
        if info.length > MAX_TREE_BYTES as u64 {
            return Ok(None);
        }
        Ok(self.bytes(info)?.and_then(|bytes| Tree::decode(bytes).ok()))
    }
}
