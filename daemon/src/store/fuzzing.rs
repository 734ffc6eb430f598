//! What must hold of any bytes that are read as a header, a segment, a journal or FORMAT (see [`crate::fuzzing`]).
//!
//! A footer's list is read by nobody; its header is, as any other, and `segment` finds it where it stands.

use std::io::{self, IoSlice};
use std::ops::ControlFlow;

use super::disk::File;
use super::journal::{ALIGN, FRAME_HEADER, Fact};
use super::object::ObjectInfo;
use super::record::{BLOCK, BLOCK_SIZE, CHECKSUM, Header, Kind, Record, SUMMED, StoreKey};
use super::{MAX_NAME, format, journal, record, scan};
use crate::content::{CHUNK, MAX_OBJECT};

/// The key of the store that all this is about.
const KEY: StoreKey = [3; 32];

/// The segment, and where in it a single header stands.
const SEGMENT: u32 = 7;
const OFFSET: u64 = 8192;

/// A block of a segment.
pub(crate) fn header(block: &[u8]) {
    for block in [block.to_vec(), with_checksum(block, OFFSET)] {
        let Some(header) = Header::read(&block, &KEY, SEGMENT, OFFSET) else { continue };
        is_sound(&header, &block);
        assert_eq!(Header::read(&block, &KEY, SEGMENT, OFFSET + BLOCK), None, "it passes elsewhere");
        assert_eq!(Header::read(&block, &KEY, SEGMENT + 1, OFFSET), None, "it passes in another segment");
        assert_eq!(Header::read(&block, &[4; 32], SEGMENT, OFFSET), None, "it passes in another store");
        let from = usize::try_from(header.payload_at()).unwrap_or(usize::MAX);
        let payload = block.get(from..).and_then(|rest| rest.get(..header.length as usize));
        if let Some(payload) = payload {
            let payload = bytes::Bytes::copy_from_slice(payload);
            if header.proves(payload.clone()) {
                assert!(Record::again(header, payload.clone()).is_some());
            }
            assert!(!header.proves(payload.slice(..payload.len().saturating_sub(1))) || payload.is_empty());
        }
    }
}

/// `block` begins with this header.
fn is_sound(header: &Header, block: &[u8]) {
    assert!(block.starts_with(&header.fields()), "it is not encoded to the same bytes: {header:?}");
    let (length, footprint) = (u64::from(header.length), header.footprint());
    assert!(footprint >= BLOCK && footprint.is_multiple_of(BLOCK));
    if header.key.kind != Kind::Footer {
        assert!(header.length as usize <= CHUNK && footprint <= BLOCK + CHUNK as u64);
        assert!(header.zero || header.payload_at() + length <= footprint);
    }
}

/// A segment's file.
pub(crate) fn segment(image: &[u8]) {
    for image in [image.to_vec(), with_checksums(image)] {
        let (file, mut next) = (Image(&image), 0);
        let unread = scan::scan(&file, SEGMENT, &KEY, 0, |header, offset| {
            assert!(offset >= next && offset.is_multiple_of(BLOCK), "records overlap");
            is_sound(header, block(&image, offset));
            next = offset + header.footprint();
            ControlFlow::Continue(())
        });
        assert!(unread.is_ok_and(|unread| unread.is_empty()), "memory can be read");
        // From anywhere it finds what it found from the beginning, but for what begins inside a record.
        let (mut all, mut late) = (Vec::new(), Vec::new());
        let half = (image.len() as u64 / 2).next_multiple_of(BLOCK);
        for (from, into) in [(0, &mut all), (half, &mut late)] {
            let _ = scan::scan(&file, SEGMENT, &KEY, from, |header, offset| {
                into.push((offset, *header));
                ControlFlow::Continue(())
            });
        }
        let begun = all.iter().any(|(offset, header)| *offset < half && offset + header.footprint() > half);
        all.retain(|(offset, _)| *offset >= half);
        assert!(begun || all == late, "a scan from the middle finds something else");
    }
}

/// The block of an image at `offset`; shorter at its end.
fn block(image: &[u8], offset: u64) -> &[u8] {
    usize::try_from(offset).ok().and_then(|offset| image.get(offset..)).unwrap_or_default()
}

/// The block at `offset` with the checksum that it should have.
fn with_checksum(block: &[u8], offset: u64) -> Vec<u8> {
    let mut block = block.to_vec();
    if let Some((fields, rest)) = block.split_first_chunk_mut::<SUMMED>()
        && let Some(sum) = rest.first_chunk_mut::<CHECKSUM>()
    {
        *sum = record::checksum(fields, &KEY, SEGMENT, offset);
    }
    block
}

/// The image with a checksum in each block that says it is a header.
fn with_checksums(image: &[u8]) -> Vec<u8> {
    let blocks = image.chunks(BLOCK_SIZE).zip(0..);
    let repaired = blocks.flat_map(|(block, index)| match block.starts_with(record::MAGIC) {
        true => with_checksum(block, index * BLOCK),
        false => block.to_vec(),
    });
    repaired.collect()
}

/// The journal with a checksum in each frame.
fn with_frames(journal: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (journal.to_vec(), 0);
    while let Some(frame) = out.get_mut(at..) {
        let Some((header, body)) = frame.split_first_chunk_mut::<FRAME_HEADER>() else { break };
        let [_, _, _, _, a, b, c, d, ..] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        match body.get(..length).filter(|_| header.starts_with(&journal::MAGIC)) {
            Some(body) => {
                header[8..].copy_from_slice(&journal::checksum(&KEY, at as u64, body));
                at += (FRAME_HEADER + length).next_multiple_of(ALIGN);
            }
            None => at += ALIGN,
        }
    }
    out
}

/// A journal's file.
pub(crate) fn journal(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), with_frames(bytes)] {
        let mut facts = Vec::new();
        let Ok(end) = journal::read(&bytes, &KEY, &mut |fact| facts.push(fact)) else { continue };
        assert!(end <= bytes.len());
        for fact in &facts {
            match fact {
                Fact::Object(info) => is_in_limits(info),
                Fact::Job(job) => assert!(job.is_valid(), "{job:?}"),
                Fact::Key(_) | Fact::Removed(_) | Fact::Ended(_) => {}
            }
        }
        // What a compaction writes reads back the same.
        let mut frames = journal::Frames::at(0, KEY);
        facts.iter().for_each(|fact| frames.push(fact));
        let mut again = Vec::new();
        let written = journal::read(&frames.bytes, &KEY, &mut |fact| again.push(fact));
        assert_eq!((written.ok(), again), (Some(frames.bytes.len()), facts));
        assert!(frames.bytes.len() <= bytes.len(), "it is longer when it is written again");
    }
}

fn is_in_limits(info: &ObjectInfo) {
    assert!((1..=MAX_OBJECT).contains(&info.length), "{info:?}");
    assert!(info.name.as_ref().is_none_or(|name| (1..=MAX_NAME).contains(&name.len())), "{info:?}");
    assert!(info.pins.len() <= 1024, "{} pins", info.pins.len());
}

/// FORMAT.
pub(crate) fn format(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(key) = format::parse(&text) {
        assert_eq!(format::render(&key).as_bytes(), bytes);
    }
}

/// A file in memory; runs of zeros are its holes. It can only be read.
struct Image<'a>(&'a [u8]);

impl Image<'_> {
    fn from(&self, offset: u64) -> &[u8] {
        block(self.0, offset)
    }
}

impl File for Image<'_> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_once(&self, offset: u64, into: &mut Vec<u8>) -> io::Result<usize> {
        let rest = self.from(offset);
        let size = rest.len().min(into.capacity() - into.len());
        into.extend_from_slice(&rest[..size]);
        Ok(size)
    }

    fn write_once(&self, _: u64, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(self.from(offset).iter().position(|byte| *byte != 0).map(|at| offset + at as u64))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let rest = self.from(offset);
        Ok(offset + rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len()) as u64)
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}
