//! Adding a directory: all of it over one stream, several messages on their way at once.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use casd_proto::Reason;
use casd_proto::v1::{AddTreeRequest, AddTreeStart, AddedObject, AddedTree};
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::{Session, broken};
use super::{Done, announced_json, note, options, stays, untold};
use crate::args::Add;
use crate::error::{Exit, Failure};
use crate::object::directory;
use crate::output::progress::Progress;
use crate::output::text::escaped;
use crate::output::{self, Line};
use crate::tree::batch::Message;
use crate::tree::walk::Walk;

/// Paths of files that have been sent and not been answered, where they are wanted: as many as the daemon has not yet
/// said what became of.
type Paths = Arc<Mutex<VecDeque<String>>>;

/// What was wrong with the directory.
type Failures = Arc<Mutex<Vec<Failure>>>;

/// Adds one directory. Of several failures it tells all but the one it gives.
pub(super) async fn add(
    session: &Session,
    args: &Add,
    path: &Path,
    progress: &Progress,
) -> Result<Done, Failure> {
    let walk = Walk::open(path)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => walk.name()?,
    };
    let shown = if name.is_empty() { path.display().to_string() } else { name.clone() };
    let start = AddTreeStart {
        name: name.clone(),
        options: Some(options(args)),
        each: args.each,
        portable: args.portable,
    };
    let (failed, paths) = (Failures::default(), Paths::default());
    let messages = walk.messages(args.each)?;
    let requests = requests(start, messages, Arc::clone(&failed), Arc::clone(&paths), progress.tree_adder());
    let added = answers(session, requests, &paths, &shown, progress).await;
    // What was wrong with the directory is why the daemon then saw no finish.
    let mut failed = std::mem::take(&mut *failed.lock().unwrap_or_else(PoisonError::into_inner));
    let worst = failed.iter().map(|failure| failure.exit).max();
    if let (Some(mut last), Some(worst)) = (failed.pop(), worst) {
        progress.aside(|| failed.iter().for_each(|failure| session.output.failure(failure)));
        last.exit = worst;
        return Err(last);
    }
    let tree = added.map_err(|failure| failure.about(&shown))?;
    let stays = if tree.created { Vec::new() } else { stays(session, args, &tree.id).await };
    let announced = tree.announced.as_ref();
    let note = note(tree.created, stays, announced, &shown);
    Ok(Done { line: line(&tree, &shown, &name), note, untold: untold(announced, &shown) })
}

/// Sends all, and gives what comes of the directory. Where it is wanted, what comes of each file is printed when all is
/// stored: before, it is not.
async fn answers(
    session: &Session,
    requests: impl Stream<Item = AddTreeRequest> + Send + 'static,
    paths: &Paths,
    shown: &str,
    progress: &Progress,
) -> Result<AddedTree, Failure> {
    let mut answers = session.trees().add(requests).await?.into_inner();
    let mut text = String::new();
    while let Some(answer) = answers.message().await? {
        text.push_str(&session.output.text(&file_lines(&answer.files, paths, shown)?));
        if let Some(tree) = answer.tree {
            progress.aside(|| output::print(&text))?;
            return Ok(tree);
        }
    }
    Err(Failure::local(Exit::Failed, Reason::Internal.as_str(), "an empty answer"))
}

/// A line for each file that was answered, in the order in which they were sent.
fn file_lines(files: &[AddedObject], paths: &Paths, shown: &str) -> Result<Vec<Line>, Failure> {
    let mut paths = paths.lock().unwrap_or_else(PoisonError::into_inner);
    if files.len() > paths.len() {
        return Err(broken("named more files than were sent"));
    }
    let lines = files.iter().zip(paths.drain(..files.len())).map(|(file, path)| {
        let path = format!("{shown}/{path}");
        Line {
            human: format!("{}  {}", file.id, escaped(&path)),
            bare: file.id.clone(),
            json: json!({ "id": file.id, "path": path, "size": file.size, "created": file.created }),
        }
    });
    Ok(lines.collect())
}

/// The stream of an add: its start, then the messages of the walk, the last of which has the finish. A walk that fails
/// ends it without one, so that nothing is stored, and why is left in `failed`.
fn requests(
    start: AddTreeStart,
    messages: mpsc::Receiver<Result<Message, Failure>>,
    failed: Failures,
    paths: Paths,
    sent: impl Fn(u64, u64) + Send + 'static,
) -> impl Stream<Item = AddTreeRequest> + Send + 'static {
    let start = stream::iter([AddTreeRequest { start: Some(start), parts: Vec::new() }]);
    let rest = stream::unfold((messages, failed, paths, sent), |state| async {
        let (mut messages, failed, paths, sent) = state;
        match messages.recv().await? {
            Ok(message) => {
                sent(message.bytes, message.files);
                paths.lock().unwrap_or_else(PoisonError::into_inner).extend(message.paths);
                let request = AddTreeRequest { start: None, parts: message.parts };
                Some((request, (messages, failed, paths, sent)))
            }
            Err(failure) => {
                let mut all = vec![failure];
                while let Some(next) = messages.recv().await {
                    all.extend(next.err());
                }
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = all;
                None
            }
        }
    });
    start.chain(rest)
}

fn line(tree: &AddedTree, shown: &str, name: &str) -> Line {
    let id = directory(&tree.id);
    let mut json = json!({
        "id": id,
        "name": (!name.is_empty()).then_some(name),
        "size": tree.size,
        "files": tree.files,
        "directories": tree.directories,
        "links": tree.links,
        "created": tree.created,
    });
    if let Some(announced) = &tree.announced {
        json["announced"] = announced_json(announced);
    }
    Line { human: format!("{id}  {}", escaped(shown)), bare: id, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_documented_keys() {
        let tree = AddedTree {
            id: "ab".into(),
            size: 7,
            files: 2,
            directories: 1,
            links: 3,
            created: true,
            announced: None,
        };
        let line = line(&tree, "a\nb", "a\nb");
        assert_eq!((line.human.as_str(), line.bare.as_str()), ("dir:ab  a\\nb", "dir:ab"));
        let expected = json!({
            "id": "dir:ab", "name": "a\nb", "size": 7, "files": 2, "directories": 1, "links": 3, "created": true,
        });
        assert_eq!(line.json, expected);
    }

    #[tokio::test]
    async fn a_walk_that_fails_leaves_no_finish() {
        let (send, messages) = mpsc::channel(4);
        send.send(Ok(Message { paths: vec!["a".into()], ..Message::default() })).await.unwrap();
        for _ in 0..2 {
            send.send(Err(Failure::local(Exit::Failed, "FILE_CHANGED", "changed"))).await.unwrap();
        }
        drop(send);
        let (failed, paths) = (Failures::default(), Paths::default());
        let start = AddTreeStart { name: "n".into(), ..AddTreeStart::default() };
        let stream = requests(start, messages, Arc::clone(&failed), Arc::clone(&paths), |_, _| {});
        let sent: Vec<_> = stream.collect().await;
        assert_eq!(sent.len(), 2);
        assert!(sent[0].start.is_some() && sent[1].start.is_none());
        assert_eq!(failed.lock().unwrap().len(), 2);

        let file = AddedObject { id: "ab".into(), size: 1, created: true, announced: None };
        let lines = file_lines(std::slice::from_ref(&file), &paths, "n").unwrap();
        assert_eq!(lines[0].human, "ab  n/a");
        assert!(file_lines(&[file], &paths, "n").is_err(), "one more than was sent");
    }
}
