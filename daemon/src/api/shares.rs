//! How many calls that carry objects' bytes go on at once, and whose.
//!
//! Nobody but administrators may have more than half of them, so that one user cannot keep the others out, and some of
//! them are for administrators alone, so that no number of users keeps those out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casd_proto::Reason;
use tonic::Status;

use super::status;
use crate::node::Caller;

/// Calls at once. Each holds at most its stream's window (4 MiB) and what waits for the store or the caller (4 to 8
/// MiB), and only while the other side is slow.
const MOST: usize = 128;

/// Of those, how many only administrators may have.
const RESERVED: usize = 16;

/// Of those, how many one user may have.
const ONE_USER: usize = MOST / 2;

/// The calls that go on, by user. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Shares(Arc<Mutex<HashMap<u32, usize>>>);

/// A call. Counts until it is dropped.
pub(super) struct Share {
    shares: Shares,
    uid: u32,
}

impl Shares {
    fn by_user(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more call.
    ///
    /// # Errors
    /// BUSY.
    pub(super) fn take(&self, caller: Caller) -> Result<Share, Status> {
        let mut by_user = self.by_user();
        let (all, own) = (by_user.values().sum::<usize>(), by_user.get(&caller.uid).copied().unwrap_or(0));
        let (most, limit) = if caller.is_admin { (MOST, MOST) } else { (MOST - RESERVED, ONE_USER) };
        if all >= most || own >= limit {
            let message = format!("casd does {all} adds and fetches already, {own} of them for this user");
            return Err(status::refusal(Reason::Busy, message, "try again when one of them has ended"));
        }
        by_user.insert(caller.uid, own + 1);
        drop(by_user);
        Ok(Share { shares: self.clone(), uid: caller.uid })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut by_user = self.shares.by_user();
        if let Some(count) = by_user.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_half_and_gives_it_back() {
        let shares = Shares::default();
        let user = |uid| Caller { uid, is_admin: uid == 0 };
        let greedy: Vec<_> = (0..ONE_USER).map(|_| shares.take(user(1)).ok().unwrap()).collect();
        assert!(shares.take(user(1)).is_err());
        let others: Vec<_> =
            (0..MOST - ONE_USER - RESERVED).map(|_| shares.take(user(2)).ok().unwrap()).collect();
        assert!(shares.take(user(2)).is_err() && shares.take(user(3)).is_err());
        let admins: Vec<_> = (0..RESERVED).map(|_| shares.take(user(0)).ok().unwrap()).collect();
        assert!(shares.take(user(0)).is_err());
        drop((greedy, others, admins));
        assert!(shares.by_user().is_empty());
    }
}
