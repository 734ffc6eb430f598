//! Verbs about directories.

use super::{Announced, Attended, Caller, Error, Node};
use crate::content::{self, Node as Entry, ObjectId, Tree, TreePath};
use crate::fetch::{Inquiry, TreeFetching, TreeRequest};
use crate::ingest::{self, AddedTree, TreeOptions, TreePart};
use crate::store::{ObjectInfo, State};

/// A directory being added. Dropping it ends the add: nothing becomes of it.
pub struct AddingTree {
    node: Node,
    inner: ingest::AddingTree,
    wait_announced: bool,
}

impl Node {
    /// Begins to add a directory. With `wait_announced` the add is answered when the DHT has been told.
    #[must_use]
    pub fn add_tree(&self, options: TreeOptions, wait_announced: bool) -> AddingTree {
        AddingTree { node: self.clone(), inner: self.parts.ingest.begin_tree(options), wait_announced }
    }

    /// Begins a caller's fetch of a directory, or of what is at a path in one, from peers and the store. A node that is
    /// joining its network waits for that first. A job of the caller's for the same directory gives way as long as what
    /// stands beside the fetch is kept.
    ///
    /// # Errors
    /// [`crate::fetch::Error::NoPeers`] when the directory is not here and nobody could be asked.
    pub async fn fetch_tree(
        &self,
        caller: Caller,
        request: TreeRequest,
    ) -> Result<(TreeFetching, Option<Attended>), Error> {
        if self.is_whole(&request.root) {
            return Ok((self.parts.fetcher.fetch_tree(request), None));
        }
        let inquiry = Inquiry::default();
        let attended =
            request.path.is_empty().then(|| self.jobs.attend(caller.uid, request.root, inquiry.clone()));
        self.may_ask(&request.root, &request.peers, request.stall).await?;
        Ok((self.parts.fetcher.fetch_tree_telling(request, inquiry), attended))
    }

    /// A directory's whole id, with `dir:` before it or without, and where wanted a path inside it.
    ///
    /// # Errors
    /// [`Error::Id`].
    pub fn tree_path(text: &str) -> Result<TreePath, Error> {
        let id = text.strip_prefix("dir:").unwrap_or(text).split('/').next().unwrap_or_default();
        let root = Self::whole_id(id)?;
        Ok(TreePath::parse(text).unwrap_or(TreePath { root, path: Vec::new() }))
    }

    /// The directory of this id, prefix or name, or at this path in a directory that is here.
    ///
    /// # Errors
    /// As [`Node::find`], and [`Error::NotDirectory`], [`Error::Damaged`].
    pub async fn tree(&self, text: &str) -> Result<Tree, Error> {
        let info = self.find(text).await?;
        let _look = self.looks.acquire().await;
        self.tree_of(&info, text).await
    }

    /// What is at a path in a directory that is here. Waits while many such calls go on.
    pub(super) async fn inside(&self, path: &TreePath) -> Result<ObjectInfo, Error> {
        let here = |id: &ObjectId| {
            let info = self.parts.store.object(id).filter(|info| info.state == State::Whole);
            info.ok_or_else(|| Error::NotFound(path.to_string()))
        };
        let nowhere = |why: String| Err(Error::NoSuchPath { path: path.to_string(), why });
        let is_file = |name: &str| format!("{name:?} is a file, not a directory");
        let mut info = here(&path.root)?;
        let _look = self.looks.acquire().await;
        let mut around = path.root.to_string();
        for (at, name) in path.path.iter().enumerate() {
            if !info.tree {
                return nowhere(is_file(&around));
            }
            let tree = self.tree_of(&info, &path.to_string()).await?;
            match tree.find(name).map(|entry| entry.node) {
                Some(Entry::Link { .. }) => return nowhere(format!("{name:?} is a symbolic link")),
                None => return nowhere(format!("there is no {name:?}")),
                Some(Entry::File { id: ObjectId::EMPTY, .. }) if at + 1 < path.path.len() => {
                    return nowhere(is_file(name));
                }
                Some(Entry::File { id: ObjectId::EMPTY, .. }) => {
                    return Err(Error::EmptyFile(path.to_string()));
                }
                Some(Entry::File { id, .. } | Entry::Directory { id, .. }) => info = here(&id)?,
            }
            around.clone_from(name);
        }
        Ok(info)
    }

    /// All of a directory's list, in memory. Whoever asks has one of the `looks`.
    async fn tree_of(&self, info: &ObjectInfo, text: &str) -> Result<Tree, Error> {
        if !info.tree {
            return Err(Error::NotDirectory(text.to_owned()));
        }
        let bytes = self.parts.store.bytes(info, content::MAX_TREE_BYTES).await?;
        let tree = bytes.and_then(|bytes| Tree::decode(bytes).ok());
        tree.ok_or_else(|| match self.parts.store.object(&info.id) {
            Some(_) => Error::Damaged(info.id),
            None => Error::NotFound(text.to_owned()),
        })
    }
}

impl AddingTree {
    /// Takes the next parts; gives the files that are complete.
    ///
    /// # Errors
    /// [`Error::Ingest`], which ended the add.
    pub async fn take(&mut self, parts: Vec<TreePart>) -> Result<Vec<super::Added>, Error> {
        Ok(self.inner.take(parts).await?)
    }

    /// Ends the directory, which must have had `entries`, and waits until it is durable; and where the caller waits for
    /// it, until it has been announced.
    ///
    /// # Errors
    /// [`Error::Ingest`]; nothing became an object then.
    pub async fn finish(self, entries: u64) -> Result<(AddedTree, Option<Announced>), Error> {
        let private = self.inner.is_private();
        let mut added = self.inner.finish(entries).await?;
        let (objects, announcer) = (std::mem::take(&mut added.objects), &self.node.parts.announcer);
        let Some(root) = added.id.filter(|_| !private) else { return Ok((added, None)) };
        self.node.publish_added([root]);
        if self.wait_announced {
            announcer.hold(objects);
            let announced = self.node.announce_and_wait(root).await;
            return Ok((added, announced));
        }
        announcer.hold([root]);
        announcer.hold(objects);
        Ok((added, None))
    }
}
