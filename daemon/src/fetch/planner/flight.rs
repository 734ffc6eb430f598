//! What is outstanding, over all peers.

use std::collections::{BTreeMap, BTreeSet};

use super::{PeerNo, Shard};

/// So many bytes of a shard, that had not come before, are progress: whoever says a byte now and then makes none.
pub(super) const STEP: u64 = 16 << 10;

/// The requests that are out. Bounded by the limit of bytes in flight.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Of whom each shard is asked, oldest first.
    asked: BTreeMap<Shard, Vec<PeerNo>>,
    /// Bytes of all requests, duplicates too.
    pub(super) bytes: u64,
    /// Bytes of the requests for parity among them.
    pub(super) parity_bytes: u64,
    /// Bytes of the parity shards that wait in the caller's memory.
    pub(super) held: u64,
    /// Needed chunks that were asked for in vain and wait to be asked for again.
    pub(super) again: BTreeSet<u64>,
    /// How much has come of shards that are not here, of whoever brought most of each. Each has cost somebody [`STEP`].
    begun: BTreeMap<Shard, u64>,
    /// Shards that are asked for but not counted on: their peers are late or much too slow.
    pub(super) doubted: BTreeSet<Shard>,
}

impl Flight {
    /// Notes a request.
    pub(super) fn start(&mut self, peer: PeerNo, shard: Shard, bytes: u64) {
        self.asked.entry(shard).or_default().push(peer);
        self.bytes += bytes;
        match shard {
            Shard::Data(chunk) => drop(self.again.remove(&chunk)),
            Shard::Parity { .. } => self.parity_bytes += bytes,
        }
    }

    /// Forgets a request that was out; tells whether it was the last for its shard.
    pub(super) fn end(&mut self, peer: PeerNo, shard: Shard, bytes: u64) -> bool {
        self.bytes -= bytes;
        if matches!(shard, Shard::Parity { .. }) {
            self.parity_bytes -= bytes;
        }
        let Some(peers) = self.asked.get_mut(&shard) else { return false };
        peers.retain(|&other| other != peer);
        let last = peers.is_empty();
        if last {
            self.asked.remove(&shard);
            self.doubted.remove(&shard);
        }
        last
    }

    /// Notes that `bytes` of a shard have come; tells whether that is progress.
    pub(super) fn came(&mut self, shard: Shard, bytes: u64) -> bool {
        let before = self.begun.get(&shard).copied().unwrap_or(0);
        let is_progress = bytes >= before + STEP;
        if is_progress {
            self.begun.insert(shard, bytes);
        }
        is_progress
    }

    /// A shard is here, or not wanted any more.
    pub(super) fn forget(&mut self, shard: Shard) {
        self.begun.remove(&shard);
    }

    /// Of whom a shard is asked.
    pub(super) fn peers(&self, shard: Shard) -> &[PeerNo] {
        self.asked.get(&shard).map_or(&[], Vec::as_slice)
    }

    /// Whether a shard is asked for and counted on.
    pub(super) fn is_coming(&self, shard: Shard) -> bool {
        self.asked.contains_key(&shard) && !self.doubted.contains(&shard)
    }

    /// The parity shards of a stripe that are asked for.
    pub(super) fn parity_of(&self, stripe: u32) -> Vec<Shard> {
        let all = Shard::Parity { stripe, index: 0 }..=Shard::Parity { stripe, index: u8::MAX };
        self.asked.range(all).map(|(&shard, _)| shard).collect()
    }

    /// How many requests are duplicates of others.
    pub(super) fn duplicates(&self) -> usize {
        self.asked.values().map(|peers| peers.len() - 1).sum()
    }

    /// Every shard that is asked for, and of whom.
    pub(super) fn asked(&self) -> impl Iterator<Item = (Shard, &[PeerNo])> {
        self.asked.iter().map(|(&shard, peers)| (shard, peers.as_slice()))
    }
}
