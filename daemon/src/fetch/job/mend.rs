//! What a fetch does about chunks that rotted here, and with parity.

use super::super::planner::{self, PeerNo, Shard};
use super::super::repair::{Parity, Rebuilt};
use super::{Error, Job, Part};

impl Job {
    /// A chunk that was here is not: its record has rotted.
    pub(super) fn lost(&mut self, chunk: u64) {
        self.here = self.here.saturating_sub(1);
        let was_done = self.planner.is_done();
        self.tell(planner::Event::Lost { chunk });
        if was_done {
            let members: Vec<PeerNo> = self.crowd.members().map(|(peer, _)| peer).collect();
            members.into_iter().for_each(|peer| self.joined(peer));
        }
        if self.parity.is_some() {
            self.use_local_parity(chunk);
        } else {
            self.learn_local_parity();
        }
    }

    /// Reads what is known here of the object's parity.
    pub(super) fn learn_local_parity(&self) {
        let (store, id) = (self.parts.store.clone(), self.request.id);
        self.learning.push(Box::pin(async move { store.parity(&id).await.ok().flatten() }));
    }

    /// Tells of the parity that lies here of the stripe of a missing chunk.
    fn use_local_parity(&mut self, chunk: u64) {
        let local = self.parity.as_ref().map(|parity| parity.stored(chunk, &self.parts.store));
        for shard in local.into_iter().flatten() {
            self.tell(planner::Event::Local { shard });
        }
    }

    /// A peer, or the store, told of parity, or of none.
    pub(super) fn learned(&mut self, part: Part) {
        let Some((part, pages)) = part.filter(|_| self.parity.is_none()) else { return };
        if let Some(parity) = Parity::new(&self.shape, &part, &pages) {
            let stripes = parity.stripes();
            self.parity = Some(parity);
            self.tell(planner::Event::ParityKnown { stripes });
            if self.was_whole {
                let missing: Vec<u64> = self.planner.missing().collect();
                missing.into_iter().for_each(|chunk| self.use_local_parity(chunk));
            }
        }
    }

    pub(super) fn rebuild(&mut self, stripe: u32) {
        let missing = |chunk| self.planner.wants(Shard::Data(chunk));
        // What was here comes back; of what was not, nothing stays that nobody wants.
        let kept = if self.was_whole { 0..self.shape.chunks() } else { self.wanted.chunks.clone() };
        let with = (&self.parts, &self.lease);
        let parity = self.parity.as_ref();
        let rebuild = parity.and_then(|parity| parity.rebuild(stripe, (missing, kept), &self.shape, with));
        match rebuild {
            Some(rebuild) => self.rebuilding.push(Box::pin(async move { (stripe, rebuild.run().await) })),
            None => self.tell(planner::Event::RebuildFailed { stripe }),
        }
    }

    pub(super) fn rebuilt(&mut self, stripe: u32, rebuilt: Rebuilt) -> Result<(), Error> {
        match rebuilt {
            Rebuilt::Chunks(chunks) => {
                self.summary.rebuilt += chunks.len() as u64;
                let indexes = chunks.iter().map(|(index, _)| *index).collect();
                for (index, bytes) in chunks {
                    self.stored(index, bytes)?;
                }
                self.tell(planner::Event::Rebuilt { stripe, chunks: indexes });
            }
            Rebuilt::False => {
                if let Some(maker) = self.parity.take().map(|parity| parity.maker()) {
                    self.crowd.strike_maker(&self.request.id, maker);
                }
                self.tell(planner::Event::RebuildFailed { stripe });
            }
            Rebuilt::Short => {
                self.parity = None;
                tracing::warn!(object = %self.request.id, "parity of this object has rotted as well; it is not used");
                self.tell(planner::Event::RebuildFailed { stripe });
            }
            Rebuilt::Lost(chunk) => self.tell(planner::Event::Lost { chunk }),
            Rebuilt::Store(error) => return Err(error.into()),
        }
        Ok(())
    }
}
