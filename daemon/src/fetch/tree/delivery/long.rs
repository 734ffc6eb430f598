//! Files of more than a chunk in a delivery: each is fetched on its own, in order, the next while one is given.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::super::{Error, Event};
use super::super::walk::File;
use super::super::{FetchedPart, large};
use super::Delivery;
use super::slot::{Large, Slot};

/// Files of more than a chunk that are fetched at once: the one being given, and the next.
pub(super) const LARGE: usize = 2;

impl Delivery<'_> {
    pub(super) fn begin_large(&mut self) {
        for slot in &mut self.window {
            let Slot::Large(large) = slot else { continue };
            if large.fetching.is_none() {
                let File { id, length, .. } = large.file;
                let seeds = self.supply.askers();
                large.fetching = Some(large::stream(self.errand, id, length, seeds, 0));
                self.begun += 1;
                self.waiting -= 1;
            }
            if self.begun >= LARGE || self.waiting == 0 {
                return;
            }
        }
    }

    /// The large file whose bytes come next.
    pub(super) fn large(&mut self) -> Option<&mut Large> {
        match self.window.front_mut() {
            Some(Slot::Large(large)) if large.given.is_some() && large.fetching.is_some() => Some(large),
            _ => None,
        }
    }

    /// Bytes of the large file whose bytes come next.
    fn push_large(&mut self, count: u64, part: FetchedPart) {
        if let Some(large) = self.large() {
            large.given = Some(large.given.unwrap_or(0) + count);
        }
        self.push(part);
    }

    /// Whether a large file that found nobody may be tried once more: it may have given up while the one before it was
    /// on its way.
    fn may_go_on(&mut self) -> bool {
        let has_stalled = self.errand.pulse.quiet() >= self.errand.stall;
        !has_stalled && self.large().is_some_and(|large| !std::mem::replace(&mut large.again, true))
    }

    fn begin_again(&mut self) {
        let (seeds, errand) = (self.supply.askers(), Arc::clone(self.errand));
        if let Some(large) = self.large() {
            let File { id, length, .. } = large.file;
            large.fetching = Some(large::stream(&errand, id, length, seeds, large.given.unwrap_or(0)));
        }
    }

    /// Something of the large file whose bytes come next.
    pub(super) fn large_event(&mut self, event: Option<Result<Event, Error>>) -> Result<(), Error> {
        match event {
            Some(Ok(Event::Data { bytes, .. })) => {
                self.push_large(bytes.len() as u64, FetchedPart::Data(bytes));
            }
            Some(Ok(Event::Zeros { length, .. })) => self.push_large(length, FetchedPart::Zeros(length)),
            Some(Ok(Event::Started { .. } | Event::Progress(_))) => {}
            Some(Ok(Event::Finished(summary))) => {
                let length = self.large().map_or(0, |large| large.file.length);
                self.local += summary.local;
                self.supply.also(&summary);
                self.weight -= self.window.pop_front().map_or(0, |slot| slot.weight());
                self.begun -= 1;
                self.push(FetchedPart::End { length });
            }
            Some(Err(Error::NoHolders { .. } | Error::Unreached { .. } | Error::Stalled { .. }))
                if self.may_go_on() =>
            {
                self.begin_again();
            }
            Some(Err(Error::NoHolders { .. } | Error::Unreached { .. } | Error::Stalled { .. })) => {
                return Err(self.stalled());
            }
            Some(Err(error)) => return Err(error),
            None => return Err(Error::Stopping),
        }
        Ok(())
    }
}

/// The next event of the large file at the window's front. Cancel-safe.
pub(super) async fn next_of(window: &mut VecDeque<Slot>) -> Option<Result<Event, Error>> {
    match window.front_mut() {
        Some(Slot::Large(Large { fetching: Some(fetching), .. })) => fetching.events.recv().await,
        _ => std::future::pending().await,
    }
}
