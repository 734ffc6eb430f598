//! What is different about an object that is fetched for the sake of a directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Error, Inquiry};
use crate::content::ObjectId;
use crate::session::Asker;
use crate::store::{Lease, NewObject};

/// How an object is fetched. By default for its own sake, by whoever is found.
#[derive(Clone, Default)]
pub(super) struct Terms {
    /// Peers that may have it and that there is a session with.
    pub(super) seeds: Vec<Asker>,
    /// Whoever wants it tries again when nobody is found who has it.
    pub(super) once: bool,
    /// Where it is told who was asked, and what they said.
    pub(super) inquiry: Option<Inquiry>,
    /// What a directory says of it.
    pub(super) declared: Option<Declared>,
    /// It is a part of a directory, which is entered when all of it is here.
    pub(super) part: Option<PartOf>,
}

/// What a directory says of an object in it.
#[derive(Clone, Copy)]
pub(super) struct Declared {
    /// The outermost directory.
    pub(super) root: ObjectId,
    /// Bytes of the object.
    pub(super) length: u64,
}

/// The fetch of a directory that an object belongs to. Room for all of it has been claimed.
#[derive(Clone)]
pub(super) struct PartOf {
    /// Keeps everything of the directory.
    pub(super) lease: Arc<Lease>,
    /// Whether the directory is private here, and so everything in it.
    pub(super) private: bool,
    /// Told of every byte that arrives.
    pub(super) pulse: Pulse,
}

impl Terms {
    /// Whether the object can be the one that the directory means.
    ///
    /// # Errors
    /// [`Error::BadTree`].
    pub(super) fn check(&self, id: &ObjectId, length: u64) -> Result<(), Error> {
        match self.declared {
            Some(Declared { root, length: said }) if said != length => {
                let why = format!("it gives {id} a length of {said} bytes, which has {length}");
                Err(Error::BadTree { id: root, why })
            }
            _ => Ok(()),
        }
    }

    /// The journal's entry for the object, given what it would be on its own.
    pub(super) fn entry(&self, own: NewObject) -> NewObject {
        match &self.part {
            Some(part) => NewObject { part: true, private: part.private, name: None, pin: None, ..own },
            None => own,
        }
    }

    /// A byte has arrived.
    pub(super) fn beat(&self) {
        if let Some(part) = &self.part {
            part.pulse.beat();
        }
    }
}

/// When something arrived last, for all who work at one directory. Clones are the same.
#[derive(Clone)]
pub(super) struct Pulse {
    began: Instant,
    /// Milliseconds after that.
    last: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), last: Arc::default() }
    }

    pub(super) fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// How long nothing has arrived.
    pub(super) fn quiet(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }
}
