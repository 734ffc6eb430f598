//! One add: cut, hash, store, encode, seal.
//!
//! Chunks are hashed and stored several at a time, parity beside them; results are taken in order. Nothing else is
//! awaited meanwhile: what is under way holds places in the pool and in the store's queue, which only polling moves on.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::cut::Cutter;
use super::feed::Input;
use super::stripes::Stripes;
use super::{AddOptions, Added, Error, Ingest, new_object};
use crate::content::{
    self, CHUNK_LEN, CODEC_RS8, Chunk, ManifestBuilder, ObjectId, ParityClaim, ParityPart, Place,
};
use crate::erasure::{Geometry, Layout};
use crate::store::{Committed, Item, Lease};

/// Chunks of one add that are hashed and written at once, 1 MiB each: processors and disk have something to do, and
/// what one waits for does not stop the others.
const STORING: usize = 4;

/// An object whose records are all in the store, under a lease, and which is not entered yet.
pub(super) struct Sealed {
    pub(super) id: ObjectId,
    pub(super) size: u64,
    pub(super) parity: Option<Geometry>,
}

/// Runs one add to its end. Dropping the sender without a finish ends it with nothing.
pub(super) async fn run(
    ingest: Ingest,
    options: AddOptions,
    input: mpsc::Receiver<Input>,
) -> Result<Added, Error> {
    let lease = Arc::new(ingest.store.lease());
    let sealed = seal(ingest, Arc::clone(&lease), options.clone(), input).await?;
    let known = Added::known(sealed.id, sealed.size, &options)?;
    if sealed.size == 0 {
        return Ok(known);
    }
    let entry = new_object(sealed.id, sealed.size, sealed.parity, &options);
    let created = lease.commit(entry).await? == Committed::Created;
    Ok(Added { created, ..known })
}

/// As [`run`], up to where the object is to be entered.
pub(super) async fn seal(
    ingest: Ingest,
    lease: Arc<Lease>,
    options: AddOptions,
    input: mpsc::Receiver<Input>,
) -> Result<Sealed, Error> {
    let stopping = ingest.tasks.clone();
    let add = Add::new(ingest, lease, options);
    tokio::select! {
        done = add.drive(input) => done,
        () = stopping.stopping() => Err(Error::Stopping),
    }
}

/// Work that goes on at once, with its results in order.
type Working<T> = FuturesOrdered<BoxFuture<'static, Result<T, Error>>>;

/// The state of one add.
struct Add {
    ingest: Ingest,
    options: AddOptions,
    lease: Arc<Lease>,
    cutter: Option<Cutter>,
    /// The first chunk, kept back until it is known whether it is the only one.
    first: Option<bytes::Bytes>,
    /// Chunks that are being hashed and written.
    storing: Working<Chunk>,
    /// Stripes whose parity is being computed and written.
    encoding: Working<Vec<Chunk>>,
    /// Bytes received.
    length: u64,
    /// Chunks cut so far.
    cut: u64,
    manifest: ManifestBuilder,
    stripes: Option<Stripes>,
}

impl Add {
    fn new(ingest: Ingest, lease: Arc<Lease>, options: AddOptions) -> Self {
        let stripes = options.parity.map(|geometry| Stripes::new(geometry, options.length));
        Self {
            ingest,
            options,
            lease,
            cutter: Some(Cutter::default()),
            first: None,
            storing: Working::new(),
            encoding: Working::new(),
            length: 0,
            cut: 0,
            manifest: ManifestBuilder::new(),
            stripes,
        }
    }

    /// Takes input while there is room, and what is done as it is.
    async fn drive(mut self, mut input: mpsc::Receiver<Input>) -> Result<Sealed, Error> {
        self.reserve().await?;
        loop {
            // One stripe is encoded while the next comes in, so that what is held of the stream is bounded.
            let has_room = self.storing.len() < STORING && self.encoding.len() < 2;
            tokio::select! {
                biased;
                Some(parity) = self.encoding.next() => self.encoded(parity?),
                Some(chunk) = self.storing.next() => self.take(&chunk?)?,
                message = input.recv(), if has_room => match message {
                    Some(Input::Data(bytes)) => self.receive(bytes)?,
                    Some(Input::Finish(said)) => return self.finish(said).await,
                    None => return Err(Error::Unfinished),
                },
            }
        }
    }

    /// Waits for all that is under way.
    async fn settle(&mut self) -> Result<(), Error> {
        while !self.storing.is_empty() || !self.encoding.is_empty() {
            tokio::select! {
                biased;
                Some(parity) = self.encoding.next() => self.encoded(parity?),
                Some(chunk) = self.storing.next() => self.take(&chunk?)?,
                else => {}
            }
        }
        Ok(())
    }

    /// Reserves room for what is announced, parity and all, so that what cannot fit is refused before much of it is
    /// sent; not at once, since what is here already needs none. Of a file with holes that is its data, with parity in
    /// proportion: what more it takes, because there are holes in its chunks or its stripes, is reserved as it comes.
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
        Ok(self.lease.reserve_new(u64::try_from(share).unwrap_or(whole)).await?)
    }

    /// Cuts a message and begins to store what is complete.
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
        cutter.push(bytes, |full| self.cut_off(full));
        self.cutter = Some(cutter);
        Ok(())
    }

    /// Begins to store the next chunk; the first one waits for a second.
    fn cut_off(&mut self, bytes: bytes::Bytes) {
        if self.cut == 0 && self.first.is_none() {
            self.first = Some(bytes);
            return;
        }
        if let Some(first) = self.first.take() {
            self.store(first);
        }
        self.store(bytes);
    }

    /// Begins to hash a chunk and to write it.
    fn store(&mut self, bytes: bytes::Bytes) {
        let place = Place::At(self.cut * CHUNK_LEN);
        self.cut += 1;
        let (pool, lease) = (self.ingest.pool.clone(), Arc::clone(&self.lease));
        self.storing.push_back(Box::pin(async move {
            let hash = move || Chunk::compute(place, bytes).map_err(content::Error::from);
            let chunk = pool.run(hash).await?;
            if !chunk.is_zero() {
                lease.put_new(vec![Item::Chunk(chunk.clone())]).await?;
            }
            Ok(chunk)
        }));
    }

    /// Takes the next stored chunk, in order.
    fn take(&mut self, chunk: &Chunk) -> Result<(), Error> {
        self.manifest.push(chunk)?;
        if let Some(stripes) = &mut self.stripes {
            stripes.push(chunk.bytes().clone());
        }
        self.encode();
        Ok(())
    }

    /// Begins to compute the parity of the stripes that are ready, and to write it.
    fn encode(&mut self) {
        while let Some(ready) = self.stripes.as_mut().and_then(Stripes::ready) {
            let (pool, lease) = (self.ingest.pool.clone(), Arc::clone(&self.lease));
            self.encoding.push_back(Box::pin(async move {
                let parity = pool.run(move || ready.encode()).await?;
                lease.put_new(parity.iter().cloned().map(Item::Parity).collect()).await?;
                Ok(parity)
            }));
        }
    }

    /// Notes the parity of the next stripe.
    fn encoded(&mut self, parity: Vec<Chunk>) {
        if let Some(stripes) = &mut self.stripes {
            stripes.done(parity);
        }
    }

    /// The end of the stream: the rest, the manifest, and the parity part.
    async fn finish(mut self, said: u64) -> Result<Sealed, Error> {
        let got = self.length;
        if said != got || self.options.length.is_some_and(|length| length != got) {
            return Err(Error::Length { said: self.options.length.unwrap_or(said), got });
        }
        let rest = self.cutter.take().map(Cutter::rest).unwrap_or_default();
        if got <= CHUNK_LEN {
            let bytes = self.first.take().unwrap_or(rest);
            return self.only_chunk(bytes).await;
        }
        if !rest.is_empty() {
            self.cut_off(rest);
        }
        self.settle().await?;
        if let Some(stripes) = &mut self.stripes {
            stripes.end(got);
        }
        self.encode();
        self.settle().await?;
        self.seal().await
    }

    /// An object of at most one chunk.
    async fn only_chunk(self, bytes: bytes::Bytes) -> Result<Sealed, Error> {
        if bytes.is_empty() {
            return Ok(Sealed { id: ObjectId::EMPTY, size: 0, parity: None });
        }
        let chunk = self.ingest.only_chunk(bytes).await?;
        let (id, size) = (ObjectId::from_bytes(*chunk.id().as_bytes()), self.length);
        Added::known(id, size, &self.options)?;
        self.lease.put_new(vec![Item::Chunk(chunk)]).await?;
        Ok(Sealed { id, size, parity: None })
    }

    /// All chunks are there: the manifest, and what proves parity. Nothing is believed of them before the journal names
    /// their object, so one sync before that covers them and the chunks.
    async fn seal(self) -> Result<Sealed, Error> {
        let manifest = self.manifest.finish()?;
        let (id, size) = (manifest.id(), manifest.length());
        Added::known(id, size, &self.options)?;
        self.lease.put_manifest(&manifest).await?;
        let parity = match self.stripes {
            Some(stripes) => Some(put_part(&self.ingest, &self.lease, id, size, stripes).await?),
            None => None,
        };
        Ok(Sealed { id, size, parity })
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
