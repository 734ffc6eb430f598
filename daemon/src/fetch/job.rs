//! One fetch: the planner's events come from sockets, its actions go to them.

mod begin;
mod kind;
mod mend;
mod news;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use tokio::sync::mpsc;

use super::asks::{Ask, Asks, Ended, Outcome, Sight};
use super::crowd::{Arrival, Crowd};
use super::deliver::Delivery;
use super::error::name_missing;
use super::inquiry::Findings;
use super::planner::{self, Action, Bits, Credits, Has, PeerNo, Plan, Planner, Shard};
use super::repair::{Parity, Rebuilt};
use super::shape::{Shape, Wanted};
use super::shelf::{Order, Shelf};
use super::{Error, Event, Notice, Parts, Progress, Request, Summary, Terms, learn};
use crate::content::{CHUNK_LEN, ParityPage, ParityPart};
use crate::session::Have;
use crate::store::Lease;

pub(super) use begin::run;

use begin::Begun;
use news::Word;

/// How often a caller is told how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// Chunks that a reader in order may be ahead of: two for each of sixteen peers, and as many that have come before one
/// that is late. 64 MiB, of which what the reader has not taken is in the store, not in memory.
const WINDOW: u64 = 64;

/// An object is announced once this many of its chunks are here.
const ANNOUNCE_FROM: u64 = 16;

/// A parity part with its pages, from one peer.
type Part = Option<(ParityPart, Vec<ParityPage>)>;

/// The state of one fetch.
struct Job {
    parts: Arc<Parts>,
    request: Request,
    terms: Terms,
    shape: Shape,
    wanted: Wanted,
    crowd: Crowd,
    /// Keeps what arrives.
    lease: Arc<Lease>,
    started: Instant,
    planner: Planner,
    /// What the planner wants done.
    actions: Vec<Action>,
    shelf: Arc<Shelf>,
    asks: Asks,
    /// What the peers tell.
    news: SelectAll<BoxStream<'static, (PeerNo, Word)>>,
    /// Parity, once a peer has told of it.
    parity: Option<Parity>,
    learning: FuturesUnordered<BoxFuture<'static, Part>>,
    rebuilding: FuturesUnordered<BoxFuture<'static, (u32, Rebuilt)>>,
    /// No look-up or dial is going on.
    quiet: bool,
    /// Chunks of the object that are here.
    here: u64,
    /// The object was here whole once: what is missing has rotted.
    was_whole: bool,
    /// Whether others who fetch the object are told of this node: that it has it will be announced.
    is_told_of: bool,
    summary: Summary,
    /// For the rate: bytes from peers when it was last told.
    told: (Instant, u64),
}

impl Job {
    fn new(begun: Begun) -> Self {
        let Begun { parts, request, terms, shape, wanted, local, crowd, lease, started, was_whole } = begun;
        let shelf = Arc::new(Shelf::new(count(&wanted), request.order));
        let mut summary = Summary { size: shape.length(), ..Summary::default() };
        for index in local.ones(wanted.chunks.clone()) {
            let length = shape.chunk(index).map_or(0, |chunk| chunk.length as usize);
            summary.local += wanted.within(index, length).len() as u64;
            shelf.put(place(&wanted, index), None);
        }
        let here = local.count();
        let planner = Planner::new(plan(&parts, &request, &shape, &wanted, local));
        Self {
            planner,
            actions: Vec::new(),
            shelf,
            asks: Asks::default(),
            news: SelectAll::new(),
            parity: None,
            learning: FuturesUnordered::new(),
            rebuilding: FuturesUnordered::new(),
            quiet: false,
            here,
            was_whole,
            is_told_of: false,
            summary,
            told: (started, 0),
            parts,
            request,
            terms,
            shape,
            wanted,
            crowd,
            lease,
            started,
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs until every wanted byte has been given.
    async fn drive(&mut self, out: &mpsc::Sender<Result<Event, Error>>) -> Result<Summary, Error> {
        let (lost, mut losses) = mpsc::channel(4);
        let delivery = Delivery {
            store: self.parts.store.clone(),
            shape: self.shape.clone(),
            wanted: self.wanted.clone(),
            shelf: Arc::clone(&self.shelf),
            out: out.clone(),
            into: self.request.into.clone(),
            lost,
        };
        let mut delivery = std::pin::pin!(delivery.run());
        let mut ticks = tokio::time::interval(PROGRESS);
        let members: Vec<PeerNo> = self.crowd.members().map(|(peer, _)| peer).collect();
        self.tell(planner::Event::Tick);
        if self.was_whole && !self.planner.is_done() {
            self.learn_local_parity();
        }
        members.into_iter().for_each(|peer| self.joined(peer));
        loop {
            self.act();
            let wakeup =
                self.planner.next_wakeup().map(|at| tokio::time::sleep_until((self.started + at).into()));
            let wakeup = OptionFuture::from(wakeup);
            tokio::select! {
                given = &mut delivery => {
                    given?;
                    break;
                }
                ended = self.asks.next() => self.ended(ended)?,
                arrival = self.crowd.next(), if !self.quiet => match arrival {
                    Arrival::Joined(peer) => self.joined(peer),
                    Arrival::Left(peer) => {
                        self.asks.cancel_peer(peer);
                        self.tell(planner::Event::PeerLeft { peer });
                    }
                    Arrival::Quiet => self.quiet = true,
                },
                Some((peer, word)) = self.news.next() => self.heard(peer, word),
                Some(part) = self.learning.next() => self.learned(part),
                Some((stripe, rebuilt)) = self.rebuilding.next() => self.rebuilt(stripe, rebuilt)?,
                Some(chunk) = losses.recv() => self.lost(chunk),
                Some(()) = wakeup => self.tell(planner::Event::Tick),
                _ = ticks.tick() => {
                    self.look();
                    self.tick(out)?;
                }
            }
            if self.request.order == Order::InOrder {
                let chunk = self.wanted.chunks.start + self.shelf.low() as u64;
                self.tell(planner::Event::ReadTo { chunk });
            }
        }
        self.summary.peers = self.crowd.bytes_by_peer();
        let given = self.wanted.bytes.end - self.wanted.bytes.start;
        self.summary.written = self.request.into.as_ref().map_or(0, |_| given);
        self.summary.took = self.started.elapsed();
        Ok(self.summary.clone())
    }

    fn tell(&mut self, event: planner::Event) {
        let now = self.now();
        self.planner.on(event, now, &mut self.actions);
    }

    /// Does what the planner wants done.
    fn act(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Ask { peer, shard } => self.ask(peer, shard),
                Action::Cancel { peer, shard } => self.asks.cancel(peer, shard),
                Action::Rebuild { stripe } => self.rebuild(stripe),
                Action::Release { stripe } => {
                    if let Some(parity) = &mut self.parity {
                        parity.release(stripe);
                    }
                }
                Action::FindChunk { chunk } => {
                    if let Some(chunk) = self.shape.chunk(chunk) {
                        self.look_for(*chunk.id.as_bytes());
                    }
                }
                Action::NeedPeers => {
                    self.crowd.retry();
                    self.look_for(*self.request.id.as_bytes());
                }
                Action::Done => {}
            }
        }
    }

    fn look_for(&mut self, key: [u8; 32]) {
        self.crowd.look_for(key);
        self.quiet = false;
    }

    fn ask(&mut self, peer: PeerNo, shard: Shard) {
        let chunk = match shard {
            Shard::Data(index) => self.shape.chunk(index),
            Shard::Parity { stripe, index } => {
                self.parity.as_ref().and_then(|parity| parity.chunk(stripe, index))
            }
        };
        let (Some(chunk), Some(member)) = (chunk, self.crowd.get(peer)) else { return };
        let (parts, lease) = (Arc::clone(&self.parts), Arc::clone(&self.lease));
        let (asker, heard) = (member.asker.clone(), Arc::clone(&member.heard));
        self.asks.ask(peer, shard, Ask { parts, lease, asker, heard, chunk });
    }

    /// A peer can be asked: its credits, what it holds, and the parity it knows of.
    fn joined(&mut self, peer: PeerNo) {
        let Some(member) = self.crowd.get(peer) else { return };
        let asker = member.asker.clone();
        let (requests, bytes) = asker.grant();
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        self.tell(planner::Event::PeerJoined { peer, credits: Credits { requests, bytes: bytes as u64 } });
        if matches!(self.shape, Shape::Single(_)) {
            return self.tell(planner::Event::PeerHas { peer, has: Has::Whole });
        }
        if self.request.order == Order::InOrder {
            // Whoever reads wants the first chunks at once, and need not wait until it is said who holds them.
            self.tell(planner::Event::PeerHas { peer, has: Has::Unknown });
        }
        let id = self.request.id;
        if self.parity.is_none() {
            self.learning.push(Box::pin(learn::parity_of(asker.clone(), id)));
        }
        let (parts, joins) = (Arc::clone(&self.parts), self.is_told_of);
        self.news.push(news::news_of(parts, peer, asker, (id, joins)).boxed());
    }

    fn heard(&mut self, peer: PeerNo, word: Word) {
        match word {
            Word::Have(have) => self.has(peer, &have),
            Word::Given(chunks) => self.tell(planner::Event::Given { peer, chunks }),
            Word::Peers(others) => {
                self.crowd.meet(peer, others);
                self.quiet = false;
            }
            // It may be asked for what nobody is known to hold.
            Word::Silence => self.tell(planner::Event::PeerHas { peer, has: Has::Unknown }),
            Word::Nothing => {
                self.crowd.has_nothing(peer);
                self.tell(planner::Event::PeerHas { peer, has: Has::Unknown });
            }
        }
    }

    fn has(&mut self, peer: PeerNo, have: &Have) {
        self.crowd.has_something(peer);
        let chunks = self.shape.chunks();
        let has = match have {
            Have::Whole => Has::Whole,
            some => {
                let mut bits = Bits::new(chunks);
                some.indexes().filter(|index| *index < chunks).for_each(|index| _ = bits.set(index));
                Has::Bitmap(bits)
            }
        };
        self.tell(planner::Event::PeerHas { peer, has });
    }

    /// A request has ended.
    fn ended(&mut self, ended: Ended) -> Result<(), Error> {
        let Ended { peer, shard, outcome } = ended;
        let event = match outcome {
            Outcome::Chunk(chunk) => {
                let bytes = chunk.bytes().len() as u64;
                self.crowd.gave(peer, bytes);
                self.terms.beat();
                match shard {
                    Shard::Data(index) => self.stored(index, chunk.into_bytes())?,
                    Shard::Parity { stripe, index } => {
                        if let Some(parity) = self.parity.as_mut().filter(|_| self.planner.wants(shard)) {
                            parity.keep(stripe, index, chunk);
                        }
                    }
                }
                planner::Event::Arrived { peer, shard, bytes }
            }
            Outcome::NotFound => {
                if self.planner.was_promised(peer, shard) {
                    self.crowd.broke_word(peer);
                }
                planner::Event::NotFound { peer, shard }
            }
            Outcome::Busy(retry_after) => planner::Event::Busy { peer, shard, retry_after },
            Outcome::Bad => {
                self.tell(planner::Event::Bad { peer, shard });
                self.asks.cancel_peer(peer);
                self.crowd.strike(peer);
                return Ok(());
            }
            Outcome::Failed => {
                self.tell(planner::Event::Failed { peer, shard });
                if self.crowd.get(peer).is_some_and(|member| member.asker.is_closed()) {
                    self.asks.cancel_peer(peer);
                    self.crowd.lost(peer);
                    self.tell(planner::Event::PeerLeft { peer });
                }
                return Ok(());
            }
            Outcome::Store(error) => return Err(error.into()),
        };
        self.tell(event);
        Ok(())
    }

    /// A data chunk is proved and stored.
    fn stored(&mut self, index: u64, bytes: Bytes) -> Result<(), Error> {
        if !self.planner.wants(Shard::Data(index)) {
            return Ok(());
        }
        self.check_kind(index, &bytes)?;
        self.here += 1;
        self.parts.board.stored(&self.request.id, index);
        if self.wanted.chunks.contains(&index) {
            self.shelf.put(place(&self.wanted, index), Some(bytes));
        }
        if self.here == ANNOUNCE_FROM && !matches!(self.shape, Shape::Part(_)) {
            self.notice();
        }
        Ok(())
    }

    /// Tells the announcing schedule that this node holds (some of) the object.
    fn notice(&self) {
        let _ = self.parts.notices.try_send(Notice::Holds(self.request.id));
    }

    /// Twice a second: tells what is on its way, long before it is whole.
    fn look(&mut self) {
        let before = self.planner.moved_at();
        for (peer, shard, sight) in self.asks.look() {
            match sight {
                Sight::Held => self.tell(planner::Event::Held { peer, shard }),
                Sight::Came(bytes, more) => {
                    self.crowd.flows(peer, more);
                    self.tell(planner::Event::Came { peer, shard, bytes });
                }
            }
        }
        if self.planner.moved_at() > before {
            self.terms.beat();
        }
    }

    /// Tells who was asked and what they said; `is_still`: nothing has come since the last time.
    fn report(&self, is_still: bool) {
        let (planner, chunks) = (&self.planner, self.shape.chunks());
        let is_single = matches!(self.shape, Shape::Single(_));
        self.crowd.report(|crowd| Findings {
            chunks,
            missing: planner.progress().missing,
            unheld: if is_still { planner.unheld() } else { 0 },
            // Who has come has not said yet that it has the only one.
            asked: crowd.asked(chunks, |peer| planner.holds(peer).filter(|_| !is_single)),
        });
    }

    /// Twice a second: progress, and whether it has stalled.
    fn tick(&mut self, out: &mpsc::Sender<Result<Event, Error>>) -> Result<(), Error> {
        // Whoever reads what has rotted here, and knows nobody to ask, need not wait for long; but for what is being
        // rebuilt here, however slow the disk is.
        let is_idle = self.quiet && self.learning.is_empty() && self.rebuilding.is_empty();
        let is_alone = self.was_whole && is_idle && self.crowd.len() == 0;
        let limit = if is_alone { self.request.stall.min(self.request.alone) } else { self.request.stall };
        let whole: u64 = self.crowd.bytes_by_peer().iter().map(|(_, bytes)| bytes).sum();
        let received = whole + self.asks.came();
        self.report(received == self.told.1);
        if self.planner.is_stalled(self.now(), limit) {
            let missing: Vec<u64> = self.planner.missing().collect();
            let (id, seconds) = (self.request.id, self.request.stall.as_secs());
            let missing = name_missing(&missing, self.shape.chunks());
            return Err(match self.was_whole {
                true => Error::Damaged { id, missing },
                false => Error::Stalled { id, seconds, missing, holders: self.crowd.told() },
            });
        }
        let (since, before) = std::mem::replace(&mut self.told, (Instant::now(), received));
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let missing = self.planner.progress().missing.saturating_mul(CHUNK_LEN);
        let length = self.wanted.bytes.end - self.wanted.bytes.start;
        let progress = Progress {
            bytes: length.saturating_sub(missing),
            local: self.summary.local,
            peers: self.crowd.len(),
            rate: received.saturating_sub(before).saturating_mul(1000) / millis,
            files: (0, 0),
        };
        // A caller that has bytes waiting needs no progress.
        let _ = out.try_send(Ok(Event::Progress(progress)));
        Ok(())
    }
}

/// Wanted chunks.
fn count(wanted: &Wanted) -> usize {
    usize::try_from(wanted.chunks.end - wanted.chunks.start).unwrap_or(usize::MAX)
}

/// The place of chunk `index` on the shelf.
fn place(wanted: &Wanted, index: u64) -> usize {
    usize::try_from(index - wanted.chunks.start).unwrap_or(usize::MAX)
}

fn plan(parts: &Parts, request: &Request, shape: &Shape, wanted: &Wanted, local: Bits) -> Plan {
    Plan {
        length: shape.length(),
        wanted: wanted.chunks.clone(),
        local,
        stripes: Vec::new(),
        order: match request.order {
            Order::Any | Order::Nothing => planner::Order::Rarest,
            Order::InOrder => planner::Order::InOrder { window: WINDOW },
        },
        limits: planner::Limits { in_flight: parts.options.in_flight },
        seed: rand::random(),
    }
}
