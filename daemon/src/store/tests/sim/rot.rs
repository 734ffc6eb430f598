//! What rots, and what that means for the model.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::seq::IteratorRandom;

use super::super::*;
use super::jobs::thing_of;
use super::model::{THINGS, There};
use super::world::World;
use crate::store::disk::forgetful::Rot;
use crate::store::journal::{self, Fact};
use crate::store::record::{BLOCK, BLOCK_SIZE, Header, Key, Kind, StoreKey};

pub(super) const JOURNAL: &str = "journal/journal";

/// Bytes of a header that mean something.
const HEADER: u64 = 112;

/// What a frame of the journal is about: a thing, or the job for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    Thing(usize),
    Job(usize),
}

/// A record that is in a segment.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) number: u32,
    pub(super) header: Header,
    /// Where its header is.
    pub(super) offset: u64,
}

impl Found {
    /// All bytes that belong to it.
    pub(super) fn range(&self) -> Range<u64> {
        match self.header.key.kind {
            Kind::Footer => {
                self.offset - u64::from(self.header.length).next_multiple_of(BLOCK)..self.offset + BLOCK
            }
            _ => self.offset..self.offset + self.header.footprint(),
        }
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = (PathBuf, usize)> {
        let Range { start, end } = self.range();
        (start / BLOCK..end / BLOCK).map(|block| (self.path.clone(), block as usize))
    }

    /// The bytes of its payload.
    fn payload(&self) -> Range<u64> {
        let start = self.offset + self.header.payload_at();
        if self.header.zero { start..start } else { start..start + u64::from(self.header.length) }
    }

    /// Whether it matters that these bytes rot.
    fn is_hit(&self, rotten: &Range<u64>) -> bool {
        let meets = |own: Range<u64>| own.start < rotten.end && rotten.start < own.end;
        meets(self.offset..self.offset + HEADER) || meets(self.payload())
    }
}

impl World {
    /// The key of the store; of one that has been opened.
    pub(super) fn key(&self) -> StoreKey {
        let text = String::from_utf8_lossy(&self.format).into_owned();
        let mut key = StoreKey::default();
        hex::decode_to_slice(&text["casd-store 1\nkey ".len()..][..64], &mut key).unwrap();
        key
    }

    /// All records whose headers hold, footers among them, whatever any index says.
    pub(super) fn records(&self) -> Vec<Found> {
        let (mut found, key) = (Vec::new(), self.key());
        for path in self.disk.files() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let Some(number) = name.strip_suffix(".seg").and_then(|number| number.parse().ok()) else {
                continue;
            };
            let (mut bytes, mut at) = (self.disk.bytes(&path), 0);
            // A crash may have left the last block short.
            bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE), 0);
            while at < bytes.len() {
                let offset = at as u64;
                let header = Header::read(&bytes[at..at + BLOCK_SIZE], &key, number, offset);
                at += header.map_or(BLOCK_SIZE, |header| header.footprint() as usize);
                found.extend(header.map(|header| Found { path: path.clone(), number, header, offset }));
            }
        }
        found
    }

    /// Something may rot. While the store `is_open` only what it reads again.
    pub(super) fn rot(&mut self, is_open: bool) {
        if self.format.is_empty() || self.disk.after_cut().is_some() {
            return;
        }
        for _ in 0..self.rng.random_range(0..3) {
            match self.rng.random_range(0..12) {
                0..=5 => self.rot_record(),
                6 | 7 => self.rot_anywhere(),
                8 | 9 => self.rot_journal(is_open),
                _ if is_open => {}
                10 => self.rot_small("CLEAN"),
                _ => self.rot_small("FORMAT"),
            }
        }
    }

    fn how(&mut self) -> Rot {
        match self.rng.random_range(0..3) {
            0 => Rot::Unreadable,
            _ => Rot::Flip(1 << self.rng.random_range(0..8)),
        }
    }

    /// A byte of some record of some kind: of its header, its payload, or what fills the rest.
    fn rot_record(&mut self) {
        let mut records = self.records();
        let kinds: BTreeSet<Kind> = records.iter().map(|record| record.header.key.kind).collect();
        let Some(kind) = kinds.into_iter().choose(&mut self.rng) else { return };
        records.retain(|record| record.header.key.kind == kind);
        let record = records[self.rng.random_range(0..records.len())].clone();
        let parts = [record.offset..record.offset + HEADER, record.payload(), record.range()];
        let part = parts[self.rng.random_range(0..3)].clone();
        if !part.is_empty() {
            let at = self.rng.random_range(part);
            self.rot_segment(&record.path, at);
        }
    }

    /// A byte of some segment, or of the last blocks of the last.
    fn rot_anywhere(&mut self) {
        let segments = self.disk.files().into_iter().filter(|path| path.extension() == Some("seg".as_ref()));
        let mut segments: Vec<_> = segments.collect();
        segments.sort();
        let Some(last) = segments.last().cloned() else { return };
        let in_tail = self.rng.random();
        let path = if in_tail { last } else { segments[self.rng.random_range(0..segments.len())].clone() };
        let length = self.disk.bytes(&path).len() as u64;
        if length > 0 {
            let from = if in_tail { length.saturating_sub(3 * BLOCK) } else { 0 };
            let at = self.rng.random_range(from..length);
            self.rot_segment(&path, at);
        }
    }

    fn rot_segment(&mut self, path: &Path, at: u64) {
        let how = self.how();
        let block = at / BLOCK * BLOCK;
        let rotten = if how == Rot::Unreadable { block..block + BLOCK } else { at..at + 1 };
        self.scars.insert((path.to_owned(), (at / BLOCK) as usize));
        for record in self.records().iter().filter(|record| record.path == path && record.is_hit(&rotten)) {
            self.say(|| format!("  in a record: {record:?}"));
            let lost = if how == Rot::Unreadable { &mut self.unreadable } else { &mut self.rotten };
            lost.insert(record.header.key);
            self.scars.extend(record.blocks());
        }
        self.say(|| format!("  rot at {at} of {}: {how:?}", path.display()));
        self.disk.rot(path, at, how);
    }

    /// A byte of the journal. Its first frame holds the store's key, which is in FORMAT as well: one of the two stays;
    /// and some frame does, since without any it is no journal.
    fn rot_journal(&mut self, is_open: bool) {
        let bytes = self.disk.bytes(Path::new(JOURNAL));
        let mut frames = journal::frames_of(&bytes, &self.key());
        let has_format = self.disk.bytes(Path::new("FORMAT")) == self.format && !self.is_bad("FORMAT");
        // What a failed sync left in memory is not what the next start reads: which frames that has is not known here.
        let (unsynced, failed) = self.disk.is_dirty(Path::new(JOURNAL));
        if bytes.is_empty() || failed {
            return;
        }
        let (at, how) = (self.rng.random_range(0..bytes.len()), self.how());
        let block = at / BLOCK_SIZE * BLOCK_SIZE;
        let rotten = if how == Rot::Unreadable { block..block + BLOCK_SIZE } else { at..at + 1 };
        if how != Rot::Unreadable && !frames.iter().any(|(range, _)| range.contains(&at)) {
            // The same bit once more would bring back what has rotted.
            return;
        }
        if is_open || unsynced {
            // The others may not be durable yet.
            frames.retain(|(range, _)| range.start == 0);
        }
        let is_left = |range: &Range<usize>| range.start >= rotten.end || range.end <= rotten.start;
        let is_some_left = frames.iter().any(|(range, _)| is_left(range));
        let is_key_left = frames.first().is_some_and(|(range, _)| range.start == 0 && is_left(range));
        if how != Rot::Unreadable && !is_some_left || !has_format && !is_key_left {
            return;
        }
        self.say(|| format!("  rot at {at} of the journal: {how:?}"));
        if how != Rot::Unreadable {
            self.lose_frames(rotten);
        }
        self.disk.rot(Path::new(JOURNAL), at as u64, how);
    }

    /// What the frames in these bytes of the journal say is lost.
    pub(super) fn lose_frames(&mut self, rotten: Range<usize>) {
        for about in self.framed(&rotten) {
            let index = match about {
                About::Thing(index) => index,
                About::Job(index) => {
                    self.jobs[index].forget();
                    continue;
                }
            };
            let (truth, evicts) = (&mut self.truth[index], self.evicts);
            // It may have been let go of for want of room.
            let stays = |there: &There| !(evicts && there.may_go());
            let is_there = truth.there.as_ref().is_some_and(stays) && !truth.unsure;
            THINGS[index].needs(true).for_each(|key| {
                self.kept.remove(key);
                if !is_there {
                    // It may come back, and what it needed is gone.
                    self.rotten.insert(*key);
                }
            });
            (truth.unsure, truth.forgotten, truth.surely) = (true, true, false);
        }
    }

    /// What frames in these bytes of the journal are about.
    pub(super) fn framed(&self, rotten: &Range<usize>) -> Vec<About> {
        let bytes = self.disk.bytes(Path::new(JOURNAL));
        let frames = journal::frames_of(&bytes, &self.key());
        let hit = frames.into_iter().filter(|(own, _)| own.start < rotten.end && rotten.start < own.end);
        let thing = |id: ObjectId| THINGS.iter().position(|thing| thing.object.id == id).map(About::Thing);
        let about = |(_, fact)| match fact {
            Fact::Object(info) => thing(info.id),
            Fact::Removed(id) => thing(id),
            Fact::Job(job) => Some(About::Job(thing_of(job.number))),
            Fact::Ended(number) => Some(About::Job(thing_of(number))),
            Fact::Key(_) => None,
        };
        hit.filter_map(about).collect()
    }

    /// A byte of a small file.
    fn rot_small(&mut self, name: &str) {
        let length = self.disk.bytes(Path::new(name)).len();
        // A higher version number is a later casd's store; the last digit of the version is at 11.
        let at = self.rng.random_range(0..length.max(1));
        let frames = journal::frames_of(&self.disk.bytes(Path::new(JOURNAL)), &self.key());
        let is_key_elsewhere = frames.first().is_some_and(|(range, _)| range.start == 0);
        if length == 0 || name == "FORMAT" && (at == 11 || !is_key_elsewhere || self.is_bad(JOURNAL)) {
            return;
        }
        let how = self.how();
        self.say(|| format!("  rot at {at} of {name}: {how:?}"));
        self.disk.rot(Path::new(name), at as u64, how);
    }

    /// All blocks of the segments can be read again: what was in them is as it was.
    pub(super) fn heal(&mut self) {
        self.say(|| "  what could not be read can be".to_owned());
        let known: BTreeSet<_> = self.records().iter().flat_map(Found::blocks).collect();
        for path in self.disk.files().into_iter().filter(|path| path.starts_with("segments")) {
            let bad = self.disk.bad_blocks(&path);
            if !bad.is_empty() {
                // What a crash tore beside it has been left.
                let blocks = self.disk.blocks(&path).into_iter().map(|block| (path.clone(), block));
                self.scars.extend(blocks.filter(|block| !known.contains(block)));
            }
            for block in bad {
                self.disk.rot(&path, block as u64 * BLOCK, Rot::Heal);
            }
        }
        self.unreadable.clear();
    }

    fn is_bad(&self, name: &str) -> bool {
        !self.disk.bad_blocks(Path::new(name)).is_empty()
    }

    /// Whether a record can be read back from the disk, by itself.
    pub(super) fn is_good(&self, record: &Found) -> bool {
        let bytes = self.disk.bytes(&record.path);
        let Range { start, end } = record.payload();
        let payload = match record.header.zero {
            true => Bytes::from(vec![0; record.header.length as usize]),
            false => Bytes::copy_from_slice(bytes.get(start as usize..end as usize).unwrap_or_default()),
        };
        let bad = self.disk.bad_blocks(&record.path);
        let is_bad = |at: u64| bad.contains(&((at / BLOCK) as usize));
        let unreadable =
            is_bad(record.offset) || (start / BLOCK..end.div_ceil(BLOCK)).any(|at| is_bad(at * BLOCK));
        !unreadable && record.header.proves(payload)
    }

    /// Whether something has happened to a record.
    pub(super) fn is_rotten(&self, key: &Key) -> bool {
        self.rotten.contains(key) || self.unreadable.contains(key)
    }

    /// A record has been stored anew.
    pub(super) fn renew(&mut self, key: &Key) {
        self.unreadable.remove(key);
        // It may be collected again, and an object come back whose removal the journal has lost.
        let mut forgotten = self.truth.iter().zip(THINGS.iter()).filter(|(truth, _)| truth.forgotten);
        if !forgotten.any(|(_, thing)| thing.needs(true).any(|needed| needed == key)) {
            self.rotten.remove(key);
        }
    }
}
