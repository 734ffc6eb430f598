//! Virtual time: the hosts, the fetcher's downlink, and the caller of the planner.

mod hosts;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::super::{Action, Event, Has, Order, PeerNo, Planner, Shard};
use super::check::Books;
use super::network::Dice;
use super::{Entry, Network, PartTruth};

/// A fetch that is silent for this long has stalled: longer than any backoff and any patience.
const SILENCE: Duration = Duration::from_secs(300);

/// How long a rebuild takes.
const REBUILD: Duration = Duration::from_millis(20);

/// Bytes that pass the downlink at a time.
const SLICE: u64 = 128 << 10;

/// How a fetch ended.
#[derive(Clone, Debug)]
pub(in super::super) struct Outcome {
    /// When the last wanted chunk came, or the fetch went silent.
    pub(in super::super) time: Duration,
    /// The wanted chunks that are not here.
    pub(in super::super) missing: Vec<u64>,
    /// Bytes that each host delivered.
    pub(in super::super) delivered: Vec<u64>,
    /// Requests sent, requests cancelled, rebuilds ordered, chunk keys looked up.
    pub(in super::super) asks: usize,
    pub(in super::super) cancels: usize,
    pub(in super::super) rebuilds: usize,
    pub(in super::super) finds: Vec<u64>,
    /// The longest time in which the planner saw no progress.
    pub(in super::super) silence: Duration,
    /// When the first wanted chunk came to be here.
    pub(in super::super) first: Option<Duration>,
    /// Everything that was asked, in order.
    pub(in super::super) asked: Vec<(Duration, PeerNo, Shard)>,
    /// The wanted chunks in the order in which they came to be here.
    pub(in super::super) order: Vec<u64>,
}

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Todo {
    Join(usize),
    Tell(usize, u64),
    Leave(usize),
    Request(usize, u64, Shard),
    Cancelled(usize, u64),
    Sent(usize, u64),
    Slice,
    Watch,
    Answer(usize, u64, Shard, Answer),
    Rebuilt(u32),
    Part,
    Read(u64),
    Wake(u64),
}

/// What a host answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Data,
    Bad,
    NotFound,
    Busy,
    Failed,
}

/// A host at work.
#[derive(Debug, Default)]
struct Server {
    /// It has joined and not left.
    here: bool,
    /// It will not join again.
    spent: bool,
    /// Accepted requests; the first is being sent.
    queue: VecDeque<(u64, Shard)>,
    /// The first of the queue is sent but for its last slice, which waits for the downlink.
    blocked: bool,
    /// An earlier answer is still going through the downlink.
    passing: bool,
    /// Since when and until when the first of the queue is sent.
    began: Duration,
    ends: Duration,
    /// Bytes sent on its connection, with the first of the queue.
    sent: u64,
}

/// An answer on its way through the downlink.
#[derive(Debug)]
struct Passing {
    host: usize,
    ticket: u64,
    shard: Shard,
    answer: Answer,
    /// Bytes that are not through.
    left: u64,
}

/// One run.
pub(in super::super) struct World {
    network: Network,
    planner: Planner,
    books: Books,
    servers: Vec<Server>,
    todo: BinaryHeap<Reverse<(Duration, u64, Todo)>>,
    /// Numbers everything that is scheduled, so that equal times keep their order.
    sequence: u64,
    /// The request that is outstanding for a peer and a shard.
    tickets: BTreeMap<(PeerNo, Shard), u64>,
    /// What goes through the downlink: a slice of each in turn, one answer of a host at a time.
    downlink: VecDeque<Passing>,
    /// The reader's next chunk.
    reader: u64,
    /// The true part has taken the place of the false one.
    part: PartTruth,
    /// It is looked at again what is on its way.
    watching: bool,
    wakes: u64,
    now: Duration,
    progress_at: Duration,
    dice: Dice,
    verbose: bool,
    outcome: Outcome,
}

impl World {
    /// Runs a network to its end, checking every step.
    pub(in super::super) fn run(network: Network, verbose: bool) -> Outcome {
        let mut world = Self::new(network, verbose);
        world.start();
        let mut steps = 0;
        while !world.books.done {
            let Some(Reverse((at, _, todo))) = world.todo.pop() else { break };
            if at > world.progress_at + SILENCE && at > SILENCE {
                assert!(world.reading() || world.planner.is_stalled(at, SILENCE), "silent and not stalled");
                break;
            }
            if world.planner.is_stalled(at, 4 * SILENCE) {
                // Parity goes on coming for stripes that take turns in too little room: no progress, says the planner.
                break;
            }
            world.now = at;
            world.step(todo);
            steps += 1;
            assert!(steps < 3_000_000, "does not end");
        }
        world.end()
    }

    fn new(network: Network, verbose: bool) -> Self {
        let outcome = Outcome {
            time: Duration::ZERO,
            missing: Vec::new(),
            delivered: vec![0; network.hosts.len()],
            asks: 0,
            cancels: 0,
            rebuilds: 0,
            finds: Vec::new(),
            silence: Duration::ZERO,
            first: None,
            asked: Vec::new(),
            order: Vec::new(),
        };
        Self {
            planner: Planner::new(network.plan.clone()),
            books: Books::new(&network.plan),
            servers: network.hosts.iter().map(|_| Server::default()).collect(),
            todo: BinaryHeap::new(),
            sequence: 0,
            tickets: BTreeMap::new(),
            downlink: VecDeque::new(),
            reader: network.plan.wanted.start,
            part: network.part,
            watching: false,
            wakes: 0,
            now: Duration::ZERO,
            progress_at: Duration::ZERO,
            dice: Dice(network.seed ^ 0x0053_494d),
            verbose,
            network,
            outcome,
        }
    }

    fn start(&mut self) {
        for at in 0..self.servers.len() {
            if let Entry::At(time) = self.network.hosts[at].entry {
                self.schedule(time, Todo::Join(at));
            }
        }
        if let Some(at) = self.network.part_at {
            self.schedule(at, Todo::Part);
        }
        if self.network.reads.is_some() {
            self.schedule(Duration::ZERO, Todo::Read(self.reader));
        }
        self.tell(Event::Tick);
        for (stripe, shape) in (0..).zip(self.network.plan.stripes.clone()) {
            for index in 0..shape.parity {
                if !self.books.done && self.dice.below(100) < self.network.stored {
                    self.tell(Event::Local { shard: Shard::Parity { stripe, index } });
                }
            }
        }
    }

    fn schedule(&mut self, at: Duration, todo: Todo) {
        self.sequence += 1;
        self.todo.push(Reverse((at, self.sequence, todo)));
    }

    /// Tells the planner, does what it says, arranges to wake it.
    fn tell(&mut self, event: Event) {
        if self.books.done {
            return;
        }
        if self.verbose {
            println!("{:?} <- {event:?}", self.now);
        }
        self.books.event(&event);
        self.note_progress(&event);
        let silence = self.now.saturating_sub(self.planner.moved_at());
        self.outcome.silence = self.outcome.silence.max(silence);
        let mut actions = Vec::new();
        self.planner.on(event, self.now, &mut actions);
        for &action in &actions {
            if self.verbose {
                println!("{:?} -> {action:?}", self.now);
            }
            self.books.action(action);
            self.act(action);
        }
        self.books.doubt(&self.planner.flight.doubted);
        for action in actions {
            if let Action::Ask { shard: shard @ Shard::Parity { stripe, .. }, .. } = action
                && self.tickets.keys().filter(|(_, other)| *other == shard).count() == 1
            {
                self.books.stripe_bound(stripe);
            }
        }
        self.wakes += 1;
        if let Some(at) = self.planner.next_wakeup() {
            // Clocks are no finer than a microsecond.
            self.schedule(at.max(self.now + Duration::from_micros(1)), Todo::Wake(self.wakes));
        }
    }

    fn note_progress(&mut self, event: &Event) {
        let came = match event {
            Event::Arrived { shard: Shard::Data(chunk), .. } => vec![*chunk],
            Event::Rebuilt { chunks, .. } => chunks.clone(),
            Event::Arrived { .. } | Event::Came { .. } | Event::Local { .. } | Event::ReadTo { .. } => {
                Vec::new()
            }
            _ => return,
        };
        self.progress_at = self.now;
        if came.contains(&self.network.plan.wanted.start) {
            self.outcome.first.get_or_insert(self.now);
        }
        self.outcome.order.extend(came);
    }

    /// Whether it is the reader's turn.
    fn reading(&self) -> bool {
        let mut window = self.window();
        self.network.plan.order != Order::Rarest && window.all(|chunk| self.books.have.get(chunk))
    }

    /// The chunks that the planner may ask for.
    fn window(&self) -> Range<u64> {
        let wanted = self.network.plan.wanted.clone();
        match self.network.plan.order {
            Order::InOrder { window } if self.reader < wanted.end => {
                self.reader..self.reader.saturating_add(window.max(1)).min(wanted.end)
            }
            _ => wanted,
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Ask { peer, shard } => {
                let host = peer.0 as usize;
                self.sequence += 1;
                let ticket = self.sequence;
                self.tickets.insert((peer, shard), ticket);
                self.outcome.asks += 1;
                self.outcome.asked.push((self.now, peer, shard));
                self.schedule(self.now + self.network.hosts[host].delay, Todo::Request(host, ticket, shard));
            }
            Action::Cancel { peer, shard } => {
                let (host, ticket) = (peer.0 as usize, self.tickets.remove(&(peer, shard)).unwrap());
                self.outcome.cancels += 1;
                self.schedule(self.now + self.network.hosts[host].delay, Todo::Cancelled(host, ticket));
            }
            Action::Rebuild { stripe } => {
                self.outcome.rebuilds += 1;
                self.schedule(self.now + REBUILD, Todo::Rebuilt(stripe));
            }
            Action::FindChunk { chunk } => {
                self.outcome.finds.push(chunk);
                self.summon(|host| host.entry == Entry::OnFind && host.holds.get(chunk));
            }
            Action::NeedPeers => self.summon(|host| host.entry == Entry::OnNeed),
            Action::Release { .. } | Action::Done => {}
        }
    }

    fn summon(&mut self, which: impl Fn(&super::Host) -> bool) {
        for at in 0..self.servers.len() {
            if which(&self.network.hosts[at]) {
                self.schedule(self.now + Duration::from_millis(500), Todo::Join(at));
            }
        }
    }

    fn step(&mut self, todo: Todo) {
        match todo {
            Todo::Join(at) => self.join(at),
            Todo::Tell(at, from) => self.tell_more(at, from),
            Todo::Leave(at) => self.leave(at, true),
            Todo::Request(at, ticket, shard) => self.request(at, ticket, shard),
            Todo::Cancelled(at, ticket) => self.cancelled(at, ticket),
            Todo::Sent(at, ticket) => self.sent(at, ticket),
            Todo::Slice => self.slice(),
            Todo::Watch => self.watch(),
            Todo::Answer(at, ticket, shard, answer) => self.answer(at, ticket, shard, answer),
            Todo::Rebuilt(stripe) => self.rebuilt(stripe),
            Todo::Part => {
                self.part = PartTruth::True;
                let stripes = self.network.stripes.clone();
                self.tell(Event::ParityKnown { stripes });
            }
            Todo::Read(chunk) => self.read(chunk),
            Todo::Wake(number) if number == self.wakes => self.tell(Event::Tick),
            Todo::Wake(_) => {}
        }
    }

    /// The local store has surprises.
    fn damage(&mut self) {
        let chunk = self.dice.below(self.books.have.len());
        if self.books.done || self.dice.below(1000) >= self.network.damage {
        } else if self.books.have.get(chunk) {
            self.tell(Event::Lost { chunk });
        } else {
            self.tell(Event::Local { shard: Shard::Data(chunk) });
        }
    }

    fn rebuilt(&mut self, stripe: u32) {
        let Some(&shape) = self.books.stripes().get(stripe as usize) else { return };
        if self.part == PartTruth::False {
            self.tell(Event::RebuildFailed { stripe });
            return self.schedule(self.now + Duration::from_secs(2), Todo::Part);
        }
        let all = shape.first..shape.first + u64::from(shape.data);
        let chunks = all.filter(|&chunk| !self.books.have.get(chunk)).collect();
        self.tell(Event::Rebuilt { stripe, chunks });
    }

    fn read(&mut self, chunk: u64) {
        let (Some(each), wanted) = (self.network.reads, self.network.plan.wanted.clone()) else { return };
        if self.books.done || chunk >= wanted.end {
            return;
        }
        if !self.books.have.get(chunk) {
            return self.schedule(self.now + Duration::from_millis(10), Todo::Read(chunk));
        }
        let next = if self.network.damage > 0 && self.dice.one_in(20) { wanted.start } else { chunk + 1 };
        self.reader = next;
        self.tell(Event::ReadTo { chunk: next });
        self.schedule(self.now + each, Todo::Read(next));
    }

    /// What must hold when all is over.
    fn end(mut self) -> Outcome {
        self.outcome.time = if self.books.done { self.now } else { self.progress_at };
        self.outcome.missing = self.planner.missing().collect();
        let wanted = self.network.plan.wanted.clone();
        let absent: Vec<u64> = wanted.filter(|&chunk| !self.books.have.get(chunk)).collect();
        assert_eq!(self.outcome.missing, absent, "missing chunks are not named");
        assert_eq!(self.books.done, absent.is_empty(), "the end does not fit what is here");
        let window = self.window();
        for &chunk in absent.iter().filter(|chunk| window.contains(chunk)) {
            assert!(!self.obtainable(Shard::Data(chunk)), "chunk {chunk} could have been had");
            self.assert_hopeless(chunk);
        }
        self.outcome
    }

    /// Whether a reliable host that is here gives a shard.
    fn obtainable(&self, shard: Shard) -> bool {
        let reliable = |(server, host): (&Server, &super::Host)| {
            let holds = match shard {
                Shard::Data(chunk) => host.holds.get(chunk) && (host.claims.get(chunk) && !host.silent),
                Shard::Parity { .. } => host.parity,
            };
            server.here && host.is_reliable() && holds
        };
        self.servers.iter().zip(&self.network.hosts).any(reliable)
    }

    /// Parity cannot bring a chunk either.
    fn assert_hopeless(&self, chunk: u64) {
        let Some(no) = self.books.stripe_of(Shard::Data(chunk)) else { return };
        let stripe = self.books.stripes()[no as usize];
        let data = stripe.first..stripe.first + u64::from(stripe.data);
        let data = data.filter(|&chunk| self.books.have.get(chunk) || self.obtainable(Shard::Data(chunk)));
        let parity = (0..stripe.parity).map(|index| Shard::Parity { stripe: no, index });
        let parity = parity.filter(|&shard| self.books.is_stored(shard) || self.obtainable(shard));
        let shards = data.count() + parity.count();
        assert!(shards < usize::from(stripe.data), "{stripe:?} could have been rebuilt for {chunk}");
    }
}

/// The time that `bytes` take at `rate` bytes a second.
pub(super) fn takes(bytes: u64, rate: u64) -> Duration {
    Duration::from_micros(bytes * 1_000_000 / rate)
}

/// A host's number as a peer.
fn number(at: usize) -> PeerNo {
    PeerNo(u32::try_from(at).unwrap())
}
