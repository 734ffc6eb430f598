//! Who may do what: a caller is the user that the kernel says is at the other end of the socket.
//!
//! Who may open the socket at all is decided by its mode and group; whoever can may read and write. Root and the user
//! that the daemon runs as are administrators.

use casd_proto::Reason;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use super::status;
use crate::node::Caller;

const ROOT: u32 = 0;

/// What a call asks of its caller. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// To look.
    Read,
    /// To store, and to change what is one's own.
    Write,
    /// To change what is others', or the node.
    Admin,
}

/// The rules. Cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The user that the daemon runs as.
    daemon: u32,
}

impl Access {
    /// The rules of a daemon that runs as this user.
    #[must_use]
    pub fn new(daemon: u32) -> Self {
        Self { daemon }
    }

    /// The most that a user may do.
    #[must_use]
    pub fn role(self, uid: u32) -> Role {
        if uid == ROOT || uid == self.daemon { Role::Admin } else { Role::Write }
    }

    /// Whether the daemon may write into what this user has passed to it. One that is root would write past the user's
    /// quota, and into what the file system keeps for root.
    pub(super) fn writes_for(self, uid: u32) -> bool {
        self.daemon != ROOT || uid == ROOT
    }

    /// Who calls, when that user may do what `needed` stands for. The first line of every call.
    ///
    /// # Errors
    /// NOT_PERMITTED, also when the kernel does not tell who calls.
    pub(super) fn admit<T>(self, request: &Request<T>, needed: Role) -> Result<Caller, Status> {
        let uid = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        let Some(uid) = uid.map(|cred| cred.uid()) else {
            return Err(status::refusal(
                Reason::NotPermitted,
                "the system does not say which user calls",
                "",
            ));
        };
        let role = self.role(uid);
        if role < needed {
            let hint = "run it as root or as the user that casd runs as";
            return Err(status::refusal(Reason::NotPermitted, "only an administrator may do this", hint));
        }
        Ok(Caller { uid, is_admin: role == Role::Admin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_daemon_are_administrators_and_others_write() {
        let access = Access::new(990);
        assert_eq!([0, 990, 1000].map(|uid| access.role(uid)), [Role::Admin, Role::Admin, Role::Write]);
        assert!(Role::Read < Role::Write && Role::Write < Role::Admin);
    }

    #[test]
    fn a_daemon_of_root_writes_for_root_alone() {
        let writes = |daemon, uid| Access::new(daemon).writes_for(uid);
        assert_eq!(
            [writes(0, 0), writes(0, 1000), writes(990, 1000), writes(990, 0)],
            [true, false, true, true]
        );
    }

    #[test]
    fn nobody_is_admitted_without_credentials() {
        let denied = Access::new(0).admit(&Request::new(()), Role::Read).unwrap_err();
        assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    }
}
