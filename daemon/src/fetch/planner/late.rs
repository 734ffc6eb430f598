//! What to do about answers that are late, or will be.

use std::cmp::Reverse;
use std::time::Duration;

use super::peer::Peer;
use super::search::PARITY_GRACE;
use super::{Action, CHUNK_LEN, PeerNo, Planner, Shard};

/// Of how many peers at most one shard is asked at a time.
const COPIES: usize = 3;

/// The share of the bytes in flight that duplicates of the end game may take.
const DUPLICATE_SHARE: u64 = 4;

/// A chunk that takes so much longer of one that has brought nothing whole is not worth that another is asked for
/// nothing.
const CRAWL: Duration = Duration::from_secs(10);

/// Added to every comparison of expected answers: measurements of fast peers are no finer than this.
const NOISE: Duration = Duration::from_millis(20);

/// Whether an answer expected in `late` comes so much after one expected in `soon` that asking twice pays.
pub(super) fn much_later(late: Duration, soon: Duration) -> bool {
    late > soon.saturating_mul(3) / 2 + NOISE
}

/// What can be done about a shard that comes too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// To ask this peer for it too.
    Ask,
    /// Nobody else can be asked for it: to finish its stripe with parity.
    Parity,
}

impl Planner {
    /// Finds peers that have become late and asks elsewhere for what they owe.
    pub(super) fn review(&mut self, actions: &mut Vec<Action>) {
        let is_late = |at: Duration| at <= self.now;
        let late = self.peers.iter().filter(|(_, peer)| peer.late_at().is_some_and(is_late));
        for no in late.map(|(&no, _)| no).collect::<Vec<_>>() {
            self.snub(no, actions);
        }
        self.relieve(actions);
        self.hedge(actions);
    }

    /// Cancels what late peers owe, first that of which least has come, then the oldest, while it keeps others from
    /// being asked at all. When nobody is late, what crawls goes elsewhere.
    fn relieve(&mut self, actions: &mut Vec<Action>) {
        let bytes = self.chunks.bytes(0);
        loop {
            let waits = |(_, peer): &(PeerNo, &Peer)| {
                !peer.snubbed && peer.has_room(bytes, self.now) && !self.allows(peer, bytes)
            };
            let peers = self.peers.iter().map(|(&no, peer)| (no, peer));
            let waiting: Vec<(PeerNo, &Peer)> = peers.filter(waits).collect();
            if waiting.is_empty() {
                break;
            }
            let late = self.peers.iter().filter(|(_, peer)| peer.snubbed);
            let owed = late.flat_map(|(&no, peer)| {
                peer.requests.iter().map(move |owed| (owed.came, owed.asked_at, no, owed.shard))
            });
            if let Some((.., no, shard)) = owed.min() {
                self.cancel(no, shard, actions);
            } else if let Some((from, shard, to)) = self.crawling(&waiting) {
                self.cancel(from, shard, actions);
                if self.peers.get(&to).is_some_and(|to| self.allows(to, bytes)) {
                    self.ask(to, shard, actions);
                }
            } else {
                break;
            }
        }
    }

    /// Of those who have brought nothing whole: whose last request waits behind another, or comes slowest; what was
    /// asked; and who of those that are kept waiting, and are asked for nothing, may bring it sooner.
    fn crawling(&self, waiting: &[(PeerNo, &Peer)]) -> Option<(PeerNo, Shard, PeerNo)> {
        let may_be_faster = |peer: &Peer| peer.speed.is_proven() || peer.speed.transfer(CHUNK_LEN).is_none();
        let is_idle = |(_, peer): &(PeerNo, &Peer)| peer.requests.is_empty() && may_be_faster(peer);
        let idle: Vec<(PeerNo, &Peer)> = waiting.iter().copied().filter(is_idle).collect();
        let doubtful = self.peers.iter().filter(|(_, peer)| !idle.is_empty() && !peer.speed.is_proven());
        let owed = doubtful.filter_map(|(&from, peer)| {
            let left = match peer.requests.as_slice() {
                [only] if only.came > 0 => peer.finishes_in(0, self.now),
                [_, _, ..] => Duration::MAX,
                _ => return None,
            };
            // Whether a stripe still needs its parity is decided when that is asked for.
            let shard = peer.requests.last()?.shard;
            matches!(shard, Shard::Data(_)).then_some(())?;
            let asked = self.flight.peers(shard);
            let gives = |(no, peer): &&(PeerNo, &Peer)| !asked.contains(no) && self.may_give(peer, shard);
            idle.iter().find(gives).map(|(to, _)| (left, from, shard, *to))
        });
        owed.filter(|(left, ..)| *left > CRAWL).max().map(|(_, from, shard, to)| (from, shard, to))
    }

    /// A peer is late. Its oldest request stays out, as a probe; those behind it go elsewhere, if they can.
    fn snub(&mut self, no: PeerNo, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&no) else { return };
        peer.snub(self.now);
        let owed: Vec<Shard> = peer.requests.iter().map(|request| request.shard).collect();
        self.resort();
        for shard in owed.into_iter().skip(1) {
            if self.available(shard, Some(no)) {
                self.cancel(no, shard, actions);
            }
        }
        self.search.wake();
    }

    /// Asks other peers for what late ones owe, where they are expected to be sooner.
    fn hedge(&mut self, actions: &mut Vec<Action>) {
        let late = self.peers.values().filter(|peer| peer.snubbed);
        let owed = late.flat_map(|peer| {
            let left = |place: usize| peer.finishes_in(place, self.now);
            peer.requests.iter().enumerate().map(move |(place, request)| (request.shard, left(place)))
        });
        for (shard, left) in owed.collect::<Vec<_>>() {
            let asked = self.flight.peers(shard);
            if asked
                .iter()
                .any(|no| self.peers.get(no).is_some_and(|peer| peer.is_trusted() && !peer.snubbed))
            {
                continue;
            }
            let crowded = asked.len() >= COPIES;
            // Of which least has come, and which is expected last.
            let last = asked.iter().copied();
            let last = last.min_by_key(|&no| (self.has_come(no, shard), Reverse(self.left(no, shard))));
            match self.soonest(shard) {
                Some((no, soon)) if soon < left => {
                    if let (true, Some(last)) = (crowded, last) {
                        self.cancel(last, shard, actions);
                    }
                    self.ask(no, shard, actions);
                }
                None if !self.available(shard, None) => self.doubt(shard, actions),
                _ => {}
            }
        }
    }

    /// The peer with room that would answer soonest for a shard it is not asked for yet, and in what time.
    fn soonest(&self, shard: Shard) -> Option<(PeerNo, Duration)> {
        let bytes = self.chunks.shard_bytes(shard, self.stripes.layout());
        let asked = self.flight.peers(shard);
        let ready = self.peers.iter().filter(|&(no, peer)| {
            !asked.contains(no)
                && !peer.snubbed
                && peer.has_room(bytes, self.now)
                && self.allows(peer, bytes)
                && self.may_give(peer, shard)
        });
        let answers = ready.filter_map(|(&no, peer)| Some((no, peer.answers_in(bytes, self.now)?)));
        answers.min_by_key(|&(_, soon)| soon)
    }

    /// End game: for a peer that has nothing else to do, what another one is expected to bring much later. When
    /// that cannot be had from any other peer, parity of its stripe.
    pub(super) fn pick_duplicate(&mut self, no: PeerNo, actions: &mut Vec<Action>) -> Option<Shard> {
        let (soon, may_copy) = self.copies(no)?;
        let (mut slowest, mut stuck) = (None, None);
        for (shard, asked) in self.flight.asked() {
            let left = self.expected(shard);
            if !much_later(left, soon) {
                continue;
            }
            match self.remedy(no, shard, asked, may_copy) {
                Some(Remedy::Ask) => slowest = slowest.max(Some((left, shard))),
                Some(Remedy::Parity) => stuck = stuck.max(Some((left, shard))),
                None => {}
            }
        }
        if let Some((_, shard)) = slowest {
            return Some(shard);
        }
        self.doubt(stuck?.1, actions);
        self.pick_for_stripe(no)
    }

    /// In order: the first chunk that is expected from another peer long after the reader gets to it, and much later
    /// than this one would bring it. When neither this one nor any other can bring it, parity of its stripe.
    pub(super) fn pick_overdue(&mut self, no: PeerNo, actions: &mut Vec<Action>) -> Option<Shard> {
        let (soon, may_copy) = self.copies(no)?;
        let mut stuck = None;
        for (ahead, chunk) in (0..).zip(self.chunks.needed(self.window())) {
            let shard = Shard::Data(chunk);
            let asked = self.flight.peers(shard);
            if asked.is_empty() {
                if self.peers.get(&no)?.holding.has(chunk) && !self.is_covered(chunk) {
                    // It is asked for this one next.
                    break;
                }
                if self.now >= PARITY_GRACE && !self.available(shard, None) && !self.is_covered(chunk) {
                    stuck = stuck.or(Some(chunk));
                }
                continue;
            }
            // Nearly all is on its way, and in time.
            let left = self.expected(shard);
            if !much_later(left, soon) || !much_later(left, self.brings(ahead)) {
                continue;
            }
            match self.remedy(no, shard, asked, may_copy) {
                Some(Remedy::Ask) => return Some(shard),
                Some(Remedy::Parity) => stuck = stuck.or(Some(chunk)),
                None => {}
            }
        }
        let chunk = stuck?;
        if self.chunks.asked.get(chunk) {
            self.doubt(Shard::Data(chunk), actions);
        } else {
            self.open_for(chunk, actions);
        }
        self.pick_for_stripe(no)
    }

    /// In what time a peer would bring one more shard, if that can be told, and whether there may be more duplicates.
    fn copies(&self, no: PeerNo) -> Option<(Duration, bool)> {
        let most = self.limits.in_flight / CHUNK_LEN / DUPLICATE_SHARE;
        let may_copy = u64::try_from(self.flight.duplicates()).unwrap_or(u64::MAX) < most;
        Some((self.peers.get(&no)?.answers_in(self.chunks.bytes(0), self.now)?, may_copy))
    }

    /// What a peer can do about a shard that comes too late from those who are `asked`; nothing while the shard is left
    /// to others to whom the peer gives it. Parity is no copy, however many are asked in vain.
    fn remedy(&self, no: PeerNo, shard: Shard, asked: &[PeerNo], may_copy: bool) -> Option<Remedy> {
        let peer = self.peers.get(&no)?;
        if matches!(shard, Shard::Data(chunk) if peer.given.has(chunk)) && self.spares(no) {
            return None;
        }
        if may_copy && asked.len() < COPIES && !asked.contains(&no) && self.may_give(peer, shard) {
            return Some(Remedy::Ask);
        }
        let is_stuck =
            !self.flight.doubted.contains(&shard) && !self.available(shard, asked.first().copied());
        is_stuck.then_some(Remedy::Parity)
    }

    /// In what time a shard that was asked for is expected, from whoever brings it first.
    fn expected(&self, shard: Shard) -> Duration {
        let left = self.flight.peers(shard).iter().filter_map(|&no| self.left(no, shard));
        left.min().unwrap_or_default()
    }

    /// How much has come of a shard that a peer was asked for.
    pub(super) fn has_come(&self, no: PeerNo, shard: Shard) -> Option<u64> {
        let peer = self.peers.get(&no)?;
        Some(peer.requests.get(peer.place_of(shard)?)?.came)
    }

    /// In what time a peer is expected to bring a shard that it was asked for.
    fn left(&self, no: PeerNo, shard: Shard) -> Option<Duration> {
        let peer = self.peers.get(&no)?;
        Some(peer.finishes_in(peer.place_of(shard)?, self.now))
    }
}
