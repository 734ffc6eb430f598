//! `casctl add`: streams files, and standard input, to the daemon.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use casd_proto::v1::add_request::Part;
use casd_proto::v1::{AddData, AddFinish, AddOptions, AddRequest, AddStart, AddedObject};
use casd_proto::{Bytes, Reason};
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use super::Session;
use crate::args::Add;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::progress::Progress;
use crate::output::text::{count, escaped};
use crate::upload::Upload;

/// Files on their way at once: while the daemon makes one durable, others are read. Each has at most 4 MiB in
/// memory here.
const AT_ONCE: usize = 8;

/// Adds every path; see [`Add`].
pub(super) async fn run(session: &Session, args: Add) -> Result<Exit, Failure> {
    let progress = Progress::new(session.output, None);
    let results =
        stream::iter(&args.paths).map(|path| add(session, &args, path, &progress)).buffered(AT_ONCE);
    let results = results.map(|result| {
        let (line, note) = result?;
        if let Some(note) = note {
            progress.aside(|| session.output.note(&note));
        }
        Ok(line)
    });
    session.tell_each(results).await
}

/// Refuses what makes no sense together, and what this version does not have.
pub(super) fn check(args: &Add) -> Result<(), Failure> {
    if args.recursive || args.each {
        return Err(
            Failure::not_built("directories (-r, --each)").hint("meanwhile: `tar c DIR | casctl add -`")
        );
    }
    let usage = |message: &str| Err(Failure::local(Exit::Usage, "USAGE", message));
    if args.name.is_some() && args.paths.len() > 1 {
        return usage("--name names one object; add the files one by one");
    }
    if args.paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
        return usage("standard input (-) can be added only once");
    }
    Ok(())
}

/// Adds one path. Gives its line, and words beside it.
async fn add(
    session: &Session,
    args: &Add,
    path: &Path,
    progress: &Progress,
) -> Result<(Line, Option<String>), Failure> {
    let upload = Upload::open(path)?;
    let name = args.name.clone().or_else(|| upload.name.clone());
    let shown = args.name.clone().unwrap_or_else(|| path.display().to_string());
    let options = AddOptions {
        parity: args.parity.clone(),
        private: args.private.then_some(true),
        publish: args.publish,
        pin: None,
        wait_announced: args.wait_announced,
    };
    let start = AddStart {
        name: name.clone().unwrap_or_default(),
        length: upload.length,
        data_length: upload.data,
        expected_id: None,
        options: Some(options),
    };
    let failed = Arc::new(OnceLock::new());
    let requests = requests(start, upload.blocks()?, Arc::clone(&failed), progress.adder());
    let answer = session.objects().add(requests).await;
    // What was wrong with the file is why the daemon then saw no finish.
    if let Some(failure) = failed.get() {
        return Err(failure.clone());
    }
    let object = answer.map_err(|status| Failure::from(status).about(&shown))?.into_inner().object;
    let object =
        object.ok_or_else(|| Failure::local(Exit::Failed, Reason::Internal.as_str(), "an empty answer"))?;
    Ok((line(&object, &shown, name.as_deref()), note(&object, &shown)))
}

/// The stream of an add: start, data, finish. A block that could not be read ends it without a finish, so that
/// nothing is stored, and is left in `failed`.
fn requests(
    start: AddStart,
    blocks: mpsc::Receiver<Result<Bytes, Failure>>,
    failed: Arc<OnceLock<Failure>>,
    sent: impl Fn(u64) + Send + 'static,
) -> impl Stream<Item = AddRequest> + Send + 'static {
    let start = stream::iter([AddRequest { part: Some(Part::Start(start)) }]);
    // `None` once the finish has been sent, or must not be.
    let rest = stream::unfold(Some((blocks, 0, failed, sent)), |state| async {
        let (mut blocks, length, failed, sent) = state?;
        match blocks.recv().await {
            Some(Ok(data)) => {
                let count = data.len() as u64;
                sent(count);
                let part = Part::Data(AddData { data });
                Some((AddRequest { part: Some(part) }, Some((blocks, length + count, failed, sent))))
            }
            Some(Err(failure)) => {
                let _ = failed.set(failure);
                None
            }
            None => Some((AddRequest { part: Some(Part::Finish(AddFinish { length })) }, None)),
        }
    });
    start.chain(rest)
}

fn line(object: &AddedObject, shown: &str, name: Option<&str>) -> Line {
    let mut json = json!({
        "id": object.id,
        "name": name,
        "size": object.size,
        "created": object.created,
    });
    if let Some(announced) = &object.announced {
        json["announced"] = json!({
            "keys": announced.keys,
            "receivers": announced.receivers,
            "messages": announced.messages,
            "refused": announced.refused,
        });
    }
    Line { human: format!("{}  {}", object.id, escaped(shown)), bare: object.id.clone(), json }
}

/// What is worth a word beside the id.
fn note(object: &AddedObject, shown: &str) -> Option<String> {
    let mut words = Vec::new();
    if !object.created {
        words.push("already stored".to_owned());
    }
    if let Some(announced) = &object.announced {
        words.push(format!("announced at {}", count(announced.receivers, "node")));
    }
    (!words.is_empty()).then(|| format!("{shown}: {}", words.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use casd_proto::v1::Announced;

    #[test]
    fn a_line_reads_like_b3sums_and_json_has_its_keys() {
        let mut object = AddedObject { id: "ab12".into(), size: 7, created: true, announced: None };
        let plain = line(&object, "dir/a\nb", Some("a\nb"));
        assert_eq!((plain.human.as_str(), plain.bare.as_str()), ("ab12  dir/a\\nb", "ab12"));
        assert_eq!(plain.json, json!({ "id": "ab12", "name": "a\nb", "size": 7, "created": true }));
        assert_eq!(note(&object, "x"), None);

        object.created = false;
        object.announced = Some(Announced { keys: 3, receivers: 1, messages: 2, refused: 0 });
        assert_eq!(note(&object, "x").as_deref(), Some("x: already stored; announced at 1 node"));
        assert_eq!(line(&object, "-", None).json["announced"]["keys"], 3);
        assert!(line(&object, "-", None).json["name"].is_null());
    }

    #[tokio::test]
    async fn a_block_that_cannot_be_read_leaves_no_finish() {
        let (send, blocks) = mpsc::channel(4);
        send.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
        send.send(Err(Failure::local(Exit::Failed, "FILE_CHANGED", "changed"))).await.unwrap();
        drop(send);
        let failed = Arc::new(OnceLock::new());
        let parts: Vec<_> =
            requests(AddStart::default(), blocks, Arc::clone(&failed), |_| {}).collect().await;
        assert!(matches!(
            parts.as_slice(),
            [AddRequest { part: Some(Part::Start(_)) }, AddRequest { part: Some(Part::Data(_)) },]
        ));
        assert!(failed.get().is_some());
    }

    #[tokio::test]
    async fn the_finish_has_the_length() {
        let (send, blocks) = mpsc::channel(4);
        send.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
        send.send(Ok(Bytes::from_static(b"de"))).await.unwrap();
        drop(send);
        let parts: Vec<_> = requests(AddStart::default(), blocks, Arc::default(), |_| {}).collect().await;
        assert_eq!(parts.last().unwrap().part, Some(Part::Finish(AddFinish { length: 5 })));
    }
}
