//! Searching names: of the store, of what is kept here of others' words, and of what peers publish that are known.
//!
//! Owns: the three sources, side by side, each line with whose word it is, and how many were asked. Refuses: more
//! lines of a source than its limit, more than a peer's part of it while others have something to tell (`asked`), and
//! more of a peer's time than the caller gives, waiting for a place among those who ask included; to keep that place
//! while the reader takes nothing.
//! Survives a crash: nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::asked::{End, drawn, of_peer, of_peers};
use super::others::of_others;
use super::{Error, Node, ObjectInfo};
use crate::content::{ObjectId, SignedDescription, is_called};
use crate::peer::{CataloguePage, Key, PeerId};

/// Objects of the store that are looked at in one go.
const PAGE: usize = 1024;

/// Pages that one peer is asked for that is asked alone.
const PAGES_ALONE: usize = 1024;

/// Pages found ahead of the reader.
const AHEAD: usize = 4;

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
    /// Whether a source has more than the limit, or was not asked to its end.
    pub more: bool,
    /// Peers that have not told the end of their lists.
    pub cut: Vec<Cut>,
    /// Last of all: who was asked.
    pub asked: Option<Asked>,
    /// How lists ended that did.
    pub(super) ended: Vec<(PeerId, End)>,
}

/// How many nodes were asked what they publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Nodes of this network that are known, connected or not.
    pub known: usize,
    /// Those of them that were asked.
    pub asked: usize,
    /// Those of these that answered.
    pub answered: usize,
}

/// A list that ends too early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Whose.
    pub peer: PeerId,
    /// Why. Some of it may be a stranger's text.
    pub why: String,
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
    /// Searches names: those in the store, those that are kept here of others, and those that known peers publish, who
    /// are dialled where they are not connected. What is not found before the time is over, is not told. The last that
    /// is told is who was asked.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the one peer that is to be asked does not answer, [`Error::Myself`] when it is this
    /// node.
    pub async fn search(&self, query: Query) -> Result<BoxStream<'static, Listed>, Error> {
        let me = self.about().peer;
        if query.peer == Some(me) {
            return Err(Error::Myself(me.to_string()));
        }
        let end = Instant::now() + query.time;
        let ask = place(Arc::clone(&self.asks), end).await;
        let Query { text, limit, .. } = query;
        let found = if let Some(peer) = query.peer {
            if ask.is_none() {
                let why = "so many others ask through this node that its time was over first".to_owned();
                return Err(Error::Unreachable { address: peer.to_string(), why });
            }
            let catalogue = Arc::clone(&self.parts.catalogue);
            let mut pages = of_peer(catalogue, peer, text, PAGES_ALONE, end).boxed();
            let why = |why| Error::Unreachable { address: peer.to_string(), why };
            let first = pages.next().await.transpose().map_err(why)?;
            let rest = pages.filter_map(|page| std::future::ready(page.ok()));
            let asked = Asked { known: 1, asked: 1, answered: 1 };
            let last = stream::iter([Listed { asked: Some(asked), ..Listed::default() }]);
            bounded(stream::iter(first).chain(rest), limit).chain(last).boxed()
        } else {
            let local = bounded(self.clone().local(text.clone()), limit);
            stream::select(local, self.clone().others(text, limit, end)).boxed()
        };
        let mut told = HashSet::new();
        let new = found.map(move |mut listed| {
            listed.found.retain(|found| told.insert((found.id, found.publisher)));
            listed
        });
        let new = new.filter(|listed| std::future::ready(listed.is_news())).boxed();
        let (tell, told) = mpsc::channel(AHEAD);
        let (tasks, asks) = (self.parts.tasks.clone(), Arc::clone(&self.asks));
        self.parts.tasks.spawn("search", async move {
            tokio::select! {
                () = tell_all(new, &tell, (asks, ask), end) => {}
                () = tell.closed() => {}
                () = tasks.stopping() => {}
            }
        });
        Ok(stream::unfold(told, async |mut told| Some((told.recv().await?, told))).boxed())
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
            Listed {
                found: called.map(|(name, info)| found_here(name, &info)).collect(),
                ..Listed::default()
            }
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
                Some((Listed { found, ..Listed::default() }, next.map(Some)))
            }
        })
    }

    /// What others publish, and what is kept here of it.
    fn others(self, text: String, limit: usize, end: Instant) -> impl Stream<Item = Listed> + Send + 'static {
        let asked = async move {
            let known = self.known(end).await;
            // Who had no place in time asks nobody.
            let is_over = Instant::now() >= end;
            let (count, whom) = (known.len(), if is_over { Vec::new() } else { drawn(known) });
            let peers = of_peers(&self.parts.catalogue, &whom, &text, limit, end);
            of_others(bounded(self.kept(text), limit), peers, whom, count)
        };
        stream::once(asked).flatten()
    }

    /// Who could be asked. Where that is nobody, this node may be joining its network.
    async fn known(&self, end: Instant) -> Vec<(PeerId, bool)> {
        let neighbours = &self.parts.neighbours;
        let known = neighbours.known().await;
        let is_alone = known.is_empty();
        if is_alone && tokio::time::timeout_at(end, neighbours.joined()).await == Ok(true) {
            return neighbours.known().await;
        }
        known
    }
}

impl Listed {
    /// Whether there is anything to tell.
    fn is_news(&self) -> bool {
        self.more || self.asked.is_some() || !self.found.is_empty()
    }
}

/// A place among those who ask others, as soon as there is one; none where there is none before the time is over.
async fn place(asks: Arc<Semaphore>, end: Instant) -> Option<OwnedSemaphorePermit> {
    tokio::time::timeout_at(end, asks.acquire_owned()).await.ok()?.ok()
}

/// Tells the reader what is found. While the reader has no room the place among those who ask is another's, so that
/// nobody who reads slowly, or not at all, keeps others from asking. When the time is over nobody is asked any more,
/// and no place is needed.
async fn tell_all(
    mut found: BoxStream<'static, Listed>,
    tell: &mpsc::Sender<Listed>,
    (asks, mut ask): (Arc<Semaphore>, Option<OwnedSemaphorePermit>),
    end: Instant,
) {
    while let Some(listed) = found.next().await {
        match tell.try_send(listed) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => return,
            Err(TrySendError::Full(listed)) => {
                drop(ask);
                if tell.send(listed).await.is_err() {
                    return;
                }
                ask = place(Arc::clone(&asks), end).await;
            }
        }
    }
    drop(ask);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::task::Tasks;

    /// So many pages of one line each.
    fn pages(count: u8) -> BoxStream<'static, Listed> {
        let line = |number| Found {
            source: Source::Peer,
            id: ObjectId::from_bytes([number; 32]),
            is_directory: false,
            length: 1,
            parity: None,
            name: "a name".to_owned(),
            publisher: None,
            time: 0,
        };
        stream::iter((0..count).map(move |n| Listed { found: vec![line(n)], ..Listed::default() })).boxed()
    }

    #[tokio::test]
    async fn who_reads_slowly_keeps_nobody_from_asking_and_loses_nothing() {
        let asks = Arc::new(Semaphore::new(1));
        let ask = Arc::clone(&asks).acquire_owned().await.ok();
        let (tell, mut told) = mpsc::channel(AHEAD);
        let of_slow = Arc::clone(&asks);
        let end = Instant::now() + Duration::from_mins(10);
        let work = async move { tell_all(pages(100), &tell, (of_slow, ask), end).await };
        let slow = Tasks::new().spawn("slow", work);
        // It reads nothing, and another may ask.
        let other = tokio::time::timeout(Duration::from_secs(60), asks.acquire()).await.unwrap().unwrap();
        let mut read = Vec::new();
        for _ in 0..=AHEAD {
            read.extend(told.recv().await.unwrap().found);
        }
        // While that one asks, what has been found waits its turn.
        assert!(told.try_recv().is_err() && !slow.is_finished());
        drop(other);
        while let Some(listed) = told.recv().await {
            read.extend(listed.found);
        }
        assert_eq!(read.len(), 100);
        slow.await.unwrap();
        assert_eq!(asks.available_permits(), 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_place_waits_no_longer_than_its_time() {
        let asks = Arc::new(Semaphore::new(1));
        let taken = Arc::clone(&asks).acquire_owned().await.unwrap();
        let (tell, mut told) = mpsc::channel(100);
        let end = Instant::now() + Duration::from_millis(20);
        let waits = async {
            assert!(place(Arc::clone(&asks), end).await.is_none());
            // What is found is told all the same, and without a place.
            tell_all(pages(9), &tell, (Arc::clone(&asks), None), end).await;
        };
        tokio::time::timeout(Duration::from_mins(1), waits).await.expect("another has the place");
        drop((tell, taken));
        let mut lines = 0;
        while let Some(listed) = told.recv().await {
            lines += listed.found.len();
        }
        assert_eq!(lines, 9);
    }
}
