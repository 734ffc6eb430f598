//! What is stored in the simulation, and what was answered about it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use libp2p_identity::Keypair;

use super::super::*;
use crate::content::{CODEC_RS8, ParityClaim, ParityPage, ParityPart};

/// An object with all its records.
pub(super) struct Thing {
    pub(super) object: NewObject,
    /// Those that are not zeros.
    pub(super) chunks: Vec<Chunk>,
    pub(super) manifest: Option<Manifest>,
    pub(super) parity: Option<(ParityPart, Vec<ParityPage>, Vec<Chunk>)>,
}

/// All objects of the simulation: single chunks around every size that matters, several chunks, zeros, a chunk that
/// two share, parity. Those that are cheap come first.
pub(super) static THINGS: LazyLock<Vec<Thing>> = LazyLock::new(|| {
    let sizes = [1, 100, 3583, 3584, 3585, 4096, 9000, 20_000, 70_000, 12_288];
    let singles = (1..).zip(sizes).map(|(seed, size)| {
        let (chunk, object) = single(seed, size);
        Thing { object, chunks: vec![chunk], manifest: None, parity: None }
    });
    let mut things: Vec<_> = singles.collect();
    let zeros = || Bytes::from(vec![0; CHUNK]);
    things.push(long(&[zeros(), sample(50, 5000)], false));
    things.push(long(&[zeros(), sample(51, 300)], true));
    things.push(long(&[zeros(), zeros()], false));
    let shared = sample(60, CHUNK);
    things.push(long(&[shared.clone(), sample(61, 5000)], false));
    things.push(long(&[shared, sample(62, 90)], true));
    things
});

/// How many of them are cheap.
pub(super) const SMALL: usize = 10;

fn long(parts: &[Bytes], has_parity: bool) -> Thing {
    let mut builder = ManifestBuilder::new();
    let place = |index| Place::At(index as u64 * CHUNK as u64);
    let all = parts.iter().enumerate();
    let chunks: Vec<_> =
        all.map(|(index, bytes)| Chunk::compute(place(index), bytes.clone()).unwrap()).collect();
    chunks.iter().for_each(|chunk| builder.push(chunk).unwrap());
    let manifest = builder.finish().unwrap();
    let mut object = NewObject::new(manifest.id(), manifest.length(), 0);
    let parity = has_parity.then(|| {
        let parity = Chunk::compute(Place::Root, sample(90 + manifest.length(), 6000)).unwrap();
        let claim = ParityClaim {
            object: manifest.id(),
            length: manifest.length(),
            codec: CODEC_RS8,
            k: 16,
            m: 4,
            count: 1,
        };
        let key = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let (part, pages) = ParityPart::sign(claim, &[parity.id()], &key).unwrap();
        object.parity = Some((16, 4));
        (part, pages, vec![parity])
    });
    let chunks = chunks.into_iter().filter(|chunk| !chunk.is_zero()).collect();
    Thing { object, chunks, manifest: Some(manifest), parity }
}

impl Thing {
    /// Adds it, as an add does.
    pub(super) async fn add(&self, store: &Store, uid: Option<u32>, commits: bool) -> Result<(), Error> {
        let lease = store.lease();
        lease.reserve(self.object.length.min(1 << 20)).await?;
        for chunk in &self.chunks {
            if !lease.hold(&chunk.id()).await? {
                lease.put(Item::Chunk(chunk.clone())).await?;
            }
        }
        if let Some((part, pages, chunks)) = &self.parity {
            let chunks = chunks.iter().cloned().map(Item::Parity);
            let items = chunks.chain(pages.iter().map(Item::ParityPage)).chain([Item::ParityPart(part)]);
            lease.put_all(items.collect()).await?;
        }
        if let Some(manifest) = &self.manifest {
            lease.put_manifest(manifest).await?;
        }
        if !commits {
            return Err(Error::Closed);
        }
        let object = NewObject { pin: uid, now: now(), ..self.object.clone() };
        lease.commit(object).await.map(|_| ())
    }

    /// Whether all of it reads back. `Ok(false)`: something is missing.
    pub(super) async fn reads_back(&self, store: &Store) -> Result<bool, Error> {
        for chunk in &self.chunks {
            match store.chunk(&chunk.reference()).await? {
                Some(found) => assert_eq!(found, *chunk, "wrong bytes"),
                None => return Ok(false),
            }
        }
        if let Some(manifest) = &self.manifest {
            match store.manifest(&manifest.id()).await? {
                Some(found) => assert_eq!(found, *manifest, "a wrong manifest"),
                None => return Ok(false),
            }
        }
        if let Some((part, pages, chunks)) = &self.parity {
            match store.parity(&self.object.id).await? {
                Some(found) => assert_eq!(found, (part.clone(), pages.clone()), "wrong parity"),
                None => return Ok(false),
            }
            for chunk in chunks {
                if store.chunk(&chunk.reference()).await?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// What was answered about an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// Its pins; `None`: it is not there.
    pub(super) there: Option<BTreeSet<u32>>,
    /// A change of it was not answered: it may have been done or not.
    pub(super) unsure: bool,
}
