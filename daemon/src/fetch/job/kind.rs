//! A file is wanted: what turns out to be a directory's list is refused before any of it is given.

use bytes::Bytes;

use super::super::Error;
use super::super::planner::Bits;
use super::super::shape::Shape;
use super::Job;
use crate::content::{ObjectId, Tree};
use crate::store::Store;

/// Looks at an object whose beginning is here before it is fetched.
///
/// # Errors
/// [`Error::IsDirectory`], [`Error::Store`].
pub(super) async fn check_local(
    store: &Store,
    id: &ObjectId,
    shape: &Shape,
    local: &Bits,
) -> Result<(), Error> {
    let first = shape.chunk(0).filter(|_| local.get(0) && !shape.is_zero(0));
    let Some(first) = first else { return Ok(()) };
    // What has rotted is judged when it has come again.
    let Some(chunk) = store.chunk(&first).await? else { return Ok(()) };
    check(id, shape, chunk.bytes())
}

fn check(id: &ObjectId, shape: &Shape, first: &Bytes) -> Result<(), Error> {
    if Tree::is_begun_by(first, shape.length()) { Err(Error::IsDirectory(*id)) } else { Ok(()) }
}

impl Job {
    /// Looks at a chunk that has come. What was here whole is what it was stored as, and what is in a directory what
    /// that says.
    ///
    /// # Errors
    /// [`Error::IsDirectory`].
    pub(super) fn check_kind(&self, index: u64, bytes: &Bytes) -> Result<(), Error> {
        let is_told = self.was_whole || self.terms.declared.is_some();
        if index > 0 || is_told { Ok(()) } else { check(&self.request.id, &self.shape, bytes) }
    }
}
