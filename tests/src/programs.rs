//! The programs under test, as Cargo built them beside the test executable.

use std::path::{Path, PathBuf};
use std::process::Command;
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

/// Copies the built program `name` to `to`, where every user may run it: the folder that it was built in may not be
/// others' to enter.
pub fn copy(name: &str, to: &Path) {
    // By another process: what other threads start meanwhile would hold a file open that this one writes, and who is
    // written is not to be run.
    let copied = Command::new("install").args(["-m", "755"]).arg(program(name)).arg(to).status().unwrap();
    assert!(copied.success(), "{name} could not be copied to {}", to.display());
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
