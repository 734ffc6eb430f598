//! What came of reading, asking and fetching, and what is done about it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::super::ALONE;
use super::super::super::learn::AGAIN;
use super::super::super::planner::PeerNo;
use super::super::super::{Error, Summary};
use super::super::holders::Choice;
use super::{Asked, Halt, Outcome, Proved, Supply};
use crate::content::{Chunk, ObjectId};

/// What has not come after this time is asked of another.
const LATE: Duration = Duration::from_secs(2);

/// So many bytes of what is not whole count as something that has arrived.
const SOMETHING: u64 = 16 << 10;

impl Supply {
    /// A request has ended.
    pub(super) fn answered(&mut self, (id, peer, outcome): Asked) {
        // Without an outcome it was taken back, and has been dealt with.
        let (Some(outcome), Some(open)) = (outcome, self.open.get_mut(&id)) else { return };
        let since = open.asked.take().map_or_else(Instant::now, |(_, since, _)| since);
        let length = open.length;
        if let Outcome::Arrived(unproven) = outcome {
            self.holders.arrived(peer, length, since.elapsed());
            self.arrived.push((id, peer, unproven));
            return;
        }
        self.holders.ended(peer, length);
        match outcome {
            Outcome::NotFound => open.lacking.push(peer),
            Outcome::Failed if !self.holders.lost(peer) => open.lacking.push(peer),
            Outcome::Busy(after) => self.holders.busy(peer, Instant::now() + after),
            Outcome::Bad => self.strike(peer),
            Outcome::Failed | Outcome::Arrived(_) => {}
        }
        self.queue.push_front(id);
    }

    /// A batch has been proved, and what was true of it stored.
    pub(super) fn proved(&mut self, batch: Vec<Proved>) -> Vec<(ObjectId, Bytes)> {
        let mut given = Vec::with_capacity(batch.len());
        for (id, peer, chunk) in batch {
            match chunk {
                Some(chunk) => {
                    self.errand.pulse.beat();
                    self.holders.crowd.gave(peer, chunk.bytes().len() as u64);
                    if self.open.remove(&id).is_some() {
                        given.push((id, Chunk::into_bytes(chunk)));
                    }
                }
                None => {
                    self.strike(peer);
                    if let Some(open) = self.open.get_mut(&id) {
                        open.lacking.push(peer);
                        self.queue.push_front(id);
                    }
                }
            }
        }
        given
    }

    /// A peer lied: it is asked for nothing more, and what it was asked for is asked of others.
    fn strike(&mut self, peer: PeerNo) {
        if let Some(member) = self.holders.get(peer) {
            self.errand.struck(&member.peer);
        }
        self.holders.strike(peer);
        for (id, open) in &mut self.open {
            if let Some((_, _, handle)) = open.asked.take_if(|(asked, ..)| *asked == peer) {
                handle.abort();
                self.queue.push_front(*id);
            }
        }
    }

    /// Objects have been read; what was not there any more is asked for.
    pub(super) fn read(&mut self, read: Vec<(ObjectId, Option<Bytes>)>) -> Vec<(ObjectId, Bytes)> {
        let mut given = Vec::with_capacity(read.len());
        for (id, bytes) in read {
            match bytes {
                Some(bytes) => {
                    self.open.remove(&id);
                    given.push((id, bytes));
                }
                None => {
                    if !self.awaits() {
                        self.errand.pulse.beat();
                    }
                    self.queue.push_back(id);
                }
            }
        }
        given
    }

    /// The fetch of a single object has ended. When it found nobody, it is tried again after a while, and others
    /// before; or it is given up, where whoever wants it tries again.
    pub(super) fn rescued(
        &mut self,
        id: ObjectId,
        rescued: Result<(Bytes, Summary), Error>,
    ) -> Result<Vec<(ObjectId, Bytes)>, Halt> {
        match rescued {
            Ok((bytes, summary)) => {
                summary.peers.iter().for_each(|(peer, _)| self.holders.invite(*peer));
                self.also(&summary);
                self.open.remove(&id);
                Ok(vec![(id, bytes)])
            }
            Err(Error::NoHolders { .. } | Error::Unreached { .. } | Error::Stalled { .. })
                if self.errand.once =>
            {
                self.open.remove(&id);
                Err(Halt::Lacking(id))
            }
            Err(Error::NoHolders { .. } | Error::Unreached { .. } | Error::Stalled { .. }) => {
                if let Some(open) = self.open.get_mut(&id) {
                    open.rescue_at = Instant::now() + open.rest;
                    open.rest = (open.rest * 2).min(AGAIN.1);
                    // A holder may have joined meanwhile, when it could not be asked: it comes first now.
                    self.queue.push_back(id);
                }
                self.check_stall()?;
                Ok(Vec::new())
            }
            Err(error) => Err(Halt::Failed(error)),
        }
    }

    fn check_stall(&self) -> Result<(), Halt> {
        // Whoever reads what has rotted here, and knows nobody to ask, need not wait for long.
        let is_alone = self.errand.was_whole && self.holders.is_quiet() && self.peers() == 0;
        let limit = if is_alone { self.errand.stall.min(ALONE) } else { self.errand.stall };
        let stalled = self.awaits() && self.errand.pulse.quiet() >= limit;
        if stalled { Err(Halt::Stalled) } else { Ok(()) }
    }

    /// Tells of bytes that have come of objects that are not whole: who is slow is not silent.
    fn look(&mut self) {
        for open in self.open.values_mut() {
            let Some((peer, ..)) = &open.asked else { continue };
            let came = open.came.bytes();
            let more = u64::from(came.saturating_sub(std::mem::replace(&mut open.told, came)));
            if more > 0 {
                self.holders.crowd.flows(*peer, more);
                self.flowed += more;
            }
        }
        if self.flowed >= SOMETHING {
            self.flowed = 0;
            self.errand.pulse.beat();
        }
    }

    /// Now and then: what comes, what is late, and whether nothing comes any more.
    pub(super) fn tick(&mut self) -> Result<(), Halt> {
        self.look();
        self.holders.look_again();
        let now = Instant::now();
        let mut again = Vec::new();
        for (id, open) in &mut self.open {
            let Some((peer, since, _)) = &open.asked else { continue };
            let (peer, is_late) = (*peer, now.duration_since(*since) >= LATE);
            let avoid = || [open.lacking.as_slice(), open.late.as_slice(), &[peer]].concat();
            if is_late && matches!(self.holders.choose(open.length, &avoid(), now), Choice::Ask(_)) {
                if let Some((_, _, handle)) = open.asked.take() {
                    handle.abort();
                }
                open.late.push(peer);
                again.push((*id, peer, open.length));
            }
        }
        for (id, peer, length) in again {
            self.holders.ended(peer, length);
            self.holders.late(peer);
            self.queue.push_front(id);
        }
        self.check_stall()
    }
}
