//! The planner by example: one rule each, small enough to be read. The simulator ([`super::sim`]) tries them together.

mod given;

use super::*;

const MIB: u64 = CHUNK_LEN;

/// A planner and what it has asked for and not got.
struct Case {
    planner: Planner,
    now: Duration,
    /// Outstanding requests, in the order in which they were sent.
    asked: Vec<(u32, Shard)>,
    /// Everything else that it wanted, in order.
    other: Vec<Action>,
    /// Every request that was ever sent.
    log: Vec<(u32, Shard)>,
}

fn plan(chunks: u64) -> Plan {
    Plan {
        length: chunks * MIB,
        wanted: 0..chunks,
        local: Bits::new(chunks),
        stripes: Vec::new(),
        order: Order::Rarest,
        limits: Limits { in_flight: crate::fetch::Options::default().in_flight },
        seed: 1,
    }
}

impl Case {
    fn new(plan: Plan) -> Self {
        let planner = Planner::new(plan);
        let mut case =
            Self { planner, now: Duration::ZERO, asked: Vec::new(), other: Vec::new(), log: Vec::new() };
        case.tell(Event::Tick);
        case
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.planner.on(event, self.now, &mut actions);
        for action in actions {
            match action {
                Action::Ask { peer, shard } => {
                    assert!(!self.asked.contains(&(peer.0, shard)), "{shard:?} twice of {peer:?}");
                    self.asked.push((peer.0, shard));
                    self.log.push((peer.0, shard));
                }
                Action::Cancel { peer, shard } => self.take(peer.0, shard),
                other => self.other.push(other),
            }
        }
    }

    fn take(&mut self, peer: u32, shard: Shard) {
        let at = self.asked.iter().position(|asked| *asked == (peer, shard));
        self.asked.remove(at.expect("it was asked for"));
    }

    /// A peer with room for `requests` that holds `has`.
    fn join(&mut self, peer: u32, requests: u32, has: Has) {
        let credits = Credits { requests, bytes: 64 * MIB };
        self.tell(Event::PeerJoined { peer: PeerNo(peer), credits });
        self.tell(Event::PeerHas { peer: PeerNo(peer), has });
    }

    fn arrive(&mut self, peer: u32, shard: Shard) {
        self.take(peer, shard);
        self.tell(Event::Arrived { peer: PeerNo(peer), shard, bytes: MIB });
    }

    /// So many bytes of a shard have come.
    fn come(&mut self, peer: u32, shard: Shard, bytes: u64) {
        self.tell(Event::Came { peer: PeerNo(peer), shard, bytes });
    }

    /// Lets time pass in small steps, as a caller with a clock would.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let next =
                self.planner.next_wakeup().map_or(end, |at| at.max(self.now + Duration::from_millis(1)));
            self.now = next.min(end);
            self.tell(Event::Tick);
        }
    }

    /// Answers everything in turn, 10 ms each, until nothing is asked.
    fn run(&mut self) {
        while let Some(&(peer, shard)) = self.asked.first() {
            self.now += Duration::from_millis(10);
            self.arrive(peer, shard);
        }
    }

    /// Answers so many requests, the oldest first.
    fn run_some(&mut self, count: usize) {
        for _ in 0..count {
            let Some(&(peer, shard)) = self.asked.first() else { return };
            self.now += Duration::from_millis(10);
            self.arrive(peer, shard);
        }
    }

    fn of(&self, peer: u32) -> Vec<u64> {
        let data = |&(of, shard): &(u32, Shard)| match shard {
            Shard::Data(chunk) if of == peer => Some(chunk),
            _ => None,
        };
        self.asked.iter().filter_map(data).collect()
    }

    fn is_done(&self) -> bool {
        self.other.contains(&Action::Done)
    }
}

#[test]
fn one_peer_brings_everything_once() {
    let mut case = Case::new(plan(40));
    case.join(0, 64, Has::Whole);
    case.run();
    assert!(case.is_done());
    let mut chunks: Vec<_> = case.log.clone();
    chunks.sort_unstable();
    assert_eq!(chunks, (0..40).map(|chunk| (0, Shard::Data(chunk))).collect::<Vec<_>>());
}

#[test]
fn what_is_here_is_not_asked_for_and_nothing_wanted_is_done_at_once() {
    let mut here = plan(4);
    here.local.set_range(1..4);
    let mut case = Case::new(here);
    case.join(0, 64, Has::Whole);
    assert_eq!(case.of(0), [0]);
    let case = Case::new(Plan { wanted: 2..2, ..plan(4) });
    assert!(case.is_done() && case.asked.is_empty());
}

#[test]
fn nobody_is_asked_for_more_than_it_grants_nor_all_for_more_than_may_be_in_flight() {
    let mut case = Case::new(plan(100));
    case.join(0, 3, Has::Whole);
    case.run_some(30);
    assert!(case.asked.len() <= 3);
    let mut small = Case::new(Plan { limits: Limits { in_flight: 6 * MIB }, ..plan(100) });
    (0..5).for_each(|peer| small.join(peer, 64, Has::Whole));
    for _ in 0..50 {
        assert!(small.asked.len() <= 6, "{:?}", small.asked);
        small.run_some(1);
    }
}

#[test]
fn two_peers_share_and_neither_is_asked_for_what_the_other_brings() {
    let mut case = Case::new(plan(60));
    case.join(0, 64, Has::Whole);
    case.join(1, 64, Has::Whole);
    case.run_some(20);
    let (first, second) = (case.of(0), case.of(1));
    assert!(!first.is_empty() && !second.is_empty());
    assert!(first.iter().all(|chunk| !second.contains(chunk)));
}

#[test]
fn the_rarest_chunk_comes_first() {
    let mut case = Case::new(plan(50));
    let mut without = Bits::new(50);
    without.set_range(0..50);
    without.clear(33);
    // Whoever comes first has no room until all are known.
    case.join(0, 0, Has::Whole);
    case.join(1, 0, Has::Bitmap(without.clone()));
    case.join(2, 0, Has::Bitmap(without));
    let credits = Credits { requests: 1, bytes: 64 * MIB };
    case.tell(Event::PeerJoined { peer: PeerNo(0), credits });
    assert_eq!(case.of(0), [33]);
}

#[test]
fn a_reader_gets_its_chunks_in_order_and_no_further_than_its_window() {
    let mut case = Case::new(Plan { order: Order::InOrder { window: 4 }, ..plan(20) });
    case.join(0, 64, Has::Whole);
    case.run();
    assert_eq!(case.log, (0..4).map(|chunk| (0, Shard::Data(chunk))).collect::<Vec<_>>());
    case.tell(Event::ReadTo { chunk: 2 });
    case.run();
    assert_eq!(case.log.len(), 6);
    // A reader that takes nothing does not stall the fetch.
    case.wait(Duration::from_secs(100));
    assert!(!case.planner.is_stalled(case.now, Duration::from_secs(60)));
    assert!(!case.is_done());
}

#[test]
fn what_one_peer_lacks_loses_or_lies_about_is_asked_of_another() {
    let shard = Shard::Data(0);
    let ends: [fn(PeerNo, Shard) -> Event; 4] = [
        |peer, shard| Event::NotFound { peer, shard },
        |peer, shard| Event::Bad { peer, shard },
        |peer, _| Event::PeerLeft { peer },
        |peer, shard| Event::Failed { peer, shard },
    ];
    for end in ends {
        let mut case = Case::new(plan(1));
        case.join(0, 8, Has::Whole);
        assert_eq!(case.asked, [(0, shard)]);
        case.join(1, 8, Has::Whole);
        assert_eq!(case.asked, [(0, shard)], "one is enough for now");
        case.take(0, shard);
        let event = end(PeerNo(0), shard);
        case.tell(event.clone());
        assert_eq!(case.asked, [(1, shard)], "{event:?}");
        case.run();
        assert!(case.is_done());
    }
}

#[test]
fn a_liar_and_one_that_left_are_not_asked_again() {
    for event in [Event::Bad { peer: PeerNo(0), shard: Shard::Data(0) }, Event::PeerLeft { peer: PeerNo(0) }]
    {
        let mut case = Case::new(plan(30));
        case.join(0, 2, Has::Whole);
        case.asked.clear();
        case.tell(event);
        case.wait(Duration::from_secs(120));
        assert!(case.asked.is_empty(), "{:?}", case.asked);
        assert!(case.other.contains(&Action::NeedPeers));
        assert!(case.planner.is_stalled(case.now, Duration::from_secs(60)));
        assert_eq!(case.planner.missing().count(), 30);
    }
}

#[test]
fn a_busy_peer_is_left_alone_for_as_long_as_it_says() {
    let mut case = Case::new(plan(1));
    case.join(0, 8, Has::Whole);
    case.take(0, Shard::Data(0));
    case.tell(Event::Busy { peer: PeerNo(0), shard: Shard::Data(0), retry_after: Duration::from_secs(5) });
    case.wait(Duration::from_millis(4900));
    assert!(case.asked.is_empty());
    case.wait(Duration::from_millis(200));
    assert_eq!(case.asked, [(0, Shard::Data(0))]);
}

#[test]
fn a_chunk_that_nobody_holds_is_looked_up_and_taken_from_who_is_found() {
    let mut case = Case::new(plan(3));
    let mut some = Bits::new(3);
    some.set_range(0..2);
    case.join(0, 8, Has::Bitmap(some));
    case.run();
    case.wait(Duration::from_secs(2));
    assert!(case.other.contains(&Action::FindChunk { chunk: 2 }), "{:?}", case.other);
    case.join(1, 8, Has::Unknown);
    assert_eq!(case.of(1), [2]);
    case.run();
    assert!(case.is_done());
}

fn with_parity() -> Plan {
    Plan { stripes: vec![Stripe { first: 0, data: 4, parity: 2 }], ..plan(4) }
}

#[test]
fn parity_brings_what_nobody_holds() {
    let mut case = Case::new(with_parity());
    let mut some = Bits::new(4);
    some.set_range(1..4);
    case.join(0, 8, Has::Bitmap(some));
    while !case.asked.is_empty() || case.now < Duration::from_secs(2) {
        case.run();
        case.wait(Duration::from_millis(100));
    }
    assert!(case.other.contains(&Action::Rebuild { stripe: 0 }), "{:?}", case.other);
    let parity = case.log.iter().filter(|(_, shard)| matches!(shard, Shard::Parity { .. })).count();
    assert_eq!(parity, 1, "one is missing, so one is asked for");
    case.tell(Event::Rebuilt { stripe: 0, chunks: vec![0] });
    assert!(case.is_done());
    assert!(case.other.contains(&Action::Release { stripe: 0 }));
}

#[test]
fn parity_is_not_asked_for_while_the_data_can_be_had() {
    let mut case = Case::new(with_parity());
    case.join(0, 8, Has::Whole);
    case.run();
    assert!(case.is_done());
    assert!(case.log.iter().all(|(_, shard)| matches!(shard, Shard::Data(_))));
}

#[test]
fn false_parity_is_not_asked_for_again() {
    let mut case = Case::new(with_parity());
    let mut some = Bits::new(4);
    some.set_range(1..4);
    case.join(0, 8, Has::Bitmap(some));
    while !case.other.contains(&Action::Rebuild { stripe: 0 }) {
        case.run();
        case.wait(Duration::from_millis(100));
    }
    let before = case.log.len();
    case.tell(Event::RebuildFailed { stripe: 0 });
    case.wait(Duration::from_secs(60));
    assert_eq!(case.log.len(), before);
    assert_eq!(case.planner.missing().collect::<Vec<_>>(), [0]);
}

#[test]
fn an_answer_that_is_late_is_asked_elsewhere_and_the_first_to_come_wins() {
    let mut case = Case::new(plan(1));
    case.join(0, 8, Has::Whole);
    case.join(1, 8, Has::Whole);
    let (first, shard) = case.asked[0];
    case.wait(Duration::from_secs(60));
    let other = 1 - first;
    assert!(case.asked.contains(&(other, shard)), "{:?}", case.asked);
    case.arrive(other, shard);
    assert!(case.is_done() && case.asked.is_empty(), "the late one is taken back: {:?}", case.asked);
}

#[test]
fn what_arrives_unasked_or_twice_is_not_wanted() {
    let mut case = Case::new(plan(3));
    case.join(0, 8, Has::Whole);
    assert!(case.planner.wants(Shard::Data(1)) && !case.planner.wants(Shard::Data(9)));
    assert!(!case.planner.wants(Shard::Parity { stripe: 0, index: 0 }));
    case.arrive(0, Shard::Data(1));
    assert!(!case.planner.wants(Shard::Data(1)));
}

#[test]
fn a_chunk_that_rots_before_the_end_is_fetched_again() {
    let mut case = Case::new(plan(8));
    case.join(0, 1, Has::Whole);
    let (_, shard) = case.asked[0];
    let Shard::Data(chunk) = shard else { panic!("{shard:?}") };
    case.arrive(0, shard);
    case.tell(Event::Lost { chunk });
    case.run();
    assert!(case.is_done());
    assert_eq!(case.log.iter().filter(|(_, asked)| *asked == shard).count(), 2);
}

#[test]
fn fetchers_with_different_seeds_ask_a_common_holder_for_different_chunks() {
    let first = |seed| {
        let mut case = Case::new(Plan { seed, ..plan(1000) });
        case.join(0, 1, Has::Whole);
        case.of(0)[0]
    };
    let starts: std::collections::BTreeSet<u64> = (0..20).map(first).collect();
    assert!(starts.len() > 10, "{starts:?}");
}

#[test]
fn bytes_that_come_are_progress_and_a_few_are_not() {
    let (mut case, shard) = (Case::new(plan(1)), Shard::Data(0));
    case.join(0, 8, Has::Whole);
    // 8 KiB a second, for two minutes.
    for second in 1..=120 {
        case.wait(Duration::from_secs(1));
        case.come(0, shard, second * 8192);
        assert!(!case.planner.is_stalled(case.now, Duration::from_secs(5)), "{second} s");
    }
    assert_eq!(case.log, [(0, shard)], "it is asked once, and not taken back");
    assert!(!case.planner.peer(PeerNo(0)).unwrap().late);
    // A byte a second.
    for second in 1..=60 {
        case.wait(Duration::from_secs(1));
        case.come(0, shard, 120 * 8192 + second);
    }
    assert!(case.planner.is_stalled(case.now, Duration::from_secs(60)));
}

#[test]
fn what_is_begun_again_is_no_progress() {
    let (mut case, shard) = (Case::new(plan(1)), Shard::Data(0));
    case.join(0, 8, Has::Whole);
    case.wait(Duration::from_secs(1));
    case.come(0, shard, MIB / 2);
    case.take(0, shard);
    case.tell(Event::PeerLeft { peer: PeerNo(0) });
    case.wait(Duration::from_secs(9));
    case.join(1, 8, Has::Whole);
    case.come(1, shard, MIB / 4);
    assert!(case.planner.is_stalled(case.now, Duration::from_secs(9)));
    case.come(1, shard, MIB / 4 * 3);
    assert!(!case.planner.is_stalled(case.now, Duration::from_secs(9)));
}

#[test]
fn whom_our_own_limit_keeps_from_being_asked_is_not_late_and_nothing_stalls() {
    let (mut case, shard) = (Case::new(plan(1)), Shard::Data(0));
    case.join(0, 8, Has::Whole);
    for _ in 0..100 {
        case.wait(Duration::from_secs(1));
        case.tell(Event::Held { peer: PeerNo(0), shard });
    }
    let late = |case: &Case| case.planner.peer(PeerNo(0)).unwrap().late;
    assert!(!late(&case) && !case.planner.is_stalled(case.now, Duration::from_secs(60)));
    // It is sent.
    case.wait(Duration::from_secs(3));
    assert!(late(&case));
}

#[test]
fn a_reader_does_not_wait_for_one_peer_when_another_brings_it_sooner() {
    let mut case = Case::new(Plan { order: Order::InOrder { window: 16 }, ..plan(20) });
    case.join(0, 1, Has::Whole);
    assert_eq!(case.of(0), [0]);
    case.join(1, 4, Has::Whole);
    while let Some(&(peer, shard)) = case.asked.iter().find(|(peer, _)| *peer == 1) {
        case.now += Duration::from_millis(10);
        case.arrive(peer, shard);
    }
    let place = case.log.iter().position(|asked| *asked == (1, Shard::Data(0)));
    assert!(place.is_some_and(|place| place < 14), "before all of the window is asked for: {:?}", case.log);
}
