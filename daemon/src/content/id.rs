//! The two kinds of id. Both are 32 bytes, shown as 64 lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use super::Place;

/// Why text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 digits.
    #[error("an id has 64 hexadecimal digits; this has {0}")]
    Length(usize),
    /// Upper-case digits: refused, so that an id has one spelling.
    #[error("an id is written in lower case")]
    UpperCase,
    /// Something else than a digit.
    #[error("an id has only the digits 0-9 and a-f; this has {0:?}")]
    Digit(char),
}

fn parse(text: &str) -> Result<[u8; 32], IdError> {
    let strange = text.chars().find(|c| !c.is_ascii_hexdigit());
    let digits = text.chars().count();
    if let Some(c) = strange.filter(|_| digits == 64) {
        return Err(IdError::Digit(c));
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::Length(digits))?;
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(IdError::UpperCase);
    }
    Ok(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(&self.0[..6]))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self)
            }
        }
    };
}

id! {
    /// Names an object: the BLAKE3 of its bytes, what `b3sum` prints.
    ObjectId
}

id! {
    /// Names a chunk: the BLAKE3 subtree value of its bytes at its place in the object (see [`Place`]).
    ChunkId
}

impl ObjectId {
    /// The empty object: BLAKE3 of nothing. It is never stored, sent or announced.
    pub const EMPTY: Self = Self([
        0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b,
        0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
    ]);

    /// The id of the one chunk of an object that fits in a chunk. Its place is [`Place::Root`].
    #[must_use]
    pub const fn only_chunk(&self) -> ChunkId {
        ChunkId(self.0)
    }
}

impl ChunkId {
    /// The object that this chunk is alone, when its place is [`Place::Root`].
    #[must_use]
    pub const fn whole_object(&self, place: Place) -> Option<ObjectId> {
        match place {
            Place::Root => Some(ObjectId(self.0)),
            Place::At(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_object_is_blake3_of_nothing() {
        assert_eq!(ObjectId::EMPTY.as_bytes(), blake3::hash(b"").as_bytes());
    }

    #[test]
    fn text_has_one_form() {
        let text = ObjectId::EMPTY.to_string();
        assert_eq!(text.parse(), Ok(ObjectId::EMPTY));
        assert_eq!(text[..63].parse::<ObjectId>(), Err(IdError::Length(63)));
        assert_eq!(format!("{text}0").parse::<ObjectId>(), Err(IdError::Length(65)));
        assert_eq!(text.to_uppercase().parse::<ObjectId>(), Err(IdError::UpperCase));
        assert_eq!(text.replace('a', "g").parse::<ObjectId>(), Err(IdError::Digit('g')));
        assert_eq!("".parse::<ObjectId>(), Err(IdError::Length(0)));
        assert_eq!("é".repeat(64).parse::<ChunkId>(), Err(IdError::Digit('é')));
        assert_eq!("é".repeat(32).parse::<ChunkId>(), Err(IdError::Length(32)));
    }
}
