//! `casctl add`: streams files, directories and standard input to the daemon.

mod file;
mod tree;

use std::cell::Cell;
use std::path::Path;

use casd_proto::v1::{AddOptions, Announced, StatRequest, StatResponse};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::{Session, keeps_to_itself};
use crate::args::Add;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::progress::Progress;
use crate::output::text::count;

/// Files on their way at once: while the daemon makes one durable, others are read. Each has at most 4 MiB in
/// memory here.
const AT_ONCE: usize = 8;

/// Why an add that was to be announced failed, for programs: it is stored.
const NOT_ANNOUNCED: &str = "NOT_ANNOUNCED";

/// What is told of a daemon that only fetches.
const CLIENT: &str = "nobody can fetch what is added here: the daemon is a client, which gives and announces nothing \
                      (network.mode)";

/// Adds every path; see [`Add`].
pub(super) async fn run(session: &Session, args: Add) -> Result<Exit, Failure> {
    let progress = Progress::new(session.output, None);
    let paths: Vec<(bool, &Path)> =
        args.paths.iter().map(|path| (args.recursive && is_directory(path), path.as_path())).collect();
    let (mut worst, any) = (Exit::Done, Cell::new(false));
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
        let untold = Cell::new(Exit::Done);
        let results = results.buffered(at_once).map(|result| {
            let Done { line, note, untold: failure } = result?;
            any.set(true);
            if let Some(note) = note {
                progress.aside(|| session.output.note(&note));
            }
            if let Some(failure) = failure {
                untold.set(failure.exit);
                progress.aside(|| session.output.failure(&failure));
            }
            Ok(line)
        });
        worst = worst.max(session.tell_each(results).await?).max(untold.get());
    }
    if any.get() && !args.private && keeps_to_itself(session).await {
        if args.wait_announced && worst == Exit::Done {
            return Err(Failure::local(Exit::Unannounced, NOT_ANNOUNCED, CLIENT));
        }
        progress.aside(|| session.output.note(CLIENT));
    }
    Ok(worst)
}

/// What came of an argument: it is stored.
struct Done {
    /// Its line.
    line: Line,
    /// Words beside it.
    note: Option<String>,
    /// That nobody has been told of it, where that was asked for.
    untold: Option<Failure>,
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

/// What is wrong with an add that was to be announced, and of which nobody has been told.
fn untold(announced: Option<&Announced>, shown: &str) -> Option<Failure> {
    let nobody = announced.is_some_and(|announced| announced.receivers == 0);
    let failure = || {
        let message =
            format!("{shown}: it is stored, and no other node has been told of it: none can be reached");
        Failure::local(Exit::Unannounced, NOT_ANNOUNCED, message)
            .hint("it is announced as soon as one is there; `casctl doctor` says why there is none")
    };
    nobody.then(failure)
}

/// What is worth a word beside the id. `stays`: of an object that is not new.
fn note(created: bool, stays: Vec<String>, announced: Option<&Announced>, shown: &str) -> Option<String> {
    let mut words = stays;
    if !created {
        words.insert(0, "already stored".to_owned());
    }
    if let Some(announced) = announced.filter(|announced| announced.receivers > 0) {
        words.push(format!("announced at {}", count(announced.receivers, "node")));
    }
    (!words.is_empty()).then(|| format!("{shown}: {}", words.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nobody_was_told_is_a_failure_of_its_own() {
        let told = |receivers| Announced { keys: 1, receivers, messages: 0, refused: 0 };
        assert!(untold(None, "x").is_none() && untold(Some(&told(1)), "x").is_none());
        let failure = untold(Some(&told(0)), "x").unwrap();
        assert_eq!((failure.exit as u8, &failure.json()["reason"]), (9, &json!("NOT_ANNOUNCED")));
        assert!(failure.words().0.starts_with("x: it is stored"));
        assert_eq!(note(true, Vec::new(), Some(&told(0)), "x"), None);
    }

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
