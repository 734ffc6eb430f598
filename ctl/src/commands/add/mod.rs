//! `casctl add`: streams files, directories and standard input to the daemon.

mod file;
mod tree;

use std::path::Path;

use casd_proto::v1::{AddOptions, AnnounceStatusRequest, Announced, StatRequest, StatResponse};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::Session;
use crate::args::Add;
use crate::error::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::text::count;

/// Files on their way at once: while the daemon makes one durable, others are read. Each has at most 4 MiB in
/// memory here.
const AT_ONCE: usize = 8;

/// Adds every path; see [`Add`].
pub(super) async fn run(session: &Session, args: Add) -> Result<Exit, Failure> {
    let progress = Progress::new(session.output, None);
    let paths: Vec<(bool, &Path)> =
        args.paths.iter().map(|path| (args.recursive && is_directory(path), path.as_path())).collect();
    let mut worst = Exit::Done;
    for group in paths.chunk_by(|(one, _), (next, _)| one == next) {
        // One directory at a time: what is printed of its files stands before it and beside nothing else.
        let at_once = if group[0].0 { 1 } else { AT_ONCE };
        let (args, progress) = (&args, &progress);
        let results = stream::iter(group).map(|(is_directory, path)| async move {
            if *is_directory {
                tree::add(session, args, path, progress).await
            } else {
                file::add(session, args, path, progress).await
            }
        });
        let results = results.buffered(at_once).map(|result| {
            let (line, note) = result?;
            if let Some(note) = note {
                progress.aside(|| session.output.note(&note));
            }
            Ok(line)
        });
        worst = worst.max(session.tell_each(results).await?);
    }
    if !args.private && keeps_to_itself(session).await {
        let words = "nobody can fetch what is added here: the daemon is a client, which gives and announces nothing \
                     (network.mode)";
        progress.aside(|| session.output.note(words));
    }
    Ok(worst)
}

/// Whether the daemon only fetches. Where that cannot be learnt nothing is told: the add is done.
async fn keeps_to_itself(session: &Session) -> bool {
    // Not the node's status: that counts what the store holds.
    let status = session.network().announce_status(AnnounceStatusRequest {}).await;
    status.is_ok_and(|status| status.get_ref().client)
}

/// Refuses what makes no sense together.
pub(super) fn check(args: &Add) -> Result<(), Failure> {
    let usage = |message: &str| Err(Failure::local(Exit::Usage, "USAGE", message));
    if args.name.is_some() && args.paths.len() > 1 {
        return usage("--name names one object; add the files one by one");
    }
    if args.paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
        return usage("standard input (-) can be added only once");
    }
    Ok(())
}

/// What cannot be looked at is told when it is opened.
fn is_directory(path: &Path) -> bool {
    path.as_os_str() != "-" && path.is_dir()
}

fn options(args: &Add) -> AddOptions {
    AddOptions {
        parity: args.parity.clone(),
        private: args.private.then_some(true),
        publish: args.publish,
        pin: None,
        wait_announced: args.wait_announced,
    }
}

fn announced_json(announced: &Announced) -> Value {
    json!({
        "keys": announced.keys,
        "receivers": announced.receivers,
        "messages": announced.messages,
        "refused": announced.refused,
    })
}

/// What was asked for of an object that was stored already, and is otherwise with it and stays so. Where that cannot be
/// learnt nothing is told: the add is done.
async fn stays(session: &Session, args: &Add, id: &str) -> Vec<String> {
    if args.name.is_none() && args.parity.is_none() {
        return Vec::new();
    }
    let stored = session.objects().stat(StatRequest { object: id.to_owned() }).await;
    stored.map_or_else(
        |_| Vec::new(),
        |stored| differs(args.name.as_deref(), args.parity.as_deref(), stored.get_ref()),
    )
}

fn differs(name: Option<&str>, parity: Option<&str>, stored: &StatResponse) -> Vec<String> {
    let mut words = Vec::new();
    if name.is_some_and(|name| *name != stored.name) {
        words.push(format!("its name stays {:?}", stored.name));
    }
    // Nothing of one chunk has parity.
    if stored.chunks > 1 && parity.is_some_and(|parity| *parity != stored.parity) {
        words.push(format!("its parity stays {}", stored.parity));
    }
    words
}

/// What is worth a word beside the id. `stays`: of an object that is not new.
fn note(created: bool, stays: Vec<String>, announced: Option<&Announced>, shown: &str) -> Option<String> {
    let mut words = stays;
    if !created {
        words.insert(0, "already stored".to_owned());
    }
    if let Some(announced) = announced {
        words.push(format!("announced at {}", count(announced.receivers, "node")));
    }
    (!words.is_empty()).then(|| format!("{shown}: {}", words.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_add_did_not_change_is_told() {
        let stored =
            StatResponse { name: "y".into(), parity: "16+4".into(), chunks: 2, ..StatResponse::default() };
        assert_eq!(differs(Some("y"), Some("16+4"), &stored), Vec::<String>::new());
        let both = ["its name stays \"y\"", "its parity stays 16+4"];
        assert_eq!(differs(Some("x"), Some("none"), &stored), both);
        let short = StatResponse { chunks: 1, parity: "none".into(), ..stored };
        assert_eq!(differs(None, Some("16+4"), &short), Vec::<String>::new());
    }
}
