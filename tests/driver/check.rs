//! Proving from the ack log that a store is what it may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use casd::store::{Removed, Store};
use casd_tests::corpus;

use crate::Place;
use crate::model::{Model, State};
use crate::objects::{self, Object, PROBE};
use crate::script::{Op, script};
use crate::work::{self, TWO_DAYS};

/// What segments may take besides the records that are counted.
const SLACK: u64 = 4096;

/// What a sealed segment's footer takes, of fewer than 79 records.
const FOOTER: u64 = 8192;

/// Whether all is collected that nobody pins, and what must be so then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// It is not.
    Not,
    /// The segments take what is counted.
    Exact,
    /// They may take more: a hole could not be punched.
    Leaky,
}

/// Opens the store and proves what must be there, and that it goes on; with a sweep also that nothing is left over.
pub(crate) async fn check(place: &Place, sweep: Sweep) -> Result<(), String> {
    let mut model = replay(place)?;
    model.opened();
    let objects = objects::all(place.seed)?;
    let store =
        work::open(&place.store).await.map_err(|error| format!("the store cannot be opened: {error}"))?;
    let probe = Object::new(place.seed, PROBE)?;
    compare(&store, &model, &objects, &probe).await?;
    goes_on(&store, &probe).await?;
    if sweep != Sweep::Not {
        swept(&store, place, &objects, sweep).await?;
    }
    store.close().await.map_err(|error| format!("the store cannot be closed: {error}"))
}

/// What may be in the store.
fn replay(place: &Place) -> Result<Model, String> {
    let acks = std::fs::read_to_string(&place.acks).unwrap_or_default();
    let mut model = Model::new();
    let mut ops = script(place.seed).into_iter();
    // Once a write has failed, nothing is written until the store is opened again.
    let mut is_read_only = false;
    for line in acks.lines() {
        let op = ops.next().ok_or("more answers than operations")?;
        let mut words = line.splitn(3, ' ').skip(1);
        match (words.next(), words.next()) {
            (Some("ok"), Some("created" | "entered" | "removed")) if is_read_only => {
                return Err(format!("the store was read-only, and did {op:?}"));
            }
            (Some("ok"), Some(answer)) => model.answered(op, answer)?,
            (Some("no"), why) => {
                is_read_only |= why.is_some_and(|why| why.contains("read-only since"));
                model.failed(op);
            }
            _ => return Err(format!("not a line of an ack log: {line:?}")),
        }
        if matches!(op, Op::Reopen | Op::Abandon) {
            is_read_only = false;
            model.opened();
        }
    }
    // It was in flight, if the process was ended.
    if let Some(op) = ops.next() {
        model.failed(op);
    }
    Ok(model)
}

/// Each object is as it may be, those that are there are whole, and there are no others: but for the probe of a check
/// that was ended.
async fn compare(store: &Store, model: &Model, objects: &[Object], probe: &Object) -> Result<(), String> {
    for (number, object) in objects.iter().enumerate() {
        let found: State =
            store.object(&object.id).map(|info| info.pins.iter().map(|pin| pin.uid).collect::<BTreeSet<_>>());
        let may = model.states(number);
        if !may.contains(&found) {
            return Err(format!("object {number} is {found:?}, and may be {may:?}"));
        }
        if found.is_some() {
            work::is_whole(store, object).await.map_err(|words| format!("object {number}: {words}"))?;
        }
    }
    let known: BTreeSet<_> = objects.iter().chain([probe]).map(|object| object.id).collect();
    let strange = store.objects(None, usize::MAX).into_iter().find(|info| !known.contains(&info.id));
    strange.map_or(Ok(()), |info| Err(format!("nobody added {}", info.id)))
}

/// It takes an object, gives it, and lets it go.
async fn goes_on(store: &Store, probe: &Object) -> Result<(), String> {
    let words =
        |what: &str, error: &dyn std::fmt::Display| format!("the store does not go on: {what}: {error}");
    work::add(store, probe, 9).await.map_err(|error| words("add", &error))?;
    work::is_whole(store, probe).await.map_err(|error| words("read", &error))?;
    match store.remove(&probe.id, 9, true).await.map_err(|error| words("remove", &error))? {
        Removed::Removed { .. } => Ok(()),
        other => Err(words("remove", &format!("{other:?}"))),
    }
}

/// Collects, and proves that nothing is left but what is pinned, and that the account agrees with the disk.
async fn swept(store: &Store, place: &Place, objects: &[Object], sweep: Sweep) -> Result<(), String> {
    store.collect(work::now() + TWO_DAYS, false).await.map_err(|error| format!("collect: {error}"))?;
    let mut needed = BTreeMap::new();
    for (number, object) in objects.iter().enumerate() {
        let there = store.object(&object.id).is_some();
        for chunk in object.stored() {
            *needed.entry(chunk.id()).or_insert(false) |= there;
        }
        if there {
            work::is_whole(store, object)
                .await
                .map_err(|words| format!("object {number}, collected: {words}"))?;
        }
    }
    if let Some((id, needed)) = needed.iter().find(|(id, needed)| store.has(id) != **needed) {
        return Err(format!("chunk {id}: needed is {needed}, and that it is here is not"));
    }
    let stored = store.usage().await.map_err(|error| format!("usage: {error}"))?.stored_bytes;
    let (taken, files) = segments(&place.store)?;
    let most = stored + SLACK + files * FOOTER;
    if taken + SLACK < stored || (sweep == Sweep::Exact && taken > most) {
        return Err(format!("the store counts {stored} bytes, and its segments take {taken}"));
    }
    Ok(())
}

fn segments(store: &Path) -> Result<(u64, u64), String> {
    let folder = store.join("segments");
    let taken = corpus::disk_usage(&folder).map_err(|error| format!("segments: {error}"))?;
    let files = std::fs::read_dir(&folder).map_err(|error| format!("segments: {error}"))?.count();
    Ok((taken, files as u64))
}
