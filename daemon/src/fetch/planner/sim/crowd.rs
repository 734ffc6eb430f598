//! A crowd over a virtual network: one holder, and many who begin at the same time, each with a planner of its own.
//!
//! Every host has one line up and one down, each of one rate, and as far to the next as to any other. A line up carries
//! a slice of each asker in turn, a line down what comes as it comes. Whoever asks hears what another one has a tenth
//! of a second later at most, and what the holder gives to others a fiftieth. What is drawn from the seed is the order
//! in which each planner would ask.
//!
//! A failure prints its seed. `CASD_SIM_SEED=N cargo test -p casd sim::crowd -- --nocapture` runs only that one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use super::super::runs::mix;
use super::super::{Action, Bits, Credits, Event, Has, Limits, Order, PeerNo, Plan, Planner, Shard};
use super::network::MBIT;
use super::world::takes;
use crate::content::CHUNK_LEN;

/// What passes a line at a time.
const SLICE: u64 = 128 << 10;

/// Slices of a chunk.
const SLICES: u64 = CHUNK_LEN / SLICE;

/// How long news are gathered: of chunks, and of what the holder gives.
const NEWS_EVERY: Duration = Duration::from_millis(100);
const GIVEN_EVERY: Duration = Duration::from_millis(20);

/// How often a planner is told of what is on its way.
const WATCH: Duration = Duration::from_millis(500);

/// How long until those who are told of each other have a session.
const MEETING: Duration = Duration::from_millis(50);

/// A crowd and its lines.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    /// Chunks of the object, all whole.
    chunks: u64,
    /// Who fetches, besides the holder.
    fetchers: usize,
    /// Bytes a second of everybody's line down, and of the holder's up.
    rate: u64,
    /// Bytes a second of each fetcher's line up.
    up: u64,
    /// One way.
    delay: Duration,
    /// Whether the fetchers are told of each other.
    meets: bool,
    /// Whether they are told what the holder gives.
    spreads: bool,
    seed: u64,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Until the last one had everything.
    time: Duration,
    /// Bytes that the holder sent, in objects.
    copies: f64,
}

/// What is to happen. The numbers are hosts, tickets and chunks.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Todo {
    /// Two fetchers have a session: the first can ask the second.
    Meet(usize, usize),
    /// A request reaches a giver, or its end does.
    Request {
        giver: usize,
        asker: usize,
        ticket: u64,
        chunk: u64,
    },
    Cancelled {
        giver: usize,
        asker: usize,
        ticket: u64,
    },
    /// A slice has left a giver.
    Sent(usize),
    /// A slice reaches the line down of its asker, and has passed it.
    Reaches(Slice),
    Passed(usize),
    /// What has been gathered for another is told, and heard.
    Tell(usize, usize),
    Hear {
        by: usize,
        of: usize,
        has: Vec<u64>,
        given: Vec<u64>,
    },
    Watch(usize),
    Wake(usize, u64),
}

/// Part of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slice {
    giver: usize,
    asker: usize,
    ticket: u64,
    chunk: u64,
    /// It is the last one of its chunk.
    is_last: bool,
}

/// A chunk that is being sent.
#[derive(Debug)]
struct Sending {
    ticket: u64,
    chunk: u64,
    /// Slices that have gone.
    sent: u64,
}

/// What one host gathers for another.
#[derive(Debug, Default)]
struct News {
    /// The other one is told.
    is_wanted: bool,
    /// Until then it is told nothing more.
    rest: Duration,
    /// A telling is due.
    is_due: bool,
    has: Vec<u64>,
    given: Vec<u64>,
}

/// A host.
struct Host {
    /// Of a fetcher.
    planner: Option<Planner>,
    have: Bits,
    /// What it has asked for: of whom, which chunk; and how many slices of that have come.
    tickets: BTreeMap<(usize, u64), (u64, u64)>,
    /// What each other has asked of it, the first first.
    asked: Vec<VecDeque<Sending>>,
    /// Whose turn on the line up was last.
    turn: usize,
    /// The slice on the line up, and those before and on the line down.
    sending: Option<Slice>,
    arriving: VecDeque<Slice>,
    /// For each other.
    news: Vec<News>,
    wakes: u64,
}

struct World {
    crowd: Crowd,
    hosts: Vec<Host>,
    todo: BinaryHeap<Reverse<(Duration, u64, Todo)>>,
    sequence: u64,
    now: Duration,
    /// Chunks that the holder has been asked for.
    spread: Bits,
    /// Slices that it has sent.
    sent: u64,
    /// Fetchers that have everything.
    done: usize,
}

impl Host {
    fn new(crowd: &Crowd, number: usize) -> Self {
        let others = crowd.fetchers + 1;
        let plan = Plan {
            length: crowd.chunks * CHUNK_LEN,
            wanted: 0..crowd.chunks,
            local: Bits::new(crowd.chunks),
            stripes: Vec::new(),
            order: Order::Rarest,
            limits: Limits { in_flight: crate::fetch::Options::default().in_flight },
            seed: mix(crowd.seed << 8 | number as u64),
        };
        Self {
            planner: (number > 0).then(|| Planner::new(plan)),
            have: if number > 0 { Bits::new(crowd.chunks) } else { Bits::full(crowd.chunks) },
            tickets: BTreeMap::new(),
            asked: (0..others).map(|_| VecDeque::new()).collect(),
            turn: 0,
            sending: None,
            arriving: VecDeque::new(),
            news: (0..others).map(|_| News::default()).collect(),
            wakes: 0,
        }
    }
}

impl World {
    fn run(crowd: Crowd) -> Outcome {
        let mut world = Self {
            hosts: (0..=crowd.fetchers).map(|number| Host::new(&crowd, number)).collect(),
            todo: BinaryHeap::new(),
            sequence: 0,
            now: Duration::ZERO,
            spread: Bits::new(crowd.chunks),
            sent: 0,
            done: 0,
            crowd,
        };
        for fetcher in 1..=crowd.fetchers {
            world.tell(fetcher, Event::Tick);
            world.schedule(WATCH, Todo::Watch(fetcher));
            world.meet(fetcher, 0);
            for other in (1..=crowd.fetchers).filter(|other| crowd.meets && *other != fetcher) {
                world.schedule(MEETING, Todo::Meet(fetcher, other));
            }
        }
        while world.done < crowd.fetchers {
            let Some(Reverse((at, _, todo))) = world.todo.pop() else { panic!("{crowd:?} stands still") };
            assert!(at < Duration::from_secs(3600), "{crowd:?} does not end");
            world.now = at;
            world.step(todo);
        }
        let copies = world.sent as f64 / (crowd.chunks * SLICES) as f64;
        Outcome { time: world.now, copies }
    }

    fn schedule(&mut self, after: Duration, todo: Todo) {
        self.sequence += 1;
        self.todo.push(Reverse((self.now + after, self.sequence, todo)));
    }

    fn step(&mut self, todo: Todo) {
        match todo {
            Todo::Meet(by, of) => self.meet(by, of),
            Todo::Request { giver, asker, ticket, chunk } => self.request(giver, asker, ticket, chunk),
            Todo::Cancelled { giver, asker, ticket } => {
                self.hosts[giver].asked[asker].retain(|sending| sending.ticket != ticket);
            }
            Todo::Sent(giver) => self.slice_sent(giver),
            Todo::Reaches(slice) => {
                self.hosts[slice.asker].arriving.push_back(slice);
                if self.hosts[slice.asker].arriving.len() == 1 {
                    self.schedule(takes(SLICE, self.crowd.rate), Todo::Passed(slice.asker));
                }
            }
            Todo::Passed(asker) => self.slice_passed(asker),
            Todo::Tell(of, by) => {
                let news = &mut self.hosts[of].news[by];
                let (has, given) = (std::mem::take(&mut news.has), std::mem::take(&mut news.given));
                let every = if has.is_empty() { GIVEN_EVERY } else { NEWS_EVERY };
                (news.is_due, news.rest) = (false, self.now + every);
                self.schedule(self.crowd.delay, Todo::Hear { by, of, has, given });
            }
            Todo::Hear { by, of, has, given } => {
                let ranges: Vec<_> = has.iter().map(|chunk| *chunk..chunk + 1).collect();
                if !ranges.is_empty() {
                    self.tell(by, Event::PeerHas { peer: number(of), has: Has::Ranges(ranges) });
                }
                if !given.is_empty() {
                    self.tell(by, Event::Given { peer: number(of), chunks: given });
                }
            }
            Todo::Watch(host) => self.watch(host),
            Todo::Wake(host, wake) if wake == self.hosts[host].wakes => self.tell(host, Event::Tick),
            Todo::Wake(..) => {}
        }
    }

    /// Tells a planner what is on its way, as its caller does now and then.
    fn watch(&mut self, host: usize) {
        for ((giver, chunk), (_, slices)) in self.hosts[host].tickets.clone() {
            if slices > 0 && self.hosts[host].tickets.contains_key(&(giver, chunk)) {
                let (peer, shard) = (number(giver), Shard::Data(chunk));
                self.tell(host, Event::Came { peer, shard, bytes: slices * SLICE });
            }
        }
        self.schedule(WATCH, Todo::Watch(host));
    }

    /// One can ask another, and is told what it has from now on.
    fn meet(&mut self, by: usize, of: usize) {
        let credits = Credits { requests: 64, bytes: 64 * CHUNK_LEN };
        self.tell(by, Event::PeerJoined { peer: number(of), credits });
        self.hosts[of].news[by].is_wanted = true;
        let has = if of == 0 { Has::Whole } else { Has::Bitmap(self.hosts[of].have.clone()) };
        self.tell(by, Event::PeerHas { peer: number(of), has });
    }

    /// Tells a planner, does what it says, arranges to wake it.
    fn tell(&mut self, host: usize, event: Event) {
        let (now, delay) = (self.now, self.crowd.delay);
        let Some(planner) = self.hosts[host].planner.as_mut().filter(|planner| !planner.is_done()) else {
            return;
        };
        let mut actions = Vec::new();
        planner.on(event, now, &mut actions);
        let wakeup = planner.next_wakeup();
        for action in actions {
            match action {
                Action::Ask { peer, shard: Shard::Data(chunk) } => {
                    let (giver, ticket) = (peer.0 as usize, self.sequence);
                    self.hosts[host].tickets.insert((giver, chunk), (ticket, 0));
                    self.schedule(delay, Todo::Request { giver, asker: host, ticket, chunk });
                }
                Action::Cancel { peer, shard: Shard::Data(chunk) } => {
                    let giver = peer.0 as usize;
                    let asked = self.hosts[host].tickets.remove(&(giver, chunk));
                    let (ticket, _) = asked.expect("it was asked for");
                    self.schedule(delay, Todo::Cancelled { giver, asker: host, ticket });
                }
                Action::Done => self.done += 1,
                Action::NeedPeers => {}
                other => panic!("{other:?} of {host}"),
            }
        }
        self.hosts[host].wakes += 1;
        if let Some(at) = wakeup {
            let after = at.saturating_sub(now).max(Duration::from_micros(1));
            self.schedule(after, Todo::Wake(host, self.hosts[host].wakes));
        }
    }

    /// Something is to be told to another, soon.
    fn gather(&mut self, of: usize, by: usize, note: impl FnOnce(&mut News)) {
        let news = &mut self.hosts[of].news[by];
        if news.is_wanted {
            note(news);
            let wait = news.rest.saturating_sub(self.now);
            if !std::mem::replace(&mut news.is_due, true) {
                self.schedule(wait, Todo::Tell(of, by));
            }
        }
    }

    fn request(&mut self, giver: usize, asker: usize, ticket: u64, chunk: u64) {
        assert!(self.hosts[giver].have.get(chunk), "{asker} asks {giver} for what it has not said to have");
        self.hosts[giver].asked[asker].push_back(Sending { ticket, chunk, sent: 0 });
        if giver == 0 && self.crowd.spreads && self.spread.set(chunk) {
            for other in (1..=self.crowd.fetchers).filter(|other| *other != asker) {
                self.gather(0, other, |news| news.given.push(chunk));
            }
        }
        self.send(giver);
    }

    /// The next slice goes up a line that is free: of the next asker that waits.
    fn send(&mut self, giver: usize) {
        let (rate, host) = (if giver == 0 { self.crowd.rate } else { self.crowd.up }, &mut self.hosts[giver]);
        if host.sending.is_some() {
            return;
        }
        let askers = host.asked.len();
        let mut next = (1..=askers).map(|step| (host.turn + step) % askers);
        let Some(asker) = next.find(|asker| !host.asked[*asker].is_empty()) else { return };
        let sending = &mut host.asked[asker][0];
        sending.sent += 1;
        let (ticket, chunk, is_last) = (sending.ticket, sending.chunk, sending.sent == SLICES);
        if is_last {
            host.asked[asker].pop_front();
        }
        host.turn = asker;
        host.sending = Some(Slice { giver, asker, ticket, chunk, is_last });
        self.sent += u64::from(giver == 0);
        self.schedule(takes(SLICE, rate), Todo::Sent(giver));
    }

    fn slice_sent(&mut self, giver: usize) {
        if let Some(slice) = self.hosts[giver].sending.take() {
            self.schedule(self.crowd.delay, Todo::Reaches(slice));
        }
        self.send(giver);
    }

    fn slice_passed(&mut self, asker: usize) {
        let Some(Slice { giver, ticket, chunk, is_last, .. }) = self.hosts[asker].arriving.pop_front() else {
            return;
        };
        if !self.hosts[asker].arriving.is_empty() {
            self.schedule(takes(SLICE, self.crowd.rate), Todo::Passed(asker));
        }
        // It may have been taken back.
        let asked = self.hosts[asker].tickets.get_mut(&(giver, chunk));
        let Some((_, slices)) = asked.filter(|(asked, _)| *asked == ticket) else { return };
        *slices += 1;
        if !is_last {
            return;
        }
        self.hosts[asker].tickets.remove(&(giver, chunk));
        assert!(self.hosts[asker].have.set(chunk), "{asker} has {chunk} already");
        let (peer, shard) = (number(giver), Shard::Data(chunk));
        self.tell(asker, Event::Arrived { peer, shard, bytes: CHUNK_LEN });
        for other in (1..=self.crowd.fetchers).filter(|other| *other != asker) {
            self.gather(asker, other, |news| news.has.push(chunk));
        }
    }
}

/// A host's number as a peer.
fn number(host: usize) -> PeerNo {
    PeerNo(u32::try_from(host).unwrap())
}

/// Sixteen hosts at 100 Mbit/s.
fn sixteen(seed: u64) -> Crowd {
    let (rate, delay) = (100 * MBIT, Duration::from_millis(2));
    Crowd { chunks: 256, fetchers: 15, rate, up: rate, delay, meets: true, spreads: true, seed }
}

/// The seeds to run: one that is asked for, or the first few.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let only: Option<u64> = std::env::var("CASD_SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    only.map_or(0..count, |seed| seed..seed + 1)
}

/// The figures of the flash crowd: they feed each other, and the holder gives little more than one copy.
#[test]
fn fifteen_who_begin_at_once_take_half_as_long_again_as_one_and_little_more_than_a_copy() {
    let alone = World::run(Crowd { fetchers: 1, ..sixteen(0) });
    assert!((0.99..=1.01).contains(&alone.copies), "{alone:?}");
    for seed in seeds(2) {
        let crowd = World::run(sixteen(seed));
        let times = crowd.time.as_secs_f64() / alone.time.as_secs_f64();
        println!("seed {seed}: {times:.2} times as long as {:?}, {:.2} copies", alone.time, crowd.copies);
        assert!(times <= 1.5 && crowd.copies < 1.3, "seed {seed}: {times:.2} times as long, {crowd:?}");
    }
}

/// What the holder tells is what makes the difference.
#[test]
fn without_a_word_of_what_is_given_the_holder_gives_more() {
    let crowd = Crowd { chunks: 96, ..sixteen(1) };
    let (with, without) = (World::run(crowd), World::run(Crowd { spreads: false, ..crowd }));
    println!("{with:?}, without {without:?}");
    assert!(with.copies < without.copies, "{with:?}, without {without:?}");
}

/// Those who do not reach each other wait for nobody, and those whom the others bring little lose little.
#[test]
fn a_crowd_that_does_not_feed_itself_is_fed_as_fast_as_the_holder_can() {
    let apart = Crowd { chunks: 40, fetchers: 4, meets: false, ..sixteen(0) };
    let least = takes(4 * 40 * CHUNK_LEN, apart.rate).as_secs_f64();
    for (crowd, most) in [(apart, 1.1), (Crowd { meets: true, up: MBIT, ..apart }, 1.5)] {
        for seed in seeds(3) {
            let outcome = World::run(Crowd { seed, ..crowd });
            let times = outcome.time.as_secs_f64() / least;
            println!("seed {seed}: {times:.2} times {least:.1} s, {:.2} copies", outcome.copies);
            assert!(times <= most, "seed {seed}: {times:.2} times {least:.1} s, {outcome:?}");
        }
    }
}
