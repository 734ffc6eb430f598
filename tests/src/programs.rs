//! The programs under test, as Cargo built them beside the test executable.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The built program `name`.
///
/// Panics when it is missing, or older than one of its sources: a test of yesterday's program proves nothing.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // target/PROFILE/deps/TEST -> target/PROFILE/NAME
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).expect("Cargo puts tests two folders deep");
    let program = profile.join(name);
    let advice = "build it first: cargo build --workspace";
    let built = modified(&program).unwrap_or_else(|| panic!("{} is missing; {advice}", program.display()));
    if let Some(newer) = sources(&program).into_iter().find(|source| modified(source) > Some(built)) {
        panic!("{} is older than {}; {advice}", program.display(), newer.display());
    }
    program
}

/// The sources of a program, as Cargo lists them beside it: `PROGRAM: SOURCE SOURCE …`, spaces escaped.
fn sources(program: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let sources = listed.split_once(": ").map_or("", |(_, sources)| sources).replace("\\ ", "\0");
    sources.split_whitespace().map(|path| PathBuf::from(path.replace('\0', " "))).collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}
