//! The index's table of the forgetful disk: it keeps, loses, invents or reorders any update over a crash, and may
//! refuse to be opened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::super::{Error, Table};
use crate::store::Change;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Inside {
    pairs: Pairs,
    /// What it was opened with.
    base: Pairs,
    log: Vec<Vec<Change>>,
    refuses: bool,
    /// Fails from so many calls on; 0: never.
    fails_after: u64,
}

/// Clones are the same table.
#[derive(Clone, Default)]
pub(super) struct Model(Arc<Mutex<Inside>>);

fn apply(pairs: &mut Pairs, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => pairs.insert(key.clone(), value.clone()),
            None => pairs.remove(key),
        };
    }
}

impl Model {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    pub(super) fn open(&self) -> Result<Box<dyn Table>, Error> {
        let mut inside = self.inside();
        if inside.refuses {
            return Err(Error::Index("the model refuses to be opened".to_owned()));
        }
        inside.base = inside.pairs.clone();
        inside.log.clear();
        drop(inside);
        Ok(Box::new(self.clone()))
    }

    pub(super) fn discard(&self) {
        *self.inside() = Inside::default();
    }

    pub(super) fn fail_after(&self, calls: u64) {
        self.inside().fails_after = calls + 1;
    }

    /// What is found after a crash.
    pub(super) fn survivor(&self, rng: &mut SmallRng) -> Self {
        let inside = self.inside();
        let mut log: Vec<&Vec<Change>> = inside.log.iter().collect();
        let mut after = Inside { pairs: inside.base.clone(), ..Inside::default() };
        let kind = rng.random_range(0..20);
        match kind {
            0..=8 => {}
            9..=12 => log.truncate(rng.random_range(0..=inside.log.len())),
            13 => log.retain(|_| rng.random_bool(0.8)),
            14 => log.shuffle(rng),
            15 => {
                log.clear();
                after.pairs.clear();
            }
            16 => after.refuses = true,
            _ => {}
        }
        for changes in log {
            apply(&mut after.pairs, changes);
        }
        if kind == 17 {
            after.pairs.retain(|_, _| rng.random_bool(0.9));
        }
        if kind == 18 {
            invent(&mut after.pairs, rng);
        }
        Self(Arc::new(Mutex::new(after)))
    }

    fn step(&self) -> Result<MutexGuard<'_, Inside>, Error> {
        let mut inside = self.inside();
        match inside.fails_after {
            0 => Ok(inside),
            1 => Err(Error::Index("the model fails on purpose".to_owned())),
            _ => {
                inside.fails_after -= 1;
                Ok(inside)
            }
        }
    }
}

/// Gives pairs values of others, and makes some up.
fn invent(pairs: &mut Pairs, rng: &mut SmallRng) {
    let values: Vec<_> = pairs.values().filter(|value| value.len() == 22).cloned().collect();
    if values.is_empty() {
        return;
    }
    for (key, value) in pairs.iter_mut() {
        if key.len() == 33 && rng.random_ratio(1, 4) {
            *value = values[rng.random_range(0..values.len())].clone();
            let at = rng.random_range(0..value.len());
            value[at] ^= rng.random::<u8>();
        }
    }
    let mut key = vec![1; 33];
    rng.fill(&mut key[1..]);
    pairs.insert(key, values[0].clone());
}

impl Table for Model {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.step()?.pairs.get(key).cloned())
    }

    fn apply(&self, changes: &[Change]) -> Result<(), Error> {
        let mut inside = self.step()?;
        apply(&mut inside.pairs, changes);
        inside.log.push(changes.to_vec());
        Ok(())
    }

    fn each(&self, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        let pairs = self.step()?.pairs.clone();
        for (key, value) in &pairs {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}
