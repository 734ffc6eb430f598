//! `casctl completions`: prints a completion script.

use std::io::{Write, stdout};

use clap::CommandFactory;

use crate::args::{Args, Completions};
use crate::error::{Exit, Failure};
use crate::output::stdout_failure;

/// Prints; see [`Completions`].
pub(super) fn run(args: &Completions) -> Result<Exit, Failure> {
    // Into memory first: the generator panics on a pipe that nobody reads.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "casctl", &mut script);
    stdout().lock().write_all(&script).map_err(|error| stdout_failure(&error))?;
    Ok(Exit::Done)
}
