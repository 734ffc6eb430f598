//! Adding a file, or standard input.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use casd_proto::v1::add_request::Part;
use casd_proto::v1::{AddData, AddFinish, AddRequest, AddStart, AddedObject};
use casd_proto::{Bytes, Reason};
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::Session;
use super::{Done, announced_json, note, options, stays, untold};
use crate::args::Add;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::progress::Progress;
use crate::output::text::escaped;
use crate::upload::Upload;

/// Adds one path.
pub(super) async fn add(
    session: &Session,
    args: &Add,
    path: &Path,
    progress: &Progress,
) -> Result<Done, Failure> {
    let upload = Upload::open(path)?;
    let name = args.name.clone().or_else(|| upload.name.clone());
    let shown = args.name.clone().unwrap_or_else(|| path.display().to_string());
    let start = AddStart {
        name: name.clone().unwrap_or_default(),
        length: upload.length,
        data_length: upload.data,
        expected_id: None,
        options: Some(options(args)),
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
    let stays = if object.created { Vec::new() } else { stays(session, args, &object.id).await };
    let announced = object.announced.as_ref();
    let note = note(object.created, stays, announced, &shown);
    Ok(Done { line: line(&object, &shown, name.as_deref()), note, untold: untold(announced, &shown) })
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
        json["announced"] = announced_json(announced);
    }
    Line { human: format!("{}  {}", object.id, escaped(shown)), bare: object.id.clone(), json }
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
        assert_eq!(note(true, Vec::new(), None, "x"), None);

        object.created = false;
        object.announced = Some(Announced { keys: 3, receivers: 1, messages: 2, refused: 0 });
        let words = note(object.created, vec!["its name stays \"y\"".into()], object.announced.as_ref(), "x");
        assert_eq!(words.as_deref(), Some("x: already stored; its name stays \"y\"; announced at 1 node"));
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
