//! A file of some blocks that is given up when the disk is full, so that a removal can still be written.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;

const FILE: &str = "ballast";

/// 4 MiB: many times what a batch of removals writes (1,024 of 64 bytes each).
const SIZE: usize = 4 << 20;

/// Bytes that must stay free besides it, or it is not made.
const SPARE: u64 = 64 << 20;

/// See the module.
pub(super) struct Ballast {
    disk: Arc<dyn Disk>,
}

impl Ballast {
    /// Makes the file when it is missing and there is room. To be without it is no error.
    pub(super) fn open(disk: Arc<dyn Disk>) -> Self {
        let ballast = Self { disk };
        if let Err(error) = ballast.fill() {
            tracing::warn!(%error, "the ballast file could not be made");
            ballast.release();
        }
        ballast
    }

    fn fill(&self) -> io::Result<()> {
        let file = match self.disk.create(Path::new(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.disk.free()? < SPARE {
            self.release();
            return Ok(());
        }
        file.write_at(0, &mut [IoSlice::new(&vec![0; SIZE])])?;
        file.sync()
    }

    /// Gives the blocks up.
    pub(super) fn release(&self) {
        // That it is gone already is as good.
        let _ = self.disk.unlink(Path::new(FILE));
    }
}
