//! A program of another language: a Python client built from the proto files alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use casd_tests::ctl::Run;
use casd_tests::wait::LONG;
use casd_tests::{Home, skip};

/// How to get what the client needs, from the top of the repository.
const CURE: &str =
    "python3 -m venv target/python && target/python/bin/pip install -r tests/python/requirements.txt";

#[test]
fn a_python_client_adds_lists_fetches_and_reflects() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(python) = python(&here.join("../target/python/bin/python")) else {
        return skip(&format!("no Python with grpcio and grpcio-tools; get one: {CURE}"));
    };
    let home = Home::new();
    let daemon = home.start();
    let stubs = home.path("stubs");
    std::fs::create_dir(&stubs).unwrap();
    let done = Run::new(python)
        .arg(here.join("python/client.py"))
        .arg(daemon.ctl().socket())
        .arg(stubs)
        .arg(here.join("../proto"))
        .arg(here.join("python"))
        .within(3 * LONG)
        .done()
        .ok();
    let services = done.text();
    assert!(services.contains("services: casd.v1.Jobs, casd.v1.Network"), "{services}");
    // What Python has added, casctl gives.
    let listed = daemon.ctl().json(&["ls"]).pop().expect("one object");
    assert_eq!(listed["name"], "from-python");
}

/// The first Python that has what the client needs: the folder that [`CURE`] makes, or the system's.
fn python(made: &Path) -> Option<PathBuf> {
    let able = |python: &PathBuf| {
        let import = Command::new(python).args(["-c", "import grpc, grpc_tools"]).output();
        import.is_ok_and(|done| done.status.success())
    };
    [made.to_owned(), PathBuf::from("/usr/bin/python3"), PathBuf::from("python3")].into_iter().find(able)
}
