//! Fetch and Cat: the events of a fetch as messages. Bytes are handed on, never copied, or are in the caller's file.

use std::time::Duration;

use bytes::Bytes;
use casd_proto::{Reason, v1};
use futures::{Stream, StreamExt, future, stream};
use tokio::sync::mpsc;
use tonic::Status;

use super::{Desk, add, convert, fetch_tree, status};
use crate::content::CHUNK;
use crate::node::{
    ALONE, Caller, Error, Event, FOREVER, FetchError, Fetching, Node, Order, PeerAddr, Reading, Request,
};

/// How long a fetch waits for bytes unless its caller says.
const STALL: Duration = Duration::from_mins(1);

/// Peers that a caller may name.
const MAX_PEERS: usize = 64;

/// What a run of zeros is sent from.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// A run of zeros as bytes, at most a chunk.
pub(super) fn zeros(length: u64) -> Bytes {
    Bytes::from_static(&ZEROS[..usize::try_from(length).unwrap_or(CHUNK).min(CHUNK)])
}

/// Begins a fetch and gives its messages. Dropping them ends it.
pub(super) async fn fetch(
    desk: &Desk,
    caller: Caller,
    wanted: v1::FetchRequest,
) -> Result<impl Stream<Item = Result<v1::FetchResponse, Status>> + Send + use<>, Status> {
    let mut request = request(&wanted, caller)?;
    if !wanted.into_file.is_empty() {
        request.into = Some(desk.passed.take(caller, &wanted.into_file)?);
    }
    let (fetching, attended) = desk.node.fetch(caller, request).await?;
    let v1::FetchRequest { id, accept_zeros, .. } = wanted;
    let message = move |event: Event| {
        let event = if accept_zeros { event } else { with_bytes(event) };
        convert::fetched(&id, event)
    };
    Ok(events(fetching).map(move |event| {
        // The caller's job for the same waits as long as there may be more.
        let _ = &attended;
        event.map(&message)
    }))
}

/// The bytes of what is read in order, as messages.
pub(super) fn cat(reading: Reading) -> impl Stream<Item = Result<v1::CatResponse, Status>> + Send {
    match reading {
        Reading::Object(fetching) => cat_object(fetching).left_stream(),
        Reading::Inside(fetching) => fetch_tree::cat(fetching).right_stream(),
    }
}

fn cat_object(fetching: Fetching) -> impl Stream<Item = Result<v1::CatResponse, Status>> + Send {
    events(fetching).filter_map(|event| {
        future::ready(match event.map(with_bytes) {
            Ok(Event::Data { bytes, .. }) => Some(Ok(v1::CatResponse { data: bytes })),
            Ok(_) => None,
            Err(status) => Some(Err(status)),
        })
    })
}

fn request(wanted: &v1::FetchRequest, caller: Caller) -> Result<Request, Status> {
    let id = Node::whole_id(&wanted.id)?;
    if wanted.to_store_only {
        return Err(Error::NotBuilt("fetching into the store only by this call (Jobs.Begin does so)").into());
    }
    let (peers, stall) = (peers(&wanted.peers)?, patience(wanted.wait, wanted.stall_timeout_ms));
    let order = if wanted.in_order { Order::InOrder } else { Order::Any };
    let pin = wanted.pin.then_some(caller.uid);
    let name = add::named(wanted.name.clone())?;
    Ok(Request { id, peers, pin, name, stall, alone: ALONE, order, range: None, into: None })
}

/// The peers that a caller names.
pub(super) fn peers(named: &[String]) -> Result<Vec<PeerAddr>, Status> {
    if named.len() > MAX_PEERS {
        let message = format!("{} peers are named; at most {MAX_PEERS} may be", named.len());
        return Err(status::refusal(Reason::InvalidAddress, message, ""));
    }
    let peers: Result<_, Error> = named.iter().map(|text| Node::address(text)).collect();
    Ok(peers?)
}

/// How long a fetch waits for bytes: until somebody has them, or so many milliseconds, or as is usual for 0.
pub(super) fn patience(wait: bool, millis: u64) -> Duration {
    match millis {
        _ if wait => FOREVER,
        0 => STALL,
        millis => Duration::from_millis(millis).min(FOREVER - STALL),
    }
}

/// Events up to the last: `Finished`, or an error. A fetch that falls silent without either is one, too.
fn events(fetching: Fetching) -> impl Stream<Item = Result<Event, Status>> + Send {
    until_last(fetching.events, |event| matches!(event, Event::Finished(_)))
}

/// Events up to the last, or an error.
pub(super) fn until_last<E: Send + 'static>(
    events: mpsc::Receiver<Result<E, FetchError>>,
    is_last: fn(&E) -> bool,
) -> impl Stream<Item = Result<E, Status>> + Send {
    stream::unfold(Some(events), move |events| async move {
        let mut events = events?;
        match events.recv().await {
            Some(Ok(last)) if is_last(&last) => Some((Ok(last), None)),
            Some(Ok(event)) => Some((Ok(event), Some(events))),
            Some(Err(error)) => Some((Err(error.into()), None)),
            None => Some((Err(status::broken()), None)),
        }
    })
}

/// Zeros as bytes, other events as they are.
fn with_bytes(event: Event) -> Event {
    match event {
        Event::Zeros { offset, length } => Event::Data { offset, bytes: zeros(length) },
        other => other,
    }
}
