//! The peers of one fetch: found, connected to, and numbered for the planner.
//!
//! Whoever is found is dialled in the order in which the look-up tells of them, many at once; one that takes its time
//! keeps no place for others, and [members](super::member) that have nothing make room. Of those who are only said to
//! hold something, and whom the look-up itself has not reached, it is remembered why.

mod asked;
mod hearsay;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, SelectAll};
use tokio_stream::wrappers::ReceiverStream;

use super::Parts;
use super::inquiry::{Findings, Inquiry};
use super::member::{Member, who_goes};
use super::missed::{self, Missed};
use super::planner::PeerNo;
use super::ways;
use crate::content::ObjectId;
use crate::peer::{Holder, Key, PeerAddr, PeerId, Provider, Reach, Unconnected};
use crate::session::Asker;

/// Connection attempts of one fetch at once…
const DIALS: usize = 16;
/// …not counting those that were begun so long ago…
const SLOW: Duration = Duration::from_secs(2);
/// …of which there are no more than so many.
const MAX_DIALS: usize = 64;

/// Providers of one fetch that wait to be dialled, as many as a look-up tells; more are dropped, a later look-up finds
/// them again.
const WAITING: usize = 128;

/// Peers of which it is kept that a look-up told of them, besides those that the caller named, who are few.
const VOUCHED: usize = 192;

/// How often those that wait are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What came of dialling a peer. Where it was not reached: why, in words, and whether that was a refusal.
type Dialled = (PeerId, Result<Asker, (String, bool)>);

/// The peers of one fetch.
pub(super) struct Crowd {
    parts: Arc<Parts>,
    /// The peers that the caller named, and the ways to them.
    hints: Arc<[(PeerId, Vec<Reach>)]>,
    /// Those that look-ups tell to hold something of it: those of `hints`, and at most [`VOUCHED`] in all.
    vouched: HashSet<PeerId>,
    members: HashMap<PeerNo, Member>,
    /// Members, those that wait or are being dialled, and those that failed and are not to be tried again at once.
    seen: HashSet<PeerId>,
    /// Those of `seen` that failed or left.
    gone: HashSet<PeerId>,
    /// Those that members have told of: that says nothing of who they are, and where they were said to be may be a lie.
    hearsay: HashSet<PeerId>,
    /// Where look-ups have found those of `hearsay` that are being tried where they were said to be.
    elsewhere: HashMap<PeerId, Provider>,
    lookups: SelectAll<ReceiverStream<Holder>>,
    waiting: VecDeque<Provider>,
    dialling: FuturesUnordered<BoxFuture<'static, Dialled>>,
    /// Providers that are being dialled, and since when.
    dialled: HashMap<PeerId, Instant>,
    /// Why those that were dialled in vain, here or by a look-up, were not reached.
    missed: Missed,
    /// Those of them that the caller named and that are of another network, or have another key.
    strangers: HashSet<PeerId>,
    next: u32,
    /// What the members that left had given.
    given: HashMap<PeerId, u64>,
    /// Where it is told what became of them.
    inquiry: Option<Inquiry>,
}

/// What happened to the crowd.
pub(super) enum Arrival {
    /// A peer can be asked.
    Joined(PeerNo),
    /// A member that has nothing made room for another: nothing more comes of it.
    Left(PeerNo),
    /// All look-ups have ended and nobody is being dialled.
    Quiet,
}

impl Crowd {
    /// A crowd of those with whom there are these sessions; the peers that the caller named are dialled at once.
    pub(super) fn new(parts: Arc<Parts>, hints: &[PeerAddr], seeds: &[Asker]) -> Self {
        let mut crowd = Self {
            parts,
            hints: ways::by_peer(hints).into(),
            vouched: HashSet::new(),
            members: HashMap::new(),
            seen: HashSet::new(),
            gone: HashSet::new(),
            hearsay: HashSet::new(),
            elsewhere: HashMap::new(),
            lookups: SelectAll::new(),
            waiting: VecDeque::new(),
            dialling: FuturesUnordered::new(),
            dialled: HashMap::new(),
            missed: Missed::default(),
            strangers: HashSet::new(),
            next: 0,
            given: HashMap::new(),
            inquiry: None,
        };
        seeds.iter().for_each(|asker| crowd.admit(asker.clone()));
        crowd.dial_hints();
        crowd
    }

    /// From now on it is told there what becomes of those who are asked.
    pub(super) fn inquire(&mut self, inquiry: Option<Inquiry>) {
        self.inquiry = inquiry;
    }

    /// Tells how it stands, where anybody wants to know.
    pub(super) fn report(&self, findings: impl FnOnce(&Self) -> Findings) {
        if let Some(inquiry) = &self.inquiry {
            inquiry.tell(findings(self));
        }
    }

    fn dial_hints(&mut self) {
        for (peer, ways) in Arc::clone(&self.hints).iter() {
            self.hint(*peer, ways);
        }
    }

    /// Dials a peer that the caller named, wherever its addresses lead.
    fn hint(&mut self, peer: PeerId, ways: &[Reach]) {
        if !self.seen.insert(peer) {
            return;
        }
        let (parts, known) = (Arc::clone(&self.parts), ways::known(ways));
        let addresses = ways::sockets(&parts, peer, ways);
        self.dialling.push(Box::pin(async move {
            let reached = parts.links.connect(peer, addresses, Some(known)).await;
            (peer, reached.map_err(|why| why_not(None, &why)))
        }));
    }

    /// Takes in a peer that there is a session with.
    fn admit(&mut self, asker: Asker) {
        if self.members.len() < self.parts.options.per_fetch && self.seen.insert(asker.peer()) {
            self.join(asker);
        }
    }

    /// Takes in a peer that has just given something elsewhere, if the session with it is still open.
    pub(super) fn invite(&mut self, peer: PeerId) {
        if self.members.len() < self.parts.options.per_fetch && self.seen.insert(peer) {
            let parts = Arc::clone(&self.parts);
            self.dialling.push(Box::pin(async move {
                let reached = parts.links.connect(peer, stream::empty(), None).await;
                (peer, reached.map_err(|why| why_not(None, &why)))
            }));
        }
    }

    /// Looks for holders of `key`, an object's or a chunk's id.
    pub(super) fn look_for(&mut self, key: Key) {
        self.lookups.push(ReceiverStream::new(self.parts.discovery.providers(key)));
    }

    /// Lets peers that failed or left before be tried again.
    pub(super) fn retry(&mut self) {
        for peer in self.gone.drain() {
            self.seen.remove(&peer);
        }
        self.forget_hearsay();
        self.dial_hints();
    }

    /// Waits for the next change. Cancel-safe.
    pub(super) async fn next(&mut self) -> Arrival {
        loop {
            if let Some(left) = self.make_room() {
                return Arrival::Left(left);
            }
            self.dial_waiting();
            let idle = self.lookups.is_empty() && self.dialling.is_empty() && self.waiting.is_empty();
            if idle {
                return Arrival::Quiet;
            }
            tokio::select! {
                Some(holder) = self.lookups.next() => self.told_of(holder),
                Some((peer, asker)) = self.dialling.next() => {
                    let is_named = self.dialled.remove(&peer).is_none();
                    match asker {
                        Ok(asker) if is_named || self.members.len() < self.parts.options.per_fetch => {
                            let number = self.join(asker);
                            self.members.entry(number).and_modify(|member| member.is_named = is_named);
                            return Arrival::Joined(number);
                        }
                        // It answered too late; the next look-up may find a place for it.
                        Ok(_) => _ = self.gone.insert(peer),
                        Err((why, is_refusal)) => {
                            if is_named && is_refusal {
                                self.strangers.insert(peer);
                            } else {
                                self.strangers.remove(&peer);
                            }
                            self.miss(peer, why);
                            self.failed(peer);
                        }
                    }
                }
                () = tokio::time::sleep(LOOK), if !self.waiting.is_empty() => {}
                else => return Arrival::Quiet,
            }
        }
    }

    /// A look-up tells of one that is said to hold something.
    fn told_of(&mut self, holder: Holder) {
        let (Holder::Found(Provider { peer, .. }) | Holder::Missed(peer, _)) = &holder;
        if self.vouched.len() < VOUCHED || self.is_named(peer) {
            self.vouched.insert(*peer);
        }
        let (peer, why) = match holder {
            Holder::Found(provider) => return self.located(provider),
            Holder::Missed(peer, why) => (peer, why),
        };
        // Of whom is here, or was dialled, more is known; and a later look-up that is still asking does not take back
        // what an earlier one has learnt.
        if self.seen.contains(&peer) || why.is_none() && self.missed.why(&peer).is_some() {
            return;
        }
        let why = why.map(|why| missed::reason(None, &Unconnected::Unreachable(why)));
        self.miss(peer, why.unwrap_or_else(|| missed::SILENT.to_owned()));
    }

    fn found(&mut self, provider: Provider) {
        let worth = self.parts.conduct.is_worth_trying(&provider.peer, SystemTime::now());
        if worth && self.waiting.len() < WAITING && self.seen.insert(provider.peer) {
            self.waiting.push_back(provider);
        }
    }

    /// Those whom the look-up told that are being dialled and may answer yet.
    fn fresh_dials(&self, now: Instant) -> usize {
        self.dialled.values().filter(|since| now.saturating_duration_since(**since) < SLOW).count()
    }

    /// Lets a member go that has nothing or brings least, when somebody waits and there is no place.
    fn make_room(&mut self) -> Option<PeerNo> {
        let now = Instant::now();
        let is_full = self.members.len() + self.fresh_dials(now) >= self.parts.options.per_fetch;
        if self.waiting.is_empty() || !is_full {
            return None;
        }
        let over = self.members.iter().filter(|(_, member)| member.makes_room(now));
        let number = who_goes(over.map(|(number, member)| (member.heard.flow(now), *number)).collect())?;
        self.leave(number);
        Some(number)
    }

    /// Dials those that wait, as far as the limits allow.
    fn dial_waiting(&mut self) {
        let now = Instant::now();
        let mut fresh = self.fresh_dials(now);
        while fresh < DIALS
            && self.dialled.len() < MAX_DIALS
            && self.members.len() + fresh < self.parts.options.per_fetch
        {
            let Some(provider) = self.waiting.pop_front() else { return };
            let parts = Arc::clone(&self.parts);
            self.dialled.insert(provider.peer, now);
            fresh += 1;
            self.dialling.push(Box::pin(async move {
                let mut addresses = provider.chunk;
                if addresses.is_empty() {
                    addresses = parts.discovery.chunk_addresses(provider.peer, provider.dht.clone()).await;
                }
                let at = addresses.first().copied();
                let addresses = stream::iter(addresses.into_iter().map(Ok));
                let reached = parts.links.connect(provider.peer, addresses, Some(provider.dht)).await;
                (provider.peer, reached.map_err(|why| why_not(at, &why)))
            }));
        }
    }

    fn join(&mut self, asker: Asker) -> PeerNo {
        let number = PeerNo(self.next);
        self.next += 1;
        self.missed.forget(&asker.peer());
        self.strangers.remove(&asker.peer());
        self.elsewhere.remove(&asker.peer());
        let member = Member::new(asker, self.parts.conduct.clone(), Instant::now());
        self.members.insert(number, member);
        number
    }

    /// Notes bytes that a member gave.
    pub(super) fn gave(&mut self, peer: PeerNo, bytes: u64) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.gave(bytes);
        }
    }

    /// Notes bytes that come from a member, of a chunk that is not whole.
    pub(super) fn flows(&self, peer: PeerNo, bytes: u64) {
        if let Some(member) = self.members.get(&peer) {
            member.heard.flows(bytes);
        }
    }

    /// A member lied: it leaves, its session ends, and it is remembered. One line in the log.
    pub(super) fn strike(&mut self, peer: PeerNo) {
        let Some(peer) = self.leave(peer) else { return };
        self.gone.remove(&peer);
        let (at, why) =
            (self.parts.links.address(&peer), "it gives something else than what was asked of it");
        let verdict = self.parts.conduct.strike(peer, at, why, SystemTime::now());
        self.miss(peer, why.to_owned());
        tracing::warn!(%peer, ?verdict, "a peer sent something else than what was asked of it; it is not asked again");
        self.parts.links.forget(&peer);
    }

    /// Parity that a peer signed is false: it is remembered of that one, and not of whoever passed it on. One line in
    /// the log.
    pub(super) fn strike_maker(&self, object: &ObjectId, maker: PeerId) {
        let why = "it signs false parity";
        let verdict = self.parts.conduct.strike(maker, None, why, SystemTime::now());
        tracing::warn!(%object, %maker, ?verdict, "the parity of this object is false; it is not used");
    }

    /// A member does not know what the object is. It may have chunks of it, but makes room.
    pub(super) fn knows_nothing(&mut self, peer: PeerNo) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.has_nothing = true;
        }
    }

    /// A member tells what it has.
    pub(super) fn has_something(&mut self, peer: PeerNo) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.has_nothing = false;
            member.heard.told();
        }
    }

    /// A member, found as a holder, has nothing of the object. One line in the log.
    pub(super) fn has_nothing(&mut self, peer: PeerNo) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.has_nothing = true;
            tracing::info!(peer = %member.peer, "a peer that was said to hold an object does not have it");
        }
    }

    /// A member does not have a chunk that it said it has: its disk has rotted, or it lied. One line in the log.
    pub(super) fn broke_word(&mut self, peer: PeerNo) {
        if let Some(member) = self.members.get_mut(&peer).filter(|member| !member.broke_word) {
            member.broke_word = true;
            tracing::warn!(peer = %member.peer, "a peer does not have chunks that it said it has; others are asked");
        }
    }

    /// A member's session broke while something was asked of it. One line in the log.
    pub(super) fn lost(&mut self, peer: PeerNo) {
        if let Some(peer) = self.leave(peer) {
            tracing::info!(%peer, "a peer went away in the middle of a fetch; others are asked");
        }
    }

    /// A member is gone, or is to be.
    pub(super) fn leave(&mut self, peer: PeerNo) -> Option<PeerId> {
        let member = self.members.remove(&peer)?;
        *self.given.entry(member.peer).or_default() += member.bytes;
        self.gone.insert(member.peer);
        Some(member.peer)
    }

    pub(super) fn get(&self, peer: PeerNo) -> Option<&Member> {
        self.members.get(&peer)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (PeerNo, &Member)> {
        self.members.iter().map(|(number, member)| (*number, member))
    }

    /// Waits until others than those that the caller named can be asked; false as soon as none are to be expected, or
    /// none have come for so long.
    pub(super) fn others(&self, within: Duration) -> BoxFuture<'static, bool> {
        let discovery = Arc::clone(&self.parts.discovery);
        Box::pin(async move { tokio::time::timeout(within, discovery.others()).await.unwrap_or(false) })
    }

    /// Whether the caller named a peer.
    fn is_named(&self, peer: &PeerId) -> bool {
        self.hints.iter().any(|(named, _)| named == peer)
    }

    /// A peer was not reached, or lied, for this reason.
    fn miss(&mut self, peer: PeerId, why: String) {
        let is_named = self.is_named(&peer);
        self.missed.note(peer, why, is_named);
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Bytes by peer, of all that were ever in this fetch and gave some.
    pub(super) fn bytes_by_peer(&self) -> Vec<(PeerId, u64)> {
        let mut given = self.given.clone();
        for member in self.members.values() {
            *given.entry(member.peer).or_default() += member.bytes;
        }
        let mut given: Vec<_> = given.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        given.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        given
    }
}

/// Why a peer was not reached that was said to be at `at`, in words, and whether it is there and refused.
fn why_not(at: Option<SocketAddr>, why: &Unconnected) -> (String, bool) {
    (missed::reason(at, why), why.is_refusal())
}
