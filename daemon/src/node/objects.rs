//! Verbs about what is stored.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Caller, Error, Node, link, reach};
use crate::content::{ChunkId, Link, ObjectId, ParityPage, ParityPart, TreePath, chunk_count};
use crate::erasure::{Geometry, Layout};
use crate::fetch::{Fetching, Order, Request, TreeFetching, TreeRequest};
use crate::store::{Collected, Found, ObjectInfo, Removed, State, Store};

/// Objects of a list in one page.
const PAGE: usize = 1024;

/// How long `cat` waits for bytes.
const CAT_STALL: Duration = Duration::from_secs(60);

/// An object, described.
#[derive(Clone, Debug)]
pub struct Stat {
    /// What the store knows of it.
    pub info: ObjectInfo,
    /// Data chunks.
    pub chunks: u64,
    /// Data chunks that are here, zeros among them.
    pub local_chunks: u64,
    /// Parity chunks.
    pub parity_chunks: u64,
    /// Parity chunks that are here.
    pub local_parity_chunks: u64,
    /// When it was last read, in Unix seconds, to the hour.
    pub used: Option<u64>,
}

/// A link that others may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// It.
    pub link: Link,
    /// Whether nobody from beyond this node's own network is known to reach it where the link says that it is.
    pub is_unreached: bool,
}

/// Bytes on their way to a reader.
pub enum Reading {
    /// Of an object.
    Object(Fetching),
    /// Of a file in a directory that is elsewhere.
    Inside(TreeFetching),
}

/// What became of an object that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It is gone, and freed so many bytes.
    Freed(u64),
    /// The caller's pin is gone; others have pinned it.
    Pinned,
    /// A directory that stays has it.
    InDirectory {
        /// Whether there was a pin, which is gone.
        unpinned: bool,
    },
    /// This directory's list cannot be read, and may name it.
    Unread {
        /// The directory.
        tree: ObjectId,
        /// Whether there was a pin, which is gone.
        unpinned: bool,
    },
}

/// A chunk in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLine {
    /// Data chunks count from 0, and so do parity chunks.
    pub index: u64,
    /// Its id; `None` for a chunk of zeros.
    pub id: Option<ChunkId>,
    /// Its bytes.
    pub size: u32,
    /// Whether it is parity.
    pub parity: bool,
    /// Whether it is here.
    pub local: bool,
}

impl Node {
    fn store(&self) -> &Store {
        &self.parts.store
    }

    pub(super) fn is_whole(&self, id: &ObjectId) -> bool {
        self.store().object(id).is_some_and(|info| info.state == State::Whole)
    }

    /// A whole id, which need not be stored here.
    ///
    /// # Errors
    /// [`Error::Id`].
    pub fn whole_id(text: &str) -> Result<ObjectId, Error> {
        text.parse().map_err(|why| Error::Id { text: text.to_owned(), why })
    }

    /// What is stored under a whole id, a unique prefix of 8 digits or more, or a unique name; or at a path in a
    /// directory that is here and is named so.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::NoSuchPath`], [`Error::Damaged`], [`Error::Store`].
    pub async fn find(&self, text: &str) -> Result<ObjectInfo, Error> {
        if let Some(path) = TreePath::parse(text) {
            return self.inside(&path).await;
        }
        // A name may begin with `dir:` as well.
        match (self.one(text), TreePath::split(text)) {
            (Err(Error::NotFound(_)), Some((root, path))) => {
                let root = self.one(root)?.id;
                self.inside(&TreePath { root, path }).await
            }
            (found, _) => found,
        }
    }

    fn one(&self, text: &str) -> Result<ObjectInfo, Error> {
        match self.store().find(text) {
            Found::One(info) => Ok(info),
            Found::Several(ids) => Err(Error::Ambiguous { text: text.to_owned(), ids }),
            Found::None => Err(Error::NotFound(text.to_owned())),
        }
    }

    /// The objects behind `after` in the order of their ids, a page of them; empty at the end.
    #[must_use]
    pub fn list(&self, after: Option<ObjectId>) -> Vec<ObjectInfo> {
        self.store().objects(after, PAGE)
    }

    /// When an object was last read, in Unix seconds, to the hour.
    #[must_use]
    pub fn used(&self, id: &ObjectId) -> Option<u64> {
        self.store().used(id)
    }

    /// Whether an object is known to have nothing here, though it is listed.
    #[must_use]
    pub fn is_recordless(&self, id: &ObjectId) -> bool {
        self.store().is_recordless(id)
    }

    /// Describes an object.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::Damaged`], [`Error::Store`].
    pub async fn stat(&self, text: &str) -> Result<Stat, Error> {
        let info = self.find(text).await?;
        let local = self.store().local_chunks(&info.id).await?;
        let parity = self.parity(&info).await?;
        let ids: Vec<ChunkId> = parity.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
        let held = self.store().has_all(ids).await;
        Ok(Stat {
            chunks: chunk_count(info.length),
            local_chunks: local.ok_or(Error::Damaged(info.id))?,
            parity_chunks: held.len() as u64,
            local_parity_chunks: held.iter().filter(|held| **held).count() as u64,
            used: self.store().used(&info.id),
            info,
        })
    }

    /// The layout and the parity chunks of an object that has some.
    async fn parity(&self, info: &ObjectInfo) -> Result<Option<(Layout, Vec<ChunkId>)>, Error> {
        let geometry = info.parity.and_then(|(k, m)| Geometry::new(k, m).ok());
        let Some(layout) = geometry.and_then(|geometry| Layout::new(info.length, geometry)) else {
            return Ok(None);
        };
        let ids = |(_, pages): (ParityPart, Vec<ParityPage>)| {
            (layout, pages.iter().flat_map(|page| page.ids().iter().copied()).collect())
        };
        Ok(self.store().parity(&info.id).await?.map(ids))
    }

    /// All chunks of an object: data, then parity, handed to the receiver a page at a time.
    ///
    /// # Errors
    /// As [`Node::stat`].
    pub async fn chunks(&self, text: &str) -> Result<mpsc::Receiver<Vec<ChunkLine>>, Error> {
        let info = self.find(text).await?;
        let mut lines = self.data_lines(&info).await?;
        if let Some((layout, ids)) = self.parity(&info).await? {
            let sizes = layout.iter().flat_map(|stripe| std::iter::repeat_n(stripe.shard, stripe.parity));
            lines.extend((0..).zip(ids).zip(sizes).map(|((index, id), size)| ChunkLine {
                index,
                id: Some(id),
                size: u32::try_from(size).unwrap_or(0),
                parity: true,
                local: self.store().has(&id),
            }));
        }
        let (pages, receiver) = mpsc::channel(lines.len().div_ceil(PAGE).max(1));
        for page in lines.chunks(PAGE) {
            // There is room for all of them.
            let _ = pages.try_send(page.to_vec());
        }
        Ok(receiver)
    }

    async fn data_lines(&self, info: &ObjectInfo) -> Result<Vec<ChunkLine>, Error> {
        let Some(manifest) = self.store().manifest(&info.id).await? else {
            let id = info.id.only_chunk();
            let size = u32::try_from(info.length).map_err(|_| Error::Damaged(info.id))?;
            return Ok(vec![ChunkLine {
                index: 0,
                id: Some(id),
                size,
                parity: false,
                local: self.store().has(&id),
            }]);
        };
        let line = |index| {
            let chunk = manifest.chunk(index)?;
            let zero = manifest.is_zero(index);
            let local = zero || self.store().has(&chunk.id);
            Some(ChunkLine {
                index,
                id: (!zero).then_some(chunk.id),
                size: chunk.length,
                parity: false,
                local,
            })
        };
        Ok((0..manifest.chunks()).filter_map(line).collect())
    }

    /// Gives a range of an object's bytes, in order. What of it is damaged here is asked of peers, and of an object
    /// that is named by its whole id, or by a path behind that, what is not here. Who reads all of that has fetched
    /// it; a part stays for a day.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::IsDirectory`]; [`Error::Fetch`] when nobody can be asked.
    pub async fn cat(&self, text: &str, offset: u64, length: Option<u64>) -> Result<Reading, Error> {
        let range = (offset, length.unwrap_or(u64::MAX));
        let inside = TreePath::parse(text);
        if let Some(TreePath { root, .. }) = inside.as_ref().filter(|inside| inside.path.is_empty()) {
            return Err(Error::IsDirectory(*root));
        }
        let id = match (self.find(text).await, text.parse::<ObjectId>()) {
            (_, Ok(ObjectId::EMPTY)) => ObjectId::EMPTY,
            (Ok(info), _) if info.tree => return Err(Error::IsDirectory(info.id)),
            (Ok(info), _) => info.id,
            (Err(Error::EmptyFile(_)), _) => ObjectId::EMPTY,
            (Err(Error::NotFound(_)), Ok(id)) => self.elsewhere(id).await?,
            (Err(error), _) => match inside.filter(|_| matches!(error, Error::NotFound(_))) {
                Some(inside) => return self.inside_elsewhere(inside, range).await,
                None => return Err(error),
            },
        };
        Ok(Reading::Object(self.parts.fetcher.fetch(Request {
            id,
            peers: Vec::new(),
            pin: None,
            name: None,
            stall: CAT_STALL,
            alone: crate::fetch::ALONE,
            order: Order::InOrder,
            range: Some(range),
            into: None,
        })))
    }

    /// Reads a file in a directory that is not here. Of the directory only the lists on the way come.
    async fn inside_elsewhere(&self, inside: TreePath, range: (u64, u64)) -> Result<Reading, Error> {
        let TreePath { root, path } = inside;
        self.may_ask(&root, &[], CAT_STALL).await?;
        let (peers, range) = (Vec::new(), Some(range));
        let request = TreeRequest { root, path, peers, pin: None, name: None, stall: CAT_STALL, range };
        Ok(Reading::Inside(self.parts.fetcher.fetch_tree(request)))
    }

    /// An object that is not whole here, and that can be asked for. A part that is here can be read without anybody.
    async fn elsewhere(&self, id: ObjectId) -> Result<ObjectId, Error> {
        match self.store().object(&id) {
            Some(info) if info.tree => Err(Error::IsDirectory(id)),
            Some(_) => Ok(id),
            None => self.may_ask(&id, &[], CAT_STALL).await.map(|()| id),
        }
    }

    /// Pins an object for the caller. Gives it as it was, and whether the pin is new.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::Store`].
    pub async fn pin(&self, caller: Caller, text: &str) -> Result<(ObjectInfo, bool), Error> {
        let info = self.find(text).await?;
        self.store().pin(&info.id, caller.uid).await?;
        let is_new = !is_pinned_by(&info, caller);
        Ok((info, is_new))
    }

    /// Takes the caller's pin back. Gives the object as it was, and whether there was one.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::Store`].
    pub async fn unpin(&self, caller: Caller, text: &str) -> Result<(ObjectInfo, bool), Error> {
        let info = self.find(text).await?;
        self.store().unpin(&info.id, caller.uid).await?;
        let was_pinned = is_pinned_by(&info, caller);
        Ok((info, was_pinned))
    }

    /// Drops the caller's pin and what nothing else holds; with `force`, for administrators, the pins of others as
    /// well. Gives the object as it was, and what became of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::NotPermitted`], [`Error::AdminOnly`], [`Error::Store`].
    pub async fn remove(&self, caller: Caller, text: &str, force: bool) -> Result<(ObjectInfo, Gone), Error> {
        if force && !caller.is_admin {
            return Err(Error::AdminOnly("force a removal"));
        }
        let info = self.find(text).await?;
        let chunks = self.chunk_ids(&info).await?;
        match self.store().remove(&info.id, caller.uid, force).await? {
            Removed::Removed { freed, along } => {
                if !info.private {
                    let objects = std::iter::once(&info.id).chain(&along).map(|id| *id.as_bytes());
                    // Other objects may have some of the same chunks.
                    let held = self.store().has_all(chunks.clone()).await;
                    let gone = chunks.iter().zip(held).filter(|(_, is_held)| !is_held);
                    self.parts.announcer.drop_keys(objects.chain(gone.map(|(id, _)| *id.as_bytes())));
                }
                Ok((info, Gone::Freed(freed)))
            }
            Removed::StillPinned { .. } => Ok((info, Gone::Pinned)),
            Removed::InDirectory { unpinned } => {
                let unread = self.store().kept_for_unread(&info.id);
                let kept = |tree| Gone::Unread { tree, unpinned };
                Ok((info, unread.map_or(Gone::InDirectory { unpinned }, kept)))
            }
            Removed::NotFound => Err(Error::NotFound(text.to_owned())),
            Removed::NotPermitted => {
                let pins = self.store().object(&info.id).map_or(info.pins, |now| now.pins);
                let (owner, others) = (pins.first().map_or(0, |pin| pin.uid), pins.len().saturating_sub(1));
                Err(Error::NotPermitted { id: info.id, owner, others })
            }
        }
    }

    /// The chunks of an object of several, which may have been announced; none of a private one.
    async fn chunk_ids(&self, info: &ObjectInfo) -> Result<Vec<ChunkId>, Error> {
        if info.private {
            return Ok(Vec::new());
        }
        let Some(manifest) = self.store().manifest(&info.id).await? else { return Ok(Vec::new()) };
        Ok((0..manifest.chunks()).filter_map(|index| Some(manifest.chunk(index)?.id)).collect())
    }

    /// Drops what is unpinned and older than an hour; with `dry_run` only says what would go.
    ///
    /// # Errors
    /// [`Error::AdminOnly`], [`Error::Store`].
    pub async fn collect(&self, caller: Caller, dry_run: bool) -> Result<Collected, Error> {
        if !caller.is_admin {
            return Err(Error::AdminOnly("collect"));
        }
        // Taken before, since afterwards nobody knows: what was never announced is not to be withdrawn.
        let private = self.store().private_objects();
        let collected = self.store().collect(crate::support::unix_now(), dry_run).await?;
        if !dry_run {
            let public = collected.objects.iter().filter(|id| !private.contains(id));
            self.parts.announcer.drop_keys(public.map(|id| *id.as_bytes()));
        }
        Ok(collected)
    }

    /// The link by which others fetch an object: its id, its name, which where it is named by a path is the last of
    /// that, and where this node is: at most four addresses.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`].
    pub async fn link(&self, text: &str) -> Result<Linked, Error> {
        let info = self.find(text).await?;
        let (about, around) = (self.about(), &self.parts.neighbours);
        let reach = around.reachability();
        let peers = link::addresses(about.peer, &about.chunk, &around.listen(), &reach.confirmed);
        let is_unreached = !peers.is_empty() && reach::is_unreached(&reach);
        let inside = TreePath::split(text).and_then(|(_, path)| path.into_iter().next_back());
        let name = inside.or(info.name);
        let link = Link { id: info.id, is_directory: info.tree, name, peers };
        Ok(Linked { link, is_unreached })
    }
}

fn is_pinned_by(info: &ObjectInfo, caller: Caller) -> bool {
    info.pins.iter().any(|pin| pin.uid == caller.uid)
}
