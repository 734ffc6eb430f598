//! The one place where an error of the rooms below becomes a gRPC status with its reason.
//!
//! The matches are exhaustive: a new error does not compile until it has a reason here. Messages are the errors' own;
//! a hint is given only where the message does not say already what to do.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use casd_proto::Reason;
use tonic::Status;

use super::advice::{self, SEE_LOG, hint, of_failed};
use crate::content::{Error as ContentError, TreePath};
use crate::node::ErasureError;
use crate::node::Error;
use crate::node::FetchError;
use crate::node::IngestError;
use crate::node::{LargePin, Shortage, StoreError};
use crate::support::text::shorten;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let store = match &error {
            Error::Ingest(IngestError::Store(store))
            | Error::Fetch(FetchError::Store(store))
            | Error::Store(store) => Some(store),
            _ => None,
        };
        let reason = of_node(&error);
        match &error {
            // Their words say what to do.
            Error::Myself(_) | Error::Address { .. } => refusal(reason, error.to_string(), ""),
            Error::Unreachable { address, why } => {
                refusal(reason, error.to_string(), advice::unreachable(address, why))
            }
            Error::NotFound(text) if TreePath::parse(text).is_some() => {
                status(reason, &error, store, advice::FETCH_IT)
            }
            Error::Fetch(fetch) => status(reason, &error, store, of_failed(fetch, reason)),
            Error::NobodyToTell { nobody, .. } | Error::NobodyToAsk { nobody, .. } => {
                status(reason, &error, store, advice::nobody(*nobody))
            }
            _ => status(reason, &error, store, hint(reason)),
        }
    }
}

impl From<FetchError> for Status {
    fn from(error: FetchError) -> Self {
        let store = if let FetchError::Store(store) = &error { Some(store) } else { None };
        let reason = of_fetch(&error);
        status(reason, &error, store, of_failed(&error, reason))
    }
}

impl From<ErasureError> for Status {
    fn from(error: ErasureError) -> Self {
        let reason = of_erasure(&error);
        status(reason, &error, None, hint(reason))
    }
}

/// Bytes of a message, or of anything else in a status: with more of them a client may not take it at all, and what a
/// caller sent, or a stranger called his files, is not repeated at any length.
const MAX_TEXT: usize = 1024;

/// The one place where statuses are made.
fn made(reason: Reason, message: &str, hint: &str, details: BTreeMap<String, String>) -> Status {
    reason.status_with(shorten(message, MAX_TEXT), shorten(hint, MAX_TEXT), details)
}

/// A call is refused for a reason that no room below knows.
pub(super) fn refusal(reason: Reason, message: impl AsRef<str>, hint: &str) -> Status {
    made(reason, message.as_ref(), hint, BTreeMap::new())
}

/// The caller has sent nothing for so long.
pub(super) fn silent(silence: Duration) -> Status {
    let seconds = silence.as_secs();
    refusal(
        Reason::Silent,
        format!("nothing came for {seconds} s in the middle of an add; nothing was stored"),
        "",
    )
}

/// The stream ended without a finish.
pub(super) fn no_finish() -> Status {
    Error::from(IngestError::Unfinished).into()
}

/// An object of `length` bytes is announced, which is too long.
pub(super) fn too_long(length: u64) -> Status {
    Error::from(IngestError::from(ContentError::TooLong { length })).into()
}

/// The daemon ends before the call does.
pub(super) fn stopping() -> Status {
    refusal(Reason::Stopping, "casd is stopping", "")
}

/// A fault of casd: what should have gone on ended without a word.
pub(super) fn broken() -> Status {
    refusal(Reason::Internal, "the call ended unexpectedly; this is a bug in casd", SEE_LOG)
}

fn status(
    reason: Reason,
    error: &dyn std::error::Error,
    store: Option<&StoreError>,
    hint: &'static str,
) -> Status {
    if reason == Reason::Internal {
        tracing::error!(%error, "a call failed");
    }
    let details = match store {
        Some(StoreError::Quota(short) | StoreError::DiskFull(short)) => shortage(short),
        _ => BTreeMap::new(),
    };
    made(reason, &error.to_string(), hint, details)
}

/// How much there is, for programs: see the README of the API.
fn shortage(short: &Shortage) -> BTreeMap<String, String> {
    let mut pins: Vec<_> = short.pins.iter().map(pin).collect();
    let pins = loop {
        let text = serde_json::Value::from(pins.clone()).to_string();
        // The largest come first.
        if text.len() <= MAX_TEXT || pins.pop().is_none() {
            break text;
        }
    };
    [
        ("needed_bytes", short.needed.to_string()),
        ("used_bytes", short.used.to_string()),
        ("quota_bytes", short.quota.to_string()),
        ("reserve_bytes", short.reserve.to_string()),
        ("free_bytes", short.free.to_string()),
        ("pins", pins),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn pin(pin: &LargePin) -> serde_json::Value {
    serde_json::json!({
        "id": pin.id.to_string(),
        "name": pin.name,
        "bytes": pin.bytes,
        "uid": pin.uid,
        "others": pin.others,
    })
}

fn of_node(error: &Error) -> Reason {
    match error {
        Error::NotFound(_) | Error::Untold(_) | Error::NoJob(_) => Reason::NotFound,
        Error::NobodyToTell { .. } | Error::NobodyToAsk { .. } => Reason::NoPeers,
        Error::Private => Reason::Privacy,
        Error::NotAnnouncing => Reason::NotAnnouncing,
        Error::Nameless { .. } | Error::UnfitName(_) => Reason::InvalidName,
        Error::Ambiguous { .. } => Reason::Ambiguous,
        Error::IsDirectory(_) => Reason::IsDirectory,
        Error::NotDirectory(_) => Reason::NotDirectory,
        Error::EmptyFile(_) => Reason::NotFound,
        Error::NoSuchPath { .. } => Reason::NoSuchPath,
        Error::Id { .. } => Reason::InvalidId,
        Error::Address { .. } | Error::PeerId(_) => Reason::InvalidAddress,
        Error::Myself(_) | Error::Unreachable { .. } => Reason::Unreachable,
        Error::OtherNetwork(_) | Error::OtherKey { .. } => Reason::OtherNetwork,
        Error::NotPermitted { .. } | Error::NotPinned(_) | Error::NotYourJob(_) | Error::AdminOnly(_) => {
            Reason::NotPermitted
        }
        Error::TooManyJobs { .. } => Reason::Busy,
        Error::NotBuilt(_) => Reason::NotBuilt,
        Error::Damaged(_) => Reason::Damaged,
        Error::Ingest(error) => of_ingest(error),
        Error::Fetch(error) => of_fetch(error),
        Error::Store(error) => of_store(error),
    }
}

fn of_ingest(error: &IngestError) -> Reason {
    match error {
        IngestError::Unfinished => Reason::NoFinish,
        IngestError::Length { .. } | IngestError::Entries { .. } => Reason::LengthMismatch,
        IngestError::Order(_) => Reason::InvalidStream,
        IngestError::NotExpected { .. } => Reason::IdMismatch,
        IngestError::Stopping => Reason::Stopping,
        IngestError::Content(ContentError::TooLong { .. } | ContentError::Crowded(_)) => Reason::TooLarge,
        IngestError::Inside { .. } | IngestError::Content(ContentError::Name(_)) => Reason::InvalidName,
        // What an add has just hashed itself is of the right form.
        IngestError::Content(
            ContentError::Malformed { .. }
            | ContentError::Unproven { .. }
            | ContentError::NotZero { .. }
            | ContentError::Signature
            | ContentError::Publisher
            | ContentError::Order { .. }
            | ContentError::Chunk(_),
        ) => Reason::Internal,
        IngestError::Erasure(error) => of_erasure(error),
        IngestError::Store(error) => of_store(error),
    }
}

fn of_fetch(error: &FetchError) -> Reason {
    match error {
        FetchError::NoPeers { .. } => Reason::NoPeers,
        FetchError::NoHolders { .. } | FetchError::Unreached { .. } | FetchError::Lacking { .. } => {
            Reason::NoProviders
        }
        FetchError::OtherNetwork { .. } => Reason::OtherNetwork,
        FetchError::Stalled { .. } => Reason::Stalled,
        FetchError::Damaged { .. } => Reason::Damaged,
        FetchError::Removed(_) => Reason::NotFound,
        FetchError::Range { .. } => Reason::OutOfRange,
        FetchError::IsDirectory(_) => Reason::IsDirectory,
        FetchError::BadTree { .. } => Reason::BadTree,
        FetchError::NoSuchPath { .. } => Reason::NoSuchPath,
        FetchError::Privacy { .. } => Reason::Privacy,
        FetchError::Unfit(_) => Reason::NotPassed,
        FetchError::OutputFull => Reason::NoSpace,
        FetchError::Output(_) => Reason::Unwritable,
        FetchError::Stopping => Reason::Stopping,
        FetchError::Store(error) => of_store(error),
    }
}

fn of_store(error: &StoreError) -> Reason {
    match error {
        StoreError::Quota(_) => Reason::Quota,
        StoreError::DiskFull(_) => Reason::NoSpace,
        StoreError::Io { kind: io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, .. } => {
            Reason::NoSpace
        }
        StoreError::ReadOnly { .. } => Reason::ReadOnly,
        StoreError::Privacy { .. } => Reason::Privacy,
        StoreError::Busy { .. } => Reason::Busy,
        StoreError::Closed => Reason::Stopping,
        StoreError::Damaged { .. } => Reason::Damaged,
        StoreError::Content(error) => of_stored(error),
        // The first three come only of opening a store, the last of a request that should have been refused here.
        StoreError::Folder { .. }
        | StoreError::Locked { .. }
        | StoreError::TooNew { .. }
        | StoreError::Io { .. }
        | StoreError::Index(_)
        | StoreError::Invalid(_) => Reason::Internal,
    }
}

/// What was read back from the store and is not of its form.
fn of_stored(error: &ContentError) -> Reason {
    match error {
        ContentError::TooLong { .. } | ContentError::Crowded(_) => Reason::TooLarge,
        ContentError::Name(_) => Reason::BadTree,
        ContentError::Malformed { .. }
        | ContentError::Unproven { .. }
        | ContentError::NotZero { .. }
        | ContentError::Signature
        | ContentError::Publisher
        | ContentError::Order { .. }
        | ContentError::Chunk(_) => Reason::Damaged,
    }
}

fn of_erasure(error: &ErasureError) -> Reason {
    match error {
        ErasureError::Geometry { .. } | ErasureError::Text(_) => Reason::InvalidParity,
        ErasureError::Shape | ErasureError::TooFew { .. } => Reason::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::IdError;
    use crate::content::{NameError, ObjectId};
    use crate::node::Nobody;
    use casd_proto::Failure;

    fn all() -> Vec<(Reason, Error)> {
        let (id, text, why) = (ObjectId::EMPTY, || "x".to_owned(), || "why".to_owned());
        let seconds = 60;
        let io = |kind| StoreError::Io { what: "write", why: why(), kind };
        let too_long = || ContentError::TooLong { length: u64::MAX };
        vec![
            (Reason::NotFound, Error::NotFound(text())),
            (Reason::NotFound, Error::Untold(id)),
            (Reason::NotFound, Error::NoJob(text())),
            (Reason::NotPermitted, Error::NotYourJob(7)),
            (Reason::Busy, Error::TooManyJobs { all: 1024, own: 1 }),
            (Reason::NoPeers, Error::NobodyToTell { id, nobody: Nobody::Unknown }),
            (Reason::NoPeers, Error::NobodyToAsk { id, is_here: false, nobody: Nobody::Unserved(2) }),
            (Reason::Privacy, Error::Private),
            (Reason::NotAnnouncing, Error::NotAnnouncing),
            (Reason::InvalidName, Error::Nameless { id, why: why() }),
            (Reason::InvalidName, Error::UnfitName(NameError::Empty)),
            (Reason::NotPermitted, Error::NotPinned(id)),
            (Reason::Ambiguous, Error::Ambiguous { text: text(), ids: vec![id] }),
            (Reason::IsDirectory, Error::IsDirectory(id)),
            (Reason::NotDirectory, Error::NotDirectory(text())),
            (Reason::NotFound, Error::EmptyFile(text())),
            (Reason::NoSuchPath, Error::NoSuchPath { path: text(), why: why() }),
            (Reason::InvalidId, Error::Id { text: text(), why: IdError::UpperCase }),
            (Reason::InvalidAddress, Error::Address { text: text(), why: why() }),
            (Reason::InvalidAddress, Error::PeerId(text())),
            (Reason::Unreachable, Error::Myself(text())),
            (Reason::Unreachable, Error::Unreachable { address: text(), why: why() }),
            (Reason::OtherNetwork, Error::OtherNetwork(text())),
            (Reason::OtherNetwork, Error::OtherKey { address: text(), is_private: true }),
            (Reason::NotPermitted, Error::NotPermitted { id, owner: 1000, others: 1 }),
            (Reason::NotPermitted, Error::AdminOnly("collect")),
            (Reason::NotBuilt, Error::NotBuilt("publishing")),
            (Reason::Damaged, Error::Damaged(id)),
            (Reason::NoFinish, IngestError::Unfinished.into()),
            (Reason::LengthMismatch, IngestError::Length { said: 1, got: 2 }.into()),
            (Reason::IdMismatch, IngestError::NotExpected { expected: id, got: id }.into()),
            (Reason::Stopping, IngestError::Stopping.into()),
            (Reason::TooLarge, IngestError::from(too_long()).into()),
            (Reason::Internal, IngestError::from(ContentError::Signature).into()),
            (Reason::InvalidParity, IngestError::from(ErasureError::Text(text())).into()),
            (Reason::InvalidParity, IngestError::from(ErasureError::Geometry { k: 0, m: 0 }).into()),
            (Reason::Internal, IngestError::from(ErasureError::Shape).into()),
            (Reason::NoSpace, IngestError::from(io(io::ErrorKind::StorageFull)).into()),
            (Reason::NoPeers, FetchError::NoPeers { id, nobody: Nobody::Silent(1) }.into()),
            (Reason::NoProviders, FetchError::NoHolders { id, seconds, named: text(), without: 0 }.into()),
            (
                Reason::NoProviders,
                FetchError::Unreached { id, known: 2, seconds, why: why(), without: 1 }.into(),
            ),
            (Reason::NoProviders, FetchError::Lacking { id, missing: text() }.into()),
            (Reason::OtherNetwork, FetchError::OtherNetwork { id, named: text() }.into()),
            (
                Reason::Stalled,
                FetchError::Stalled { id, seconds, missing: "chunks 3".to_owned(), holders: text() }.into(),
            ),
            (Reason::Damaged, FetchError::Damaged { id, missing: "chunks 3".to_owned() }.into()),
            (Reason::NotFound, FetchError::Removed(id).into()),
            (Reason::OutOfRange, FetchError::Range { length: 1, offset: 2 }.into()),
            (Reason::IsDirectory, FetchError::IsDirectory(id).into()),
            (Reason::BadTree, FetchError::BadTree { id, why: why() }.into()),
            (Reason::NoSuchPath, FetchError::NoSuchPath { path: text(), why: why() }.into()),
            (Reason::Privacy, FetchError::Privacy { id, private: true }.into()),
            (Reason::NotPassed, FetchError::Unfit("it is a pipe").into()),
            (Reason::NoSpace, FetchError::OutputFull.into()),
            (Reason::Unwritable, FetchError::Output(why()).into()),
            (Reason::Stopping, FetchError::Stopping.into()),
            (Reason::ReadOnly, FetchError::from(StoreError::ReadOnly { why: why() }).into()),
            (Reason::Quota, StoreError::Quota(Box::default()).into()),
            (Reason::NoSpace, StoreError::DiskFull(Box::default()).into()),
            (Reason::NoSpace, io(io::ErrorKind::QuotaExceeded).into()),
            (Reason::Privacy, StoreError::Privacy { private: true }.into()),
            (Reason::Busy, StoreError::Busy { what: "read", why: why() }.into()),
            (Reason::Internal, io(io::ErrorKind::Other).into()),
            (Reason::Internal, StoreError::Index(why()).into()),
            (Reason::Damaged, StoreError::Damaged { what: "journal", why: "x" }.into()),
            (Reason::Damaged, StoreError::from(ContentError::Signature).into()),
            (Reason::Stopping, StoreError::Closed.into()),
        ]
    }

    #[test]
    fn every_error_has_its_reason_and_keeps_its_words() {
        for (reason, error) in all() {
            let message = error.to_string();
            let status = Status::from(error);
            let failure = Failure::from(&status);
            assert_eq!(
                (failure.reason.as_str(), status.code()),
                (reason.as_str(), reason.code()),
                "{message}"
            );
            assert_eq!((failure.message, failure.retryable), (message, reason.retryable()));
        }
    }

    #[test]
    fn what_to_do_fits_why_a_node_cannot_be_reached() {
        let hint = |address: &str, why: &str| {
            let error = Error::Unreachable { address: address.to_owned(), why: why.to_owned() };
            Failure::from(&Status::from(error)).hint
        };
        assert!(hint("/ip4/1.2.3.4/tcp/1/p2p/12D3", "refused").contains("that casd runs there"));
        let other = hint("/ip4/1.2.3.4/tcp/1/p2p/12D3", "another node is there: 12D4");
        assert!(other.contains("the id is not") && !other.contains("runs there"), "{other}");
        assert!(
            hint("12D3@h:1", "another node is at 192.0.2.7:1: 12D4, and not 12D3").contains("the id is not")
        );
        assert!(hint("12D3@h:1", "this node itself is there").contains("the id is not"));
        assert!(hint("12D3", "it may be gone").contains("casctl peers"));
    }

    #[test]
    fn what_a_caller_or_a_stranger_made_long_is_cut() {
        let long = "x".repeat(1 << 20);
        let pin =
            LargePin { id: ObjectId::EMPTY, name: Some("\u{1}".repeat(40)), bytes: 1, uid: 1, others: 0 };
        let short = Shortage { pins: vec![pin; 5], ..Shortage::default() };
        let statuses = [
            Status::from(Error::NotFound(long.clone())),
            Status::from(FetchError::Stalled {
                id: ObjectId::EMPTY,
                seconds: 1,
                missing: long.clone(),
                holders: String::new(),
            }),
            refusal(Reason::InvalidName, &long, &long),
            Status::from(Error::from(StoreError::Quota(Box::new(short)))),
        ];
        for status in statuses {
            let failure = Failure::from(&status);
            assert!(failure.message.len() <= MAX_TEXT && failure.hint.len() <= MAX_TEXT);
            assert!(failure.details.values().all(|text| text.len() <= MAX_TEXT));
            if let Some(pins) = failure.details.get("pins") {
                let pins: serde_json::Value = serde_json::from_str(pins).unwrap();
                assert!((1..5).contains(&pins.as_array().unwrap().len()));
            }
            assert!(status.details().len() < 4 * MAX_TEXT);
        }
        let said = Status::from(Error::NotFound(long)).message().to_owned();
        assert_eq!(said.split_once('…').map(|(_, end)| end.trim_start_matches('x')), Some(&*ending()));
    }

    /// How the message of what is not found ends.
    fn ending() -> String {
        Error::NotFound(String::new()).to_string().rsplit('"').next().map(|end| format!("\"{end}")).unwrap()
    }

    #[test]
    fn every_reason_occurs() {
        let errors = all();
        // Given where a stream or a caller is judged, before there is an error of the node.
        let elsewhere = [Reason::InvalidName, Reason::InvalidStream, Reason::Silent];
        // Nothing below tells these apart yet.
        let later = [Reason::NotReady];
        for reason in Reason::ALL {
            let given = errors.iter().any(|(given, _)| given == reason);
            assert!(given || elsewhere.contains(reason) || later.contains(reason), "{reason:?}");
        }
    }
}
