//! In which order those are asked whom answers name as providers of a key.
//!
//! Owns: that order; pure. Refuses: more answers, more names of one and more names in all than its limits, and to ask
//! more than a number of them. Survives a crash: nothing.
//!
//! Whoever answers may lie, and name as many as fit an answer; whoever announces may lie, and be many. So that neither
//! crowds out the truth there are two lists, of which one is taken after the other:
//!
//! - those whom several answers name, the most often named first: liars who make names up do not name the same ones;
//! - round the answers, of each one name in turn: however many names an answer has, it delays the others by one.
//!
//! Of those that are alike in this the one goes first of whose address group the fewest have been asked: a thousand
//! providers of ten groups are ten.
//!
//! Whoever answers first may lie about where another is, or know only where it was. Who was asked in vain has another
//! turn when an answer says something new of where it is, and a last one, in the end, with all that has been said
//! since: at what was said one after the other nobody is kept from being found.

use std::collections::{HashMap, HashSet, VecDeque};

use libp2p::{Multiaddr, PeerId};

use super::answers;
use super::listen::ip_of;
use super::records::Group;

/// Answers that are taken; a look-up ends after a few dozen.
const MAX_ANSWERS: usize = 128;
/// Names that are taken of one answer: as many as an honest node keeps for a key…
const MAX_OF_ANSWER: usize = 64;
/// …as long as there are fewer than this in all (about 200 bytes each); then this many of each answer.
const MANY: usize = 2_048;
const FEW_OF_ANSWER: usize = 8;
/// How often one is asked at most.
const MAX_ASKS: u8 = 3;

/// Providers that were named, and those that have been asked.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Everyone that was named.
    named: HashMap<PeerId, Named>,
    /// Those of each answer that may yet be asked, as far as is known; the first answer's turn is next.
    answers: VecDeque<Vec<PeerId>>,
    /// Answers that were taken.
    taken: usize,
    /// How many were asked of each address group; those without a global address are one.
    of_group: HashMap<Option<Group>, usize>,
    /// How often somebody was asked.
    asked: usize,
    /// Whether no more answers come.
    is_all: bool,
    /// Whether it is the turn of the answers, and not of those that several name.
    is_round: bool,
}

/// One that was named.
#[derive(Debug, Default)]
struct Named {
    /// Where it is said to be, as many as [`answers`] takes.
    addresses: Vec<Multiaddr>,
    /// At how many of these, the first, it was asked in vain; once it has answered, at all that there will be.
    tried: usize,
    /// By how many answers.
    times: usize,
    /// How often it was asked, and how often it was put off.
    asks: (u8, usize),
    /// While it is asked: as one of which group, and at how many addresses.
    asked: Option<(Option<Group>, usize)>,
}

// === impl Named ===

impl Named {
    /// One more answer says where it is; what others said stays.
    fn say(&mut self, addresses: Vec<Multiaddr>) {
        self.times += 1;
        answers::add(&mut self.addresses, addresses.into_iter());
    }

    /// Whether it may be asked now. `is_all`: no more answers come.
    fn is_next(&self, is_all: bool) -> bool {
        let keeps_the_last = self.asks.0 + 1 == MAX_ASKS && !is_all;
        self.asked.is_none() && !keeps_the_last && !self.is_over()
    }

    /// Whether it will not be asked again, unless an answer says something new.
    fn is_over(&self) -> bool {
        let has_news = self.asks.0 == 0 || self.addresses.len() > self.tried;
        self.asked.is_none() && (!has_news || self.asks.0 >= MAX_ASKS)
    }
}

// === impl Turns ===

impl Turns {
    /// Whether nobody was named.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// An answer named these, each with where it is said to be.
    pub(super) fn answer(&mut self, names: impl IntoIterator<Item = (PeerId, Vec<Multiaddr>)>) {
        if self.taken >= MAX_ANSWERS {
            return;
        }
        self.taken += 1;
        let (mut room, mut new, mut seen) = (MAX_OF_ANSWER, Vec::new(), HashSet::new());
        for (peer, addresses) in names.into_iter().take(MAX_OF_ANSWER) {
            if !seen.insert(peer) {
                continue;
            }
            if self.named.len() >= MANY {
                room = room.min(FEW_OF_ANSWER);
            }
            if new.len() >= room && !self.named.contains_key(&peer) {
                continue;
            }
            self.named.entry(peer).or_default().say(addresses);
            new.push(peer);
        }
        self.answers.push_back(new);
    }

    /// Whom to ask next, and where it is said to be; nobody once `most` have been asked.
    pub(super) fn next(&mut self, most: usize) -> Option<(PeerId, Vec<Multiaddr>)> {
        if self.asked >= most {
            return None;
        }
        self.is_round = !self.is_round;
        let chosen = if self.is_round { self.of_next_answer() } else { self.most_named() };
        let chosen = chosen.or_else(|| self.of_next_answer())?;
        let group = self.group(&chosen);
        let named = self.named.get_mut(&chosen)?;
        named.asked = Some((group, named.addresses.len()));
        named.asks.0 += 1;
        self.asked += 1;
        *self.of_group.entry(group).or_default() += 1;
        // What is new goes first.
        let mut addresses = named.addresses.clone();
        addresses.rotate_left(named.tried);
        Some((chosen, addresses))
    }

    /// One that was asked has answered, or it was in vain.
    pub(super) fn resolved(&mut self, peer: &PeerId, has_answered: bool) {
        let Some(named) = self.named.get_mut(peer) else { return };
        if let Some((_, tried)) = named.asked.take() {
            named.tried = if has_answered { usize::MAX } else { tried };
        }
    }

    /// No more answers come.
    pub(super) fn end(&mut self) {
        self.is_all = true;
    }

    /// Whether no more answers come.
    pub(super) fn has_ended(&self) -> bool {
        self.is_all
    }

    /// One that was to be asked could not be, for reasons of our own: it has another turn, after the others.
    pub(super) fn put_off(&mut self, peer: &PeerId) {
        let Some(named) = self.named.get_mut(peer) else { return };
        let Some((group, _)) = named.asked.take() else { return };
        named.asks = (named.asks.0 - 1, named.asks.1 + 1);
        self.asked -= 1;
        self.of_group.entry(group).and_modify(|asked| *asked -= 1);
    }

    /// Whether there is somebody to be asked before `most` have been.
    pub(super) fn has_next(&self, most: usize) -> bool {
        self.asked < most && self.named.values().any(|named| named.is_next(self.is_all))
    }

    /// The one that most answers name, more than one.
    fn most_named(&self) -> Option<PeerId> {
        let several = self.named.iter().filter(|(_, named)| named.is_next(self.is_all) && named.times > 1);
        let best = several.min_by_key(|(peer, named)| (std::cmp::Reverse(named.times), self.crowd(peer)));
        best.map(|(peer, _)| *peer)
    }

    /// One of the next answer in which somebody is left.
    fn of_next_answer(&mut self) -> Option<PeerId> {
        for _ in 0..self.answers.len() {
            let mut answer = self.answers.pop_front()?;
            answer.retain(|peer| self.named.get(peer).is_some_and(|named| !named.is_over()));
            let next = answer.iter().filter_map(|peer| Some((peer, self.named.get(peer)?)));
            let next = next.filter(|(_, named)| named.is_next(self.is_all));
            let best =
                next.min_by_key(|(peer, named)| (named.asks.1, self.crowd(peer))).map(|(peer, _)| *peer);
            if !answer.is_empty() {
                self.answers.push_back(answer);
            }
            if best.is_some() {
                return best;
            }
        }
        None
    }

    /// How many of its address group have been asked.
    fn crowd(&self, peer: &PeerId) -> usize {
        self.of_group.get(&self.group(peer)).copied().unwrap_or(0)
    }

    fn group(&self, peer: &PeerId) -> Option<Group> {
        let named = self.named.get(peer)?;
        named.addresses.iter().filter_map(ip_of).find_map(Group::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    type Name = (PeerId, Vec<Multiaddr>);

    fn at(group: u8, host: usize) -> Vec<Multiaddr> {
        vec![format!("/ip4/80.{group}.{}.{}/tcp/1", host / 250, host % 250 + 1).parse().unwrap()]
    }

    fn made_up(count: usize) -> Vec<Name> {
        (0..count).map(|host| (PeerId::random(), at(rand::random(), host))).collect()
    }

    /// After how many others `wanted` is asked.
    fn asked_before(turns: &mut Turns, wanted: PeerId, most: usize) -> Option<usize> {
        std::iter::from_fn(|| turns.next(most)).position(|(peer, _)| peer == wanted)
    }

    #[test]
    fn no_answer_goes_before_another() {
        let (mut turns, holder) = (Turns::default(), (PeerId::random(), at(7, 7)));
        for _ in 0..9 {
            turns.answer(made_up(64));
        }
        turns.answer([holder.clone()]);
        assert!(asked_before(&mut turns, holder.0, 128).is_some_and(|before| before < 10));
    }

    #[test]
    fn whom_several_name_goes_first() {
        let (mut turns, holder) = (Turns::default(), (PeerId::random(), at(7, 7)));
        for number in 0..60 {
            let mut names = made_up(40);
            if number % 20 == 0 {
                names.push(holder.clone());
            }
            turns.answer(names);
        }
        assert!(asked_before(&mut turns, holder.0, 128).is_some_and(|before| before < 2));
    }

    #[test]
    fn a_thousand_of_ten_groups_are_ten() {
        let (mut turns, holder) = (Turns::default(), (PeerId::random(), at(77, 7)));
        let liars: Vec<Name> = (0..1_000).map(|n| (PeerId::random(), at((n % 10) as u8, n))).collect();
        // Honest nodes keep so many of each group, and all of them name the same ones.
        for _ in 0..20 {
            turns.answer(liars.iter().take(40).cloned().chain([holder.clone()]));
        }
        // The others each keep others.
        for number in 1..20 {
            turns.answer(liars.iter().skip(number * 40).take(40).cloned());
        }
        assert!(asked_before(&mut turns, holder.0, 128).is_some_and(|before| before < 22));
    }

    #[test]
    fn liars_who_agree_do_not_keep_the_others_from_their_turn() {
        let (mut turns, holder) = (Turns::default(), (PeerId::random(), at(77, 7)));
        let agreed: Vec<_> = (0..4).map(|_| made_up(64)).collect();
        for names in agreed.iter().cycle().take(60) {
            turns.answer(names.clone());
        }
        turns.answer([holder.clone()]);
        assert!(asked_before(&mut turns, holder.0, 128).is_some_and(|before| before < 128));
        let none = Turns::default();
        assert!(none.is_empty() && !none.has_next(9));
    }

    #[test]
    fn a_flood_is_bounded_and_does_not_shut_later_answers_out() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            turns.answer(made_up(1_000));
        }
        let holder = (PeerId::random(), at(7, 7));
        turns.answer([holder.clone()]);
        assert!(turns.named.contains_key(&holder.0));
        for _ in 0..1_000 {
            turns.answer(made_up(1_000));
        }
        assert!(turns.named.len() <= MANY + MAX_OF_ANSWER + MAX_ANSWERS * FEW_OF_ANSWER);
        assert_eq!(turns.answers.len(), MAX_ANSWERS);
    }

    #[test]
    fn where_it_really_is_cannot_be_talked_over() {
        let (mut turns, holder) = (Turns::default(), PeerId::random());
        let lies = (1..9).flat_map(|host| at(9, host)).collect();
        turns.answer([(holder, lies)]);
        turns.answer([(holder, at(7, 7))]);
        let (_, told) = turns.next(1).unwrap();
        assert!(told.contains(&at(7, 7)[0]) && told.len() == 5);
        (0..99).for_each(|n| turns.answer([(holder, at(8, n))]));
        assert_eq!(turns.named[&holder].addresses.len(), 16);
    }

    #[test]
    fn who_was_asked_where_it_is_not_is_asked_where_it_is() {
        let (mut turns, holder) = (Turns::default(), PeerId::random());
        turns.answer([(holder, at(9, 1))]);
        assert_eq!(turns.next(9), Some((holder, at(9, 1))));
        // Heard while it is asked, or after.
        turns.answer([(holder, at(9, 1))]);
        turns.answer([(holder, at(7, 7))]);
        assert_eq!(turns.next(9), None);
        turns.resolved(&holder, false);
        assert_eq!(turns.next(9), Some((holder, [at(7, 7), at(9, 1)].concat())));
        turns.resolved(&holder, false);
        // One more lie shall not take the last turn from the truth.
        turns.answer([(holder, at(9, 2))]);
        assert!(!turns.has_next(9) && turns.next(9).is_none());
        turns.answer([(holder, at(7, 8))]);
        turns.end();
        let (_, last) = turns.next(9).unwrap();
        assert_eq!(last[..2], [at(9, 2), at(7, 8)].concat());
        turns.resolved(&holder, false);
        turns.answer([(holder, at(7, 9))]);
        assert!(!turns.has_next(9) && turns.next(9).is_none(), "three times are enough");
    }

    #[test]
    fn who_has_answered_or_is_said_to_be_nowhere_else_is_not_asked_again() {
        let (mut turns, [there, gone]) = (Turns::default(), [PeerId::random(), PeerId::random()]);
        turns.answer([(there, at(7, 7)), (gone, at(7, 8))]);
        while let Some((peer, _)) = turns.next(9) {
            turns.resolved(&peer, peer == there);
        }
        turns.answer([(there, at(7, 9)), (gone, at(7, 8))]);
        turns.end();
        assert_eq!((turns.has_next(9), turns.next(9)), (false, None));
    }

    #[test]
    fn those_asked_in_vain_do_not_delay_the_answers_of_others() {
        let (mut turns, holder) = (Turns::default(), (PeerId::random(), at(7, 7)));
        let mut lie = made_up(64);
        for answer in 0..20 {
            lie.iter_mut().for_each(|(_, place)| *place = at(9, rand::random_range(0..60_000)));
            turns.answer(lie.clone());
            if answer < 19
                && let Some((peer, _)) = turns.next(128)
            {
                turns.resolved(&peer, false);
            }
        }
        turns.answer([holder.clone()]);
        let mut before = 0;
        while let Some((peer, _)) = turns.next(128)
            && peer != holder.0
        {
            turns.resolved(&peer, false);
            before += 1;
        }
        assert!(before < 2 * 22, "{before}");
    }

    #[test]
    fn who_is_put_off_is_counted_as_what_it_was_asked_as() {
        let (mut turns, [moved, other]) = (Turns::default(), [PeerId::random(), PeerId::random()]);
        turns.answer([(moved, Vec::new())]);
        turns.answer([(other, at(7, 7))]);
        while turns.next(9).is_some() {}
        turns.put_off(&other);
        // Where it is, is heard after it was asked.
        turns.answer([(moved, at(7, 8))]);
        turns.put_off(&moved);
        assert!(turns.of_group.values().all(|asked| *asked == 0));
        assert_eq!(turns.asked, 0);
    }

    proptest! {
        #[test]
        fn each_is_asked_once_until_enough_are(
            answers in proptest::collection::vec(proptest::collection::vec(0usize..40, 0..30), 0..20),
            most in 0usize..60,
        ) {
            let peers: Vec<PeerId> = (0..40).map(|_| PeerId::random()).collect();
            let mut turns = Turns::default();
            for answer in &answers {
                turns.answer(answer.iter().map(|n| (peers[*n], at(0, *n))));
            }
            let all: HashSet<usize> = answers.into_iter().flatten().collect();
            prop_assert_eq!(turns.is_empty(), all.is_empty());
            let mut asked = HashSet::new();
            while turns.has_next(most) {
                let (peer, addresses) = turns.next(most).unwrap();
                prop_assert!(asked.insert(peer) && addresses.len() == 1);
            }
            prop_assert_eq!(turns.next(most), None);
            prop_assert_eq!(asked.len(), all.len().min(most));
        }
    }
}
