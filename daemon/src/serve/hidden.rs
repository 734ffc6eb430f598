//! The chunks of private objects: they are not there for others, whoever asks for them by their ids.
//!
//! A chunk that a public object has as well is hidden too: it is the private one's owner who was promised something.
//! Parity chunks are hidden like data: whoever has the file could compute their ids and learn that it is here.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use crate::content::{CHUNK_LEN, ChunkId, ObjectId};
use crate::store::Store;

/// The chunks that no peer may have.
pub(super) struct Hidden {
    store: Store,
    known: Mutex<Known>,
    /// Held while the set is made anew, so that it is made once.
    making: AsyncMutex<()>,
}

#[derive(Default)]
struct Known {
    /// The private objects that were looked at.
    objects: Option<Arc<BTreeSet<ObjectId>>>,
    chunks: Arc<HashSet<ChunkId>>,
}

impl Hidden {
    pub(super) fn new(store: Store) -> Self {
        Self { store, known: Mutex::default(), making: AsyncMutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunks of private objects; `None` when they cannot be told, and nothing is to be given. Costs nothing while
    /// no object is private; otherwise the manifests of the private ones are read again when one comes or goes.
    pub(super) async fn chunks(&self) -> Option<Arc<HashSet<ChunkId>>> {
        let now = self.store.private_objects();
        if let Some(chunks) = self.recall(&now) {
            return Some(chunks);
        }
        let _alone = self.making.lock().await;
        if let Some(chunks) = self.recall(&now) {
            return Some(chunks);
        }
        let mut chunks = HashSet::new();
        for object in now.iter() {
            self.add_chunks(object, &mut chunks).await?;
        }
        let chunks = Arc::new(chunks);
        *self.known() = Known { objects: Some(now), chunks: Arc::clone(&chunks) };
        Some(chunks)
    }

    /// The set, when it was made of just these objects.
    fn recall(&self, now: &Arc<BTreeSet<ObjectId>>) -> Option<Arc<HashSet<ChunkId>>> {
        let known = self.known();
        let same = known.objects.as_ref().is_some_and(|objects| Arc::ptr_eq(objects, now));
        same.then(|| Arc::clone(&known.chunks))
    }

    /// Adds what one object consists of. `None` when a record of it cannot be read.
    async fn add_chunks(&self, object: &ObjectId, chunks: &mut HashSet<ChunkId>) -> Option<()> {
        chunks.insert(object.only_chunk());
        let Some(info) = self.store.object(object).filter(|info| info.length > CHUNK_LEN) else {
            return Some(());
        };
        let manifest = self.store.manifest(object).await.ok()??;
        chunks.extend((0..manifest.chunks()).filter_map(|index| Some(manifest.chunk(index)?.id)));
        if info.parity.is_some() {
            let (_, pages) = self.store.parity(object).await.ok()??;
            pages.iter().for_each(|page| chunks.extend(page.ids()));
        }
        Some(())
    }
}
