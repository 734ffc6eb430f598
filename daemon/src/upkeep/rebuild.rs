//! Bringing back what an object lacks from what is here: its stripes' parity. Needs nobody.

use std::collections::HashSet;

use bytes::Bytes;

use crate::content::{CODEC_RS8, Chunk, ChunkId, Manifest, PARITY_PAGE, ParityClaim, ParityPart, Place};
use crate::erasure::{self, Geometry, Layout, Stripe};
use crate::peer::Keypair;
use crate::store::{Error, Item, Kind, Lease, ObjectInfo, RecordName, Store};
use crate::support::pool::Pool;

/// What rebuilds.
pub struct Rebuilder {
    /// What is mended.
    pub store: Store,
    /// Where encoding and rebuilding run.
    pub pool: Pool,
    /// Signs parity that is made anew.
    pub key: Keypair,
}

/// An object that can have parity.
struct Subject<'a> {
    info: &'a ObjectInfo,
    geometry: Geometry,
    layout: Layout,
    manifest: Manifest,
    /// Ids of its parity chunks, as far as they are known.
    parity: Vec<Option<ChunkId>>,
    lease: Lease,
}

impl Rebuilder {
    /// Rebuilds what it can of what an object lacks, from what is here.
    ///
    /// # Errors
    /// What the store refuses: [`Error::Quota`], [`Error::DiskFull`], [`Error::ReadOnly`], [`Error::Io`].
    pub async fn rebuild(&self, info: &ObjectInfo, missing: &[RecordName]) -> Result<(), Error> {
        let Some(subject) = self.subject(info).await? else { return Ok(()) };
        let lost = ids_of(missing);
        for stripe in subject.layout.iter().filter(|stripe| subject.touches(stripe, &lost)) {
            self.mend(&subject, &stripe).await?;
        }
        if missing.iter().any(|name| matches!(name.kind, Kind::ParityPart | Kind::ParityPage)) {
            self.remake(&subject).await?;
        }
        subject.lease.sync().await
    }

    async fn subject<'a>(&self, info: &'a ObjectInfo) -> Result<Option<Subject<'a>>, Error> {
        let geometry = info.parity.and_then(|(k, m)| Geometry::new(k, m).ok());
        let Some(geometry) = geometry else { return Ok(None) };
        let Some(layout) = Layout::new(info.length, geometry) else { return Ok(None) };
        let Some(manifest) = self.store.manifest(&info.id).await? else { return Ok(None) };
        let count = usize::try_from(layout.parity_chunks()).unwrap_or(usize::MAX);
        let mut parity = Vec::with_capacity(count);
        if let Some(part) = self.store.parity_part(&info.id, geometry.k(), geometry.m()).await? {
            for index in 0..part.pages().len() {
                match self.store.parity_page(&part, index).await? {
                    Some(page) => parity.extend(page.ids().iter().copied().map(Some)),
                    None => parity.resize(count.min(parity.len() + PARITY_PAGE), None),
                }
            }
        }
        parity.resize(count, None);
        Ok(Some(Subject { info, geometry, layout, manifest, parity, lease: self.store.lease() }))
    }

    /// Brings back the data chunks of a stripe, then its parity chunks.
    async fn mend(&self, subject: &Subject<'_>, stripe: &Stripe) -> Result<(), Error> {
        let mut shards = self.gather(subject, stripe).await?;
        let (copy, given) = (*stripe, shards.clone());
        let Ok(rebuilt) = self.pool.run(move || erasure::rebuild(&copy, &given)).await else {
            // Too little is left; peers may have more.
            return Ok(());
        };
        for (at, bytes) in rebuilt {
            let chunk = subject.manifest.chunk(stripe.first + at as u64);
            let proved = chunk.and_then(|chunk| chunk.verify(bytes.slice(..chunk.length as usize)).ok());
            let Some(proved) = proved else {
                tracing::warn!(object = %subject.info.id, "the parity of this object is false; it is not used");
                return Ok(());
            };
            shards[at] = Some(proved.bytes().clone());
            subject.lease.put(Item::Chunk(proved)).await?;
        }
        let lost = (0..stripe.parity).filter(|at| shards[stripe.data + at].is_none());
        let lost: Vec<(usize, ChunkId)> =
            lost.filter_map(|at| Some((at, subject.parity_id(stripe, at)?))).collect();
        if lost.is_empty() {
            return Ok(());
        }
        let Some(encoded) = self.encode(stripe, &shards).await else { return Ok(()) };
        for (at, id) in lost {
            // Parity that is not what its maker claims stays lost.
            if let Some(chunk) = encoded.get(at).filter(|chunk| chunk.id() == id) {
                subject.lease.put(Item::Parity(chunk.clone())).await?;
            }
        }
        Ok(())
    }

    /// The parity chunks of a stripe whose data is all here.
    async fn encode(&self, stripe: &Stripe, shards: &[Option<Bytes>]) -> Option<Vec<Chunk>> {
        let data: Vec<Bytes> = shards.iter().take(stripe.data).cloned().collect::<Option<_>>()?;
        let stripe = *stripe;
        let encode = move || {
            let parity = erasure::encode(&stripe, &data).ok()?;
            parity.into_iter().map(|bytes| Chunk::compute(Place::Root, bytes).ok()).collect()
        };
        self.pool.run(encode).await
    }

    /// A stripe's data chunks, then its parity chunks, as far as they are here; each is proved.
    async fn gather(&self, subject: &Subject<'_>, stripe: &Stripe) -> Result<Vec<Option<Bytes>>, Error> {
        let mut shards = Vec::with_capacity(stripe.data + stripe.parity);
        for index in stripe.chunks() {
            let Some(chunk) = subject.manifest.chunk(index) else { return Ok(shards) };
            shards.push(match subject.manifest.is_zero(index) {
                true => Some(Bytes::from(vec![0; chunk.length as usize])),
                false => self.store.chunk(&chunk).await?.map(Chunk::into_bytes),
            });
        }
        let length = u32::try_from(stripe.shard).unwrap_or(u32::MAX);
        for at in 0..stripe.parity {
            shards.push(match subject.parity_id(stripe, at) {
                Some(id) => {
                    let chunk = crate::content::ChunkRef { id, place: Place::Root, length };
                    self.store.chunk(&chunk).await?.map(Chunk::into_bytes)
                }
                None => None,
            });
        }
        Ok(shards)
    }

    /// Makes an object's parity anew, when its part or pages are lost and its data is all here. Reads all of it.
    async fn remake(&self, subject: &Subject<'_>) -> Result<(), Error> {
        let mut ids = Vec::new();
        for stripe in subject.layout.iter() {
            let shards = self.gather(subject, &stripe).await?;
            let Some(encoded) = self.encode(&stripe, &shards).await else { return Ok(()) };
            for chunk in encoded {
                ids.push(chunk.id());
                subject.lease.put(Item::Parity(chunk)).await?;
            }
        }
        let (k, m) = (subject.geometry.k(), subject.geometry.m());
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let (object, length) = (subject.info.id, subject.info.length);
        let claim = ParityClaim { object, length, codec: CODEC_RS8, k, m, count };
        let (part, pages) = ParityPart::sign(claim, &ids, &self.key)?;
        for page in &pages {
            subject.lease.put(Item::ParityPage(page)).await?;
        }
        subject.lease.put(Item::ParityPart(&part)).await.map(|_| ())
    }
}

impl Subject<'_> {
    fn parity_id(&self, stripe: &Stripe, at: usize) -> Option<ChunkId> {
        let first = usize::try_from(stripe.first_parity).ok()?;
        self.parity.get(first + at).copied().flatten()
    }

    /// Whether a chunk of this stripe is among those.
    fn touches(&self, stripe: &Stripe, lost: &HashSet<[u8; 32]>) -> bool {
        let mut data = stripe.chunks().filter_map(|index| self.manifest.chunk(index));
        let mut parity = (0..stripe.parity).filter_map(|at| self.parity_id(stripe, at));
        data.any(|chunk| lost.contains(chunk.id.as_bytes())) || parity.any(|id| lost.contains(id.as_bytes()))
    }
}

/// The ids of chunks, data and parity, among these.
pub(super) fn ids_of(missing: &[RecordName]) -> HashSet<[u8; 32]> {
    let chunks = missing.iter().filter(|name| matches!(name.kind, Kind::Data | Kind::Parity));
    chunks.map(|name| name.id).collect()
}
