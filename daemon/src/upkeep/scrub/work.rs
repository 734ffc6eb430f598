//! The background's part of the scrub: a step, a rest, and mending what was found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Shared, damaged};
use crate::store::{Error, Scrub, Store};
use crate::support::unix_now;
use crate::upkeep::run::{Run, Tally};

/// So many times as long as a step took the disk is left alone after it: at most 5 % of the time go into scrubbing.
const REST: u32 = 19;

/// How often it is written down how far it is, and how long found damage waits at most to be mended.
const MINUTE: Duration = Duration::from_secs(60);

/// The background's work. Never ends.
pub(super) async fn work(shared: &Shared) {
    let store: Store = shared.mender.store().clone();
    if store.recovered().await.is_err() {
        return;
    }
    if let Err(error) = look_again(shared, &store).await {
        tracing::warn!(%error, "what was damaged before could not be looked at again");
    }
    let mut pass: Option<(Scrub, Run)> = None;
    let (mut saved, mut healed) = (Instant::now(), None);
    loop {
        let begun = Instant::now();
        if let Ok(usage) = store.usage().await {
            shared.state().total = usage.stored_bytes;
        }
        let is_due = shared.due(unix_now()).is_some_and(|wait| wait.is_zero());
        let stepped = if is_due { step(shared, &store, &mut pass).await } else { Ok(()) };
        let stepped = match stepped {
            Ok(()) => mend_found(shared, &mut pass, &mut healed).await,
            failed => failed,
        };
        if saved.elapsed() >= MINUTE {
            saved = Instant::now();
            shared.save();
        }
        if let Err(error) = stepped {
            tracing::warn!(%error, "scrubbing rests for a minute");
            tokio::time::sleep(MINUTE).await;
        }
        // What others found may ring; the disk has its rest first.
        tokio::time::sleep(begun.elapsed() * REST).await;
        let wait = shared.due(unix_now()).map_or(MINUTE, |wait| wait.min(MINUTE));
        let _ = tokio::time::timeout(wait, shared.bell.notified()).await;
    }
}

/// Proves what the last run of the daemon knew to be damaged: reads and adds are to know it as well.
async fn look_again(shared: &Shared, store: &Store) -> Result<(), Error> {
    let known: BTreeSet<_> = damaged::load(&shared.damaged());
    let _turn = shared.turn.lock().await;
    let ids: BTreeSet<_> = known.into_iter().filter(|id| store.object(id).is_some()).collect();
    let Some(mut scrub) = store.scrub_objects(&ids).await? else { return Ok(()) };
    let mut run = Run::new(Arc::clone(&shared.mender), Tally::default());
    while run.step(&mut scrub).await? {}
    run.heal(Some(&ids)).await?;
    shared.note(run.broken, run.unnamed, Some(&ids));
    Ok(())
}

/// Proves a little, and at the end of a pass mends.
async fn step(shared: &Shared, store: &Store, pass: &mut Option<(Scrub, Run)>) -> Result<(), Error> {
    let (cursor, before) = {
        let mut state = shared.state();
        if state.saved.begun == 0 {
            state.saved.begun = unix_now();
            *pass = None;
        }
        (state.saved.cursor, state.saved.tally)
    };
    let begin = || (store.scrub(cursor), Run::new(Arc::clone(&shared.mender), before));
    let (scrub, run) = pass.get_or_insert_with(begin);
    if run.step(scrub).await? {
        let mut state = shared.state();
        // Somebody may have proved everything meanwhile: then this pass is over.
        if state.saved.begun > 0 {
            (state.saved.cursor, state.saved.tally) = (scrub.cursor(), run.tally());
        }
        return Ok(());
    }
    let turn = shared.turn.lock().await;
    run.heal(None).await?;
    drop(turn);
    let begun = shared.state().saved.begun;
    shared.passed(run, if begun == 0 { unix_now() } else { begun });
    shared.save();
    *pass = None;
    Ok(())
}

/// Mends what the pass or others have found, a minute's worth at a time.
async fn mend_found(
    shared: &Shared,
    pass: &mut Option<(Scrub, Run)>,
    healed: &mut Option<Instant>,
) -> Result<(), Error> {
    // Whoever verifies mends as well; what is still bad then is looked after behind that.
    let Ok(_turn) = shared.turn.try_lock() else { return Ok(()) };
    let found = std::mem::take(&mut shared.state().found);
    if found.is_empty() && !pass.as_ref().is_some_and(|(_, run)| run.has_pending()) {
        return Ok(());
    }
    if healed.is_some_and(|healed| healed.elapsed() < MINUTE) {
        let mut state = shared.state();
        state.found.extend(found);
        return Ok(());
    }
    let (mut alone, is_alone) = (Run::new(Arc::clone(&shared.mender), Tally::default()), pass.is_none());
    let run = pass.as_mut().map_or(&mut alone, |(_, run)| run);
    run.found(found);
    let done = run.heal(None).await;
    *healed = Some(Instant::now());
    let Tally { repaired, unrepairable, .. } = run.tally();
    if is_alone && repaired > 0 {
        // No pass will tell of these.
        tracing::info!(repaired, unrepairable, "what was found to be damaged has been mended");
    }
    shared.note(run.broken.clone(), run.unnamed, None);
    done
}
