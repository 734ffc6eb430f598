//! What a segment is made of: records, each a header and a payload, that can be read without anything else.
//!
//! Formats to the byte: `docs/storage-format.md`, "Record".

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::content::{CHUNK, CHUNK_LEN, ChunkId, ChunkRef, ObjectId, Place};

/// Records begin at multiples of this, and a header fills one.
pub(super) const BLOCK: u64 = 4096;

/// [`BLOCK`] as a size in memory.
pub(super) const BLOCK_SIZE: usize = 4096;

/// Bytes of a block that belong to the header; a payload that fits behind them shares the block.
const HEADER: usize = 512;

/// The longest payload that shares its header's block: 3.5 KiB.
const INLINE: usize = BLOCK_SIZE - HEADER;

/// The longest payload of a footer: a full segment has at most 2^18 records of a block.
const MAX_FOOTER: usize = (1 << 18) * FOOTER_ENTRY;

/// Bytes of an entry of a footer.
pub(super) const FOOTER_ENTRY: usize = 52;

pub(super) const MAGIC: &[u8; 8] = b"casd-rec";
const VERSION: u8 = 1;
const FLAG_ZERO: u8 = 1;
const FLAG_ROOT: u8 = 2;

/// Where the checksum begins: all before it is summed.
pub(super) const SUMMED: usize = 96;
pub(super) const CHECKSUM: usize = 16;

/// The store's random key: makes headers that no content can forge.
pub(super) type StoreKey = [u8; 32];

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A chunk of an object.
    Data = 1,
    /// A parity chunk.
    Parity = 2,
    /// The top of a manifest; its id is the object's.
    Top = 3,
    /// A page of a manifest; its id is its value in the top.
    Page = 4,
    /// A directory's tree. Reserved: trees are stored as objects.
    Tree = 5,
    /// A parity part; its id is derived from object, codec, k and m.
    ParityPart = 6,
    /// A page of a parity part; its id is the BLAKE3 of its bytes.
    ParityPage = 7,
    /// The list at the end of a sealed segment. Never in the index.
    Footer = 15,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Data,
        Self::Parity,
        Self::Top,
        Self::Page,
        Self::Tree,
        Self::ParityPart,
        Self::ParityPage,
        Self::Footer,
    ];

    /// The kind with this number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether the record is proved by its id and place; others carry a digest of their payload.
    fn is_chunk(self) -> bool {
        matches!(self, Self::Data | Self::Parity)
    }
}

/// The name of a record: what it is looked up by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// What it holds.
    pub(super) kind: Kind,
    /// Its id among its kind.
    pub(super) id: [u8; 32],
}

impl Key {
    /// The name of a data chunk.
    pub(super) fn data(id: &ChunkId) -> Self {
        Self { kind: Kind::Data, id: *id.as_bytes() }
    }

    /// The name of a parity chunk.
    pub(super) fn parity(id: &ChunkId) -> Self {
        Self { kind: Kind::Parity, id: *id.as_bytes() }
    }

    /// The record without which there is no such object: its only chunk, or the top of its manifest.
    pub(super) fn first(object: &ObjectId, length: u64) -> Self {
        if length <= CHUNK_LEN {
            Self::data(&object.only_chunk())
        } else {
            Self { kind: Kind::Top, id: *object.as_bytes() }
        }
    }

    /// Eight bytes that stand for it where too much protection does no harm. Ids are hashes, so that their
    /// first bytes are as good as random.
    pub(super) fn fingerprint(&self) -> u64 {
        let (first, _) = self.id.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_le_bytes(*first) ^ self.kind as u64
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, hex::encode(&self.id[..6]))
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The record's name.
    pub(super) key: Key,
    /// How a chunk's id is computed; [`Place::Root`] for other kinds.
    pub(super) place: Place,
    /// Bytes of the payload.
    pub(super) length: u32,
    /// The payload is all zeros and is not stored.
    pub(super) zero: bool,
    /// BLAKE3 of the payload where the id does not prove it; else zeros.
    digest: [u8; 32],
    /// When it was written, in Unix seconds.
    pub(super) time: u64,
}

impl Header {
    /// Bytes from the header's start to the payload's.
    pub(super) fn payload_at(&self) -> u64 {
        payload_at(self.length)
    }

    /// Bytes that the record takes in its segment, a multiple of a block.
    pub(super) fn footprint(&self) -> u64 {
        // A footer's list stands before its header, so that the header is the file's last block.
        if self.key.kind == Kind::Footer { BLOCK } else { footprint(self.length, self.zero) }
    }

    /// Reads the header at `offset` of segment `segment`. `None` when there is none: any other bytes.
    pub(super) fn read(block: &[u8], store: &StoreKey, segment: u32, offset: u64) -> Option<Self> {
        let fields = block.first_chunk::<SUMMED>()?;
        if !fields.starts_with(MAGIC) || fields[8] != VERSION {
            return None;
        }
        if block.get(SUMMED..SUMMED + CHECKSUM)? != checksum(fields, store, segment, offset) {
            return None;
        }
        let (kind, flags) = (Kind::from_number(fields[9])?, fields[10]);
        let length = u32::from_le_bytes(fields[12..16].try_into().ok()?);
        let at = u64::from_le_bytes(fields[16..24].try_into().ok()?);
        let limit = if kind == Kind::Footer { MAX_FOOTER } else { CHUNK };
        if length as usize > limit {
            return None;
        }
        let header = Self {
            key: Key { kind, id: fields[24..56].try_into().ok()? },
            place: if flags & FLAG_ROOT != 0 { Place::Root } else { Place::At(at) },
            length,
            zero: flags & FLAG_ZERO != 0,
            digest: fields[56..88].try_into().ok()?,
            time: u64::from_le_bytes(fields[88..96].try_into().ok()?),
        };
        // Unknown flags, a root with a place: a header has one form.
        (header.fields() == *fields).then_some(header)
    }

    /// What the block of a header, be it damaged, has where the digest of the payload stands.
    pub(super) fn digest_in(block: &[u8]) -> Option<[u8; 32]> {
        block.get(56..88)?.try_into().ok()
    }

    /// Its bytes at `offset` of segment `segment`, as many as belong to a header in its block.
    fn encode(&self, store: &StoreKey, segment: u32, offset: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER);
        out.put_slice(&self.fields());
        let sum = checksum(&out, store, segment, offset);
        out.put_slice(&sum);
        out.resize(HEADER, 0);
        out.freeze()
    }

    /// What is summed: all of a header but its checksum.
    pub(super) fn fields(&self) -> [u8; SUMMED] {
        let mut out = [0; SUMMED];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&[VERSION, self.key.kind as u8, self.flags(), 0]);
        out[12..16].copy_from_slice(&self.length.to_le_bytes());
        out[16..24].copy_from_slice(&self.place.offset().to_le_bytes());
        out[24..56].copy_from_slice(&self.key.id);
        out[56..88].copy_from_slice(&self.digest);
        out[88..].copy_from_slice(&self.time.to_le_bytes());
        out
    }

    /// Its flags as a byte.
    fn flags(&self) -> u8 {
        let root = self.place == Place::Root;
        u8::from(self.zero) * FLAG_ZERO + u8::from(root) * FLAG_ROOT
    }

    /// Whether these are the payload's bytes. Hashes them.
    pub(super) fn proves(&self, payload: Bytes) -> bool {
        if payload.len() != self.length as usize {
            return false;
        }
        if self.key.kind.is_chunk() {
            let id = ChunkId::from_bytes(self.key.id);
            return ChunkRef { id, place: self.place, length: self.length }.verify(payload).is_ok();
        }
        blake3::hash(&payload).as_bytes() == &self.digest
    }
}

/// Bytes from a header's start to its payload's start.
pub(super) fn payload_at(length: u32) -> u64 {
    if length as usize <= INLINE { HEADER as u64 } else { BLOCK }
}

/// Bytes that a record takes in a segment.
pub(super) fn footprint(length: u32, zero: bool) -> u64 {
    let inline = zero || length as usize <= INLINE;
    if inline { BLOCK } else { BLOCK + u64::from(length).next_multiple_of(BLOCK) }
}

/// 16 bytes over a header's fields and its place on this disk, keyed: neither content nor a copy of another
/// segment can pass for a header here.
pub(super) fn checksum(fields: &[u8], store: &StoreKey, segment: u32, offset: u64) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new_keyed(store);
    hasher.update(fields).update(&segment.to_le_bytes()).update(&offset.to_le_bytes());
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    sum
}

/// A record that is to be written.
#[derive(Debug)]
pub(super) struct Record {
    /// What its header will say.
    pub(super) header: Header,
    /// Its bytes, also when they are zeros and will not be written.
    payload: Bytes,
}

impl Record {
    /// A chunk's record. The chunk has been verified by its type.
    pub(super) fn chunk(kind: Kind, chunk: &crate::content::Chunk, time: u64) -> Self {
        let reference = chunk.reference();
        let header = Header {
            key: Key { kind, id: *reference.id.as_bytes() },
            place: reference.place,
            length: reference.length,
            zero: chunk.is_zero(),
            digest: [0; 32],
            time,
        };
        Self { header, payload: chunk.bytes().clone() }
    }

    /// Any other record. Its payload is at most 1 MiB, as all of `content`'s formats are.
    #[expect(clippy::cast_possible_truncation, reason = "formats of `content` are at most 1 MiB")]
    pub(super) fn other(key: Key, payload: Bytes, time: u64) -> Self {
        let digest = *blake3::hash(&payload).as_bytes();
        let length = payload.len() as u32;
        Self { header: Header { key, place: Place::Root, length, zero: false, digest, time }, payload }
    }

    /// What it costs against the quota.
    pub(super) fn cost(&self) -> u64 {
        super::space::cost(self.header.length, self.header.zero)
    }

    /// A record that was read, to be written again; `None` when the payload is not what the header says.
    pub(super) fn again(header: Header, payload: Bytes) -> Option<Self> {
        (header.zero || header.proves(payload.clone())).then_some(Self { header, payload })
    }

    /// What to write at `offset` of segment `segment`, one behind the other: the header, the payload in its block or
    /// behind it, and zeros up to the next block. The payload is not copied.
    pub(super) fn parts(&self, store: &StoreKey, segment: u32, offset: u64) -> [Bytes; 4] {
        static PAD: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];
        let zeros = |count| Bytes::from_static(&PAD).slice(..count);
        let payload = if self.header.zero { Bytes::new() } else { self.payload.clone() };
        let gap = if payload.len() <= INLINE { 0 } else { INLINE };
        let end = HEADER + gap + payload.len();
        let header = self.header.encode(store, segment, offset);
        [header, zeros(gap), payload, zeros(end.next_multiple_of(BLOCK_SIZE) - end)]
    }
}

/// A sealed segment's footer: its list, zeros up to a block, and the header as the last block. `at` is where
/// the list begins.
pub(super) fn footer(list: Bytes, store: &StoreKey, segment: u32, at: u64, time: u64) -> Vec<u8> {
    let header = Record::other(Key { kind: Kind::Footer, id: [0; 32] }, list.clone(), time).header;
    let mut out = Vec::from(list);
    out.resize(out.len().next_multiple_of(BLOCK_SIZE), 0);
    out.extend_from_slice(&header.encode(store, segment, at + out.len() as u64));
    out.resize(out.len().next_multiple_of(BLOCK_SIZE), 0);
    out
}

/// A record in a footer's list: where it begins (4, in bytes), kind (1), flags as in its header (1), zero (2),
/// length (4), place (8), id (32).
pub(super) fn footer_entry(header: &Header, offset: u32) -> [u8; FOOTER_ENTRY] {
    let mut out = [0; FOOTER_ENTRY];
    out[..4].copy_from_slice(&offset.to_le_bytes());
    out[4] = header.key.kind as u8;
    out[5] = header.flags();
    out[8..12].copy_from_slice(&header.length.to_le_bytes());
    out[12..20].copy_from_slice(&header.place.offset().to_le_bytes());
    out[20..].copy_from_slice(&header.key.id);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Chunk;

    const STORE: StoreKey = [3; 32];

    fn image(bytes: Vec<u8>, place: Place) -> (Header, Vec<u8>) {
        let record = Record::chunk(Kind::Data, &Chunk::compute(place, bytes.into()).unwrap(), 99);
        (record.header, record.parts(&STORE, 7, 8192).concat())
    }

    #[test]
    fn a_record_reads_back_at_its_own_place_only() {
        for length in [1, INLINE, INLINE + 1, 4096, 5000, CHUNK] {
            for place in [Place::Root, Place::At(5 << 20)] {
                let (header, image) = image(vec![5; length], place);
                assert_eq!(image.len() as u64, header.footprint());
                assert_eq!(Header::read(&image, &STORE, 7, 8192), Some(header));
                assert_eq!(Header::read(&image, &STORE, 7, 4096), None);
                assert_eq!(Header::read(&image, &STORE, 6, 8192), None);
                assert_eq!(Header::read(&image, &[4; 32], 7, 8192), None);
                let at = header.payload_at() as usize;
                assert!(header.proves(Bytes::copy_from_slice(&image[at..at + length])));
            }
        }
    }

    #[test]
    fn zeros_take_a_block() {
        let (header, image) = image(vec![0; CHUNK], Place::Root);
        assert!(header.zero && image.len() == BLOCK_SIZE);
    }

    #[test]
    fn any_changed_field_is_refused() {
        let (_, image) = image(vec![9; 100], Place::Root);
        for at in 0..SUMMED + CHECKSUM {
            let mut changed = image.clone();
            changed[at] ^= 1;
            assert_eq!(Header::read(&changed, &STORE, 7, 8192), None, "byte {at}");
        }
        assert_eq!(Header::read(&image[..80], &STORE, 7, 8192), None);
    }
}
