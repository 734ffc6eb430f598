//! Files with known contents: the same seed gives the same bytes on every machine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One MiB, the length of a chunk.
pub const MIB: u64 = 1 << 20;

/// Bytes that do not compress, and that two seeds do not share: BLAKE3's output of any length.
#[must_use]
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    output(seed).fill(&mut bytes);
    bytes
}

/// Writes a file of such bytes and gives its id.
pub fn file(path: &Path, seed: u64, length: u64) -> String {
    let mut from = output(seed).take(length);
    let mut hasher = blake3::Hasher::new();
    let mut file = File::create(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let got = from.read(&mut buffer).unwrap();
        if got == 0 {
            return hasher.finalize().to_string();
        }
        hasher.update(&buffer[..got]);
        file.write_all(&buffer[..got]).unwrap();
    }
}

/// Writes a file of `length` bytes that is all hole but for `parts` (offset and bytes), and gives its id.
pub fn sparse(path: &Path, length: u64, parts: &[(u64, &[u8])]) -> String {
    let file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
    id_of_file(path)
}

/// The id of bytes: what `b3sum` prints.
#[must_use]
pub fn id(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_string()
}

/// The id of a file's bytes.
#[must_use]
pub fn id_of_file(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).unwrap()).unwrap();
    hasher.finalize().to_string()
}

fn output(seed: u64) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"casd test corpus").update(&seed.to_le_bytes());
    hasher.finalize_xof()
}

/// How many bytes the files below a folder take on disk, holes left out.
///
/// # Errors
/// A folder cannot be read. A file that is removed meanwhile counts nothing.
pub fn disk_usage(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            total += disk_usage(&entry.path())?;
        } else {
            total += entry.metadata().map_or(0, |about| about.blocks() * 512);
        }
    }
    Ok(total)
}
