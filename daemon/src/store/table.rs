//! A map from bytes to bytes that need not keep anything over a crash: what the index is made of.
//!
//! Owns: the one narrow way to sled, which is named in `table/lasting.rs` alone. Refuses: promising that anything is
//! durable: whoever uses a table checks what it finds. Survives a crash: whatever it likes.

mod lasting;
mod memory;

use super::Error;

pub(super) use lasting::open as open_lasting;
pub(super) use memory::Memory;

/// A key with its new value; `None` removes it.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// A map. Calls block for a moment.
pub trait Table: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Index`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Applies all changes or none, as far as this process sees.
    ///
    /// # Errors
    /// [`Error::Index`]: it is not known which were applied.
    fn apply(&self, changes: &[Change]) -> Result<(), Error>;

    /// Calls `each` with all pairs in rising order of keys until it gives false. Pairs that change meanwhile may be
    /// seen or not.
    ///
    /// # Errors
    /// [`Error::Index`].
    fn each(&self, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error>;

    /// Hands what is buffered to the kernel. That is not the disk.
    ///
    /// # Errors
    /// [`Error::Index`].
    fn flush(&self) -> Result<(), Error>;
}
