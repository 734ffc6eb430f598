//! Starting, joining, learning where others are.

use std::net::{TcpListener, UdpSocket};
use std::pin::pin;

use futures::future::{Either, select};
use libp2p::PeerId;

use super::outsider::{Outsider, Says};
use super::{Node, QUIC, TCP, key, network, options, until, within};
use crate::dht::{Dht, Error, Mode, Options};
use crate::peer::{Announce, Discovery, Holder, Keypair};
use crate::support::task::Tasks;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_find_each_other_over_quic_and_tcp() {
    for listen in [QUIC, TCP] {
        let nodes = network(listen, 2).await;
        let announced = within("the key is placed", nodes[0].announce(vec![key(1)], 20)).await;
        assert_eq!((announced.keys, announced.receivers, announced.messages), (1, 1, 1));
        let found = nodes[1].find(key(1)).await;
        assert_eq!(found.len(), 1, "{listen}");
        assert_eq!(found[0].peer, nodes[0].dht.0.local);
        assert_eq!(found[0].chunk, nodes[0].chunk);
        assert_eq!(found[0].dht, nodes[0].dht.listen_addresses());
        assert!(nodes[0].find(key(1)).await.is_empty(), "the own id is skipped");
        assert!(nodes[1].find(key(2)).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_nobody_waits_for_one_that_is_being_dialled_and_no_longer() {
    let node = Node::server(TCP, &[]).await;
    assert!(!within("nobody is to be expected", node.dht.joined()).await);
    // It takes connections, and says nothing on them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let at = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", PeerId::random()).parse().unwrap();
    let (mut dial, joined) = (pin!(node.dht.connect(at)), pin!(node.dht.joined()));
    // So that it is asked for first.
    assert!(futures::poll!(dial.as_mut()).is_pending());
    let first = within("it is given up", select(dial, joined)).await;
    let Either::Left((Err(_), joined)) = first else { panic!("nobody was waited for, or somebody came") };
    assert!(!within("nobody is to be expected any more", joined).await);
    // Who comes is waited for as well.
    let other = Node::server(TCP, &[]).await;
    within("they connect", node.dht.connect(other.address())).await.unwrap();
    assert!(within("it has joined", node.dht.joined()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_listed_and_greeted() {
    let nodes = network(QUIC, 2).await;
    let peers = nodes[0].dht.peers().await;
    assert_eq!(peers.len(), 1);
    let peer = &peers[0];
    assert_eq!(peer.peer, nodes[1].dht.0.local);
    assert!(peer.connected && peer.member && peer.routed && peer.agent.starts_with("casd/"));
    assert_eq!(peer.addresses, nodes[1].dht.listen_addresses());
    let chunk = within("the hello is answered", nodes[0].dht.chunk_addresses(peer.peer, Vec::new())).await;
    assert_eq!(chunk, nodes[1].chunk);
    let nobody =
        within("a stranger has no address", nodes[0].dht.chunk_addresses(PeerId::random(), Vec::new()));
    assert!(nobody.await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wildcard_chunk_port_is_told_as_a_port() {
    let a = Node::with(Options { chunk: vec!["0.0.0.0:7777".parse().unwrap()], ..options(TCP, &[]) }).await;
    let b = Node::server(QUIC, &[]).await;
    assert!(matches!(b.dht.connect("/ip4/127.0.0.1/tcp/1".parse().unwrap()).await, Err(Error::NoPeerId(_))));
    assert!(matches!(b.dht.connect(b.address()).await, Err(Error::Myself(_))));
    let peer = within("it connects", b.dht.connect(a.address())).await.unwrap();
    assert_eq!(within("it connects", b.dht.connect(a.address())).await.unwrap(), peer);
    let chunk = within("the hello is answered", b.dht.chunk_addresses(peer, Vec::new())).await;
    assert_eq!(chunk, ["127.0.0.1:7777".parse().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_address_is_named() {
    let gone = Node::server(TCP, &[]).await;
    let address = gone.address();
    gone.stop().await;
    let node = Node::server(TCP, &[]).await;
    let error = within("the dial fails", node.dht.connect(address.clone())).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_in_use_are_replaced_or_refused() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (tcp, udp) =
        (tcp.local_addr().map(|a| (a, tcp)).unwrap(), udp.local_addr().map(|a| (a, udp)).unwrap());
    let listen = vec![
        format!("/ip4/127.0.0.1/tcp/{}", tcp.0.port()).parse().unwrap(),
        format!("/ip4/127.0.0.1/udp/{}/quic-v1", udp.0.port()).parse().unwrap(),
    ];
    let wanted = Options { listen, ..options(TCP, &[]) };
    let started = Dht::start(wanted.clone(), Keypair::generate_ed25519(), &Tasks::new()).await;
    assert!(matches!(started, Err(Error::PortInUse(at)) if at == wanted.listen[0]));
    let node = Node::with(Options { replace_busy_port: true, ..wanted.clone() }).await;
    let bound = node.dht.listen_addresses();
    assert_eq!(bound.len(), 2);
    assert!(bound.iter().all(|at| !at.to_string().contains("/0/") && !wanted.listen.contains(at)));
    // Another daemon's TCP port counts as in use, although libp2p would share it.
    let other = bound.iter().find(|at| at.to_string().contains("tcp")).unwrap();
    let other = other.iter().take(2).collect();
    let again = Options { listen: vec![other], ..options(TCP, &[]) };
    let started = Dht::start(again, Keypair::generate_ed25519(), &Tasks::new()).await;
    assert!(matches!(started, Err(Error::PortInUse(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_first_joins_when_the_other_comes() {
    // The bootstrap node's identity and port are known before it runs.
    let keypair = Keypair::generate_ed25519();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen: crate::peer::Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap();
    let address = super::super::named(&listen, keypair.public().to_peer_id());
    let early = Node::with(Options { bootstrap: vec![address], ..options(TCP, &[]) }).await;
    assert_eq!(early.announce(vec![key(1)], 4).await.keys, 0);
    let tasks = Tasks::new();
    let late = Options { listen: vec![listen], ..options(QUIC, &[]) };
    let late = Dht::start(late, keypair, &tasks).await.unwrap();
    until("both are joined", || async { late.status().await.routed == 1 }).await;
    early.knows(1).await;
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_announce_and_find_without_being_asked() {
    let servers = network(TCP, 2).await;
    let client = Options { mode: Mode::Client, ..options(QUIC, &[&servers[0]]) };
    let client =
        Node::with(Options { listen: vec![QUIC.parse().unwrap(), TCP.parse().unwrap()], ..client }).await;
    client.knows(2).await;
    let announced = within("keys are placed", client.announce(vec![key(1), key(2)], 20)).await;
    assert_eq!((announced.keys, announced.receivers, announced.refused), (2, 2, 0));
    let found = servers[1].find(key(2)).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].peer, client.dht.0.local);
    within("keys are placed", servers[0].announce(vec![key(3)], 20)).await;
    assert_eq!(client.find(key(3)).await.len(), 1);
    assert_eq!(servers[0].dht.status().await.routed, 1, "a client is in nobody's table");
    assert_eq!(client.dht.status().await.other_records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_beside_clients_alone_is_one_of_the_nodes_that_keep_a_key_and_asks_itself() {
    let server = Node::server(TCP, &[]).await;
    let of_it = || Options { mode: Mode::Client, ..options(TCP, &[&server]) };
    let (one, other) = (Node::with(of_it()).await, Node::with(of_it()).await);
    for client in [&one, &other] {
        client.knows(1).await;
    }
    until("both are there", || async { server.dht.standing().await.connected == 2 }).await;
    assert!(within("it is where others look", server.dht.joined()).await);
    let placed = within("it keeps its own key", server.dht.place(key(1))).await;
    assert_eq!((placed.keys, placed.receivers, placed.messages), (1, 1, 0));
    assert_eq!((server.dht.announcing().queued, server.dht.standing().await.is_unserved), (0, false));
    let placed = within("a client's key is placed", one.announce(vec![key(2)], 20)).await;
    assert_eq!((placed.keys, placed.receivers), (1, 1));
    let holders = [(&one, key(1), &server), (&other, key(1), &server), (&server, key(2), &one)];
    for (asker, key, holder) in holders.into_iter().chain([(&other, key(2), &one)]) {
        let found: Vec<_> = asker.find(key).await.into_iter().map(|provider| provider.peer).collect();
        assert_eq!(found, [holder.dht.0.local]);
    }
    assert!(server.find(key(1)).await.is_empty() && server.find(key(3)).await.is_empty());
    // Another that keeps records is told what nobody else knew.
    let late = Node::server(TCP, &[&server]).await;
    until("it is told", || async { late.dht.status().await.other_records > 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_cut_off_from_others_does_not_count_as_who_keeps_its_keys() {
    let server = Node::server(TCP, &[]).await;
    let other = Node::server(TCP, &[&server]).await;
    let _client = Node::with(Options { mode: Mode::Client, ..options(TCP, &[&server]) }).await;
    until("both are there", || async { server.dht.standing().await.connected == 2 }).await;
    server.knows(1).await;
    other.stop().await;
    until("one is gone", || async { server.dht.standing().await.connected == 1 }).await;
    assert!(within("it is where a client looks", server.dht.joined()).await);
    let announced = within("it ends", server.announce(vec![key(1)], 20)).await;
    assert_eq!((announced.keys, announced.receivers), (0, 0), "it is tried again: {announced:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wildcard_listeners_tell_where_they_are() {
    let everywhere = |others: Vec<crate::peer::Multiaddr>, chunk: u16| Options {
        listen: vec!["/ip4/0.0.0.0/tcp/0".parse().unwrap(), "/ip4/0.0.0.0/udp/0/quic-v1".parse().unwrap()],
        chunk: vec![([0, 0, 0, 0], chunk).into()],
        bootstrap: others,
        ..options(TCP, &[])
    };
    let first = Node::with(everywhere(vec![], 9001)).await;
    let near = |at: &crate::peer::Multiaddr| at.to_string().starts_with("/ip4/127.0.0.1/");
    until("it says where", || async { first.dht.listen_addresses().iter().any(near) }).await;
    let bootstrap = first.dht.listen_addresses().into_iter().find(near).unwrap();
    let second = Node::with(everywhere(vec![bootstrap], 9002)).await;
    let third = Node::with(everywhere(second.dht.listen_addresses(), 9003)).await;
    for node in [&first, &second, &third] {
        node.knows(2).await;
    }
    within("the key is placed", third.announce(vec![key(1)], 20)).await;
    let found = first.find(key(1)).await;
    assert_eq!(found.len(), 1);
    assert!(!found[0].chunk.is_empty() && found[0].chunk.iter().all(|at| at.port() == 9003));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_gone_is_told_of_with_why_it_is_not_reached() {
    let mut nodes = network(TCP, 3).await;
    let holder = nodes.remove(1);
    let gone = holder.dht.0.local;
    within("the key is placed", holder.announce(vec![key(1)], 20)).await;
    holder.stop().await;
    let told = nodes[1].look(key(1)).await;
    assert_eq!(told.first(), Some(&Holder::Missed(gone, None)), "it is told at once who is asked");
    let why = |holder: &Holder| match holder {
        Holder::Missed(peer, why) if *peer == gone => why.clone(),
        _ => panic!("nobody else has it: {told:?}"),
    };
    let last = told.iter().rev().find_map(why);
    assert!(last.is_some_and(|why| why.contains("refused")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_where_it_is_and_goes_for_good_leaves_the_routing_table() {
    let nodes = network(TCP, 2).await;
    // A port that nobody has, when that is closed.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut planted = Outsider::server("test");
    planted.moves(&[format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()]);
    planted.meet(&nodes[0]).await.unwrap();
    planted.answer(&Says::Whole(Vec::new()), nodes[0].knows(2)).await;
    drop(planted);
    until("it is let go", || async {
        nodes[0].find(key(1)).await;
        nodes[0].dht.status().await.routed == 1
    })
    .await;
    let peers = nodes[0].dht.peers().await;
    assert!(peers.iter().any(|one| one.routed && one.peer == nodes[1].dht.0.local), "who answers stays");
}
