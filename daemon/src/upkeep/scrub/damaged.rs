//! Which objects were known to be damaged, on disk: a small file that may be deleted.
//!
//! Format: an object's id a line, as casctl prints it. It is replaced by a rename and not synced, since it is only a
//! list of what the next run of the daemon proves first.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::content::ObjectId;
use crate::support::file::replace;

/// What is longer is not this file.
const LONGEST: u64 = 1 << 20;

/// The objects that the file names; none when there is none.
pub(super) fn load(file: &Path) -> BTreeSet<ObjectId> {
    let is_short = fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() <= LONGEST);
    let text = if is_short { fs::read_to_string(file).unwrap_or_default() } else { String::new() };
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Replaces the file; removes it when there is nothing to name.
pub(super) fn save<'a>(file: &Path, objects: impl Iterator<Item = &'a ObjectId>) -> io::Result<()> {
    let text: String = objects.map(|id| format!("{id}\n")).collect();
    if text.is_empty() {
        return match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    replace(file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_and_what_is_nonsense_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache/damaged");
        assert!(load(&file).is_empty());
        let ids: BTreeSet<_> = (1..4).map(|seed| ObjectId::from_bytes([seed; 32])).collect();
        save(&file, ids.iter()).unwrap();
        assert_eq!(load(&file), ids);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("..\n{}\n\u{0}\n{text}", &text[..40])).unwrap();
        assert_eq!(load(&file), ids);
        fs::write(&file, vec![b'1'; 2 << 20]).unwrap();
        assert!(load(&file).is_empty());
        save(&file, [].iter()).unwrap();
        assert!(!file.exists());
        save(&file, [].iter()).unwrap();
    }
}
