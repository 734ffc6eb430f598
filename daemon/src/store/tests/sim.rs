//! The whole store but sled over a disk that forgets, from a seed.
//!
//! A life: the store is opened, some calls go on at once, something fails, something rots, or the power goes at some
//! call; the disk keeps what the seed says. A model beside it knows what was answered. After each life the store is
//! opened anew and held to it:
//!
//! 1. what was answered can be read byte for byte, but for records in which something rotted, and jobs are as they
//!    were answered last;
//! 2. nothing wrong is ever read;
//! 3. the index names what the segments hold and nothing else;
//! 4. no temporary file is left;
//! 5. the account is what the disk has, and a quota is never passed;
//! 6. starting once more changes nothing;
//! 7. what was refused, removed or not answered for is not there, nor a job that has ended;
//! 8. a start reads the store a bounded number of times.
//!
//! What rots is told and found by a scrub, nothing else is; what parity covers comes back.

mod acts;
mod check;
mod jobs;
mod model;
mod rot;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::disk::forgetful::Call;
use world::World;

/// Seeds of a run of the tests.
const SEEDS: u64 = 10_000;

/// How long a seed may take: they take milliseconds.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs one seed in a runtime of its own, on this thread.
fn run(seed: u64, lie: Option<(Call, &'static str)>) -> Result<(), String> {
    if std::env::var_os("CASD_STORE_TRACE").is_some() {
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).try_init();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let world = async {
        let lived = tokio::time::timeout(PATIENCE, World::new(seed, lie).live()).await;
        lived.unwrap_or_else(|_| Err("it waits for ever".to_owned()))
    };
    let life = std::panic::AssertUnwindSafe(|| runtime.block_on(world));
    match std::panic::catch_unwind(life) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        }
    }
}

/// Runs seeds on all processors; gives the first that fails.
fn run_all(from: u64, count: u64, lie: Option<(Call, &'static str)>) -> Option<(u64, String)> {
    let next = AtomicU64::new(from);
    let failed = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= from + count {
                        break;
                    }
                    if let Err(why) = run(seed, lie) {
                        failed.lock().unwrap().get_or_insert((seed, why));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_whatever_the_disk_forgets() {
    let (from, count) = (setting("CASD_STORE_SEED", 0), setting("CASD_STORE_SEEDS", SEEDS));
    if let Some((seed, why)) = run_all(from, count, None) {
        panic!("seed {seed}: {why}\nrun it alone with CASD_STORE_SEED={seed} CASD_STORE_SEEDS=1");
    }
}

/// A test of the test: each sync that the store relies on, taken away, is missed.
#[test]
fn every_sync_that_is_left_out_is_missed() {
    let lies = [
        (Call::Sync, "segments/"),
        (Call::Sync, "journal/journal"),
        (Call::Sync, "journal/journal.tmp"),
        (Call::Sync, "FORMAT.tmp"),
        (Call::SyncDir, "segments"),
        (Call::SyncDir, "journal"),
        (Call::SyncDir, ""),
        (Call::Truncate, "segments/"),
    ];
    let mut missed = Vec::new();
    for lie in lies {
        match run_all(0, 20_000, Some(lie)) {
            Some((seed, why)) => println!("{lie:?}: seed {seed}: {why}"),
            None => missed.push(lie),
        }
    }
    assert!(missed.is_empty(), "nobody missed {missed:?}");
}
