//! Why a call failed, in the form both sides and programs in other languages agree on.
//!
//! An error travels as a gRPC status with a `google.rpc.ErrorInfo`: domain `casd`, one of the reasons below,
//! and in its metadata `retryable`, where there is one `hint`, and for some reasons more (README.md). A reason
//! never changes its meaning or its code; new ones may be added, so a client must cope with one that it does not know.

use std::collections::{BTreeMap, HashMap};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "casd";
const RETRYABLE: &str = "retryable";
const HINT: &str = "hint";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $text:literal $code:ident $retryable:literal;)*) => {
        /// Why a call failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it stands in `ErrorInfo.reason`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The gRPC code it comes with.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }

            /// Whether the same call may succeed later, with nothing changed by the caller.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }
        }
    };
}

reasons! {
    /// An id of the wrong length, case or alphabet.
    InvalidId "INVALID_ID" InvalidArgument false;
    /// An address that is none, or has no peer id.
    InvalidAddress "INVALID_ADDRESS" InvalidArgument false;
    /// A name that is too long, or is a path.
    InvalidName "INVALID_NAME" InvalidArgument false;
    /// Parity that is not "K+M" within its limits, or "none".
    InvalidParity "INVALID_PARITY" InvalidArgument false;
    /// Messages of a stream out of order, empty or over a limit.
    InvalidStream "INVALID_STREAM" InvalidArgument false;
    /// The stream ended without a finish; nothing was stored.
    NoFinish "NO_FINISH" InvalidArgument false;
    /// Another number of bytes was sent than announced.
    LengthMismatch "LENGTH_MISMATCH" InvalidArgument false;
    /// An object of more than 4 TiB.
    TooLarge "TOO_LARGE" InvalidArgument false;
    /// The object has another id than the one expected.
    IdMismatch "ID_MISMATCH" FailedPrecondition false;
    /// A prefix or a name that several objects have.
    Ambiguous "AMBIGUOUS" FailedPrecondition false;
    /// The store takes nothing more since a disk error.
    ReadOnly "READ_ONLY" FailedPrecondition false;
    /// The object is stored here, and is private where this says public, or the other way round.
    Privacy "PRIVACY" FailedPrecondition false;
    /// It is a directory where a file is wanted.
    IsDirectory "IS_DIRECTORY" FailedPrecondition false;
    /// It is a file where a directory is wanted.
    NotDirectory "NOT_DIRECTORY" FailedPrecondition false;
    /// Bytes that should list a directory do not, or have names that could do harm.
    BadTree "BAD_TREE" FailedPrecondition false;
    /// The peer is of another network.
    OtherNetwork "OTHER_NETWORK" FailedPrecondition false;
    /// No file of the caller's waits under this token, or what was passed is none that casd writes into.
    NotPassed "NOT_PASSED" FailedPrecondition false;
    /// The file that the caller passed cannot be written.
    Unwritable "UNWRITABLE" FailedPrecondition false;
    /// The node announces nothing, by its configuration, so it has nobody to tell a name to.
    NotAnnouncing "NOT_ANNOUNCING" FailedPrecondition false;
    /// A range that starts behind the object's end.
    OutOfRange "OUT_OF_RANGE" OutOfRange false;
    /// Not in this node's store.
    NotFound "NOT_FOUND" NotFound false;
    /// The directory has nothing at this path.
    NoSuchPath "NO_SUCH_PATH" NotFound false;
    /// Neither here nor at any peer that was found.
    NoProviders "NO_PROVIDERS" NotFound true;
    /// Not here, and this node knows no peer to ask, or none that keeps records for others.
    NoPeers "NO_PEERS" NotFound true;
    /// Nothing has arrived for the time the caller allows.
    Stalled "STALLED" DeadlineExceeded true;
    /// The caller has sent nothing for too long in the middle of an add.
    Silent "SILENT" DeadlineExceeded true;
    /// The file system is full, or down to its reserve.
    NoSpace "NO_SPACE" ResourceExhausted false;
    /// The store is as large as its quota allows.
    Quota "QUOTA" ResourceExhausted false;
    /// Too many calls at once.
    Busy "BUSY" ResourceExhausted true;
    /// Bytes on disk are not what they were, and nothing could rebuild them.
    Damaged "DAMAGED" DataLoss false;
    /// The caller may not do this.
    NotPermitted "NOT_PERMITTED" PermissionDenied false;
    /// A part of casd that this version does not have.
    NotBuilt "NOT_BUILT" Unimplemented false;
    /// The peer does not answer at this address.
    Unreachable "UNREACHABLE" Unavailable true;
    /// The node is still starting.
    NotReady "NOT_READY" Unavailable true;
    /// The node is shutting down.
    Stopping "STOPPING" Unavailable true;
    /// A fault of casd itself.
    Internal "INTERNAL" Internal false;
}

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, for people.
    pub message: String,
    /// The gRPC code.
    pub code: Code,
    /// The stable reason; empty when the error comes from the transport rather than from casd.
    pub reason: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// What to do next; empty where there is nothing to say.
    pub hint: String,
    /// What else this reason comes with, by its name in the metadata.
    pub details: BTreeMap<String, String>,
}

impl Reason {
    /// The status that tells a client `message` for this reason, with `hint` (may be empty) saying what to do.
    #[must_use]
    pub fn status(self, message: impl Into<String>, hint: impl Into<String>) -> Status {
        self.status_with(message, hint, BTreeMap::new())
    }

    /// As [`Reason::status`], with more for programs.
    #[must_use]
    pub fn status_with(
        self,
        message: impl Into<String>,
        hint: impl Into<String>,
        details: BTreeMap<String, String>,
    ) -> Status {
        let hint = hint.into();
        let mut metadata: HashMap<String, String> = details.into_iter().collect();
        metadata.insert(RETRYABLE.to_owned(), self.retryable().to_string());
        if !hint.is_empty() {
            metadata.insert(HINT.to_owned(), hint);
        }
        let details = ErrorDetails::with_error_info(self.as_str(), DOMAIN, metadata);
        Status::with_error_details(self.code(), message, details)
    }

    /// The reason of this name, when this version knows it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let (reason, mut metadata) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
        Self {
            message: status.message().to_owned(),
            code: status.code(),
            reason,
            retryable: metadata.remove(RETRYABLE).is_some_and(|value| value == "true"),
            hint: metadata.remove(HINT).unwrap_or_default(),
            details: metadata.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_back() {
        let status = Reason::NoPeers.status("no peers", "connect to one");
        let expected = Failure {
            message: "no peers".into(),
            code: Code::NotFound,
            reason: "NO_PEERS".into(),
            retryable: true,
            hint: "connect to one".into(),
            details: BTreeMap::new(),
        };
        assert_eq!(Failure::from(&status), expected);

        let details = BTreeMap::from([("used_bytes".to_owned(), "5".to_owned())]);
        let failure = Failure::from(&Reason::Quota.status_with("full", "", details.clone()));
        assert_eq!((failure.retryable, failure.hint.as_str(), failure.details), (false, "", details));
    }

    #[test]
    fn a_foreign_status_has_no_reason() {
        let failure = Failure::from(&Status::unavailable("gone"));
        assert_eq!(
            (failure.code, failure.reason.as_str(), failure.retryable),
            (Code::Unavailable, "", false)
        );
    }

    #[test]
    fn the_readme_lists_every_reason_with_its_code() {
        let readme = include_str!("../README.md");
        for reason in Reason::ALL {
            let again = if reason.retryable() { "yes" } else { "no" };
            let row = format!("| `{}` | {:?} | {again} |", reason.as_str(), reason.code());
            assert!(readme.contains(&row), "README.md lacks the row {row}");
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
        }
    }
}
