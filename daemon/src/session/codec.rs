//! Encoding and decoding frames. The format stands at the top of `frames`.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};

use super::frames::{
    Ask, Frame, HEAD, Hello, Kind, MAX_FELLOWS, MAX_GIVEN, MAX_NEWS, MAX_TEXT, Record, Role, SLICE_HEAD,
};
use super::{Error, Fellow, Have, Reason};
use crate::content::{CHUNK_LEN, ChunkId, ChunkRef, MAX_OBJECT, ObjectId, Place};
use crate::peer::MAX_CARD;

/// Chunks that any object can have: 4 Mi.
const MAX_CHUNKS: u64 = MAX_OBJECT / CHUNK_LEN;

const MAGIC: [u8; 4] = *b"casd";

/// Reads a frame's head: the kind and the length of its fields, which is within the kind's limit.
///
/// # Errors
/// [`Error::Protocol`].
pub(super) fn head(bytes: [u8; HEAD]) -> Result<(Kind, usize), Error> {
    let [a, b, c, d, code] = bytes;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let fields = length.checked_sub(1).ok_or(Error::Protocol("a frame without a kind"))?;
    let kind = Kind::from_code(code).ok_or(Error::Protocol("a frame of unknown kind"))?;
    if fields > kind.limit() {
        return Err(Error::Protocol("a frame longer than its kind allows"));
    }
    Ok((kind, fields))
}

/// The bytes before the data of a slice of `length` bytes.
#[must_use]
pub(super) fn slice_head(request: u32, offset: u32, length: usize) -> [u8; SLICE_HEAD] {
    let mut bytes = [0; SLICE_HEAD];
    let mut out = &mut bytes[..];
    out.put_u32_le(size(1 + 8 + length));
    out.put_u8(Kind::Slice as u8);
    out.put_u32_le(request);
    out.put_u32_le(offset);
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "frames are at most 128 KiB long")]
fn size(length: usize) -> u32 {
    debug_assert!(length <= 1 + Kind::Slice.limit());
    length as u32
}

#[expect(clippy::cast_possible_truncation, reason = "an object has at most 4 Mi chunks")]
fn index(index: u64) -> u32 {
    debug_assert!(index < MAX_CHUNKS);
    index as u32
}

impl Ask {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Top(object) | Self::Parity(object) | Self::Haves(object) => {
                out.put_slice(object.as_bytes());
            }
            Self::Page(object, index) => {
                out.put_slice(object.as_bytes());
                out.put_u32_le(*index);
            }
            Self::ParityPage(object, digest) => {
                out.put_slice(object.as_bytes());
                out.put_slice(digest);
            }
            Self::Chunk(chunk) => {
                out.put_u8(u8::from(chunk.place != Place::Root));
                out.put_u64_le(chunk.place.offset());
                out.put_u32_le(chunk.length);
                out.put_slice(chunk.id.as_bytes());
            }
            Self::Run { object, first, count } => {
                out.put_slice(object.as_bytes());
                out.put_u32_le(*first);
                out.put_u16_le(*count);
            }
        }
    }
}

impl Frame {
    /// Appends the frame with its head.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32_le(0);
        out.put_u8(self.kind() as u8);
        match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Goodbye(reason, text) => {
                out.put_u8(reason.code());
                out.put_slice(cut(text).as_bytes());
            }
            Self::Ping(token) | Self::Pong(token) => out.put_u64_le(*token),
            Self::Ask(request, ask) => {
                out.put_u32_le(*request);
                ask.encode(out);
            }
            Self::Cancel(request)
            | Self::Zero(request)
            | Self::NotFound(request)
            | Self::Cancelled(request) => out.put_u32_le(*request),
            Self::Record(request, _, bytes) => {
                out.put_u32_le(*request);
                out.put_slice(bytes);
            }
            Self::Busy(request, after) => {
                out.put_u32_le(*request);
                out.put_u32_le(u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
            }
            Self::Have(request, have) => {
                out.put_u32_le(*request);
                encode_have(have, out);
            }
            Self::Card(card) => out.put_slice(card),
            Self::Peers(request, fellows) => {
                out.put_u32_le(*request);
                fellows.iter().for_each(|fellow| encode_fellow(fellow, out));
            }
            Self::Given(request, chunks) => {
                out.put_u32_le(*request);
                encode_chunks(chunks, out);
            }
        }
        let length = size(out.len() - start - 4).to_le_bytes();
        out[start..start + 4].copy_from_slice(&length);
    }

    /// Reads the fields of a frame of this kind.
    ///
    /// # Errors
    /// [`Error::Protocol`], also for a slice, which is no business of this function.
    pub fn decode(kind: Kind, fields: Bytes) -> Result<Self, Error> {
        let mut rest = fields;
        let frame = Self::read(kind, &mut rest)?;
        if rest.has_remaining() {
            return Err(Error::Protocol("a frame with bytes left over"));
        }
        Ok(frame)
    }

    fn read(kind: Kind, rest: &mut Bytes) -> Result<Self, Error> {
        match kind {
            Kind::Hello => return Ok(Self::Hello(Hello::read(rest)?)),
            Kind::Goodbye => {
                let reason = Reason::from_code(rest.try_get_u8()?);
                let text = String::from_utf8(take_all(rest).into());
                return Ok(Self::Goodbye(
                    reason,
                    text.map_err(|_| Error::Protocol("a goodbye that is not text"))?,
                ));
            }
            Kind::Ping => return Ok(Self::Ping(rest.try_get_u64_le()?)),
            Kind::Pong => return Ok(Self::Pong(rest.try_get_u64_le()?)),
            Kind::Card => return Ok(Self::Card(read_card(rest.len(), rest)?)),
            Kind::Slice => return Err(Error::Protocol("a slice out of place")),
            _ => {}
        }
        let request = rest.try_get_u32_le()?;
        let record = |record, rest| Ok(Self::Record(request, record, take_all(rest)));
        let ask = match kind {
            Kind::GetTop => Ask::Top(object(rest)?),
            Kind::GetPage => Ask::Page(object(rest)?, rest.try_get_u32_le()?),
            Kind::GetParity => Ask::Parity(object(rest)?),
            Kind::GetParityPage => Ask::ParityPage(object(rest)?, array(rest)?),
            Kind::Want => Ask::Chunk(read_chunk(rest)?),
            Kind::WantRun => read_run(rest)?,
            Kind::Subscribe => Ask::Haves(object(rest)?),
            Kind::Cancel => return Ok(Self::Cancel(request)),
            Kind::Top => return record(Record::Top, rest),
            Kind::Page => return record(Record::Page, rest),
            Kind::Parity => return record(Record::Parity, rest),
            Kind::ParityPage => return record(Record::ParityPage, rest),
            Kind::Zero => return Ok(Self::Zero(request)),
            Kind::NotFound => return Ok(Self::NotFound(request)),
            Kind::Busy => {
                return Ok(Self::Busy(request, Duration::from_millis(rest.try_get_u32_le()?.into())));
            }
            Kind::Cancelled => return Ok(Self::Cancelled(request)),
            Kind::Have => return Ok(Self::Have(request, read_have(rest)?)),
            Kind::Peers => return Ok(Self::Peers(request, read_fellows(rest)?)),
            Kind::Given => return Ok(Self::Given(request, read_chunks(rest, MAX_GIVEN)?)),
            Kind::Hello | Kind::Goodbye | Kind::Ping | Kind::Pong | Kind::Card | Kind::Slice => {
                return Err(Error::Protocol("a frame out of place"));
            }
        };
        Ok(Self::Ask(request, ask))
    }
}

impl Hello {
    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u8(self.role as u8);
        out.put_u16_le(self.least);
        out.put_u16_le(self.most);
        out.put_slice(&self.network);
        out.put_u32_le(self.requests);
        out.put_u32_le(self.bytes);
        out.put_u8(if self.proof.is_some() { 32 } else { 0 });
        out.put_slice(self.proof.as_ref().map_or(&[][..], |proof| proof));
    }

    fn read(rest: &mut Bytes) -> Result<Self, Error> {
        if array(rest)? != MAGIC {
            return Err(Error::Protocol("a hello of another protocol"));
        }
        let role = match rest.try_get_u8()? {
            1 => Role::Asker,
            2 => Role::Giver,
            _ => return Err(Error::Protocol("a role that there is not")),
        };
        let (least, most) = (rest.try_get_u16_le()?, rest.try_get_u16_le()?);
        let network = array(rest)?;
        let (requests, bytes) = (rest.try_get_u32_le()?, rest.try_get_u32_le()?);
        let proof = match rest.try_get_u8()? {
            0 => None,
            32 => Some(array(rest)?),
            _ => return Err(Error::Protocol("a proof of the wrong length")),
        };
        Ok(Self { role, least, most, network, requests, bytes, proof })
    }
}

/// As much of `text` as a goodbye may carry.
fn cut(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn encode_have(have: &Have, out: &mut BytesMut) {
    match have {
        Have::Whole => out.put_u8(0),
        Have::Bitmap { first, bits } => {
            out.put_u8(1);
            out.put_u32_le(index(*first));
            out.put_slice(bits);
        }
        Have::Chunks(chunks) => {
            out.put_u8(2);
            encode_chunks(chunks, out);
        }
    }
}

fn encode_chunks(chunks: &[u64], out: &mut BytesMut) {
    for chunk in chunks {
        out.put_u32_le(index(*chunk));
    }
}

fn encode_fellow(fellow: &Fellow, out: &mut BytesMut) {
    match fellow.seen {
        None => out.put_u8(0),
        Some(IpAddr::V4(ip)) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    // Cards are at most 258 bytes long.
    out.put_u16_le(u16::try_from(fellow.card.len()).unwrap_or(0));
    out.put_slice(&fellow.card);
}

fn read_have(rest: &mut Bytes) -> Result<Have, Error> {
    match rest.try_get_u8()? {
        0 => Ok(Have::Whole),
        1 => {
            let first = u64::from(rest.try_get_u32_le()?);
            let bits = take_all(rest);
            let end = first + bits.len() as u64 * 8;
            if first % 8 != 0 || bits.is_empty() || end > MAX_CHUNKS {
                return Err(Error::Protocol("a bitmap that no object has"));
            }
            Ok(Have::Bitmap { first, bits })
        }
        2 => Ok(Have::Chunks(read_chunks(rest, MAX_NEWS)?)),
        _ => Err(Error::Protocol("a have of unknown form")),
    }
}

/// Reads what is left as indexes of chunks, 1 to `most`.
fn read_chunks(rest: &mut Bytes, most: usize) -> Result<Vec<u64>, Error> {
    if rest.is_empty() || !rest.len().is_multiple_of(4) || rest.len() > most * 4 {
        return Err(Error::Protocol("a list of chunks of the wrong length"));
    }
    let mut chunks = Vec::with_capacity(rest.len() / 4);
    while rest.has_remaining() {
        chunks.push(chunk_index(rest)?.into());
    }
    Ok(chunks)
}

/// Reads what is left as peers that are told of.
fn read_fellows(rest: &mut Bytes) -> Result<Vec<Fellow>, Error> {
    let mut fellows = Vec::new();
    while rest.has_remaining() {
        let seen = match rest.try_get_u8()? {
            0 => None,
            4 => Some(IpAddr::from(array::<4>(rest)?)),
            6 => Some(IpAddr::from(array::<16>(rest)?)),
            _ => return Err(Error::Protocol("an address of unknown kind")),
        };
        let length = usize::from(rest.try_get_u16_le()?);
        fellows.push(Fellow { seen, card: read_card(length, rest)? });
    }
    if (1..=MAX_FELLOWS).contains(&fellows.len()) {
        Ok(fellows)
    } else {
        Err(Error::Protocol("more peers at once than may be told of, or none"))
    }
}

/// Reads a card of so many bytes, which nobody has looked at yet.
fn read_card(length: usize, rest: &mut Bytes) -> Result<Bytes, Error> {
    if length == 0 || length > MAX_CARD.min(rest.len()) {
        return Err(Error::Protocol("a card of a length that none has"));
    }
    Ok(rest.split_to(length))
}

fn read_chunk(rest: &mut Bytes) -> Result<ChunkRef, Error> {
    let wrong = Error::Protocol("a want for a chunk that cannot be");
    let (root, offset) = (rest.try_get_u8()?, rest.try_get_u64_le()?);
    let place = match (root, offset) {
        (0, 0) => Place::Root,
        (1, offset) => Place::At(offset),
        _ => return Err(wrong),
    };
    let length = rest.try_get_u32_le()?;
    let chunk = ChunkRef { id: ChunkId::from_bytes(array(rest)?), place, length };
    if chunk.is_valid() { Ok(chunk) } else { Err(wrong) }
}

fn read_run(rest: &mut Bytes) -> Result<Ask, Error> {
    let (object, first, count) = (object(rest)?, chunk_index(rest)?, rest.try_get_u16_le()?);
    if count == 0 || u64::from(first) + u64::from(count) > MAX_CHUNKS {
        return Err(Error::Protocol("a want for chunks that no object has"));
    }
    Ok(Ask::Run { object, first, count })
}

fn chunk_index(rest: &mut Bytes) -> Result<u32, Error> {
    let index = rest.try_get_u32_le()?;
    if u64::from(index) < MAX_CHUNKS { Ok(index) } else { Err(Error::Protocol("a chunk that no object has")) }
}

fn object(rest: &mut Bytes) -> Result<ObjectId, Error> {
    array(rest).map(ObjectId::from_bytes)
}

fn array<const N: usize>(rest: &mut Bytes) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rest.try_copy_to_slice(&mut bytes)?;
    Ok(bytes)
}

fn take_all(rest: &mut Bytes) -> Bytes {
    rest.split_to(rest.len())
}

impl From<TryGetError> for Error {
    fn from(_: TryGetError) -> Self {
        Self::Protocol("a frame that ends too early")
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
