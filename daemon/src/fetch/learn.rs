//! What an object consists of: from the store, else from a peer that proves it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::crowd::{Arrival, Crowd};
use super::error::name_first;
use super::inquiry::Findings;
use super::planner::PeerNo;
use super::shape::Shape;
use super::{Error, FOREVER, Parts, Request, member};
use crate::content::{Manifest, ManifestTop, ObjectId, ParityPage, ParityPart};
use crate::session::{self, Answer, Asker};
use crate::store::{NewObject, Store};
use crate::support::unix_now;

/// How long until the holders are looked for again when none was found: at first soon, since who has just joined or
/// added may not have been heard of yet; each time twice as long, up to the second figure.
pub(super) const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long those that the caller named are tried where there is nobody else: one that has no room, or is being started
/// again, may answer soon.
const NAMED: Duration = Duration::from_secs(5);

/// How long a node whose named peers have all failed waits to join its network, where it may ask others.
const LONELY: Duration = Duration::from_secs(15);

/// What the store knows of the object; `None` when it has to be asked for.
pub(super) async fn from_store(store: &Store, id: &ObjectId) -> Result<Option<Shape>, Error> {
    if let Some(manifest) = store.manifest(id).await? {
        return Ok(Some(Shape::Many(Arc::new(manifest))));
    }
    let length = store.object(id).and_then(|info| u32::try_from(info.length).ok());
    let is_here = store.has_all(vec![id.only_chunk()]).await == [true];
    Ok(length.filter(|_| is_here).map(|length| Shape::single(*id, length)))
}

/// What came of asking one peer.
enum Told {
    Shape(Shape),
    /// It does not have it; it stays, since it may have chunks.
    Nothing,
    /// It lied.
    Lie,
    /// The session broke.
    Gone,
}

/// How long to wait for somebody who proves what an object is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// So long since something was last heard of it.
    pub(super) stall: Duration,
    /// Nor longer than this for what has rotted here, when there is nobody to ask.
    pub(super) alone: Duration,
    /// Its length when it was here whole once: what is missing has rotted ([`Error::Damaged`]), and where nobody is
    /// there to ask nobody need wait long.
    pub(super) was_whole: Option<u64>,
    /// No longer than until all who were found have been asked.
    pub(super) once: bool,
}

type Asking = FuturesUnordered<BoxFuture<'static, (PeerNo, Told)>>;

/// Asks the crowd until one of it proves what the object is.
///
/// # Errors
/// [`Error::NoHolders`] or [`Error::Unreached`] when nobody has for as long as `patience` allows, or as soon as all
/// that the caller named have failed and nobody else can be asked; [`Error::Damaged`].
pub(super) async fn from_peers(crowd: &mut Crowd, id: ObjectId, patience: Patience) -> Result<Shape, Error> {
    let Patience { stall, alone, was_whole, .. } = patience;
    crowd.look_for(*id.as_bytes());
    let heard = Arc::new(Mutex::new(Instant::now()));
    let mut asking = Asking::new();
    ask_all(crowd, id, &heard, &mut asking);
    let mut wait = AGAIN.0;
    let mut again = Instant::now() + wait;
    let mut quiet = false;
    // It is asked when it matters.
    let (mut others, mut is_with_others) = (crowd.others(LONELY), false);
    let begun = Instant::now();
    loop {
        let idle = quiet && asking.is_empty();
        crowd.report(|crowd| Findings { asked: crowd.asked(0, |_| None), ..Findings::default() });
        if idle && patience.once {
            return Err(crowd.nobody(id, 0));
        }
        let is_tried = was_whole.is_none() && stall < FOREVER && !is_with_others && begun.elapsed() >= NAMED;
        let is_let_down = idle && is_tried && crowd.is_let_down();
        let is_alone = was_whole.is_some() && idle && crowd.len() == 0;
        let limit = if is_alone { stall.min(alone) } else { stall };
        let deadline = last(&heard) + limit;
        tokio::select! {
            arrival = crowd.next(), if !quiet => match arrival {
                Arrival::Joined(peer) => ask(crowd, peer, id, &heard, &mut asking),
                // What it still says counts.
                Arrival::Left(_) => {}
                Arrival::Quiet => quiet = true,
            },
            Some((peer, told)) = asking.next() => match told {
                Told::Shape(shape) => {
                    // Who proved it may have had to make room meanwhile.
                    if crowd.get(peer).is_none() {
                        crowd.retry();
                        crowd.look_for(*id.as_bytes());
                    }
                    return Ok(shape);
                }
                Told::Nothing => crowd.knows_nothing(peer),
                Told::Lie => crowd.strike(peer),
                Told::Gone => _ = crowd.leave(peer),
            },
            are_there = &mut others, if is_let_down => {
                if !are_there {
                    return Err(crowd.nobody(id, 0));
                }
                is_with_others = true;
            }
            () = tokio::time::sleep_until(again.into()), if idle => {
                wait = (wait * 2).min(AGAIN.1);
                again = Instant::now() + wait;
                quiet = false;
                crowd.retry();
                crowd.look_for(*id.as_bytes());
                ask_all(crowd, id, &heard, &mut asking);
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                if last(&heard) + limit > deadline {
                    continue;
                }
                return Err(match was_whole {
                    Some(length) => Error::Damaged { id, missing: name_first(length).to_owned() },
                    None => crowd.nobody(id, stall.as_secs()),
                });
            }
        }
    }
}

/// When something came of an object that is being learnt about. A long one has many pages.
type Heard = Arc<Mutex<Instant>>;

fn last(heard: &Heard) -> Instant {
    *heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask_all(crowd: &Crowd, id: ObjectId, heard: &Heard, asking: &mut Asking) {
    crowd.members().for_each(|(peer, _)| ask(crowd, peer, id, heard, asking));
}

fn ask(crowd: &Crowd, peer: PeerNo, id: ObjectId, heard: &Heard, asking: &mut Asking) {
    if let Some(member) = crowd.get(peer) {
        let (asker, heard, of_it) = (member.asker.clone(), Arc::clone(heard), Arc::clone(&member.heard));
        asking.push(Box::pin(async move { (peer, told(shape_of(&asker, &id, &heard, &of_it).await)) }));
    }
}

fn told(answer: Result<Option<Shape>, session::Error>) -> Told {
    match answer {
        Ok(Some(shape)) => Told::Shape(shape),
        Ok(None) => Told::Nothing,
        Err(error) if error.is_strike() => Told::Lie,
        Err(_) => Told::Gone,
    }
}

/// Asks one peer for the top and all pages.
async fn shape_of(
    asker: &Asker,
    id: &ObjectId,
    heard: &Heard,
    of_it: &member::Heard,
) -> Result<Option<Shape>, session::Error> {
    let Answer::Found(top) = asker.top(id).await? else { return Ok(None) };
    of_it.now();
    if let Some(shape) = single(&top) {
        return Ok(Some(shape));
    }
    let mut pages = Vec::with_capacity(top.pages());
    for index in 0..top.pages() {
        let Answer::Found(page) = asker.page(&top, index).await? else { return Ok(None) };
        pages.push(page);
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        of_it.now();
    }
    Ok(Manifest::new(top, pages).map(|manifest| Shape::Many(Arc::new(manifest))))
}

fn single(top: &ManifestTop) -> Option<Shape> {
    let length = u32::try_from(top.length()).ok()?;
    (top.chunks() == 1).then(|| Shape::single(top.id(), length))
}

/// Asks one peer for an object's parity part and its pages.
pub(super) async fn parity_of(asker: Asker, id: ObjectId) -> Option<(ParityPart, Vec<ParityPage>)> {
    let part = asker.parity(&id).await.ok()?.found()?;
    let mut pages = Vec::with_capacity(part.pages().len());
    for index in 0..part.pages().len() {
        pages.push(asker.parity_page(&part, index).await.ok()?.found()?);
    }
    Some((part, pages))
}

/// The journal's entry for an object that is being fetched.
pub(super) fn entry(parts: &Parts, request: &Request, shape: &Shape) -> NewObject {
    let known = parts.store.object(&request.id);
    NewObject {
        private: known.as_ref().is_some_and(|info| info.private),
        name: request.name.clone().or(known.and_then(|info| info.name)),
        pin: request.pin,
        ..NewObject::new(request.id, shape.length(), unix_now())
    }
}
