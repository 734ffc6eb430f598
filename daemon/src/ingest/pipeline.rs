//! One add: cut, hash, store, encode, seal.

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::cut::Cutter;
use super::stripes::Stripes;
use super::{AddOptions, Added, Error, Ingest, Input, new_object};
use crate::content::{
    self, CHUNK_LEN, CODEC_RS8, Chunk, ManifestBuilder, ObjectId, ParityClaim, ParityPart, Place,
};
use crate::erasure::{Geometry, Layout};
use crate::store::{Committed, Item, Lease};

/// Chunks of one add that are hashed at once.
const HASHING: usize = 4;

/// Runs one add to its end. Dropping the sender without a finish ends it with nothing.
pub(super) async fn run(
    ingest: Ingest,
    options: AddOptions,
    input: mpsc::Receiver<Input>,
) -> Result<Added, Error> {
    let stopping = ingest.tasks.clone();
    let add = Add::new(ingest, options);
    tokio::select! {
        done = add.drive(input) => done,
        () = stopping.stopping() => Err(Error::Stopping),
    }
}

/// The chunks that are being hashed, in order.
type Hashing = FuturesOrdered<BoxFuture<'static, Result<Chunk, content::Error>>>;

/// The state of one add.
struct Add {
    ingest: Ingest,
    options: AddOptions,
    lease: Lease,
    cutter: Option<Cutter>,
    /// The first chunk, kept back until it is known whether it is the only one.
    first: Option<bytes::Bytes>,
    hashing: Hashing,
    /// Bytes received.
    length: u64,
    /// Chunks cut so far.
    cut: u64,
    manifest: ManifestBuilder,
    stripes: Option<Stripes>,
}

impl Add {
    fn new(ingest: Ingest, options: AddOptions) -> Self {
        let lease = ingest.store.lease();
        let stripes = options.parity.map(|geometry| Stripes::new(geometry, options.length));
        Self {
            ingest,
            options,
            lease,
            cutter: Some(Cutter::default()),
            first: None,
            hashing: Hashing::new(),
            length: 0,
            cut: 0,
            manifest: ManifestBuilder::new(),
            stripes,
        }
    }

    /// Takes input while there is room, and hashed chunks as they come.
    async fn drive(mut self, mut input: mpsc::Receiver<Input>) -> Result<Added, Error> {
        self.reserve().await?;
        loop {
            tokio::select! {
                biased;
                Some(chunk) = self.hashing.next() => self.take(chunk?).await?,
                message = input.recv(), if self.hashing.len() < HASHING => match message {
                    Some(Input::Data(bytes)) => self.receive(bytes)?,
                    Some(Input::Finish(said)) => return self.finish(said).await,
                    None => return Err(Error::Unfinished),
                },
            }
        }
    }

    /// Reserves room for what is announced, parity and all, so that what cannot fit is refused before it is sent. Of a
    /// file with holes that is its data, with parity in proportion: what more it takes, because there are holes in its
    /// chunks or its stripes, is reserved as it comes.
    async fn reserve(&mut self) -> Result<(), Error> {
        let Some(length) = self.options.length.filter(|length| *length > CHUNK_LEN) else { return Ok(()) };
        if length > content::MAX_OBJECT {
            return Err(content::Error::TooLong { length }.into());
        }
        let layout = self.options.parity.and_then(|geometry| Layout::new(length, geometry));
        let parity = layout.map_or(0, |layout| layout.parity_chunks().saturating_mul(CHUNK_LEN));
        let data = self.options.data.map_or(length, |data| data.min(length));
        let whole = length.saturating_add(parity);
        let share = u128::from(whole) * u128::from(data) / u128::from(length);
        Ok(self.lease.reserve(u64::try_from(share).unwrap_or(whole)).await?)
    }

    /// Cuts a message and begins to hash what is complete.
    fn receive(&mut self, bytes: bytes::Bytes) -> Result<(), Error> {
        let length = self.length + bytes.len() as u64;
        if length > content::MAX_OBJECT {
            return Err(content::Error::TooLong { length }.into());
        }
        if let Some(said) = self.options.length.filter(|said| length > *said) {
            return Err(Error::Length { said, got: length });
        }
        self.length = length;
        let Some(mut cutter) = self.cutter.take() else { return Ok(()) };
        cutter.push(bytes, |full| self.hash_later(full));
        self.cutter = Some(cutter);
        Ok(())
    }

    /// Begins to hash the next chunk; the first one waits for a second.
    fn hash_later(&mut self, bytes: bytes::Bytes) {
        if self.cut == 0 && self.first.is_none() {
            self.first = Some(bytes);
            return;
        }
        if let Some(first) = self.first.take() {
            self.hash(first);
        }
        self.hash(bytes);
    }

    fn hash(&mut self, bytes: bytes::Bytes) {
        let place = Place::At(self.cut * CHUNK_LEN);
        self.cut += 1;
        let pool = self.ingest.pool.clone();
        let work =
            async move { pool.run(move || Chunk::compute(place, bytes)).await.map_err(content::Error::from) };
        self.hashing.push_back(Box::pin(work));
    }

    /// Takes the next hashed chunk, in order.
    async fn take(&mut self, chunk: Chunk) -> Result<(), Error> {
        self.manifest.push(&chunk)?;
        if let Some(stripes) = &mut self.stripes {
            stripes.push(chunk.bytes().clone());
        }
        if !chunk.is_zero() {
            self.lease.put(Item::Chunk(chunk)).await?;
        }
        self.encode().await
    }

    /// Encodes and stores the parity of the stripes that are ready.
    async fn encode(&mut self) -> Result<(), Error> {
        while let Some(ready) = self.stripes.as_mut().and_then(Stripes::ready) {
            let parity = self.ingest.pool.run(move || ready.encode()).await?;
            if let Some(stripes) = &mut self.stripes {
                stripes.done(&parity);
            }
            for chunk in parity {
                self.lease.put(Item::Parity(chunk)).await?;
            }
        }
        Ok(())
    }

    /// The end of the stream: the rest, the manifest, the parity part, and the object.
    async fn finish(mut self, said: u64) -> Result<Added, Error> {
        let got = self.length;
        if said != got || self.options.length.is_some_and(|length| length != got) {
            return Err(Error::Length { said: self.options.length.unwrap_or(said), got });
        }
        let rest = self.cutter.take().map(Cutter::rest).unwrap_or_default();
        if got <= CHUNK_LEN {
            let bytes = self.first.take().unwrap_or(rest);
            return self.ingest.add_small(bytes, self.options).await;
        }
        if !rest.is_empty() {
            self.hash_later(rest);
        }
        while let Some(chunk) = self.hashing.next().await {
            self.take(chunk?).await?;
        }
        if let Some(stripes) = &mut self.stripes {
            stripes.end(got);
        }
        self.encode().await?;
        self.seal().await
    }

    /// Chunks durable, then the manifest, then the object.
    async fn seal(self) -> Result<Added, Error> {
        let manifest = self.manifest.finish()?;
        let known = Added::known(manifest.id(), manifest.length(), &self.options)?;
        self.lease.sync().await?;
        self.lease.put_manifest(&manifest).await?;
        let parity = match self.stripes {
            Some(stripes) => Some(put_part(&self.ingest, &self.lease, known.id, known.size, stripes).await?),
            None => None,
        };
        let entry = new_object(known.id, known.size, parity, &self.options);
        let created = self.lease.commit(entry).await? == Committed::Created;
        Ok(Added { created, ..known })
    }
}

/// Signs and stores the parity part of an object.
async fn put_part(
    ingest: &Ingest,
    lease: &Lease,
    object: ObjectId,
    length: u64,
    stripes: Stripes,
) -> Result<Geometry, Error> {
    let (geometry, ids) = stripes.finish();
    let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let claim = ParityClaim { object, length, codec: CODEC_RS8, k: geometry.k(), m: geometry.m(), count };
    let (part, pages) = ParityPart::sign(claim, &ids, &ingest.key)?;
    for page in &pages {
        lease.put(Item::ParityPage(page)).await?;
    }
    lease.put(Item::ParityPart(&part)).await?;
    Ok(geometry)
}
