//! An open file of the forgetful disk.

use std::io::{self, IoSlice};
use std::path::PathBuf;

use rustix::io::Errno;

use super::super::File;
use super::content::{Image, Op, Shared};
use super::{Call, Doing, Forgetful};

/// See the module.
pub(super) struct Open {
    pub(super) disk: Forgetful,
    pub(super) path: PathBuf,
    pub(super) content: Shared,
}

impl Open {
    fn image<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.content.lock().unwrap().seen)
    }

    fn apply(&self, call: Call, op: Op) -> io::Result<()> {
        self.disk.call(call, &self.path, |_, doing| {
            if doing == Doing::All {
                self.content.lock().unwrap().apply(op);
            }
        })
    }
}

impl File for Open {
    fn length(&self) -> io::Result<u64> {
        Ok(self.image(|image| image.bytes.len() as u64))
    }

    fn read_once(&self, offset: u64, into: &mut Vec<u8>) -> io::Result<usize> {
        self.disk.call(Call::Read, &self.path, |_, doing| {
            self.image(|image| {
                let start = (offset as usize).min(image.bytes.len());
                let wanted = (into.capacity() - into.len()).min(image.bytes.len() - start);
                let mut size = image.readable(start, wanted);
                if size < wanted && size == 0 {
                    return Err(Errno::IO.into());
                }
                if doing == Doing::Part && size > 1 {
                    size /= 2;
                }
                if !matches!(doing, Doing::Fail(_)) {
                    into.extend_from_slice(&image.bytes[start..start + size]);
                }
                Ok(size)
            })
        })?
    }

    fn write_once(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        self.disk.call(Call::Write, &self.path, |_, doing| {
            match doing {
                Doing::All => {}
                Doing::Nothing => return Ok(bytes.len()),
                // A write that fails may have begun.
                Doing::Part | Doing::Fail(_) => bytes.truncate(bytes.len().div_ceil(2)),
            }
            let mut content = self.content.lock().unwrap();
            if content.seen.is_stuck(offset as usize, bytes.len()) {
                return Err(Errno::IO.into());
            }
            if doing != Doing::Fail(Errno::INTR.raw_os_error()) {
                content.apply(Op::Write(offset as usize, bytes.clone()));
            }
            Ok(bytes.len())
        })?
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.call(Call::Sync, &self.path, |_, doing| {
            let mut content = self.content.lock().unwrap();
            match doing {
                Doing::All | Doing::Part => content.sync(),
                Doing::Nothing => {}
                Doing::Fail(_) => content.fail_sync(),
            }
        })
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.apply(Call::Truncate, Op::Truncate(length as usize))
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.disk.inside().solid {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.apply(Call::Punch, Op::Punch(offset as usize, (offset + length) as usize))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(self.image(|image| image.next(offset, false)))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        Ok(self.image(|image| image.next(offset, true).unwrap_or(image.bytes.len() as u64)))
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.content.lock().unwrap().drop_cache();
        Ok(())
    }
}
