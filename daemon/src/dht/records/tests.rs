//! Properties of the store: budgets, fairness, expiry.

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::dht::holdings::Holdings;
use crate::dht::journal::{Entry, Journal};
use libp2p::kad::store::RecordStore;
use libp2p::kad::{ProviderRecord, Record, RecordKey};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn store(records: usize) -> (Records, Instant) {
    let now = Instant::now();
    let own = Arc::new(Mutex::new(Holdings::new(4)));
    (
        Records::new(
            PeerId::random(),
            records * RECORD_BYTES,
            own,
            (Journal::new(false), Described::new(0)),
            now,
        ),
        now,
    )
}

pub(super) fn key(number: u32) -> Key {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key
}

fn holders(records: &Records, number: u32, now: Instant) -> Vec<PeerId> {
    records.holders(&key(number), now).into_iter().map(|(peer, _, _)| peer).collect()
}

/// Both trees and all counts tell the same story.
fn check(records: &Records) {
    assert_eq!(records.by_key.len(), records.by_source.len());
    for (key, source) in records.by_key.keys() {
        assert!(records.by_source.contains(&(*source, records.far(key), *key)));
    }
    let counted: usize = records.sources.iter().flatten().map(|source| source.count as usize).sum();
    assert_eq!(counted, records.by_key.len());
    let mut owners = Owners::default();
    for (source, number) in records.sources.iter().zip(0..).filter(|(source, _)| source.is_some()) {
        source.iter().for_each(|source| owners.recount(source.owner(number), number, 0, source.count));
    }
    assert_eq!(records.owners, owners);
    assert!(records.by_key.len() * RECORD_BYTES <= records.budget);
}

#[test]
fn own_keys_are_told_with_where_this_node_is() {
    let (mut records, _) = store(2);
    let at: Multiaddr = "/ip4/8.8.4.4/udp/8468/quic-v1".parse().unwrap();
    records.locate_self(vec![at.clone()]);
    assert!(records.own.lock().unwrap().hold(&key(1), crate::peer::Kind::Object));
    let found = records.providers(&RecordKey::new(&key(1)));
    assert_eq!((found.len(), found[0].provider, &found[0].addresses), (1, records.local, &vec![at]));
    assert!(records.providers(&RecordKey::new(&key(2))).is_empty());
}

#[test]
fn one_address_group_has_few_of_a_keys_places() {
    let (mut records, now) = store(1_000);
    let meet = |records: &mut Records, ip: &str| {
        let peer = PeerId::random();
        records.met(peer, Vec::new(), Group::of(ip.parse().unwrap()));
        peer
    };
    let honest = meet(&mut records, "9.9.9.9");
    assert_eq!(records.put(key(1), honest, HOUR, now), Verdict::Taken);
    for number in 0..200 {
        let sybil = meet(&mut records, &format!("8.8.{number}.1"));
        assert_eq!(records.put(key(1), sybil, 2 * HOUR, now), Verdict::Taken);
    }
    assert_eq!(holders(&records, 1, now).len(), 1 + MAX_PER_GROUP);
    assert!(holders(&records, 1, now).contains(&honest));
    // Nor has who never says what it is, or comes through relays.
    let relayed = format!("/ip4/7.7.7.7/tcp/1/p2p/{}/p2p-circuit", PeerId::random()).parse().unwrap();
    for number in 0..200 {
        let [silent, hidden] = [PeerId::random(), PeerId::random()];
        let at = format!("/ip4/7.7.{number}.1/tcp/8468").parse().unwrap();
        records.opened(silent, Group::seen(&at));
        assert!(records.first_time(silent, 1).is_ok());
        assert_eq!(records.put(key(1), silent, 2 * HOUR, now), Verdict::Taken);
        records.opened(hidden, Group::seen(&relayed));
        assert_eq!(records.put(key(1), hidden, 2 * HOUR, now), Verdict::Taken);
    }
    assert_eq!(holders(&records, 1, now).len(), 1 + 3 * MAX_PER_GROUP);
    assert!(holders(&records, 1, now).contains(&honest));
    assert!(["0.0.0.0", "0.0.1.1"].iter().all(|ip| Group::of(ip.parse().unwrap()).is_none()));
    // Neighbours are not so many that they have to be held back.
    for number in 0..20 {
        let near = meet(&mut records, &format!("192.168.1.{number}"));
        assert_eq!(records.put(key(1), near, HOUR, now), Verdict::Taken);
    }
    assert_eq!(holders(&records, 1, now).len(), 21 + 3 * MAX_PER_GROUP);
    check(&records);
}

#[test]
fn a_full_store_keeps_what_is_nearest() {
    let (mut records, now) = store(400);
    let peer = PeerId::random();
    for number in 0..4_000 {
        records.put(key(number), peer, HOUR, now);
    }
    let distance = |key: &Key| Position::of_key(key).distance(records.place);
    let mut all: Vec<_> = (0..4_000).map(|number| distance(&key(number))).collect();
    all.sort_unstable();
    let kept = records.by_key.keys().filter(|(key, _)| distance(key) < all[400]).count();
    assert_eq!((records.len(), kept), (400, 400), "none is drawn, and none is searched for");
    check(&records);
}

#[test]
fn what_has_expired_goes_a_part_at_a_time_and_is_told_to_nobody_meanwhile() {
    let (mut records, now) = store(100_000);
    let (brief, lasting) = (PeerId::random(), PeerId::random());
    let count = 3 * u32::try_from(SWEPT_AT_ONCE).unwrap();
    for n in 0..count {
        let (peer, lifetime) = if n % 3 == 0 { (lasting, 2 * HOUR) } else { (brief, HOUR) };
        assert_eq!(records.put(key(n), peer, lifetime, now), Verdict::Taken);
    }
    let second = |second| now + HOUR + Duration::from_secs(second);
    assert!((0..count).all(|n| holders(&records, n, second(0)).is_empty() == (n % 3 != 0)));
    for (passed, most) in [(1, SWEPT_AT_ONCE), (2, 2 * SWEPT_AT_ONCE), (3, 3 * SWEPT_AT_ONCE)] {
        records.clean(second(passed));
        records.clean(second(passed));
        assert!(records.len() >= count as usize - most);
    }
    assert_eq!(records.len(), SWEPT_AT_ONCE, "what lasts is left");
    check(&records);
    // It begins anew.
    records.clean(second(3_700));
    assert!(records.len() < SWEPT_AT_ONCE);
}

#[test]
fn a_source_may_not_announce_without_end() {
    let (mut records, now) = store(1_000_000);
    let peer = PeerId::random();
    let mut taken = |from: u32, at| {
        let all = from..from + 2 * BURST;
        all.filter(|number| records.put(key(*number), peer, HOUR, at) == Verdict::Taken).count()
    };
    assert_eq!(taken(0, now), BURST as usize);
    assert_eq!(taken(1_000_000, now + Duration::from_secs(2)), 2 * RATE as usize);
}

#[test]
fn nor_may_the_sources_of_one_address_group_together() {
    let (mut records, now) = store(1_000);
    let mut taken = |ip: &str, sources: usize| {
        let all = (0..sources).map(|_| {
            let peer = PeerId::random();
            records.opened(peer, Group::of(ip.parse().unwrap()));
            (0..BURST).filter(|_| records.put(key(1), peer, HOUR, now) == Verdict::Taken).count()
        });
        all.sum::<usize>()
    };
    assert_eq!(taken("8.8.1.1", 5), OF_GROUP.burst as usize);
    assert_eq!(taken("9.9.1.1", 1), BURST as usize);
}

#[test]
fn what_is_told_page_by_page_is_taken_in_again() {
    let (mut records, now) = store(1_000);
    let peers: Vec<_> = (0..7).map(|_| PeerId::random()).collect();
    let at: Multiaddr = "/ip4/8.8.4.4/udp/8468/quic-v1".parse().unwrap();
    for (number, peer) in (0..700).zip(peers.iter().cycle()) {
        records.met(*peer, vec![at.clone()], None);
        let lifetime = HOUR * (1 + number % 3);
        assert_eq!(records.put(key(number), *peer, lifetime, now), Verdict::Taken);
    }
    let (mut again, _) = store(1_000);
    let mut from = None;
    loop {
        let (entries, next) = records.page(from, 64, now);
        again.restore(entries, now);
        from = next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(again.len(), 700);
    for number in 0..700 {
        let told = |records: &Records, at| holders(records, number, at);
        assert_eq!(told(&again, now), told(&records, now));
        let lifetime = HOUR * (1 + number % 3);
        assert!(told(&again, now + lifetime + Duration::from_secs(120)).is_empty());
        assert_eq!(told(&again, now + lifetime - Duration::from_secs(1)).len(), 1);
    }
    assert_eq!(again.whereabouts(&peers[3]), [at]);
    let taken = Entry::TakenBack { peer: peers[0], keys: vec![key(0), key(1)] };
    again.restore(vec![taken, Entry::Taken { peer: peers[1], until: 0, keys: vec![key(900)] }], now);
    assert_eq!(again.len(), 699);
    check(&again);
}

#[test]
fn a_flood_cannot_push_others_below_their_share() {
    let (mut records, now) = store(100);
    let (modest, flooder, late) = (PeerId::random(), PeerId::random(), PeerId::random());
    for n in 0..20 {
        assert_eq!(records.put(key(n), modest, HOUR, now), Verdict::Taken);
    }
    // Free room may be used beyond one's share.
    for n in 1000..2000 {
        records.put(key(n), flooder, HOUR, now);
    }
    let count = |records: &Records, of: &PeerId| records.source(records.numbers[of]).unwrap().count;
    assert_eq!(count(&records, &flooder), 80);
    // A third source takes from the one with the most until it has as much, however many have no records.
    (0..500).for_each(|_| assert!(records.first_time(PeerId::random(), 1).is_ok()));
    for n in 3000..4000 {
        records.put(key(n), late, HOUR, now);
    }
    assert_eq!((count(&records, &late), count(&records, &flooder)), (40, 40));
    assert!((0..20).all(|n| holders(&records, n, now) == [modest]));
    check(&records);
}

#[test]
fn the_stalest_provider_of_a_key_gives_way() {
    let (mut records, now) = store(1000);
    let peers: Vec<_> = (0..=MAX_PROVIDERS).map(|_| PeerId::random()).collect();
    for (age, peer) in peers.iter().enumerate() {
        let lifetime = HOUR + Duration::from_secs(age as u64);
        assert_eq!(records.put(key(1), *peer, lifetime, now), Verdict::Taken);
    }
    let kept = holders(&records, 1, now);
    assert_eq!(kept.len(), MAX_PROVIDERS);
    assert!(!kept.contains(&peers[0]) && kept.contains(&peers[MAX_PROVIDERS]));
    check(&records);
}

#[test]
fn records_expire_and_refreshing_keeps_them() {
    let (mut records, now) = store(10);
    let peer = PeerId::random();
    assert_eq!(records.put(key(1), peer, HOUR, now), Verdict::Taken);
    assert_eq!(records.put(key(2), peer, HOUR, now), Verdict::Taken);
    assert_eq!(records.put(key(1), peer, HOUR, now + HOUR / 2), Verdict::Taken);
    let later = now + HOUR + Duration::from_secs(1);
    assert_eq!(holders(&records, 1, later), [peer]);
    assert!(holders(&records, 2, later).is_empty());
    records.clean(later);
    assert_eq!(records.len(), 1);
    // Nothing lives longer than the maximum, whatever its announcer says.
    records.put(key(3), peer, Duration::MAX / 4, now);
    records.clean(now + MAX_LIFETIME + HOUR);
    assert_eq!(records.len(), 0);
    check(&records);
}

#[test]
fn what_is_announced_again_and_again_is_written_down_once_for_each_part_of_its_life() {
    let (mut records, now) = store(10);
    records.journal = Journal::new(true);
    let (peer, part) = (PeerId::random(), 8 * HOUR / PART);
    let written = |records: &mut Records, lifetime, at| {
        assert_eq!(records.put_all(vec![key(1)], peer, lifetime, at), [Verdict::Taken]);
        let entries = records.journal.noted().0;
        entries.iter().filter(|entry| matches!(entry, Entry::Taken { keys, .. } if *keys == [key(1)])).count()
    };
    assert_eq!(written(&mut records, 8 * HOUR, now), 1);
    // Nor does it help to ask for less now and then.
    let often = (1..60).map(|minute| HOUR * minute / 60);
    for (lifetime, passed) in [8 * HOUR, 7 * HOUR].into_iter().cycle().zip(often) {
        assert_eq!(written(&mut records, lifetime, now + passed), 0, "{passed:?}");
    }
    assert_eq!(written(&mut records, 8 * HOUR, now + part), 1);
    // What is known is what is written.
    assert_eq!(holders(&records, 1, now + part + 8 * HOUR - Duration::from_secs(1)), [peer]);
    assert!(holders(&records, 1, now + part + 8 * HOUR).is_empty());
    check(&records);
}

#[test]
fn a_flood_of_identities_stays_bounded() {
    let (mut records, now) = store(4 * MAX_SOURCES);
    let honest = PeerId::random();
    for n in 0..100 {
        records.put(key(n), honest, HOUR, now);
    }
    for n in 0..u32::try_from(MAX_SOURCES).unwrap() + 500 {
        records.put(key(1_000 + n), PeerId::random(), HOUR, now);
    }
    assert!(records.sources_len() <= MAX_SOURCES);
    // The one with many records is never the smallest of those drawn.
    assert_eq!(holders(&records, 7, now), [honest]);
    check(&records);
}

fn meet(records: &mut Records, ip: [u8; 4]) -> PeerId {
    let peer = PeerId::random();
    records.opened(peer, Group::of(ip.into()));
    peer
}

#[test]
fn one_address_group_with_many_ids_takes_nobodys_only_record() {
    let (mut records, now) = store(4 * MAX_SOURCES);
    let honest: Vec<_> = (0..100u8).map(|n| meet(&mut records, [9, n, 1, 1])).collect();
    for (number, peer) in (0..).zip(&honest) {
        assert_eq!(records.put(key(number), *peer, HOUR, now), Verdict::Taken);
    }
    for n in 0..2 * u32::try_from(MAX_SOURCES).unwrap() {
        let sybil = meet(&mut records, [8, 8, 1, 1]);
        (0..2).for_each(|which| _ = records.put(key(1_000 + 2 * n + which), sybil, HOUR, now));
        records.parted(&sybil);
    }
    let is_there = |number, peer: &PeerId| holders(&records, number, now) == [*peer];
    assert_eq!((0..).zip(&honest).filter(|(number, peer)| is_there(*number, peer)).count(), 100);
    assert_eq!(records.sources_len(), MAX_SOURCES);
    check(&records);
}

#[test]
fn one_address_group_with_many_ids_cuts_nobody_down() {
    let (mut records, now) = store(1_000);
    let count = |records: &Records, of: &PeerId| records.source(records.numbers[of]).unwrap().count;
    let honest = meet(&mut records, [9, 9, 1, 1]);
    for n in 0..500 {
        assert_eq!(records.put(key(n), honest, HOUR, now), Verdict::Taken);
    }
    let mut sybils = Vec::new();
    for n in 0..300 {
        sybils.push(meet(&mut records, [8, 8, 1, 1]));
        (0..10).for_each(|which| _ = records.put(key(1_000 + 10 * n + which), sybils[n as usize], HOUR, now));
    }
    assert_eq!(count(&records, &honest), 500);
    // Within the group it is shared alike, and who was not seen since the start is no part of it.
    let most = sybils.iter().map(|sybil| count(&records, sybil)).max();
    assert!(most < Some(10), "{most:?}");
    let unseen = PeerId::random();
    for n in 5_000..5_100 {
        assert_eq!(records.put(key(n), unseen, HOUR, now), Verdict::Taken);
    }
    check(&records);
    // When it is seen it is.
    records.opened(unseen, Group::of([8, 8, 2, 2].into()));
    check(&records);
}

#[test]
fn the_swarm_gets_providers_with_addresses_and_no_values() {
    let (mut records, _) = store(10);
    let peer = PeerId::random();
    let at: Multiaddr = "/ip4/192.0.2.7/udp/8468/quic-v1".parse().unwrap();
    let claimed: Multiaddr = "/ip4/198.51.100.1/tcp/25".parse().unwrap();
    records.met(peer, vec![at.clone(); 500], None);
    let wanted = RecordKey::new(&key(1));
    records.add_provider(ProviderRecord::new(wanted.clone(), peer, vec![claimed])).unwrap();
    let found = records.providers(&wanted);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].addresses, vec![at; MAX_ADDRESSES]);
    assert!(records.add_provider(ProviderRecord::new(vec![1; 31], peer, vec![])).is_err());
    assert!(records.add_provider(ProviderRecord::new(vec![1; 33], peer, vec![])).is_err());
    assert!(RecordStore::put(&mut records, Record::new(wanted.clone(), vec![0; 64])).is_err());
    assert!(records.get(&wanted).is_none() && records.provided().next().is_none());
    records.remove_provider(&wanted, &peer);
    assert!(records.providers(&wanted).is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Put { number: u32, peer: usize, minutes: u64 },
    TakeBack { number: u32, peer: usize },
    Pass { minutes: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u32..40, 0usize..6, 1u64..300)
            .prop_map(|(number, peer, minutes)| Step::Put { number, peer, minutes }),
        1 => (0u32..40, 0usize..6).prop_map(|(number, peer)| Step::TakeBack { number, peer }),
        1 => (1u64..120).prop_map(|minutes| Step::Pass { minutes }),
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    #[test]
    fn budgets_hold_whatever_happens(steps in steps(), room in 1usize..60) {
        let (mut records, mut now) = store(room);
        let peers: Vec<_> = (0..6).map(|_| PeerId::random()).collect();
        for step in steps {
            match step {
                Step::Put { number, peer, minutes } => {
                    let before = holders(&records, number, now).contains(&peers[peer]);
                    let lifetime = Duration::from_secs(60 * minutes);
                    let verdict = records.put(key(number), peers[peer], lifetime, now);
                    prop_assert_eq!(verdict == Verdict::Taken, holders(&records, number, now).contains(&peers[peer]));
                    prop_assert!(!before || verdict == Verdict::Taken, "refreshing works at capacity");
                }
                Step::TakeBack { number, peer } => {
                    records.take_back(vec![key(number)], &peers[peer]);
                    prop_assert!(!holders(&records, number, now).contains(&peers[peer]));
                }
                Step::Pass { minutes } => {
                    now += Duration::from_secs(60 * minutes);
                    records.clean(now);
                    let second = records.second(now);
                    prop_assert!(records.by_key.values().all(|until| *until > second));
                }
            }
            check(&records);
        }
    }
}
