//! What may be in the store, given what it has answered: for each object the set of states that it may be in.
//!
//! An operation that was answered leaves only states that allow the answer. One that failed, or was in flight when the
//! process died, may have been done or not; one that failed may also come to light when the store is next opened.

use std::collections::BTreeSet;

use crate::objects::{ALL, PLAIN};
use crate::script::Op;

/// Who has pinned an object; `None`: there is no such object.
pub(crate) type State = Option<BTreeSet<u32>>;

/// See the module.
pub(crate) struct Model {
    states: Vec<BTreeSet<State>>,
    /// Failed since the store was opened.
    unsure: Vec<Op>,
}

impl Model {
    /// An empty store.
    pub(crate) fn new() -> Self {
        Self { states: vec![BTreeSet::from([None]); ALL], unsure: Vec::new() }
    }

    /// What an object may be.
    pub(crate) fn states(&self, object: usize) -> &BTreeSet<State> {
        &self.states[object]
    }

    /// The operation was answered so.
    pub(crate) fn answered(&mut self, op: Op, answer: &str) -> Result<(), String> {
        for (object, states) in self.states.iter_mut().enumerate() {
            let fits = |state: &State| {
                let (says, after) = step(op, object, state);
                says.matches(answer, object).then_some(after)
            };
            let after: BTreeSet<State> = states.iter().filter_map(fits).collect();
            if after.is_empty() {
                return Err(format!("{op:?} was answered {answer:?}, and object {object} was {states:?}"));
            }
            *states = after;
        }
        if matches!(op, Op::Reopen | Op::Abandon) {
            self.opened();
        }
        Ok(())
    }

    /// The operation failed, or was never answered.
    pub(crate) fn failed(&mut self, op: Op) {
        self.maybe(op);
        self.unsure.push(op);
    }

    /// The store is opened: what failed before may show.
    pub(crate) fn opened(&mut self) {
        for op in std::mem::take(&mut self.unsure) {
            self.maybe(op);
        }
    }

    fn maybe(&mut self, op: Op) {
        for (object, states) in self.states.iter_mut().enumerate() {
            let after: Vec<_> = states.iter().map(|state| step(op, object, state).1).collect();
            states.extend(after);
        }
    }
}

/// What an operation would answer, as far as one object decides it.
enum Says {
    /// This.
    Just(&'static str),
    /// A list of objects, with this one among them.
    Named,
    /// Anything, a list without this one at least.
    Nothing,
}

impl Says {
    fn matches(&self, answer: &str, object: usize) -> bool {
        let named = || answer.split(' ').skip(1).any(|word| word.parse() == Ok(object));
        match self {
            Self::Just(word) => answer == *word,
            Self::Named => named(),
            Self::Nothing => !answer.starts_with("collected") || !named(),
        }
    }
}

/// What `op` does to an object in this state.
fn step(op: Op, object: usize, state: &State) -> (Says, State) {
    let concerns = match op {
        Op::Add(number, _)
        | Op::Pin(number, _)
        | Op::Unpin(number, _)
        | Op::Remove(number, ..)
        | Op::Read(number) => number == object,
        Op::Crowd => object >= PLAIN,
        Op::Collect => true,
        Op::Publish(_) | Op::Reopen | Op::Abandon => false,
    };
    if !concerns {
        return (Says::Nothing, state.clone());
    }
    let Some(pins) = state else {
        return match op {
            Op::Add(_, uid) => (Says::Just("created"), Some(BTreeSet::from([uid]))),
            Op::Crowd => (Says::Just("entered"), Some(BTreeSet::from([1]))),
            Op::Collect => (Says::Nothing, None),
            _ => (Says::Just("none"), None),
        };
    };
    let mut pins = pins.clone();
    match op {
        Op::Add(_, uid) => {
            pins.insert(uid);
            (Says::Just("present"), Some(pins))
        }
        Op::Crowd => {
            pins.insert(1);
            (Says::Just("entered"), Some(pins))
        }
        Op::Pin(_, uid) => {
            pins.insert(uid);
            (Says::Just("done"), Some(pins))
        }
        Op::Unpin(_, uid) => {
            pins.remove(&uid);
            (Says::Just("done"), Some(pins))
        }
        Op::Remove(_, uid, force) => {
            let had = pins.remove(&uid);
            match (pins.is_empty() || force, had) {
                (true, _) => (Says::Just("removed"), None),
                (false, true) => (Says::Just("others"), Some(pins)),
                (false, false) => (Says::Just("refused"), Some(pins)),
            }
        }
        Op::Read(_) => (Says::Just("whole"), Some(pins)),
        Op::Collect if pins.is_empty() => (Says::Named, None),
        Op::Collect => (Says::Nothing, Some(pins)),
        Op::Publish(_) | Op::Reopen | Op::Abandon => (Says::Nothing, Some(pins)),
    }
}
