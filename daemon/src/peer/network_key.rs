//! The key of a private network: who has it is let in, and it is proved without being told.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use libp2p_identity::PeerId;
use zeroize::Zeroizing;

use super::{Error, read_key};

/// A private network's key: 32 random bytes. It is shown nowhere, and wiped when the last of its clones is dropped.
#[derive(Clone)]
pub struct NetworkKey(Arc<Zeroizing<[u8; 32]>>);

// === impl NetworkKey ===

impl NetworkKey {
    /// Reads it from its file: 64 hexadecimal digits and a newline, which may be missing, that only the owner may read.
    ///
    /// # Errors
    /// [`Error`], which names the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self(Arc::new(read_key(path)?)))
    }

    /// The proof of the key, by one end of a connection to the other: the keyed BLAKE3 of
    ///
    /// ```text
    /// size  field
    /// ?     context: of one protocol and version, ends in a newline
    /// 1     role: of the end that proves
    /// each of the two ids, in an order that the protocol says
    ///       8  its length, little-endian
    ///       ?  the peer id in bytes
    /// ?     binding: of a length that the protocol says, that no other connection has
    /// ```
    ///
    /// The role keeps one end's proof from being sent back as the other's, the ids from being used between others, the
    /// binding on another connection. Comparing two proofs takes the same time for all of them.
    #[must_use]
    pub fn prove(&self, context: &[u8], role: u8, ids: [&PeerId; 2], binding: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(context).update(&[role]);
        for id in ids {
            let id = id.to_bytes();
            // Peer ids are at most 64 bytes long; the length keeps two of them apart.
            hasher.update(&(id.len() as u64).to_le_bytes()).update(&id);
        }
        for part in binding {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

impl From<[u8; 32]> for NetworkKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

impl PartialEq for NetworkKey {
    fn eq(&self, other: &Self) -> bool {
        // Hashes are compared in the same time whatever they are.
        blake3::Hash::from_bytes(**self.0) == blake3::Hash::from_bytes(**other.0)
    }
}

impl Eq for NetworkKey {}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(…)")
    }
}

/// What stands for a network's name where the name itself is not to be seen.
#[must_use]
pub fn network_id(name: &str) -> [u8; 32] {
    blake3::derive_key("casd 2026 network name", name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let shown = format!("{:?}", NetworkKey::from([0xab; 32]));
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }

    #[test]
    fn everything_that_a_proof_is_of_counts() {
        let (key, one, two) = (NetworkKey::from([1; 32]), PeerId::random(), PeerId::random());
        let proof = |key: &NetworkKey, role, ids, binding: &[u8]| key.prove(b"x\n", role, ids, &[binding]);
        let true_one = proof(&key, 1, [&one, &two], b"here");
        assert_eq!(proof(&key, 1, [&one, &two], b"here"), true_one);
        for other in [
            proof(&NetworkKey::from([2; 32]), 1, [&one, &two], b"here"),
            proof(&key, 2, [&one, &two], b"here"),
            proof(&key, 1, [&two, &one], b"here"),
            proof(&key, 1, [&one, &one], b"here"),
            proof(&key, 1, [&one, &two], b"there"),
            key.prove(b"y\n", 1, [&one, &two], &[b"here"]),
        ] {
            assert_ne!(other, true_one);
        }
    }
}
