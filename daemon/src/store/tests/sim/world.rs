//! A world from a seed: lives of a store, and what is checked between them.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::io::Errno;

use super::super::*;
use super::model::{SMALL, THINGS, Thing, Truth};
use crate::store::disk::forgetful::{Call, Fault, Plan};
use crate::store::index::Spot;
use crate::store::record::{BLOCK, Key, Kind};
use crate::store::scan::scan;

/// See the module.
pub(super) struct World {
    rng: SmallRng,
    disk: Forgetful,
    lie: Option<(Call, &'static str)>,
    truth: Vec<Truth>,
    /// 0: none.
    quota: u64,
    /// What nobody pinned may go when there is no room.
    evicts: bool,
    /// Holes cannot be punched: what is removed stays until its segment goes.
    solid: bool,
    /// Says what it does.
    talks: bool,
}

/// One call on the store.
#[derive(Clone, Copy, Debug)]
enum Act {
    Add(u32),
    Abandon,
    Remove(u32, bool),
    Pin(u32),
    Unpin(u32),
    Read,
}

/// What can be compared over restarts.
type Dump = (BTreeMap<Key, Spot>, Vec<(ObjectInfo, bool)>);

impl World {
    pub(super) fn new(seed: u64, lie: Option<(Call, &'static str)>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let quota = if rng.random_ratio(1, 5) { rng.random_range(60_000..400_000) } else { 0 };
        let disk = Forgetful::default();
        let is_small = rng.random_ratio(1, 10);
        if is_small {
            disk.set_room(rng.random_range(30_000..300_000));
        }
        let solid = rng.random_ratio(1, 10);
        if solid {
            disk.refuse_holes();
        }
        let truth = THINGS.iter().map(|_| Truth::default()).collect();
        let talks = std::env::var_os("CASD_STORE_TRACE").is_some();
        Self { rng, disk, lie, truth, quota, evicts: quota != 0 || is_small, solid, talks }
    }

    pub(super) async fn live(mut self) -> Result<(), String> {
        for _ in 0..self.rng.random_range(1..=3) {
            self.life().await?;
            self.check().await?;
        }
        Ok(())
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.talks {
            println!("{}", what());
        }
    }

    fn open(&self) -> Result<Store, Error> {
        let sizes = Sizes { segment: 128 << 10, journal: 2 << 10, ballast: 8 << 10 };
        let options = Options { quota: self.quota, reserve: 0, index_cache: 0, sizes };
        Store::open(&options, Arc::new(self.disk.clone()), Pool::inline())
    }

    fn plan(&mut self) -> Plan {
        let seed = self.rng.random();
        let mut plan = Plan { lies: self.lie, seed, ..Plan::default() };
        let calls = if self.rng.random() { 12 } else { 120 };
        let at = self.rng.random_range(0..calls);
        let length = if self.rng.random() { 1 } else { self.rng.random_range(1..20) };
        let errors = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::INTR];
        let errno = errors[self.rng.random_range(0..errors.len())];
        match self.rng.random_range(0..10) {
            0..=4 => plan.cut_at = Some(at + 1),
            // To be interrupted for ever is no fault of a disk.
            5 | 6 => plan.fault = Some((at, at + length, Fault::Errno(errno.raw_os_error()))),
            7 => {
                plan.fault = Some((at, at + length, Fault::Short));
                plan.reads = Some((at, at + length, Fault::Short));
            }
            8 => plan.reads = Some((at, at + length, Fault::Errno(Errno::IO.raw_os_error()))),
            _ => {}
        }
        plan
    }

    async fn life(&mut self) -> Result<(), String> {
        let plan = self.plan();
        let spoils_reads = plan.reads.is_some_and(|(_, _, fault)| fault != Fault::Short);
        let is_calm = plan.cut_at.is_none() && plan.fault.is_none() && !spoils_reads;
        self.say(|| format!("life: {plan:?}, quota {}", self.quota));
        self.disk.plan(plan);
        let fails_table = self.rng.random_ratio(1, 20);
        if fails_table {
            self.disk.fail_table_after(self.rng.random_range(0..200));
        }
        match self.open() {
            Ok(store) => {
                for _ in 0..self.rng.random_range(1..6) {
                    self.group(&store, spoils_reads || fails_table).await;
                }
                if self.rng.random_ratio(1, 3) {
                    // Whether it can be closed in order is not promised.
                    let closed = store.close().await;
                    self.say(|| format!("  close: {closed:?}"));
                }
            }
            Err(error) if is_calm && !fails_table => return Err(format!("it does not open: {error}")),
            Err(_) => {}
        }
        let seed = self.rng.random();
        self.disk = self.disk.after_cut().unwrap_or_else(|| self.disk.cut_power(seed));
        Ok(())
    }

    /// Some calls at once, on different objects.
    async fn group(&mut self, store: &Store, spoils_reads: bool) {
        if self.rng.random_ratio(1, 8) {
            return self.collect(store).await;
        }
        let mut acts = BTreeMap::new();
        for _ in 0..self.rng.random_range(1..5) {
            let large = self.rng.random_ratio(1, 40);
            let thing = if large {
                self.rng.random_range(SMALL..THINGS.len())
            } else {
                self.rng.random_range(0..SMALL)
            };
            let uid = self.rng.random_range(1..3);
            let act = match self.rng.random_range(0..12) {
                0..=4 => Act::Add(uid),
                5 => Act::Abandon,
                6 | 7 => Act::Remove(uid, self.rng.random()),
                8 => Act::Pin(uid),
                9 => Act::Unpin(uid),
                _ => Act::Read,
            };
            acts.insert(thing, (act, self.rng.random_range(0..6)));
        }
        let calls = acts.iter().map(|(thing, (act, yields))| {
            let (thing, store, act, yields) = (*thing, store.clone(), *act, *yields);
            async move {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                (thing, act, perform(&store, &THINGS[thing], act).await)
            }
        });
        for (thing, act, result) in futures::future::join_all(calls).await {
            self.say(|| format!("  {thing} {act:?}: {result:?}"));
            self.note(thing, act, result, spoils_reads);
        }
    }

    /// Enters an answer in the model.
    fn note(&mut self, thing: usize, act: Act, result: Result<Option<Outcome>, Error>, spoils_reads: bool) {
        let spoils_reads = spoils_reads || self.disk.after_cut().is_some();
        let truth = &mut self.truth[thing];
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(_) if matches!(act, Act::Read | Act::Abandon) => return,
            Err(_) => {
                truth.unsure = true;
                return;
            }
        };
        match (act, outcome) {
            (Act::Add(uid), _) => {
                if truth.unsure {
                    // Which pins it has besides is not known.
                    return;
                }
                truth.there.get_or_insert_default().insert(uid);
            }
            (Act::Remove(uid, _), Some(Outcome::Removed(removed))) => match removed {
                Removed::Removed { .. } => *truth = Truth::default(),
                // In memory; what a failed call left on disk is not known.
                Removed::NotFound if truth.unsure => {}
                Removed::NotFound => truth.there = None,
                Removed::StillPinned { .. } => {
                    if let Some(pins) = &mut truth.there {
                        pins.remove(&uid);
                    }
                }
                Removed::NotPermitted | Removed::InDirectory => {}
            },
            (Act::Pin(uid), Some(Outcome::Is(true))) => {
                if let Some(pins) = &mut truth.there {
                    pins.insert(uid);
                }
            }
            (Act::Unpin(uid), Some(Outcome::Is(true))) => {
                if let Some(pins) = &mut truth.there {
                    pins.remove(&uid);
                }
            }
            (Act::Read, Some(Outcome::Is(whole))) => {
                let may_go = self.evicts && truth.there.as_ref().is_some_and(BTreeSet::is_empty);
                let must = truth.there.is_some() && !truth.unsure && !spoils_reads && !may_go;
                assert!(whole || !must, "thing {thing} cannot be read");
            }
            _ => {}
        }
    }

    async fn collect(&mut self, store: &Store) {
        let done = store.collect(now() + 25 * HOUR, false).await;
        self.say(|| format!("  collect: {done:?}"));
        let done = done.is_ok();
        for truth in &mut self.truth {
            if truth.there.as_ref().is_some_and(BTreeSet::is_empty) {
                if done && !truth.unsure {
                    truth.there = None;
                } else {
                    truth.unsure = true;
                }
            }
        }
    }

    /// Opens the store after a crash, sometimes after crashes of the recovery, and holds it to the model.
    async fn check(&mut self) -> Result<(), String> {
        for _ in 0..self.rng.random_range(0..3) {
            let plan = Plan {
                lies: self.lie,
                cut_at: Some(self.rng.random_range(1..10)),
                seed: self.rng.random(),
                ..Plan::default()
            };
            self.say(|| format!("recovery: {plan:?}"));
            self.disk.plan(plan);
            if let Ok(store) = self.open() {
                let _ = store.recovered().await;
            }
            let seed = self.rng.random();
            self.disk = self.disk.after_cut().unwrap_or_else(|| self.disk.cut_power(seed));
        }
        self.disk.plan(Plan { lies: self.lie, ..Plan::default() });
        let first = self.look().await?;
        let seed = self.rng.random();
        self.disk = self.disk.cut_power(seed);
        self.disk.plan(Plan { lies: self.lie, ..Plan::default() });
        let second = self.look().await?;
        if first != second {
            return Err(format!("another start changes what is there: {first:?} and {second:?}"));
        }
        // What still runs keeps the old disk.
        let seed = self.rng.random();
        self.disk = self.disk.cut_power(seed);
        Ok(())
    }

    async fn look(&mut self) -> Result<Dump, String> {
        self.say(|| format!("look: {:?}", self.disk));
        let store = self.open().map_err(|error| format!("it does not open after a crash: {error}"))?;
        store.recovered().await.map_err(|error| format!("it does not recover: {error}"))?;
        let temporary = self.disk.files().into_iter().find(|path| path.to_string_lossy().ends_with(".tmp"));
        if let Some(path) = temporary {
            return Err(format!("{} is left", path.display()));
        }
        for (index, thing) in THINGS.iter().enumerate() {
            let found = store.object(&thing.object.id);
            let truth = &mut self.truth[index];
            let evicted = self.evicts && truth.there.as_ref().is_some_and(BTreeSet::is_empty);
            let pins = found.as_ref().map(|info| info.pins.iter().map(|pin| pin.uid).collect());
            if !truth.unsure && pins != truth.there && !(evicted && pins.is_none()) {
                return Err(format!("object {index} has pins {pins:?}, and should have {:?}", truth.there));
            }
            // From here on it is what it is.
            *truth = Truth { there: pins, unsure: false };
            let reads = thing.reads_back(&store).await.map_err(|error| format!("object {index}: {error}"))?;
            if found.is_some() && !reads {
                let named =
                    |chunk: &Chunk| (chunk.id(), store.inner.catalog.index.get(&Key::data(&chunk.id())));
                let chunks: Vec<_> = thing.chunks.iter().map(named).collect();
                return Err(format!("object {index} is there and cannot be read: {chunks:?}"));
            }
        }
        self.hold(&store).await
    }

    /// The index names what the segments hold, and the counts are right.
    async fn hold(&self, store: &Store) -> Result<Dump, String> {
        let catalog = &store.inner.catalog;
        let (mut index, mut whole, mut stored, mut allocated) = (BTreeSet::new(), BTreeMap::new(), 0, 0);
        let each = catalog.index.each(|key, entry| {
            index.insert((key, entry.spot));
            if catalog.is_there(&key, &entry)? {
                whole.insert(key, entry.spot);
            }
            stored += entry.footprint();
            // Of its payload a removal that was cut short may have left anything.
            let header = catalog.header(&entry)?;
            let there = header.is_some_and(|header| header.key == key);
            assert!(there, "the index names {key:?}, {entry:?}, and there is {header:?}");
            let (number, start) = (entry.spot.segment, u64::from(entry.spot.offset));
            let path = format!("segments/{number:08}.seg");
            allocated += self.disk.allocated_in(&path, start, start + entry.footprint());
            Ok(())
        });
        each.map_err(|error| error.to_string())?;
        let (mut there, mut footers) = (BTreeSet::new(), 0);
        for number in catalog.segments.numbers() {
            let segment = catalog.segments.get(number).unwrap();
            let file = catalog.segments.file(&segment).unwrap();
            let seen = scan(file.as_ref(), number, &catalog.key, 0, |header, offset| {
                if header.key.kind == Kind::Footer {
                    let start = offset - u64::from(header.length).next_multiple_of(BLOCK);
                    let path = format!("segments/{number:08}.seg");
                    footers += self.disk.allocated_in(&path, start, offset + BLOCK);
                } else {
                    there.insert((header.key, Spot { segment: number, offset: offset as u32 }));
                }
                std::ops::ControlFlow::Continue(())
            });
            seen.map_err(|error| error.to_string())?;
        }
        if self.solid {
            there.retain(|record| index.contains(record));
        }
        if there != index {
            let (more, less): (Vec<_>, Vec<_>) =
                (there.difference(&index).collect(), index.difference(&there).collect());
            return Err(format!(
                "the segments hold what the index does not know: {more:?}, without {less:?}"
            ));
        }
        let usage = store.usage().await.map_err(|error| error.to_string())?;
        let on_disk = self.disk.allocated("segments");
        // What cannot be punched counts, and is on disk.
        let counts = usage.stored_bytes == stored || (self.solid && usage.stored_bytes > stored);
        if !counts || (allocated + footers != on_disk && !self.solid) {
            return Err(format!(
                "{} bytes counted, {stored} in records, of which {allocated} are on disk with {footers} in footers, \
                 and {on_disk} are on disk in all",
                usage.stored_bytes
            ));
        }
        let mut objects = store.objects(None, 100);
        objects.extend(store.partials(None, 100));
        Ok((whole, objects.into_iter().map(|info| (info, true)).collect()))
    }
}

/// What a call gave.
#[derive(Debug)]
enum Outcome {
    Removed(Removed),
    Is(bool),
}

async fn perform(store: &Store, thing: &Thing, act: Act) -> Result<Option<Outcome>, Error> {
    let id = thing.object.id;
    Ok(match act {
        Act::Add(uid) => {
            thing.add(store, Some(uid), true).await?;
            None
        }
        Act::Abandon => {
            thing.add(store, None, false).await?;
            None
        }
        Act::Remove(uid, admin) => Some(Outcome::Removed(store.remove(&id, uid, admin).await?)),
        Act::Pin(uid) => Some(Outcome::Is(store.pin(&id, uid).await?)),
        Act::Unpin(uid) => Some(Outcome::Is(store.unpin(&id, uid).await?)),
        Act::Read => Some(Outcome::Is(thing.reads_back(store).await?)),
    })
}
