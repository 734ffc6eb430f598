//! Some pages of a manifest, for whoever wants a part of a long object.

use super::manifest::locate;
use super::{ChunkRef, ManifestPage, ManifestTop};

/// Proven pages of a manifest, in a row: what it takes to ask for the chunks on them, and to verify these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    top: ManifestTop,
    /// The number of its first page in the manifest.
    first: usize,
    pages: Vec<ManifestPage>,
}

impl Excerpt {
    /// The pages from number `first` on, which have been proved against the top. `None` when it has no such pages.
    #[must_use]
    pub fn new(top: ManifestTop, first: usize, pages: Vec<ManifestPage>) -> Option<Self> {
        let fits = |(at, page): (usize, &ManifestPage)| {
            page.ids().len() == top.page_chunks(first.saturating_add(at))
        };
        pages.iter().enumerate().all(fits).then_some(Self { top, first, pages })
    }

    /// Bytes of the whole object.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.top.length()
    }

    /// The chunks of the whole object.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.top.chunks()
    }

    /// What one must know to ask for chunk `index` and to verify it; `None` for one that is on another page.
    #[must_use]
    pub fn chunk(&self, index: u64) -> Option<ChunkRef> {
        let (page, at) = self.find(index)?;
        let id = *page.ids().get(at)?;
        Some(ChunkRef { id, place: self.top.place(index), length: self.top.chunk_length(index) })
    }

    /// Whether chunk `index` is all zeros, as far as is known.
    #[must_use]
    pub fn is_zero(&self, index: u64) -> bool {
        self.find(index).is_some_and(|(page, at)| page.is_zero(at))
    }

    /// The page of chunk `index` and its place on it.
    fn find(&self, index: u64) -> Option<(&ManifestPage, usize)> {
        let (page, at) = locate(index)?;
        Some((self.pages.get(page.checked_sub(self.first)?)?, at))
    }
}
