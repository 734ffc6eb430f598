//! Directories: ones to add, ones that nobody should restore, and what is in one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::corpus::{self, MIB};

/// What is at each path in a folder, in words; links are not followed.
pub type Snapshot = BTreeMap<String, String>;

/// Makes a directory with everything that one may have: odd names, files of all lengths, one with a hole, programs,
/// empty directories, links that stay inside and links that do not.
pub fn sample(at: &Path, seed: u64) {
    for folder in ["empty", "sub/empty too", "sub/a/b/c", "many"] {
        fs::create_dir_all(at.join(folder)).unwrap();
    }
    let names = [
        " ",
        "-rf",
        "...",
        "~",
        "a\u{202e}b",
        "e\u{301}",
        "\u{e9}",
        "CON",
        "con",
        "a.",
        &"\u{fc}".repeat(127),
    ];
    for (number, name) in (0..).zip(names) {
        corpus::file(&at.join("sub").join(name), seed + number, number * 100);
    }
    for (number, length) in (100..).zip([0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]) {
        corpus::file(&at.join("sub/a").join(length.to_string()), seed + number, length);
    }
    for number in 0..2000 {
        fs::write(at.join(format!("many/{number}")), format!("{seed} {number}")).unwrap();
    }
    corpus::sparse(&at.join("sub/a/b/hole"), 40 * MIB, &[(17 * MIB, b"in the middle")]);
    for (name, mode) in [("run", 0o755), ("only mine", 0o4700), ("for others", 0o655)] {
        fs::write(at.join(name), name).unwrap();
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::hard_link(at.join("run"), at.join("sub/again")).unwrap();
    for (name, target) in INSIDE.iter().chain(OUTSIDE) {
        symlink(target, at.join(name)).unwrap();
    }
}

/// Links of [`sample`] that stay inside, to something or to nothing.
pub const INSIDE: &[(&str, &str)] =
    &[("down", "sub/a/b"), ("sub/a/b/c/up", "../../../../run"), ("sub/here", "."), ("nowhere", "not/there")];

/// Links of [`sample`] that lead out, or could.
pub const OUTSIDE: &[(&str, &str)] =
    &[("out", "/etc/passwd"), ("sub/around", "../.."), ("sub/back", "a/../../run")];

/// What is in a folder: kinds, contents, which files their owner may execute, where links point.
#[must_use]
pub fn snapshot(folder: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    walk(folder, "", &mut |path, at, about| {
        let words = if about.is_symlink() {
            format!("link {}", fs::read_link(at).unwrap().display())
        } else if about.is_dir() {
            "directory".to_owned()
        } else {
            format!("file {:o} {}", about.mode() & 0o100, corpus::id_of_file(at))
        };
        found.insert(path.to_owned(), words);
    });
    found
}

/// Everything about what is in a folder, times and modes as well.
#[must_use]
pub fn everything(folder: &Path) -> Snapshot {
    let mut found = snapshot(folder);
    walk(folder, "", &mut |path, _, about| {
        let (mode, changed) = (about.mode(), (about.ctime(), about.ctime_nsec()));
        let modified = (about.mtime(), about.mtime_nsec());
        found.entry(path.to_owned()).or_default().push_str(&format!(" {mode:o} {modified:?} {changed:?}"));
    });
    found
}

fn walk(folder: &Path, before: &str, visit: &mut impl FnMut(&str, &Path, &fs::Metadata)) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{before}{}", entry.file_name().to_str().expect("a name that is text"));
        let about = entry.path().symlink_metadata().unwrap();
        visit(&path, &entry.path(), &about);
        if about.is_dir() {
            walk(&entry.path(), &format!("{path}/"), visit);
        }
    }
}

// === Lists that break the rules ===

/// What an entry of a list says.
#[derive(Clone, Debug)]
pub enum Says<'a> {
    /// A file with these bytes.
    File(&'a [u8]),
    /// The directory whose list is this.
    Directory(&'a [u8]),
    /// A symbolic link.
    Link(&'a [u8]),
}

/// A directory's list as casd writes it, of whatever entries in whatever order, with no rule kept.
#[must_use]
pub fn list(entries: &[(&[u8], Says<'_>)]) -> Vec<u8> {
    let mut list = b"casdtree\x01".to_vec();
    list.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
    for (name, says) in entries {
        let kind = match says {
            Says::File(_) => 1,
            Says::Directory(_) => 3,
            Says::Link(_) => 4,
        };
        // A name that is too long for its one byte cannot even be said.
        list.extend([kind, u8::try_from(name.len()).unwrap()]);
        list.extend(*name);
        match says {
            Says::File(bytes) | Says::Directory(bytes) => {
                list.extend((bytes.len() as u64).to_le_bytes());
                list.extend(blake3::hash(bytes).as_bytes());
            }
            Says::Link(target) => {
                list.extend(u16::try_from(target.len()).unwrap().to_le_bytes());
                list.extend(*target);
            }
        }
    }
    list
}
