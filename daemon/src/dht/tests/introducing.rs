//! A node that knows nobody and finds a neighbour that keeps no records: what it learns from it, and what it says until
//! then. Real rooms, over loopback and on hosts in memory.

use std::pin::pin;

use futures::future::{Either, select};
use libp2p::multiaddr::Protocol;

use super::memory::{Hosted, Net, Place, address};
use super::outsider::{Outsider, Says};
use super::{Node, QUIC, TCP, key, network, options, until, within};
use crate::dht::codec::Exchange;
use crate::dht::find;
use crate::dht::introducing::{Introducing, MAX_SERVERS};
use crate::dht::{Mode, Options};
use crate::peer::{Announce, Keypair, Multiaddr, PeerId};

/// Where the neighbour is, and who finds it.
const THERE: &str = "10.9.0.4";
const HERE: &str = "10.9.0.5";
/// A server beyond.
const BEYOND: &str = "20.9.0.1";
/// A network's key.
const KEY: [u8; 32] = [7; 32];

/// A node at `ip`, on a subnet of so many bits, that takes part in the DHT as it finds fit; nobody tells it whether it
/// is reached.
async fn home(net: &Net, ip: &str, bits: u8, bootstrap: Vec<Multiaddr>) -> Hosted {
    let auto = |options| Options { mode: Mode::Auto, asks_to_be_dialled: false, bootstrap, ..options };
    let node = net.start(Place::at(ip), auto).await;
    node.node.dht.0.reach.be_in(&format!("{ip}/{bits}"));
    node
}

/// A server beyond, and a node that has joined by it and is a client of the DHT.
async fn neighbour(net: &Net) -> (Hosted, Hosted) {
    let server = net.start(Place::at(BEYOND), |options| options).await;
    let there = home(net, THERE, 24, vec![server.node.address()]).await;
    there.node.knows(1).await;
    until("it is a client", || async { !there.node.dht.status().await.server }).await;
    (server, there)
}

/// Whether `node` has `peer` in its routing table.
async fn routes(node: &Node, peer: PeerId) -> bool {
    node.dht.peers().await.iter().any(|one| one.peer == peer && one.routed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_only_a_client_on_its_network_joins_by_what_that_one_knows() {
    let net = Net::default();
    let (server, there) = neighbour(&net).await;
    let here = home(&net, HERE, 24, Vec::new()).await;
    here.connect(&there).await;
    until("it has joined", || routes(&here.node, server.id())).await;
    let standing = here.node.dht.standing().await;
    assert!(!standing.is_unserved && !standing.is_alone && standing.known >= 2, "{standing:?}");
    assert!(here.node.dht.joined().await);
    let announced = within("the key is placed", here.node.announce(vec![key(1)], 20)).await;
    assert_eq!((announced.keys, announced.receivers), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_know_each_other_and_a_client_do_not_stay_by_themselves() {
    let net = Net::default();
    let (server, there) = neighbour(&net).await;
    let here = home(&net, HERE, 24, Vec::new()).await;
    let other = home(&net, "10.9.0.6", 24, Vec::new()).await;
    here.connect(&other).await;
    until("they are servers to each other", || async {
        routes(&here.node, other.id()).await && routes(&other.node, here.id()).await
    })
    .await;
    here.connect(&there).await;
    until("it has joined", || routes(&here.node, server.id())).await;
    other.connect(&there).await;
    until("the other has joined", || routes(&other.node, server.id())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_network_has_a_key_servers_on_other_private_networks_are_named() {
    let net = Net::default();
    let member =
        |options| Options { key: Some(KEY.into()), mode: Mode::Auto, asks_to_be_dialled: false, ..options };
    // Behind a router, as one office is to another.
    let serves = |options| Options { mode: Mode::Server, ..member(options) };
    let server = net.start(Place::at("10.7.0.1"), serves).await;
    let bootstrap = vec![server.node.address()];
    let there = net.start(Place::at(THERE), |options| Options { bootstrap, ..member(options) }).await;
    let here = net.start(Place::at(HERE), member).await;
    for (node, ip) in [(&there, THERE), (&here, HERE)] {
        node.node.dht.0.reach.be_in(&format!("{ip}/24"));
    }
    there.node.knows(1).await;
    until("it is a client", || async { !there.node.dht.status().await.server }).await;
    here.connect(&there).await;
    until("it has joined", || routes(&here.node, server.id())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_from_beyond_its_subnets_is_told_nothing() {
    let net = Net::default();
    let (server, there) = neighbour(&net).await;
    // It takes the other for a neighbour and asks; the other knows better. That one dials, or it would know that it is
    // reached, and be a server.
    let far = home(&net, "10.8.0.9", 8, Vec::new()).await;
    there.connect(&far).await;
    until("it has asked", || async { far.node.dht.standing().await.is_unserved }).await;
    let here = home(&net, HERE, 24, Vec::new()).await;
    here.connect(&there).await;
    until("the neighbour has joined", || routes(&here.node, server.id())).await;
    assert!(!routes(&far.node, server.id()).await && far.node.dht.standing().await.is_unserved);
    assert_eq!(net.dials(&far, BEYOND), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_only_clients_says_so_and_joins_when_one_of_them_has() {
    let net = Net::default();
    let client = |options| Options { mode: Mode::Client, asks_to_be_dialled: false, ..options };
    let there = net.start(Place::at(THERE), client).await;
    there.node.dht.0.reach.be_in(&format!("{THERE}/24"));
    let here = home(&net, HERE, 24, Vec::new()).await;
    here.connect(&there).await;
    until("it says that it is served by nobody", || async {
        let standing = here.node.dht.standing().await;
        standing.is_unserved && !standing.is_alone && standing.connected == 1
    })
    .await;
    let server = net.start(Place::at(BEYOND), |options| options).await;
    there.connect(&server).await;
    until("it has joined", || routes(&here.node, server.id())).await;
    assert!(!here.node.dht.standing().await.is_unserved);
    // Whoever others join by is no less so while they keep no records.
    let standing = server.node.dht.standing().await;
    assert!(standing.connected >= 1 && !standing.is_unserved, "{standing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_only_clients_does_not_wait_for_one_that_is_configured_and_gone() {
    let net = Net::default();
    let client = |options| Options { mode: Mode::Client, asks_to_be_dialled: false, ..options };
    let there = net.start(Place::at(THERE), client).await;
    there.node.dht.0.reach.be_in(&format!("{THERE}/24"));
    let gone = address("10.9.0.9".parse().unwrap()).with(Protocol::P2p(PeerId::random()));
    let here = home(&net, HERE, 24, vec![gone]).await;
    here.connect(&there).await;
    assert!(!within("nobody is to be expected", here.node.dht.joined()).await);
    assert!(here.node.dht.standing().await.is_unserved);
    // Whoever comes nevertheless is somebody to ask.
    let server = net.start(Place::at(BEYOND), |options| options).await;
    here.connect(&server).await;
    assert!(within("it has joined", here.node.dht.joined()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_only_clients_waits_for_one_that_is_configured_and_comes_up_while_it_is_tried_again() {
    let net = Net::default();
    let client = |options| Options { mode: Mode::Client, asks_to_be_dialled: false, ..options };
    let there = net.start(Place::at(THERE), client).await;
    there.node.dht.0.reach.be_in(&format!("{THERE}/24"));
    let keypair = Keypair::generate_ed25519();
    let late = address(BEYOND.parse().unwrap()).with(Protocol::P2p(keypair.public().to_peer_id()));
    let here = home(&net, HERE, 24, vec![late]).await;
    here.connect(&there).await;
    // The third dial follows seconds after the first, between which nobody is being dialled.
    let tried = until("it is tried again", || async { net.dials(&here, BEYOND) >= 3 });
    let (joined, tried) = (pin!(here.node.dht.joined()), pin!(tried));
    let joined = match select(joined, tried).await {
        Either::Left((joined, _)) => panic!("nobody was waited for: {joined}"),
        Either::Right(((), joined)) => joined,
    };
    let _server = net.start_as(keypair, Place::at(BEYOND), |options| options).await;
    assert!(within("it has joined", joined).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_to_which_a_client_comes_first_waits_for_those_that_it_knows() {
    let (net, keypair) = (Net::default(), Keypair::generate_ed25519());
    let late = address(BEYOND.parse().unwrap()).with(Protocol::P2p(keypair.public().to_peer_id()));
    let knows = |options| Options { bootstrap: vec![late], ..options };
    let early = net.start(Place::at(HERE), knows).await;
    let client = |options| Options { mode: Mode::Client, asks_to_be_dialled: false, ..options };
    let client = net.start(Place::at(THERE), client).await;
    client.connect(&early).await;
    until("it is there", || async { early.node.dht.standing().await.connected == 1 }).await;
    let mut joined = pin!(early.node.dht.joined());
    assert!(futures::poll!(joined.as_mut()).is_pending(), "nobody is there that keeps its keys but itself");
    assert!(early.node.dht.standing().await.is_unserved);
    let _server = net.start_as(keypair, Place::at(BEYOND), |options| options).await;
    assert!(within("it has joined", joined).await);
    early.node.knows(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_others_are_gone_is_after_a_while_the_first_of_its_kind() {
    let net = Net::default();
    let gone = address(BEYOND.parse().unwrap()).with(Protocol::P2p(PeerId::random()));
    let knows = |options| Options { bootstrap: vec![gone], ..options };
    let server = net.start(Place::at(HERE), knows).await;
    let client = |options| Options { mode: Mode::Client, asks_to_be_dialled: false, ..options };
    let client = net.start(Place::at(THERE), client).await;
    client.connect(&server).await;
    assert!(within("nobody else is waited for", server.node.dht.joined()).await);
    let placed = within("it keeps its own key", server.node.dht.place(key(1))).await;
    assert_eq!((placed.keys, placed.receivers, placed.messages), (1, 1, 0));
    assert!(!server.node.dht.standing().await.is_unserved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_host_are_neighbours() {
    for listen in [QUIC, TCP] {
        let server = Node::server(listen, &[]).await;
        let there = Node::with(Options { mode: Mode::Client, ..options(listen, &[&server]) }).await;
        there.knows(1).await;
        let here = Node::server(listen, &[]).await;
        within("they connect", here.dht.connect(there.address())).await.unwrap();
        until("it has joined", || routes(&here, server.dht.0.local)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_eight_servers_are_told_and_who_does_not_speak_of_it_is_not_asked() {
    let servers = network(TCP, 10).await;
    let all: Vec<&Node> = servers.iter().collect();
    let there = Node::with(Options { mode: Mode::Client, ..options(TCP, &all) }).await;
    there.knows(servers.len()).await;
    let mut asker = Outsider::new("test");
    asker.meet(&there).await.unwrap();
    let question = Introducing.encode_request(());
    let answer = asker.say(&there, "servers/1", Says::Whole(question)).await.unwrap();
    let told = Introducing.decode_response(&answer).unwrap();
    assert_eq!(told.len(), MAX_SERVERS);
    for (peer, addresses) in told {
        let server = servers.iter().find(|server| server.dht.0.local == peer).expect("it is one of them");
        let at: Multiaddr = server.address().iter().take(2).collect();
        assert_eq!(addresses, [at]);
    }
    // One that does not speak of it is a member as before, and nobody is struck for anything.
    let here = Node::with(Options { mode: Mode::Auto, ..options(TCP, &[]) }).await;
    let mut older = Outsider::new("test");
    older.meet(&here).await.unwrap();
    let is_unserved = || async { here.dht.standing().await.is_unserved };
    let unserved = until("it says that it is served by nobody", is_unserved);
    older.answer(&Says::Whole(Vec::new()), unserved).await;
    for node in [&there, &here] {
        assert!(node.conduct.admits(&asker.id(), None, std::time::SystemTime::now()));
        assert!(node.conduct.admits(&older.id(), None, std::time::SystemTime::now()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_that_names_more_than_it_may_is_let_go_and_after_three_times_banned() {
    let node = Node::with(Options { mode: Mode::Auto, ..options(TCP, &[]) }).await;
    let at: Multiaddr = "/ip4/20.0.0.1/tcp/8468".parse().unwrap();
    let servers: find::Holders = (0..=MAX_SERVERS).map(|_| (PeerId::random(), vec![at.clone()])).collect();
    let (says, now) = (Says::Whole(find::encode(&servers, MAX_SERVERS + 1)), std::time::SystemTime::now());
    let mut hostile = Outsider::neighbour("test");
    for _ in 0..3 {
        hostile.meet(&node).await.unwrap();
        assert!(node.conduct.bans(now).is_empty());
        let gone = until("it is let go", || async { node.dht.status().await.connected == 0 });
        hostile.answer(&says, gone).await;
        hostile.is_let_go("it names too many").await;
    }
    assert_eq!(node.conduct.bans(now)[0].peer, hostile.id());
    assert_eq!(node.dht.status().await.routed, 0);
}
