//! Descriptions: what an object is called, in the word of a node that holds it.
//!
//! No id proves a name. A description is therefore signed by its publisher: it tells whose word it is, and nothing
//! more; length and kind are proved by the manifest once somebody fetches. It is signed for one network, and anew every
//! few hours while it is published, so that what was withdrawn is believed nowhere for long.
//!
//! # Format (version 1)
//!
//! | field | bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | kind | 1 | 0 file, 1 directory |
//! | object | 32 | its id |
//! | length | 8 | of the object, little endian, 1 byte to 4 TiB; of a directory its list's |
//! | k, m | 1 + 1 | its parity, k 1..=128 and m 1..=64; both 0: none |
//! | time | 8 | when this was signed, in Unix seconds, little endian |
//! | name | 1 + n | its length, 1 to 255, and UTF-8 that may be the name of an entry of a directory |
//! | publisher | 32 | Ed25519 public key |
//! | signature | 64 | Ed25519, by the publisher, over `casd description 1\n`, 32 bytes that stand for the network, and all bytes before |

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use libp2p_identity::{Keypair, PeerId, PublicKey, ed25519};

use super::codec::Reader;
use super::{Error, MAX_ENTRY_NAME, MAX_OBJECT, MAX_TREE_BYTES, ObjectId, check_name};

const WHAT: &str = "description";
const VERSION: u8 = 1;
pub(super) const DOMAIN: &[u8] = b"casd description 1\n";

/// Bytes before the name's length.
const HEAD: usize = 1 + 1 + 32 + 8 + 2 + 8;

/// Bytes behind the name.
const TAIL: usize = 32 + 64;

/// The longest description: 404 bytes.
pub const MAX_DESCRIPTION: usize = HEAD + 1 + MAX_ENTRY_NAME + TAIL;

/// A description that was signed longer ago is not believed: keys live for two days, and clocks may differ by one.
pub const DESCRIPTION_LIFE: Duration = Duration::from_hours(72);

/// Nor is one that will be signed later than this: clocks may differ by a day.
const AHEAD: Duration = Duration::from_hours(24);

/// What somebody says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The object.
    pub object: ObjectId,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Its length in bytes, of a directory its list's: 1 byte to 4 TiB.
    pub length: u64,
    /// Data and parity chunks of a full stripe, where the publisher keeps parity.
    pub parity: Option<(u8, u8)>,
    /// What it is called: what [`check_name`] lets through, so that it is no path and drives no terminal.
    pub name: String,
    /// When this was said, in Unix seconds.
    pub time: u64,
}

/// A description whose signature holds. That does not make it true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDescription {
    description: Description,
    publisher: ed25519::PublicKey,
    signature: [u8; 64],
}

// === impl Description ===

impl Description {
    /// Whether it can be said at all.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Name`].
    pub fn check(&self) -> Result<(), Error> {
        let malformed = |why| Err(Error::Malformed { what: WHAT, why });
        let longest = if self.is_directory { MAX_TREE_BYTES as u64 } else { MAX_OBJECT };
        if !(1..=longest).contains(&self.length) || self.object == ObjectId::EMPTY {
            return malformed("its length is none that such an object can have");
        }
        if self.parity.is_some_and(|(k, m)| !(1..=128).contains(&k) || !(1..=64).contains(&m)) {
            return malformed("its parity is out of range");
        }
        Ok(check_name(&self.name)?)
    }

    /// What stands before the publisher.
    fn put(&self, out: &mut BytesMut) {
        let (k, m) = self.parity.unwrap_or((0, 0));
        out.put_slice(&[VERSION, u8::from(self.is_directory)]);
        out.put_slice(self.object.as_bytes());
        out.put_u64_le(self.length);
        out.put_slice(&[k, m]);
        out.put_u64_le(self.time);
        // Names are at most 255 bytes long: it was checked.
        out.put_u8(u8::try_from(self.name.len()).unwrap_or(u8::MAX));
        out.put_slice(self.name.as_bytes());
    }
}

// === impl SignedDescription ===

impl SignedDescription {
    /// Signs a description for the network that `network` stands for.
    ///
    /// # Errors
    /// As [`Description::check`]; also when the key is not Ed25519.
    pub fn sign(description: Description, network: &[u8; 32], key: &Keypair) -> Result<Self, Error> {
        let malformed = |why| Error::Malformed { what: WHAT, why };
        description.check()?;
        let publisher =
            key.public().try_into_ed25519().map_err(|_| malformed("its publisher's key is not Ed25519"))?;
        let mut signed = Self { description, publisher, signature: [0; 64] };
        let signature = key.sign(&signed.signed(network)).map_err(|_| malformed("it could not be signed"))?;
        signed.signature = signature.try_into().map_err(|_| malformed("it could not be signed"))?;
        Ok(signed)
    }

    /// Reads a description and checks that its publisher signed it for this network.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Name`], [`Error::Publisher`].
    pub fn check(encoded: &[u8], network: &[u8; 32]) -> Result<Self, Error> {
        let description = Self::decode(encoded)?;
        if !description.publisher.verify(&description.signed(network), &description.signature) {
            return Err(Error::Publisher);
        }
        Ok(description)
    }

    /// Reads what was proved before it was kept, and does not prove it again.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Name`].
    pub fn read_kept(encoded: &[u8]) -> Result<Self, Error> {
        Self::decode(encoded)
    }

    /// Reads the format, and not whose it is.
    pub(super) fn decode(encoded: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(WHAT, encoded);
        reader.version(VERSION)?;
        let is_directory = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.malformed("its kind is unknown")),
        };
        let object = ObjectId::from_bytes(reader.array()?);
        let length = reader.u64()?;
        let parity = match reader.array()? {
            [0, 0] => None,
            [k, m] => Some((k, m)),
        };
        let time = reader.u64()?;
        let name_length = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.take(name_length)?)
            .map_err(|_| reader.malformed("its name is not UTF-8"))?
            .to_owned();
        let publisher = ed25519::PublicKey::try_from_bytes(&reader.array::<32>()?)
            .map_err(|_| reader.malformed("its publisher's key is not a key"))?;
        let signature = reader.array()?;
        reader.end()?;
        let description = Description { object, is_directory, length, parity, name, time };
        description.check()?;
        Ok(Self { description, publisher, signature })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = self.body();
        out.put_slice(&self.signature);
        out.freeze()
    }

    /// What is said.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Whose word it is.
    #[must_use]
    pub fn publisher(&self) -> PeerId {
        PublicKey::from(self.publisher.clone()).to_peer_id()
    }

    /// Whether it was signed at a time that is believed at `now`, in Unix seconds.
    #[must_use]
    pub fn is_timely(&self, now: u64) -> bool {
        is_timely(self.description.time, now)
    }

    fn body(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(HEAD + 1 + self.description.name.len() + TAIL);
        self.description.put(&mut out);
        out.put_slice(&self.publisher.to_bytes());
        out
    }

    /// What is signed of it.
    fn signed(&self, network: &[u8; 32]) -> Vec<u8> {
        [DOMAIN, network, &self.body()].concat()
    }
}

// === names ===

/// Whether what was signed at `time` is believed at `now`, both in Unix seconds.
#[must_use]
pub fn is_timely(time: u64, now: u64) -> bool {
    time <= now.saturating_add(AHEAD.as_secs()) && now <= time.saturating_add(DESCRIPTION_LIFE.as_secs())
}

/// The name in the bytes of a description; nothing in bytes that are none. Looks at nothing else in them.
#[must_use]
pub fn described_name(encoded: &[u8]) -> &str {
    let (length, rest) = encoded.get(HEAD..).and_then(<[u8]>::split_first).unwrap_or((&0, &[]));
    rest.get(..usize::from(*length)).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
}

/// Whether something of this name is what is searched for: `text` stands in it, whatever the case. An empty text finds
/// everything.
#[must_use]
pub fn is_called(name: &str, text: &str) -> bool {
    text.is_empty() || name.to_lowercase().contains(&text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NETWORK: [u8; 32] = [9; 32];
    const NOW: u64 = 1_800_000_000;

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).unwrap()
    }

    fn sample(name: &str) -> Description {
        Description {
            object: ObjectId::from_bytes([7; 32]),
            is_directory: false,
            length: 5 << 20,
            parity: Some((16, 4)),
            name: name.to_owned(),
            time: NOW,
        }
    }

    prop_compose! {
        fn descriptions()(
            object: [u8; 32], is_directory: bool, length in 1..=MAX_TREE_BYTES as u64,
            parity in proptest::option::of((1u8..=128, 1u8..=64)), name in "[^/\\\\\\pC]{1,60}", time: u64,
        ) -> Description {
            Description { object: ObjectId::from_bytes(object), is_directory, length, parity, name, time }
        }
    }

    proptest! {
        #[test]
        fn what_is_signed_is_read_and_no_bit_may_be_flipped(
            said in descriptions(), at: proptest::sample::Index, bit in 0u8..8,
        ) {
            prop_assume!(check_name(&said.name).is_ok());
            let signed = SignedDescription::sign(said.clone(), &NETWORK, &key(1)).unwrap();
            let bytes = signed.encode();
            prop_assert!(bytes.len() <= MAX_DESCRIPTION);
            let read = SignedDescription::check(&bytes, &NETWORK).unwrap();
            prop_assert_eq!((read.description(), read.publisher()), (&said, key(1).public().to_peer_id()));
            prop_assert_eq!(described_name(&bytes), said.name);
            let mut other = bytes.to_vec();
            other[at.index(bytes.len())] ^= 1 << bit;
            prop_assert!(SignedDescription::check(&other, &NETWORK).is_err());
            prop_assert!(SignedDescription::check(&bytes[..at.index(bytes.len())], &NETWORK).is_err());
        }

        #[test]
        fn nothing_panics_on_garbage(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = (SignedDescription::check(&bytes, &NETWORK), described_name(&bytes));
        }
    }

    #[test]
    fn it_is_one_networks_and_one_publishers() {
        let signed = SignedDescription::sign(sample("a"), &NETWORK, &key(1)).unwrap();
        assert_eq!(SignedDescription::check(&signed.encode(), &[8; 32]), Err(Error::Publisher));
        let mut forged = signed.clone();
        forged.publisher = key(2).public().try_into_ed25519().unwrap();
        assert_eq!(SignedDescription::check(&forged.encode(), &NETWORK), Err(Error::Publisher));
        let mut other = signed;
        other.description.object = ObjectId::from_bytes([8; 32]);
        assert_eq!(SignedDescription::check(&other.encode(), &NETWORK), Err(Error::Publisher));
    }

    #[test]
    fn what_cannot_be_said_is_neither_signed_nor_read() {
        let long = "x".repeat(256);
        let names = ["", ".", "..", "a/b", "a\\b", "a\0", "\u{1b}[2J", "a\nb", "\u{9b}x", "\u{7f}", &long];
        let mut wrong: Vec<Description> = names.map(sample).to_vec();
        wrong.push(Description { length: 0, ..sample("a") });
        wrong.push(Description { length: MAX_OBJECT + 1, ..sample("a") });
        wrong.push(Description { length: MAX_TREE_BYTES as u64 + 1, is_directory: true, ..sample("a") });
        wrong.push(Description { object: ObjectId::EMPTY, ..sample("a") });
        wrong.extend(
            [(0, 1), (1, 0), (129, 1), (1, 65)]
                .map(|parity| Description { parity: Some(parity), ..sample("a") }),
        );
        for said in wrong {
            assert!(SignedDescription::sign(said.clone(), &NETWORK, &key(1)).is_err(), "{said:?}");
            // Somebody else signs it.
            let publisher = key(1).public().try_into_ed25519().unwrap();
            let mut signed = SignedDescription { description: said.clone(), publisher, signature: [0; 64] };
            signed.signature = key(1).sign(&signed.signed(&NETWORK)).unwrap().try_into().unwrap();
            assert!(SignedDescription::check(&signed.encode(), &NETWORK).is_err(), "{said:?}");
        }
    }

    #[test]
    fn it_is_believed_for_three_days_and_a_day_ahead() {
        let signed = SignedDescription::sign(sample("a"), &NETWORK, &key(1)).unwrap();
        let life = DESCRIPTION_LIFE.as_secs();
        for (now, timely) in [(NOW, true), (NOW + life, true), (NOW + life + 1, false), (NOW - 86_400, true)]
        {
            assert_eq!(signed.is_timely(now), timely, "{now}");
        }
        assert!(!signed.is_timely(NOW - 86_401) && !signed.is_timely(0) && !signed.is_timely(u64::MAX));
    }

    #[test]
    fn a_search_takes_no_heed_of_case() {
        for (name, text) in [("Holiday.JPG", "holi"), ("\u{c9}t\u{e9}", "\u{e9}T"), ("x", "")] {
            assert!(is_called(name, text), "{name} {text}");
        }
        assert!(!is_called("abc", "abd"));
    }
}
