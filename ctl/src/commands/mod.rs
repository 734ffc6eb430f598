//! The verbs, one a file.

mod add;
mod announce;
mod cat;
mod completions;
mod connect;
pub(crate) mod doctor;
mod explain;
mod fetch;
mod gc;
mod jobs;
pub(crate) mod limits;
mod link;
mod ls;
mod peers;
mod pin;
mod providers;
mod publish;
mod rm;
mod search;
mod stat;
mod status;
mod unpin;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use casd_proto::v1::AnnounceStatusRequest;
use casd_proto::v1::jobs_client::JobsClient;
use casd_proto::v1::network_client::NetworkClient;
use casd_proto::v1::node_client::NodeClient;
use casd_proto::v1::objects_client::ObjectsClient;
use casd_proto::v1::trees_client::TreesClient;
use casd_proto::{Reason, client};
use clap::error::ErrorKind;
use futures::{Stream, StreamExt};
use tonic::transport::Channel;

use crate::args::{Args, Verb};
use crate::error::{Exit, Failure};
use crate::output::text::{deceives, escaped};
use crate::output::{Line, Output};
use crate::socket;

/// What a verb works with.
struct Session {
    /// The connection to the daemon.
    channel: Channel,
    /// Where it listens.
    socket: PathBuf,
    /// How results are printed.
    output: Output,
}

impl Session {
    fn objects(&self) -> ObjectsClient<Channel> {
        client::objects(self.channel.clone())
    }

    fn trees(&self) -> TreesClient<Channel> {
        client::trees(self.channel.clone())
    }

    fn jobs(&self) -> JobsClient<Channel> {
        client::jobs(self.channel.clone())
    }

    fn network(&self) -> NetworkClient<Channel> {
        client::network(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        client::node(self.channel.clone())
    }

    /// Prints what comes of several arguments, in their order; a failure of one does not stop the others.
    /// Gives the highest exit code.
    async fn tell_each(&self, results: impl Stream<Item = Result<Line, Failure>>) -> Result<Exit, Failure> {
        let mut worst = Exit::Done;
        let mut results = std::pin::pin!(results);
        while let Some(result) = results.next().await {
            match result {
                Ok(line) => self.output.result(&line)?,
                Err(failure) => {
                    worst = worst.max(failure.exit);
                    self.output.failure(&failure);
                }
            }
        }
        Ok(worst)
    }
}

/// Whether the daemon only fetches. Where that cannot be learnt nothing is told: the add is done.
async fn keeps_to_itself(session: &Session) -> bool {
    // Not the node's status: that counts what the store holds.
    let status = session.network().announce_status(AnnounceStatusRequest {}).await;
    status.is_ok_and(|status| status.get_ref().client)
}

/// The daemon does not keep to `casd.v1`.
fn broken(what: &str) -> Failure {
    Failure::local(Exit::Failed, Reason::Internal.as_str(), format!("the daemon {what}; this is a bug"))
}

/// Does what the command line says.
///
/// # Errors
/// When the verb as a whole fails. What fails of one of several arguments is told here, and is in the exit code.
pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    // What needs no daemon comes first.
    match &args.verb {
        Verb::Completions(args) => return completions::run(args),
        Verb::Add(args) => add::check(args)?,
        Verb::Fetch(args) => fetch::check(args)?,
        Verb::Doctor(doctor) => return doctor::run(output, args.global.socket.as_deref(), doctor).await,
        _ => {}
    }
    let (channel, socket) = socket::connect(args.global.socket.as_deref()).await?;
    let session = Session { channel, socket, output };
    match args.verb {
        Verb::Add(args) => add::run(&session, args).await,
        Verb::Fetch(args) => fetch::run(&session, args).await,
        Verb::Jobs(args) => jobs::run(&session, args).await,
        Verb::Explain(args) => explain::run(&session, args).await,
        Verb::Cat(args) => cat::run(&session, args).await,
        Verb::Ls(args) => ls::run(&session, args).await,
        Verb::Stat(args) => stat::run(&session, args).await,
        Verb::Rm(args) => rm::run(&session, args).await,
        Verb::Pin(args) => pin::run(&session, args).await,
        Verb::Unpin(args) => unpin::run(&session, args).await,
        Verb::Publish(args) => publish::run(&session, args).await,
        Verb::Link(args) => link::run(&session, args).await,
        Verb::Search(args) => search::run(&session, args).await,
        Verb::Providers(args) => providers::run(&session, args).await,
        Verb::Peers(args) => peers::run(&session, args).await,
        Verb::Connect(args) => connect::run(&session, args).await,
        Verb::Announce => announce::run(&session).await,
        Verb::Status => status::run(&session).await,
        Verb::Verify(args) => verify::run(&session, args).await,
        Verb::Limits(args) => limits::run(&session, args).await,
        Verb::Gc(args) => gc::run(&session, args).await,
        // Done above.
        Verb::Completions(_) | Verb::Doctor(_) => Ok(Exit::Done),
    }
}

/// Says what is wrong with the command line, or what `--help` and `--version` ask for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut message = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        if message.ends_with(':') {
            // What is missing stands in the lines below, up to the usage.
            let named: Vec<&str> = lines.clone().take_while(|line| !line.starts_with("Usage:")).collect();
            message = format!("{message} {}", named.join(", "));
        }
        let hint = lines.find_map(|line| line.strip_prefix("tip: ")).unwrap_or("see `casctl --help`");
        let failure = Failure::local(Exit::Usage, "USAGE", message).hint(hint);
        Output { json: true, quiet: false }.failure(&failure);
        return Exit::Usage.into();
    }
    if !asked && error.to_string().chars().any(|c| c != '\n' && deceives(c)) {
        // It repeats what was typed, or pasted from a stranger: not for a terminal as it is.
        let lines: Vec<String> = error.to_string().lines().map(escaped).collect();
        eprintln!("{}", lines.join("\n"));
        return Exit::Usage.into();
    }
    // The terminal may be gone; then there is nobody to tell.
    let _ = error.print();
    if asked { Exit::Done.into() } else { Exit::Usage.into() }
}
