//! A table in memory: for when the disk has no room for one that lasts, or it broke. A million records take 200 MB.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use super::{Change, Table};
use crate::store::Error;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A map that is gone when it is dropped.
#[derive(Default)]
pub(crate) struct Memory(RwLock<Pairs>);

impl Table for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn apply(&self, changes: &[Change]) -> Result<(), Error> {
        let mut pairs = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            match value {
                Some(value) => pairs.insert(key.clone(), value.clone()),
                None => pairs.remove(key),
            };
        }
        Ok(())
    }

    fn each(&self, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        let mut after = Bound::Unbounded;
        loop {
            // A piece at a time, so that `each` may use the table.
            let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let range = pairs.range((after.clone(), Bound::Unbounded)).take(1024);
            let piece: Vec<_> = range.map(|(key, value)| (key.clone(), value.clone())).collect();
            drop(pairs);
            for (key, value) in &piece {
                if !each(key, value) {
                    return Ok(());
                }
            }
            let Some((last, _)) = piece.into_iter().next_back() else { return Ok(()) };
            after = Bound::Excluded(last);
        }
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}
