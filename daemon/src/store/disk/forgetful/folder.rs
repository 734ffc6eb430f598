//! The names of the forgetful disk.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{Around, Disk, Error, File, Table};
use super::content::Shared;
use super::file::Open;
use super::{Call, Doing, Forgetful};

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Disk for Forgetful {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if self.0.locked.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(Arc::clone(&self.0.locked))))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let content = self.inside().seen.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Open { disk: self.clone(), path: path.to_owned(), content }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if self.inside().seen.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = self.call(Call::Create, path, |inside, doing| {
            let content = Shared::default();
            if doing == Doing::All {
                inside.set(path, Some(Arc::clone(&content)));
            }
            content
        })?;
        Ok(Arc::new(Open { disk: self.clone(), path: path.to_owned(), content }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if self.inside().dirs.contains(path) {
            return Ok(());
        }
        self.call(Call::CreateDir, path, |inside, doing| {
            if doing == Doing::All {
                inside.dirs.insert(path.to_owned());
            }
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call(Call::SyncDir, path, |inside, doing| {
            if doing != Doing::All {
                return;
            }
            let here = |file: &Path| file.parent() == Some(path);
            inside.durable.retain(|file, _| !here(file));
            let seen: Vec<_> = inside.seen.iter().filter(|(file, _)| here(file)).collect();
            let seen: Vec<_> =
                seen.into_iter().map(|(file, content)| (file.clone(), content.clone())).collect();
            inside.durable.extend(seen);
            inside.history.retain(|(file, _)| !here(file));
            let dirs: Vec<_> = inside.dirs.iter().filter(|dir| here(dir)).cloned().collect();
            inside.durable_dirs.extend(dirs);
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let content = self.inside().seen.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.call(Call::Rename, to, |inside, doing| {
            if doing == Doing::All {
                inside.set(from, None);
                inside.set(to, Some(content));
            }
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        if !self.inside().seen.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.call(Call::Unlink, path, |inside, doing| {
            if doing == Doing::All {
                inside.set(path, None);
            }
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let inside = self.inside();
        let here = inside.seen.keys().filter(|file| file.parent() == Some(path));
        Ok(here.filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn around(&self) -> io::Result<Around> {
        Ok(Around { mode: 0o700, system: "memory".to_owned(), ..Around::default() })
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.inside().room.unwrap_or(1 << 50))
    }

    fn table(&self, _: u64) -> Result<Box<dyn Table>, Error> {
        self.0.table.open()
    }

    fn discard_table(&self) -> io::Result<()> {
        self.0.table.discard();
        Ok(())
    }
}
