//! How a fetch begins and ends: what the object is, room for it, and entering it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::super::crowd::Crowd;
use super::super::planner::Bits;
use super::super::shape::{Shape, Wanted};
use super::super::{Error, Event, Parts, Request, Summary, Terms, learn};
use super::{Job, kind};
use crate::content::ObjectId;
use crate::store::{self, Lease, State};

/// Runs one fetch to its end.
pub(in super::super) async fn run(
    parts: Arc<Parts>,
    request: Request,
    terms: Terms,
    out: mpsc::Sender<Result<Event, Error>>,
) -> Result<(), Error> {
    let started = Instant::now();
    if request.id == ObjectId::EMPTY {
        Wanted::of(0, request.range)?;
        let _ = out.send(Ok(Event::Started { size: 0, name: None })).await;
        let _ =
            out.send(Ok(Event::Finished(Summary { took: started.elapsed(), ..Summary::default() }))).await;
        return Ok(());
    }
    let mut crowd = Crowd::new(Arc::clone(&parts), &request.peers, &terms.seeds);
    crowd.inquire(terms.inquiry.clone());
    let known = parts.store.object(&request.id);
    // Of what is not known here only the range is: the rest of its list need not come.
    let range = request.range.filter(|_| known.is_none() && terms.part.is_none());
    let length = known.filter(|info| info.state == State::Whole).map(|info| info.length);
    let was_whole = length.is_some();
    let patience =
        learn::Patience { stall: request.stall, alone: request.alone, was_whole: length, once: terms.once };
    let (shape, is_known) = match learn::from_store(&parts.store, &request.id).await? {
        Some(shape) => (shape, true),
        None => {
            let sought = learn::Sought { id: request.id, range };
            (learn::from_peers(&mut crowd, sought, patience).await?, false)
        }
    };
    terms.check(&request.id, shape.length())?;
    let entry = terms.entry(learn::entry(&parts, &request, &shape));
    let wanted = Wanted::of(shape.length(), request.range)?;
    if let Some(into) = &request.into {
        into.begin(shape.length()).await?;
    }
    let _ = out.send(Ok(Event::Started { size: shape.length(), name: entry.name.clone() })).await;
    let lease =
        terms.part.as_ref().map_or_else(|| Arc::new(parts.store.lease()), |part| Arc::clone(&part.lease));
    // Who reads all of what was not here has fetched it; reading changes nothing of what is.
    let is_fetched = request.range.is_none() || (!was_whole && wanted.bytes == (0..shape.length()));
    let is_entered = is_fetched && terms.part.is_none();
    let local = match terms.part {
        Some(_) => shape.hold(&lease).await?,
        None => shape.local(&parts.store).await,
    };
    if !was_whole && terms.declared.is_none() {
        kind::check_local(&parts.store, &request.id, &shape, &local).await?;
    }
    let absent = shape.absent(&wanted, &local);
    // What is all here can be read from a disk that takes nothing more.
    let mut only_reads = was_whole && is_known && absent == 0;
    if let (Some(part), Shape::Many(manifest)) = (&terms.part, &shape) {
        // The directory is entered later: until then its list of chunks must not go.
        only_reads &= part.lease.hold_manifest(manifest).await?;
    }
    if !only_reads {
        // What cannot fit is refused before any of it comes, however long a stranger's object claims to be.
        match terms.part {
            None => lease.reserve(absent).await?,
            Some(_) => lease.secure(absent).await?,
        }
        if let Shape::Many(manifest) = &shape {
            lease.put_manifest(manifest).await?;
        }
        let is_kept = match &shape {
            Shape::Single(_) => terms.part.is_none(),
            Shape::Many(_) => true,
            // Without all of its list it is no object: what comes is left for a day, and for this node alone.
            Shape::Part(_) => false,
        };
        if is_kept {
            lease.partial(entry.clone()).await?;
        }
    }
    let is_pinned = entry.pin.is_some();
    let mut job =
        Job::new(Begun { parts, request, terms, shape, wanted, local, crowd, lease, started, was_whole });
    // Who reads a part, or what is private here, announces nothing.
    job.is_told_of = is_fetched && !entry.private;
    let summary = job.drive(&out).await?;
    if is_entered {
        match job.lease.commit(entry).await {
            Err(store::Error::ReadOnly { .. }) if only_reads && !is_pinned => {}
            committed => _ = committed?,
        }
        job.notice();
    }
    let _ = out.send(Ok(Event::Finished(summary))).await;
    Ok(())
}

/// A fetch that knows what its object is.
pub(super) struct Begun {
    pub(super) parts: Arc<Parts>,
    pub(super) request: Request,
    pub(super) terms: Terms,
    pub(super) shape: Shape,
    pub(super) wanted: Wanted,
    /// The chunks that are here.
    pub(super) local: Bits,
    pub(super) crowd: Crowd,
    /// Keeps what arrives.
    pub(super) lease: Arc<Lease>,
    pub(super) started: Instant,
    /// The object was here whole once: what is missing has rotted.
    pub(super) was_whole: bool,
}
