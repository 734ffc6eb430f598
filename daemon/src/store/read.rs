//! Reading, each time with a proof.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::lease::parity_part_key;
use super::object::ObjectInfo;
use super::record::{Key, Kind};
use super::{Error, Inner, Store};
use crate::content::{
    CHUNK_LEN, CODEC_RS8, Chunk, ChunkId, ChunkRef, Manifest, ManifestPage, ManifestTop, ObjectId,
    ParityPage, ParityPart, Place,
};

impl Store {
    /// Reads a chunk, data or parity, and verifies it: a look-up, one read of the disk, one hash, off the
    /// runtime. `None`: it is not here. One that is damaged is told of ([`Store::take_damage`]) and counts as
    /// not here from then on.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk fails, [`Error::Index`].
    pub async fn chunk(&self, chunk: &ChunkRef) -> Result<Option<Chunk>, Error> {
        let chunk = *chunk;
        self.look_up(move |store| store.chunk(&chunk)).await
    }

    /// As [`Store::chunk`], of many, in their order.
    ///
    /// # Errors
    /// As [`Store::chunk`].
    pub async fn chunks(&self, chunks: Vec<ChunkRef>) -> Result<Vec<Option<Chunk>>, Error> {
        self.inner.whole().await?;
        self.blocking(move |store| chunks.iter().map(|chunk| store.chunk(chunk)).collect()).await
    }

    /// The one chunk of an object that has no more, also where only a lease keeps it and the object has not been
    /// entered.
    ///
    /// # Errors
    /// As [`Store::chunk`].
    pub async fn only_chunk(&self, id: &ObjectId) -> Result<Option<Chunk>, Error> {
        let id = id.only_chunk();
        self.look_up(move |store| {
            let entry = store.catalog.find(&Key::data(&id))?;
            let length = entry.filter(|entry| entry.place == Place::Root).map(|entry| entry.length);
            length.map_or(Ok(None), |length| store.chunk(&ChunkRef { id, place: Place::Root, length }))
        })
        .await
    }

    /// Whether the chunk, data or parity, is here as far as the index knows. Takes microseconds; may read a page
    /// of the index. To build on it use [`super::Lease::hold`].
    #[must_use]
    pub fn has(&self, id: &ChunkId) -> bool {
        self.inner.has(id)
    }

    /// Forgets a chunk, as if its record had been found damaged.
    #[cfg(test)]
    pub(crate) fn lose(&self, id: &ChunkId) {
        let key = Key::data(id);
        if let Ok(Some(entry)) = self.inner.catalog.find(&key) {
            self.inner.catalog.damaged(&key, &entry);
        }
    }

    /// How many leases live.
    #[cfg(test)]
    pub(crate) fn leases(&self) -> usize {
        self.inner.catalog.leases()
    }

    /// [`Store::has`] for many, in their order, off the runtime; what is missed is looked for again when the index
    /// names every record.
    pub async fn has_all(&self, ids: Vec<ChunkId>) -> Vec<bool> {
        let ids = Arc::new(ids);
        let (was_whole, breaks, first) = (self.inner.is_whole(), self.inner.gauge.breaks(), Arc::clone(&ids));
        let look = |store: &Inner, ids: &[ChunkId]| ids.iter().map(|id| store.has(id)).collect::<Vec<_>>();
        let there = self.blocking(move |store| look(store, &first)).await;
        if there.iter().all(|there| *there) || (was_whole && self.inner.gauge.breaks() == breaks) {
            return there;
        }
        // A store that is closed, or whose index cannot be brought up, has what it knows of.
        self.inner.look_all(move |store| Ok((look(store, &ids), ()))).await.map_or(there, |(there, ())| there)
    }

    /// The top of an object's manifest.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn top(&self, id: &ObjectId) -> Result<Option<ManifestTop>, Error> {
        let id = *id;
        self.look_up(move |store| store.top(&id)).await
    }

    /// Page `index` of a manifest.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn page(&self, top: &ManifestTop, index: usize) -> Result<Option<ManifestPage>, Error> {
        let top = top.clone();
        self.look_up(move |store| store.page(&top, index)).await
    }

    /// An object's whole manifest. `None` also when a page of it is missing, and for an object of one chunk.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn manifest(&self, id: &ObjectId) -> Result<Option<Manifest>, Error> {
        let id = *id;
        self.look_up(move |store| store.manifest(&id)).await
    }

    /// An object's parity part for stripes of `k` and `m` chunks.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn parity_part(&self, id: &ObjectId, k: u8, m: u8) -> Result<Option<ParityPart>, Error> {
        let id = *id;
        self.look_up(move |store| store.parity_part(&id, k, m)).await
    }

    /// Page `index` of a parity part.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn parity_page(&self, part: &ParityPart, index: usize) -> Result<Option<ParityPage>, Error> {
        let part = part.clone();
        self.look_up(move |store| store.parity_page(&part, index)).await
    }

    /// The parity that is stored with an object: its part and all pages. `None` when there is none, or a page of
    /// it is missing.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn parity(&self, id: &ObjectId) -> Result<Option<(ParityPart, Vec<ParityPage>)>, Error> {
        let id = *id;
        self.look_up(move |store| store.parity(&id)).await
    }

    /// All bytes of an object that has at most `limit` of them; `None` where it has more, or something is missing.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn bytes(&self, info: &ObjectInfo, limit: usize) -> Result<Option<Bytes>, Error> {
        if info.length > limit as u64 {
            return Ok(None);
        }
        let info = info.clone();
        self.look_up(move |store| store.bytes(&info)).await
    }

    /// How many of an object's chunks are here; flagged zeros are. `None` when its manifest is not.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub async fn local_chunks(&self, id: &ObjectId) -> Result<Option<u64>, Error> {
        self.inner.whole().await?;
        let id = *id;
        self.look_up(move |store| store.local_chunks(&id)).await
    }

    /// Looks for something; what is missed is looked for again when the index names every record.
    async fn look_up<T: Send + 'static>(
        &self,
        call: impl Fn(&Inner) -> Result<Option<T>, Error> + Send + Sync + 'static,
    ) -> Result<Option<T>, Error> {
        let call = Arc::new(call);
        let (was_whole, breaks, first) =
            (self.inner.is_whole(), self.inner.gauge.breaks(), Arc::clone(&call));
        let found = self.blocking(move |store| first(store)).await?;
        if found.is_some() || (was_whole && self.inner.gauge.breaks() == breaks) {
            return Ok(found);
        }
        self.inner.look(move |store| call(store)).await
    }

    /// Runs a blocking call of the store off the runtime.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> T {
        let inner = Arc::clone(&self.inner);
        self.inner.pool.run(move || call(&inner)).await
    }
}

impl Inner {
    fn chunk(&self, chunk: &ChunkRef) -> Result<Option<Chunk>, Error> {
        let data = self.chunk_of(&Key::data(&chunk.id), chunk)?;
        match (data, chunk.place) {
            // Only plainly hashed chunks are parity.
            (None, Place::Root) => self.chunk_of(&Key::parity(&chunk.id), chunk),
            (data, _) => Ok(data),
        }
    }

    fn chunk_of(&self, key: &Key, chunk: &ChunkRef) -> Result<Option<Chunk>, Error> {
        // Whoever asks with another place or length asks for what does not exist; the record is not to blame.
        let described = |place, length| (place, length) == (chunk.place, chunk.length);
        match self.catalog.find(key)? {
            Some(entry) if described(entry.place, entry.length) => {
                self.catalog.read(key, |bytes, _| chunk.verify(bytes).ok())
            }
            _ => Ok(None),
        }
    }

    /// An index that fails knows of nothing.
    pub(super) fn has(&self, id: &ChunkId) -> bool {
        let known = |key| matches!(self.catalog.find(&key), Ok(Some(_)));
        known(Key::data(id)) || known(Key::parity(id))
    }

    pub(super) fn top(&self, id: &ObjectId) -> Result<Option<ManifestTop>, Error> {
        let key = Key { kind: Kind::Top, id: *id.as_bytes() };
        self.catalog.read(&key, |bytes, _| ManifestTop::prove(*id, &bytes).ok())
    }

    pub(super) fn page(&self, top: &ManifestTop, index: usize) -> Result<Option<ManifestPage>, Error> {
        let Some(id) = top.page_value(index) else { return Ok(None) };
        let key = Key { kind: Kind::Page, id };
        // A flag that rots away would pass for a chunk that is not zeros; and hashing zeros for every flag once
        // more takes seconds a GiB.
        self.catalog.read_back(&key, |bytes, vouched| match vouched {
            true => ManifestPage::recall(top, index, &bytes).ok(),
            false => ManifestPage::prove(top, index, &bytes).ok(),
        })
    }

    fn manifest(&self, id: &ObjectId) -> Result<Option<Manifest>, Error> {
        let Some(top) = self.top(id)? else { return Ok(None) };
        let mut pages = Vec::new();
        for index in 0..top.pages() {
            let Some(page) = self.page(&top, index)? else { return Ok(None) };
            pages.push(page);
        }
        Ok(Manifest::new(top, pages))
    }

    /// All bytes of an object; `None` where something of it is missing. For objects that fit in memory.
    pub(super) fn bytes(&self, info: &ObjectInfo) -> Result<Option<Bytes>, Error> {
        if let (true, Ok(length)) = (info.length <= CHUNK_LEN, u32::try_from(info.length)) {
            let chunk = ChunkRef { id: info.id.only_chunk(), place: Place::Root, length };
            return Ok(self.chunk(&chunk)?.map(|chunk| chunk.bytes().clone()));
        }
        let Some(manifest) = self.manifest(&info.id)? else { return Ok(None) };
        let mut bytes = BytesMut::new();
        for index in 0..manifest.chunks() {
            let Some(chunk) = manifest.chunk(index) else { return Ok(None) };
            if manifest.is_zero(index) {
                bytes.resize(bytes.len() + chunk.length as usize, 0);
                continue;
            }
            let Some(chunk) = self.chunk(&chunk)? else { return Ok(None) };
            bytes.extend_from_slice(chunk.bytes());
        }
        Ok(Some(bytes.freeze()))
    }

    pub(super) fn parity_part(&self, id: &ObjectId, k: u8, m: u8) -> Result<Option<ParityPart>, Error> {
        let key = parity_part_key(id, CODEC_RS8, k, m);
        let proved = |part: &ParityPart| {
            let claim = part.claim();
            claim.object == *id && (claim.codec, claim.k, claim.m) == (CODEC_RS8, k, m)
        };
        self.catalog.read(&key, |bytes, _| ParityPart::check(&bytes).ok().filter(proved))
    }

    pub(super) fn parity_page(&self, part: &ParityPart, index: usize) -> Result<Option<ParityPage>, Error> {
        let Some(&id) = part.pages().get(index) else { return Ok(None) };
        let key = Key { kind: Kind::ParityPage, id };
        self.catalog.read(&key, |bytes, _| ParityPage::prove(part, index, &bytes).ok())
    }

    fn parity(&self, id: &ObjectId) -> Result<Option<(ParityPart, Vec<ParityPage>)>, Error> {
        let Some((k, m)) = self.ledger.get(id).and_then(|info| info.parity) else { return Ok(None) };
        let Some(part) = self.parity_part(id, k, m)? else { return Ok(None) };
        let pages = (0..part.pages().len()).map(|index| self.parity_page(&part, index));
        let pages: Option<Vec<_>> = pages.collect::<Result<_, _>>()?;
        Ok(pages.map(|pages| (part, pages)))
    }

    fn local_chunks(&self, id: &ObjectId) -> Result<Option<u64>, Error> {
        let length = self.ledger.get(id).map(|info| info.length);
        if length.is_some_and(|length| length <= CHUNK_LEN) {
            return Ok(Some(u64::from(self.has(&id.only_chunk()))));
        }
        let Some(top) = self.top(id)? else { return Ok(None) };
        let mut here = 0;
        for index in 0..top.pages() {
            let Some(page) = self.page(&top, index)? else { continue };
            let ids = page.ids().iter().enumerate();
            here += ids.filter(|(at, id)| page.is_zero(*at) || self.has(id)).count() as u64;
        }
        Ok(Some(here))
    }
}
