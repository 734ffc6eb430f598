//! Jobs that wait, begin and give way, without any time going by.

use futures::FutureExt;

use super::*;
use crate::node::jobs::pace::TURN;

fn job(number: u64, priority: Priority) -> Job {
    let object = ObjectId::from_bytes([u8::try_from(number).unwrap(); 32]);
    Job { number, object, tree: false, uid: 1000, pin: false, priority, since: 0, peers: Vec::new() }
}

fn running(table: &Table) -> Vec<u64> {
    table.entries.values().filter(|entry| entry.runs()).map(|entry| entry.job.number).collect()
}

fn rest(table: &mut Table, number: u64) {
    table.rest(number, "why".to_owned(), "error".to_owned(), Instant::now());
}

#[test]
fn they_begin_by_priority_then_by_tries_then_by_age_and_no_more_than_may() {
    let mut table = Table::new(1);
    table.insert(job(1, Priority::Normal));
    for (number, priority) in
        [(2, Priority::Low), (3, Priority::Normal), (4, Priority::High), (5, Priority::Normal)]
    {
        table.insert(job(number, priority));
    }
    assert_eq!(running(&table), [1], "who runs is not interrupted");
    rest(&mut table, 1);
    assert_eq!(running(&table), [4]);
    // The first is hopeless, it seems: others go before it.
    table.queue(1);
    table.end(4, Standing::Done);
    assert_eq!(running(&table), [3]);
    // What was low is high from now on.
    table.change(job(2, Priority::High));
    for (ends, begins) in [(3, 2), (2, 5), (5, 1)] {
        table.end(ends, Standing::Done);
        assert_eq!(running(&table), [begins]);
    }
    assert_eq!((table.free_number(), table.counts(1000), table.views().len()), (6, (1, 1), 5));
}

#[test]
fn no_user_keeps_the_jobs_of_another_waiting_whatever_their_priority() {
    for bound in [1, 2] {
        let mut table = Table::new(bound);
        for number in 1..=4 {
            table.insert(job(number, Priority::High));
        }
        table.insert(Job { uid: 7, ..job(5, Priority::Low) });
        rest(&mut table, 1);
        assert!(running(&table).contains(&5), "{bound}");
        table.queue(1);
        rest(&mut table, 5);
        table.queue(5);
        assert!(!running(&table).contains(&5), "by turns");
        for number in running(&table) {
            rest(&mut table, number);
        }
        assert!(running(&table).contains(&5), "{bound}");
    }
}

#[tokio::test]
async fn nobody_brings_what_another_brings_and_all_hope_when_that_one_ends() {
    let mut table = Table::new(9);
    let of = |number, uid| Job { number, uid, ..job(7, Priority::Normal) };
    let object = of(1, 1).object;
    table.insert(of(1, 1));
    let second = table.insert(of(2, 2));
    assert_eq!(running(&table), [1]);
    rest(&mut table, 1);
    assert_eq!(running(&table), [2]);
    // A fetch of another user's changes nothing, one of its own does.
    let (other, own) =
        (table.attend(3, object, Inquiry::default()), table.attend(2, object, Inquiry::default()));
    second.yields.notified().await;
    table.queue(2);
    assert!(running(&table).is_empty());
    assert_eq!(table.bringing(&object).len(), 4);
    table.leave(other);
    assert!(running(&table).is_empty());
    table.leave(own);
    assert_eq!(running(&table), [2]);
    let ended = table.end(2, Standing::Cancelled).unwrap();
    assert!(second.stop.is_cancelled() && ended.standing == Standing::Cancelled);
    assert!(table.entries[&1].hands.wake.notified().now_or_never().is_some());
}

#[test]
fn jobs_are_their_owners_and_the_administrators() {
    let mut table = Table::new(1);
    let job = job(1, Priority::Normal);
    table.insert(job.clone());
    let user = |uid| Caller { uid, is_admin: uid == 0 };
    for (uid, numbered, of_object) in [(1000, true, true), (0, true, true), (7, false, false)] {
        assert_eq!(table.numbered(user(uid), 1).is_ok(), numbered, "{uid}");
        assert_eq!(table.of_object(user(uid), &job.object).is_ok(), of_object, "{uid}");
    }
    assert!(matches!(table.numbered(user(7), 1), Err(Error::NotYourJob(1))));
    assert!(matches!(table.numbered(user(7), 2), Err(Error::NoJob(_))));
}

#[test]
fn who_crawls_gives_its_place_to_those_that_would_begin_before_it() {
    let (mut table, start) = (Table::new(1), Instant::now());
    let turns = |turns: u32| start + turns * 2 * TURN;
    table.insert(job(1, Priority::Normal));
    table.started(1, 1 << 30);
    table.progressed(1, Progress { bytes: 7 << 20, ..Progress::default() });
    assert!(!table.is_to_give_way(1, turns(1)), "nobody waits");
    table.insert(job(2, Priority::Normal));
    assert!(!table.is_to_give_way(1, turns(1)), "it has had no turn since");
    assert!(table.is_to_give_way(1, turns(3)));
    table.tried(1);
    table.queue(1);
    assert_eq!(running(&table), [2]);
    table.end(2, Standing::Done);
    assert_eq!((running(&table), table.view(1).unwrap().tries), (vec![1], 1));
    // It would have its place back at once.
    table.change(job(1, Priority::High));
    table.insert(job(3, Priority::Low));
    assert!(!table.is_to_give_way(1, turns(9)));
    table.insert(Job { uid: 7, ..job(4, Priority::Low) });
    assert!(table.is_to_give_way(1, turns(12)), "another user has as much of a right to it");
    table.tried(1);
    table.queue(1);
    assert_eq!(running(&table), [4]);
}
