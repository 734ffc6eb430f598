//! Fetching a directory: the events of its fetch as messages. Bytes are handed on, never copied.

use casd_proto::v1;
use casd_proto::v1::tree_part::Part;
use futures::{Stream, StreamExt, stream};
use tonic::Status;

use super::{Desk, add, convert, fetch};
use crate::node::{Caller, FetchedPart, Node, TreeEvent, TreeFetching, TreeRequest};

/// Begins a fetch and gives its messages. Dropping them ends it.
pub(super) async fn fetch_tree(
    desk: &Desk,
    caller: Caller,
    wanted: v1::FetchTreeRequest,
) -> Result<impl Stream<Item = Result<v1::FetchTreeResponse, Status>> + Send + use<>, Status> {
    let path = Node::tree_path(&wanted.object)?;
    let request = TreeRequest {
        root: path.root,
        path: path.path,
        peers: fetch::peers(&wanted.peers)?,
        pin: wanted.pin.then_some(caller.uid),
        name: add::named(wanted.name)?,
        stall: fetch::patience(wanted.wait, wanted.stall_timeout_ms),
        range: None,
    };
    let (fetching, attended) = desk.node.fetch_tree(caller, request).await?;
    let events = fetch::until_last(fetching.events, |event| matches!(event, TreeEvent::Finished(_)));
    let accept_zeros = wanted.accept_zeros;
    Ok(events.map(move |event| {
        // The caller's job for the same waits as long as there may be more.
        let _ = &attended;
        event.map(|event| message(event, accept_zeros))
    }))
}

/// The bytes of a file in a directory in order, as messages.
pub(super) fn cat(fetching: TreeFetching) -> impl Stream<Item = Result<v1::CatResponse, Status>> + Send {
    let events = fetch::until_last(fetching.events, |event| matches!(event, TreeEvent::Finished(_)));
    events.flat_map(|event| {
        let answers: Vec<Result<v1::CatResponse, Status>> = match event {
            Ok(TreeEvent::Parts(parts)) => parts.into_iter().filter_map(bytes).map(Ok).collect(),
            Ok(_) => Vec::new(),
            Err(status) => vec![Err(status)],
        };
        stream::iter(answers)
    })
}

fn bytes(part: FetchedPart) -> Option<v1::CatResponse> {
    let data = match part {
        FetchedPart::File { bytes, .. } | FetchedPart::Data(bytes) => bytes,
        FetchedPart::Zeros(zeros) => fetch::zeros(zeros),
        _ => return None,
    };
    (!data.is_empty()).then_some(v1::CatResponse { data })
}

fn message(event: TreeEvent, accept_zeros: bool) -> v1::FetchTreeResponse {
    let mut message = v1::FetchTreeResponse::default();
    match event {
        TreeEvent::Started(started) => message.started = Some(convert::tree_started(started)),
        TreeEvent::Parts(parts) => {
            message.parts = parts.into_iter().map(|given| part(given, accept_zeros)).collect();
        }
        TreeEvent::Progress(progress) => message.progress = Some(convert::progress(progress)),
        TreeEvent::Finished(summary) => message.finished = Some(convert::finished(summary)),
    }
    message
}

fn part(part: FetchedPart, accept_zeros: bool) -> v1::TreePart {
    let part = match part {
        FetchedPart::Enter { name } => Part::Enter(v1::TreeEnter { name }),
        FetchedPart::Leave => Part::Leave(v1::TreeLeave {}),
        FetchedPart::File { name, executable, bytes } => {
            Part::File(v1::TreeFile { name, executable, data: bytes })
        }
        FetchedPart::Start { name, executable, length } => {
            Part::Start(v1::TreeStart { name, executable, length: Some(length) })
        }
        FetchedPart::Data(data) => Part::Data(v1::TreeData { data, zeros: 0 }),
        FetchedPart::Zeros(zeros) if accept_zeros => {
            Part::Data(v1::TreeData { zeros, ..v1::TreeData::default() })
        }
        FetchedPart::Zeros(zeros) => Part::Data(v1::TreeData { data: fetch::zeros(zeros), zeros: 0 }),
        FetchedPart::End { length } => Part::End(v1::TreeEnd { length }),
        FetchedPart::Link { name, target } => Part::Link(v1::TreeLink { name, target }),
    };
    v1::TreePart { part: Some(part) }
}
