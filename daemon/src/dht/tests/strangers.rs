//! Nodes that are not of the network, and messages that are not welcome.

use std::num::NonZeroUsize;

use futures::StreamExt;
use libp2p::kad::{self, Quorum, Record, RecordKey, store::MemoryStore};
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{StreamProtocol, identify};

use super::{Node, QUIC, TCP, key, network, options, until, within};
use crate::dht::transport;
use crate::dht::{Error, Options};
use crate::peer::{Announce, Keypair};

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
    assert_eq!(theirs.dht.announce(vec![key(1)], 20).await.messages, 0);
}

#[tokio::test]
async fn network_names_are_checked() {
    for bad in ["", "Casd", "a/b", "a b", &"x".repeat(64)] {
        let bad = Options { network: bad.into(), ..options(TCP, &[]) };
        let tasks = crate::support::task::Tasks::new();
        let started = crate::dht::Dht::start(bad, Keypair::generate_ed25519(), &tasks).await;
        assert!(matches!(started, Err(Error::Network(_))));
    }
}

/// A node that speaks our Kademlia and nothing but what stock libp2p does.
#[derive(libp2p::swarm::NetworkBehaviour)]
struct Stock {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

fn stock() -> Swarm<Stock> {
    let keypair = Keypair::generate_ed25519();
    let local = keypair.public().to_peer_id();
    let kad = kad::Config::new(StreamProtocol::new("/casd/test/kad/1.0.0"));
    let kad = kad::Behaviour::with_config(local, MemoryStore::new(local), kad);
    // It claims the hello as well, so that it is not let go at once.
    let identify = identify::Config::new("/casd/1".into(), keypair.public());
    let behaviour = Stock { kad, identify: identify::Behaviour::new(identify) };
    Swarm::new(
        transport::build(&keypair).unwrap(),
        behaviour,
        local,
        libp2p::swarm::Config::with_tokio_executor(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_and_odd_keys_are_refused() {
    let node = Node::server(QUIC, &[]).await;
    let mut stock = stock();
    let kad = &mut stock.behaviour_mut().kad;
    kad.add_address(&node.dht.0.local, node.address());
    let junk = Record::new(key(1).to_vec(), vec![7; 8 << 10]);
    let put = kad.put_record(junk, Quorum::N(NonZeroUsize::MIN)).unwrap();
    let outcome = within("the put is answered", async {
        loop {
            if let SwarmEvent::Behaviour(StockEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                ..
            })) = stock.select_next_some().await
                && id == put
            {
                break result;
            }
        }
    })
    .await;
    assert!(matches!(outcome, kad::QueryResult::PutRecord(Err(_))), "{outcome:?}");
    let status = node.dht.status().await;
    assert_eq!((status.other_records, status.routed), (0, 0), "it speaks no hello, so it is a stranger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_add_provider_obeys_the_same_limits() {
    let node = Node::server(QUIC, &[]).await;
    let mut stock = stock();
    let kad = &mut stock.behaviour_mut().kad;
    kad.add_address(&node.dht.0.local, node.address());
    for junk in [vec![1; 31], vec![2; 33], key(1).to_vec()] {
        kad.start_providing(RecordKey::from(junk)).unwrap();
    }
    within("the good key is taken", async {
        while node.dht.status().await.other_records == 0 {
            tokio::select! {
                _ = stock.select_next_some() => {}
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    assert_eq!(node.dht.status().await.other_records, 1);
}
