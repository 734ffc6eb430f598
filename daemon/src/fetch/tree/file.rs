//! A path that names a file: it is fetched as any object is, and given as the only entry.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::super::terms::Declared;
use super::super::{Error, Event, Request, Terms, begin};
use super::trees::short;
use super::walk::File;
use super::{Errand, FetchedPart, Out, TreeEvent, TreeRequest, TreeStarted};
use crate::session::Asker;

/// Gives the file, or a part of it, and enters it as an object of its own when that was all of it.
pub(super) async fn give(
    errand: &Arc<Errand>,
    seeds: Vec<Asker>,
    file: File,
    wanted: &TreeRequest,
    out: &Out,
) -> Result<(), Error> {
    let File { name, executable, id, length } = file;
    let started = TreeStarted { id, is_directory: false, name: Some(name.clone()), size: length, entries: 0 };
    let _ = out.send(Ok(TreeEvent::Started(started))).await;
    let &TreeRequest { pin, range, .. } = wanted;
    let request = Request { pin, range, name: Some(name.clone()), ..errand.request(id) };
    let declared = Some(Declared { root: errand.root, length });
    let terms = Terms { seeds, declared, ..Terms::default() };
    let mut fetching = begin(&errand.parts, request, terms);
    let is_short = short(length).is_some();
    let mut held = BytesMut::new();
    let mut head = (!is_short).then(|| FetchedPart::Start { name: name.clone(), executable, length });
    while let Some(event) = fetching.events.recv().await {
        let part = match event? {
            Event::Started { .. } => head.take(),
            Event::Data { bytes, .. } if is_short => {
                held.extend_from_slice(&bytes);
                None
            }
            Event::Zeros { length, .. } if is_short => {
                held.resize(held.len() + usize::try_from(length).unwrap_or(0), 0);
                None
            }
            Event::Data { bytes, .. } => Some(FetchedPart::Data(bytes)),
            Event::Zeros { length, .. } => Some(FetchedPart::Zeros(length)),
            Event::Progress(progress) => {
                let _ = out.try_send(Ok(TreeEvent::Progress(progress)));
                None
            }
            Event::Finished(summary) => {
                let bytes: Bytes = std::mem::take(&mut held).freeze();
                let name = name.clone();
                let last = match is_short {
                    true => FetchedPart::File { name, executable, bytes },
                    false => FetchedPart::End { length },
                };
                let _ = out.send(Ok(TreeEvent::Parts(vec![last]))).await;
                let _ = out.send(Ok(TreeEvent::Finished(summary))).await;
                return Ok(());
            }
        };
        if let Some(part) = part {
            let _ = out.send(Ok(TreeEvent::Parts(vec![part]))).await;
        }
    }
    Err(Error::Stopping)
}
