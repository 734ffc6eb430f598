//! The rules for names of entries, and for where symbolic links may lead.
//!
//! Owns: [`Name`] and [`Target`], which can be made by keeping the rules only; nothing else is used to make an entry.
//! Refuses: rewriting a name. Pure.

use std::fmt;

/// The longest name, in bytes: what file systems take.
const MAX_NAME: usize = 255;

/// Characters of a bad name that are shown.
const SHOWN: usize = 80;

/// The longest target of a link, in bytes: what Linux takes.
const MAX_TARGET: usize = 4095;

/// The name of an entry: one component of a path, which leads nowhere but to the entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(String);

/// What a symbolic link points to. It may lead anywhere; see [`Target::stays_inside`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target(String);

/// Why an entry cannot be called so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadName {
    name: String,
    /// What is wrong with it, for people.
    pub(crate) why: &'static str,
}

impl Name {
    /// Takes a name that keeps the rules.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(name: String) -> Result<Self, BadName> {
        let why = match name.as_str() {
            "" => "it is empty",
            "." | ".." => "it stands for a directory",
            _ if name.len() > MAX_NAME => "it is longer than 255 bytes",
            _ if name.contains(['/', '\\']) => "it has a / or \\",
            _ if name.chars().any(char::is_control) => "it has a control character",
            _ => return Ok(Self(name)),
        };
        Err(BadName { name, why })
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, as the API takes it.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.name.chars().take(SHOWN).collect();
        let more = if shown.len() < self.name.len() { "…" } else { "" };
        write!(f, "an entry called {shown:?}{more} ({})", self.why)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// Takes a target that can be one.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn new(target: String) -> Result<Self, &'static str> {
        match target.as_str() {
            "" => Err("a symbolic link points to nothing"),
            _ if target.len() > MAX_TARGET => Err("a symbolic link's target is longer than 4,095 bytes"),
            _ if target.contains('\0') => Err("a symbolic link's target has a NUL"),
            _ => Ok(Self(target)),
        }
    }

    /// The target.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The target, as the API takes it.
    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// Whether a link in a directory `depth` below the outermost one (0: in that one itself) provably leads nowhere
    /// outside of it: it is relative, `..` comes only at its beginning and no more often than `depth`, and behind a
    /// name there is neither `..` nor an empty component.
    ///
    /// Why that is enough, where every link that is made keeps it: the link stands in a real directory, and so do the
    /// ones around it, since each was made and entered by its own name; so the leading `..` lead to a real directory
    /// that is inside. From there each name leads to an entry of it: to a file, to a real directory deeper inside, or
    /// to another such link, which by the same argument leads to something inside. After a name there is no `..`, which
    /// behind a link would be the parent of what it leads to.
    pub(crate) fn stays_inside(&self, depth: usize) -> bool {
        let mut up = 0;
        let mut named = false;
        for component in self.0.split('/') {
            match component {
                // At the beginning: absolute. Elsewhere `a//b` or `a/`, which need not be allowed.
                "" => return false,
                "." => {}
                ".." if named => return false,
                ".." => up += 1,
                _ => named = true,
            }
        }
        up <= depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path, PathBuf};

    fn name(text: &str) -> Result<Name, BadName> {
        Name::new(text.to_owned())
    }

    fn stays(target: &str, depth: usize) -> bool {
        Target::new(target.to_owned()).unwrap().stays_inside(depth)
    }

    proptest! {
        #[test]
        fn what_is_let_through_is_one_component(text in "\\PC{0,300}|.{0,300}|[./\\\\ab\\x00-\\x1f]{0,6}") {
            if let Ok(name) = name(&text) {
                let parts: Vec<_> = Path::new(name.as_str()).components().collect();
                prop_assert!(matches!(parts[..], [Component::Normal(part)] if part == text.as_str()));
                prop_assert!(!text.contains('\\') && !text.chars().any(char::is_control) && text.len() <= 255);
            }
        }

        /// Links drawn into real directories: whatever the kernel makes of one that is let through is inside.
        #[test]
        fn the_kernel_finds_nothing_outside(
            links in prop::collection::vec(("[abc]", "(\\.\\./){0,3}([abc.]|\\.\\.|/){0,4}", 0usize..3), 1..12)
        ) {
            let around = tempfile::tempdir().unwrap();
            let outermost = around.path().canonicalize().unwrap().join("r/e/s/t/in");
            std::fs::create_dir_all(outermost.join("d/d")).unwrap();
            for (name, target, depth) in links {
                let folder = ["", "d", "d/d"][depth];
                let Ok(target) = Target::new(target) else { continue };
                if target.stays_inside(depth) {
                    // Two of one name: the first stays.
                    let _ = std::os::unix::fs::symlink(target.as_str(), outermost.join(folder).join(name));
                }
            }
            for path in ["a", "b", "c", "d/a", "d/b", "d/c", "d/d/a", "d/d/b", "d/d/c"].map(PathBuf::from) {
                for below in ["", "a", "b", "c", "a/b/c", "d/a", "a/d/b"] {
                    // What leads nowhere, or in a circle, leads nowhere outside.
                    if let Ok(real) = outermost.join(&path).join(below).canonicalize() {
                        prop_assert!(real.starts_with(&outermost), "{}", real.display());
                    }
                }
            }
        }
    }

    /// B33: names that lead elsewhere, or drive a terminal. B36: names that are too long.
    #[test]
    fn names_that_could_do_harm_are_refused() {
        for wrong in [
            "",
            ".",
            "..",
            "../x",
            "a/../../b",
            "/abs",
            "a/b",
            "a/",
            "C:\\x",
            "\\\\host\\x",
            "a\0b",
            "a\nb",
            "a\u{1b}[2Jb",
            "a\u{7f}",
            "a\u{9b}b",
            "\r",
        ] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
        assert!(name(&"x".repeat(256)).is_err() && name(&"é".repeat(128)).is_err());
        for right in ["...", "..a", " ", "-rf", "~", "C:x", "\u{fc}ber", "\u{202e}x", &"x".repeat(255)] {
            assert!(name(right).is_ok(), "{right:?}");
        }
    }

    /// B35: links that lead out.
    #[test]
    fn links_that_could_lead_out_are_told_from_the_others() {
        for (target, depth) in [
            ("a", 0),
            ("a/b/c", 0),
            ("./a", 0),
            (".", 0),
            ("..", 1),
            ("../a", 1),
            ("../../a/b", 2),
            ("a/./b", 0),
            (".././..", 2),
            ("...", 0),
            ("..a", 0),
            (" /etc", 0),
        ] {
            assert!(stays(target, depth), "{target} at {depth}");
        }
        for (target, depth) in [
            ("/etc/passwd", 9),
            ("/", 9),
            ("..", 0),
            ("../a", 0),
            ("../..", 1),
            ("./..", 0),
            ("a/..", 9),
            ("a/../b", 9),
            ("a/../../b", 9),
            ("a//b", 9),
            ("a/", 9),
            ("//a", 9),
            ("..//a", 9),
            ("../", 9),
            (".././../x", 1),
        ] {
            assert!(!stays(target, depth), "{target} at {depth}");
        }
        for wrong in [String::new(), "a\0b".to_owned(), "x".repeat(4096)] {
            assert!(Target::new(wrong).is_err());
        }
        assert!(Target::new("x".repeat(4095)).is_ok());
    }
}
