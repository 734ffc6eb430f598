//! News of chunks that have come to this node, from whoever stores them to the peers that asked to be told.
//!
//! Only objects that somebody has subscribed to are in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::content::ObjectId;

/// News that may wait for one subscriber; one that is slower loses its subscription and asks again.
const NEWS: usize = 1024;

/// Who is told of new chunks of which object. Cheap to clone; clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Board {
    readers: Arc<Mutex<HashMap<ObjectId, Vec<mpsc::Sender<u64>>>>>,
}

impl Board {
    /// A board without readers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<ObjectId, Vec<mpsc::Sender<u64>>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chunk `index` of `object` is in the store now. Never waits.
    pub fn stored(&self, object: &ObjectId, index: u64) {
        let mut readers = self.readers();
        if let Some(of_object) = readers.get_mut(object) {
            of_object.retain(|reader| reader.try_send(index).is_ok());
            if of_object.is_empty() {
                readers.remove(object);
            }
        }
    }

    /// Chunks of `object` that are stored from now on. Dropping the receiver ends it.
    #[must_use]
    pub fn subscribe(&self, object: ObjectId) -> mpsc::Receiver<u64> {
        let (news, reader) = mpsc::channel(NEWS);
        let mut readers = self.readers();
        let of_object = readers.entry(object).or_default();
        of_object.retain(|reader| !reader.is_closed());
        of_object.push(news);
        reader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_hear_of_their_object_until_they_leave_or_lag() {
        let (board, one, two) = (Board::new(), ObjectId::from_bytes([1; 32]), ObjectId::from_bytes([2; 32]));
        let (mut first, mut second) = (board.subscribe(one), board.subscribe(one));
        board.stored(&two, 9);
        board.stored(&one, 4);
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(4), Ok(4)));
        drop(second);
        for index in 0..=NEWS as u64 {
            board.stored(&one, index);
        }
        assert!(board.readers().is_empty());
        assert_eq!(first.try_recv(), Ok(0));
    }
}
