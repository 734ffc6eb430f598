//! Each call of the system that the store makes is made to fail, and to be the last: what was acknowledged is there
//! afterwards, and nothing else is that nobody added.
//!
//! `CASD_FAULTS=kills`, `errors` or `all` does it for every call, `reads` for reads that give EIO; else it is done for
//! a few drawn from a seed. `CASD_FAULTS=FAULT` does it for that one alone, written as a failure shows it.
//! `CASD_FAULT_SEED` is the script's and the draw's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use casd_tests::ctl::Run;
use casd_tests::programs::program;
use casd_tests::strace::{Calls, Fate, Fault, Strace, failed};
use casd_tests::{Done, segments};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;

const READS: Calls = Calls(&["pread64"]);
const OPENS: Calls = Calls(&["openat"]);
const WRITES: Calls = Calls(&["pwritev", "?pwritev2"]);
const PUNCHES: Calls = Calls(&["fallocate"]);
const INDEX_WRITES: Calls = Calls(&["pwrite64"]);

/// The calls, and as which the process may be killed.
const CALLS: [Calls; 13] = [
    OPENS,
    WRITES,
    INDEX_WRITES,
    Calls(&["write"]),
    Calls(&["fdatasync"]),
    Calls(&["fsync"]),
    Calls(&["sync_file_range"]),
    Calls(&["?mkdir", "?mkdirat"]),
    Calls(&["?rename", "?renameat", "?renameat2"]),
    Calls(&["?unlink", "?unlinkat"]),
    Calls(&["ftruncate"]),
    PUNCHES,
    READS,
];

/// What a disk says.
const ERRORS: [&str; 3] = ["EIO", "ENOSPC", "EROFS"];

/// Kills and errors of the short form, and how long it may go on drawing.
const FEW: (usize, usize) = (30, 60);
const SHORT: Duration = Duration::from_secs(45);

/// Recoveries that are cut off after each kill.
const RECOVERIES: usize = 3;

/// Where one worker has its store.
struct Bench {
    folder: PathBuf,
    seed: u64,
}

impl Bench {
    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn scratch(&self) -> PathBuf {
        self.folder.join("trace")
    }

    fn driver(&self, mode: &str) -> Vec<OsString> {
        let acks = self.folder.join("acks").into();
        vec![
            program("store-driver").into(),
            mode.into(),
            self.store().into(),
            acks,
            self.seed.to_string().into(),
        ]
    }

    /// Nothing is there yet.
    fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        std::fs::create_dir(&self.folder).unwrap();
    }

    /// The store is what it may be.
    fn holds(&self, mode: &str) -> Result<(), String> {
        let command = self.driver(mode);
        let run = command[1..].iter().fold(Run::new(&command[0]), Run::arg);
        calm(&run.done())
    }
}

/// It ended by itself and well. A panic of the index that was caught does not count; one of a thread that nobody
/// watches does.
fn calm(done: &Done) -> Result<(), String> {
    let caught = |line: &str| line.starts_with("thread 'main'") || !line.contains("panicked at");
    match done.status.success() && done.stderr.lines().all(caught) {
        true => Ok(()),
        false => Err(format!("{}: {}", done.status, done.stderr)),
    }
}

fn is_killed(done: &Done) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&done.status) == Some(Signal::KILL.as_raw())
}

/// Whether a failed call must be told to a caller: what was to be durable may not be.
fn is_told_of(call: &str) -> bool {
    call.contains("fdatasync(") && (call.contains("/segments/") || call.contains("/journal/journal>"))
}

/// Runs the script with a fault, and proves the store afterwards. Whether it came to the fault.
fn suffer(strace: &Strace, bench: &Bench, fault: &Fault) -> Result<bool, String> {
    bench.clear();
    let (store, scratch) = (bench.store(), bench.scratch());
    let done = strace.run(&store, fault, &bench.driver("run"), &scratch).done();
    let killed = fault.fate == Fate::Kill && is_killed(&done);
    // However it ended, what it acknowledged must be there.
    let ended = if killed { Ok(()) } else { calm(&done).map_err(|words| format!("run: {words}")) };
    let calls = failed(&scratch);
    let touched = killed || !calls.is_empty();
    if let Some(call) =
        calls.iter().find(|call| is_told_of(call)).filter(|_| !done.stderr.contains("store-driver:"))
    {
        return Err(format!("run: nobody was told of {call}"));
    }
    if killed && fault.when.is_multiple_of(2) {
        // The last write may have been cut off in the middle.
        segments::tear(&store, bench.seed + fault.when as u64);
    }
    // The same for a fault whichever way it came to be chosen.
    let mut random = StdRng::seed_from_u64(bench.seed ^ fault.when as u64);
    let mut faults = vec![*fault];
    for _ in 0..if fault.fate == Fate::Kill { RECOVERIES } else { 1 } {
        let second = another(&mut random, fault.fate);
        faults.push(second);
        let done = strace.run(&store, &second, &bench.driver("check"), &scratch).done();
        let fine = match fault.fate {
            Fate::Kill => is_killed(&done) || done.status.success(),
            // A store that cannot be opened says so.
            _ => done.status.code() == Some(1) || calm(&done).is_ok(),
        };
        if !fine {
            return Err(format!("{}: {}: {}", listed(&faults), done.status, done.stderr));
        }
    }
    // Room that could not be punched comes back only when its segment is emptied.
    let leaks = faults.iter().any(|fault| fault.calls == PUNCHES && fault.fate != Fate::Kill);
    for mode in ["check", "check", if leaks { "sweep-leaky" } else { "sweep" }] {
        bench.holds(mode).map_err(|words| format!("{}, {mode}: {words}", listed(&faults)))?;
    }
    ended.map(|()| touched)
}

fn listed(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(", then ")
}

/// A fault for a recovery.
fn another(random: &mut StdRng, fate: Fate) -> Fault {
    let calls = CALLS[random.random_range(0..CALLS.len() - usize::from(fate != Fate::Kill))];
    let most = if calls == READS { 150 } else { 8 };
    let fate =
        if fate == Fate::Kill { fate } else { Fate::Error(ERRORS[random.random_range(0..ERRORS.len())]) };
    Fault { calls, fate, when: random.random_range(1..=most) }
}

/// All faults: (kills, errors). Among the errors are reads that fail, for those who ask for them.
fn faults(strace: &Strace, bench: &Bench) -> (Vec<Fault>, Vec<Fault>) {
    bench.clear();
    let counts = strace.count(&bench.store(), &CALLS, &bench.driver("run"), &bench.scratch());
    let (mut kills, mut errors) = (Vec::new(), Vec::new());
    for (calls, count) in counts {
        eprintln!("{count} times {}", calls.0.join(","));
        for when in 1..=count {
            kills.push(Fault { calls, fate: Fate::Kill, when });
            if calls == READS {
                errors.push(Fault { calls, fate: Fate::Error("EIO"), when });
                continue;
            }
            for error in ERRORS {
                errors.push(Fault { calls, fate: Fate::Error(error), when });
                errors.push(Fault { calls, fate: Fate::ErrorFromThenOn(error), when });
            }
            if [OPENS, WRITES, INDEX_WRITES].contains(&calls) {
                errors.push(Fault { calls, fate: Fate::Error("EDQUOT"), when });
            }
        }
    }
    (kills, errors)
}

/// What the environment asks for.
fn chosen(strace: &Strace, bench: &Bench) -> (Vec<Fault>, Duration) {
    let (mut kills, mut errors) = faults(strace, bench);
    match std::env::var("CASD_FAULTS") {
        Ok(which) => {
            let all = kills.into_iter().chain(errors);
            let wanted = |fault: &Fault| match &*which {
                "all" => fault.fate == Fate::Kill || fault.calls != READS,
                "kills" => fault.fate == Fate::Kill,
                "errors" => fault.fate != Fate::Kill && fault.calls != READS,
                "reads" => fault.fate != Fate::Kill && fault.calls == READS,
                one => fault.to_string() == one,
            };
            (all.filter(wanted).collect(), Duration::MAX)
        }
        Err(_) => {
            let mut random = StdRng::seed_from_u64(bench.seed);
            errors.retain(|fault| fault.calls != READS);
            kills.shuffle(&mut random);
            errors.shuffle(&mut random);
            kills.truncate(FEW.0);
            errors.truncate(FEW.1);
            let mut few = [kills, errors].concat();
            few.shuffle(&mut random);
            (few, SHORT)
        }
    }
}

#[test]
fn every_call_of_the_system_may_fail_or_be_the_last() {
    if !Strace::is_there() {
        return casd_tests::skip("no strace, or it may not trace; install it");
    }
    let folder = tempfile::Builder::new().prefix("casd-faults-").tempdir().unwrap();
    let seed = std::env::var("CASD_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    eprintln!("CASD_FAULT_SEED={seed}");
    let bench = |name: &str| Bench { folder: folder.path().join(name), seed };
    let first = bench("first");
    first.clear();
    let strace = Strace::learn(&first.store(), &first.driver("run"), &first.scratch());
    let (faults, limit) = chosen(&strace, &first);
    let all = Course { faults, until: Instant::now().checked_add(limit), ..Course::default() };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for worker in ["one", "two"] {
            let (bench, strace, all) = (bench(worker), &strace, &all);
            scope.spawn(move || all.run(strace, &bench));
        }
    });
    let (done, touched) = (all.done.into_inner(), all.touched.into_inner());
    eprintln!("{done} of {} faults, {touched} came to pass, in {:?}", all.faults.len(), begun.elapsed());
    let failed = all.failed.into_inner().unwrap();
    if !failed.is_empty() {
        eprintln!("what was left is in {}", folder.keep().display());
    }
    assert!(failed.is_empty(), "{} faults were too much:\n{}", failed.len(), failed.join("\n"));
    assert!(touched > 0, "no fault came to pass");
}

/// Faults, and how far their workers are.
#[derive(Default)]
struct Course {
    faults: Vec<Fault>,
    until: Option<Instant>,
    next: AtomicUsize,
    done: AtomicUsize,
    /// Those that came to pass.
    touched: AtomicUsize,
    /// Those that were too much, in words.
    failed: Mutex<Vec<String>>,
}

impl Course {
    fn run(&self, strace: &Strace, bench: &Bench) {
        while self.until.is_none_or(|until| Instant::now() < until)
            && let Some(fault) = self.faults.get(self.next.fetch_add(1, Ordering::SeqCst))
        {
            let touched = suffer(strace, bench, fault).unwrap_or_else(|words| {
                let words = format!("CASD_FAULT_SEED={} CASD_FAULTS={fault}: {words}", bench.seed);
                eprintln!("{words}");
                // For whoever looks into it.
                let _ = std::fs::rename(&bench.folder, bench.folder.with_file_name(fault.to_string()));
                self.failed.lock().unwrap().push(words);
                true
            });
            self.touched.fetch_add(usize::from(touched), Ordering::SeqCst);
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }
}
