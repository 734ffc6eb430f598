//! Jobs in the journal, and what they keep.

use super::*;
use crate::store::disk::forgetful::{Fault, Plan};

const DAY: u64 = 24 * HOUR;

fn job(number: u64, object: ObjectId) -> Job {
    let peers = vec!["12D3@192.0.2.1:9000".to_owned()];
    Job { number, object, tree: false, uid: 1000, pin: true, priority: Priority::Normal, since: 5, peers }
}

#[tokio::test]
async fn jobs_survive_power_cuts_and_a_journal_that_is_written_anew_until_they_end() {
    let sizes = Sizes { journal: 512, ..Sizes::default() };
    let options = Options { quota: 0, reserve: 0, index_cache: 4 << 20, sizes };
    let open = |disk: &Forgetful| Store::open(&options, Arc::new(disk.clone()), Pool::new(2)).unwrap();
    let disk = Forgetful::default();
    let store = open(&disk);
    let [first, second] = [1, 2].map(|number| job(number, ObjectId::from_bytes([9; 32])));
    store.set_job(second.clone()).await.unwrap();
    for priority in [Priority::Low, Priority::High, Priority::Normal].into_iter().cycle().take(60) {
        store.set_job(Job { priority, ..first.clone() }).await.unwrap();
    }
    let all = [first, second.clone()];
    assert_eq!(store.jobs(), all);
    let crashed = disk.crash();
    let store = open(&crashed);
    assert_eq!(store.jobs(), all);
    store.end_job(1).await.unwrap();
    assert_eq!(open(&crashed.crash()).jobs(), std::slice::from_ref(&second));
    store.end_job(7).await.unwrap();
    let nameless = store.set_job(Job { number: 0, ..second.clone() }).await;
    assert!(matches!(nameless, Err(Error::Invalid(_))));
    assert_eq!(store.jobs(), [second]);
}

#[tokio::test]
async fn what_a_job_has_brought_is_kept_until_a_day_after_its_end() {
    let store = open_forgetful(&Forgetful::default());
    let (chunks, manifest, object) = several(&[1, 2]);
    let id = object.id;
    let lease = store.lease();
    lease.put(Item::Chunk(chunks[0].clone())).await.unwrap();
    lease.put_manifest(&manifest).await.unwrap();
    lease.partial(object).await.unwrap();
    drop(lease);
    store.set_job(job(1, id)).await.unwrap();
    let collected = |after: u64| {
        let store = store.clone();
        async move { store.collect(now() + after, false).await.unwrap().partials }
    };
    assert!(collected(9 * DAY).await.is_empty());
    assert!(store.has(&chunks[0].id()));
    store.end_job(1).await.unwrap();
    assert!(collected(HOUR).await.is_empty());
    assert_eq!(collected(2 * DAY).await, [id]);
    assert!(!store.has(&chunks[0].id()));
}

#[tokio::test]
async fn a_job_can_be_ended_on_a_disk_that_its_object_fills() {
    let disk = Forgetful::default();
    let store = open_forgetful(&disk);
    let (_, manifest, object) = several(&[1, 2]);
    let id = object.id;
    let lease = store.lease();
    lease.put_manifest(&manifest).await.unwrap();
    lease.partial(object).await.unwrap();
    drop(lease);
    store.set_job(job(1, id)).await.unwrap();
    let full = Fault::Errno(rustix::io::Errno::NOSPC.raw_os_error());
    disk.plan(Plan { fault: Some((0, 1, full)), ..Plan::default() });
    store.end_job(1).await.unwrap();
    assert!(store.jobs().is_empty());
    assert!(open_forgetful(&disk.crash()).jobs().is_empty());
}
