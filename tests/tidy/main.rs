//! A test of the repository itself: what review would otherwise have to say again and again.
//!
//! Owns: the limits on files, the table of rooms and who may use whom, the fences round third-party crates, and the
//! form of the proto files and units. Each complaint names its file and line and says what to do. A rule that is
//! wrong is changed here, in the open, not worked around.

#![expect(clippy::unwrap_used, reason = "a file of the repository that cannot be read is a failed test")]

mod fences;
mod files;
mod rooms;
mod threats;
mod units;

use std::path::{Path, PathBuf};

/// A text file of the repository.
struct Source {
    /// Its path from the top, such as `daemon/src/lib.rs`.
    path: String,
    text: String,
}

impl Source {
    /// Its lines from 1, without what follows `//`, so that prose may name what code may not.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, without_comment(line)))
    }

    /// The path inside `daemon/src`, where it is in there.
    fn in_daemon(&self) -> Option<&str> {
        self.path.strip_prefix("daemon/src/")
    }
}

/// Cuts at `//` where it begins the line or follows a space; inside `"http://"` it does neither.
fn without_comment(line: &str) -> &str {
    let cut = line.match_indices("//").find(|(at, _)| *at == 0 || line[..*at].ends_with(' '));
    cut.map_or(line, |(at, _)| &line[..at])
}

/// The top of the repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files with this extension in the packages' folders.
fn sources(extension: &str) -> Vec<Source> {
    let top = top();
    let mut found = Vec::new();
    let mut folders: Vec<_> = ["proto", "daemon", "ctl", "tests"].map(|name| top.join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(&top).unwrap().display().to_string(), text });
            }
        }
    }
    assert!(!found.is_empty(), "no .{extension} files below {}", top.display());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Fails with all complaints at once.
#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaint(s):\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn prose_is_not_code() {
    assert_eq!(without_comment("let a = 1; // sled"), "let a = 1; ");
    assert_eq!(without_comment("/// sled"), "");
    assert_eq!(without_comment("    //! sled"), "    ");
    assert_eq!(without_comment("let url = \"http://x\";"), "let url = \"http://x\";");
}
