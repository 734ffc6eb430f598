//! Nodes that are not of the network, and messages that are not welcome.

use std::future::Future;
use std::num::NonZeroUsize;

use futures::StreamExt;
use libp2p::kad::Event::OutboundQueryProgressed as Progress;
use libp2p::kad::{self, Quorum, Record, RecordKey, store::MemoryStore};
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{StreamProtocol, identify, request_response};

use super::{Node, QUIC, TCP, key, network, options, until, within};
use crate::dht::codec::Whole;
use crate::dht::hello::Greeting;
use crate::dht::reading::Reading;
use crate::dht::transport;
use crate::dht::{Error, Options};
use crate::peer::{Discovery, Keypair, Multiaddr, PeerId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_network_is_not_joined() {
    let ours = network(TCP, 2).await;
    let theirs = Options { network: "other".into(), ..options(TCP, &[&ours[0]]) };
    let theirs = Node::with(theirs).await;
    let error = within("it is refused", theirs.dht.connect(ours[1].address())).await.unwrap_err();
    assert!(matches!(&error, Error::OtherNetwork { network, .. } if network == "other"), "{error}");
    until("it is let go", || async { theirs.dht.status().await.connected == 0 }).await;
    assert_eq!(theirs.dht.status().await.routed, 0);
    assert_eq!(ours[0].dht.status().await.routed, 1);
    assert_eq!(theirs.announce(vec![key(1)], 20).await.messages, 0);
}

#[tokio::test]
async fn addresses_that_strangers_tell_are_not_dialled_as_if_the_owner_had_given_them() {
    let node = Node::server(TCP, &[]).await;
    let told: Vec<Multiaddr> = ["/ip4/169.254.169.254/tcp/80", "/dns4/internal.invalid/tcp/6379"]
        .map(|at| at.parse().unwrap())
        .to_vec();
    assert!(node.dht.chunk_addresses(PeerId::random(), told.clone()).await.is_empty());
    assert!(told.iter().all(|at| !node.dht.0.reach.allows(at)));
    // The owner may.
    node.dht.vouch(&told[1]);
    assert!(node.dht.0.reach.allows(&told[1]));
}

#[tokio::test]
async fn network_names_are_checked() {
    for bad in ["", "a/b", "a b", "é", &"x".repeat(65)] {
        let bad = Options { network: bad.into(), ..options(TCP, &[]) };
        let tasks = crate::support::task::Tasks::new();
        let started = crate::dht::Dht::start(bad, Keypair::generate_ed25519(), &tasks).await;
        assert!(matches!(started, Err(Error::Network(_))));
    }
}

/// A node of stock libp2p that speaks our Kademlia, and the hello where it wants to be a member.
#[derive(libp2p::swarm::NetworkBehaviour)]
struct Stock {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    hello: request_response::Behaviour<Whole<Greeting>>,
}

fn stock(node: &Node, hello: &'static str) -> Swarm<Stock> {
    let keypair = Keypair::generate_ed25519();
    let local = keypair.public().to_peer_id();
    let kad = kad::Config::new(StreamProtocol::new("/casd/test/kad/1.0.0"));
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), kad);
    kad.add_address(&node.dht.0.local, node.address());
    let identify = identify::Behaviour::new(identify::Config::new("/x/1".into(), keypair.public()));
    let protocols = [(StreamProtocol::new(hello), request_response::ProtocolSupport::Full)];
    let hello = request_response::Behaviour::with_codec(
        Whole::new(Greeting, &Reading::default()),
        protocols,
        Default::default(),
    );
    let config = libp2p::swarm::Config::with_tokio_executor();
    let behaviour = Stock { kad, identify, hello };
    Swarm::new(transport::sockets(&keypair).unwrap(), behaviour, local, config)
}

/// Drives `swarm` until `holds`.
async fn drive<F: Future<Output = bool>>(
    swarm: &mut Swarm<Stock>,
    what: &str,
    mut holds: impl FnMut(Option<SwarmEvent<StockEvent>>) -> F,
) {
    within(what, async {
        while !holds(None).await {
            let event = tokio::select! {
                event = swarm.select_next_some() => event,
                () = tokio::task::yield_now() => continue,
            };
            if holds(Some(event)).await {
                break;
            }
        }
    })
    .await;
}

const HELLO: &str = "/casd/test/hello/1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_refused() {
    let node = Node::server(QUIC, &[]).await;
    let mut stock = stock(&node, HELLO);
    let junk = Record::new(key(1).to_vec(), vec![7; 8 << 10]);
    let kad = &mut stock.behaviour_mut().kad;
    let put = kad.put_record(junk, Quorum::N(NonZeroUsize::MIN)).unwrap();
    let mut refused = false;
    drive(&mut stock, "the put is answered", |event| {
        if let Some(SwarmEvent::Behaviour(StockEvent::Kad(Progress { id, result, .. }))) = event
            && id == put
        {
            assert!(matches!(result, kad::QueryResult::PutRecord(Err(_))), "{result:?}");
            refused = true;
        }
        std::future::ready(refused)
    })
    .await;
    assert_eq!(node.dht.status().await.other_records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_add_provider_obeys_the_same_limits() {
    let node = Node::server(QUIC, &[]).await;
    let mut stock = stock(&node, HELLO);
    for junk in [vec![1; 31], vec![2; 33], key(1).to_vec()] {
        stock.behaviour_mut().kad.start_providing(RecordKey::from(junk)).unwrap();
    }
    let dht = &node.dht;
    let taken = |_| async { dht.status().await.other_records > 0 };
    drive(&mut stock, "the good key is taken", taken).await;
    assert_eq!(node.dht.status().await.other_records, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_hello_is_let_go() {
    let node = Node::server(TCP, &[]).await;
    let mut stock = stock(&node, "/casd/other/hello/1");
    stock.dial(node.address()).unwrap();
    let mut closed = false;
    drive(&mut stock, "it is let go", |event| {
        closed |= matches!(event, Some(SwarmEvent::ConnectionClosed { .. }));
        std::future::ready(closed)
    })
    .await;
    until("it is gone", || async { node.dht.status().await.connected == 0 }).await;
    assert_eq!(node.dht.status().await.routed, 0);
}
