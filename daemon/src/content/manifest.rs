//! A whole manifest, and how one is made from chunks in order.

use bytes::Bytes;

use super::page::ZEROS;
use super::{
    CHUNK, CHUNK_LEN, Chunk, ChunkId, ChunkRef, Error, MAX_OBJECT, ManifestPage, ManifestTop, Mismatch,
    ObjectId, PAGE, Place,
};

/// A proven list of all chunks of an object longer than one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    top: ManifestTop,
    pages: Vec<ManifestPage>,
}

impl Manifest {
    /// Joins a top and all its pages, which have been proved against it. `None` when their number is wrong, or the
    /// object is one chunk.
    #[must_use]
    pub fn new(top: ManifestTop, pages: Vec<ManifestPage>) -> Option<Self> {
        let fits = |(index, page): (usize, &ManifestPage)| page.ids().len() == top.page_chunks(index);
        (top.pages() > 0 && pages.len() == top.pages() && pages.iter().enumerate().all(fits))
            .then_some(Self { top, pages })
    }

    /// The object.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.top.id()
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.top.length()
    }

    /// The number of its chunks, at least 2.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.top.chunks()
    }

    /// The top.
    #[must_use]
    pub fn top(&self) -> &ManifestTop {
        &self.top
    }

    /// The pages in order.
    #[must_use]
    pub fn pages(&self) -> &[ManifestPage] {
        &self.pages
    }

    /// What one must know to ask for chunk `index` and to verify it.
    #[must_use]
    pub fn chunk(&self, index: u64) -> Option<ChunkRef> {
        let (page, at) = locate(index)?;
        let id = *self.pages.get(page)?.ids().get(at)?;
        Some(ChunkRef { id, place: self.top.place(index), length: self.top.chunk_length(index) })
    }

    /// Whether chunk `index` is all zeros.
    #[must_use]
    pub fn is_zero(&self, index: u64) -> bool {
        locate(index).and_then(|(page, at)| self.pages.get(page).map(|p| p.is_zero(at))).unwrap_or(false)
    }

    /// Chunk `index` when it is flagged as zeros. Hashes it, so that it is proved like any other.
    ///
    /// # Errors
    /// [`Mismatch`] cannot happen for a page that was proved; it is passed on all the same.
    pub fn zero_chunk(&self, index: u64) -> Option<Result<Chunk, Mismatch>> {
        let chunk = self.chunk(index).filter(|_| self.is_zero(index))?;
        Some(chunk.verify(Bytes::from_static(&ZEROS).slice(..chunk.length as usize)))
    }
}

/// The page of chunk `index` and its place on it.
pub(super) fn locate(index: u64) -> Option<(usize, usize)> {
    let index = usize::try_from(index).ok()?;
    Some((index / PAGE, index % PAGE))
}

/// Makes a manifest from an object's chunks, in order. Holds 33 bytes a chunk.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    pages: Vec<ManifestPage>,
    ids: Vec<ChunkId>,
    zeros: Vec<bool>,
    /// Bytes so far.
    length: u64,
    /// The chunk that came last, for the tail proof.
    last: Option<Chunk>,
}

impl ManifestBuilder {
    /// A builder that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk. All but the last must be full.
    ///
    /// # Errors
    /// [`Error::Order`] when it does not follow the chunks before it, [`Error::TooLong`] past 4 TiB.
    pub fn push(&mut self, chunk: &Chunk) -> Result<(), Error> {
        let full = self.last.as_ref().is_none_or(|last| last.bytes().len() == CHUNK);
        if !full || chunk.place() != Place::At(self.length) {
            return Err(Error::Order { index: self.length.div_ceil(CHUNK_LEN) });
        }
        let length = self.length + chunk.bytes().len() as u64;
        if length > MAX_OBJECT {
            return Err(Error::TooLong { length });
        }
        self.length = length;
        self.ids.push(chunk.id());
        self.zeros.push(chunk.is_zero());
        self.last = Some(chunk.clone());
        if self.ids.len() == PAGE {
            self.turn();
        }
        Ok(())
    }

    /// Ends a page.
    fn turn(&mut self) {
        let (ids, zeros) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.zeros));
        self.pages.push(ManifestPage::seal(ids, zeros));
    }

    /// The manifest of what was pushed.
    ///
    /// # Errors
    /// [`Error::Order`] when that is less than two chunks: such an object has no manifest.
    pub fn finish(mut self) -> Result<Manifest, Error> {
        if !self.ids.is_empty() {
            self.turn();
        }
        let last = self.last.filter(|_| self.length > CHUNK_LEN).ok_or(Error::Order { index: 0 })?;
        let top = ManifestTop::seal(self.length, &self.pages, &last)?;
        Manifest::new(top, self.pages).ok_or(Error::Order { index: 0 })
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
