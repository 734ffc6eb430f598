//! Golden files: the formats as they were first written, in `tests/golden`. What is there is read by every later casd,
//! or refused by its version; a test that fails here has found a format that changed without a new one.

use std::path::Path;
use std::{env, fs};

/// The bytes of the golden file `name`, which must be `expected`. With `CASD_GOLDEN=new` a file that is not there is
/// written first.
pub(crate) fn is(name: &str, expected: &[u8]) -> Vec<u8> {
    is_at("golden", name, expected)
}

/// The same in another folder of `tests`.
pub(crate) fn is_at(folder: &str, name: &str, expected: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(folder).join(name);
    if env::var_os("CASD_GOLDEN").is_some() && !path.exists() {
        path.parent().map(fs::create_dir_all).transpose().unwrap();
        fs::write(&path, expected).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let differs = golden.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(
        (differs, golden.len()),
        (None, expected.len()),
        "{name} is not encoded to the same bytes: where"
    );
    golden
}

/// Bytes that differ by name and everywhere.
pub(crate) fn sample(name: &str, length: usize) -> bytes::Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}
