//! FORMAT: the store's version and its random key, in a file of three lines.
//!
//! Formats to the byte: `docs/storage-format.md`, "FORMAT". The key is also at the head of each journal, from
//! where it is taken when FORMAT is lost.

use std::io;
use std::path::Path;

use super::Error;
use super::disk::Disk;
use super::record::StoreKey;

const FILE: &str = "FORMAT";
/// Where it is written before it takes the old one's place.
pub(super) const TEMPORARY: &str = "FORMAT.tmp";
const NAME: &str = "casd-store";

/// The version of all formats in the state folder that this build writes.
pub(super) const VERSION: u32 = 1;

/// No FORMAT is longer.
const MAX: usize = 256;

/// Reads FORMAT. `None` when there is no such file.
pub(super) fn read(disk: &dyn Disk) -> Result<Option<StoreKey>, Error> {
    let text = match disk.open(Path::new(FILE)).and_then(|file| file.read_at(0, MAX)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read FORMAT")(error)),
    };
    parse(&text).map(Some)
}

pub(super) fn parse(text: &str) -> Result<StoreKey, Error> {
    let damaged = |why| Error::Damaged { what: "FORMAT", why };
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix(NAME)?.strip_prefix(' '));
    let version = version.ok_or(damaged("it is not a store's"))?;
    let found: u32 = version.parse().map_err(|_| damaged("its version is not a number"))?;
    if found > VERSION {
        return Err(Error::TooNew { what: "the store", found, known: VERSION });
    }
    let digits = lines.next().and_then(|line| line.strip_prefix("key "));
    let mut key = StoreKey::default();
    let decoded = digits.is_some_and(|digits| hex::decode_to_slice(digits, &mut key).is_ok());
    if !decoded || text != render(&key) {
        return Err(damaged("its key does not match its checksum"));
    }
    Ok(key)
}

pub(super) fn render(key: &StoreKey) -> String {
    let body = format!("{NAME} {VERSION}\nkey {}\n", hex::encode(key));
    let check = hex::encode(&blake3::hash(body.as_bytes()).as_bytes()[..8]);
    format!("{body}check {check}\n")
}

/// Writes FORMAT durably.
pub(super) fn write(disk: &dyn Disk, key: &StoreKey) -> Result<(), Error> {
    let text = render(key);
    disk.replace(Path::new(""), Path::new(TEMPORARY), Path::new(FILE), text.as_bytes())
        .map_err(Error::io("write FORMAT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_and_refuses_the_rest() {
        let text = render(&[0xab; 32]);
        assert_eq!(parse(&text).unwrap(), [0xab; 32]);
        assert!(matches!(parse(&text.replace("ab", "ac")), Err(Error::Damaged { .. })));
        assert!(matches!(parse(&text[..40]), Err(Error::Damaged { .. })));
        assert!(matches!(parse(""), Err(Error::Damaged { .. })));
        let newer = parse("casd-store 2\nwhatever");
        assert!(matches!(newer, Err(Error::TooNew { found: 2, known: 1, .. })));
    }
}
