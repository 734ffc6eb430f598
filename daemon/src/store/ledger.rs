//! The objects: what the journal says, in memory, and the one task that changes it.
//!
//! Owns: every object's name, pins and state, and the jobs. Refuses: showing a change that is not durable. Survives a
//! crash: every change that was answered.
//!
//! Changes that wait together are applied in order, written with one call and synced once. They are applied to a
//! draft, which becomes the state only after the sync.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::ballast::Ballast;
use super::draft::{Changes, Draft, Objects};
use super::error::is_full;
use super::health::Health;
use super::job::{Jobs, facts};
use super::journal::{Fact, Journal};
use super::object::{ObjectInfo, State};
use super::shortage::{LargePin, Shortage};
use super::trees::Trees;
use crate::content::{CHUNK_LEN, ObjectId};
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// Changes that wait, and at most as many for one sync.
const QUEUE: usize = 1024;

/// A change: applied to the draft, it gives what is to be done when the draft is durable, or is not.
type Change = Box<dyn FnOnce(&mut Draft<'_>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What a name or the beginning of an id stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// One object.
    One(ObjectInfo),
    /// Several: the first few of them.
    Several(Vec<ObjectId>),
    /// None.
    None,
}

/// Ids named at most when a name stands for several.
const SEVERAL: usize = 8;

/// Digits of a whole id.
const ID_DIGITS: usize = 64;

/// See the module.
pub(super) struct Ledger {
    changes: mpsc::Sender<Change>,
    state: Arc<Shared>,
}

struct Shared {
    objects: RwLock<Objects>,
    /// What the directories among them consist of. Changed by the one task only, with `objects`.
    trees: RwLock<Trees>,
    /// By their numbers.
    jobs: RwLock<Jobs>,
    /// Those that are private; another set whenever it changes.
    private: Mutex<Arc<BTreeSet<ObjectId>>>,
    /// Public objects of more than a chunk that came, or changed, since they were last taken.
    unlisted: Mutex<BTreeSet<ObjectId>>,
    journal: Mutex<Journal>,
    health: Arc<Health>,
    ballast: Ballast,
    /// How many changes may have let go of something.
    let_go: AtomicU64,
}

impl Ledger {
    /// Begins with what the journal said.
    pub(super) fn start(
        (journal, objects, jobs): (Journal, Objects, Jobs),
        health: Arc<Health>,
        ballast: Ballast,
        pool: Pool,
        tasks: &Tasks,
    ) -> Self {
        let private = objects.values().filter(|info| info.private).map(|info| info.id).collect();
        let private = Mutex::new(Arc::new(private));
        let unlisted = objects.values().filter(|info| is_listed(info)).map(|info| info.id).collect();
        let unlisted = Mutex::new(unlisted);
        let (objects, journal) = (RwLock::new(objects), Mutex::new(journal));
        let (trees, jobs) = (RwLock::default(), RwLock::new(jobs));
        let let_go = AtomicU64::new(0);
        let state =
            Arc::new(Shared { objects, trees, jobs, private, unlisted, journal, health, ballast, let_go });
        let (changes, queue) = mpsc::channel(QUEUE);
        tasks.spawn("store-journal", apply_all(Arc::clone(&state), queue, pool, tasks.clone()));
        Self { changes, state }
    }

    /// Applies a change and waits until it is durable. When `change` fails it must have changed nothing.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let change: Change = Box::new(move |draft| {
            let result = change(draft);
            Box::new(move |durable| {
                // Whoever asked may have gone.
                let _ = reply.send(durable.and(result));
            })
        });
        self.changes.send(change).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// What a change would give; nothing is changed.
    pub(super) fn imagine<T>(&self, change: impl FnOnce(&mut Draft<'_>) -> T) -> T {
        change(&mut Draft::new(&self.objects(), &self.trees()))
    }

    fn objects(&self) -> RwLockReadGuard<'_, Objects> {
        self.state.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn trees(&self) -> RwLockReadGuard<'_, Trees> {
        self.state.trees.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs, by their numbers.
    pub(super) fn jobs(&self) -> RwLockReadGuard<'_, Jobs> {
        self.state.jobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changes may have let go of something: what nobody promises to keep is there, or was removed.
    pub(super) fn let_go(&self) -> u64 {
        self.state.let_go.load(Ordering::Acquire)
    }

    /// Bytes of the journal.
    pub(super) fn journal_end(&self) -> u64 {
        self.state.journal.lock().unwrap_or_else(PoisonError::into_inner).end()
    }

    /// Whether it is known what every directory consists of.
    pub(super) fn knows_trees(&self) -> bool {
        self.trees().all_known()
    }

    /// The directories of which it is not known.
    pub(super) fn unknown_trees(&self) -> Vec<ObjectInfo> {
        let trees = self.select(|info| info.tree && info.state == State::Whole);
        let known = self.trees();
        trees.into_iter().filter(|info| known.contents(&info.id).is_none()).collect()
    }

    /// An object with all that is in it.
    pub(super) fn all(&self, id: ObjectId) -> BTreeSet<ObjectId> {
        self.imagine(|draft| draft.below(id))
    }

    /// Whether these were among the directories that could not be read when it was last tried.
    pub(super) fn knows_unread(&self, unread: &BTreeSet<ObjectId>) -> bool {
        self.trees().unread().is_some_and(|known| unread.is_subset(known))
    }

    /// What is known of an object.
    pub(super) fn get(&self, id: &ObjectId) -> Option<ObjectInfo> {
        self.objects().get(id).cloned()
    }

    /// The private objects. The same set as long as nothing changes in it.
    pub(super) fn private(&self) -> Arc<BTreeSet<ObjectId>> {
        Arc::clone(&self.state.private.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is this object, whole or partial, and it is not private.
    pub(super) fn is_public(&self, id: &ObjectId) -> bool {
        self.objects().get(id).is_some_and(|info| !info.private)
    }

    /// The public objects of more than a chunk that came since the last call, with their parity; some of them may have
    /// been there before.
    pub(super) fn take_unlisted(&self) -> Vec<(ObjectId, Option<(u8, u8)>)> {
        let ids = std::mem::take(&mut *self.state.unlisted());
        let objects = self.objects();
        ids.iter().filter_map(|id| objects.get(id)).map(|info| (info.id, info.parity)).collect()
    }

    /// Whether there is this object, whole or partial.
    pub(super) fn contains(&self, id: &ObjectId) -> bool {
        self.objects().contains_key(id)
    }

    /// Objects in the order of their ids.
    pub(super) fn page(&self, state: State, after: Option<ObjectId>, limit: usize) -> Vec<ObjectInfo> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let objects = self.objects();
        let rest = objects.range((from, Bound::Unbounded)).map(|(_, info)| info);
        rest.filter(|info| info.state == state).take(limit).cloned().collect()
    }

    /// Ids and lengths of all objects that `matches`.
    pub(super) fn select(&self, matches: impl Fn(&ObjectInfo) -> bool) -> Vec<ObjectInfo> {
        self.objects().values().filter(|info| matches(info)).cloned().collect()
    }

    /// The largest pinned objects, the largest first.
    pub(super) fn largest_pins(&self, count: usize) -> Vec<LargePin> {
        let (objects, trees) = (self.objects(), self.trees());
        let draft = Draft::new(&objects, &trees);
        let length = |id: &ObjectId| objects.get(id).map_or(0, |info| info.length);
        let mut largest: Vec<LargePin> = Vec::with_capacity(count + 1);
        for info in objects.values().filter(|info| !info.pins.is_empty()) {
            let bytes: u64 =
                if info.tree { draft.below(info.id).iter().map(length).sum() } else { info.length };
            let at = largest.partition_point(|other| other.bytes >= bytes);
            if at < count {
                largest.insert(at, LargePin { bytes, ..LargePin::of(info) });
                largest.truncate(count);
            }
        }
        largest
    }

    /// Number of objects, whole and partial.
    pub(super) fn count(&self) -> (u64, u64) {
        let objects = self.objects();
        let whole = objects.values().filter(|info| info.state == State::Whole).count() as u64;
        (whole, objects.len() as u64 - whole)
    }

    /// The object of this id or beginning of one (8 digits and more), or of this name. Anyone may name a file like
    /// another's id: a whole id is never a name, and what is the one's name and another's beginning is several.
    pub(super) fn find(&self, text: &str) -> Found {
        let objects = self.objects();
        let is_hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let is_beginning = is_hex && (8..=ID_DIGITS).contains(&text.len());
        let mut first = [0; 32];
        if is_beginning && hex::decode_to_slice(format!("{text:0<64}"), &mut first).is_err() {
            return Found::None;
        }
        let begins = |info: &ObjectInfo| is_beginning && info.id.to_string().starts_with(text);
        let from = objects.range(ObjectId::from_bytes(first)..).map(|(_, info)| info);
        let meant = from.take_while(|info| begins(info));
        let is_name = !is_beginning || text.len() < ID_DIGITS;
        let is_named = |info: &&ObjectInfo| is_name && info.name.as_deref() == Some(text) && !begins(info);
        let named = objects.values().filter(is_named);
        found(meant.chain(named).filter(|info| info.state == State::Whole))
    }
}

fn found<'a>(mut matching: impl Iterator<Item = &'a ObjectInfo>) -> Found {
    match (matching.next(), matching.next()) {
        (None, _) => Found::None,
        (Some(one), None) => Found::One(one.clone()),
        (Some(one), Some(two)) => {
            let rest = matching.take(SEVERAL - 2).map(|info| info.id);
            Found::Several([one.id, two.id].into_iter().chain(rest).collect())
        }
    }
}

/// The task that changes.
async fn apply_all(state: Arc<Shared>, mut queue: mpsc::Receiver<Change>, pool: Pool, tasks: Tasks) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            count = queue.recv_many(&mut batch, QUEUE) => if count == 0 { break },
            () = tasks.stopping() => {
                queue.close();
                continue;
            }
        }
        let state = Arc::clone(&state);
        pool.run(move || state.apply(batch)).await;
    }
}

/// Whether others may have chunks of an object that do not go by the object's own id.
fn is_listed(info: &ObjectInfo) -> bool {
    !info.private && info.length > CHUNK_LEN
}

impl Shared {
    fn unlisted(&self) -> MutexGuard<'_, BTreeSet<ObjectId>> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies changes and makes them durable, all or none. Blocks.
    fn apply(&self, batch: Vec<Change>) {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let trees = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        let mut draft = Draft::new(&objects, &trees);
        let answers: Vec<Answer> = batch.into_iter().map(|change| change(&mut draft)).collect();
        let changes = draft.changes;
        drop((objects, trees));
        let durable = self.write(&changes);
        if durable.is_ok() {
            self.adopt(changes);
        }
        for answer in answers {
            answer(durable.clone());
        }
        self.compact();
    }

    /// Durable changes become the state.
    fn adopt(&self, changes: Changes) {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unlisted = self.unlisted();
        let is_free = |info: &ObjectInfo| info.pins.is_empty() || info.state == State::Partial;
        if changes.objects.values().any(|info| info.as_ref().is_none_or(is_free)) || !changes.trees.is_empty()
        {
            self.let_go.fetch_add(1, Ordering::AcqRel);
        }
        for (id, info) in changes.objects {
            match info.as_ref().is_some_and(is_listed) {
                true => unlisted.insert(id),
                false => unlisted.remove(&id),
            };
            let hide = info.as_ref().is_some_and(|info| info.private);
            if hide != private.contains(&id) {
                let set = Arc::make_mut(&mut private);
                if hide {
                    set.insert(id)
                } else {
                    set.remove(&id)
                };
            }
            match info {
                Some(info) => objects.insert(id, info),
                None => objects.remove(&id),
            };
        }
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        for (number, job) in changes.jobs {
            match job {
                Some(job) => jobs.insert(number, job),
                None => jobs.remove(&number),
            };
        }
        let mut trees = self.trees.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(unread) = changes.unread {
            trees.tried(unread);
        }
        for (id, contents) in changes.trees {
            trees.change(id, contents);
        }
    }

    fn write(&self, changes: &Changes) -> Result<(), Error> {
        if changes.objects.is_empty() && changes.jobs.is_empty() {
            return Ok(());
        }
        self.health.before_write()?;
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let start = journal.end();
        let mut written = write_steps(&mut journal, changes);
        let full =
            |written: &Result<(), Failed>| matches!(written, Err(Failed::Write(error)) if is_full(error));
        let only_removes =
            changes.objects.values().all(Option::is_none) && changes.jobs.values().all(Option::is_none);
        if full(&written) && only_removes {
            // Removing must work on a full disk: that is what the ballast is for.
            self.ballast.release();
            let cut = journal.cut(start).map_err(Failed::Write);
            written = cut.and_then(|()| write_steps(&mut journal, changes));
        }
        if full(&written) && journal.cut(start).is_ok() {
            return Err(Error::DiskFull(Box::new(Shortage { needed: 4096, ..Shortage::default() })));
        }
        written.map_err(|failed| match failed {
            Failed::Write(error) => self.health.fail("write the journal", &error),
            Failed::Sync(error) => self.health.fail("sync the journal", &error),
        })
    }

    /// Shortens a journal that has grown long.
    fn compact(&self) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if !journal.is_long() || self.health.check().is_err() {
            return;
        }
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.values().cloned().map(Fact::Job);
        match journal.compact(&mut objects.values().cloned().map(Fact::Object).chain(jobs)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the journal could not be shortened; it goes on as it is");
            }
            Err(error) => {
                // The store is read-only from here on; there is nobody to tell but the log.
                let _ = self.health.fail("replace the journal", &error);
            }
        }
    }
}

/// Entries of the journal that are written with one call.
const PIECE: usize = 8192;

/// What failed of writing changes. After a failed sync nothing is known of what was written.
enum Failed {
    Write(std::io::Error),
    Sync(std::io::Error),
}

/// Writes changes and makes them durable: first those that others must not be without, then the others.
fn write_steps(journal: &mut Journal, changes: &Changes) -> Result<(), Failed> {
    // Synced with the first step.
    let has_jobs = !changes.jobs.is_empty();
    if has_jobs {
        let mut frames = journal.frames();
        facts(&changes.jobs).for_each(|fact| frames.push(&fact));
        journal.write(&frames).map_err(Failed::Write)?;
    }
    let is_after = |(id, _): &(&ObjectId, &Option<ObjectInfo>)| changes.after.contains(*id);
    let (after, before): (Vec<_>, Vec<_>) = changes.objects.iter().partition(is_after);
    let steps = [(before, has_jobs), (after, false)];
    for (step, _) in steps.iter().filter(|(step, is_due)| *is_due || !step.is_empty()) {
        for piece in step.chunks(PIECE) {
            let mut frames = journal.frames();
            for (id, info) in piece {
                frames.push(&(*info).clone().map_or(Fact::Removed(**id), Fact::Object));
            }
            journal.write(&frames).map_err(Failed::Write)?;
        }
        journal.sync().map_err(Failed::Sync)?;
    }
    Ok(())
}
