//! Reading fixed little-endian fields off bytes from outside, without a panic or an allocation.

use super::Error;

/// A cursor over bytes of one format. Every read fails cleanly at the end.
pub(super) struct Reader<'a> {
    /// The format, for messages.
    what: &'static str,
    /// What is left.
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// The error that says why this format is refused.
    pub(super) fn malformed(&self, why: &'static str) -> Error {
        Error::Malformed { what: self.what, why }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self.rest.split_at_checked(length).ok_or(self.malformed("it ends too early"))?;
        self.rest = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.try_into().map_err(|_| self.malformed("it ends too early"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// `count` values of 32 bytes. The bytes are there before anything is allocated.
    pub(super) fn values(&mut self, count: usize) -> Result<Vec<[u8; 32]>, Error> {
        let bytes = self.take(count.saturating_mul(32))?;
        Ok(bytes.as_chunks().0.to_vec())
    }

    /// The version must be the one that is known.
    pub(super) fn version(&mut self, known: u8) -> Result<(), Error> {
        if self.u8()? == known { Ok(()) } else { Err(self.malformed("its version is unknown")) }
    }

    /// Nothing may follow: a format has one form.
    pub(super) fn end(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes follow its end")) }
    }
}
