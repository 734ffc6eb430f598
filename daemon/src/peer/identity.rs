//! This node's identity, and the form that all of casd's key files share.
//!
//! # Format of a key file
//!
//! 64 hexadecimal digits (32 bytes) and a newline, which may be missing; mode 0600 or less. In `node.key` they are the
//! Ed25519 secret key (RFC 8032).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use libp2p_identity::{Keypair, ed25519};
use zeroize::Zeroizing;

use super::Error;

/// The identity's file in the state folder.
const FILE: &str = "node.key";

/// Digits of a key.
const DIGITS: usize = 64;

/// Loads or makes the key that says who this node is.
#[derive(Clone, Copy, Debug)]
pub struct Identity;

impl Identity {
    /// The Ed25519 key in `node.key` of the state folder; makes one at the first start.
    ///
    /// The file appears whole or not at all, and is on disk before this returns: a node that has spoken to
    /// others keeps its name. The caller holds the state folder's lock. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error`], each naming the file. An existing file is never replaced, whatever is wrong with it.
    #[expect(clippy::expect_used, reason = "32 bytes are always an Ed25519 secret key")]
    pub fn load_or_create(state_dir: &Path) -> Result<Keypair, Error> {
        let path = state_dir.join(FILE);
        let mut secret = match read_key(&path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let made = ed25519::SecretKey::generate();
                let secret: [u8; 32] = made.as_ref().try_into().expect("a secret key has 32 bytes");
                create_key(&path, &secret)?;
                Zeroizing::new(secret)
            }
            found => found?,
        };
        Ok(Keypair::ed25519_from_bytes(&mut secret[..]).expect("32 bytes are a secret key"))
    }
}

/// Reads a key file: the node's, or a network's.
///
/// # Errors
/// [`Error`]; [`Error::Io`] of kind `NotFound` when there is no such file.
pub fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, Error> {
    let io_error = |source| Error::Io { action: "cannot read", path: path.to_owned(), source };
    // Non-blocking: opening a pipe would otherwise wait for its other end.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(io_error)?;
    let meta = file.metadata().map_err(io_error)?;
    if !meta.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    let mode = meta.mode() & 0o777;
    let is_open = mode & 0o077 != 0;
    // One byte more than a key and its newline is enough to see that it is none.
    let mut text = Zeroizing::new(Vec::with_capacity(DIGITS + 2));
    file.take(DIGITS as u64 + 2).read_to_end(&mut text).map_err(io_error)?;
    let digits = text.strip_suffix(b"\n").unwrap_or(&text[..]);
    let mut key = Zeroizing::new([0; 32]);
    let read = hex::decode_to_slice(digits, &mut key[..]);
    match (read, is_open, path.to_owned()) {
        (Ok(()), false, _) => Ok(key),
        (Ok(()), true, path) => Err(Error::Open { path, mode }),
        (Err(_), false, path) => Err(Error::Contents { path }),
        // Nobody is to shut a file of another kind, such as one of the system's, to others.
        (Err(_), true, path) => Err(Error::NoKey { path }),
    }
}

/// Writes a new key file: under another name, synced, then renamed, so that no crash leaves half a key.
///
/// # Errors
/// [`Error::Io`], also when the file exists.
pub fn create_key(path: &Path, key: &[u8; 32]) -> Result<(), Error> {
    let write = || {
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let unfinished = path.with_extension("key.new");
        // Left by a start that a crash ended: never a key that anyone has seen.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        writeln!(file, "{}", hex::encode(key))?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| Error::Io { action: "cannot create", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_node_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let again = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.public(), again.public());
        let meta = fs::metadata(dir.path().join(FILE)).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.len()), (0o600, 65));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_half_written_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("node.key.new"), "12").unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        Identity::load_or_create(dir.path()).unwrap();
    }

    #[test]
    fn a_bad_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let digits = "ab".repeat(32);
        for text in ["", "\n", "12", &digits[1..], &format!("{digits}\n\n"), &format!("{digits}00")] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = Identity::load_or_create(dir.path()).unwrap_err();
            assert!(
                matches!(error, Error::Contents { .. }) && error.to_string().contains("node.key"),
                "{text:?}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, &digits).unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Open { mode: 0o640, .. }) && error.to_string().contains("chmod 600"));
        fs::write(&path, "root:x:0:0:").unwrap();
        let error = Identity::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, Error::NoKey { .. }) && !error.to_string().contains("chmod"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(Identity::load_or_create(dir.path()), Err(Error::NotAFile { .. })));
    }
}
