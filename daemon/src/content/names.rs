//! Names of entries in a directory, and how what is inside one is written.
//!
//! Owns: which names there may be, on both ways: what is added and what strangers send. Refuses: rewriting a name that
//! is refused. Survives a crash: nothing is kept here.

use std::collections::HashMap;
use std::fmt;

use unicode_normalization::UnicodeNormalization;

use super::ObjectId;

/// The longest name of an entry, in bytes: what file systems take.
pub const MAX_ENTRY_NAME: usize = 255;

/// Why a directory cannot have an entry of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No name at all.
    #[error("a name is empty")]
    Empty,
    /// The directory itself, or the one around it.
    #[error("the name {0:?} stands for a directory")]
    Dots(String),
    /// More than [`MAX_ENTRY_NAME`] bytes.
    #[error("a name has {0} bytes; at most 255 can be")]
    TooLong(usize),
    /// A character that separates names, here or elsewhere, or that drives a terminal.
    #[error("the name {0:?} has {1:?}: a /, a \\ and control characters are not for names")]
    Character(String, char),
    /// Nothing that anybody would see.
    #[error("the name {0:?} is all blanks")]
    Blank(String),
    /// A character that is not seen, or has others read the rest of the name, or of a line, in another order.
    #[error("the name {0:?} has {1:?}, which is not seen and may have the rest read in another order")]
    Hidden(String, char),
    /// Bytes that are no text.
    #[error("an entry's name is not UTF-8")]
    NotUtf8,
    /// Two entries of one name.
    #[error("two entries are called {0:?}")]
    Twice(String),
    /// A link to nothing, or to more than a link can say.
    #[error("a symbolic link points to nothing, or its target has a NUL or more than 4,095 bytes")]
    Target,
    /// Not every file system could hold both.
    #[error("{0:?} and {1:?} are one name on some file systems")]
    Twins(String, String),
    /// Not every file system could hold it.
    #[error("the name {0:?} cannot be on some file systems")]
    NotPortable(String),
}

/// Whether an entry may be called so.
///
/// # Errors
/// [`NameError`].
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name {
        "" => return Err(NameError::Empty),
        "." | ".." => return Err(NameError::Dots(name.to_owned())),
        _ if name.len() > MAX_ENTRY_NAME => return Err(NameError::TooLong(name.len())),
        _ => {}
    }
    match name.chars().find(|c| matches!(c, '/' | '\\') || c.is_control()) {
        Some(c) => Err(NameError::Character(name.to_owned(), c)),
        None => Ok(()),
    }
}

/// Whether others may be told that something is called so: people who see it shall see what it is.
///
/// # Errors
/// As [`check_name`]; [`NameError::Blank`], [`NameError::Hidden`].
pub fn check_public_name(name: &str) -> Result<(), NameError> {
    check_name(name)?;
    if let Some(hidden) = name.chars().find(|c| is_hidden(*c)) {
        return Err(NameError::Hidden(name.to_owned(), hidden));
    }
    // A blank of Braille and a filler of Hangul are none by their class.
    if name.chars().all(|c| c.is_whitespace() || matches!(c, '\u{2800}' | '\u{3164}')) {
        return Err(NameError::Blank(name.to_owned()));
    }
    Ok(())
}

/// Marks, embeddings, overrides and isolates of direction, separators of lines, and what has no width. Those that join
/// letters, or keep them apart, are letters of some languages.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether every file system in use can hold these names beside each other.
///
/// # Errors
/// [`NameError::Twins`], [`NameError::NotPortable`].
pub fn check_portable<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), NameError> {
    let mut seen = HashMap::new();
    for name in names {
        if !is_portable(name) {
            return Err(NameError::NotPortable(name.to_owned()));
        }
        let folded: String = name.nfkc().collect::<String>().to_lowercase().nfkc().collect();
        if let Some(twin) = seen.insert(folded, name) {
            return Err(NameError::Twins(twin.to_owned(), name.to_owned()));
        }
    }
    Ok(())
}

/// Whether a name is none of a device, and has nothing that a file system takes away or refuses.
fn is_portable(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered =
        |prefix| stem.strip_prefix(prefix).is_some_and(|rest| matches!(rest.as_bytes(), [b'1'..=b'9']));
    let is_device =
        matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT");
    !is_device && !name.ends_with(['.', ' ']) && !name.contains(['<', '>', ':', '"', '|', '?', '*'])
}

/// What names an object that is a directory, or something inside one: `dir:ID`, `dir:ID/sub/path`, `ID/sub/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreePath {
    /// The directory.
    pub root: ObjectId,
    /// The names on the way from there; none: the directory itself.
    pub path: Vec<String>,
}

impl TreePath {
    /// Reads it; `None` for text of another form, such as an id alone. Names need not exist, or be ones.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (root, path) = Self::split(text)?;
        Some(Self { root: root.parse().ok()?, path })
    }

    /// The same of text in which anything may stand for the id; what does, and the names behind it.
    #[must_use]
    pub fn split(text: &str) -> Option<(&str, Vec<String>)> {
        let rest = text.strip_prefix("dir:");
        let (root, path) = match rest.unwrap_or(text).split_once('/') {
            Some((root, path)) => (root, path),
            None => (rest?, ""),
        };
        Some((root, path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dir:{}", self.root)?;
        self.path.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_let_through_is_one_component(name in "\\PC{0,300}|.{0,300}") {
            if check_name(&name).is_ok() {
                let path = std::path::Path::new(&name);
                let parts: Vec<_> = path.components().collect();
                prop_assert!(matches!(parts[..], [std::path::Component::Normal(part)] if part == name.as_str()));
                prop_assert!(!name.contains('\\') && !name.chars().any(char::is_control) && name.len() <= 255);
            }
        }
    }

    /// B33: names that lead elsewhere, or drive a terminal.
    #[test]
    fn b33_names_that_lead_out_are_refused() {
        let names = [
            "",
            ".",
            "..",
            "a/../../b",
            "/abs",
            "a/b",
            "C:\\x",
            "a\0b",
            "a\nb",
            "a\u{1b}[2Jb",
            "a\u{7f}",
            "a\u{9b}b",
        ];
        for name in names {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["...", "a b", " ", "-rf", "~", "C:x", "\u{fc}ber", &"x".repeat(255)] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
        assert_eq!(check_name(&"x".repeat(256)), Err(NameError::TooLong(256)));
    }

    #[test]
    fn what_nobody_would_see_is_no_name_for_others() {
        for name in [" ", "\u{3000}\u{2003} ", "\u{2800}", "\u{3164} "] {
            assert_eq!(check_public_name(name), Err(NameError::Blank(name.to_owned())), "{name:?}");
        }
        for name in ["a\u{202e}gpj.exe", "\u{2066}a", "\u{200b}", "a\u{feff}", "x\u{200f}", "\u{e0041}"] {
            assert!(matches!(check_public_name(name), Err(NameError::Hidden(..))), "{name:?}");
            assert_eq!(check_name(name), Ok(()), "a file may be called so");
        }
        for name in ["", "a/b", "a\nb"] {
            assert_eq!(check_public_name(name), check_name(name));
            assert!(check_name(name).is_err());
        }
        for name in
            ["a b", " a", "\u{5d0}\u{5d1}.txt", "\u{645}\u{6cc}\u{200c}\u{62e}", "\u{1f469}\u{200d}\u{1f680}"]
        {
            assert_eq!(check_public_name(name), Ok(()), "{name:?}");
        }
    }

    /// B34: names that are one elsewhere, or none.
    #[test]
    fn b34_twins_and_devices_are_refused_where_it_is_asked() {
        let portable = |names: &[&str]| check_portable(names.iter().copied());
        assert_eq!(portable(&["A", "b", "con1", "nul_", "com10"]), Ok(()));
        for twins in [["A", "a"], ["\u{e9}", "e\u{301}"], ["\u{212b}", "\u{e5}"], ["\u{fb01}", "fi"]] {
            assert!(matches!(portable(&twins), Err(NameError::Twins(..))), "{twins:?}");
        }
        for name in ["a.", "a ", "CON", "con.txt", "NUL .x", "Lpt9", "a:b", "what?"] {
            assert_eq!(portable(&[name]), Err(NameError::NotPortable(name.to_owned())));
        }
    }

    #[test]
    fn paths_in_directories_have_two_spellings() {
        let id = ObjectId::EMPTY;
        let path = |names: &[&str]| {
            Some(TreePath { root: id, path: names.iter().map(|name| (*name).to_owned()).collect() })
        };
        assert_eq!(TreePath::parse(&format!("dir:{id}")), path(&[]));
        assert_eq!(TreePath::parse(&format!("dir:{id}/")), path(&[]));
        assert_eq!(TreePath::parse(&format!("{id}/a/b")), path(&["a", "b"]));
        assert_eq!(
            TreePath::parse(&format!("dir:{id}/a b")).map(|path| path.to_string()),
            Some(format!("dir:{id}/a b"))
        );
        for other in
            [id.to_string(), "dir:12".to_owned(), "dir:".to_owned(), "a/b".to_owned(), format!("dir:x{id}")]
        {
            assert_eq!(TreePath::parse(&other), None, "{other}");
        }
    }
}
