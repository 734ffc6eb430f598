//! How fast addresses that others tell are dialled.
//!
//! Owns: the pace, in which dials wait for their turn, and how many addresses of one peer are tried: whoever makes up
//! addresses cannot have this node knock at many doors in a short time. Refuses: a dial that would wait longer than
//! [`LONGEST`], and more than [`OF_ONE`] addresses of a peer within [`WHILE`]. Neither says anything of the peer.
//! What the owner gave, and loopback, is not counted, and where a peer has answered before it is no stranger's door:
//! nobody who makes up others can keep this node from those it knows. Survives a crash: nothing.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libp2p::memory_connection_limits::MemoryUsageLimitExceeded;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, TransportError, connection_limits};

/// Between two dials: twenty a second.
const INTERVAL: Duration = Duration::from_millis(50);
/// Dials that may be made at once after a rest.
const BURST: u32 = 128;
/// How long a dial waits at most: Kademlia's questions give up on a node that long after it was to be dialled.
const LONGEST: Duration = Duration::from_secs(8);
/// Addresses of one peer that are dialled…
const OF_ONE: u8 = 16;
/// …within this time.
const WHILE: Duration = Duration::from_secs(5);
/// Peers whose addresses are counted; with more, counting begins anew.
const MAX_PEERS: usize = 4_096;
/// Addresses that have answered lately, and as many before these.
const MAX_ANSWERED: usize = 2_048;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the next dial would be made if none were ever saved up.
    next: Option<Instant>,
    /// Addresses of peers that were dialled since `counted`.
    peers: HashMap<PeerId, u8>,
    counted: Option<Instant>,
    /// Addresses, with their peers' ids, at which these answered, and those before them.
    answered: [HashSet<Multiaddr>; 2],
}

/// A dial that was not made, for reasons of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unhurried {
    /// Too many wait already.
    #[error("too many other addresses are to be dialled first")]
    Crowded,
    /// Enough addresses of that peer have been tried.
    #[error("enough other addresses of that peer are being tried")]
    Many,
}

// === impl State ===

impl State {
    fn has_answered(&self, address: &Multiaddr) -> bool {
        self.answered.iter().any(|known| known.contains(address))
    }
}

// === impl Pace ===

impl Pace {
    /// Counts an address among its peer's, unless the peer has answered there.
    pub(super) fn admit(&self, address: &Multiaddr, now: Instant) -> Result<(), Unhurried> {
        let Some(Protocol::P2p(peer)) = address.iter().last() else { return Ok(()) };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_answered(address) {
            return Ok(());
        }
        let is_over = state.counted.is_none_or(|since| now >= since + WHILE);
        if is_over || state.peers.len() >= MAX_PEERS {
            state.peers.clear();
            state.counted = Some(now);
        }
        let count = state.peers.entry(peer).or_default();
        *count = count.saturating_add(1);
        if *count > OF_ONE { Err(Unhurried::Many) } else { Ok(()) }
    }

    /// A peer was found at an address, which names it.
    pub(super) fn answered(&self, address: Multiaddr) {
        let State { answered: [fresh, old], .. } =
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.len() >= MAX_ANSWERED {
            *old = std::mem::take(fresh);
        }
        fresh.insert(address);
    }

    /// A turn for one dial of an address: how long it has to wait.
    pub(super) fn turn(&self, address: &Multiaddr, now: Instant) -> Result<Duration, Unhurried> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_answered(address) {
            return Ok(Duration::ZERO);
        }
        let saved = now.checked_sub(INTERVAL * BURST).unwrap_or(now);
        let turn = state.next.map_or(saved, |next| next.max(saved)) + INTERVAL;
        let wait = turn.saturating_duration_since(now);
        if wait > LONGEST {
            return Err(Unhurried::Crowded);
        }
        state.next = Some(turn);
        Ok(wait)
    }
}

impl From<Unhurried> for io::Error {
    fn from(why: Unhurried) -> Self {
        Self::other(why)
    }
}

/// Whether a dial failed because some of its addresses were not even tried, or because this node has as many
/// connections as it may have: then nothing is known of the peer.
pub(super) fn is_unhurried(failed: &DialError) -> bool {
    match failed {
        DialError::Transport(tried) => tried.iter().any(|(_, error)| {
            let TransportError::Other(error) = error else { return false };
            error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<Unhurried>)
        }),
        DialError::Denied { cause } => {
            cause.downcast_ref::<connection_limits::Exceeded>().is_some()
                || cause.downcast_ref::<MemoryUsageLimitExceeded>().is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::Endpoint;
    use libp2p::swarm::{ConnectionDenied, ConnectionId, NetworkBehaviour};

    fn at(port: u16, peer: PeerId) -> Multiaddr {
        format!("/ip4/203.0.113.1/tcp/{port}/p2p/{peer}").parse().unwrap()
    }

    #[test]
    fn dials_go_at_a_pace_and_the_line_is_short() {
        let (pace, start) = (Pace::default(), Instant::now() + Duration::from_secs(60));
        let at = at(1, PeerId::random());
        let waits: Vec<_> = std::iter::from_fn(|| pace.turn(&at, start).ok()).collect();
        let longest = usize::try_from(LONGEST.as_millis() / INTERVAL.as_millis()).unwrap();
        assert_eq!(waits.len(), BURST as usize + longest);
        assert!(waits[..BURST as usize].iter().all(Duration::is_zero) && waits.is_sorted());
        assert_eq!(waits.last(), Some(&LONGEST));
        assert_eq!(pace.turn(&at, start), Err(Unhurried::Crowded));
        // Whoever was refused has taken nobody's turn.
        assert_eq!(pace.turn(&at, start + INTERVAL), Ok(LONGEST));
        assert_eq!(pace.turn(&at, start + Duration::from_secs(3600)), Ok(Duration::ZERO));
    }

    #[test]
    fn who_has_answered_does_not_wait_behind_strangers() {
        let (pace, now) = (Pace::default(), Instant::now());
        let known = at(1, PeerId::random());
        pace.answered(known.clone());
        while pace.turn(&at(2, PeerId::random()), now).is_ok() {}
        assert_eq!(pace.turn(&known, now), Ok(Duration::ZERO));
        assert!(pace.turn(&at(1, PeerId::random()), now).is_err(), "another peer there");
        for _ in 0..5 * MAX_ANSWERED {
            pace.answered(at(1, PeerId::random()));
        }
        assert!(pace.0.lock().unwrap().answered.iter().map(HashSet::len).sum::<usize>() <= 2 * MAX_ANSWERED);
        assert!(pace.turn(&known, now).is_err(), "it was long ago");
    }

    #[test]
    fn of_one_peer_sixteen_addresses_are_tried() {
        let (pace, now) = (Pace::default(), Instant::now());
        let peer = PeerId::random();
        let tried = (1..=500).filter(|port| pace.admit(&at(*port, peer), now).is_ok()).count();
        assert_eq!(tried, 16);
        assert!(pace.admit(&at(1, PeerId::random()), now).is_ok());
        // However many others tell, where it has answered before it is tried.
        pace.answered(at(501, peer));
        assert!(pace.admit(&at(501, peer), now).is_ok() && pace.admit(&at(502, peer), now).is_err());
        assert!(pace.admit(&at(1, peer), now + WHILE).is_ok());
        for _ in 0..2 * MAX_PEERS {
            let _ = pace.admit(&at(1, PeerId::random()), now);
        }
        assert!(pace.0.lock().unwrap().peers.len() <= MAX_PEERS);
    }

    #[test]
    fn what_was_not_tried_is_told_from_what_failed() {
        let at: Multiaddr = "/ip4/203.0.113.1/tcp/8468".parse().unwrap();
        let failed =
            |error: io::Error| DialError::Transport(vec![(at.clone(), TransportError::Other(error))]);
        assert!(
            is_unhurried(&failed(Unhurried::Crowded.into())) && is_unhurried(&failed(Unhurried::Many.into()))
        );
        assert!(!is_unhurried(&failed(io::ErrorKind::TimedOut.into())));
        let refused =
            DialError::Transport(vec![(at.clone(), TransportError::MultiaddrNotSupported(at.clone()))]);
        assert!(!is_unhurried(&refused));
    }

    #[test]
    fn what_there_was_no_place_for_was_not_tried() {
        let none = connection_limits::ConnectionLimits::default().with_max_pending_outgoing(Some(0));
        let denied = connection_limits::Behaviour::new(none).handle_pending_outbound_connection(
            ConnectionId::new_unchecked(1),
            Some(PeerId::random()),
            &[],
            Endpoint::Dialer,
        );
        assert!(is_unhurried(&DialError::Denied { cause: denied.unwrap_err() }));
        assert!(!is_unhurried(&DialError::Denied {
            cause: ConnectionDenied::new(io::Error::other("banned"))
        }));
    }
}
