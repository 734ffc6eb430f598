//! A disk in memory that forgets what was not synced.
//!
//! Each file has what a reader sees and what is durable, and so have the folders' names. [`Forgetful::crash`] gives
//! what the harshest disk leaves that keeps its word: nothing that was not synced. [`Forgetful::cut_power`] lets a seed
//! say what else is left: writes whole, torn at 512 or 4,096 bytes, in another order, or as zeros; names old or new.
//! [`Plan`] says at which call the power goes, which calls fail and how, and which syncs are lies.

mod content;
mod file;
mod folder;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::io::Errno;

pub(crate) use content::Rot;
use content::{Content, Shared};
use table::Model;

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Forgetful(Arc<State>);

#[derive(Default)]
struct State {
    inside: Mutex<Inside>,
    locked: Arc<AtomicBool>,
    table: Model,
}

/// A call that the disk was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Sync,
    Truncate,
    Punch,
    Create,
    CreateDir,
    SyncDir,
    Rename,
    Unlink,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// With this error; a write may have been done in part.
    Errno(i32),
    /// It does a part, and says so. Only reads and writes.
    Short,
}

/// What goes wrong, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The power goes at this call, counted from 1; calls that change nothing do not count.
    pub(crate) cut_at: Option<u64>,
    /// It is not the power that goes then, but the process that is killed: what it has written stays, synced or not.
    pub(crate) kills: bool,
    /// The changes from this one to before that one, counted from 0, fail like this.
    pub(crate) fault: Option<(u64, u64, Fault)>,
    /// As `fault`, of reads.
    pub(crate) reads: Option<(u64, u64, Fault)>,
    /// Syncs of files and folders whose path begins with this do nothing, and say that they have.
    pub(crate) lies: Option<(Call, &'static str)>,
    /// For what a power cut leaves.
    pub(crate) seed: u64,
}

#[derive(Default)]
struct Inside {
    dirs: BTreeSet<PathBuf>,
    durable_dirs: BTreeSet<PathBuf>,
    seen: BTreeMap<PathBuf, Shared>,
    durable: BTreeMap<PathBuf, Shared>,
    /// What names were since they were last durable.
    history: Vec<(PathBuf, Option<Shared>)>,
    plan: Plan,
    /// Calls that change something.
    changes: u64,
    /// Reads.
    reads: u64,
    /// What the power cut left.
    cut: Option<Forgetful>,
    /// Bytes free; `None` stands for plenty.
    room: Option<u64>,
    /// Holes cannot be punched.
    solid: bool,
}

impl std::fmt::Debug for Forgetful {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inside = self.inside();
        let size = |content: &Shared| {
            let content = content.lock().unwrap();
            (content.seen.bytes.len(), content.seen.allocated())
        };
        f.debug_map().entries(inside.seen.iter().map(|(path, content)| (path, size(content)))).finish()
    }
}

impl Forgetful {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.inside.lock().unwrap()
    }

    /// What nothing but syncs kept. The old disk can be used on by what is still running, and changes nothing here.
    pub(crate) fn crash(&self) -> Self {
        let crashed = Self::default();
        let inside = self.inside();
        let mut after = crashed.inside();
        after.dirs.clone_from(&inside.dirs);
        after.durable_dirs.clone_from(&inside.dirs);
        for (path, content) in &inside.durable {
            let content = Content::of(content.lock().unwrap().durable.clone());
            after.seen.insert(path.clone(), Arc::clone(&content));
            after.durable.insert(path.clone(), content);
        }
        drop(after);
        drop(inside);
        crashed
    }

    /// What is left when the power goes now, as `seed` says.
    pub(crate) fn cut_power(&self, seed: u64) -> Self {
        self.inside().left(&mut SmallRng::seed_from_u64(seed), &self.0.table)
    }

    /// What is left when the process is killed now: all but what it kept of the index in memory, as `seed` says.
    pub(crate) fn kill(&self, seed: u64) -> Self {
        self.inside().killed(&mut SmallRng::seed_from_u64(seed), &self.0.table)
    }

    /// What the power cut of the plan left, when it has come.
    pub(crate) fn after_cut(&self) -> Option<Self> {
        self.inside().cut.clone()
    }

    /// What goes wrong from now on; calls are counted anew.
    pub(crate) fn plan(&self, plan: Plan) {
        let mut inside = self.inside();
        (inside.plan, inside.changes, inside.reads) = (plan, 0, 0);
    }

    /// Lets `more` changes succeed, and none after them.
    pub(crate) fn fail_after(&self, more: u64) {
        let fault = Some((more, u64::MAX, Fault::Errno(Errno::IO.raw_os_error())));
        self.plan(Plan { fault, ..Plan::default() });
    }

    /// Lets every read fail with this error number; 0 lets none.
    pub(crate) fn fail_reads(&self, errno: i32) {
        let reads = (errno != 0).then_some((0, u64::MAX, Fault::Errno(errno)));
        self.plan(Plan { reads, ..Plan::default() });
    }

    /// Calls since the plan was made that changed something.
    pub(crate) fn changes(&self) -> u64 {
        self.inside().changes
    }

    /// Reads since the plan was made.
    pub(crate) fn reads(&self) -> u64 {
        self.inside().reads
    }

    /// Lets the index's table fail after so many calls.
    pub(crate) fn fail_table_after(&self, calls: u64) {
        self.0.table.fail_after(calls);
    }

    /// So many bytes are free.
    pub(crate) fn set_room(&self, room: u64) {
        self.inside().room = Some(room);
    }

    /// From now on holes cannot be punched.
    pub(crate) fn refuse_holes(&self) {
        self.inside().solid = true;
    }

    /// Changes bytes of a file behind the store's back.
    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let content = Arc::clone(&self.inside().seen[Path::new(path)]);
        let mut content = content.lock().unwrap();
        edit(&mut content.seen.bytes);
        content.durable = content.seen.clone();
    }

    /// Lets something rot at a byte of a file. The store is not told.
    pub(crate) fn rot(&self, path: &Path, at: u64, rot: Rot) {
        let content = self.inside().seen.get(path).cloned();
        if let Some(content) = content {
            content.lock().unwrap().rot(at as usize, rot);
        }
    }

    /// Whether memory shows of a file what is not synced, and what could not be.
    pub(crate) fn is_dirty(&self, path: &Path) -> (bool, bool) {
        let content = self.inside().seen.get(path).cloned();
        content.map_or((false, false), |content| content.lock().unwrap().is_dirty())
    }

    /// What a file holds, whether it can be read or not; empty when it is not there.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let content = self.inside().seen.get(path).cloned();
        content.map_or_else(Vec::new, |content| content.lock().unwrap().seen.bytes.clone())
    }

    /// The blocks of a file that cannot be read, by number.
    pub(crate) fn bad_blocks(&self, path: &Path) -> Vec<usize> {
        let content = self.inside().seen.get(path).cloned();
        content.map_or_else(Vec::new, |content| content.lock().unwrap().seen.bad())
    }

    /// Names of all files.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.inside().seen.keys().cloned().collect()
    }

    /// Bytes of blocks that the files in `folder` take.
    pub(crate) fn allocated(&self, folder: &str) -> u64 {
        let inside = self.inside();
        let here = inside.seen.iter().filter(|(path, _)| path.starts_with(folder));
        here.map(|(_, content)| content.lock().unwrap().seen.allocated()).sum()
    }

    /// The blocks of 4,096 bytes of a file that are no holes, by number.
    pub(crate) fn blocks(&self, path: &Path) -> BTreeSet<usize> {
        let content = self.inside().seen.get(path).cloned();
        content.map_or_else(BTreeSet::new, |content| content.lock().unwrap().seen.blocks().collect())
    }

    /// Does a call, or fails as planned. `act` is done in full, or to the part that a fault leaves of it.
    fn call<T>(&self, call: Call, path: &Path, act: impl FnOnce(&mut Inside, Doing) -> T) -> io::Result<T> {
        let mut inside = self.inside();
        if inside.cut.is_some() {
            return Err(Errno::IO.into());
        }
        let doing = inside.doing(call, path);
        let done = act(&mut inside, doing);
        if call == Call::Read {
            inside.reads += 1;
        } else {
            inside.changes += 1;
        }
        if call != Call::Read && inside.plan.cut_at == Some(inside.changes) {
            let mut rng = SmallRng::seed_from_u64(inside.plan.seed);
            inside.cut = Some(match inside.plan.kills {
                true => inside.killed(&mut rng, &self.0.table),
                false => inside.left(&mut rng, &self.0.table),
            });
            return Err(Errno::IO.into());
        }
        match doing {
            Doing::Fail(errno) => Err(Errno::from_raw_os_error(errno).into()),
            _ => Ok(done),
        }
    }
}

/// How much of a call is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    All,
    Part,
    /// Nothing, and yet it answers as if.
    Nothing,
    Fail(i32),
}

impl Inside {
    fn doing(&self, call: Call, path: &Path) -> Doing {
        let is_prefix = |prefix: &str| path.to_string_lossy().starts_with(prefix);
        if self.plan.lies.is_some_and(|(lie, prefix)| lie == call && is_prefix(prefix)) {
            return Doing::Nothing;
        }
        let is_read = call == Call::Read;
        let (plan, count) =
            if is_read { (self.plan.reads, self.reads) } else { (self.plan.fault, self.changes) };
        let Some((_, _, fault)) = plan.filter(|(from, to, _)| (*from..*to).contains(&count)) else {
            return Doing::All;
        };
        let is_data = matches!(call, Call::Read | Call::Write);
        match fault {
            Fault::Short if is_data => Doing::Part,
            Fault::Short => Doing::All,
            // The real disk tries again by itself where nothing but this is meant.
            Fault::Errno(errno) if !is_data && errno == Errno::INTR.raw_os_error() => Doing::All,
            Fault::Errno(errno) => Doing::Fail(errno),
        }
    }

    fn left(&self, rng: &mut SmallRng, table: &Model) -> Forgetful {
        let mut names = self.durable.clone();
        let kind = rng.random_range(0..3);
        for (path, content) in &self.history {
            // None of what happened to names, all of it, or any part.
            if kind == 1 || (kind == 2 && rng.random()) {
                match content {
                    Some(content) => names.insert(path.clone(), Arc::clone(content)),
                    None => names.remove(path),
                };
            }
        }
        let mut dirs = self.durable_dirs.clone();
        dirs.extend(self.dirs.iter().filter(|_| rng.random()).cloned());
        dirs.insert(PathBuf::new());
        names.retain(|path, _| path.parent().is_some_and(|parent| dirs.contains(parent)));
        let state = State { table: table.survivor(rng), ..State::default() };
        let left = Forgetful(Arc::new(state));
        let mut after = left.inside();
        (after.dirs, after.durable_dirs, after.room) = (dirs.clone(), dirs, self.room);
        after.solid = self.solid;
        for (path, content) in names {
            let content = Content::of(content.lock().unwrap().survivor(rng));
            after.seen.insert(path.clone(), Arc::clone(&content));
            after.durable.insert(path, content);
        }
        drop(after);
        left
    }

    fn killed(&self, rng: &mut SmallRng, table: &Model) -> Forgetful {
        // A file may have several names, now and before.
        let mut copies = HashMap::new();
        let mut copy = |content: &Shared| {
            let copy = || Arc::new(Mutex::new(content.lock().unwrap().clone()));
            Arc::clone(copies.entry(Arc::as_ptr(content)).or_insert_with(copy))
        };
        let mut named = |names: &BTreeMap<PathBuf, Shared>| {
            names.iter().map(|(path, content)| (path.clone(), copy(content))).collect::<BTreeMap<_, _>>()
        };
        let (seen, durable) = (named(&self.seen), named(&self.durable));
        let history =
            self.history.iter().map(|(path, content)| (path.clone(), content.as_ref().map(&mut copy)));
        let inside = Inside {
            dirs: self.dirs.clone(),
            durable_dirs: self.durable_dirs.clone(),
            history: history.collect(),
            seen,
            durable,
            room: self.room,
            solid: self.solid,
            ..Inside::default()
        };
        let (inside, table) = (Mutex::new(inside), table.survivor(rng));
        Forgetful(Arc::new(State { inside, table, ..State::default() }))
    }

    fn set(&mut self, path: &Path, content: Option<Shared>) {
        self.history.push((path.to_owned(), content.clone()));
        match content {
            Some(content) => self.seen.insert(path.to_owned(), content),
            None => self.seen.remove(path),
        };
    }
}
