//! casctl, the command line of casd: parses, connects, runs one verb, and ends with its exit code.
//!
//! Owns: what people and scripts see. Refuses: knowing how casd works; it speaks `casd.v1` and nothing else.

mod args;
mod commands;
mod download;
mod error;
mod folder;
mod object;
mod output;
mod passing;
mod signals;
mod socket;
mod thread;
mod tree;
mod upload;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::error::{Exit, Failure};
use crate::output::Output;

fn main() -> ExitCode {
    casd_proto::memory::keep();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return commands::usage(&error),
    };
    let output = Output { json: args.global.json, quiet: args.global.quiet };
    match run(args, output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Runs the verb on one thread: connection and conversion stay on one core, files have threads of their own.
fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("IO", "cannot start", &error))?;
    runtime.block_on(async {
        tokio::select! {
            done = commands::run(args, output) => done,
            failure = signals::interrupted() => Err(failure),
        }
    })
}
