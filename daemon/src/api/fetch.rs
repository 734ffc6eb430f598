//! Fetch and Cat: the events of a fetch as messages. Bytes are handed on, never copied.

use std::time::Duration;

use bytes::Bytes;
use casd_proto::{Reason, v1};
use futures::{Stream, StreamExt, future, stream};
use tonic::Status;

use super::{Desk, convert, status};
use crate::content::CHUNK;
use crate::node::{Caller, Error, Event, Fetching, Node, Order, PeerAddr, Request};

/// How long a fetch waits for bytes unless its caller says.
const STALL: Duration = Duration::from_mins(1);

/// Peers that a caller may name.
const MAX_PEERS: usize = 64;

/// What a run of zeros is sent from.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Begins a fetch and gives its messages. Dropping them ends it.
pub(super) async fn fetch(
    desk: &Desk,
    caller: Caller,
    wanted: v1::FetchRequest,
) -> Result<impl Stream<Item = Result<v1::FetchResponse, Status>> + Send + use<>, Status> {
    let request = request(&wanted, caller)?;
    let fetching = desk.node.fetch(request).await?;
    let v1::FetchRequest { id, accept_zeros, .. } = wanted;
    let message = move |event: Event| {
        let event = if accept_zeros { event } else { with_bytes(event) };
        convert::fetched(&id, event)
    };
    Ok(events(fetching).map(move |event| event.map(&message)))
}

/// The bytes of a fetch in order, as messages.
pub(super) fn cat(fetching: Fetching) -> impl Stream<Item = Result<v1::CatResponse, Status>> + Send {
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
        return Err(Error::NotBuilt("fetching into the store only").into());
    }
    if wanted.peers.len() > MAX_PEERS {
        let message = format!("{} peers are named; at most {MAX_PEERS} may be", wanted.peers.len());
        return Err(Reason::InvalidAddress.status(message, ""));
    }
    let peers: Result<Vec<PeerAddr>, Error> = wanted.peers.iter().map(|text| Node::address(text)).collect();
    let stall = match wanted.stall_timeout_ms {
        0 => STALL,
        millis => Duration::from_millis(millis),
    };
    let order = if wanted.in_order { Order::InOrder } else { Order::Any };
    let pin = wanted.pin.then_some(caller.uid);
    Ok(Request { id, peers: peers?, pin, name: None, stall, order, range: None })
}

/// Events up to the last: `Finished`, or an error. A fetch that falls silent without either is one, too.
fn events(fetching: Fetching) -> impl Stream<Item = Result<Event, Status>> + Send {
    stream::unfold(Some(fetching), |fetching| async move {
        let mut fetching = fetching?;
        match fetching.events.recv().await {
            Some(Ok(last @ Event::Finished(_))) => Some((Ok(last), None)),
            Some(Ok(event)) => Some((Ok(event), Some(fetching))),
            Some(Err(error)) => Some((Err(error.into()), None)),
            None => Some((Err(status::broken()), None)),
        }
    })
}

/// Zeros as bytes, other events as they are.
fn with_bytes(event: Event) -> Event {
    match event {
        Event::Zeros { offset, length } => {
            let length = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
            Event::Data { offset, bytes: Bytes::from_static(&ZEROS[..length]) }
        }
        other => other,
    }
}
