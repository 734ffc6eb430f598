//! Alone: whom a node tries that reaches nobody, and what it says of itself.

use libp2p::multiaddr::Protocol;

use super::memory::{NAMED, Net, Place, address};
use super::{until, within};
use crate::dht::bootstrap::LONGEST_ALONE;
use crate::dht::{Error, Options};
use crate::peer::PeerId;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_met_behind_a_router_is_found_again_when_the_settings_name_nobody_any_more() {
    let (net, folder) = (Net::default(), tempfile::tempdir().unwrap());
    let file = folder.path().join("peers");
    // A private address, on no subnet of the other: how a router of one's own or of a company leads there.
    let there = net.start(Place::at("10.77.0.2"), |options| options).await;
    let named = vec![there.node.address()];
    let remembers = |options| Options { peers: Some(file.clone()), ..options };
    let home = Place::at("10.9.0.5").shut();
    let here = net.start(home, |options| Options { bootstrap: named, ..remembers(options) }).await;
    here.node.knows(1).await;
    here.node.stop().await;
    let here = net.start(home, remembers).await;
    here.node.knows(1).await;
    let standing = here.node.dht.standing().await;
    assert!(!standing.is_alone && standing.known == 1 && standing.configured == 0, "{standing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_met_at_a_name_that_was_given_is_found_again_at_it() {
    let (net, folder) = (Net::default(), tempfile::tempdir().unwrap());
    let file = folder.path().join("peers");
    let there = net.start(Place::at("10.77.0.2"), |options| options).await;
    let named = format!("/dns4/{NAMED}10.77.0.2/tcp/8468/p2p/{}", there.id()).parse().unwrap();
    let remembers = |options| Options { peers: Some(file.clone()), ..options };
    let home = Place::at("10.9.0.5").shut();
    let here = net.start(home, remembers).await;
    within("they connect", here.node.dht.connect(named)).await.unwrap();
    here.node.knows(1).await;
    here.node.stop().await;
    // Nobody names it any more, and its address alone would not be dialled.
    let here = net.start(home, remembers).await;
    here.node.knows(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_alone_says_why_and_when_it_tries_again_and_idle_is_not_alone() {
    let net = Net::default();
    let peer = PeerId::random();
    let gone = ["10.77.0.8", "10.77.0.9"].map(|ip| address(ip.parse().unwrap()).with(Protocol::P2p(peer)));
    let bootstrap = gone.to_vec();
    let here = net.start(Place::at("10.9.0.5"), |options| Options { bootstrap, ..options }).await;
    until("it has failed", || async { !here.node.dht.standing().await.failed.is_empty() }).await;
    let standing = here.node.dht.standing().await;
    assert!(standing.is_alone && standing.known == 0 && standing.configured == 1, "{standing:?}");
    assert!(standing.next_try.is_some_and(|wait| wait <= LONGEST_ALONE), "{standing:?}");
    let failed: Vec<_> = standing.failed.iter().map(|(at, _)| at.clone()).collect();
    assert_eq!(failed, gone, "each of its addresses");
    assert!(standing.failed.iter().all(|(_, why)| why.contains("refused")), "{standing:?}");

    let there = net.start(Place::at("10.77.0.3"), |options| options).await;
    here.connect(&there).await;
    here.node.knows(1).await;
    let standing = here.node.dht.standing().await;
    assert!((standing.is_alone, standing.connected, standing.known) == (false, 1, 1), "{standing:?}");
    assert_eq!(standing.next_try, None);
    // Who goes, and cannot be reached, leaves it alone; known it still is.
    let was_at = there.node.address();
    there.node.stop().await;
    until("it is noticed", || async { here.node.dht.standing().await.connected == 0 }).await;
    let error = within("it is dialled", here.node.dht.connect(was_at)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let standing = here.node.dht.standing().await;
    assert!(standing.is_alone && standing.known == 1 && standing.next_try.is_some(), "{standing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_one_that_is_connected_is_tried_all_the_same() {
    let net = Net::default();
    let there = net.start(Place::at("10.77.0.2"), |options| options).await;
    let here = net.start(Place::at("10.9.0.5"), |options| options).await;
    here.connect(&there).await;
    let other = address("10.77.0.9".parse().unwrap()).with(Protocol::P2p(there.id()));
    let error = within("it is dialled", here.node.dht.connect(other.clone())).await.unwrap_err();
    let Error::Unreachable { address, reason } = &error else { panic!("{error}") };
    assert!(*address == other && reason.contains("refused"), "{error}");
    assert!(reason.contains("it is connected at /ip4/10.77.0.2/"), "{error}");
    let before = net.dials(&here, "10.77.0.2");
    here.connect(&there).await;
    assert!(net.dials(&here, "10.77.0.2") > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_address_that_was_given_is_tried() {
    let net = Net::default();
    let there = net.start(Place::at("10.77.0.2"), |options| options).await;
    let (peer, bootstrap) = (there.id(), vec![there.node.address()]);
    let here = net.start(Place::at("10.9.0.5"), |options| Options { bootstrap, ..options }).await;
    here.node.knows(1).await;
    there.node.stop().await;
    until("it is noticed", || async { here.node.dht.standing().await.connected == 0 }).await;
    let other = address("10.77.0.9".parse().unwrap()).with(Protocol::P2p(peer));
    let error = within("it is dialled", here.node.dht.connect(other.clone())).await.unwrap_err();
    let Error::Unreachable { address, reason } = &error else { panic!("{error}") };
    assert!(*address == other && !reason.contains("10.77.0.2"), "{error}");
    assert_eq!(net.dials(&here, "10.77.0.9"), 1);
}
