//! A file of some blocks that is given up when the disk is full, so that a removal can still be written.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;

pub(super) const FILE: &str = "ballast";

/// It is not made where less than so many times its size stays free.
const SPARE: u64 = 16;

/// See the module.
pub(super) struct Ballast {
    disk: Arc<dyn Disk>,
}

impl Ballast {
    /// Makes the file when it is missing and there is room. To be without it is no error.
    pub(super) fn open(disk: Arc<dyn Disk>, size: u64) -> Self {
        let ballast = Self { disk };
        if let Err(error) = ballast.fill(size) {
            tracing::warn!(%error, "the ballast file could not be made");
            ballast.release();
        }
        ballast
    }

    fn fill(&self, size: u64) -> io::Result<()> {
        let file = match self.disk.create(Path::new(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.disk.free()? / SPARE < size {
            self.release();
            return Ok(());
        }
        file.write_at(0, &mut [IoSlice::new(&vec![0; usize::try_from(size).unwrap_or(0)])])?;
        file.sync()
    }

    /// Gives the blocks up.
    pub(super) fn release(&self) {
        // That it is gone already is as good.
        let _ = self.disk.unlink(Path::new(FILE));
    }
}
