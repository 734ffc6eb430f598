//! Whom a node names to its neighbours and whom it asks: the pure parts, and the format.

use super::*;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

/// In an address group of its own.
fn at(number: usize) -> Multiaddr {
    format!("/ip4/20.{number}.0.1/tcp/8468").parse().unwrap()
}

#[test]
fn the_latest_that_answered_are_named_and_neither_the_asker_nor_who_is_gone() {
    let mut known = Introductions::default();
    let peers: Vec<PeerId> = (0..MAX_KEPT + 9).map(|_| PeerId::random()).collect();
    for (number, peer) in peers.iter().enumerate() {
        known.answered(*peer, [at(number), at(number), at(200)].into_iter());
    }
    assert_eq!(known.answered.len(), MAX_KEPT);
    let [asker, gone] = [peers[peers.len() - 1], peers[peers.len() - 2]];
    known.gone(&gone);
    let told = known.told(&asker, |_| true);
    let named: Vec<PeerId> = told.iter().map(|(peer, _)| *peer).collect();
    let expected: Vec<PeerId> = peers.iter().rev().skip(2).take(MAX_SERVERS).copied().collect();
    assert_eq!(named, expected);
    assert_eq!(told[0].1, [at(peers.len() - 3), at(200)]);
    // Who is nowhere that may be told is not named.
    assert!(known.told(&asker, |_| false).is_empty());
    let one = known.told(&asker, |told| *told == at(peers.len() - 4));
    assert_eq!(one, [(peers[peers.len() - 4], vec![at(peers.len() - 4)])]);
    // Who answers again is the latest.
    known.answered(peers[peers.len() - 9], std::iter::once(at(7)));
    assert_eq!(known.told(&asker, |_| true)[0], (peers[peers.len() - 9], vec![at(7)]));
}

#[test]
fn one_owner_of_many_servers_neither_pushes_others_out_nor_is_named_before_them() {
    let mut known = Introductions::default();
    let others: Vec<PeerId> = (0..MAX_SERVERS - 1).map(|_| PeerId::random()).collect();
    for (number, peer) in others.iter().enumerate() {
        known.answered(*peer, std::iter::once(at(number)));
    }
    let many: Vec<PeerId> = (0..100).map(|_| PeerId::random()).collect();
    for (number, peer) in many.iter().enumerate() {
        let near = format!("/ip4/20.99.0.{number}/tcp/8468").parse().unwrap();
        // What it says besides of where it is makes it no other's.
        known.answered(*peer, [near, at(number)].into_iter());
    }
    assert_eq!(known.answered.len(), others.len() + MAX_OF_GROUP);
    let named = known.told(&PeerId::random(), |_| true).into_iter().map(|(peer, _)| peer);
    let expected: Vec<PeerId> = many.iter().rev().take(1).chain(others.iter().rev()).copied().collect();
    assert_eq!(named.collect::<Vec<_>>(), expected);
    // Where there are no others they are all there is.
    others.iter().for_each(|peer| known.gone(peer));
    assert_eq!(known.told(&PeerId::random(), |_| true).len(), MAX_OF_GROUP);
    // Private networks have no owners that rent them out.
    for number in 0..MAX_KEPT {
        let private = format!("/ip4/10.0.0.{number}/tcp/8468").parse().unwrap();
        known.answered(PeerId::random(), std::iter::once(private));
    }
    assert_eq!(known.answered.len(), MAX_KEPT);
}

#[test]
fn what_is_kept_of_one_is_bounded() {
    let (mut known, peer) = (Introductions::default(), PeerId::random());
    let long = format!("/dns4/{}/tcp/1", "x".repeat(MAX_ADDRESS)).parse().unwrap();
    known.answered(peer, std::iter::once(long).chain((0..100).map(at)));
    let kept: Vec<Multiaddr> = (0..MAX_ADDRESSES).map(at).collect();
    assert_eq!(known.told(&PeerId::random(), |_| true), [(peer, kept)]);
    for _ in 0..1000 {
        known.name(PeerId::random());
    }
    known.name(peer);
    known.name(peer);
    assert!(known.named.len() == MAX_KEPT && known.has_named(&peer));
}

#[test]
fn neighbours_are_asked_after_waits_that_double_and_strangers_never() {
    let (mut known, now) = (Introductions::default(), Instant::now());
    let [near, far] = [PeerId::random(), PeerId::random()];
    known.met(near, now);
    known.met(far, now);
    let asked = |known: &mut Introductions, seconds, longest| {
        // That it says what it is once more changes nothing.
        known.met(near, now);
        known.due(now + Duration::from_secs(seconds), longest, |peer| *peer == near)
    };
    let mut times = |seconds: std::ops::Range<u64>, longest| -> Vec<u64> {
        seconds.filter(|second| asked(&mut known, *second, longest) == [near]).collect()
    };
    assert_eq!(times(0..200, LONGEST_ALONE), [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]);
    // Less often where near servers are known, and at once more often when they are not any more.
    assert_eq!(times(200..1_500, LONGEST_WAIT), [211, 511, 811, 1_111, 1_411]);
    assert_eq!(times(1_500..1_600, LONGEST_ALONE), [1_530, 1_560, 1_590]);
    known.parted(&near);
    let later = now + Duration::from_secs(9_999);
    assert!(known.due(later, LONGEST_ALONE, |peer| *peer == near).is_empty());
}

#[test]
fn few_are_asked_at_once_and_whoever_comes_again_and_again_keeps_nobody_waiting() {
    let (mut known, now) = (Introductions::default(), Instant::now());
    let (patient, mut times) = (PeerId::random(), 0);
    known.met(patient, now);
    for second in 1..100 {
        let now = now + Duration::from_secs(second);
        let crowd: Vec<PeerId> = (0..100).map(|_| PeerId::random()).collect();
        crowd.iter().for_each(|peer| known.met(*peer, now));
        let asked = known.due(now, LONGEST_ALONE, |_| true);
        assert_eq!(asked.len(), AT_ONCE);
        times += usize::from(asked.contains(&patient));
        crowd.iter().for_each(|peer| known.parted(peer));
    }
    // At its waits, each a second longer at most.
    assert!(times >= 8, "{times}");
}

proptest! {
    #[test]
    fn what_is_told_is_read(counts in proptest::collection::vec(0usize..12, 0..20)) {
        let servers: Holders =
            counts.into_iter().map(|n| (PeerId::random(), (0..n).map(at).collect())).collect();
        let bytes = Introducing.encode_response(servers.clone());
        prop_assert!(bytes.len() <= Introducing::MAX_RESPONSE);
        let told = servers.into_iter().take(MAX_SERVERS);
        let told: Holders =
            told.map(|(peer, at)| (peer, at.into_iter().take(MAX_ADDRESSES).collect())).collect();
        prop_assert_eq!(Introducing.decode_response(&bytes).unwrap(), told);
    }

    #[test]
    fn nonsense_is_refused_and_what_is_read_is_canonical(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        if let Ok(servers) = Introducing.decode_response(&bytes) {
            prop_assert_eq!(Introducing.encode_response(servers), bytes.clone());
        }
        prop_assert_eq!(Introducing.decode_request(&bytes).is_ok(), bytes == [VERSION]);
    }
}

#[test]
fn more_than_are_told_are_refused() {
    let servers: Holders = (0..=MAX_SERVERS).map(|n| (PeerId::random(), vec![at(n)])).collect();
    assert!(Introducing.decode_response(&find::encode(&servers, MAX_SERVERS + 1)).is_err());
    assert!(Introducing.decode_response(&find::encode(&servers, MAX_SERVERS)).is_ok());
}
