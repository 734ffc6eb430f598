//! A store as it is after a million chunks: real headers, footers, manifests and journal, payloads left as holes.
//!
//! `CASD_GENERATE=FOLDER CASD_OBJECTS=1000 CASD_CHUNKS=1000` leaves it in a folder for a daemon to be started on;
//! without
//! them a small one is made and thrown away.

use std::io::IoSlice;

use super::*;
use crate::store::disk::File;
use crate::store::journal::{Fact, Journal};
use crate::store::record::{Record, StoreKey, footer, footer_entry};

/// Bytes of records in a segment.
const LIMIT: u64 = 1 << 30;

/// The segment that is being filled.
struct Segments {
    disk: Arc<dyn Disk>,
    key: StoreKey,
    number: u32,
    file: Arc<dyn File>,
    offset: u64,
    list: Vec<u8>,
}

impl Segments {
    fn new(disk: Arc<dyn Disk>, key: StoreKey) -> Self {
        let file = disk.open(Path::new(SEGMENT)).unwrap();
        Self { disk, key, number: 1, file, offset: 0, list: Vec::new() }
    }

    /// Writes a record, or only its header.
    fn put(&mut self, record: &Record, has_payload: bool) {
        let footprint = record.header.footprint();
        if self.offset + footprint > LIMIT {
            self.seal();
        }
        let parts = record.parts(&self.key, self.number, self.offset);
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        slices.retain(|part| !part.is_empty());
        // A payload of more than a few KiB begins in the block behind the header's.
        slices.truncate(if has_payload { 4 } else { 2 });
        self.file.write_at(self.offset, &mut slices).unwrap();
        self.list.extend_from_slice(&footer_entry(&record.header, self.offset as u32));
        self.offset += footprint;
    }

    fn seal(&mut self) {
        let list = std::mem::take(&mut self.list).into();
        let image = footer(list, &self.key, self.number, self.offset, 1);
        self.file.write_at(self.offset, &mut [IoSlice::new(&image)]).unwrap();
        self.number += 1;
        let path = format!("segments/{:08}.seg", self.number);
        (self.file, self.offset) = (self.disk.create(Path::new(&path)).unwrap(), 0);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// An object of chunks that differ in their first bytes only.
fn object(number: u64, chunks: u64, segments: &mut Segments) -> ObjectInfo {
    let mut builder = ManifestBuilder::new();
    for index in 0..chunks {
        let mut bytes = vec![7; CHUNK];
        bytes[..8].copy_from_slice(&(number * chunks + index).to_le_bytes());
        let chunk = Chunk::compute(Place::At(index * CHUNK as u64), bytes.into()).unwrap();
        builder.push(&chunk).unwrap();
        segments.put(&Record::chunk(Kind::Data, &chunk, 1), false);
    }
    let manifest = builder.finish().unwrap();
    for (index, page) in manifest.pages().iter().enumerate() {
        segments.put(&Item::Page(manifest.top(), index, page).record().unwrap(), true);
    }
    segments.put(&Item::Top(manifest.top()).record().unwrap(), true);
    let new = NewObject { pin: Some(0), ..NewObject::new(manifest.id(), manifest.length(), 1) };
    new.into_info(State::Whole)
}

#[tokio::test]
async fn a_generated_store_is_indexed_anew() {
    let (objects, chunks) = (setting("CASD_OBJECTS", 5), setting("CASD_CHUNKS", 7));
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("CASD_GENERATE");
    let folder = kept.as_ref().map_or(temporary.path(), |folder| Path::new(folder));
    let store = open_real(folder);
    let key = store.inner.catalog.key;
    // A store that is closed before its index is whole is not closed in order: payloads would be looked at.
    store.recovered().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    return_lock(folder).await;
    let disk: Arc<dyn Disk> = Arc::new(Real::new(folder));
    let mut segments = Segments::new(Arc::clone(&disk), key);
    let infos: Vec<_> = (0..objects).map(|number| object(number, chunks, &mut segments)).collect();
    segments.file.sync().unwrap();
    let mut journal = Journal::open(Arc::clone(&disk), key, 1 << 20, |_| {}).unwrap();
    let mut frames = journal.frames();
    infos.iter().for_each(|info| frames.push(&Fact::Object(info.clone())));
    journal.write(&frames).unwrap();
    journal.sync().unwrap();
    std::fs::remove_dir_all(folder.join("index")).unwrap();
    if kept.is_some() {
        return;
    }
    let store = open_real(folder);
    store.recovered().await.unwrap();
    for info in &infos {
        assert_eq!(store.local_chunks(&info.id).await.unwrap(), Some(chunks));
    }
    let records = objects * (chunks + 2);
    let stored = objects * (chunks * (CHUNK as u64 + 4096) + 2 * 4096);
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.objects, usage.stored_bytes), (objects, stored), "{records} records");
}
