//! How this node stands among the others of its network, in words that all rooms share.

use std::fmt;
use std::time::Duration;

use multiaddr::Multiaddr;

use super::PeerId;

/// What the DHT plane knows of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// Nodes of this network that are connected. Connections that nobody uses are closed after a minute.
    pub connected: usize,
    /// Nodes of this network that are known: connected, in the routing table, or remembered.
    pub known: usize,
    /// Whether nobody is connected and nobody that was tried lately answered, or there is nobody to try.
    pub is_alone: bool,
    /// Whether somebody is connected and none of all that are known keeps records for others: nothing can be looked
    /// up or announced. Never of a node that keeps records itself where others come for them.
    pub is_unserved: bool,
    /// In how long somebody is tried next, where this node is alone. `None` otherwise, and where there is nobody.
    pub next_try: Option<Duration>,
    /// Nodes that are configured to join by.
    pub configured: usize,
    /// Addresses of configured nodes that could not be reached when they were dialled last, at most 8, and why. Parts
    /// of the reasons may come from a stranger; they have no control characters.
    pub failed: Vec<(Multiaddr, String)>,
    /// The one, of those that are known or configured, that was last found to be of another network, since one of this
    /// network was met, and how that shows.
    pub refused: Option<(PeerId, String)>,
}

/// Why nobody can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nobody {
    /// Nobody is known, and nobody configured to join by.
    Unknown,
    /// So many are known, or configured to join by, and none has answered.
    Silent(usize),
    /// So many are connected, of whom none keeps records for others.
    Unserved(usize),
}

impl Company {
    /// Why nobody can be asked, where that is so.
    #[must_use]
    pub fn nobody(&self) -> Nobody {
        match self.known.max(self.configured) {
            _ if self.is_unserved => Nobody::Unserved(self.connected),
            0 => Nobody::Unknown,
            silent => Nobody::Silent(silent),
        }
    }
}

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const RECORDS: &str = "keeps no records for others, and none that does is known";
        match self {
            Self::Unknown => f.write_str("no peers are known, or can be reached"),
            Self::Silent(1) => {
                f.write_str("the one node that is known, or configured to join by, does not answer")
            }
            Self::Silent(all) => {
                write!(f, "of {all} nodes that are known, or configured to join by, none answers")
            }
            Self::Unserved(1) => write!(f, "the one node that is connected {RECORDS}"),
            Self::Unserved(all) => write!(f, "each of the {all} nodes that are connected {RECORDS}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_configured_and_down_is_not_unknown() {
        let company = Company { is_alone: true, ..Company::default() };
        assert_eq!(company.nobody(), Nobody::Unknown);
        let down = Company { configured: 1, ..company.clone() };
        assert_eq!(down.nobody(), Nobody::Silent(1));
        assert_eq!(Company { known: 3, ..down }.nobody(), Nobody::Silent(3));
        let unserved = Company { is_unserved: true, connected: 2, known: 5, ..company };
        assert_eq!(unserved.nobody(), Nobody::Unserved(2));
    }
}
