//! What a peer tells of an object, from when it can be asked on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};

use super::super::Parts;
use super::super::planner::PeerNo;
use crate::content::ObjectId;
use crate::peer::{Card, Provider, Scope};
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
}

/// What a peer tells of an object, from now on.
pub(super) fn news_of(
    parts: Arc<Parts>,
    peer: PeerNo,
    asker: Asker,
    id: ObjectId,
) -> impl Stream<Item = (PeerNo, Word)> + Send {
    let opened = async move {
        let haves = asker.haves(id).await.ok()?;
        Some(Listening { parts, asker, haves, has_said: false, was_silent: false })
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
            Some(News::Peers(fellows)) => Word::Peers(meet(&self.parts, &self.asker, fellows).await),
            None if self.has_said || self.asker.is_closed() => return None,
            None => {
                self.has_said = true;
                Word::Nothing
            }
        })
    }
}

/// Those of whom `teller` tells that are of this network, not this node itself, and where they may be dialled. Whoever
/// is said to be there has to prove it when it is.
async fn meet(parts: &Arc<Parts>, teller: &Asker, fellows: Vec<Fellow>) -> Vec<Provider> {
    let (me, network) = parts.links.whose();
    let check = move || {
        let card = |Fellow { seen, card }: &Fellow| Some((*seen, Card::check(card, &network, unix_now())?));
        fellows.iter().filter_map(card).collect::<Vec<_>>()
    };
    let cards = parts.pool.run(check).await;
    let others = cards.into_iter().filter(|(_, card)| card.peer() != me);
    let reached = others.map(|(seen, card)| {
        let is_near = |at: &SocketAddr| Scope::of(at.ip()) == Scope::Loopback;
        let is_here = seen.is_some_and(|ip| Scope::of(ip) == Scope::Loopback);
        let mut chunk = card.sockets(seen);
        chunk.retain(|at| (is_here || !is_near(at)) && parts.discovery.may_dial(*at, teller.remote()));
        Provider { peer: card.peer(), chunk, dht: Vec::new() }
    });
    reached.filter(|provider| !provider.chunk.is_empty()).collect()
}
