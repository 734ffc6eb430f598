//! Objects of at most a chunk by the thousand: read from the store, or asked of the holders of their directory.
//!
//! Owns: what is wanted and not yet here, of whom it is asked, and that it is proved and stored before it is given.
//! Refuses: to ask for anything twice, but of another peer when the first is late, lies or lacks it. What none of the
//! holders has is fetched as any object is.
//!
//! ```text
//! want ─▶ to read ─▶ store ──────────────────────────────┐
//!            │ lost                                      ▼
//! want ─▶ queue ─▶ asks ─▶ arrived ─▶ proved, stored ─▶ given
//!            ▲       │ lacking, late, a lie               ▲
//!            └───────┴─▶ parked ─▶ rescues ───────────────┘
//! ```

mod answers;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Interval, MissedTickBehavior};

use super::super::inquiry::Findings;
use super::super::learn::AGAIN;
use super::super::member::Heard;
use super::super::planner::PeerNo;
use super::super::{Error, Parts, Summary, Terms};
use super::holders::{Choice, Holders};
use super::{Errand, large};
use crate::content::{Chunk, ChunkRef, ObjectId, Place};
use crate::session::{Answer, Asker, Came, Unproven};
use crate::store;

/// How often it is looked at what is late or has stalled.
const TICK: Duration = Duration::from_millis(500);

/// Objects that are read from the store at once, in batches of so many, so many batches at once.
const READ: (usize, usize) = (64, 4);

/// Batches of objects that are proved and stored at once.
const PROVING: usize = 4;

/// Bytes of one such batch.
const BATCH: usize = 4 << 20;

/// Objects that are fetched on their own at once.
const RESCUES: usize = 8;

/// Objects that are looked at for one that can be asked for, or fetched, when the first ones cannot.
const LOOK: usize = 256;

/// Why no more can be given.
pub(super) enum Halt {
    /// Nothing has arrived for as long as the caller would wait.
    Stalled,
    /// Nobody who was found has this one, which is wanted no more; others may come. Only where the caller tries again.
    Lacking(ObjectId),
    /// Something else.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// An object that is wanted and not here.
struct Open {
    length: u32,
    /// Who is asked, since when, and how to take it back.
    asked: Option<(PeerNo, Instant, AbortHandle)>,
    /// What has come of it since it was last asked for, and how much of that has been told.
    came: Came,
    told: u32,
    /// Peers that do not have it, or lied about it.
    lacking: Vec<PeerNo>,
    /// Peers from which it did not come in time.
    late: Vec<PeerNo>,
    /// When it may be fetched on its own, and how long after that once more.
    rescue_at: Instant,
    rest: Duration,
}

/// How a request ended.
enum Outcome {
    Arrived(Unproven),
    NotFound,
    Busy(Duration),
    /// The peer broke the protocol.
    Bad,
    /// The session ended.
    Failed,
}

type Asked = (ObjectId, PeerNo, Option<Outcome>);
/// An object that a peer sent; without its chunk when that is a lie.
type Proved = (ObjectId, PeerNo, Option<Chunk>);
type Read = Result<Vec<(ObjectId, Option<Bytes>)>, store::Error>;
type Rescued = (ObjectId, Result<(Bytes, Summary), Error>);

/// See the module.
pub(super) struct Supply {
    errand: Arc<Errand>,
    holders: Holders,
    open: HashMap<ObjectId, Open>,
    /// Objects that are in the store.
    to_read: VecDeque<ObjectId>,
    /// Objects to be asked for, in the order in which they are wanted.
    queue: VecDeque<ObjectId>,
    /// Objects that no holder has.
    parked: VecDeque<ObjectId>,
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    asks: FuturesUnordered<BoxFuture<'static, Asked>>,
    arrived: Vec<(ObjectId, PeerNo, Unproven)>,
    proofs: FuturesUnordered<BoxFuture<'static, Result<Vec<Proved>, store::Error>>>,
    rescues: FuturesUnordered<BoxFuture<'static, Rescued>>,
    ticks: Interval,
    /// Bytes that have come of objects that are not whole, since that last counted as something.
    flowed: u64,
    /// What fetches of single objects did.
    others: Summary,
}

impl Supply {
    /// Nothing wanted yet.
    pub(super) fn new(errand: Arc<Errand>, holders: Holders) -> Self {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            errand,
            holders,
            open: HashMap::new(),
            to_read: VecDeque::new(),
            queue: VecDeque::new(),
            parked: VecDeque::new(),
            reads: FuturesUnordered::new(),
            asks: FuturesUnordered::new(),
            arrived: Vec::new(),
            proofs: FuturesUnordered::new(),
            rescues: FuturesUnordered::new(),
            ticks,
            flowed: 0,
            others: Summary::default(),
        }
    }

    fn parts(&self) -> &Arc<Parts> {
        &self.errand.parts
    }

    /// Wants an object of 1 byte to 1 MiB. `is_here`: it is in the store, where the lease holds it.
    pub(super) fn want(&mut self, id: ObjectId, length: u32, is_here: bool) {
        if self.open.contains_key(&id) {
            return;
        }
        let open = Open {
            length,
            asked: None,
            came: Came::default(),
            told: 0,
            lacking: Vec::new(),
            late: Vec::new(),
            rescue_at: Instant::now(),
            rest: AGAIN.0,
        };
        self.open.insert(id, open);
        if is_here {
            self.to_read.push_back(id);
        } else {
            if !self.awaits() {
                self.errand.pulse.beat();
            }
            self.queue.push_back(id);
        }
    }

    /// Whether it waits for peers.
    fn awaits(&self) -> bool {
        !(self.queue.is_empty() && self.parked.is_empty() && self.asks.is_empty() && self.rescues.is_empty())
    }

    /// Objects that have come, in any order, each once. Pending while nothing is wanted. Cancel-safe.
    ///
    /// # Errors
    /// [`Halt`].
    pub(super) async fn next(&mut self) -> Result<Vec<(ObjectId, Bytes)>, Halt> {
        loop {
            self.begin();
            let given = tokio::select! {
                Some(asked) = self.asks.next() => {
                    self.answered(asked);
                    while let Some(Some(asked)) = self.asks.next().now_or_never() {
                        self.answered(asked);
                    }
                    Vec::new()
                }
                Some(proved) = self.proofs.next() => self.proved(proved?),
                Some(read) = self.reads.next() => self.read(read?),
                Some((id, rescued)) = self.rescues.next() => self.rescued(id, rescued)?,
                () = self.holders.changed() => {
                    // Whoever has come may have what the others lack.
                    self.queue.append(&mut self.parked);
                    Vec::new()
                }
                _ = self.ticks.tick() => {
                    self.tick()?;
                    Vec::new()
                }
            };
            if !given.is_empty() {
                return Ok(given);
            }
        }
    }

    /// Begins what can be begun.
    fn begin(&mut self) {
        while !self.to_read.is_empty() && self.reads.len() < READ.1 {
            let count = self.to_read.len().min(READ.0);
            let batch = self.to_read.drain(..count).filter_map(|id| Some((id, self.open.get(&id)?.length)));
            let batch: Vec<ObjectId> = batch.map(|(id, _)| id).collect();
            let chunks = batch.iter().filter_map(|id| self.chunk(id)).collect();
            let store = self.parts().store.clone();
            self.reads.push(Box::pin(async move {
                let chunks = store.chunks(chunks).await?.into_iter();
                Ok(batch.into_iter().zip(chunks.map(|chunk| chunk.map(Chunk::into_bytes))).collect())
            }));
        }
        self.ask_for_queued();
        while !self.arrived.is_empty() && self.proofs.len() < PROVING {
            self.prove();
        }
        let now = Instant::now();
        for _ in 0..self.parked.len().min(LOOK) {
            if !self.holders.is_quiet() || self.rescues.len() >= RESCUES {
                break;
            }
            let Some(id) = self.parked.pop_front() else { break };
            match self.open.get(&id) {
                Some(open) if open.rescue_at <= now => self.rescue(id),
                _ => self.parked.push_back(id),
            }
        }
    }

    fn chunk(&self, id: &ObjectId) -> Option<ChunkRef> {
        let length = self.open.get(id)?.length;
        Some(ChunkRef { id: id.only_chunk(), place: Place::Root, length })
    }

    /// Asks the holders that have room for what is in the queue.
    fn ask_for_queued(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        self.holders.need();
        let now = Instant::now();
        let mut waiting = VecDeque::new();
        while let Some(id) = self.queue.pop_front() {
            let Some(open) = self.open.get_mut(&id) else { continue };
            let avoid = [open.lacking.as_slice(), open.late.as_slice()].concat();
            let mut choice = self.holders.choose(open.length, &avoid, now);
            if choice == Choice::Nobody && !open.late.is_empty() {
                open.late.clear();
                choice = self.holders.choose(open.length, &open.lacking, now);
            }
            match choice {
                Choice::Ask(peer) => self.ask(id, peer),
                Choice::Nobody => self.parked.push_back(id),
                Choice::Wait => {
                    let is_any = avoid.is_empty();
                    waiting.push_back(id);
                    if is_any || waiting.len() >= LOOK {
                        break;
                    }
                }
            }
        }
        while let Some(id) = waiting.pop_back() {
            self.queue.push_front(id);
        }
    }

    fn ask(&mut self, id: ObjectId, peer: PeerNo) {
        let (Some(chunk), Some(member)) = (self.chunk(&id), self.holders.get(peer)) else { return };
        let (handle, registration) = AbortHandle::new_pair();
        let (asker, heard, came) = (member.asker.clone(), Arc::clone(&member.heard), Came::default());
        let asking = ask(Arc::clone(self.parts()), asker, heard, chunk, came.clone());
        let asking = Abortable::new(asking, registration);
        self.asks.push(Box::pin(async move { (id, peer, asking.await.ok()) }));
        self.holders.asked(peer, chunk.length);
        if let Some(open) = self.open.get_mut(&id) {
            open.asked = Some((peer, Instant::now(), handle));
            (open.came, open.told) = (came, 0);
        }
    }

    /// Begins to prove and store a batch of what has arrived.
    fn prove(&mut self) {
        let mut bytes = 0;
        let fits = self.arrived.iter().take_while(|(_, _, unproven)| {
            bytes += unproven.reference.length as usize;
            bytes <= BATCH
        });
        let count = fits.count().max(1);
        let batch: Vec<_> = self.arrived.drain(..count).collect();
        let (pool, lease) = (self.parts().pool.clone(), Arc::clone(&self.errand.lease));
        self.proofs.push(Box::pin(async move {
            let verify =
                |(id, peer, unproven): (ObjectId, PeerNo, Unproven)| (id, peer, unproven.verify().ok());
            let proved: Vec<Proved> = pool.run(move || batch.into_iter().map(verify).collect()).await;
            let chunks = proved.iter().filter_map(|(.., chunk)| chunk.clone()).map(store::Item::Chunk);
            lease.put_all(chunks.collect()).await?;
            Ok(proved)
        }));
    }

    /// Begins to fetch an object that no holder has, as any object is fetched.
    fn rescue(&mut self, id: ObjectId) {
        let Some(length) = self.open.get(&id).map(|open| open.length) else { return };
        let terms = Terms { once: true, ..self.errand.terms(length.into(), Vec::new()) };
        let whole = large::whole(Arc::clone(&self.errand), id, terms);
        self.rescues.push(Box::pin(async move { (id, whole.await) }));
    }

    /// Sessions with all holders.
    pub(super) fn askers(&self) -> Vec<Asker> {
        self.holders.askers()
    }

    /// Peers connected to.
    pub(super) fn peers(&self) -> usize {
        self.holders.crowd.len()
    }

    /// Tells who was asked, and what they said, where anybody wants to know; so many files are missing, and nobody who
    /// was asked has so many of them.
    pub(super) fn report(&self, missing: u64, unheld: u64) {
        self.holders.crowd.report(|crowd| Findings {
            chunks: 0,
            missing,
            unheld,
            asked: crowd.asked(0, |_| None),
        });
    }

    /// Bytes by peer, and what was rebuilt, with what `other` fetches did.
    pub(super) fn summary(&self) -> Summary {
        let mut summary = self.others.clone();
        add_peers(&mut summary, self.holders.crowd.bytes_by_peer());
        summary
    }

    /// A fetch of a single object of the same directory has ended.
    pub(super) fn also(&mut self, other: &Summary) {
        add_peers(&mut self.others, other.peers.iter().copied());
        self.others.rebuilt += other.rebuilt;
    }
}

fn add_peers(summary: &mut Summary, peers: impl IntoIterator<Item = (crate::peer::PeerId, u64)>) {
    for (peer, bytes) in peers {
        match summary.peers.iter_mut().find(|(known, _)| *known == peer) {
            Some((_, sum)) => *sum += bytes,
            None => summary.peers.push((peer, bytes)),
        }
    }
}

async fn ask(parts: Arc<Parts>, asker: Asker, heard: Arc<Heard>, chunk: ChunkRef, came: Came) -> Outcome {
    let length = chunk.length as usize;
    let mut open = heard.ask(&parts.download, length).await;
    let answer = asker.want_counted(chunk, &came).await;
    open.answered();
    if !matches!(answer, Ok(Answer::Found(_))) {
        // Others may have what the limit let pass and did not come.
        parts.download.give_back(length.saturating_sub(came.bytes() as usize));
    }
    match answer {
        Ok(Answer::Found(unproven)) => Outcome::Arrived(unproven),
        Ok(Answer::NotFound) => Outcome::NotFound,
        Ok(Answer::Busy(after)) => Outcome::Busy(after),
        Err(error) if error.is_strike() => Outcome::Bad,
        Err(_) => Outcome::Failed,
    }
}
