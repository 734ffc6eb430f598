//! A daemon is killed again and again in the middle of its work: what it acknowledged is there, what it let go of is
//! not. Now and then a bit rots that parity covers: it is mended, whenever the mending is cut short.
//!
//! `CASD_KILL_ROUNDS` says how often, 8 times unless set; `CASD_KILL_SEED` draws the moments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Done;
use casd_tests::wait::{self, LONG};
use casd_tests::{Ctl, Daemon, Home, segments};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

/// A daemon lives at most so long once its work has begun.
const LIFE: Duration = Duration::from_millis(1500);

/// A start is cut off at most so late.
const START: Duration = Duration::from_millis(120);

/// Objects that are added before some are removed.
const ENOUGH: usize = 12;

/// Objects that the other daemon gives.
const GIVEN: u64 = 6;

/// What is known of an object from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Acknowledged: it must be there.
    Here,
    /// It must not be there: never added, or its removal was acknowledged.
    Gone,
    /// Something is being done with it, or was when the daemon died.
    Busy,
}

/// An object that the oracle knows.
#[derive(Clone, Debug)]
struct Object {
    seed: u64,
    length: usize,
    state: State,
    /// The other daemon has it too.
    given: bool,
    /// Ids of its chunks and its parity chunks, when it has parity.
    chunks: Vec<String>,
    /// One of them has rotted, and may not have been mended yet.
    rotten: bool,
}

impl Object {
    fn new(seed: u64, length: usize, state: State, given: bool) -> Self {
        Self { seed, length, state, given, chunks: Vec::new(), rotten: false }
    }

    fn bytes(&self) -> Vec<u8> {
        corpus::bytes(self.seed, self.length)
    }
}

/// What was acknowledged, by id. Outlives the daemon.
#[derive(Default)]
struct Oracle {
    objects: Mutex<BTreeMap<String, Object>>,
    next: AtomicU64,
    /// Adds, fetches and removals that were acknowledged.
    acknowledged: AtomicU64,
}

impl Oracle {
    /// Sets an object's state.
    fn set(&self, id: &str, state: State) {
        self.objects.lock().unwrap().get_mut(id).unwrap().state = state;
    }

    /// Takes an object that `wanted` wants for something to be done with it.
    fn take(&self, random: &mut StdRng, wanted: impl Fn(&Object) -> bool) -> Option<(String, Object)> {
        let mut objects = self.objects.lock().unwrap();
        let (id, object) = objects.iter_mut().filter(|(_, object)| wanted(object)).choose(random)?;
        let as_it_was = object.clone();
        object.state = State::Busy;
        Some((id.clone(), as_it_was))
    }

    fn count(&self, state: State) -> usize {
        self.objects.lock().unwrap().values().filter(|object| object.state == state).count()
    }

    /// A new object, which is about to be added.
    fn add(&self, random: &mut StdRng) -> (String, Object) {
        let seed = self.next.fetch_add(1, Ordering::SeqCst);
        let length = match random.random_range(0..4) {
            0 => random.random_range(1..5000),
            1 => random.random_range(5000..1_500_000),
            _ => random.random_range(1_500_000..6_000_000),
        };
        let object = Object::new(seed, length, State::Busy, false);
        let id = corpus::id(&object.bytes());
        self.objects.lock().unwrap().insert(id.clone(), object.clone());
        (id, object)
    }

    /// The answer came.
    fn acknowledge(&self, id: &str, state: State) {
        self.set(id, state);
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// A bit of some objects with parity rots: of each in one chunk, so that its parity covers it. The daemon is down.
    fn rots(&self, random: &mut StdRng, state: &Path) -> usize {
        let mut objects = self.objects.lock().unwrap();
        let sound = objects.values_mut().filter(|object| object.state == State::Here && !object.rotten);
        let mut rotten = Vec::new();
        for object in sound.choose_multiple(random, 3) {
            rotten.extend(object.chunks.iter().choose(random).cloned());
            object.rotten = !object.chunks.is_empty();
        }
        drop(objects);
        segments::rot(state, |record| rotten.contains(&record.id))
    }

    /// Everything is proved in peace: all that has rotted comes back.
    #[track_caller]
    fn mends(&self, ctl: &Ctl) {
        let sum = ctl.run(&["verify", "--json"]).within(2 * LONG).done().ok().json().pop().unwrap();
        assert_eq!(sum["unrepairable"], 0, "{sum}");
        self.objects.lock().unwrap().values_mut().for_each(|object| object.rotten = false);
    }

    /// What is there is what was acknowledged; what was being done is done, or not. What is counted is what is taken.
    #[track_caller]
    fn agrees(&self, daemon: &Daemon, state: &Path) {
        let ctl = daemon.ctl();
        // Reads are served before all is counted.
        let status = wait::until("the store to be counted", LONG, || {
            Some(ctl.status()).filter(|status| status["store"]["recovering"].is_null())
        });
        let stored = status["stored_bytes"].as_u64().unwrap();
        let taken = corpus::disk_usage(&state.join("segments")).unwrap();
        assert!(taken.abs_diff(stored) < MIB + taken / 100, "{stored} bytes are counted, {taken} are taken");
        let listed = ctl.json(&["ls"]);
        let listed: Vec<_> = listed.iter().map(|object| object["id"].as_str().unwrap()).collect();
        let mut objects = self.objects.lock().unwrap();
        assert!(listed.iter().all(|id| objects.contains_key(*id)), "nobody added some of {listed:?}");
        for (number, (id, object)) in objects.iter_mut().enumerate() {
            let there = listed.contains(&&**id);
            let wrong = match object.state {
                State::Here => !there,
                State::Gone => there,
                State::Busy => false,
            };
            assert!(!wrong, "{id} is {:?}, and that it is there is {there}", object.state);
            object.state = if there { State::Here } else { State::Gone };
            if there {
                let verb = if number % 2 == 0 { &["cat", &**id][..] } else { &["fetch", &**id, "-o", "-"] };
                assert!(ctl.run(verb).done().ok().stdout == object.bytes(), "{id} of {object:?} by {verb:?}");
                let stat = ctl.json(&["stat", id]).pop().unwrap();
                assert_eq!(stat["local_chunks"], stat["chunks"], "{stat}");
                object.chunks = chunks(ctl, id);
            }
        }
        // What has gone for good is not asked for again.
        objects.retain(|_, object| object.state == State::Here || object.given);
    }
}

/// The ids of an object's chunks and parity chunks, when it has any of these.
fn chunks(ctl: &Ctl, id: &str) -> Vec<String> {
    let chunks = ctl.json(&["stat", "--chunks", id]);
    let has_parity = chunks.iter().any(|chunk| chunk["parity"] == true);
    let ids = chunks.iter().filter_map(|chunk| chunk["id"].as_str()).filter(|_| has_parity);
    ids.map(str::to_owned).collect()
}

/// One life of the daemon.
struct Life<'a> {
    ctl: Ctl,
    oracle: &'a Oracle,
    /// It has been killed.
    over: AtomicBool,
    /// `--peer` of the one who gives.
    giver: &'a str,
    folder: &'a Path,
}

impl Life<'_> {
    /// Whether it was done. What was not can only be because the daemon is no more.
    #[track_caller]
    fn was_done(&self, done: &Done) -> bool {
        if !done.status.success() {
            assert!([1, 3, 7].contains(&done.status.code().unwrap_or(-1)), "{}", done.stderr);
            wait::until(format!("the end that made it say {}", done.stderr), LONG, || {
                self.over.load(Ordering::SeqCst).then_some(())
            });
        }
        done.status.success()
    }

    fn adds(&self, random: &mut StdRng) -> bool {
        // Reading all of them back after each kill takes the longer the more there are.
        if self.oracle.count(State::Here) > 3 * ENOUGH {
            return self.removes(random);
        }
        let (id, object) = self.oracle.add(random);
        let parity = if random.random() { "none" } else { "16+4" };
        let done = self.ctl.run(&["-q", "add", "--parity", parity, "-"]).input(&object.bytes()).done();
        if self.was_done(&done) {
            assert_eq!(done.text(), id);
            self.oracle.acknowledge(&id, State::Here);
        }
        done.status.success()
    }

    fn removes(&self, random: &mut StdRng) -> bool {
        let many = self.oracle.count(State::Here) > ENOUGH;
        let wanted = |object: &Object| object.state == State::Here && (many || object.given);
        let Some((id, _)) = self.oracle.take(random, wanted) else { return self.collects() };
        let done = self.ctl.run(&["rm", &id]).done();
        if self.was_done(&done) {
            self.oracle.acknowledge(&id, State::Gone);
        }
        done.status.success()
    }

    fn fetches(&self, random: &mut StdRng) -> bool {
        let wanted = |object: &Object| object.state == State::Gone && object.given;
        let Some((id, object)) = self.oracle.take(random, wanted) else { return self.collects() };
        let to: PathBuf = self.folder.join(&id);
        let fetch = self.ctl.run(&["fetch", &id, "--pin", "--force", "--peer", self.giver, "-o"]).arg(&to);
        let done = fetch.done();
        if self.was_done(&done) {
            assert!(std::fs::read(&to).unwrap() == object.bytes(), "{id} was fetched wrong");
            self.oracle.acknowledge(&id, State::Here);
        }
        done.status.success()
    }

    fn collects(&self) -> bool {
        self.was_done(&self.ctl.run(&["gc"]).done())
    }

    fn proves(&self) -> bool {
        self.was_done(&self.ctl.run(&["-q", "verify"]).within(2 * LONG).done())
    }
}

/// Lets a daemon work until it is killed.
fn live(daemon: Daemon, life: &Life<'_>, random: &mut StdRng) {
    let lasts = random.random_range(Duration::ZERO..LIFE);
    let seeds: [u64; 5] = random.random();
    std::thread::scope(|scope| {
        for (worker, seed) in seeds.into_iter().enumerate() {
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed);
                while match worker {
                    0 | 1 => life.adds(&mut random),
                    2 => life.fetches(&mut random),
                    3 => life.proves(),
                    _ => life.removes(&mut random),
                } {}
            });
        }
        // A moment that nothing has to do with: that is the point.
        std::thread::sleep(lasts);
        daemon.kill();
        life.over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn killed_at_any_moment_it_keeps_what_it_acknowledged() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds = number("CASD_KILL_ROUNDS").unwrap_or(8);
    let seed = number("CASD_KILL_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    eprintln!("CASD_KILL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let name = format!("test-{:016x}", rand::random::<u64>());
    let homes = [(); 2].map(|()| Home::with(|settings| settings.text("network.name", &name)));
    let [home, other] = &homes;
    let gives = other.start();
    let oracle = Oracle { next: AtomicU64::new(GIVEN), ..Oracle::default() };
    for seed in 0..GIVEN {
        let length = usize::try_from(seed * 2 * MIB + 1000 * seed + 1).unwrap();
        let object = Object::new(seed, length, State::Gone, true);
        oracle.objects.lock().unwrap().insert(gives.ctl().add_bytes(&object.bytes()), object);
    }
    let giver = gives.chunk_address();
    let (begun, mut cut, mut rotten) = (Instant::now(), 0, 0);
    for _ in 0..rounds {
        // A start that was cut short may not have come to make the store.
        if random.random() && home.state().join("segments").exists() {
            rotten += oracle.rots(&mut random, &home.state());
        }
        // Starting is work as well.
        while random.random_ratio(1, 3) {
            let daemon = home.launch();
            std::thread::sleep(random.random_range(Duration::ZERO..START));
            daemon.kill();
            cut += 1;
        }
        let daemon = home.start();
        oracle.agrees(&daemon, &home.state());
        if random.random() {
            oracle.mends(daemon.ctl());
        }
        let (ctl, over) = (daemon.ctl().clone(), AtomicBool::new(false));
        let life = Life { ctl, oracle: &oracle, over, giver: &giver, folder: &home.path("") };
        live(daemon, &life, &mut random);
    }
    let daemon = home.start();
    oracle.agrees(&daemon, &home.state());
    oracle.mends(daemon.ctl());
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    let log = std::fs::read_to_string(home.path("casd.log")).unwrap();
    assert!(!log.contains("panicked"), "CASD_KILL_SEED={seed}: {log}");
    let acknowledged = oracle.acknowledged.into_inner();
    let took = begun.elapsed();
    eprintln!(
        "{rounds} kills and {cut} of starts, {acknowledged} answers, {rotten} bits rotted, in {took:?}"
    );
}
