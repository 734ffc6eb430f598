//! What can be wrong with the settings, in one line that an editor can jump to.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no [`super::Config`]. Each prints as one line; the process exits 78 (`EX_CONFIG`) with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {error}", file.display())]
    Unreadable {
        /// The file as the caller named it.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is far longer than any settings are: probably it is another file.
    #[error("{file}: longer than {limit} bytes: this is not a settings file")]
    TooLong {
        /// The file.
        file: String,
        /// The most that is read.
        limit: usize,
    },
    /// The file is not text.
    #[error("{at}: not UTF-8 text")]
    Encoding {
        /// The first byte that is wrong.
        at: Position,
    },
    /// The file is not TOML.
    #[error("{at}: not TOML: {message}")]
    Syntax {
        /// Where.
        at: Position,
        /// What the parser says.
        message: String,
    },
    /// A key that is unknown, or whose value is of the wrong type, out of range or not available yet.
    #[error("{at}: key `{key}`: {problem}")]
    Key {
        /// Where the key or the value is.
        at: Position,
        /// Its full name, such as `network.name`.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Nothing says where the state is to be kept.
    #[error("no folder for the state: set node.state_dir in the file given with --config, or HOME")]
    NoStateFolder,
    /// The default socket would have a path that the system cannot bind.
    #[error(
        "the socket's default path {} is {length} bytes long and the limit is {limit}: set api.socket",
        path.display()
    )]
    DefaultSocket {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The most that fits a socket address.
        limit: usize,
    },
}

/// A place in the file, printed `FILE:LINE:COLUMN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file as the caller named it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Position {
    /// The place of the byte at `offset` of `text`; what is not UTF-8 counts a character a byte.
    pub(super) fn of(file: &str, text: &[u8], offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Self { file: file.to_owned(), line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}
