//! What an object consists of: from the store, else from a peer that proves it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};

use super::crowd::{Arrival, Crowd};
use super::error::name_first;
use super::inquiry::Findings;
use super::planner::PeerNo;
use super::shape::{Shape, Wanted};
use super::{Error, FOREVER, Parts, Request, member};
use crate::content::{Excerpt, Manifest, ManifestTop, ObjectId, PAGE, ParityPage, ParityPart};
use crate::session::{self, Answer, Asker};
use crate::store::{NewObject, Store};
use crate::support::unix_now;

/// How long until the holders are looked for again when none was found: at first soon, since who has just joined or
/// added may not have been heard of yet; each time twice as long, up to the second figure.
pub(super) const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long those that the caller named are tried where there is nobody else: one that has no room, or is being started
/// again, may answer soon.
const NAMED: Duration = Duration::from_secs(5);

/// Pages of a manifest that are asked of a peer at once, 64 KiB each: the path's delay counts once for all of them.
const PAGES: usize = 8;

/// Chunks that a stripe may have on either side of one of them.
const STRIPE: u64 = 127;

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

/// What is to be learnt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    /// Of this object…
    pub(super) id: ObjectId,
    /// …only what this range needs, as (first, number) of bytes; `None` for all of it.
    pub(super) range: Option<(u64, u64)>,
}

impl Sought {
    /// Of the manifest's pages those that the range needs: those of its chunks, and of the stripes around these,
    /// whatever the parity is. None for a range without bytes, or behind the end.
    fn pages(&self, length: u64, pages: usize) -> Range<usize> {
        let Some(range) = self.range else { return 0..pages };
        let chunks = Wanted::of(length, Some(range)).map(|wanted| wanted.chunks).unwrap_or_default();
        if chunks.is_empty() {
            return 0..0;
        }
        let page = |chunk: u64| usize::try_from(chunk / PAGE as u64).unwrap_or(usize::MAX);
        page(chunks.start.saturating_sub(STRIPE))..pages.min(page(chunks.end - 1 + STRIPE) + 1)
    }
}

/// Asks the crowd until one of it proves what the object is.
///
/// # Errors
/// [`Error::NoHolders`] or [`Error::Unreached`] when nobody has for as long as `patience` allows, or as soon as all
/// that the caller named have failed and nobody else can be asked; [`Error::OtherNetwork`] as soon as all of these have
/// refused and nobody else is found; [`Error::Damaged`].
pub(super) async fn from_peers(
    crowd: &mut Crowd,
    sought: Sought,
    patience: Patience,
) -> Result<Shape, Error> {
    let Sought { id, .. } = sought;
    let Patience { stall, alone, was_whole, .. } = patience;
    crowd.look_for(*id.as_bytes());
    let heard = Arc::new(Mutex::new(Instant::now()));
    let mut asking = Asking::new();
    ask_all(crowd, sought, &heard, &mut asking);
    let mut wait = AGAIN.0;
    let mut again = Instant::now() + wait;
    let mut quiet = false;
    // It is asked when it matters; and whether others have been looked for since.
    let (mut others, mut is_with_others, mut has_looked) = (crowd.others(LONELY), false, false);
    let begun = Instant::now();
    loop {
        let idle = quiet && asking.is_empty();
        crowd.report(|crowd| Findings { asked: crowd.asked(0, |_| None), ..Findings::default() });
        if idle && patience.once {
            return Err(crowd.nobody(id, 0));
        }
        let (is_lost, is_patient) = (was_whole.is_some(), stall >= FOREVER);
        let is_tried = !is_lost && !is_patient && !is_with_others && begun.elapsed() >= NAMED;
        let is_refused = idle && !is_lost && !is_patient && crowd.is_refused();
        if is_refused && has_looked {
            return Err(crowd.nobody(id, 0));
        }
        let is_let_down = idle && is_tried && crowd.is_let_down() || is_refused && !is_with_others;
        let is_alone = was_whole.is_some() && idle && crowd.len() == 0;
        let limit = if is_alone { stall.min(alone) } else { stall };
        let deadline = last(&heard) + limit;
        tokio::select! {
            arrival = crowd.next(), if !quiet => match arrival {
                Arrival::Joined(peer) => ask(crowd, peer, sought, &heard, &mut asking),
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
                if is_refused {
                    again = Instant::now();
                }
            }
            () = tokio::time::sleep_until(again.into()), if idle => {
                wait = (wait * 2).min(AGAIN.1);
                again = Instant::now() + wait;
                (quiet, has_looked) = (false, is_with_others);
                crowd.retry();
                crowd.look_for(*id.as_bytes());
                ask_all(crowd, sought, &heard, &mut asking);
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

fn ask_all(crowd: &Crowd, sought: Sought, heard: &Heard, asking: &mut Asking) {
    crowd.members().for_each(|(peer, _)| ask(crowd, peer, sought, heard, asking));
}

fn ask(crowd: &Crowd, peer: PeerNo, sought: Sought, heard: &Heard, asking: &mut Asking) {
    if let Some(member) = crowd.get(peer) {
        let (asker, heard, of_it) = (member.asker.clone(), Arc::clone(heard), Arc::clone(&member.heard));
        asking.push(Box::pin(async move { (peer, told(shape_of(&asker, sought, &heard, &of_it).await)) }));
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

/// Asks one peer for the top and the pages.
async fn shape_of(
    asker: &Asker,
    sought: Sought,
    heard: &Heard,
    of_it: &member::Heard,
) -> Result<Option<Shape>, session::Error> {
    let Answer::Found(top) = asker.top(&sought.id).await? else { return Ok(None) };
    of_it.now();
    if let Some(shape) = single(&top) {
        return Ok(Some(shape));
    }
    let wanted = sought.pages(top.length(), top.pages());
    let mut pages = Vec::with_capacity(wanted.len());
    {
        let asked = stream::iter(wanted.clone()).map(|index| asker.page(&top, index)).buffered(PAGES);
        let mut asked = std::pin::pin!(asked);
        while let Some(page) = asked.next().await {
            let Answer::Found(page) = page? else { return Ok(None) };
            pages.push(page);
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            of_it.now();
        }
    }
    if wanted.len() < top.pages() {
        return Ok(Excerpt::new(top, wanted.start, pages).map(|excerpt| Shape::Part(Arc::new(excerpt))));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{CHUNK_LEN, PAGE_LEN};

    #[test]
    fn a_range_needs_the_pages_of_its_chunks_and_of_the_stripes_around_them() {
        let (length, count) = (4 * PAGE_LEN + 5, 5);
        let id = ObjectId::EMPTY;
        let pages = |first, number| Sought { id, range: Some((first, number)) }.pages(length, count);
        let margin = STRIPE * CHUNK_LEN;
        assert_eq!(pages(PAGE_LEN + margin, 1), 1..2);
        assert_eq!(pages(PAGE_LEN + margin - 1, 1), 0..2);
        assert_eq!(pages(2 * PAGE_LEN - margin - 1, 1), 1..2);
        assert_eq!(pages(2 * PAGE_LEN - margin, 1), 1..3);
        assert_eq!(pages(length - 1, 1), 3..5);
        assert_eq!(pages(0, u64::MAX), 0..5);
        for nothing in [pages(0, 0), pages(length, 1), pages(u64::MAX, 1)] {
            assert_eq!(nothing, 0..0);
        }
        assert_eq!(Sought { id, range: None }.pages(length, count), 0..5);
    }
}
