//! What is checked between lives.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use rand::Rng;

use super::super::*;
use super::jobs::{Word, job};
use super::model::{Absent, THINGS, There, Truth, key, maker};
use super::rot::{About, Found, JOURNAL};
use super::world::World;
use crate::store::disk::forgetful::{Plan, Rot};
use crate::store::index::Spot;
use crate::store::journal;
use crate::store::record::{BLOCK, BLOCK_SIZE, Key, Kind};
use crate::upkeep::Rebuilder;

/// What can be compared over restarts: records that are there, objects, and jobs.
type Dump = (BTreeMap<Key, Spot>, Vec<ObjectInfo>, Vec<Job>);

/// A start reads so many times what there are blocks, and some.
const READS: u64 = 4;

impl World {
    /// Opens the store after a crash, sometimes after crashes of the recovery, and holds it to the model.
    pub(super) async fn check(&mut self) -> Result<(), String> {
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
            self.cut();
        }
        self.look_at_bad_journal().await?;
        let scrubs = self.rots && self.rng.random();
        let first = self.look(scrubs).await?;
        self.cut();
        let second = self.look(false).await?;
        if first != second {
            return Err(format!("another start changes what is there: {first:?} and {second:?}"));
        }
        // What still runs keeps the old disk.
        self.cut();
        Ok(())
    }

    /// Opens the store with nothing failing.
    async fn open_calmly(&mut self) -> Result<Store, String> {
        self.say(|| format!("look: {:?}", self.disk));
        self.disk.plan(Plan { lies: self.lie, ..Plan::default() });
        let store = self.open().map_err(|error| format!("it does not open after a crash: {error}"))?;
        store.recovered().await.map_err(|error| format!("it does not recover: {error}"))?;
        let files = self.disk.files();
        let blocks: usize = files.iter().map(|path| self.disk.blocks(path).len()).sum();
        if self.disk.reads() > READS * blocks as u64 + 100 {
            return Err(format!("it has read {} times for {blocks} blocks", self.disk.reads()));
        }
        match files.into_iter().find(|path| path.to_string_lossy().ends_with(".tmp")) {
            Some(path) => Err(format!("{} is left", path.display())),
            None => Ok(store),
        }
    }

    /// Where a block of the journal cannot be read, what the rest says is served and nothing is written. Then the block
    /// comes back, or someone copies the file without it.
    async fn look_at_bad_journal(&mut self) -> Result<(), String> {
        let bad = self.disk.bad_blocks(Path::new(JOURNAL));
        let bytes = |block: &usize| block * BLOCK_SIZE..(block + 1) * BLOCK_SIZE;
        if bad.is_empty() {
            return Ok(());
        }
        let store = self.open_calmly().await?;
        if store.read_only().is_none() {
            return Err("a part of the journal cannot be read, and it would write".to_owned());
        }
        let unread: BTreeSet<About> = bad.iter().flat_map(|block| self.framed(&bytes(block))).collect();
        for index in 0..THINGS.len() {
            if !unread.contains(&About::Thing(index)) {
                self.compare(&store, index)?;
            }
            if !unread.contains(&About::Job(index)) {
                self.compare_job(&store, index)?;
            }
        }
        drop(store);
        self.cut();
        let frames = journal::frames_of(&self.disk.bytes(Path::new(JOURNAL)), &self.key());
        let is_whole = |range: &Range<usize>| {
            !(range.start / BLOCK_SIZE..=(range.end - 1) / BLOCK_SIZE).any(|block| bad.contains(&block))
        };
        let rest = frames.iter().any(|(range, _)| is_whole(range));
        for block in &bad {
            let at = (block * BLOCK_SIZE) as u64;
            if !rest || self.rng.random() {
                self.disk.rot(Path::new(JOURNAL), at, Rot::Heal);
            } else {
                self.lose_frames(bytes(block));
                self.disk.rot(Path::new(JOURNAL), at, Rot::Lost);
            }
        }
        Ok(())
    }

    /// What the store knows of an object is what was answered.
    fn compare(&self, store: &Store, index: usize) -> Result<Option<There>, String> {
        let found = store.object(&THINGS[index].object.id).as_ref().map(There::of);
        let truth = &self.truth[index];
        let evicted = self.evicts && truth.there.as_ref().is_some_and(There::may_go) && found.is_none();
        if !truth.unsure && found != truth.there && !evicted {
            return Err(format!("object {index} is {found:?}, and should be {:?}", truth.there));
        }
        if truth.unsure && truth.surely && !found.as_ref().is_some_and(|there| there.whole) {
            return Err(format!("object {index} is {found:?}, and should be whole"));
        }
        Ok(found)
    }

    /// The job for a thing is as it was answered last.
    fn compare_job(&self, store: &Store, index: usize) -> Result<Option<Job>, String> {
        let number = job(index, 0).number;
        let found = store.jobs().into_iter().find(|job| job.number == number);
        match self.jobs[index].allows(found.as_ref()) {
            true => Ok(found),
            false => Err(format!("job {number} is {found:?}, of {:?}", self.jobs[index])),
        }
    }

    async fn look(&mut self, scrubs: bool) -> Result<Dump, String> {
        let store = self.open_calmly().await?;
        let mut told = store.take_damage().unwrap();
        let named = |key: &Key| store.inner.catalog.index.get(key).ok().flatten().is_some();
        let mut absent = Absent::new();
        for (index, thing) in THINGS.iter().enumerate() {
            let found = self.compare(&store, index)?;
            let missing = thing.absent(&store).await;
            let needs = thing.needs(found.as_ref().is_some_and(|there| there.parity));
            let whole = found.as_ref().is_some_and(|there| there.whole);
            for key in needs.filter(|key| whole && missing.contains_key(*key)) {
                self.may_lack(&store, key, &missing).map_err(|why| format!("object {index}: {why}"))?;
            }
            if found.is_some() {
                thing.needs(true).for_each(|key| _ = self.kept.remove(key));
            }
            absent.extend(missing);
            // From here on it is what it is.
            self.truth[index] = Truth { there: found, ..Truth::default() };
            self.jobs[index] = Word::of(self.compare_job(&store, index)?);
        }
        for key in self.kept.iter().filter(|key| !self.evicts && absent.contains_key(*key)) {
            self.may_lack(&store, key, &absent).map_err(|why| format!("what was kept: {why}"))?;
        }
        let mut damage = BTreeSet::new();
        while let Ok(Damage { kind, id, .. }) = told.try_recv() {
            damage.insert(Key { kind, id });
        }
        if let Some(key) = damage.iter().find(|key| self.is_needed(key) && !self.is_rotten(key)) {
            return Err(format!("{key:?} is told to be damaged, and nothing happened to it"));
        }
        if let Some(key) = absent.keys().find(|key| named(key) && !damage.contains(*key)) {
            return Err(format!("that {key:?} cannot be read has not been told"));
        }
        if scrubs {
            self.scrub(&store).await?;
            // What was put before the room ended is on disk, and must be known.
            let appender = &store.inner.appender;
            appender.durable(appender.ticket()).await.map_err(|error| error.to_string())?;
        }
        self.check_quota(&store)?;
        self.hold(&store).await
    }

    /// Whether an object that is surely there needs a record. Of others a crash may have left a part.
    fn is_needed(&self, key: &Key) -> bool {
        let needs = |(truth, thing): (&Truth, &super::model::Thing)| {
            let there = truth.there.as_ref().filter(|there| there.whole && !truth.unsure);
            there.is_some_and(|there| thing.needs(there.parity).any(|needed| needed == key))
        };
        self.truth.iter().zip(THINGS.iter()).any(needs)
    }

    fn may_lack(&self, store: &Store, key: &Key, absent: &Absent) -> Result<(), String> {
        if self.is_rotten(key) {
            return Ok(());
        }
        let entry = store.inner.catalog.index.get(key);
        Err(format!("{key:?} cannot be read: {:?}; the index says {entry:?}", absent[key]))
    }

    /// The index names what the segments hold, and the counts are right.
    async fn hold(&self, store: &Store) -> Result<Dump, String> {
        let catalog = &store.inner.catalog;
        let (mut index, mut whole, mut stored) = (BTreeSet::new(), BTreeMap::new(), 0);
        let mut known: BTreeSet<(PathBuf, usize)> = BTreeSet::new();
        let each = catalog.index.each(|key, entry| {
            index.insert((key, entry.spot));
            // What rotted may go when a start takes it for torn.
            if !self.is_rotten(&key) && catalog.is_there(&key, &entry).unwrap_or(false) {
                whole.insert(key, entry.spot);
            }
            stored += entry.footprint();
            let path = PathBuf::from(format!("segments/{:08}.seg", entry.spot.segment));
            let first = u64::from(entry.spot.offset) / BLOCK;
            let blocks = first..first + entry.footprint() / BLOCK;
            known.extend(blocks.map(|block| (path.clone(), block as usize)));
            Ok(())
        });
        each.map_err(|error| error.to_string())?;
        let records = self.records();
        let spot = |record: &Found| Spot { segment: record.number, offset: record.offset as u32 };
        let (footers, records): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.header.key.kind == Kind::Footer);
        known.extend(footers.iter().flat_map(Found::blocks));
        let there: BTreeSet<_> = records.iter().map(|record| (record.header.key, spot(record))).collect();
        if let Some(record) = index.difference(&there).find(|(key, _)| !self.is_rotten(key)) {
            return Err(format!("the index names {record:?}, which no segment has"));
        }
        let is_unknown = |record: &&Found| !index.contains(&(record.header.key, spot(record)));
        // Where a block cannot be read nothing is cut or punched that may hold a record.
        let is_scar = |block: &(PathBuf, usize)| {
            self.scars.contains(block) || !self.disk.bad_blocks(&block.0).is_empty()
        };
        let mut unknown = records.iter().filter(is_unknown);
        if let Some(record) =
            unknown.find(|record| !self.solid && !record.blocks().all(|block| is_scar(&block)))
        {
            return Err(format!("the index does not know {record:?}"));
        }
        let segments = self.disk.files().into_iter().filter(|path| path.starts_with("segments"));
        let blocks = |path: PathBuf| {
            let blocks = self.disk.blocks(&path);
            blocks.into_iter().map(move |block| (path.clone(), block))
        };
        let lost = segments.flat_map(blocks).find(|block| !known.contains(block) && !is_scar(block));
        if let Some((path, block)) = lost.filter(|_| !self.solid) {
            return Err(format!("block {block} of {} is taken, and nobody knows by what", path.display()));
        }
        let usage = store.usage().await.map_err(|error| error.to_string())?;
        // What cannot be punched counts, and is on disk.
        if usage.stored_bytes != stored && !(self.solid && usage.stored_bytes > stored) {
            return Err(format!("{} bytes are counted, and there are {stored}", usage.stored_bytes));
        }
        let (mut objects, partials) = (store.objects(None, 100), store.partials(None, 100));
        if (usage.objects, usage.partials) != (objects.len() as u64, partials.len() as u64) {
            return Err(format!("{usage:?} of {objects:?} and {partials:?}"));
        }
        objects.extend(partials);
        Ok((whole, objects, store.jobs()))
    }

    /// A pass over everything while things go on and fail.
    pub(super) async fn scrub_in_passing(&mut self, store: &Store, spoils: bool) -> Result<(), String> {
        let mut scrub = store.scrub(Cursor::default());
        while let Ok(Some(proved)) = scrub.prove_next(self.rng.random_range(1..100_000)).await {
            self.say(|| format!("  scrub: {proved:?}"));
            let spoils = spoils || self.disk.after_cut().is_some();
            let keys = proved.bad.iter().map(|bad| Key { kind: bad.kind, id: bad.id });
            let mut wrong = keys.filter(|key| !spoils && self.is_needed(key) && !self.is_rotten(key));
            if let Some(key) = wrong.next() {
                return Err(format!("the scrub finds {key:?} bad, and nothing happened to it"));
            }
        }
        Ok(())
    }

    /// A pass finds what rotted and nothing else; what has a proof or parity comes back by itself, the rest when it is
    /// brought.
    async fn scrub(&mut self, store: &Store) -> Result<(), String> {
        let mut expected = BTreeSet::new();
        let catalog = &store.inner.catalog;
        let records: BTreeMap<_, _> =
            self.records().into_iter().map(|found| ((found.number, found.offset), found)).collect();
        let each = catalog.index.each(|key, entry| {
            let record = records.get(&(entry.spot.segment, entry.spot.offset.into()));
            if !record.is_some_and(|record| record.header.key == key && self.is_good(record)) {
                expected.insert(key);
            }
            Ok(())
        });
        each.map_err(|error| error.to_string())?;
        let (mut scrub, mut bad) = (store.scrub(Cursor::default()), Vec::new());
        loop {
            match scrub.prove_next(self.rng.random_range(1..200_000)).await {
                Ok(None) => break,
                Ok(Some(proved)) => bad.extend(proved.bad.iter().map(RecordName::from)),
                // What was saved has no room.
                Err(error) if error.is_no_space() => return Ok(()),
                Err(error) => return Err(format!("the scrub fails: {error}")),
            }
        }
        let found: BTreeSet<_> = bad.iter().map(|bad| Key { kind: bad.kind, id: bad.id }).collect();
        self.say(|| format!("scrub: {found:?}"));
        // What was saved may have taken the room of others.
        if found != expected && !(self.evicts && found.is_subset(&expected)) {
            return Err(format!("the scrub finds {found:?}, and {expected:?} have rotted"));
        }
        if !self.mend(store).await? {
            return Ok(());
        }
        // What is bad and of use to nobody goes.
        let there = store.are_there(bad.clone()).await.map_err(|error| error.to_string())?;
        let useless = bad.into_iter().zip(there).filter(|(_, there)| !there).map(|(name, _)| name);
        let useless: Vec<RecordName> = useless.collect();
        for RecordName { kind, id } in &useless {
            self.kept.remove(&Key { kind: *kind, id: *id });
        }
        store.drop_damaged(useless).await.map_err(|error| format!("damage cannot be dropped: {error}"))
    }

    /// Every object is mended from what is here, then from elsewhere. Whether there was room for it.
    async fn mend(&mut self, store: &Store) -> Result<bool, String> {
        let told = |error: Error| error.to_string();
        let rebuilder = Rebuilder { store: store.clone(), pool: Pool::inline(), key: maker() };
        for (index, thing) in THINGS.iter().enumerate() {
            let Some(info) = store.object(&thing.object.id).filter(|info| info.state == State::Whole) else {
                continue;
            };
            let lacks = self.lacks(store, index, &info).await?;
            if lacks.is_empty() {
                continue;
            }
            match rebuilder.rebuild(&info, &lacks).await {
                Ok(()) => {}
                Err(error) if error.is_no_space() => return Ok(false),
                Err(error) => return Err(format!("{index} cannot be rebuilt: {error}")),
            }
            let still = self.lacks(store, index, &info).await?;
            let is_one_chunk = |kind| lacks.iter().filter(|name| name.kind == kind).count() == 1;
            // One shard of a stripe with one parity chunk, the rest being there.
            let covered = lacks.len() == 1 && (is_one_chunk(Kind::Data) || is_one_chunk(Kind::Parity))
                || lacks.iter().all(|name| matches!(name.kind, Kind::ParityPart | Kind::ParityPage));
            if info.parity.is_some() && covered && !still.is_empty() {
                return Err(format!("{index} lacked {lacks:?}, and after mending {still:?}"));
            }
            let (lease, absent) = (store.lease(), thing.absent(store).await);
            for items in [thing.chunk_items(), thing.manifest_items(), thing.parity_items()] {
                for item in items {
                    let key = key(&item);
                    match lease.put(item).await {
                        Ok(Put::New) if !absent.contains_key(&key) => {
                            return Err(format!("{key:?} could be read, and was stored once more"));
                        }
                        Ok(_) => {}
                        Err(error) if error.is_no_space() => return Ok(false),
                        Err(error) => return Err(told(error)),
                    }
                }
            }
            lease.sync().await.map_err(told)?;
            if !self.lacks(store, index, &info).await?.is_empty() {
                return Err(format!("{index} is broken, and all of it was put"));
            }
            thing.needs(true).for_each(|key| self.renew(key));
        }
        Ok(true)
    }

    /// What an object lacks, as the store says, which must be what cannot be read of it.
    async fn lacks(&self, store: &Store, index: usize, info: &ObjectInfo) -> Result<Vec<RecordName>, String> {
        let lacking = store.lacking(vec![info.clone()]).await.map_err(|error| error.to_string())?;
        let lacking: Vec<RecordName> = lacking.into_iter().flat_map(|(_, lacking)| lacking).collect();
        let absent = THINGS[index].absent(store).await;
        let absent: BTreeSet<_> =
            THINGS[index].needs(info.parity.is_some()).filter(|key| absent.contains_key(*key)).collect();
        let is_absent = |name: &RecordName| absent.contains(&Key { kind: name.kind, id: name.id });
        if lacking.is_empty() != absent.is_empty() || !lacking.iter().all(is_absent) {
            return Err(format!("{index} is said to lack {lacking:?}, and lacks {absent:?}"));
        }
        Ok(lacking)
    }
}
