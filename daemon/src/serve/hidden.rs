//! The chunks of private objects: they are not there for others, whoever asks for them by their ids.
//!
//! A chunk that a public object has as well is hidden too: it is the private one's owner who was promised something.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::content::{ChunkId, ObjectId};
use crate::store::Store;

/// The chunks that no peer may have.
pub(super) struct Hidden {
    store: Store,
    known: Mutex<Arc<Known>>,
}

#[derive(Default)]
struct Known {
    /// The private objects that were looked at.
    objects: Option<Arc<BTreeSet<ObjectId>>>,
    chunks: HashSet<ChunkId>,
}

impl Hidden {
    pub(super) fn new(store: Store) -> Self {
        Self { store, known: Mutex::default() }
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a private object has this chunk. Costs nothing while no object is private; otherwise the manifests of
    /// the private ones are read again when one comes or goes.
    pub(super) async fn contains(&self, chunk: &ChunkId) -> bool {
        let now = self.store.private_objects();
        let known = self.known();
        if known.objects.as_ref().is_some_and(|objects| Arc::ptr_eq(objects, &now)) {
            return known.chunks.contains(chunk);
        }
        let mut chunks = HashSet::new();
        for object in now.iter() {
            chunks.insert(object.only_chunk());
            if let Ok(Some(manifest)) = self.store.manifest(object).await {
                chunks.extend((0..manifest.chunks()).filter_map(|index| Some(manifest.chunk(index)?.id)));
            }
        }
        let hidden = chunks.contains(chunk);
        let known = Arc::new(Known { objects: Some(now), chunks });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        hidden
    }
}
