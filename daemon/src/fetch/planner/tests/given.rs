//! What a holder gives to others is left to them, for as long as that is of use.

use super::*;

fn given(chunks: &[u64]) -> Event {
    Event::Given { peer: PeerNo(0), chunks: chunks.to_vec() }
}

/// The other one has a chunk.
fn has(chunk: u64) -> Event {
    Event::PeerHas { peer: PeerNo(1), has: Has::Ranges(std::iter::once(chunk..chunk + 1).collect()) }
}

/// A holder of everything that is asked for one chunk at a time, and the chunk; and one that has nothing yet.
fn beside_a_newcomer(chunks: u64) -> (Case, u64) {
    let mut case = Case::new(plan(chunks));
    case.join(0, 1, Has::Whole);
    case.join(1, 8, Has::Bitmap(Bits::new(chunks)));
    let first = case.of(0)[0];
    (case, first)
}

#[test]
fn what_a_holder_gives_to_others_is_asked_of_them_and_only_then_of_it() {
    let (mut case, first) = beside_a_newcomer(4);
    let rest: Vec<u64> = (0..4).filter(|chunk| *chunk != first).collect();
    case.tell(given(&rest[..2]));
    case.run_some(1);
    assert_eq!(case.of(0), [rest[2]], "the one that it gives to nobody");
    case.run_some(1);
    assert!(case.asked.is_empty(), "{:?}", case.asked);
    // As soon as another has it.
    case.tell(has(rest[0]));
    assert_eq!(case.asked, [(1, Shard::Data(rest[0]))]);
    case.run_some(1);
    case.wait(Duration::from_millis(1500));
    assert!(case.asked.is_empty(), "{:?}", case.asked);
    // Nothing comes any more.
    case.wait(Duration::from_secs(3));
    assert_eq!(case.asked, [(0, Shard::Data(rest[1]))]);
    // That is not put off again.
    case.tell(given(&rest));
    case.run();
    assert!(case.is_done());
}

#[test]
fn of_two_who_ask_for_the_same_chunk_the_one_that_hears_of_the_other_asks_for_another() {
    let mut case = Case::new(plan(10));
    case.join(0, 64, Has::Whole);
    case.join(1, 64, Has::Bitmap(Bits::new(10)));
    let before = case.of(0);
    let [sending, next] = before[..] else { panic!("{before:?}") };
    case.tell(given(&[sending, next, 99]));
    let after = case.of(0);
    assert!(after.len() == 2 && after[0] == sending && !before.contains(&after[1]), "{before:?}, {after:?}");
}

#[test]
fn nothing_is_left_to_nobody_nor_to_those_who_bring_less() {
    let mut alone = Case::new(plan(3));
    alone.join(0, 1, Has::Whole);
    alone.tell(given(&[0, 1, 2]));
    alone.run();
    assert!(alone.is_done());
    // The holder takes 10 ms for a chunk, the other a second.
    let (mut case, _) = beside_a_newcomer(6);
    case.run_some(1);
    let now = case.of(0)[0];
    let other = (0..6).find(|chunk| *chunk != now && case.planner.wants(Shard::Data(*chunk))).unwrap();
    case.tell(has(other));
    assert_eq!(case.of(1), [other]);
    case.tell(given(&[0, 1, 2, 3, 4, 5]));
    case.now += Duration::from_millis(10);
    case.arrive(0, Shard::Data(now));
    assert_eq!(case.of(0), [0; 0], "it is not known what the other brings");
    case.now += Duration::from_secs(1);
    case.arrive(1, Shard::Data(other));
    assert_eq!(case.of(0).len(), 1, "{:?}", case.asked);
    case.run();
    assert!(case.is_done());
}
