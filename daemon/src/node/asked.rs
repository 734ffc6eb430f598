//! What peers publish, asked of them: of each its list, and of all together no more than a limit that they share.
//!
//! Owns: whom a search asks, going through one peer's list, and sharing the limit. Refuses: to dial more nodes than its
//! limit, what is not called so, lists that lead round in circles, and to let one peer fill the limit while others have
//! something to tell. A list that ends too early is told to be cut short, and why. Survives a crash: nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::search::{Cut, Found, Listed, Source};
use crate::content::is_called;
use crate::peer::{Catalogue, Key, PeerId};

/// Peers that a search asks, all at once: one that takes its time keeps none waiting.
const MAX_PEERS: usize = 64;
/// Of these such as have to be dialled first: some may be gone.
const MAX_DIALLED: usize = 32;
/// Pages that one of them is asked for.
const PAGES: usize = 8;
/// Bytes that are told of why a list is cut short.
const MAX_WHY: usize = 200;

/// How a peer's list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All of it was told.
    Whole,
    /// Some of it was.
    Cut,
    /// The peer did not answer.
    Silent,
}

/// Whom to ask of those that are known, connected or not: first such as are connected. Which ones is drawn: whoever
/// chose by id, or by who came first, could be shown to the same strangers every time.
pub(super) fn drawn(known: Vec<(PeerId, bool)>) -> Vec<PeerId> {
    let (mut drawn, mut others): (Vec<_>, Vec<_>) = known.into_iter().partition(|(_, connected)| *connected);
    drawn.shuffle(&mut rand::rng());
    others.shuffle(&mut rand::rng());
    drawn.extend(others.into_iter().take(MAX_DIALLED));
    drawn.into_iter().map(|(peer, _)| peer).take(MAX_PEERS).collect()
}

/// What these peers publish, at most `limit` lines, and how each list ended.
pub(super) fn of_peers(
    catalogue: &Arc<dyn Catalogue>,
    peers: &[PeerId],
    text: &str,
    limit: usize,
    end: Instant,
) -> impl Stream<Item = Listed> + Send + use<> {
    let lists = peers.iter().enumerate().map(|(of, peer)| {
        let (peer, pages) = (*peer, of_peer(Arc::clone(catalogue), *peer, text.to_owned(), PAGES, end));
        let pages = pages.map(Some).chain(stream::once(std::future::ready(None)));
        let told = pages.scan(End::Whole, move |how, page| {
            let listed = match page {
                Some(Ok(page)) => {
                    *how = if page.cut.is_empty() { *how } else { End::Cut };
                    page
                }
                Some(Err(why)) => {
                    tracing::debug!(%peer, why, "a peer tells no names");
                    *how = End::Silent;
                    Listed::default()
                }
                None => Listed { ended: vec![(peer, *how)], ..Listed::default() },
            };
            std::future::ready(Some((of, listed)))
        });
        told.boxed()
    });
    let lists: Vec<_> = lists.collect();
    shared(stream::iter(lists).flatten_unordered(MAX_PEERS), peers.len(), limit)
}

/// What one peer publishes, as far as so many pages, and the time, go. An error when it does not tell the first page.
pub(super) fn of_peer(
    catalogue: Arc<dyn Catalogue>,
    peer: PeerId,
    text: String,
    pages: usize,
    end: Instant,
) -> impl Stream<Item = Result<Listed, String>> + Send + 'static {
    let cut = move |mut why: String| {
        why.truncate(why.floor_char_boundary(MAX_WHY));
        Listed { more: true, cut: vec![Cut { peer, why }], ..Listed::default() }
    };
    stream::unfold(Some((None, pages)), move |state: Option<(Option<Key>, usize)>| {
        let (catalogue, text) = (Arc::clone(&catalogue), text.clone());
        async move {
            let (after, left) = state?;
            if left == 0 {
                return Some((Ok(cut(format!("it has more than {pages} pages"))), None));
            }
            let page = tokio::time::timeout_at(end, catalogue.published_by(peer, text.clone(), after)).await;
            let page = match page.unwrap_or_else(|_| Err("it does not answer in time".to_owned())) {
                Ok(page) => page,
                Err(why) if after.is_none() => return Some((Err(why), None)),
                Err(why) => return Some((Ok(cut(why)), None)),
            };
            // Whoever answers may have found something else, or lead round in circles.
            let called = page.said.iter().filter(|said| is_called(&said.description().name, &text));
            let found: Vec<_> = called.map(|said| Found::new(said, Source::Peer)).collect();
            let is_circle = page.next.is_some_and(|next| after.is_some_and(|after| next <= after));
            if is_circle {
                let listed = cut("its list leads round in circles".to_owned());
                return Some((Ok(Listed { found, ..listed }), None));
            }
            let listed = Listed { found, ..Listed::default() };
            Some((Ok(listed), page.next.map(|next| (Some(next), left - 1))))
        }
    })
}

/// At most `limit` lines of several sources, told by number. Each has its part of them at once; what some leave, the
/// others share at the end.
pub(super) fn shared(
    source: impl Stream<Item = (usize, Listed)> + Send + 'static,
    sources: usize,
    limit: usize,
) -> impl Stream<Item = Listed> + Send + 'static {
    let begin = (source.boxed(), Some(Shares::new(sources, limit)));
    stream::unfold(begin, async |(mut source, shares)| {
        let mut shares = shares?;
        match source.next().await {
            Some((of, listed)) => {
                let listed = shares.take(of, listed);
                Some((listed, (source, Some(shares))))
            }
            None => Some((shares.rest(), (source, None))),
        }
    })
}

/// A limit and those who share it.
struct Shares {
    /// Lines that each may have at once.
    part: usize,
    /// Lines that may still be told.
    left: usize,
    /// Lines that may be kept for the end.
    room: usize,
    /// Lines that each has told.
    told: Vec<usize>,
    /// Lines beyond its part that each has.
    spare: Vec<VecDeque<Found>>,
    /// Whether some were left out.
    more: bool,
}

impl Shares {
    fn new(sources: usize, limit: usize) -> Self {
        let part = (limit / sources.max(1)).max(1);
        let (told, spare) = (vec![0; sources], vec![VecDeque::new(); sources]);
        Self { part, left: limit, room: limit, told, spare, more: false }
    }

    /// What of this is told at once. The rest is kept as long as there is room for it.
    fn take(&mut self, of: usize, mut listed: Listed) -> Listed {
        let Some(told) = self.told.get_mut(of) else { return listed };
        let now = (self.part - *told).min(self.left).min(listed.found.len());
        let rest = listed.found.split_off(now);
        (*told, self.left) = (*told + now, self.left - now);
        rest.into_iter().for_each(|found| self.keep(of, found));
        listed
    }

    /// Keeps a line for the end, in the place of one of whoever has the most.
    fn keep(&mut self, of: usize, found: Found) {
        if self.room == 0 {
            self.more = true;
            let most = (0..self.spare.len()).max_by_key(|of| self.spare[*of].len()).unwrap_or(of);
            if self.spare[most].len() <= self.spare[of].len() + 1 {
                return;
            }
            self.spare[most].pop_back();
            self.room += 1;
        }
        self.spare[of].push_back(found);
        self.room -= 1;
    }

    /// What was kept: one line of each in turn, as far as the limit goes.
    fn rest(mut self) -> Listed {
        let mut found = Vec::new();
        while found.len() < self.left && self.spare.iter().any(|spare| !spare.is_empty()) {
            let room = self.left - found.len();
            found.extend(self.spare.iter_mut().filter_map(VecDeque::pop_front).take(room));
        }
        let more = self.more || self.spare.iter().any(|spare| !spare.is_empty());
        Listed { found, more, ..Listed::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::BoxFuture;

    use super::*;
    use crate::content::{Description, ObjectId, SignedDescription};
    use crate::peer::{CataloguePage, Keypair, Told};

    /// Tells a line a page, and then what it is asked to.
    struct List(Keypair, fn(u8) -> Result<Option<u8>, String>);

    impl Catalogue for List {
        fn about(&self, _: Key) -> BoxFuture<'static, Vec<Told>> {
            Box::pin(async { Vec::new() })
        }

        fn kept(&self, _: &str, _: Option<Key>) -> CataloguePage {
            CataloguePage::default()
        }

        fn published_by(
            &self,
            _: PeerId,
            _: String,
            after: Option<Key>,
        ) -> BoxFuture<'static, Result<CataloguePage, String>> {
            let at = after.map_or(0, |after| after[0]);
            let (object, name) = (ObjectId::from_bytes([at; 32]), "a name".to_owned());
            let said = Description { object, is_directory: false, length: 1, parity: None, name, time: 1 };
            let said = vec![SignedDescription::sign(said, &[1; 32], &self.0).unwrap()];
            let page = self.1(at).map(|next| CataloguePage { said, next: next.map(|next| [next; 32]) });
            Box::pin(std::future::ready(page))
        }
    }

    /// Lines, and why there are no more of them.
    async fn told(list: fn(u8) -> Result<Option<u8>, String>) -> Result<(usize, Vec<String>), String> {
        let (peer, end) = (PeerId::random(), Instant::now() + Duration::from_secs(600));
        let list = Arc::new(List(Keypair::generate_ed25519(), list));
        let pages: Vec<_> = of_peer(list, peer, "NAME".to_owned(), 8, end).collect().await;
        let pages = pages.into_iter().collect::<Result<Vec<_>, _>>()?;
        assert!(pages.iter().all(|page| page.more != page.cut.is_empty()));
        let lines = pages.iter().map(|page| page.found.len()).sum();
        Ok((lines, pages.into_iter().flat_map(|page| page.cut).map(|cut| cut.why).collect()))
    }

    #[tokio::test]
    async fn a_list_that_ends_too_early_is_told_to() {
        let one = |why: &str| vec![why.to_owned()];
        assert_eq!(told(|at| Ok((at < 4).then_some(at + 1))).await, Ok((5, Vec::new())));
        assert_eq!(told(|at| Ok(Some(at + 1))).await, Ok((8, one("it has more than 8 pages"))));
        assert_eq!(told(|_| Ok(Some(3))).await, Ok((2, one("its list leads round in circles"))));
        let fails = |at| if at < 2 { Ok(Some(at + 1)) } else { Err("x".repeat(999)) };
        assert_eq!(told(fails).await, Ok((2, one(&"x".repeat(MAX_WHY)))));
        assert_eq!(told(|_| Err("it is away".to_owned())).await, Err("it is away".to_owned()));
    }

    /// Answers for one peer alone.
    struct Busy(List, PeerId);

    impl Catalogue for Busy {
        fn about(&self, key: Key) -> BoxFuture<'static, Vec<Told>> {
            self.0.about(key)
        }

        fn kept(&self, text: &str, after: Option<Key>) -> CataloguePage {
            self.0.kept(text, after)
        }

        fn published_by(
            &self,
            peer: PeerId,
            text: String,
            after: Option<Key>,
        ) -> BoxFuture<'static, Result<CataloguePage, String>> {
            match peer == self.1 {
                true => self.0.published_by(peer, text, after),
                false => Box::pin(std::future::pending()),
            }
        }
    }

    #[tokio::test]
    async fn peers_that_take_their_time_keep_no_other_waiting() {
        let mut peers: Vec<_> = (0..MAX_PEERS).map(|_| PeerId::random()).collect();
        peers.sort();
        let list = List(Keypair::generate_ed25519(), |_| Ok(None));
        let catalogue: Arc<dyn Catalogue> = Arc::new(Busy(list, peers[MAX_PEERS - 1]));
        let of = |patience| of_peers(&catalogue, &peers, "name", 100, Instant::now() + patience).boxed();
        let mut told = of(Duration::from_secs(3_600));
        let first = tokio::time::timeout(Duration::from_secs(60), told.next()).await;
        assert_eq!(first.expect("while the others say nothing").unwrap().found.len(), 1);
        // It ends although they never do.
        let all: Vec<_> = of(Duration::from_millis(100)).collect().await;
        assert_eq!(all.iter().map(|listed| listed.found.len()).sum::<usize>(), 1);
        let ended: Vec<_> = all.into_iter().flat_map(|listed| listed.ended).collect();
        let whole: Vec<_> = ended.iter().filter(|(_, how)| *how == End::Whole).collect();
        assert_eq!((ended.len(), whole), (MAX_PEERS, vec![&(peers[MAX_PEERS - 1], End::Whole)]));
    }

    #[test]
    fn those_that_are_not_connected_are_asked_too_and_not_too_many() {
        let known = |connected: usize, others: usize| {
            let peer = |number| (PeerId::random(), number < connected);
            (0..connected + others).map(peer).collect::<Vec<_>>()
        };
        for (connected, others, asked) in [
            (0, 0, 0),
            (0, 3, 3),
            (2, 3, 5),
            (0, 500, MAX_DIALLED),
            (5, 500, 5 + MAX_DIALLED),
            (60, 500, MAX_PEERS),
            (500, 500, MAX_PEERS),
        ] {
            let known = known(connected, others);
            let mut drawn = drawn(known.clone());
            assert_eq!(drawn.len(), asked, "{connected} {others}");
            let is_connected = |peer: &&PeerId| known.contains(&(**peer, true));
            assert_eq!(drawn.iter().filter(is_connected).count(), connected.min(MAX_PEERS));
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), asked);
        }
    }

    #[tokio::test]
    async fn no_peer_is_never_asked() {
        let mut peers: Vec<_> = (0..4 * MAX_PEERS).map(|_| PeerId::random()).collect();
        peers.sort();
        let list = List(Keypair::generate_ed25519(), |_| Ok(None));
        let catalogue: Arc<dyn Catalogue> = Arc::new(Busy(list, peers[4 * MAX_PEERS - 1]));
        let mut searches = 0;
        let asked = || drawn(peers.iter().map(|peer| (*peer, true)).collect());
        while of_peers(&catalogue, &asked(), "name", 100, Instant::now() + Duration::from_millis(20))
            .all(async |listed| listed.found.is_empty())
            .await
        {
            searches += 1;
            assert!(searches < 1_000, "one of four is asked");
        }
    }

    /// How many lines of a limit each of these sources has, which tell so many a page; and whether that is not all.
    async fn parts(limit: usize, pages: &[(usize, usize)], sources: usize) -> (Vec<usize>, bool) {
        let line = |of: usize| Found {
            source: Source::Peer,
            id: ObjectId::from_bytes([7; 32]),
            is_directory: false,
            length: of as u64,
            parity: None,
            name: "a name".to_owned(),
            publisher: None,
            time: 0,
        };
        let page = |(of, lines): &(usize, usize)| {
            (*of, Listed { found: vec![line(*of); *lines], ..Listed::default() })
        };
        let all: Vec<_> = pages.iter().map(page).collect();
        let told: Vec<_> = shared(stream::iter(all), sources, limit).collect().await;
        let mut of = vec![0; sources];
        let lines = told.iter().flat_map(|listed| &listed.found);
        lines.for_each(|found| of[usize::try_from(found.length).unwrap()] += 1);
        (of, told.iter().any(|listed| listed.more))
    }

    #[tokio::test]
    async fn peers_with_many_names_leave_their_part_to_others() {
        let floods = [(0, 64); 8].into_iter().chain([(1, 64); 8]).chain([(2, 5), (3, 30)]);
        let pages: Vec<_> = floods.collect();
        // A quarter each, and what the third leaves is for the others.
        assert_eq!(parts(100, &pages, 4).await, (vec![33, 32, 5, 30], true));
        assert_eq!(parts(2_000, &pages, 4).await, (vec![512, 512, 5, 30], false));
        // Who is alone has all of it, and more sources than lines do not make more lines.
        assert_eq!(parts(10, &[(0, 9), (0, 9)], 1).await, (vec![10], true));
        assert_eq!(parts(2, &[(0, 9), (1, 9), (2, 9)], 3).await, (vec![1, 1, 0], true));
    }
}
