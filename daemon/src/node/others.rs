//! What others publish, as a search tells it: what they say themselves, and what is kept here of their words.
//!
//! Owns: whose word counts. A publisher that tells its whole list has said all: what is kept here of its word, and is
//! not in its list, was taken back or is called otherwise now. So what is kept of one that is asked waits for its
//! answer. Counts who was asked and who answered. Refuses: nothing; what waits is bounded by what its source tells.
//! Survives a crash: nothing.

use std::collections::{HashMap, HashSet};

use futures::stream::{self, Stream, StreamExt};

use super::asked::End;
use super::search::{Asked, Found, Listed};
use crate::peer::PeerId;

/// Something that was said, by where it comes from.
enum Word {
    Kept(Listed),
    Peers(Listed),
}

/// What has been heard so far.
struct Words {
    /// Peers whose lists have not ended.
    waiting: HashSet<PeerId>,
    /// Peers that have told all of theirs.
    whole: HashSet<PeerId>,
    /// What is kept of those that have not ended.
    held: HashMap<PeerId, Vec<Found>>,
    /// Who was asked.
    asked: Asked,
}

/// What is kept of others' words and what `whom` publish, who are asked of so many `known`. At the end it tells how
/// many answered.
pub(super) fn of_others(
    kept: impl Stream<Item = Listed> + Send + 'static,
    peers: impl Stream<Item = Listed> + Send + 'static,
    whom: Vec<PeerId>,
    known: usize,
) -> impl Stream<Item = Listed> + Send + 'static {
    let asked = Asked { known, asked: whom.len(), answered: 0 };
    let waiting = whom.into_iter().collect();
    let words = Words { waiting, whole: HashSet::new(), held: HashMap::new(), asked };
    let both = stream::select(kept.map(Word::Kept), peers.map(Word::Peers)).boxed();
    stream::unfold((both, Some(words)), async |(mut both, words)| {
        let mut words = words?;
        match both.next().await {
            Some(Word::Kept(listed)) => Some((words.kept(listed), (both, Some(words)))),
            Some(Word::Peers(listed)) => Some((words.told(listed), (both, Some(words)))),
            None => Some((Listed { asked: Some(words.asked), ..Listed::default() }, (both, None))),
        }
    })
}

impl Words {
    /// Of what is kept here what can be told already.
    fn kept(&mut self, mut listed: Listed) -> Listed {
        for found in std::mem::take(&mut listed.found) {
            match found.publisher {
                Some(peer) if self.whole.contains(&peer) => {}
                Some(peer) if self.waiting.contains(&peer) => self.held.entry(peer).or_default().push(found),
                _ => listed.found.push(found),
            }
        }
        listed
    }

    /// What peers told, and what is kept of those that have not told all.
    fn told(&mut self, mut listed: Listed) -> Listed {
        for (peer, how) in std::mem::take(&mut listed.ended) {
            self.waiting.remove(&peer);
            self.asked.answered += usize::from(how != End::Silent);
            let held = self.held.remove(&peer);
            if how == End::Whole {
                self.whole.insert(peer);
            } else {
                listed.found.extend(held.unwrap_or_default());
            }
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ObjectId;
    use crate::node::Source;

    fn line(source: Source, object: u8, name: &str, peer: PeerId) -> Found {
        Found {
            source,
            id: ObjectId::from_bytes([object; 32]),
            is_directory: false,
            length: 1,
            parity: None,
            name: name.to_owned(),
            publisher: Some(peer),
            time: 5,
        }
    }

    fn page(found: Vec<Found>) -> Listed {
        Listed { found, ..Listed::default() }
    }

    #[tokio::test]
    async fn a_publishers_own_list_counts_for_more_than_what_is_kept_of_its_word() {
        let [whole, cut, silent, other] = [(); 4].map(|()| PeerId::random());
        let kept = [whole, cut, silent, other].map(|peer| line(Source::Kept, 1, "old", peer));
        let said = |peer, how| Listed {
            ended: vec![(peer, how)],
            ..page(match how {
                End::Silent => Vec::new(),
                _ => vec![line(Source::Peer, 2, "new", peer)],
            })
        };
        let answers = vec![said(whole, End::Whole), said(cut, End::Cut), said(silent, End::Silent)];
        // Whichever comes first.
        let late = |listed: Vec<Listed>, late: bool| {
            let turns = stream::unfold(if late { 100 } else { 0 }, async |left: usize| {
                tokio::task::yield_now().await;
                left.checked_sub(1).map(|left| (Listed::default(), left))
            });
            turns.chain(stream::iter(listed)).boxed()
        };
        for is_late in [false, true] {
            let (kept, answers) = (late(vec![page(kept.to_vec())], is_late), late(answers.clone(), !is_late));
            let all: Vec<_> = of_others(kept, answers, vec![whole, cut, silent], 9).collect().await;
            let mut told: Vec<_> = all
                .iter()
                .flat_map(|listed| &listed.found)
                .map(|found| (found.publisher.unwrap(), found.name.as_str()))
                .collect();
            told.sort_unstable();
            let mut expected =
                [(whole, "new"), (cut, "new"), (cut, "old"), (silent, "old"), (other, "old")].to_vec();
            expected.sort_unstable();
            assert_eq!(told, expected, "{is_late}");
            assert_eq!(all.last().unwrap().asked, Some(Asked { known: 9, asked: 3, answered: 2 }));
        }
    }
}
