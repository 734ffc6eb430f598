//! Who holds something, as whoever asks is told: those that answer as they are found, then those that are only said to.
//!
//! Owns: that each is told once, and that whoever is said to hold it and was not reached is told of, with why; where
//! nobody answers, also since when it says so itself. Refuses: more of those than its limit, and to go on when the time
//! is over. Survives a crash: nothing.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::{Error, JOIN, Node};
use crate::peer::{Holder, Key, PeerId, Provider};

/// Those that were not reached and are told of: as many as one look-up asks, 128 and 64 where it has to look wider, so
/// that nobody who is said to hold it is left out for others, however many are made up.
const MAX_ABSENT: usize = 192;
/// Those besides of whom only their own word is known: as many as such a question tells.
const MAX_DESCRIBED: usize = 16;

/// What is said of one that is being asked when the time is over…
const SILENT: &str = "it has not answered yet";
/// …and of one whose word is kept by others, who say nothing else of it.
const NOWHERE: &str = "no node that was asked tells where it is";

/// Somebody who is said to hold something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderLine {
    /// It answers.
    Here(Provider),
    /// It was not reached.
    Absent {
        /// Who.
        peer: PeerId,
        /// Why, in words for people. Parts may come from a stranger.
        why: String,
        /// When it described the object last, in Unix seconds, which is its own word that it holds it; `None` where
        /// that is not known.
        described: Option<u64>,
    },
}

/// What has been told so far.
#[derive(Default)]
struct Gathered {
    /// Those that answered.
    found: HashSet<PeerId>,
    /// Those that did not, and what is said of each.
    absent: BTreeMap<PeerId, String>,
}

impl Node {
    /// The holders of an object or a chunk that the network knows: as they are found, and last those that are only said
    /// to be some. It takes no longer than `time`; a node that is joining its network waits for that first.
    ///
    /// # Errors
    /// [`Error::Id`] unless `text` is a whole id, [`Error::NobodyToAsk`] when nobody could be asked.
    pub async fn providers(
        &self,
        text: &str,
        time: Duration,
    ) -> Result<BoxStream<'static, HolderLine>, Error> {
        let end = Instant::now() + time;
        let id = Self::whole_id(text)?;
        let nobody = |nobody| Error::NobodyToAsk { id, is_here: self.is_whole(&id), nobody };
        self.joined(time.min(JOIN)).await.map_err(nobody)?;
        let (key, me): (Key, _) = (*id.as_bytes(), self.about().peer);
        let told = ReceiverStream::new(self.parts.discovery.providers(key));
        let told = told.take_until(tokio::time::sleep_until(end));
        Ok(lines(told, me, self.clone().described(key, end)).boxed())
    }

    /// Who says of itself that it has an object, and since when, as far as others tell before the time is over.
    async fn described(self, key: Key, end: Instant) -> Vec<(PeerId, u64)> {
        let about = async {
            let _ask = self.asks.acquire().await;
            self.parts.catalogue.about(key).await
        };
        let told = tokio::time::timeout_at(end, about).await.unwrap_or_default();
        told.iter().map(|told| (told.said.publisher(), told.said.description().time)).collect()
    }
}

/// What a look-up tells, as lines; `described` is asked where nobody answers. This node, `me`, is none of them.
fn lines(
    told: impl Stream<Item = Holder> + Send + 'static,
    me: PeerId,
    described: impl Future<Output = Vec<(PeerId, u64)>> + Send + 'static,
) -> impl Stream<Item = HolderLine> + Send + 'static {
    let begin = Some((told.boxed(), Gathered::default(), described.boxed()));
    let pages = stream::unfold(begin, move |state| async move {
        let (mut told, mut gathered, described) = state?;
        if let Some(holder) = told.next().await {
            let line: Vec<HolderLine> = gathered.take(holder).into_iter().collect();
            return Some((line, Some((told, gathered, described))));
        }
        let mut described = if gathered.found.is_empty() { described.await } else { Vec::new() };
        described.retain(|(peer, _)| *peer != me);
        Some((gathered.rest(described), None))
    });
    pages.flat_map(stream::iter)
}

impl Gathered {
    /// Takes in what is told; what of it is to be told on at once.
    fn take(&mut self, holder: Holder) -> Option<HolderLine> {
        let (peer, why) = match holder {
            Holder::Found(provider) => {
                self.absent.remove(&provider.peer);
                return self.found.insert(provider.peer).then_some(HolderLine::Here(provider));
            }
            Holder::Missed(peer, why) => (peer, why),
        };
        let has_room = self.absent.len() < MAX_ABSENT || self.absent.contains_key(&peer);
        if has_room && !self.found.contains(&peer) {
            match why {
                Some(why) => _ = self.absent.insert(peer, why),
                None => _ = self.absent.entry(peer).or_insert_with(|| SILENT.to_owned()),
            }
        }
        None
    }

    /// Those that were not reached, and those of whom only their own word is known.
    fn rest(self, described: Vec<(PeerId, u64)>) -> Vec<HolderLine> {
        let mut said: BTreeMap<PeerId, u64> = described.into_iter().collect();
        let missed = self.absent.into_iter();
        let missed =
            missed.map(|(peer, why)| HolderLine::Absent { peer, why, described: said.remove(&peer) });
        let mut lines: Vec<HolderLine> = missed.collect();
        let word = |(peer, at)| HolderLine::Absent { peer, why: NOWHERE.to_owned(), described: Some(at) };
        lines.extend(said.into_iter().take(MAX_DESCRIBED).map(word));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of these, where some describe the object, and this node is `me`.
    async fn told(holders: Vec<Holder>, me: PeerId, described: Vec<(PeerId, u64)>) -> Vec<HolderLine> {
        lines(stream::iter(holders), me, std::future::ready(described)).collect().await
    }

    fn here(peer: PeerId) -> Holder {
        Holder::Found(Provider { peer, chunk: Vec::new(), dht: Vec::new() })
    }

    fn missed(peer: PeerId, why: &str) -> Holder {
        Holder::Missed(peer, Some(why.to_owned()))
    }

    fn absent(peer: PeerId, why: &str, described: Option<u64>) -> HolderLine {
        HolderLine::Absent { peer, why: why.to_owned(), described }
    }

    #[tokio::test]
    async fn who_answers_is_told_at_once_and_once_and_the_others_last_with_why() {
        let [me, found, late, gone, silent] = [(); 5].map(|()| PeerId::random());
        let asked = |peer| Holder::Missed(peer, None);
        let holders = vec![
            asked(late),
            missed(gone, "it is somewhere"),
            here(found),
            missed(late, "it is busy"),
            missed(gone, "it is nowhere"),
            asked(gone),
            asked(silent),
            here(late),
            here(found),
        ];
        let lines = told(holders, me, vec![(gone, 7)]).await;
        let Some((firsts, rest)) = lines.split_at_checked(2) else { panic!("{lines:?}") };
        let peer = |line: &HolderLine| match line {
            HolderLine::Here(provider) => Some(provider.peer),
            HolderLine::Absent { .. } => None,
        };
        assert_eq!(firsts.iter().filter_map(peer).collect::<Vec<_>>(), [found, late]);
        let mut expected = [absent(gone, "it is nowhere", None), absent(silent, SILENT, None)];
        // In the order of their ids.
        if silent < gone {
            expected.reverse();
        }
        assert_eq!(rest, expected);
    }

    #[tokio::test]
    async fn where_nobody_answers_their_own_word_is_told_and_whose_it_is() {
        let [me, gone, other] = [(); 3].map(|()| PeerId::random());
        let lines = told(vec![missed(gone, "refused")], me, vec![(gone, 7), (me, 8), (other, 9)]).await;
        assert_eq!(lines, [absent(gone, "refused", Some(7)), absent(other, NOWHERE, Some(9))]);
        assert_eq!(told(Vec::new(), me, Vec::new()).await, []);
        // However many are made up, their number is bounded, and nobody's own word is left out for them.
        let many = (0..999).map(|_| missed(PeerId::random(), "refused")).collect();
        let lines = told(many, me, vec![(other, 9)]).await;
        assert_eq!((lines.len(), lines.last()), (MAX_ABSENT + 1, Some(&absent(other, NOWHERE, Some(9)))));
        let many = (0..99).map(|at| (PeerId::random(), at)).collect();
        assert_eq!(told(Vec::new(), me, many).await.len(), MAX_DESCRIBED);
    }

    #[tokio::test]
    async fn who_is_asked_last_is_told_of_though_all_others_are_made_up() {
        let (me, gone) = (PeerId::random(), PeerId::random());
        let made_up = (1..MAX_ABSENT).map(|_| missed(PeerId::random(), "refused"));
        let lines = told(made_up.chain([missed(gone, "it is gone")]).collect(), me, Vec::new()).await;
        assert!(lines.contains(&absent(gone, "it is gone", None)));
    }

    #[tokio::test]
    async fn a_look_up_that_does_not_end_is_over_with_its_time() {
        let (me, gone) = (PeerId::random(), PeerId::random());
        let told = stream::iter([Holder::Missed(gone, None)]).chain(stream::pending());
        let told = told.take_until(tokio::time::sleep(Duration::from_millis(20)));
        let all = lines(told, me, std::future::ready(Vec::new())).collect::<Vec<_>>();
        let all = tokio::time::timeout(Duration::from_mins(1), all).await.expect("it ends");
        assert_eq!(all, [absent(gone, SILENT, None)]);
    }
}
