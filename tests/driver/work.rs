//! Doing a script, and writing down what was answered.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casd::store::{Committed, Error, Item, Options, Real, Removed, Sizes, Store};
use casd::support::pool::Pool;
use futures::future::join_all;

use crate::Place;
use crate::objects::{self, Object, PLAIN};
use crate::script::{Op, script};

/// Long enough for [`Store::collect`] to take everything for old.
pub(crate) const TWO_DAYS: u64 = 2 * 24 * 3600;

/// How often opening is tried when it fails: one failure of the system is one failure.
const OPENINGS: usize = 3;

/// How long the tasks of a store that was dropped may hold its lock.
const LOCKED: Duration = Duration::from_secs(10);

/// Does the script, as far as the store lets it be opened.
pub(crate) async fn run(place: &Place) -> Result<(), String> {
    let objects = objects::all(place.seed)?;
    let acks = File::options().create(true).append(true).open(&place.acks);
    let mut acks = acks.map_err(|error| format!("{}: {error}", place.acks.display()))?;
    let mut open = None;
    for (number, op) in script(place.seed).into_iter().enumerate() {
        let store = match open.take() {
            Some(store) => store,
            None => match open_again(&place.store).await {
                Ok(store) => store,
                // The rest cannot be done either.
                Err(error) => return write(&mut acks, number, "no", &format!("not opened: {error}")),
            },
        };
        let (answer, left) = perform(store, op, place, &objects).await;
        open = left;
        match answer {
            Ok(answer) => write(&mut acks, number, "ok", &answer)?,
            Err(Failure::Refused(words)) => write(&mut acks, number, "no", &words)?,
            Err(Failure::Wrong(words)) => return Err(format!("{op:?}: {words}")),
        }
    }
    match open {
        Some(store) => store.close().await.or_else(|error| {
            eprintln!("store-driver: the last close: {error}");
            Ok(())
        }),
        None => Ok(()),
    }
}

/// One line, one write. It is the store's answer that is written down, so it comes after it.
fn write(acks: &mut File, number: usize, word: &str, answer: &str) -> Result<(), String> {
    if word == "no" {
        eprintln!("store-driver: {number}: {answer}");
    }
    let line = format!("{number} {word} {answer}\n");
    acks.write_all(line.as_bytes()).map_err(|error| format!("the ack log: {error}"))
}

/// Why an operation was not done.
enum Failure {
    /// The store said so.
    Refused(String),
    /// It did what it must not do.
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Does one operation. The store comes back unless it could not be opened again.
async fn perform(
    store: Store,
    op: Op,
    place: &Place,
    objects: &[Object],
) -> (Result<String, Failure>, Option<Store>) {
    if !matches!(op, Op::Reopen | Op::Abandon) {
        return (act(&store, op, objects).await, Some(store));
    }
    let closed = if op == Op::Reopen { store.close().await } else { Ok(()) };
    drop(store);
    match open_again(&place.store).await {
        Ok(store) => (closed.map(|()| "opened".to_owned()).map_err(Failure::from), Some(store)),
        Err(error) => (Err(error.into()), None),
    }
}

async fn act(store: &Store, op: Op, objects: &[Object]) -> Result<String, Failure> {
    let word = match op {
        Op::Add(number, uid) => match add(store, &objects[number], uid).await? {
            Committed::Created => "created",
            Committed::Present => "present",
        },
        Op::Crowd => {
            for added in join_all(objects[PLAIN..].iter().map(|object| add(store, object, 1))).await {
                added?;
            }
            "entered"
        }
        Op::Publish(publish) => {
            for done in join_all(objects[PLAIN..].iter().map(|of| store.publish(&of.id, publish, None))).await
            {
                done?;
            }
            "done"
        }
        Op::Pin(number, uid) => found(store.pin(&objects[number].id, uid).await?),
        Op::Unpin(number, uid) => found(store.unpin(&objects[number].id, uid).await?),
        Op::Remove(number, uid, force) => match store.remove(&objects[number].id, uid, force).await? {
            Removed::Removed { .. } => "removed",
            Removed::StillPinned { .. } => "others",
            Removed::NotPermitted | Removed::InDirectory { .. } => "refused",
            Removed::NotFound => "none",
        },
        Op::Read(number) => read(store, &objects[number]).await?,
        Op::Collect => {
            let collected = store.collect(now() + TWO_DAYS, false).await?.objects;
            let named = objects.iter().enumerate().filter(|(_, object)| collected.contains(&object.id));
            return Ok(named.fold("collected".to_owned(), |all, (number, _)| format!("{all} {number}")));
        }
        Op::Reopen | Op::Abandon => "",
    };
    Ok(word.to_owned())
}

fn found(there: bool) -> &'static str {
    if there { "done" } else { "none" }
}

/// Adds an object, one chunk after the other.
pub(crate) async fn add(store: &Store, object: &Object, uid: u32) -> Result<Committed, Error> {
    let lease = store.lease();
    lease.reserve(object.length).await?;
    for chunk in object.stored() {
        lease.put(Item::Chunk(chunk.clone())).await?;
    }
    if let Some(manifest) = &object.manifest {
        lease.put_manifest(manifest).await?;
    }
    lease.commit(object.to_enter(uid, now())).await
}

/// Reads an object. It may be there or not; if it is, it is all there, unless reading fails.
async fn read(store: &Store, object: &Object) -> Result<&'static str, Failure> {
    if store.object(&object.id).is_none() {
        return Ok("none");
    }
    if let Some(manifest) = &object.manifest {
        match store.manifest(&object.id).await? {
            Some(found) if found == *manifest => {}
            Some(_) => return Err(Failure::Wrong("another manifest".to_owned())),
            None => return Err(Failure::Refused("its manifest is missing".to_owned())),
        }
    }
    for (index, chunk) in object.stored().enumerate() {
        match store.chunk(&chunk.reference()).await? {
            Some(found) if found.bytes() == chunk.bytes() => {}
            Some(_) => return Err(Failure::Wrong(format!("other bytes in chunk {index}"))),
            None => return Err(Failure::Refused(format!("chunk {index} is missing"))),
        }
    }
    Ok("whole")
}

/// What [`read`] says, for whom a miss is a mistake.
pub(crate) async fn is_whole(store: &Store, object: &Object) -> Result<(), String> {
    match read(store, object).await {
        Ok("whole") => Ok(()),
        Ok(other) => Err(other.to_owned()),
        Err(Failure::Refused(words) | Failure::Wrong(words)) => Err(words),
    }
}

async fn open_again(folder: &Path) -> Result<Store, Error> {
    let mut last = open(folder).await;
    for _ in 1..OPENINGS {
        match last {
            Err(error) if !matches!(error, Error::Locked { .. }) => {
                eprintln!("store-driver: opening: {error}");
                last = open(folder).await;
            }
            done => return done,
        }
    }
    last
}

/// Opens the store; the one before it may still be ending.
pub(crate) async fn open(folder: &Path) -> Result<Store, Error> {
    // Small segments, so that the script fills some.
    let sizes = Sizes { segment: 2 << 20, ..Sizes::default() };
    let options = Options { reserve: 0, index_cache: 4 << 20, sizes, ..Options::default() };
    let begun = SystemTime::now();
    loop {
        match Store::open(&options, Arc::new(Real::new(folder)), Pool::inline()) {
            Err(Error::Locked { .. }) if begun.elapsed().is_ok_and(|waited| waited < LOCKED) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            done => return done,
        }
    }
}

/// The time in Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
