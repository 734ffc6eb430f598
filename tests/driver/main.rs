//! A driver of the store on one thread: the same seed makes the same calls of the system, so that each of them can be
//! made to fail, or to be the last.
//!
//! Owns: its arguments and its exit codes. `run STORE ACKS SEED` does a script in the folder STORE and appends a line
//! to the file ACKS for each operation, after the store has answered it; ends with 0 however much was refused.
//! `check STORE ACKS SEED` opens the store and proves from ACKS what must be there; `sweep STORE ACKS SEED` does the
//! same, collects, and proves that the account agrees with the disk (`sweep-leaky`: that it is not above it).
//! Exit 1: what was found is not what was acknowledged, in words. Refuses: to hang (it aborts). sled has threads of its
//! own; all else is on the main thread.

mod check;
mod model;
mod objects;
mod script;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use check::Sweep;

/// Nothing here takes more than a moment.
const HUNG: Duration = Duration::from_secs(40);

/// What is to be done, and where.
struct Place {
    store: PathBuf,
    acks: PathBuf,
    seed: u64,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [mode, store, acks, seed] = &args[..] else { return usage() };
    let Ok(seed) = seed.parse() else { return usage() };
    let place = Place { store: Path::new(store).to_owned(), acks: Path::new(acks).to_owned(), seed };
    let _watched = watch();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let done = runtime.block_on(async {
        match &**mode {
            "run" => work::run(&place).await,
            "check" => check::check(&place, Sweep::Not).await,
            "sweep" => check::check(&place, Sweep::Exact).await,
            "sweep-leaky" => check::check(&place, Sweep::Leaky).await,
            other => Err(format!("{other}: no such mode")),
        }
    });
    done.map_or_else(|words| failed(&words), |()| ExitCode::SUCCESS)
}

fn usage() -> ExitCode {
    eprintln!("usage: store-driver run|check|sweep|sweep-leaky STORE ACKS SEED");
    ExitCode::from(2)
}

fn failed(words: &str) -> ExitCode {
    eprintln!("store-driver: {words}");
    ExitCode::FAILURE
}

/// Aborts the process when it takes too long. What is returned is to be held until the end.
#[expect(clippy::disallowed_methods, reason = "a thread that outlives a runtime that hangs")]
fn watch() -> std::sync::mpsc::SyncSender<()> {
    let (held, over) = sync_channel(0);
    std::thread::spawn(move || {
        if over.recv_timeout(HUNG) == Err(RecvTimeoutError::Timeout) {
            eprintln!("store-driver: hung for {HUNG:?}");
            std::process::abort();
        }
    });
    held
}
