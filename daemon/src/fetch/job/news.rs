//! What a peer tells of an object, from when it can be asked on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, Stream, StreamExt};

use super::super::Parts;
use super::super::member::Tells;
use super::super::planner::PeerNo;
use crate::content::ObjectId;
use crate::peer::{Card, Provider};
use crate::session::{Asker, Fellow, Have, Haves, News};
use crate::support::unix_now;

/// How long a peer may take to say what it holds. Who is asked before would be asked for the first chunks there are,
/// by each of a crowd.
const PROMPT: Duration = Duration::from_millis(300);

/// What a peer tells.
pub(super) enum Word {
    /// Chunks that it holds.
    Have(Have),
    /// That it holds nothing of the object.
    Nothing,
    /// Nothing, for some time.
    Silence,
    /// Chunks that it gives to others.
    Given(Vec<u64>),
    /// Others who fetch the object, and may be dialled.
    Peers(Vec<Provider>),
}

/// What has been heard of a peer so far.
struct Listening {
    parts: Arc<Parts>,
    asker: Asker,
    haves: Haves,
    /// It has said that it holds something, or that it does not.
    has_said: bool,
    /// It has been silent for too long.
    was_silent: bool,
    /// What it has told of others.
    tells: Tells,
}

/// What a peer tells of an object, from now on. It tells others of this node if that `joins` those who fetch it.
pub(super) fn news_of(
    parts: Arc<Parts>,
    peer: PeerNo,
    asker: Asker,
    (id, joins): (ObjectId, bool),
) -> impl Stream<Item = (PeerNo, Word)> + Send {
    let opened = async move {
        let haves = if joins { asker.join(id).await } else { asker.haves(id).await };
        let haves = haves.ok()?;
        let tells = Tells::new(Instant::now());
        Some(Listening { parts, asker, haves, has_said: false, was_silent: false, tells })
    };
    let listened = stream::once(opened).filter_map(std::future::ready);
    listened.flat_map(move |listening| {
        stream::unfold(listening, move |mut listening| async move {
            let word = listening.next().await?;
            Some(((peer, word), listening))
        })
    })
}

impl Listening {
    async fn next(&mut self) -> Option<Word> {
        let news = if self.has_said || self.was_silent {
            self.haves.news().await
        } else if let Ok(news) = tokio::time::timeout(PROMPT, self.haves.news()).await {
            news
        } else {
            self.was_silent = true;
            return Some(Word::Silence);
        };
        Some(match news {
            Some(News::Have(have)) => {
                self.has_said = true;
                Word::Have(have)
            }
            Some(News::Given(chunks)) => Word::Given(chunks),
            Some(News::Peers(mut fellows)) => {
                // What is beyond is not even looked at: to check a card costs more than to make one up.
                fellows.truncate(self.tells.take(fellows.len(), Instant::now()));
                Word::Peers(meet(&self.parts, &self.asker, fellows).await)
            }
            None if self.has_said || self.asker.is_closed() => return None,
            None => {
                self.has_said = true;
                Word::Nothing
            }
        })
    }
}

/// Those of whom `teller` tells that are of this network, not this node itself, and where they may be dialled: at the
/// host where the teller sees them and at no other. Whoever is said to be there has to prove it when it is.
async fn meet(parts: &Arc<Parts>, teller: &Asker, fellows: Vec<Fellow>) -> Vec<Provider> {
    if fellows.is_empty() {
        return Vec::new();
    }
    let (me, network) = parts.links.whose();
    let check = move || {
        let card = |Fellow { seen, card }: &Fellow| Some((*seen, Card::check(card, &network, unix_now())?));
        fellows.iter().filter_map(card).collect::<Vec<_>>()
    };
    let cards = parts.pool.run(check).await;
    let others = cards.into_iter().filter(|(_, card)| card.peer() != me);
    let reached = others.map(|(seen, card)| {
        let seen = seen.map(|ip| ip.to_canonical());
        let mut chunk = card.sockets(seen);
        // A card may name anybody's host, and a crowd that dials it is an attack on that one.
        let is_there = |at: &SocketAddr| Some(at.ip().to_canonical()) == seen;
        chunk.retain(|at| is_there(at) && parts.discovery.may_dial(*at, teller.remote()));
        Provider { peer: card.peer(), chunk, dht: Vec::new() }
    });
    reached.filter(|provider| !provider.chunk.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::tests::{Node, Web};
    use crate::peer::{CardSigner, Keypair};

    /// Somebody who shows a card of these ports, and is seen at 127.0.0.1.
    fn fellow(ports: &[&str]) -> Fellow {
        let ports: Vec<SocketAddr> = ports.iter().map(|at| at.parse().unwrap()).collect();
        let signer = CardSigner::new(Keypair::generate_ed25519(), "test", &ports).unwrap();
        Fellow { seen: "127.0.0.1".parse().ok(), card: signer.sign(unix_now()).unwrap() }
    }

    /// Those whom a fetch may dial when a peer tells of these.
    async fn met(fellows: Vec<Fellow>) -> Vec<Provider> {
        let web = Web::default();
        let (teller, taker) = (Node::new(&web, 1), Node::new(&web, 2));
        let id = teller.add(b"it is here", None).await;
        web.gossip(&teller, fellows);
        let asker = web.ask(&teller).await;
        let parts = Arc::clone(&taker.fetcher.parts);
        let mut news = std::pin::pin!(news_of(parts, PeerNo(0), asker, (id, true)));
        let mut met = Vec::new();
        loop {
            let word = tokio::time::timeout(Duration::from_mins(1), news.next()).await;
            match word.expect("it says more").expect("it goes on") {
                (_, Word::Peers(others)) => met.extend(others),
                // That is the last.
                (_, Word::Given(_)) => return met,
                _ => {}
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cards_beyond_fifty_in_a_minute_are_not_even_looked_at() {
        let many = (0..120).map(|_| fellow(&["127.0.0.1:7000"])).collect();
        assert_eq!(met(many).await.len(), 50);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_is_dialled_elsewhere_than_where_it_is_seen() {
        let (here, elsewhere) = ("127.0.0.1:7000", "127.0.0.9:7000");
        let told = met(vec![fellow(&[elsewhere]), fellow(&[elsewhere, here])]).await;
        let chunk: Vec<String> =
            told.iter().flat_map(|provider| &provider.chunk).map(SocketAddr::to_string).collect();
        assert_eq!(chunk, [here]);
    }
}
