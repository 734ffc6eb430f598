//! How this node stands among the others of its network, in words that all rooms share.

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

/// Why nobody can be asked, in words for people: so many are `connected`, of whom none keeps records for others; of 0,
/// that nobody is there.
#[must_use]
pub fn nobody_to_ask(connected: usize) -> String {
    match connected {
        0 => "no peers are known, or can be reached".to_owned(),
        1 => "the one node that is connected keeps no records for others, and none that does is known"
            .to_owned(),
        many => {
            format!(
                "each of the {many} nodes that are connected keeps no records for others, and none that does is known"
            )
        }
    }
}
