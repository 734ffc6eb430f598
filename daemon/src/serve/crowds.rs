//! Who asks for the same object lately: they are told of each other, and of what the others are being given.
//!
//! Owns: the rules of both. Refuses: to tell of whoever has shown no card, of private hosts to strangers, of loopback
//! beyond it, and more than its limits; a card says nothing of what its owner asks for, and nobody is told more than
//! that somebody does. Who shows none hears of others, and neither of it nor of what it is given do others hear. The
//! time is passed in. Survives a crash: nothing.
//!
//! A holder that many ask at once would give each chunk to each of them. So they learn of each other as they come, and
//! feed each other; and which chunk one of them asks for, the others hear at once, while it is still on its way, so
//! that they ask for another one. What they do with that is theirs: nobody is refused anything.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::content::ObjectId;
use crate::peer::{HostAddr, PeerId, Scope};
use crate::session::{Caller, Fellow, Rumour};

/// Objects with a crowd.
const OBJECTS: usize = 256;
/// Peers of one, each for as long as it asks and…
const PEERS: usize = 64;
/// …so long after, when it most likely has some or all of the object.
const LATELY: Duration = Duration::from_mins(5);
/// Of these, of one host: as many as may be connected.
const OF_HOST: usize = 8;

/// Peers that one is told of in each full minute, so that it is no more than twice as many, 50, in any.
const EACH_MINUTE: u32 = 25;
const MINUTE: Duration = Duration::from_mins(1);

/// How long it is remembered at least that a chunk was told of: longer than anybody leaves it to others on that word.
const AGAIN: Duration = Duration::from_secs(30);

/// Rumours that may wait for one who asks; more are left out.
const WAITING: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Crowds(Mutex<HashMap<ObjectId, Crowd>>);

/// Those who ask for one object.
#[derive(Default)]
struct Crowd {
    /// Who came last is last.
    members: Vec<Member>,
    /// Whether all of the object is here: from who has a part only, all may ask for everything.
    is_whole: bool,
    /// Chunks that some of them have asked for, which the others have been told.
    given: Given,
}

/// Chunks that were told of lately, bit i mod 64 of word i div 64 for chunk i: in the time that began then, and in the
/// one before.
#[derive(Default)]
struct Given {
    since: Option<Instant>,
    now: Vec<u64>,
    before: Vec<u64>,
}

/// One of them.
struct Member {
    caller: Caller,
    /// Closed when it no longer asks.
    to: mpsc::Sender<Rumour>,
    /// When it last asked, as far as was looked.
    seen: Instant,
    /// Peers that it was told of in the minute that began then.
    told: (Instant, u32),
}

// === impl Crowds ===

impl Crowds {
    fn all(&self) -> MutexGuard<'_, HashMap<ObjectId, Crowd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody asks for an object, for as long as it keeps what is returned.
    pub(super) fn enter(
        &self,
        object: ObjectId,
        is_whole: bool,
        caller: Caller,
        now: Instant,
    ) -> mpsc::Receiver<Rumour> {
        let (to, rumours) = mpsc::channel(WAITING);
        let mut all = self.all();
        all.retain(|_, crowd| {
            crowd.sweep(now);
            !crowd.members.is_empty()
        });
        if all.len() >= OBJECTS && !all.contains_key(&object) {
            // Those that nobody asks for any more: one who comes and goes must not keep others from each other.
            let left = all.iter().find(|(_, crowd)| crowd.has_left()).map(|(object, _)| *object);
            if let Some(left) = left {
                all.remove(&left);
            }
        }
        if all.len() < OBJECTS || all.contains_key(&object) {
            let crowd = all.entry(object).or_default();
            crowd.is_whole = is_whole;
            crowd.enter(Member { caller, to, seen: now, told: (now, 0) }, now);
        }
        rumours
    }

    /// A peer has asked for a chunk, and is to be given it, that stands at `index` of the objects that `is_of` is true
    /// for: where it gives chunks itself, whoever else asks for one of them is told.
    pub(super) fn asked(&self, peer: &PeerId, index: u64, now: Instant, is_of: impl Fn(&ObjectId) -> bool) {
        for (object, crowd) in self.all().iter_mut() {
            if crowd.is_whole && crowd.is_company(peer) && is_of(object) {
                crowd.give(peer, index, now);
            }
        }
    }
}

// === impl Crowd ===

impl Crowd {
    /// Forgets those who asked long ago.
    fn sweep(&mut self, now: Instant) {
        for member in self.members.iter_mut().filter(|member| !member.to.is_closed()) {
            member.seen = now;
        }
        self.members.retain(|member| now.saturating_duration_since(member.seen) < LATELY);
    }

    /// Whether nobody asks any more.
    fn has_left(&self) -> bool {
        self.members.iter().all(|member| member.to.is_closed())
    }

    /// Tells the new one of the others, those who ask now and who came last first, and the others of the new one.
    fn enter(&mut self, mut new: Member, now: Instant) {
        self.members.retain(|member| member.caller.peer != new.caller.peer);
        self.make_room(new.caller.remote);
        let (asking, gone): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().rev().partition(|member| !member.to.is_closed());
        asking.into_iter().chain(gone).for_each(|other| new.hear(&other.caller, now));
        self.members.iter_mut().for_each(|other| other.hear(&new.caller, now));
        self.members.push(new);
    }

    /// Drops one, if there is no room for another at `remote`: of its host, else of all; one that no longer asks, else
    /// the one that came first.
    fn make_room(&mut self, remote: Option<IpAddr>) {
        let host = |at: Option<IpAddr>| at.and_then(HostAddr::of);
        let of_host = |member: &Member| host(remote).is_some() && host(member.caller.remote) == host(remote);
        let is_crowded = self.members.iter().filter(|member| of_host(member)).count() >= OF_HOST;
        if !is_crowded && self.members.len() < PEERS {
            return;
        }
        let goes = |member: &Member| !is_crowded || of_host(member);
        let has_left = |member: &Member| goes(member) && member.to.is_closed();
        let first = self.members.iter().position(has_left).or_else(|| self.members.iter().position(goes));
        if let Some(at) = first {
            self.members.remove(at);
        }
    }

    /// Whether a peer asks that has shown a card, and somebody else asks.
    fn is_company(&self, peer: &PeerId) -> bool {
        let is_asking = |member: &&Member| !member.to.is_closed();
        self.members.iter().any(|member| member.caller.peer == *peer && member.caller.card.is_some())
            && self.members.iter().filter(is_asking).any(|member| member.caller.peer != *peer)
    }

    /// A peer is given a chunk. Of each chunk that is told once: of two who ask for it at the same time the second
    /// hears that it is the second.
    fn give(&mut self, peer: &PeerId, index: u64, now: Instant) {
        if !self.given.is_news(index, now) {
            return;
        }
        for member in self.members.iter().filter(|member| member.caller.peer != *peer) {
            // It has left, or hears too slowly: then it goes without.
            drop(member.to.try_send(Rumour::Given(index)));
        }
    }
}

// === impl Given ===

impl Given {
    /// Notes that a chunk is told of; whether it was not lately.
    fn is_news(&mut self, index: u64, now: Instant) -> bool {
        let age = now.saturating_duration_since(*self.since.get_or_insert(now));
        if age >= AGAIN {
            self.since = Some(now);
            let lately = std::mem::take(&mut self.now);
            self.before = if age < 2 * AGAIN { lately } else { Vec::new() };
        }
        let (Ok(at), bit) = (usize::try_from(index / 64), 1u64 << (index % 64)) else { return false };
        if self.now.len() <= at {
            self.now.resize(at + 1, 0);
        }
        let was = self.before.get(at).is_some_and(|word| word & bit != 0);
        let Some(word) = self.now.get_mut(at).filter(|word| !was && **word & bit == 0) else { return false };
        *word |= bit;
        true
    }
}

// === impl Member ===

impl Member {
    /// It is told of another, where it may be.
    fn hear(&mut self, of: &Caller, now: Instant) {
        let Some(fellow) = fellow(of, self.caller.remote) else { return };
        if now.saturating_duration_since(self.told.0) >= MINUTE {
            self.told = (now, 0);
        }
        if self.told.1 < EACH_MINUTE && self.to.try_send(Rumour::Fellow(fellow)).is_ok() {
            self.told.1 += 1;
        }
    }
}

/// What one who is seen at `remote` may be told of another: it has to be of use there, and none of its business where
/// private hosts are.
fn fellow(of: &Caller, remote: Option<IpAddr>) -> Option<Fellow> {
    let (card, seen) = (of.card.as_ref()?, of.remote?);
    let (from, to) = (Scope::of(seen), Scope::of(remote?));
    let is_for = from != Scope::Nowhere && (from == to || (from, to) == (Scope::Global, Scope::Private));
    is_for.then(|| Fellow { seen: Some(seen.to_canonical()), card: card.encoded() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Card, CardSigner, Keypair, network_id};

    const OBJECT: ObjectId = ObjectId::from_bytes([7; 32]);

    /// Somebody seen at an address, with a card or without.
    fn caller(ip: &str, shows: bool) -> Caller {
        let key = Keypair::generate_ed25519();
        let signer = CardSigner::new(key, "test", &["0.0.0.0:9000".parse().unwrap()]).unwrap();
        let card = Card::check(&signer.sign(9).unwrap(), &network_id("test"), 9).unwrap();
        Caller { peer: card.peer(), remote: ip.parse().ok(), card: shows.then_some(card) }
    }

    /// The cards that somebody is told of, and the chunks.
    fn heard(rumours: &mut mpsc::Receiver<Rumour>) -> (Vec<bytes::Bytes>, Vec<u64>) {
        let (mut cards, mut given) = (Vec::new(), Vec::new());
        while let Ok(rumour) = rumours.try_recv() {
            match rumour {
                Rumour::Fellow(fellow) => cards.push(fellow.card),
                Rumour::Given(index) => given.push(index),
            }
        }
        (cards, given)
    }

    fn card(of: &Caller) -> bytes::Bytes {
        of.card.as_ref().unwrap().encoded()
    }

    #[test]
    fn those_who_ask_for_the_same_hear_of_each_other_and_of_nobody_without_a_card() {
        let (crowds, now) = (Crowds::default(), Instant::now());
        let enter = |object, of: &Caller| crowds.enter(object, true, of.clone(), now);
        let (one, two) = (caller("10.0.0.1", true), caller("10.0.0.2", true));
        let (client, other) = (caller("10.0.0.3", false), caller("10.0.0.4", true));
        let mut first = enter(OBJECT, &one);
        assert!(heard(&mut first).0.is_empty());
        let mut second = enter(OBJECT, &two);
        let _of_another = enter(ObjectId::from_bytes([8; 32]), &other);
        let mut third = enter(OBJECT, &client);
        assert_eq!(heard(&mut first).0, [card(&two)]);
        assert_eq!(heard(&mut second).0, [card(&one)]);
        assert_eq!(heard(&mut third).0, [card(&two), card(&one)], "a client is told, and not told of");
        // Again: of itself nobody is told.
        let mut again = enter(OBJECT, &one);
        assert_eq!((heard(&mut again).0, heard(&mut second).0), (vec![card(&two)], vec![card(&one)]));
        assert!(first.try_recv().is_err(), "its place is taken by itself");
    }

    #[test]
    fn who_has_left_is_told_of_for_a_while_behind_those_who_ask() {
        let (crowds, start) = (Crowds::default(), Instant::now());
        let (gone, here, new) =
            (caller("10.0.0.1", true), caller("10.0.0.2", true), caller("10.0.0.3", true));
        let _here = crowds.enter(OBJECT, true, here.clone(), start);
        drop(crowds.enter(OBJECT, true, gone.clone(), start));
        let told = |at| heard(&mut crowds.enter(OBJECT, true, new.clone(), at)).0;
        assert_eq!(told(start), [card(&here), card(&gone)]);
        assert_eq!(told(start + LATELY), [card(&here)]);
        assert_eq!(crowds.all().get(&OBJECT).unwrap().members.len(), 2);
    }

    #[test]
    fn private_hosts_are_not_for_strangers_nor_is_loopback_for_others() {
        let told = |of: &str, to: &str| fellow(&caller(of, true), to.parse().ok()).is_some();
        let (near, private, global) = ("127.0.0.1", "192.168.1.7", "198.51.100.7");
        let allowed = [(near, near), (private, private), (global, global), (global, private)];
        for of in [near, private, global, "fe80::1"] {
            for to in [near, private, global, "fe80::1"] {
                assert_eq!(told(of, to), allowed.contains(&(of, to)), "{of} to {to}");
            }
        }
        assert_eq!(fellow(&caller("?", true), near.parse().ok()), None);
        let mapped = fellow(&caller("::ffff:198.51.100.7", true), global.parse().ok()).unwrap();
        assert_eq!(mapped.seen, global.parse().ok());
    }

    #[test]
    fn nobody_is_told_of_more_than_fifty_in_a_minute() {
        let (crowds, start) = (Crowds::default(), Instant::now());
        let mut rumours = crowds.enter(OBJECT, true, caller("10.0.0.1", true), start);
        let mut at = Vec::new();
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            drop(crowds.enter(OBJECT, true, caller("10.0.0.2", true), now));
            at.extend(heard(&mut rumours).0.iter().map(|_| second));
        }
        assert_eq!(at.len(), 5 * EACH_MINUTE as usize);
        let within = |from: u64| at.iter().filter(|second| (from..from + 60).contains(*second)).count();
        assert!((0..300).all(|from| within(from) <= 50));
        // A newcomer as well.
        let mut new = crowds.enter(OBJECT, true, caller("10.0.0.3", true), start + Duration::from_secs(300));
        assert_eq!(heard(&mut new).0.len(), EACH_MINUTE as usize);
    }

    #[test]
    fn a_crowd_is_bounded_and_one_host_has_its_part_of_it() {
        let (crowds, now) = (Crowds::default(), Instant::now());
        let members = |object: &ObjectId| {
            let all = crowds.all();
            all.get(object).map_or(0, |crowd| crowd.members.len())
        };
        let honest = crowds.enter(OBJECT, true, caller("198.51.100.1", true), now);
        for _ in 0..100 {
            drop(crowds.enter(OBJECT, true, caller("203.0.113.9", true), now));
        }
        assert_eq!(members(&OBJECT), 1 + OF_HOST);
        for host in 0..200 {
            drop(crowds.enter(OBJECT, true, caller(&format!("203.0.112.{host}"), true), now));
        }
        assert_eq!(members(&OBJECT), PEERS);
        assert!(!honest.is_closed(), "who asks stays before those who have left");
        assert!(crowds.all()[&OBJECT].members.iter().any(|member| !member.to.is_closed()));
        for object in 0..2 * OBJECTS {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&object.to_le_bytes());
            drop(crowds.enter(ObjectId::from_bytes(id), true, caller("10.0.0.1", true), now));
        }
        assert_eq!(crowds.all().len(), OBJECTS);
        assert!(crowds.all().contains_key(&OBJECT), "somebody asks for it");
        // Of many that nobody asks for any more one makes room for those who ask.
        let new = ObjectId::from_bytes([9; 32]);
        let mut first = crowds.enter(new, true, caller("10.0.0.1", true), now);
        let other = caller("10.0.0.2", true);
        let second = crowds.enter(new, true, other.clone(), now);
        assert_eq!((heard(&mut first).0, crowds.all().len()), (vec![card(&other)], OBJECTS));
        drop((first, second));
        drop(crowds.enter(OBJECT, true, caller("10.0.0.1", true), now + LATELY));
        assert_eq!(crowds.all().len(), 1);
    }

    #[test]
    fn what_one_asks_for_the_others_hear_once_and_only_from_who_has_all() {
        let (crowds, now) = (Crowds::default(), Instant::now());
        let callers = [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", false)];
        let [one, two, three] = callers.map(|(ip, shows)| caller(ip, shows));
        let asked = |by: &Caller, index| crowds.asked(&by.peer, index, now, |object| *object == OBJECT);
        let mut first = crowds.enter(OBJECT, true, one.clone(), now);
        asked(&one, 1);
        let mut second = crowds.enter(OBJECT, true, two.clone(), now);
        asked(&three, 2);
        assert_eq!((heard(&mut first).1, heard(&mut second).1), (vec![], vec![]), "alone, or no member");
        for index in [700, 3] {
            asked(&one, index);
            asked(&two, index);
        }
        crowds.asked(&one.peer, 9, now, |_| false);
        assert_eq!((heard(&mut first).1, heard(&mut second).1), (vec![], vec![700, 3]));
        // Whoever comes later hears it again.
        for (later, told) in [(AGAIN, vec![]), (2 * AGAIN, vec![3])] {
            crowds.asked(&one.peer, 3, now + later, |_| true);
            assert_eq!(heard(&mut second).1, told, "{later:?}");
        }
        // Who shows no card gives it to nobody.
        let _third = crowds.enter(OBJECT, true, three.clone(), now);
        asked(&three, 5);
        assert_eq!((heard(&mut first).1, heard(&mut second).1), (vec![], vec![]));
        let _third = crowds.enter(OBJECT, false, three, now);
        asked(&one, 4);
        assert_eq!(heard(&mut second).1, [0; 0]);
    }
}
