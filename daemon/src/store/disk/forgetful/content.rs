//! A file of the forgetful disk: what a reader sees, what is durable, and what lies between.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

const BLOCK: usize = 4096;

/// Bytes with holes.
#[derive(Clone, Default)]
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    /// Blocks that are holes.
    holes: BTreeSet<usize>,
    /// Blocks that cannot be read until they are written whole, or given back.
    bad: BTreeSet<usize>,
}

/// What was done to a file.
#[derive(Clone)]
pub(super) enum Op {
    Write(usize, Vec<u8>),
    Truncate(usize),
    Punch(usize, usize),
}

/// What becomes of a place on the disk behind everybody's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rot {
    /// These bits of a byte flip.
    Flip(u8),
    /// The block of 4,096 bytes gives EIO until it is written whole.
    Unreadable,
    /// The block can be read again.
    Heal,
    /// Someone copied the file and what could not be read became zeros.
    Lost,
}

impl Image {
    fn resize(&mut self, length: usize) {
        let (old, new) = (self.bytes.len().div_ceil(BLOCK), length.div_ceil(BLOCK));
        self.bytes.resize(length, 0);
        self.holes.extend(old..new);
        self.holes.split_off(&new);
        self.bad.split_off(&new);
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(at, bytes) => {
                let end = at + bytes.len();
                if self.bytes.len() < *at {
                    self.resize(*at);
                }
                let (over, beyond) = bytes.split_at(bytes.len().min(self.bytes.len() - at));
                self.bytes[*at..at + over.len()].copy_from_slice(over);
                self.bytes.extend_from_slice(beyond);
                for block in at / BLOCK..end.div_ceil(BLOCK) {
                    self.holes.remove(&block);
                }
                self.bad.retain(|block| !(at.div_ceil(BLOCK)..end / BLOCK).contains(block));
            }
            Op::Truncate(length) => self.resize(*length),
            Op::Punch(start, end) => {
                let end = (*end).min(self.bytes.len());
                let start = (*start).min(end);
                self.bytes[start..end].fill(0);
                let last = if end == self.bytes.len() { end.div_ceil(BLOCK) } else { end / BLOCK };
                self.holes.extend(start.div_ceil(BLOCK)..last);
                self.bad.retain(|block| !(start.div_ceil(BLOCK)..last).contains(block));
            }
        }
    }

    /// How many of `size` bytes at `start` can be read: those before the first bad block.
    pub(super) fn readable(&self, start: usize, size: usize) -> usize {
        let bad = self.bad.range(start / BLOCK..(start + size).div_ceil(BLOCK)).next();
        bad.map_or(size, |block| (block * BLOCK).saturating_sub(start).min(size))
    }

    /// Whether a write of `size` bytes at `start` changes a part of a bad block, which would have to be read for that.
    pub(super) fn is_stuck(&self, start: usize, size: usize) -> bool {
        let end = start + size;
        let mut touched = self.bad.range(start / BLOCK..end.div_ceil(BLOCK));
        touched.any(|block| !(start.div_ceil(BLOCK)..end / BLOCK).contains(block))
    }

    /// Blocks that cannot be read there cannot be read here.
    fn fail_blocks_of(&mut self, other: &Self) {
        let blocks = self.bytes.len().div_ceil(BLOCK);
        self.bad.extend(other.bad.range(..blocks));
    }

    /// Blocks that cannot be read.
    pub(super) fn bad(&self) -> Vec<usize> {
        self.bad.iter().copied().collect()
    }

    /// Blocks that are no holes.
    pub(super) fn blocks(&self) -> impl Iterator<Item = usize> {
        (0..self.bytes.len().div_ceil(BLOCK)).filter(|block| !self.holes.contains(block))
    }

    pub(super) fn next(&self, offset: u64, hole: bool) -> Option<u64> {
        let mut at = offset as usize;
        while at < self.bytes.len() {
            if self.holes.contains(&(at / BLOCK)) == hole {
                return Some(at as u64);
            }
            at = (at / BLOCK + 1) * BLOCK;
        }
        None
    }

    /// Bytes of blocks that are no holes.
    pub(super) fn allocated(&self) -> u64 {
        ((self.bytes.len().div_ceil(BLOCK) - self.holes.len()) * BLOCK) as u64
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) seen: Image,
    pub(super) durable: Image,
    /// Done since the last sync.
    pending: Vec<Op>,
    /// A sync failed on these: no later one makes them durable.
    doomed: Vec<Op>,
}

/// A file, under all its names.
pub(super) type Shared = Arc<Mutex<Content>>;

impl Content {
    pub(super) fn of(image: Image) -> Shared {
        Arc::new(Mutex::new(Self { seen: image.clone(), durable: image, ..Self::default() }))
    }

    pub(super) fn apply(&mut self, op: Op) {
        self.seen.apply(&op);
        self.pending.push(op);
    }

    pub(super) fn sync(&mut self) {
        for op in self.pending.drain(..) {
            self.durable.apply(&op);
        }
        self.durable.fail_blocks_of(&self.seen);
    }

    /// Bits of a byte rot, or the block that it is in; what is still to be written there as well, so that writing it
    /// brings nothing back.
    pub(super) fn rot(&mut self, at: usize, rot: Rot) {
        for op in self.pending.iter_mut().chain(&mut self.doomed) {
            op.rot(at, rot);
        }
        for image in [&mut self.seen, &mut self.durable] {
            let Some(byte) = image.bytes.get_mut(at) else { continue };
            match rot {
                Rot::Flip(bits) => *byte ^= bits,
                Rot::Unreadable => _ = image.bad.insert(at / BLOCK),
                Rot::Heal => _ = image.bad.remove(&(at / BLOCK)),
                Rot::Lost => {
                    image.bad.remove(&(at / BLOCK));
                    let (start, end) = (at / BLOCK * BLOCK, (at / BLOCK + 1) * BLOCK);
                    let end = end.min(image.bytes.len());
                    image.bytes[start..end].fill(0);
                }
            }
        }
    }

    pub(super) fn fail_sync(&mut self) {
        self.doomed.append(&mut self.pending);
    }

    /// Whether memory shows what a power cut may take: what is not synced, and what could not be.
    pub(super) fn is_dirty(&self) -> (bool, bool) {
        (!self.pending.is_empty(), !self.doomed.is_empty())
    }

    /// What was written and could not be synced is read as the disk has it. The file is as long as it was, and what was
    /// punched is a hole.
    pub(super) fn drop_cache(&mut self) {
        if self.doomed.is_empty() {
            return;
        }
        let length = Op::Truncate(self.seen.bytes.len());
        let punched = self.doomed.drain(..).filter(|op| matches!(op, Op::Punch(..)));
        self.pending = punched.chain([length]).chain(self.pending.drain(..)).collect();
        self.seen = self.durable.clone();
        for op in &self.pending {
            self.seen.apply(op);
        }
    }

    /// What a power cut leaves: what was synced, and of the rest whatever `rng` says.
    pub(super) fn survivor(&self, rng: &mut SmallRng) -> Image {
        let mut image = self.durable.clone();
        let mut ops: Vec<&Op> = self.doomed.iter().chain(&self.pending).collect();
        match rng.random_range(0..5) {
            0 => ops.clear(),
            1 => {}
            2 => {
                let last = rng.random_range(0..=ops.len());
                ops.truncate(last);
            }
            3 => ops.retain(|_| rng.random()),
            _ => ops.shuffle(rng),
        }
        let torn = rng.random_range(0..3);
        let last = ops.len().saturating_sub(1);
        for (index, op) in ops.into_iter().enumerate() {
            if torn == 0 || (torn == 1 && index < last) {
                image.apply(op);
            } else {
                tear(op, rng).iter().for_each(|part| image.apply(part));
            }
        }
        if image.bytes.len() < self.seen.bytes.len() && rng.random_ratio(1, 3) {
            // The new length came to the disk and the bytes did not.
            let length = rng.random_range(image.bytes.len()..=self.seen.bytes.len());
            let zeros = vec![0; length - image.bytes.len()];
            let at = image.bytes.len();
            image.apply(&if rng.random() { Op::Write(at, zeros) } else { Op::Truncate(length) });
        }
        image.fail_blocks_of(&self.seen);
        image
    }
}

impl Op {
    fn rot(&mut self, at: usize, rot: Rot) {
        let Self::Write(start, bytes) = self else { return };
        match rot {
            Rot::Flip(bits) => {
                if let Some(byte) = at.checked_sub(*start).and_then(|at| bytes.get_mut(at)) {
                    *byte ^= bits;
                }
            }
            Rot::Lost => {
                let block = at / BLOCK * BLOCK;
                let (from, to) = (block.saturating_sub(*start), (block + BLOCK).saturating_sub(*start));
                let length = bytes.len();
                bytes[from.min(length)..to.min(length)].fill(0);
            }
            Rot::Unreadable | Rot::Heal => {}
        }
    }
}

/// Parts of an operation that came to the disk: sectors of 512 or 4,096 bytes, whichever of them.
fn tear(op: &Op, rng: &mut SmallRng) -> Vec<Op> {
    match op {
        Op::Write(at, bytes) => {
            let sector = if rng.random() { 512 } else { BLOCK };
            let first = sector - at % sector;
            let mut cuts = vec![0];
            cuts.extend((first..bytes.len()).step_by(sector));
            cuts.push(bytes.len());
            let keep = [0.1, 0.5, 0.9][rng.random_range(0..3)];
            let pieces = cuts.windows(2).filter(|_| rng.random_bool(keep));
            pieces.map(|cut| Op::Write(at + cut[0], bytes[cut[0]..cut[1]].to_vec())).collect()
        }
        Op::Punch(start, end) => {
            let blocks = (*start..*end).step_by(BLOCK).filter(|_| rng.random());
            blocks.map(|at| Op::Punch(at, (at + BLOCK).min(*end))).collect()
        }
        Op::Truncate(_) => vec![op.clone()],
    }
}
