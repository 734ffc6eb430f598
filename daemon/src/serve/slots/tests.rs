//! Peers that come and go in simulated time.

use proptest::prelude::*;

use super::*;

/// Between two looks at a simulated peer.
const STEP: Duration = Duration::from_millis(50);

/// A peer as the simulation has it.
struct Taker {
    peer: PeerId,
    host: Option<HostAddr>,
    /// It asks again at this time.
    asks_at: Instant,
    /// It has been given all of its chunk at this time.
    done_at: Option<Instant>,
    /// Chunks that it was given, and when the last one was.
    got: u64,
    got_at: Instant,
}

/// Takers that always want more, each chunk of which takes `chunk`.
struct World {
    slots: Slots,
    takers: Vec<Taker>,
    now: Instant,
    chunk: Duration,
    /// The longest that anybody has waited for a chunk.
    longest: Duration,
}

fn host(number: u32) -> Option<HostAddr> {
    Some(HostAddr::V4(number))
}

impl World {
    fn new(places: usize, hosts: &[Option<HostAddr>], chunk: Duration) -> Self {
        let now = Instant::now();
        let taker = |host: &Option<HostAddr>| Taker {
            peer: PeerId::random(),
            host: *host,
            asks_at: now,
            done_at: None,
            got: 0,
            got_at: now,
        };
        let takers = hosts.iter().map(taker).collect();
        Self { slots: Slots::new(places), takers, now, chunk, longest: Duration::ZERO }
    }

    /// Goes on for so long. Never are more served at once than there are places.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let now = self.now;
            for taker in &mut self.takers {
                if taker.done_at.is_some_and(|done| done <= now) {
                    self.slots.end(&taker.peer, now);
                    self.longest = self.longest.max(now - taker.got_at);
                    (taker.done_at, taker.got, taker.got_at) = (None, taker.got + 1, now);
                }
                self.slots.moves(&taker.peer, now);
                if taker.done_at.is_none() && taker.asks_at <= now {
                    match self.slots.begin(taker.peer, taker.host, now) {
                        Ok(()) => taker.done_at = Some(now + self.chunk),
                        Err(after) => {
                            assert!((AGAIN.0..=AGAIN.1).contains(&after));
                            taker.asks_at = now + after;
                        }
                    }
                }
            }
            let served = self.takers.iter().filter(|taker| taker.done_at.is_some()).count();
            assert!(served <= self.slots.most && self.slots.holders.len() <= self.slots.most);
        }
    }

    fn got(&self, which: impl Fn(usize) -> bool) -> u64 {
        self.takers.iter().enumerate().filter(|(at, _)| which(*at)).map(|(_, taker)| taker.got).sum()
    }
}

#[test]
fn who_is_alone_keeps_its_place_and_who_comes_has_a_turn() {
    let [one, two] = [PeerId::random(), PeerId::random()];
    let (mut slots, start) = (Slots::new(1), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    assert_eq!(slots.begin(one, None, at(0)), Ok(()));
    assert_eq!(slots.ask(one, None, at(60_000)), None);
    slots.moves(&one, at(60_000));
    // It has had its turn, and its chunk is still on its way.
    assert_eq!(slots.ask(two, None, at(60_001)), Some(AGAIN.0));
    assert!(slots.ask(one, None, at(60_002)).is_some());
    slots.end(&one, at(60_003));
    // The place is kept for who comes next in the line.
    assert!(slots.ask(one, None, at(60_004)).is_some());
    assert_eq!(slots.begin(two, None, at(60_101)), Ok(()));
    slots.end(&two, at(60_200));
    assert!(slots.ask(one, None, at(60_300)).is_some(), "a turn is longer than a chunk");
    // Who asks for nothing any more has no place, and who does not come back none in the line.
    assert_eq!(slots.ask(one, None, at(62_300)), None);
    assert!(slots.ask(two, None, at(62_301)).is_some());
    assert_eq!(slots.ask(one, None, at(80_000)), None);
    assert!(slots.waiting.is_empty());
}

#[test]
fn what_takes_long_to_read_is_given_all_the_same() {
    let [one, two] = [PeerId::random(), PeerId::random()];
    let (mut slots, start) = (Slots::new(1), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    assert_eq!(slots.ask(one, None, at(0)), None);
    (0..9).for_each(|second| assert!(slots.ask(two, None, at(1000 * second)).is_some()));
    // It was being read all the while.
    assert_eq!(slots.begin(one, None, at(9000)), Ok(()));
    assert!(slots.ask(two, None, at(10_500)).is_some());
    assert!(slots.begin(one, None, at(10_500)).is_err(), "that was its turn");
    slots.end(&one, at(10_500));
    assert_eq!(slots.begin(two, None, at(10_700)), Ok(()));
}

#[test]
fn who_takes_nothing_keeps_no_place_from_others() {
    let [one, two] = [PeerId::random(), PeerId::random()];
    let (mut slots, start) = (Slots::new(1), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    assert_eq!(slots.begin(one, None, at(0)), Ok(()));
    // Our own limit holds it back, for whatever time.
    slots.moves(&one, at(100_000));
    assert!(slots.ask(two, None, at(5000)).is_some() && slots.ask(two, None, at(7000)).is_some());
    slots.moves(&one, at(7000));
    assert!(slots.ask(two, None, at(8500)).is_some());
    assert_eq!(slots.ask(two, None, at(9000)), None);
    // It goes on where it was, and then waits like others.
    slots.moves(&one, at(9100));
    slots.end(&one, at(9200));
    assert!(slots.ask(one, None, at(9300)).is_some());
}

#[test]
fn who_asks_sooner_than_it_was_told_to_is_told_the_same_and_the_line_is_not_looked_at() {
    let [one, two] = [PeerId::random(), PeerId::random()];
    let (mut slots, start) = (Slots::new(1), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    assert_eq!(slots.begin(one, None, at(0)), Ok(()));
    slots.end(&one, at(10));
    assert_eq!(slots.ask(two, None, at(100)), Some(AGAIN.1));
    // The place is free by now, which it would find.
    assert_eq!(slots.ask(two, None, at(2050)), Some(Duration::from_millis(50)));
    assert!(slots.holders.contains_key(&one), "nobody has looked");
    assert_eq!(slots.ask(two, None, at(2100)), None);
    // What it was told does not hold when there are more places.
    assert!(slots.ask(one, None, at(2200)).is_some());
    slots.set(2, at(2201));
    assert_eq!(slots.ask(one, None, at(2201)), None);
}

#[test]
fn who_has_a_place_and_asks_all_the_time_does_not_have_the_line_looked_at_each_time() {
    let [one, two] = [PeerId::random(), PeerId::random()];
    let (mut slots, start) = (Slots::new(1), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    assert_eq!(slots.begin(one, None, at(0)), Ok(()));
    slots.end(&one, at(1));
    for second in 1..10 {
        assert!(slots.ask(two, None, at(1000 * second)).is_some());
        assert_eq!(slots.ask(one, None, at(1000 * second)), None);
    }
    assert_eq!(slots.ask(one, None, at(9_995)), None);
    assert_eq!(slots.ask(one, None, at(10_005)), None, "its turn is over, and that has not been seen");
    assert!(slots.ask(one, None, at(10_015)).is_some());
}

#[test]
fn one_host_with_many_ids_has_the_part_of_one() {
    let hosts: Vec<_> = (0..31).map(|at| host(if at == 0 { 1 } else { 2 })).collect();
    let mut world = World::new(1, &hosts, Duration::from_millis(500));
    world.run(Duration::from_secs(300));
    let (honest, others) = (world.got(|at| at == 0), world.got(|at| at > 0));
    assert!(honest * 3 >= others, "{honest} {others}");
    // With places for several: the four hosts that have one id each keep theirs, as far as the many leave any.
    let hosts: Vec<_> = (0..40).map(|at| host(if at < 4 { at } else { 9 })).collect();
    let mut world = World::new(5, &hosts, Duration::from_millis(500));
    world.run(Duration::from_secs(300));
    let (honest, others) = (world.got(|at| at < 4), world.got(|at| at >= 4));
    assert!(honest >= 3 * others, "{honest} {others}");
}

#[test]
fn fewer_places_take_effect_as_chunks_end() {
    let mut world = World::new(6, &[None; 6], Duration::from_secs(1));
    world.run(Duration::from_secs(5));
    world.slots.set(2, world.now);
    assert_eq!(active(&mut world.slots.holders).len(), 2);
    let (ended, before) = (world.now + Duration::from_secs(1), world.got(|_| true));
    for taker in &mut world.takers {
        // Those under way end.
        if taker.done_at.take().is_some() {
            world.slots.end(&taker.peer, ended);
        }
    }
    world.now = ended;
    world.run(Duration::from_secs(60));
    assert!(world.got(|_| true) - before >= 90, "two at a time");
}

#[test]
fn a_line_without_end_takes_no_more_room() {
    let (mut slots, now) = (Slots::new(1), Instant::now());
    assert_eq!(slots.ask(PeerId::random(), None, now), None);
    for _ in 0..WAITING + 100 {
        assert!(slots.ask(PeerId::random(), host(1), now).is_some());
    }
    let (first, other) = (slots.line().first().map(|next| next.whose), PeerId::random());
    assert!(slots.waiting.len() == WAITING && first == Some(Whose::Host(HostAddr::V4(1))));
    assert!(slots.ask(other, host(2), now).is_some());
    assert!(slots.waiting.contains_key(&other), "who comes from elsewhere finds room");
    assert_eq!(slots.line().iter().position(|next| next.peer == other), Some(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn everybody_has_turns_and_all_have_equally_many(
        places in 1usize..8, takers in 1usize..24, millis in 50u64..2000
    ) {
        let chunk = Duration::from_millis(millis);
        let mut world = World::new(places, &vec![None; takers], chunk);
        world.run(Duration::from_secs(120));
        // Nobody waits longer than it takes for all to have their turns, each with a chunk that is finished and a place
        // that is found free at the next look.
        let rounds = u32::try_from(takers.div_ceil(places)).unwrap();
        let turn = LEAST.max((ROUND * u32::try_from(places).unwrap() / u32::try_from(takers).unwrap()).min(TURN));
        let most = rounds * (turn + chunk + AGAIN.1) + 2 * chunk;
        prop_assert!(world.longest <= most, "{:?} of {most:?}", world.longest);
        let got = world.takers.iter().map(|taker| taker.got);
        let (least, most) = (got.clone().min().unwrap(), got.max().unwrap());
        prop_assert!((least + 1) * 2 >= most, "{least} to {most}");
        // The places are hardly ever empty.
        let full = 120_000 / (millis + 50) * places.min(takers) as u64;
        prop_assert!(world.got(|_| true) * 2 >= full, "{} of {full}", world.got(|_| true));
    }
}
