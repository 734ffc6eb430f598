//! Small files that are replaced as a whole.
//!
//! Owns: how. Refuses: to sync them; they are caches, and what a power cut tears fails the sum that their readers
//! check. Survives a crash: the old file, or the new one.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Replaces `file` by a rename, and makes its folder where it is missing. Blocks.
///
/// # Errors
/// What the system said; the old file is still there then.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let new = file.with_extension("tmp");
    // For its owner only, as all of the state folder.
    let mut options = fs::OpenOptions::new();
    let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    opened.write_all(bytes)?;
    fs::rename(&new, file)
}

/// The bytes of `file`, of which there may be `most`. Blocks.
///
/// # Errors
/// What the system said; [`io::ErrorKind::FileTooLarge`] for a longer file, of which no more is read, and
/// [`io::ErrorKind::InvalidInput`] for what is no file, such as a pipe, on which a reader would wait.
pub fn read(file: &Path, most: usize) -> io::Result<Vec<u8>> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_read_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/file");
        replace(&file, b"long and old").unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!(read(&file, 3).unwrap(), b"new");
        assert_eq!(read(&file, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1, "nothing else is left");
        assert!(read(folder.path(), 9).is_err() && replace(folder.path(), b"x").is_err());
    }
}
