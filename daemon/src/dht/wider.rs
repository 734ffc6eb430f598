//! Looking for holders where plain look-ups do not: among nodes near a key that are not of one owner.
//!
//! Owns: what follows a look-up that was not enough. Refuses: to ask more nodes, and more of those whom they name, than
//! its limits. Survives a crash: nothing.
//!
//! A plain look-up ends at the twenty nodes nearest to the key. Where it has told nobody for some seconds, or in the
//! end, or where those twenty are crowded together in few address groups, the nodes that [`Survey`] chooses besides are
//! asked as well: the same ones at which an object's key was placed. That goes on beside the plain look-up, which may
//! have many liars to ask yet. Whoever has what was looked for drops the receiver, and that ends it; so does its time,
//! whatever has become of an answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, FuturesUnordered, StreamExt};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};

use super::command::{Command, Node};
use super::find::Holders;
use super::look_ups::MAX_TOLD;
use super::position::Position;
use super::regions::K;
use super::survey::Survey;
use super::turns::Turns;
use super::{Dht, Key};
use crate::peer::{Holder, Provider};

/// Nodes that are asked at once.
const AT_ONCE: usize = 8;
/// Holders that are asked where they are, of all that are named: see [`look_ups`](super::look_ups)…
const MAX_ASKED: usize = 64;
/// …and of these at once: a dial to nobody takes five to ten seconds.
const ASKING: usize = 32;
/// How long a look-up takes at most, a place for it and all that is asked besides included. It ends by itself long
/// before, unless an answer is lost for which it waits.
const LONGEST: Duration = Duration::from_mins(1);

impl Dht {
    /// Looks for holders of `key` by a plain look-up, and wider where that is not enough; ends when nobody listens, or
    /// when its time is over.
    pub(super) async fn look(self, key: Key, found: mpsc::Sender<Holder>) {
        let listener = found.clone();
        until_over(&listener, LONGEST, self.look_everywhere(key, found)).await;
    }

    async fn look_everywhere(&self, key: Key, found: mpsc::Sender<Holder>) {
        let (plain, mut holders) = mpsc::channel(MAX_TOLD + 2 * MAX_ASKED);
        let (end, is_wanted_wider) = oneshot::channel();
        let besides = plain.clone();
        if self.0.commands.send(Command::Providers { wanted: (key, plain, end) }).await.is_err() {
            return;
        }
        let widen = async move {
            if is_wanted_wider.await.unwrap_or(false) {
                self.look_wider(key, besides).await;
            }
        };
        let tell = async move {
            let mut told = HashSet::new();
            while let Some(holder) = holders.recv().await {
                let is_news = match &holder {
                    Holder::Found(provider) => told.insert(provider.peer),
                    Holder::Missed(peer, _) => !told.contains(peer),
                };
                if is_news && found.send(holder).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(widen, tell);
    }

    pub(super) async fn look_wider(&self, key: Key, found: mpsc::Sender<Holder>) {
        let mut survey = Survey::new(Arc::clone(&self.0));
        let nodes = survey.nearest(Position::of_key(&key), key, K).await;
        let nodes: Vec<Node> = nodes
            .into_iter()
            .filter(|peer| *peer != self.0.local)
            .map(|peer| Node { peer, addresses: survey.addresses(&peer) })
            .collect();
        survey.end(&HashSet::new());
        // Those besides the nearest come first: the nearest have been asked.
        let answers = stream::iter(nodes.into_iter().rev()).map(|to| self.ask_for_holders(to, key));
        let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
        let (mut turns, mut asked) = (Turns::default(), FuturesUnordered::new());
        loop {
            while asked.len() < ASKING
                && let Some((peer, addresses)) = turns.next(MAX_ASKED)
            {
                if found.send(Holder::Missed(peer, None)).await.is_err() {
                    return;
                }
                asked.push(self.ask_holder(peer, addresses));
            }
            tokio::select! {
                holders = answers.next(), if !turns.has_ended() => match holders {
                    Some(holders) => turns.answer(holders.into_iter().filter(|(peer, _)| *peer != self.0.local)),
                    None => turns.end(),
                },
                Some((peer, answer)) = asked.next() => {
                    turns.resolved(&peer, answer.is_ok());
                    let holder = answer.map_or_else(|why| Holder::Missed(peer, Some(why)), Holder::Found);
                    if found.send(holder).await.is_err() {
                        return;
                    }
                }
                else => return,
            }
        }
    }

    /// Where one that was named is itself, or why it does not say.
    async fn ask_holder(
        &self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) -> (PeerId, Result<Provider, String>) {
        // All of them are dialled side by side: those that liars tell hold up no others.
        let known = addresses.clone();
        let chunk = self.0.ask(|done| Command::ChunkAddresses { peer, known, done }).await;
        let chunk = chunk.unwrap_or_else(|| Err("this node is stopping".to_owned()));
        // One behind a router may tell no chunk port that could be dialled, and there are other ways to it.
        (peer, chunk.map(|chunk| Provider { peer, chunk, dht: addresses }))
    }

    /// Those whom a node names; nobody when it does not answer.
    async fn ask_for_holders(&self, to: Node, key: Key) -> Holders {
        self.0.ask(|done| Command::Find { to, key, done }).await.unwrap_or_default()
    }
}

/// Looks until that ends, nobody listens, or the time is over: what has been told until then is what there is.
async fn until_over<T>(listener: &mpsc::Sender<T>, longest: Duration, look: impl Future<Output = ()>) {
    tokio::select! {
        () = listener.closed() => {}
        () = look => {}
        () = tokio::time::sleep(longest) => {
            tracing::debug!("a look-up has taken its time, and ends with what it has told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_up_that_waits_in_vain_ends_with_what_it_has_told() {
        let (found, mut told) = mpsc::channel(2);
        let listener = found.clone();
        let look = async move {
            found.send("one").await.unwrap();
            std::future::pending::<()>().await;
        };
        let over = until_over(&listener, Duration::from_millis(20), look);
        tokio::time::timeout(Duration::from_mins(1), over).await.expect("it ends by itself");
        drop(listener);
        assert_eq!((told.recv().await, told.recv().await), (Some("one"), None));
    }
}
