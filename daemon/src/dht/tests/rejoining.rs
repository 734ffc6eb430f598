//! Coming back: to a network whose configured nodes are gone, and to one that was not there.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;

use super::{Node, QUIC, TCP, key, options, until, within};
use crate::dht::{Dht, Options};
use crate::peer::{Conduct, Keypair, Multiaddr};
use crate::support::task::Tasks;

/// A node that can be stopped and started where it was, as whom it was.
struct Home {
    keypair: Keypair,
    listen: Multiaddr,
}

impl Home {
    fn new() -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap();
        Self { keypair: Keypair::generate_ed25519(), listen }
    }

    /// Its port, once the last run has let go of it: connections that it closed linger for a moment.
    async fn bound(&self) -> UdpSocket {
        let port = self.listen.iter().find_map(|part| match part {
            Protocol::Udp(port) => Some(port),
            _ => None,
        });
        let mut bound = None;
        until("the port is free", || {
            bound = UdpSocket::bind(("127.0.0.1", port.unwrap())).ok();
            std::future::ready(bound.is_some())
        })
        .await;
        bound.unwrap()
    }

    async fn start(&self, peers: Option<PathBuf>, others: &[&Node]) -> Node {
        self.bound().await;
        let tasks = Tasks::new();
        let options = Options {
            listen: vec![self.listen.clone()],
            peers,
            reunion: Duration::from_secs(1),
            ..options(QUIC, others)
        };
        let dht = Dht::start(options, self.keypair.clone(), &tasks).await.unwrap();
        Node { dht, chunk: Vec::new(), conduct: Conduct::default(), tasks }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_configured_nodes_are_gone_comes_back_by_remembered_peers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache/peers");
    let first = Node::server(TCP, &[]).await;
    let second = Node::server(QUIC, &[&first]).await;
    let home = Home::new();
    let third = home.start(Some(file.clone()), &[&first]).await;
    third.knows(2).await;
    assert!(within("it is joined", third.dht.joined()).await);
    third.stop().await;
    first.stop().await;
    // As somebody else and elsewhere, so that it cannot be the other one that comes back.
    let third = Home::new().start(Some(file.clone()), &[]).await;
    assert!(within("it is joined", third.dht.joined()).await);
    second.knows(1).await;
    let announced = within("the key is placed", third.announce(vec![key(1)], 20)).await;
    assert_eq!((announced.keys, announced.receivers), (1, 1));
    third.stop().await;
    second.stop().await;
    // Who is remembered and not there is listed as known, with where it was.
    let third = Home::new().start(Some(file.clone()), &[]).await;
    let listed = third.dht.peers().await;
    assert!(listed.len() == third.dht.standing().await.known && !listed.is_empty(), "{listed:?}");
    assert!(listed.iter().all(|one| !one.connected && !one.addresses.is_empty()), "{listed:?}");
    third.stop().await;
    // Without the file nobody is known, and that is said at once.
    std::fs::write(&file, b"casdpee1 and then nonsense").unwrap();
    let third = home.start(Some(file), &[]).await;
    let asked = Instant::now();
    assert!(!third.dht.joined().await && asked.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_is_written_down_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers");
    let first = Node::server(TCP, &[]).await;
    let second = Home::new().start(Some(file.clone()), &[&first]).await;
    second.knows(1).await;
    until("it is written down", || async { file.exists() }).await;
    // As after a crash: another node begins with what is on disk now.
    let copy = folder.path().join("copy");
    std::fs::copy(&file, &copy).unwrap();
    let third = Home::new().start(Some(copy), &[]).await;
    third.knows(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_alone_joins_within_seconds_of_another_coming_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers");
    let (here, there) = (Home::new(), Home::new());
    let other = there.start(None, &[]).await;
    let node = here.start(Some(file.clone()), &[&other]).await;
    node.knows(1).await;
    node.stop().await;
    other.stop().await;

    let node = here.start(Some(file), &[]).await;
    // Somebody else is there meanwhile, so that the dials are seen to come, and come to nothing.
    let silent = there.bound().await;
    silent.set_read_timeout(Some(super::PATIENCE)).unwrap();
    let mut packet = [0; 2048];
    let knocked = tokio::task::block_in_place(|| silent.recv(&mut packet).is_ok());
    assert!(knocked && node.dht.status().await.routed == 0);
    drop(silent);
    let come = Instant::now();
    let other = there.start(None, &[]).await;
    node.knows(1).await;
    other.knows(1).await;
    assert!(come.elapsed() < Duration::from_secs(15), "{:?}", come.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_that_forgot_each_other_grow_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers");
    let (here, there) = (Home::new(), Home::new());
    let other = there.start(None, &[]).await;
    let node = here.start(Some(file.clone()), &[&other]).await;
    node.knows(1).await;
    node.stop().await;
    other.stop().await;

    // Nobody but this node's memory knows of both halves.
    let ours = Node::server(TCP, &[]).await;
    let node = here.start(Some(file), &[&ours]).await;
    node.knows(1).await;
    let other = there.start(None, &[]).await;
    for half in [&node, &ours, &other] {
        half.knows(2).await;
    }
}
