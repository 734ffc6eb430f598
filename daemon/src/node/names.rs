//! Verbs about names: what is let out, what others say, and searching all of it.
//!
//! A name leaves this node only where who promised to keep the object has said so. What others say is their word, and
//! is told as such.

use std::collections::HashSet;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};

use super::{Caller, Error, Node, ObjectInfo, State};
use crate::content::{ObjectId, SignedDescription, check_name, is_called};
use crate::peer::{CataloguePage, Key, PeerId, Told};

/// How long a node that is joining its network waits to ask others.
const JOIN: Duration = Duration::from_secs(10);

/// Objects of the store that are looked at in one go.
const PAGE: usize = 1024;

/// Connected peers that a search asks, and how many of them at once.
const MAX_PEERS: usize = 64;
const PEERS_AT_ONCE: usize = 8;

/// Pages that one peer is asked for in a search of many, and of it alone.
const PAGES: usize = 8;
const PAGES_ALONE: usize = 1024;

/// What is searched for.
#[derive(Clone, Debug)]
pub struct Query {
    /// It stands in the name, whatever the case. Empty: everything.
    pub text: String,
    /// Lines of each of the three sources.
    pub limit: usize,
    /// Only what this peer publishes.
    pub peer: Option<PeerId>,
    /// How long others are asked.
    pub time: Duration,
}

/// From where a line comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The store: this node's own word.
    Local,
    /// What is kept here of others' words.
    Kept,
    /// Asked of the publisher.
    Peer,
}

/// An object that has been found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// From where.
    pub source: Source,
    /// Its id.
    pub id: ObjectId,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Its length in bytes.
    pub length: u64,
    /// Its parity.
    pub parity: Option<(u8, u8)>,
    /// What it is called.
    pub name: String,
    /// Whose word all this is; `None`: this node's.
    pub publisher: Option<PeerId>,
    /// When that was said, in Unix seconds; 0 of this node's own.
    pub time: u64,
}

/// Some of what has been found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// It.
    pub found: Vec<Found>,
    /// Whether a source has more than the limit.
    pub more: bool,
}

impl Found {
    /// In the word of its publisher.
    #[must_use]
    pub fn new(said: &SignedDescription, source: Source) -> Self {
        let description = said.description();
        Self {
            source,
            id: description.object,
            is_directory: description.is_directory,
            length: description.length,
            parity: description.parity,
            name: description.name.clone(),
            publisher: Some(said.publisher()),
            time: description.time,
        }
    }
}

impl Node {
    /// Whether names can be published at all, of what is private or not.
    ///
    /// # Errors
    /// [`Error::Private`], [`Error::NotAnnouncing`].
    pub fn may_publish(&self, private: bool) -> Result<(), Error> {
        match (private, self.parts.announcer.is_announcing()) {
            (true, _) => Err(Error::Private),
            (_, false) => Err(Error::NotAnnouncing),
            _ => Ok(()),
        }
    }

    /// Lets the name of an object leave this node; `name` is what it is called from now on. Gives the object as it is
    /// now, and whether that is news. Durable when it returns; others are told soon.
    ///
    /// # Errors
    /// [`Error::Id`] unless `text` is a whole id, [`Error::NotFound`], [`Error::NotPinned`], [`Error::Private`],
    /// [`Error::NotAnnouncing`], [`Error::Nameless`], [`Error::Store`].
    pub async fn publish(
        &self,
        caller: Caller,
        text: &str,
        name: Option<String>,
    ) -> Result<(ObjectInfo, bool), Error> {
        let old = self.callers(caller, text)?;
        self.may_publish(old.private)?;
        let nameless = |why| Error::Nameless { id: old.id, why };
        let called =
            name.as_deref().or(old.name.as_deref()).ok_or_else(|| nameless("it has none".to_owned()))?;
        check_name(called).map_err(|why| nameless(why.to_string()))?;
        if !self.parts.store.publish(&old.id, true, name).await? {
            return Err(Error::NotFound(text.to_owned()));
        }
        self.publish_added([old.id]);
        self.parts.announcer.hold([old.id]);
        let info = self.parts.store.object(&old.id).ok_or_else(|| Error::NotFound(text.to_owned()))?;
        let is_news = !old.publish || old.name != info.name;
        Ok((info, is_news))
    }

    /// Takes that back. Gives the object, and whether its name was published. Durable when it returns; who has been told
    /// is told soon.
    ///
    /// # Errors
    /// [`Error::Id`] unless `text` is a whole id, [`Error::NotFound`], [`Error::NotPinned`], [`Error::Store`].
    pub async fn withdraw(&self, caller: Caller, text: &str) -> Result<(ObjectInfo, bool), Error> {
        let old = self.callers(caller, text)?;
        if !self.parts.store.publish(&old.id, false, None).await? {
            return Err(Error::NotFound(text.to_owned()));
        }
        self.parts.announcer.withdraw([old.id]);
        let was_published = old.publish;
        Ok((old, was_published))
    }

    /// The names of those of these that are published go with their keys from now on.
    pub(super) fn publish_added(&self, ids: impl IntoIterator<Item = ObjectId>) {
        let stored = ids.into_iter().filter_map(|id| self.parts.store.object(&id));
        let published: Vec<ObjectInfo> = stored.filter(|info| info.publish).collect();
        if !published.is_empty() {
            self.parts.announcer.publish(&published);
        }
    }

    /// A whole object that the caller has pinned, or any for an administrator.
    fn callers(&self, caller: Caller, text: &str) -> Result<ObjectInfo, Error> {
        let id = Self::whole_id(text.strip_prefix("dir:").unwrap_or(text))?;
        let info = self.parts.store.object(&id).filter(|info| info.state == State::Whole);
        let info = info.ok_or_else(|| Error::NotFound(text.to_owned()))?;
        if caller.is_admin || info.pins.iter().any(|pin| pin.uid == caller.uid) {
            return Ok(info);
        }
        Err(Error::NotPinned(id))
    }

    /// What others say of an object that is not here, by its whole id, with `dir:` before it or without. `None` for a
    /// text of another form. Asks the network.
    ///
    /// # Errors
    /// [`Error::NobodyToTell`], [`Error::Untold`].
    pub async fn told(&self, text: &str) -> Result<Option<(ObjectId, Vec<Told>)>, Error> {
        let Ok(id) = text.strip_prefix("dir:").unwrap_or(text).parse() else { return Ok(None) };
        if id == ObjectId::EMPTY {
            return Ok(None);
        }
        let _ask = self.asks.acquire().await;
        if self.joined(&id, JOIN).await.is_err() {
            return Err(Error::NobodyToTell(id));
        }
        let told = self.parts.catalogue.about(*id.as_bytes()).await;
        if told.is_empty() { Err(Error::Untold(id)) } else { Ok(Some((id, told))) }
    }

    /// Searches names: those in the store, those that are kept here of others, and those that connected peers publish.
    /// What is not found before the time is over, is not told.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the one peer that is to be asked does not answer.
    pub async fn search(&self, query: Query) -> Result<BoxStream<'static, Listed>, Error> {
        let ask = self.asks.clone().acquire_owned().await;
        let end = tokio::time::sleep(query.time);
        let found = match query.peer {
            Some(peer) => {
                let asked = self.clone().of_peer(peer, query.text, PAGES_ALONE, query.limit);
                let listed = tokio::select! {
                    listed = asked => listed,
                    () = end => Err("it does not answer in time".to_owned()),
                };
                let why = |why| Error::Unreachable { address: peer.to_string(), why };
                return Ok(stream::iter([listed.map_err(why)?]).boxed());
            }
            None => {
                let (local, kept) =
                    (self.clone().local(query.text.clone()), self.clone().kept(query.text.clone()));
                let peers = self.clone().of_peers(query.text, query.limit).take_until(end);
                let (local, kept) = (bounded(local, query.limit), bounded(kept, query.limit));
                stream::select(local, stream::select(kept, bounded(peers, query.limit)))
            }
        };
        let mut told = HashSet::new();
        let new = found.map(move |mut listed| {
            let _ = &ask;
            listed.found.retain(|found| told.insert((found.id, found.publisher)));
            listed
        });
        Ok(new.filter(|listed| std::future::ready(listed.more || !listed.found.is_empty())).boxed())
    }

    /// What is in the store and has such a name.
    fn local(self, text: String) -> impl Stream<Item = Listed> + Send + 'static {
        let pages = stream::unfold(None, move |after| {
            let page = self.parts.store.objects(after, PAGE);
            async move {
                tokio::task::yield_now().await;
                let last = page.last()?.id;
                Some((page, Some(last)))
            }
        });
        pages.map(move |page| {
            let named = page.into_iter().filter_map(|info| Some((info.name.clone()?, info)));
            let called = named.filter(|(name, _)| is_called(name, &text));
            Listed { found: called.map(|(name, info)| found_here(name, &info)).collect(), more: false }
        })
    }

    /// What is kept here of others' words.
    fn kept(self, text: String) -> impl Stream<Item = Listed> + Send + 'static {
        stream::unfold(Some(None), move |after: Option<Option<Key>>| {
            let page = after.map(|after| self.parts.catalogue.kept(&text, after));
            async move {
                tokio::task::yield_now().await;
                let CataloguePage { said, next } = page?;
                let found = said.iter().map(|said| Found::new(said, Source::Kept)).collect();
                Some((Listed { found, more: false }, next.map(Some)))
            }
        })
    }

    /// What connected peers publish.
    fn of_peers(self, text: String, limit: usize) -> impl Stream<Item = Listed> + Send + 'static {
        let node = self.clone();
        let connected = async move {
            let peers = node.parts.neighbours.peers().await.into_iter();
            stream::iter(peers.filter(|(.., connected)| *connected).map(|(peer, ..)| peer).take(MAX_PEERS))
        };
        let ask = move |peer| {
            let asked = self.clone().of_peer(peer, text.clone(), PAGES, limit);
            async move {
                let listed = asked.await;
                listed
                    .map_err(|why| tracing::debug!(%peer, why, "a peer does not tell what it publishes"))
                    .ok()
            }
        };
        let listed = stream::once(connected).flatten().map(ask).buffer_unordered(PEERS_AT_ONCE);
        listed.filter_map(std::future::ready)
    }

    /// What one peer publishes, as far as so many pages, and so many lines, go.
    async fn of_peer(self, peer: PeerId, text: String, pages: usize, limit: usize) -> Result<Listed, String> {
        let (mut listed, mut after) = (Listed::default(), None);
        for _ in 0..pages {
            let page = self.parts.catalogue.published_by(peer, text.clone(), after).await?;
            // Whoever answers may have found something else.
            let called = page.said.iter().filter(|said| is_called(&said.description().name, &text));
            listed.found.extend(called.map(|said| Found::new(said, Source::Peer)));
            // Nor may it lead round in circles.
            let next = page.next.filter(|next| after.is_none_or(|after| *next > after));
            after = next;
            if next.is_none() || listed.found.len() >= limit {
                break;
            }
        }
        listed.more = after.is_some() || listed.found.len() > limit;
        listed.found.truncate(limit);
        Ok(listed)
    }
}

/// The first `limit` lines of a source, and whether it has more.
fn bounded(source: impl Stream<Item = Listed> + Send + 'static, limit: usize) -> BoxStream<'static, Listed> {
    let cut = source.scan(Some(limit), |left, mut listed| {
        let Some(room) = *left else { return std::future::ready(None) };
        *left = room.checked_sub(listed.found.len());
        if left.is_none() {
            listed.found.truncate(room);
            listed.more = true;
        }
        std::future::ready(Some(listed))
    });
    cut.boxed()
}

fn found_here(name: String, info: &ObjectInfo) -> Found {
    Found {
        source: Source::Local,
        id: info.id,
        is_directory: info.tree,
        length: info.length,
        parity: info.parity,
        name,
        publisher: None,
        time: 0,
    }
}
