//! Writing down now and then which objects are read.
//!
//! Owns: when. Refuses: writing at a stop, which the store does when it is closed. Survives a crash: what was written
//! last.

use std::time::Duration;

use crate::store::Store;
use crate::support::task::Tasks;

/// A crash forgets at most so much of what was read: it decides about nothing but what gives way first.
const EVERY: Duration = Duration::from_mins(5);

/// Has the store write it down, until the tasks are to stop.
pub fn keep_used(store: Store, tasks: &Tasks) {
    let stop = tasks.token();
    tasks.spawn("keep-used", async move {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            store.save_used().await;
        }
    });
}
