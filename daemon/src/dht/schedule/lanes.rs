//! The two lanes that announce.
//!
//! Owns: their rounds. Refuses: nothing of its own. Survives a crash: nothing of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::again::{Doubt, Thin};
use super::minute;
use crate::dht::Inner;
use crate::dht::announcer::{Announcer, Outcome, Purpose};
use crate::dht::holdings::{Due, Place};
use crate::dht::journal::Entry;
use crate::dht::regions::K;
use crate::peer::{Announced, Key, Kind};

/// Nodes that keep a chunk's key; those of an object are as many as a look-up asks.
const CHUNK_COPIES: usize = 4;
/// Keys announced in one go: what one message carries.
const ROUND: usize = 4_096;
/// New objects in one go, and keys to be taken back: 32 bytes each here and at the receivers, and up to 320 while it is
/// chosen whom to tell.
const FRESH_ROUND: usize = 16_384;
/// Keys that the bulk lane announces a second: 640 KB/s, with four copies of 32 bytes each.
pub(super) const RATE: u32 = 5_000;
/// Rounds of new objects begin this far apart at least: what is added meanwhile goes together.
const PACE: Duration = Duration::from_millis(100);
/// Rounds of new objects at once: one may wait for a node that does not answer.
const ROUNDS_AT_ONCE: usize = 4;
/// How long the bulk lane waits when nobody took anything, and the longest such wait.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));
/// What nobody took back is tried again after this: whoever was found did not answer, or nobody was.
const REST: Duration = Duration::from_mins(1);
/// Keys looked at with the holdings locked: 1 ms.
const LOOK: usize = 16_384;

/// A round of new objects.
struct Fresh {
    keys: Vec<Key>,
    /// Who waits for some of them.
    waiting: Vec<oneshot::Sender<Announced>>,
    /// Keys to be taken back first.
    released: Vec<Key>,
}

/// What is new of objects; and what is no longer held is taken back.
pub(super) async fn fresh(dht: Arc<Inner>) {
    dht.journal.read().await;
    let mut rounds = FuturesUnordered::new();
    loop {
        if dht.schedule.desk().is_counted {
            dht.release_uncounted().await;
        }
        let begun = Instant::now();
        let round = dht.take_fresh();
        if round.keys.is_empty() && round.released.is_empty() {
            tokio::select! {
                () = dht.schedule.fresh.notified() => {}
                () = dht.may_take_back() => {}
                Some(()) = rounds.next() => {}
            }
            continue;
        }
        rounds.push(fresh_round(&dht, round));
        tokio::select! {
            () = tokio::time::sleep_until(begun + PACE) => {}
            () = go_on(&mut rounds) => {}
        }
        while rounds.len() >= ROUNDS_AT_ONCE {
            rounds.next().await;
        }
    }
}

/// Goes on with what is under way. Never ends, as whoever waits for something else meanwhile wants it. Cancel-safe.
async fn go_on(rounds: &mut FuturesUnordered<impl Future<Output = ()>>) {
    while rounds.next().await.is_some() {}
    std::future::pending::<()>().await;
}

async fn fresh_round(dht: &Arc<Inner>, round: Fresh) {
    let Fresh { keys, waiting, released } = round;
    if !released.is_empty() {
        dht.take_back(released).await;
    }
    let is_tried = !keys.is_empty() && dht.is_in_company();
    let announced = if is_tried {
        dht.announce(&keys, Kind::Object).await
    } else {
        let mut holdings = dht.holdings();
        keys.iter().for_each(|key| holdings.take(key, false));
        Announced::default()
    };
    for told in waiting {
        let _ = told.send(announced);
    }
    if announced.keys < keys.len() {
        dht.schedule.bulk.notify_one();
    }
}

/// Everything that is due, in the order of the key space, at a pace.
pub(super) async fn bulk(dht: Arc<Inner>) {
    dht.journal.read().await;
    let mut retry = RETRY.0;
    loop {
        dht.has_company().await;
        let known = *dht.seen.routed.borrow();
        dht.note_overdue().await;
        let due = Due { thin: dht.begin_again(), ..dht.schedule.sweep.due(minute()) };
        // First what others cannot find at all, objects before chunks.
        let mut taken = 0;
        if dht.holdings().counts().new_objects > 0 {
            taken += go_through(&dht, &Due { objects_only: true, thin: false, ..due }).await;
        }
        taken += go_through(&dht, &due).await;
        if due.thin {
            dht.end_again();
        }
        let left = dht.holdings().counts();
        let is_done = left.new_objects + left.new_chunks == 0;
        if is_done || taken > 0 {
            retry = RETRY.0;
        }
        let (wait, known) = match (is_done, taken) {
            (true, 0) => (dht.schedule.sweep.left(minute()), usize::MAX),
            // More may have come meanwhile.
            (_, 1..) => continue,
            (false, 0) => {
                let wait = retry;
                retry = (retry * 2).min(RETRY.1);
                (wait, known)
            }
        };
        dht.rest(wait, known).await;
    }
}

/// Announces all that is due; gives how many keys were placed.
async fn go_through(dht: &Arc<Inner>, due: &Due) -> usize {
    let (mut from, mut placed): (Option<Place>, usize) = (None, 0);
    loop {
        let mut keys: [Vec<Key>; 2] = Default::default();
        loop {
            let room = ROUND - keys.iter().map(Vec::len).sum::<usize>();
            let walked = dht.holdings().due(from, LOOK, room, due);
            from = walked.next;
            for (key, kind) in walked.keys {
                keys[usize::from(kind == Kind::Chunk)].push(key);
            }
            if from.is_none() || keys.iter().map(Vec::len).sum::<usize>() >= ROUND {
                break;
            }
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        let [objects, chunks] = keys;
        let count = u32::try_from(objects.len() + chunks.len()).unwrap_or(u32::MAX);
        for (keys, kind) in [(objects, Kind::Object), (chunks, Kind::Chunk)] {
            if !keys.is_empty() {
                placed += dht.announce(&keys, kind).await.keys;
            }
        }
        if from.is_none() || !dht.is_in_company() {
            return placed;
        }
        tokio::time::sleep_until(begun + Duration::from_secs(1) * count / RATE).await;
    }
}

impl Inner {
    /// Announces keys now and notes what came of it.
    async fn announce(self: &Arc<Self>, keys: &[Key], kind: Kind) -> Announced {
        let copies = if kind == Kind::Object { K } else { CHUNK_COPIES };
        let change = self.heard.now();
        let known = *self.seen.routed.borrow();
        let round = Announcer::new(Arc::clone(self), Purpose::Put, keys);
        let Outcome { announced, mut missed, is_sound, doubted } = round.run(copies).await;
        // Something else is said of these meanwhile, which another round tells: this one may have told the old word.
        missed.extend(keys.iter().filter(|key| self.heard.is_newer(key, change)));
        let few = (known.max(announced.receivers) < copies).then_some(Thin::Few(known));
        let unsure = (!is_sound).then_some(Thin::Unsure);
        let thin: Vec<_> = few.into_iter().chain(unsure).collect();
        self.announced(keys, kind, &missed, &announced, Doubt { thin: &thin, keys: &doubted });
        announced
    }

    /// Has others take back keys that are not held any more, and notes of which all know who were found.
    async fn take_back(self: &Arc<Self>, keys: Vec<Key>) {
        // As far as any key may have been placed.
        let told = Announcer::new(Arc::clone(self), Purpose::TakeBack, &keys).run(K).await;
        let missed: HashSet<Key> = told.missed.into_iter().collect();
        // Whoever is owed that is told later; not here what is held again, which is announced like all that is new.
        let is_over = |key: &Key| !self.heard.is_owed(key) && !self.holdings().holds(key);
        let (left, told): (Vec<Key>, Vec<Key>) =
            keys.into_iter().filter(is_over).partition(|key| missed.contains(key));
        self.journal.note(&Entry::Released { keys: told });
        if !left.is_empty() {
            let mut desk = self.schedule.desk();
            desk.release(&left);
            desk.held_back = Some(Instant::now() + REST);
        }
    }

    /// Waits until somebody may be told of what is released, if anything is: the lane is rung when that changes.
    async fn may_take_back(&self) {
        let (is_none, held_back) = {
            let desk = self.schedule.desk();
            (desk.released.is_empty(), desk.held_back)
        };
        if is_none {
            return std::future::pending().await;
        }
        if let Some(until) = held_back {
            tokio::time::sleep_until(until).await;
        }
        self.has_grown(0).await;
    }

    /// What is fresh and what is to be taken back, as much as goes together; of the latter nothing while no other node
    /// is known.
    fn take_fresh(&self) -> Fresh {
        let is_known = *self.seen.routed.borrow() > 0;
        let mut desk = self.schedule.desk();
        let may_tell = is_known && desk.held_back.is_none_or(|until| until <= Instant::now());
        let most = if may_tell { FRESH_ROUND } else { 0 };
        let released = std::iter::from_fn(|| desk.released.pop_first()).take(most).collect();
        let over = desk.fresh.len().min(FRESH_ROUND);
        let mut keys: Vec<Key> = desk.fresh.drain(..over).collect();
        // Those that somebody waits for go with the first round, wherever they are in the queue.
        let (awaited, waiting): (Vec<Key>, _) = std::mem::take(&mut desk.waiting).into_iter().unzip();
        drop(desk);
        let holdings = self.holdings();
        // What the journal knew meanwhile to be announced is not new.
        keys.retain(|key| holdings.holds(key) && !holdings.is_placed(key));
        keys.extend(awaited.iter().filter(|key| holdings.holds(key)));
        keys.sort_unstable();
        keys.dedup();
        Fresh { keys, waiting, released }
    }

    /// Releases what was not counted.
    async fn release_uncounted(&self) {
        let mut from = None;
        loop {
            let walked = self.holdings().uncounted(from, LOOK);
            let keys: Vec<Key> = walked.keys.into_iter().map(|(key, _)| key).collect();
            self.release(&keys);
            from = walked.next;
            if from.is_none() {
                self.schedule.desk().is_counted = false;
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn is_in_company(&self) -> bool {
        *self.seen.routed.borrow() > 0 || *self.seen.entered.borrow()
    }

    /// Whether what was not told to all that should know it is to be announced again: it is now.
    fn begin_again(&self) -> bool {
        let (known, now) = (*self.seen.routed.borrow(), Instant::now());
        let again = &mut self.schedule.desk().again;
        let is_due = again.is_due(known, now);
        if is_due {
            again.begun(known, now);
        }
        is_due
    }

    /// That is over. Where nobody is known any more it may not have come to all keys.
    fn end_again(&self) {
        let (is_cut_short, now) = (!self.is_in_company(), Instant::now());
        let again = &mut self.schedule.desk().again;
        if is_cut_short {
            again.note(Thin::Unsure, now);
        }
        again.ended(now);
    }

    /// Waits until it is to be, as far as it is known now: the lane is rung when that changes.
    async fn again(&self) {
        let mut routed = self.seen.routed.clone();
        let is_due = |known: &usize| self.schedule.desk().again.is_due(*known, Instant::now());
        let grown = async {
            // It ends only with the room.
            if routed.wait_for(is_due).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let due = self.schedule.desk().again.due();
        let time = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = grown => {}
            () = time => {}
        }
    }

    /// Waits until another node is known, or this one is where others look.
    pub(super) async fn has_company(&self) {
        let mut entered = self.seen.entered.clone();
        let entered = async {
            // It ends only with the room.
            if entered.wait_for(|entered| *entered).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.has_grown(0) => {}
            () = entered => {}
        }
    }

    /// Waits until more nodes are known than so many.
    async fn has_grown(&self, known: usize) {
        let mut routed = self.seen.routed.clone();
        // It ends only with the room.
        if routed.wait_for(|routed| *routed > known).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for so long, or until there is something to do for the bulk lane: also when more nodes are known than so
    /// many, who may take what those did not.
    async fn rest(&self, wait: Duration, known: usize) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.schedule.bulk.notified() => {}
            () = self.again() => {}
            () = self.has_grown(known) => {}
        }
    }

    /// Counts what is overdue; the log hears of it when it begins.
    async fn note_overdue(&self) {
        let due = self.schedule.sweep.overdue(minute());
        let (mut late, mut from) = (0, None);
        loop {
            let (older, next) = self.holdings().older(from, LOOK, due);
            late += older;
            from = next;
            if from.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let before = std::mem::replace(&mut self.schedule.desk().figures.overdue, late);
        if late > 0 && before == 0 {
            tracing::warn!(late, "announcing is overdue: other nodes may no longer know what this one holds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::tests::{Node, TCP, within};
    use crate::peer::Announce;

    #[tokio::test]
    async fn a_count_that_begins_before_the_last_one_was_looked_at_lets_go_of_nothing_that_is_held() {
        let node = Node::server(TCP, &[]).await;
        let (dht, [held, gone]) = (node.dht.clone(), [[1; 32], [2; 32]]);
        // Its lanes with it: nobody looks.
        node.stop().await;
        assert_eq!(dht.hold(&[held, gone], Kind::Object), 0);
        dht.begin_count();
        assert_eq!(dht.hold(&[held], Kind::Object), 0);
        dht.end_count();
        dht.begin_count();
        dht.0.release_uncounted().await;
        assert!(!dht.0.schedule.desk().is_counted);
        let holdings = dht.0.holdings();
        assert!(holdings.holds(&held) && !holdings.holds(&gone));
    }

    #[tokio::test]
    async fn what_is_released_while_nobody_is_known_is_taken_back_when_somebody_is() {
        let (node, key) = (Node::server(TCP, &[]).await, [7; 32]);
        let dht = node.dht.clone();
        // Its lanes with it.
        node.stop().await;
        assert_eq!(dht.hold(&[key], Kind::Object), 0);
        // As the journal of an earlier run has it.
        dht.0.holdings().placed(&key, 1);
        dht.release(&[key]);
        assert!(dht.0.take_fresh().released.is_empty(), "there is nobody to be told yet");
        assert_eq!(dht.0.untold(), [key]);
    }

    #[tokio::test]
    async fn who_waits_since_nobody_takes_anything_tries_again_when_another_comes() {
        let first = Node::server(TCP, &[]).await;
        let _second = Node::server(TCP, &[&first]).await;
        first.knows(1).await;
        let rest = first.dht.0.rest(RETRY.1, 1);
        let (_third, ()) =
            within("it goes on", futures::future::join(Node::server(TCP, &[&first]), rest)).await;
    }

    #[tokio::test]
    async fn counting_what_is_overdue_lets_others_have_their_turn() {
        let node = Node::server(TCP, &[]).await;
        let (dht, keys) = (node.dht.clone(), LOOK as u32 * 2 + 1);
        node.stop().await;
        for number in 0..keys {
            let key: Key = *blake3::hash(&number.to_le_bytes()).as_bytes();
            dht.0.holdings().restore(&key, Kind::Chunk, 1);
        }
        let mut count = std::pin::pin!(dht.0.note_overdue());
        assert!(futures::poll!(count.as_mut()).is_pending());
        assert_eq!(dht.announcing().overdue, 0);
        count.await;
        assert_eq!(dht.announcing().overdue, keys as usize);
    }
}
