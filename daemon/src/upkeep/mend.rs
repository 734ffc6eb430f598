//! Bringing back what an object lacks: from its stripes' parity first, which needs nobody, then from peers.

use std::ops::Range;
use std::time::Duration;

use super::rebuild::{Rebuilder, ids_of};
use crate::content::{CHUNK_LEN, ChunkId};
use crate::fetch::{Event, Fetcher, Order, Request};
use crate::store::{Error, ObjectInfo, RecordName, Store};

/// How long peers may give nothing before an object's damage is left to the next pass.
const STALL: Duration = Duration::from_secs(10);

/// How long it waits when nobody was found to ask: nobody reads it now, and the next pass asks again.
const ALONE: Duration = Duration::from_secs(1);

/// What mends.
pub struct Mender {
    /// Brings what it can from here.
    pub rebuilder: Rebuilder,
    /// Brings what cannot be rebuilt.
    pub fetcher: Fetcher,
}

impl Mender {
    /// What is mended.
    pub(super) fn store(&self) -> &Store {
        &self.rebuilder.store
    }

    /// Asks peers for what an object lacks: its manifest, and data chunks. Whether all of that came. A private object
    /// is nobody's business.
    pub(super) async fn fetch(&self, info: &ObjectInfo, missing: &[RecordName]) -> Result<bool, Error> {
        if info.private {
            return Ok(false);
        }
        if info.length <= CHUNK_LEN {
            return Ok(self.fetch_range(info, 0..info.length).await);
        }
        let manifest = match self.store().manifest(&info.id).await? {
            Some(manifest) => manifest,
            // No byte of it: only what proves it.
            None if self.fetch_range(info, 0..0).await => match self.store().manifest(&info.id).await? {
                Some(manifest) => manifest,
                None => return Ok(false),
            },
            None => return Ok(false),
        };
        let lost = ids_of(missing);
        let is_lost = |index: &u64| {
            let is_listed = |chunk: &ChunkId| lost.contains(chunk.as_bytes()) || !self.store().has(chunk);
            !manifest.is_zero(*index) && manifest.chunk(*index).is_some_and(|chunk| is_listed(&chunk.id))
        };
        let lost: Vec<u64> = (0..manifest.chunks()).filter(is_lost).collect();
        for run in lost.chunk_by(|a, b| a + 1 == *b) {
            let end = (run[run.len() - 1] + 1) * CHUNK_LEN;
            if !self.fetch_range(info, run[0] * CHUNK_LEN..end.min(info.length)).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn fetch_range(&self, info: &ObjectInfo, range: Range<u64>) -> bool {
        let mut fetching = self.fetcher.fetch(Request {
            id: info.id,
            peers: Vec::new(),
            pin: None,
            name: None,
            stall: STALL,
            alone: ALONE,
            order: Order::Any,
            range: Some((range.start, range.end - range.start)),
            into: None,
        });
        loop {
            match fetching.events.recv().await {
                Some(Ok(Event::Finished(_))) => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }
}
