//! What went wrong, for people and for programs, and the one place that turns it into an exit code.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::process::ExitCode;

use casd_proto::Reason;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use crate::output::text::{escaped, one_line};

/// How casctl ends. The numbers are part of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All was done.
    Done = 0,
    /// It failed, for a reason that has no number of its own.
    Failed = 1,
    /// The command line asks for what makes no sense, or what this version does not have.
    Usage = 2,
    /// No daemon answers.
    NoDaemon = 3,
    /// The object is neither here nor where this node can look.
    NotFound = 4,
    /// The caller may not.
    NotPermitted = 5,
    /// No space, or quota reached.
    NoSpace = 6,
    /// Nothing moved for too long, or the daemon is busy: again may help.
    Again = 7,
    /// Stored bytes are not what they were.
    Damage = 8,
    /// It is stored, and nobody has been told of it.
    Unannounced = 9,
    /// Ctrl-C.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb, or one of its arguments, failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What happened, to what.
    message: String,
    /// The name of the gRPC code that fits.
    code: &'static str,
    /// A stable name for programs.
    reason: String,
    /// Whether the same command may succeed later.
    retryable: bool,
    /// What to do next; may be empty.
    hint: String,
    /// What else there is for programs.
    details: Map<String, Value>,
    /// How casctl ends.
    pub(crate) exit: Exit,
}

/// What the daemon says beside an error, under keys that are documented: numbers, and lists as JSON.
const NUMBERS: [&str; 5] = ["needed_bytes", "used_bytes", "quota_bytes", "reserve_bytes", "free_bytes"];
const LISTS: [&str; 1] = ["pins"];

/// The details that casctl knows, as JSON.
fn documented(details: &BTreeMap<String, String>) -> Map<String, Value> {
    let read = |(key, text): (&String, &String)| {
        let value: Value = serde_json::from_str(text).ok()?;
        let fits = (NUMBERS.contains(&key.as_str()) && value.is_u64())
            || (LISTS.contains(&key.as_str()) && value.is_array());
        fits.then(|| (key.clone(), value))
    };
    details.iter().filter_map(read).collect()
}

impl Failure {
    /// A failure that casctl itself has found.
    pub(crate) fn local(exit: Exit, reason: &str, message: impl Into<String>) -> Self {
        let code = match exit {
            Exit::Usage => Code::InvalidArgument,
            Exit::NoDaemon => Code::Unavailable,
            Exit::NotPermitted => Code::PermissionDenied,
            Exit::NoSpace => Code::ResourceExhausted,
            Exit::Interrupted | Exit::Terminated => Code::Cancelled,
            _ => Code::FailedPrecondition,
        };
        Self {
            message: message.into(),
            code: code_name(code),
            reason: reason.to_owned(),
            retryable: exit == Exit::NoDaemon,
            hint: String::new(),
            details: Map::new(),
            exit,
        }
    }

    /// A failure that casctl itself has found, and that the daemon has a name for.
    pub(crate) fn known(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: code_name(reason.code()),
            retryable: reason.retryable(),
            ..Self::local(exit_of_reason(reason), reason.as_str(), message)
        }
    }

    /// What the operating system refused, as `message` says; a full disk has its own exit code.
    pub(crate) fn io(reason: &str, message: impl fmt::Display, error: &io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let (exit, reason) =
            if full { (Exit::NoSpace, Reason::NoSpace.as_str()) } else { (Exit::Failed, reason) };
        Self::local(exit, reason, format!("{message}: {}", plain(error)))
    }

    /// A part of casd that this version does not have yet.
    pub(crate) fn not_built(what: &str) -> Self {
        let message = format!("{what} arrive in a later version of casd");
        Self {
            code: code_name(Code::Unimplemented),
            ..Self::local(Exit::Usage, Reason::NotBuilt.as_str(), message)
        }
    }

    /// The same, with a word about what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same, said of `subject`, unless it names it already.
    pub(crate) fn about(mut self, subject: impl fmt::Display) -> Self {
        let subject = subject.to_string();
        if !self.message.contains(&format!("{subject:?}")) {
            self.message = format!("{subject}: {}", self.message);
        }
        self
    }

    /// Whether this is why.
    pub(crate) fn is(&self, reason: Reason) -> bool {
        self.reason == reason.as_str()
    }

    /// What happened, and what to do next.
    pub(crate) fn words(&self) -> (&str, &str) {
        (&self.message, &self.hint)
    }

    /// As one line of JSON.
    pub(crate) fn json(&self) -> Value {
        let mut line = json!({
            "error": self.message,
            "code": self.code,
            "reason": self.reason,
            "retryable": self.retryable,
            "hint": self.hint,
        });
        if let Some(line) = line.as_object_mut() {
            line.extend(self.details.clone());
        }
        line
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "casctl: {}", one_line(&escaped(&self.message)))?;
        if !self.hint.is_empty() {
            write!(f, "\n  {}", one_line(&escaped(&self.hint)))?;
        }
        Ok(())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let failure = casd_proto::Failure::from(&status);
        let known = Reason::from_name(&failure.reason);
        let exit = known.map_or_else(|| exit_of_code(failure.code, &failure.reason), exit_of_reason);
        let mut this = Self {
            message: failure.message,
            code: code_name(failure.code),
            reason: failure.reason,
            retryable: failure.retryable,
            hint: failure.hint,
            details: documented(&failure.details),
            exit,
        };
        if this.reason.is_empty() {
            this.explain_transport(failure.code);
        }
        this
    }
}

impl Failure {
    /// Puts words to a status that comes from gRPC rather than from casd.
    fn explain_transport(&mut self, code: Code) {
        let (reason, message) = match code {
            Code::Unimplemented => {
                ("UNKNOWN_CALL", "the daemon does not know this call; it is older than casctl")
            }
            Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal => {
                ("CONNECTION_LOST", "the connection to the daemon was lost")
            }
            _ => ("TRANSPORT", "the daemon refused the call"),
        };
        self.retryable = self.exit == Exit::NoDaemon;
        reason.clone_into(&mut self.reason);
        self.message = format!("{message} ({})", self.message);
        if self.hint.is_empty() && self.exit == Exit::NoDaemon {
            "see whether it is running: `systemctl status casd` or `journalctl -u casd`"
                .clone_into(&mut self.hint);
        }
    }
}

/// The exit code for a reason that this version knows.
const fn exit_of_reason(reason: Reason) -> Exit {
    match reason {
        Reason::InvalidId
        | Reason::InvalidAddress
        | Reason::InvalidName
        | Reason::InvalidParity
        | Reason::OutOfRange
        | Reason::Ambiguous
        | Reason::IsDirectory
        | Reason::NotDirectory
        | Reason::NotBuilt => Exit::Usage,
        Reason::NotFound | Reason::NoSuchPath | Reason::NoProviders | Reason::NoPeers => Exit::NotFound,
        Reason::NotPermitted => Exit::NotPermitted,
        Reason::NoSpace | Reason::Quota => Exit::NoSpace,
        Reason::Stalled | Reason::Busy | Reason::NotReady => Exit::Again,
        Reason::Stopping => Exit::NoDaemon,
        Reason::Damaged => Exit::Damage,
        _ => Exit::Failed,
    }
}

/// The exit code for an error without a reason, or with one that this version does not know.
const fn exit_of_code(code: Code, reason: &str) -> Exit {
    match code {
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotPermitted,
        Code::ResourceExhausted => Exit::NoSpace,
        Code::DeadlineExceeded => Exit::Again,
        Code::DataLoss => Exit::Damage,
        // Without a reason these come from the transport: the daemon has gone, or is none.
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal if reason.is_empty() => {
            Exit::NoDaemon
        }
        Code::Unavailable => Exit::Again,
        _ => Exit::Failed,
    }
}

/// A gRPC code as the specification writes it.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// An operating system's error in words alone, without its number.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_become_exit_codes() {
        for (reason, exit) in [
            (Reason::InvalidId, 2),
            (Reason::NotBuilt, 2),
            (Reason::NotFound, 4),
            (Reason::NoPeers, 4),
            (Reason::NotPermitted, 5),
            (Reason::NoSpace, 6),
            (Reason::Quota, 6),
            (Reason::Stalled, 7),
            (Reason::Busy, 7),
            (Reason::Damaged, 8),
            (Reason::Stopping, 3),
            (Reason::IsDirectory, 2),
            (Reason::NoSuchPath, 4),
            (Reason::BadTree, 1),
            (Reason::IdMismatch, 1),
            (Reason::Internal, 1),
        ] {
            let failure = Failure::from(reason.status("words", "hint"));
            assert_eq!(failure.exit as u8, exit, "{reason:?}");
            assert_eq!(failure.to_string(), "casctl: words\n  hint");
        }
    }

    #[test]
    fn nothing_is_named_twice() {
        let about =
            |message: &str| Failure::from(Reason::NotFound.status(message, "")).about("a").to_string();
        assert_eq!(about("there is no \"a\" here"), "casctl: there is no \"a\" here");
        assert_eq!(about("there is no \"ab\" here"), "casctl: a: there is no \"ab\" here");
    }

    #[test]
    fn what_the_transport_says_is_explained() {
        let failure = Failure::from(Status::unavailable("broken pipe"));
        assert_eq!((failure.exit, failure.reason.as_str()), (Exit::NoDaemon, "CONNECTION_LOST"));
        let failure = Failure::from(Status::unimplemented(""));
        assert_eq!((failure.exit, failure.reason.as_str()), (Exit::Failed, "UNKNOWN_CALL"));
    }

    #[test]
    fn json_has_its_documented_keys() {
        let failure = Failure::from(Reason::NoPeers.status("no peers known", "connect to one"));
        let expected = json!({
            "error": "no peers known",
            "code": "NOT_FOUND",
            "reason": "NO_PEERS",
            "retryable": true,
            "hint": "connect to one",
        });
        assert_eq!(failure.json(), expected);

        let details = [("used_bytes", "7"), ("pins", "[{\"uid\":5}]"), ("error", "1"), ("free_bytes", "x")];
        let details = details.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let failure = Failure::from(Reason::Quota.status_with("full", "", details.into()));
        let expected = json!({
            "error": "full",
            "code": "RESOURCE_EXHAUSTED",
            "reason": "QUOTA",
            "retryable": false,
            "hint": "",
            "used_bytes": 7,
            "pins": [{ "uid": 5 }],
        });
        assert_eq!(failure.json(), expected);
    }

    #[test]
    fn what_others_say_cannot_drive_the_terminal() {
        let failure = Failure::from(Reason::Internal.status("a\u{1b}[2Jb\nc", ""));
        assert_eq!(failure.to_string(), "casctl: a\\u{1b}[2Jb\\nc");
    }

    #[test]
    fn a_full_disk_has_its_own_code() {
        let error = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::io("IO", "x", &error).exit, Exit::NoSpace);
        assert_eq!(plain(&io::Error::from_raw_os_error(2)), "no such file or directory");
    }
}
