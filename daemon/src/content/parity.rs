//! Parity parts: which parity chunks an object has, as a claim signed by whoever computed them.
//!
//! Parity cannot be proved from the object's id. A part is therefore believed only as far as the chunks that are
//! rebuilt with it match their own ids; when they do not, the part is thrown away and its *maker* is struck.
//!
//! # Formats (version 1)
//!
//! A **part**, stored under (object, codec, k, m):
//!
//! | field | bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | codec | 1 | 1: Reed-Solomon over GF(2^8) as `reed-solomon-erasure` makes it |
//! | k, m | 1 + 1 | data and parity chunks a full stripe: k 1..=128, m 1..=64 |
//! | object | 32 | its id |
//! | length | 8 | of the object, little endian |
//! | count | 4 | parity chunks in all, little endian |
//! | pages | 32 each | BLAKE3 of each parity page, ⌈count/2048⌉ of them |
//! | maker | 32 | Ed25519 public key |
//! | signature | 64 | Ed25519, by the maker, over `casd parity part 1\n` and all bytes before |
//!
//! A **page**, stored under its BLAKE3: up to 2,048 parity chunk ids in stripe order, 32 bytes each, nothing else.

use bytes::{BufMut, Bytes, BytesMut};
use libp2p_identity::{Keypair, PeerId, PublicKey, ed25519};

use super::codec::Reader;
use super::{ChunkId, Error, MAX_OBJECT, ObjectId};

const WHAT: &str = "parity part";
const VERSION: u8 = 1;
pub(super) const DOMAIN: &[u8] = b"casd parity part 1\n";

/// The codec that this build knows: Reed-Solomon over GF(2^8) as `reed-solomon-erasure` makes it.
pub const CODEC_RS8: u8 = 1;

/// Parity chunk ids on a page.
pub const PARITY_PAGE: usize = 2048;

/// The longest parity page.
pub const MAX_PARITY_PAGE_BYTES: usize = PARITY_PAGE * 32;

/// Pages of a part at most, so that a part stays as small as a manifest top: 4 M parity chunks.
const MAX_PAGES: usize = 2048;

/// The longest parity part.
pub const MAX_PARITY_PART_BYTES: usize = 48 + MAX_PAGES * 32 + 32 + 64;

/// What a part claims, before anyone signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParityClaim {
    /// The object.
    pub object: ObjectId,
    /// Its length in bytes.
    pub length: u64,
    /// How parity was computed: [`CODEC_RS8`].
    pub codec: u8,
    /// Data chunks of a full stripe, 1..=128.
    pub k: u8,
    /// Parity chunks of a full stripe, 1..=64.
    pub m: u8,
    /// Parity chunks in all. The stripe geometry says how many there must be; whoever uses a part checks.
    pub count: u32,
}

/// A parity part whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParityPart {
    claim: ParityClaim,
    /// BLAKE3 of each page.
    pages: Vec<[u8; 32]>,
    maker: ed25519::PublicKey,
    signature: [u8; 64],
}

/// A page of a part: proved to be the one that its maker signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParityPage {
    ids: Vec<ChunkId>,
}

impl ParityPart {
    /// Signs a claim over these parity chunk ids and gives the part with its pages.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the claim is out of range, or the key is not Ed25519.
    pub fn sign(
        claim: ParityClaim,
        ids: &[ChunkId],
        key: &Keypair,
    ) -> Result<(Self, Vec<ParityPage>), Error> {
        let malformed = |why| Error::Malformed { what: WHAT, why };
        check_claim(&claim)?;
        if ids.len() != claim.count as usize {
            return Err(malformed("it has another number of parity chunks than it says"));
        }
        let maker =
            key.public().try_into_ed25519().map_err(|_| malformed("its maker's key is not Ed25519"))?;
        let pages: Vec<ParityPage> =
            ids.chunks(PARITY_PAGE).map(|ids| ParityPage { ids: ids.to_vec() }).collect();
        let digests = pages.iter().map(ParityPage::digest).collect();
        let mut part = Self { claim, pages: digests, maker, signature: [0; 64] };
        let signature = key.sign(&part.signed()).map_err(|_| malformed("it could not be signed"))?;
        part.signature = signature.try_into().map_err(|_| malformed("it could not be signed"))?;
        Ok((part, pages))
    }

    /// Reads a part and checks its form and its signature. That does not make its claim true.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Signature`].
    pub fn check(encoded: &[u8]) -> Result<Self, Error> {
        let part = Self::decode(encoded)?;
        if !part.maker.verify(&part.signed(), &part.signature) {
            return Err(Error::Signature);
        }
        Ok(part)
    }

    /// Reads the format, and not whose it is.
    pub(super) fn decode(encoded: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(WHAT, encoded);
        reader.version(VERSION)?;
        let [codec, k, m] = reader.array()?;
        let object = ObjectId::from_bytes(reader.array()?);
        let claim = ParityClaim { object, codec, k, m, length: reader.u64()?, count: reader.u32()? };
        check_claim(&claim)?;
        let pages = reader.values((claim.count as usize).div_ceil(PARITY_PAGE))?;
        let maker = ed25519::PublicKey::try_from_bytes(&reader.array::<32>()?)
            .map_err(|_| reader.malformed("its maker's key is not a key"))?;
        let signature = reader.array()?;
        reader.end()?;
        Ok(Self { claim, pages, maker, signature })
    }

    /// What it claims.
    #[must_use]
    pub fn claim(&self) -> &ParityClaim {
        &self.claim
    }

    /// Who computed and signed it.
    #[must_use]
    pub fn maker(&self) -> PeerId {
        PublicKey::from(self.maker.clone()).to_peer_id()
    }

    /// BLAKE3 of each of its pages, under which they are stored.
    #[must_use]
    pub fn pages(&self) -> &[[u8; 32]] {
        &self.pages
    }

    /// Its bytes in the format above.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::from(&self.signed()[DOMAIN.len()..]);
        out.put_slice(&self.signature);
        out.freeze()
    }

    /// The bytes that are signed: the domain and all fields before the signature.
    fn signed(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(DOMAIN.len() + 80 + self.pages.len() * 32);
        out.put_slice(DOMAIN);
        out.put_slice(&[VERSION, self.claim.codec, self.claim.k, self.claim.m]);
        out.put_slice(self.claim.object.as_bytes());
        out.put_u64_le(self.claim.length);
        out.put_u32_le(self.claim.count);
        out.put_slice(self.pages.as_flattened());
        out.put_slice(&self.maker.to_bytes());
        out
    }
}

impl ParityPage {
    /// Reads page `index` of `part` and proves that it is the one that was signed.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Unproven`].
    pub fn prove(part: &ParityPart, index: usize, encoded: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("parity page", encoded);
        let before = index.saturating_mul(PARITY_PAGE);
        let count = (part.claim.count as usize).saturating_sub(before).min(PARITY_PAGE);
        let page = Self { ids: reader.values(count)?.into_iter().map(ChunkId::from_bytes).collect() };
        reader.end()?;
        if part.pages.get(index) != Some(&page.digest()) {
            return Err(Error::Unproven { what: "parity page" });
        }
        Ok(page)
    }

    /// The parity chunk ids in stripe order.
    #[must_use]
    pub fn ids(&self) -> &[ChunkId] {
        &self.ids
    }

    /// BLAKE3 of its bytes, under which it is stored.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// Its bytes in the format above.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.ids.len() * 32);
        for id in &self.ids {
            out.put_slice(id.as_bytes());
        }
        out.freeze()
    }
}

/// The ranges in the table above.
fn check_claim(claim: &ParityClaim) -> Result<(), Error> {
    let malformed = |why| Err(Error::Malformed { what: WHAT, why });
    if claim.codec != CODEC_RS8 {
        return malformed("its codec is unknown");
    }
    if !(1..=128).contains(&claim.k) || !(1..=64).contains(&claim.m) {
        return malformed("its stripe has too many or too few chunks");
    }
    if !(super::CHUNK_LEN + 1..=MAX_OBJECT).contains(&claim.length) {
        return malformed("an object of this length has no parity");
    }
    if claim.count == 0 || claim.count as usize > MAX_PAGES * PARITY_PAGE {
        return malformed("it has too many or too few parity chunks");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (ParityPart, Vec<ParityPage>) {
        let ids: Vec<_> =
            (0..3000u32).map(|i| ChunkId::from_bytes(*blake3::hash(&i.to_le_bytes()).as_bytes())).collect();
        let object = ObjectId::from_bytes([9; 32]);
        let claim = ParityClaim { object, length: 12_000 << 20, codec: CODEC_RS8, k: 16, m: 4, count: 3000 };
        ParityPart::sign(claim, &ids, &Keypair::generate_ed25519()).unwrap()
    }

    #[test]
    fn a_part_reads_back_and_its_pages_prove() {
        let (part, pages) = sample();
        assert_eq!(ParityPart::check(&part.encode()), Ok(part.clone()));
        assert_eq!(pages.len(), 2);
        for (index, page) in pages.iter().enumerate() {
            assert_eq!(ParityPage::prove(&part, index, &page.encode()), Ok(page.clone()));
            assert!(ParityPage::prove(&part, 1 - index, &page.encode()).is_err());
        }
        assert!(ParityPage::prove(&part, 2, &[]).is_err());
    }

    #[test]
    fn any_changed_or_missing_byte_is_refused() {
        let encoded = sample().0.encode();
        for at in 0..encoded.len() {
            let mut changed = encoded.to_vec();
            changed[at] ^= 1;
            assert!(ParityPart::check(&changed).is_err(), "byte {at}");
            assert!(ParityPart::check(&encoded[..at]).is_err());
        }
        assert!(ParityPart::check(&[&encoded[..], &[0]].concat()).is_err());
    }
}
