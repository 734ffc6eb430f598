//! Whose word it takes that this node is reached somewhere, and which relays it uses where it is not. Real rooms, on
//! hosts in memory.

use super::memory::{Hosted, Net, Place, address};
use super::until;
use crate::dht::{Mode, Options, PeerView};
use crate::peer::{Multiaddr, PeerId, ReachVerdict as Verdict};

/// Where the node that is asked about is, where others see it, and where nobody is.
const INSIDE: &str = "10.0.0.2";
const TRUTH: &str = "20.9.0.1";
const LIE: &str = "20.66.0.1";

fn at(ip: &str) -> Multiaddr {
    address(ip.parse().unwrap())
}

/// A node that helps others.
async fn helper(net: &Net, place: Place) -> Hosted {
    net.start(place, |options| options).await
}

/// `node` has `witness`, which it knows, try whether it is reached at `ip`.
async fn tries(net: &Net, node: &Hosted, witness: &Hosted, ip: &str) {
    let has_it = |peers: Vec<PeerView>| peers.iter().any(|one| one.peer == witness.id() && one.routed);
    until("it may be asked", || async { has_it(node.node.dht.peers().await) }).await;
    node.moves().await;
    until("it is dialled there", || async { net.dials(witness, ip) > 0 }).await;
}

/// Two of one address group say, one after the other, that they connect to `node` at `ip`. The second stays.
async fn two_of_a_group(net: &Net, node: &Hosted, ip: &str, place: impl Fn(&str) -> Place) -> Hosted {
    let first = helper(net, place("20.1.0.1")).await;
    node.connect(&first).await;
    tries(net, node, &first, ip).await;
    until("its word is heard", || async { node.node.dht.reachability().said == [at(ip)] }).await;
    first.node.stop().await;
    let second = helper(net, place("20.1.7.7")).await;
    node.connect(&second).await;
    tries(net, node, &second, ip).await;
    second
}

/// What others are told of where `node` is, as `other` hears it.
async fn told(node: &Hosted, other: &Hosted) -> Vec<Multiaddr> {
    let peers = other.node.dht.peers().await.into_iter();
    let told = peers.filter(|one| one.peer == node.id() && one.routed).flat_map(|one| one.addresses);
    told.map(|at| at.iter().take(2).collect()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_one_group_that_lie_about_an_address_do_not_make_it_ours() {
    let net = Net::default();
    let node = net.start(Place::behind(TRUTH, INSIDE), |options| options).await;
    let is_ours = || node.node.dht.reachability().confirmed.contains(&at(LIE));
    let _liar = two_of_a_group(&net, &node, LIE, |host| Place::at(host).lying(TRUTH, LIE)).await;
    let honest = helper(&net, Place::at("20.2.0.1")).await;
    node.connect(&honest).await;
    assert!(!is_ours());
    // One of another group is asked before all others, and finds nobody there.
    tries(&net, &node, &honest, LIE).await;
    until("the lie is found out", || async {
        assert!(!is_ours());
        node.node.dht.reachability().failed == [at(LIE)]
    })
    .await;
    assert!(!told(&node, &honest).await.contains(&at(LIE)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_of_different_groups_make_an_address_ours() {
    let net = Net::default();
    let node = net.start(Place::behind(TRUTH, INSIDE), |options| options).await;
    let _second = two_of_a_group(&net, &node, TRUTH, Place::at).await;
    let other = helper(&net, Place::at("20.2.0.1")).await;
    node.connect(&other).await;
    assert_eq!(node.node.dht.reachability().confirmed, [], "they are one, as far as is known");
    tries(&net, &node, &other, TRUTH).await;
    until("it is reached", || async { node.node.dht.reachability().verdict == Verdict::Yes }).await;
    assert_eq!(node.node.dht.reachability().confirmed, [at(TRUTH)]);
    until("others are told", || async { told(&node, &other).await.contains(&at(TRUTH)) }).await;
}

/// A node that nobody reaches, behind the router `at`.
async fn unreached(net: &Net, at: &str, inside: &str) -> Hosted {
    let quiet = |options| Options { mode: Mode::Auto, asks_to_be_dialled: false, ..options };
    net.start(Place::behind(at, inside).shut(), quiet).await
}

/// The relays that it uses.
fn relays(node: &Hosted) -> Vec<PeerId> {
    node.node.dht.reachability().relays
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_leaves_a_relay_for_one_of_another_group() {
    let net = Net::default();
    let node = unreached(&net, TRUTH, INSIDE).await;
    let (one, two) = (helper(&net, Place::at("20.1.0.1")).await, helper(&net, Place::at("20.1.7.7")).await);
    node.connect(&one).await;
    node.connect(&two).await;
    until("it uses both", || async { relays(&node).len() == 2 }).await;
    let other = helper(&net, Place::at("20.2.0.1")).await;
    node.connect(&other).await;
    until("it uses relays of two groups", || async {
        let used = relays(&node);
        used.len() == 2 && used.contains(&other.id())
    })
    .await;
    // That they are two keeps it from a third.
    let third = helper(&net, Place::at("20.3.0.1")).await;
    node.connect(&third).await;
    assert!(relays(&node).contains(&other.id()) && !relays(&node).contains(&third.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sees_only_its_own_subnet_is_a_relay_for_those_behind_its_routers() {
    let net = Net::default();
    let auto = |options| Options { mode: Mode::Auto, asks_to_be_dialled: false, ..options };
    let public = net.start(Place::at("20.1.0.1"), auto).await;
    public.node.dht.0.reach.be_in("20.1.0.1/24");
    // The router is on the public node's subnet, and what is behind it on none of these.
    let node = unreached(&net, "20.1.0.9", INSIDE).await;
    node.connect(&public).await;
    until("it uses the relay", || async { relays(&node) == [public.id()] }).await;
    let reach = public.node.dht.reachability();
    assert!(reach.verdict == Verdict::Unknown && reach.is_server && !reach.is_outside, "{reach:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_one_host_do_not_take_all_places_of_a_relay() {
    let net = Net::default();
    let relay = helper(&net, Place::at("20.1.0.1")).await;
    let mut housemates = Vec::new();
    for number in 0..4 {
        let node = unreached(&net, TRUTH, &format!("10.0.0.{}", 2 + number)).await;
        node.connect(&relay).await;
        until("it has a place", || async { relays(&node) == [relay.id()] }).await;
        housemates.push(node);
    }
    let fifth = unreached(&net, TRUTH, "10.0.0.9").await;
    fifth.connect(&relay).await;
    let second = helper(&net, Place::at("20.2.0.1")).await;
    fifth.connect(&second).await;
    until("it has a place elsewhere", || async { !relays(&fifth).is_empty() }).await;
    let elsewhere = unreached(&net, "20.8.0.1", INSIDE).await;
    elsewhere.connect(&relay).await;
    until("another host has a place", || async { relays(&elsewhere) == [relay.id()] }).await;
    assert_eq!(relays(&fifth), [second.id()]);
    assert!(housemates.iter().all(|node| relays(node).contains(&relay.id())), "they keep theirs");
}
