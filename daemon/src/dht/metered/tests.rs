//! Whom a look-up waits for, and what of its dials that failed is forgotten.

use super::*;
use crate::dht::holdings::Holdings;
use crate::dht::journal::Journal;
use crate::dht::pace::Unhurried;
use crate::dht::records::Described;
use libp2p::TransportError;
use libp2p::kad::QueryId;
use std::io;
use std::sync::Mutex;

/// Kademlia that knows `peer` at two addresses, and looks for somebody.
fn looking(peer: PeerId, at: &[Multiaddr]) -> (Metered, QueryId) {
    let local = PeerId::random();
    let own = Arc::new(Mutex::new(Holdings::new(4)));
    let kept = (Journal::new(false), Described::new(0));
    let mut kad = kad::Behaviour::new(local, Records::new(local, 0, own, kept, Instant::now()));
    at.iter().for_each(|at| _ = kad.add_address(&peer, at.clone()));
    let query = kad.get_closest_peers(PeerId::random());
    (Metered::new(kad, Arc::new(Reach::default())), query)
}

/// Whether it wants `peer` dialled now.
fn dials(metered: &mut Metered, peer: PeerId) -> bool {
    let mut context = Context::from_waker(std::task::Waker::noop());
    std::iter::from_fn(|| match metered.poll(&mut context) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    })
    .any(|event| matches!(event, ToSwarm::Dial { opts } if opts.get_peer_id() == Some(peer)))
}

fn fail(metered: &mut Metered, peer: PeerId, tried: Vec<(Multiaddr, io::Error)>) {
    let tried = tried.into_iter().map(|(at, error)| (at, TransportError::Other(error))).collect();
    metered.on_swarm_event(FromSwarm::DialFailure(DialFailure {
        peer_id: Some(peer),
        error: &DialError::Transport(tried),
        connection_id: ConnectionId::new_unchecked(1),
    }));
}

fn addresses(peer: PeerId) -> [Multiaddr; 2] {
    [1, 2].map(|port| format!("/ip4/203.0.113.1/tcp/{port}/p2p/{peer}").parse().unwrap())
}

#[tokio::test]
async fn whom_there_was_no_time_to_dial_a_look_up_waits_for() {
    let peer = PeerId::random();
    let at = addresses(peer);
    let (mut metered, query) = looking(peer, &at);
    assert!(dials(&mut metered, peer));
    for times in 1..=AGAIN {
        fail(&mut metered, peer, vec![(at[0].clone(), Unhurried::Crowded.into())]);
        let stats = *metered.query(&query).expect("it goes on").stats();
        assert_eq!((stats.num_failures(), stats.num_pending()), (0, 1), "{times}");
        assert!(!dials(&mut metered, peer), "not at once");
        metered.put_off[0].0 -= REST;
        assert!(dials(&mut metered, peer));
    }
    fail(&mut metered, peer, vec![(at[0].clone(), Unhurried::Crowded.into())]);
    assert!(metered.put_off.is_empty() && metered.dialled.is_empty());
    assert_eq!(metered.query(&query).map(|query| query.stats().num_failures()), Some(1), "it ends");
    assert_eq!(addresses_of(&mut metered, peer), at);
}

#[tokio::test]
async fn who_is_silent_keeps_no_place_and_who_waits_for_a_turn_does() {
    let peer = PeerId::random();
    let at = addresses(peer);
    let (mut metered, query) = looking(peer, &at);
    // An earlier dial is none of this one's.
    metered.reach.dials(&at[0], Instant::now());
    assert!(dials(&mut metered, peer));
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    metered.give_up_silent(later(60));
    let failures = |metered: &Metered| metered.query(&query).unwrap().stats().num_failures();
    assert_eq!(failures(&metered), 0, "it has had no turn");
    metered.reach.dials(&at[0], Instant::now());
    metered.give_up_silent(later(1));
    assert_eq!(failures(&metered), 0, "it may answer yet");
    metered.give_up_silent(later(3));
    assert_eq!((failures(&metered), metered.dialled.len()), (1, 0));
    assert_eq!(addresses_of(&mut metered, peer), at, "nothing is known of them");
    // Nor does anybody else wait for it, for a while.
    let other = metered.get_closest_peers(PeerId::random());
    assert!(!dials(&mut metered, peer));
    assert!(metered.query(&other).is_none(), "it has ended");
    *metered.silent.get_mut(&peer).unwrap() -= 2 * SILENT_FOR;
    metered.get_closest_peers(PeerId::random());
    assert!(dials(&mut metered, peer));
}

#[tokio::test]
async fn who_comes_back_shows_that_others_may_be_there_as_well_and_who_is_slow_does_not() {
    let peers = [1, 2, 3].map(|_| PeerId::random());
    let (mut metered, _) = looking(peers[0], &addresses(peers[0]));
    let now = Instant::now();
    metered.silent.extend(peers.map(|peer| (peer, now)));
    metered.met(&peers[0], now + BACK / 2);
    assert_eq!(metered.silent.len(), 2);
    metered.met(&peers[1], now + BACK);
    assert!(metered.silent.is_empty());
}

#[tokio::test]
async fn of_addresses_that_were_tried_those_that_failed_are_forgotten() {
    let peer = PeerId::random();
    let at = addresses(peer);
    let (mut metered, query) = looking(peer, &at);
    assert!(dials(&mut metered, peer));
    let failed =
        vec![(at[0].clone(), io::ErrorKind::TimedOut.into()), (at[1].clone(), Unhurried::Many.into())];
    fail(&mut metered, peer, failed);
    assert_eq!(addresses_of(&mut metered, peer), at[1..]);
    assert_eq!(metered.query(&query).map(|query| query.stats().num_failures()), Some(1));
}
