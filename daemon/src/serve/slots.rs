//! Whose turn it is to be given chunks. Pure: the time is passed in.
//!
//! Owns: the places, of which a peer has one at most, and the line of those who wait for one. Refuses: more peers at
//! once than there are places: few who are given chunks at full speed are done sooner than many who share it.
//! Survives a crash: nothing.
//!
//! While nobody waits, a place is its peer's as long as it asks. While somebody does, a turn ends after [`TURN`],
//! sooner where many wait, but not before a chunk has been given in it; what has been begun, which is one chunk a
//! session, is finished. Who takes nothing for [`STUCK`] keeps no place from others. Who waits is told when to ask
//! again, and has its place in the line as long as it does. The line is in the order of coming, or of when the host
//! last had a turn where that was later; but first come those whose host has fewest places, and the turns of a host
//! that has several are shorter: one host with many ids has the part of one.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::peer::{HostAddr, PeerId};

/// How long a turn is while somebody waits…
const TURN: Duration = Duration::from_secs(10);
/// …less where many do, so that all have had theirs within this time: a fetch gives up when nothing comes for a minute…
const ROUND: Duration = Duration::from_secs(20);
/// …but not less than this.
const LEAST: Duration = Duration::from_secs(1);

/// A place is free when its peer has asked for nothing for so long…
const IDLE: Duration = Duration::from_secs(2);
/// …or when so long after its turn a chunk has not been given to its end, nor even been read.
const DRAIN: Duration = Duration::from_secs(10);

/// Who is being sent a slice for so long does not take it: while others wait, its place is free.
const STUCK: Duration = Duration::from_secs(2);

/// When who waits is to ask again: when its turn is expected, but within these. A place may become free before.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How much later than that one who waits keeps its place in the line.
const GRACE: Duration = Duration::from_secs(3);

/// How often it is looked whose turn is over. Whoever has a place may ask as often as it likes, which must not put all
/// who wait in order each time.
const LOOK: Duration = Duration::from_millis(20);

/// Peers that may wait, more than may be connected unless that is configured; of more the last in the line goes.
const WAITING: usize = 512;

/// The places of a node.
#[derive(Debug)]
pub(super) struct Slots {
    /// How many there are, at least one.
    most: usize,
    holders: HashMap<PeerId, Holder>,
    waiting: HashMap<PeerId, Waiter>,
    /// The number at which each host that has a place, or waits for one, last had a turn.
    served: HashMap<Whose, u64>,
    /// Counts all who have come, and all turns.
    next: u64,
    /// When it was last looked whose turn is over.
    looked: Option<Instant>,
}

/// Who counts as one: a host where it is known, else a peer. Of hosts on private networks there are not many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Host(HostAddr),
    Peer(PeerId),
}

impl Whose {
    pub(super) fn of(peer: PeerId, host: Option<HostAddr>) -> Self {
        host.map_or(Self::Peer(peer), Self::Host)
    }
}

/// A peer that has a place.
#[derive(Debug)]
struct Holder {
    whose: Whose,
    since: Instant,
    /// When it last asked, or was given a chunk to its end.
    last: Instant,
    /// Chunks that are on their way to it.
    sending: usize,
    /// When it last took a slice, or a chunk was begun; later than now while our own limits hold it back.
    moved: Instant,
    /// Whether a chunk has been begun in this turn: before that one may be being read.
    is_served: bool,
    /// Since when it is to be given nothing more.
    over: Option<Instant>,
}

/// A peer that waits for a place.
#[derive(Debug)]
struct Waiter {
    whose: Whose,
    /// When it came.
    number: u64,
    /// Before then it has been told that it is not its turn yet.
    again: Instant,
    /// It has gone if it does not ask before.
    until: Instant,
}

/// One in the line.
struct Next {
    /// Places that its host will have when its turn comes: those it has, and one for each of its peers before this one.
    rank: usize,
    /// Since when it waits, as its host does.
    since: u64,
    peer: PeerId,
    whose: Whose,
}

impl Slots {
    /// With so many places, at least one.
    pub(super) fn new(most: usize) -> Self {
        let (holders, waiting, served) = Default::default();
        Self { most: most.max(1), holders, waiting, served, next: 0, looked: None }
    }

    /// From now on there are so many places, at least one. Those who have had theirs longest lose them.
    pub(super) fn set(&mut self, most: usize, now: Instant) {
        self.most = most.max(1);
        let mut active = active(&mut self.holders);
        let surplus = active.len().saturating_sub(self.most);
        active.iter_mut().take(surplus).for_each(|holder| holder.over = Some(now));
        // There may be a place sooner than they were told.
        self.waiting.values_mut().for_each(|waiter| waiter.again = now);
    }

    /// A peer asks for chunks: `None` when it has a place, else when it is to ask again.
    pub(super) fn ask(&mut self, peer: PeerId, host: Option<HostAddr>, now: Instant) -> Option<Duration> {
        // To ask sooner than one was told to changes nothing, and must cost nothing: however many wait, nobody's place
        // in the line is looked for.
        if let Some(waiter) = self.waiting.get(&peer).filter(|waiter| now < waiter.again) {
            return Some(waiter.again - now);
        }
        self.settle(now);
        let is_wanted = self.holders.len() > self.most || self.waiting.keys().any(|other| *other != peer);
        if let Some(holder) = self.holders.get_mut(&peer) {
            if holder.over.is_some() && !is_wanted {
                // Those for whom it was to go have gone.
                (holder.over, holder.since, holder.is_served) = (None, now, false);
            }
            if holder.over.is_none() {
                holder.last = now;
                self.waiting.remove(&peer);
                return None;
            }
        }
        let whose = Whose::of(peer, host);
        let waiter = Waiter { whose, number: self.next, again: now, until: now + GRACE };
        self.next += 1;
        self.waiting.entry(peer).or_insert(waiter);
        let line = self.line();
        if line.len() > WAITING
            && let Some(last) = line.last()
        {
            self.waiting.remove(&last.peer);
        }
        let (place, free) = (line.iter().take_while(|next| next.peer != peer).count(), self.free());
        if place < free {
            self.admit(peer, whose, now);
            return None;
        }
        let after = self.wait(place - free, now);
        if let Some(waiter) = self.waiting.get_mut(&peer) {
            (waiter.again, waiter.until) = (now + after, now + after + GRACE);
        }
        Some(after)
    }

    /// A chunk is about to go to a peer, if it has a place. As [`Slots::ask`].
    ///
    /// # Errors
    /// When it is to ask again.
    pub(super) fn begin(
        &mut self,
        peer: PeerId,
        host: Option<HostAddr>,
        now: Instant,
    ) -> Result<(), Duration> {
        if let Some(after) = self.ask(peer, host, now) {
            return Err(after);
        }
        if let Some(holder) = self.holders.get_mut(&peer) {
            (holder.sending, holder.is_served, holder.moved) = (holder.sending + 1, true, now);
        }
        Ok(())
    }

    /// A chunk has gone to a peer, or will not.
    pub(super) fn end(&mut self, peer: &PeerId, now: Instant) {
        if let Some(holder) = self.holders.get_mut(peer) {
            holder.sending = holder.sending.saturating_sub(1);
            (holder.last, holder.moved) = (now, now);
        }
    }

    /// A peer has taken a slice, or is not to be sent one before then.
    pub(super) fn moves(&mut self, peer: &PeerId, at: Instant) {
        if let Some(holder) = self.holders.get_mut(peer) {
            holder.moved = at;
        }
    }

    /// A peer's turn begins.
    fn admit(&mut self, peer: PeerId, whose: Whose, now: Instant) {
        self.waiting.remove(&peer);
        let sending = self.holders.get(&peer).map_or(0, |before| before.sending);
        let (since, last, moved, is_served, over) = (now, now, now, false, None);
        self.holders.insert(peer, Holder { whose, since, last, sending, moved, is_served, over });
        let holding = self.holders.values().map(|holder| holder.whose);
        let all: HashSet<Whose> = holding.chain(self.waiting.values().map(|waiter| waiter.whose)).collect();
        self.served.retain(|whose, _| all.contains(whose));
        self.served.insert(whose, self.next);
        self.next += 1;
    }

    /// Places that nobody has.
    fn free(&self) -> usize {
        self.most.saturating_sub(self.holders.len())
    }

    /// Lets those go who have gone, and ends the turns of those who have had theirs, as far as others wait.
    fn settle(&mut self, now: Instant) {
        self.waiting.retain(|_, waiter| waiter.until > now);
        self.holders.retain(|_, holder| !holder.is_gone(now));
        if self.waiting.is_empty() {
            return;
        }
        self.holders.retain(|_, holder| holder.sending == 0 || now < holder.moved + STUCK);
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return;
        }
        self.looked = Some(now);
        let (line, turn, mut places) = (self.line(), self.turn(), self.places());
        // The first in the line have the places that are free, and those that will be.
        let leaving = self.holders.values().filter(|holder| holder.over.is_some()).count();
        let mut unplaced = line.iter().skip(self.free() + leaving).peekable();
        for holder in active(&mut self.holders) {
            let Some(next) = unplaced.peek() else { return };
            let own = places.entry(holder.whose).or_insert(1);
            let patience = if holder.is_served { Duration::ZERO } else { DRAIN };
            if holder.since + of_one(turn, *own) + patience > now {
                continue;
            }
            // If it went it would wait itself: not for somebody who would then come after it.
            let rank = next.rank.saturating_sub(usize::from(next.whose == holder.whose));
            if rank < (*own).max(1) {
                holder.over = Some(now);
                *own = own.saturating_sub(1);
                unplaced.next();
            }
        }
    }

    /// How long a turn is now, of a host that has one place.
    fn turn(&self) -> Duration {
        let all = count(self.holders.len() + self.waiting.len()).max(1);
        (ROUND.saturating_mul(count(self.most)) / all).clamp(LEAST, TURN)
    }

    /// Places of each host that are not about to be free.
    fn places(&self) -> HashMap<Whose, usize> {
        let mut places = HashMap::new();
        for holder in self.holders.values().filter(|holder| holder.over.is_none()) {
            *places.entry(holder.whose).or_insert(0) += 1;
        }
        places
    }

    /// Those who wait, in the order in which their turns come.
    fn line(&self) -> Vec<Next> {
        let mut waiting: Vec<_> = self.waiting.iter().collect();
        waiting.sort_unstable_by_key(|(_, waiter)| waiter.number);
        let mut places = self.places();
        let next = |(peer, waiter): (&PeerId, &Waiter)| {
            let places = places.entry(waiter.whose).or_insert(0);
            let rank = *places;
            *places += 1;
            let served = self.served.get(&waiter.whose).copied().unwrap_or(0);
            Next { rank, since: waiter.number.max(served), peer: *peer, whose: waiter.whose }
        };
        let mut line: Vec<Next> = waiting.into_iter().map(next).collect();
        // Stable: those of one host keep their order.
        line.sort_by_key(|next| (next.rank, next.since));
        line
    }

    /// When it is to ask again before whose turn so many others have to have had theirs.
    fn wait(&self, behind: usize, now: Instant) -> Duration {
        let (turn, places) = (self.turn(), self.places());
        let end = |holder: &Holder| match holder.over {
            Some(_) => now,
            None => holder.since + of_one(turn, places.get(&holder.whose).copied().unwrap_or(1)),
        };
        let mut ends: Vec<Instant> = self.holders.values().map(end).collect();
        ends.sort_unstable();
        let of_all = ends.len().max(1);
        let rounds = turn.saturating_mul(count(behind / of_all));
        let first = ends.get(behind % of_all).map_or(AGAIN.1, |end| end.saturating_duration_since(now));
        (first + rounds).clamp(AGAIN.0, AGAIN.1)
    }
}

impl Holder {
    fn is_gone(&self, now: Instant) -> bool {
        match self.over {
            Some(over) => self.sending == 0 || now >= over + DRAIN,
            None => self.sending == 0 && now >= self.last + if self.is_served { IDLE } else { DRAIN },
        }
    }
}

/// Those whose turn is not over, who have had it longest first.
fn active(holders: &mut HashMap<PeerId, Holder>) -> Vec<&mut Holder> {
    let mut active: Vec<_> = holders.values_mut().filter(|holder| holder.over.is_none()).collect();
    active.sort_unstable_by_key(|holder| holder.since);
    active
}

/// The turn of each place of a host that has so many.
fn of_one(turn: Duration, places: usize) -> Duration {
    (turn / count(places).max(1)).max(LEAST)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
