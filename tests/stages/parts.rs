//! Stages that need no peer: proving, parity, the store, and a daemon's API.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use casd::content::{CHUNK, CHUNK_LEN, Chunk, Place};
use casd::erasure::{self, Geometry, Layout};
use casd::store::{self, Item, Real, Store};
use casd::support::pool::Pool;
use casd_proto::client;
use casd_proto::v1::CatRequest;
use casd_tests::corpus;
use futures::{StreamExt, stream};

use crate::costs::{Cost, Failure, Watch};

/// Different MiB that there are: more than a processor's caches hold.
const BLOCKS: u64 = 64;

/// Calls of the store at once.
const AT_ONCE: usize = 8;

/// Chunks of one stripe, and those of them that are lost.
const STRIPE: usize = 16;
const LOST: usize = 4;

/// Different bytes, a MiB each.
fn blocks(count: u64) -> Vec<Bytes> {
    (0..count).map(|seed| corpus::bytes(seed, CHUNK).into()).collect()
}

/// An object of so many chunks. They share memory; each has an id of its own by its place.
pub(crate) fn chunks(count: u64) -> Result<Vec<Chunk>, Failure> {
    let blocks = blocks(BLOCKS.min(count));
    let places = (0..count).map(|index| Place::At(index * CHUNK_LEN));
    let chunks = places.zip(blocks.iter().cycle()).map(|(place, block)| Chunk::compute(place, block.clone()));
    Ok(chunks.collect::<Result<_, _>>()?)
}

/// Bytes of chunks.
pub(crate) fn length(chunks: &[Chunk]) -> u64 {
    chunks.len() as u64 * CHUNK_LEN
}

/// Proves all chunks.
pub(crate) fn prove(chunks: &[Chunk]) -> Result<Cost, Failure> {
    let watch = Watch::start();
    for chunk in chunks {
        chunk.reference().verify(chunk.bytes().clone())?;
    }
    Ok(watch.stop(length(chunks)))
}

/// Parity of stripes of so many MiB together; and the same stripes rebuilt of which some chunks are lost.
pub(crate) fn code(mib: u64) -> Result<(Cost, Cost), Failure> {
    let data = blocks(STRIPE as u64);
    let layout = Layout::new(2 * STRIPE as u64 * CHUNK_LEN, Geometry::DEFAULT);
    let stripe = layout.and_then(|layout| layout.stripe(0)).ok_or("there is no such stripe")?;
    let rounds = mib.div_ceil(STRIPE as u64);
    let bytes = rounds * STRIPE as u64 * CHUNK_LEN;
    let mut parity = Vec::new();
    let watch = Watch::start();
    for _ in 0..rounds {
        parity = erasure::encode(&stripe, &data)?;
    }
    let encoded = watch.stop(bytes);
    let left = data.iter().skip(LOST).cloned().map(Some);
    let shards: Vec<Option<Bytes>> =
        std::iter::repeat_n(None, LOST).chain(left).chain(parity.into_iter().map(Some)).collect();
    let mut rebuilt = Vec::new();
    let watch = Watch::start();
    for _ in 0..rounds {
        rebuilt = erasure::rebuild(&stripe, &shards)?;
    }
    let done = watch.stop(bytes);
    if rebuilt.iter().zip(&data).any(|((_, bytes), data)| bytes != data) {
        return Err("a stripe was rebuilt to something else".into());
    }
    Ok((encoded, done))
}

/// Appends all chunks to a new store in `folder` until they are durable, and reads them back.
pub(crate) async fn store(folder: &Path, chunks: &[Chunk]) -> Result<(Cost, Cost), Failure> {
    let folder = tempfile::Builder::new().prefix("casd-stages-").tempdir_in(folder)?;
    let options = store::Options { reserve: 0, ..store::Options::default() };
    let store = Store::open(&options, Arc::new(Real::new(folder.path())), Pool::per_core())?;
    store.recovered().await?;
    let lease = store.lease();
    let watch = Watch::start();
    let puts = stream::iter(chunks.to_vec()).map(|chunk| lease.put(Item::Chunk(chunk)));
    let mut puts = puts.buffer_unordered(AT_ONCE);
    while let Some(put) = puts.next().await {
        put?;
    }
    drop(puts);
    lease.sync().await?;
    let appended = watch.stop(length(chunks));
    let references: Vec<_> = chunks.iter().map(Chunk::reference).collect();
    let watch = Watch::start();
    let reads = stream::iter(references).map(|chunk| {
        let store = store.clone();
        async move { store.chunk(&chunk).await }
    });
    let mut reads = reads.buffer_unordered(AT_ONCE);
    while let Some(read) = reads.next().await {
        read?.ok_or("a chunk is not there any more")?;
    }
    drop(reads);
    let read = watch.stop(length(chunks));
    drop(lease);
    store.close().await?;
    Ok((appended, read))
}

/// Reads an object of a daemon by Cat.
pub(crate) async fn cat(socket: &Path, object: &str) -> Result<Cost, Failure> {
    let mut objects = client::objects(client::connect(socket).await?);
    let request = CatRequest { object: object.to_owned(), offset: 0, length: None };
    let (watch, mut bytes) = (Watch::start(), 0);
    let mut parts = objects.cat(request).await?.into_inner();
    while let Some(part) = parts.message().await? {
        bytes += part.data.len() as u64;
    }
    Ok(watch.stop(bytes))
}
