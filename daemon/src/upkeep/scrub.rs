//! The scrub: every record is proved once in a while, spread over the time there is, and what rotted is mended.
//!
//! Owns: when what is proved. Refuses: more than a twentieth of the time on the disk, and to run while an
//! administrator has paused it. Survives a crash: how far it is, in `cache/scrub`, to the minute, and in
//! `cache/damaged` which objects could not be mended; these are proved first at the next start.

mod damaged;
mod saved;
mod work;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::mend::Mender;
use super::run::{Broken, MOST_BROKEN, Run, Tally};
use crate::content::ObjectId;
use crate::store::{Cursor, Damage, Error, RecordName};
use crate::support::task::Tasks;
use crate::support::unix_now;
use saved::Saved;

/// How long whoever verifies waits for news.
const NEWS: Duration = Duration::from_millis(250);

/// Events that wait for whoever verifies.
const EVENTS: usize = 64;

/// Records that others found bad and that wait; more are found by the next pass.
const MOST_FOUND: usize = 4096;

/// How scrubbing is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Everything is proved once in this time, give or take a sixth; zero: never by itself.
    pub every: Duration,
    /// Where it is written down how far it is. May be deleted.
    pub file: PathBuf,
}

/// Where scrubbing stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How often everything is proved; zero: never by itself.
    pub every: Duration,
    /// Whether an administrator has paused it.
    pub paused: bool,
    /// When the last whole pass ended, in Unix seconds, and what it came to.
    pub last: Option<(u64, Tally)>,
    /// When the pass that is going on began, in Unix seconds, and how far it is.
    pub now: Option<(u64, Tally)>,
    /// Bytes of records in the store.
    pub total: u64,
    /// Objects that lack what could not be brought back, as far as they have been found.
    pub broken: Vec<Broken>,
    /// How many more there are than those.
    pub unnamed: u64,
}

/// What whoever verifies is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// How far it is, and bytes to prove in all, about.
    Progress(Tally, u64),
    /// An object that lacks what could not be brought back.
    Broken(Broken),
    /// All is proved; with how many more objects are broken than were named. Last.
    Finished(Tally, u64),
}

/// Scrubs, and is asked how far that is. Cheap to clone.
#[derive(Clone)]
pub struct Scrubber {
    shared: Arc<Shared>,
    tasks: Tasks,
}

struct Shared {
    options: Options,
    mender: Arc<Mender>,
    state: Mutex<State>,
    /// Rung when there is something to do, or no more.
    bell: Notify,
    /// Held by whoever verifies or mends: two at once would do the same work twice.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    saved: Saved,
    broken: Vec<Broken>,
    unnamed: u64,
    /// Found bad by others.
    found: Vec<RecordName>,
    total: u64,
}

impl Scrubber {
    /// Starts to scrub. Runs until `tasks` stop.
    #[must_use]
    pub fn start(options: Options, mender: Mender, tasks: &Tasks) -> Self {
        let state = State { saved: saved::load(&options.file), ..State::default() };
        let shared = Arc::new(Shared {
            options,
            mender: Arc::new(mender),
            state: Mutex::new(state),
            bell: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
        });
        let (stop, worker) = (tasks.token(), Arc::clone(&shared));
        tasks.spawn("scrub", async move {
            tokio::select! {
                () = work::work(&worker) => {}
                () = stop.cancelled() => {}
            }
            worker.save();
        });
        Self { shared, tasks: tasks.clone() }
    }

    /// A bad record that somebody came upon: it is mended soon.
    pub fn found(&self, damage: &Damage) {
        let mut state = self.shared.state();
        if state.found.len() < MOST_FOUND {
            state.found.push(RecordName::from(damage));
        }
        drop(state);
        self.shared.bell.notify_one();
    }

    /// Stops scrubbing until it is resumed, over restarts as well, or lets it go on. What is found is mended all the
    /// same.
    pub fn pause(&self, paused: bool) {
        self.shared.state().saved.paused = paused;
        self.shared.save();
        self.shared.bell.notify_one();
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.shared.state();
        let saved = &state.saved;
        Status {
            every: self.shared.options.every,
            paused: saved.paused,
            last: (saved.ended > 0).then_some((saved.ended, saved.last)),
            now: (saved.begun > 0).then_some((saved.begun, saved.tally)),
            total: state.total,
            broken: state.broken.clone(),
            unnamed: state.unnamed,
        }
    }

    /// The objects that the last proving found to lack something and that still do, and how many more it found. Reads
    /// their manifests.
    pub async fn damaged(&self) -> (Vec<Broken>, u64) {
        let (broken, unnamed) = {
            let state = self.shared.state();
            (state.broken.clone(), state.unnamed)
        };
        if broken.is_empty() {
            return (broken, unnamed);
        }
        let store = self.shared.mender.store();
        let infos = broken.iter().filter_map(|broken| store.object(&broken.id)).collect();
        match store.lacking(infos).await {
            Ok(lacking) => {
                let lacks = |id| lacking.iter().any(|(info, missing)| info.id == id && !missing.is_empty());
                let (still, whole): (Vec<_>, Vec<_>) =
                    broken.into_iter().partition(|broken| lacks(broken.id));
                if !whole.is_empty() {
                    let whole = whole.into_iter().map(|broken| broken.id).collect();
                    self.shared.note(Vec::new(), unnamed, Some(&whole));
                }
                (still, unnamed)
            }
            // What is not known to be whole again is told of.
            Err(_) => (broken, unnamed),
        }
    }

    /// Proves everything now, or what an object needs with all that is in it, and mends what it can. Dropping the
    /// receiver ends it.
    #[must_use]
    pub fn verify(&self, only: Option<ObjectId>) -> mpsc::Receiver<Result<Event, Error>> {
        let (out, events) = mpsc::channel(EVENTS);
        let (shared, stop) = (Arc::clone(&self.shared), self.tasks.token());
        self.tasks.spawn("verify", async move {
            let done = tokio::select! {
                done = verify(&shared, only, &out) => done,
                () = out.closed() => return,
                () = stop.cancelled() => Err(Error::Closed),
            };
            if let Err(error) = done {
                let _ = out.send(Err(error)).await;
            }
        });
        events
    }
}

async fn verify(
    shared: &Shared,
    only: Option<ObjectId>,
    out: &mpsc::Sender<Result<Event, Error>>,
) -> Result<(), Error> {
    let _turn = shared.turn.lock().await;
    let store = shared.mender.store();
    store.recovered().await?;
    let only = match only {
        Some(id) => Some(store.with_contents(id).await?),
        None => None,
    };
    let (mut scrub, total) = match &only {
        Some(ids) => match store.scrub_objects(ids).await? {
            Some(scrub) => {
                (scrub, ids.iter().filter_map(|id| store.object(id)).map(|info| info.length).sum())
            }
            None => {
                let _ = out.send(Ok(Event::Finished(Tally::default(), 0))).await;
                return Ok(());
            }
        },
        None => (store.scrub(Cursor::default()), store.usage().await?.stored_bytes),
    };
    let mut run = Run::new(Arc::clone(&shared.mender), Tally::default());
    let mut told = Instant::now();
    while run.step(&mut scrub).await? {
        if told.elapsed() >= NEWS {
            told = Instant::now();
            // Whoever is slow to listen misses some.
            let _ = out.try_send(Ok(Event::Progress(run.tally(), total)));
        }
        if run.is_full() {
            run.heal(only.as_ref()).await?;
        }
    }
    let _ = out.try_send(Ok(Event::Progress(run.tally(), total)));
    run.heal(only.as_ref()).await?;
    match &only {
        None => {
            shared.passed(&run, unix_now());
            shared.save();
        }
        Some(_) => shared.note(run.broken.clone(), run.unnamed, only.as_ref()),
    }
    for broken in std::mem::take(&mut run.broken) {
        let _ = out.send(Ok(Event::Broken(broken))).await;
    }
    let _ = out.send(Ok(Event::Finished(run.tally(), run.unnamed))).await;
    Ok(())
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down how far it is. Where that fails, a restart begins the pass anew.
    fn save(&self) {
        let saved = self.state().saved;
        if let Err(error) = saved::save(&self.options.file, &saved) {
            tracing::warn!(%error, file = %self.options.file.display(), "it cannot be written down how far the scrub is");
        }
    }

    /// What is broken of all objects, or of `only` these, which says nothing of how many more there are; written down.
    fn note(&self, broken: Vec<Broken>, unnamed: u64, only: Option<&BTreeSet<ObjectId>>) {
        let mut state = self.state();
        let before: Vec<ObjectId> = state.broken.iter().map(|broken| broken.id).collect();
        match only {
            Some(ids) => state.broken.retain(|known| !ids.contains(&known.id)),
            None => (state.broken, state.unnamed) = (Vec::new(), unnamed),
        }
        state.broken.extend(broken);
        state.broken.truncate(MOST_BROKEN);
        let after: Vec<ObjectId> = state.broken.iter().map(|broken| broken.id).collect();
        drop(state);
        let file = self.damaged();
        if before != after
            && let Err(error) = damaged::save(&file, after.iter())
        {
            tracing::warn!(%error, file = %file.display(), "it cannot be written down which objects are damaged");
        }
    }

    fn damaged(&self) -> PathBuf {
        self.options.file.with_file_name("damaged")
    }

    /// Everything has been proved, from `begun` on.
    fn passed(&self, run: &Run, begun: u64) {
        let every = self.options.every.as_secs().max(1);
        let jitter = rand::random_range(0..=every / 3);
        let mut state = self.state();
        let tally = run.tally();
        let now = unix_now();
        let next = (begun + every - every / 6 + jitter).max(now);
        let paused = state.saved.paused;
        state.saved = Saved { paused, ended: now, last: tally, next, ..Saved::default() };
        drop(state);
        self.note(run.broken.clone(), run.unnamed, None);
        let Tally { bytes, records, bad, repaired, unrepairable } = tally;
        if unrepairable > 0 {
            tracing::error!(
                records,
                bad,
                repaired,
                unrepairable,
                "objects lack what could not be brought back"
            );
        } else {
            tracing::info!(bytes, records, bad, repaired, "the whole store has been proved");
        }
    }

    /// How long until there is something to prove. `None`: there is nothing until somebody rings.
    fn due(&self, now: u64) -> Option<Duration> {
        let state = self.state();
        let (saved, every) = (&state.saved, self.options.every);
        if every.is_zero() || saved.paused {
            return None;
        }
        if saved.begun == 0 {
            return Some(Duration::from_secs(saved.next.saturating_sub(now)));
        }
        // Done a little before the next is due: in four fifths of the time.
        let period = every.as_secs_f64() * 0.8;
        #[expect(clippy::cast_precision_loss, reason = "a schedule needs no exact bytes")]
        let share = saved.tally.bytes as f64 / state.total.max(1) as f64;
        let passed = Duration::from_secs(now.saturating_sub(saved.begun)).as_secs_f64();
        Some(Duration::from_secs_f64((share * period - passed).clamp(0.0, period)))
    }
}
