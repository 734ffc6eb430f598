//! What both ends say when a file is passed: README.md, "Passing a file".

use std::path::{Path, PathBuf};

/// What whoever passes a file says, with the descriptor.
pub const GREETING: [u8; 8] = *b"casd-fd1";

/// The first byte of the answer: the file is taken, and its token follows.
pub const TAKEN: u8 = 0;

/// The first byte of the answer: it is not; a byte with the length of what follows, and words that say why.
pub const REFUSED: u8 = 1;

/// Bytes of a token.
pub const TOKEN: usize = 32;

/// Bytes of the words of a refusal at most.
pub const MAX_WORDS: usize = u8::MAX as usize;

/// The socket on which files are passed to the daemon whose API is at `api`.
#[must_use]
pub fn socket_beside(api: &Path) -> PathBuf {
    let mut path = api.as_os_str().to_owned();
    path.push(".files");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_beside_the_socket_of_the_api() {
        let at = socket_beside(Path::new("/run/casd/casd.sock"));
        assert_eq!(at, Path::new("/run/casd/casd.sock.files"));
    }

    #[test]
    fn the_readme_says_the_same() {
        let readme = include_str!("../README.md");
        let greeting = std::str::from_utf8(&GREETING).unwrap();
        assert!(readme.contains(&format!("the {} bytes `{greeting}`", GREETING.len())));
        assert!(
            readme.contains(&format!("a byte {TAKEN} and a token of {TOKEN} bytes; or a byte {REFUSED}"))
        );
    }
}
