//! What the store knows of an object.

use bytes::{BufMut, BytesMut};

use super::Error;
use crate::content::{MAX_OBJECT, ObjectId};

/// The longest name of an object, in bytes.
pub const MAX_NAME: usize = 1024;

/// Pins of one object at most.
pub(super) const MAX_PINS: usize = 1024;

const FLAG_PRIVATE: u8 = 1;
const FLAG_PUBLISH: u8 = 2;
const FLAG_PARTIAL: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_PARITY: u8 = 16;
const FLAG_TREE: u8 = 32;
const FLAG_PART: u8 = 64;

/// A promise to keep an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The user who made it.
    pub uid: u32,
    /// When, in Unix seconds.
    pub since: u64,
}

/// Whether all of an object is meant to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was added or fetched whole.
    Whole,
    /// It is being fetched: some of its chunks may be here.
    Partial,
}

/// What the store knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its id.
    pub id: ObjectId,
    /// Its length in bytes, at least 1.
    pub length: u64,
    /// What it is called here, at most [`MAX_NAME`] bytes; not unique.
    pub name: Option<String>,
    /// Data and parity chunks of a full stripe, when parity is stored with it.
    pub parity: Option<(u8, u8)>,
    /// Never announced, served or placed.
    pub private: bool,
    /// Its name may leave this node.
    pub publish: bool,
    /// When it came, in Unix seconds.
    pub added: u64,
    /// Who promised to keep it, in the order in which they did. None: it may be dropped when room is needed.
    pub pins: Vec<Pin>,
    /// Whether all of it is meant to be here.
    pub state: State,
    /// It is a directory: what its tree names is kept with it.
    pub tree: bool,
    /// It came as a part of a directory and was never asked for by itself: it goes with the last one it is in.
    pub part: bool,
}

/// An object that is to be entered. Its chunks and manifest have been put, or held, under the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewObject {
    /// Its id.
    pub id: ObjectId,
    /// Its length in bytes, at least 1.
    pub length: u64,
    /// What to call it; an object that has a name keeps it, unless it is published now.
    pub name: Option<String>,
    /// Data and parity chunks of a full stripe, when parity was stored with it.
    pub parity: Option<(u8, u8)>,
    /// Never announced, served or placed. Another answer than that of an object that is there is an error.
    pub private: bool,
    /// Its name may leave this node.
    pub publish: bool,
    /// The user who promises to keep it.
    pub pin: Option<u32>,
    /// The time, in Unix seconds.
    pub now: u64,
    /// It comes as a part of a directory.
    pub part: bool,
}

impl NewObject {
    /// An object of this id and length with nothing else said of it.
    #[must_use]
    pub fn new(id: ObjectId, length: u64, now: u64) -> Self {
        Self {
            id,
            length,
            name: None,
            parity: None,
            private: false,
            publish: false,
            pin: None,
            now,
            part: false,
        }
    }

    /// Whether it can be an object at all.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.id == ObjectId::EMPTY || self.length == 0 {
            return Err(Error::Invalid("the empty object is never stored"));
        }
        if self.length > MAX_OBJECT {
            return Err(Error::Invalid("the object is longer than 4 TiB"));
        }
        if self.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME) {
            return Err(Error::Invalid("an object's name has 1 to 1024 bytes"));
        }
        Ok(())
    }

    /// The object as it is first entered.
    pub(super) fn into_info(self, state: State) -> ObjectInfo {
        ObjectInfo {
            pins: self.pin.map(|uid| Pin { uid, since: self.now }).into_iter().collect(),
            id: self.id,
            length: self.length,
            name: self.name,
            parity: self.parity,
            private: self.private,
            publish: self.publish,
            added: self.now,
            state,
            tree: false,
            part: self.part,
        }
    }
}

impl ObjectInfo {
    /// Adds a user's pin. Whether there was none.
    pub(super) fn pin(&mut self, uid: u32, now: u64) -> Result<bool, Error> {
        if self.pins.iter().any(|pin| pin.uid == uid) {
            return Ok(false);
        }
        if self.pins.len() >= MAX_PINS {
            return Err(Error::Invalid("the object has 1024 pins, which is the limit"));
        }
        self.pins.push(Pin { uid, since: now });
        Ok(true)
    }

    /// Takes a user's pin away. Whether there was one.
    pub(super) fn unpin(&mut self, uid: u32) -> bool {
        let before = self.pins.len();
        self.pins.retain(|pin| pin.uid != uid);
        self.pins.len() < before
    }

    /// Its fields as the journal has them (`docs/storage-format.md`, "Journal").
    #[expect(clippy::cast_possible_truncation, reason = "names and pins are limited")]
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.put_slice(self.id.as_bytes());
        out.put_u64_le(self.length);
        out.put_u8(
            flag(self.private, FLAG_PRIVATE)
                | flag(self.publish, FLAG_PUBLISH)
                | flag(self.state == State::Partial, FLAG_PARTIAL)
                | flag(self.name.is_some(), FLAG_NAME)
                | flag(self.parity.is_some(), FLAG_PARITY)
                | flag(self.tree, FLAG_TREE)
                | flag(self.part, FLAG_PART),
        );
        let (k, m) = self.parity.unwrap_or_default();
        out.put_slice(&[k, m]);
        out.put_u64_le(self.added);
        let name = self.name.as_deref().unwrap_or_default();
        out.put_u16_le(name.len() as u16);
        out.put_slice(name.as_bytes());
        out.put_u16_le(self.pins.len() as u16);
        for pin in &self.pins {
            out.put_u32_le(pin.uid);
            out.put_u64_le(pin.since);
        }
    }

    /// Reads what [`ObjectInfo::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let id = ObjectId::from_bytes(fields.array()?);
        let length = u64::from_le_bytes(fields.array()?);
        let [flags, k, m] = fields.array()?;
        let added = u64::from_le_bytes(fields.array()?);
        let size = usize::from(u16::from_le_bytes(fields.array()?));
        let name = String::from_utf8(fields.take(size)?.to_vec()).ok()?;
        let count = u16::from_le_bytes(fields.array()?);
        let pins = (0..count).map(|_| {
            let uid = u32::from_le_bytes(fields.array()?);
            Some(Pin { uid, since: u64::from_le_bytes(fields.array()?) })
        });
        let pins = pins.collect::<Option<Vec<_>>>()?;
        let has = |flag: u8| flags & flag != 0;
        let info = Self {
            id,
            length,
            name: has(FLAG_NAME).then_some(name),
            parity: has(FLAG_PARITY).then_some((k, m)),
            private: has(FLAG_PRIVATE),
            publish: has(FLAG_PUBLISH),
            added,
            pins,
            state: if has(FLAG_PARTIAL) { State::Partial } else { State::Whole },
            tree: has(FLAG_TREE),
            part: has(FLAG_PART),
        };
        fields.0.is_empty().then_some(info)
    }
}

/// Fixed fields, one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_reads_back_and_nothing_shorter_does(
            name in proptest::option::of("[a-zé]{1,40}"),
            parity in proptest::option::of((1u8..128, 1u8..64)),
            private: bool, publish: bool, partial: bool, tree: bool, part: bool,
            pins in proptest::collection::vec((any::<u32>(), any::<u64>()), 0..4),
        ) {
            let state = if partial { State::Partial } else { State::Whole };
            let pins = pins.into_iter().map(|(uid, since)| Pin { uid, since }).collect();
            let id = ObjectId::from_bytes([7; 32]);
            let info =
                ObjectInfo { id, length: 9, name, parity, private, publish, added: 5, pins, state, tree, part };
            let mut out = BytesMut::new();
            info.encode(&mut out);
            prop_assert_eq!(ObjectInfo::decode(&out), Some(info));
            for length in 0..out.len() {
                prop_assert_eq!(ObjectInfo::decode(&out[..length]), None);
            }
        }
    }
}
