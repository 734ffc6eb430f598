//! The journal's file: checksummed frames, one behind the other.
//!
//! Owns: the bytes of `journal/journal`. Refuses: frames of a later version. Survives a crash: every frame that was
//! synced; a torn end is cut off, damage inside costs the frames that it hits and no others. Where the disk does not
//! give a part of it, what it says there may still count: then nothing may be written until it can be read.
//!
//! Formats to the byte: `docs/storage-format.md`, "Journal".

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::Error;
use super::disk::{Disk, File};
use super::error::is_lost;
use super::job::Job;
use super::object::{MAX_NAME, MAX_PINS, ObjectInfo};
use super::record::StoreKey;
use crate::content::{MAX_OBJECT, ObjectId};

/// The folder of the journal.
pub(super) const FOLDER: &str = "journal";
const FILE: &str = "journal/journal";
/// Where it is written anew before it takes the old one's place.
pub(super) const TEMPORARY: &str = "journal/journal.tmp";

pub(super) const MAGIC: [u8; 4] = *b"cjrn";
const VERSION: u8 = 1;

/// Magic, length, checksum.
pub(super) const FRAME_HEADER: usize = 24;

/// Frames begin at multiples of this.
pub(super) const ALIGN: usize = 8;

/// The longest body of a frame. An object with the longest name and all its pins has 13.4 KiB, a job with the longest
/// addresses 32.2 KiB.
const MAX_BODY: usize = 64 << 10;

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// The store's key: the first frame of each journal.
    Key(StoreKey),
    /// An object as it is from now on.
    Object(ObjectInfo),
    /// An object is gone.
    Removed(ObjectId),
    /// A job as it is from now on.
    Job(Job),
    /// The job of this number has ended.
    Ended(u64),
}

impl Fact {
    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        match self {
            Self::Key(key) => {
                out.put_u8(1);
                out.put_slice(key);
            }
            Self::Object(info) => {
                out.put_u8(2);
                info.encode(&mut out);
            }
            Self::Removed(id) => {
                out.put_u8(3);
                out.put_slice(id.as_bytes());
            }
            Self::Job(job) => {
                out.put_u8(4);
                job.encode(&mut out);
            }
            Self::Ended(number) => {
                out.put_u8(5);
                out.put_u64_le(*number);
            }
        }
        out
    }

    /// Reads a frame's body, whose checksum holds: what is not known was written by a later casd.
    fn decode(body: &[u8]) -> Result<Self, Error> {
        let newer = |found| Error::TooNew { what: "the journal", found, known: u32::from(VERSION) };
        let damaged = Error::Damaged { what: "the journal", why: "an entry of it has no meaning" };
        let [version, kind, fields @ ..] = body else { return Err(damaged) };
        if *version != VERSION {
            return Err(newer(u32::from(*version)));
        }
        let fact = match kind {
            1 => fields.try_into().ok().map(Self::Key),
            2 => ObjectInfo::decode(fields).map(Self::Object),
            3 => fields.try_into().ok().map(|id| Self::Removed(ObjectId::from_bytes(id))),
            4 => Job::decode(fields).map(Self::Job),
            5 => fields.try_into().ok().map(|number| Self::Ended(u64::from_le_bytes(number))),
            _ => return Err(newer(u32::from(VERSION) + 1)),
        };
        // It has one form, and is within its limits.
        fact.filter(|fact| fact.is_valid() && fact.encode() == body).ok_or(damaged)
    }

    fn is_valid(&self) -> bool {
        let info = match self {
            Self::Object(info) => info,
            Self::Job(job) => return job.is_valid(),
            Self::Key(_) | Self::Removed(_) | Self::Ended(_) => return true,
        };
        let is_named = info.name.as_ref().is_none_or(|name| (1..=MAX_NAME).contains(&name.len()));
        (1..=MAX_OBJECT).contains(&info.length) && is_named && info.pins.len() <= MAX_PINS
    }
}

/// Frames in memory, for one write at a known place.
pub(super) struct Frames {
    key: StoreKey,
    /// Where in the file the first one goes.
    start: u64,
    pub(super) bytes: BytesMut,
}

impl Frames {
    /// None yet; the first one goes to `start`.
    pub(super) fn at(start: u64, key: StoreKey) -> Self {
        Self { key, start, bytes: BytesMut::new() }
    }

    /// Adds a frame.
    #[expect(clippy::cast_possible_truncation, reason = "bodies are far shorter than 4 GiB")]
    pub(super) fn push(&mut self, fact: &Fact) {
        let body = fact.encode();
        let at = self.start + self.bytes.len() as u64;
        self.bytes.put_slice(&MAGIC);
        self.bytes.put_u32_le(body.len() as u32);
        self.bytes.put_slice(&checksum(&self.key, at, &body));
        self.bytes.put_slice(&body);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

/// 16 bytes over a frame's body and its place, keyed with the store's key.
pub(super) fn checksum(key: &StoreKey, at: u64, body: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    let digest = hasher.update(b"journal").update(&at.to_le_bytes()).update(body).finalize();
    let mut sum = [0; 16];
    sum.copy_from_slice(&digest.as_bytes()[..16]);
    sum
}

/// The open journal.
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    key: StoreKey,
    file: Arc<dyn File>,
    /// Where the next frame goes.
    end: u64,
    /// Its length after the last compaction.
    compacted: u64,
    /// It is not compacted while it is shorter.
    compact_from: u64,
    /// Why a part of it could not be read.
    unread: Option<io::Error>,
    /// Entries that could not be read, or more.
    lost: u64,
}

/// The key at the head of a journal, for a store that lost its FORMAT.
pub(super) fn rescue_key(disk: &dyn Disk) -> Result<Option<StoreKey>, Error> {
    let size = (FRAME_HEADER + 34).next_multiple_of(ALIGN);
    let bytes = match disk.open(Path::new(FILE)).and_then(|file| file.read_at(0, size)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read the journal")(error)),
    };
    let key = bytes.get(FRAME_HEADER + 2..FRAME_HEADER + 34).and_then(|key| StoreKey::try_from(key).ok());
    let frame = key.and_then(|key| frame(&bytes, &key, 0));
    match frame.map(|(body, _)| Fact::decode(&body)) {
        Some(Ok(Fact::Key(key))) => Ok(Some(key)),
        _ => Err(Error::Damaged { what: "FORMAT", why: "it is missing, and the journal has no key either" }),
    }
}

/// The frame at the head of `bytes`, which is at `at` in the file: its body and its length with padding.
fn frame(bytes: &[u8], key: &StoreKey, at: u64) -> Option<(Bytes, usize)> {
    let header = bytes.get(..FRAME_HEADER)?;
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    if header[..4] != MAGIC || length > MAX_BODY {
        return None;
    }
    let body = bytes.get(FRAME_HEADER..FRAME_HEADER + length)?;
    let holds = header[8..] == checksum(key, at, body);
    let whole = (FRAME_HEADER + length).next_multiple_of(ALIGN);
    (holds && bytes.len() >= whole).then(|| (Bytes::copy_from_slice(body), whole))
}

/// Tells `each` what the frames in the bytes of a journal say, in order. Gives where the last one ends.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read(bytes: &[u8], key: &StoreKey, each: &mut impl FnMut(Fact)) -> Result<usize, Error> {
    read_past(bytes, key, each).map(|(end, _)| end)
}

/// As `read`, also with how many frames before that end cannot be read, or more.
fn read_past(bytes: &[u8], key: &StoreKey, each: &mut impl FnMut(Fact)) -> Result<(usize, u64), Error> {
    let (mut at, mut end, mut lost) = (0, 0, 0);
    while at < bytes.len() {
        let Some((body, whole)) = frame(&bytes[at..], key, at as u64) else {
            at += ALIGN;
            continue;
        };
        if at > end {
            let entries = unreadable(&bytes[end..at]);
            lost += entries;
            tracing::error!(
                from = end,
                to = at,
                entries,
                "the journal is damaged: so many entries there, or more, could not be read, and what they said is lost"
            );
        }
        each(Fact::decode(&body)?);
        at += whole;
        end = at;
    }
    Ok((end, lost))
}

/// How many frames there were where none can be read: by the headers that are left, and one for each stretch without.
fn unreadable(bytes: &[u8]) -> u64 {
    let (mut at, mut count, mut is_bare) = (0, 0, false);
    while at < bytes.len() {
        let whole = whole_length(&bytes[at..]).filter(|whole| *whole <= bytes.len() - at);
        count += u64::from(whole.is_some() || !is_bare);
        is_bare = whole.is_none();
        at += whole.unwrap_or(ALIGN);
    }
    count
}

/// The length with padding of the frame that a header says to begin here.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..FRAME_HEADER)?;
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    let is_header = header[..4] == MAGIC && length <= MAX_BODY;
    is_header.then(|| (FRAME_HEADER + length).next_multiple_of(ALIGN))
}

/// The frames of a journal and where they are, for tests.
#[cfg(test)]
pub(super) fn frames_of(bytes: &[u8], key: &StoreKey) -> Vec<(std::ops::Range<usize>, Fact)> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let found = frame(&bytes[at..], key, at as u64);
        let whole = found.as_ref().map_or(ALIGN, |(_, whole)| *whole);
        frames.extend(found.map(|(body, whole)| (at..at + whole, Fact::decode(&body).unwrap())));
        at += whole;
    }
    frames
}

impl Journal {
    /// Opens the journal, tells `each` what it says in order, cuts a torn end off, and makes durable what was
    /// told. Makes an empty one when there is none.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        key: StoreKey,
        compact_from: u64,
        mut each: impl FnMut(Fact),
    ) -> Result<Self, Error> {
        let file = match disk.open(Path::new(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::first(disk, key, compact_from);
            }
            Err(error) => return Err(Error::io("open the journal")(error)),
        };
        let mut journal = Self { disk, key, file, end: 0, compacted: 0, compact_from, unread: None, lost: 0 };
        journal.replay(&mut each)?;
        journal.compacted = journal.end;
        Ok(journal)
    }

    /// The journal of a new store. It is made before the first segment is, so where there are segments it was lost, and
    /// with it the knowledge of which objects there are: to go on as if there were none would be to let go of them all.
    fn first(disk: Arc<dyn Disk>, key: StoreKey, compact_from: u64) -> Result<Self, Error> {
        match disk.list(super::segment::FOLDER.as_ref()).map_err(Error::io("list segments"))?.is_empty() {
            true => Self::create(disk, key, compact_from),
            false => {
                Err(Error::Damaged { what: "the journal", why: "it is missing, and there are segments" })
            }
        }
    }

    fn create(disk: Arc<dyn Disk>, key: StoreKey, compact_from: u64) -> Result<Self, Error> {
        let file = write_new(disk.as_ref(), &key, &mut std::iter::empty());
        let (file, end) = file.map_err(Error::io("write the journal"))?;
        install(disk.as_ref()).map_err(Error::io("write the journal"))?;
        Ok(Self { disk, key, file, end, compacted: end, compact_from, unread: None, lost: 0 })
    }

    /// Reads all frames. The file is at most a few times the size of the objects' facts, 15 MB for 100,000.
    fn replay(&mut self, each: &mut impl FnMut(Fact)) -> Result<(), Error> {
        // A frame whose sync failed may look written in memory, and no later sync makes it durable.
        self.file.drop_cache().map_err(Error::io("drop cached pages"))?;
        let length = self.file.length().map_err(Error::io("read the journal"))?;
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, unread) = read_all(self.file.as_ref(), size).map_err(Error::io("read the journal"))?;
        let (end, lost) = read_past(&bytes, &self.key, each)?;
        self.lost = lost;
        if unread.is_some() {
            (self.end, self.unread) = (length, unread);
            return Ok(());
        }
        if end == 0 {
            // The first frame is written before the file has its name.
            return Err(Error::Damaged { what: "the journal", why: "it has no entry of this store" });
        }
        if (end as u64) < length {
            self.file.truncate(end as u64).map_err(Error::io("cut the journal"))?;
        }
        self.end = end as u64;
        // What was read may not have been durable, and is acted upon from now on.
        self.file.sync().map_err(Error::io("sync the journal"))
    }

    /// Why a part of it could not be read; then nothing may be written.
    pub(super) fn unread(&self) -> Option<&io::Error> {
        self.unread.as_ref()
    }

    /// How many of its entries could not be read, or more.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// An empty run of frames for the end of the journal.
    pub(super) fn frames(&self) -> Frames {
        Frames::at(self.end, self.key)
    }

    /// Writes frames at the end; they are durable after [`Journal::sync`].
    pub(super) fn write(&mut self, frames: &Frames) -> io::Result<()> {
        self.file.write_at(self.end, &mut [IoSlice::new(&frames.bytes)])?;
        self.end += frames.bytes.len() as u64;
        Ok(())
    }

    /// Where the next frame goes.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Cuts off what was written behind `end`, and what a failed write may have left, durably: it must not come back
    /// after its caller was refused.
    pub(super) fn cut(&mut self, end: u64) -> io::Result<()> {
        self.end = end;
        self.file.truncate(self.end)?;
        self.file.sync()
    }

    /// Makes durable what was written.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Whether it has grown to several times what it would be when written anew.
    pub(super) fn is_long(&self) -> bool {
        self.end > self.compact_from.max(self.compacted.saturating_mul(3))
    }

    /// Writes the journal anew with just these facts: temporary, sync, rename, sync of the folder.
    ///
    /// The inner error: nothing has changed, and the old journal goes on. The outer: it is not known which of
    /// the two will be there after a crash, and nothing more may be written.
    pub(super) fn compact(&mut self, facts: &mut dyn Iterator<Item = Fact>) -> io::Result<io::Result<()>> {
        let (file, end) = match write_new(self.disk.as_ref(), &self.key, facts) {
            Ok(new) => new,
            Err(error) => {
                // Tried again when it has grown as much once more.
                self.compacted = self.end;
                let _ = self.disk.unlink(Path::new(TEMPORARY));
                return Ok(Err(error));
            }
        };
        install(self.disk.as_ref())?;
        (self.file, self.end, self.compacted) = (file, end, end);
        Ok(Ok(()))
    }
}

/// What is read at once where the disk does not give all.
const BLOCK: usize = 4096;

/// All bytes of the file; zeros where the disk does not give them, and then why not.
fn read_all(file: &dyn File, size: usize) -> io::Result<(Bytes, Option<io::Error>)> {
    match file.read_at(0, size) {
        Ok(bytes) => return Ok((bytes, None)),
        Err(error) if is_lost(&error) => {}
        Err(error) => return Err(error),
    }
    let (mut all, mut failed) = (BytesMut::with_capacity(size), None);
    for at in (0..size).step_by(BLOCK) {
        all.resize(at, 0);
        match file.read_at(at as u64, BLOCK.min(size - at)) {
            Ok(bytes) => all.put_slice(&bytes),
            Err(error) if is_lost(&error) => failed = Some(error),
            Err(error) => return Err(error),
        }
    }
    Ok((all.freeze(), failed))
}

/// Bytes of a new journal written at once.
const PIECE: usize = 1 << 20;

/// Writes a whole new journal beside the old one, and syncs it.
fn write_new(
    disk: &dyn Disk,
    key: &StoreKey,
    facts: &mut dyn Iterator<Item = Fact>,
) -> io::Result<(Arc<dyn File>, u64)> {
    let _ = disk.unlink(Path::new(TEMPORARY));
    let file = disk.create(Path::new(TEMPORARY))?;
    let mut frames = Frames::at(0, *key);
    frames.push(&Fact::Key(*key));
    for fact in facts {
        frames.push(&fact);
        if frames.bytes.len() >= PIECE {
            file.write_at(frames.start, &mut [IoSlice::new(&frames.bytes)])?;
            frames.start += frames.bytes.len() as u64;
            frames.bytes.clear();
        }
    }
    file.write_at(frames.start, &mut [IoSlice::new(&frames.bytes)])?;
    file.sync()?;
    Ok((file, frames.start + frames.bytes.len() as u64))
}

/// Puts the new journal in the old one's place, durably.
fn install(disk: &dyn Disk) -> io::Result<()> {
    disk.rename(Path::new(TEMPORARY), Path::new(FILE))?;
    disk.sync_dir(Path::new(FOLDER))
}
