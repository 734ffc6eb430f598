//! Networks: written down by hand for examples, or drawn from a seed.

use std::time::Duration;

use super::super::runs::mix;
use super::super::{Bits, Credits, Limits, Order, Plan, Stripe};
use crate::content::CHUNK_LEN;

/// Bytes a second of one Mbit/s.
pub(in super::super) const MBIT: u64 = 125_000;

/// A fetch and the hosts around it.
#[derive(Clone, Debug)]
pub(in super::super) struct Network {
    /// What the planner is given.
    pub(in super::super) plan: Plan,
    /// Who there is.
    pub(in super::super) hosts: Vec<Host>,
    /// Bytes a second that the fetcher can take; 0 is no limit.
    pub(in super::super) downlink: u64,
    /// Whether the parity part that the plan begins with is true.
    pub(in super::super) part: PartTruth,
    /// A true parity part becomes known at this time.
    pub(in super::super) part_at: Option<Duration>,
    /// Its stripes.
    pub(in super::super) stripes: Vec<Stripe>,
    /// Time that the reader takes for a chunk; `None`: reads nothing.
    pub(in super::super) reads: Option<Duration>,
    /// Chance in a thousand that after an arrival an earlier chunk turns out damaged, and that another chunk
    /// turns up without a peer.
    pub(in super::super) damage: u64,
    /// Chance in a hundred that a parity shard lies in the local store.
    pub(in super::super) stored: u64,
    /// Draws what happens on the way.
    pub(in super::super) seed: u64,
}

/// Whether rebuilding with the first parity part works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum PartTruth {
    /// It does.
    True,
    /// It gives other chunks.
    False,
}

/// When a host appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Entry {
    /// At a time.
    At(Duration),
    /// Half a second after more peers are asked for.
    OnNeed,
    /// Half a second after a chunk that it holds is looked up.
    OnFind,
}

/// One host.
#[derive(Clone, Debug)]
pub(in super::super) struct Host {
    /// Bytes a second.
    pub(in super::super) rate: u64,
    /// One way.
    pub(in super::super) delay: Duration,
    /// What it grants.
    pub(in super::super) credits: Credits,
    /// The data that it holds.
    pub(in super::super) holds: Bits,
    /// The data that it says it holds.
    pub(in super::super) claims: Bits,
    /// It says nothing: it was found by a chunk key.
    pub(in super::super) silent: bool,
    /// It holds all parity.
    pub(in super::super) parity: bool,
    /// When it appears.
    pub(in super::super) entry: Entry,
    /// When it leaves.
    pub(in super::super) leaves: Option<Duration>,
    /// It tells of sixteen more chunks each time that this passes; `None`: of everything at once.
    pub(in super::super) grows: Option<Duration>,
    /// From when on it answers nothing.
    pub(in super::super) stalls: Option<Duration>,
    /// From when on it gives so many bytes a second instead.
    pub(in super::super) turns: Option<(Duration, u64)>,
    /// Its connection is a new one, which gives ten packets in the first round trip and twice as much in each that
    /// follows, until it is as fast as the host.
    pub(in super::super) starts_slowly: bool,
    /// Chance in a hundred that a chunk is held up until it is noticed that the last packets of a burst were lost.
    pub(in super::super) loss: u64,
    /// Chances in a hundred that a chunk is bad, that it is busy, that a request fails.
    pub(in super::super) bad: u64,
    pub(in super::super) busy: u64,
    pub(in super::super) fails: u64,
}

impl Host {
    /// An honest host with all of the data, with generous credits.
    pub(in super::super) fn whole(chunks: u64, mbits: u64, delay: Duration) -> Self {
        Self {
            rate: mbits * MBIT,
            delay,
            credits: Credits { requests: 64, bytes: 64 * CHUNK_LEN },
            holds: Bits::full(chunks),
            claims: Bits::full(chunks),
            silent: false,
            parity: false,
            entry: Entry::At(Duration::ZERO),
            leaves: None,
            grows: None,
            stalls: None,
            turns: None,
            starts_slowly: false,
            loss: 0,
            bad: 0,
            busy: 0,
            fails: 0,
        }
    }

    /// An honest host with a part of the data.
    pub(in super::super) fn part(holds: &Bits, mbits: u64, delay: Duration) -> Self {
        Self { holds: holds.clone(), claims: holds.clone(), ..Self::whole(holds.len(), mbits, delay) }
    }

    /// Bytes a second that it gives at a time.
    pub(in super::super) fn rate_at(&self, now: Duration) -> u64 {
        self.turns.filter(|(from, _)| now >= *from).map_or(self.rate, |(_, rate)| rate)
    }

    /// Whether it always answers in the end.
    pub(in super::super) fn is_reliable(&self) -> bool {
        self.bad == 0 && self.stalls.is_none() && self.leaves.is_none()
    }
}

impl Network {
    /// A whole fetch of `chunks` chunks, rarest first, without parity.
    pub(in super::super) fn new(chunks: u64, hosts: Vec<Host>) -> Self {
        let plan = Plan {
            length: chunks * CHUNK_LEN,
            wanted: 0..chunks,
            local: Bits::new(chunks),
            stripes: Vec::new(),
            order: Order::Rarest,
            limits: Limits { in_flight: crate::fetch::Options::default().in_flight },
            seed: 1,
        };
        let stripes = layout(chunks, 16, 4);
        Self {
            plan,
            hosts,
            downlink: 0,
            part: PartTruth::True,
            part_at: None,
            stripes,
            reads: None,
            damage: 0,
            stored: 0,
            seed: 1,
        }
    }

    /// The same, with 16+4 parity known from the start.
    pub(in super::super) fn with_parity(mut self) -> Self {
        self.plan.stripes.clone_from(&self.stripes);
        self
    }

    /// A network of honest hosts that hold everything between them.
    pub(in super::super) fn honest(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let chunks = dice.spread(1, 300);
        let count = dice.below(8) + 1;
        let mut hosts: Vec<Host> = (0..count).map(|_| dice.host(chunks)).collect();
        dice.spread_parts(&mut hosts, chunks);
        let mut network = Self::new(chunks, hosts);
        network.plan.limits.in_flight = 1 << 30;
        network.plan.seed = dice.next();
        network.seed = seed;
        if dice.one_in(3) {
            network.downlink = dice.spread(10, 1000) * MBIT;
        }
        if dice.one_in(2) {
            network = network.with_parity();
            network.hosts.iter_mut().for_each(|host| host.parity = dice.one_in(2));
        }
        network
    }

    /// A network in which anything of the fault model may happen.
    pub(in super::super) fn wild(seed: u64) -> Self {
        let mut dice = Dice(seed ^ 0x57_49_4c_44);
        let chunks = dice.spread(1, 120);
        let (k, m) = (dice.below(20) + 1, dice.below(6));
        let count = dice.below(12);
        let hosts = (0..count).map(|_| dice.wild_host(chunks)).collect();
        let mut network = Self::new(chunks, hosts);
        network.stripes = layout(chunks, k, m);
        network.seed = seed;
        network.plan.length -= dice.below(CHUNK_LEN);
        network.plan.seed = dice.next();
        network.plan.limits.in_flight = dice.spread(1, 128) * CHUNK_LEN;
        if dice.one_in(3) {
            let window = dice.spread(1, 64);
            network.plan.order = Order::InOrder { window };
            network.reads = Some(Duration::from_micros(dice.spread(100, 200_000)));
        }
        if dice.one_in(4) {
            let (a, b) = (dice.below(chunks + 1), dice.below(chunks + 1));
            network.plan.wanted = a.min(b)..a.max(b);
        }
        if dice.one_in(3) {
            network.plan.local = dice.bits(chunks, 50);
        }
        if dice.one_in(3) {
            network.downlink = dice.spread(1, 1000) * MBIT;
        }
        if dice.one_in(2) {
            network = network.with_parity();
            network.part = if dice.one_in(5) { PartTruth::False } else { PartTruth::True };
        }
        if dice.one_in(3) {
            network.part_at = Some(dice.time(20_000));
        }
        if dice.one_in(4) {
            network.damage = 10;
        }
        network.stored = if dice.one_in(6) { 50 } else { 0 };
        let percent = if dice.one_in(2) { 10 } else { 0 };
        let lost = dice.bits(chunks, percent);
        network.hosts.iter_mut().for_each(|host| host.holds.subtract(&lost));
        network
    }

    /// As [`Network::wild`], over paths that lose packets and hosts that become slow or fast, down to 8 KiB a second.
    pub(in super::super) fn rough(seed: u64) -> Self {
        let mut network = Self::wild(seed);
        let mut dice = Dice(seed ^ 0x52_4f_55_47);
        for host in &mut network.hosts {
            host.loss = if dice.one_in(2) { dice.below(20) } else { 0 };
            host.starts_slowly = dice.one_in(2);
            if dice.one_in(3) {
                host.turns = Some((dice.time(10_000), dice.spread(8 << 10, 125_000_000)));
            }
        }
        network
    }
}

/// Stripes of `k` data chunks, the last two sharing evenly what is left, each with `m` parity chunks.
pub(in super::super) fn layout(chunks: u64, k: u64, m: u64) -> Vec<Stripe> {
    let count = chunks.div_ceil(k);
    let mut sizes = vec![k; usize::try_from(count).unwrap()];
    if count > 1 {
        let left = chunks - (count - 2) * k;
        let at = sizes.len() - 2;
        (sizes[at], sizes[at + 1]) = (left.div_ceil(2), left / 2);
    } else {
        sizes[0] = chunks;
    }
    let mut first = 0;
    let stripe = |data: u64| {
        let parity = if count == 1 { (m * chunks).div_ceil(k) } else { m };
        let stripe =
            Stripe { first, data: u8::try_from(data).unwrap(), parity: u8::try_from(parity).unwrap() };
        first += data;
        stripe
    };
    sizes.into_iter().map(stripe).collect()
}

/// Draws numbers from a seed.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0 << 20 ^ self.0)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `times`.
    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number between two, all magnitudes alike.
    pub(super) fn spread(&mut self, from: u64, to: u64) -> u64 {
        let part = self.below(1 << 20) as f64 / (1 << 20) as f64;
        (from as f64 * (to as f64 / from as f64).powf(part)).round() as u64
    }

    /// A time below `millis` milliseconds.
    fn time(&mut self, millis: u64) -> Duration {
        Duration::from_millis(self.below(millis))
    }

    /// A set with each chunk in it with a chance of `percent`.
    fn bits(&mut self, chunks: u64, percent: u64) -> Bits {
        let mut bits = Bits::new(chunks);
        for chunk in 0..chunks {
            if self.below(100) < percent {
                bits.set(chunk);
            }
        }
        bits
    }

    /// An honest host with everything.
    fn host(&mut self, chunks: u64) -> Host {
        let mbits = self.spread(1, 1000);
        let mut host = Host::whole(chunks, mbits, Duration::from_micros(self.spread(100, 150_000)));
        let requests = self.spread(4, 128);
        host.credits =
            Credits { requests: u32::try_from(requests).unwrap(), bytes: self.spread(4, 128) * CHUNK_LEN };
        host
    }

    /// Lets some hosts hold only a part, so that no chunk is lost.
    fn spread_parts(&mut self, hosts: &mut [Host], chunks: u64) {
        for host in hosts.iter_mut() {
            if self.one_in(2) {
                let percent = self.below(100);
                host.holds = self.bits(chunks, percent);
            }
        }
        for chunk in 0..chunks {
            if !hosts.iter().any(|host| host.holds.get(chunk)) {
                let at = usize::try_from(self.below(hosts.len() as u64)).unwrap();
                hosts[at].holds.set(chunk);
            }
        }
        hosts.iter_mut().for_each(|host| host.claims = host.holds.clone());
    }

    /// A host with any of the faults.
    fn wild_host(&mut self, chunks: u64) -> Host {
        let mut host = self.host(chunks);
        host.parity = self.one_in(3);
        if self.one_in(2) {
            let percent = self.below(101);
            host.holds = self.bits(chunks, percent);
        }
        host.claims = host.holds.clone();
        if self.one_in(5) {
            host.claims.union(&self.bits(chunks, 30));
        }
        host.silent = self.one_in(10);
        host.entry = match self.below(6) {
            0 => Entry::At(self.time(10_000)),
            1 => Entry::OnNeed,
            2 => Entry::OnFind,
            _ => Entry::At(Duration::ZERO),
        };
        host.leaves = self.one_in(4).then(|| self.time(20_000));
        host.grows = self.one_in(5).then(|| self.time(2_000) + Duration::from_millis(1));
        host.stalls = self.one_in(6).then(|| self.time(10_000) * u32::from(!self.one_in(3)));
        host.bad = if self.one_in(8) { self.below(100) + 1 } else { 0 };
        host.busy = if self.one_in(5) { self.below(34) } else { 0 };
        host.fails = if self.one_in(5) { self.below(34) } else { 0 };
        host
    }
}
