//! Handing nodes their keys, batch after batch, without waiting for those that take their time.
//!
//! Owns: the deliveries of a round, and which nodes are slow: they have not answered a batch for [`LATE`]. Refuses: to
//! wait for those once at least half of the nodes have had theirs, and to give them more meanwhile; where most take
//! their time, as on a busy machine, all wait. Survives a crash: nothing.
//!
//! What a slow node has been sent goes on by itself, and who has heard of what is noted when it answers. Its keys count
//! as not taken, so that the next nearest nodes get them, and it counts among those that failed.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use libp2p::PeerId;
use tokio::sync::{Notify, watch};

use super::{Announcer, Plan, Purpose};
use crate::dht::Inner;
use crate::dht::batch::{Answer, MAX_DESCRIPTIONS, MAX_KEYS};
use crate::dht::command::Node;
use crate::dht::position::Position;
use crate::peer::Key;

/// Nodes that are sent to at once, besides slow ones: eight batches of 130 KiB in memory.
const RECEIVERS_AT_ONCE: usize = 8;
/// An answer that takes longer is late. Waiting here, for the rate or for a place, does not count.
const LATE: Duration = Duration::from_secs(2);
/// Deliveries to slow nodes in all, beyond which they are waited for: with all others fewer batches than may wait for a
/// connection.
const MAX_SLOW: usize = 64;

/// The nodes that are slow now, and how many deliveries to each go on.
#[derive(Debug, Default)]
pub(in crate::dht) struct Slow(Mutex<HashMap<PeerId, usize>>);

/// How many deliveries of a round are late.
#[derive(Debug, Default)]
struct Round {
    late: AtomicUsize,
    /// Rung when there is one more.
    bell: Notify,
}

/// A delivery that is late, until it ends.
struct Late {
    slow: Arc<Slow>,
    peer: PeerId,
    round: Arc<Round>,
}

/// What became of one node's keys.
#[derive(Default)]
pub(super) struct Delivery {
    /// Who.
    pub(super) peer: Option<PeerId>,
    /// Whether it failed for good.
    pub(super) dead: bool,
    /// Whether it has not been waited for, or sent nothing since it is slow.
    pub(super) slow: bool,
    /// Messages sent.
    pub(super) messages: usize,
    /// Keys it refused.
    pub(super) refused: usize,
    /// Keys it took.
    pub(super) taken: Vec<usize>,
    /// Keys it did not take, for whatever reason.
    pub(super) missed: Vec<usize>,
}

/// One node's keys, on their way.
struct Errand {
    dht: Arc<Inner>,
    to: Node,
    purpose: Purpose,
    /// The keys of the announcement…
    keys: Arc<[(Position, Key)]>,
    /// …and which of them are for this node, ascending by key, as the format wants them.
    indexes: Arc<[usize]>,
    /// Where this node is, signed.
    record: Arc<[u8]>,
    round: Arc<Round>,
}

// === impl Slow ===

impl Slow {
    /// How many late deliveries to a node go on.
    pub(in crate::dht) fn of(&self, peer: &PeerId) -> usize {
        self.nodes().get(peer).copied().unwrap_or(0)
    }

    /// A delivery is late, if there is room for one more.
    fn enter(self: &Arc<Self>, peer: PeerId, round: &Arc<Round>) -> Option<Late> {
        let mut nodes = self.nodes();
        if nodes.values().sum::<usize>() >= MAX_SLOW {
            return None;
        }
        *nodes.entry(peer).or_default() += 1;
        drop(nodes);
        round.late.fetch_add(1, Ordering::Relaxed);
        round.bell.notify_one();
        Some(Late { slow: Arc::clone(self), peer, round: Arc::clone(round) })
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<PeerId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let mut nodes = self.slow.nodes();
        if let Some(count) = nodes.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(&self.peer);
            }
        }
        drop(nodes);
        self.round.late.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Announcer ===

impl Announcer {
    /// Gives all nodes of a plan their keys, several at once; see the module.
    pub(super) async fn deliver(&self, plan: Plan) -> Vec<Delivery> {
        let (record, round) = (Arc::<[u8]>::from(self.dht.record()), Arc::<Round>::default());
        let late = || round.late.load(Ordering::Relaxed);
        let mut plan = plan.into_iter();
        let mut under_way = FuturesUnordered::<BoxFuture<'static, Delivery>>::new();
        // Those that have not ended, with their keys; and those that have.
        let (mut open, mut done, mut ended) = (HashMap::new(), Vec::new(), 0);
        loop {
            while under_way.len() < RECEIVERS_AT_ONCE + late()
                && let Some((peer, indexes)) = plan.next()
            {
                let errand = self.errand(peer, indexes, &record, &round);
                if self.dht.schedule.slow.of(&peer) > 0 {
                    // What it is not sent it has not heard.
                    errand.owe(&errand.indexes);
                    done.push(Delivery::slow(peer, &errand.indexes));
                } else {
                    open.insert(peer, Arc::clone(&errand.indexes));
                    under_way.push(errand.run().boxed());
                }
            }
            let is_most = 2 * ended >= ended + under_way.len();
            if under_way.is_empty() || under_way.len() == late() && is_most {
                break;
            }
            tokio::select! {
                Some(delivery) = under_way.next() => {
                    ended += 1;
                    delivery.peer.iter().for_each(|peer| _ = open.remove(peer));
                    done.push(delivery);
                }
                () = round.bell.notified() => {}
            }
        }
        done.extend(open.iter().map(|(peer, indexes)| Delivery::slow(*peer, indexes)));
        if !under_way.is_empty() {
            self.go_on(under_way);
        }
        done
    }

    fn errand(
        &self,
        peer: PeerId,
        mut indexes: Vec<usize>,
        record: &Arc<[u8]>,
        round: &Arc<Round>,
    ) -> Errand {
        indexes.sort_unstable_by_key(|index| self.keys[*index].1);
        Errand {
            dht: Arc::clone(&self.dht),
            to: Node { peer, addresses: self.survey.addresses(&peer) },
            purpose: self.purpose,
            keys: Arc::clone(&self.keys),
            indexes: indexes.into(),
            record: Arc::clone(record),
            round: Arc::clone(round),
        }
    }

    /// What is late goes on beside this announcement. Who fails in the end is not chosen again.
    fn go_on(&self, mut late: FuturesUnordered<BoxFuture<'static, Delivery>>) {
        let (dht, stop) = (Arc::clone(&self.dht), self.dht.tasks.token());
        let reckon = async move {
            while let Some(delivery) = late.next().await {
                if let Some(peer) = delivery.peer.filter(|_| delivery.dead) {
                    dht.shelf.gone(&peer);
                }
            }
        };
        self.dht.tasks.spawn("late answers", async move {
            stop.run_until_cancelled(reckon).await;
        });
    }
}

/// Waits for an answer; calls `is_late` when the batch has been on its way for [`LATE`].
pub(super) async fn watched<T>(
    asked: impl Future<Output = T>,
    mut on_way: watch::Receiver<bool>,
    is_late: impl FnOnce(),
) -> T {
    let mut asked = pin!(asked);
    let late = async {
        while on_way.wait_for(|is_so| *is_so).await.is_ok() {
            let rests = async { on_way.wait_for(|is_so| !*is_so).await.is_ok() };
            if tokio::time::timeout(LATE, rests).await.is_err() {
                return;
            }
        }
        // It has been answered.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answer = asked.as_mut() => return answer,
        () = late => {}
    }
    is_late();
    asked.await
}

// === impl Delivery ===

impl Delivery {
    fn slow(peer: PeerId, indexes: &[usize]) -> Self {
        Self { peer: Some(peer), slow: true, missed: indexes.to_vec(), ..Self::default() }
    }
}

// === impl Errand ===

impl Errand {
    /// Gives the node its keys until it fails.
    async fn run(self) -> Delivery {
        let peer = self.to.peer;
        let mut delivery = Delivery { peer: Some(peer), ..Delivery::default() };
        let (mut is_silent, mut late) = (false, None);
        for batch in self.batches() {
            if delivery.dead {
                if is_silent {
                    self.owe(batch);
                }
                delivery.missed.extend(batch);
                continue;
            }
            let keys: Vec<Key> = batch.iter().map(|index| self.keys[*index].1).collect();
            let is_late = || {
                if late.is_none() {
                    late = self.dht.schedule.slow.enter(peer, &self.round);
                }
            };
            let sent = self.dht.send_watched(self.to.clone(), self.purpose, &keys, &self.record, is_late);
            let (answer, messages) = sent.await;
            delivery.messages += messages;
            match answer {
                Ok(Answer::Taken(answer)) => {
                    for (place, index) in batch.iter().enumerate() {
                        let taken = answer.taken.get(place).copied().unwrap_or(false);
                        if taken { &mut delivery.taken } else { &mut delivery.missed }.push(*index);
                        delivery.refused += usize::from(!taken);
                    }
                }
                Ok(Answer::Refused(refusal, _)) => {
                    tracing::debug!(%peer, ?refusal, "a node refuses our keys");
                    delivery.refused += batch.len();
                    delivery.dead = true;
                    delivery.missed.extend(batch);
                }
                Err(reason) => {
                    tracing::debug!(%peer, %reason, "a node did not answer an announcement");
                    (delivery.dead, is_silent) = (true, true);
                    delivery.missed.extend(batch);
                }
            }
        }
        delivery
    }

    /// Keys that fit in a batch with what is said of them.
    fn batches(&self) -> Vec<&[usize]> {
        let indexes = &*self.indexes;
        let (mut batches, mut begin, mut described) = (Vec::new(), 0, 0);
        for (at, index) in indexes.iter().enumerate() {
            let is_described = usize::from(self.dht.published.contains(&self.keys[*index].1));
            if at - begin == MAX_KEYS || described + is_described > MAX_DESCRIPTIONS {
                batches.push(&indexes[begin..at]);
                (begin, described) = (at, 0);
            }
            described += is_described;
        }
        batches.push(&indexes[begin..]);
        batches
    }

    /// These keys were not sent: as far as there is something to hear of them, the node is told later.
    fn owe(&self, indexes: &[usize]) {
        let (heard, Node { peer, addresses }, now) = (&self.dht.heard, &self.to, Instant::now());
        let keys = indexes.iter().map(|index| self.keys[*index].1);
        match self.purpose {
            Purpose::TakeBack => heard.missed_end(peer, addresses, keys, now),
            Purpose::Put => {
                let keys = keys.map(|key| (key, self.dht.published.contains(&key)));
                heard.missed(peer, addresses, keys, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn who_has_had_a_batch_for_long_is_late_and_not_who_has_not_been_sent_it() {
        let late = async {
            let ((done, asked), (_on_way, seen)) = (oneshot::channel(), watch::channel(true));
            watched(asked, seen, || done.send(7).unwrap()).await
        };
        let waits = async {
            let ((_done, asked), (_on_way, seen)) = (oneshot::channel::<()>(), watch::channel(false));
            let (mut was_late, longer) = (false, LATE / 2 * 3);
            let waited = tokio::time::timeout(longer, watched(asked, seen, || was_late = true)).await;
            waited.is_err() && !was_late
        };
        assert_eq!(tokio::join!(late, waits), (Ok(7), true));
    }

    #[test]
    fn who_is_slow_is_so_while_a_delivery_goes_on_and_no_more_are_than_may_be() {
        let (slow, round, peer) = (Arc::<Slow>::default(), Arc::<Round>::default(), PeerId::random());
        let mut late: Vec<_> = (0..MAX_SLOW).filter_map(|_| slow.enter(peer, &round)).collect();
        assert!(late.len() == MAX_SLOW && slow.enter(PeerId::random(), &round).is_none());
        late.truncate(1);
        assert_eq!((slow.of(&peer), round.late.load(Ordering::Relaxed)), (1, 1));
        late.clear();
        assert_eq!((slow.of(&peer), round.late.load(Ordering::Relaxed)), (0, 0));
    }
}
