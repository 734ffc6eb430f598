//! Why a session could not begin, or ended.

use std::io;

use crate::content;

/// Why a session ended, or a request failed with it. Cheap to clone: everyone who waits gets it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// What the peer sent is not what it said: it does not prove the id.
    #[error("the peer lied: {0}")]
    Lie(#[from] content::Error),
    /// The two have no version of the protocol in common.
    #[error("the peer speaks other versions of the protocol ({least} to {most})")]
    Version {
        /// The peer's oldest.
        least: u16,
        /// The peer's newest.
        most: u16,
    },
    /// The peer is of another network.
    #[error("the peer belongs to another network")]
    Network,
    /// The peer has not proved the network's key.
    #[error("the peer has not proved the network's key")]
    Proof,
    /// The peer ended the session.
    #[error("the peer ended the session: {reason}{}{text}", if text.is_empty() { "" } else { ": " })]
    Goodbye {
        /// Why.
        reason: Reason,
        /// More, in the peer's words, with what is not printable escaped. At most 256 bytes were sent.
        text: String,
    },
    /// The hello did not come in time.
    #[error("the peer did not say hello in time")]
    Silent,
    /// A frame was begun and then came too slowly, or the peer did not read.
    #[error("the connection stalled in the middle of a message")]
    Stalled,
    /// Nothing came for the idle time.
    #[error("the peer has not been heard of for too long")]
    Idle,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(
        /// What the system said.
        String,
    ),
    /// This end closed the session, or is shutting down.
    #[error("the session is closed")]
    Closed,
}

impl Error {
    /// Whether the peer is to blame: it broke the protocol or sent what is not true.
    #[must_use]
    pub fn is_strike(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::Lie(_))
    }

    /// The peer's goodbye, made safe to show.
    pub(super) fn goodbye(reason: Reason, text: &str) -> Self {
        Self::Goodbye { reason, text: text.escape_debug().to_string() }
    }

    /// What to tell the peer; `None` when it cannot or need not be told.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Protocol(_) | Self::Lie(_) => Some(Reason::Protocol),
            Self::Version { .. } => Some(Reason::Version),
            Self::Network => Some(Reason::Network),
            Self::Proof => Some(Reason::Proof),
            Self::Silent | Self::Stalled | Self::Idle => Some(Reason::Slow),
            Self::Closed => Some(Reason::Done),
            Self::Goodbye { .. } | Self::Broken(_) => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Why one end says goodbye. Codes that are not known are read as [`Reason::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 0: it wants nothing more.
    Done,
    /// 1: it is shutting down.
    Shutdown,
    /// 2: the other end was idle or too slow.
    Slow,
    /// 3: the other end broke the protocol.
    Protocol,
    /// 4: no common version.
    Version,
    /// 5: another network.
    Network,
    /// 6: the network's key was not proved.
    Proof,
    /// 7: it has too much to do to talk.
    Busy,
    /// 8: the other end is not spoken to.
    Banned,
    /// Any other code.
    Other(
        /// The code.
        u8,
    ),
}

impl Reason {
    /// Reasons with a name, at the index that is their code.
    const NAMED: [Self; 9] = [
        Self::Done,
        Self::Shutdown,
        Self::Slow,
        Self::Protocol,
        Self::Version,
        Self::Network,
        Self::Proof,
        Self::Busy,
        Self::Banned,
    ];

    /// The reason of a code.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        Self::NAMED.get(usize::from(code)).copied().unwrap_or(Self::Other(code))
    }

    /// Its code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Other(code) => code,
            named => {
                (0u8..).zip(Self::NAMED).find(|(_, each)| *each == named).map_or(u8::MAX, |(code, _)| code)
            }
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done => "nothing more is wanted",
            Self::Shutdown => "it is shutting down",
            Self::Slow => "this end was too slow",
            Self::Protocol => "it says that this end broke the protocol",
            Self::Version => "no common version",
            Self::Network => "it belongs to another network",
            Self::Proof => "it wants a proof of its network's key",
            Self::Busy => "it is busy",
            Self::Banned => "it does not speak to this node",
            Self::Other(code) => return write!(f, "reason {code}"),
        })
    }
}
