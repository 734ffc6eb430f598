//! Drives casd from outside: real processes, real sockets, real files.
//!
//! Owns: starting and ending daemons ([`process`]), running casctl ([`ctl`]), waiting for conditions ([`wait`]) and
//! files with known contents ([`corpus`]). Refuses: to know the daemon's insides, to sleep for a guessed time, to
//! run a program that is older than its sources, and to stop any process that it did not start.
//!
//! A step that fails panics with what was expected, what happened and the daemon's last words: the test that took it
//! has failed, and there is nobody to hand an error to.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

pub mod corpus;
pub mod ctl;
pub mod disk;
pub mod hearsay;
pub mod machines;
pub mod nodes;
pub mod process;
pub mod programs;
pub mod segments;
pub mod settings;
pub mod strace;
pub mod stranger;
pub mod trees;
pub mod wait;

pub use ctl::{Ctl, Done};
pub use nodes::Node;
pub use process::{Daemon, Home};
pub use settings::Settings;

/// Says why a test proves nothing here. Where everything is to be proved, that is a failure.
#[track_caller]
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped: {why}");
    eprintln!("skipped: {why}");
}
