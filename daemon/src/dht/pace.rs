//! How fast addresses that others tell are dialled.
//!
//! Owns: the pace, in which dials wait for their turn, and how many addresses of one peer are tried: whoever makes up
//! addresses cannot have this node knock at many doors in a short time. Refuses: a dial that would wait longer than
//! [`LONGEST`], and more than [`OF_ONE`] addresses of a peer within [`WHILE`]. Neither says anything of the peer.
//! What the owner gave, and loopback, is not counted, and where a peer has answered before it is no stranger's door:
//! nobody who makes up others can keep this node from those it knows, nor one host that answers for many ids.
//! Survives a crash: nothing.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::memory_connection_limits::MemoryUsageLimitExceeded;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, TransportError, connection_limits};

use super::causes;
use crate::peer::HostAddr;

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
/// Addresses that have answered lately, and as many before these…
const MAX_ANSWERED: usize = 2_048;
/// …of which so many at one host: as many as ask for others at one relay.
const OF_HOST: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the next dial would be made if none were ever saved up.
    next: Option<Instant>,
    /// How many addresses of each peer have had their turn since `counted`; the pace bounds that.
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

    /// Counts an address among its peer's, as far as that may have more.
    fn admits(&mut self, address: &Multiaddr, now: Instant) -> bool {
        let Some(Protocol::P2p(peer)) = address.iter().last() else { return true };
        if self.counted.is_none_or(|since| now >= since + WHILE) {
            self.peers.clear();
            self.counted = Some(now);
        }
        let count = self.peers.entry(peer).or_default();
        let admits = *count < OF_ONE;
        *count += u8::from(admits);
        admits
    }
}

// === impl Pace ===

impl Pace {
    /// A peer was found at an address, which names it.
    pub(super) fn answered(&self, address: Multiaddr) {
        let State { answered: [fresh, old], .. } = &mut *self.state();
        let host = host(&address);
        let of_host = |known: &&Multiaddr| host.is_some() && self::host(known) == host;
        if fresh.contains(&address) || fresh.iter().filter(of_host).count() >= OF_HOST {
            return;
        }
        if fresh.len() >= MAX_ANSWERED {
            *old = std::mem::take(fresh);
        }
        fresh.insert(address);
    }

    /// A turn for one dial of an address: how long it has to wait. Whoever is refused takes nobody's.
    pub(super) fn turn(&self, address: &Multiaddr, now: Instant) -> Result<Duration, Unhurried> {
        let mut state = self.state();
        if state.has_answered(address) {
            return Ok(Duration::ZERO);
        }
        let saved = now.checked_sub(INTERVAL * BURST).unwrap_or(now);
        let turn = state.next.map_or(saved, |next| next.max(saved)) + INTERVAL;
        let wait = turn.saturating_duration_since(now);
        if wait > LONGEST {
            return Err(Unhurried::Crowded);
        }
        if !state.admits(address, now) {
            return Err(Unhurried::Many);
        }
        state.next = Some(turn);
        Ok(wait)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host that is dialled; on a way through a relay that is the relay's.
fn host(address: &Multiaddr) -> Option<HostAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => HostAddr::of(ip.into()),
        Protocol::Ip6(ip) => HostAddr::of(ip.into()),
        _ => None,
    }
}

impl From<Unhurried> for io::Error {
    fn from(why: Unhurried) -> Self {
        Self::other(why)
    }
}

/// Whether a dial failed without an address that was tried, or because this node has as many connections as it may
/// have: then nothing is known of the peer. Of those that it does not dial at all nothing would be known later.
pub(super) fn is_unhurried(failed: &DialError) -> bool {
    match failed {
        DialError::Transport(all) => {
            let is_tried = |error| !is_own(error) && matches!(error, TransportError::Other(_));
            all.iter().any(|(_, error)| is_own(error)) && !all.iter().any(|(_, error)| is_tried(error))
        }
        DialError::Denied { cause } => {
            cause.downcast_ref::<connection_limits::Exceeded>().is_some()
                || cause.downcast_ref::<MemoryUsageLimitExceeded>().is_some()
        }
        _ => false,
    }
}

/// Whether a peer was tried wherever it is said to be, and is not there.
pub(super) fn is_in_vain(failed: &DialError) -> bool {
    match failed {
        DialError::Transport(all) => {
            let is_tried = |error: &TransportError<_>| matches!(error, TransportError::Other(_));
            all.iter().any(|(_, error)| is_tried(error)) && !all.iter().any(|(_, error)| is_own(error))
        }
        DialError::WrongPeerId { .. } => true,
        _ => false,
    }
}

/// A failed dial without the addresses that had no turn, for those who forget addresses that fail; none where there are
/// no such. What each of the others failed by it does not say.
pub(super) fn without_untried(failed: &DialError) -> Option<DialError> {
    let DialError::Transport(all) = failed else { return None };
    let tried = all.iter().filter(|(_, error)| !is_own(error)).map(|(at, _)| at);
    let tried: Vec<_> =
        tried.map(|at| (at.clone(), TransportError::MultiaddrNotSupported(at.clone()))).collect();
    (tried.len() < all.len()).then_some(DialError::Transport(tried))
}

/// Whether an address had no turn.
fn is_own(error: &TransportError<io::Error>) -> bool {
    causes::inside::<Unhurried>(error).is_some()
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
        let turn = |now| pace.turn(&at(1, PeerId::random()), now);
        let waits: Vec<_> = std::iter::from_fn(|| turn(start).ok()).collect();
        let longest = usize::try_from(LONGEST.as_millis() / INTERVAL.as_millis()).unwrap();
        assert_eq!(waits.len(), BURST as usize + longest);
        assert!(waits[..BURST as usize].iter().all(Duration::is_zero) && waits.is_sorted());
        assert_eq!(waits.last(), Some(&LONGEST));
        assert_eq!(turn(start), Err(Unhurried::Crowded));
        // Whoever was refused has taken nobody's turn.
        assert_eq!(turn(start + INTERVAL), Ok(LONGEST));
        assert_eq!(turn(start + Duration::from_secs(3600)), Ok(Duration::ZERO));
    }

    #[test]
    fn who_has_answered_does_not_wait_behind_strangers() {
        let (pace, now) = (Pace::default(), Instant::now());
        let known = at(1, PeerId::random());
        pace.answered(known.clone());
        while pace.turn(&at(2, PeerId::random()), now).is_ok() {}
        assert_eq!(pace.turn(&known, now), Ok(Duration::ZERO));
        assert!(pace.turn(&at(1, PeerId::random()), now).is_err(), "another peer there");
        for number in 0..5 * MAX_ANSWERED {
            let near = format!("/ip4/10.0.{}.{}/tcp/1/p2p/{}", number / 250, number % 250, PeerId::random());
            pace.answered(near.parse().unwrap());
        }
        assert!(pace.state().answered.iter().map(HashSet::len).sum::<usize>() <= 2 * MAX_ANSWERED);
        assert!(pace.turn(&known, now).is_err(), "it was long ago");
    }

    #[test]
    fn one_host_that_answers_for_many_ids_pushes_nobody_out() {
        let (pace, now) = (Pace::default(), Instant::now());
        let known: Multiaddr = format!("/ip4/9.9.9.9/tcp/1/p2p/{}", PeerId::random()).parse().unwrap();
        pace.answered(known.clone());
        let relay = at(1, PeerId::random()).with(Protocol::P2pCircuit);
        for _ in 0..3 * MAX_ANSWERED {
            pace.answered(at(1, PeerId::random()));
            pace.answered(relay.clone().with(Protocol::P2p(PeerId::random())));
        }
        assert_eq!(pace.state().answered.iter().map(HashSet::len).sum::<usize>(), 1 + OF_HOST);
        while pace.turn(&at(2, PeerId::random()), now).is_ok() {}
        assert_eq!(pace.turn(&known, now), Ok(Duration::ZERO));
    }

    #[test]
    fn of_one_peer_sixteen_addresses_are_tried() {
        let (pace, now) = (Pace::default(), Instant::now());
        let peer = PeerId::random();
        let tried = (1..=500).filter(|port| pace.turn(&at(*port, peer), now).is_ok()).count();
        assert_eq!(tried, 16);
        assert_eq!(pace.turn(&at(1, peer), now), Err(Unhurried::Many));
        // Whoever was refused has taken nobody's turn.
        let others = (1..=500).filter(|_| pace.turn(&at(1, PeerId::random()), now).is_ok()).count();
        assert_eq!(others + tried, 288);
        // Nor is one counted that waits for room.
        let late = PeerId::random();
        (0..100).for_each(|port| assert_eq!(pace.turn(&at(port, late), now), Err(Unhurried::Crowded)));
        let later = now + LONGEST;
        assert!(pace.turn(&at(1, late), later).is_ok() && pace.turn(&at(1, peer), later).is_ok());
        // However many others tell, where it has answered before it is tried.
        assert!((2..=16).all(|port| pace.turn(&at(port, peer), later).is_ok()));
        pace.answered(at(501, peer));
        assert!(pace.turn(&at(501, peer), later).is_ok() && pace.turn(&at(502, peer), later).is_err());
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
        let is_gone = |error: io::Error| is_in_vain(&failed(error));
        assert!(is_gone(io::ErrorKind::TimedOut.into()) && !is_gone(Unhurried::Many.into()));
        let refused =
            DialError::Transport(vec![(at.clone(), TransportError::MultiaddrNotSupported(at.clone()))]);
        assert!(!is_unhurried(&refused) && !is_in_vain(&refused) && without_untried(&refused).is_none());
    }

    #[test]
    fn of_many_addresses_those_that_were_tried_have_failed() {
        let told = |port| at(port, PeerId::random());
        let [old, forbidden, new] = [told(1), told(2), told(3)];
        let other = |at: &Multiaddr, error: io::Error| (at.clone(), TransportError::Other(error));
        let untried =
            || (forbidden.clone(), TransportError::MultiaddrNotSupported::<io::Error>(forbidden.clone()));
        let put_off = || other(&new, Unhurried::Many.into());
        let failed =
            DialError::Transport(vec![other(&old, io::ErrorKind::TimedOut.into()), untried(), put_off()]);
        assert!(!is_unhurried(&failed) && !is_in_vain(&failed), "it may be where it was not tried");
        let Some(DialError::Transport(tried)) = without_untried(&failed) else { panic!("some were tried") };
        assert_eq!(tried.into_iter().map(|(at, _)| at).collect::<Vec<_>>(), [old, forbidden.clone()]);
        assert!(is_unhurried(&DialError::Transport(vec![untried(), put_off()])));
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
