//! The command line, as types.

mod jobs;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use jobs::{Explain, JobName, Jobs, Priority};

use crate::commands::limits::Change;
use crate::object::{Id, Selector, Source};

/// Store files by the hash of their content, and share them peer to peer.
#[derive(Debug, Parser)]
#[command(name = "casctl", version, max_term_width = 100, disable_help_subcommand = true, after_long_help = EXIT_CODES)]
pub(crate) struct Args {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 bad usage; 3 daemon not reachable; 4 not found; \
    5 not permitted; 6 no space or quota; 7 stalled, again may help; 8 damage found; \
    9 added, but no other node has been told (--wait-announced); \
    130 and 143 interrupted by SIGINT and SIGTERM.";

const KEPT: &str = "Of a directory names, contents, symbolic links and which files their owner may execute are kept; \
    times, owners and other modes are not. What cannot be kept refuses the whole directory, and is told: names with a \
    \\ or control characters or that are not UTF-8, FIFOs, sockets and devices, and what is nested more than 64 deep.";

/// What holds for every verb.
#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// The daemon's socket [default: the user's own daemon's, then /run/casd/casd.sock]
    #[arg(long, global = true, value_name = "PATH", env = "CASD_SOCKET", hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Print results, and errors on standard error, as one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print the bare result only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// What casctl can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Store files and directories; prints `ID  NAME` for each
    Add(Add),
    /// Get a file or a directory, from the network as far as it is not here, and write it
    Fetch(Fetch),
    /// List fetches that go on without their callers, cancel them, or have them begin sooner
    Jobs(Jobs),
    /// Say why an object is here or not: who was asked for it, and what they said
    Explain(Explain),
    /// Write an object's bytes to standard output
    Cat(Cat),
    /// List what is stored, or what is in a directory
    Ls(Ls),
    /// Describe an object
    Stat(Stat),
    /// Drop the pin of an object and free what nothing else holds
    Rm(Rm),
    /// Promise to keep objects
    Pin(Objects),
    /// Take the promise back
    Unpin(Objects),
    /// Let the name of an object out, so that others see it in stat, search and ls --network
    Publish(Publish),
    /// Print the link by which others fetch an object
    Link(Object),
    /// Search names: of what is stored here, and of what others publish
    #[command(alias = "find")]
    Search(Search),
    /// Ask the network who holds an object or a chunk
    Providers(Providers),
    /// List the connected peers, and the banned ones
    Peers(Peers),
    /// Connect to a peer
    Connect(Connect),
    /// Say how far others have been told of what is held here
    Announce,
    /// Say who and how the daemon is
    Status,
    /// Prove that what is stored is what it was, and mend what is not
    Verify(Verify),
    /// Look at the daemon's state folder and disk, and say what is wrong
    Doctor(Doctor),
    /// Say how much may move at once, or change it
    Limits(Limits),
    /// Drop what is unpinned and older than an hour
    Gc(Gc),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// `casctl add`
#[derive(Debug, ClapArgs)]
#[command(after_help = KEPT)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Add {
    /// Files to add, with -r also directories; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Parity to compute: K data and M parity chunks a stripe, as K+M, or none
    #[arg(long, value_name = "K+M|none")]
    pub(crate) parity: Option<String>,
    /// What to call it instead of its own name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Let its name out as well: others see it in stat, search and ls --network
    #[arg(long, conflicts_with = "private")]
    pub(crate) publish: bool,
    /// Never announce, serve or place it
    #[arg(long)]
    pub(crate) private: bool,
    /// Return only when the network has been told; where nobody can be, it is stored all the same, and the exit code
    /// is 9
    #[arg(long, conflicts_with = "private")]
    pub(crate) wait_announced: bool,
    /// Add directories with everything in them; symbolic links are kept as links
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Print `ID  PATH` for every file in a directory as well
    #[arg(long, requires = "recursive")]
    pub(crate) each: bool,
    /// Refuse names in directories that not every file system can hold
    #[arg(long, requires = "recursive")]
    pub(crate) portable: bool,
}

/// `casctl fetch`
#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Fetch {
    /// The whole id (dir:ID for a directory, dir:ID/PATH for what is in it), or a link (casd:ID,…)
    #[arg(value_name = "ID|LINK")]
    pub(crate) source: Source,
    /// Where to write; `-` streams to standard output [default: the last name of PATH, the name in the link, the name
    /// that it has in the daemon's store, or else the id]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite what is there; a directory replaces it with everything in it
    #[arg(long)]
    pub(crate) force: bool,
    /// Promise to keep it in the store
    #[arg(long)]
    pub(crate) pin: bool,
    /// Return only when all of it is on disk
    #[arg(long)]
    pub(crate) sync: bool,
    /// Ask this peer first: a multiaddr with /p2p/ID, or ID@HOST:PORT (repeatable)
    #[arg(long = "peer", value_name = "ADDR")]
    pub(crate) peers: Vec<String>,
    /// Give up when nothing arrives for so long (500ms, 60s, 2m, 1h)
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(crate) stall: Duration,
    /// Leave it in the store, and do not wait for it: it goes on over restarts until it is there, see `casctl jobs`
    #[arg(long, conflicts_with_all = ["output", "force", "sync", "symlinks", "stall", "wait"])]
    pub(crate) detach: bool,
    /// With --detach: when it begins among other jobs
    #[arg(long, value_enum, value_name = "PRIORITY", requires = "detach")]
    pub(crate) priority: Option<Priority>,
    /// Wait until someone has it, however long that takes
    #[arg(long, conflicts_with = "stall")]
    pub(crate) wait: bool,
    /// Restore symbolic links of directories as well, but for those that could lead out of it
    #[arg(long)]
    pub(crate) symlinks: bool,
}

/// `casctl cat`
#[derive(Debug, ClapArgs)]
pub(crate) struct Cat {
    /// A whole id, of what is here or elsewhere; a prefix of 8 digits or more, or a name; with /PATH behind it what is
    /// in a directory
    #[arg(value_name = "ID", value_parser = crate::object::selector)]
    pub(crate) object: String,
    /// Skip so many bytes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: u64,
    /// At most so many bytes
    #[arg(long, value_name = "N")]
    pub(crate) length: Option<u64>,
}

/// `casctl ls`
#[derive(Debug, ClapArgs)]
pub(crate) struct Ls {
    /// Only this one, and of a directory its entries: an id, a prefix of 8 digits or more, or a name; with /PATH behind
    /// it what is in a directory. -q prints ids, which symbolic links do not have
    #[arg(value_name = "ID")]
    pub(crate) object: Option<Selector>,
    /// Also what is here only as part of a directory
    #[arg(long, conflicts_with = "object")]
    pub(crate) parts: bool,
    /// What has a name here, and what others publish: each line says whose word it is. "publishes NODE" was asked of
    /// that node right now; "says NODE" is what that node said some time ago, kept here. It ends with 4 when nothing
    /// was found and nobody answered
    #[arg(long, conflicts_with_all = ["object", "parts"])]
    pub(crate) network: bool,
    /// Only what this peer publishes
    #[arg(long, value_name = "PEER", requires = "network")]
    pub(crate) peer: Option<String>,
    /// At most so many of each source: the store, what is kept here of others' words, and known peers
    #[arg(long, value_name = "N", requires = "network", default_value_t = LINES, value_parser = lines())]
    pub(crate) limit: u32,
}

/// Lines of each source in a search, and at most.
const LINES: u32 = 1_000;
const MAX_LINES: i64 = 10_000;

fn lines() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=MAX_LINES)
}

const WORDS: &str = "Each line says whose word it is: \"here\" has this name in this node's store; \
    \"publishes NODE\" was asked of that node right now; \"says NODE\" is what that node said some time ago, kept here \
    since it was not asked or did not answer, so it may be gone by now. Nodes that are known are asked, connected or \
    not; how many answered is told on standard error. It ends with 4 when nothing was found and nobody answered.";

/// `casctl search`
#[derive(Debug, ClapArgs)]
#[command(after_help = WORDS)]
pub(crate) struct Search {
    /// It stands in the name, whatever the case
    #[arg(value_name = "TEXT", value_parser = search_text)]
    pub(crate) text: String,
    /// At most so many of each source: the store, what is kept here of others' words, and known peers
    #[arg(long, value_name = "N", default_value_t = LINES, value_parser = lines())]
    pub(crate) limit: u32,
}

/// `casctl publish`
#[derive(Debug, ClapArgs)]
pub(crate) struct Publish {
    /// An object that you have pinned: an id, a prefix of 8 digits or more, or a name
    #[arg(value_name = "ID", value_parser = crate::object::selector)]
    pub(crate) object: String,
    /// What to call it from now on, here as well; needed where another user may have named it
    #[arg(long, conflicts_with = "withdraw")]
    pub(crate) name: Option<String>,
    /// Take it back: nodes that were told are told that it has no name any more, those that are away once they are back
    #[arg(long)]
    pub(crate) withdraw: bool,
}

const SAID: &str = "Of what is not here it tells what others publish, with whose word each is. With --json that \
    stands in \"descriptions\"; \"name\", \"size\" and \"publisher\" beside them are null where more than one says so. A name \
    is looked up here only: `casctl search` finds what others publish.";

/// `casctl stat`
#[derive(Debug, ClapArgs)]
#[command(after_help = SAID)]
pub(crate) struct Stat {
    /// An id, a prefix of 8 digits or more, or a name; with /PATH behind it what is in a directory
    #[arg(value_name = "ID", value_parser = crate::object::selector)]
    pub(crate) object: String,
    /// List its chunks: data first, then parity
    #[arg(long)]
    pub(crate) chunks: bool,
}

/// A verb on one stored object.
#[derive(Debug, ClapArgs)]
pub(crate) struct Object {
    /// An id, a prefix of 8 digits or more, or a name; with /PATH behind it what is in a directory
    #[arg(value_name = "ID", value_parser = crate::object::selector)]
    pub(crate) object: String,
}

/// A verb on stored objects.
#[derive(Debug, ClapArgs)]
pub(crate) struct Objects {
    /// Ids, prefixes of 8 digits or more, or names
    #[arg(required = true, value_name = "ID", value_parser = crate::object::selector)]
    pub(crate) objects: Vec<String>,
}

/// `casctl rm`
#[derive(Debug, ClapArgs)]
pub(crate) struct Rm {
    #[command(flatten)]
    pub(crate) objects: Objects,
    /// Drop the pins of others as well (administrators only)
    #[arg(long)]
    pub(crate) force: bool,
}

/// `casctl providers`
#[derive(Debug, ClapArgs)]
pub(crate) struct Providers {
    /// The whole id of an object or a chunk
    #[arg(value_name = "ID|CHUNK", value_parser = crate::object::id_elsewhere)]
    pub(crate) id: Id,
}

/// `casctl peers`
#[derive(Debug, ClapArgs)]
pub(crate) struct Peers {
    /// Also those that are known or remembered, and neither connected nor banned
    #[arg(long)]
    pub(crate) all: bool,
}

/// `casctl connect`
#[derive(Debug, ClapArgs)]
pub(crate) struct Connect {
    /// A multiaddr with /p2p/ID, or ID@HOST:PORT of a chunk port
    #[arg(value_name = "ADDR")]
    pub(crate) address: String,
}

/// `casctl verify`
#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// Only this one: an id, a prefix of 8 digits or more, or a name
    #[arg(value_name = "ID", value_parser = crate::object::selector)]
    pub(crate) object: Option<String>,
    /// Verify nothing now; stop proving in the background until --resume
    #[arg(long, conflicts_with = "object")]
    pub(crate) pause: bool,
    /// Verify nothing now; let proving in the background go on
    #[arg(long, conflicts_with_all = ["object", "pause"])]
    pub(crate) resume: bool,
}

/// `casctl doctor`
#[derive(Debug, ClapArgs)]
pub(crate) struct Doctor {
    /// Where to look when no daemon answers [default: where a daemon keeps its state]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

const LIMITS: &str = "Rates are bytes a second: 10MiB, 500kB, 0 for no limit. upload and download are of everything; \
    upload_per_peer is what each peer is given; serve (what peers are given) and announce (what others are told) are \
    within upload, fetch (what users fetch) and repair (what mends damage) within download. upload_slots is how many \
    peers are given chunks at once (1 to 4096), yielding (true, false) whether uploads make way for what else is on \
    the line. What is changed holds until casd is restarted or reloads its settings; to keep it, write it there, in \
    [transfer].";

/// `casctl limits`
#[derive(Debug, ClapArgs)]
#[command(after_help = LIMITS)]
pub(crate) struct Limits {
    /// What to change, such as upload=10MiB (administrators only); without it the limits are shown
    #[arg(value_name = "KEY=VALUE", value_parser = crate::commands::limits::change)]
    pub(crate) changes: Vec<Change>,
}

/// `casctl gc`
#[derive(Debug, ClapArgs)]
pub(crate) struct Gc {
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `casctl completions`
#[derive(Debug, ClapArgs)]
pub(crate) struct Completions {
    /// Which shell
    pub(crate) shell: Shell,
}

/// What to search for: some text that a name may have.
fn search_text(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("it is empty; `casctl ls --network` lists everything".to_owned()),
        1..=128 => Ok(text.to_owned()),
        _ => Err("it has more than 128 bytes".to_owned()),
    }
}

/// Reads a duration: digits and a unit, `ms`, `s`, `m` or `h`. Zero is refused.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a number and a unit: 500ms, 60s, 2m or 1h".to_owned()),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds)) {
        Some(total) if total > 0 => Ok(Duration::from_millis(total)),
        Some(_) => Err("it must be longer than nothing".to_owned()),
        None => Err("write a number and a unit: 500ms, 60s, 2m or 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in
            ["", "60", "s", "-1s", "1.5s", "0s", "1 s", "99999999999999999999s", "9999999999999999h", "1d"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn who_types_find_searches() {
        assert!(matches!(Args::parse_from(["casctl", "find", "x"]).verb, Verb::Search(_)));
    }

    #[test]
    fn search_and_its_like_say_the_same_of_how_they_end() {
        let mut casctl = Args::command();
        for verb in ["search", "ls"] {
            let help = casctl.find_subcommand_mut(verb).unwrap().render_long_help().to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(help.contains("ends with 4 when nothing was found and nobody answered"), "{help}");
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        let args = Args::parse_from(["casctl", "status", "--json", "-q", "--socket", "/x"]);
        assert!(args.global.json && args.global.quiet);
        assert_eq!(args.global.socket, Some(PathBuf::from("/x")));
        let args = Args::parse_from(["casctl", "-q", "add", "-", "a"]);
        assert!(matches!(args.verb, Verb::Add(add) if add.paths.len() == 2));
    }
}
