//! Objects of more than a chunk in a directory, and those that none of its holders has: each is fetched as any object
//! is, under the directory's lease.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::super::{Error, Event, Fetching, Order, QUEUE, Request, Summary, Terms, begin, job};
use super::Errand;
use crate::content::ObjectId;
use crate::session::Asker;

/// Begins to fetch a part of a directory, from byte `from` on, in order.
pub(super) fn stream(errand: &Errand, id: ObjectId, length: u64, seeds: Vec<Asker>, from: u64) -> Fetching {
    let mut request = errand.request(id);
    request.range = (from > 0).then_some((from, u64::MAX));
    begin(&errand.parts, request, errand.terms(length, seeds))
}

/// Begins to fetch a part of a directory for the store alone.
pub(super) fn gather(errand: &Errand, id: ObjectId, length: u64, seeds: Vec<Asker>) -> Fetching {
    let request = Request { order: Order::Nothing, ..errand.request(id) };
    let terms = Terms { once: errand.once, ..errand.terms(length, seeds) };
    begin(&errand.parts, request, terms)
}

/// Fetches a part of a directory into memory. The caller has seen to it that its declared length can be borne.
pub(super) async fn whole(
    errand: Arc<Errand>,
    id: ObjectId,
    terms: Terms,
) -> Result<(Bytes, Summary), Error> {
    let (out, mut events) = mpsc::channel(QUEUE);
    let job = Box::pin(job::run(Arc::clone(&errand.parts), errand.request(id), terms, out));
    let collect = async move {
        let (mut bytes, mut summary) = (BytesMut::new(), Summary::default());
        while let Some(event) = events.recv().await {
            match event? {
                Event::Started { size, .. } => bytes.reserve(usize::try_from(size).unwrap_or(0)),
                Event::Data { bytes: more, .. } => bytes.extend_from_slice(&more),
                Event::Zeros { length, .. } => {
                    bytes.resize(bytes.len() + usize::try_from(length).unwrap_or(0), 0);
                }
                Event::Progress(_) => {}
                Event::Finished(done) => summary = done,
            }
        }
        Ok((bytes.freeze(), summary))
    };
    let (done, collected) = futures::join!(job, collect);
    done?;
    collected
}
