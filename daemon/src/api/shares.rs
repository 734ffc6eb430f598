//! How many calls that carry objects' bytes or lists go on at once, how many connections there are and files that were
//! passed, and whose.
//!
//! Nobody but administrators may have more than half of them, so that one user cannot keep the others out, and some
//! are for administrators alone, so that no number of users keeps those out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casd_proto::Reason;
use tonic::Status;

use super::status;
use crate::node::Caller;

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// In all, when an administrator wants one more.
    admins: usize,
    /// In all, when anybody else does.
    users: usize,
    /// Of one user.
    one_user: usize,
}

/// Calls at once. Each holds at most its stream's window (4 MiB) and what waits for the store or the caller (4 to 8
/// MiB), and only while the other side is slow.
pub(super) const CALLS: Limits = Limits { admins: 128, users: 112, one_user: 64 };

/// Connections at once; administrators have as many as they want. Each holds a descriptor.
pub(super) const CONNECTIONS: Limits = Limits { admins: usize::MAX, users: 256, one_user: 64 };

/// Files that wait to be written into, are written into until they are closed, or are being looked at or refused. Each
/// holds a descriptor or two, and a thread where what stands behind it does not answer.
pub(super) const FILES: Limits = Limits { admins: 64, users: 48, one_user: 16 };

/// What goes on, by user. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shares {
    limits: Limits,
    by_user: Arc<Mutex<HashMap<u32, usize>>>,
}

/// A call, a connection or a file. Counts until it is dropped.
pub(super) struct Share {
    shares: Shares,
    uid: u32,
}

impl Shares {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, by_user: Arc::default() }
    }

    fn by_user(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more, or how many there are already: in all, and of this user.
    pub(super) fn try_take(&self, caller: Caller) -> Result<Share, (usize, usize)> {
        let Limits { admins, users, one_user } = self.limits;
        let mut by_user = self.by_user();
        let (all, own) = (by_user.values().sum::<usize>(), by_user.get(&caller.uid).copied().unwrap_or(0));
        let (most, most_own) = if caller.is_admin { (admins, admins) } else { (users, one_user) };
        if all >= most || own >= most_own {
            return Err((all, own));
        }
        by_user.insert(caller.uid, own + 1);
        drop(by_user);
        Ok(Share { shares: self.clone(), uid: caller.uid })
    }

    /// Room for one more call.
    ///
    /// # Errors
    /// BUSY.
    pub(super) fn take(&self, caller: Caller) -> Result<Share, Status> {
        self.try_take(caller).map_err(|(all, own)| {
            let message = format!("casd does {all} adds and fetches already, {own} of them for this user");
            status::refusal(Reason::Busy, message, "try again when one of them has ended")
        })
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

    fn user(uid: u32) -> Caller {
        Caller { uid, is_admin: uid == 0 }
    }

    /// As many as a user can have, at most so many.
    fn all(shares: &Shares, uid: u32, most: usize) -> Vec<Share> {
        (0..most).map_while(|_| shares.try_take(user(uid)).ok()).collect()
    }

    #[test]
    fn users_leave_room_for_others_and_for_administrators() {
        let shares = Shares::new(CALLS);
        let users = [all(&shares, 1, 999), all(&shares, 2, 999), all(&shares, 3, 999)];
        assert_eq!(users.each_ref().map(Vec::len), [64, 48, 0]);
        assert!(shares.take(user(3)).is_err());
        assert_eq!(all(&shares, 0, 999).len(), 16);
        let admin = all(&shares, 0, 16);
        drop(users);
        assert_eq!(all(&shares, 0, 999).len(), 112);
        assert_eq!(all(&shares, 1, 999).len(), 64);
        drop(admin);
        assert!(shares.by_user().is_empty());
    }

    #[test]
    fn administrators_always_have_a_connection() {
        let shares = Shares::new(CONNECTIONS);
        let users: Vec<_> = (1..9).map(|uid| all(&shares, uid, 999)).collect();
        assert_eq!(users.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 64, 64, 0, 0, 0, 0]);
        assert_eq!(all(&shares, 0, 999).len(), 999);
    }
}
