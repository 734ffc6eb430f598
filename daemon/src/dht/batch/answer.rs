//! What a receiver says to a batch; the form is described with the batch.

use std::io;
use std::time::Duration;

use super::{MAX_KEYS, VERSION, seconds};
use crate::dht::codec::{Reader, malformed};

/// Why a whole batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dht) enum Refusal {
    /// It names another receiver.
    Receiver = 1,
    /// Its announcer is not the one who sent it, or the signature does not hold.
    Signature = 2,
    /// Its number was seen before.
    Sequence = 3,
    /// A description in it is not the announcer's, of none of its keys, or not as descriptions are.
    Metadata = 4,
    /// This node takes no records: it is no server of the DHT.
    Client = 5,
}

/// What a receiver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dht) enum Answer {
    /// It looked at every key.
    Taken(Taken),
    /// It took nothing; with the highest sequence it has seen.
    Refused(Refusal, u64),
}

/// What became of the keys of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dht) struct Taken {
    /// How long the keys will be kept.
    pub(in crate::dht) lifetime: Duration,
    /// Keys refused because many nodes are nearer.
    pub(in crate::dht) far: u32,
    /// Keys refused because the store is full.
    pub(in crate::dht) full: u32,
    /// Keys removed.
    pub(in crate::dht) removed: u32,
    /// Keys taken that had been here before.
    pub(in crate::dht) known: u32,
    /// Descriptions kept.
    pub(in crate::dht) described: u32,
    /// For each key, in order, whether it was taken.
    pub(in crate::dht) taken: Vec<bool>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        match self {
            Self::Refused(refusal, highest) => {
                bytes.push(*refusal as u8);
                bytes.extend(highest.to_le_bytes());
            }
            Self::Taken(taken) => {
                bytes.push(0);
                let refused = [taken.far, taken.full];
                let counts = [taken.removed, taken.known, taken.described];
                for count in [seconds(taken.lifetime)].into_iter().chain(refused).chain(counts) {
                    bytes.extend(count.to_le_bytes());
                }
                bytes.extend(u16::try_from(taken.taken.len()).unwrap_or(0).to_le_bytes());
                for eight in taken.taken.chunks(8) {
                    bytes.push(eight.iter().rev().fold(0, |byte, taken| (byte << 1) | u8::from(*taken)));
                }
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(malformed("an answer of another version"));
        }
        let outcome = reader.u8()?;
        if outcome != 0 {
            let refusal = [
                Refusal::Receiver,
                Refusal::Signature,
                Refusal::Sequence,
                Refusal::Metadata,
                Refusal::Client,
            ];
            let refusal = refusal.into_iter().find(|refusal| *refusal as u8 == outcome);
            let answer =
                Self::Refused(refusal.ok_or_else(|| malformed("an unknown refusal"))?, reader.u64()?);
            reader.end()?;
            return Ok(answer);
        }
        let lifetime = Duration::from_secs(u64::from(reader.u32()?));
        let (far, full, removed) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (known, described) = (reader.u32()?, reader.u32()?);
        let count = usize::from(reader.u16()?);
        if count > MAX_KEYS {
            return Err(malformed("an answer for more than 4,096 keys"));
        }
        let bits = reader.bytes(count.div_ceil(8))?;
        let taken: Vec<_> = (0..count).map(|n| bits[n / 8] >> (n % 8) & 1 == 1).collect();
        reader.end()?;
        let answer = Self::Taken(Taken { lifetime, far, full, removed, known, described, taken });
        if answer.encode() == bytes { Ok(answer) } else { Err(malformed("an answer with bits to spare")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn answers_are_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..40), bits: Vec<bool>) {
            if let Ok(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode(), bytes);
            }
            let counts = Taken { far: 1, full: 2, known: 3, described: 4, ..Taken::default() };
            let answer = Answer::Taken(Taken { taken: bits, ..counts });
            prop_assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
            let refused = Answer::Refused(Refusal::Sequence, 9);
            prop_assert_eq!(Answer::decode(&refused.encode()).unwrap(), refused);
        }
    }
}
