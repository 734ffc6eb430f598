//! What can be wrong with a key file or with the text of an address.

use std::io;
use std::path::PathBuf;

/// Why a key could not be had from its file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{action} the key file {}: {source}", path.display())]
    Io {
        /// What was tried, as "cannot read".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the key file {} is open to others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no plain file: a folder, a device, a pipe.
    #[error("{} is not a plain file, so no key is read from it", path.display())]
    NotAFile {
        /// What was found there.
        path: PathBuf,
    },
    /// It holds something else than a key, and is open to others: most likely it is another file than the one meant.
    #[error(
        "{} holds no key: that is 64 hexadecimal digits and a newline, in a file of its own with mode 600; `casd \
         --gen-key` makes one", path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// It holds something else than a key.
    #[error(
        "the key file {} is damaged: it must hold 64 hexadecimal digits and a newline; restore it from a backup, \
         or move it away to get a new key", path.display()
    )]
    Contents {
        /// The file.
        path: PathBuf,
    },
}

/// Why text is not a peer's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Neither of the two forms.
    #[error("a peer's address is PEERID@HOST:PORT, or a multiaddr that ends in /p2p/PEERID")]
    Form,
    /// Longer than any address.
    #[error("the address is longer than {0} bytes")]
    TooLong(usize),
    /// The part that should be a peer id is none.
    #[error("{0:?} is not a peer id")]
    PeerId(String),
    /// The host is no name and no address.
    #[error("{0:?} is not a host: write a name, an IPv4 address, or an IPv6 address in brackets")]
    Host(String),
    /// The port is missing or none.
    #[error("{0:?} is not a port: write 1 to 65535")]
    Port(String),
    /// A multiaddr with a part that is unknown or wrong.
    #[error("the multiaddr is wrong: {0}")]
    Multiaddr(String),
    /// A multiaddr that does not say whose it is.
    #[error("the multiaddr must end in /p2p/PEERID")]
    NoPeer,
}
