//! Bringing the trees of a directory here: breadth first, each once; and finding what a path in it names.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::super::crowd::Crowd;
use super::super::{Error, Summary, learn};
use super::outline::Outline;
use super::supply::{Halt, Supply};
use super::walk::File;
use super::{Errand, LOOK, large};
use crate::content::{CHUNK_LEN, Chunk, MAX_TREE_BYTES, Node, ObjectId, Tree, TreePath};
use crate::session::Asker;

/// What is to be fetched.
pub(super) enum Target {
    /// This directory, with its tree; and what it is called in the one around it.
    Directory(Tree, ObjectId, Option<String>),
    /// This file.
    File(File),
}

/// Bytes of the outermost directory's tree, and whether its holders had to be looked for to learn that.
pub(super) async fn length(errand: &Errand, crowd: &mut Crowd) -> Result<(u64, bool), Error> {
    let (store, root) = (&errand.parts.store, errand.root);
    errand.lease.hold(&root.only_chunk()).await?;
    let known = match store.only_chunk(&root).await? {
        Some(chunk) => Some(chunk.bytes().len() as u64),
        None => match store.object(&root) {
            Some(info) => Some(info.length),
            None => learn::from_store(store, &root).await?.map(|shape| shape.length()),
        },
    };
    let (length, looked) = match known {
        Some(length) => (length, false),
        None => {
            // Of what was here whole the length is known.
            let patience = learn::Patience {
                stall: errand.stall,
                alone: super::super::ALONE,
                was_whole: None,
                once: errand.once,
            };
            let sought = learn::Sought { id: root, range: None };
            (learn::from_peers(crowd, sought, patience).await?.length(), true)
        }
    };
    if length > MAX_TREE_BYTES as u64 {
        return Err(Error::BadTree { id: root, why: "it is longer than 128 MiB".to_owned() });
    }
    Ok((length, looked))
}

/// Goes from the outermost directory along a path. Only the trees on the way are brought here.
pub(super) async fn resolve(
    supply: &mut Supply,
    errand: &Arc<Errand>,
    length: u64,
    path: &[String],
) -> Result<Target, Error> {
    let nowhere = |why: String| {
        let path = TreePath { root: errand.root, path: path.to_vec() }.to_string();
        Error::NoSuchPath { path, why }
    };
    let mut tree = one(supply, errand, errand.root, length).await?;
    let mut target = errand.root;
    for (at, name) in path.iter().enumerate() {
        let is_last = at + 1 == path.len();
        let (id, length) = match tree.find(name).map(|entry| entry.node) {
            Some(Node::Directory { id, length }) => (id, length),
            Some(Node::File { id, length, executable }) if is_last => {
                return Ok(Target::File(File { name: name.clone(), executable, id, length }));
            }
            Some(Node::File { .. }) => return Err(nowhere(format!("{name:?} is a file, not a directory"))),
            Some(Node::Link { .. }) => return Err(nowhere(format!("{name:?} is a symbolic link"))),
            None => return Err(nowhere(format!("there is no {name:?}"))),
        };
        tree = one(supply, errand, id, length).await?;
        target = id;
    }
    Ok(Target::Directory(tree, target, path.last().cloned()))
}

/// Brings one tree here.
pub(super) async fn one(
    supply: &mut Supply,
    errand: &Arc<Errand>,
    id: ObjectId,
    length: u64,
) -> Result<Tree, Error> {
    let absent = errand.look(&[(id, length)]).await?;
    errand.lease.claim(absent.iter().copied()).await?;
    let Some(short) = short(length) else {
        let (tree, summary) = load(Arc::clone(errand), id, length, supply.askers()).await?;
        supply.also(&summary);
        return Ok(tree);
    };
    supply.want(id, short, absent == [0]);
    let given = supply.next().await.map_err(|halt| halted(errand, halt, &[id]))?;
    let bytes = given.into_iter().find(|(given, _)| *given == id).map(|(_, bytes)| bytes);
    errand.parts.pool.run(move || decode(id, bytes.unwrap_or_default())).await
}

/// Brings all trees of a directory here.
pub(super) async fn outline(
    supply: &mut Supply,
    errand: &Arc<Errand>,
    (root, tree): (ObjectId, Tree),
) -> Result<Outline, Error> {
    let mut outline = Outline::new(root, tree.bytes().len() as u64, errand.parts.options.lists);
    let mut came = vec![(root, tree.bytes().clone())];
    let mut work = Work { errand, supply, next: 1, flying: 0, large: Vec::new(), loading: Loading::new() };
    loop {
        let pool = &errand.parts.pool;
        // A large tree takes a while to be read.
        let add = move || {
            for (id, bytes) in came {
                outline.add(&id, decode(id, bytes)?)?;
            }
            Ok::<_, Error>(outline)
        };
        outline = pool.run(add).await?;
        work.begin(&outline).await?;
        if work.flying == 0 && work.next == outline.len() {
            return Ok(outline);
        }
        came = work.some(&outline).await?;
    }
}

/// What a tree on its way counts for: a small one takes more to keep account of than to hold.
pub(super) fn weight(length: u64) -> u64 {
    length + 4096
}

type Loading = FuturesUnordered<BoxFuture<'static, (ObjectId, Result<(Bytes, Summary), Error>)>>;

/// Trees on their way.
struct Work<'a> {
    errand: &'a Arc<Errand>,
    supply: &'a mut Supply,
    /// The first tree that has not been begun.
    next: usize,
    /// What those count for that have been begun and are not here.
    flying: u64,
    /// Those of more than a chunk that wait for their turn.
    large: Vec<(ObjectId, u64)>,
    /// The one whose turn it is.
    loading: Loading,
}

impl Work<'_> {
    /// Begins as many as may be on their way at once.
    async fn begin(&mut self, outline: &Outline) -> Result<(), Error> {
        while self.next < outline.len() && self.flying < self.errand.parts.options.in_flight {
            let mut batch = Vec::new();
            while let Some((id, length)) = outline.dir(self.next)
                && batch.len() < LOOK
                && self.flying < self.errand.parts.options.in_flight
            {
                self.flying += weight(length);
                self.next += 1;
                batch.push((id, length));
            }
            let absent = self.errand.look(&batch).await?;
            self.errand.lease.claim(absent.iter().copied()).await?;
            for ((id, length), absent) in batch.into_iter().zip(absent) {
                match short(length) {
                    Some(short) => self.supply.want(id, short, absent == 0),
                    None => self.large.push((id, length)),
                }
            }
        }
        if self.loading.is_empty()
            && let Some((id, length)) = self.large.pop()
        {
            let terms = self.errand.terms(length, self.supply.askers());
            let whole = large::whole(Arc::clone(self.errand), id, terms);
            self.loading.push(Box::pin(async move { (id, whole.await) }));
        }
        Ok(())
    }

    /// Waits for some of them.
    async fn some(&mut self, outline: &Outline) -> Result<Vec<(ObjectId, Bytes)>, Error> {
        let came = tokio::select! {
            given = self.supply.next() => {
                given.map_err(|halt| halted(self.errand, halt, &outline.missing()))?
            }
            Some((id, loaded)) = self.loading.next() => {
                let (bytes, summary) = loaded?;
                self.supply.also(&summary);
                vec![(id, bytes)]
            }
        };
        self.flying -= came.iter().map(|(_, bytes)| weight(bytes.len() as u64)).sum::<u64>();
        Ok(came)
    }
}

/// Reads a tree of more than a chunk, or one that was here a moment ago: from the store, else from whoever has it.
pub(super) async fn load(
    errand: Arc<Errand>,
    id: ObjectId,
    length: u64,
    seeds: Vec<Asker>,
) -> Result<(Tree, Summary), Error> {
    let stored = match short(length) {
        Some(_) => errand.parts.store.only_chunk(&id).await?.map(Chunk::into_bytes),
        None => None,
    };
    let (bytes, summary) = match stored {
        Some(bytes) => (bytes, Summary::default()),
        None => large::whole(Arc::clone(&errand), id, errand.terms(length, seeds)).await?,
    };
    let tree = errand.parts.pool.run(move || decode(id, bytes)).await?;
    Ok((tree, summary))
}

fn decode(id: ObjectId, bytes: Bytes) -> Result<Tree, Error> {
    Tree::decode(bytes).map_err(|why| Error::BadTree { id, why: why.to_string() })
}

/// The length of an object of at most a chunk.
pub(super) fn short(length: u64) -> Option<u32> {
    u32::try_from(length).ok().filter(|_| length <= CHUNK_LEN)
}

/// Why the trees could not be brought here.
fn halted(errand: &Errand, halt: Halt, missing: &[ObjectId]) -> Error {
    match halt {
        Halt::Failed(error) => error,
        Halt::Stalled | Halt::Lacking(_) => {
            let shown: Vec<_> = missing.iter().take(3).map(|id| format!("the list of {id}")).collect();
            errand.stalled(&shown, missing.len())
        }
    }
}
