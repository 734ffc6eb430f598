//! A daemon's state folder as it looks from outside, for when no daemon answers.
//!
//! Owns: where a daemon keeps its state by default, and what can be said without opening it. Refuses: changing
//! anything: it takes no lock, so that a daemon that starts meanwhile finds none.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use casd_proto::v1::{Check, CheckLevel};

use crate::commands::doctor::check;
use crate::error::plain;
use crate::output::text::size;

/// Where the system's daemon keeps its state.
const SYSTEM: &str = "/var/lib/casd";

/// File systems that are no place for a store, by what statfs(2) says, and why.
const POOR: [(u32, &str, &str); 6] = [
    (0x0102_1994, "tmpfs", "everything is lost when the machine restarts"),
    (0x8584_58f6, "ramfs", "everything is lost when the machine restarts"),
    (0x794c_7630, "overlay", "what is stored may go with the container"),
    (0x6969, "nfs", "locks and syncs may not be what they are on a local disk"),
    (0xff53_4d42, "cifs", "locks and syncs may not be what they are on a local disk"),
    (0x6573_5546, "fuse", "locks and syncs may not be what they are on a local disk"),
];

/// Looks at `given`, or else at the first place of [`places`] that there is.
pub(crate) fn look(given: Option<&Path>) -> Vec<Check> {
    let places = match given {
        Some(path) => vec![path.to_owned()],
        None => places(|key| std::env::var_os(key)),
    };
    let found = places.iter().find_map(|path| match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some((path, found)),
    });
    match found {
        None => {
            let tried: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
            let what = format!("there is no state folder; looked at {}", tried.join(", "));
            vec![check(
                "folder",
                CheckLevel::Warn,
                what,
                "start casd, which makes one, or name it with --state-dir",
            )]
        }
        Some((path, Err(error))) => {
            let what = format!("{} cannot be looked at: {}", path.display(), plain(&error));
            vec![check("folder", CheckLevel::Fail, what, "look as root or as the user that casd runs as")]
        }
        Some((path, Ok(folder))) => {
            let mut checks = vec![permissions(path, &folder)];
            checks.extend(disk(path));
            checks.extend(inside(path));
            checks
        }
    }
}

/// Where a daemon keeps its state, best first.
fn places(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |key, below: &str| {
        variable(key).map(PathBuf::from).filter(|path| path.is_absolute()).map(|path| path.join(below))
    };
    let own = [
        folder("STATE_DIRECTORY", ""),
        folder("XDG_STATE_HOME", "casd"),
        folder("HOME", ".local/state/casd"),
    ];
    own.into_iter().flatten().chain([PathBuf::from(SYSTEM)]).collect()
}

fn permissions(path: &Path, folder: &Metadata) -> Check {
    let (mode, shown) = (folder.permissions().mode() & 0o7777, path.display());
    if !folder.is_dir() {
        return check(
            "folder",
            CheckLevel::Fail,
            format!("{shown} is no folder"),
            "set another node.state_dir",
        );
    }
    if mode & 0o077 != 0 {
        let what = format!("{shown} has mode {mode:04o}: other users can see into it");
        return check("folder", CheckLevel::Warn, what, "make it mode 0700 (chmod 0700)");
    }
    let what = format!("{shown} has mode {mode:04o} and belongs to uid {}", folder.uid());
    check("folder", CheckLevel::Ok, what, "")
}

fn disk(path: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Ok(stat) = rustix::fs::statfs(path) {
        let number = u32::try_from(stat.f_type & 0xffff_ffff).unwrap_or(0);
        checks.push(match POOR.iter().find(|(poor, _, _)| *poor == number) {
            Some((_, name, why)) => check(
                "filesystem",
                CheckLevel::Warn,
                *name,
                format!("{why}: set node.state_dir to a local disk"),
            ),
            None => check("filesystem", CheckLevel::Ok, format!("type {number:#x}"), ""),
        });
    }
    match rustix::fs::statvfs(path) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let what = format!("{} free", size(free));
            // What the reserve is, the daemon's settings say.
            checks.push(match free {
                0 => check("space", CheckLevel::Fail, what, "free some space"),
                _ => check("space", CheckLevel::Ok, what, ""),
            });
        }
        Err(error) => {
            let what = format!("the free space is not known: {}", plain(&error.into()));
            checks.push(check("space", CheckLevel::Fail, what, "check the disk"));
        }
    }
    checks
}

/// What files in the folder say, as far as this user may look.
fn inside(path: &Path) -> Vec<Check> {
    if let Err(error) = fs::read_dir(path) {
        let what = format!("what is in it cannot be seen: {}", plain(&error));
        return vec![check(
            "contents",
            CheckLevel::Warn,
            what,
            "look as root or as the user that casd runs as",
        )];
    }
    let is_there = |name: &str| path.join(name).exists();
    if !is_there("FORMAT") {
        let (level, what) = if is_there("segments") {
            (CheckLevel::Warn, "FORMAT is missing; the next start restores it from the journal")
        } else {
            (CheckLevel::Ok, "there is no store in it yet")
        };
        return vec![check("contents", level, what, "")];
    }
    let mut checks = Vec::new();
    let holder = fs::metadata(path.join("LOCK")).ok().and_then(|lock| holder(&locks(), lock.ino()));
    if let Some(pid) = holder {
        let what = format!("process {pid} has it open, and does not answer at the socket that was tried");
        let advice = "give its socket with --socket; if it is starting or stopping, wait";
        checks.push(check("lock", CheckLevel::Warn, what, advice));
    } else if is_there("CLEAN") {
        checks.push(check("stop", CheckLevel::Ok, "the last run ended in order", ""));
    } else {
        let advice = "nothing to do: the next start checks what is there, and takes a little longer";
        checks.push(check("stop", CheckLevel::Warn, "the last run did not end in order", advice));
    }
    checks.push(if is_there("ballast") {
        check("ballast", CheckLevel::Ok, "it is there", "")
    } else {
        let advice = "free 64 MiB or more before the next start, which makes it again";
        check("ballast", CheckLevel::Warn, "it has been given up, or could not be made", advice)
    });
    checks
}

fn locks() -> String {
    fs::read_to_string("/proc/locks").unwrap_or_default()
}

/// Who holds a lock on the file with this inode number: `1: FLOCK  ADVISORY  WRITE PID MAJOR:MINOR:INODE 0 EOF`.
fn holder(locks: &str, inode: u64) -> Option<i32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it =
            fields.get(1) == Some(&"FLOCK") && fields.get(5)?.rsplit(':').next()?.parse() == Ok(inode);
        is_it.then(|| fields.get(4)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(checks: &[Check]) -> Vec<(&str, CheckLevel)> {
        checks.iter().map(|check| (check.name.as_str(), check.level())).collect()
    }

    #[test]
    fn a_folder_is_judged_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(levels(&look(Some(&path))), [("folder", CheckLevel::Warn)]);
        fs::create_dir(&path).unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o755);
        let found = look(Some(&path));
        assert_eq!((found[0].level(), found.last().unwrap().name.as_str()), (CheckLevel::Warn, "contents"));
        mode(0o700);
        for name in ["FORMAT", "LOCK", "CLEAN"] {
            fs::write(path.join(name), "").unwrap();
        }
        let found = look(Some(&path));
        let found = levels(&found);
        assert_eq!(found[0], ("folder", CheckLevel::Ok));
        assert_eq!(found[found.len() - 2..], [("stop", CheckLevel::Ok), ("ballast", CheckLevel::Warn)]);
        fs::remove_file(path.join("CLEAN")).unwrap();
        assert!(levels(&look(Some(&path))).contains(&("stop", CheckLevel::Warn)));
        let file = path.join("FORMAT");
        assert_eq!(look(Some(&file))[0].level(), CheckLevel::Fail);
    }

    #[test]
    fn who_holds_a_lock_is_read_from_the_kernels_list() {
        let list =
            "1: POSIX  ADVISORY  READ  5 08:01:77 128 128\n2: FLOCK  ADVISORY  WRITE 42 08:01:77 0 EOF\n";
        assert_eq!((holder(list, 77), holder(list, 7), holder("", 77)), (Some(42), None, None));
        let set = |key: &str| (key == "HOME").then(|| "/home/u".into());
        assert_eq!(places(set), [PathBuf::from("/home/u/.local/state/casd"), PathBuf::from(SYSTEM)]);
    }
}
