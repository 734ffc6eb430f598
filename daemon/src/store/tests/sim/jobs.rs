//! The jobs of the simulation, one for each thing at most, and what was answered about them.

use super::super::*;
use super::model::THINGS;

/// The job for a thing in one of many forms.
pub(super) fn job(thing: usize, form: u8) -> Job {
    // Of many lengths, so that a frame may be torn anywhere.
    let peers = (0..form % 4).map(|peer| "p".repeat(usize::from(peer) + usize::from(form / 2) + 1));
    Job {
        number: thing as u64 + 1,
        object: THINGS[thing].object.id,
        tree: form.is_multiple_of(7),
        uid: 1 + u32::from(form % 2),
        pin: form % 5 > 2,
        priority: [Priority::Low, Priority::Normal, Priority::High][usize::from(form % 3)],
        since: form.into(),
        peers: peers.collect(),
    }
}

/// The thing that a job is for.
pub(super) fn thing_of(number: u64) -> usize {
    number as usize - 1
}

/// What was answered about the job for a thing.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// What it may be, where `None` is no job: what was answered last, or what was asked for since and not answered.
    may_be: Vec<Option<Job>>,
    /// What the journal says of it has rotted: it may be anything.
    forgotten: bool,
}

impl Default for Word {
    fn default() -> Self {
        Self::of(None)
    }
}

impl Word {
    /// It is this, for sure.
    pub(super) fn of(job: Option<Job>) -> Self {
        Self { may_be: vec![job], forgotten: false }
    }

    /// Whether it may be this.
    pub(super) fn allows(&self, found: Option<&Job>) -> bool {
        self.forgotten || self.may_be.iter().any(|may| may.as_ref() == found)
    }

    /// It is there, in whatever form.
    pub(super) fn is_there(&self) -> bool {
        !self.forgotten && self.may_be.iter().all(Option::is_some)
    }

    /// It is not there.
    pub(super) fn is_gone(&self) -> bool {
        !self.forgotten && self.may_be.iter().all(Option::is_none)
    }

    /// It was asked to become this, and that was not answered.
    pub(super) fn may_become(&mut self, job: Option<Job>) {
        self.may_be.push(job);
    }

    /// What the journal says of it is lost.
    pub(super) fn forget(&mut self) {
        self.forgotten = true;
    }
}
