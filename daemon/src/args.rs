//! The daemon's command line, and the exit codes of the process.
//!
//! Owns: what may follow `casd`. Refuses: settings; those are in the file (see [`crate::config`]), so that one
//! place says how a daemon was set up. Survives a crash: nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

/// The daemon ended because something at start or at run time failed.
pub const EXIT_FAILED: u8 = 1;

/// The command line was wrong (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// The store was written by a later version (`EX_DATAERR`).
pub const EXIT_STORE_TOO_NEW: u8 = 65;

/// The settings were wrong (`EX_CONFIG`).
pub const EXIT_CONFIG: u8 = 78;

/// Stores files by the BLAKE3 of their content and shares them peer to peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser)]
#[command(
    name = "casd",
    version,
    after_help = "casctl talks to a running casd. CASD_LOG sets what is logged."
)]
pub struct Args {
    /// Read the settings from this file; without it, defaults that suit an unprivileged user
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Read the settings, say what is wrong with them (78) or has no effect (0), and end
    #[arg(long)]
    pub check_config: bool,

    /// Print a new key for a private network, and end: (umask 077; casd --gen-key >FILE), see network.key_file
    #[arg(long, conflicts_with_all = ["config", "check_config", "rebuild_index"])]
    pub gen_key: bool,

    /// Make the index anew from the stored data before serving
    #[arg(long, conflicts_with = "check_config")]
    pub rebuild_index: bool,
}

impl Args {
    /// Reads this process's command line.
    ///
    /// # Errors
    /// The code to exit with after help, the version or a complaint has been printed: 0 or [`EXIT_USAGE`].
    pub fn of_process() -> Result<Self, ExitCode> {
        Self::read(std::env::args_os()).map_err(|error| {
            // Nothing can be done about output that cannot be written; the code still says it.
            let _ = error.print();
            ExitCode::from(exit_code(&error))
        })
    }

    /// Reads a command line; the first word is the program's name.
    fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(words)
    }
}

fn exit_code(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ => EXIT_USAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, u8> {
        Args::read(line.split(' ').map(OsString::from)).map_err(|error| exit_code(&error))
    }

    #[test]
    fn each_option_is_taken() {
        assert_eq!(read("casd"), Ok(Args::default()));
        let all = Args { config: Some("/etc/casd/casd.toml".into()), rebuild_index: true, ..Args::default() };
        assert_eq!(read("casd --config /etc/casd/casd.toml --rebuild-index"), Ok(all));
        assert!(read("casd --config x --check-config").is_ok_and(|args| args.check_config));
        assert!(read("casd --gen-key").is_ok_and(|args| args.gen_key));
    }

    #[test]
    fn bad_usage_is_64_and_help_is_not_bad() {
        for line in
            ["casd serve", "casd --confg x", "casd --config", "casd --gen-key --check-config", "casd -c x"]
        {
            assert_eq!(read(line), Err(EXIT_USAGE), "{line}");
        }
        assert_eq!(read("casd --version"), Err(0));
        assert_eq!(read("casd --help"), Err(0));
    }

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
